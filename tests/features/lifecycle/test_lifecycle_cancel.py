"""Cancel."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
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
    SubOrchestrationError,
)
from tests.features.lifecycle.application import CLEANS, KINDS, app, log, note, refuses, waits
from tests.runtime.orchestrating import (
    HOUR,
    Flow,
    advance,
    event_types,
    evict,
    quiet,
    running,
    status_of,
    stored_timers,
)


@CLEANS
async def test_cancel_lets_finally_and_except_blocks_compensate_durably(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        await quiet(hub)

        await handle.cancel("changed our mind")
        await quiet(hub)

        # It caught Cancelled and returned, so it is completed.
        assert await status_of(handle) == RuntimeStatus.COMPLETED
        assert log == ["cancelled", "finally", "compensated"]
        assert "TaskCompleted" in await event_types(handle)


@app.orchestration
async def lets_pass(ctx: OrchestrationContext) -> None:
    try:
        await ctx.wait_for_external_event("go")
    finally:
        await ctx.call_activity(note, "one")
        await ctx.create_timer(HOUR)
        await ctx.call_activity(note, "two")


@app.orchestration
def lets_pass_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    try:
        yield ctx.wait_for_external_event("go")
    finally:
        yield ctx.call_activity(note, "one")
        yield ctx.create_timer(HOUR)
        yield ctx.call_activity(note, "two")


LETS_PASS = pytest.mark.parametrize("flow", [lets_pass, lets_pass_by_yield])


@pytest.mark.by_turns
@LETS_PASS
@KINDS
async def test_a_compensation_goes_on_across_a_restart(
    flow: Flow, kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(flow, instance_id="x")
        await quiet(hub)
        await handle.cancel("why not")
        await quiet(hub)
        assert await status_of(handle) == RuntimeStatus.RUNNING
    clock.advance(3600)

    async with running(app, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")

        with pytest.raises(OrchestrationCanceledError, match="why not"):
            await handle.result(5)
        assert await status_of(handle) == RuntimeStatus.CANCELED
        assert log == ["one", "two"]


@LETS_PASS
async def test_a_cancelled_orchestration_is_canceled_with_the_reason(flow: Flow) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow)
        await evict(hub)

        await handle.cancel("why not")
        await advance(hub, clock, 3600)

        status = await handle.status()
        assert status.runtime_status == RuntimeStatus.CANCELED
        assert status.failure is not None
        assert status.failure.message == "why not"


async def test_an_orchestration_that_catches_cancelled_and_returns_is_completed() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(refuses)

        await handle.cancel("please")

        assert await handle.result(5) == "not me: please"


async def test_an_orchestration_whose_compensation_raises_is_failed() -> None:
    local = App()

    @local.orchestration
    async def breaks(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_external_event("go")
        finally:
            raise ValueError("worse")

    async with running(local) as hub:
        handle = await hub.client.start_new(breaks)
        await handle.cancel()

        with pytest.raises(OrchestrationFailedError, match="worse"):
            await handle.result(5)


async def test_cancel_cascades_to_children_timers_and_activities() -> None:
    local = App()
    store = MemoryStore()
    begun, told = anyio.Event(), anyio.Event()

    @local.activity
    async def slow() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            told.set()

    @local.activity
    async def record(text: str) -> None:
        log.append(text)

    @local.orchestration
    async def child(ctx: OrchestrationContext, name: str) -> None:
        try:
            await ctx.wait_for_external_event("never", timeout=3600)
        except Cancelled as cancelled:
            log.append(f"{name}: {cancelled.reason}")
            await ctx.call_activity(record, name)
            raise

    @local.orchestration
    async def top(ctx: OrchestrationContext) -> None:
        ctx.create_timer(HOUR)
        ctx.call_activity(slow)
        ctx.call_sub_orchestrator(child, "beside", instance_id="beside")
        await ctx.call_sub_orchestrator(child, "awaited", instance_id="awaited")

    async with running(local, store) as hub:
        handle = await hub.client.start_new(top)
        await begun.wait()

        await handle.cancel("stop")
        await told.wait()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.CANCELED
        assert await status_of(hub.client.get_handle("beside")) == RuntimeStatus.CANCELED
        assert await status_of(hub.client.get_handle("awaited")) == RuntimeStatus.CANCELED
        assert {"beside", "awaited"} <= set(log)
        assert stored_timers(store) == 0


async def test_a_cancelled_child_fails_in_its_parent() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def notices(ctx: OrchestrationContext) -> list[str]:
        try:
            await ctx.call_sub_orchestrator(waits, instance_id="child")
        except SubOrchestrationError as error:
            return [error.error_type, error.message]
        return []

    async with running(local) as hub:
        handle = await hub.client.start_new(notices)
        await quiet(hub)

        await hub.client.get_handle("child").cancel("no more")

        assert await handle.result(5) == ["Cancelled", "no more"]


@pytest.mark.parametrize("evicted", [False, True])
async def test_cancel_of_a_suspended_instance_is_durable_and_waits_for_the_resume(
    evicted: bool,
) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(refuses)
        await handle.suspend()
        with anyio.fail_after(5):
            await handle.cancel("please")
        if evicted:
            await evict(hub)
        assert await status_of(handle) == RuntimeStatus.SUSPENDED

        await handle.resume()

        assert await handle.result(5) == "not me: please"


async def test_cancel_reaches_code_that_awaits_an_activity() -> None:
    local = App()
    begun, stopped = anyio.Event(), anyio.Event()

    @local.activity
    async def slow() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(slow)

    async with running(local) as hub:
        handle = await hub.client.start_new(calls)
        await begun.wait()

        await handle.cancel()
        await stopped.wait()

        with pytest.raises(OrchestrationCanceledError):
            await handle.result(5)


async def test_an_activity_that_was_given_up_is_not_run_again_after_a_restart() -> None:
    local = App()
    store = MemoryStore()
    runs: list[str] = []
    begun = anyio.Event()

    @local.activity
    async def slow() -> None:
        runs.append("run")
        begun.set()
        await anyio.sleep_forever()

    @local.orchestration
    async def gives_up(ctx: OrchestrationContext) -> str:
        task = ctx.call_activity(slow)
        await ctx.wait_for_external_event("give up")
        task.cancel()
        return str(await ctx.wait_for_external_event("end"))

    async with running(local, store) as hub:
        handle = await hub.client.start_new(gives_up, instance_id="x")
        await begun.wait()
        await handle.raise_event("give up")
        await quiet(hub)

    async with running(local, store) as hub:
        await quiet(hub)
        handle = hub.client.get_handle("x")
        await handle.raise_event("end", "over")

        assert await handle.result(5) == "over"
        assert runs == ["run"]
