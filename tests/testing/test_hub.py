from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from time import perf_counter, process_time
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from perdure import (
    App,
    EntityId,
    Hub,
    HubStoppingError,
    InvalidTimeError,
    MemoryStore,
    OrchestrationContext,
    RuntimeStatus,
    UsageError,
    commutative,
)
from perdure.testing import TestHub
from tests.faults import settle
from tests.testing.shop import Order, Stock, app, approval, buy, crawl, fetch, nap, pack, tick

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


async def status_of(hub: TestHub, instance_id: str) -> RuntimeStatus:
    status = await hub.client.get_status(instance_id)
    assert status is not None
    return status.runtime_status


async def test_an_approval_of_two_days_is_waited_for_in_no_time() -> None:
    took: list[float] = []
    for _ in range(3):
        began = perf_counter()
        async with TestHub(app, start=START) as hub:
            handle = await hub.client.start_new(approval, 48.0)

            await hub.advance(timedelta(hours=47, minutes=59))
            still = await status_of(hub, handle.instance_id)
            await hub.advance(timedelta(minutes=1))

            assert still == RuntimeStatus.RUNNING
            assert await handle.result(timeout=0) == "too late"
            assert hub.now == START + timedelta(hours=48)
        took.append(perf_counter() - began)
    assert min(took) < 2  # a few milliseconds, where nothing else runs


async def test_what_comes_in_time_is_not_too_late() -> None:
    async with TestHub(app) as hub:
        handle = await hub.client.start_new(approval, 48.0)
        await hub.advance(timedelta(hours=47))

        await handle.raise_event("approved", True)
        await hub.advance(timedelta(hours=2))

        assert await handle.result(timeout=0) == "approved"


async def test_timers_that_timers_set_fire_in_order_within_one_advance() -> None:
    async with TestHub(app, start=START) as hub:
        handle = await hub.client.start_new(tick, 4)

        await hub.advance(timedelta(hours=10))

        fired = [START + timedelta(hours=hours) for hours in (1, 3, 6, 10)]
        assert await handle.result(timeout=0) == [one.isoformat() for one in fired]


async def test_retries_come_when_their_delays_have_passed() -> None:
    at: list[datetime] = []
    async with TestHub(app, start=START) as hub:

        async def fail_thrice(url: str) -> str:
            at.append(hub.now)
            if len(at) < 4:
                raise OSError("no network")
            return "there"

        hub.fake(fetch, calls=fail_thrice)
        handle = await hub.client.start_new(crawl, "a")
        await hub.advance(HOUR)

        assert await handle.result(timeout=0) == "there"
    assert [(one - START).total_seconds() for one in at] == [0, 60, 180, 420]


async def test_quiet_returns_when_what_was_begun_is_done() -> None:
    async with TestHub(app) as hub:
        entity = EntityId(Stock, "book")
        handles = [await hub.client.start_new(crawl, str(number)) for number in range(20)]
        await hub.client.signal_entity(entity, Stock.take, 3)

        await hub.quiet()

        for handle in handles:
            assert await status_of(hub, handle.instance_id) == RuntimeStatus.COMPLETED
        state = await hub.client.read_entity_state(entity)
        assert state is not None
        assert state.items == 7


