"""The shape: how values of one annotation look in JSON, and what is wrong with one that does not.

Encoders and decoders raise ``Fault`` with the reason alone. Where in a value it lies is looked for
afterwards, by way of the shape's parts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import orjson

from ..classes import is_a
from ..printing import repr_of, type_name

# A cattrs structure hook is called with the type as second argument; every decoder takes it so
# that it can serve as one.
Encoder = Callable[[Any], Any]
Decoder = Callable[..., Any]

TOO_DEEP = "is nested too deeply, or contains itself"
_SEGMENT_MAX = 80
TAG = "$type"  # the key that tells the members of a union apart
PLAIN = frozenset({str, int, bool, type(None)})


class Fault(Exception):
    """A value that its shape refuses; the text is the reason.

    Attributes:
        where: the path inside of the value, if the shape knows better than its parts.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(reason)
        self.where = where


class TooDeep(Fault):
    """A value that nests more deeply than is allowed, or for ever."""

    def __init__(self) -> None:
        super().__init__(TOO_DEEP)


class Unsupported(Exception):
    """An annotation that no shape exists for; the text says which and why."""


@attrs.frozen
class Part:
    """A value inside another: where it is, and what it should be."""

    segment: str
    shape: Shape
    value: Any


def no_parts(value: Any) -> Iterable[Part]:
    """Give the parts of a value that has none."""
    return ()


@attrs.frozen
class Key:
    """How a type is written as the key of a JSON object."""

    encode: Callable[[Any], str]
    decode: Callable[[str], Any]


MANY = 1_000


@attrs.define(eq=False)
class Shape:
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
    # Whatever it is, it is kept as it is.
    is_any: bool = False
    # Something inside is left to orjson, which writes nan as null and knows few classes.
    loose: bool = False
    # Something inside is Any, so decoding gives plain JSON where another class may have been.
    vague: bool = False
    # Decoding runs users' code, or is not known to give back what was there: each encoded value
    # is decoded again and compared.
    unsure: bool = False
    # Nothing that can be reached from it ever changes.
    immutable: bool = False
    # A builtin container of immutables, for which a shallow copy is a full one.
    shallow: bool = False
    # How deep below the value there may be something that can change.
    levels: int = MANY
    # Encodes to an object that has room for a tag beside its keys.
    is_record: bool = False
    parts_out: Callable[[Any], Iterable[Part]] = no_parts
    parts_in: Callable[[Any], Iterable[Part]] = no_parts
    key: Key | None = None
    # Writes a value of a subclass, where nobody declared what is to come back.
    write_subclass: Encoder | None = None


ShapeFor = Callable[[Any], Shape]
"""How what has something inside gets the shape of that: passed in, since it may be any shape."""


def levels_of(parts: Iterable[Shape]) -> int:
    """Say how deep below what has such parts there may be something that can change."""
    return max((part.levels + 1 for part in parts if not part.immutable), default=0)


def kinds(*names: str) -> frozenset[str]:
    """Give a set of JSON kinds: null, boolean, integer, float, string, array, object."""
    return frozenset(names)


def show(value: Any) -> str:
    """Give a value's class and a text of it that is short enough for an error."""
    text = repr_of(value, 60)
    name = type_name(value)
    return name if text.startswith("<repr()") else f"{name} {text}"


def wrong(expected: str, value: Any, *accepted: type) -> Fault:
    """Give the error for a value that is not what is expected.

    Args:
        expected: what is.
        value: what came.
        accepted: the classes taken, but not their subclasses.
    """
    if value is None:
        return Fault(f"{expected} expected, not None")
    if issubclass(type(value), accepted):
        name = type_name(value)
        # Of a class of the language there is no annotation for a subclass.
        plain = accepted[0].__module__.partition(".")[0] in sys.stdlib_module_names
        instead = "" if plain else f"annotate {name} or a union with it, or "
        return Fault(
            f"{expected} expected, not the subclass {name}: what that has beyond it would be "
            f"lost; {instead}pass a plain {expected}"
        )
    return Fault(f"{expected} expected, not {show(value)}")


def wrong_json(expected: str, value: Any) -> Fault:
    """Give the error for a JSON value that is not what is expected."""
    if is_a(value, (dict, list)):
        what = "an object" if is_a(value, dict) else "an array"
    else:
        what = orjson.dumps(value).decode()[:60]
    return Fault(f"{expected} expected, not {what}")


def member_path(key: object) -> str:
    """Give the segment of a path for a field or key."""
    text = key if type(key) is str else repr_of(key, 60)
    if len(text) > _SEGMENT_MAX:
        return f"[{repr_of(text, _SEGMENT_MAX)}]"
    return f".{text}" if text.isidentifier() else f"[{text!r}]"
