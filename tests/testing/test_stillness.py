from __future__ import annotations

from datetime import timedelta
from time import perf_counter

import anyio
import pytest

from perdure import App, EntityId, HubStoppingError, OrchestrationContext, Settings
from perdure.testing import TestHub
from tests.faults import within
from tests.testing.shop import Stock, app, crawl, fetch, nap, tick

BOOK = EntityId(Stock, "book")


async def test_what_a_client_does_next_comes_before_what_is_due_next() -> None:
    """It hears of an end through some tasks, and then asks for something else."""
    order: list[str] = []
    async with within(), TestHub(app) as hub:
        first = await hub.client.start_new(nap, 60.0)
        last = await hub.client.start_new(nap, 120.0)

        async def follow() -> None:
            async with anyio.create_task_group() as inner:
                inner.start_soon(first.result)
            between = await hub.client.start_new(nap, 30.0)
            await between.result()
            order.append("between")

        async def wait() -> None:
            await last.result()
            order.append("last")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await hub.advance(120)

    assert order == ["between", "last"]


async def test_messages_between_partitions_are_waited_for() -> None:
    app = App()

    @app.entity
    class Leaf:
        value: int = 0

        def add(self) -> None:
            self.value += 1

    @app.orchestration
    async def tell(ctx: OrchestrationContext, count: int) -> None:
        for number in range(count):
            ctx.signal_entity(EntityId(Leaf, str(number)), Leaf.add)

    async with within(), TestHub(app) as hub:
        await hub.client.start_new(tell, 40)
        await hub.quiet()

        found = [one async for one in hub.client.query_entities()]
        assert len(found) == 40


async def test_an_activity_is_waited_for_as_long_as_it_is_said() -> None:
    async with within(), TestHub(app, activity_wait_s=0.2) as hub:

        async def hang(url: str) -> str:
            await anyio.sleep_forever()
            raise AssertionError

        hub.fake(fetch, calls=hang)
        await hub.client.start_new(crawl, "a")
        began = perf_counter()

        await hub.quiet()

        assert perf_counter() - began >= 0.2


async def test_an_activity_that_takes_too_long_is_waited_for_once() -> None:
    hub = TestHub(app, activity_wait_s=0.5, settings=Settings(drain_s=0.01))
    async with within(), hub:

        async def hang(url: str) -> str:
            await anyio.sleep_forever()
            raise AssertionError

        hub.fake(fetch, calls=hang)
        await hub.client.start_new(crawl, "a")
        ticking = await hub.client.start_new(tick, 20)
        began = perf_counter()

        await hub.advance(timedelta(days=10))

        took = perf_counter() - began
        assert len(await ticking.result(timeout=0)) == 20
        assert took < 20 * 0.5


async def test_who_waits_is_told_when_the_hub_is_left() -> None:
    told: list[str] = []

    async def wait_long(hub: TestHub) -> None:
        with pytest.raises(HubStoppingError):
            await hub.advance(1)
        told.append("stopping")

    hub = TestHub(app, activity_wait_s=60, settings=Settings(drain_s=0.01))
    async with within(), anyio.create_task_group() as tasks, hub:

        async def hang(url: str) -> str:
            await anyio.sleep_forever()
            raise AssertionError

        hub.fake(fetch, calls=hang)
        await hub.client.start_new(crawl, "a")
        tasks.start_soon(wait_long, hub)
        await anyio.wait_all_tasks_blocked()
    assert told == ["stopping"]


async def test_two_who_let_time_pass_let_it_pass_one_after_the_other() -> None:
    async with within(), TestHub(app) as hub:
        began = hub.now
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.advance, 60)
            tasks.start_soon(hub.advance, 60)

        assert (hub.now - began).total_seconds() == 120
