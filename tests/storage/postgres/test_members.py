"""Members of a hub on PostgreSQL share its partitions out, and never both commit to one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import anyio
import pytest

from perdure.actors.errors import StorageError
from perdure.storage.membership import ClusterStore
from perdure.storage.postgres import PostgresStore, folding, links, members as rows
from perdure.storage.postgres.doctor import OF_ALL
from perdure.storage.postgres.links import Pool
from perdure.storage.postgres.members import PostgresMembership
from perdure.storage.postgres.place import read_place
from perdure.storage.postgres.store import TAKERS_MAX
from perdure.testing.store_conformance import created

from ..cluster_conformance import (
    PARTITIONS,
    SOON_S,
    ClusterConformance,
    lease_of,
    newcomer,
    owner_of,
    take,
)
from .sessions import Session


@pytest.mark.by_turns("trio")
class TestPostgresStore(ClusterConformance):
    @pytest.fixture
    def stores(self, postgres: str) -> Sequence[ClusterStore]:
        return [PostgresStore(postgres), PostgresStore(postgres)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
class TestWithoutControl(ClusterConformance):
    """Nothing is kept in a session, no statement is prepared, and nobody hears notices."""

    @pytest.fixture
    def stores(self, newest_postgres: str) -> Sequence[ClusterStore]:
        return [PostgresStore(f"{newest_postgres}&pooled=1") for _ in range(2)]


@pytest.fixture
async def stores(postgres: str) -> AsyncIterator[list[PostgresStore]]:
    made = [PostgresStore(postgres), PostgresStore(postgres)]
    for store in made:
        await store.open(PARTITIONS)
    yield made
    for store in made:
        await store.close()


@pytest.fixture
async def both(stores: list[PostgresStore]) -> AsyncIterator[list[PostgresMembership]]:
    joined = [await store.join(newcomer(address=f"a:{n}")) for n, store in enumerate(stores)]
    yield joined
    for one in joined:
        await one.leave()


@pytest.fixture
async def session(postgres: str) -> AsyncIterator[Session]:
    made = Session(read_place(postgres))
    yield made
    await made.close()


async def control_of(member: PostgresMembership) -> rows.Control:
    """Give a member's control session, once it is up."""
    with anyio.fail_after(SOON_S):
        while not member.has_control:
            await anyio.sleep(0.005)
    assert member.control is not None
    return member.control


async def until_ended(member: PostgresMembership, other: PostgresMembership) -> None:
    with anyio.fail_after(SOON_S):
        while not await member.has_ended(other.number):
            await anyio.sleep(0.005)


# The control session.


@pytest.mark.by_turns
async def test_the_end_of_a_session_is_seen(both: list[PostgresMembership]) -> None:
    first, second = both
    control = await control_of(first)
    assert not await second.has_ended(first.number)
    await first.store.bridge.run(control.stop)
    await until_ended(second, first)


@pytest.mark.by_turns
async def test_a_member_without_a_session_is_not_taken_for_gone(
    stores: list[PostgresStore], postgres: str
) -> None:
    pooled = PostgresStore(f"{postgres}&pooled=1")
    await pooled.open(PARTITIONS)
    first, second = await pooled.join(newcomer()), await stores[0].join(newcomer())
    assert not first.has_control
    assert not await second.has_ended(first.number)
    await first.leave()
    await second.leave()
    await pooled.close()


@pytest.mark.by_turns
async def test_a_control_session_may_go_around_the_pooler(
    stores: list[PostgresStore], postgres: str
) -> None:
    around = "control_dsn=" + read_place(postgres).dsn.replace(":", "%3A").replace("/", "%2F")
    pooled = PostgresStore(f"{postgres}&pooled=1&{around}")
    await pooled.open(PARTITIONS)
    member, other = await pooled.join(newcomer()), await stores[0].join(newcomer())
    control = await control_of(member)
    await pooled.bridge.run(control.stop)
    await until_ended(other, member)
    await member.leave()
    await other.leave()
    await pooled.close()


