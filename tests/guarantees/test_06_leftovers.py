"""Guarantee 6, for what nobody awaits: what was called happens, though its caller has returned."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest

from perdure import (
    ActivityContext,
    App,
    EntityId,
    FailedError,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    RetryPolicy,
    Settings,
    SqliteStore,
    Store,
)
from perdure.testing.inside import partitions_of
from tests.faults import FaultyStore, JumpingClock, When, dying, within
from tests.storage.files import change

app = App()
runs: list[tuple[str, int]] = []
latches: list[anyio.Event] = []
told: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    runs.clear()
    latches.clear()
    told.clear()


@app.activity
async def charge(ctx: ActivityContext, amount: int) -> int:
    runs.append((ctx.idempotency_key, amount))
    try:
        for latch in latches:
            await latch.wait()
    except anyio.get_cancelled_exc_class():
        told.append(ctx.idempotency_key)
        raise
    if amount < 0:
        raise ValueError("no such amount")
    return amount


@app.entity
class Ledger:
    total: int = 0

    def add(self, amount: int) -> None:
        if amount < 0:
            raise ValueError("no such amount")
        self.total += amount


@app.orchestration
async def child(ctx: OrchestrationContext, amount: int) -> None:
    await ctx.call_activity(charge, amount)


Way = Literal["returns", "continues", "raises", "waits"]


@app.orchestration
async def calls_and(ctx: OrchestrationContext, given: tuple[Way, int]) -> str:
    way, amount = given
    if way == "continues" or way == "returns" or way == "raises":
        ctx.call_activity(charge, amount, retry=RetryPolicy(1, max_attempts=3))
        ctx.call_activity(charge, amount + 1 if amount >= 0 else amount - 1)
        ctx.call_sub_orchestrator(child, amount * 10)
        ctx.call_entity(EntityId(Ledger, "calls"), Ledger.add, amount)
        ctx.signal_entity(EntityId(Ledger, "signals"), Ledger.add, amount)
    if way == "continues":
        ctx.continue_as_new(("waits", 0))
    elif way == "raises":
        raise ValueError("after all")
    elif way == "waits":
        await ctx.wait_for_external_event("go")
    return way


@app.orchestration
async def two(ctx: OrchestrationContext) -> int:
    ctx.call_activity(charge, 2)
    return await ctx.call_activity(charge, 1)


def hub_on(store: Store, clock: Any = None, **limits: Any) -> Hub:
    settings = Settings(drain_s=0.2, **limits)
    return Hub(app, store=store, partitions=2, clock=clock or JumpingClock(), settings=settings)


def rows_of(store: MemoryStore) -> int:
    return sum(len(one.activities) for one in store.rows)


async def until_run(count: int) -> None:
    while len(runs) < count:
        await anyio.sleep(0.001)


async def until_no_row(store: MemoryStore) -> None:
    while rows_of(store):
        await anyio.sleep(0.001)


async def ledger(hub: Hub, key: str) -> int:
    while (state := await hub.client.read_entity_state(EntityId(Ledger, key))) is None:
        await anyio.sleep(0.001)
    return state.total


@pytest.mark.parametrize("way", ["returns", "continues"])
async def test_what_was_called_happens_though_nobody_awaited_it(way: Way) -> None:
    store = MemoryStore()
    async with within(), hub_on(store) as hub:
        handle = await hub.client.start_new(calls_and, (way, 5), instance_id="i")
        await until_run(3)
        if way == "continues":
            await handle.raise_event("go")
        result = await handle.result()
        totals = [await ledger(hub, "calls"), await ledger(hub, "signals")]
        await until_no_row(store)

    assert result == ("returns" if way == "returns" else "waits")
    assert sorted(amount for _, amount in runs) == [5, 6, 50]
    assert totals == [5, 5]


async def test_nothing_is_started_for_a_function_that_raises() -> None:
    store = MemoryStore()
    async with within(), hub_on(store) as hub:
        handle = await hub.client.start_new(calls_and, ("raises", 5), instance_id="i")
        with pytest.raises(FailedError, match="after all"):
            await handle.result()
        await until_run(1)
        totals = [await ledger(hub, "calls"), await ledger(hub, "signals")]

    assert [amount for _, amount in runs] == [50]  # the child goes on
    assert totals == [5, 5]
    assert rows_of(store) == 0


@app.orchestration
async def fails_beside(ctx: OrchestrationContext) -> None:
    ctx.call_activity(charge, 5)
    await ctx.wait_for_external_event("fail")
    raise ValueError("after all")


async def test_a_run_under_way_is_told_when_the_function_raises() -> None:
    latches.append(anyio.Event())
    async with within(), hub_on(MemoryStore()) as hub:
        handle = await hub.client.start_new(fails_beside)
        await until_run(1)
        await handle.raise_event("fail")
        with pytest.raises(FailedError, match="after all"):
            await handle.result()
        while not told:
            await anyio.sleep(0.001)

    assert len(runs) == 1


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("way", ["returns", "continues"])
async def test_what_is_left_open_runs_again_after_a_crash(
    way: Way, kind: str, tmp_path: Any
) -> None:
    inner: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "hub")
    latches.append(anyio.Event())
    async with within():
        with dying():
            async with hub_on(faulty := FaultyStore(inner)) as hub:
                await hub.client.start_new(calls_and, (way, 5), instance_id="i")
                await until_run(3)
                faulty.crash_next()
                await hub.client.start_new(two, instance_id="another")
        first = sorted(runs[:3])
        runs.clear()
        latches.clear()
        async with hub_on(inner) as hub:
            await until_run(3)
            if way == "continues":
                await hub.client.raise_event("i", "go")
            await hub.client.wait("i")
        async with hub_on(inner) as hub:
            for partition in partitions_of(hub):
                assert not partition.leftovers.rows

    assert sorted(runs) == first
    assert len({key for key, _ in runs}) == 3


async def live(hub: Hub, way: Way, inner: MemoryStore, store: FaultyStore) -> None:
    await hub.client.start_new(calls_and, (way, 5), instance_id="i", request_id="r")
    if way == "continues":
        await hub.client.raise_event("i", "go", request_id="go")
    await hub.client.wait("i")
    while len({amount for _, amount in runs}) < 3:
        await anyio.sleep(0.001)
    while not store.dead and rows_of(inner):
        await anyio.sleep(0.001)


@pytest.mark.by_turns
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way", ["returns", "continues"])
async def test_whichever_commit_is_the_last_all_that_was_called_happens(
    way: Way, when: When
) -> None:
    commit = 0
    for commit in range(1, 60):
        runs.clear()
        inner = MemoryStore()
        store = FaultyStore(inner)
        store.crash_at(commit, when)

        async with within():
            try:
                async with hub_on(store) as hub:
                    await live(hub, way, inner, store)
            except Exception:
                assert store.dead
                async with hub_on(inner) as hub:
                    await live(hub, way, inner, store)
            async with hub_on(inner) as hub:
                totals = [await ledger(hub, "calls"), await ledger(hub, "signals")]
                await until_no_row(inner)

        assert {amount for _, amount in runs} == {5, 6, 50}
        assert len({key for key, _ in runs}) == 3
        assert totals == [5, 5]
        if store.faults:
            break
    assert commit > 3


async def test_an_end_with_nothing_open_writes_no_row() -> None:
    store = FaultyStore(MemoryStore())
    async with within(), hub_on(store) as hub:
        handle = await hub.client.start_new(child, 5)
        await handle.result()

    assert not any(checkpoint.activities for _, checkpoint in store.sealed)


async def test_an_answer_that_was_in_the_mailbox_at_the_end_leaves_no_row() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    latches.append(anyio.Event())
    async with within(), hub_on(store) as hub:
        handle = await hub.client.start_new(two)
        await until_run(2)
        gate = store.hold("commit")  # both answers come before a turn is stored
        latches.pop().set()
        await gate.arrived.wait()
        gate.open()
        await handle.result()
        await until_no_row(inner)

    assert len(runs) == 2


async def test_a_failure_that_nobody_awaits_is_logged_and_counted_and_not_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "perdure.partition")
    store = MemoryStore()
    async with within(), hub_on(store) as hub:
        handle = await hub.client.start_new(calls_and, ("returns", -5))
        await handle.result()
        await until_run(3)
        await until_no_row(store)
        while (await hub.statistics()).failed_calls < 4:
            await anyio.sleep(0.001)

    assert len(runs) == 3
    lines = [r.getMessage() for r in caplog.records if "nobody awaited it" in r.getMessage()]
    assert sum(line.startswith("charge, called by ") for line in lines) == 2
    assert sum(line.startswith("a sub-orchestration, called by ") for line in lines) == 1
    assert sum(line.startswith("an entity's operation, called by ") for line in lines) == 1


@app.orchestration
async def looks_away(ctx: OrchestrationContext, looks: bool) -> None:
    task = ctx.call_activity(charge, -1)
    await ctx.wait_for_external_event("go")
    if looks:
        assert task.is_faulted


@pytest.mark.parametrize("looks", [True, False])
async def test_a_failure_that_came_before_the_end_is_told_unless_the_code_looked(
    looks: bool,
) -> None:
    async with within(), hub_on(MemoryStore()) as hub:
        handle = await hub.client.start_new(looks_away, looks)
        while not any(e.event_type == "TaskFailed" for e in await handle.history()):
            await anyio.lowlevel.checkpoint()
        await handle.raise_event("go")
        await handle.result()
        counted = (await hub.statistics()).failed_calls

    assert counted == (0 if looks else 1)


@pytest.mark.by_turns
async def test_a_purge_takes_what_is_left_with_it() -> None:
    store = MemoryStore()
    latches.append(anyio.Event())
    async with within(), hub_on(store, ManualClock()) as hub:
        handle = await hub.client.start_new(calls_and, ("returns", 5), instance_id="i")
        await handle.result()
        await until_run(2)
        assert rows_of(store) == 2
        await handle.purge()
        rows = rows_of(store)
        while len(told) < 2:
            await anyio.sleep(0.001)

    assert rows == 0


@pytest.mark.by_turns
async def test_a_row_that_cannot_be_read_is_named_and_all_else_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "perdure.partition")
    store = SqliteStore(tmp_path / "hub")
    latches.append(anyio.Event())
    async with within():
        async with hub_on(store, ManualClock()) as hub:
            handle = await hub.client.start_new(calls_and, ("returns", 5), instance_id="i")
            await handle.result()
            await until_run(2)
        latches.clear()
        runs.clear()
        for path in sorted((tmp_path / "hub").glob("partition-*.sqlite")):
            change(path, "UPDATE activity_row SET body = 'garbage' WHERE n % 2 = 0")
        async with hub_on(store) as hub:
            await (await hub.client.start_new(child, 7)).result()
            await until_run(1)

    lines = [r.getMessage() for r in caplog.records if "activity_row" in r.getMessage()]
    assert lines
    assert all("partition-" in line and "cannot be read" in line for line in lines)


async def test_an_old_answer_is_not_taken_by_a_new_instance_of_the_same_id() -> None:
    latches.append(anyio.Event())
    async with within(), hub_on(MemoryStore()) as hub:
        handle = await hub.client.start_new(calls_and, ("returns", 5), instance_id="i")
        await handle.result()
        await until_run(2)
        again = await hub.client.start_new(two, instance_id="i")
        await until_run(5)
        latches.pop().set()
        result = await again.result()

    assert result == 1
