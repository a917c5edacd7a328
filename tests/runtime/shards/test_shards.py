"""A hub whose partitions are served by several event loops, in threads of one process."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    HubStoppingError,
    LeaseLostError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    Settings,
    StorageError,
    Store,
    UnavailableError,
    UsageError,
    connect,
)
from perdure.runtime.cluster import crews, loops
from perdure.runtime.partitions.commit_loop import CommitLoop
from perdure.runtime.shards.shard import STOP_S
from tests.faults import FaultyStore as GatedStore
from tests.guarantees.workloads import entity_in, id_in
from tests.runtime.harness import FaultyStore, disk_error, until, until_true

SHARDS = 3
app = App()


class Barrier:
    """Blocks the loop that runs into it until the test lets it on."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.left = threading.Event()

    def block(self) -> None:
        self.arrived.set()
        assert self.left.wait(60), "the test has forgotten the barrier"


barriers: dict[str, Barrier] = {}


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def block(self, barrier: str) -> int:
        barriers[barrier].block()
        self.value += 1
        return self.value

    def where(self) -> str:
        return threading.current_thread().name

    def relay(self, targets: list[str], ctx: EntityContext) -> None:
        for target in targets:
            ctx.signal_entity(EntityId.parse(target), "add", 1)

    def fail(self) -> None:
        raise ValueError("not this")


@app.activity
async def name_thread() -> str:
    return threading.current_thread().name


@app.orchestration
async def hello(ctx: OrchestrationContext, counters: list[str]) -> list[int]:
    return [await ctx.call_entity(EntityId.parse(one), "add", 1) for one in counters]


@app.orchestration
async def locking(ctx: OrchestrationContext, counters: list[str]) -> list[int]:
    ids = [EntityId.parse(one) for one in counters]
    async with ctx.lock_entities(*ids):
        values = [await ctx.call_entity(id, "add", 0) for id in ids]
        # All others wait, so what was read is what is there.
        return [
            await ctx.call_entity(id, "add", 1) - before
            for id, before in zip(ids, values, strict=True)
        ]


@app.orchestration
async def parent(ctx: OrchestrationContext, children: list[str]) -> list[str]:
    return await ctx.task_all([ctx.call_sub_orchestrator(child, instance_id=id) for id in children])


@app.orchestration
async def child(ctx: OrchestrationContext) -> str:
    await ctx.create_timer(timedelta(milliseconds=5))
    return await ctx.call_activity(name_thread)


@app.orchestration
async def talking(ctx: OrchestrationContext, to: str) -> str:
    ctx.send_event(to, "word", ctx.instance_id)
    return await ctx.wait_for_external_event("word", data_type=str)


@app.orchestration
async def ticking(ctx: OrchestrationContext, ticks: int) -> int:
    for _ in range(ticks):
        await ctx.create_timer(timedelta(milliseconds=5))
    return ticks


COUNTERS = [entity_in(n, Counter, "counter", SHARDS) for n in range(SHARDS)]
NAMES = [str(id) for id in COUNTERS]


def shard_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("perdure-shard")}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Generator[None]:
    before = shard_threads()
    yield
    for barrier in barriers.values():
        barrier.left.set()
    barriers.clear()
    for thread in shard_threads() - before:
        thread.join(10)
    assert shard_threads() == before


@asynccontextmanager
async def running(
    store: Store | str = "memory:", *, drain_s: float = 5.0, **options: Any
) -> AsyncGenerator[Hub]:
    settings = Settings(drain_s=drain_s)
    with anyio.fail_after(30):
        async with Hub(
            app,
            store=store,
            partitions=SHARDS,
            shards=SHARDS,
            rebalance=None,
            settings=settings,
            **options,
        ) as hub:
            yield hub


@contextmanager
def barrier(name: str) -> Generator[Barrier]:
    made = barriers[name] = Barrier()
    try:
        yield made
    finally:
        made.left.set()


async def arrival(barrier: Barrier) -> None:
    await until_true(barrier.arrived.is_set)


async def value_of(hub: Hub, id: EntityId[Any]) -> Any:
    return await hub.client.call_entity(id, Counter.add, 0)


# What actors do across loops.


async def test_each_partition_is_served_by_the_loop_that_the_placement_says() -> None:
    async with running() as hub:
        names = [await hub.client.call_entity(id, Counter.where) for id in COUNTERS]

        assert hub.shards == SHARDS
        assert hub.placement == [0, 1, 2]
        assert names == ["MainThread", "perdure-shard-1", "perdure-shard-2"]


