"""A hub's schema as one end of a migration."""

from __future__ import annotations

import json
import math
import shlex
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, cast

from ...actors.errors import StorageError, StoreInUseError, UnavailableError
from ..encoding import next_numbers
from ..marks import COMING, HERE, MOVING, Mark
from ..migration import (
    PORTION_ROWS,
    PORTION_SIZE,
    Content,
    DamagedRow,
    Found,
    Portion,
    Standing,
    Unhurried,
    unreadable,
)
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
from ..slices import at_once
from . import folding, journal
from .faults import MOVED, PASS, explained, lease_lost, unheard
from .links import WORRYING, Connection, connect, transaction
from .members import HAS_ENDED, lock_of
from .place import read_place
from .queries import WITH_PAYLOADS, WITH_STATES
from .schema import checked, is_there, lock, make, read_durability, read_mark
from .store import PostgresStore
from .tables import steps

_PARTS: Final[tuple[tuple[str, str, Callable[[Any], Any], str, str], ...]] = (
    ("entities", "entity_row", EntityRow._make, WITH_STATES, "id"),
    ("history", "history_row", ChunkRow._make, "instance, seq, body", "instance, seq"),
    ("mail", "mail_row", MailRow._make, "n, actor, body", "n"),
    ("timers", "timer_row", TimerRow._make, "n, due, actor, body", "n"),
    ("outbox", "outbox_row", OutboxRow._make, "n, target, last, body", "n"),
    ("peers", "peer_row", PeerRow._make, "peer, received, sent", "peer"),
    ("requests", "request_row", RequestRow._make, "request, at, body", "request"),
    ("activities", "activity_row", ActivityRow._make, "n, instance, body", "n"),
)
_HELD_S: Final = 60.0
"""Seconds for what is read elsewhere between two statements of a transaction."""
_ROWS: Final = "SELECT {} FROM {{s}}.{} WHERE partition = $1 ORDER BY {}"
_INSTANCES: Final = _ROWS.format(WITH_PAYLOADS, "instance_row", "id")
# One row may have been copied at several starts; the latest copy says the most.
_DAMAGED: Final = (
    'SELECT DISTINCT ON (of_table COLLATE "C", row) of_table, row, at, reason, content'
    ' FROM {s}.damaged_row WHERE partition = $1 ORDER BY of_table COLLATE "C", row, at DESC'
)
_TABLES: Final = (
    "instance_row",
    *(table for _, table, *_ in _PARTS),
    "damaged_row",
)
_JOURNAL: Final = "journal"
_STANDINGS: Final = (
    "SELECT p.epoch, f.settled, f.next_id, f.next_row FROM {s}.partition p JOIN {s}.folded f"
    " USING (partition)"
)
_UNSETTLED: Final = (
    "SELECT p.partition FROM {s}.partition p WHERE p.owner IS NOT NULL OR EXISTS"
    " (SELECT FROM {s}.journal j WHERE j.partition = p.partition) ORDER BY 1"
)
_LIVE: Final = (
    "SELECT member, host, pid FROM {s}.member WHERE expires > clock_timestamp()"
    " AND member IS DISTINCT FROM $1 ORDER BY member"
)
_NOT_OWNED: Final = (
    "SELECT partition FROM {s}.partition WHERE owner IS DISTINCT FROM $1 ORDER BY partition"
)
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS {s}.migration (one boolean PRIMARY KEY DEFAULT true CHECK (one),"
    " state text NOT NULL, token text NOT NULL, place text NOT NULL)"
)
_MARK: Final = (
    "INSERT INTO {s}.migration (state, token, place) VALUES ($1, $2, $3) ON CONFLICT (one) DO"
    " UPDATE SET state = excluded.state, token = excluded.token, place = excluded.place"
)
_ARRIVE: Final = (
    "UPDATE {s}.migration SET state = $1 WHERE token = $2 AND state = $3 RETURNING true"
)

# Of a hub that comes while it serves.

