"""Snapshots of an entity's fields, so that an operation that fails leaves nothing behind.

What is not known to be immutable is copied, whatever its type: containers of immutables as a
whole, everything else by way of its JSON, or a deep copy where that would not give the same back.
Where copying runs users' code, it does so when the snapshot is taken; putting it back runs none.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import types
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from operator import attrgetter
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs

from ..classes import class_of
from ..errors import PayloadError, RegistrationError
from .annotations import shape_for
from .codec import Codec
from .fields import class_fields, set_attribute
from .likeness import attributes
from .shapes import PLAIN, Shape, member_path

Take = Callable[[Any], Any]
Restore = Callable[[Any, Any], None]


def snapshotter(cls: type) -> tuple[Take, Restore]:
    """Give two functions that undo whatever an operation did to an entity's fields.

    ``take(obj)`` gives a token, ``restore(obj, token)`` sets every field to what it was then, also
    those that were changed in place. A token serves for one restore.

    Raises:
        RegistrationError: ``cls`` is no attrs class or dataclass, or a field has no JSON form.
    """
    if not (attrs.has(cls) or dataclasses.is_dataclass(cls)):
        raise RegistrationError(f"{cls!r} is no attrs class and no dataclass")
    shapes = {field.name: shape_for(field.annotation) for field in class_fields(cls)}
    if not shapes:
        return _take_nothing, _restore_nothing
    if all(shape.immutable for shape in shapes.values()):
        return attrgetter(*shapes), _restorer(tuple(shapes))
    keepers = [(name, _keeper(shape)) for name, shape in shapes.items()]

    def take(obj: Any) -> Any:
        return [keep(getattr(obj, name)) for name, keep in keepers]

    def restore(obj: Any, token: Any) -> None:
        for (name, _), kept in zip(keepers, token, strict=True):
            set_attribute(obj, name, kept() if kept.__class__ is _Kept else kept)

    return take, restore


def _take_nothing(obj: Any) -> Any:
    return None


def _restore_nothing(obj: Any, token: Any) -> None:
    return None


def _restorer(names: tuple[str, ...]) -> Restore:
    if len(names) == 1:
        only = names[0]

        def restore_one(obj: Any, token: Any) -> None:
            set_attribute(obj, only, token)

        return restore_one

    def restore(obj: Any, token: Any) -> None:
        for name, value in zip(names, token, strict=True):
            set_attribute(obj, name, value)

    return restore


class _Kept:
    """The bytes of a value, read back if they are asked for."""

    __slots__ = ("codec", "data")

    def __init__(self, codec: Codec[Any], data: bytes) -> None:
        self.codec = codec
        self.data = data

    def __call__(self) -> Any:
        return self.codec.decode(self.data)


def _by_reference(value: Any) -> Any:
    return value


_IMMUTABLE_CLASSES = frozenset({str, int, bool, float, bytes, type(None)})
_CONTAINERS: frozenset[Any] = frozenset({list, dict, set})


def _keeper(shape: Shape) -> Callable[[Any], Any]:
    if shape.immutable:
        return _by_reference
    if shape.shallow:
        return _shallow
    if shape.unsure:
        return copier(shape)  # reading it back is users' code
    codec: Codec[Any] = Codec(Any, shape)

    def keep(value: Any) -> Any:
        if value.__class__ in _IMMUTABLE_CLASSES:
            return value
        try:
            kept = _Kept(codec, codec.encode(value))
            is_same = not vague or bool(kept() == value)
        except Exception:  # of the codec, or of a user's ==
            return copy.deepcopy(value)
        return kept if is_same else copy.deepcopy(value)

    vague = shape.vague  # then parts that are no plain JSON would come back as that
    return keep


def copier(shape: Shape) -> Callable[[Any], Any]:
    """Give what copies a value of a shape, so that nothing mutable is shared with the copy."""
    if shape.immutable:
        return _by_reference
    if shape.shallow:
        return _shallow
    if shape.vague:
        return _deep
    codec: Codec[Any] = Codec(Any, shape)

    def read_back(value: Any) -> Any:
        if value.__class__ in _IMMUTABLE_CLASSES:
            return value
        if value.__class__ in _CONTAINERS and not value:
            return value.__class__()
        try:
            return codec.decode(codec.encode_unchecked(value))
        except PayloadError:
            return copy.deepcopy(value)

    return read_back


def _shallow(value: Any) -> Any:
    if value.__class__ in _CONTAINERS:
        return value.copy()
    return copy.copy(value)


def _deep(value: Any) -> Any:
    return value if value.__class__ in _IMMUTABLE_CLASSES else copy.deepcopy(value)


def flattener(cls: type, state: Codec[Any]) -> Callable[[Any], Any] | None:
    """Give what makes of an entity's state in memory the one that the store would give back.

    They differ where a part that is annotated ``Any`` is no plain JSON, and where one object is at
    two places. It may change the object that it is given, or give another one; it raises
    ``PayloadError`` where something cannot be stored. None where they cannot differ.
    """
    shapes = {field.name: shape_for(field.annotation) for field in class_fields(cls)}
    readers = [(name, rereader(shape)) for name, shape in shapes.items() if shape.vague]
    is_tangled = tangle_finder(cls)
    if not readers:
        return None if is_tangled is None else lambda obj: _untangled(obj, is_tangled, state)

    def flatten(obj: Any) -> Any:
        for name, reread in readers:
            value = getattr(obj, name)
            if value.__class__ not in PLAIN:
                try:
                    set_attribute(obj, name, reread(value))
                except PayloadError as error:
                    path = f"${member_path(name)}{error.path[1:]}"
                    raise PayloadError(path, error.reason) from None
        return obj if is_tangled is None else _untangled(obj, is_tangled, state)

    return flatten


def _untangled(obj: Any, is_tangled: Callable[[Any], bool], state: Codec[Any]) -> Any:
    return state.decode(state.encode(obj)) if is_tangled(obj) else obj


def rereader(shape: Shape) -> Callable[[Any], Any]:
    """Give what writes a value of a shape and reads it back."""
    codec: Codec[Any] = Codec(Any, shape)

    def reread(value: Any) -> Any:
        return codec.decode(codec.encode_unchecked(value))

    return reread


def tangle_finder(cls: type) -> Callable[[Any], bool] | None:
    """Give what says whether two parts of an entity's state are one object; None where none can be.

    In memory a change of one would be one of the other; read back from the store they are two. It
    looks as deep as there may be something that changes; parts that are annotated ``Any`` are left
    out, since they are read back in any case.
    """
    shapes = {field.name: shape_for(field.annotation) for field in class_fields(cls)}
    mutable = [
        (name, shape.levels)
        for name, shape in shapes.items()
        if not shape.immutable and not shape.vague
    ]
    if not mutable or (len(mutable) == 1 and not mutable[0][1]):
        return None

    def is_tangled(obj: Any) -> bool:
        met: set[int] = set()
        count = 0
        for name, levels in mutable:
            here = _changing((getattr(obj, name),))
            while here:
                met.update(map(id, here))
                count += len(here)
                if len(met) != count:
                    return True
                if not levels:
                    break
                levels -= 1
                here = _changing(part for whole in here for part in _inside(whole))
        return False

    return is_tangled


def _changing(values: Iterable[Any]) -> list[Any]:
    return [one for one in values if one.__class__ not in _FIXED and not _is_single(one)]


def _is_single(value: Any) -> bool:
    """Say whether it is no trouble that an object is met twice: it never changes."""
    cls: type = value.__class__
    return issubclass(cls, _SHARED) or (cls in _SEALED and not value)


def _inside(value: Any) -> Iterable[Any]:
    cls: type = value.__class__
    if cls is list or cls is tuple:
        return cast("Iterable[Any]", value)
    if issubclass(cls, dict):
        return cast("dict[Any, Any]", value).values()
    if issubclass(cls, (list, tuple, set, frozenset, collections.deque)):
        return cast("Iterable[Any]", value)
    found = getattr(value, "__dict__", None)
    return attributes(value).values() if found is None else found.values()


_SEALED: tuple[type, ...] = (tuple, frozenset)
_FIXED = _IMMUTABLE_CLASSES | {
    complex,
    date,
    datetime,
    time,
    timedelta,
    timezone,
    Decimal,
    UUID,
    ZoneInfo,
    type(Ellipsis),
}
_SHARED = (enum.Enum, type, types.FunctionType, types.BuiltinFunctionType)


def is_immutable(value: Any) -> bool:
    """Say whether nothing that can be reached from a value is known to change, ever."""
    cls = class_of(value)
    if cls in _FIXED or issubclass(cls, _SHARED):
        return True
    return cls in (tuple, frozenset) and all(is_immutable(one) for one in value)
