"""From an annotation to its shape; where it says nothing (``Any``), from the value itself."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import functools
import math
import threading
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NewType, TypeVar, Union
from uuid import UUID

import attrs
import orjson

from ..classes import class_of, has, is_a
from ..errors import RegistrationError
from ..printing import type_name
from .class_shapes import (
    REQUIREMENTS,
    class_shape,
    is_typed_dict,
    named_tuple_shape,
    typed_dict_shape,
)
from .containers import array_shape, dict_shape, fixed_tuple_shape, set_shape
from .enums import enum_shape, literal_shape
from .likeness import Manner, attributes, difference
from .models import is_model, pydantic_shape
from .recursion import recursive_shape
from .scalars import scalar_shapes
from .shapes import PLAIN, Fault, Part, Shape, Unsupported, kinds, member_path
from .unions import union_members, union_shape, variant_shape

_OPTIONS = (
    orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_dumps = orjson.dumps
_shapes: dict[Any, Shape] = scalar_shapes()


def _encode_any(value: Any) -> Any:
    return value


def _decode_any(value: Any, _: Any = None) -> Any:
    return value


def _parts_of_any(value: Any) -> Iterator[Part]:
    if is_a(value, dict):
        entries: dict[Any, Any] = value
        for key, item in entries.items():
            yield Part(member_path(key), ANY, item)
    elif is_a(value, list) or class_of(value) is tuple:
        for index, item in enumerate(value):
            yield Part(f"[{index}]", ANY, item)
    elif not is_a(value, (str, int, float, type(None), enum.Enum)):
        yield from _shape_of_value(value).parts_out(value)


ANY = Shape(
    "Any",
    kinds("null", "boolean", "integer", "float", "string", "array", "object"),
    (object,),
    _encode_any,
    _decode_any,
    is_any=True,
    loose=True,
    vague=True,
    parts_out=_parts_of_any,
    key=_shapes[str].key,
)

_shapes[Any] = _shapes[object] = ANY
_unfinished: dict[Any, Shape] = {}
_finished: dict[Any, Shape] = {}  # while others are not
_making = threading.RLock()


def shape_for(annotation: Any) -> Shape:
    """Give the shape of an annotation, made once for each.

    Raises:
        RegistrationError: no JSON form is known for it.
    """
    try:
        found = _shapes.get(annotation)
    except TypeError:  # unhashable, such as Annotated[int, []]
        return _new_shape(annotation)
    if found is not None:
        return found
    with _making:
        for known in (_shapes, _finished, _unfinished):
            if annotation in known:
                return known[annotation]
        if _has_fields(typing.get_origin(annotation) or annotation):
            _unfinished[annotation] = recursive_shape(annotation, shape_for)
        try:
            shape = _finished[annotation] = _new_shape(annotation)
        finally:
            _unfinished.pop(annotation, None)
            made = {} if _unfinished else dict(_finished)
            if not _unfinished:
                _finished.clear()
        # If it is unsure, so may be what was made on the way and stands in a circle with it,
        # without knowing that. It is made again where it is asked for.
        _shapes.update({annotation: shape} if made and shape.unsure and shape.vague else made)
        return shape


def _has_fields(cls: Any) -> bool:
    return isinstance(cls, type) and (
        attrs.has(cls) or dataclasses.is_dataclass(cls) or has(cls, "_fields") or is_typed_dict(cls)
    )


def _new_shape(annotation: Any) -> Shape:
    try:
        return _shape_of_form(annotation)
    except Unsupported as error:
        raise RegistrationError(str(error)) from None
    except RecursionError:
        raise RegistrationError(f"the type alias {annotation} contains itself") from None


def _shape_of_form(annotation: Any) -> Shape:
    if isinstance(annotation, (str, typing.ForwardRef)):
        raise Unsupported(f"the annotation {annotation!r} cannot be resolved")
    if isinstance(annotation, TypeVar):
        if annotation.__constraints__:
            return union_shape(
                [shape_for(one) for one in annotation.__constraints__], dump_function
            )
        return shape_for(annotation.__bound__ or Any)
    if isinstance(annotation, NewType):
        return shape_for(annotation.__supertype__)
    origin = typing.get_origin(annotation)
    if origin is Annotated or origin in (typing.Final, typing.ClassVar, *REQUIREMENTS):
        return shape_for(typing.get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return union_shape([shape_for(one) for one in union_members(annotation)], dump_function)
    if origin is Literal:
        return literal_shape(annotation, shape_for)
    if origin is tuple and annotation == tuple[()]:  # which has no arguments, as tuple has none
        return fixed_tuple_shape(())
    alias = getattr(annotation, "__value__", None)
    if alias is not None and not isinstance(annotation, type):
        return shape_for(alias)
    cls = origin or annotation
    if isinstance(cls, type):
        shape = _shape_of_container(cls, typing.get_args(annotation)) or _shape_of_class(
            annotation, cls
        )
        if shape is not None:
            return shape
    raise Unsupported(
        f"{_annotation_text(annotation)} has no JSON form; use builtins, a dataclass, an attrs "
        "class, an enum or a pydantic model"
    )


def _annotation_text(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _shape_of_container(cls: Any, arguments: tuple[Any, ...]) -> Shape | None:
    abstract = collections.abc
    if cls is tuple:
        return _tuple_shape(arguments)
    if cls in (dict, collections.OrderedDict, abstract.Mapping, abstract.MutableMapping):
        key, item = arguments or (str, Any)
        return dict_shape(cls, shape_for(key), shape_for(item))
    if cls not in _ARRAYS and cls not in _SETS:
        return None
    item = shape_for(arguments[0] if arguments else Any)
    if cls in _SETS:
        shape = set_shape(*_SETS[cls], item, dump_function(item))
        if cls is abstract.Set:
            frozen = set_shape(frozenset, (frozenset,), item, dump_function(item))
            return variant_shape(shape, frozen, dump_function)
        return shape
    container, accepts, build = _ARRAYS[cls]
    shape = array_shape(container, accepts, item, build)
    if cls in _OR_TUPLE:
        return variant_shape(shape, array_shape(tuple, (tuple,), item, tuple), dump_function)
    return shape


_ARRAYS: dict[Any, tuple[type, tuple[type, ...], Callable[[Any], Any]]] = {
    list: (list, (list,), list),
    collections.deque: (collections.deque, (collections.deque,), collections.deque),
    collections.abc.Sequence: (collections.abc.Sequence, (list,), list),
    collections.abc.MutableSequence: (collections.abc.MutableSequence, (list,), list),
    collections.abc.Collection: (collections.abc.Collection, (list,), list),
    collections.abc.Iterable: (collections.abc.Iterable, (list,), list),
}
_OR_TUPLE = (collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable)

_SETS: dict[Any, tuple[type, tuple[type, ...]]] = {
    set: (set, (set,)),
    frozenset: (frozenset, (frozenset,)),
    collections.abc.Set: (set, (set,)),
    collections.abc.MutableSet: (set, (set,)),
}


def _tuple_shape(arguments: tuple[Any, ...]) -> Shape:
    if not arguments:
        return array_shape(tuple, (tuple,), ANY, tuple)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return array_shape(tuple, (tuple,), shape_for(arguments[0]), tuple)
    return fixed_tuple_shape(tuple(shape_for(argument) for argument in arguments))


def _shape_of_class(annotation: Any, cls: Any) -> Shape | None:
    if issubclass(cls, enum.Enum):
        return enum_shape(cls)
    if is_typed_dict(cls):
        return typed_dict_shape(annotation, cls, shape_for)
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return class_shape(annotation, cls, shape_for)
    if issubclass(cls, tuple) and has(cls, "_fields"):
        return named_tuple_shape(annotation, cls, shape_for)
    if is_model(cls):
        return pydantic_shape(cls)
    return None


def _shape_of_value(value: Any) -> Shape:
    shape, base = _shape_under_any(class_of(value))
    if base is not None:
        _refuse_more(value, base)
    return shape


@functools.lru_cache(maxsize=1_000)
def _shape_under_any(cls: Any) -> tuple[Shape, type | None]:
    """Give the shape of a class's values under Any, and the base of which alone they are written."""
    if cls is object:
        raise Fault("a bare object() cannot be encoded")
    for base, make in _BUILTINS.items():
        if issubclass(cls, base):
            return make(cls), None if cls is base else base
    try:
        return shape_for(cls), None
    except RegistrationError:
        for base in cls.__mro__[1:]:
            if base in _shapes and base is not object:
                return _as_base(base), base
    raise Fault(
        f"a value of type {cls.__qualname__} cannot be encoded; pass builtins, a dataclass, an "
        "attrs class or a pydantic model"
    )


