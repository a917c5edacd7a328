"""Waits for external events that have a timeout."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from perdure import App, ManualClock, MemoryStore, OrchestrationContext, RuntimeStatus
from tests.features.events.application import app
from tests.runtime.orchestrating import Flow, advance, quiet, running, status_of, stored_timers


@app.orchestration
async def patient(ctx: OrchestrationContext) -> list[Any]:
    try:
        return ["event", await ctx.wait_for_external_event("Go", timeout=60)]
    except TimeoutError as error:
        return ["timeout", str(error)]


@app.orchestration
def patient_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[Any]]:
    try:
        data = yield ctx.wait_for_external_event("Go", timeout=60)
    except TimeoutError as error:
        return ["timeout", str(error)]
    return ["event", data]


PATIENT = pytest.mark.parametrize("flow", [patient, patient_by_yield])


@PATIENT
async def test_a_wait_with_a_timeout_raises_timeout_error(flow: Flow) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow)
        await advance(hub, clock, 59)
        before = await status_of(handle)

        await advance(hub, clock, 1)

        assert before == RuntimeStatus.RUNNING
        assert await handle.result(5) == ["timeout", "no event 'Go' arrived in time"]


@PATIENT
async def test_an_event_in_time_cancels_the_timeouts_timer(flow: Flow) -> None:
    clock, store = ManualClock(), MemoryStore()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(flow)
        await advance(hub, clock, 59)

        await handle.raise_event("go", 5)

        assert await handle.result(5) == ["event", 5]
        await quiet(hub)
        assert stored_timers(store) == 0


async def test_an_event_after_the_timeout_goes_to_the_next_who_waits() -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def twice(ctx: OrchestrationContext) -> list[Any]:
        first = ctx.wait_for_external_event("x", timeout=10)
        second = ctx.wait_for_external_event("x")
        try:
            await first
        except TimeoutError:
            return ["timeout", await second]
        return []

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(twice)
        await advance(hub, clock, 10)

        await handle.raise_event("x", 1)

        assert await handle.result(5) == ["timeout", 1]


async def test_a_cancelled_wait_leaves_the_event_to_the_next() -> None:
    local = App()

    @local.orchestration
    async def gives_up(ctx: OrchestrationContext) -> Any:
        first = ctx.wait_for_external_event("x", timeout=10)
        second = ctx.wait_for_external_event("x")
        first.cancel()
        return await second

    store = MemoryStore()
    async with running(local, store, clock=ManualClock()) as hub:
        handle = await hub.client.start_new(gives_up)
        await handle.raise_event("x", 1)

        assert await handle.result(5) == 1
        assert stored_timers(store) == 0
