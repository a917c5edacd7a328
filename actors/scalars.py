"""Scalars: numbers, texts, times and bytes, none of which has parts."""

from __future__ import annotations

import base64
import enum
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .shapes import Decoder, Encoder, Fault, Key, Shape, class_of, kinds, show, wrong, wrong_json


def _encode_int(value: Any) -> Any:
    if value.__class__ is int or value.__class__ is bool:
        return value
    if isinstance(value, int) and isinstance(value, enum.Enum):
        return value
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
    elif value.__class__ is int or _is_bare(value):
        number = _exact_float(value)
    else:
        raise wrong("float", value, *(() if value.__class__ is bool else (float, int)))
    if math.isfinite(number):
        return number
    raise Fault(f"{number!r} has no JSON form")


def _is_bare(value: Any) -> bool:
    """Whether it is a member of an enum of numbers, or a float of C code such as numpy's."""
    if isinstance(value, enum.Enum):
        return isinstance(value, (float, int))
    cls = class_of(value)
    return issubclass(cls, float) and cls.__basicsize__ == float.__basicsize__ and _is_static(cls)


def _is_static(cls: type) -> bool:
    return not cls.__flags__ & _HEAP_TYPE


_HEAP_TYPE = 1 << 9


def _exact_float(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise Fault(f"{show(value)} is too large for a float") from None
    if number != value and not math.isnan(number):
        raise Fault(f"{show(value)} would lose digits as a float")
    return number


def _decode_float(value: Any, _: Any = None) -> Any:
    if value.__class__ is float:
        return value
    if value.__class__ is int:
        return float(value)
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

    return read_exactly


def _write_moment(value: datetime) -> str:
    zone = value.tzinfo
    text = datetime.isoformat(value)
    if type(zone) is ZoneInfo and zone.key:
        return f"{text}[{zone.key}]"
    return text


def _read_moment(text: str) -> datetime:
    if text[-1:] != "]":
        return _read_offset(text)
    text, _, key = text[:-1].partition("[")
    moment = _read_offset(text)
    try:
        zone = ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Fault(f"the time zone {key[:60]!r} is not known here; install tzdata") from None
    for fold in (0, 1):
        local = moment.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == moment.utcoffset():
            return local
    return moment.astimezone(zone)  # the zone's rules have changed since: the same instant


_read_offset: Callable[[str], datetime] = _iso_reader(datetime)


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
    integer.key = Key(
        lambda value: int.__repr__(_encode_int(value)), _text_decoder("int", _int_key)
    )
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
        datetime: _text_shape(datetime, _write_moment, _read_moment, key=True),
        date: day,
        time: _text_shape(time, time.isoformat, _iso_reader(time)),
        timedelta: duration,
        UUID: _text_shape(UUID, str, UUID, key=True),
        Decimal: _text_shape(Decimal, str, Decimal),
        bytes: _text_shape(bytes, _write_bytes, _read_bytes),
    }
