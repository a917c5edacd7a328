"""Task groups inside an orchestration, and their replay."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Generator
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
from perdure.actors.replay import executor
from tests.features.scopes.application import app, fail, log, note
from tests.runtime.orchestrating import (
    EVICTED,
    SECOND,
    evict,
    quiet,
    running,
    status_of,
    stored_timers,
)


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


@app.orchestration
async def begin_others(ctx: OrchestrationContext, each: int) -> None:
    async def branch() -> None:
        for _ in range(each):
            tg.start_soon(branch)

    async with ctx.create_task_group() as tg:
        tg.start_soon(branch)


@pytest.mark.parametrize("each", [1, 2])
async def test_branches_that_begin_others_without_end_fail_and_hurt_nobody_else(
    each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "BEGUN_MAX", 4_000)
    async with running(app) as hub:
        others = await hub.client.start_new(branches, ["a"])
        handle = await hub.client.start_new(begin_others, each)

        with pytest.raises(OrchestrationFailedError) as failed:
            await handle.result()
        await others.raise_event("a")

        assert {one.error_type for one in failed.value.failure.members} == {"UsageError"}
        assert "4,000 branches have begun" in failed.value.failure.members[0].message
        assert await others.result() == ["body", "+a", "-a", "=a", "end"]


@app.orchestration
async def begin_by_and_by(ctx: OrchestrationContext, times: int) -> int:
    begun = 0

    async def branch() -> None:
        nonlocal begun
        begun += 1

    for _ in range(times):
        async with ctx.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(branch)
        await ctx.wait_for_external_event("on")
    return begun


@EVICTED
async def test_only_branches_that_begin_at_one_time_are_counted(
    evicted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "BEGUN_MAX", 3)
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(begin_by_and_by, 3)
        for _ in range(3):
            await quiet(hub)
            if evicted:
                assert await evict(hub) == 1
            clock.advance(1)
            await handle.raise_event("on")

        assert await handle.result() == 9
