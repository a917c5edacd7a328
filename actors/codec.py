"""How values cross: Python to JSON and back, checked against the annotation both ways.

Invariants:

* What ``encode`` lets through, ``decode`` of the same annotation reads back equal, as an instance
  of the annotated class.
* A value that is not of the annotated type is refused by ``encode``, at any depth.
* A value gives the same bytes in every process (sets are sorted by their encoded elements), so
  that inputs can be compared by a hash.
* The path to a bad value is looked for only after the fast way has failed.

The form of each type:

* ``None``, ``bool``, ``int`` (64 bits), finite ``float``, ``str``: as in JSON.
* ``list``, ``tuple``, ``set``, ``frozenset``, ``deque``: arrays. ``dict``: an object; keys that are
  no ``str`` (``int``, enum, ``UUID``, ``date``, ``datetime``) are written as text, if annotated.
* dataclasses, attrs classes, ``NamedTuple``, ``TypedDict``: an object of their fields. Unknown
  fields are ignored when reading, missing ones take their default.
* ``datetime``, ``date``, ``time``: ISO 8601, exact, with the offset that they have or none.
  ``timedelta``: ISO 8601 such as ``P1DT30.5S``; a number of seconds is read too.
* ``UUID`` and ``Decimal``: text. ``bytes``: base64.
* enums: by value if all values are ``str`` or all are ``int``, else by name; flags as ``int``.
* pydantic models: as pydantic writes them.
* unions: bare, if the JSON kind (null, boolean, integer, float, string, array, object) tells the
  members apart. Members that share a kind carry a tag: ``{"$type": "Circle", "radius": 1}`` for a
  class, ``{"$type": "date", "$value": "2024-02-29"}`` for others; ``str`` and ``int`` themselves
  stay bare. As soon as one member has a tag, every member that is an object has one. A tag
  outlives changes of the fields, which a guess from the fields present would not.

Without an annotation (``Any``) every supported value is written, and plain JSON is read back.
"""

from __future__ import annotations

import base64
import collections
import collections.abc
import copy
import dataclasses
import enum
import math
import re
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar, Union, cast
from uuid import UUID

import attrs
import orjson
from cattrs import Converter, gen

from .errors import PayloadError, PayloadTooLargeError, RegistrationError

T = TypeVar("T")

# A cattrs structure hook is called with the type as second argument; every decoder takes it so
# that it can serve as one.
Encoder = Callable[[Any], Any]
Decoder = Callable[..., Any]

MAX_RECURSION = 100
"""How often a type that contains itself may nest in a value."""

_TAG = "$type"
_VALUE = "$value"
_PLAIN = frozenset({str, int, bool, type(None)})
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_TOO_DEEP = "is nested too deeply, or contains itself"

# Its functions for attrs classes have types that are partly unknown.
_gen: Any = gen

# isinstance and type under names that do not narrow: what comes in is Any and stays Any, instead
# of becoming a dict of unknowns.
_is: Callable[[Any, Any], bool] = isinstance
_class_of: Callable[[Any], Any] = type
_has: Callable[[Any, str], bool] = hasattr

_dumps = orjson.dumps
_loads = orjson.loads


class _Fault(Exception):
    """A value that its shape refuses; the text is the reason."""


class _TooDeep(_Fault):
    def __init__(self) -> None:
        super().__init__(_TOO_DEEP)


class _Unsupported(Exception):
    """An annotation that no shape exists for; the text says which and why."""


@attrs.frozen
class _Part:
    """A value inside another: where it is, and what it should be."""

    segment: str
    shape: _Shape
    value: Any


def _no_parts(value: Any) -> Iterable[_Part]:
    return ()


@attrs.frozen
class _Key:
    """How a type is written as the key of a JSON object."""

    encode: Callable[[Any], str]
    decode: Callable[[str], Any]


@attrs.define(eq=False)
class _Shape:
    """How values of one annotation look in JSON."""

    name: str
    kinds: frozenset[str]
    accepts: tuple[type, ...]
    encode: Encoder
    decode: Decoder
    # A value of exactly this class is its own JSON; this saves the calls for whole containers.
    exact: type | None = None
    # Classes taken as well unless another member of a union wants them: int for float.
    also: tuple[type, ...] = ()
    # Something inside is left to orjson, which writes nan as null and knows few classes.
    loose: bool = False
    immutable: bool = False
    # A builtin container of immutables, for which a shallow copy is a full one.
    shallow: bool = False
    # Encodes to an object whose keys are identifiers, so that a tag has room beside them.
    is_record: bool = False
    parts_out: Callable[[Any], Iterable[_Part]] = _no_parts
    parts_in: Callable[[Any], Iterable[_Part]] = _no_parts
    key: _Key | None = None


