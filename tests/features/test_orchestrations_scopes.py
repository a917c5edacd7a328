"""Structured concurrency inside an orchestration: task groups and cancel scopes, and replay."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    App,
    Cancelled,
    ManualClock,
    MemoryStore,
    OrchestrationCanceledError,
    OrchestrationContext,
    OrchestrationFailedError,
    RuntimeStatus,
    UsageError,
)
from tests.runtime.orchestrating import (
    EVICTED,
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

log: list[str] = []


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


app = App()


@app.activity
async def note(text: str) -> str:
    log.append(text)
    return text


@app.activity
async def fail(text: str) -> None:
    raise ValueError(text)


# Task groups.


@app.orchestration
async def branches(ctx: OrchestrationContext, names: list[str]) -> list[str]:
    order: list[str] = []

    async def branch(name: str) -> None:
        order.append(f"+{name}")
        await ctx.wait_for_external_event(name)
        order.append(f"-{name}")
        await ctx.call_activity(note, name)
        order.append(f"={name}")

    async with ctx.create_task_group() as tg:
        for name in names:
            tg.start_soon(branch, name)
        order.append("body")
    order.append("end")
    return order


@EVICTED
async def test_a_group_ends_after_its_branches_and_they_run_side_by_side(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(branches, ["a", "b", "c"])
        for name in "cab":
            if evicted:
                assert await evict(hub) == 1
            await handle.raise_event(name)
            await quiet(hub)

        result = await handle.result(5)

        assert result == (["body", "+a", "+b", "+c", "-c", "=c", "-a", "=a", "-b", "=b", "end"])


async def test_an_empty_group_is_no_obstacle() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(branches, list[str]())

        assert await handle.result(5) == ["body", "end"]


@app.orchestration
async def failing_group(ctx: OrchestrationContext) -> list[str]:
    seen: list[str] = []

    async def fails() -> None:
        await ctx.wait_for_external_event("fail")
        await ctx.call_activity(fail, "bad")

    async def compensates(name: str) -> None:
        try:
            await ctx.wait_for_external_event("never", timeout=3600)
        except Cancelled:
            seen.append(f"{name} cancelled")
            raise
        finally:
            seen.append(await ctx.call_activity(note, f"{name} compensated"))

    try:
        async with ctx.create_task_group() as tg:
            tg.start_soon(compensates, "a")
            tg.start_soon(fails)
            tg.start_soon(compensates, "b")
            try:
                await ctx.wait_for_external_event("never")
            except Cancelled:
                seen.append("body cancelled")
                raise
    except ExceptionGroup as group:
        seen += [str(error) for error in group.exceptions]
    return seen


@EVICTED
async def test_a_branch_that_raises_cancels_its_siblings_and_the_body(evicted: bool) -> None:
    store = MemoryStore()
    async with running(app, store) as hub:
        handle = await hub.client.start_new(failing_group)
        if evicted:
            await evict(hub)

        await handle.raise_event("fail")

        assert await handle.result(5) == [
            "body cancelled",
            "a cancelled",
            "b cancelled",
            "a compensated",
            "b compensated",
            "fail failed: ValueError: bad",
        ]
        assert log == ["a compensated", "b compensated"]
        await quiet(hub)
        assert stored_timers(store) == 0


async def test_an_uncaught_group_fails_the_orchestration_with_all_errors() -> None:
    local = App()

    @local.orchestration
    async def both(ctx: OrchestrationContext) -> None:
        async def one(text: str) -> None:
            raise ValueError(text)

        async with ctx.create_task_group() as tg:
            tg.start_soon(one, "first")
            tg.start_soon(one, "second")

    async with running(local) as hub:
        handle = await hub.client.start_new(both)

        with pytest.raises(OrchestrationFailedError, match="2 sub-exceptions") as caught:
            await handle.result(5)
        assert caught.value.error_type == "ExceptionGroup"


async def test_an_error_of_the_body_cancels_the_branches() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def body(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []

        async def branch() -> None:
            try:
                await ctx.wait_for_external_event("never")
            finally:
                seen.append(await ctx.call_activity(note, "cleaned"))

        try:
            async with ctx.create_task_group() as tg:
                tg.start_soon(branch)
                await ctx.create_timer(SECOND * 0)
                raise KeyError("body")
        except ExceptionGroup as group:
            seen += [repr(error) for error in group.exceptions]
        return seen

    async with running(local) as hub:
        handle = await hub.client.start_new(body)

        assert await handle.result(5) == ["cleaned", "KeyError('body')"]


async def test_groups_nest() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def nested(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []

        async def leaf(name: str) -> None:
            try:
                await ctx.wait_for_external_event(name)
                raise ValueError(name)
            except Cancelled:
                seen.append(f"{name} cancelled")
                raise

        async def inner(names: str) -> None:
            try:
                async with ctx.create_task_group() as tg:
                    for name in names:
                        tg.start_soon(leaf, name)
            except ExceptionGroup as group:
                seen.append(f"caught {group.exceptions[0]}")

        async with ctx.create_task_group() as tg:
            tg.start_soon(inner, "ab")
            tg.start_soon(inner, "cd")
        return seen

    async with running(local) as hub:
        handle = await hub.client.start_new(nested)
        await handle.raise_event("b")
        await evict(hub)
        await handle.raise_event("c")

        assert await handle.result(5) == [
            "a cancelled",
            "caught b",
            "d cancelled",
            "caught c",
        ]


async def test_a_branch_may_start_branches_in_its_group() -> None:
    local = App()

    @local.orchestration
    async def grows(ctx: OrchestrationContext) -> list[int]:
        seen: list[int] = []

        async with ctx.create_task_group() as tg:

            async def branch(n: int) -> None:
                seen.append(n)
                if n:
                    tg.start_soon(branch, n - 1)
                await ctx.create_timer(SECOND * 0)

            tg.start_soon(branch, 3)
        return seen

    async with running(local) as hub:
        handle = await hub.client.start_new(grows)

        assert await handle.result(5) == [3, 2, 1, 0]


async def test_cancelling_the_groups_scope_ends_it_without_an_error() -> None:
    local = App()

    @local.orchestration
    async def enough(ctx: OrchestrationContext) -> list[Any]:
        async with ctx.create_task_group() as tg:

            async def stop() -> None:
                await ctx.wait_for_external_event("stop")
                tg.cancel_scope.cancel()

            async def waits() -> None:
                await ctx.wait_for_external_event("never")

            tg.start_soon(waits)
            tg.start_soon(stop)
            await ctx.wait_for_external_event("never")
        return ["after", tg.cancel_scope.cancel_called]

    async with running(local) as hub:
        handle = await hub.client.start_new(enough)
        await handle.raise_event("stop")

        assert await handle.result(5) == ["after", True]


async def test_what_is_no_async_function_is_no_branch() -> None:
    local = App()

    @local.orchestration
    async def wrong(ctx: OrchestrationContext) -> str:
        plain: Any = lambda: 5  # noqa: E731
        try:
            async with ctx.create_task_group() as tg:
                tg.start_soon(plain)
        except ExceptionGroup as group:
            return type(group.exceptions[0]).__name__
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(wrong)

        assert await handle.result(5) == UsageError.__name__


@app.orchestration
async def group_to_cancel(ctx: OrchestrationContext) -> None:
    async def branch(name: str) -> None:
        try:
            await ctx.wait_for_external_event("never")
        finally:
            await ctx.call_activity(note, f"{name} 1")
            await ctx.call_activity(note, f"{name} 2")

    try:
        async with ctx.create_task_group() as tg:
            tg.start_soon(branch, "a")
            tg.start_soon(branch, "b")
    finally:
        await ctx.call_activity(note, "root")


@EVICTED
async def test_cancelling_the_orchestration_cancels_its_branches_which_compensate(
    evicted: bool,
) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(group_to_cancel)
        await quiet(hub)
        if evicted:
            await evict(hub)

        await handle.cancel("stop")

        with pytest.raises(OrchestrationCanceledError):
            await handle.result(5)
        assert sorted(log[:4]) == ["a 1", "a 2", "b 1", "b 2"]
        assert log[4:] == ["root"]


@EVICTED
async def test_an_orchestration_in_a_group_can_be_terminated(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(group_to_cancel)
        await quiet(hub)
        if evicted:
            await evict(hub)

        await handle.terminate()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert log == []


async def test_the_body_of_a_group_without_branches_left_can_be_let_go() -> None:
    local = App()

    @local.orchestration
    async def body(ctx: OrchestrationContext) -> Any:
        async def branch() -> None:
            return None

        async with ctx.create_task_group() as tg:
            tg.start_soon(branch)
            return await ctx.wait_for_external_event("go")

    async with running(local) as hub:
        handle = await hub.client.start_new(body)
        terminated = await hub.client.start_new(body)
        await evict(hub)

        await terminated.terminate()
        await handle.raise_event("go", 1)

        assert await handle.result(5) == 1
        assert await status_of(terminated) == RuntimeStatus.TERMINATED


# Python itself has to complain when it collects such code; what matters is that nothing hangs.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("evicted", [False, True])
async def test_code_that_catches_everything_in_a_loop_can_be_let_go(evicted: bool) -> None:
    local = App()

    @local.orchestration
    async def unstoppable(ctx: OrchestrationContext) -> str:
        while True:
            try:
                if await ctx.wait_for_external_event("x", timeout=60) == "end":
                    return "ended"
            except:  # noqa: E722
                continue

    async with running(local, clock=ManualClock()) as hub:
        handle = await hub.client.start_new(unstoppable)
        for _ in range(3):
            if evicted:
                assert await evict(hub) == 1
                gc.collect()
            await handle.raise_event("x", "other")
        await handle.raise_event("x", "end")
        terminated = await hub.client.start_new(unstoppable)
        await terminated.terminate()

        assert await handle.result(5) == "ended"


UNSTOPPABLE = """
import anyio, sys
from perdure import App, Hub

