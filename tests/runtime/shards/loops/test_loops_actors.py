"""What actors do across event loops, and clients over a socket."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from perdure import (
    EntityOperationError,
    Hub,
    HubStoppingError,
    MemoryStore,
    UnavailableError,
    connect,
)
from tests.guarantees.workloads import id_in
from tests.runtime.harness import until
from tests.runtime.shards.loops.application import (
    COUNTERS,
    NAMES,
    SHARDS,
    Counter,
    app,
    hello,
    locking,
    parent,
    running,
    talking,
    ticking,
    value_of,
)


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
