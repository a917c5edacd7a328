"""What a partition makes durable, as plain rows, and what it gets back.

Columns called *JSON* hold ``bytes`` of one JSON text each (``None`` where there is no value);
times are integer microseconds since the Unix epoch, UTC. Nothing here knows what an actor is:
the rows are what the partition says they are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import orjson
from attrs import Factory, define, frozen

ENDED = ("Completed", "Failed", "Canceled", "Terminated")
"""Statuses of instances that take no more turns; any other status is live."""

LIVE = ("Pending", "Running", "Suspended", "ContinuedAsNew")
"""The statuses of the other instances."""


class CreatedRow(NamedTuple):
    """An orchestration instance that begins an execution; replaces the row of that ``id``."""

    id: int
    key: str  # the instance id, unique in the partition
    name: str
    version: str | None
    execution: int  # 1, 2, ... ; continue-as-new and rewind begin the next
    created: int
    parent: str | None  # instance id of the parent
    parent_task: int  # the parent's task number, 0 where there is no parent
    parent_execution: int
    tags: bytes | None  # JSON object
    input: bytes | None  # JSON
    start_at: int | None


class ProgressRow(NamedTuple):
    """All of an instance that changes while it runs; overwrites these columns of row ``id``."""

    id: int
    status: str
    updated: int
    completed: int | None
    pending: int  # activities scheduled and not yet answered
    events: int  # events in the history so far
    output: bytes | None  # JSON
    failure: bytes | None  # JSON
    failure_type: str | None
    custom_status: bytes | None  # JSON
    parked: bytes | None  # JSON: why it is parked
    notes: bytes | None = None  # JSON object: what few instances have to say of themselves
    waits: bytes | None = None  # JSON array of texts: what it waits for, for queries
    attempts: int | None = None  # how often what is tried most was tried, if more than once


class ChunkRow(NamedTuple):
    """Events appended to a history: a JSON array of events, the first of them number ``seq``.

    A chunk follows on those before it, unless the history is rewritten; stores may join them.
    """

    instance: int
    seq: int
    body: bytes  # JSON array


class EntityRow(NamedTuple):
    """An entity's whole durable state; replaces the row of that ``id``."""

    id: int
    name: str
    key: str
    updated: int
    state: bytes | None  # JSON; None while it has no state (locked only, say)
    lock: bytes | None  # JSON: who holds the lock
    failures: bytes | None  # JSON: the last failed signals
    parked: bytes | None  # JSON: why it is parked


class MailRow(NamedTuple):
    """A message that waits for its actor."""

    n: int
    actor: str
    body: bytes  # JSON


class TimerRow(NamedTuple):
    """A message that waits for its time."""

    n: int
    due: int
    actor: str
    body: bytes  # JSON


class OutboxRow(NamedTuple):
    """A frame of messages owed to another partition, the last of them number ``last``."""

    n: int
    target: int
    last: int
    body: bytes  # JSON array


class ActivityRow(NamedTuple):
    """An activity whose answer no turn will take; it goes with its instance."""

    n: int
    instance: int
    body: bytes  # JSON: the call, its input and the execution that made it


class PeerRow(NamedTuple):
    """How far the exchange with another partition has come; replaces that peer's row."""

    peer: int
    received: int  # the last message number taken from it
    sent: int  # the last message number given to it


class RequestRow(NamedTuple):
    """A client's request that was applied, with the answer it got."""

    request: str
    at: int
    body: bytes  # JSON


class SetAside(NamedTuple):
    """A row that nobody can read, whose actor does without it until it is repaired.

    ``table`` is one of ``mail_row``, ``timer_row``, ``outbox_row``, ``instance_row`` and
    ``entity_row``, and ``row`` the ``n`` or ``id`` there.
    """

    table: str
    row: int
    actor: str | None  # whose it is, if that can be read
    reason: str


def _rows() -> list[Any]:
    # Not list[int], which takes ten times as long to make one, and there are many in a checkpoint.
    return []