app = App()

@app.orchestration
async def unstoppable(ctx):
    while True:
        try:
            await ctx.wait_for_external_event("x", timeout=60)
        except:
            continue

async def main():
    async with Hub(app) as hub:
        handle = await hub.client.start_new(unstoppable)
        while (await handle.status()).runtime_status == "Pending":
            await anyio.sleep(0.01)
        await handle.terminate()

anyio.run(main)
kept = dict(sys.modules)  # so that modules go at the end in the order in which it would hang
"""


def test_a_process_ends_though_code_that_catches_everything_was_let_go() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNSTOPPABLE], capture_output=True, text=True, timeout=30
    )

    assert (done.returncode, done.stderr) == (0, "")


async def test_an_orchestration_that_awaits_in_finally_can_be_let_go() -> None:
    local = App()

    @local.orchestration
    async def stubborn(ctx: OrchestrationContext) -> Any:
        later = ctx.wait_for_external_event("later")
        try:
            return await ctx.wait_for_external_event("go")
        finally:
            await later
            await later

    @local.orchestration
    def stubborn_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
        later = ctx.wait_for_external_event("later")
        try:
            return (yield ctx.wait_for_external_event("go"))
        finally:
            yield later
            yield later

    async with running(local) as hub:
        handles = [
            await hub.client.start_new(stubborn),
            await hub.client.start_new(stubborn_by_yield),
        ]
        # What is left of closed code must not complain when it is collected, either.
        for _ in range(3):
            assert await evict(hub) == 2
            gc.collect()
            for handle in handles:
                await handle.raise_event("other")
        for handle in handles:
            await handle.raise_event("go", 7)
            await handle.raise_event("later")

        assert [await handle.result(5) for handle in handles] == [7, 7]


# fail_after and move_on_after.


@app.orchestration
async def moves_on(ctx: OrchestrationContext) -> list[Any]:
    seen: list[Any] = []
    with ctx.move_on_after(10) as scope:
        seen.append(await ctx.wait_for_external_event("go"))
    return [*seen, scope.cancel_called, scope.cancelled_caught]


@app.orchestration
def moves_on_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[Any]]:
    seen: list[Any] = []
    with ctx.move_on_after(SECOND * 10) as scope:
        seen.append((yield ctx.wait_for_external_event("go")))
    return [*seen, scope.cancel_called, scope.cancelled_caught]


@app.orchestration
async def fails(ctx: OrchestrationContext) -> list[Any]:
    seen: list[Any] = []
    scope = ctx.fail_after(10)
    try:
        with scope:
            seen.append(await ctx.wait_for_external_event("go"))
    except TimeoutError as error:
        return [type(error).__name__, scope.cancel_called, scope.cancelled_caught]
    return [*seen, scope.cancel_called, scope.cancelled_caught]


@app.orchestration
def fails_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[Any]]:
    seen: list[Any] = []
    scope = ctx.fail_after(SECOND * 10)
    try:
        with scope:
            seen.append((yield ctx.wait_for_external_event("go")))
    except TimeoutError as error:
        return [type(error).__name__, scope.cancel_called, scope.cancelled_caught]
    return [*seen, scope.cancel_called, scope.cancelled_caught]


@pytest.mark.parametrize("flow", [moves_on, moves_on_by_yield])
@EVICTED
async def test_move_on_after_goes_on_behind_the_block(flow: Flow, evicted: bool) -> None:
    store, clock = MemoryStore(), ManualClock()
    async with running(app, store, clock=clock) as hub:
        late = await hub.client.start_new(flow)
        early = await hub.client.start_new(flow)
        if evicted:
            await evict(hub)
        await advance(hub, clock, 9)
        await early.raise_event("go", 1)
        await advance(hub, clock, 1)

        assert await late.result(5) == [True, True]
        assert await early.result(5) == [1, False, False]
        await quiet(hub)
        assert stored_timers(store) == 0


@pytest.mark.parametrize("flow", [fails, fails_by_yield])
@EVICTED
async def test_fail_after_raises_timeout_error(flow: Flow, evicted: bool) -> None:
    store, clock = MemoryStore(), ManualClock()
    async with running(app, store, clock=clock) as hub:
        late = await hub.client.start_new(flow)
        early = await hub.client.start_new(flow)
        if evicted:
            await evict(hub)
        await advance(hub, clock, 9)
        await early.raise_event("go", 1)
        await advance(hub, clock, 1)

        assert await late.result(5) == ["TimeoutError", True, True]
        assert await early.result(5) == [1, False, False]
        await quiet(hub)
        assert stored_timers(store) == 0


async def test_an_error_passes_a_scope_unchanged() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def raises(ctx: OrchestrationContext) -> None:
        with ctx.move_on_after(10), ctx.fail_after(20):
            await ctx.call_activity(fail, "bad")

    async with running(local) as hub:
        handle = await hub.client.start_new(raises)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)
        assert caught.value.error_type == "ActivityError"


async def test_the_outer_deadline_ends_the_inner_block() -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def nested(ctx: OrchestrationContext) -> list[bool]:
        inner = ctx.move_on_after(10)
        with ctx.move_on_after(5) as outer:
            with inner:
                await ctx.wait_for_external_event("never")
            await ctx.wait_for_external_event("not reached")
        return [outer.cancelled_caught, inner.cancelled_caught]

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(nested)

        await advance(hub, clock, 5)

        assert await handle.result(5) == [True, False]


async def test_the_inner_deadline_leaves_the_outer_block_alone() -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def nested(ctx: OrchestrationContext) -> list[Any]:
        inner = ctx.move_on_after(5)
        data = None
        with ctx.fail_after(10) as outer:
            with inner:
                await ctx.wait_for_external_event("never")
            data = await ctx.wait_for_external_event("go")
        return [outer.cancelled_caught, inner.cancelled_caught, data]

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(nested)
        await advance(hub, clock, 5)
        await handle.raise_event("go", 3)

        assert await handle.result(5) == [False, True, 3]


async def test_a_deadline_around_a_group_cancels_each_branch_once() -> None:
    local = App()
    local.include(app)
    clock = ManualClock()

    @local.orchestration
    async def deadline(ctx: OrchestrationContext) -> str:
        async def branch(name: str) -> None:
            try:
                await ctx.wait_for_external_event("never")
            finally:
                await ctx.call_activity(note, f"{name} 1")
                await ctx.call_activity(note, f"{name} 2")

        try:
            with ctx.fail_after(10):
                async with ctx.create_task_group() as tg:
                    tg.start_soon(branch, "a")
                    tg.start_soon(branch, "b")
        except TimeoutError:
            return "late"
        return ""

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(deadline)

        await advance(hub, clock, 10)

        assert await handle.result(5) == "late"
        assert sorted(log) == ["a 1", "a 2", "b 1", "b 2"]


async def test_a_clean_up_may_have_a_deadline_of_its_own() -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def bounded(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []

        async def branch() -> None:
            try:
                await ctx.wait_for_external_event("never")
            finally:
                with ctx.move_on_after(5):
                    await ctx.wait_for_external_event("never")
                seen.append("gave the clean-up up")

        with ctx.move_on_after(10):
            async with ctx.create_task_group() as tg:
                tg.start_soon(branch)
        return seen

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(bounded)
        await advance(hub, clock, 10)
        await evict(hub)
        assert await status_of(handle) == RuntimeStatus.RUNNING

        await advance(hub, clock, 5)

        assert await handle.result(5) == ["gave the clean-up up"]


async def test_an_error_in_an_outer_group_cancels_the_leaves_of_an_inner_one_once() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def tree(ctx: OrchestrationContext) -> str:
        async def leaf() -> None:
            try:
                await ctx.wait_for_external_event("never")
            finally:
                await ctx.call_activity(note, "leaf 1")
                await ctx.call_activity(note, "leaf 2")

        async def inner() -> None:
            async with ctx.create_task_group() as tg:
                tg.start_soon(leaf)

        try:
            async with ctx.create_task_group() as tg:
                tg.start_soon(inner)
                await ctx.call_activity(fail, "bad")
        except ExceptionGroup as group:
            return str(group.exceptions[0])
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(tree)

        assert await handle.result(5) == "fail failed: ValueError: bad"
        assert log == ["leaf 1", "leaf 2"]


async def test_a_branch_started_in_a_cancelled_group_is_cancelled_at_its_first_await() -> None:
    local = App()

    @local.orchestration
    async def late(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []

        async def straggler() -> None:
            seen.append("begun")
            await ctx.wait_for_external_event("never")

        async with ctx.create_task_group() as tg:
            tg.cancel_scope.cancel()
            tg.start_soon(straggler)
        return seen

    async with running(local) as hub:
        handle = await hub.client.start_new(late)

        assert await handle.result(5) == ["begun"]


async def test_a_deadline_in_one_branch_leaves_the_others_alone() -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def two(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []

        async def short() -> None:
            with ctx.move_on_after(1):
                await ctx.wait_for_external_event("never")
            seen.append("short")

        async def long() -> None:
            seen.append(await ctx.wait_for_external_event("go"))

        async with ctx.create_task_group() as tg:
            tg.start_soon(short)
            tg.start_soon(long)
        return seen

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(two)
        await advance(hub, clock, 1)
        await evict(hub)
        await handle.raise_event("go", "long")

        assert await handle.result(5) == ["short", "long"]


async def test_a_scope_cancelled_by_hand_is_thrown_at_the_next_await() -> None:
    local = App()

    @local.orchestration
    async def by_hand(ctx: OrchestrationContext) -> list[Any]:
        seen: list[Any] = []
        with ctx.move_on_after(3600) as scope:
            scope.cancel()
            seen.append("still here")
            await ctx.wait_for_external_event("never")
            seen.append("not here")
        return [*seen, scope.cancelled_caught]

    async with running(local) as hub:
        handle = await hub.client.start_new(by_hand)

        assert await handle.result(5) == ["still here", True]


async def test_a_scope_is_entered_once() -> None:
    local = App()

    @local.orchestration
    async def twice(ctx: OrchestrationContext) -> str:
        scope = ctx.move_on_after(1)
        with scope:
            pass
        try:
            with scope:
                pass
        except UsageError as error:
            return str(error)
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(twice)

        assert "only once" in await handle.result(5)


async def test_the_compensation_of_a_deadline_is_durable() -> None:
    local = App()
    local.include(app)
    clock, store = ManualClock(), MemoryStore()

    @local.orchestration
    async def compensates(ctx: OrchestrationContext) -> str:
        with ctx.move_on_after(10):
            try:
                await ctx.wait_for_external_event("never")
            finally:
                await ctx.create_timer(SECOND * 5)
                await ctx.call_activity(note, "compensated")
        return "done"

    async with running(local, store, clock=clock) as hub:
        await hub.client.start_new(compensates, instance_id="x")
        await advance(hub, clock, 10)
    clock.advance(5)

    async with running(local, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")

        assert await handle.result(5) == "done"
        assert log == ["compensated"]
        assert "TaskCompleted" in await event_types(handle)


# What several branches share.


@app.orchestration
async def until_told(ctx: OrchestrationContext) -> str:
    await ctx.wait_for_external_event("told")
    return "result"


@app.orchestration
async def sharing(ctx: OrchestrationContext, how: str) -> list[str]:
    out: list[str] = []
    call = ctx.call_sub_orchestrator(until_told, instance_id="child")
    other = ctx.create_timer(timedelta(days=1))

    async def impatient() -> None:
        with ctx.move_on_after(1):
            if how == "all":
                await ctx.task_all([call, other])
            elif how == "any":
                await ctx.task_any([ctx.task_all([call, other])])
            else:
                await call
        out.append("gave up")

    async def patient() -> None:
        if how == "later":
            await ctx.wait_for_external_event("go")  # nobody but the other waits meanwhile
        out.append(await call)

    async with ctx.create_task_group() as tasks:
        tasks.start_soon(impatient)
        tasks.start_soon(patient)
    return out


@pytest.mark.parametrize("how", ["plain", "all", "any", "later"])
async def test_a_branch_that_gives_up_leaves_a_shared_call_to_the_others(how: str) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(sharing, how)
        await advance(hub, clock, 2)
        await handle.raise_event("go")
        await hub.client.raise_event("child", "told")

        assert await handle.result(5) == ["gave up", "result"]


async def test_what_a_scope_began_is_cancelled_with_it_and_what_it_only_awaited_is_not() -> None:
    local = App()

    @local.orchestration
    async def flow(ctx: OrchestrationContext) -> list[bool]:
        timers = [ctx.create_timer(timedelta(days=1))]
        with ctx.move_on_after(1):
            timers.append(ctx.create_timer(timedelta(days=2)))
            await ctx.task_all(timers)
        return [timer.is_cancelled for timer in timers]

    clock = ManualClock()
    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(flow)
        await advance(hub, clock, 2)

        assert await handle.result(5) == [False, True]


async def test_a_task_given_up_by_hand_fails_the_branch_that_waits_for_it_aloud() -> None:
    local = App()

    @local.orchestration
    async def flow(ctx: OrchestrationContext) -> None:
        timer = ctx.create_timer(timedelta(days=1))

        async def waits() -> None:
            await timer

        async with ctx.create_task_group() as tasks:
            tasks.start_soon(waits)
            await ctx.create_timer(timedelta(0))
            timer.cancel()

    async with running(local) as hub:
        handle = await hub.client.start_new(flow)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        assert caught.value.error_type == "BaseExceptionGroup"


@pytest.mark.parametrize("entered", [False, True])
async def test_a_group_that_is_not_open_takes_no_branches(entered: bool) -> None:
    local = App()
    ran: list[str] = []

    @local.orchestration
    async def flow(ctx: OrchestrationContext) -> None:
        async def branch() -> None:
            ran.append("branch")

        group = ctx.create_task_group()
        if entered:
            async with group:
                pass
        group.start_soon(branch)

    async with running(local) as hub:
        handle = await hub.client.start_new(flow)

        with pytest.raises(OrchestrationFailedError, match="not open"):
            await handle.result(5)

        assert ran == []
