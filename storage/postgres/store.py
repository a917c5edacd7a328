"""The PostgreSQL store: a schema with a journal and tables.

A commit is one row of the journal, in one statement and one round trip, under a share lock on the
row of its partition. What was committed is folded a little later: brought into the tables, many
checkpoints as one (``folding.py``). Reads correct what they find there by what is not folded yet.

Invariants:

* The epoch of a partition only grows; a checkpoint is stored only while its own is the latest.
* After an error whose outcome is unknown, ``recover`` raises the epoch first and looks at the
  sequence afterwards, by another connection; so a commit that is still under way there either is
  seen, or stores nothing.
* A commit is never cancelled, and has no limit of time: a server that is told to stop waiting for
  its standby says that it has committed. It says so with a warning, and that counts as unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from anyio import CancelScope, to_thread

from ...actors.errors import (
    LeaseLostError,
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreInUseError,
    StoreMovedError,
    UsageError,
)
from ...actors.logs import Log
from ..bridge import AsyncioBridge
from ..encoding import next_numbers
from ..layered import LayeredReads, make_layer
from ..layers import Layers
from ..marks import COMING, MOVING, Mark
from ..membership import HubIdentity, Newcomer, View
from ..mended import mend_entity, mend_instance, why
from ..pieces import is_large
from ..records import (
    SLICE_ROWS,
    SLICE_SIZE,
    ActivityRow,
    Checkpoint,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    MailRow,
    OutboxRow,
    PeerRow,
    Recovered,
    SetAside,
    TimerRow,
    cut,
)
from ..slices import at_once, in_slices, map_each, turn_of_loop
from . import committer as commits, folding, journal, members, queries
from .committer import Committer, Entry, Row
from .faults import explained, lease_lost
from .links import Connection, Link, Pool, driver, transaction
from .place import read_place
from .schema import Identity, check_partitions, prepare, read_durability, read_mark
from .tables import bindable

TAKERS_MAX: Final = 8
"""Connections by which partitions are taken, recover and are let go, and by which what cannot be
committed at once is: one for each partition that does so, up to this many at the same time."""
TAKERS_KEPT: Final = 3
"""How many of them stay open while nobody uses them."""
TAKE: Final = (
    "UPDATE {s}.partition SET epoch = epoch + 1, owner = NULL, wanted = NULL WHERE partition = $1"
    " RETURNING epoch"
)
"""Takes a partition from whoever has it."""
RENEW: Final = (
    "UPDATE {s}.partition SET epoch = epoch + 1 WHERE partition = $1 AND owner = $2 RETURNING epoch"
)
"""Gives its owner, a member, a new epoch."""
EPOCH: Final = "SELECT epoch FROM {s}.partition WHERE partition = $1"
"""Tells whether somebody has taken a partition since."""
FENCE: Final = (
    "UPDATE {s}.folded SET epoch = $2 WHERE partition = $1 AND epoch < $2"
    " RETURNING settled, next_id, next_row"
)
"""Keeps older owners from folding; waits for a round that is under way."""

PLANS: Final = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan"
"""Has a connection find rows by their keys, and plan a statement once.

