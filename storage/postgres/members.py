"""Members of a hub on PostgreSQL: who serves it, and who has which partition.

What counts are rows, compared by the server and its clock. A session of each member's own holds an
advisory lock and hears notices: hints by which others see sooner that its process is gone, or
that something has changed. Without that session all goes on, a look later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anyio import CancelScope

from ...actors.errors import StorageError, StoreInUseError
from ...actors.logs import Log
from ..membership import LeaseRow, MemberRow, Newcomer, View
from .faults import PASS, explain, explained
from .links import Connection, Link, Pool, connect, driver, transaction
from .schema import Identity

if TYPE_CHECKING:
    from .store import PostgresPartition, PostgresStore

T = TypeVar("T")
P = TypeVar("P", bound="PostgresPartition")

NAME_APP: Final = "UPDATE {s}.hub SET app = coalesce(app, $1) RETURNING app"
JOIN: Final = (
    "INSERT INTO {s}.member (address, host, pid, software, app, app_hash, http, weight, expires)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() + make_interval(secs => $9))"
    " RETURNING member"
)
LET_IN: Final = f"SELECT set_config('{PASS}', $1, true)"
BEAT: Final = (
    "UPDATE {s}.member SET beat = clock_timestamp(), expires = clock_timestamp()"
    " + make_interval(secs => $2) WHERE member = $1 AND expires > clock_timestamp() RETURNING 1"
)
_MEMBERS: Final = (
    "SELECT ARRAY(SELECT ROW(member, address, host, pid, software, app, app_hash, http, weight,"
    " draining, (extract(epoch FROM joined) * 1000000)::bigint,"
    " extract(epoch FROM clock_timestamp() - beat)::float8, expires <= clock_timestamp())"
    " FROM {s}.member ORDER BY member)"
)
LOOK: Final = (
    f"{_MEMBERS}, ARRAY(SELECT ROW(partition, epoch, owner, wanted) FROM {{s}}.partition"
    " ORDER BY partition)"
)
"""The members and the leases of one moment, in one round trip."""
LOOK_CLOSELY: Final = (
    f"{_MEMBERS}, ARRAY(SELECT ROW(p.partition, p.epoch, p.owner, p.wanted, greatest(0, (SELECT"
    " max(j.sequence) FROM {s}.journal j WHERE j.partition = p.partition) - f.settled))"
    " FROM {s}.partition p LEFT JOIN {s}.folded f ON f.partition = p.partition"
    " ORDER BY p.partition)"
)
"""The same, and how many checkpoints of each the tables lack: not for each look, but when asked."""
TAKE: Final = (
    "UPDATE {s}.partition SET owner = $1, epoch = epoch + 1, wanted = NULL, software = $5"
    " WHERE partition = $2 AND owner IS NOT DISTINCT FROM $3 AND epoch = $4 AND EXISTS"
    " (SELECT FROM {s}.member WHERE member = $1 AND expires > clock_timestamp()) RETURNING epoch"
)
FENCE: Final = "UPDATE {s}.folded SET epoch = $2 WHERE partition = $1"
LET_GO: Final = (
    "UPDATE {s}.partition SET owner = NULL, wanted = $3 WHERE partition = $2 AND owner = $1"
    " RETURNING 1"
)
LET_ALL_GO: Final = "UPDATE {s}.partition SET owner = NULL, wanted = NULL WHERE owner = $1"
WISH: Final = "UPDATE {s}.partition SET wanted = $2 WHERE partition = $1"
DRAIN: Final = (
    "UPDATE {s}.member SET draining = $2 WHERE member = $1 AND expires > clock_timestamp()"
    " RETURNING 1"
)
LEAVE: Final = "DELETE FROM {s}.member WHERE member = $1"
FORGET: Final = (
    "DELETE FROM {s}.member m WHERE expires < clock_timestamp() - interval '1 hour'"
    " AND NOT EXISTS (SELECT FROM {s}.partition p WHERE p.owner = m.member)"
)
HAS_ENDED: Final = (
    "SELECT coalesce((SELECT control AND pg_try_advisory_xact_lock($2) FROM {s}.member"
    " WHERE member = $1), true)"
)
SEND: Final = (
    "INSERT INTO {s}.relay (target, source, body)"
    " SELECT $1::bigint, $2::bigint, body FROM unnest($3::bytea[]) AS u (body)"
)
RECEIVE: Final = (
    "WITH taken AS (DELETE FROM {s}.relay WHERE target = $1 RETURNING n, source, body)"
    " SELECT source, body FROM taken ORDER BY n"
)
SWEEP: Final = (
    "DELETE FROM {s}.relay r WHERE NOT EXISTS (SELECT FROM {s}.member m WHERE m.member = r.target)"
)
NOTIFY: Final = "SELECT pg_notify($1, '')"
TIMELINE = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN NULL"
    " ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END"
)
"""Tells a server from the one whose standby it was, which may have known more."""

NOTICED_S: Final = 2.0
"""Seconds after which whoever waits for a notice looks by himself."""
FOLD_S: float = 2.0
"""Seconds in which what is let go is folded, or left to the next owner."""
LEAVE_S: float = 3.0
"""Seconds in which it must be said that a member leaves, or it expires."""
_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 5.0

_log = Log("perdure.storage")
jitter = Random()
"""By which those that come back to one server do so apart."""


async def look(
    connection: Connection, sql_of: Callable[[str], str], *, closely: bool = False
) -> View:
    """See who is a member, and who has what, at one moment."""
    rows, leases = await connection.fetchrow(sql_of(LOOK_CLOSELY if closely else LOOK))
    return View([MemberRow(*row) for row in rows], [LeaseRow(*row) for row in leases])


class PostgresMembership:
    """One member's access to its hub; see ``Membership``.

    Args:
        store: that of the hub, which is open.
        newcomer: what it says of itself.
        identity: the hub's.

    Attributes:
        store: as it was given.
        control: the session that others see the end of, once it has joined.
    """

    def __init__(self, store: PostgresStore, newcomer: Newcomer, identity: Identity) -> None:
        self.store = store
        self._newcomer = newcomer
        self._identity = identity
        self._sql = store.sql
        self._link = store.link("perdure leases", self._check_timeline)
        # Of its own, so that nothing delays it.
        self._beats = store.link("perdure beats", self._check_timeline)
        self._losses = store.losses  # of those before
        self._waits = store.takers.waits
        self._timeline: str | None = None  # that it has joined on
        self._is_forgotten = False
        self._number = 0
        self._partitions: list[PostgresPartition] = []
        self.control: Control | None = None
        self._has_left = False
        self._leaving: asyncio.Future[None] | None = None
        self._under_way: set[asyncio.Future[Any]] = set()  # so that nobody collects them
        self._given_up: dict[int, asyncio.Future[bool]] = {}

    @property
    def number(self) -> int:
        """The member."""
        return self._number

    @property
    def hub(self) -> str:
        """The id of the hub."""
        return self._identity.id

    @property
    def secret(self) -> bytes:
        """What only those know who may read the database."""
        return self._identity.secret.encode()

    @property
    def partitions(self) -> Sequence[PostgresPartition]:
        """All partitions, as this member has them."""
        return self._partitions

    @property
    def has_left(self) -> bool:
        """Whether it is no member any more, or never became one."""
        return self._has_left

    @property
    def ttl_s(self) -> float:
        """How many seconds after a beat this member expires."""
        return self._newcomer.ttl_s

    @property
    def losses(self) -> int:
        """How many connections to the server were lost since it began to join."""
        return self.store.losses - self._losses

    @property
    def waits(self) -> int:
        """How often something waited for a connection that may wait at the server, since then."""
        return self.store.takers.waits - self._waits

    @property
    def has_control(self) -> bool:
        """Whether the session is up that holds the member's lock."""
        return self.control is not None and self.control.is_up

    def renew(self, number: int, kind: type[P]) -> P:
        """Have a partition be another one of its kind, which is the one to be served next."""
        made = self._partitions[number] = kind(self.store, number, self._number)
        return made

    async def join(self) -> None:
        """Become a member.

        Raises:
            StoreInUseError: the hub is that of another application.
        """
        one = self._newcomer

        async def work(connection: Connection) -> int:
            app = await connection.fetchval(self._sql(NAME_APP), one.app)
            if app != one.app:
                raise StoreInUseError(
                    f"{self.store.location} is the hub of application {app!r}, not of "
                    f"{one.app!r}: give this one a schema of its own, as in ?schema=shop"
                )
            await connection.execute(self._sql(FORGET))
            await connection.execute(self._sql(SWEEP))
            async with transaction(connection):
                if self.store.token is not None:
                    await connection.execute(LET_IN, self.store.token)
                return int(
                    await connection.fetchval(
                        self._sql(JOIN),
                        *(one.address, one.host, one.pid, one.software, one.app, one.app_hash),
                        *(one.http, one.weight, one.ttl_s),
                    )
                )

        async def begin() -> None:
            self._number = await self._link.use(work)
            if self._has_left:
                return  # nobody waits any more
            self.control = Control(self.store, self._identity, self._number)
            self.control.start()
            await self._tell()

        try:
            with explained(self.store.location):
                await self.store.bridge.run(begin)
        except BaseException:
            # Whoever is no member has nothing to close; a row that is there already expires.
            with CancelScope(shield=True):
                await self.store.bridge.run(self.end, shield=True)
            raise
        self._partitions = [
            self.store.partition(number, self._number) for number in range(self.store.count)
        ]

    async def _check_timeline(self, connection: Connection) -> None:
        """See whether a connection leads to a server that may have forgotten something.

        What this process has in memory may be ahead of it then, also in partitions that commit
        nothing: it counts as expired, drops all, and reads it anew.
        """
        try:
            timeline = await connection.fetchval(TIMELINE)
        except driver().PostgresError as error:
            _log.debug("the server does not say its timeline: %s", error)
            return
        if self._timeline is None:
            self._timeline = timeline
        elif timeline != self._timeline and timeline is not None and not self._is_forgotten:
            self._is_forgotten = True
            _log.warning(
                "member %d: the database has failed over, from timeline %s to %s; all partitions are "
                "read anew",
                self._number,
                self._timeline,
                timeline,
            )

    async def check(self, connection: Connection) -> None:
        """See that a connection leads to the server that it has joined on.

        Raises:
            StorageError: it is another one.
        """
        await self._check_timeline(connection)
        if self._is_forgotten:
            raise StorageError(
                f"{self.store.location} has failed over, and may lack what was committed: member "
                f"{self._number} does nothing more there, and this process joins again"
            )

    async def _do(
        self, work: Callable[[Connection], Awaitable[T]], link: Link | Pool | None = None
    ) -> T:
        self._check_member()
        used = self._link if link is None else link
        with explained(self.store.location):
            return await self.store.bridge.run(lambda: used.use(work))

    def _check_member(self) -> None:
        if self._has_left or self._leaving is not None:
            raise StorageError(f"member {self._number} of {self.store.location} has left")

    async def _fetch(self, sql: str, *values: Any) -> Any:
        async def work(connection: Connection) -> Any:
            return await connection.fetchval(self._sql(sql), *values)

        return await self._do(work)

    async def _fetch_and_tell(self, sql: str, *values: Any) -> Any:
        async def work(connection: Connection) -> Any:
            found = await connection.fetchval(self._sql(sql), *values)
            await connection.execute(NOTIFY, channel_of(self.store))
            return found

        return await self._do(work, self.store.takers)

    async def _tell(self) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(NOTIFY, channel_of(self.store))

        await self._link.use(work)

    async def beat(self) -> bool:
        """Stay a member for ``ttl_s`` more; False where it has expired, or was removed."""

        async def work(connection: Connection) -> Any:
            if self.store.place.pooled:  # the pooler may have gone to another server meanwhile
                await self._check_timeline(connection)
            return await connection.fetchval(self._sql(BEAT), self._number, self.ttl_s)

        found = await self._do(work, self._beats)
        return found is not None and not self._is_forgotten

    async def look(self, *, closely: bool = False) -> View:
        """See who is a member, and who has what; ``closely``, how far tables are behind as well."""
        view = await self._do(lambda connection: look(connection, self._sql, closely=closely))
        if self._is_forgotten:  # the next beat says so
            others = [row for row in view.members if row.member != self._number]
            return view._replace(members=others)
        return view

    async def noticed(self) -> None:
        """Return when something has changed that others told of, or after a while."""
        control = self.control
        if control is not None and not self._has_left:
            await self.store.bridge.run(control.noticed)

    async def take(self, partition: int, seen: LeaseRow) -> int | None:
        """Become the owner of a partition that is still as it was seen; gives the new epoch."""

        async def work(connection: Connection) -> int | None:
            async with transaction(connection):
                epoch: int | None = await connection.fetchval(
                    self._sql(TAKE),
                    *(self._number, partition, seen.owner, seen.epoch, self._newcomer.software),
                )
                if epoch is not None:
                    # Waits for the end of a round that the last owner is in.
                    await connection.execute(self._sql(FENCE), partition, epoch)
            if epoch is not None:
                await connection.execute(NOTIFY, channel_of(self.store))
            return epoch

        return await self._do(work, self.store.takers)

    async def let_go(self, partition: int, to: int | None = None) -> bool:
        """Give a partition up, for a certain member if one is named; False if it was not owned.

        Who is cancelled waits no more; it is given up all the same, if the store can be reached.
        """
        finish = self._partitions[partition].retire()

        async def work(connection: Connection) -> Any:
            found = await connection.fetchval(self._sql(LET_GO), self._number, partition, to)
            await connection.execute(NOTIFY, channel_of(self.store))
            return found

        async def give_up() -> bool:
            await self._for_a_while(finish())
            return await self.store.takers.use(work) is not None

        async def begin() -> bool:
            task = self._given_up.get(partition)
            if task is None or task.done():  # else it is asked again, and waits for a lock still
                task = self._given_up[partition] = asyncio.ensure_future(give_up())
            return await self._see_through(task)

        self._check_member()
        with explained(self.store.location):
            return await self.store.bridge.run(begin)

    async def _see_through(self, task: asyncio.Future[T]) -> T:
        """Wait for something that goes on if nobody waits for it any more."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._leave_alone(task)
            raise

    def _leave_alone(self, task: asyncio.Future[Any]) -> None:
        self._under_way.add(task)
        task.add_done_callback(self._note)

    async def _for_a_while(self, work: Coroutine[Any, Any, Any]) -> None:
        """Wait for something that others do if it is not done here, and that may hang."""
        task = asyncio.ensure_future(work)
        self._leave_alone(task)
        await asyncio.wait([task], timeout=FOLD_S)

    def _note(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.info("member %d, on its way out: %s", self._number, error)

    async def wish(self, partition: int, to: int | None) -> None:
        """Have the owner of a partition, whoever that is, let it go to a member."""
        await self._fetch_and_tell(WISH, partition, to)

    async def drain(self, member: int, draining: bool) -> bool:
        """Have a member let all its partitions go, or take some again; False if none such lives."""
        return await self._fetch_and_tell(DRAIN, member, draining) is not None

    async def has_ended(self, member: int) -> bool:
        """Whether the session of a member is known to have ended."""
        return bool(await self._fetch(HAS_ENDED, member, lock_of(self._identity.id, member)))

    async def send(self, target: int, items: Sequence[bytes]) -> None:
        """Put items for another member where that one finds them."""

        async def work(connection: Connection) -> None:
            await connection.execute(self._sql(SEND), target, self._number, [*items])

        if items:
            await self._do(work)

    async def receive(self) -> list[tuple[int, bytes]]:
        """Take what others have put there for this member."""

        async def work(connection: Connection) -> list[tuple[int, bytes]]:
            rows = await connection.fetch(self._sql(RECEIVE), self._number)
            return [(source, body) for source, body in rows]

        return await self._do(work)

    def break_off(self) -> None:
        """Have what waits at the store fail now; the member can still leave."""
        self.store.break_off()

    async def leave(self) -> None:
        """Let all partitions go and be no member any more. Idempotent.

        Who is cancelled waits no more; the member leaves all the same, if the store can be
        reached within some seconds.
        """
        if self._leaving is not None and self._leaving.done():
            return
        with explained(self.store.location):
            await self.store.bridge.run(self._leave)

    async def _leave(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._go())
        await self._see_through(self._leaving)

    async def _go(self) -> None:
        finishes = [partition.retire(for_good=True) for partition in self._partitions]
        try:
            # What is not folded, the next owners fold.
            await self._for_a_while(_all(finish() for finish in finishes))
            if not self.store.is_closed:
                async with asyncio.timeout(LEAVE_S):
                    await self._link.use(self._take_out)
        finally:
            await self.end()

    async def _take_out(self, connection: Connection) -> None:
        async with transaction(connection):
            await connection.execute(self._sql(LET_ALL_GO), self._number)
            await connection.execute(self._sql(LEAVE), self._number)
        await connection.execute(NOTIFY, channel_of(self.store))

    async def end(self) -> None:
        """Close all connections, on asyncio; nothing is told to anybody. Idempotent."""
        self._has_left = True
        if self.control is not None:
            await self.control.stop()
        for link in (self._link, self._beats):
            await link.close()


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    for error in await asyncio.gather(*works, return_exceptions=True):
        if error is not None:
            raise error


def channel_of(store: PostgresStore) -> str:
    """Name the channel of notices about a hub."""
    return f"perdure_{store.place.schema}"


def lock_of(hub: str, member: int) -> int:
    """Give the key of a member's advisory lock; locks are those of a whole database."""
    return (int(hub.replace("-", "")[:16], 16) + member * 2_654_435_761) % 2**64 - 2**63


