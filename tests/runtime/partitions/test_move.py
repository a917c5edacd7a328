"""Moving a partition between event loops: one thing at a time, and what can go wrong on the way.

The hub's own loop is shard 0, where the store's calls can be held back; shard 1 is a thread.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityId,
    Hub,
    HubStoppingError,
    LeaseLostError,
    MemoryStore,
    OrchestrationContext,
    OutcomeUnknownError,
    RuntimeStatus,
    Settings,
    StorageError,
    Store,
    UsageError,
)
from perdure.runtime.partitions import commit_loop, move
from perdure.runtime.partitions.partition import Partition
from perdure.runtime.scheduling.waiter import Waiter
from perdure.runtime.transport.verbs import ShardVerb
from perdure.testing.inside import shard_of
from tests.faults import Crash, FaultyStore, let_turns_crash, persist, settle
from tests.guarantees.workloads import entity_in, id_in
from tests.runtime.harness import until, until_true

PARTITIONS = 2
app = App()


@pytest.fixture(autouse=True)
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    let_turns_crash(monkeypatch)


#: What users' code of the two loops waits for, and what it has done.
gates: dict[str, threading.Event] = {}
runs: dict[str, int] = {}


@pytest.fixture(autouse=True)
def clean() -> None:
    gates.clear()
    runs.clear()


async def gate(name: str) -> None:
    """Wait, on any loop, until the test opens that gate."""
    runs[name] = runs.get(name, 0) + 1
    while not gates.setdefault(name, threading.Event()).is_set():
        await anyio.sleep(0.001)


def open_gate(name: str) -> None:
    gates.setdefault(name, threading.Event()).set()


async def reached(name: str, count: int = 1) -> None:
    await until_true(lambda: runs.get(name, 0) >= count)


@app.entity
class Book:
    lines: list[str] = []

    def write(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    async def write_slowly(self, line: str) -> int:
        await gate(line)
        self.lines.append(line)
        return len(self.lines)

    def read(self) -> list[str]:
        return self.lines

    def crash(self) -> None:
        runs["crash"] = runs.get("crash", 0) + 1
        raise Crash("for the test")


@app.activity
async def work(name: str) -> str:
    await gate(name)
    return f"{name} done"


@app.activity
def work_in_thread(name: str) -> str:
    runs[name] = runs.get(name, 0) + 1
    gates.setdefault(name, threading.Event()).wait(10)
    return f"{name} done"


@app.orchestration
async def working(ctx: OrchestrationContext, name: str) -> str:
    return await ctx.call_activity(work, name)


@app.orchestration
async def working_in_thread(ctx: OrchestrationContext, name: str) -> str:
    return await ctx.call_activity(work_in_thread, name)


@app.orchestration
async def listening(ctx: OrchestrationContext) -> list[int]:
    return [await ctx.wait_for_external_event("news", data_type=int) for _ in range(3)]


@app.orchestration
async def sleeping(ctx: OrchestrationContext, seconds: float) -> str:
    await ctx.create_timer(timedelta(seconds=seconds))
    return "awake"


@app.orchestration
async def holding(ctx: OrchestrationContext, key: str) -> int:
    async with ctx.lock_entities(EntityId(Book, key)):
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("go")
        return await ctx.call_entity(EntityId(Book, key), Book.write, "locked")


BOOK = entity_in(0, Book, "book", PARTITIONS)
OTHER = entity_in(1, Book, "book", PARTITIONS)
INSTANCE = id_in(0, "instance", PARTITIONS)


@asynccontextmanager
async def running(
    store: Store | str = "memory:", shards: int = 2, drain_s: float = 2.0
) -> AsyncGenerator[Hub]:
    settings = Settings(drain_s=drain_s)
    with anyio.fail_after(20):
        async with Hub(
            app,
            store=store,
            partitions=PARTITIONS,
            shards=shards,
            rebalance=None,
            settings=settings,
        ) as hub:
            yield hub


async def to_and_fro(hub: Hub, times: int = 3) -> None:
    """Move partition 0 to the other shard, and back, and so on."""
    for _ in range(times):
        await hub.move_partition(0, 1 - hub.placement[0])


class Outcome:
    """What became of a call that runs beside the test."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: Exception | None = None
        self.ended = anyio.Event()

    async def of(self, call: Awaitable[Any]) -> None:
        try:
            self.value = await call
        except Exception as error:
            self.error = error
        self.ended.set()