def _loose_set(cls: Any) -> Shape:
    shape = set_shape(set, (cls,), ANY, _dump_loose)
    return attrs.evolve(shape, unsure=False)  # it comes back as an array, whatever is in it


# What is written under Any of a builtin, or of a subclass of it.
_BUILTINS: dict[type, Callable[[Any], Shape]] = {
    str: lambda cls: attrs.evolve(ANY, encode=str.__str__),
    int: lambda cls: attrs.evolve(ANY, encode=int.__int__),
    float: lambda cls: _as_base(float),
    list: lambda cls: attrs.evolve(ANY, encode=list[Any].copy),
    dict: lambda cls: attrs.evolve(ANY, encode=dict[Any, Any].copy),
    set: _loose_set,
    frozenset: _loose_set,
    collections.deque: lambda cls: array_shape(tuple, (cls,), ANY, tuple),
}


def _refuse_more(value: Any, base: type) -> None:
    """Refuse what a value of a subclass has beyond its base: only that is written."""
    for name in attributes(value):
        if name != "default_factory" and not hasattr(base, name):
            raise Fault(
                f"only the {base.__name__} in this {type_name(value)} is written, so what was set "
                "there would be lost",
                member_path(name),
            )


def _as_base(base: type) -> Shape:
    """Give the shape of values of a class and its subclasses, of which plain JSON is read back."""
    shape = _shapes[base]
    if shape.write_subclass is None:
        return shape
    return attrs.evolve(shape, encode=shape.write_subclass)