@define(eq=False)
class Checkpoint:
    """The effects of many turns, made durable together or not at all.

    A store applies the parts in the order of the fields below.

    Attributes:
        sequence: the number of this checkpoint; the stored one must be one less.
        epoch: the owner's fencing number; the stored one must equal it.
        purged: ids of instances to delete, with their history and activities.
        rewritten: ids of instances whose history is deleted (new chunks may follow).
    """

    sequence: int
    epoch: int
    purged: list[int] = Factory(_rows)
    rewritten: list[int] = Factory(_rows)
    created: list[CreatedRow] = Factory(_rows)
    progress: list[ProgressRow] = Factory(_rows)
    history: list[ChunkRow] = Factory(_rows)
    entities: list[EntityRow] = Factory(_rows)
    entities_deleted: list[int] = Factory(_rows)
    mail: list[MailRow] = Factory(_rows)
    mail_deleted: list[int] = Factory(_rows)
    timers: list[TimerRow] = Factory(_rows)
    timers_deleted: list[int] = Factory(_rows)
    outbox: list[OutboxRow] = Factory(_rows)
    outbox_deleted: list[int] = Factory(_rows)
    peers: list[PeerRow] = Factory(_rows)
    requests: list[RequestRow] = Factory(_rows)
    requests_deleted_before: int | None = None
    activities: list[ActivityRow] = Factory(_rows)
    activities_deleted: list[int] = Factory(_rows)


SLICE_ROWS: Final = 500
"""How many messages or frames are read back at a time, unless fewer are asked for."""
SLICE_SIZE: Final = 1024 * 1024
"""How many bytes of them: a slice ends with the row that reaches it."""


_Row = TypeVar("_Row", MailRow, OutboxRow)


def cut(rows: Iterable[_Row], limit: int) -> list[_Row]:
    """Give the first of some rows, as many as one slice may have; one if there is any."""
    some: list[_Row] = []
    size = 0
    for row in rows:
        some.append(row)
        size += len(row.body)
        if size >= SLICE_SIZE or len(some) >= limit:
            break
    return some


def is_whole(rows: Sequence[MailRow] | Sequence[OutboxRow]) -> bool:
    """Whether a recovered slice has room for more, so that there are no more rows."""
    return len(rows) < SLICE_ROWS and sum(len(row.body) for row in rows) < SLICE_SIZE


@frozen
class Recovered:
    """What a partition needs to go on after a stop or a crash.

    Mail and outbox may be larger than memory: here is one slice of each, the oldest rows.
    ``read_mail`` and ``read_outbox`` give those behind.

    Attributes:
        sequence: number of the last checkpoint, 0 for a new partition.
        epoch: the fencing number of this opening; every opening gets a greater one.
        next_id: one more than the greatest id an instance or entity ever had here.
        next_row: one more than the greatest ``n`` in mail, timers, outbox and activities.
        unanswered: instance ids with ``pending`` above 0 and a live status.
        parked: keys of parked actors: instance ids, and ``@name@key`` for entities.
    """

    sequence: int
    epoch: int
    next_id: int
    next_row: int
    mail: list[MailRow]
    timers: list[TimerRow]
    outbox: list[OutboxRow]
    peers: list[PeerRow]
    unanswered: list[str]
    parked: list[str]
    activities: list[ActivityRow] = Factory(list[ActivityRow])


class InstanceRecord(NamedTuple):
    """An orchestration instance as stored: ``CreatedRow`` and ``ProgressRow`` together."""

    id: int
    key: str
    name: str
    version: str | None
    execution: int
    created: int
    parent: str | None
    parent_task: int
    parent_execution: int
    tags: bytes | None
    input: bytes | None
    start_at: int | None
    status: str
    updated: int
    completed: int | None
    pending: int
    events: int
    output: bytes | None
    failure: bytes | None
    failure_type: str | None
    custom_status: bytes | None
    parked: bytes | None
    notes: bytes | None = None
    waits: bytes | None = None
    attempts: int | None = None


