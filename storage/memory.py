"""The memory store: the contract of ``protocol.py`` in its plainest form.

Nothing survives the process. The rows do survive ``close``: opening the same object again finds
them, so a test can crash a hub and go on with another.

Invariants of a partition's rows:

* ``ids`` has one entry per instance, under its key, and ``entity_ids`` likewise.
* ``waiting`` counts the rows of ``mail`` by actor, without zeros.
* ``next_id`` and ``next_row`` are above every number ever stored, of deleted rows too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from anyio import CancelScope
from attrs import Factory, define, evolve

from ..actors.errors import (
    LeaseLostError,
    StorageError,
    StoreInUseError,
    StoreVersionError,
    UsageError,
)
from .mended import why
from .pieces import is_large, pieces
from .records import (
    ENDED,
    SLICE_ROWS,
    ActivityRow,
    Checkpoint,
    ChunkRow,
    CreatedRow,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    MailRow,
    OutboxRow,
    PeerRow,
    ProgressRow,
    Recovered,
    RequestRow,
    SetAside,
    TimerRow,
    cut,
    part_of,
)
from .slices import each, first_in_order, in_slices, map_each

_T = TypeVar("_T")

_number = itemgetter(0)


@define(eq=False)
class _Instance:
    created: CreatedRow
    progress: ProgressRow

    def record(self) -> InstanceRecord:
        return InstanceRecord._make((*self.created, *self.progress[1:]))


@define(eq=False)
class MemoryRows:
    """What one partition has stored: each kind of row by its numbers, and where to find them.

    Attributes:
        sequence: how many checkpoints there were.
        epoch: which owner may write; another one makes it larger.
        ids: the number of each instance, by its key.
        entity_ids: the number of each entity, by its name and key.
        waiting: how much mail there is for each actor.
    """

    sequence: int = 0
    epoch: int = 0
    next_id: int = 1
    next_row: int = 1
    instances: dict[int, _Instance] = Factory(dict[int, _Instance])
    ids: dict[str, int] = Factory(dict[str, int])
    history: dict[int, dict[int, bytes]] = Factory(dict[int, dict[int, bytes]])
    entities: dict[int, EntityRow] = Factory(dict[int, EntityRow])
    entity_ids: dict[tuple[str, str], int] = Factory(dict[tuple[str, str], int])
    mail: dict[int, MailRow] = Factory(dict[int, MailRow])
    waiting: dict[str, int] = Factory(dict[str, int])
    timers: dict[int, TimerRow] = Factory(dict[int, TimerRow])
    outbox: dict[int, OutboxRow] = Factory(dict[int, OutboxRow])
    peers: dict[int, PeerRow] = Factory(dict[int, PeerRow])
    requests: dict[str, RequestRow] = Factory(dict[str, RequestRow])
    set_aside: list[SetAside] = Factory(list[SetAside])
    activities: dict[int, ActivityRow] = Factory(dict[int, ActivityRow])

    def check(self, checkpoint: Checkpoint) -> None:
        """Refuse what must not be applied, so that ``apply`` never stops half-way."""
        if checkpoint.epoch != self.epoch or checkpoint.sequence != self.sequence + 1:
            raise LeaseLostError(
                f"checkpoint {checkpoint.sequence} of epoch {checkpoint.epoch} refused: the store "
                f"is at checkpoint {self.sequence} of epoch {self.epoch}"
            )
        gone = set(checkpoint.purged)
        _check_names(((row.key, row.id) for row in checkpoint.created), self.ids, gone)
        _check_names(
            (((row.name, row.key), row.id) for row in checkpoint.entities), self.entity_ids, set()
        )

    def apply(self, checkpoint: Checkpoint) -> None:
        """Apply the parts in the order of the checkpoint's fields."""
        if checkpoint.purged:
            self.purge(checkpoint.purged)
        for id in checkpoint.rewritten:
            self.history.pop(id, None)
        for created in checkpoint.created:
            self.create(created)
        for progress in checkpoint.progress:
            if (instance := self.instances.get(progress.id)) is not None:
                instance.progress = progress
        for chunk in checkpoint.history:
            self.history.setdefault(chunk.instance, {})[chunk.seq] = chunk.body
        for entity in checkpoint.entities:
            self.put_entity(entity)
        for id in checkpoint.entities_deleted:
            if (gone := self.entities.pop(id, None)) is not None:
                del self.entity_ids[gone.name, gone.key]
        for mail in checkpoint.mail:
            self.put_mail(mail)
        for n in checkpoint.mail_deleted:
            self.drop_mail(n)
        self.apply_rest(checkpoint)

    def apply_rest(self, checkpoint: Checkpoint) -> None:
        for timer in checkpoint.timers:
            self.timers[timer.n] = timer
            self.next_row = max(self.next_row, timer.n + 1)
        for n in checkpoint.timers_deleted:
            self.timers.pop(n, None)
        for frame in checkpoint.outbox:
            self.outbox[frame.n] = frame
            self.next_row = max(self.next_row, frame.n + 1)
        for n in checkpoint.outbox_deleted:
            self.outbox.pop(n, None)
        for peer in checkpoint.peers:
            self.peers[peer.peer] = peer
        for request in checkpoint.requests:
            self.requests[request.request] = request
        if (before := checkpoint.requests_deleted_before) is not None:
            self.requests = {k: row for k, row in self.requests.items() if row.at >= before}
        for activity in checkpoint.activities:
            self.activities[activity.n] = activity
            self.next_row = max(self.next_row, activity.n + 1)
        for n in checkpoint.activities_deleted:
            self.activities.pop(n, None)
        self.sequence = checkpoint.sequence

    def purge(self, ids: list[int]) -> None:
        gone = set(ids)
        for n in [row.n for row in self.activities.values() if row.instance in gone]:
            del self.activities[n]
        for id in ids:
            self.history.pop(id, None)
            if (instance := self.instances.pop(id, None)) is not None:
                del self.ids[instance.created.key]

    def create(self, row: CreatedRow) -> None:
        progress = ProgressRow(
            row.id, "Pending", row.created, None, 0, 0, None, None, None, None, None
        )
        if (instance := self.instances.get(row.id)) is None:
            self.instances[row.id] = _Instance(row, progress)
        else:
            del self.ids[instance.created.key]
            instance.created, instance.progress = row, progress
        self.ids[row.key] = row.id
        self.next_id = max(self.next_id, row.id + 1)

    def put_entity(self, row: EntityRow) -> None:
        if (old := self.entities.get(row.id)) is not None:
            del self.entity_ids[old.name, old.key]
        self.entities[row.id] = row
        self.entity_ids[row.name, row.key] = row.id
        self.next_id = max(self.next_id, row.id + 1)

    def put_mail(self, row: MailRow) -> None:
        self.drop_mail(row.n)
        self.mail[row.n] = row
        self.waiting[row.actor] = self.waiting.get(row.actor, 0) + 1
        self.next_row = max(self.next_row, row.n + 1)

    def drop_mail(self, n: int) -> None:
        if (row := self.mail.pop(n, None)) is None:
            return
        left = self.waiting.pop(row.actor) - 1
        if left:
            self.waiting[row.actor] = left

    def recovered(self) -> Generator[None, None, Recovered]:
        """Read what is needed to go on; pauses now and then."""
        mail = yield from _page(self.mail.values(), _any, _number, SLICE_ROWS)
        outbox = yield from _page(self.outbox.values(), _any, _number, SLICE_ROWS)
        unanswered: list[str] = []
        parked: list[str] = []

        def look_at(item: _Instance) -> None:
            progress = item.progress
            if progress.pending > 0 and progress.status not in ENDED:
                unanswered.append(item.created.key)
            if progress.parked is not None:
                parked.append(item.created.key)

        yield from each([*self.instances.values()], look_at)
        entities = yield from _page(self.entities.values(), _is_parked, _name, len(self.entities))
        return Recovered(
            sequence=self.sequence,
            epoch=self.epoch,
            next_id=self.next_id,
            next_row=self.next_row,
            mail=cut(mail, SLICE_ROWS),
            timers=_in_order(self.timers),
            outbox=cut(outbox, SLICE_ROWS),
            peers=_in_order(self.peers),
            unanswered=unanswered,
            parked=parked + [f"@{row.name}@{row.key}" for row in entities],
            activities=_in_order(self.activities),
        )