_ARRIVED_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS {s}.arrived (partition int PRIMARY KEY, token text NOT NULL)"
)
_FORGET: Final = "DELETE FROM {s}.arrived WHERE token <> $1"
_ARRIVED: Final = "SELECT partition FROM {s}.arrived WHERE token = $1 ORDER BY 1"
# Waits for the end of what is under way there, which has the lock of the row.
_FENCE_ALL: Final = "UPDATE {s}.partition SET epoch = epoch + 1, owner = NULL, wanted = NULL"
# Each try has an epoch of its own, so that what an earlier one still has under way does nothing.
_TRY: Final = (
    "UPDATE {s}.partition SET epoch = greatest(epoch, $2) + 1, owner = NULL, wanted = NULL"
    " WHERE partition = $1 RETURNING epoch"
)
_TRY_FOLDED: Final = "UPDATE {s}.folded SET epoch = $2 WHERE partition = $1"
_MINE: Final = "SELECT 1 FROM {s}.partition WHERE partition = $1 AND epoch = $2 FOR SHARE"
_SETTLED: Final = (
    "UPDATE {s}.folded SET settled = $2, next_id = $3, next_row = $4 WHERE partition = $1"
)
_FORWARD: Final = (
    "WITH mine AS (SELECT FROM {s}.partition WHERE partition = $1 AND epoch = $2 FOR SHARE)"
    " INSERT INTO {s}.journal (partition, sequence, epoch, next_id, next_row, body)"
    " SELECT $1, u.sequence, $2, u.next_id, u.next_row, u.body FROM mine,"
    " unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])"
    " AS u (sequence, next_id, next_row, body) RETURNING 1"
)
_TAIL: Final = f"{journal.TAIL} LIMIT $3"
_ARRIVE_ONE: Final = (
    "WITH mine AS (UPDATE {s}.partition p SET epoch = p.epoch + 1 FROM {s}.folded f WHERE"
    " p.partition = $1 AND p.epoch = $2 AND f.partition = $1 AND f.epoch = $2 AND f.settled = $3"
    " RETURNING p.partition)"
    " INSERT INTO {s}.arrived (partition, token) SELECT partition, $4 FROM mine"
    " ON CONFLICT (partition) DO UPDATE SET token = excluded.token RETURNING true"
)
_TAIL_ROWS: Final = 500
"""Checkpoints that are folded at once."""

_GUARDED: Final = ("member", "partition")
"""Tables that a process which is still there from before would write to."""

Entry = tuple[int, int, int, bytes]
"""A checkpoint for the journal: its sequence, its two numbers and its body."""