async def lock(hub: Hub) -> Any:
    """Have an orchestration hold the lock of the book."""
    holder = id_in(1, "holder", PARTITIONS)
    handle = await hub.client.start_new(holding, BOOK.key, instance_id=holder)

    async def is_locked() -> bool:
        return bool((await handle.status()).custom_status == "locked")

    await until(is_locked)
    return handle


# What goes on over a move.


async def test_a_partition_that_moved_has_the_state_it_had_and_the_hub_says_where_it_is() -> None:
    async with running() as hub:
        assert hub.placement == [0, 1]
        await hub.client.call_entity(BOOK, Book.write, "a")
        await hub.move_partition(0, 1)
        await hub.client.call_entity(BOOK, Book.write, "b")

        statistics = await hub.statistics()
        assert hub.placement == [1, 1]
        assert [one.partitions for one in statistics.shards] == [(), (0, 1)]
        assert [one.shard for one in statistics.partitions] == [1, 1]
        await hub.move_partition(0, 0)
        await hub.move_partition(1, 0)
        await hub.client.call_entity(BOOK, Book.write, "c")

        statistics = await hub.statistics()
        assert [one.partitions for one in statistics.shards] == [(0, 1), ()]
        assert await hub.client.call_entity(BOOK, Book.read) == ["a", "b", "c"]


async def test_a_call_that_waits_for_a_lock_is_answered_where_it_was_made() -> None:
    async with running() as hub, anyio.create_task_group() as tasks:
        handle = await lock(hub)
        outcome = Outcome()
        tasks.start_soon(outcome.of, hub.client.call_entity(BOOK, Book.write, "waits"))
        await settle()
        await to_and_fro(hub)
        assert not outcome.ended.is_set()
        await handle.raise_event("go")
        await outcome.ended.wait()

        assert outcome.value == 2
        assert await handle.result() == 1
        assert await hub.client.call_entity(BOOK, Book.read) == ["locked", "waits"]


async def test_what_waits_in_a_mailbox_keeps_its_order() -> None:
    async with running() as hub:
        handle = await lock(hub)
        for n in range(5):
            await hub.client.signal_entity(BOOK, Book.write, f"{n}")
            await to_and_fro(hub, 1)
        await handle.raise_event("go")
        await handle.result()

        assert await hub.client.call_entity(BOOK, Book.read) == ["locked", *"01234"]


@pytest.mark.parametrize("flow", [working, working_in_thread])
async def test_an_activity_that_runs_goes_on_and_runs_once(flow: Any) -> None:
    async with running() as hub:
        handle = await hub.client.start_new(flow, "x", instance_id=INSTANCE)
        await reached("x")
        await to_and_fro(hub)
        open_gate("x")

        assert await handle.result() == "x done"
        assert runs["x"] == 1


@app.orchestration
async def leaving_work(ctx: OrchestrationContext, name: str) -> None:
    ctx.call_activity(work, name)


async def test_an_activity_whose_orchestration_has_ended_goes_on_and_runs_once() -> None:
    store = MemoryStore()
    async with running(store) as hub:
        handle = await hub.client.start_new(leaving_work, "x", instance_id=INSTANCE)
        await handle.result()
        await reached("x")
        await to_and_fro(hub)
        assert len(store.rows[0].activities) == 1
        open_gate("x")

        await until_true(lambda: not store.rows[0].activities)
        assert runs["x"] == 1


async def test_an_activity_that_ends_while_its_partition_leaves_runs_once() -> None:
    store = FaultyStore(MemoryStore())
    async with running(store) as hub:
        handle = await hub.client.start_new(working, "x", instance_id=INSTANCE)
        await reached("x")
        held = store.hold("commit", partition=0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.move_partition, 0, 1)
            await held.arrived.wait()
            open_gate("x")
            await until_true(lambda: not shard_of(hub).activities.running_count)
            held.open()

        assert await handle.result() == "x done"
        assert runs["x"] == 1


async def test_an_activity_that_ends_while_its_partition_is_nowhere_runs_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as hub:
        handle = await hub.client.start_new(working, "x", instance_id=INSTANCE)
        await reached("x")
        ask = hub.crew.ask

        async def end_first(shard: int, verb: ShardVerb, *arguments: Any) -> Any:
            if verb == "host" and shard == 1:
                open_gate("x")
                await until_true(lambda: not shard_of(hub).activities.running_count)
                raise StorageError("for the test")
            return await ask(shard, verb, *arguments)

        monkeypatch.setattr(hub.crew, "ask", end_first)
        with pytest.raises(StorageError, match="for the test"):
            await hub.move_partition(0, 1)

        assert await handle.result() == "x done"
        assert runs["x"] == 1


