"""Scalars: numbers, texts, times and bytes, none of which has parts."""

from __future__ import annotations

import base64
import enum
import functools
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..classes import class_of, is_a
from ..printing import type_name
from .shapes import Decoder, Encoder, Fault, Key, Shape, kinds, show, wrong, wrong_json


def _encode_int(value: Any) -> Any:
    if value.__class__ is int or value.__class__ is bool:
        return value
    if isinstance(value, int) and isinstance(value, enum.Enum):
        return int.__int__(value)  # equal to its number, and has nothing else
    raise wrong("int", value, int)


def _decode_int(value: Any, _: Any = None) -> Any:
    if value.__class__ is int or value.__class__ is bool:
        return value
    raise wrong_json("int", value)


def _encode_bool(value: Any) -> Any:
    if value.__class__ is bool:
        return value
    raise wrong("bool", value)


def _decode_bool(value: Any, _: Any = None) -> Any:
    if value.__class__ is bool:
        return value
    raise wrong_json("bool", value)


def _encode_str(value: Any) -> Any:
    if value.__class__ is str:
        return value
    if isinstance(value, str) and isinstance(value, enum.Enum):
        return str.__str__(value)  # equal to its text, and has nothing else
    raise wrong("str", value, str)


def _decode_str(value: Any, _: Any = None) -> Any:
    if value.__class__ is str:
        return value
    raise wrong_json("str", value)


def _encode_none(value: Any) -> Any:
    if value is None:
        return None
    raise wrong("None", value)


def _decode_none(value: Any, _: Any = None) -> Any:
    if value is None:
        return None
    raise wrong_json("null", value)


def _encode_float(value: Any) -> Any:
    if value.__class__ is float:
        number = value
    elif value.__class__ is int or is_bare_number(value):
        number = _exact_float(value)
    else:
        raise wrong("float", value, *(() if value.__class__ is bool else (float, int)))
    if math.isfinite(number):
        return number
    raise Fault(f"{number!r} has no JSON form")


def is_bare_number(value: Any) -> bool:
    """Say whether it is a member of an enum of numbers, or a float of C code such as numpy's."""
    if isinstance(value, enum.Enum):
        return isinstance(value, (float, int))
    cls = class_of(value)
    return issubclass(cls, float) and cls.__basicsize__ == float.__basicsize__ and _is_static(cls)


def _is_static(cls: type) -> bool:
    return not cls.__flags__ & HEAP_TYPE


HEAP_TYPE = 1 << 9
"""The flag of a class that was made by a class statement."""


def _exact_float(value: Any) -> float:
    plain: float
    plain = float.__float__(value) if is_a(value, float) else int.__int__(value)
    try:
        number = float(plain)
    except OverflowError:
        raise Fault(f"{show(value)} is too large for a float") from None
    if number != plain and not math.isnan(number):
        raise Fault(f"{show(value)} would lose digits as a float")
    return number


def _decode_float(value: Any, _: Any = None) -> Any:
    if value.__class__ is float:
        return value
    if value.__class__ is int:
        return _exact_float(value)
    raise wrong_json("float", value)


def _encode_date(value: Any) -> Any:
    if value.__class__ is date:
        return value.isoformat()
    if isinstance(value, datetime):
        raise wrong("date", value)
    raise wrong("date", value, date)


def _text_encoder(cls: type, write: Callable[[Any], str]) -> Encoder:
    def encode(value: Any) -> Any:
        if value.__class__ is cls:
            return write(value)
        raise wrong(cls.__name__, value, cls)

    return encode


def _text_decoder(name: str, read: Callable[[str], Any]) -> Decoder:
    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not str:
            raise wrong_json(f"the text of a {name}", value)
        try:
            return read(value)
        except (ValueError, ArithmeticError):
            raise Fault(f"{value[:60]!r} is not the text of a {name}") from None

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
            raise Fault(f"{value!r} seconds are too many for a timedelta") from None
    return _decode_duration_text(value)


def _iso_reader(cls: Any) -> Callable[[str], Any]:
    read: Callable[[str], Any] = cls.fromisoformat

    def read_exactly(text: str) -> Any:
        # fromisoformat takes an offset below a second, such as +00:00:00.000001, for UTC.
        if text[-7:-6] == "." and text[-16:-7] in ("+00:00:00", "-00:00:00"):
            offset = timedelta(microseconds=int(text[-16] + text[-6:]))
            return read(text[:-16]).replace(tzinfo=timezone(offset))
        return read(text)

    def read_marked(text: str) -> Any:
        if text[-1:] != "]":
            return read_exactly(text)
        match = _MARKED.fullmatch(text)
        if match is None:
            raise ValueError(text)
        plain, key, name, fold = match.groups()
        value = read_exactly(plain)
        if key is not None:
            value = _in_zone(value, key)
        elif name is not None:
            value = value.replace(tzinfo=_named_zone(value.utcoffset(), name))
        return value.replace(fold=1) if fold else value

    return read_marked


