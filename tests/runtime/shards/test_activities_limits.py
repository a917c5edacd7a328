from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest

from perdure import (
    ActivityContext,
    ActivityError,
    App,
    Hub,
    MailboxFullError,
    OrchestrationContext,
    OrchestrationFailedError,
    Settings,
    UnavailableError,
)
from perdure.testing.inside import partitions_of, shard_of
from tests.runtime.harness import FaultyStore, disk_error, until_true

app = App()


class Meter:
    """Counts how many run at a time, and lets them end."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.begun = 0
        self.keys: list[str] = []
        self.cancelled = 0
        self.gate = anyio.Event()
        self.thread_gate = threading.Event()
        self.lock = threading.Lock()

    def enter(self, key: str = "") -> None:
        with self.lock:
            self.running += 1
            self.begun += 1
            self.most = max(self.most, self.running)
            self.keys.append(key)

    def leave(self) -> None:
        with self.lock:
            self.running -= 1


meter = Meter()


@pytest.fixture(autouse=True)
async def fresh_meter() -> None:
    meter.__init__()  # type: ignore[misc]


@pytest.fixture(autouse=True)
def free_threads() -> Iterator[None]:
    yield
    meter.thread_gate.set()


@app.activity
async def work(ctx: ActivityContext, i: int) -> int:
    meter.enter(ctx.idempotency_key)
    try:
        await meter.gate.wait()
    except BaseException:
        meter.cancelled += 1
        raise
    finally:
        meter.leave()
    return i


@app.activity(max_concurrency=2)
async def narrow(i: int) -> int:
    meter.enter()
    await meter.gate.wait()
    meter.leave()
    return i


@app.activity(max_concurrency=2)
async def narrow_and_failing(i: int) -> int:
    meter.enter()
    await meter.gate.wait()
    meter.leave()
    raise ValueError(i)


@app.activity
def work_in_thread(i: int) -> int:
    meter.enter()
    assert meter.thread_gate.wait(30)
    meter.leave()
    return i


@app.activity(max_concurrency=1)
def narrow_in_thread(i: int) -> int:
    meter.enter()
    assert meter.thread_gate.wait(30)
    meter.leave()
    return i


@app.activity(timeout=0.01)
async def too_slow(i: int) -> int:
    meter.enter()
    try:
        await anyio.sleep_forever()
    finally:
        meter.leave()
    return i


@app.activity(timeout=0.01, max_concurrency=1)
async def narrow_and_slow(i: int) -> int:
    await anyio.sleep_forever()
    return i


@app.orchestration
async def fan(ctx: OrchestrationContext, plan: list[Any]) -> list[Any]:
    name, count = plan
    tasks = [ctx.call_activity(name, i) for i in range(count)]
    results: list[Any] = []
    for task in tasks:
        try:
            results.append(await task)
        except ActivityError as error:
            results.append(error.error_type)
    return results


@app.orchestration
async def race_a_timer(ctx: OrchestrationContext, plan: list[Any]) -> str:
    """Give activities up after a moment of orchestration time."""
    name, count = plan
    tasks = [ctx.call_activity(name, i) for i in range(count)]
    await ctx.wait_for_external_event("enough")
    for task in tasks:
        task.cancel()
    return "enough"


async def test_async_activities_run_no_more_at_a_time_than_the_hub_allows() -> None:
    async with Hub(app, settings=Settings(activities_max=5)) as hub:
        handle = await hub.client.start_new(fan, ["work", 50])
        await until_true(lambda: meter.running == 5)
        meter.gate.set()

        assert await handle.result(20) == list(range(50))

    assert (meter.most, meter.begun) == (5, 50)


async def test_the_hubs_limit_holds_for_all_partitions_together() -> None:
    async with Hub(app, settings=Settings(activities_max=5), partitions=4) as hub:
        handles = [await hub.client.start_new(fan, ["work", 5]) for _ in range(8)]
        await until_true(lambda: meter.running == 5)
        meter.gate.set()
        for handle in handles:
            assert await handle.result(20) == list(range(5))

    assert (meter.most, meter.begun) == (5, 40)


async def test_an_activitys_own_limit_holds_and_others_go_on() -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(fan, ["narrow", 10])
        await until_true(lambda: meter.running == 2)
        other = await hub.client.start_new(fan, ["work", 10])
        await until_true(lambda: meter.running == 12)
        meter.gate.set()

        assert await handle.result(20) == list(range(10))
        assert await other.result(20) == list(range(10))

    assert meter.most == 12


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("narrow", list(range(9))),
        ("narrow_and_failing", ["ValueError"] * 9),
        ("narrow_and_slow", ["TimeoutError"] * 9),
    ],
)
async def test_a_place_is_given_on_whatever_the_outcome(name: str, expected: list[Any]) -> None:
    meter.gate.set()

    async with Hub(app) as hub:
        for _ in range(2):
            handle = await hub.client.start_new(fan, [name, 9])
            assert await handle.result(20) == expected
        assert shard_of(hub).activities.count == 0

    assert meter.most <= 2


@pytest.mark.parametrize(("name", "most"), [("work_in_thread", 3), ("narrow_in_thread", 1)])
async def test_sync_activities_keep_to_their_threads_and_limits(name: str, most: int) -> None:
    async with Hub(app, settings=Settings(activity_threads_max=3)) as hub:
        handle = await hub.client.start_new(fan, [name, 12])
        await until_true(lambda: meter.running == most)
        meter.thread_gate.set()

        assert await handle.result(20) == list(range(12))

    assert (meter.most, meter.begun) == (most, 12)


async def test_sync_activities_do_not_hold_up_the_loop() -> None:
    async with Hub(app, settings=Settings(activity_threads_max=1)) as hub:
        blocked = await hub.client.start_new(fan, ["work_in_thread", 3])
        await until_true(lambda: meter.running == 1)
        meter.gate.set()
        free = await hub.client.start_new(fan, ["work", 3])

        assert await free.result(20) == [0, 1, 2]
        meter.thread_gate.set()
        assert await blocked.result(20) == [0, 1, 2]


async def test_an_activity_over_its_timeout_fails_is_cancelled_and_gives_its_place_on() -> None:
    async with Hub(app, settings=Settings(activities_max=2)) as hub:
        handle = await hub.client.start_new(fan, ["too_slow", 6])

        assert await handle.result(20) == ["TimeoutError"] * 6
        await until_true(lambda: meter.running == 0)

    assert meter.begun == 6


async def test_the_time_an_activity_waits_for_its_place_does_not_count() -> None:
    own = App()

    @own.activity(timeout=timedelta(seconds=5), max_concurrency=1)
    async def step(i: int) -> int:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        return i

    own.include(app)
    async with Hub(own) as hub:
        handle = await hub.client.start_new(fan, ["step", 30])

        assert await handle.result(20) == list(range(30))


@pytest.mark.parametrize("name", ["work", "narrow"])
async def test_giving_activities_up_frees_their_places_also_of_those_that_wait(name: str) -> None:
    async with Hub(app, settings=Settings(activities_max=3)) as hub:
        handle = await hub.client.start_new(race_a_timer, [name, 20])
        most = 3 if name == "work" else 2
        await until_true(lambda: meter.running == most)

        await handle.raise_event("enough")
        assert await handle.result(20) == "enough"
        await until_true(lambda: shard_of(hub).activities.count == 0)

        meter.gate.set()
        assert await (await hub.client.start_new(fan, [name, 20])).result(20) == list(range(20))
    assert meter.begun < 20 + 20


async def test_a_terminated_instances_activities_are_cancelled_and_make_room() -> None:
    async with Hub(app, settings=Settings(activities_max=3)) as hub:
        handle = await hub.client.start_new(fan, ["work", 10])
        await until_true(lambda: meter.running == 3)

        await handle.terminate()
        await until_true(lambda: meter.running == 0)

        assert meter.cancelled == 3
        meter.gate.set()
        other = await hub.client.start_new(fan, ["work", 10])
        assert await other.result(20) == list(range(10))


def has_begun(count: int) -> bool:
    return meter.begun == count and meter.running == 4


async def test_recoveries_leave_no_activity_counted_that_does_not_run() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1, settings=Settings(activities_max=4)) as hub:
        handle = await hub.client.start_new(fan, ["work", 4])
        await until_true(lambda: meter.running == 4)
        partition = partitions_of(hub)[0]
        for begun in (8, 12, 16):
            store.faults.commit = disk_error()
            with pytest.raises(UnavailableError):
                await hub.client.start_new(fan, ["work", 1])
            store.faults.commit = None
            await until_true(lambda: partition.gate.reason is None)
            await until_true(partial(has_begun, begun))
        meter.gate.set()

        assert await handle.result(20) == list(range(4))
        await until_true(lambda: shard_of(hub).activities.count == 0)

    assert len(set(meter.keys)) == 4
    assert meter.cancelled == 12


async def test_a_result_that_is_too_large_fails_the_activity_only() -> None:
    own = App()

    @own.activity
    async def big(i: int) -> str:
        return "x" * i

    @own.orchestration
    async def call_big(ctx: OrchestrationContext, size: int) -> int:
        return len(await ctx.call_activity(big, size))

    async with Hub(own, settings=Settings(max_payload=1_000)) as hub:
        assert await (await hub.client.start_new(call_big, 900)).result(10) == 900
        with pytest.raises(OrchestrationFailedError) as caught:
            await (await hub.client.start_new(call_big, 2_000)).result(10)

    assert caught.value.error_type == "ActivityError"
    assert "limit" in caught.value.message


async def test_activities_that_wait_count_for_the_limit_of_what_clients_start() -> None:
    settings = Settings(hub_messages_max=50, activities_max=1)

    async with Hub(app, settings=settings) as hub:
        handle = await hub.client.start_new(fan, ["work", 100])
        await until_true(lambda: meter.running == 1)

        with pytest.raises(MailboxFullError, match="activities included"):
            await hub.client.start_new(fan, ["work", 1])
        meter.gate.set()

        assert await handle.result(10) == [*range(100)]
        assert await (await hub.client.start_new(fan, ["work", 1])).result(10) == [0]


async def test_activities_that_wait_are_dropped_with_their_instance() -> None:
    settings = Settings(activities_max=1)

    async with Hub(app, settings=settings) as hub:
        first = await hub.client.start_new(fan, ["work", 100])
        second = await hub.client.start_new(fan, ["work", 3])
        await until_true(lambda: meter.running == 1)

        await first.terminate()
        await until_true(lambda: meter.cancelled == 1)
        meter.gate.set()

        assert await second.result(10) == [0, 1, 2]
        assert shard_of(hub).activities.count == 0
        assert shard_of(hub).activities.waiting == 0
    assert meter.begun == 4
