"""How values cross: Python to JSON and back, checked against the annotation both ways.

Invariants:

* What ``encode`` lets through, ``decode`` of the same annotation reads back equal, as an instance
  of the annotated class.
* A value that is not of the annotated type is refused by ``encode``, at any depth; one of a
  subclass is, too, since what that adds would be lost. Members of enums count as the text or
  number that they are equal to, and an ``int`` as the ``float`` that it is equal to.
* Where decoding runs users' code (validators, converters, ``__post_init__``, pydantic), ``encode``
  decodes again and compares, part by part. Whatever that code raises is a ``PayloadError``.
* A value gives the same bytes in every process (sets are sorted by their encoded elements), so
  that inputs can be compared by a hash.
* The path to a bad value is looked for only after the fast way has failed.

The form of each type:

* ``None``, ``bool``, ``int`` (64 bits), finite ``float``, ``str``: as in JSON.
* ``list``, ``tuple``, ``set``, ``frozenset``, ``deque``: arrays. ``dict``: an object; keys that are
  no ``str`` (``int``, enum, ``UUID``, ``date``, ``datetime``) are written as text, if annotated.
  For ``Sequence``, ``Collection`` and ``Iterable`` a tuple is ``{"$type": "tuple", "$value": []}``,
  as is a ``frozenset`` for ``Set``.
* dataclasses, attrs classes, ``NamedTuple``, ``TypedDict``: an object of their fields. Unknown
  fields are ignored when reading, missing ones take their default.
* ``datetime``, ``date``, ``time``: ISO 8601, exact, with the offset that they have or none. The
  key of a ``ZoneInfo`` follows in brackets (RFC 9557), since arithmetic in a zone goes by its
  rules, then the name of a ``timezone`` that has one (``[_name=CET]``), and the fold where the
  offset does not tell it (``[_fold=1]``). Other kinds of ``tzinfo`` are taken if they are equal to
  a ``timezone``, and come back as that.
  ``timedelta``: ISO 8601 such as ``P1DT30.5S``; a number of seconds is read too.
* ``UUID`` and ``Decimal``: text; ``UUID.is_safe`` is no part of the value. ``bytes``: base64.
* enums: by value if all values are ``str`` or all are ``int``, else by name; flags as ``int``.
* pydantic models: as pydantic writes them, by the fields' names and with sets sorted.
* unions: bare, if the JSON kind (null, boolean, integer, float, string, array, object) tells the
  members apart. Members that share a kind carry a tag: ``{"$type": "Circle", "radius": 1}`` for a
  class, ``{"$type": "date", "$value": "2024-02-29"}`` for others; ``str`` and ``int`` themselves
  stay bare. As soon as one member has a tag, every member that is an object has one. A tag
  outlives changes of the fields, which a guess from the fields present would not. Of members that
  take the same class (``list[int] | list[str]``), the first one that reads the value back exactly
  is written.

Without an annotation (``Any``) every supported value is written, and plain JSON is read back that
has all of it: what the class of a value would not read back as it was is refused there, too, and so
is what a subclass of a builtin has beyond it.
An object that is at two places of a value is two objects in what is read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import orjson

from ..errors import PayloadError, UsageError
from ..printing import repr_of, text_of, type_name
from .annotations import dump_function, plain, shape_for
from .likeness import USUAL, Manner, difference
from .shapes import PLAIN, TOO_DEEP, Fault, Part, Shape

T = TypeVar("T")
_dumps = orjson.dumps
_loads = orjson.loads
_CAUSES_MAX = 10


class Codec(Generic[T]):
    """Writes and reads the values of one annotation. Get it from ``codec_for``.

    Attributes:
        annotation: what values must be.
        is_any: whether anything goes, and plain JSON is read back.
        encode: gives the JSON of a value as bytes; raises ``PayloadError`` with the path to what
            is not of the annotated type, has no JSON form, or would come back as something else.
        encode_unchecked: the same without reading it back, where ``encode`` does.
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
        "encode_unchecked",
        "from_json",
        "is_any",
        "shape",
        "to_json",
    )

    annotation: Any
    is_any: bool
    encode: Callable[[object], bytes]
    encode_unchecked: Callable[[object], bytes]
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
        self.encode_unchecked = self.encode = _encode_function(shape)
        self.from_json = _from_json_function(shape)
        self.decode = _decode_function(shape)
        if shape.unsure:
            self.encode = _compared(shape, self.encode, self.decode)

    def __repr__(self) -> str:
        return f"<Codec of {self.shape.name}>"


