"""A commit and a take-over that meet at any of their steps: nothing acknowledged is lost, ever.

The commit is stopped by the server, in triggers that wait for an advisory lock: when it has read
the epoch and before its row is there, or with its row there and before it ends. The take-over is
stopped between its statements.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from perdure.actors.errors import LeaseLostError, StorageError
from perdure.storage.postgres import PostgresStore, journal, links
from perdure.storage.postgres.links import driver
from perdure.storage.postgres.place import read_place
from perdure.storage.postgres.server import Server as OwnServer
from perdure.storage.postgres.store import FENCE, TAKE
from perdure.testing.store_conformance import Owner, created

asyncpg = driver()
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

READ, WRITTEN = 71, 72
"""The keys of the locks for which a commit waits: having read the epoch, and having its row."""

GATES = """
CREATE FUNCTION {s}.gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint); RETURN NEW; END $$;
CREATE TRIGGER when_read BEFORE INSERT ON {s}.journal FOR EACH ROW EXECUTE FUNCTION {s}.gate('71');
CREATE CONSTRAINT TRIGGER when_written AFTER INSERT ON {s}.journal
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {s}.gate('72');
"""

BREACHES = """
SELECT 'a gap before ' || sequence FROM (
  SELECT sequence, lag(sequence) OVER (ORDER BY sequence) AS before FROM {s}.journal) AS j
WHERE sequence <> before + 1
UNION ALL
SELECT 'an older epoch at ' || sequence FROM (
  SELECT sequence, epoch, lag(epoch) OVER (ORDER BY sequence) AS before FROM {s}.journal) AS j
