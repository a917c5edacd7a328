from __future__ import annotations

import threading
import traceback
from typing import Any

import anyio
import pytest

from perdure import (
    ActivityContext,
    App,
    EntityId,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationHandle,
    RegistrationError,
    UnknownNameError,
    UsageError,
)
from perdure.testing import ActivityRecord, TestHub
from tests.faults import within
from tests.testing.shop import DAY, Order, Stock, app, buy, charge, crawl, fetch, pack, refund

BOOK = Order("book", 12)


async def test_a_fake_returns_what_it_is_told() -> None:
    async with within(), TestHub(app) as hub:
        hub.fake(charge, returns="for nothing")
        hub.fake("pack", returns="in a box")
        handle = await hub.client.start_new(buy, BOOK)
        await hub.advance(DAY)

        assert await handle.result(timeout=0) == "for nothing, in a box"


@pytest.mark.parametrize("raises", [RuntimeError, RuntimeError("no box")])
async def test_a_fake_raises_what_it_is_told(raises: Any) -> None:
    async with within(), TestHub(app) as hub:
        hub.fake(pack, raises=raises)
        handles = [await hub.client.start_new(buy, BOOK) for _ in range(2)]
        await hub.advance(DAY)

        assert [await handle.result(timeout=0) for handle in handles] == ["undone", "undone"]
        assert len(hub.calls(refund)) == 2
        state = await hub.client.read_entity_state(EntityId(Stock, "book"))
        assert state is not None
        assert state.items == 10


async def test_an_exception_that_is_raised_again_does_not_keep_the_way_that_it_came_before() -> (
    None
):
    error = OSError("no network")
    lengths: list[int] = []
    async with within(), TestHub(app) as hub:
        hub.fake(fetch, raises=error)
        await hub.client.start_new(crawl, "a")
        for _ in range(3):
            await hub.advance(300)
            lengths.append(len([*traceback.walk_tb(error.__traceback__)]))

        assert hub.calls(fetch)[0].attempts > 3
    assert len(set(lengths)) == 1


async def test_a_fake_is_called_as_the_activity_would_be() -> None:
    async with within(), TestHub(app) as hub:

        async def fake(url: str, context: ActivityContext) -> str:
            return f"{url} of {context.name}"

        hub.fake(fetch, calls=fake)
        handle = await hub.client.start_new(crawl, "a")
        assert await handle.result() == "a of fetch"

        def at_once(url: str) -> str:
            return f"{url}, at once"

        hub.fake(fetch, calls=at_once)
        handle = await hub.client.start_new(crawl, "b")
        assert await handle.result() == "b, at once"

        hub.fake(pack, calls=lambda order: f"{order.item} by {threading.current_thread().name}")
        handle = await hub.client.start_new(buy, BOOK)
        await hub.advance(DAY)
        assert "book by perdure-activity" in await handle.result()


async def test_the_activity_itself_runs_again_once_it_is_not_faked() -> None:
    async with within(), TestHub(app) as hub:
        hub.fake(fetch, returns="faked")
        hub.unfake(fetch)
        hub.unfake("charge")

        handle = await hub.client.start_new(crawl, "a")

        assert await handle.result() == "a at attempt 1"


async def test_what_a_fake_returns_is_encoded_as_a_result_is() -> None:
    async with within(), TestHub(app) as hub:
        hub.fake(charge, returns=12)  # a text is annotated

        handle = await hub.client.start_new(buy, BOOK)

        with pytest.raises(OrchestrationFailedError, match="the result of activity 'charge'"):
            await handle.result()


async def test_the_app_stays_as_it_is() -> None:
    async with within(), TestHub(app) as hub:
        hub.fake(fetch, returns="faked")
        async with TestHub(app) as other:
            handle = await other.client.start_new(crawl, "a")
            assert await handle.result() == "a at attempt 1"
            assert hub.calls(fetch) == []
            assert len(other.calls(fetch)) == 1


async def test_calls_come_once_for_each_key_in_order() -> None:
    async with within(), TestHub(app) as hub:
        failures = 2

        async def fail_twice(context: ActivityContext, url: str) -> str:
            if url == "b" and context.attempt <= failures:
                raise OSError("no network")
            return url

        hub.fake(fetch, calls=fail_twice)
        handles: list[OrchestrationHandle[str]] = []
        for url in ("a", "b", "c"):
            handles.append(await hub.client.start_new(crawl, url))
            await hub.quiet()
        await hub.advance(3600)

        calls = hub.calls(fetch)
        assert [(one.input, one.attempts) for one in calls] == [("a", 1), ("b", 3), ("c", 1)]
        assert [one.instance_id for one in calls] == [one.instance_id for one in handles]
        assert len({one.idempotency_key for one in calls}) == 3
        assert isinstance(calls[0], ActivityRecord)
        assert calls[0].to_dict()["name"] == "fetch"


async def test_inputs_are_recorded_as_the_activity_gets_them() -> None:
    async with within(), TestHub(app) as hub:
        await hub.client.start_new(buy, BOOK)
        await hub.quiet()

        assert [one.input for one in hub.calls(charge)] == [BOOK]
        assert hub.calls("refund") == []


async def test_sync_activities_run_on_the_loop_where_that_is_asked_for() -> None:
    app = App()
    here = threading.get_ident()
    threads: list[int] = []

    @app.activity
    def look() -> None:
        threads.append(threading.get_ident())

    @app.orchestration
    async def run(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(look)

    for inline in (True, False):
        async with within(), TestHub(app, inline_activities=inline) as hub:
            await (await hub.client.start_new(run)).result()

    assert [one == here for one in threads] == [True, False]


async def test_an_activity_that_had_not_begun_at_a_crash_does_not_begin() -> None:
    """One of the life that ended waits for a thread, which is another's meanwhile."""
    async with within(), TestHub(app, activity_wait_s=0.01) as hub:
        hub.faults.crash_commit(2, when="after")
        handle = await hub.client.start_new(crawl, "a")

        await handle.result()

        assert [one.attempts for one in hub.calls(fetch)] == [1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"returns": 1, "raises": OSError},
        {"returns": 1, "raises": OSError, "calls": print},
        {"raises": "OSError"},
        {"raises": BaseException},
        {"raises": UnicodeDecodeError},  # which is made with arguments
        {"calls": 5},
    ],
)
async def test_a_fake_is_one_of_three(options: dict[str, Any]) -> None:
    hub = TestHub(app)

    with pytest.raises(UsageError):
        hub.fake(charge, **options)


async def test_what_is_no_activity_is_not_faked() -> None:
    hub = TestHub(app)

    for no_activity in ("chrage", buy, anyio.sleep):
        with pytest.raises(UnknownNameError):
            hub.fake(no_activity, returns=None)
        with pytest.raises(UnknownNameError):
            hub.unfake(no_activity)
        with pytest.raises(UnknownNameError):
            hub.calls(no_activity)


async def test_a_fake_of_what_runs_in_a_thread_is_sync() -> None:
    hub = TestHub(app)

    async def fake(order: Order) -> str:
        return "no"

    with pytest.raises(UsageError, match="give a sync function"):
        hub.fake(pack, calls=fake)
    with pytest.raises(RegistrationError):
        hub.fake(pack, calls=max)
    async with TestHub(app, inline_activities=True) as inline:
        inline.fake(pack, calls=fake)  # nothing runs in a thread there
        handle = await inline.client.start_new(buy, BOOK)
        await inline.advance(DAY)
        assert await handle.result(timeout=0) == "paid 12, no"
