"""Snapshots of an entity's fields, so that an operation that fails leaves nothing behind."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import attrs

from .codec import Codec
from .errors import PayloadError, RegistrationError
from .fields import class_fields, set_attribute
from .shapes import Shape
from .shaping import shape_for

Take = Callable[[Any], Any]
Restore = Callable[[Any, Any], None]


def snapshotter(cls: type) -> tuple[Take, Restore]:
    """Give two functions that undo whatever an operation did to an entity's fields.

    ``take(obj)`` gives a token, ``restore(obj, token)`` sets every field to what it was then, also
    those that were changed in place. A token serves for one restore.

    Fields of immutable types are kept by reference and containers of them by a shallow copy; all
    others by their JSON, or by a deep copy where JSON would not give the same back.

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


def _keeper(shape: Shape) -> Callable[[Any], Any]:
    if shape.immutable:
        return _by_reference
    if shape.shallow:
        return copy.copy
    if shape.loose:
        # Parts annotated Any would come back as plain JSON.
        return _deep
    codec: Codec[Any] = Codec(Any, shape)

    def keep(value: Any) -> Any:
        if value.__class__ in _IMMUTABLE_CLASSES:
            return value
        try:
            return _Kept(codec, codec.encode(value))
        except PayloadError:
            return copy.deepcopy(value)

    return keep


def _deep(value: Any) -> Any:
    return value if value.__class__ in _IMMUTABLE_CLASSES else copy.deepcopy(value)
