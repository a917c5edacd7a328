"""What is folded, and when, makes no difference to whoever reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from itertools import count

import anyio
import pytest

from perdure.actors.errors import StorageError
from perdure.storage import MemoryStore
from perdure.storage.postgres import PostgresStore, folding
from perdure.storage.postgres.place import read_place
from perdure.storage.records import EntityRow
from perdure.testing.store_conformance import Owner, created, own, progress
from tests.postgres import new_server, versions
from tests.storage.sqlite.applier.looks import Chance, look, look_wide

from .sessions import Session

RECOVERED = ("sequence", "next_id", "next_row", "mail", "timers", "outbox", "peers", "activities")


@pytest.fixture
async def store(newest_postgres: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(newest_postgres)
    yield store
    await store.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("table", ["folded", "instance_row"])
async def test_a_round_that_waits_for_a_lock_holds_no_other_partition_up(
    store: PostgresStore, newest_postgres: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "LOCKED_S", 0.05)
    session = Session(read_place(newest_postgres))
    owners = [Owner(one, await one.recover()) for one in await store.open(2)]
    for owner in owners:
        await owner.commit(created=[created(1)])
        await owner.partition.apply()
        await owner.commit(progress=[progress(1)])
    await session.do("BEGIN")
    await session.do(f"SELECT FROM {{s}}.{table} WHERE partition = 0 FOR UPDATE")
    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_apply_in_the_end, owners[0])
                await _until_locked_out(session)
                await owners[1].partition.apply()
                assert [owner.partition.unapplied for owner in owners] == [1, 0]
                await session.do("COMMIT")
    finally:
        await session.close()
    assert owners[0].partition.unapplied == 0


async def _apply_in_the_end(owner: Owner) -> None:
    while owner.partition.unapplied:
        with suppress(StorageError):
            await owner.partition.apply()


async def _until_locked_out(session: Session) -> None:
    sql = (
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name ="
        " 'perdure folds' AND datname = current_database()"
    )
    while not await session.do(sql):
        await anyio.sleep(0.002)


WAITS = "still waiting for"
#: A build that folds under the lock by which commits are fenced.
IN_THE_WAY = folding.GATE.replace(
    "WHERE",
    "FROM (SELECT FROM {s}.partition WHERE partition = $1 FOR UPDATE) AS locked WHERE",
)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("gate", [folding.GATE, IN_THE_WAY], ids=["as it is", "in the way"])
async def test_no_commit_waits_for_a_lock_while_many_rows_are_folded(
    gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not versions():
        pytest.skip("no binaries of PostgreSQL are on this machine")
    monkeypatch.setattr(folding, "GATE", gate)
    monkeypatch.setattr(folding, "GATHER_S", 60.0)
    with new_server(log_lock_waits="on", deadlock_timeout="1ms") as server:
        store = PostgresStore(f"{server.dsn}?schema=hub&durability=relaxed")
        [one] = await store.open(1)
        owner, ids = Owner(one, await one.recover()), count(1)

        async def commit(rows: int) -> None:
            await owner.commit(entities=[entity(next(ids)) for _ in range(rows)])

        for _ in range(10):
            await commit(1_000)
        rounds: list[int] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(_fold_and_say, owner, rounds))
            while not rounds:
                await commit(1)
        said = server.log.read_text()
        await store.close()

    assert (WAITS in said) == (gate == IN_THE_WAY)


def entity(id: int) -> EntityRow:
    return EntityRow(id, "counter", f"c{id}", 1, b"{}", None, None, None)


async def _fold_and_say(owner: Owner, rounds: list[int]) -> None:
    await owner.partition.apply()
    rounds.append(owner.sequence)


@pytest.mark.by_turns
@pytest.mark.parametrize(("gather_s", "portion"), [(60.0, 5_000), (0.001, 2)])
@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_folded_when_it_reads_like_a_store_without_a_journal(
    store: PostgresStore,
    gather_s: float,
    portion: int,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folding, "GATHER_S", gather_s)
    monkeypatch.setattr(folding, "PORTION", portion)
    chance = Chance(seed)
    owner, model = await own(store), await own(MemoryStore())

    for _ in range(20):
        checkpoint = chance.checkpoint(owner.sequence + 1, owner.recovered.epoch)
        await owner.partition.commit(checkpoint)
        checkpoint.epoch = model.recovered.epoch
        await model.partition.commit(checkpoint)
        owner.sequence += 1
        ids = range(1, chance.next_id)
        assert await look(owner.partition, ids) == await look(model.partition, ids)
        event = chance.random.random()
        if event < 0.15:
            await owner.partition.apply()
        elif event < 0.25:
            assert await look_wide(owner.partition) == await look_wide(model.partition)
        elif event < 0.35:
            recovered = await owner.partition.recover()
            again = await model.partition.recover()
            owner.recovered, model.recovered = recovered, again
            for name in RECOVERED:
                assert getattr(recovered, name) == getattr(again, name), name
            assert sorted(recovered.unanswered) == sorted(again.unanswered)
            assert sorted(recovered.parked) == sorted(again.parked)
    assert await look_wide(owner.partition) == await look_wide(model.partition)
