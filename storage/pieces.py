"""A large checkpoint in pieces, so that an event loop can turn while it is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

from .records import Checkpoint

_Row = TypeVar("_Row")

PIECE: Final = 500
"""Rows that are worked on at a time, of a large checkpoint."""


def is_large(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint has so many rows that a loop should turn while it is worked on."""
    c = checkpoint
    # What is created has progress, too.
    rows = len(c.progress) + len(c.entities) + len(c.mail) + len(c.timers) + len(c.purged)
    # To delete a row takes less.
    rows += (len(c.mail_deleted) + len(c.timers_deleted) + len(c.activities_deleted)) // 8
    # More than one for an instance: the history of a long turn is in several chunks.
    is_long = len(c.history) > 1 + len(c.progress)
    return is_long or rows + len(c.requests) + len(c.activities) > 2 * PIECE


def pieces(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """Give a large checkpoint in pieces, which have its effects if they are applied in order."""
    c = checkpoint

    def piece(**rows: Any) -> Checkpoint:
        return Checkpoint(sequence=c.sequence, epoch=c.epoch, **rows)

    for purged in _some(c.purged):
        yield piece(purged=purged)
    yield piece(rewritten=c.rewritten)
    latest = {row.id: row for row in c.progress}
    for some in _some(c.created):
        own = [latest.pop(row.id) for row in some if row.id in latest]
        yield piece(created=some, progress=own)
    for progress in _some([*latest.values()]):
        yield piece(progress=progress)
    entities, requests = c.entities, c.requests
    if c.entities_deleted:
        deleted = set(c.entities_deleted)
        entities = [row for row in entities if row.id not in deleted]
    if c.requests_deleted_before is not None:
        requests = [row for row in requests if row.at >= c.requests_deleted_before]
    for entity in _some(entities):
        yield piece(entities=entity)
    for mail in _some(c.mail):
        yield piece(mail=mail)
    for timers in _some(c.timers):
        yield piece(timers=timers)
    for request in _some(requests):
        yield piece(requests=request)
    for activities in _some(c.activities):
        yield piece(activities=activities)
    for gone in _some(c.mail_deleted):
        yield piece(mail_deleted=gone)
    for gone in _some(c.timers_deleted):
        yield piece(timers_deleted=gone)
    # These may have megabytes each.
    yield piece(history=c.history)
    yield piece(outbox=c.outbox)
    yield piece(
        entities_deleted=c.entities_deleted,
        outbox_deleted=c.outbox_deleted,
        peers=c.peers,
        requests_deleted_before=c.requests_deleted_before,
        activities_deleted=c.activities_deleted,
    )


def _some(rows: list[_Row]) -> Iterator[list[_Row]]:
    return (rows[start : start + PIECE] for start in range(0, len(rows), PIECE))
