"""A hub on PostgreSQL, read from its database: nothing is written there, and nobody's work is held up.

Invariants:

* Each read is one transaction that only reads: what the tables have, and what the journal has
  beyond them, are of one moment, whoever commits, folds or takes over meanwhile.
* No epoch is raised, so a hub that runs there does not notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from attrs import evolve

from ...actors.errors import StorageError, StoreDamagedError, UnavailableError
from ..encoding import pending
from ..mended import mend_entity, mend_instance
from ..records import (
    SLICE_ROWS,
    Checkpoint,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    Recovered,
    SetAside,
    TimerRow,
)
from ..slices import each, in_slices, map_each
from ..unapplied import Unapplied
from . import folding, journal, queries
from .links import Connection, Link
from .schema import Identity, checked, is_there, read_mark
from .store import PostgresPartition, PostgresStore
from .tables import bindable

T = TypeVar("T")

_STATE = (
    "SELECT f.settled, (SELECT max(j.sequence) FROM {s}.journal j WHERE j.partition = f.partition)"
    " FROM {s}.folded f WHERE f.partition = $1"
)


class StoppedPostgres(PostgresStore):
    """A hub's schema, of which nothing but reading is wanted; a standby will do."""

    async def open(
        self, partitions: int = 0, *, token: str | None = None
    ) -> list[PostgresPartition]:
        """Give its partitions, of which the methods that read may be called.

        Raises:
            UnavailableError: there is no hub.
            StoreMovedError: the hub is not there any more, or not yet.
            StorageError: it cannot be read.
        """
        return await super().open(partitions, token=token)

    async def _has_come(self) -> bool:
        """See ``PostgresStore``: whoever serves the hub says so there, and nobody who reads it."""
        return False

    def partition(self, number: int, member: int | None = None) -> PostgresPartition:
        """Give a partition that can be read."""
        return StoppedPostgresPartition(self, number, member)

    async def _open(self, partitions: int, token: str | None) -> None:
        self.reader = Link(self.place, "perdure reads")
        self.querier = Link(self.place, "perdure queries")
        try:
            self.identity = await self.querier.use(
                lambda connection: self._identify(connection, partitions, token)
            )
        except BaseException:
            await self.querier.close()
            raise
        self.count = self.identity.partitions
        self.is_closed = False

    async def _identify(
        self, connection: Connection, partitions: int, token: str | None
    ) -> Identity:
        async with _snapshot(connection):
            if not await is_there(connection, self.place):
                raise UnavailableError(
                    f"there is no hub in {self.location} yet: start one with perdure serve"
                )
            mark = await read_mark(connection, self.place)
            row = await connection.fetchrow(self.sql("SELECT * FROM {s}.hub"))
        if mark is not None:
            mark.refuse(self.location, token)
        return checked(row, self.place, partitions)


def _snapshot(connection: Connection) -> Any:
    return connection.transaction(isolation="repeatable_read", readonly=True)


