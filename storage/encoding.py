"""From checkpoints to the values that SQLite takes.

They are the last columns of the journal's table ``entry`` and of the tables' view
``checkpoint`` alike, so what is in the one can be put into the other as it is.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import orjson

from .pieces import pieces
from .records import Checkpoint, ChunkRow, CreatedRow, EntityRow, ProgressRow

PARTS: Final = 19
"""How many values one checkpoint has."""

_dumps = orjson.dumps
_json = orjson.Fragment
_number = itemgetter(0)


def encode_in_steps(checkpoint: Checkpoint) -> Generator[None, None, tuple[object, ...]]:
    """Do what ``encode_parts`` does, for a large checkpoint; pauses behind each piece."""
    encoded: list[list[Any]] = [[] for _ in range(PARTS)]
    for piece in pieces(checkpoint):
        for values, value in zip(encoded, encode_parts(piece), strict=True):
            if value is not None:
                values.append(value)
        yield
    whole: list[object] = []
    for values in encoded:
        whole.append(None if not values else values[0] if len(values) == 1 else _join(values))
        if len(values) > 1:
            yield
    return tuple(whole)


def _join(arrays: list[bytes]) -> bytes:
    # Copied once: they may have megabytes.
    parts: list[bytes | memoryview] = []
    for array in arrays:
        parts += (b",", memoryview(array)[1:-1])
    parts[0] = b"["
    parts.append(b"]")
    return b"".join(parts)


def encode_parts(checkpoint: Checkpoint) -> tuple[object, ...]:
    """Give one JSON text per part, and two values for the history; ``None`` for an empty one.

    A row that the checkpoint both puts and deletes is left out where the tables delete first.
    """
    c = checkpoint
    progress = c.progress
    created = None
    if c.created:
        latest = {row.id: row for row in progress}
        created = _encode_created(c.created, latest)
        progress = list(latest.values())
    entities = c.entities
    if c.entities_deleted and entities:
        gone = set(c.entities_deleted)
        entities = [row for row in entities if row.id not in gone]
    requests = c.requests
    before = c.requests_deleted_before
    if before is not None and requests:
        requests = [row for row in requests if row.at >= before]
    return (
        _dumps(c.purged) if c.purged else None,
        _dumps(c.rewritten) if c.rewritten else None,
        created,
        _encode_progress(progress) if progress else None,
        *(_encode_history(c.history) if c.history else (None, None)),
        _encode_entities(entities) if entities else None,
        _dumps(c.entities_deleted) if c.entities_deleted else None,
        _dumps([(n, actor, _json(body)) for n, actor, body in c.mail]) if c.mail else None,
        _dumps(c.mail_deleted) if c.mail_deleted else None,
        _dumps([(n, due, actor, _json(body)) for n, due, actor, body in c.timers])
        if c.timers
        else None,
        _dumps(c.timers_deleted) if c.timers_deleted else None,
        _dumps([(n, target, last, _json(body)) for n, target, last, body in c.outbox])
        if c.outbox
        else None,
        _dumps(c.outbox_deleted) if c.outbox_deleted else None,
        _dumps([tuple(row) for row in c.peers]) if c.peers else None,
        _dumps([(id, at, _json(body)) for id, at, body in requests]) if requests else None,
        before,
        _dumps([(n, instance, _json(body)) for n, instance, body in c.activities])
        if c.activities
        else None,
        _dumps(c.activities_deleted) if c.activities_deleted else None,
    )


def next_numbers(c: Checkpoint) -> tuple[int, int]:
    """Give one more than the greatest id in the checkpoint, and than the greatest row number."""
    ids = chain(c.created, c.entities)
    rows = chain(c.mail, c.timers, c.outbox, c.activities)
    return max(map(_number, ids), default=0) + 1, max(map(_number, rows), default=0) + 1


# Below, ``x and (_json(x),)`` wraps optional JSON in an array, so that SQLite can tell the value
# null from no value. JSON is never empty, so ``and`` is as good as ``is not None``, and quicker.


def _encode_created(rows: list[CreatedRow], latest: dict[int, ProgressRow]) -> bytes:
    """Encode rows with their progress, which is taken out of ``latest``."""
    encoded: list[tuple[object, ...]] = []
    for row in {row.id: row for row in rows}.values():
        a, b, c, d, e, f, g, h, i, tags, input, start = row
        progress = latest.pop(a, None) or pending(row)
        (
            _,
            status,
            k,
            m,
            n,
            o,
            output,
            failure,
            failure_type,
            custom,
            parked,
            notes,
            waits,
            tries,
        ) = progress
        encoded.append(
            (
                *(a, b, c, d, e, f, g, h, i),
                tags and (_json(tags),),
                input and (_json(input),),
                *(start, status, k, m, n, o),
                output and (_json(output),),
                failure and (_json(failure),),
                failure_type,
                custom and (_json(custom),),
                parked and (_json(parked),),
                notes and (_json(notes),),
                waits and (_json(waits),),
                tries,
            )
        )
    return _dumps(encoded)


def pending(row: CreatedRow) -> ProgressRow:
    """Give the progress of an instance that has made none."""
    return ProgressRow(row.id, "Pending", row.created, None, 0, 0, None, None, None, None, None)


def _encode_history(chunks: list[ChunkRow]) -> tuple[bytes, bytes]:
    """Give where in the second value each chunk's body is, counted from 1, and the bodies.

    Histories are most of the bytes. In one JSON array SQLite would parse all of them, twice.
    """
    places: list[tuple[int, int, int, int]] = []
    bodies: list[bytes] = []
    place = 1
    for instance, seq, body in chunks:
        size = len(body)
        places.append((instance, seq, place, size))
        bodies.append(body)
        place += size
    return _dumps(places), b"".join(bodies)


def _encode_progress(rows: list[ProgressRow]) -> bytes:
    return _dumps(
        [
            (
                a,
                b,
                c,
                d,
                e,
                f,
                output and (_json(output),),
                failure and (_json(failure),),
                kind,
                custom and (_json(custom),),
                parked and (_json(parked),),
                notes and (_json(notes),),
                waits and (_json(waits),),
                tries,
            )
            for a, b, c, d, e, f, output, failure, kind, custom, parked, notes, waits, tries in rows
        ]
    )


def _encode_entities(rows: list[EntityRow]) -> bytes:
    return _dumps(
        [
            (
                id,
                name,
                key,
                updated,
                state and (_json(state),),
                lock and (_json(lock),),
                failures and (_json(failures),),
                parked and (_json(parked),),
            )
            for id, name, key, updated, state, lock, failures, parked in rows
        ]
    )
