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
import math
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Set as AbstractSet
from datetime import datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import attrs

from ..classes import class_of, is_a
from ..printing import type_name
from .scalars import is_bare_number
from .shapes import member_path

Difference = tuple[str, str]  # the path, and what is wrong there

_TEXTS_AND_NUMBERS = (str, int, float)
_KEPT_BY_PYDANTIC = frozenset({"__pydantic_private__", "__pydantic_extra__"})
_PLAIN = (dict, list, str, int, float)
_SEQUENCES = (list, tuple, collections.deque)
_CACHED_HASH = frozenset({"_attrs_cached_hash"})
_BESIDE_ITEMS = ("maxlen", "default_factory")


@attrs.frozen
class Manner:
    """What is taken for alike beside what is equal and of the same class.

    Attributes:
        as_json: gives the plain JSON of a value, if that may take its place (under ``Any``).
        is_vague: says of a class with fields whether that holds inside of its objects, too.
        exact: whether an enum is not taken for its text or number, nor an int for its float.
    """

    as_json: Callable[[Any], Any] | None = None
    is_vague: Callable[[Any], bool] = lambda cls: True
    exact: bool = False

    def takes_json(self, before: Any, after: Any) -> bool:
        """Whether what was read back is the plain JSON of a value, and may be."""
        return self.as_json is not None and difference(self.as_json(before), after) is None

    def inside(self, cls: Any) -> Manner:
        """Give the manner for the fields of a class."""
        return self if self.as_json is None or self.is_vague(cls) else USUAL


USUAL = Manner()
EXACT = Manner(exact=True)


def difference(
    before: Any, after: Any, path: str = "", manner: Manner = USUAL
) -> Difference | None:
    """Say where the second value is not like the first; None where it is like it throughout.

    Args:
        before: the value that was written.
        after: what was read back.
        path: where in a value these are.
        manner: what is taken for alike.
    """
    if before is after:
        return None
    cls = class_of(before)
    if cls is not type(after) and (manner.exact or not _is_like_class(before, after)):
        if type(after) in _PLAIN and manner.takes_json(before, after):
            return None
        return path, f"a {type_name(before)} would come back as a {type_name(after)}"
    if issubclass(cls, _SEQUENCES):
        if len(before) != len(after):
            return path, f"{len(before)} elements would come back as {len(after)}"
        parts = (
            (f"{path}[{index}]", one, other)
            for index, (one, other) in enumerate(zip(before, after, strict=True))
        )
        return _first(parts, manner) or _of_container(before, after, path, manner)
    if issubclass(cls, dict):
        return _of_dicts(before, after, path, manner)
    if issubclass(cls, (set, frozenset)):
        return _of_sets(before, after, path, manner)
    if _has_declared_fields(cls):
        return _of_object(before, after, path, manner.inside(cls))
    if cls.__eq__ is object.__eq__:
        if not cls.__dictoffset__ and not attributes(before):
            return path, f"a {type_name(before)} cannot be compared with what is read back"
        return _of_object(before, after, path, manner)
    return _of_single(before, after, path)


def _is_like_class(before: Any, after: Any) -> bool:
    """Whether it is a member of an enum, or an int, given for what it is equal to."""
    cls, other = class_of(before), class_of(after)
    if is_a(before, enum.Enum):
        return is_a(before, _TEXTS_AND_NUMBERS) and other in _TEXTS_AND_NUMBERS
    if other is float and (cls is int or is_bare_number(before)):
        return True
    return _origin(cls) is _origin(other)


def _of_single(before: Any, after: Any, path: str) -> Difference | None:
    """Compare what has no parts: ``==`` says too little of some."""
    if is_a(before, (datetime, time)):
        if before.replace(tzinfo=None) == after.replace(tzinfo=None) and _is_same_hour(
            before, after
        ):
            return None
        if before == after:
            return path, f"the time zone or fold of this {type_name(before)} would be lost; use UTC"
    elif is_a(before, Decimal):
        if before.as_tuple() == after.as_tuple():
            return None
    elif is_a(before, float) and is_a(after, float):
        if before == after and math.copysign(1, before) == math.copysign(1, after):
            return None
        if math.isnan(before) and math.isnan(after):
            return None
    elif is_a(before, complex):
        if repr(before) == repr(after):  # with the signs of its zeros
            return None
    elif before == after or (before != before and after != after):
        return None
    return path, f"this {type_name(before)} would come back as another"


def _is_same_hour(one: Any, other: Any) -> bool:
    if one.fold != other.fold:
        return False
    zone, read = one.tzinfo, other.tzinfo
    if zone is None or read is None or zone == read:
        return bool(zone == read)
    if class_of(zone) is ZoneInfo and class_of(read) is ZoneInfo:
        return bool(zone.key == read.key)
    offset = zone.utcoffset(None)
    return offset is not None and offset == read.utcoffset(None)


