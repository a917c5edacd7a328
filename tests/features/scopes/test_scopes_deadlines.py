"""fail_after and move_on_after inside an orchestration, and their replay."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from perdure import (
    App,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    RuntimeStatus,
    UsageError,
)
from tests.features.scopes.application import app, fail, log, note
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