async def test_partitions_are_spread_evenly_over_the_loops() -> None:
    async with Hub(app, partitions=8, shards=3) as hub:
        assert hub.placement == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_orchestrations_call_entities_of_all_loops(tmp_path: Path, kind: str) -> None:
    store = "memory:" if kind == "memory" else f"sqlite:{tmp_path / 'hub'}"
    async with running(store) as hub:
        ids = [id_in(n, "hello", SHARDS) for n in range(SHARDS)]
        handles = [await hub.client.start_new(hello, NAMES, instance_id=id) for id in ids]
        results = [await handle.result() for handle in handles]

        assert [sorted(values) for values in zip(*results, strict=True)] == [[1, 2, 3]] * SHARDS
        assert [await value_of(hub, id) for id in COUNTERS] == [SHARDS] * SHARDS


async def test_signals_of_entities_reach_entities_of_all_loops() -> None:
    async with running() as hub:
        for id in COUNTERS:
            await hub.client.signal_entity(id, Counter.relay, NAMES)

        async def all_there() -> bool:
            return [await value_of(hub, id) for id in COUNTERS] == [SHARDS] * SHARDS

        await until(all_there)


async def test_locks_over_all_loops_keep_others_out_and_are_given_back() -> None:
    async with running() as hub:
        handles = [await hub.client.start_new(locking, NAMES) for _ in range(12)]

        assert [await handle.result() for handle in handles] == [[1] * SHARDS] * 12
        assert [await value_of(hub, id) for id in COUNTERS] == [12] * SHARDS


async def test_children_and_activities_run_where_their_parent_does_not() -> None:
    children = [id_in(n, "child", SHARDS) for n in range(SHARDS)]
    async with running() as hub:
        handle = await hub.client.start_new(parent, children, instance_id=id_in(1, "p", SHARDS))

        assert await handle.result() == ["MainThread", "perdure-shard-1", "perdure-shard-2"]


async def test_orchestrations_of_different_loops_send_each_other_events() -> None:
    one, other = id_in(1, "one", SHARDS), id_in(2, "other", SHARDS)
    async with running() as hub:
        # Both begin at a time that lets the other one's event find them.
        later = timedelta(seconds=0.05)
        start = hub.client.start_new
        handles = [
            await start(talking, other, instance_id=one, start_at=later),
            await start(talking, one, instance_id=other, start_at=later),
        ]

        assert [await handle.result() for handle in handles] == [other, one]


async def test_an_error_comes_over_from_another_loop() -> None:
    async with running() as hub:
        with pytest.raises(EntityOperationError, match="not this"):
            await hub.client.call_entity(COUNTERS[2], Counter.fail)


async def test_what_one_hub_with_loops_stored_another_without_goes_on_with() -> None:
    store = MemoryStore()
    async with running(store) as hub:
        for n, id in enumerate(COUNTERS):
            await hub.client.call_entity(id, Counter.add, n + 1)
        await hub.client.start_new(ticking, 1, instance_id="t", start_at=timedelta(seconds=0.1))

    async with Hub(app, store=store, partitions=SHARDS) as hub:
        assert [await value_of(hub, id) for id in COUNTERS] == [1, 2, 3]
        assert await hub.client.wait("t") == 1


async def test_the_statistics_tell_each_loop_and_each_partition() -> None:
    async with running() as hub:
        for id in COUNTERS:
            await hub.client.call_entity(id, Counter.add, 1)
        statistics = await hub.statistics(hottest=1)

    assert [one.index for one in statistics.shards] == [0, 1, 2]
    assert [one.partitions for one in statistics.shards] == [(0,), (1,), (2,)]
    assert len({one.pid for one in statistics.shards}) == 1
    assert all(one.busy_s > 0 for one in statistics.shards)
    assert [(one.index, one.shard) for one in statistics.partitions] == [(0, 0), (1, 1), (2, 2)]
    assert [one.messages for one in statistics.partitions] == [1, 1, 1]
    assert [one.hottest for one in statistics.partitions] == [((name, 1),) for name in NAMES]


# A loop that users' code blocks.


@pytest.mark.parametrize("blocked", [1, 2])
async def test_a_blocked_loop_stalls_no_timer_and_no_mailbox_of_the_others(blocked: int) -> None:
    async with running() as hub:
        with barrier("b") as wall:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.client.call_entity, COUNTERS[blocked], Counter.block, "b")
                await arrival(wall)

                for number, id in enumerate(COUNTERS):
                    if number == blocked:
                        continue
                    assert await hub.client.call_entity(id, Counter.add, 1) == 1
                    instance = id_in(number, "ticking", SHARDS)
                    handle = await hub.client.start_new(ticking, 5, instance_id=instance)
                    assert await handle.result() == 5
                assert not wall.left.is_set()
                wall.left.set()

        assert await value_of(hub, COUNTERS[blocked]) == 1


