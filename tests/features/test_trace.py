"""The steps of an instance: where its code stood after each event of its history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from perdure import (
    App,
    FailedError,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationHandle,
    RuntimeStatus,
    Trace,
    UsageError,
)
from perdure.runtime.facts import read_fact
from tests.features.explained import app, counts, let_go, retried, shop, shop_by_yield, stands
from tests.runtime.orchestrating import EVICTED, evict, quiet, running


@pytest.fixture(autouse=True)
def _held() -> Iterator[None]:
    let_go.set()
    yield
    let_go.set()


async def begun(hub: Hub, flow: Any, *input: Any) -> OrchestrationHandle[Any]:
    """Start an instance, and let it come to where it waits."""
    handle = await hub.client.start_new(flow, *input, instance_id="x")
    await quiet(hub)
    return handle


@EVICTED
async def test_each_event_that_came_in_has_the_line_behind_it_and_what_it_led_to(
    evicted: bool,
) -> None:
    async with running(app) as hub:
        await begun(hub, counts, 2)
        if evicted:
            await evict(hub)
        trace = await hub.client.trace("x")

        kinds = [step.event_type for step in trace.steps]
        assert kinds == ["ExecutionStarted", *2 * ["TaskScheduled", "TaskCompleted"]]
        assert [step.seq for step in trace.steps] == [0, 1, 2, 3, 4]
        assert [step.cause for step in trace.steps] == [0, 0, 2, 2, 4]
        assert [step.decided for step in trace.steps] == [(1,), (), (3,), (), ()]
        for step in trace.steps:
            if step.event_type == "TaskScheduled":
                assert stands(step.made_at[-1], "the count")
                assert step.branches == ()
            elif step.seq < 4:
                assert stands(step.branches[0].place, "the count")
                assert [(one.kind, one.name) for one in step.open] == [("activity", "echo")]
        last = trace.steps[-1]
        assert [(one.kind, one.name) for one in last.open] == [("event", "go")]
        assert last.branches[0].place is not None
        assert last.branches[0].place.text == 'await ctx.wait_for_external_event("go")'
        assert (trace.event_count, trace.next_after, trace.code_trouble) == (5, None, None)


async def test_the_functions_of_the_steps_come_with_their_source() -> None:
    async with running(app) as hub:
        await begun(hub, shop)
        trace = await hub.client.trace("x")

        texts = {one.function: one.text for one in trace.sources}
        assert texts["shop"] is not None
        assert texts["shop"].splitlines()[1] == "async def shop(ctx: OrchestrationContext) -> None:"
        assert texts["shop.<locals>.pay"] is not None
        assert "await charge()" in texts["shop.<locals>.pay"]
        lines = {one.function: one.first_line for one in trace.sources}
        for step in trace.steps:
            for branch in step.branches:
                for line in branch.lines:
                    whole = texts[line.function]
                    assert whole is not None
                    text = whole.splitlines()[line.line - lines[line.function]]
                    assert text.strip() == line.text


async def test_a_call_of_no_line_is_one_that_the_code_did_not_make() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        await begun(hub, retried)
        clock.advance(60)
        await quiet(hub)
        trace = await hub.client.trace("x")

        made = [[line.text for line in step.made_at] for step in trace.steps if not step.branches]
        text = "await ctx.call_activity(fails, retry=THRICE)  # the retries"
        assert made == [[text], [], [], []]  # the next attempts, and the waits for them


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_pages_hold_the_same_as_the_whole(limit: int) -> None:
    async with running(app) as hub:
        await begun(hub, counts, 3)
        whole = await hub.client.trace("x")
        steps: list[Any] = []
        after: int | None = 0
        while after is not None:
            page = await hub.client.trace("x", after=after, limit=limit)
            steps += page.steps
            after = page.next_after

        assert tuple(steps) == whole.steps
        behind = await hub.client.trace("x", after=100)
        assert (behind.steps, behind.next_after) == ((), None)
        for mistake in ({"after": -1}, {"limit": 0}, {"limit": 1_001}):
            with pytest.raises(UsageError):
                await hub.client.trace("x", **mistake)


@pytest.mark.parametrize("end", ["completed", "failed", "terminated", "cancelled"])
async def test_what_has_ended_is_traced_to_its_end(end: str) -> None:
    local = App()

    @local.orchestration
    async def ends(ctx: OrchestrationContext) -> str:
        answer = await ctx.wait_for_external_event("go")
        if answer == "fail":
            raise ValueError("it was to")
        return "done"

    async with running(local) as hub:
        handle = await begun(hub, ends)
        if end == "terminated":
            await handle.terminate()
        elif end == "cancelled":
            await handle.cancel()
        else:
            await handle.raise_event("go", end[:4])
        await quiet(hub)
        status = await handle.status()
        trace = await hub.client.trace("x")

        assert status.is_completed
        assert trace.code_trouble is None
        assert trace.steps[-1].event_type == "ExecutionCompleted"
        assert trace.steps[-1].branches == ()
        first = trace.steps[0].branches[0].place
        assert first is not None
        assert first.text == 'answer = await ctx.wait_for_external_event("go")'


async def test_code_that_is_another_is_traced_up_to_where_it_differs() -> None:
    store = MemoryStore()
    async with running(app, store) as hub:
        handle = await begun(hub, counts, 2)
        await handle.raise_event("go")
        await handle.result(10)
    other = App()

    @other.activity
    async def echo(n: int) -> int:
        return n

    @other.orchestration(name="counts")
    async def counts_otherwise(ctx: OrchestrationContext, n: int) -> None:
        await ctx.call_activity(echo, 0)
        await ctx.wait_for_external_event("go")

    async with running(other, store) as hub:
        trace = await hub.client.trace("x")

        stood = [bool(step.branches or step.made_at) for step in trace.steps]
        assert stood[:2] == [True, True]
        assert not any(stood[2:])
        assert trace.code_trouble is not None
        assert "TaskScheduled(2" in trace.code_trouble


async def test_a_generator_and_a_rewound_instance_are_traced() -> None:
    local = App()
    is_broken = [True]

    @local.activity
    async def breaks() -> int:
        if is_broken[0]:
            raise ValueError("broken")
        return 5

    @local.orchestration
    async def goes_on(ctx: OrchestrationContext) -> int:
        await ctx.call_activity(breaks)
        return await ctx.wait_for_external_event("go", data_type=int)

    local.include(app)
    async with running(local) as hub:
        handle = await begun(hub, goes_on)
        with pytest.raises(FailedError):
            await handle.result(10)
        is_broken[0] = False
        await handle.rewind("repaired")
        await quiet(hub)
        await hub.client.start_new(shop_by_yield, instance_id="y")
        await quiet(hub)
        rewound, yields = await hub.client.trace("x"), await hub.client.trace("y")

        assert (await handle.status()).runtime_status == RuntimeStatus.RUNNING
        assert rewound.code_trouble is None
        assert "ExecutionRewound" in [step.event_type for step in rewound.steps]
        assert [one.name for one in rewound.steps[-1].open] == ["go"]
        assert stands(yields.steps[0].branches[0].place, "inside of it") is False
        assert stands(yields.steps[-1].branches[0].lines[0], "the generator")
        assert stands(yields.steps[-1].branches[0].place, "inside of it")


async def test_a_trace_comes_back_from_its_json_values() -> None:
    async with running(app) as hub:
        await begun(hub, shop)
        trace = await hub.client.trace("x")

        assert read_fact(Trace, trace.to_dict()) == trace


@pytest.mark.by_turns
async def test_a_page_whose_steps_say_much_ends_early_and_none_is_lost() -> None:
    local = App()

    @local.orchestration
    async def spreads(ctx: OrchestrationContext) -> None:
        async def branch() -> None:
            await ctx.wait_for_external_event("go")

        async with ctx.create_task_group() as branches:
            for _ in range(200):
                branches.start_soon(branch)

    async with running(local) as hub:
        handle = await begun(hub, spreads)
        for _ in range(150):
            await handle.raise_event("go")
        pages: list[Trace] = []
        after: int | None = 0
        while after is not None:
            pages.append(await hub.client.trace("x", after=after))
            after = pages[-1].next_after

        last = pages[-1].steps[-1]
        assert [step.seq for page in pages for step in page.steps] == list(range(151))
        assert len(pages) > 1
        assert (last.branch_count, len(last.branches)) == (1 + 50, 20)