def _kinds(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # a broken __repr__ must not hide the reason
        text = ""
    text = text if len(text) <= 60 else text[:57] + "..."
    name = type(value).__name__
    return f"{name} {text}" if text else name


def _wrong(expected: str, value: Any) -> _Fault:
    if value is None:
        return _Fault(f"{expected} expected, not None")
    return _Fault(f"{expected} expected, not {_show(value)}")


def _wrong_json(expected: str, value: Any) -> _Fault:
    if _is(value, (dict, list)):
        what = "an object" if _is(value, dict) else "an array"
    else:
        what = orjson.dumps(value).decode()[:60]
    return _Fault(f"{expected} expected, not {what}")


def _member(key: object) -> str:
    text = str(key)
    return f".{text}" if text.isidentifier() else f"[{text!r}]"


# Scalars.


def _encode_int(value: Any) -> Any:
    if isinstance(value, int):
        return value
    raise _wrong("int", value)


def _decode_int(value: Any, _: Any = None) -> Any:
    if value.__class__ is int or value.__class__ is bool:
        return value
    raise _wrong_json("int", value)


def _encode_bool(value: Any) -> Any:
    if value.__class__ is bool:
        return value
    raise _wrong("bool", value)


def _decode_bool(value: Any, _: Any = None) -> Any:
    if value.__class__ is bool:
        return value
    raise _wrong_json("bool", value)


def _encode_str(value: Any) -> Any:
    if isinstance(value, str):
        # The text itself, also of an enum or another subclass.
        return str.__str__(value)
    raise _wrong("str", value)


def _decode_str(value: Any, _: Any = None) -> Any:
    if value.__class__ is str:
        return value
    raise _wrong_json("str", value)


def _encode_none(value: Any) -> Any:
    if value is None:
        return None
    raise _wrong("None", value)


def _decode_none(value: Any, _: Any = None) -> Any:
    if value is None:
        return None
    raise _wrong_json("null", value)


def _encode_float(value: Any) -> Any:
    if value.__class__ is float:
        number = value
    elif isinstance(value, (float, int)) and value.__class__ is not bool:
        number = _exact_float(value)
    else:
        raise _wrong("float", value)
    if math.isfinite(number):
        return number
    raise _Fault(f"{number!r} has no JSON form")


def _exact_float(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise _Fault(f"{_show(value)} is too large for a float") from None
    if number != value and not math.isnan(number):
        raise _Fault(f"{_show(value)} would lose digits as a float")
    return number


def _decode_float(value: Any, _: Any = None) -> Any:
    if value.__class__ is float:
        return value
    if value.__class__ is int:
        return float(value)
    raise _wrong_json("float", value)


def _encode_date(value: Any) -> Any:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise _wrong("date", value)


def _text_encoder(cls: type, write: Callable[[Any], str]) -> Encoder:
    def encode(value: Any) -> Any:
        if isinstance(value, cls):
            return write(value)
        raise _wrong(cls.__name__, value)

    return encode


def _text_decoder(name: str, read: Callable[[str], Any]) -> Decoder:
    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not str:
            raise _wrong_json(f"the text of a {name}", value)
        try:
            return read(value)
        except (ValueError, ArithmeticError):
            raise _Fault(f"{value[:60]!r} is not the text of a {name}") from None

    return decode


_DURATION = re.compile(
    r"P(?:(?P<days>[+-]?\d+)D)?"
    r"(?:T(?:(?P<hours>[+-]?\d+)H)?(?:(?P<minutes>[+-]?\d+)M)?"
    r"(?:(?P<seconds>[+-]?\d+)(?:\.(?P<fraction>\d{1,6}))?S)?)?"
)


def _write_duration(value: timedelta) -> str:
    fraction = f".{value.microseconds:06d}" if value.microseconds else ""
    return f"P{value.days}DT{value.seconds}{fraction}S"


def _read_duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None or text[-1] in "PT":
        raise ValueError(text)
    seconds = match["seconds"] or "0"
    microseconds = int((match["fraction"] or "").ljust(6, "0"))
    return timedelta(
        days=int(match["days"] or 0),
        hours=int(match["hours"] or 0),
        minutes=int(match["minutes"] or 0),
        seconds=int(seconds),
        microseconds=-microseconds if seconds.startswith("-") else microseconds,
    )


_decode_duration_text = _text_decoder("timedelta", _read_duration)


def _decode_duration(value: Any, _: Any = None) -> Any:
    if value.__class__ is int or value.__class__ is float:
        try:
            return timedelta(seconds=value)
        except OverflowError:
            raise _Fault(f"{value!r} seconds are too many for a timedelta") from None
    return _decode_duration_text(value)


def _iso_reader(cls: Any) -> Callable[[str], Any]:
    read: Callable[[str], Any] = cls.fromisoformat

    def read_exactly(text: str) -> Any:
        # fromisoformat takes an offset below a second, such as +00:00:00.000001, for UTC.
        if text[-7:-6] == "." and text[-16:-7] in ("+00:00:00", "-00:00:00"):
            offset = timedelta(microseconds=int(text[-16] + text[-6:]))
            return read(text[:-16]).replace(tzinfo=timezone(offset))
        return read(text)

    return read_exactly


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _int_key(text: str) -> int:
    number = int(text)
    if str(number) != text:  # " 1" or "01": two texts would be one key
        raise ValueError(text)
    return number


def _text_shape(
    cls: type, write: Callable[[Any], str], read: Callable[[str], Any], *, key: bool = False
) -> _Shape:
    name = cls.__name__
    encode, decode = _text_encoder(cls, write), _text_decoder(name, read)
    return _Shape(
        name,
        _kinds("string"),
        (cls,),
        encode,
        decode,
        immutable=True,
        key=_Key(encode, decode) if key else None,
    )


def _exact_shape(cls: type, kind: str, encode: Encoder, decode: Decoder) -> _Shape:
    name = "None" if cls is type(None) else cls.__name__
    return _Shape(name, _kinds(kind), (cls,), encode, decode, exact=cls, immutable=True)


def _scalar_shapes() -> dict[Any, _Shape]:
    integer = _exact_shape(int, "integer", _encode_int, _decode_int)
    integer.key = _Key(
        lambda value: int.__repr__(_encode_int(value)), _text_decoder("int", _int_key)
    )
    text = _exact_shape(str, "string", _encode_str, _decode_str)
    text.key = _Key(_encode_str, _decode_str)
    none = _exact_shape(type(None), "null", _encode_none, _decode_none)
    day = _text_shape(date, date.isoformat, date.fromisoformat, key=True)
    day.encode = _encode_date
    day.key = _Key(_encode_date, day.decode)
    duration = _text_shape(timedelta, _write_duration, _read_duration)
    duration.decode = _decode_duration
    number = _Shape("float", _kinds("float"), (float,), _encode_float, _decode_float)
    number.also, number.immutable = (int,), True
    return {
        int: integer,
        str: text,
        bool: _exact_shape(bool, "boolean", _encode_bool, _decode_bool),
        None: none,
        type(None): none,
        float: number,
        datetime: _text_shape(datetime, datetime.isoformat, _iso_reader(datetime), key=True),
        date: day,
        time: _text_shape(time, time.isoformat, _iso_reader(time)),
        timedelta: duration,
        UUID: _text_shape(UUID, str, UUID, key=True),
        Decimal: _text_shape(Decimal, str, Decimal),
        bytes: _text_shape(bytes, _write_bytes, _read_bytes),
    }


# Untyped values.


def _encode_other(value: Any) -> Any:
    """Give orjson, for a class that it does not know, what to write instead."""
    return _shape_of_value(value).encode(value)


def _shape_of_value(value: Any) -> _Shape:
    cls = _class_of(value)
    if cls is object:
        raise _Fault("a bare object() cannot be encoded")
    if issubclass(cls, (set, frozenset)):
        return shape_for(collections.abc.Set[Any])
    if issubclass(cls, collections.deque):
        return shape_for(collections.deque[Any])
    if issubclass(cls, float):
        return shape_for(float)
    try:
        return shape_for(cls)
    except RegistrationError:
        for base in cls.__mro__[1:]:
            if base in _shapes and base is not object:
                return _shapes[base]
    raise _Fault(
        f"a value of type {cls.__qualname__} cannot be encoded; pass builtins, a dataclass, an "
        "attrs class or a pydantic model"
    )


def _dump_loose(value: Any) -> bytes:
    data = _dumps(value, _encode_other, _OPTIONS)
    # orjson writes nan and the infinities as null. Where it wrote none, there is none; where it
    # did, a walk tells them from None.
    if b"null" in data:
        _refuse_nan(value)
    return data


def _refuse_nan(value: Any) -> None:
    cls = value.__class__
    if cls in _PLAIN:
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Fault(f"{value!r} has no JSON form")
    elif _is(value, dict):
        entries: dict[Any, Any] = value
        for item in entries.values():
            _refuse_nan(item)
    elif issubclass(cls, list) or cls is tuple:
        items: list[Any] = value
        for item in items:
            _refuse_nan(item)
    elif isinstance(value, enum.Enum):
        _refuse_nan(value.value)
    elif not isinstance(value, (str, int, UUID)):
        _refuse_nan(_encode_other(value))


def _encode_any(value: Any) -> Any:
    return value


def _decode_any(value: Any, _: Any = None) -> Any:
    return value


def _parts_of_any(value: Any) -> Iterator[_Part]:
    if _is(value, dict):
        entries: dict[Any, Any] = value
        for key, item in entries.items():
            yield _Part(_member(key), _ANY, item)
    elif _is(value, list) or _class_of(value) is tuple:
        for index, item in enumerate(value):
            yield _Part(f"[{index}]", _ANY, item)
    elif not _is(value, (str, int, float, type(None), enum.Enum)):
        yield from _shape_of_value(value).parts_out(value)


_ANY = _Shape(
    "Any",
    _kinds("null", "boolean", "integer", "float", "string", "array", "object"),
    (object,),
    _encode_any,
    _decode_any,
    loose=True,
    parts_out=_parts_of_any,
    key=_Key(_encode_str, _decode_str),
)


# Containers.


def _items_encoder(cls: Any, name: str, item: _Shape) -> Encoder:
    encode_item, exact = item.encode, item.exact
    if item is _ANY:
        exact = object

    def encode(value: Any) -> Any:
        if not isinstance(value, cls):
            raise _wrong(name, value)
        if exact is object:
            return value
        for element in value:
            if element.__class__ is not exact:
                return [encode_item(element) for element in value]
        return value

    return encode


def _items_decoder(name: str, item: _Shape, build: Callable[[Any], Any]) -> Decoder:
    decode_item, exact = item.decode, item.exact
    if item is _ANY:
        exact = object

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not list:
            raise _wrong_json(f"an array for {name}", value)
        if exact is object:
            return build(value)
        for element in value:
            if element.__class__ is not exact:
                return build([decode_item(element) for element in value])
        return build(value)

    return decode


def _numbered(item: _Shape) -> Callable[[Any], Iterator[_Part]]:
    def parts(value: Any) -> Iterator[_Part]:
        if _is(value, (list, tuple, set, frozenset, collections.deque)):
            for index, element in enumerate(value):
                yield _Part(f"[{index}]", item, element)

    return parts


def _array_shape(
    cls: type, accepts: tuple[type, ...], item: _Shape, build: Callable[[Any], Any]
) -> _Shape:
    name = f"{cls.__name__}[{item.name}]"
    encode = _items_encoder(accepts, name, item)
    if cls is not list:
        # orjson knows no deque, and tuple only by its exact type.
        inner = encode

        def as_list(value: Any) -> Any:
            return list(inner(value))

        encode = as_list
    return _Shape(
        name,
        _kinds("array"),
        accepts,
        encode,
        _items_decoder(name, item, build),
        loose=item.loose,
        immutable=cls is tuple and item.immutable,
        shallow=item.immutable,
        parts_out=_numbered(item),
        parts_in=_numbered(item),
    )


def _set_shape(cls: type, accepts: tuple[type, ...], item: _Shape) -> _Shape:
    name = f"{cls.__name__}[{item.name}]"
    encode_item = item.encode
    dump = _dump_loose if item.loose else _dumps

    wanted: Any = accepts

    def encode(value: Any) -> Any:
        if not isinstance(value, wanted):
            raise _wrong(name, value)
        # The order of a set differs between processes, that of its encoded elements does not.
        return sorted([encode_item(element) for element in value], key=dump)

    def build(items: Any) -> Any:
        try:
            return cls(items)
        except TypeError:
            raise _Fault(f"an array inside a {name} cannot be an element of it") from None

    return _Shape(
        name,
        _kinds("array"),
        accepts,
        encode,
        _items_decoder(name, item, build),
        loose=item.loose,
        immutable=cls is frozenset and item.immutable,
        shallow=item.immutable,
        parts_out=_numbered(item),
        parts_in=_numbered(item),
    )


def _fixed_tuple_shape(items: tuple[_Shape, ...]) -> _Shape:
    name = f"tuple[{', '.join(item.name for item in items) or '()'}]"
    size = len(items)
    encoders = [item.encode for item in items]
    decoders = [item.decode for item in items]

    def encode(value: Any) -> Any:
        if not _is(value, tuple):
            raise _wrong(name, value)
        elements: tuple[Any, ...] = value
        if len(elements) != size:
            raise _Fault(f"{name} expected, not {len(elements)} elements")
        return [write(element) for write, element in zip(encoders, elements, strict=True)]

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not list:
            raise _wrong_json(f"an array for {name}", value)
        if len(value) != size:
            raise _Fault(f"{name} expected, not {len(value)} elements")
        return tuple([read(element) for read, element in zip(decoders, value, strict=True)])

    def parts(value: Any) -> Iterator[_Part]:
        if _is(value, (list, tuple)):
            elements = value
            for index, (item, element) in enumerate(zip(items, elements, strict=False)):
                yield _Part(f"[{index}]", item, element)

    return _Shape(
        name,
        _kinds("array"),
        (tuple,),
        encode,
        decode,
        loose=any(item.loose for item in items),
        immutable=all(item.immutable for item in items),
        parts_out=parts,
        parts_in=parts,
    )


def _dict_shape(cls: Any, key: _Shape, item: _Shape) -> _Shape:
    if key.key is None:
        raise _Unsupported(
            f"a dict with keys of {key.name} has no JSON form; use str, int, an enum, UUID, date "
            "or datetime"
        )
    name = f"{cls.__name__}[{key.name}, {item.name}]"
    return _Shape(
        name,
        _kinds("object"),
        (cls,) if cls in (dict, collections.OrderedDict) else (dict,),
        _dict_encoder(cls, name, key, item),
        _dict_decoder(cls, name, key, item),
        loose=item.loose,
        shallow=item.immutable,
        parts_out=_keyed_out(key, item),
        parts_in=_keyed_in(key, item),
    )


def _dict_encoder(cls: Any, name: str, key: _Shape, item: _Shape) -> Encoder:
    assert key.key is not None
    encode_key, encode_item = key.key.encode, item.encode
    exact = item.exact
    text_keys = key.exact is str or key is _ANY

    def encode(value: Any) -> Any:
        if not isinstance(value, cls):
            raise _wrong(name, value)
        entries = value
        if text_keys and exact is not None:
            for k, v in entries.items():
                if k.__class__ is not str or v.__class__ is not exact:
                    break
            else:
                return entries if _is(entries, dict) else dict(entries)
        written = {encode_key(k): encode_item(v) for k, v in entries.items()}
        if len(written) != len(entries):
            raise _Fault("two keys have the same text")
        return written

    return encode


def _dict_decoder(cls: Any, name: str, key: _Shape, item: _Shape) -> Decoder:
    assert key.key is not None
    decode_key, decode_item = key.key.decode, item.decode
    text_keys = key.exact is str or key is _ANY
    ordered = cls is collections.OrderedDict

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            raise _wrong_json(f"an object for {name}", value)
        if text_keys:
            read = {k: decode_item(v) for k, v in value.items()}
        else:
            read = {decode_key(k): decode_item(v) for k, v in value.items()}
        return collections.OrderedDict(read) if ordered else read

    return decode


def _keyed_out(key: _Shape, item: _Shape) -> Callable[[Any], Iterator[_Part]]:
    assert key.key is not None
    as_key = attrs.evolve(key, encode=key.key.encode, parts_out=_no_parts)

    def parts(value: Any) -> Iterator[_Part]:
        if _is(value, collections.abc.Mapping):
            entries: Mapping[Any, Any] = value
            for k, v in entries.items():
                yield _Part(f" key {_show(k)}", as_key, k)
                yield _Part(_member(k), item, v)

    return parts


def _keyed_in(key: _Shape, item: _Shape) -> Callable[[Any], Iterator[_Part]]:
    assert key.key is not None
    as_key = attrs.evolve(key, decode=key.key.decode, parts_in=_no_parts)

    def parts(value: Any) -> Iterator[_Part]:
        if _is(value, dict):
            for k, v in value.items():
                yield _Part(f" key {k!r}", as_key, k)
                yield _Part(_member(k), item, v)

    return parts


# Enums and literals.


def _enum_shape(cls: type[enum.Enum]) -> _Shape:
    if issubclass(cls, enum.Flag):
        return _flag_shape(cls)
    values = [member.value for member in cls]
    by_value = all(type(value) is str for value in values) or all(
        type(value) is int and -(2**63) <= value < 2**64 for value in values
    )
    written = {member: member.value if by_value else member.name for member in cls}
    read = {text: member for member, text in written.items()}
    known = ", ".join(str(text) for text in read)[:80]
    name = cls.__name__

    def encode(value: Any) -> Any:
        if value.__class__ is cls:
            return written[value]
        raise _wrong(name, value)

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is str or value.__class__ is int:
            member = read.get(value)
            if member is not None:
                return member
        raise _wrong_json(f"one of {known} for {name}", value)

    texts = {str(text): member for text, member in read.items()}

    def decode_key(text: str, _: Any = None) -> Any:
        if text in texts:
            return texts[text]
        raise _wrong_json(f"one of {known} for {name}", text)

    kind = "integer" if by_value and values and type(values[0]) is int else "string"
    return _Shape(
        name,
        _kinds(kind),
        (cls,),
        encode,
        decode,
        immutable=True,
        key=_Key(lambda value: str(encode(value)), decode_key),
    )


def _flag_shape(cls: type[enum.Flag]) -> _Shape:
    name = cls.__name__

    def encode(value: Any) -> Any:
        if isinstance(value, cls):
            return value.value
        raise _wrong(name, value)

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not int:
            raise _wrong_json(f"an integer for {name}", value)
        try:
            return cls(value)
        except ValueError as error:
            raise _Fault(str(error)) from None

    return _Shape(name, _kinds("integer"), (cls,), encode, decode, immutable=True)


def _literal_shape(annotation: Any) -> _Shape:
    values: tuple[Any, ...] = typing.get_args(annotation)
    shapes = [shape_for(_class_of(value)) for value in values]
    # The class is part of the key, since 1 == True.
    written = {
        (_class_of(value), value): shape.encode(value)
        for value, shape in zip(values, shapes, strict=True)
    }
    read = {(_class_of(text), text): value for (_cls, value), text in written.items()}
    name = f"Literal[{', '.join(repr(value) for value in values)}]"

    def encode(value: Any) -> Any:
        try:
            return written[value.__class__, value]
        except (KeyError, TypeError):
            raise _wrong(name, value) from None

    def decode(value: Any, _: Any = None) -> Any:
        try:
            return read[value.__class__, value]
        except (KeyError, TypeError):
            raise _wrong_json(name, value) from None

    return _Shape(
        name,
        frozenset[str]().union(*(shape.kinds for shape in shapes)),
        tuple(dict.fromkeys(_class_of(value) for value in values)),
        encode,
        decode,
        immutable=True,
        key=_Key(encode, decode) if all(_class_of(value) is str for value in values) else None,
    )


# Unions.


@attrs.frozen
class _Choice:
    """A member of a union, with the tag that it is written under, if any."""

    shape: _Shape
    tag: str | None

    def encode(self, value: Any) -> Any:
        written = self.shape.encode(value)
        if self.tag is None:
            return written
        if self.shape.is_record:
            return {_TAG: self.tag, **written}
        return {_TAG: self.tag, _VALUE: written}

    def inner(self, value: Any) -> Any:
        """Take the tag off."""
        if self.tag is None or self.shape.is_record:
            return value
        if _VALUE not in value:
            raise _Fault(f"{_VALUE!r} is missing beside {_TAG!r}")
        return value[_VALUE]


def _union_members(annotation: Any) -> list[Any]:
    """Flatten a union, with its literals made one and without those that a plain type includes."""
    flat = list(_flat_members(annotation))
    plain = {type(None) if member is None else member for member in flat} & _PLAIN
    literals = [v for member in flat if _is_literal(member) for v in typing.get_args(member)]
    literals = [value for value in literals if type(value) not in plain]
    members = [member for member in flat if not _is_literal(member)]
    return [*members, Literal[tuple(literals)]] if literals else members


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Literal


def _flat_members(annotation: Any) -> Iterator[Any]:
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _flat_members(member)
    else:
        yield annotation


def _optional_shape(inner: _Shape) -> _Shape:
    encode_inner, decode_inner = inner.encode, inner.decode

    def encode(value: Any) -> Any:
        return None if value is None else encode_inner(value)

    def decode(value: Any, _: Any = None) -> Any:
        return None if value is None else decode_inner(value)

    def parts_out(value: Any) -> Iterable[_Part]:
        return () if value is None else (_Part("", inner, value),)

    return _Shape(
        f"{inner.name} | None",
        inner.kinds | {"null"},
        (type(None), *inner.accepts),
        encode,
        decode,
        also=inner.also,
        loose=inner.loose,
        immutable=inner.immutable,
        shallow=inner.shallow,
        parts_out=parts_out,
        parts_in=parts_out,
    )


def _union_shape(members: list[_Shape]) -> _Shape:
    if any(member is _ANY for member in members):
        return _ANY
    if len(members) == 1:
        return members[0]
    if len(members) == 2:
        others = [member for member in members if member.exact is not type(None)]
        if len(others) == 1 and "null" not in others[0].kinds:
            return _optional_shape(others[0])
    name = " | ".join(member.name for member in members)
    choices = _choices(members)
    by_class = _by_class(choices)
    pick = _picker(name, choices)

    def encode(value: Any) -> Any:
        candidates = _candidates(by_class, value)
        if not candidates:
            raise _wrong(name, value)
        if len(candidates) == 1:
            return candidates[0].encode(value)
        for choice in candidates:
            try:
                return choice.encode(value)
            except _Fault:
                continue
        raise _wrong(name, value)

    def decode(value: Any, _: Any = None) -> Any:
        choice = pick(value)
        return choice.shape.decode(choice.inner(value))

    def parts_out(value: Any) -> Iterator[_Part]:
        candidates = _candidates(by_class, value)
        if len(candidates) == 1:
            yield _Part("", candidates[0].shape, value)

    def parts_in(value: Any) -> Iterator[_Part]:
        try:
            choice = pick(value)
            inner = choice.inner(value)
        except _Fault:
            return
        yield _Part("" if inner is value else _member(_VALUE), choice.shape, inner)

    return _Shape(
        name,
        frozenset[str]().union(*(_written_kinds(choice) for choice in choices)),
        tuple(dict.fromkeys(cls for member in members for cls in member.accepts)),
        encode,
        decode,
        loose=any(member.loose for member in members),
        immutable=all(member.immutable for member in members),
        parts_out=parts_out,
        parts_in=parts_in,
    )


def _written_kinds(choice: _Choice) -> frozenset[str]:
    return choice.shape.kinds if choice.tag is None else _kinds("object")


def _choices(members: list[_Shape]) -> list[_Choice]:
    owners: dict[str, list[_Shape]] = {}
    for member in members:
        for kind in member.kinds:
            owners.setdefault(kind, []).append(member)
    tagged: set[int] = set()
    for sharing in owners.values():
        if len(sharing) > 1:
            tagged.update(id(member) for member in sharing if member.exact is None)
    if tagged:
        tagged.update(id(member) for member in owners.get("object", ()))
    tags = _tags([member for member in members if id(member) in tagged])
    return [_Choice(member, tags.get(id(member))) for member in members]


def _tags(members: list[_Shape]) -> dict[int, str]:
    used: dict[str, int] = {}
    tags: dict[int, str] = {}
    for member in members:
        tag = member.name
        if tag in used:
            # Two classes of one name: the module tells them apart.
            first = member.accepts[0]
            tag = f"{first.__module__}.{first.__qualname__}"
        if tag in used:
            raise _Unsupported(f"two members of a union are called {member.name}")
        used[tag] = id(member)
        tags[id(member)] = tag
    return tags


def _by_class(choices: list[_Choice]) -> dict[type, list[_Choice]]:
    table: dict[type, list[_Choice]] = {}
    for choice in choices:
        for cls in choice.shape.accepts:
            table.setdefault(cls, []).append(choice)
    for choice in choices:
        for cls in choice.shape.also:
            table.setdefault(cls, [choice])
    return table


def _candidates(by_class: dict[type, list[_Choice]], value: Any) -> list[_Choice]:
    cls = _class_of(value)
    if cls in by_class:
        return by_class[cls]
    for base in cls.__mro__:
        if base in by_class:
            return by_class[base]
    return []


_KIND_OF: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "array",
    dict: "object",
}


def _picker(name: str, choices: list[_Choice]) -> Callable[[Any], _Choice]:
    by_tag = {choice.tag: choice for choice in choices if choice.tag is not None}
    by_kind: dict[str, _Choice] = {}
    for choice in choices:
        if choice.tag is None:
            # The plain type wins over a literal of the same kind, which it includes.
            for kind in choice.shape.kinds:
                if kind not in by_kind or choice.shape.exact is not None:
                    by_kind[kind] = choice
    if "integer" not in by_kind and "float" in by_kind:
        by_kind["integer"] = by_kind["float"]

    def pick(value: Any) -> _Choice:
        kind = _KIND_OF[value.__class__]
        if kind == "object" and by_tag:
            tag = value.get(_TAG)
            if tag.__class__ is str and tag in by_tag:
                return by_tag[tag]
            raise _Fault(f"an object with {_TAG!r} of {', '.join(by_tag)} expected")
        if kind in by_kind:
            return by_kind[kind]
        raise _wrong_json(name, value)

    return pick


# Classes.


@attrs.frozen
class Field:
    """A field of a class, with its annotation resolved.

    Attributes:
        name: the attribute's name.
        annotation: its type; ``Any`` if it has none.
        required: whether it has no default.
    """

    name: str
    annotation: Any
    required: bool


def class_fields(cls: type, names: Mapping[str, Any] | None = None) -> list[Field]:
    """Give the fields of an attrs class or dataclass.

    Args:
        cls: the class.
        names: further names that its annotations may use, such as those local to a function.

    Raises:
        RegistrationError: an annotation has a name that cannot be found.
    """
    if attrs.has(cls):
        try:
            attrs.resolve_types(cls, None, {cls.__name__: cls, **(names or {})})
        except NameError as error:
            raise _unresolved(cls, error) from None
        return [
            Field(a.name, Any if a.type is None else a.type, a.init and a.default is attrs.NOTHING)
            for a in attrs.fields(cls)
        ]
    _resolve_dataclass(cls, names)
    missing = dataclasses.MISSING
    return [
        Field(f.name, f.type, f.init and f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cast("Any", cls))
    ]


def _resolve_dataclass(cls: Any, names: Mapping[str, Any] | None) -> None:
    # Kept in the fields, as attrs does: later there are no local names to resolve them by.
    if "__perdure_resolved__" in cls.__dict__:
        return
    hints = type_hints(cls, names)
    for field in dataclasses.fields(cls):
        field.type = hints.get(field.name, field.type)
    cls.__perdure_resolved__ = True


def type_hints(what: Any, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Resolve the annotations of a class or function.

    Raises:
        RegistrationError: an annotation has a name that cannot be found.
    """
    known = dict(names or {})
    if isinstance(what, type):
        known.setdefault(what.__name__, what)
    try:
        return typing.get_type_hints(what, None, known, include_extras=True)
    except NameError as error:
        raise _unresolved(what, error) from None


def _unresolved(what: Any, error: NameError) -> RegistrationError:
    annotations: dict[str, Any] = dict(getattr(what, "__annotations__", {}))
    users = [
        f"{name}: {text}"
        for name, text in annotations.items()
        if error.name is not None and error.name in str(text)
    ]
    return RegistrationError(
        f"cannot resolve the annotation {', '.join(users) or error.name!r} of "
        f"{getattr(what, '__qualname__', what)}: {error}; define {error.name!r} at module level, "
        "before the decorator runs and outside of TYPE_CHECKING"
    )


def _type_arguments(annotation: Any, cls: Any) -> dict[Any, Any]:
    """Map the type variables of a generic class and its bases to what they stand for."""
    mapping: dict[Any, Any] = {}
    arguments = typing.get_args(annotation)
    if arguments:
        mapping.update(zip(cls.__parameters__, arguments, strict=False))
    for owner in cls.__mro__:
        for base in owner.__dict__.get("__orig_bases__", ()):
            origin = typing.get_origin(base)
            if origin is not None and origin is not Generic:
                for variable, argument in zip(
                    getattr(origin, "__parameters__", ()), typing.get_args(base), strict=False
                ):
                    mapping.setdefault(variable, _substitute(argument, mapping))
    return mapping


def _substitute(annotation: Any, mapping: Mapping[Any, Any]) -> Any:
    if isinstance(annotation, TypeVar):
        return mapping.get(annotation, annotation)
    variables = getattr(annotation, "__parameters__", ())
    if variables and not isinstance(annotation, type):
        return annotation[tuple(mapping.get(variable, variable) for variable in variables)]
    return annotation


# The classes' functions are generated by cattrs once per type. The hooks of the fields are given
# to it one by one, so nothing is ever looked up in the converter.
_converter = Converter(detailed_validation=False)


def _class_shape(annotation: Any, cls: Any) -> _Shape:
    mapping = _type_arguments(annotation, cls)
    required: dict[str, bool] = {}
    shapes: dict[str, _Shape] = {}
    for field in class_fields(cls):
        shapes[field.name] = shape_for(_substitute(field.annotation, mapping))
        required[field.name] = field.required
    frozen = is_frozen(cls)
    hooks = {
        name: gen.override(struct_hook=shape.decode, unstruct_hook=shape.encode)
        for name, shape in shapes.items()
    }
    parameters = getattr(cls, "__parameters__", ())
    # A field without a place in __init__ is set afterwards, which a frozen class refuses.
    options: dict[str, Any] = {"_cattrs_include_init_false": not frozen, **hooks}
    if attrs.has(cls):
        # By its attrs fields also if a base is a dataclass, which is what cattrs sees first.
        anything = {parameter.__name__: Any for parameter in parameters}
        fields: Any = attrs.fields(cls)
        unstructure = _gen.make_dict_unstructure_fn_from_attrs(fields, cls, _converter, **options)
        structure = _gen.make_dict_structure_fn_from_attrs(
            fields, cls, _converter, anything, **options
        )
    else:
        target = cls[(Any,) * len(parameters)] if parameters else cls
        unstructure = _gen.make_dict_unstructure_fn(target, _converter, **options)
        structure = _gen.make_dict_structure_fn(target, _converter, **options)
    name = cls.__name__

    def encode(value: Any) -> Any:
        if not isinstance(value, cls):
            raise _wrong(name, value)
        return unstructure(value)

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            raise _wrong_json(f"an object for {name}", value)
        for field in needed:
            if field not in value:
                raise _Fault(f"field {field!r} of {name} is missing")
        return structure(value, cls)

    needed = tuple(field for field, need in required.items() if need)
    return _Shape(
        name,
        _kinds("object"),
        (cls,),
        encode,
        decode,
        loose=any(shape.loose for shape in shapes.values()),
        immutable=frozen and all(shape.immutable for shape in shapes.values()),
        is_record=True,
        parts_out=_attributes(shapes),
        parts_in=_entries(shapes),
    )


def is_frozen(cls: Any) -> bool:
    """Say whether the fields of an attrs class or dataclass cannot be set."""
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is not None and not attrs.has(cls):
        return bool(parameters.frozen)
    return getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"


def _attributes(shapes: Mapping[str, _Shape]) -> Callable[[Any], Iterator[_Part]]:
    def parts(value: Any) -> Iterator[_Part]:
        for name, shape in shapes.items():
            if hasattr(value, name):
                yield _Part(_member(name), shape, getattr(value, name))

    return parts


def _entries(shapes: Mapping[str, _Shape]) -> Callable[[Any], Iterator[_Part]]:
    def parts(value: Any) -> Iterator[_Part]:
        if _is(value, dict):
            entries = value
            for name, shape in shapes.items():
                if name in entries:
                    yield _Part(_member(name), shape, entries[name])

    return parts


def _named_tuple_shape(cls: Any) -> _Shape:
    hints = type_hints(cls)
    shapes = {name: shape_for(hints.get(name, Any)) for name in cls._fields}
    needed = [name for name in shapes if name not in cls._field_defaults]
    name = cls.__name__

    def encode(value: Any) -> Any:
        if not isinstance(value, cls):
            raise _wrong(name, value)
        return {
            field: shape.encode(element)
            for (field, shape), element in zip(shapes.items(), value, strict=True)
        }

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            raise _wrong_json(f"an object for {name}", value)
        for field in needed:
            if field not in value:
                raise _Fault(f"field {field!r} of {name} is missing")
        return cls(
            **{
                field: shape.decode(value[field])
                for field, shape in shapes.items()
                if field in value
            }
        )

    return _Shape(
        name,
        _kinds("object"),
        (cls,),
        encode,
        decode,
        loose=any(shape.loose for shape in shapes.values()),
        immutable=all(shape.immutable for shape in shapes.values()),
        is_record=True,
        parts_out=_attributes(shapes),
        parts_in=_entries(shapes),
    )


def _typed_dict_shape(cls: Any) -> _Shape:
    shapes: dict[str, _Shape] = {}
    needed: set[str] = set()
    for field, hint in type_hints(cls).items():
        required = field in cls.__required_keys__
        # Under postponed annotations __required_keys__ knows nothing of these two.
        while typing.get_origin(hint) in _REQUIREMENTS:
            required = typing.get_origin(hint) is typing.Required
            hint = typing.get_args(hint)[0]
        shapes[field] = shape_for(hint)
        if required:
            needed.add(field)
    name = cls.__name__

    def encode(value: Any) -> Any:
        if not _is(value, dict):
            raise _wrong(name, value)
        written: dict[str, Any] = {}
        entries: dict[Any, Any] = value
        for key, item in entries.items():
            if key not in shapes:
                raise _Fault(f"{name} has no key {key!r}")
            written[key] = shapes[key].encode(item)
        for key in needed:
            if key not in written:
                raise _Fault(f"key {key!r} of {name} is missing")
        return written

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            raise _wrong_json(f"an object for {name}", value)
        for key in needed:
            if key not in value:
                raise _Fault(f"key {key!r} of {name} is missing")
        return {key: shapes[key].decode(item) for key, item in value.items() if key in shapes}

    return _Shape(
        name,
        _kinds("object"),
        (dict,),
        encode,
        decode,
        loose=any(shape.loose for shape in shapes.values()),
        shallow=all(shape.immutable for shape in shapes.values()),
        is_record=True,
        parts_out=_entries(shapes),
        parts_in=_entries(shapes),
    )


_REQUIREMENTS = (typing.Required, typing.NotRequired)


def _pydantic_shape(cls: Any) -> _Shape:
    name = cls.__name__

    def encode(value: Any) -> Any:
        if not isinstance(value, cls):
            raise _wrong(name, value)
        return value.model_dump(mode="json")

    def decode(value: Any, _: Any = None) -> Any:
        return cls.model_validate(value)

    # Loose, since pydantic lets nan through; no record, since it may forbid unknown fields.
    return _Shape(name, _kinds("object"), (cls,), encode, decode, loose=True)


# From annotation to shape.


class _Depth(threading.local):
    level = 0


_depth = _Depth()


def _recursive_shape(annotation: Any) -> _Shape:
    """Stand in for a shape that is being made: its type contains itself."""

    def target() -> _Shape:
        return shape_for(annotation)

    def decode(value: Any, _: Any = None) -> Any:
        return guarded(target().decode, value)

    def guarded(run: Callable[[Any], Any], value: Any) -> Any:
        # Each level costs several frames of Python's stack. A limit of our own is the same at
        # encode and at decode, whatever was on the stack before, so what was written can be read.
        level = _depth.level
        if level >= MAX_RECURSION:
            raise _TooDeep
        _depth.level = level + 1
        try:
            return run(value)
        finally:
            _depth.level = level

    return _Shape(
        getattr(annotation, "__name__", str(annotation)),
        _kinds("object"),
        (dict if _is_typed_dict(annotation) else typing.get_origin(annotation) or annotation,),
        lambda value: guarded(target().encode, value),
        decode,
        # What is inside is not known yet, so the careful answer.
        loose=True,
        is_record=True,
        parts_out=lambda value: target().parts_out(value),
        parts_in=lambda value: target().parts_in(value),
    )


_shapes: dict[Any, _Shape] = _scalar_shapes()
_shapes[Any] = _shapes[object] = _ANY
_unfinished: dict[Any, _Shape] = {}
_making = threading.RLock()


def shape_for(annotation: Any) -> _Shape:
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
        if annotation in _shapes:
            return _shapes[annotation]
        if annotation in _unfinished:
            return _unfinished[annotation]
        if _has_fields(typing.get_origin(annotation) or annotation):
            _unfinished[annotation] = _recursive_shape(annotation)
        try:
            shape = _new_shape(annotation)
        finally:
            _unfinished.pop(annotation, None)
        _shapes[annotation] = shape
        return shape


def _has_fields(cls: Any) -> bool:
    return isinstance(cls, type) and (
        attrs.has(cls)
        or dataclasses.is_dataclass(cls)
        or _has(cls, "_fields")
        or _is_typed_dict(cls)
    )


def _new_shape(annotation: Any) -> _Shape:
    try:
        return _shape_of_form(annotation)
    except _Unsupported as error:
        raise RegistrationError(str(error)) from None
    except RecursionError:
        raise RegistrationError(f"the type alias {annotation} contains itself") from None


def _shape_of_form(annotation: Any) -> _Shape:
    if isinstance(annotation, (str, typing.ForwardRef)):
        raise _Unsupported(f"the annotation {annotation!r} cannot be resolved")
    if isinstance(annotation, TypeVar):
        if annotation.__constraints__:
            return _union_shape([shape_for(member) for member in annotation.__constraints__])
        return shape_for(annotation.__bound__ or Any)
    if isinstance(annotation, NewType):
        return shape_for(annotation.__supertype__)
    origin = typing.get_origin(annotation)
    if origin is Annotated or origin in (typing.Final, typing.ClassVar, *_REQUIREMENTS):
        return shape_for(typing.get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return _union_shape([shape_for(member) for member in _union_members(annotation)])
    if origin is Literal:
        return _literal_shape(annotation)
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
    raise _Unsupported(
        f"{_annotation_text(annotation)} has no JSON form; use builtins, a dataclass, an attrs "
        "class, an enum or a pydantic model"
    )


def _annotation_text(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _shape_of_container(cls: Any, arguments: tuple[Any, ...]) -> _Shape | None:
    abstract = collections.abc
    if cls is tuple:
        return _tuple_shape(arguments)
    if cls in (dict, collections.OrderedDict, abstract.Mapping, abstract.MutableMapping):
        key, item = arguments or (str, Any)
        return _dict_shape(cls, shape_for(key), shape_for(item))
    if cls not in _ARRAYS and cls not in _SETS:
        return None
    item = shape_for(arguments[0] if arguments else Any)
    if cls in _SETS:
        return _set_shape(*_SETS[cls], item)
    container, accepts, build = _ARRAYS[cls]
    return _array_shape(container, accepts, item, build)


_ARRAYS: dict[Any, tuple[type, tuple[type, ...], Callable[[Any], Any]]] = {
    list: (list, (list,), list),
    collections.deque: (collections.deque, (collections.deque,), collections.deque),
    # Whatever was passed for these is read back as a list, which they promise no more than.
    collections.abc.Sequence: (collections.abc.Sequence, (list, tuple), list),
    collections.abc.MutableSequence: (collections.abc.MutableSequence, (list,), list),
    collections.abc.Collection: (collections.abc.Collection, (list, tuple), list),
    collections.abc.Iterable: (collections.abc.Iterable, (list, tuple), list),
}

_SETS: dict[Any, tuple[type, tuple[type, ...]]] = {
    set: (set, (set,)),
    frozenset: (frozenset, (frozenset,)),
    collections.abc.Set: (set, (set, frozenset)),
    collections.abc.MutableSet: (set, (set,)),
}


def _tuple_shape(arguments: tuple[Any, ...]) -> _Shape:
    if not arguments:
        return _array_shape(tuple, (tuple,), _ANY, tuple)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _array_shape(tuple, (tuple,), shape_for(arguments[0]), tuple)
    return _fixed_tuple_shape(tuple(shape_for(argument) for argument in arguments))


def _is_typed_dict(cls: Any) -> bool:
    # Those of typing_extensions are no TypedDict for typing.is_typeddict.
    return isinstance(cls, type) and issubclass(cls, dict) and _has(cls, "__required_keys__")


def _shape_of_class(annotation: Any, cls: Any) -> _Shape | None:
    if issubclass(cls, enum.Enum):
        return _enum_shape(cls)
    if _is_typed_dict(cls):
        return _typed_dict_shape(cls)
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return _class_shape(annotation, cls)
    if issubclass(cls, tuple) and _has(cls, "_fields"):
        return _named_tuple_shape(cls)
    if _has(cls, "__pydantic_validator__") and _has(cls, "model_validate"):
        return _pydantic_shape(cls)
    return None


# Codecs.


class Codec(Generic[T]):
    """Writes and reads the values of one annotation. Get it from ``codec_for``.

    Attributes:
        annotation: what values must be.
        is_any: whether anything goes, and plain JSON is read back.
        encode: gives the JSON of a value as bytes; raises ``PayloadError`` with the path to what
            is not of the annotated type or has no JSON form.
        decode: reads such bytes; raises ``PayloadError``.
        from_json: reads an already parsed JSON value; raises ``PayloadError``. The result shares
            no mutable container with it, except in parts annotated ``Any``, which are it.
        to_json: gives what ``encode`` writes as something to be written at once by ``dump``; it
            may share containers with the value.
        dump: writes what ``to_json`` gave, alone or inside of lists and dicts.
        shape: how the values look.
    """

    __slots__ = (
        "annotation",
        "decode",
        "dump",
        "encode",
        "from_json",
        "is_any",
        "shape",
        "to_json",
    )

    annotation: Any
    is_any: bool
    encode: Callable[[object], bytes]
    decode: Callable[[bytes], T]
    from_json: Callable[[Any], T]
    to_json: Callable[[object], Any]
    dump: Callable[[Any], bytes]
    shape: _Shape

    def __init__(self, annotation: Any, shape: _Shape | None = None) -> None:
        self.annotation = annotation
        if shape is None:
            shape = shape_for(annotation)
        self.shape = shape
        self.is_any = shape is _ANY
        self.dump = _dump_loose if shape.loose else _dumps
        self.to_json = shape.encode
        self.encode = _encode_function(shape)
        self.from_json = _from_json_function(shape)
        self.decode = _decode_function(shape)

    def __repr__(self) -> str:
        return f"<Codec of {self.shape.name}>"


def _encode_function(shape: _Shape) -> Callable[[object], bytes]:
    to_json = shape.encode
    if shape.loose:
        dump = _dump_loose

        def encode_loose(value: Any) -> bytes:
            try:
                if value.__class__ in plain:
                    return _dumps(value)
                return dump(to_json(value))
            except Exception as error:
                raise _encode_error(shape, value, error) from None

        plain = _PLAIN if shape is _ANY else frozenset[type]()
        return encode_loose

    exact = shape.exact

    def encode(value: Any) -> bytes:
        try:
            if value.__class__ is exact:
                return _dumps(value)
            return _dumps(to_json(value))
        except Exception as error:
            raise _encode_error(shape, value, error) from None

    return encode


def _from_json_function(shape: _Shape) -> Callable[[Any], Any]:
    decode = shape.decode
    if shape is _ANY:
        return _decode_any

    def from_json(parsed: Any) -> Any:
        try:
            return decode(parsed)
        except Exception as error:
            raise _decode_error(shape, parsed, error) from None

    return from_json


def _decode_function(shape: _Shape) -> Callable[[bytes], Any]:
    read, exact = shape.decode, shape.exact

    def decode(data: bytes) -> Any:
        try:
            parsed = _loads(data)
        except orjson.JSONDecodeError as error:
            raise PayloadError("$", f"not JSON: {error}") from None
        if parsed.__class__ is exact:
            return parsed
        try:
            return read(parsed)
        except Exception as error:
            raise _decode_error(shape, parsed, error) from None

    return decode


def _encode_error(shape: _Shape, value: Any, error: Exception) -> PayloadError:
    def attempt(shape: _Shape, value: Any) -> None:
        (_dump_loose if shape.loose else _dumps)(shape.encode(value))

    return _locate(shape, value, error, attempt, lambda part: part.shape.parts_out(part.value))


def _decode_error(shape: _Shape, value: Any, error: Exception) -> PayloadError:
    def attempt(shape: _Shape, value: Any) -> None:
        shape.decode(value)

    return _locate(shape, value, error, attempt, lambda part: part.shape.parts_in(part.value))


def _locate(
    shape: _Shape,
    value: Any,
    error: Exception,
    attempt: Callable[[_Shape, Any], None],
    parts: Callable[[_Part], Iterable[_Part]],
) -> PayloadError:
    """Go down from a value that failed to the innermost one that fails."""
    path, here = "$", _Part("", shape, value)
    reason = _reason(error)
    # Going down into a value that contains itself would never end.
    while not reason.endswith(_TOO_DEEP):
        failed = _first_failing(here, parts, attempt)
        if failed is None:
            break
        here, reason = failed
        path += here.segment
    return PayloadError(path, reason)


def _first_failing(
    whole: _Part,
    parts: Callable[[_Part], Iterable[_Part]],
    attempt: Callable[[_Shape, Any], None],
) -> tuple[_Part, str] | None:
    try:
        for part in parts(whole):
            try:
                attempt(part.shape, part.value)
            except Exception as error:
                return part, _reason(error)
    except Exception:  # it has no parts to speak of: its own reason stands
        return None
    return None


def _reason(error: BaseException) -> str:
    if isinstance(error, _Fault):
        return str(error)
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if type(error) is TypeError:  # orjson.JSONEncodeError is TypeError itself
        if error.__cause__ is not None:
            return _reason(error.__cause__)
        if "ecursion limit" in str(error):
            return _TOO_DEEP
        return str(error)
    return f"{type(error).__name__}: {error}"


_codecs: dict[Any, Codec[Any]] = {}


def codec_for(annotation: Any) -> Codec[Any]:
    """Give the codec of an annotation, made once for each.

    Raises:
        RegistrationError: the annotation, or one inside it, has no JSON form.
    """
    try:
        found = _codecs.get(annotation)
    except TypeError:  # unhashable, such as Annotated[int, []]
        return Codec(annotation)
    if found is None:
        found = _codecs[annotation] = Codec(annotation)
    return found


def compact(data: bytes) -> bytes:
    """Give a short JSON text in no more memory than it needs, for keeping it.

    orjson gives its whole output buffer away with the text, a few KiB for the shortest.
    """
    return bytes(memoryview(data)) if len(data) < 2048 else data


def check_size(data: bytes, limit: int, what: str) -> bytes:
    """Give the data back if it has at most ``limit`` bytes.

    Raises:
        PayloadTooLargeError: it has more; ``what`` is named as its path.
    """
    if len(data) > limit:
        raise PayloadTooLargeError(what, len(data), limit)
    return data


# An entity's state.

SCHEMA = "$schema"
"""The key of the schema version in a stored state; no field can be called so."""


def state_codec(
    cls: type,
    make: Callable[[], Any],
    schema_version: int = 1,
    upgrade: Callable[[dict[str, Any], int], dict[str, Any]] | None = None,
) -> Codec[Any]:
    """Give the codec of an entity's state: an object of its fields.

    Reading makes a fresh object and sets the fields that are stored; fields that are no longer
    declared are ignored, new ones keep their default. A version above 1 is stored with the state;
    a state of a lower version goes through ``upgrade`` first, one of a higher is refused.

    Args:
        cls: the entity's class, an attrs class or dataclass.
        make: gives a fresh object.
        schema_version: the version of the fields as they are declared now.
        upgrade: takes stored fields and their version, gives those of the present version.
    """
    shape = shape_for(cls)
    fields = [(field.name, shape_for(field.annotation)) for field in class_fields(cls)]
    write = shape.encode

    def encode(value: Any) -> Any:
        return {SCHEMA: schema_version, **write(value)}

    def current(stored: Any) -> dict[str, Any]:
        if stored.__class__ is not dict:
            raise _wrong_json(f"an object for {cls.__name__}", stored)
        version = stored.get(SCHEMA, 1)
        if version.__class__ is not int or version > schema_version:
            raise _Fault(
                f"stored by schema_version {version}, but {cls.__name__} is at {schema_version}; "
                "run the newer code again"
            )
        if version < schema_version and upgrade is not None:
            kept = {name: item for name, item in stored.items() if name != SCHEMA}
            return upgrade(kept, version)
        return stored

    def decode(stored: Any, _: Any = None) -> Any:
        values = current(stored)
        made = make()
        for name, field in fields:
            if name in values:
                _set_attribute(made, name, field.decode(values[name]))
        return made

    def parts_in(stored: Any) -> Iterable[_Part]:
        return entries(current(stored))

    entries = _entries(dict(fields))
    return Codec(
        cls,
        attrs.evolve(
            shape, encode=encode if schema_version > 1 else write, decode=decode, parts_in=parts_in
        ),
    )


# Snapshots of an entity's fields.

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
            _set_attribute(obj, name, kept() if kept.__class__ is _Kept else kept)

    return take, restore


# A class may convert or check what is set; a value that was there before needs neither.
_set_attribute = object.__setattr__


def _take_nothing(obj: Any) -> Any:
    return None


def _restore_nothing(obj: Any, token: Any) -> None:
    return None


def _restorer(names: tuple[str, ...]) -> Restore:
    if len(names) == 1:
        only = names[0]

        def restore_one(obj: Any, token: Any) -> None:
            _set_attribute(obj, only, token)

        return restore_one

    def restore(obj: Any, token: Any) -> None:
        for name, value in zip(names, token, strict=True):
            _set_attribute(obj, name, value)

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


def _keeper(shape: _Shape) -> Callable[[Any], Any]:
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