class MemoryPartition:
    """One partition of a ``MemoryStore``. Its methods suspend where there is much to do."""

    place = "memory"

    def __init__(self, rows: MemoryRows) -> None:
        self._stored: MemoryRows | None = rows

    @property
    def _rows(self) -> MemoryRows:
        if self._stored is None:
            raise StorageError("the memory store is closed; open it again")
        return self._stored

    def close(self) -> None:
        """Refuse every call from now on."""
        self._stored = None

    @property
    def unapplied(self) -> int:
        """How many checkpoints its tables lack: none ever."""
        return 0

    async def recover(self) -> Recovered:
        """Read what is needed to go on, under a new epoch."""
        rows = self._rows
        rows.epoch += 1
        return await in_slices(rows.recovered())

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Apply the checkpoint, all of it or nothing.

        Raises:
            LeaseLostError: the epoch or sequence is not the expected one.
            StorageError: a key or entity id that belongs to another row.
        """
        rows = self._rows
        rows.check(checkpoint)
        if not is_large(checkpoint):
            rows.apply(checkpoint)
            return
        with CancelScope(shield=True):
            await in_slices(each(pieces(checkpoint), rows.apply, every=1))

    async def read_instances(
        self, keys: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRecord]:
        """Give the stored instances among ``keys``."""
        rows = self._rows
        return [rows.instances[rows.ids[key]].record() for key in set(keys) if key in rows.ids]

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        """Give the stored entities among (name, key) ``ids``."""
        rows = self._rows
        return [rows.entities[rows.entity_ids[id]] for id in set(ids) if id in rows.entity_ids]

    async def read_history(self, instance: int) -> list[bytes]:
        """Give the chunks of an instance's history, oldest first."""
        return _in_order(self._rows.history.get(instance, {}))

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        """Give the chunks that have some of the events of a history; see the protocol."""
        return part_of(instance, self._rows.history.get(instance, {}), first, end)

    async def read_request(self, request: str) -> RequestRow | None:
        """Give what was recorded for a client's request id."""
        return self._rows.requests.get(request)

    async def read_mail(
        self, actor: str | None, after: int, upto: int, limit: int = SLICE_ROWS
    ) -> list[MailRow]:
        """Give the oldest stored messages for an actor, or for all, with ``after < n <= upto``."""
        rows = self._rows.mail.values()

        def matches(row: MailRow) -> bool:
            return after < row.n <= upto and actor in (None, row.actor)

        return cut(await in_slices(_page(rows, matches, _number, limit)), limit)

    async def read_outbox(
        self, target: int, after: int, limit: int = SLICE_ROWS
    ) -> list[OutboxRow]:
        """Give the oldest frames owed to another partition with ``n > after``."""
        rows = self._rows.outbox.values()

        def matches(row: OutboxRow) -> bool:
            return row.n > after and row.target == target

        return cut(await in_slices(_page(rows, matches, _number, limit)), limit)

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """Give one page of instances, ordered by (created, key)."""
        parents, rest = frozenset(filter.parents), evolve(filter, parents=())
        page = await in_slices(
            _page(
                self._rows.instances.values(),
                lambda item: (
                    (not parents or item.created.parent in parents)
                    and rest.matches(item.created, item.progress)
                ),
                lambda item: (item.created.created, item.created.key),
                filter.limit,
                newest=filter.newest,
            )
        )

        def record_of(item: _Instance) -> InstanceRecord:
            record = item.record()
            return record if filter.payloads else record._replace(input=None, output=None)

        return await in_slices(map_each(page, record_of))

    async def count_instances(self, filter: InstanceFilter) -> int:
        """Count the instances that match, on all pages."""
        wanted = evolve(filter, after=None)
        items = [*self._rows.instances.values()]
        return sum(
            await in_slices(
                map_each(items, lambda item: wanted.matches(item.created, item.progress))
            )
        )

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """Give one page of entities, ordered by (name, key)."""
        rows = self._rows.entities.values()
        page = await in_slices(_page(rows, filter.matches, _name, filter.limit))
        if filter.states:
            return page
        return await in_slices(map_each(page, lambda row: row._replace(state=None)))

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        """Keep what cannot be read, and mark the actors that it is of."""
        stored = self._rows
        for row in rows:
            if row.table == "instance_row" and row.row in stored.instances:
                instance = stored.instances[row.row]
                instance.progress = instance.progress._replace(parked=why(row.reason))
            elif row.table == "entity_row" and row.row in stored.entities:
                stored.entities[row.row] = stored.entities[row.row]._replace(parked=why(row.reason))
            else:
                stored.set_aside.append(row)

    async def apply(self) -> None:
        """Do nothing: all is where it should be."""

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        """Give the keys of live instances whose name and version are none of those known."""
        names = set(known)
        keys: list[str] = []

        def look_at(item: _Instance) -> None:
            created = item.created
            if item.progress.status not in ENDED and (created.name, created.version) not in names:
                keys.append(created.key)

        await in_slices(each([*self._rows.instances.values()], look_at))
        return keys

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        """Count the stored messages that wait for each of ``actors``."""
        waiting = self._rows.waiting
        return {actor: waiting[actor] for actor in actors if actor in waiting}

    async def size(self) -> int:
        """Give 0: memory has no size that would mean anything."""
        self._rows.sequence  # noqa: B018 (refuses a closed store)
        return 0


