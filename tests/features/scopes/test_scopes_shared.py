"""What several branches of an orchestration share."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import App, ManualClock, OrchestrationContext, OrchestrationFailedError
from tests.features.scopes.application import app
from tests.runtime.orchestrating import advance, running


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