async def test_an_activity_is_told_to_stop_also_where_its_partition_has_left() -> None:
    async with running() as hub:
        handle = await hub.client.start_new(working, "x", instance_id=INSTANCE)
        await reached("x")
        await hub.move_partition(0, 1)
        await handle.terminate()

        await until_true(lambda: not shard_of(hub).activities.running_count)


async def test_an_async_operation_under_way_begins_again_and_counts_once() -> None:
    async with running() as hub, anyio.create_task_group() as tasks:
        outcome = Outcome()
        tasks.start_soon(outcome.of, hub.client.call_entity(BOOK, Book.write_slowly, "slow"))
        await reached("slow")
        await to_and_fro(hub, 2)
        await reached("slow", 2)
        open_gate("slow")
        await outcome.ended.wait()

        assert outcome.value == 1
        assert await hub.client.call_entity(BOOK, Book.read) == ["slow"]


async def test_timers_fire_where_the_partition_is() -> None:
    async with running() as hub:
        handle = await hub.client.start_new(sleeping, 0.1, instance_id=INSTANCE)
        await hub.client.signal_entity(BOOK, Book.write, "later", at=timedelta(seconds=0.1))
        await to_and_fro(hub)

        assert await handle.result() == "awake"

        async def is_written() -> bool:
            return await hub.client.call_entity(BOOK, Book.read) == ["later"]

        await until(is_written)


async def test_events_are_taken_in_order_and_a_client_that_waits_hears_of_the_end() -> None:
    async with running() as hub, anyio.create_task_group() as tasks:
        handle = await hub.client.start_new(listening, instance_id=INSTANCE)
        outcome = Outcome()
        tasks.start_soon(outcome.of, handle.result())
        for n in range(3):
            await to_and_fro(hub, 1)
            await handle.raise_event("news", n)
        await outcome.ended.wait()

        assert outcome.value == [0, 1, 2]


async def test_a_request_id_is_known_where_the_partition_comes() -> None:
    async with running() as hub:
        for _ in range(3):
            call = hub.client.call_entity(BOOK, Book.write, "once", request_id="r")
            assert await call == 1
            await to_and_fro(hub, 1)


async def test_a_request_that_is_repeated_while_it_waits_is_answered_over_a_move() -> None:
    async with running() as hub, anyio.create_task_group() as tasks:
        handle = await lock(hub)
        outcomes = [Outcome() for _ in range(3)]

        async def call() -> int:
            return await hub.client.call_entity(BOOK, Book.write, "once", request_id="r")

        for outcome in outcomes:
            tasks.start_soon(outcome.of, call())
            await settle()
        await to_and_fro(hub)
        await handle.raise_event("go")
        for outcome in outcomes:
            await outcome.ended.wait()

        assert [outcome.value for outcome in outcomes] == [2, 2, 2]


async def test_a_delayed_signal_whose_request_is_looked_up_during_a_move_is_set_once() -> None:
    store = FaultyStore(MemoryStore())
    async with running(store) as hub, anyio.create_task_group() as tasks:
        outcome = Outcome()
        looking_up = store.hold("read_request", partition=0)

        async def signal() -> None:
            at = timedelta(hours=1)
            await hub.client.signal_entity(BOOK, Book.write, "later", at=at, request_id="r")

        tasks.start_soon(outcome.of, signal())
        await looking_up.arrived.wait()
        await hub.move_partition(0, 1)
        looking_up.open()
        store.hold_no_more()
        await outcome.ended.wait()

        assert outcome.error is None
        assert shard_of(hub).timers.pending == 0


async def test_a_parked_actor_stays_parked_and_is_not_tried_again() -> None:
    async with running() as hub:
        await persist(hub.client.signal_entity, BOOK, Book.crash)

        async def is_parked() -> bool:
            status = await hub.client.get_entity(BOOK)
            return status is not None and status.parked is not None

        await until(is_parked)
        count = runs["crash"]
        await to_and_fro(hub)

        assert await is_parked()
        assert await hub.client.call_entity(entity_in(0, Book, "well", PARTITIONS), Book.read) == []
        assert runs["crash"] == count


async def test_a_suspended_instance_stays_suspended_with_its_events() -> None:
    async with running() as hub:
        handle = await hub.client.start_new(listening, instance_id=INSTANCE)
        await handle.suspend()
        for n in range(3):
            await handle.raise_event("news", n)
        await to_and_fro(hub)

        assert (await handle.status()).runtime_status == RuntimeStatus.SUSPENDED
        await handle.resume()
        assert await handle.result() == [0, 1, 2]


