from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityId,
    HubStoppingError,
    MemoryStore,
    OrchestrationContext,
    RuntimeStatus,
    Settings,
    StorageError,
)
from perdure.testing import TestHub
from tests.faults import within
from tests.testing.shop import DAY, Order, Stock, app, approval, buy, charge, crawl, fetch, nap

BOOK = EntityId(Stock, "book")


async def items(hub: TestHub) -> int:
    state = await hub.client.read_entity_state(BOOK)
    assert state is not None
    return state.items


async def test_what_was_durable_goes_on_after_a_crash() -> None:
    async with within(), TestHub(app) as hub:
        handle = await hub.client.start_new(approval, 48.0)
        await hub.client.signal_entity(BOOK, Stock.take, 2)
        await hub.quiet()

        await hub.crash()
        await hub.advance(timedelta(hours=48))

        assert await handle.result(timeout=0) == "too late"
        assert await items(hub) == 8


async def test_a_crash_takes_what_is_in_memory_away() -> None:
    began: list[bool] = []
    app = App()

    @app.orchestration
    async def wait(ctx: OrchestrationContext) -> str:
        began.append(ctx.is_replaying)
        told: str = await ctx.wait_for_external_event("go")
        return told

    async with within(), TestHub(app) as hub:
        handle = await hub.client.start_new(wait)
        await hub.quiet()

        await hub.crash()
        await handle.raise_event("go", "on")

        assert await handle.result() == "on"
    assert began == [False, True]


async def test_a_handle_waits_across_crashes() -> None:
    results: list[str] = []
    async with within(), TestHub(app) as hub:
        client = hub.client
        handle = await client.start_new(approval, 48.0)

        async def wait() -> None:
            results.append(await handle.result())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            for _ in range(3):
                await anyio.wait_all_tasks_blocked()
                await hub.crash()
            await hub.client.raise_event(handle.instance_id, "approved", True)

        assert hub.client is client
    assert results == ["approved"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_hub_crashes_at_the_commit_that_is_named(when: Any) -> None:
    async with within(), TestHub(app) as hub:
        hub.faults.crash_commit(2, when=when)
        before = hub.faults.commits

        assert await hub.client.call_entity(BOOK, Stock.take) == 9
        assert hub.faults.commits == before + 1
        assert await hub.client.call_entity(BOOK, Stock.take) == 8
        # The second is made again where it was not durable; else the answer was, with it.
        assert hub.faults.commits == before + (3 if when == "before" else 2)


async def test_an_activity_that_a_crash_cuts_off_runs_again_under_its_key() -> None:
    async with within(), TestHub(app, activity_wait_s=0.01) as hub:
        keys: list[str] = []

        async def hang_once(url: str) -> str:
            keys.append(url)
            if len(keys) == 1:
                await anyio.sleep_forever()
            return "there"

        hub.fake(fetch, calls=hang_once)
        handle = await hub.client.start_new(crawl, "a")
        await hub.quiet()

        await hub.crash()

        assert await handle.result() == "there"
        [call] = hub.calls(fetch)
        assert call.attempts == 2
        assert call.idempotency_key.startswith(handle.instance_id)


async def test_what_is_left_of_a_life_reaches_the_store_no_more() -> None:
    """An activity of it that takes no notice of its end, and answers."""
    async with within(), TestHub(app, activity_wait_s=0.01) as hub:
        going_on = anyio.Event()
        runs: list[str] = []

        async def slow(url: str) -> str:
            runs.append(url)
            if len(runs) == 1:
                with anyio.CancelScope(shield=True):
                    await going_on.wait()
                return "of the first life"
            return "of the second life"

        hub.fake(fetch, calls=slow)
        handle = await hub.client.start_new(crawl, "a")
        await hub.quiet()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.crash)
            await anyio.sleep(0.01)
            going_on.set()

        assert await handle.result() == "of the second life"


@pytest.mark.by_turns
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_saga_comes_out_the_same_wherever_it_crashes(when: Any) -> None:
    order = Order("book", 12)

    async def run(crash_at: int | None) -> tuple[str, int, list[int], int]:
        async with within(), TestHub(app) as hub:
            if crash_at is not None:
                hub.faults.crash_commit(crash_at, when=when)
            handle = await hub.client.start_new(buy, order, instance_id="buy-1")
            await hub.advance(DAY)
            result = await handle.result(timeout=5)
            calls = [one.attempts for one in hub.calls(charge)]
            return result, await items(hub), calls, hub.faults.commits

    result, left, calls, commits = await run(None)
    assert (result, left, calls) == ("paid 12, packed book", 9, [1])
    for point in range(1, commits + 1):
        *got, (tried,), _ = await run(point)
        # A crash that loses the answer has the card charged once more, under the same key.
        assert got == [result, left]
        assert tried in ((1, 2) if when == "before" else (1,))