@pytest.mark.by_turns
async def test_a_session_that_was_ended_is_made_anew(
    both: list[PostgresMembership], session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = both
    await control_of(first)
    ended = await session.do(
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE locktype = 'advisory'"
        " AND (classid::bigint << 32) + objid::bigint = $1",
        first.control.lock if first.control else 0,
    )
    assert len(ended) == 1
    with anyio.fail_after(SOON_S):
        while first.has_control:
            await anyio.sleep(0.002)
    await control_of(first)
    assert not await second.has_ended(first.number)
    said = f"member {first.number} has no control session, and goes on without: it was lost"
    assert said in caplog.text
    # And it hears again.
    with anyio.fail_after(SOON_S):
        await second.wish(2, first.number)
        while (await lease_of(first, 2)).wanted is None:
            await first.noticed()


async def test_all_goes_on_where_the_control_session_cannot_be_had(
    postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostgresStore(f"{postgres}&control_dsn=postgresql%3A%2F%2Fx@127.0.0.1%3A1%2Fx")
    await store.open(PARTITIONS)
    member = await store.join(newcomer())
    await take(member)
    await owner_of(member)
    assert await member.beat()
    assert not member.has_control
    with anyio.fail_after(SOON_S):
        while "has no control session, and goes on without" not in caplog.text:
            await anyio.sleep(0.005)
    await member.leave()
    await store.close()


@pytest.mark.by_turns
async def test_a_notice_is_heard_at_once(
    both: list[PostgresMembership], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = both
    await control_of(second)
    await second.noticed()  # of its own coming
    monkeypatch.setattr(rows, "NOTICED_S", 10 * SOON_S)  # it would be too late
    with anyio.fail_after(SOON_S):
        await first.wish(2, second.number)
        await second.noticed()
    assert (await lease_of(second, 2)).wanted == second.number


@pytest.mark.by_turns
async def test_no_notice_rides_in_a_commit(
    both: list[PostgresMembership], session: Session
) -> None:
    first, _ = both
    await control_of(first)
    await take(first)
    owner = await owner_of(first)
    await first.noticed()
    asked: list[str] = []
    connection = await first.store.bridge.run(
        lambda: first.store.committer(0).link.use(lambda one: _given(one))
    )

    def hear(query: Any) -> None:
        asked.append(query.query)

    connection.add_query_logger(hear)
    await owner.commit()
    assert len(asked) == 1
    assert "notify" not in asked[0].lower()


async def _given(connection: links.Connection) -> links.Connection:
    return connection


# Leaving a server that hangs.


@pytest.mark.parametrize("how", ["leave", "let_go"])
async def test_who_waits_no_more_has_let_go_all_the_same(
    both: list[PostgresMembership], session: Session, how: str
) -> None:
    first, second = both
    await take(first)
    await session.do("BEGIN")
    await session.do("LOCK TABLE {s}.partition IN ACCESS EXCLUSIVE MODE")
    with anyio.fail_after(SOON_S):
        with anyio.move_on_after(0.1) as scope:
            await (first.leave() if how == "leave" else first.let_go(0))
        assert scope.cancelled_caught
        await session.do("COMMIT")
        while (await lease_of(second, 0)).owner is not None:
            await anyio.sleep(0.005)


@pytest.mark.by_turns
async def test_who_waits_for_a_connection_since_all_wait_for_locks_is_counted(
    both: list[PostgresMembership], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = both
    seen = [await lease_of(first, number) for number in range(2)]
    monkeypatch.setattr(first.store, "takers", Pool(lambda: first.store.link("few"), 1, 1))
    await session.do("BEGIN")
    await session.do("SELECT FROM {s}.partition WHERE partition < 2 FOR UPDATE")
    with anyio.fail_after(SOON_S):
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(first.take, number, seen[number])
            while not first.waits:
                await anyio.sleep(0.005)
            await session.do("COMMIT")
    await first.store.bridge.run(first.store.takers.close)

    assert (first.waits, second.waits) == (1, 0)


@pytest.mark.by_turns
async def test_one_that_is_locked_holds_up_no_taking_and_no_letting_go_of_another(
    both: list[PostgresMembership], session: Session
) -> None:
    first, _ = both
    await take(first, 1)
    seen = await lease_of(first, 0)
    await session.do("BEGIN")
    await session.do("SELECT FROM {s}.partition WHERE partition < 2 FOR UPDATE")
    with anyio.fail_after(SOON_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.take, 0, seen)
            for _ in range(2 * TAKERS_MAX):  # as one tries whom the store does not answer
                with anyio.move_on_after(0.02):
                    await first.let_go(1)

            await take(first, 2)
            await (await owner_of(first, 2)).commit()
            await first.wish(2, first.number)
            assert await first.let_go(2)
            assert [lease.owner for lease in (await first.look()).leases] == [
                *(None, first.number, None)
            ]
            assert first.waits == 0
            await session.do("COMMIT")
        while [lease.owner for lease in (await first.look()).leases] != [first.number, None, None]:
            await anyio.sleep(0.005)


@pytest.mark.by_turns
async def test_a_member_that_cannot_say_that_it_leaves_expires(
    stores: list[PostgresStore],
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows, "LEAVE_S", 0.1)
    member = await stores[0].join(newcomer())
    await take(member)
    await session.do("BEGIN")
    await session.do("LOCK TABLE {s}.partition IN ACCESS EXCLUSIVE MODE")
    with anyio.fail_after(SOON_S):
        with pytest.raises(StorageError):
            await member.leave()
        await member.leave()
    with pytest.raises(StorageError, match="has left"):
        await member.beat()
    await session.do("COMMIT")
    [row] = (await stores[1].view()).members
    assert (row.member, row.expired) == (member.number, False)


@pytest.mark.by_turns
async def test_a_store_is_closed_while_its_server_hangs(
    postgres: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "FOLD_S", 0.1)
    monkeypatch.setattr(rows, "LEAVE_S", 0.1)
    monkeypatch.setattr(links, "CLOSE_S", 0.1)
    store = PostgresStore(postgres)
    await store.open(PARTITIONS)
    member = await store.join(newcomer())
    await take(member)
    await (await owner_of(member)).commit()
    await session.do("BEGIN")
    await session.do("LOCK TABLE {s}.partition, {s}.folded IN ACCESS EXCLUSIVE MODE")
    with anyio.fail_after(SOON_S):
        with pytest.raises(StorageError):
            await member.leave()
        await store.close()
    await session.do("COMMIT")
    # What it had committed is there.
    other = PostgresStore(postgres)
    [partition, *_] = await other.open(PARTITIONS)
    assert (await partition.recover()).sequence == 1
    await other.close()


async def test_a_store_is_closed_whose_member_never_left(postgres: str) -> None:
    store = PostgresStore(postgres)
    await store.open(PARTITIONS)
    member = await store.join(newcomer())
    await control_of(member)
    with anyio.fail_after(SOON_S):
        await store.close()
    assert not member.has_control


async def test_who_waits_no_more_to_join_is_no_member(
    stores: list[PostgresStore], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "CLOSE_S", 0.1)
    await session.do("BEGIN")
    await session.do("LOCK TABLE {s}.hub IN ACCESS EXCLUSIVE MODE")
    with anyio.fail_after(SOON_S):
        with anyio.move_on_after(0.1) as scope:
            await stores[0].join(newcomer())
        assert scope.cancelled_caught
        await session.do("COMMIT")
        member = await stores[0].join(newcomer())
    assert [row.member for row in (await stores[1].view()).members] == [member.number]
    await member.leave()


# Rows that nobody needs any more.


@pytest.mark.by_turns
async def test_who_joins_removes_what_the_dead_have_left(
    both: list[PostgresMembership], session: Session
) -> None:
    first, second = both
    gone = await first.store.join(newcomer(ttl_s=0.05))
    owner = await first.store.join(newcomer())
    await take(owner)
    for member in (gone, owner):
        await session.do(
            "UPDATE {s}.member SET expires = expires - interval '2 hours' WHERE member = $1",
            member.number,
        )
    await second.send(gone.number, [b"lost"])
    third = await first.store.join(newcomer())
    numbers = [row.member for row in (await third.look()).members]
    assert numbers == [first.number, second.number, owner.number, third.number]
    assert await session.do("SELECT FROM {s}.relay") == []
    for member in (third, gone, owner):
        await member.leave()


@pytest.mark.by_turns
@pytest.mark.parametrize("name", ["perdure beats", "perdure leases"])
async def test_who_meets_a_server_that_was_a_standby_is_no_member_there(
    both: list[PostgresMembership],
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    one, other = both
    assert await one.beat()
    monkeypatch.setattr(rows, "TIMELINE", "SELECT '00000002'")
    assert await one.beat(), "nothing has broken"
    await session.do(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
        " AND datname = current_database()",
        name,
    )
    for attempt in (one.look, one.look, one.beat):
        with suppress(StorageError):  # finds the connection broken
            await attempt()

    assert not await one.beat()
    seen = [row.member for row in (await one.look()).members]
    assert one.number not in seen
    assert other.number in seen


async def end_sessions(session: Session, name: str = "perdure %") -> int:
    """End the sessions of that name, and give how many there were."""
    found = await session.do(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1"
        " AND datname = current_database()",
        name,
    )
    return len(found)


@pytest.mark.by_turns
async def test_each_connection_that_is_lost_is_counted_as_it_is(
    stores: list[PostgresStore], session: Session
) -> None:
    store = stores[0]
    member = await store.join(newcomer())
    await control_of(member)
    await take(member)
    owner = await owner_of(member)
    await owner.commit(created=[created(1)])
    await owner.partition.apply()
    assert await owner.keys() == ["i1"]
    assert await owner.partition.read_instances(["i1"])
    assert await member.beat()
    await member.let_go(0)
    assert member.losses == 0

    await end_sessions(session)
    with anyio.fail_after(SOON_S):
        while member.losses < OF_ALL:  # of the two that commit one, and one that takes
            await anyio.sleep(0.002)
    await control_of(member)
    await member.leave()
    assert member.losses == OF_ALL, "what is closed is not lost"


@pytest.mark.by_turns
async def test_nothing_is_done_on_a_server_that_was_a_standby_before_it_has_joined_there(
    stores: list[PostgresStore], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores[0]
    member = await store.join(newcomer())
    await take(member)
    owner = await owner_of(member)
    await owner.commit(created=[created(1)])
    monkeypatch.setattr(folding, "GATHER_S", 60.0)
    monkeypatch.setattr(rows, "TIMELINE", "SELECT '00000002'")
    await end_sessions(session)
    with anyio.fail_after(SOON_S):
        while member.losses < 5:
            await anyio.sleep(0.002)

    with pytest.raises(StorageError, match="has failed over"):
        await owner.commit(created=[created(2)])
    for ask in (owner.partition.recover, owner.partition.apply, owner.keys):
        with pytest.raises(StorageError, match="has failed over"):
            await ask()
    with pytest.raises(StorageError, match="has failed over"):
        await member.take(1, (await stores[1].view()).leases[1])
    with pytest.raises(StorageError, match="has failed over"):
        await owner.partition.read_history(1)
    assert await session.do("SELECT sequence FROM {s}.journal") == [(1,)]
    assert not await member.beat()

    with suppress(StorageError):
        await member.leave()
    again = await store.join(newcomer())
    await take(again)
    assert await (await owner_of(again)).keys() == ["i1"]
    await again.leave()


async def test_a_member_behind_a_pooler_finds_out_by_its_next_beat_that_the_server_is_another_one(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(f"{postgres}&pooled=1")
    await store.open(PARTITIONS)
    member = await store.join(newcomer())
    assert await member.beat()
    monkeypatch.setattr(rows, "TIMELINE", "SELECT '00000002'")

    assert not await member.beat()
    assert member.losses == 0
    await member.leave()
    await store.close()


@pytest.mark.by_turns
async def test_a_server_that_does_not_say_its_timeline_is_as_good_as_any(
    stores: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "TIMELINE", "SELECT nothing_of_that_name()")
    one = await stores[0].join(newcomer())

    assert await one.beat()
    assert one.number in [row.member for row in (await one.look()).members]
    await one.leave()