@frozen(kw_only=True)
class InstanceFilter:
    """Which instances, of one partition; every condition given must hold.

    Results are ordered by (created, key), or ``newest`` first. ``after`` continues behind that pair.
    """

    statuses: tuple[str, ...] = ()
    name: str | None = None
    prefix: str | None = None  # of the instance id
    created_from: int | None = None  # inclusive
    created_to: int | None = None  # exclusive
    updated_from: int | None = None
    updated_to: int | None = None
    completed_from: int | None = None
    completed_to: int | None = None
    parent: str | None = None
    parents: tuple[str, ...] = ()  # one of these
    failure_type: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    parked: bool | None = None
    waits: str | None = None  # what it waits for is one of these
    attempts: int | None = None  # a call was tried so often, or more; at least 2
    newest: bool = False
    after: tuple[int, str] | None = None
    limit: int = 100
    payloads: bool = True  # False leaves input and output None

    def matches(
        self, origin: CreatedRow | InstanceRecord, progress: ProgressRow | InstanceRecord
    ) -> bool:
        """Whether an instance meets every condition; its two halves may be one record."""
        return (
            (not self.statuses or progress.status in self.statuses)
            and self.name in (None, origin.name)
            and origin.key.startswith(self.prefix or "")
            and is_within(origin.created, self.created_from, self.created_to)
            and is_within(progress.updated, self.updated_from, self.updated_to)
            and is_within(progress.completed, self.completed_from, self.completed_to)
            and self.parent in (None, origin.parent)
            and (not self.parents or origin.parent in self.parents)
            and self.failure_type in (None, progress.failure_type)
            and self.parked in (None, progress.parked is not None)
            and (self.attempts is None or (progress.attempts or 0) >= self.attempts)
            and (self.waits is None or _is_among(self.waits, progress.waits))
            and self._is_behind((origin.created, origin.key))
            and _has_tags(origin.tags, self.tags)
        )

    def _is_behind(self, place: tuple[int, str]) -> bool:
        if self.after is None:
            return True
        return place < self.after if self.newest else place > self.after


def is_within(value: int | None, first: int | None, behind: int | None) -> bool:
    """Whether a time is in a window; without either bound, any time is, and none, too."""
    if first is None and behind is None:
        return True
    return (
        value is not None
        and (first is None or first <= value)
        and (behind is None or value < behind)
    )


def _is_among(word: str, words: bytes | None) -> bool:
    stored: Any = orjson.loads(words or b"[]")
    return isinstance(stored, list) and word in stored


def _has_tags(tags: bytes | None, wanted: tuple[tuple[str, str], ...]) -> bool:
    if not wanted:
        return True
    stored: dict[str, object] = orjson.loads(tags or b"{}")
    return all(stored.get(name) == value for name, value in wanted)


@frozen(kw_only=True)
class EntityFilter:
    """Which entities, of one partition. Results are ordered by (name, key)."""

    name: str | None = None
    prefix: str | None = None  # of the key
    updated_from: int | None = None
    updated_to: int | None = None
    locked: bool | None = None
    parked: bool | None = None
    include_empty: bool = False  # also those whose state is None
    after: tuple[str, str] | None = None
    limit: int = 100
    states: bool = True  # False leaves state None

    def matches(self, row: EntityRow) -> bool:
        """Whether an entity meets every condition."""
        return (
            self.name in (None, row.name)
            and row.key.startswith(self.prefix or "")
            and is_within(row.updated, self.updated_from, self.updated_to)
            and self.locked in (None, row.lock is not None)
            and self.parked in (None, row.parked is not None)
            and (self.include_empty or row.state is not None)
            and (self.after is None or (row.name, row.key) > self.after)
        )


def part_of(instance: int, chunks: dict[int, bytes], first: int, end: int) -> list[ChunkRow]:
    """Give those of a history's chunks that have some of its events, oldest first.

    Args:
        instance: whose they are.
        chunks: the chunks, by the number of their first event.
        first: the number of the first of the events.
        end: the number behind the last of them.
    """
    places = sorted(chunks)
    some = places[max(0, bisect_right(places, first) - 1) : bisect_left(places, end)]
    return [ChunkRow(instance, place, chunks[place]) for place in some]


def behind_prefix(prefix: str) -> str | None:
    """Give the least text that is greater than every text with this prefix, if there is one."""
    for length in range(len(prefix), 0, -1):
        code = ord(prefix[length - 1]) + 1
        if code == 0xD800:  # the surrogates are no characters, so they cannot be bound
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[: length - 1] + chr(code)
    return None