# What ISO 8601 has no place for follows in brackets (RFC 9557): the key of a zone, the name of an
# offset, and the fold where the offset does not tell it.
_MARKED = re.compile(r"([^\[]+)(?:\[([^\]=]+)\]|\[_name=([^\]]*)\])?(?:\[_fold=(1)\])?")
_FOLD = "[_fold=1]"


def _iso_writer(cls: Any) -> Callable[[Any], str]:
    write: Callable[[Any], str] = cls.isoformat

    def write_marked(value: Any) -> str:
        text = write(value)
        zone = value.tzinfo
        told = False
        if zone is not None and zone is not UTC:
            if class_of(zone) is ZoneInfo:
                text += f"[{_zone_key(zone)}]"
                told = value.replace(fold=0).utcoffset() != value.utcoffset()
            else:
                text += _name_mark(zone)
        return text + _FOLD if value.fold and not told else text

    return write_marked


@functools.lru_cache(maxsize=1_000)
def _zone_key(zone: ZoneInfo) -> str:
    from pickle import PicklingError  # and with it all of pickle: for a zone alone

    try:
        zone.__reduce__()  # refused by one that was read from a file, whatever its key says
    except PicklingError:
        raise Fault(
            "its ZoneInfo was read from a file, so no other process would find it; use "
            "ZoneInfo(key)"
        ) from None
    return zone.key


def _name_mark(zone: tzinfo) -> str:
    offset = zone.utcoffset(None)
    same = None if offset is None else timezone(offset)
    if same is None or (class_of(zone) is not timezone and zone != same):
        raise Fault(
            f"its time zone, a {type_name(zone)}, would be lost; use a ZoneInfo, or "
            "astimezone(timezone.utc)"
        )
    name = zone.tzname(None)
    if class_of(zone) is not timezone or name is None or name == same.tzname(None):
        return ""
    return f"[_name={quote(name, safe='')}]"


def _named_zone(offset: timedelta | None, name: str) -> tzinfo:
    if offset is None:
        raise ValueError(name)
    return timezone(offset, unquote(name, errors="strict"))


def _in_zone(value: Any, key: str) -> Any:
    try:
        zone = ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Fault(f"the time zone {key[:60]!r} is not known here; install tzdata") from None
    if class_of(value) is time:
        return value.replace(tzinfo=zone)
    for fold in (0, 1):
        local = value.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == value.utcoffset():
            return local
    return value.astimezone(zone)  # the zone's rules have changed since: the same instant


def _write_decimal(value: Decimal) -> str:
    return str(value).replace("e", "E")  # which of them is up to the decimal context


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _encode_int_key(value: Any) -> str:
    if value.__class__ is bool:  # which would come back as a number
        raise wrong("int", value)
    return int.__repr__(_encode_int(value))


def _int_key(text: str) -> int:
    number = int(text)
    if str(number) != text:  # " 1" or "01": two texts would be one key
        raise ValueError(text)
    return number


def _text_shape(
    cls: type, write: Callable[[Any], str], read: Callable[[str], Any], *, key: bool = False
) -> Shape:
    name = cls.__name__
    encode, decode = _text_encoder(cls, write), _text_decoder(name, read)
    return Shape(
        name,
        kinds("string"),
        (cls,),
        encode,
        decode,
        immutable=True,
        key=Key(encode, decode) if key else None,
        write_subclass=write,
    )


def _exact_shape(cls: type, kind: str, encode: Encoder, decode: Decoder) -> Shape:
    name = "None" if cls is type(None) else cls.__name__
    return Shape(name, kinds(kind), (cls,), encode, decode, exact=cls, immutable=True)


def scalar_shapes() -> dict[Any, Shape]:
    """Give the shapes of all scalars by their annotation."""
    integer = _exact_shape(int, "integer", _encode_int, _decode_int)
    integer.key = Key(_encode_int_key, _text_decoder("int", _int_key))
    text = _exact_shape(str, "string", _encode_str, _decode_str)
    text.key = Key(_encode_str, _decode_str)
    none = _exact_shape(type(None), "null", _encode_none, _decode_none)
    day = _text_shape(date, date.isoformat, date.fromisoformat, key=True)
    day.encode = _encode_date
    day.key = Key(_encode_date, day.decode)
    duration = _text_shape(timedelta, _write_duration, _read_duration)
    duration.decode = _decode_duration
    number = Shape("float", kinds("float"), (float,), _encode_float, _decode_float)
    number.also, number.immutable = (int,), True
    number.write_subclass = lambda value: _encode_float(float.__float__(value))
    return {
        int: integer,
        str: text,
        bool: _exact_shape(bool, "boolean", _encode_bool, _decode_bool),
        None: none,
        type(None): none,
        float: number,
        datetime: _text_shape(datetime, _iso_writer(datetime), _iso_reader(datetime), key=True),
        date: day,
        time: _text_shape(time, _iso_writer(time), _iso_reader(time)),
        timedelta: duration,
        UUID: _text_shape(UUID, str, UUID, key=True),
        Decimal: _text_shape(Decimal, _write_decimal, Decimal),
        bytes: _text_shape(bytes, _write_bytes, _read_bytes),
    }
