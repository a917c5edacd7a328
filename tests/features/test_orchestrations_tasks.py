"""Tasks: how they complete, and what ``task_all``, ``task_any`` and timers make of them."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    Cancelled,
    InvalidTimeError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    RuntimeStatus,
    Task,
    UsageError,
)
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

app = App()


@app.activity
async def double(x: int) -> int:
    return 2 * x


@app.activity
async def fail(text: str) -> int:
    raise ValueError(text)


# Completion.


@app.orchestration
async def returns_early(ctx: OrchestrationContext) -> str:
    ctx.create_timer(timedelta(days=400))
    ctx.create_timer(timedelta(seconds=5))
    ctx.wait_for_external_event("never", timeout=60)
    return "done"


@app.orchestration
def returns_early_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    ctx.create_timer(timedelta(days=400))
    yield ctx.create_timer(timedelta(0))
    ctx.wait_for_external_event("never", timeout=60)
    return "done"


@pytest.mark.parametrize("flow", [returns_early, returns_early_by_yield])
async def test_an_orchestration_is_completed_at_its_return_whatever_is_pending(flow: Flow) -> None:
    store = MemoryStore()
    async with running(app, store, clock=ManualClock()) as hub:
        handle = await hub.client.start_new(flow)

        result = await handle.result(5)

        status = await handle.status()
        await quiet(hub)
        assert (result, status.runtime_status) == ("done", RuntimeStatus.COMPLETED)
        assert status.completed_time is not None
        assert stored_timers(store) == 0


async def test_the_answer_of_an_activity_that_runs_at_completion_is_ignored() -> None:
    local = App()
    begun, gate = anyio.Event(), anyio.Event()

    @local.activity
    async def slow() -> str:
        begun.set()
        with anyio.CancelScope(shield=True):
            await gate.wait()
        return "late"

    @local.orchestration
    async def leave(ctx: OrchestrationContext) -> str:
        ctx.call_activity(slow)
        return str(await ctx.wait_for_external_event("leave"))

    async with running(local) as hub:
        handle = await hub.client.start_new(leave)
        await begun.wait()
        await handle.raise_event("leave", "left")

        result = await handle.result(5)
        before = await event_types(handle)
        gate.set()
        await quiet(hub)

        assert result == "left"
        assert await event_types(handle) == before
        assert before[-1] == "ExecutionCompleted"


@app.orchestration
def plain(ctx: OrchestrationContext, x: int) -> int:
    return x + 1


async def test_a_function_that_neither_awaits_nor_yields_is_an_orchestration_too() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new("plain", 1)

        result = await handle.result(5)

        assert result == 2


async def test_a_result_that_is_not_of_the_declared_type_fails_the_orchestration() -> None:
    local = App()

    @local.orchestration
    async def wrong(ctx: OrchestrationContext) -> int:
        value: Any = "text"
        return value  # type: ignore[no-any-return]

    async with running(local) as hub:
        handle = await hub.client.start_new(wrong)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        assert caught.value.error_type == "PayloadError"


# task_all.


@app.orchestration
async def doubles(ctx: OrchestrationContext, numbers: list[int]) -> list[int]:
    return await ctx.task_all([ctx.call_activity(double, n) for n in numbers])


@app.orchestration
def doubles_by_yield(
    ctx: OrchestrationContext, numbers: list[int]
) -> Generator[Any, Any, list[int]]:
    results: list[int] = yield ctx.task_all([ctx.call_activity(double, n) for n in numbers])
    return results


@pytest.mark.parametrize("flow", [doubles, doubles_by_yield])
@pytest.mark.parametrize("count", [0, 1, 50])
async def test_task_all_gives_results_in_the_order_of_its_tasks(flow: Flow, count: int) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, list(range(count)))

        result = await handle.result(5)

        assert result == [2 * n for n in range(count)]


@app.orchestration
async def in_reverse(ctx: OrchestrationContext) -> list[Any]:
    return await ctx.task_all([ctx.wait_for_external_event(name) for name in "abc"])


async def test_task_all_keeps_the_order_when_answers_come_in_another() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(in_reverse)

        for name in "cba":
            await handle.raise_event(name, name.upper())

        assert await handle.result(5) == ["A", "B", "C"]


@app.orchestration
async def duplicates(ctx: OrchestrationContext) -> list[int]:
    task, other = ctx.call_activity(double, 1), ctx.call_activity(double, 2)
    return await ctx.task_all([task, task, other, task])


async def test_task_all_accepts_a_task_more_than_once() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(duplicates)

        assert await handle.result(5) == [2, 2, 4, 2]


@app.orchestration
async def first_failure(ctx: OrchestrationContext) -> list[str]:
    waiting = ctx.wait_for_external_event("never")
    seen: list[str] = []
    try:
        await ctx.task_all([waiting, ctx.call_activity(fail, "bad")])
    except Exception as error:
        seen.append(f"{type(error).__name__}: {error}")
    return [*seen, str(waiting.is_completed)]


@app.orchestration
def first_failure_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[str]]:
    waiting = ctx.wait_for_external_event("never")
    seen: list[str] = []
    try:
        yield ctx.task_all([waiting, ctx.call_activity(fail, "bad")])
    except Exception as error:
        seen.append(f"{type(error).__name__}: {error}")
    return [*seen, str(waiting.is_completed)]


@pytest.mark.parametrize("flow", [first_failure, first_failure_by_yield])
async def test_task_all_fails_at_the_first_failure_while_others_are_pending(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)

        assert await handle.result(5) == ["ActivityError: fail failed: ValueError: bad", "False"]


@app.orchestration
async def all_failures(ctx: OrchestrationContext) -> list[str]:
    tasks = [
        ctx.call_activity(fail, "first"),
        ctx.call_activity(double, 1),
        ctx.call_activity(fail, "second"),
        ctx.wait_for_external_event("go"),
    ]
    try:
        await ctx.task_all(tasks, fail_fast=False)
    except ExceptionGroup as group:
        return [str(error) for error in group.exceptions] + [str(t.is_completed) for t in tasks]
    return []


async def test_task_all_without_fail_fast_waits_for_all_and_raises_a_group() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(all_failures)
        await quiet(hub)
        before = await status_of(handle)

        await handle.raise_event("go")

        assert before == RuntimeStatus.RUNNING
        assert await handle.result(5) == [
            "fail failed: ValueError: first",
            "fail failed: ValueError: second",
            *["True"] * 4,
        ]


async def test_task_all_without_fail_fast_gives_results_when_nothing_fails() -> None:
    local = App()

    @local.orchestration
    async def two(ctx: OrchestrationContext) -> list[Any]:
        return await ctx.task_all(
            [ctx.wait_for_external_event("a"), ctx.wait_for_external_event("b")], fail_fast=False
        )

    async with running(local) as hub:
        handle = await hub.client.start_new(two)
        await handle.raise_event("b", 2)
        await handle.raise_event("a", 1)

        assert await handle.result(5) == [1, 2]


async def test_what_is_no_task_of_the_orchestration_is_refused_where_it_is_passed() -> None:
    local = App()
    foreign: list[Task[Any]] = []

    @local.orchestration
    async def lends(ctx: OrchestrationContext) -> None:
        foreign.append(ctx.wait_for_external_event("x"))
        await foreign[0]

    @local.orchestration
    async def borrows(ctx: OrchestrationContext) -> list[str]:
        refused: list[str] = []
        for task in (foreign[0], 5):
            wrong: Any = task
            for wait in (ctx.task_all, ctx.task_any):
                try:
                    await wait([wrong])
                except UsageError:
                    refused.append(type(wrong).__name__)
        return refused

    async with running(local) as hub:
        await hub.client.start_new(lends)
        await quiet(hub)
        handle = await hub.client.start_new(borrows)

        assert await handle.result(5) == ["EventTask", "EventTask", "int", "int"]


# task_any.


@app.orchestration
async def race(ctx: OrchestrationContext) -> list[Any]:
    timer = ctx.create_timer(10 * SECOND)
    event = ctx.wait_for_external_event("go")
    winner = await ctx.task_any([event, timer])
    if winner is timer:
        return ["timer", timer.is_completed, event.is_completed]
    timer.cancel()
    return ["event", winner is event, event.result, timer.is_cancelled]


@app.orchestration
def race_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[Any]]:
    timer = ctx.create_timer(10 * SECOND)
    event = ctx.wait_for_external_event("go")
    winner = yield ctx.task_any([event, timer])
    if winner == timer:
        return ["timer", timer.is_completed, event.is_completed]
    timer.cancel()
    return ["event", winner is event, event.result, timer.is_cancelled]


@pytest.mark.parametrize("flow", [race, race_by_yield])
async def test_task_any_gives_the_winning_task_itself(flow: Flow) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        by_event = await hub.client.start_new(flow)
        by_timer = await hub.client.start_new(flow)

        await by_event.raise_event("go", 7)
        await advance(hub, clock, 10)

        assert await by_event.result(5) == ["event", True, 7, True]
        assert await by_timer.result(5) == ["timer", True, False]


@app.orchestration
async def watched_tie(ctx: OrchestrationContext) -> str:
    events = {name: ctx.wait_for_external_event(name) for name in "abc"}
    winner = await ctx.task_any(list(events.values()))
    return next(name for name, task in events.items() if task is winner)


async def test_the_winner_of_a_tie_is_the_first_in_history_order() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(watched_tie)
        await handle.suspend()
        for name in "cab":  # all of them are there when it goes on
            await handle.raise_event(name)

        await handle.resume()

        assert await handle.result(5) == "c"


async def test_losers_go_on_and_their_results_stay_available() -> None:
    local = App()

    @local.orchestration
    async def losers(ctx: OrchestrationContext) -> list[Any]:
        a, b = ctx.wait_for_external_event("a"), ctx.wait_for_external_event("b")
        first = await ctx.task_any([a, b])
        second = await ctx.task_any([a])
        return [first is b, second is a, a.result, await a, await b]

    async with running(local) as hub:
        handle = await hub.client.start_new(losers)

        await handle.raise_event("b", "B")
        await handle.raise_event("a", "A")

        assert await handle.result(5) == [True, True, "A", "A", "B"]


async def test_task_any_with_cancel_losers_cancels_them() -> None:
    local = App()
    store = MemoryStore()
    begun = anyio.Event()
    stopped: list[str] = []

    @local.activity
    async def endless() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append("endless")

    @local.orchestration
    async def child(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("never")

    @local.orchestration
    async def one_of_many(ctx: OrchestrationContext) -> list[bool]:
        event = ctx.wait_for_external_event("go")
        others: list[Task[Any]] = [
            ctx.create_timer(HOUR),
            ctx.call_activity(endless),
            ctx.call_sub_orchestrator(child, instance_id="child"),
            ctx.wait_for_external_event("other"),
        ]
        winner = await ctx.task_any([event, *others], cancel_losers=True)
        await ctx.wait_for_external_event("end")
        return [winner is event, *(task.is_cancelled for task in others)]

    async with running(local, store) as hub:
        handle = await hub.client.start_new(one_of_many)
        await begun.wait()

        await handle.raise_event("go")
        await quiet(hub)
        timers = stored_timers(store)
        await handle.raise_event("end")

        assert await handle.result(5) == [True] * 5
        assert timers == 0
        assert stopped == ["endless"]
        assert await status_of(hub.client.get_handle("child")) == RuntimeStatus.CANCELED


async def test_a_cancelled_task_raises_cancelled_where_it_is_awaited() -> None:
    local = App()

    @local.orchestration
    async def gives_up(ctx: OrchestrationContext) -> list[Any]:
        timer = ctx.create_timer(HOUR)
        first, second = timer.cancel(), timer.cancel()
        try:
            await timer
        except Cancelled:
            return [first, second, timer.is_cancelled, timer.is_completed, timer.is_faulted]
        return []

    async with running(local) as hub:
        handle = await hub.client.start_new(gives_up)

        assert await handle.result(5) == [True, False, True, True, False]


async def test_task_any_of_nothing_is_refused() -> None:
    local = App()

    @local.orchestration
    async def nothing(ctx: OrchestrationContext) -> None:
        await ctx.task_any([])

    async with running(local) as hub:
        handle = await hub.client.start_new(nothing)

        with pytest.raises(OrchestrationFailedError, match="task_any needs one"):
            await handle.result(5)


async def test_the_result_of_a_pending_task_is_refused() -> None:
    local = App()

    @local.orchestration
    async def hasty(ctx: OrchestrationContext) -> Any:
        return ctx.wait_for_external_event("x").result

    async with running(local) as hub:
        handle = await hub.client.start_new(hasty)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        assert caught.value.error_type == "UsageError"


async def test_combinations_can_be_nested() -> None:
    local = App()

    @local.orchestration
    async def nested(ctx: OrchestrationContext) -> list[Any]:
        a, b, c = (ctx.wait_for_external_event(name) for name in "abc")
        both = ctx.task_all([a, b])
        winner = await ctx.task_any([both, c])
        if winner is both:
            return both.result
        return ["c"]

    async with running(local) as hub:
        handle = await hub.client.start_new(nested)
        await handle.raise_event("a", 1)
        await handle.raise_event("b", 2)

        assert await handle.result(5) == [1, 2]


# Timers.


@app.orchestration
async def sleeps(ctx: OrchestrationContext, seconds: float) -> float:
    before = ctx.current_utc_datetime
    await ctx.create_timer(timedelta(seconds=seconds))
    return (ctx.current_utc_datetime - before).total_seconds()


@app.orchestration
def sleeps_by_yield(ctx: OrchestrationContext, seconds: float) -> Generator[Any, Any, float]:
    before = ctx.current_utc_datetime
    yield ctx.create_timer(before + timedelta(seconds=seconds))
    return (ctx.current_utc_datetime - before).total_seconds()


@pytest.mark.parametrize("flow", [sleeps, sleeps_by_yield])
@pytest.mark.parametrize("seconds", [0.0, 0.001, 1.5, 400 * 86_400.0, 5e9])
async def test_a_timer_fires_at_its_time_and_not_before(flow: Flow, seconds: float) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow, seconds)
        if seconds:
            await advance(hub, clock, seconds - 0.0005)
            assert await status_of(handle) == RuntimeStatus.RUNNING

        await advance(hub, clock, 0.0005)

        assert await handle.result(5) == pytest.approx(seconds, abs=0.001)


async def test_a_timer_of_the_past_fires_at_once() -> None:
    local = App()

    @local.orchestration
    async def late(ctx: OrchestrationContext) -> float:
        before = ctx.current_utc_datetime
        await ctx.create_timer(datetime(1999, 1, 1, tzinfo=UTC))
        return (ctx.current_utc_datetime - before).total_seconds()

    async with running(local, clock=ManualClock()) as hub:
        handle = await hub.client.start_new(late)

        assert await handle.result(5) == 0.0


async def test_timers_fire_in_the_order_of_their_times() -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def many(ctx: OrchestrationContext) -> list[int]:
        delays = [5, 1, 4, 2, 3]
        timers: list[Task[None]] = [ctx.create_timer(timedelta(seconds=d)) for d in delays]
        order: list[int] = []
        while timers:
            winner = await ctx.task_any(timers)
            at = timers.index(winner)
            order.append(delays.pop(at))
            del timers[at]
        return order

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(many)

        await advance(hub, clock, 10)

        assert await handle.result(5) == [1, 2, 3, 4, 5]


async def test_cancelling_a_timer_removes_it_from_the_store() -> None:
    local = App()
    store, clock = MemoryStore(), ManualClock()

    @local.orchestration
    async def cancels(ctx: OrchestrationContext) -> str:
        timer = ctx.create_timer(10 * SECOND)
        await ctx.wait_for_external_event("cancel")
        timer.cancel()
        await ctx.wait_for_external_event("end")
        return "end"

    async with running(local, store, clock=clock) as hub:
        handle = await hub.client.start_new(cancels)
        await quiet(hub)
        before = stored_timers(store)

        await handle.raise_event("cancel")
        await quiet(hub)

        assert (before, stored_timers(store)) == (1, 0)
        await advance(hub, clock, 60)
        assert "TimerFired" not in await event_types(handle)
        await handle.raise_event("end")
        assert await handle.result(5) == "end"


@pytest.mark.by_turns
@pytest.mark.parametrize("late", [False, True], ids=["due later", "due while stopped"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_timer_fires_across_a_restart(kind: str, late: bool, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(sleeps, 60.0, instance_id="sleeper")
        await quiet(hub)
    clock.advance(100 if late else 30)

    async with running(app, store, clock=clock) as hub:
        handle = hub.client.get_handle("sleeper")
        if not late:
            await quiet(hub)
            assert await status_of(handle) == RuntimeStatus.RUNNING
            await advance(hub, clock, 30)

        assert await handle.result(5) == (100.0 if late else 60.0)


async def test_a_cancelled_timer_stays_cancelled_across_a_restart() -> None:
    local = App()
    store, clock = MemoryStore(), ManualClock()

    @local.orchestration
    async def cancels(ctx: OrchestrationContext) -> bool:
        timer = ctx.create_timer(10 * SECOND)
        await ctx.wait_for_external_event("cancel")
        timer.cancel()
        await ctx.wait_for_external_event("end")
        return timer.is_cancelled

    async with running(local, store, clock=clock) as hub:
        handle = await hub.client.start_new(cancels, instance_id="x")
        await handle.raise_event("cancel")
        await quiet(hub)
    clock.advance(100)

    async with running(local, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("end")

        assert await handle.result(5) is True
        assert "TimerFired" not in await event_types(handle)


@pytest.mark.parametrize(
    "when",
    [datetime(2024, 1, 1), timedelta(seconds=-1)],  # noqa: DTZ001
    ids=["naive", "negative"],
)
async def test_a_naive_or_negative_time_is_refused_at_the_call(when: Any) -> None:
    local = App()

    @local.orchestration
    async def bad(ctx: OrchestrationContext) -> str:
        try:
            ctx.create_timer(when)
        except InvalidTimeError as error:
            return str(error)
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(bad)

        assert "when must be" in await handle.result(5)


async def test_a_far_timer_of_an_evicted_orchestration_wakes_it() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(sleeps, 3600.0)
        gone = await evict(hub)

        await advance(hub, clock, 3600)

        assert gone == 1
        assert await handle.result(5) == 3600.0