async def test_a_blocked_loop_is_named_and_the_others_are_counted_and_balanced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crews, "ANSWER_S", 0.2)
    async with running() as hub:
        await hub.statistics()
        with barrier("b") as wall:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.client.call_entity, COUNTERS[1], Counter.block, "b")
                await arrival(wall)

                with anyio.fail_after(10):
                    statistics = await hub.statistics()
                    for partition, to in ((0, 1), (1, 0)):
                        with pytest.raises(UnavailableError, match="shard 1 has not answered for"):
                            await hub.move_partition(partition, to)
                    await hub.move_partition(2, 0)
                    assert hub.placement == [0, 1, 0]
                    assert await hub.client.call_entity(COUNTERS[2], Counter.add, 1) == 1
                [silent] = statistics.silent
                assert silent.index == 1
                assert silent.silent_s >= 0.2
                assert [shard.index for shard in statistics.shards] == [0, 2]
                wall.left.set()

        monkeypatch.setattr(crews, "ANSWER_S", 30.0)  # it answers, when the machine lets it
        assert (await hub.statistics()).silent == ()
        assert await value_of(hub, COUNTERS[1]) == 1


async def test_messages_to_a_blocked_loop_arrive_once_it_goes_on() -> None:
    async with running() as hub:
        with barrier("b") as wall:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.client.call_entity, COUNTERS[1], Counter.block, "b")
                await arrival(wall)
                for _ in range(10):
                    await hub.client.signal_entity(COUNTERS[2], Counter.relay, [NAMES[1]])
                wall.left.set()

        async def all_there() -> bool:
            return bool(await value_of(hub, COUNTERS[1]) == 11)

        await until(all_there)


async def test_a_hub_stops_within_a_bound_while_a_loop_is_blocked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crews.DRAINED_S + 2 * STOP_S < 5
    monkeypatch.setattr(loops, "DRAINED_S", 0.2)
    monkeypatch.setattr(loops, "STOP_S", 0.1)
    store = MemoryStore()
    took = 0.0
    with barrier("b") as wall:
        outcome: list[Exception] = []

        async def call() -> None:
            try:
                await hub.client.call_entity(COUNTERS[1], Counter.block, "b")
            except Exception as error:
                outcome.append(error)

        async with anyio.create_task_group() as tasks:
            async with running(store, drain_s=0.1) as hub:
                tasks.start_soon(call)
                await arrival(wall)
                await hub.client.call_entity(COUNTERS[0], Counter.add, 7)
                began = anyio.current_time()
            took = anyio.current_time() - began

        assert took < 10  # the machine may be busy
        assert len(outcome) == 1
        assert "blocked" in caplog.text
        # What the blocked loop does when it goes on reaches the store no more.
        async with Hub(app, store=store, partitions=SHARDS) as hub:
            wall.left.set()
            for thread in shard_threads():
                thread.join(10)
            assert [await value_of(hub, id) for id in COUNTERS] == [7, 0, 0]


async def test_draining_waits_for_what_is_under_way_on_all_loops() -> None:
    store = MemoryStore()
    instances = [id_in(n, "ticking", SHARDS) for n in range(SHARDS)]
    async with running(store) as hub:
        for id in COUNTERS:
            await hub.client.signal_entities([(id, Counter.add, 1) for _ in range(100)])
        for instance in instances:
            await hub.client.start_new(ticking, 1_000, instance_id=instance)

    assert [len(rows.mail) for rows in store._rows] == [0] * SHARDS
    async with Hub(app, store=store, partitions=SHARDS) as hub:
        assert [await value_of(hub, id) for id in COUNTERS] == [100] * SHARDS
        for instance in instances:
            await hub.client.get_handle(instance).terminate()


async def test_the_cancellation_of_the_body_comes_out_and_everything_is_drained() -> None:
    store = MemoryStore()
    with anyio.CancelScope() as scope:
        async with running(store) as hub:
            for id in COUNTERS:
                await hub.client.signal_entities([(id, Counter.add, 1) for _ in range(100)])
            scope.cancel()
            await anyio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    async with Hub(app, store=store, partitions=SHARDS) as hub:
        assert [await value_of(hub, id) for id in COUNTERS] == [100] * SHARDS


async def test_an_exception_of_the_body_comes_out_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="mine"):
        async with running():
            raise RuntimeError("mine")


