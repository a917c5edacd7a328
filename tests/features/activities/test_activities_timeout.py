"""How long activities may take."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import anyio
import pytest

from perdure import (
    ActivityContext,
    ActivityError,
    App,
    InvalidTimeError,
    ManualClock,
    OrchestrationContext,
)
from tests.runtime.orchestrating import advance, event_types, quiet, running

app = App()


@app.activity
async def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("where", ["call", "registration", "timedelta"])
async def test_an_async_attempt_that_takes_too_long_fails_and_is_cancelled(where: str) -> None:
    local = App()
    clock = ManualClock()
    begun, stopped = anyio.Event(), anyio.Event()

    async def endless() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    local.activity(timeout=10 if where == "registration" else None)(endless)
    timeout = {"call": 10.0, "registration": None, "timedelta": timedelta(seconds=10)}[where]

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> list[str]:
        try:
            await ctx.call_activity(endless, timeout=timeout)
        except ActivityError as error:
            return [error.error_type, error.message]
        return []

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(waits)
        await begun.wait()
        clock.advance(9.9)
        assert not stopped.is_set()

        clock.advance(0.1)

        assert await handle.result(5) == ["TimeoutError", "no answer within 10 seconds"]
        await stopped.wait()


async def test_a_sync_attempt_that_takes_too_long_fails_and_is_told() -> None:
    local = App()
    clock = ManualClock()
    begun, leave, left = threading.Event(), threading.Event(), threading.Event()
    told: list[bool] = []

    @local.activity
    def endless(ctx: ActivityContext) -> str:
        begun.set()
        leave.wait(10)
        told.append(ctx.cancelled)
        left.set()
        return "late"

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_activity(endless, timeout=10)
        except ActivityError as error:
            return error.error_type

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(waits)
        await anyio.to_thread.run_sync(begun.wait)
        clock.advance(10)

        result = await handle.result(5)
        leave.set()
        await anyio.to_thread.run_sync(left.wait)
        await quiet(hub)

        assert result == "TimeoutError"
        assert told == [True]
        assert (await event_types(handle)).count("TaskCompleted") == 0


async def test_an_attempt_in_time_is_not_touched_by_its_timeout() -> None:
    local = App()
    local.include(app)
    clock = ManualClock()

    @local.orchestration
    async def quick(ctx: OrchestrationContext) -> list[Any]:
        first = await ctx.call_activity(double, 1, timeout=5)
        return [first, await ctx.wait_for_external_event("end")]

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(quick)
        await advance(hub, clock, 60)
        await handle.raise_event("end", 2)

        assert await handle.result(5) == [2, 2]


async def test_a_bad_timeout_is_refused_at_the_call() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def bad(ctx: OrchestrationContext) -> str:
        try:
            ctx.call_activity(double, 1, timeout=-1)
        except InvalidTimeError as error:
            return str(error)
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(bad)

        assert "-1" in await handle.result(5)
