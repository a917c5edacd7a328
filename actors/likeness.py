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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from .printing import type_name
from .shapes import class_of, is_a, member_path

Difference = tuple[str, str]  # the path, and what is wrong there
AsJson = Callable[[Any], Any]

_TEXTS_AND_NUMBERS = (str, int, float)
_KEPT_BY_PYDANTIC = frozenset({"__pydantic_private__", "__pydantic_extra__"})
_PLAIN = (dict, list, str, int, float)
_SEQUENCES = (list, tuple, collections.deque)


def difference(
    before: Any, after: Any, path: str = "", as_json: AsJson | None = None
) -> Difference | None:
    """Say where the second value is not like the first; None where it is like it throughout.

    Args:
        before: the value that was written.
        after: what was read back.
        path: where in a value these are.
        as_json: gives the plain JSON of a value, if that may take its place (under ``Any``).
    """
    cls = class_of(before)
    if cls is not type(after) and not _is_like_class(before, after):
        if as_json is not None and type(after) in _PLAIN and as_json(before) == after:
            return None
        return path, f"a {type_name(before)} would come back as a {type_name(after)}"
    if issubclass(cls, _SEQUENCES):
        if len(before) != len(after):
            return path, f"{len(before)} elements would come back as {len(after)}"
        parts = (
            (f"{path}[{index}]", one, other)
            for index, (one, other) in enumerate(zip(before, after, strict=True))
        )
        return _first(parts, as_json) or _of_attributes(before, after, path, as_json)
    if issubclass(cls, dict):
        return _of_dicts(before, after, path, as_json)
    if _has_declared_fields(cls):
        return _of_attributes(before, after, path, as_json)
    if cls.__eq__ is object.__eq__:
        return _of_attributes(before, after, path, as_json)
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


def _first(parts: Iterator[tuple[str, Any, Any]], as_json: AsJson | None) -> Difference | None:
    for path, one, other in parts:
        found = difference(one, other, path, as_json)
        if found is not None:
            return found
    return None


def _of_dicts(
    before: dict[Any, Any], after: dict[Any, Any], path: str, as_json: AsJson | None
) -> Difference | None:
    if len(before) != len(after):
        return path, f"{len(before)} entries would come back as {len(after)}"
    for (key, one), (other_key, other) in zip(before.items(), after.items(), strict=True):
        place = path + member_path(key)
        found = difference(key, other_key, place, as_json) or difference(one, other, place, as_json)
        if found is not None:
            return found
    return _of_attributes(before, after, path, as_json)


def _of_attributes(before: Any, after: Any, path: str, as_json: AsJson | None) -> Difference | None:
    if isinstance(before, (enum.Enum, type, types.FunctionType)):
        return None if before is after else (path, "it would come back as another")
    one, other = attributes(before), attributes(after)
    for name in (*one, *other):
        if (name in one) != (name in other):
            return path + member_path(name), "this would not come back"
    return _first(((path + member_path(name), one[name], other[name]) for name in one), as_json)


def attributes(value: Any) -> dict[str, Any]:
    """Give what an object has: in its dict, in its slots, and where pydantic keeps the rest."""
    cls = class_of(value)
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
