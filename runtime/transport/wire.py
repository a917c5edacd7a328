"""The form in which shards of different processes talk: length-prefixed frames of JSON arrays.

A frame is four bytes of length, big-endian, and a JSON array of items. Payloads are JSON texts
already: inside messages they are embedded as they are, in answers they travel as strings, so that
the side that passes them on never parses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_type_hints

import orjson

from ...actors.errors import FailureDetails, InternalError
from ...actors.failures import encode_failure, read_failure
from ...actors.messages import Caller, decode_message, read_parcels
from ...actors.payloads import write_around
from ...storage import MendedEntity, MendedInstance
from ...storage.records import ChunkRow, EntityRow, InstanceRecord
from ..placement.places import FRAME_MESSAGES_MAX, Frame
from .errors import read_error, write_error
from .verbs import FORMS, REFUSE

#: Requests and answers, what partitions tell each other, and what greets on a connection.
ItemKind = Literal[
    "ask",
    "answer",
    "drop",
    "frame",
    "ack",
    "resend",
    "completion",
    "cancel",
    "reply",
    "placement",
    "hello",
    "welcome",
]
Item = tuple[ItemKind, Any, *tuple[Any, ...]]

#: More than this in one frame is no frame of ours.
SIZE_MAX = 1 << 30
#: A frame of more bytes holds one item.
FRAME_SIZE_MAX = 4 * 1024 * 1024


def encode(items: list[Item]) -> bytes:
    """Give frames that hold the items, in order."""
    frames: list[bytes] = []
    for some in _portions(items):
        _encode(some, frames)
    return b"".join(frames)


def _encode(items: list[Item], frames: list[bytes]) -> None:
    try:
        body = orjson.dumps([_write(item) for item in items])
    except (TypeError, ValueError):
        body = b"[%b]" % b",".join(_write_alone(item) for item in items)
    if len(body) > FRAME_SIZE_MAX and len(items) > 1:
        half = len(items) // 2
        _encode(items[:half], frames)
        _encode(items[half:], frames)
    else:
        frames += (len(body).to_bytes(4, "big"), body)


def _write_alone(item: Item) -> bytes:
    """Write an item; one that cannot be is as good as refused, and harms no other."""
    try:
        return write_around(_write(item))
    except (TypeError, ValueError) as error:
        if item[0] == "ask":
            return orjson.dumps(["ask", item[1], REFUSE, f"this cannot be sent: {error}"])
        if item[0] in ("answer", "reply"):
            return orjson.dumps(
                _write((item[0], item[1], InternalError(f"cannot be sent: {error}")))
            )
        raise


def _portions(items: list[Item]) -> Iterator[list[Item]]:
    weight = start = 0
    for index, item in enumerate(items):
        weight += FRAME_MESSAGES_MAX if item[0] == "frame" else 1
        if weight >= FRAME_MESSAGES_MAX:
            yield items[start : index + 1]
            weight, start = 0, index + 1
    if start < len(items):
        yield items[start:]


def decode(body: bytes | memoryview) -> list[Item]:
    """Read the items of one frame, without its length."""
    return [_read(fields) for fields in orjson.loads(body)]


class Splitter:
    """Cuts what a stream gives into frames.

    Attributes:
        size_max: bytes that one frame may have, and so what is kept of a frame that is not whole.
    """

    def __init__(self, size_max: int = SIZE_MAX) -> None:
        self.size_max = size_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Item]:
        """Give the items of the frames that are complete now.

        Raises:
            InternalError: what came is none of ours.
        """
        buffer = self._buffer
        buffer += data
        items: list[Item] = []
        start, end = 0, len(buffer)
        while end - start >= 4:
            size = int.from_bytes(buffer[start : start + 4], "big")
            if size > self.size_max:
                raise InternalError(
                    f"a frame of {size:,} bytes, and {self.size_max:,} are taken: what is sent is "
                    "too large, or the stream is out of step"
                )
            if end - start - 4 < size:
                break
            try:
                items += decode(bytes(buffer[start + 4 : start + 4 + size]))
            except (ValueError, TypeError, LookupError, AttributeError, InternalError) as error:
                raise InternalError(
                    f"the stream has a frame that cannot be read: {error}"
                ) from error
            start += 4 + size
        del buffer[:start]
        return items


# Items.


def _write(item: Item) -> list[Any]:
    kind = item[0]
    if kind == "frame":
        _, target, source, frame = item
        return [kind, target, source, frame.last, orjson.Fragment(frame.body)]
    if kind == "ask":
        _, number, verb, arguments = item
        form = FORMS.get(verb)
        if form is None:
            return [kind, number, verb, *arguments]
        written = [kind, number, verb, *arguments]
        written[3 + form.place] = form.write(arguments[form.place])
        return written
    if kind in ("answer", "reply"):
        return [kind, item[1], _write_value(item[2])]
    if kind == "completion":
        _, partition, instance_id, message = item
        return [kind, partition, instance_id, message.fields()]
    if kind == "cancel":
        return [kind, [*item[1]]]
    return [*item]


def _read(fields: list[Any]) -> Item:
    kind = fields[0]
    if kind == "frame":
        _, target, source, last, rows = fields
        return (kind, target, source, Frame(0, last, b"", read_parcels(rows)))
    if kind == "ask":
        _, number, verb, *arguments = fields
        form = FORMS.get(verb)
        if form is not None:
            arguments[form.place] = form.read(arguments[form.place])
        return (kind, number, verb, arguments)
    if kind in ("answer", "reply"):
        return (kind, fields[1], _read_value(fields[2]))
    if kind == "completion":
        _, partition, instance_id, message = fields
        return (kind, partition, instance_id, decode_message(message))
    if kind == "cancel":
        return (kind, Caller(*fields[1]))
    if len(fields) != _PLAIN.get(kind):
        raise InternalError(f"an unknown item {kind!r}")
    return tuple(fields)


#: How long the items are that hold nothing but JSON.
_PLAIN: dict[ItemKind, int] = {
    "ack": 4,
    "resend": 3,
    "drop": 2,
    "placement": 3,
    "hello": 3,
    "welcome": 2,
}


# Values of answers: payloads as strings, all others as objects that name their kind.


def _write_value(value: Any) -> Any:
    if value is None:
        return None
    if type(value) is bytes:
        return value.decode()
    if type(value) is FailureDetails:
        return {"failure": orjson.Fragment(encode_failure(value))}
    if isinstance(value, BaseException):
        return {"error": write_error(value)}
    kind = value.__class__
    if kind is list and value:
        found = _ROWS.get(value[0].__class__)
        if found is not None:
            return {found[0]: [[_text(field) for field in row] for row in value]}
        if type(value[0]) is bytes:
            return {"texts": [body.decode() for body in value]}
    if kind is tuple and len(value) == 3:
        return {"end": [_text(field) for field in value]}
    return {"json": value}


def _read_value(value: Any) -> Any:
    if value is None:
        return None
    if type(value) is str:
        return value.encode()
    [(kind, content)] = value.items()
    return _VALUES[kind](content)


def _text(field: Any) -> Any:
    return field.decode() if type(field) is bytes else field


def _row_reader(kind: Any) -> Callable[[list[list[Any]]], list[Any]]:
    hints = get_type_hints(kind)
    places = [
        n for n, name in enumerate(kind._fields) if bytes in (hints[name], *get_args(hints[name]))
    ]

    def read(rows: list[list[Any]]) -> list[Any]:
        for row in rows:
            for place in places:
                if row[place] is not None:
                    row[place] = row[place].encode()
        return [kind._make(row) for row in rows]

    return read


def _read_texts(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def _read_end(fields: list[Any]) -> tuple[str, bytes | None, bytes | None]:
    status, output, failure = fields
    return (
        status,
        None if output is None else output.encode(),
        None if failure is None else failure.encode(),
    )


def _read_plain(content: Any) -> Any:
    return content


_ROWS: dict[type, tuple[str, Callable[[list[list[Any]]], list[Any]]]] = {
    InstanceRecord: ("instances", _row_reader(InstanceRecord)),
    EntityRow: ("entities", _row_reader(EntityRow)),
    ChunkRow: ("chunks", _row_reader(ChunkRow)),
    MendedInstance: ("instances", _row_reader(InstanceRecord)),
    MendedEntity: ("entities", _row_reader(EntityRow)),
}


_VALUES: dict[str, Callable[[Any], Any]] = {
    "failure": read_failure,
    "error": read_error,
    "texts": _read_texts,
    "end": _read_end,
    "json": _read_plain,
    **dict(_ROWS.values()),
}
