"""A loop that users' code blocks."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from perdure import Hub, MemoryStore, UnavailableError
from perdure.runtime.cluster import crews, loops
from perdure.runtime.shards.shard import STOP_S
from tests.guarantees.workloads import id_in
from tests.runtime.harness import until
from tests.runtime.shards.loops.application import (
    COUNTERS,
    NAMES,
    SHARDS,
    Counter,
    app,
    arrival,
    barrier,
    running,
    shard_threads,
    ticking,
    value_of,
)


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

    # A timer may fire at any moment, behind the last turn, too.
    left = [row.actor for rows in store.rows for row in rows.mail.values()]
    assert set(left) <= set(instances)
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