A plan that is made while the journal has nothing would read all of it for each checkpoint, and
is kept while it grows, until it is vacuumed or analysed next. Left to itself a server plans the
statement for several checkpoints each time, which takes it as long as doing it does.
"""

COUNT: Final = "SELECT partitions FROM {s}.hub"

_GREATEST: Final = 2**63 - 1

T = TypeVar("T")

_log = Log("perdure.storage")


class PostgresPartition(LayeredReads):
    """One partition of a ``PostgresStore``.

    Args:
        store: which it is of.
        number: the partition.
        member: who has to be its owner to recover it; None takes it from whoever is.
    """

    reads = queries.READS

    def __init__(self, store: PostgresStore, number: int, member: int | None = None) -> None:
        self._store = store
        self._number = number
        self._member = member
        self._where = f"{store.place.location}, partition {number}"
        self._path = Path(self._where)
        self._sql = store.sql
        self._bridge = store.bridge
        self._owned: Layers | None = None
        self._last: Layers | None = None  # those before, which reads need until there are others
        self._folder: folding.Folder | None = None
        self._last_folder: folding.Folder | None = None  # the one of those before
        self._epoch = 0
        self._broken = True
        self._closed = False

    @property
    def place(self) -> str:
        """The schema, and the number of the partition."""
        return self._where

    def _check_open(self) -> None:
        if self._closed or self._store.is_closed:
            raise StorageError(f"the store of {self._where} is closed; open it again")

    async def _run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._check_open()
        with explained(self._where):
            return await self._bridge.run(call)

    # Taking over.

    async def recover(self) -> Recovered:
        """Read what is needed to go on, under a new epoch that is durable on return.

        Raises:
            LeaseLostError: a member asks, and is not the owner.
        """
        self._check_open()
        self._broken = True
        with CancelScope(shield=True), explained(self._where):
            return await self._bridge.run(self._recover, shield=True)
        raise AssertionError("a scope that nobody cancels swallows nothing")

    async def _recover(self) -> Recovered:
        if self._owned is not None:
            self._last, self._owned = self._owned, None
        if self._folder is not None:
            folder, self._folder = self._folder, None
            self._last_folder = folder
            await folder.stop()
        recovered, layers = await self._store.takers.use(self._take)
        self._owned, self._last, self._last_folder = layers, None, None
        self._epoch = recovered.epoch
        self._folder = folding.Folder(
            self._number, self._epoch, layers, self._store.folder(), self._sql, self._where
        )
        self._broken = False
        return recovered

    async def _take(self, connection: Connection) -> tuple[Recovered, Layers]:
        number, sql = self._number, self._sql
        async with transaction(connection):
            if self._member is None:
                epoch = await connection.fetchval(sql(TAKE), number)
            else:
                epoch = await connection.fetchval(sql(RENEW), number, self._member)
            if epoch is None:
                raise lease_lost(self._where)
            folded = await connection.fetchrow(sql(FENCE), number, epoch)
            if folded is None:
                raise StoreDamagedError(
                    f"{self._where}: tables partition and folded are of different moments; restore "
                    "a copy"
                )
        settled, next_id, next_row = folded
        tail = await connection.fetch(sql(journal.TAIL), number, settled)
        sequence = settled
        if tail:
            try:
                layer = folding.joined(tail, settled, epoch, self._where)
            except StoreDamagedError as error:
                # Somebody may have taken it meanwhile, and folded what seems to be missing.
                if await connection.fetchval(sql(EPOCH), number) != epoch:
                    raise lease_lost(self._where) from error
                raise
            await folding.fold(connection, number, epoch, layer, sql, self._where)
            sequence = layer.sequence
            next_id, next_row = max(next_id, layer.next_id), max(next_row, layer.next_row)
        return await self._read_all(connection, epoch, sequence, next_id, next_row), Layers(
            sequence
        )

    async def _read_all(
        self, connection: Connection, epoch: int, sequence: int, next_id: int, next_row: int
    ) -> Recovered:
        number, sql = self._number, self._sql

        async def rows(statement: str, *values: Any) -> list[Any]:
            return list(await connection.fetch(sql(statement), number, *values))

        [(greatest_id, greatest_row)] = await rows(queries.GREATEST)
        slice_of = (SLICE_ROWS, SLICE_SIZE)
        mail = await rows(queries.READ_ALL_MAIL, 0, _GREATEST, *slice_of)
        outbox = await rows(queries.READ_ALL_OUTBOX, 0, *slice_of)
        return Recovered(
            sequence=sequence,
            epoch=epoch,
            # A number that is given twice would write over somebody's row.
            next_id=max(next_id, greatest_id + 1),
            next_row=max(next_row, greatest_row + 1),
            mail=cut((MailRow(*row) for row in mail), SLICE_ROWS),
            timers=[TimerRow(*row) for row in await rows(queries.TIMERS)],
            outbox=cut((OutboxRow(*row) for row in outbox), SLICE_ROWS),
            peers=[PeerRow(*row) for row in await rows(queries.PEERS)],
            unanswered=[key for (key,) in await rows(queries.UNANSWERED)],
            parked=[key for (key,) in await rows(queries.PARKED)],
            activities=[ActivityRow(*row) for row in await rows(queries.ACTIVITIES)],
        )

    # Committing.

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Put the checkpoint into the journal, all of it or nothing; durable as the server says.

        Raises:
            LeaseLostError: the stored epoch or sequence is not the expected one; nothing is stored.
            StoreFullError: no space; nothing is stored.
            StorageError: anything else; ``recover`` tells by ``sequence`` whether it is stored.
        """
        c = checkpoint
        layers, folder = self._owned, self._folder
        self._check_open()
        if layers is None or folder is None or self._broken:
            raise StorageError(f"{self._where} is not recovered yet")
        if c.sequence != layers.sequence + 1 or c.epoch != self._epoch:
            raise lease_lost(self._where)
        layers.check(c)
        if layers.size >= folding.TOO_LARGE:
            await self._run(folder.fold)
        if is_long := is_large(c):
            await turn_of_loop()  # what has just sealed it took its time as well
            body = await in_slices(journal.pack(c))
        else:
            body = at_once(journal.pack(c))
        numbers = next_numbers(c)
        row = (self._number, c.sequence, c.epoch, *numbers, body)
        layer = await make_layer(c, numbers, len(body)) if is_long else None

        def on_stored() -> None:
            if layer is None:
                layers.add(c, numbers, len(body))
            else:
                layers.add_layer(layer)
            folder.wake()

        try:
            with explained(self._where):
                await self._bridge.run(lambda: self._store_entry(row, on_stored), shield=True)
        except (LeaseLostError, StoreFullError):
            raise
        except BaseException:
            self._broken = True
            raise

    async def _store_entry(self, row: Row, on_stored: Callable[[], None]) -> None:
        # One at a time: so they come in order, whichever connection each of them goes by.
        await self._store.committer(len(row[-1])).store(Entry(row, self._where, on_stored))

    # Reading.

    @property
    def _layers(self) -> Layers | None:
        return self._owned

    @property
    def _known_layers(self) -> Layers | None:
        return self._owned or self._last

    async def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        statement = self._sql(sql)

        async def work(connection: Connection) -> list[Any]:
            return list(await connection.fetch(statement, self._number, *values))

        return await self._run(lambda: self._store.reader.use(work))

    def _bind(self, texts: Iterable[str]) -> Sequence[Any]:
        return ([*map(bindable, texts)],)

    def _bind_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Any]:
        return [bindable(one) for one, _ in pairs], [bindable(other) for _, other in pairs]

    def _bind_one(self, text: str) -> Any:
        return bindable(text)

    async def _query(self, statement: tuple[str, list[Any]]) -> list[Any]:
        sql, values = statement

        async def work(connection: Connection) -> list[Any]:
            return list(await connection.fetch(self._sql(sql), *values))

        await self.apply()
        return await self._run(lambda: self._store.querier.use(work))

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """Give one page of instances, ordered by (created, key)."""
        rows = await self._query(queries.instance_page(self._number, filter))
        return await in_slices(map_each(rows, lambda row: mend_instance(tuple(row), self._path)))

    async def count_instances(self, filter: InstanceFilter) -> int:
        """Count the instances that match, on all pages."""
        [row] = await self._query(queries.instance_count(self._number, filter))
        return int(row[0])

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """Give one page of entities, ordered by (name, key)."""
        rows = await self._query(queries.entity_page(self._number, filter))
        return await in_slices(map_each(rows, lambda row: mend_entity(tuple(row), self._path)))

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        """Give the keys of live instances whose name and version are none of those known."""
        names, versions = [name for name, _ in known], [version for _, version in known]
        rows = await self._query((queries.UNKNOWN, [self._number, names, versions]))
        return [key for (key,) in rows]

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        """Count the stored messages that wait for each of ``actors``, in one round trip."""
        wanted = [*{bindable(actor) for actor in actors}]
        rows = await self._query((queries.WAITING, [self._number, wanted]))
        return dict(map(tuple, rows))

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        """Keep copies of rows that nobody can read in the table ``damaged_row``; see ``place``."""
        with suppress(StorageError, LeaseLostError):
            await self.apply()

        async def work(connection: Connection) -> None:
            async with transaction(connection):
                for table, row, _, reason in rows:
                    if table in queries.COPIED:
                        await connection.execute(
                            self._sql(queries.copy(table)), self._number, row, reason
                        )
                    else:
                        await connection.execute(
                            self._sql(queries.park(table)), self._number, row, why(reason)
                        )

        await self._run(lambda: self._store.querier.use(work))

    async def apply(self) -> None:
        """Bring all that was committed by now into the tables."""
        self._check_open()
        if self._folder is not None:
            await self._run(self._folder.fold)
        elif self._last_folder is not None:  # while it recovers, or after that has failed
            try:
                await self._run(self._last_folder.fold)
            except LeaseLostError as error:
                if self._owned is None:  # else it has recovered meanwhile, and folded all
                    raise StorageError(f"{self._where} is not recovered yet") from error

    async def size(self) -> int:
        """Give the partition's share of what the schema takes, in bytes."""

        async def fetch() -> int:
            return await self._store.querier.use(
                lambda connection: connection.fetchval(SIZE, self._store.place.quoted)
            )

        return int(await self._run(fetch)) // max(1, self._store.count)

    async def rest(self) -> None:
        """Fold what was committed, and commit no more until it is recovered again."""
        finish = self.retire()
        with CancelScope(shield=True), explained(self._where):
            await self._bridge.run(finish, shield=True)

    async def close(self, *, fold: bool = True) -> None:
        """Refuse every call from now on; what was committed is folded first, if asked for."""
        finish = self.retire(for_good=True, fold=fold)
        with CancelScope(shield=True), explained(self._where):
            await self._bridge.run(finish, shield=True)

    def retire(
        self, *, for_good: bool = False, fold: bool = True
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        """Commit no more until it is recovered; gives what folds the rest, for asyncio."""
        folder, self._folder = self._folder, None
        was_broken, self._broken = self._broken, True
        self._closed = self._closed or for_good

        async def finish() -> None:
            if folder is not None and not self._store.is_closed:
                await _end(folder, is_whole=fold and not was_broken)

        return finish


SIZE: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
    " WHERE relnamespace = to_regnamespace($1) AND relkind = 'r'"
)