_ADD_DAMAGED: Final = (
    "INSERT INTO {s}.damaged_row (partition, of_table, row, at, reason, content)"
    " VALUES ($1, $2, $3, $4, $5, $6)"
)
_VALUES: Final = ("actor", "due", "target", "last")
_BODY: Final = "stored"
"""The body of a copy that has come from elsewhere; of our own it is JSON, and called ``body``."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: Texts, by the part whose rows have them.
_TEXTS: Final = {
    "created": ("instance_row", ("key", "name", "version", "parent")),
    "progress": ("instance_row", ("status", "failure_type")),
    "entities": ("entity_row", ("name", "key")),
    "mail": ("mail_row", ("actor",)),
    "timers": ("timer_row", ("actor",)),
    "requests": ("request_row", ("request",)),
}


class MovablePostgres(Unhurried):
    """The schema that a place names; see ``Movable``, and ``Live``.

    Args:
        place: ``postgresql://...``, as ``open_store`` takes it.

    Attributes:
        member: gives the number of this process, where it serves the hub while that moves.
    """

    def __init__(self, place: str) -> None:
        self._spec = place
        self._place = read_place(place)
        self._opened: Connection | None = None
        self._warnings = 0
        self.member: Callable[[], int | None] = lambda: None

    @property
    def location(self) -> str:
        """The schema, as a store, without a password."""
        return self._place.location

    def _sql(self, statement: str) -> str:
        return statement.replace("{s}", self._place.quoted)

    async def _connection(self) -> Connection:
        if self._opened is None or self._opened.is_closed():
            opened = await connect(self._place, name="perdure migrates")
            opened.add_log_listener(self._hear)
            self._opened = opened
        return self._opened

    def _hear(self, _: Connection, message: Any) -> None:
        if getattr(message, "severity_en", None) == WORRYING:
            self._warnings += 1

    async def look(self) -> Found | None:
        """See which hub is there."""
        with explained(self.location):
            connection = await self._connection()
            if not await is_there(connection, self._place):
                return None
            row = await connection.fetchrow(self._sql("SELECT * FROM {s}.hub"))
            identity = checked(row, self._place, 0)
            mark = await read_mark(connection, self._place)
            if mark is None or mark.state in (HERE, MOVING):
                await self._check_alone(connection)
        return Found(identity.id, identity.partitions, row["created"], mark)

    async def look_within(self) -> Found:
        """See which hub is there, for the process that has it open, and is to be the only one."""
        with explained(self.location):
            connection = await self._connection()
            row = await connection.fetchrow(self._sql("SELECT * FROM {s}.hub"))
            identity = checked(row, self._place, 0)
            mark = await read_mark(connection, self._place)
            if mark is None or mark.state == HERE:
                await self._check_alone(connection)
        return Found(identity.id, identity.partitions, row["created"], mark)

    async def _check_alone(self, connection: Connection) -> None:
        """Refuse a hub that somebody serves, but this process.

        Raises:
            StoreInUseError: somebody does.
        """
        me = self.member()
        live = await connection.fetch(self._sql(_LIVE), me)
        if me is not None:
            live = [one for one in live if not await self._has_ended(connection, one["member"])]
        if not live:
            return
        who = ", ".join(f"member {one['member']} ({one['host']}, {one['pid']})" for one in live)
        if me is None:
            raise StoreInUseError(
                f"the hub of {self.location} runs: {who}; stop all that serve it, since this is "
                "done while it stands still"
            )
        drain = shlex.join(["perdure", "nodes", self.location, "drain", str(live[0]["member"])])
        raise StoreInUseError(
            f"the hub of {self.location} has other nodes than this one, member {me}: {who}; while "
            "it serves, a hub goes to a folder from one node alone, so have each of the others let "
            f"its partitions go ({drain}), stop it, and repeat this"
        )

    async def _has_ended(self, connection: Connection, member: int) -> bool:
        """Whether the process of a member seems to be gone, though that has not expired."""
        hub = await connection.fetchval(self._sql("SELECT id FROM {s}.hub"))
        return bool(
            await connection.fetchval(self._sql(HAS_ENDED), member, lock_of(str(hub), member))
        )

    async def unsettled(self, found: Found) -> list[int]:
        """Name the partitions that somebody owns, or of which the journal has something."""
        with explained(self.location):
            rows = await (await self._connection()).fetch(self._sql(_UNSETTLED))
        return [number for (number,) in rows]

    async def settle(self, found: Found) -> None:
        """Take what nobody serves any more, and fold it."""
        unsettled = await self.unsettled(found)
        if not unsettled:
            return
        store = PostgresStore(self._spec)
        try:
            partitions = await store.open(0, token=found.mark.token if found.mark else None)
            for number in unsettled:
                await partitions[number].recover()
        finally:
            await store.close()

    async def standing(self, partition: int) -> Standing:
        """Say how far a partition has come."""
        with explained(self.location):
            return await self._standing(await self._connection(), partition)

    async def _standing(self, connection: Connection, partition: int) -> Standing:
        row = await connection.fetchrow(self._sql(f"{_STANDINGS} WHERE partition = $1"), partition)
        return Standing(*row)

    async def portions(self, partition: int) -> AsyncGenerator[Portion]:
        """Give all rows of a partition, as of one moment."""
        async with self.snapshot(partition) as (_, portions):
            async for portion in portions:
                yield portion

    @asynccontextmanager
    async def snapshot(
        self, partition: int
    ) -> AsyncGenerator[tuple[Standing, AsyncGenerator[Portion]]]:
        """Give how far a partition's tables are, and all rows of that moment, also if it is served."""
        with explained(f"{self.location}, partition {partition}"):
            connection = await self._connection()
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                standing = await self._standing(connection, partition)
                async with aclosing(self._read(connection, partition)) as portions:
                    yield standing, portions

    async def _read(self, connection: Connection, partition: int) -> AsyncGenerator[Portion]:
        def portion(**rows: Any) -> Portion:
            return Portion(Checkpoint(sequence=0, epoch=0, **rows))

        async with aclosing(self._slices(connection, _INSTANCES, partition)) as slices:
            async for some in slices:
                yield portion(
                    created=[CreatedRow._make(row[:12]) for row in some],
                    progress=[ProgressRow._make((row[0], *row[12:])) for row in some],
                )
        for part, table, of, columns, order in _PARTS:
            sql = _ROWS.format(columns, table, order)
            async with aclosing(self._slices(connection, sql, partition)) as slices:
                async for some in slices:
                    yield portion(**{part: [*map(of, some)]})
        async with aclosing(self._slices(connection, _DAMAGED, partition)) as slices:
            async for some in slices:
                damaged = [read_copy(*row) for row in some]
                yield Portion(Checkpoint(sequence=0, epoch=0), damaged)

    async def _slices(
        self, connection: Connection, sql: str, partition: int
    ) -> AsyncGenerator[list[tuple[Any, ...]]]:
        some: list[tuple[Any, ...]] = []
        size = 0
        async for row in connection.cursor(self._sql(sql), partition, prefetch=100):
            some.append(tuple(row))
            size += sum(len(value) for value in row if isinstance(value, (bytes, str)))
            if len(some) >= PORTION_ROWS or size >= PORTION_SIZE:
                yield some
                some, size = [], 0
        if some:
            yield some

    def check(self, portion: Portion, source: str) -> None:
        """Refuse texts with NUL in them."""
        for part, (table, columns) in _TEXTS.items():
            rows: list[Any] = getattr(portion.checkpoint, part)
            for row in rows:
                for column in columns:
                    value = getattr(row, column)
                    if value is not None and "\0" in value:
                        why = f"{column} is {value[:60]!r}, and PostgreSQL keeps no NUL in a text"
                        raise unreadable(source, table, row[0], why)

    async def begin(self, hub: Found, mark: Mark) -> None:
        """Make the schema of a hub that comes, or mark the one there."""
        with explained(self.location):
            connection = await self._connection()
            await read_durability(connection, self._place)
            async with transaction(connection, held_s=_HELD_S):
                await lock(connection, self._place)
                if await is_there(connection, self._place):
                    await self._check_still(connection, hub)
                    await self._unguard(connection)
                    await connection.execute(self._sql("DELETE FROM {s}.member"))
                    await connection.execute(self._sql("DELETE FROM {s}.relay"))
                else:
                    its = uuid.UUID(hub.hub)
                    await make(connection, self._place, hub.partitions, its, hub.created)
                await connection.execute(self._sql(_ARRIVED_TABLE))
                await connection.execute(self._sql(_FORGET), mark.token)
                await self._put_mark(connection, mark)

    async def _check_still(self, connection: Connection, hub: Found) -> None:
        """Refuse what has come here since ``look``.

        Raises:
            StoreInUseError: a hub is valid here, or another one is on its way.
        """
        its = str(await connection.fetchval(self._sql("SELECT id FROM {s}.hub")))
        mark = await read_mark(connection, self._place)
        if its != hub.hub or mark is None or mark.state == HERE:
            raise StoreInUseError(f"{self.location} has another hub ({its}) by now")

    async def _put_mark(self, connection: Connection, mark: Mark) -> None:
        await connection.execute(self._sql(_TABLE))
        await connection.execute(self._sql(_MARK), mark.state, mark.token, mark.place)

    async def has(self, partition: int, standing: Standing) -> bool:
        """Whether a partition has come over, by what its rows say."""
        with explained(self.location):
            connection = await self._connection()
            owned = await connection.fetch(self._sql(_UNSETTLED))
        return (partition,) not in map(tuple, owned) and await self.standing(partition) == standing

    async def load(
        self,
        partition: int,
        standing: Standing,
        portions: AsyncIterator[Portion],
        check: Callable[[Content], None],
    ) -> None:
        """Replace all that a partition has, in one transaction."""
        with explained(f"{self.location}, partition {partition}"):
            connection = await self._connection()
            async with transaction(connection, held_s=_HELD_S):
                await self._empty(connection, partition, (*_TABLES, _JOURNAL))
                await self._fill(connection, partition, portions, check)
                await self._put_standing(connection, partition, standing)

    async def _empty(self, connection: Connection, partition: int, tables: Iterable[str]) -> None:
        for table in tables:
            sql = f"DELETE FROM {{s}}.{table} WHERE partition = $1"
            await connection.execute(self._sql(sql), partition)

    async def _fill(
        self,
        connection: Connection,
        partition: int,
        portions: AsyncIterator[Portion],
        check: Callable[[Content], None],
    ) -> None:
        began = monotonic()
        async for portion in portions:
            for sql, values in steps(portion.checkpoint):
                await connection.execute(self._sql(sql), partition, *values)
            for row in portion.damaged:
                await connection.execute(self._sql(_ADD_DAMAGED), partition, *stored_copy(row))
            began = await self.rest(began)
        content = Content()
        async with aclosing(self._read(connection, partition)) as there:
            async for portion in there:
                content.add(portion)
                began = await self.rest(began)
        check(content)

    async def _put_standing(
        self, connection: Connection, partition: int, standing: Standing
    ) -> None:
        await connection.execute(
            self._sql(
                "UPDATE {s}.partition SET epoch = greatest(epoch, $2), owner = NULL, wanted = NULL"
                " WHERE partition = $1"
            ),
            partition,
            standing.epoch,
        )
        await connection.execute(
            self._sql(
                "UPDATE {s}.folded SET epoch = greatest(epoch, $2), settled = $3, next_id = $4,"
                " next_row = $5 WHERE partition = $1"
            ),
            partition,
            *standing,
        )

    # A partition that comes while it is served. Each of these is for one try, by its epoch.

    async def arrived(self, token: str) -> list[int]:
        """Name the partitions that are valid here, of those that come one by one; nobody serves them.

        No try that was begun before makes one of the others so.
        """
        with explained(self.location):
            connection = await self._connection()
            await connection.execute(self._sql(_FENCE_ALL))
            rows = await connection.fetch(self._sql(_ARRIVED), token)
        return [number for (number,) in rows]

    async def begin_one(self, partition: int, epoch: int) -> int:
        """Begin a try: nothing that an earlier one has under way is stored from now on.

        Args:
            partition: which one comes.
            epoch: how often it was taken where it is.

        Returns:
            The epoch of the try.
        """
        with explained(f"{self.location}, partition {partition}"):
            connection = await self._connection()
            async with transaction(connection, held_s=_HELD_S):
                its = await connection.fetchval(self._sql(_TRY), partition, epoch)
                await connection.execute(self._sql(_TRY_FOLDED), partition, its)
                await self._empty(connection, partition, [_JOURNAL])
        return int(its)

    async def load_one(
        self,
        partition: int,
        epoch: int,
        standing: Standing,
        portions: AsyncIterator[Portion],
        check: Callable[[Content], None],
    ) -> None:
        """Replace all that a partition has but its journal, in one transaction; see ``load``.

        Raises:
            LeaseLostError: there has been another try.
        """
        where = f"{self.location}, partition {partition}"
        with explained(where):
            connection = await self._connection()
            async with transaction(connection, held_s=_HELD_S):
                if await connection.fetchval(self._sql(_MINE), partition, epoch) is None:
                    raise lease_lost(where)
                await self._empty(connection, partition, _TABLES)
                await self._fill(connection, partition, portions, check)
                await connection.execute(self._sql(_SETTLED), partition, *standing[1:])

    def entry(self, checkpoint: Checkpoint) -> tuple[Entry, int]:
        """Give what ``forward`` takes of a checkpoint, and its bytes."""
        body = at_once(journal.pack(checkpoint))
        return (checkpoint.sequence, *next_numbers(checkpoint), body), len(body)

    async def forward(self, partition: int, epoch: int, entries: Sequence[Entry]) -> None:
        """Put checkpoints into the journal.

        Raises:
            LeaseLostError: there has been another try.
        """
        where = f"{self.location}, partition {partition}"
        with explained(where):
            connection = await self._connection()
            columns = [[*column] for column in zip(*entries, strict=True)]
            stored = await connection.fetchval(self._sql(_FORWARD), partition, epoch, *columns)
        if stored is None:
            raise lease_lost(where)

    async def fold_one(self, partition: int, epoch: int) -> int:
        """Bring some of what the journal has into the tables; says how far these are.

        Raises:
            LeaseLostError: there has been another try.
            StoreDamagedError: a checkpoint is missing.
        """
        where = f"{self.location}, partition {partition}"
        with explained(where):
            connection = await self._connection()
            sql = self._sql("SELECT settled FROM {s}.folded WHERE partition = $1")
            settled = int(await connection.fetchval(sql, partition))
            tail = await connection.fetch(self._sql(_TAIL), partition, settled, _TAIL_ROWS)
            if not tail:
                return settled
            layer = folding.joined(tail, settled, epoch, where)
            await folding.fold(connection, partition, epoch, layer, self._sql, where)
        return layer.sequence

    async def arrive_one(self, partition: int, epoch: int, sequence: int, token: str) -> None:
        """Make a partition valid here, in one statement: the point of no return.

        Raises:
            LeaseLostError: there has been another try, or it has not come so far; it is not valid.
            StorageError: it may be; ``has_arrived`` says so.
        """
        where = f"{self.location}, partition {partition}"
        with explained(where):
            connection = await self._connection()
            warnings = self._warnings
            arrived = await connection.fetchval(
                self._sql(_ARRIVE_ONE), partition, epoch, sequence, token
            )
            if self._warnings != warnings:
                raise unheard(where, "its arrival")
        if arrived is None:
            raise lease_lost(where)

    async def has_arrived(self, partition: int, token: str) -> bool:
        """Whether a partition is valid here: from now on no earlier try can make it so."""
        with explained(f"{self.location}, partition {partition}"):
            connection = await self._connection()
            await connection.fetchval(self._sql(_TRY), partition, 0)
            # What was under way has ended: it had the lock of the row.
            rows = await connection.fetch(self._sql(_ARRIVED), token)
        return (partition,) in map(tuple, rows)

    async def set_out(self, mark: Mark) -> None:
        """Mark the schema that this process serves alone, and keep out all others.

        Raises:
            StoreInUseError: others serve it, too.
            UnavailableError: this process has not all partitions yet.
        """
        me = self.member()
        with explained(self.location):
            connection = await self._connection()
            async with transaction(connection):
                await lock(connection, self._place)
                for table in _GUARDED:
                    sql = f"LOCK TABLE {{s}}.{table} IN SHARE ROW EXCLUSIVE MODE"
                    await connection.execute(self._sql(sql))
                await self._check_alone(connection)
                if missing := await connection.fetch(self._sql(_NOT_OWNED), me):
                    numbers = ", ".join(str(number) for (number,) in missing)
                    raise UnavailableError(
                        f"member {me} of {self.location} does not serve partitions {numbers} yet: "
                        "repeat it"
                    )
                # Of those that have expired, one may only be asleep: it has to join again.
                await connection.execute(
                    self._sql("DELETE FROM {s}.member WHERE member IS DISTINCT FROM $1"), me
                )
                await connection.execute(self._sql("DELETE FROM {s}.relay"))
                await self._put_mark(connection, mark)
                await self._make_guard(connection, mark, mark.token)
                await self._guard(connection, "member", "INSERT")

    async def leave(self, mark: Mark, standings: list[Standing]) -> None:
        """Mark the schema, and keep out whoever has had it open; all in one transaction."""
        with explained(self.location):
            connection = await self._connection()
            async with transaction(connection, held_s=_HELD_S):
                await lock(connection, self._place)
                for table in (*_GUARDED, "folded", "journal"):
                    sql = f"LOCK TABLE {{s}}.{table} IN SHARE ROW EXCLUSIVE MODE"
                    await connection.execute(self._sql(sql))
                await self._check_alone(connection)
                now = await connection.fetch(self._sql(f"{_STANDINGS} ORDER BY partition"))
                is_same = [Standing(*row) for row in now] == standings
                if not is_same or await connection.fetch(self._sql(_UNSETTLED)):
                    raise StoreInUseError(
                        f"the hub of {self.location} was opened while it was moved: stop it, and "
                        "repeat the command"
                    )
                await self._put_mark(connection, mark)
                await self._guard_all(connection, mark)

    async def _guard_all(self, connection: Connection, mark: Mark) -> None:
        """Have the server itself refuse processes that were only asleep, whatever they believe."""
        await self._make_guard(connection, mark)
        for table in _GUARDED:
            await self._guard(connection, table, "INSERT OR UPDATE")

    async def _make_guard(
        self, connection: Connection, mark: Mark, token: str | None = None
    ) -> None:
        """Make what says where the hub is, to all but whoever has a token."""
        words = mark.words(self.location).replace("'", "''")
        passes = ""
        if token is not None:
            passes = f"IF current_setting('{PASS}', true) = '{token}' THEN RETURN NULL; END IF; "
        await connection.execute(
            self._sql(
                "CREATE OR REPLACE FUNCTION {s}.moved() RETURNS trigger LANGUAGE plpgsql AS"
                f" $perdure$BEGIN {passes}RAISE EXCEPTION USING ERRCODE = '{MOVED}', MESSAGE = '"
            )
            + words
            + "'; END$perdure$"
        )

    async def _guard(self, connection: Connection, table: str, what: str) -> None:
        await connection.execute(
            self._sql(
                f"CREATE OR REPLACE TRIGGER moved BEFORE {what} ON {{s}}.{table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION {s}.moved()"
            )
        )

    async def _unguard(self, connection: Connection) -> None:
        await connection.execute(self._sql("DROP FUNCTION IF EXISTS {s}.moved() CASCADE"))

    async def analyze(self) -> None:
        """Have the server count what has come, by which it plans."""
        with explained(self.location):
            connection = await self._connection()
            for table in ("instance_row", *(table for _, table, *_ in _PARTS)):
                await connection.execute(self._sql(f"ANALYZE {{s}}.{table}"))

    async def arrive(self, token: str) -> None:
        """Make the hub that has come valid."""
        with explained(self.location):
            connection = await self._connection()
            warnings = self._warnings
            arrived = await connection.fetchval(self._sql(_ARRIVE), HERE, token, COMING)
        if not arrived:
            raise StorageError(f"{self.location} is not what has just been written there")
        if self._warnings != warnings:
            raise unheard(self.location, "all that came over")

    async def bury(self, mark: Mark) -> None:
        """Say that the hub is valid elsewhere."""
        with explained(self.location):
            connection = await self._connection()
            async with transaction(connection, held_s=_HELD_S):
                await self._put_mark(connection, mark)
                await self._guard_all(connection, mark)

    async def close(self) -> None:
        """Let go of the connection."""
        opened, self._opened = self._opened, None
        if opened is not None:
            with suppress(Exception):  # the server sees its end in any case
                await opened.close(timeout=2.0)
            opened.terminate()


