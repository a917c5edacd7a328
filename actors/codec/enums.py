"""Enums and literals: a few values, each with its text or number."""

from __future__ import annotations

import enum
import typing
from typing import Any

from ..classes import class_of
from .shapes import Fault, Key, Shape, ShapeFor, Unsupported, kinds, wrong, wrong_json


def enum_shape(cls: type[enum.Enum]) -> Shape:
    """Give the shape of an enum: its values, its names, or the number of a flag."""
    if issubclass(cls, enum.Flag):
        return _flag_shape(cls)
    # Users may have put code over value, name, == and hash.
    members: list[Any] = list(cls)
    values = [member._value_ for member in members]
    by_value = all(type(value) is str for value in values) or all(
        type(value) is int and -(2**63) <= value < 2**64 for value in values
    )
    written = {one._name_: one._value_ if by_value else one._name_ for one in members}
    read = {written[one._name_]: one for one in members}
    known = ", ".join(str(text) for text in read)[:80]
    name = cls.__name__

    def encode(value: Any) -> Any:
        if value.__class__ is cls:
            text = written.get(value._name_)
            if text is None or read[text] is not value:
                raise Fault(f"{name} expected, not a member that its class does not list")
            return text
        raise wrong(name, value)

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is str or value.__class__ is int:
            member = read.get(value)
            if member is not None:
                return member
        raise wrong_json(f"one of {known} for {name}", value)

    texts = {str(text): member for text, member in read.items()}

    def decode_key(text: str, _: Any = None) -> Any:
        if text in texts:
            return texts[text]
        raise wrong_json(f"one of {known} for {name}", text)

    kind = "integer" if by_value and values and type(values[0]) is int else "string"
    return Shape(
        name,
        kinds(kind),
        (cls,),
        encode,
        decode,
        immutable=True,
        key=Key(lambda value: str(encode(value)), decode_key),
    )


def _flag_shape(cls: type[enum.Flag]) -> Shape:
    name = cls.__name__

    def encode(value: Any) -> Any:
        if isinstance(value, cls):
            return value._value_
        raise wrong(name, value)

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not int:
            raise wrong_json(f"an integer for {name}", value)
        try:
            return cls(value)
        except ValueError as error:
            raise Fault(str(error)) from None

    return Shape(name, kinds("integer"), (cls,), encode, decode, immutable=True)


def literal_shape(annotation: Any, shape_for: ShapeFor) -> Shape:
    """Give the shape of a ``Literal``; each value looks as its class does."""
    values: tuple[Any, ...] = typing.get_args(annotation)
    shapes = [shape_for(class_of(value)) for value in values]
    # The class is part of the key, since 1 == True.
    written = {
        (class_of(value), value): shape.encode(value)
        for value, shape in zip(values, shapes, strict=True)
    }
    read = {(class_of(text), text): value for (_cls, value), text in written.items()}
    name = f"Literal[{', '.join(repr(value) for value in values)}]"
    if len(read) < len(written):
        raise Unsupported(f"two values of {name} look the same in JSON; leave one of them out")

    def encode(value: Any) -> Any:
        try:
            return written[value.__class__, value]
        except (KeyError, TypeError):
            raise wrong(name, value) from None

    def decode(value: Any, _: Any = None) -> Any:
        try:
            return read[value.__class__, value]
        except (KeyError, TypeError):
            raise wrong_json(name, value) from None

    return Shape(
        name,
        frozenset[str]().union(*(shape.kinds for shape in shapes)),
        tuple(dict.fromkeys(class_of(value) for value in values)),
        encode,
        decode,
        immutable=True,
        key=Key(encode, decode) if all(class_of(value) is str for value in values) else None,
    )