# Errors of a loop.


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_a_lease_lost_by_any_loop_stops_the_hub_with_the_reason(shard: int) -> None:
    store = MemoryStore()

    async def lose() -> None:
        async with running(store) as hub:
            await hub.client.call_entity(COUNTERS[shard], Counter.add, 1)
            store._rows[shard].epoch += 1  # another owner
            with pytest.raises(UnavailableError):
                await hub.client.call_entity(COUNTERS[shard], Counter.add, 1)
            await anyio.sleep_forever()

    with pytest.raises(LeaseLostError, match="refused"):
        await lose()


async def test_a_bug_in_a_loop_is_told_and_its_partition_recovers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[str] = []
    drain = CommitLoop.drain

    def break_down(loop: CommitLoop) -> None:
        partition = loop._partition
        thread = threading.current_thread().name
        if thread == "perdure-shard-1" and partition.batch.dirty and not failed:
            failed.append(thread)
            raise ZeroDivisionError("a bug, for the test")
        drain(loop)

    monkeypatch.setattr(CommitLoop, "drain", break_down)
    async with running(FaultyStore()) as hub:
        with pytest.raises(UnavailableError, match="commit loop of partition"):
            await hub.client.call_entity(COUNTERS[1], Counter.add, 1)

        async def serves() -> bool:
            try:
                return await hub.client.call_entity(COUNTERS[1], Counter.add, 1) == 1
            except UnavailableError:
                return False

        await until(serves)
        replaced = [shard.replaced for shard in (await hub.statistics()).shards]

    assert replaced == [0, 1, 0]
    assert "ZeroDivisionError: a bug, for the test" in caplog.text


async def test_a_commit_that_fails_in_a_loop_is_recovered_from_there() -> None:
    store = FaultyStore()
    async with running(store) as hub:
        await hub.client.call_entity(COUNTERS[1], Counter.add, 1)
        store.faults.commit = disk_error()
        with pytest.raises(UnavailableError):
            await hub.client.call_entity(COUNTERS[1], Counter.add, 1)
        store.faults.commit = None

        async def serves() -> bool:
            try:
                return bool(await value_of(hub, COUNTERS[1]) == 1)
            except UnavailableError:
                return False

        await until(serves)


@pytest.mark.parametrize("failures", [1, 2, 3])
async def test_a_store_that_a_loop_cannot_read_at_the_start_is_told_as_it_is(
    failures: int,
) -> None:
    inner = MemoryStore()
    store = GatedStore(inner)
    calls = 0

    async def fail_late(method: str, partition: int) -> None:
        nonlocal calls
        if method == "recover" and partition >= SHARDS - failures:
            raise StorageError("cannot be read, for the test")

    store.deliver = fail_late  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="cannot be read"):
        async with running(store):
            pytest.fail("it began")

    async with running(inner) as hub:
        assert await value_of(hub, COUNTERS[2]) == 0


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 0}, "shards must be an int from 1 to 1,024"),
        ({"shards": 5, "partitions": 4}, "5 shards cannot share 4 partitions"),
        ({"shards": 2, "workers": 2}, "not both"),
        ({"shards": 2, "clock": ManualClock()}, "clock"),
        ({"shards": 2, "socket": "/" + "x" * 120}, "sockets"),
    ],
    ids=["none", "too many", "both", "clock", "long path"],
)
def test_hubs_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Hub(app, **options)


async def test_a_socket_in_no_folder_is_refused_and_the_store_given_back(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(UsageError, match="listen"):
        async with running(store, socket=tmp_path / "none" / "hub.sock"):
            pytest.fail("it began")

    async with running(store):
        pass


# Clients over a socket.


async def test_a_client_over_the_socket_reaches_all_loops_and_sees_the_hub_stop(
    tmp_path: Path,
) -> None:
    path = tmp_path / "hub.sock"
    with anyio.fail_after(20):
        async with running(socket=path, drain_s=0.5) as hub, connect(path, app) as client:
            for n, id in enumerate(COUNTERS):
                assert await client.call_entity(id, Counter.add, n) == n
            for number in range(SHARDS):
                await hub.move_partition(number, (number + 1) % SHARDS)
            for n, id in enumerate(COUNTERS):
                assert await client.call_entity(id, Counter.add, 1) == n + 1
            handle = await client.start_new(ticking, 3)
            assert await handle.result() == 3
        assert not await anyio.Path(path).exists()

    with pytest.raises(HubStoppingError):
        await client.call_entity(COUNTERS[0], Counter.add, 1)
    with pytest.raises(UnavailableError, match="no hub listens"):
        async with connect(path, app):
            pytest.fail("it connected")
