"""continue_as_new: what goes on, and what does not."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    PayloadError,
    RuntimeStatus,
)
from tests.features.starts.application import app, countdown
from tests.runtime.orchestrating import (
    HOUR,
    SECOND,
    Flow,
    advance,
    event_types,
    evict,
    quiet,
    running,
    status_of,
    stored_timers,
)


@app.orchestration
def countdown_by_yield(ctx: OrchestrationContext, n: int) -> Generator[Any, Any, str]:
    yield ctx.task_all([])
    if n:
        ctx.continue_as_new(n - 1)
        return "not this"
    return f"{ctx.instance_id} done"


COUNTDOWNS = pytest.mark.parametrize("flow", [countdown, countdown_by_yield])


@COUNTDOWNS
async def test_continue_as_new_begins_a_new_execution_with_an_empty_history(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, 3, instance_id="x")

        result = await handle.result(5)

        status = await handle.status()
        assert result == "x done"
        assert (status.execution, status.input) == (4, 0)
        assert await event_types(handle) == ["ExecutionStarted", "ExecutionCompleted"]


@COUNTDOWNS
async def test_ten_thousand_immediate_executions_neither_overflow_nor_starve(flow: Flow) -> None:
    async with running(app) as hub:
        long = await hub.client.start_new(flow, 10_000, instance_id="a")
        # In the same partition, so that it has to share the pump and the checkpoints.
        other = await hub.client.start_new(countdown, 1, instance_id="a::other")

        assert await other.result(5) == "a::other done"
        while_other = await long.status()
        assert await long.result(25) == "a done"

        assert while_other.execution < 10_000
        assert (await long.status()).execution == 10_001


@app.orchestration
async def waits_anew(ctx: OrchestrationContext, rounds: list[Any]) -> list[Any]:
    if not rounds:
        await ctx.wait_for_external_event("go")
        ctx.continue_as_new(["kept"], keep_events=True)
        return []
    return [
        *[await ctx.wait_for_external_event("b") for _ in range(2)],
        *[await ctx.wait_for_external_event("a") for _ in range(2)],
    ]


@pytest.mark.parametrize("evicted", [False, True])
async def test_events_that_nobody_took_go_along_in_order(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits_anew, list[Any]())
        for name, data in [("a", 1), ("b", 2), ("b", 3), ("a", 4)]:
            await handle.raise_event(name, data)
        if evicted:
            await evict(hub)
        await handle.raise_event("go")

        assert await handle.result(5) == [2, 3, 1, 4]
        events = [
            [*e.fields.values()] for e in await handle.history() if e.event_type == "EventRaised"
        ]
        assert events == [["a", 1], ["b", 2], ["b", 3], ["a", 4]]


async def test_kept_events_come_before_those_that_arrive_later() -> None:
    local = App()

    @local.orchestration
    async def one_each(ctx: OrchestrationContext, seen: list[int]) -> list[int]:
        seen.append(await ctx.wait_for_external_event("n"))
        if len(seen) == 100:
            return seen
        ctx.continue_as_new(seen)
        return []

    async with running(local) as hub:
        handle = await hub.client.start_new(one_each, list[int]())
        for n in range(100):
            await handle.raise_event("n", n)

        assert await handle.result(5) == list(range(100))


async def test_keep_events_false_drops_them() -> None:
    local = App()

    @local.orchestration
    async def drops(ctx: OrchestrationContext, second: bool) -> Any:
        if not second:
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new(True, keep_events=False)
            return None
        return await ctx.wait_for_external_event("x", data_type=str)

    async with running(local) as hub:
        handle = await hub.client.start_new(drops, False)
        await handle.raise_event("x", "old")
        await handle.raise_event("go")
        await quiet(hub)

        await handle.raise_event("x", "new")

        assert await handle.result(5) == "new"


async def test_continue_as_new_is_not_honoured_if_the_function_raises() -> None:
    local = App()

    @local.orchestration
    async def raises(ctx: OrchestrationContext, n: int) -> None:
        ctx.continue_as_new(n + 1)
        assert ctx.will_continue_as_new
        raise ValueError("after all")

    async with running(local) as hub:
        handle = await hub.client.start_new(raises, 1)

        with pytest.raises(OrchestrationFailedError, match="after all"):
            await handle.result(5)
        assert (await handle.status()).execution == 1


async def test_continue_as_new_drops_timers_and_late_answers() -> None:
    local = App()
    store, clock = MemoryStore(), ManualClock()
    begun, late = anyio.Event(), anyio.Event()

    @local.activity
    async def endless() -> int:
        begun.set()
        await late.wait()
        return 1

    @local.orchestration
    async def anew(ctx: OrchestrationContext, second: bool) -> list[bool]:
        timer, task = ctx.create_timer(10 * SECOND), ctx.create_timer(HOUR)
        if not second:
            ctx.call_activity(endless)
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new(True)
            return []
        await timer
        return [timer.is_completed, task.is_completed]

    async with running(local, store, clock=clock) as hub:
        handle = await hub.client.start_new(anew, False)
        await begun.wait()
        clock.advance(5)
        await handle.raise_event("go")
        late.set()  # the answer comes to an execution that did not ask
        await quiet(hub)

        assert stored_timers(store) == 2
        await advance(hub, clock, 5)
        assert await status_of(handle) == RuntimeStatus.RUNNING
        await advance(hub, clock, 5)

        assert await handle.result(5) == [True, False]


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_stop_between_two_executions_loses_neither_instance_nor_events(
    kind: str, tmp_path: Path
) -> None:
    local = App()
    stop_at = 100

    @local.orchestration
    async def eternal(ctx: OrchestrationContext, n: int) -> int:
        # It never waits, so a stop always finds it between two executions.
        if n >= stop_at:
            return int(await ctx.wait_for_external_event("kept"))
        ctx.continue_as_new(n + 1 if ctx.instance_id == "counting" else n)
        return 0

    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(local, store, drain_s=0.05) as hub:
        handle = await hub.client.start_new(eternal, 0, instance_id="spinning")
        await handle.raise_event("kept", 7)
    stop_at = 0

    async with running(local, store) as hub:
        assert await hub.client.get_handle("spinning").result(5) == 7


async def test_a_bad_input_for_the_next_execution_is_refused_at_the_call() -> None:
    local = App()

    @local.orchestration
    async def wrong(ctx: OrchestrationContext, n: int) -> str:
        bad: Any = "text"
        try:
            ctx.continue_as_new(bad)
        except PayloadError:
            return f"refused, {ctx.will_continue_as_new}"
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(wrong, 1)

        assert await handle.result(5) == "refused, False"


async def test_custom_status_and_children_belong_to_one_execution() -> None:
    local = App()

    @local.orchestration
    async def parent(ctx: OrchestrationContext, n: int) -> list[str]:
        child = await ctx.call_sub_orchestrator(names_itself)
        if n:
            ctx.continue_as_new(n - 1)
            return []
        return [child, ctx.instance_id]

    @local.orchestration
    async def names_itself(ctx: OrchestrationContext) -> str:
        return ctx.instance_id

    async with running(local) as hub:
        handle = await hub.client.start_new(parent, 2, instance_id="p")

        child, own = await handle.result(5)

        assert own == "p"
        children = [s.instance_id async for s in hub.client.query(parent_instance_id="p")]
        assert len(set(children)) == 3
        assert child in children
