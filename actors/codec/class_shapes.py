"""Classes with named fields: an object with a key for each."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from ..classes import class_of, has, is_a
from ..printing import repr_of
from .fields import class_fields, is_frozen, runs_code, substitute, type_arguments, type_hints
from .likeness import attributes
from .scalars import HEAP_TYPE
from .shapes import (
    MANY,
    TAG,
    Fault,
    Part,
    Shape,
    ShapeFor,
    Unsupported,
    kinds,
    levels_of,
    member_path,
    wrong,
    wrong_json,
)


def class_shape(annotation: Any, cls: Any, shape_for: ShapeFor) -> Shape:
    """Give the shape of an attrs class or dataclass; ``annotation`` has its type arguments."""
    _check_bases(cls)
    mapping = type_arguments(annotation, cls)
    required: dict[str, bool] = {}
    shapes: dict[str, Shape] = {}
    for field in class_fields(cls):
        shapes[field.name] = shape_for(substitute(field.annotation, mapping))
        required[field.name] = field.required
    frozen = is_frozen(cls)
    from .generated import functions_for  # with cattrs, which a program without classes never needs

    unstructure, structure = functions_for(cls, shapes, frozen)
    name = cls.__name__
    unsure = runs_code(cls)
    in_dict = sum(not _has_slot(cls, field) for field in shapes)
    count = in_dict if cls.__dictoffset__ else None
    spare = _spare_slots(cls, shapes)

    def encode(value: Any) -> Any:
        if value.__class__ is not cls:
            raise wrong(name, value, cls)
        if (count is not None and len(value.__dict__) != count) or spare:
            check_undeclared(value, shapes, unsure)
        return unstructure(value)

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            raise wrong_json(f"an object for {name}", value)
        for field in needed:
            if field not in value:
                raise Fault(f"field {field!r} of {name} is missing")
        return structure(value, cls)

    needed = tuple(field for field, need in required.items() if need)
    return Shape(
        name,
        kinds("object"),
        (cls,),
        encode,
        decode,
        loose=any(shape.loose for shape in shapes.values()),
        vague=any(shape.vague for shape in shapes.values()),
        unsure=unsure or any(shape.unsure for shape in shapes.values()),
        levels=MANY if unsure else levels_of(shapes.values()),
        immutable=frozen and not unsure and all(shape.immutable for shape in shapes.values()),
        is_record=True,
        parts_out=attribute_parts(shapes),
        parts_in=entry_parts(shapes),
    )


def _has_slot(cls: Any, name: str) -> bool:
    return isinstance(inspect.getattr_static(cls, name, None), types.MemberDescriptorType)


def _spare_slots(cls: Any, declared: Container[str]) -> list[str]:
    return [
        name
        for owner in cls.__mro__
        for name, member in owner.__dict__.items()
        if type(member) is types.MemberDescriptorType and name not in declared
    ]


def _check_bases(cls: Any) -> None:
    """Refuse a class that is a list or the like as well: what it has as one would be lost."""
    for base in cls.__mro__[1:-1]:
        if not base.__flags__ & HEAP_TYPE and not issubclass(base, BaseException):
            raise Unsupported(
                f"{cls.__name__} has fields and is a {base.__name__} as well, which would be lost; "
                f"give it a field for the {base.__name__}"
            )


def check_undeclared(value: Any, declared: Container[str], remade: bool) -> None:
    """Refuse a value with attributes that are no fields, unless its class may make them again."""
    cls = class_of(value)
    for name in attributes(value):
        if name not in declared and not remade:
            raise Fault(
                f"{cls.__name__} declares no field {name!r}, so what was set there would be lost",
                member_path(name),
            )


def attribute_parts(shapes: Mapping[str, Shape]) -> Callable[[Any], Iterator[Part]]:
    """Give what finds the parts of a value by its attributes."""

    def parts(value: Any) -> Iterator[Part]:
        for name, shape in shapes.items():
            if hasattr(value, name):
                yield Part(member_path(name), shape, getattr(value, name))

    return parts


def entry_parts(shapes: Mapping[str, Shape]) -> Callable[[Any], Iterator[Part]]:
    """Give what finds the parts of a value, or of its JSON, by its keys."""

    def parts(value: Any) -> Iterator[Part]:
        if is_a(value, dict):
            entries = value
            for name, shape in shapes.items():
                if name in entries:
                    yield Part(member_path(name), shape, entries[name])

    return parts


def named_tuple_shape(annotation: Any, cls: Any, shape_for: ShapeFor) -> Shape:
    """Give the shape of a ``NamedTuple``; ``annotation`` has its type arguments."""
    mapping = type_arguments(annotation, cls)
    hints = type_hints(cls)
    shapes = {name: shape_for(substitute(hints.get(name, Any), mapping)) for name in cls._fields}
    needed = [name for name in shapes if name not in cls._field_defaults]
    name = cls.__name__
    unsure = runs_code(cls)
    has_dict = bool(cls.__dictoffset__)

    def encode(value: Any) -> Any:
        if value.__class__ is not cls:
            raise wrong(name, value, cls)
        if has_dict and value.__dict__:
            check_undeclared(value, (), unsure)
        return {
            field: shape.encode(element)
            for (field, shape), element in zip(shapes.items(), value, strict=True)
        }

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            raise wrong_json(f"an object for {name}", value)
        for field in needed:
            if field not in value:
                raise Fault(f"field {field!r} of {name} is missing")
        return cls(
            **{
                field: shape.decode(value[field])
                for field, shape in shapes.items()
                if field in value
            }
        )

    return Shape(
        name,
        kinds("object"),
        (cls,),
        encode,
        decode,
        loose=any(shape.loose for shape in shapes.values()),
        vague=any(shape.vague for shape in shapes.values()),
        unsure=unsure or any(shape.unsure for shape in shapes.values()),
        immutable=not unsure and all(shape.immutable for shape in shapes.values()),
        levels=MANY if unsure else levels_of(shapes.values()),
        is_record=True,
        parts_out=attribute_parts(shapes),
        parts_in=entry_parts(shapes),
    )


REQUIREMENTS = (typing.Required, typing.NotRequired)


def is_typed_dict(cls: Any) -> bool:
    """Say whether a class is a ``TypedDict``, also one of typing_extensions."""
    # typing.is_typeddict knows those of typing alone.
    return isinstance(cls, type) and issubclass(cls, dict) and has(cls, "__required_keys__")


def typed_dict_shape(annotation: Any, cls: Any, shape_for: ShapeFor) -> Shape:
    """Give the shape of a ``TypedDict``, which takes no keys but its own."""
    mapping = type_arguments(annotation, cls)
    shapes: dict[str, Shape] = {}
    needed: set[str] = set()
    for field, hint in type_hints(cls).items():
        required = field in cls.__required_keys__
        # Under postponed annotations __required_keys__ knows nothing of these two.
        while typing.get_origin(hint) in REQUIREMENTS:
            required = typing.get_origin(hint) is typing.Required
            hint = typing.get_args(hint)[0]
        shapes[field] = shape_for(substitute(hint, mapping))
        if required:
            needed.add(field)
    name = cls.__name__

    def encode(value: Any) -> Any:
        if value.__class__ is not dict:
            raise wrong(name, value, dict)
        written: dict[str, Any] = {}
        entries: dict[Any, Any] = value
        for key, item in entries.items():
            if key not in shapes:
                raise Fault(f"{name} has no key {repr_of(key, 60)}")
            written[key] = shapes[key].encode(item)
        for key in needed:
            if key not in written:
                raise Fault(f"key {key!r} of {name} is missing")
        return written

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            raise wrong_json(f"an object for {name}", value)
        for key in needed:
            if key not in value:
                raise Fault(f"key {key!r} of {name} is missing")
        return {key: shapes[key].decode(item) for key, item in value.items() if key in shapes}

    return Shape(
        name,
        kinds("object"),
        (dict,),
        encode,
        decode,
        loose=any(shape.loose for shape in shapes.values()),
        vague=any(shape.vague for shape in shapes.values()),
        unsure=any(shape.unsure for shape in shapes.values()),
        shallow=all(shape.immutable for shape in shapes.values()),
        levels=levels_of(shapes.values()),
        is_record=TAG not in shapes,
        parts_out=entry_parts(shapes),
        parts_in=entry_parts(shapes),
    )
