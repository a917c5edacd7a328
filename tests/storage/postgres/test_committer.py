"""What several partitions commit at once: one statement, in which nobody is in another's way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from perdure.actors.errors import LeaseLostError, StorageError
from perdure.storage.postgres import (
    PostgresStore,
    committer,
    journal,
    links,
    store as store_module,
)
from perdure.storage.postgres.place import read_place
from perdure.testing.store_conformance import Owner, created

from .sessions import Session

COUNT = 8
OTHERS = [number for number in range(COUNT) if number != 3]

# On trio all that asyncpg does runs on an asyncio loop as well.
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Hub:
    """Partitions that commit in the same turn of the loop."""

    def __init__(
        self, store: PostgresStore, owners: list[Owner], server: Session, locker: Session
    ) -> None:
        self.store = store
        self.owners = owners
        self.server = server
        self.locker = locker
        self.outcomes: list[str | None] = [None] * COUNT
        self.asked = list[str]()

    async def listen(self) -> None:
        async def work(connection: Any) -> None:
            def hear(record: Any) -> None:
                if "journal" in record.query:  # asyncpg has questions of its own at first
                    self.asked.append(record.query)

            connection.add_query_logger(hear)

        await self.store.committer(0).link.use(work)

    async def commit(self) -> None:
        async with create_task_group() as tasks:
            for number in range(COUNT):
                tasks.start_soon(self.commit_one, number)

    async def commit_one(self, number: int, input: bytes | None = None) -> None:
        owner = self.owners[number]
        try:
            await owner.commit(created=[created(owner.sequence + 1, input=input)])
        except LeaseLostError:
            self.outcomes[number] = "refused"
        except StorageError:
            self.outcomes[number] = "unknown"
        else:
            self.outcomes[number] = "stored"

    def found(self, outcome: str | None) -> list[int]:
        """Who was told so."""
        return [number for number, one in enumerate(self.outcomes) if one == outcome]

    async def stored(self) -> list[int]:
        """Who has something in the journal."""
        rows = await self.server.do("SELECT DISTINCT partition FROM {s}.journal ORDER BY 1")
        return [number for (number,) in rows]

    async def connections(self, name: str) -> int:
        """Count those of that name which lead to this test's database."""
        sql = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()"
        return len(await self.server.do(sql, name))

    async def until_somebody_waits(self) -> None:
        """Return when a commit waits for a lock."""
        sql = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%.journal (%'"
        with anyio.fail_after(20):
            while not await self.server.do(sql):
                await anyio.sleep(0.002)

    async def recover(self, numbers: Iterable[int] = range(COUNT)) -> None:
        """Have some go on from what is stored."""
        for number in numbers:
            partition = self.store.partitions[number]
            self.owners[number] = Owner(partition, await partition.recover())

    @asynccontextmanager
    async def locked(self, *numbers: int) -> AsyncGenerator[None]:
        """Have somebody else lock the rows of some partitions meanwhile."""
        await self.locker.do("BEGIN")
        sql = "SELECT FROM {s}.partition WHERE partition = any($1) FOR UPDATE"
        await self.locker.do(sql, [*numbers])
        try:
            yield
        finally:
            await self.locker.do("COMMIT")


@asynccontextmanager
async def hub_on(place: str) -> AsyncGenerator[Hub]:
    store = PostgresStore(place)
    sessions = [Session(read_place(place)) for _ in range(2)]
    partitions = await store.open(COUNT)
    hub = Hub(store, [Owner(one, await one.recover()) for one in partitions], *sessions)
    await hub.listen()
    yield hub
    for session in sessions:
        await session.close()
    await store.close()


@pytest.fixture
async def hub(newest_postgres: str) -> AsyncIterator[Hub]:
    async with hub_on(newest_postgres) as hub:
        yield hub


async def test_what_several_commit_at_once_is_one_statement(hub: Hub) -> None:
    for _ in range(3):
        await hub.commit()

    assert hub.found("stored") == [*range(COUNT)]
    assert [owner.sequence for owner in hub.owners] == [3] * COUNT
    assert len(hub.asked) == 3


async def test_the_statement_is_planned_once(hub: Hub) -> None:
    for _ in range(10):
        await hub.commit()

    async def work(connection: Any) -> None:
        sql = (
            "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement LIKE $1"
        )
        assert [tuple(row) for row in await connection.fetch(sql, "%SKIP LOCKED%")] == [(0, 10)]

    await hub.store.committer(0).link.use(work)


async def test_one_statement_has_so_many_and_so_much(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "TOGETHER_MAX", 3)
    await hub.commit()
    assert len(hub.asked) == 3
    [(size,)] = await hub.server.do("SELECT max(length(body)) FROM {s}.journal")
    monkeypatch.setattr(committer, "TOGETHER_SIZE", size * 2 - 1)
    await hub.commit()
    assert len(hub.asked) == 3 + COUNT
    assert hub.found("stored") == [*range(COUNT)]


async def test_one_that_is_huge_holds_up_no_commit_of_another(hub: Hub) -> None:
    huge = b'"%b"' % bytes(committer.TOGETHER_SIZE).replace(b"\0", b"x")
    await gate_commits_of_3(hub)
    async with create_task_group() as tasks:
        tasks.start_soon(hub.commit_one, 3, huge)
        await hub.until_somebody_waits()
        try:
            with anyio.fail_after(20):
                for _ in range(3):
                    async with create_task_group() as others:
                        for number in OTHERS:
                            others.start_soon(hub.commit_one, number)
            assert hub.found("stored") == OTHERS
            assert [hub.owners[number].sequence for number in OTHERS] == [3] * len(OTHERS)
        finally:
            await hub.server.do("SELECT pg_advisory_unlock(71)")

    for payload in (None, huge, None):  # it goes on in order, to and fro
        await hub.commit_one(3, payload)
    rows = await hub.server.do(
        "SELECT sequence, length(body) > $1 FROM {s}.journal WHERE partition = 3 ORDER BY 1",
        committer.TOGETHER_SIZE,
    )
    assert [*map(tuple, rows)] == [(1, True), (2, False), (3, True), (4, False)]
    assert len(hub.asked) == 3 + 2


async def test_one_that_is_refused_is_so_alone(hub: Hub) -> None:
    await hub.server.do("UPDATE {s}.partition SET epoch = epoch + 1 WHERE partition = 3")
    await hub.commit()

    assert hub.found("refused") == [3]
    assert hub.found("stored") == await hub.stored() == OTHERS


async def test_one_without_its_predecessor_is_refused_alone(hub: Hub) -> None:
    await hub.commit()
    await hub.server.do("DELETE FROM {s}.journal WHERE partition = 3")
    await hub.commit()

    assert hub.found("refused") == [3]
    assert hub.found("stored") == OTHERS


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT"])
async def test_one_that_is_being_taken_over_holds_no_other_up(hub: Hub, end: str) -> None:
    await hub.locker.do("BEGIN")
    await hub.locker.do("UPDATE {s}.partition SET epoch = epoch + 1 WHERE partition = 3")
    async with create_task_group() as tasks:
        tasks.start_soon(hub.commit)
        await hub.until_somebody_waits()
        with anyio.fail_after(20):
            while hub.found("stored") != OTHERS:
                await anyio.sleep(0.002)
        assert hub.found(None) == [3]
        await hub.locker.do(end)

    assert hub.outcomes[3] == ("stored" if end == "ROLLBACK" else "refused")
    assert await hub.stored() == (OTHERS if end == "COMMIT" else [*range(COUNT)])


async def test_one_that_is_locked_holds_up_no_commit_and_no_recovery_of_another(hub: Hub) -> None:
    async with create_task_group() as tasks, hub.locked(3):
        tasks.start_soon(hub.commit_one, 3)
        await hub.until_somebody_waits()
        with anyio.fail_after(20):
            for _ in range(3):
                await hub.recover(OTHERS)
                async with create_task_group() as others:
                    for number in OTHERS:
                        others.start_soon(hub.commit_one, number)
        assert hub.found("stored") == OTHERS
        assert [hub.owners[number].sequence for number in OTHERS] == [3] * len(OTHERS)

    assert hub.outcomes == ["stored"] * COUNT


async def test_more_that_are_locked_than_there_may_be_connections_wait_and_are_counted(
    newest_postgres: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "TAKERS_MAX", 2)
    monkeypatch.setattr(store_module, "TAKERS_KEPT", 1)
    monkeypatch.setattr(links, "LONG_S", 0.05)
    async with hub_on(newest_postgres) as hub:
        takers = hub.store.takers
        assert takers.waits == 0
        async with create_task_group() as tasks:
            async with hub.locked(3, 4, 5):
                tasks.start_soon(hub.commit)
                with anyio.fail_after(20):
                    while "all 2 connections that may wait" not in caplog.text:
                        await anyio.sleep(0.002)
                assert hub.found(None) == [3, 4, 5]
            assert takers.waits == 1
        assert hub.found("stored") == [*range(COUNT)]

        await hub.recover()
        assert takers.waits == 1
        assert await hub.connections("perdure takes") == 1


async def test_one_that_the_server_does_not_take_fails_alone(hub: Hub) -> None:
    await hub.server.do(
        "ALTER TABLE {s}.journal ADD CHECK (partition <> 3 OR sequence <> 1) NOT VALID"
    )
    await hub.commit()

    assert hub.found("unknown") == [3]
    assert hub.found("stored") == await hub.stored() == OTHERS


async def test_where_the_connection_breaks_the_outcome_of_all_is_unknown(hub: Hub) -> None:
    await hub.locker.do("BEGIN")
    await hub.locker.do("LOCK TABLE {s}.journal")
    async with create_task_group() as tasks:
        tasks.start_soon(hub.commit)
        await hub.until_somebody_waits()
        await hub.server.do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%.journal (%'"
            " AND pid <> pg_backend_pid()"
        )
    await hub.locker.do("ROLLBACK")
    assert hub.found("unknown") == [*range(COUNT)]

    await hub.recover()
    await hub.commit()
    assert hub.found("stored") == [*range(COUNT)]


async def test_a_warning_makes_the_outcome_of_all_unknown(hub: Hub) -> None:
    await hub.server.do(
        "CREATE FUNCTION {s}.warn() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE WARNING 'not waited for'; RETURN NULL; END $$"
    )
    await hub.server.do(
        "CREATE TRIGGER warn AFTER INSERT ON {s}.journal EXECUTE FUNCTION {s}.warn()"
    )
    await hub.commit()
    assert hub.found("unknown") == [*range(COUNT)]

    await hub.server.do("DROP TRIGGER warn ON {s}.journal")
    await hub.recover()
    assert [owner.sequence for owner in hub.owners] == [1] * COUNT
    await hub.commit()
    assert hub.found("stored") == [*range(COUNT)]


async def gate_commits_of_3(hub: Hub) -> None:
    """Have those wait, having read the epoch, until the server's session opens the gate."""
    await hub.server.do(
        "CREATE FUNCTION {s}.gate() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(71); RETURN NEW; END $$"
    )
    await hub.server.do(
        "CREATE TRIGGER gate BEFORE INSERT ON {s}.journal FOR EACH ROW"
        " WHEN (NEW.partition = 3) EXECUTE FUNCTION {s}.gate()"
    )
    await hub.server.do("SELECT pg_advisory_lock(71)")


async def take_over_beside(hub: Hub, address: str) -> int:
    """Have partition 3 taken over beside a commit that has read its epoch; how far was it?"""
    await gate_commits_of_3(hub)
    other = PostgresStore(address)
    seen: list[int] = []

    async def take() -> None:
        seen.append((await other.partitions[3].recover()).sequence)

    await other.open(COUNT)
    async with create_task_group() as tasks:
        tasks.start_soon(hub.commit)
        await hub.until_somebody_waits()
        tasks.start_soon(take)
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%epoch + 1%'"
        with anyio.fail_after(20):
            while not seen and not await hub.server.do(waits):
                await anyio.sleep(0.002)
        await hub.server.do("SELECT pg_advisory_unlock(71)")
    await other.close()
    assert hub.found("stored") == [*range(COUNT)]
    return seen[0]


async def test_a_take_over_sees_what_was_under_way_with_others(
    hub: Hub, newest_postgres: str
) -> None:
    assert await take_over_beside(hub, newest_postgres) == 1


async def test_without_the_share_lock_it_would_not(
    hub: Hub, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = journal.COMMIT_SEVERAL.replace(" FOR SHARE OF p SKIP LOCKED", "")
    monkeypatch.setattr(journal, "COMMIT_SEVERAL", without)
    assert await take_over_beside(hub, newest_postgres) == 0


async def test_no_plan_reads_all_of_the_journal(postgres: str) -> None:
    place = read_place(postgres)
    store, session = PostgresStore(postgres), Session(place)
    await store.open(COUNT)
    given = (
        "array[0, 1]::int[], array[9, 9]::bigint[], array[0, 0]::bigint[], array[1, 1]::bigint[],"
        " array[1, 1]::bigint[], array['', '']::bytea[]"
    )
    await session.do("SET plan_cache_mode = force_generic_plan")
    types = "int[], bigint[], bigint[], bigint[], bigint[], bytea[]"
    await session.do(f"PREPARE several ({types}) AS {journal.COMMIT_SEVERAL}")
    # It is planned while the journal is empty, and that plan is kept.
    lines = [line for (line,) in await session.do(f"EXPLAIN EXECUTE several ({given})")]
    await session.close()
    await store.close()

    assert any("journal_pkey on journal j" in line for line in lines), lines
    assert not any("Seq Scan on journal" in line for line in lines), lines


async def test_what_was_handed_in_is_stored_before_the_store_is_closed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "TOGETHER_MAX", 2)
    await hub.locker.do("BEGIN")
    await hub.locker.do("LOCK TABLE {s}.journal")
    async with create_task_group() as tasks:
        tasks.start_soon(hub.commit)
        await hub.until_somebody_waits()
        tasks.start_soon(hub.store.close)
        while not hub.store.is_closed:
            await anyio.sleep(0.002)
        await hub.locker.do("COMMIT")

    assert hub.found("stored") == [*range(COUNT)]


async def test_who_cannot_take_note_of_what_is_stored_fails_alone(hub: Hub) -> None:
    def fail() -> None:
        raise RuntimeError("no memory for it")

    rows = await hub.server.do("SELECT partition, epoch FROM {s}.partition")
    epochs: dict[int, int] = dict(map(tuple, rows))
    told: dict[int, BaseException | None] = {}

    async def store(number: int) -> None:
        row = (number, 1, epochs[number], 1, 1, b"")
        entry = committer.Entry(row, str(number), fail if number == 3 else lambda: None)
        try:
            await hub.store.committer(0).store(entry)
        except RuntimeError as error:
            told[number] = error
        else:
            told[number] = None

    async with create_task_group() as tasks:
        for number in range(COUNT):
            tasks.start_soon(store, number)

    assert [number for number, error in told.items() if error is not None] == [3]
    assert await hub.stored() == [*range(COUNT)]


async def test_a_link_that_is_closed_while_it_opens_leaves_no_connection(
    hub: Hub, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "CLOSE_S", 0.05)
    opening, opened, made = anyio.Event(), anyio.Event(), list[Any]()

    async def check(connection: Any) -> None:
        made.append(connection)
        opening.set()
        await opened.wait()

    async def work(_: Any) -> None:
        raise AssertionError("nobody works with what is closed")

    link = links.Link(read_place(newest_postgres), "slow", check)

    async def use() -> None:
        with pytest.raises(ValueError, match="closed"):
            await link.use(work)

    async with create_task_group() as tasks:
        tasks.start_soon(use)
        await opening.wait()
        await link.close()
        opened.set()

    assert [connection.is_closed() for connection in made] == [True]


@pytest.mark.parametrize(
    "statement", [journal.COMMIT, journal.COMMIT_AT_ONCE, journal.COMMIT_SEVERAL]
)
async def test_nor_does_one_that_is_made_while_the_journal_is_vacuumed_and_empty(
    hub: Hub, statement: str
) -> None:
    for table in ("journal", "partition", "folded"):
        await hub.server.do(f"VACUUM (ANALYZE) {{s}}.{table}")
    is_one = statement is not journal.COMMIT_SEVERAL
    given = ", ".join("NULL" for _ in range(6))
    types = ("int", "bigint", "bigint", "bigint", "bigint", "bytea")
    named = ", ".join(types if is_one else [f"{one}[]" for one in types])

    async def explain(connection: Any) -> list[str]:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        sql = hub.store.sql(statement)
        await connection.execute(f"PREPARE statement ({named}) AS {sql}")
        return [line for (line,) in await connection.fetch(f"EXPLAIN EXECUTE statement ({given})")]

    for link in (hub.store.committer(0).link, hub.store.takers):
        lines = await link.use(explain)
        assert any("journal_pkey on journal j" in line for line in lines), lines
        assert not any("Seq Scan on journal" in line for line in lines), lines
