"""Starts at a later time."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    InvalidTimeError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationTerminatedError,
    RuntimeStatus,
)
from tests.features.starts.application import app
from tests.runtime.orchestrating import (
    HOUR,
    Flow,
    advance,
    event_types,
    evict,
    quiet,
    running,
    status_of,
)


@app.orchestration
async def tells_time(ctx: OrchestrationContext) -> str:
    return ctx.current_utc_datetime.isoformat()


@app.orchestration
def tells_time_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    yield ctx.task_all([])
    return ctx.current_utc_datetime.isoformat()


NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("flow", [tells_time, tells_time_by_yield])
@pytest.mark.parametrize("start_at", [HOUR, NOON + HOUR], ids=["delay", "time"])
async def test_a_scheduled_instance_is_pending_until_its_time(flow: Flow, start_at: Any) -> None:
    clock = ManualClock(int(NOON.timestamp()) * 1_000_000)
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow, start_at=start_at)
        await advance(hub, clock, 3599)
        before = await handle.status()

        await advance(hub, clock, 1)

        assert before.runtime_status == RuntimeStatus.PENDING
        assert before.history_length == 0
        assert await handle.result(5) == (NOON + HOUR).isoformat()


async def test_a_start_time_of_the_past_begins_at_once() -> None:
    async with running(app, clock=ManualClock()) as hub:
        handle = await hub.client.start_new(tells_time, start_at=datetime(2001, 1, 1, tzinfo=UTC))

        assert (await handle.result(5)).startswith("2023")


@pytest.mark.parametrize(
    "start_at",
    [datetime(2030, 1, 1), timedelta(seconds=-1)],  # noqa: DTZ001
    ids=["naive", "negative"],
)
async def test_a_naive_or_negative_start_time_is_refused(start_at: Any) -> None:
    async with running(app) as hub:
        with pytest.raises(InvalidTimeError):
            await hub.client.start_new(tells_time, instance_id="x", start_at=start_at)

        assert await hub.client.get_status("x") is None


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("late", [False, True])
async def test_a_scheduled_start_survives_a_restart(kind: str, late: bool, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        await hub.client.start_new(tells_time, start_at=HOUR, instance_id="x")
    clock.advance(7200 if late else 1800)

    async with running(app, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        if not late:
            await quiet(hub)
            assert await status_of(handle) == RuntimeStatus.PENDING
            await advance(hub, clock, 1800)

        assert await handle.result(5) != ""
        assert await event_types(handle) == ["ExecutionStarted", "ExecutionCompleted"]


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_scheduled_instance_can_be_terminated(evicted: bool) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(tells_time, start_at=HOUR)
        if evicted:
            await evict(hub)

        await handle.terminate("not needed")
        await advance(hub, clock, 7200)

        with pytest.raises(OrchestrationTerminatedError, match="not needed"):
            await handle.result(5)
        assert "ExecutionStarted" not in await event_types(handle)


async def test_a_scheduled_instance_can_be_cancelled() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(tells_time, start_at=HOUR)

        await handle.cancel("not needed")
        await advance(hub, clock, 7200)

        assert await status_of(handle) == RuntimeStatus.CANCELED
        assert "ExecutionStarted" not in await event_types(handle)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("resumed", ["before", "after"])
async def test_a_scheduled_instance_that_was_suspended_begins_once_resumed(
    restarted: bool, resumed: str
) -> None:
    clock, store = ManualClock(), MemoryStore()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(tells_time, start_at=HOUR, instance_id="x")
        await handle.suspend("wait")
        if resumed == "after":
            await advance(hub, clock, 7200)
            assert await status_of(handle) == RuntimeStatus.SUSPENDED
        if not restarted:
            await handle.resume()
            await advance(hub, clock, 7200)

            assert await handle.result(5) != ""
            return

    async with running(app, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        await handle.resume()
        await advance(hub, clock, 7200)

        assert await handle.result(5) != ""


async def test_the_timer_of_a_purged_schedule_does_not_begin_its_successor() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        first = await hub.client.start_new(tells_time, start_at=HOUR, instance_id="x")
        await first.terminate()
        await first.purge()
        await evict(hub)
        second = await hub.client.start_new(tells_time, start_at=3 * HOUR, instance_id="x")

        await advance(hub, clock, 2 * 3600)

        assert await status_of(second) == RuntimeStatus.PENDING
