"""Checkpoints that the journal has and the tables have not: what is left of them in the end.

An instance that was written four times, or an entity that was written a hundred times, is one row
here, and one row for the tables. Reads look here first, and in the tables for the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from attrs import Factory, define

from ..actors.errors import StorageError
from .encoding import pending
from .records import (
    ActivityRow,
    Checkpoint,
    ChunkRow,
    CreatedRow,
    EntityRow,
    InstanceRecord,
    MailRow,
    OutboxRow,
    PeerRow,
    ProgressRow,
    RequestRow,
    TimerRow,
)

#: Chunks of a history are joined up to so many bytes.
CHUNK_SIZE_MAX = 128 * 1024

DELETED: Final = 8
"""So many rows are deleted in the time that one takes to be put."""

_T = TypeVar("_T")
_Row = TypeVar("_Row", MailRow, TimerRow, OutboxRow, ActivityRow)


@define(eq=False)
class Unapplied:
    """Checkpoints that follow one another, as one.

    Invariants:

    * No id is both put and deleted among entities, mail, timers, outbox and activities.
    * Applying ``checkpoint()`` gives what applying each of them in order gives.

    Attributes:
        follows: the number of the checkpoint before the first of them.
        sequence: the number of the last of them; ``follows`` if there is none.
        size: bytes of their encoded parts.
    """

    follows: int
    sequence: int
    size: int = 0
    next_id: int = 1
    next_row: int = 1
    purged: set[int] = Factory(set[int])
    rewritten: set[int] = Factory(set[int])
    created: dict[int, CreatedRow] = Factory(dict[int, CreatedRow])
    ids: dict[str, int] = Factory(dict[str, int])
    progress: dict[int, ProgressRow] = Factory(dict[int, ProgressRow])
    history: dict[int, dict[int, bytes]] = Factory(dict[int, dict[int, bytes]])
    entities: dict[int, EntityRow] = Factory(dict[int, EntityRow])
    entity_ids: dict[tuple[str, str], int] = Factory(dict[tuple[str, str], int])
    entities_deleted: set[int] = Factory(set[int])
    mail: dict[int, MailRow] = Factory(dict[int, MailRow])
    mail_deleted: set[int] = Factory(set[int])
    timers: dict[int, TimerRow] = Factory(dict[int, TimerRow])
    timers_deleted: set[int] = Factory(set[int])
    outbox: dict[int, OutboxRow] = Factory(dict[int, OutboxRow])
    outbox_deleted: set[int] = Factory(set[int])
    peers: dict[int, PeerRow] = Factory(dict[int, PeerRow])
    requests: dict[str, RequestRow] = Factory(dict[str, RequestRow])
    requests_deleted_before: int | None = None
    activities: dict[int, ActivityRow] = Factory(dict[int, ActivityRow])
    activities_deleted: set[int] = Factory(set[int])

    def check(self, checkpoint: Checkpoint, later: Sequence[Unapplied] = ()) -> None:
        """Refuse a key or name that is another row's, as far as these checkpoints tell.

        Args:
            checkpoint: the next one.
            later: what came between, which may have set a name free.

        Raises:
            StorageError: which could not be applied.
        """
        keys = {row.key: row.id for row in checkpoint.created}
        if len(keys) != len({row.id for row in checkpoint.created}):
            raise _taken("instance_row.key", [row.key for row in checkpoint.created])
        for key, id in keys.items():
            holder = self.ids.get(key, id)
            if holder == id or holder in checkpoint.purged:
                continue
            if not any(holder in layer.purged for layer in later):
                raise _taken("instance_row.key", [key])
        for row in checkpoint.entities:
            if row.id not in self.entities:
                name = row.name, row.key
                holder = self.entity_ids.get(name, row.id)
                if holder == row.id or holder in checkpoint.entities_deleted:
                    continue
                if not any(holder in layer.entities_deleted for layer in later):
                    raise _taken("entity_row.name", [name])

    def add(self, checkpoint: Checkpoint, numbers: tuple[int, int], size: int) -> None:
        """Add the next checkpoint, with its ``next_numbers``; its parts are of so many bytes."""
        c = checkpoint
        self.sequence = c.sequence
        self.size += size
        self.next_id = max(self.next_id, numbers[0])
        self.next_row = max(self.next_row, numbers[1])
        if c.purged:
            self._purge(c.purged)
        for id in c.rewritten:
            self.history.pop(id, None)
            self.rewritten.add(id)
        for created in c.created:
            self.created[created.id] = created
            self.ids[created.key] = created.id
            self.progress.pop(created.id, None)
        for progress in c.progress:
            self.progress[progress.id] = progress
        history = self.history
        for instance, seq, body in c.history:
            chunks = history.get(instance)
            if chunks is None:
                history[instance] = {seq: body}
            else:
                chunks[seq] = body
        if c.entities or c.entities_deleted:
            self._add_entities(c)
        _change(self.mail, self.mail_deleted, c.mail, c.mail_deleted)
        _change(self.timers, self.timers_deleted, c.timers, c.timers_deleted)
        _change(self.outbox, self.outbox_deleted, c.outbox, c.outbox_deleted)
        for peer in c.peers:
            self.peers[peer.peer] = peer
        for request in c.requests:
            self.requests[request.request] = request
        if c.requests_deleted_before is not None:
            self._expire(c.requests_deleted_before)
        if c.activities or c.activities_deleted:
            _change(self.activities, self.activities_deleted, c.activities, c.activities_deleted)

    def _purge(self, ids: list[int]) -> None:
        if self.activities:
            purged = set(ids)
            left = [row for row in self.activities.values() if row.instance not in purged]
            self.activities = {row.n: row for row in left}
        for id in ids:
            self.purged.add(id)
            self.progress.pop(id, None)
            self.history.pop(id, None)
            if (gone := self.created.pop(id, None)) is not None and self.ids.get(gone.key) == id:
                del self.ids[gone.key]

    def _add_entities(self, c: Checkpoint) -> None:
        entities, deleted = self.entities, self.entities_deleted
        for row in c.entities:
            if row.id not in entities:
                self.entity_ids[row.name, row.key] = row.id
                deleted.discard(row.id)
            entities[row.id] = row
        for id in c.entities_deleted:
            deleted.add(id)
            gone = entities.pop(id, None)
            if gone is not None and self.entity_ids.get((gone.name, gone.key)) == id:
                del self.entity_ids[gone.name, gone.key]

    def _expire(self, before: int) -> None:
        self.requests = {id: row for id, row in self.requests.items() if row.at >= before}
        self.requests_deleted_before = max(before, self.requests_deleted_before or before)

    def checkpoint(self, epoch: int) -> Checkpoint:
        """Give them as one checkpoint."""
        return Checkpoint(
            sequence=self.sequence,
            epoch=epoch,
            purged=list(self.purged),
            rewritten=list(self.rewritten),
            created=list(self.created.values()),
            progress=list(self.progress.values()),
            history=[
                row for instance, chunks in self.history.items() for row in _join(instance, chunks)
            ],
            entities=list(self.entities.values()),
            entities_deleted=list(self.entities_deleted),
            mail=list(self.mail.values()),
            mail_deleted=list(self.mail_deleted),
            timers=list(self.timers.values()),
            timers_deleted=list(self.timers_deleted),
            outbox=list(self.outbox.values()),
            outbox_deleted=list(self.outbox_deleted),
            peers=list(self.peers.values()),
            requests=list(self.requests.values()),
            requests_deleted_before=self.requests_deleted_before,
            activities=list(self.activities.values()),
            activities_deleted=list(self.activities_deleted),
        )

    def portions(self, epoch: int, most: int) -> Iterator[Checkpoint]:
        """Give them as checkpoints that have the same effect if all are applied in order.

        What sets keys and names free comes first.

        Args:
            epoch: the owner's.
            most: how many rows one may have, about.
        """

        def portion(**rows: Any) -> Checkpoint:
            return Checkpoint(sequence=self.sequence, epoch=epoch, **rows)

        if self.rows <= most:
            yield self.checkpoint(epoch)
            return
        for purged in _some(self.purged, most):
            yield portion(purged=purged)
        for rewritten in _some(self.rewritten, most):
            yield portion(rewritten=rewritten)
        if self.requests_deleted_before is not None:
            yield portion(requests_deleted_before=self.requests_deleted_before)
        for part, deleted in (
            ("entities_deleted", self.entities_deleted),
            ("mail_deleted", self.mail_deleted),
            ("timers_deleted", self.timers_deleted),
            ("outbox_deleted", self.outbox_deleted),
            ("activities_deleted", self.activities_deleted),
        ):
            for gone in _some(deleted, DELETED * most):
                yield portion(**{part: gone})
        for ids in self._instances(most):
            yield portion(
                created=_among(self.created, ids),
                progress=_among(self.progress, ids),
                history=[
                    row for id in ids if id in self.history for row in _join(id, self.history[id])
                ],
            )
        for part, rows in (
            ("entities", self.entities),
            ("mail", self.mail),
            ("timers", self.timers),
            ("outbox", self.outbox),
            ("peers", self.peers),
            ("requests", self.requests),
            ("activities", self.activities),
        ):
            for some in _some(rows.values(), most):
                yield portion(**{part: some})

    @property
    def rows(self) -> int:
        """How many rows they are of, about."""
        # Who is created has progress, and a history as well.
        instances = max(len(self.created), len(self.progress), len(self.history))
        put = len(self.entities) + len(self.mail) + len(self.timers) + len(self.outbox)
        put += len(self.requests) + len(self.activities)
        deleted = len(self.entities_deleted) + len(self.mail_deleted) + len(self.timers_deleted)
        deleted += len(self.outbox_deleted) + len(self.activities_deleted)
        return instances + put + len(self.purged) + len(self.rewritten) + deleted // DELETED

    def _instances(self, most: int) -> Iterator[list[int]]:
        """Give the ids of those instances of which something is put, a portion's at a time."""
        ids = list[int]()
        size = 0
        for id in dict.fromkeys((*self.created, *self.progress, *self.history)):
            ids.append(id)
            size += sum(map(len, self.history.get(id, {}).values()))
            if len(ids) >= most or size >= CHUNK_SIZE_MAX:
                yield ids
                ids, size = [], 0
        if ids:
            yield ids

    def correct_instances(self, keys: Iterable[str], found: dict[str, InstanceRecord]) -> None:
        """Bring the stored instances among ``keys`` up to date."""
        for key in keys:
            id = self.ids.get(key)
            if id is not None:
                created = self.created[id]
                progress = self.progress.get(id) or pending(created)
                found[key] = InstanceRecord._make((*created, *progress[1:]))
            elif (record := found.get(key)) is not None:
                if record.id in self.purged:
                    del found[key]
                elif (latest := self.progress.get(record.id)) is not None:
                    found[key] = InstanceRecord._make((*record[:12], *latest[1:]))

    def correct_entities(
        self, ids: Iterable[tuple[str, str]], found: dict[tuple[str, str], EntityRow]
    ) -> None:
        """Bring the stored entities among (name, key) ``ids`` up to date."""
        for id in ids:
            number = self.entity_ids.get(id)
            if number is not None:
                found[id] = self.entities[number]
            elif (row := found.get(id)) is not None and row.id in self.entities_deleted:
                del found[id]

    def correct_history(self, instance: int, chunks: dict[int, bytes]) -> None:
        """Bring the stored chunks of a history, by ``seq``, up to date."""
        if instance in self.rewritten or instance in self.purged:
            chunks.clear()
        chunks.update(self.history.get(instance, {}))

    def correct_mail(
        self, actor: str | None, after: int, upto: int, found: dict[int, MailRow]
    ) -> None:
        """Bring stored messages, by ``n``, up to date: an actor's or all, ``after < n <= upto``."""
        for n in self.mail_deleted.intersection(found):
            del found[n]
        found |= {
            n: row
            for n, row in self.mail.items()
            if after < n <= upto and actor in (None, row.actor)
        }

    def correct_outbox(
        self, target: int, after: int, upto: int, found: dict[int, OutboxRow]
    ) -> None:
        """Do the same for frames owed to another partition."""
        for n in self.outbox_deleted.intersection(found):
            del found[n]
        found |= {
            n: row for n, row in self.outbox.items() if after < n <= upto and row.target == target
        }

    def correct_request(self, request: str, found: RequestRow | None) -> RequestRow | None:
        """Bring what is stored for a request id up to date."""
        if (row := self.requests.get(request)) is not None:
            return row
        before = self.requests_deleted_before
        return None if found is None or (before is not None and found.at < before) else found