async def test_quiet_waits_for_an_activity_and_for_what_follows() -> None:
    going_on = anyio.Event()
    async with TestHub(app, activity_wait_s=30) as hub:

        async def slow(url: str) -> str:
            await going_on.wait()
            return url

        hub.fake(fetch, calls=slow)
        handle = await hub.client.start_new(crawl, "a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.quiet)
            await anyio.wait_all_tasks_blocked()
            assert await status_of(hub, handle.instance_id) == RuntimeStatus.RUNNING
            going_on.set()

        assert await status_of(hub, handle.instance_id) == RuntimeStatus.COMPLETED


async def test_time_goes_on_beside_an_activity_that_takes_too_long() -> None:
    app = App()

    @app.activity(timeout=3600)
    async def hang() -> None:
        await anyio.sleep_forever()

    @app.orchestration
    async def wait(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(hang)
        except Exception as error:
            return str(error)
        return "no"

    async with TestHub(app, activity_wait_s=0.02) as hub:
        handle = await hub.client.start_new(wait)
        await hub.advance(3_599)
        assert await status_of(hub, handle.instance_id) == RuntimeStatus.RUNNING

        await hub.advance(1)

        assert "no answer within 3600 seconds" in await handle.result(timeout=0)


async def test_a_workflow_of_a_month_ends_at_once_where_time_advances_by_itself() -> None:
    async with TestHub(app, auto_advance=True, start=START) as hub:
        handle = await hub.client.start_new(tick, 37)

        fired = await handle.result(timeout=10)

        assert fired[-1] == (START + timedelta(hours=703)).isoformat()
        assert hub.now == START + timedelta(hours=703)


async def test_time_does_not_advance_by_itself_while_the_test_goes_on() -> None:
    async with TestHub(app, auto_advance=True) as hub:
        handle = await hub.client.start_new(approval, 48.0)
        await handle.raise_event("approved", True)

        assert await handle.result(timeout=10) == "approved"


async def test_time_does_not_advance_by_itself_while_an_activity_runs() -> None:
    async with TestHub(app, auto_advance=True, activity_wait_s=30, start=START) as hub:

        async def slow(url: str) -> str:
            await anyio.sleep(0.05)
            return hub.now.isoformat()

        hub.fake(fetch, calls=slow)
        asleep = await hub.client.start_new(nap, 1.0)
        handle = await hub.client.start_new(crawl, "a")

        assert await handle.result(timeout=10) == START.isoformat()
        assert await asleep.result(timeout=10) == 1.0


async def test_time_does_not_advance_by_itself_while_a_thread_works() -> None:
    async with TestHub(app, auto_advance=True, activity_wait_s=30, start=START) as hub:
        seen: list[datetime] = []

        def slow(order: Order) -> str:
            time.sleep(0.05)
            seen.append(hub.now)
            return "packed"

        hub.fake(pack, calls=slow)
        await hub.client.start_new(nap, 1.0)
        handle = await hub.client.start_new(buy, Order("book", 1))

        assert await handle.result(timeout=10) == "paid 1, packed"
        assert seen == [START]


async def test_the_patience_of_a_client_is_real_time() -> None:
    async with TestHub(app, start=START) as hub:
        handle = await hub.client.start_new(nap, 60.0)

        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.02)

        assert hub.now == START


async def test_what_polls_sees_time_advance_by_itself() -> None:
    async with TestHub(app, auto_advance=True) as hub:
        handle = await hub.client.start_new(nap, 30 * 24 * 3600.0)

        with anyio.fail_after(10):
            while await status_of(hub, handle.instance_id) != RuntimeStatus.COMPLETED:
                await anyio.lowlevel.checkpoint()


@pytest.mark.by_turns
async def test_retention_passes_in_virtual_time() -> None:
    async with TestHub(app, retention={"Completed": timedelta(days=30)}) as hub:
        handle = await hub.client.start_new(nap, 60.0)
        await hub.advance(timedelta(days=29))
        assert await status_of(hub, handle.instance_id) == RuntimeStatus.COMPLETED

        await hub.advance(timedelta(days=2))

        assert await hub.client.get_status(handle.instance_id) is None


async def test_time_does_not_advance_by_itself_for_retention_alone() -> None:
    retention = {"Completed": timedelta(days=30)}
    async with TestHub(app, auto_advance=True, retention=retention, start=START) as hub:
        handle = await hub.client.start_new(nap, 60.0)
        await handle.result(timeout=10)

        await settle(500)

        assert hub.now == START + timedelta(seconds=60)


async def test_an_actor_is_evicted_once_what_it_decided_is_durable() -> None:
    replayed: list[bool] = []
    app = App()

    @app.orchestration
    async def look(ctx: OrchestrationContext) -> str:
        replayed.append(ctx.is_replaying)
        name: str = await ctx.wait_for_external_event("name")
        return name

    async with TestHub(app) as hub:
        handle = await hub.client.start_new(look)

        assert await hub.evict(handle.instance_id)
        assert not await hub.evict(handle.instance_id)
        await handle.raise_event("name", "here")

        assert await handle.result(timeout=5) == "here"
    assert replayed == [False, True]


async def test_an_entity_is_evicted_with_its_state_stored() -> None:
    async with TestHub(app) as hub:
        entity = EntityId(Stock, "book")
        await hub.client.signal_entity(entity, Stock.take, 4)

        assert await hub.evict(entity)
        assert not await hub.evict(EntityId(Stock, "pen"))

        assert await hub.client.call_entity(entity, Stock.take, 1) == 5


async def test_a_striped_entity_is_evicted_with_its_stripes() -> None:
    app = App()

    @app.entity(stripes=4)
    class Visits:
        total: int = 0

        @commutative
        def add(self, amount: int) -> None:
            self.total += amount

        def merge(self, other: Visits) -> None:
            self.total += other.total

    page = EntityId(Visits, "page")
    async with TestHub(app) as hub:
        for amount in range(8):
            await hub.client.signal_entity(page, Visits.add, amount)

        assert await hub.evict(page)
        assert not await hub.evict(page)

        state = await hub.client.read_entity_state(page)
        assert state is not None
        assert state.total == 28
        assert await hub.evict(page)
        assert not await hub.evict(page)


async def test_what_cannot_leave_memory_is_said_instead_of_waited_for() -> None:
    app = App()

    @app.entity
    class Door:
        opened: int = 0

        def open(self) -> int:
            self.opened += 1
            return self.opened

        async def leave(self) -> str:
            with pytest.raises(UsageError, match="an operation of it is under way"):
                await hub.evict(front)
            return "still here"

    @app.orchestration
    async def go_in(ctx: OrchestrationContext) -> int:
        async with ctx.lock_entities(front):
            await ctx.create_timer(HOUR)
            return await ctx.call_entity(front, Door.open)

    front = EntityId(Door, "front")
    with anyio.fail_after(30):
        async with TestHub(app, activity_wait_s=0.05) as hub:
            handles = [await hub.client.start_new(go_in) for _ in range(3)]
            await hub.quiet()

            with pytest.raises(UsageError, match=r"messages wait in it behind a lock \(2\)"):
                await hub.evict(front)
            await hub.advance(3 * HOUR)

            assert await hub.evict(front)
            assert [await handle.result() for handle in handles] == [1, 2, 3]
            assert await hub.client.call_entity(front, Door.leave) == "still here"


async def test_an_actor_is_evicted_when_time_that_advances_by_itself_has_freed_it() -> None:
    app = App()

    @app.entity
    class Door:
        def open(self) -> None: ...

    @app.orchestration
    async def go_in(ctx: OrchestrationContext) -> None:
        async with ctx.lock_entities(EntityId(Door, "front")):
            await ctx.create_timer(HOUR)

    with anyio.fail_after(30):
        async with TestHub(app, auto_advance=True) as hub:
            handles = [await hub.client.start_new(go_in) for _ in range(3)]

            await hub.evict(EntityId(Door, "front"))

            for handle in handles:
                await handle.result()


async def test_a_store_goes_on_in_the_next_hub() -> None:
    store = MemoryStore()
    async with TestHub(app, store=store, start=START) as hub:
        handle = await hub.client.start_new(nap, 3600.0, instance_id="nap-1")

    async with TestHub(app, store=store, start=START) as hub:
        await hub.advance(HOUR)

        assert await hub.client.get_handle("nap-1").result(timeout=5) == 3600.0
    assert handle.instance_id == "nap-1"


async def test_what_the_next_hub_is_asked_is_done_and_not_taken_for_what_the_last_one_was() -> None:
    store = MemoryStore()
    entity = EntityId(Stock, "book")
    for taken in (1, 2, 3):
        async with TestHub(app, store=store) as hub:
            assert await hub.client.call_entity(entity, Stock.take, 1) == 10 - taken
            handle = await hub.client.start_new(nap, 1.0)
            await hub.advance(1)
            assert await handle.result(timeout=5) == 1.0


async def test_time_ends_with_the_year_9999() -> None:
    start = datetime(9999, 12, 31, 23, tzinfo=UTC)
    async with TestHub(app, start=start) as hub:
        with pytest.raises(InvalidTimeError, match="is behind the year 9999"):
            await hub.advance(HOUR)
        assert hub.now == start


def test_another_store_than_memory_is_refused() -> None:
    name: Any = "memory"
    with pytest.raises(UsageError, match="store must be a MemoryStore, not 'memory'"):
        TestHub(app, store=name)


async def test_made_up_ids_are_the_same_in_each_run() -> None:
    ids: list[list[str]] = []
    for _ in range(2):
        async with TestHub(app) as hub:
            handle = await hub.client.start_new(nap, 1.0)
            made = await hub.client.call_entity(EntityId(Stock, "book"), Stock.order, "book")
            ids.append([handle.instance_id, made])

    assert ids[0] == ids[1]


async def advance(hub: TestHub) -> None:
    await hub.advance(1)


@pytest.mark.parametrize("ask", [TestHub.quiet, TestHub.crash, advance])
async def test_time_passes_in_a_running_hub_alone(
    ask: Callable[[TestHub], Awaitable[None]],
) -> None:
    hub = TestHub(app)

    with pytest.raises(HubStoppingError, match="the hub is new: time passes in it"):
        await ask(hub)
    async with hub:
        await ask(hub)
    with pytest.raises(HubStoppingError, match="the hub is stopped"):
        await ask(hub)


@pytest.mark.parametrize("by", [-1, "an hour", None, float("nan")])
async def test_a_bad_duration_is_refused(by: Any) -> None:
    async with TestHub(app, start=START) as hub:
        with pytest.raises(InvalidTimeError, match="by"):
            await hub.advance(by)
        assert hub.now == START


async def test_it_is_a_hub_and_no_class_of_tests() -> None:
    assert issubclass(TestHub, Hub)
    assert TestHub.__test__ is False


async def test_its_methods_may_be_called_from_another_loop() -> None:
    """As of a web application that runs in a thread of its own."""
    done: list[str] = []
    async with TestHub(app) as hub:
        handle = await hub.client.start_new(approval, 48.0)

        def elsewhere() -> None:
            async def act() -> None:
                await hub.advance(timedelta(hours=48))
                await hub.quiet()
                done.append(await hub.client.get_handle(handle.instance_id).result(timeout=5))

            anyio.run(act)

        with anyio.fail_after(30):
            await anyio.to_thread.run_sync(elsewhere)
    assert done == ["too late"]


async def test_its_methods_may_be_called_from_a_thread_without_a_loop() -> None:
    async with TestHub(app) as hub:
        handle = await hub.client.start_new(approval, 48.0)

        def elsewhere() -> tuple[bool, Any]:
            hub.sync.advance(timedelta(hours=47))
            hub.sync.crash()
            hub.sync.quiet()
            was_there = hub.sync.evict(handle.instance_id)
            hub.sync.advance(timedelta(hours=1))
            return was_there, hub.sync.run(handle.result)

        with anyio.fail_after(30):
            was_there, result = await anyio.to_thread.run_sync(elsewhere)

    # After a crash an instance that waits for a timer is loaded when that fires.
    assert (was_there, result) == (False, "too late")
    with pytest.raises(HubStoppingError, match="the hub is stopped"):
        hub.sync.quiet()


async def test_the_methods_for_threads_are_refused_where_the_loop_would_stand_still() -> None:
    async with TestHub(app) as hub:
        with pytest.raises(UsageError, match="await the method of the hub itself"):
            hub.sync.advance(1)


async def test_an_error_of_a_method_comes_out_of_the_other_thread() -> None:
    async with TestHub(app) as hub:

        def elsewhere() -> None:
            with pytest.raises(InvalidTimeError):
                hub.sync.advance(-1)

        await anyio.to_thread.run_sync(elsewhere)


@pytest.mark.by_turns
async def test_ten_thousand_timers_over_a_year_take_no_time() -> None:
    app = App()

    @app.orchestration
    async def year(ctx: OrchestrationContext, times: int) -> int:
        for _ in range(times):
            await ctx.create_timer(timedelta(days=365) / times)
        return times

    async with TestHub(app) as hub:
        handles = [await hub.client.start_new(year, 1_000) for _ in range(10)]
        began = process_time()

        await hub.advance(timedelta(days=365))

        took = process_time() - began
        assert [await handle.result(timeout=0) for handle in handles] == [1_000] * 10
    assert took < 6  # 1.2 seconds where nothing else runs


async def test_it_starts_and_stops_in_no_time() -> None:
    took: list[float] = []
    for _ in range(10):
        began = process_time()
        async with TestHub(app):
            pass
        took.append(process_time() - began)

    assert min(took) < 0.01  # 2 milliseconds where nothing else runs


async def test_many_timers_of_one_time_fire_at_it() -> None:
    async with TestHub(app, start=START) as hub:
        handles = [await hub.client.start_new(nap, 60.0) for _ in range(50)]

        await hub.advance(60)

        for handle in handles:
            status = await handle.status()
            assert status.completed_time == START + timedelta(seconds=60)


def test_a_hub_in_a_thread_of_its_own_is_turned_from_the_test() -> None:
    started, stop = threading.Event(), threading.Event()
    hub = TestHub(app)
    ids: list[str] = []

    async def serve() -> None:
        async with hub:
            ids.append((await hub.client.start_new(nap, 3600.0)).instance_id)
            started.set()
            while not stop.is_set():
                await anyio.sleep(0.01)

    thread = threading.Thread(target=lambda: anyio.run(serve))
    thread.start()
    try:
        assert started.wait(10)
        hub.sync.advance(HOUR)
        status = hub.sync.run(hub.client.get_status, ids[0])
        assert status is not None
        assert status.runtime_status == RuntimeStatus.COMPLETED
    finally:
        stop.set()
        thread.join(10)