class MemoryStore:
    """A store without durability, for tests, benchmarks and throw-away hubs.

    Attributes:
        rows: what each partition has stored, open or closed: for tests to look at, and for those
            that have another owner come. There is none before the store was opened first.
    """

    durability = "memory only: lost when the process ends"

    def __init__(self) -> None:
        self.rows: list[MemoryRows] = []
        self._open: list[MemoryPartition] = []

    async def open(self, partitions: int) -> Sequence[MemoryPartition]:
        """Take the store over and give its partitions.

        Raises:
            StoreInUseError: it is open already.
            StoreVersionError: it has another number of partitions.
        """
        if partitions < 1:
            raise UsageError(f"a hub needs at least 1 partition, not {partitions}")
        if self._open:
            raise StoreInUseError("this MemoryStore is open in another hub; close that one first")
        if self.rows and len(self.rows) != partitions:
            raise StoreVersionError(
                f"this MemoryStore has {len(self.rows)} partitions, not {partitions}; "
                "open it with as many as it was made with"
            )
        self.rows = self.rows or [MemoryRows() for _ in range(partitions)]
        self._open = [MemoryPartition(rows) for rows in self.rows]
        return self._open

    async def close(self) -> None:
        """Give the store up; its rows stay in this object."""
        for partition in self._open:
            partition.close()
        self._open = []


def _in_order(rows: dict[int, Any]) -> list[Any]:
    return [rows[n] for n in sorted(rows)]


def _page(
    rows: Iterable[_T],
    matches: Callable[[_T], bool],
    key: Callable[[_T], Any],
    limit: int,
    *,
    newest: bool = False,
) -> Generator[None, None, list[_T]]:
    """Give the first, in order, of the rows that match; pauses now and then."""
    found: list[_T] = []

    def look_at(row: _T) -> None:
        if matches(row):
            found.append(row)

    yield from each([*rows], look_at)
    return (yield from first_in_order(found, key, limit, reverse=newest))


def _any(row: object) -> bool:
    return True


def _is_parked(row: EntityRow) -> bool:
    return row.parked is not None


def _name(row: EntityRow) -> tuple[str, str]:
    return row.name, row.key


def _check_names(
    rows: Iterable[tuple[Hashable, int]], stored: dict[Any, int], gone: set[int]
) -> None:
    claimed: dict[Hashable, int] = {}
    for name, id in rows:
        holder = stored.get(name, id)
        if claimed.setdefault(name, id if holder in gone else holder) != id:
            raise StorageError(
                f"checkpoint refused: {name!r} belongs to row {claimed[name]}, not to row {id}"
            )