def _encode_other(value: Any) -> Any:
    """Give orjson, for a class that it does not know, what to write instead."""
    return _shape_of_value(value).encode(value)


def _encode_surely(value: Any) -> Any:
    """The same, of what its own class would read back: of the rest something may be missing."""
    shape = _shape_of_value(value)
    written = shape.encode(value)
    if not shape.unsure:
        return written
    data = _dump_loose(written)
    try:
        lost = difference(value, shape.decode(orjson.loads(data)), manner=_AS_JSON)
    except Fault as fault:
        raise Fault(f"would not be read back: {fault}", fault.where) from None
    if lost is not None:
        where, reason = lost
        raise Fault(reason, where)
    return orjson.loads(data)  # and no Fragment, whose nesting orjson would not count


def plain(value: Any) -> Any:
    """Give the JSON that a value is written to, unchecked."""
    return orjson.loads(_dumps(value, _encode_other, _OPTIONS))


_AS_JSON = Manner(plain)


def dump_function(shape: Shape) -> Callable[[Any], bytes]:
    """Give what writes the JSON that values of a shape were encoded to."""
    return _dump_loose if shape.loose else _dumps


def _dump_loose(value: Any) -> bytes:
    data = _dumps(value, _encode_surely, _OPTIONS)
    # orjson writes nan and the infinities as null. Where it wrote none, there is none; where it
    # did, a walk tells them from None.
    if b"null" in data:
        _refuse_nan(value)
    return data


def _refuse_nan(value: Any) -> None:
    cls = value.__class__
    if cls in PLAIN:
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Fault(f"{value!r} has no JSON form")
    elif is_a(value, dict):
        entries: dict[Any, Any] = value
        for item in entries.values():
            _refuse_nan(item)
    elif issubclass(cls, list) or cls is tuple:
        items: list[Any] = value
        for item in items:
            _refuse_nan(item)
    elif isinstance(value, enum.Enum):
        _refuse_nan(value.value)
    elif not issubclass(cls, (str, int, UUID)):
        _refuse_nan(_encode_other(value))