async def _end(folder: folding.Folder, *, is_whole: bool) -> None:
    try:
        if is_whole:
            with suppress(LeaseLostError):
                await folder.fold()
    finally:
        await folder.stop()


class PostgresStore:
    """A hub in a schema of a PostgreSQL database.

    Args:
        spec: ``postgresql://user@host:port/database?schema=NAME``; see ``docs/storage.md``.

    Raises:
        UsageError: it is no address of a database.

    Attributes:
        place: where it is.
        bridge: where its connections are used.
        reader: the connection that reads single actors.
        querier: the connection that reads pages.
        takers: the connections that may have to wait for others.
        losses: how many connections have been lost.
        count: how many partitions the hub has, once it is open.
        token: of the migration by which the hub leaves: who has it may be a member meanwhile.
        is_closed: whether it is not open.
    """

    def __init__(self, spec: str) -> None:
        given: object = spec
        if type(given) is not str:
            raise UsageError(f"spec must be a str, not a {type(given).__name__}")
        self.place = read_place(spec)
        self._spec = spec
        self.bridge = AsyncioBridge()
        self._committers: list[Committer] = []
        self.takers = self._new_takers()
        self._folder: Link | None = None
        self.losses = 0
        self.reader = self.link("perdure reads")
        self.querier = self.link("perdure queries")
        self.identity: Identity | None = None
        self.count = 0
        self.token: str | None = None
        self.is_closed = True
        self.partitions: list[PostgresPartition] = []
        self._memberships: list[members.PostgresMembership] = []
        self._durability: str | None = None

    @property
    def spec(self) -> str:
        """What ``open_store`` makes this store of; it may have a password."""
        return self._spec

    async def read_mark(self) -> Mark | None:
        """Read that the hub moves, if it does; open or not."""
        return await self._with_connection(lambda one: read_mark(one, self.place))

    def sql(self, statement: str) -> str:
        """Make a statement of one that names no schema."""
        return statement.replace("{s}", self.place.quoted)

    @property
    def durability(self) -> str:
        """How durable a commit is, in words for people; known once it is open."""
        return self._durability or "postgresql"

    @property
    def location(self) -> str:
        """What another process names this store by; a password is not part of it."""
        return self.place.location

    def partition(self, number: int, member: int | None = None) -> PostgresPartition:
        """Give a partition, as one member has it, or as somebody who takes it from all."""
        return PostgresPartition(self, number, member)

    def committer(self, size: int) -> Committer:
        """Give what commits a checkpoint of so many bytes, of any partition."""
        return self._committers[size > commits.TOGETHER_SIZE]

    def link(self, name: str, check: Callable[[Connection], Awaitable[None]] | None = None) -> Link:
        """Make a connection, which has passed a check, and whose loss is counted."""
        return Link(self.place, name, check or self._check_server, self.note_loss)

    def note_loss(self) -> None:
        """Count a connection that was lost."""
        self.losses += 1

    def _new_takers(self) -> Pool:
        def make() -> Link:
            return self.link("perdure takes", self._check)

        return Pool(make, TAKERS_MAX, TAKERS_KEPT)

    def folder(self) -> Link:
        """Give the connection that folds."""
        assert self._folder is not None
        return self._folder

    async def open(self, partitions: int, *, token: str | None = None) -> list[PostgresPartition]:
        """Open the hub, making its schema if there is none, and give its partitions.

        Args:
            partitions: how many; 0 for as many as it has.
            token: of the migration by which the hub comes here, or leaves, while it serves.

        Raises:
            StoreVersionError: newer schema, or another number of partitions.
            StoreDamagedError: something else is in the schema.
            StoreReadOnlyError: it cannot be written to.
            StorageError: it cannot be reached, or may lose what it commits.
        """
        if not self.is_closed:
            raise StoreInUseError(f"{self.location} is open already; close this store first")
        if partitions:
            check_partitions(partitions)
        self.token = token
        with explained(self.location):
            try:
                await self.bridge.run(lambda: self._open(partitions, token), shield=True)
            except StoreMovedError:
                if not await self._has_come():
                    raise
                await self.bridge.run(lambda: self._open(partitions, token), shield=True)
        self.partitions = [self.partition(number) for number in range(self.count)]
        return self.partitions

    async def _has_come(self) -> bool:
        """Whether a hub that came here while it served can be opened, now that nobody serves it."""
        from ..migration import finish  # which hardly an open store ever needs

        mark = await self.read_mark()
        return mark is not None and mark.state == COMING and await finish(mark.place, self._spec)

    async def _open(self, partitions: int, token: str | None) -> None:
        self.reader = self.link("perdure reads")
        self.querier = self.link("perdure queries")

        async def look(connection: Connection) -> Identity:
            self._durability = await read_durability(connection, self.place)
            return await prepare(connection, self.place, partitions, token)

        try:
            self.identity = identity = await self.querier.use(look)
        except BaseException:
            await self.querier.close()
            raise
        self.count = identity.partitions
        self.takers = self._new_takers()
        self._committers = [
            Committer(self.link(name, self._check), self.takers, self.sql)
            for name in ("perdure commits", "perdure commits much")
        ]
        self._folder = self.link("perdure folds")
        self.is_closed = False

    async def _check_server(self, connection: Connection) -> None:
        """See that a new connection leads to the server that this process is a member on.

        Raises:
            StorageError: it is another one, which may lack what this process knows.
        """
        if self._memberships and not self._memberships[-1].has_left:
            await self._memberships[-1].check(connection)

    async def _check(self, connection: Connection) -> None:
        """Prepare a new connection: see how durable commits are by it, maybe on another server.

        Raises:
            StorageError: not as they have to be.
        """
        await self._check_server(connection)
        durability = await read_durability(connection, self.place)
        if durability != self._durability:
            _log.warning("%s: commits are now %s", self.location, durability)
            self._durability = durability
        if not self.place.pooled:  # else the session is another's next, and no plan is kept
            await connection.execute(PLANS)

    async def count_partitions(self) -> int | None:
        """How many partitions the hub there has; None where there is none yet."""
        row = await self._look(COUNT)
        return None if row is None else int(row[0][0])

    async def identify(self) -> HubIdentity | None:
        """Say which hub is there; None where there is none yet.

        Raises:
            StoreMovedError: it is not there any more, or not yet.
        """

        async def work(connection: Connection) -> HubIdentity:
            mark = await read_mark(connection, self.place)
            if mark is not None and mark.state != MOVING:
                mark.refuse(self.location)
            hub, app, secret = await connection.fetchrow(
                self.sql("SELECT id, app, secret FROM {s}.hub")
            )
            return HubIdentity(str(hub), app or "", secret.encode())

        return await self._with_connection(work)

    async def view(self) -> View:
        """See who is a member, and who has what, without being one."""
        view = await self._with_connection(lambda one: members.look(one, self.sql, closely=True))
        return View([], []) if view is None else view

    async def join(self, newcomer: Newcomer) -> members.PostgresMembership:
        """Become a member of the hub, once the store is open.

        Raises:
            StoreInUseError: the hub is that of another application.
        """
        identity = self.identity
        if self.is_closed or identity is None:
            raise StorageError(f"{self.location} is not open")
        made = members.PostgresMembership(self, newcomer, identity)
        self._memberships = [one for one in self._memberships if not one.has_left] + [made]
        await made.join()
        return made

    async def _look(self, sql: str) -> list[Any] | None:
        async def work(connection: Connection) -> list[Any]:
            return list(await connection.fetch(self.sql(sql)))

        return await self._with_connection(work)

    async def _with_connection(
        self, work: Callable[[Connection], Coroutine[Any, Any, T]]
    ) -> T | None:
        """Look at the hub there, open or not; None where there is none."""

        async def run() -> T | None:
            link = self.querier if not self.is_closed else Link(self.place, "perdure looks")
            try:
                return await link.use(work)
            except (driver().UndefinedTableError, driver().InvalidSchemaNameError):
                return None
            finally:
                if link is not self.querier:
                    await link.close()

        with explained(self.location):
            return await self.bridge.run(run)

    async def close(self) -> None:
        """Fold what was committed, and close all connections. Idempotent."""
        partitions, self.partitions = self.partitions, []
        errors: list[StorageError] = []
        with CancelScope(shield=True):
            for partition in partitions:
                try:
                    # One that waits for a server in vain is enough; the next owner folds.
                    await partition.close(fold=not errors)
                except StorageError as error:
                    errors.append(error)
            if not self.is_closed:
                self.is_closed = True
                await self.bridge.run(self._close, shield=True)
            await to_thread.run_sync(self.bridge.close)
        if errors:
            raise errors[0]

    def break_off(self) -> None:
        """Have what commits, or waits for others, fail now: whether it was done is not known."""
        for committer in self._committers:
            committer.link.break_off()
        self.takers.break_off()

    async def _close(self) -> None:
        for committer in self._committers:
            await committer.finish()
        links = [self.reader, self.querier]
        if self._folder is not None:
            links.append(self._folder)
        # At the same time: a server that stands still lets each wait.
        await asyncio.gather(self.takers.close(), *(link.close() for link in links))
        await asyncio.gather(
            *(committer.close() for committer in self._committers),
            *(membership.end() for membership in self._memberships),
        )
