"""Whether a value that was read back is like the one that was written: what of it was lost.

Values are compared part by part, as far as their classes are known: ``==`` is the user's where
they wrote it, and may see less than there is. Nothing of a value is put into the answer, since
what gets lost is often a secret.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from .printing import type_name
from .shapes import is_a, member_path

Difference = tuple[str, str]  # the path, and what is wrong there

_TEXTS_AND_NUMBERS = (str, int, float)
_KEPT_BY_PYDANTIC = frozenset({"__pydantic_private__", "__pydantic_extra__"})
_SEQUENCES = (list, tuple, collections.deque)


def difference(before: Any, after: Any, path: str = "") -> Difference | None:
    """Say where the second value is not like the first; None where it is like it throughout."""
    cls: Any = type(before)
    if cls is not type(after) and not _is_like_class(before, after):
        return path, f"a {type_name(before)} would come back as a {type_name(after)}"
    if issubclass(cls, _SEQUENCES):
        if len(before) != len(after):
            return path, f"{len(before)} elements would come back as {len(after)}"
        return _first(
            (f"{path}[{index}]", one, other)
            for index, (one, other) in enumerate(zip(before, after, strict=True))
        ) or _of_attributes(before, after, path)
    if issubclass(cls, dict):
        return _of_dicts(before, after, path)
    if _has_declared_fields(cls):
        return _of_attributes(before, after, path)
    if cls.__eq__ is object.__eq__:
        return _of_attributes(before, after, path)
    # nan is not equal to itself.
    if before == after or (before != before and after != after):
        return None
    return path, f"this {type_name(before)} would come back as another"


def _is_like_class(before: Any, after: Any) -> bool:
    if is_a(before, _TEXTS_AND_NUMBERS) and is_a(after, _TEXTS_AND_NUMBERS):
        # An enum's member given for a str, or an int for a float, is equal to what comes back.
        return True
    return _origin(type(before)) is _origin(type(after))


def _origin(cls: Any) -> Any:
    generic: Mapping[str, Any] = getattr(cls, "__pydantic_generic_metadata__", {})
    return generic.get("origin") or cls


def _has_declared_fields(cls: Any) -> bool:
    return attrs.has(cls) or dataclasses.is_dataclass(cls) or hasattr(cls, "__pydantic_validator__")


def _first(parts: Iterator[tuple[str, Any, Any]]) -> Difference | None:
    for path, one, other in parts:
        found = difference(one, other, path)
        if found is not None:
            return found
    return None


def _of_dicts(before: dict[Any, Any], after: dict[Any, Any], path: str) -> Difference | None:
    if len(before) != len(after):
        return path, f"{len(before)} entries would come back as {len(after)}"
    for (key, one), (other_key, other) in zip(before.items(), after.items(), strict=True):
        place = path + member_path(key)
        found = difference(key, other_key, place) or difference(one, other, place)
        if found is not None:
            return found
    return _of_attributes(before, after, path)


def _of_attributes(before: Any, after: Any, path: str) -> Difference | None:
    if isinstance(before, (enum.Enum, type, types.FunctionType)):
        return None if before is after else (path, "it would come back as another")
    one, other = attributes(before), attributes(after)
    for name in (*one, *other):
        if (name in one) != (name in other):
            return path + member_path(name), "this would not come back"
    return _first((path + member_path(name), one[name], other[name]) for name in one)


def attributes(value: Any) -> dict[str, Any]:
    """Give what an object has: in its dict, in its slots, and where pydantic keeps the rest."""
    cls: Any = type(value)
    found: dict[str, Any] = {}
    for owner in cls.__mro__:
        for name, member in owner.__dict__.items():
            if type(member) is types.MemberDescriptorType and name != "__pydantic_fields_set__":
                try:
                    found[name] = member.__get__(value, cls)
                except AttributeError:
                    continue
    for name in _KEPT_BY_PYDANTIC & found.keys():
        found.update(found.pop(name) or {})
    found.update(getattr(value, "__dict__", {}))
    for name in cached_names(cls) & found.keys():
        del found[name]
    return found


@functools.lru_cache(maxsize=1_000)
def cached_names(cls: type) -> frozenset[str]:
    """Give the names under which a class keeps what it can work out again."""
    return frozenset(
        name
        for owner in cls.__mro__
        for name, member in owner.__dict__.items()
        if isinstance(member, functools.cached_property)
    )