WHERE epoch < before
UNION ALL
SELECT 'nothing behind what is folded, and before ' || min(sequence)
FROM {s}.journal, {s}.folded GROUP BY settled HAVING min(sequence) > settled + 1
UNION ALL
SELECT 'an epoch of the future at ' || sequence
FROM {s}.journal j, {s}.partition p WHERE j.epoch > p.epoch
"""


class Breach(AssertionError):
    """An invariant does not hold."""


class Server:
    """What the test itself asks of the server."""

    def __init__(self, connection: Any, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def do(self, sql: str, *values: Any) -> list[Any]:
        return list(await self._connection.fetch(sql.replace("{s}", self._schema), *values))

    async def make_gates(self) -> None:
        await self._connection.execute(GATES.replace("{s}", self._schema))

    async def shut(self, gate: int) -> None:
        await self.do("SELECT pg_advisory_lock($1)", gate)

    async def open(self, gate: int) -> None:
        await self.do("SELECT pg_advisory_unlock($1)", gate)

    async def until_somebody_waits(self, kind: str) -> None:
        """Return when somebody waits for a lock, of that kind."""
        with anyio.fail_after(20):
            while not await self.do(
                "SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND locktype = $1"
                " AND query LIKE '%' || $2 || '%'",
                kind,
                self._schema,
            ):
                await anyio.sleep(0.002)

    async def check(self) -> None:
        """Look at what is stored.

        Raises:
            Breach: an invariant does not hold.
        """
        for (breach,) in await self.do(BREACHES):
            raise Breach(breach)


@pytest.fixture
async def pair(postgres: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    one, other = (PostgresStore(postgres) for _ in range(2))
    await one.open(1)
    await other.open(1)
    yield one, other
    await one.close()
    await other.close()


@pytest.fixture
async def server(postgres: str) -> AsyncIterator[Server]:
    place = read_place(postgres)
    connection = await asyncpg.connect(place.dsn)
    yield Server(connection, place.quoted)
    await connection.close()


async def commit_once(owner: Owner, outcomes: list[str]) -> None:
    try:
        await owner.commit(created=[created(1)])
        outcomes.append("acknowledged")
    except LeaseLostError:
        outcomes.append("refused")
    except StorageError:
        outcomes.append("unknown")


async def check_taken(other: PostgresStore, outcomes: list[str], seen: Owner) -> None:
    """Check what a new owner saw against what the old one was told.

    Raises:
        Breach: something acknowledged is not there.
    """
    if outcomes == ["acknowledged"] and await seen.keys() != ["i1"]:
        raise Breach("a commit was acknowledged that the new owner does not have")
    if outcomes == ["refused"] and await seen.keys():
        raise Breach("a commit was refused, and is there")
    # The new owner goes on from there.
    await seen.commit(created=[created(2)])
    assert other.partitions


def place_of(store: PostgresStore) -> str:
    return store.place.quoted


async def take_over(other: PostgresStore, owners: list[Owner]) -> None:
    partition = other.partitions[0]
    owners.append(Owner(partition, await partition.recover()))


async def commit_first(
    pair: tuple[PostgresStore, PostgresStore], server: Server, gate: int
) -> list[str]:
    """Stop a commit at a gate, have the partition taken over meanwhile, and look."""
    one, other = pair
    await server.make_gates()
    old = Owner(one.partitions[0], await one.partitions[0].recover())
    outcomes: list[str] = []
    owners: list[Owner] = []
    await server.shut(gate)
    async with create_task_group() as tasks:
        tasks.start_soon(commit_once, old, outcomes)
        await server.until_somebody_waits("advisory")
        tasks.start_soon(take_over, other, owners)
        # It waits for the commit's end; a broken build does not, and has the partition at once.
        with anyio.fail_after(20):
            while not owners:
                waits = await server.do(
                    "SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted"
                    " AND locktype <> 'advisory' AND query LIKE '%' || $1 || '%'",
                    place_of(other),
                )
                if waits:
                    break
                await anyio.sleep(0.002)
        await server.open(gate)
    await server.check()
    await check_taken(other, outcomes, owners[0])
    await server.check()
    return outcomes


@pytest.mark.parametrize("gate", [READ, WRITTEN])
async def test_a_take_over_sees_the_commit_that_was_under_way(
    pair: tuple[PostgresStore, PostgresStore], server: Server, gate: int
) -> None:
    assert await commit_first(pair, server, gate) == ["acknowledged"]


@pytest.mark.parametrize("step", ["raised", "fenced"])
async def test_a_commit_that_meets_a_take_over_stores_nothing(
    pair: tuple[PostgresStore, PostgresStore], server: Server, postgres: str, step: str
) -> None:
    one, other = pair
    old = Owner(one.partitions[0], await one.partitions[0].recover())
    place = read_place(postgres)
    taker = await asyncpg.connect(place.dsn)
    outcomes: list[str] = []
    async with create_task_group() as tasks, taker.transaction():
        epoch = await taker.fetchval(TAKE.replace("{s}", place.quoted), 0)
        if step == "fenced":
            await taker.fetch(FENCE.replace("{s}", place.quoted), 0, epoch)
        tasks.start_soon(commit_once, old, outcomes)
        await server.until_somebody_waits("transactionid")
        # Here the take-over has ended, and the commit may go on.
    await taker.close()

    assert outcomes == ["refused"]
    new = Owner(other.partitions[0], await other.partitions[0].recover())
    await check_taken(other, outcomes, new)
    await server.check()


async def test_a_take_over_that_gives_up_leaves_the_owner_its_partition(
    pair: tuple[PostgresStore, PostgresStore], server: Server, postgres: str
) -> None:
    one, _ = pair
    old = Owner(one.partitions[0], await one.partitions[0].recover())
    place = read_place(postgres)
    taker = await asyncpg.connect(place.dsn)
    outcomes: list[str] = []
    async with create_task_group() as tasks:
        transaction = taker.transaction()
        await transaction.start()
        await taker.fetchval(TAKE.replace("{s}", place.quoted), 0)
        tasks.start_soon(commit_once, old, outcomes)
        await server.until_somebody_waits("transactionid")
        await transaction.rollback()
    await taker.close()

    assert outcomes == ["acknowledged"]
    assert await old.keys() == ["i1"]
    await server.check()


async def lose_a_tail(pair: tuple[PostgresStore, PostgresStore], server: Server) -> None:
    """Have the server forget a commit, as a failover to an asynchronous standby does."""
    old = Owner(pair[0].partitions[0], await pair[0].partitions[0].recover())
    await old.commit(created=[created(1)])
    await server.do("DELETE FROM {s}.journal")
    outcome: list[str] = []
    try:
        await old.commit(created=[created(2)])
    except LeaseLostError:
        outcome.append("refused")
    await server.check()
    assert outcome == ["refused"]


async def test_a_commit_behind_one_that_is_missing_is_refused(
    pair: tuple[PostgresStore, PostgresStore], server: Server
) -> None:
    await lose_a_tail(pair, server)


async def until_commits_wait(admin: Any, dsn: str) -> None:
    """Return when commits wait for a standby, and not only as soon as one session knows that name."""
    probe = await asyncpg.connect(dsn)
    waits = False

    async def commit_on() -> None:
        while not waits:
            await probe.execute("SELECT pg_logical_emit_message(true, '', '')")

    with anyio.fail_after(60):
        async with create_task_group() as tasks:
            tasks.start_soon(commit_on)
            waiting = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'"
            while not await admin.fetch(waiting, probe.get_server_pid()):
                await anyio.sleep(0.01)
            waits = True
            await admin.fetch("SELECT pg_cancel_backend($1)", probe.get_server_pid())
    await probe.close()


async def cancelled_wait(dsn: str) -> tuple[list[str], Owner]:
    """Have the server stop the wait for a standby that a commit is in."""
    one = PostgresStore(dsn)
    [partition] = await one.open(1)
    old = Owner(partition, await partition.recover())
    admin = await asyncpg.connect(dsn)
    outcomes: list[str] = []
    await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await admin.execute("SELECT pg_reload_conf()")
    await until_commits_wait(admin, dsn)
    with anyio.fail_after(60):
        async with create_task_group() as tasks:
            tasks.start_soon(commit_once, old, outcomes)
            # Nobody is there, so it waits for ever, unless it is told to stop: once, as what it does
            # next would be stopped by another word.
            while not await admin.fetch(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event ="
                " 'SyncRep' AND application_name = 'perdure commits'"
            ):
                await anyio.sleep(0.01)
    await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()
    await one.close()
    return outcomes, old


async def test_a_commit_whose_wait_for_a_standby_was_stopped_is_not_acknowledged(
    own_postgres: OwnServer,
) -> None:
    outcomes, _ = await cancelled_wait(own_postgres.dsn)
    assert outcomes == ["unknown"]


async def test_without_a_look_at_warnings_it_would_be(
    own_postgres: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "WORRYING", "nothing")
    outcomes, _ = await cancelled_wait(own_postgres.dsn)
    assert outcomes == ["acknowledged"]


# The builds that lack a part of it: each of these tests finds what it finds with that part taken out.


def break_commits(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Commit by another statement, whether it is tried first or waits."""
    monkeypatch.setattr(journal, "COMMIT", statement)
    monkeypatch.setattr(journal, "COMMIT_AT_ONCE", statement)