class Control:
    """The session that holds a member's lock and hears notices; made anew where it breaks."""

    def __init__(self, store: PostgresStore, identity: Identity, member: int) -> None:
        self.store = store
        self.lock = lock_of(identity.id, member)
        self._member = member
        self._notice = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_up = False

    @property
    def _dsn(self) -> str | None:
        place = self.store.place
        return place.control_dsn if place.pooled else place.control_dsn or place.dsn

    def start(self) -> None:
        """Begin, unless a pooler lies between."""
        if self._dsn is not None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def noticed(self) -> None:
        """Return when there was a notice, or after a while."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._notice.wait(), NOTICED_S)
        self._notice.clear()

    async def _run(self) -> None:
        wait, is_told = _RETRY_S, False
        while True:
            why = "it was lost"
            try:
                await self._hold()
                wait, is_told = _RETRY_S, False  # it was up
            except Exception as error:
                why = str(explain(error, self.store.location))
            if not is_told:  # once for each outage
                is_told = True
                _log.warning(
                    "member %d has no control session, and goes on without: %s", self._member, why
                )
            # All of the wait, so that a server which comes back is not run over.
            await asyncio.sleep(jitter.uniform(0.0, wait))
            wait = min(wait * 2, _RETRY_MAX_S)

    async def _hold(self) -> None:
        """Keep one session, from its opening to its end."""
        connection = await connect(self.store.place, self._dsn, name="perdure control")
        try:
            self._lost = asyncio.Event()
            connection.add_termination_listener(self._end)
            await connection.execute("SELECT pg_advisory_lock($1)", self.lock)
            await connection.add_listener(channel_of(self.store), self._hear)
            await connection.execute(
                self.store.sql("UPDATE {s}.member SET control = true WHERE member = $1"),
                self._member,
            )
            self.is_up = True
            self._notice.set()  # what was told meanwhile, nobody has heard
            await self._lost.wait()
            self.store.note_loss()
        finally:
            self.is_up = False
            connection.terminate()

    def _end(self, _: Connection) -> None:
        self._lost.set()

    def _hear(self, *_: Any) -> None:
        self._notice.set()

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