def _some(rows: Collection[_T], most: int) -> Iterator[list[_T]]:
    left = iter(rows)
    while some := list(islice(left, most)):
        yield some


def _among(rows: dict[int, _T], ids: list[int]) -> list[_T]:
    return [rows[id] for id in ids if id in rows]


def _taken(column: str, names: list[Any]) -> StorageError:
    return StorageError(f"checkpoint refused: two rows would have the same {column}, of {names}")


def _change(rows: dict[int, _Row], deleted: set[int], put: list[_Row], gone: list[int]) -> None:
    for row in put:
        rows[row.n] = row
        deleted.discard(row.n)
    for n in gone:
        rows.pop(n, None)
        deleted.add(n)


def _join(instance: int, chunks: dict[int, bytes]) -> list[ChunkRow]:
    """Give chunks that follow one another as one, or as few, so that none gets long by it."""
    if len(chunks) == 1:
        [(seq, body)] = chunks.items()
        return [ChunkRow(instance, seq, body)]
    joined: list[ChunkRow] = []
    first, some, size = 0, list[bytes](), 0
    for seq in sorted(chunks):
        if some and size + len(chunks[seq]) > CHUNK_SIZE_MAX:
            joined.append(ChunkRow(instance, first, b"[%b]" % b",".join(some)))
            some, size = [], 0
        if not some:
            first = seq
        some.append(chunks[seq][1:-1])
        size += len(chunks[seq])
    return [*joined, ChunkRow(instance, first, b"[%b]" % b",".join(some))]
