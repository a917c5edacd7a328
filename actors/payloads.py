"""Payloads: encoded values, as they are kept."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import orjson

from .classes import is_a
from .errors import PayloadTooLargeError

#: What is shorter is kept as a copy of its own.
SHORT: Final = 2048


def compact(data: bytes) -> bytes:
    """Give a short JSON text in no more memory than it needs, for keeping it.

    orjson gives its whole output buffer away with the text, a few KiB for the shortest.
    """
    # bytes(data) and data[:] would be the very same object.
    return b"%b" % data if len(data) < SHORT else data


#: What stands around payloads is less deep: a page of histories, an answer on the line.
_AROUND: Final = 12
#: So many items of a list are written at once.
_PART: Final = 64


def write_around(value: Any) -> bytes:
    """Write JSON values in which payloads stand, also those as deep as a payload may be.

    With what is around them these are deeper than orjson writes at once.

    Raises:
        TypeError: there is what JSON has not.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_in_pieces(value, _AROUND))


def write_in_parts(value: Any) -> Generator[None, None, bytes]:
    """Write what ``write_around`` writes, of a list or a page with such; pauses now and then."""
    # All parts are put together once: of megabytes each copy takes milliseconds.
    parts: list[bytes] = []
    if is_a(value, list):
        yield from _write_list(value, parts)
    elif is_a(value, dict) and any(is_a(one, list) and len(one) > _PART for one in value.values()):
        before = b"{"
        for name, one in value.items():
            parts.append(b"%b%b:" % (before, orjson.dumps(name)))
            before = b","
            if is_a(one, list):
                yield from _write_list(one, parts)
            else:
                parts.append(write_around(one))
        parts.append(b"}")
    else:
        return write_around(value)
    return b"".join(parts)


def _write_list(items: list[Any], parts: list[bytes]) -> Generator[None]:
    parts.append(b"[")
    for start in range(0, len(items), _PART):
        if start:
            parts.append(b",")
        parts.append(write_around(items[start : start + _PART])[1:-1])
        yield
    parts.append(b"]")


def _in_pieces(value: Any, depth: int) -> Any:
    """Give a value in which what is below some depth is written already."""
    if not depth:
        return orjson.Fragment(orjson.dumps(value))
    if is_a(value, dict):
        return {name: _in_pieces(one, depth - 1) for name, one in value.items()}
    if is_a(value, (list, tuple)):
        return [_in_pieces(one, depth - 1) for one in value]
    return value


def check_size(data: bytes, limit: int, what: str) -> bytes:
    """Give the data back if it has at most ``limit`` bytes.

    Raises:
        PayloadTooLargeError: it has more; ``what`` is named as its path.
    """
    if len(data) > limit:
        raise PayloadTooLargeError(what, len(data), limit)
    return data