def _origin(cls: Any) -> Any:
    generic: Mapping[str, Any] = getattr(cls, "__pydantic_generic_metadata__", {})
    return generic.get("origin") or cls


def _has_declared_fields(cls: Any) -> bool:
    return attrs.has(cls) or dataclasses.is_dataclass(cls) or hasattr(cls, "__pydantic_validator__")


def _first(parts: Iterator[tuple[str, Any, Any]], manner: Manner) -> Difference | None:
    for path, one, other in parts:
        found = difference(one, other, path, manner)
        if found is not None:
            return found
    return None


def _of_dicts(
    before: dict[Any, Any], after: dict[Any, Any], path: str, manner: Manner
) -> Difference | None:
    if len(before) != len(after):
        return path, f"{len(before)} entries would come back as {len(after)}"
    for (key, one), (other_key, other) in zip(before.items(), after.items(), strict=True):
        place = path + member_path(key)
        found = difference(key, other_key, place, manner) or difference(one, other, place, manner)
        if found is not None:
            return found
    return _of_container(before, after, path, manner)


def _of_sets(
    before: AbstractSet[Any], after: AbstractSet[Any], path: str, manner: Manner
) -> Difference | None:
    if len(before) != len(after):
        return path, f"{len(before)} elements would come back as {len(after)}"
    found = {one: one for one in after}
    for one in before:
        if one not in found:
            if manner.as_json is not None and manner.takes_json(before, manner.as_json(after)):
                return None
            return path, f"a {type_name(one)} in it would come back as another"
        lost = difference(one, found[one], path, manner)
        if lost is not None:
            return lost
    return _of_container(before, after, path, manner)


def _of_container(before: Any, after: Any, path: str, manner: Manner) -> Difference | None:
    for name in _BESIDE_ITEMS:
        one, other = getattr(before, name, None), getattr(after, name, None)
        if one is not other and one != other:
            return path, f"the {name} of a {type_name(before)} would be lost"
    return _of_attributes(before, after, path, manner)


class _Met(threading.local):
    """The objects that a comparison has come by, kept so that no other gets their id."""

    def __init__(self) -> None:
        self.pairs: dict[tuple[int, int, int], object] = {}


_met = _Met()


def _of_object(before: Any, after: Any, path: str, manner: Manner) -> Difference | None:
    pairs, pair = _met.pairs, (id(before), id(after), id(manner))
    if pair in pairs:
        return None  # a part that knows its whole, or others, leads back to them
    is_outermost = not pairs
    pairs[pair] = before, after, manner
    try:
        return _of_attributes(before, after, path, manner)
    finally:
        if is_outermost:
            pairs.clear()


def _of_attributes(before: Any, after: Any, path: str, manner: Manner) -> Difference | None:
    if isinstance(before, (enum.Enum, type, types.FunctionType)):
        return None if before is after else (path, "it would come back as another")
    one, other = attributes(before), attributes(after)
    for name in (*one, *other):
        if (name in one) != (name in other):
            return path + member_path(name), "this would not come back"
    return _first(((path + member_path(name), one[name], other[name]) for name in one), manner)


def attributes(value: Any) -> dict[str, Any]:
    """Give what an object has: in its dict, in its slots, and where pydantic keeps the rest."""
    cls = class_of(value)
    found: dict[str, Any] = {}
    slots, fields = _places(cls)
    for name, read in slots:
        try:
            found[name] = read(value, cls)
        except AttributeError:
            continue
    for name in _KEPT_BY_PYDANTIC & found.keys():
        found.update(found.pop(name) or {})
    found.update(getattr(value, "__dict__", {}))
    for name in fields:
        if name not in found and hasattr(value, name):
            found[name] = getattr(value, name)  # its class has the default
    if is_a(value, BaseException):
        found["args"] = value.args
    for name in cached_names(cls) & found.keys():
        del found[name]
    return found


@functools.lru_cache(maxsize=1_000)
def _places(cls: type) -> tuple[list[tuple[str, Any]], list[str]]:
    """Give the slots of a class, with what reads each, and a dataclass's fields."""
    slots = {
        name: member.__get__
        for owner in cls.__mro__
        for name, member in owner.__dict__.items()
        if _is_slot(member) and name != "__pydantic_fields_set__"
    }
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return list(slots.items()), [field.name for field in fields]


@functools.lru_cache(maxsize=1_000)
def cached_names(cls: type) -> frozenset[str]:
    """Give the names under which a class keeps what it can work out again."""
    fields = {field.name for field in attrs.fields(cls)} if attrs.has(cls) else set[str]()
    return _CACHED_HASH | frozenset(
        name
        for owner in cls.__mro__
        for name, member in owner.__dict__.items()
        if isinstance(member, functools.cached_property)
        # attrs makes slots of its own for the values of cached properties.
        or ("__attrs_attrs__" in owner.__dict__ and name not in fields and _is_slot(member))
    )


def _is_slot(member: object) -> bool:
    return type(member) is types.MemberDescriptorType
