"""The journal: a checkpoint as one row, and the statement that commits it.

Of a row's JSON the index of a body has the length, and behind the index lies the JSON itself: so
nobody has to look at it, and it comes back as it was.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

import orjson

from ..records import (
    ActivityRow,
    Checkpoint,
    ChunkRow,
    CreatedRow,
    EntityRow,
    MailRow,
    OutboxRow,
    PeerRow,
    ProgressRow,
    RequestRow,
    TimerRow,
)

COMMIT: Final = (
    "WITH mine AS (SELECT FROM {s}.partition WHERE partition = $1 AND epoch = $3 AND ("
    "(SELECT settled FROM {s}.folded f WHERE f.partition = $1) = $2 - 1 OR EXISTS (SELECT FROM"
    " {s}.journal j WHERE j.partition = $1 AND j.sequence = $2 - 1)) FOR SHARE)"
    " INSERT INTO {s}.journal (partition, sequence, epoch, next_id, next_row, body)"
    " SELECT $1, $2, $3, $4, $5, $6 FROM mine RETURNING partition"
)
"""Stores a checkpoint, if its owner and the one before it are the expected ones.

The share lock keeps the epoch as it is until the commit: whoever raises it afterwards sees this
row, and whoever raised it before makes this statement store nothing.
"""

COMMIT_AT_ONCE: Final = COMMIT.replace("FOR SHARE", "FOR SHARE SKIP LOCKED")
"""The same, which stores nothing where it would have to wait for somebody who changes the row."""

COMMIT_SEVERAL: Final = (
    "WITH mine AS (SELECT given.* FROM {s}.partition p JOIN"
    " unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])"
    " AS given (partition, sequence, epoch, next_id, next_row, body)"
    " ON p.partition = given.partition AND p.epoch = given.epoch WHERE"
    " (SELECT settled FROM {s}.folded f WHERE f.partition = given.partition) = given.sequence - 1"
    " OR (SELECT j.sequence FROM {s}.journal j WHERE j.partition = given.partition AND j.sequence ="
    " given.sequence - 1) IS NOT NULL FOR SHARE OF p SKIP LOCKED)"
    " INSERT INTO {s}.journal (partition, sequence, epoch, next_id, next_row, body)"
    " SELECT * FROM mine RETURNING partition"
)
"""The last for a checkpoint each of several partitions; gives those that it has stored.

Those whose row somebody changes, or has changed meanwhile, it passes over. The row before is not
asked for by ``EXISTS``: a plan made while the journal was small read all of it for that, and stayed.
"""

TAIL: Final = (
    "SELECT sequence, next_id, next_row, body FROM {s}.journal WHERE partition = $1 AND"
    " sequence > $2 ORDER BY sequence"
)

_HEAD: Final = struct.Struct("<I")
_STEP: Final = 500

_KINDS: Final[tuple[tuple[str, Callable[..., Any], tuple[int, ...]], ...]] = (
    ("created", CreatedRow, (9, 10)),
    ("progress", ProgressRow, (6, 7, 9, 10, 11, 12)),
    ("history", ChunkRow, (2,)),
    ("entities", EntityRow, (4, 5, 6, 7)),
    ("mail", MailRow, (2,)),
    ("timers", TimerRow, (3,)),
    ("outbox", OutboxRow, (3,)),
    ("peers", PeerRow, ()),
    ("requests", RequestRow, (2,)),
    ("activities", ActivityRow, (2,)),
)
"""The parts that have rows: what makes one of its fields, and which of these are JSON."""

_NUMBERS: Final = (
    "purged",
    "rewritten",
    "entities_deleted",
    "mail_deleted",
    "timers_deleted",
    "outbox_deleted",
    "activities_deleted",
)


def pack(checkpoint: Checkpoint) -> Generator[None, None, bytes]:
    """Make the body of a checkpoint, as work that pauses now and then."""
    blobs: list[bytes] = []

    def thin(row: Iterable[Any]) -> tuple[Any, ...]:
        return tuple([keep(value) if value.__class__ is bytes else value for value in row])

    def keep(blob: bytes) -> int:
        blobs.append(blob)
        return len(blob)

    index: list[bytes] = []
    for name, *_ in _KINDS:
        rows: list[Any] = getattr(checkpoint, name)
        if rows:
            some: list[bytes] = []
            for start in range(0, len(rows), _STEP):
                if start:
                    yield
                some.append(orjson.dumps([*map(thin, rows[start : start + _STEP])])[1:-1])
            index.append(b'"%b":[%b]' % (name.encode(), b",".join(some)))
    for name in _NUMBERS:
        numbers: list[int] = getattr(checkpoint, name)
        if numbers:
            index.append(b'"%b":%b' % (name.encode(), orjson.dumps(numbers)))
    if checkpoint.requests_deleted_before is not None:
        index.append(b'"requests_deleted_before":%d' % checkpoint.requests_deleted_before)
    whole = b"{%b}" % b",".join(index)
    return b"".join((_HEAD.pack(len(whole)), whole, *blobs))


def unpack(body: bytes, sequence: int, epoch: int) -> Checkpoint:
    """Give the checkpoint that a body is of.

    Raises:
        ValueError: it is of none.
    """
    checkpoint = Checkpoint(sequence=sequence, epoch=epoch)
    try:
        (length,) = _HEAD.unpack_from(body)
        place = _HEAD.size + length
        parts: dict[str, Any] = orjson.loads(body[_HEAD.size : place])
        for name, make, blobs in _KINDS:
            rows: list[Any] = getattr(checkpoint, name)
            for row in parts.pop(name, ()):
                for field in blobs:
                    size = row[field]
                    if size is not None:
                        row[field] = body[place : place + size]
                        place += size
                rows.append(make(*row))
        if place != len(body):
            raise ValueError(f"it has {len(body)} bytes, and says {place}")
        for name, value in parts.items():
            setattr(checkpoint, name, value)
    except (struct.error, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return checkpoint