class StoppedPostgresPartition(PostgresPartition):
    """One partition that nobody has to serve."""

    def __init__(self, store: PostgresStore, number: int, member: int | None = None) -> None:
        super().__init__(store, number, member)
        self._joined = Unapplied(0, 0)  # what the journal had when it was looked at last

    async def _at_one_moment(
        self, link: Link, work: Callable[[Connection, Unapplied], Coroutine[Any, Any, T]]
    ) -> T:
        """Read in one transaction, with what the tables lack."""

        async def run(connection: Connection) -> T:
            async with _snapshot(connection):
                return await work(connection, await self._lacking(connection))

        return await self._run(lambda: link.use(run))

    async def _lacking(self, connection: Connection) -> Unapplied:
        """Give what the journal has beyond the tables."""
        state = await connection.fetchrow(self._sql(_STATE), self._number)
        if state is None:
            raise StoreDamagedError(f"{self._where}: table folded has no row of it; restore a copy")
        settled, last = state[0], max(state[0], state[1] or 0)
        known = self._joined
        if (known.follows, known.sequence) != (settled, last):
            tail = await connection.fetch(self._sql(journal.TAIL), self._number, settled)
            self._joined = known = folding.joined(tail, settled, 0, self._where)
        return known

    async def _fetch_from(self, connection: Connection, sql: str, *values: Any) -> list[Any]:
        return list(await connection.fetch(self._sql(sql), *values))

    async def _read(self, sql: str, *values: Any) -> tuple[list[Any], tuple[Unapplied, ...]]:
        async def work(connection: Connection, lacking: Unapplied) -> Any:
            return await self._fetch_from(connection, sql, self._number, *values), (lacking,)

        return await self._at_one_moment(self._store.reader, work)

    async def read_histories(self, instances: Sequence[int]) -> dict[int, list[bytes]]:
        """Give what ``read_history`` does, of several instances and in one round trip.

        Raises:
            StoreDamagedError: ``read_history`` would raise it of one of them.
        """
        rows, layers = await self._read(queries.READ_HISTORIES, [*instances])
        found: dict[int, list[Any]] = {instance: [] for instance in instances}
        for *row, instance in map(tuple, rows):
            found[instance].append(row)
        return {instance: self._history(instance, its, layers) for instance, its in found.items()}

    async def read_timers(self, after: int, limit: int = SLICE_ROWS) -> list[TimerRow]:
        """Give the oldest messages that wait for their time, with ``n > after``."""

        async def work(connection: Connection, lacking: Unapplied) -> list[TimerRow]:
            written = [*{*lacking.timers, *lacking.timers_deleted}]
            rows = await self._fetch_from(
                connection, queries.READ_TIMERS, self._number, after, limit, written
            )
            found = [TimerRow(*row) for row in rows]
            found += [row for row in lacking.timers.values() if row.n > after]
            return sorted(found, key=lambda row: row.n)[:limit]

        return await self._at_one_moment(self._store.reader, work)

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """Give one page of instances, ordered by (created, key)."""

        async def work(connection: Connection, lacking: Unapplied) -> tuple[list[Any], list[Any]]:
            newer = await self._newer_instances(connection, lacking, filter)
            sql, values = queries.instance_page(self._number, filter, _written(lacking))
            return await self._fetch_from(connection, sql, *values), newer

        rows, newer = await self._at_one_moment(self._store.querier, work)
        found = await in_slices(map_each(rows, lambda row: mend_instance(tuple(row), self._path)))
        if newer:
            found = [*found, *newer]
            found.sort(key=lambda row: (row.created, row.key), reverse=filter.newest)
        return found[: max(0, filter.limit)]

    async def count_instances(self, filter: InstanceFilter) -> int:
        """Count the instances that match, on all pages."""
        filter = evolve(filter, after=None, payloads=False)

        async def work(connection: Connection, lacking: Unapplied) -> int:
            newer = await self._newer_instances(connection, lacking, filter)
            sql, values = queries.instance_count(self._number, filter, _written(lacking))
            return int(await connection.fetchval(self._sql(sql), *values)) + len(newer)

        return await self._at_one_moment(self._store.querier, work)

    async def _newer_instances(
        self, connection: Connection, lacking: Unapplied, filter: InstanceFilter
    ) -> list[InstanceRecord]:
        """Give those that match of the instances which the journal has something of."""
        changed = [id for id in lacking.progress if id not in lacking.created]
        sql = queries.INSTANCES_BY_ID if filter.payloads else queries.STATUSES_BY_ID
        rows = await self._fetch_from(connection, sql, self._number, changed) if changed else []
        found: list[InstanceRecord] = []

        def add(record: InstanceRecord) -> None:
            if filter.matches(record, record):
                if not filter.payloads:
                    record = record._replace(input=None, output=None)
                found.append(record)

        def add_changed(row: Any) -> None:
            origin = mend_instance(tuple(row), self._path)
            add(InstanceRecord._make((*origin[:12], *lacking.progress[origin.id][1:])))

        def add_created(id: int) -> None:
            row = lacking.created[id]
            add(InstanceRecord._make((*row, *(lacking.progress.get(id) or pending(row))[1:])))

        await in_slices(each(rows, add_changed))
        await in_slices(each([*lacking.created], add_created))
        return found

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """Give one page of entities, ordered by (name, key)."""

        async def work(connection: Connection, lacking: Unapplied) -> tuple[list[Any], Unapplied]:
            written = [*{*lacking.entities, *lacking.entities_deleted}]
            sql, values = queries.entity_page(self._number, filter, written)
            return await self._fetch_from(connection, sql, *values), lacking

        rows, lacking = await self._at_one_moment(self._store.querier, work)
        found = await in_slices(map_each(rows, lambda row: mend_entity(tuple(row), self._path)))
        newer = [row for row in lacking.entities.values() if filter.matches(row)]
        if not filter.states:
            newer = [row._replace(state=None) for row in newer]
        found = sorted([*found, *newer], key=lambda row: (row.name, row.key))
        return found[: max(0, filter.limit)]

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        """Count the stored messages that wait for each of ``actors``."""
        wanted = {*actors}

        async def work(connection: Connection, lacking: Unapplied) -> dict[str, int]:
            written = [*{*lacking.mail, *lacking.mail_deleted}]
            rows = await self._fetch_from(
                connection, queries.WAITING_BUT, self._number, _bindable(wanted), written
            )
            counts = Counter[str](dict(map(tuple, rows)))
            counts.update(row.actor for row in lacking.mail.values() if row.actor in wanted)
            return dict(counts)

        return await self._at_one_moment(self._store.querier, work)

    async def apply(self) -> None:
        """Leave the tables as they are."""
        self._check_open()

    # What is no reading.

    def _refuse(self) -> NoReturn:
        raise StorageError(f"{self._where} was opened to be read, and nothing is written there")

    async def recover(self) -> Recovered:
        """Refuse it: it would take the partition from who has it."""
        self._refuse()

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Refuse it."""
        self._refuse()

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        """Refuse it."""
        self._refuse()

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        """Refuse it: it is for who is about to serve."""
        self._refuse()


def _written(lacking: Unapplied) -> list[int]:
    """Give the instances of which the tables' rows are not the latest."""
    return [*{*lacking.created, *lacking.progress, *lacking.purged}]


def _bindable(texts: Iterable[str]) -> list[str]:
    return [*{bindable(text) for text in texts}]