async def test_queries_see_all_partitions_wherever_they_are() -> None:
    async with running() as hub:
        await hub.client.call_entity(BOOK, Book.write, "a")
        await hub.client.call_entity(OTHER, Book.write, "b")
        for _ in range(4):
            found = [status.entity_id async for status in hub.client.query_entities()]
            assert sorted(found, key=str) == sorted([BOOK, OTHER], key=str)
            await to_and_fro(hub, 1)


# How moves are asked for.


@pytest.mark.parametrize(
    ("partition", "to", "message"),
    [(2, 0, "partition must"), (-1, 0, "partition must"), (0, 2, "to must"), (0, -1, "to must")],
)
async def test_a_move_that_makes_no_sense_is_refused(partition: int, to: int, message: str) -> None:
    async with running() as hub:
        with pytest.raises(UsageError, match=message):
            await hub.move_partition(partition, to)


async def test_a_hub_that_does_not_run_moves_nothing() -> None:
    async with running() as hub:
        pass

    with pytest.raises(HubStoppingError):
        await hub.move_partition(0, 1)


async def test_moves_asked_for_at_once_are_made_one_after_another() -> None:
    async with running() as hub:
        async with anyio.create_task_group() as tasks:
            for n in range(10):
                tasks.start_soon(hub.move_partition, n % 2, n // 2 % 2)

        assert sorted({*hub.placement}) in ([0], [1], [0, 1])
        await hub.client.call_entity(BOOK, Book.write, "a")
        await hub.client.call_entity(OTHER, Book.write, "a")


async def test_whoever_asked_for_a_move_may_be_cancelled_and_it_is_made() -> None:
    store = FaultyStore(MemoryStore())
    async with running(store) as hub:
        await hub.client.call_entity(BOOK, Book.write, "a")
        held = store.hold("commit", partition=0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.move_partition, 0, 1)
            await held.arrived.wait()
            tasks.cancel_scope.cancel()
            held.open()

        assert hub.placement == [1, 1]
        assert await hub.client.call_entity(BOOK, Book.read) == ["a"]


# Moves that fail.


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_partition_whose_last_commit_fails_stays_and_serves(
    when: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, moves = FaultyStore(MemoryStore()), list[int]()
    leave = move.leave

    async def leave_in_trouble(partition: Partition, told: Waiter) -> bool:
        if not moves:  # other commits may come in front of the last one
            store.fail_next(when, partition=0)
        moves.append(partition.index)
        return await leave(partition, told)

    monkeypatch.setattr(commit_loop, "leave", leave_in_trouble)
    async with running(store) as hub, anyio.create_task_group() as tasks:
        handle = await lock(hub)
        outcome = Outcome()
        tasks.start_soon(outcome.of, hub.client.signal_entity(BOOK, Book.write, "waits"))
        await outcome.ended.wait()

        with pytest.raises(StorageError, match="on purpose"):
            await hub.move_partition(0, 1)

        assert hub.placement == [0, 1]
        await handle.raise_event("go")
        await handle.result()
        assert await hub.client.call_entity(BOOK, Book.read) == ["locked", "waits"]
        await hub.move_partition(0, 1)
        assert await hub.client.call_entity(BOOK, Book.read) == ["locked", "waits"]


@pytest.mark.parametrize("failures", [1, 3])
async def test_a_partition_that_its_new_shard_cannot_recover_goes_back(failures: int) -> None:
    store = FaultyStore(MemoryStore())
    async with running(store) as hub, anyio.create_task_group() as tasks:
        handle = await lock(hub)
        outcome = Outcome()
        tasks.start_soon(outcome.of, hub.client.call_entity(BOOK, Book.write, "waits"))
        await settle()
        store.fail_reads("recover", failures)

        with pytest.raises(StorageError, match="on purpose"):
            await hub.move_partition(0, 1)

        assert hub.placement == [0, 1]
        await handle.raise_event("go")
        await outcome.ended.wait()
        assert outcome.value == 2


async def test_a_partition_whose_open_activities_cannot_be_read_goes_back_as_a_whole() -> None:
    store = FaultyStore(MemoryStore())
    async with running(store) as hub:
        handle = await hub.client.start_new(working, "x", instance_id=INSTANCE)
        await reached("x")
        store.fail_reads("read_instances", 1)

        with pytest.raises(StorageError, match="on purpose"):
            await hub.move_partition(0, 1)

        statistics = await hub.statistics()
        assert [one.partitions for one in statistics.shards] == [(0,), (1,)]
        # Shard 1 must not take the partition for its own any more.
        await hub.client.call_entity(BOOK, Book.write, "a")
        relayed = await hub.client.start_new(telling, BOOK.key, instance_id=id_in(1, "t", 2))
        assert await relayed.result() == 2
        open_gate("x")
        assert await handle.result() == "x done"
        assert runs["x"] == 1


@app.orchestration
async def telling(ctx: OrchestrationContext, key: str) -> int:
    return await ctx.call_entity(EntityId(Book, key), Book.write, "told")


async def test_a_partition_that_lost_its_lease_while_it_left_does_not_take_it_back() -> None:
    inner = MemoryStore()
    epochs: list[int] = []

    async def lose() -> None:
        async with running(FaultyStore(inner)) as hub:
            await hub.client.call_entity(BOOK, Book.write, "a")
            inner.rows[0].epoch += 1  # another owner
            epochs.append(inner.rows[0].epoch)
            await hub.move_partition(0, 1)

    with pytest.raises(LeaseLostError):
        await lose()

    assert epochs == [inner.rows[0].epoch]


async def test_a_move_under_way_does_not_keep_a_hub_from_stopping() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    outcome, called = Outcome(), Outcome()
    async with anyio.create_task_group() as tasks:

        async def lose() -> None:
            async with running(store) as hub:
                held = store.hold("commit", partition=0)
                tasks.start_soon(called.of, hub.client.call_entity(BOOK, Book.write, "a"))
                await held.arrived.wait()
                tasks.start_soon(outcome.of, hub.move_partition(0, 1))
                await settle()
                inner.rows[1].epoch += 1  # the other partition goes to another owner
                await hub.client.call_entity(OTHER, Book.write, "a")

        with pytest.raises(LeaseLostError):
            await lose()
        with anyio.fail_after(5):
            await outcome.ended.wait()
            await called.ended.wait()

    assert isinstance(outcome.error, HubStoppingError)
    assert isinstance(called.error, OutcomeUnknownError)


async def test_a_hub_that_stops_in_the_last_commit_of_a_partition_tells_everyone() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    outcome, called = Outcome(), Outcome()
    async with anyio.create_task_group() as tasks:

        async def lose() -> None:
            async with running(store) as hub:
                await hub.client.call_entity(BOOK, Book.write, "a")
                held = store.hold("commit", partition=0)
                tasks.start_soon(outcome.of, hub.move_partition(0, 1))
                tasks.start_soon(called.of, hub.client.call_entity(BOOK, Book.write, "b"))
                await held.arrived.wait()
                await settle()
                inner.rows[1].epoch += 1
                await hub.client.call_entity(OTHER, Book.write, "a")

        with pytest.raises(LeaseLostError):
            await lose()
        with anyio.fail_after(5):
            await outcome.ended.wait()
            await called.ended.wait()

    assert isinstance(outcome.error, HubStoppingError)
    assert isinstance(called.error, (HubStoppingError, OutcomeUnknownError))


async def test_a_call_that_waits_at_a_partition_that_moved_is_told_when_the_hub_stops() -> None:
    outcome = Outcome()
    async with anyio.create_task_group() as tasks:
        async with running(drain_s=0.2) as hub:
            await lock(hub)
            tasks.start_soon(outcome.of, hub.client.call_entity(BOOK, Book.write, "waits"))
            await settle()
            await hub.move_partition(0, 1)
        with anyio.fail_after(5):
            await outcome.ended.wait()

    assert isinstance(outcome.error, OutcomeUnknownError)


async def test_a_call_that_waits_at_another_shard_is_told_when_the_hub_stops() -> None:
    outcome = Outcome()
    store = MemoryStore()
    async with anyio.create_task_group() as tasks:
        async with running(store, drain_s=0.2) as hub:
            await lock(hub)
            await hub.move_partition(0, 1)
            tasks.start_soon(outcome.of, hub.client.call_entity(BOOK, Book.write, "waits"))

            async def is_stored() -> bool:
                return len(store.rows[0].mail) > 0

            # It is in the mailbox of a locked entity, and stored there.
            await until(is_stored)
        with anyio.fail_after(5):
            await outcome.ended.wait()

    assert isinstance(outcome.error, OutcomeUnknownError)


async def test_the_answer_to_an_earlier_shard_s_question_is_nobody_s_here() -> None:
    async with running() as one, running() as other:
        waiter = shard_of(one).router.new_waiter()
        first = shard_of(one).replies.expect(1, waiter)
        second = shard_of(other).replies.expect(1, waiter)

        assert first != second