# Copies of damaged rows, as JSON.


def stored_copy(row: DamagedRow) -> tuple[Any, ...]:
    """Give what the table takes of a copy."""
    names = (*_VALUES, _BODY)
    content = {
        name: _to_json(*value)
        for name, value in zip(names, row[4:], strict=True)
        if value[0] != "null"
    }
    at = _EPOCH + timedelta(microseconds=row.at)
    return row.table, row.row, at, row.reason, json.dumps(content).encode()


def _to_json(kind: str, value: Any) -> Any:
    if kind == "integer":
        return value
    if kind == "real" and math.isfinite(value):
        return value
    if kind == "real":
        return {"real": repr(value)}
    if kind == "text":
        with suppress(UnicodeDecodeError):
            return cast("bytes", value).decode()
    return {kind: value.hex()}


def read_copy(table: str, row: int, at: datetime, reason: str, content: bytes | None) -> DamagedRow:
    """Give the copy that the table has."""
    stored: dict[str, Any] = {} if content is None else json.loads(content)
    values = [_from_json(stored.get(name)) for name in _VALUES]
    if "body" in stored:
        body: tuple[str, Any] = ("text", json.dumps(stored["body"]).encode())
    else:
        body = _from_json(stored.get(_BODY))
    since = (at - _EPOCH) // timedelta(microseconds=1)
    return DamagedRow._make((table, row, since, reason, *values, body))


def _from_json(value: Any) -> tuple[str, Any]:
    if value is None:
        return "null", None
    if isinstance(value, int):
        return "integer", value
    if isinstance(value, float):
        return "real", value
    if isinstance(value, str):
        return "text", value.encode("utf-8", "surrogatepass")
    [(kind, inner)] = cast("dict[str, str]", value).items()
    return kind, float(inner) if kind == "real" else bytes.fromhex(inner)