async def test_without_the_share_lock_a_commit_would_be_lost(
    pair: tuple[PostgresStore, PostgresStore], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_commits(monkeypatch, journal.COMMIT.replace(" FOR SHARE", ""))
    with pytest.raises(Breach, match=r"acknowledged|older epoch"):
        await commit_first(pair, server, READ)


async def test_without_the_predecessor_there_would_be_gaps(
    pair: tuple[PostgresStore, PostgresStore], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, end = journal.COMMIT.index(" AND (("), journal.COMMIT.index(" FOR SHARE")
    break_commits(monkeypatch, journal.COMMIT[:begin].replace("AND (", "") + journal.COMMIT[end:])
    with pytest.raises(Breach, match="nothing behind what is folded"):
        await lose_a_tail(pair, server)


@pytest.mark.parametrize("table", ["partition", "folded"])
async def test_what_a_silent_owner_has_locked_is_let_go_for_the_next_one(
    newest_postgres: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "HELD_S", 0.1)
    store = PostgresStore(newest_postgres)
    [partition] = await store.open(1)
    await Owner(partition, await partition.recover()).commit(created=[created(1)])
    silent = await links.connect(read_place(newest_postgres))
    transaction = links.transaction(silent)
    await transaction.__aenter__()
    await silent.execute(f"SELECT FROM {store.place.quoted}.{table} FOR UPDATE")

    with anyio.fail_after(20):
        recovered = await partition.recover()

    assert recovered.sequence == 1
    assert silent.is_closed()
    with pytest.raises(asyncpg.InterfaceError):
        await transaction.__aexit__(None, None, None)
    await store.close()
