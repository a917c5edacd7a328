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

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import orjson

from .errors import PayloadError, PayloadTooLargeError
from .shapes import PLAIN, TOO_DEEP, Fault, Part, Shape
from .shaping import dump_function, shape_for

T = TypeVar("T")
_dumps = orjson.dumps
_loads = orjson.loads


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
    shape: Shape

    def __init__(self, annotation: Any, shape: Shape | None = None) -> None:
        self.annotation = annotation
        if shape is None:
            shape = shape_for(annotation)
        self.shape = shape
        self.is_any = shape.is_any
        self.dump = dump_function(shape)
        self.to_json = shape.encode
        self.encode = _encode_function(shape)
        self.from_json = _from_json_function(shape)
        self.decode = _decode_function(shape)

    def __repr__(self) -> str:
        return f"<Codec of {self.shape.name}>"


def _encode_function(shape: Shape) -> Callable[[object], bytes]:
    to_json = shape.encode
    if shape.loose:
        dump = dump_function(shape)

        def encode_loose(value: Any) -> bytes:
            try:
                if value.__class__ in plain:
                    return _dumps(value)
                return dump(to_json(value))
            except Exception as error:
                raise _encode_error(shape, value, error) from None

        plain = PLAIN if shape.is_any else frozenset[type]()
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


def _from_json_function(shape: Shape) -> Callable[[Any], Any]:
    decode = shape.decode
    if shape.is_any:
        return decode

    def from_json(parsed: Any) -> Any:
        try:
            return decode(parsed)
        except Exception as error:
            raise _decode_error(shape, parsed, error) from None

    return from_json


def _decode_function(shape: Shape) -> Callable[[bytes], Any]:
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


def _encode_error(shape: Shape, value: Any, error: Exception) -> PayloadError:
    def attempt(shape: Shape, value: Any) -> None:
        dump_function(shape)(shape.encode(value))

    return _locate(shape, value, error, attempt, lambda part: part.shape.parts_out(part.value))


def _decode_error(shape: Shape, value: Any, error: Exception) -> PayloadError:
    def attempt(shape: Shape, value: Any) -> None:
        shape.decode(value)

    return _locate(shape, value, error, attempt, lambda part: part.shape.parts_in(part.value))


def _locate(
    shape: Shape,
    value: Any,
    error: Exception,
    attempt: Callable[[Shape, Any], None],
    parts: Callable[[Part], Iterable[Part]],
) -> PayloadError:
    """Go down from a value that failed to the innermost one that fails."""
    path, here = "$", Part("", shape, value)
    reason = _reason(error)
    # Going down into a value that contains itself would never end.
    while not reason.endswith(TOO_DEEP):
        failed = _first_failing(here, parts, attempt)
        if failed is None:
            break
        here, reason = failed
        path += here.segment
    return PayloadError(path, reason)


def _first_failing(
    whole: Part,
    parts: Callable[[Part], Iterable[Part]],
    attempt: Callable[[Shape, Any], None],
) -> tuple[Part, str] | None:
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
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if type(error) is TypeError:  # orjson.JSONEncodeError is TypeError itself
        if error.__cause__ is not None:
            return _reason(error.__cause__)
        if "ecursion limit" in str(error):
            return TOO_DEEP
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
    # bytes(data) and data[:] would be the very same object.
    return b"%b" % data if len(data) < 2048 else data


def check_size(data: bytes, limit: int, what: str) -> bytes:
    """Give the data back if it has at most ``limit`` bytes.

    Raises:
        PayloadTooLargeError: it has more; ``what`` is named as its path.
    """
    if len(data) > limit:
        raise PayloadTooLargeError(what, len(data), limit)
    return data