async def test_a_crash_that_nobody_waits_for_is_over_when_the_hub_stops() -> None:
    async with within(), TestHub(app) as hub:
        handle = await hub.client.start_new(nap, 60.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.crash)
            tasks.start_soon(hub.crash)
        await hub.advance(60)

        assert await handle.result(timeout=0) == 60.0


async def test_a_hub_may_be_left_right_at_a_crash() -> None:
    store = MemoryStore()
    async with within():
        hub = await TestHub(app, store=store).start()
        await hub.client.start_new(nap, 60.0, instance_id="nap-1")
        hub.faults.crash_commit(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.client.signal_entity, BOOK, Stock.take)
            await anyio.lowlevel.checkpoint()
            await hub.quiet()
        await hub.stop()

    async with within(), TestHub(app, store=store) as hub:
        assert await items(hub) == 9
        assert await hub.client.get_status("nap-1") is not None


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_hub_that_crashes_while_it_drains_comes_back_and_drains(when: Any) -> None:
    store = MemoryStore()
    async with within():
        hub = await TestHub(app, store=store, settings=Settings(drain_s=60)).start()
        going_on = anyio.Event()

        async def slow(url: str) -> str:
            await going_on.wait()
            return url

        hub.fake(fetch, calls=slow)
        await hub.client.start_new(crawl, "a", instance_id="crawl-1")
        await hub.client.signal_entity(BOOK, Stock.take)
        while not hub.calls(fetch):
            await anyio.lowlevel.checkpoint()
        hub.faults.crash_commit(1, when=when)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.stop)
            await anyio.wait_all_tasks_blocked()
            going_on.set()

    async with within(), TestHub(app, store=store) as hub:
        assert await hub.client.get_handle("crawl-1").result() in ("a", "a at attempt 1")
        assert await items(hub) == 9


class GoneStore(MemoryStore):
    """Cannot be opened a second time."""

    opened = 0

    async def open(self, partitions: int) -> Any:
        self.opened += 1
        if self.opened > 1:
            raise StorageError("it is gone")
        return await super().open(partitions)


async def test_a_hub_that_cannot_come_back_stops_with_the_reason() -> None:
    async with within():
        hub = await TestHub(app, store=GoneStore()).start()

        with pytest.raises(HubStoppingError):
            await hub.crash()
        with pytest.raises(StorageError, match="it is gone"):
            await hub.stop()


async def test_counters_and_statuses_are_of_the_life_at_hand() -> None:
    async with within(), TestHub(app) as hub:
        handle = await hub.client.start_new(nap, 60.0)
        await hub.crash()

        statistics = await hub.statistics()

        assert len(statistics.partitions) == 4
        assert (await handle.status()).runtime_status == RuntimeStatus.RUNNING


async def test_an_operation_that_waits_is_run_again_after_a_crash() -> None:
    app = App()
    began = [anyio.Event(), anyio.Event()]
    runs: list[str] = []

    @app.entity
    class Door:
        opened: int = 0

        async def open(self) -> int:
            began[len(runs)].set()
            runs.append("open")
            if len(runs) == 1:
                await anyio.sleep_forever()
            self.opened += 1
            return self.opened

    answers: list[int] = []
    async with within(), TestHub(app, activity_wait_s=0.01) as hub:

        async def call() -> None:
            answers.append(await hub.client.call_entity(EntityId(Door, "front"), Door.open))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await began[0].wait()
            await hub.crash()
    assert answers == [1]


async def test_a_crash_says_nothing_of_errors(caplog: pytest.LogCaptureFixture) -> None:
    async with within(), TestHub(app) as hub:
        hub.faults.crash_commit(2)
        handle = await hub.client.start_new(crawl, "a")
        await handle.result()
        await hub.client.start_new(crawl, "b", instance_id="crawl-1")
        await hub.crash()

    assert [record.getMessage() for record in caplog.records] == []