def _encode_function(shape: Shape) -> Callable[[object], bytes]:
    to_json = shape.encode
    if shape.loose:
        dump = dump_function(shape)

        def encode_loose(value: Any) -> bytes:
            try:
                if value.__class__ in own_json:
                    return _dumps(value)
                return dump(to_json(value))
            except BaseException as error:
                raise _encode_error(shape, value, error) from None

        own_json = PLAIN if shape.is_any else frozenset[type]()
        return encode_loose

    exact = shape.exact

    def encode(value: Any) -> bytes:
        try:
            if value.__class__ is exact:
                return _dumps(value)
            return _dumps(to_json(value))
        except BaseException as error:
            raise _encode_error(shape, value, error) from None

    return encode


def _compared(
    shape: Shape, encode: Callable[[object], bytes], decode: Callable[[bytes], Any]
) -> Callable[[object], bytes]:
    """Give an encoder that refuses what does not come back as it was."""
    manner = Manner(plain, lambda cls: shape_for(cls).vague) if shape.vague else USUAL

    def encode_compared(value: object) -> bytes:
        data = encode(value)
        try:
            lost = difference(value, decode(data), manner=manner)
        except PayloadError as error:
            raise PayloadError(error.path, f"would not be read back: {error.reason}") from None
        except BaseException as error:
            lost = "", f"cannot be compared with what is read back: {_reason(error)}"
        if lost is not None:
            where, reason = lost
            raise PayloadError(f"${where}", reason)
        return data

    return encode_compared


def _from_json_function(shape: Shape) -> Callable[[Any], Any]:
    decode = shape.decode
    if shape.is_any:
        return decode

    def from_json(parsed: Any) -> Any:
        try:
            return decode(parsed)
        except BaseException as error:
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
        except BaseException as error:
            raise _decode_error(shape, parsed, error) from None

    return decode


def _encode_error(shape: Shape, value: Any, error: BaseException) -> PayloadError:
    def attempt(shape: Shape, value: Any) -> None:
        dump_function(shape)(shape.encode(value))

    return _locate(shape, value, error, attempt, lambda part: part.shape.parts_out(part.value))


def _decode_error(shape: Shape, value: Any, error: BaseException) -> PayloadError:
    def attempt(shape: Shape, value: Any) -> None:
        shape.decode(value)

    return _locate(shape, value, error, attempt, lambda part: part.shape.parts_in(part.value))


def _locate(
    shape: Shape,
    value: Any,
    error: BaseException,
    attempt: Callable[[Shape, Any], None],
    parts: Callable[[Part], Iterable[Part]],
) -> PayloadError:
    """Go down from a value that failed to the innermost one that fails."""
    path, here = "$", Part("", shape, value)
    reason, where = _reason(error), _where(error)
    # Going down into a value that contains itself would never end.
    while not reason.endswith(TOO_DEEP):
        failed = _first_failing(here, parts, attempt)
        if failed is None:
            break
        here, reason, where = failed
        path += here.segment
    return PayloadError(path + where, reason)


def _first_failing(
    whole: Part,
    parts: Callable[[Part], Iterable[Part]],
    attempt: Callable[[Shape, Any], None],
) -> tuple[Part, str, str] | None:
    """Give the first part that fails, why, and where in it; not the error, which leads here."""
    try:
        for part in parts(whole):
            try:
                attempt(part.shape, part.value)
            except BaseException as error:
                return part, _reason(error), _where(error)
    except BaseException:  # it has no parts to speak of: its own reason stands
        return None
    return None


def _where(error: BaseException) -> str:
    error = _cause(error)
    return error.where if type(error) is Fault else ""


def _cause(error: BaseException) -> BaseException:
    """Give what a function of ours raised inside of orjson, or the error itself."""
    for _ in range(_CAUSES_MAX):
        # orjson.JSONEncodeError is TypeError itself.
        if type(error) is not TypeError or error.__cause__ is None:
            break
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    error = _cause(error)
    if issubclass(type(error), Fault):
        return str(error)
    if issubclass(type(error), RecursionError):
        return TOO_DEEP
    if type(error) is TypeError:
        text = text_of(error)
        return TOO_DEEP if "ecursion limit" in text else text
    return f"{type_name(error)}: {text_of(error)}"


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


def codec_of_type(data_type: Any) -> Codec[Any]:
    """Give the codec of a ``data_type`` that a call was given; None stands for any."""
    try:
        return codec_for(Any if data_type is None else data_type)
    except Exception as error:  # of a user's class, whatever its metaclass raises
        raise UsageError(
            f"data_type must be a type that has a JSON form, not {repr_of(data_type)}: "
            f"{text_of(error)}"
        ) from error
