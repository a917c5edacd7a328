"""Suspend and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import App, ManualClock, MemoryStore, OrchestrationContext, RuntimeStatus
from perdure.runtime.partitions.door import Door
from perdure.testing.inside import partitions_of, shard_of
from tests.features.lifecycle.application import KINDS, WAITS, app, parent, refuses
from tests.runtime.orchestrating import HOUR, Flow, event_types, evict, quiet, running, status_of


@app.orchestration
async def two_of_each(ctx: OrchestrationContext) -> list[Any]:
    timer = ctx.create_timer(HOUR)
    call = ctx.call_activity("gated")
    event = ctx.wait_for_external_event("x")
    names = {id(timer): "timer", id(call): "call", id(event): "event"}
    order: list[str] = []
    pending: list[Any] = [timer, call, event]
    while pending:
        winner = await ctx.task_any(pending)
        order.append(names[id(winner)])
        pending.remove(winner)
    return order


@pytest.mark.by_turns
@pytest.mark.parametrize("how", ["here", "evicted", "restarted"])
@KINDS
async def test_what_arrives_while_suspended_is_kept_in_order(
    kind: str, how: str, tmp_path: Path
) -> None:
    local = App()
    local.include(app)
    gate, entered = anyio.Event(), anyio.Event()

    @local.activity
    async def gated() -> None:
        entered.set()
        await gate.wait()

    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(local, store, clock=clock) as hub:
        handle = await hub.client.start_new(two_of_each, instance_id="x")
        await entered.wait()
        await handle.suspend("hold on")
        await handle.raise_event("x")
        await advance_beside_activity(clock, hub, 3600)
        gate.set()
        await quiet(hub)

        status = await handle.status()
        assert status.runtime_status == RuntimeStatus.SUSPENDED
        assert {"EventRaised", "TimerFired", "TaskCompleted"}.isdisjoint(await event_types(handle))
        if how == "restarted":
            pass
        else:
            if how == "evicted":
                await evict(hub)
            await handle.resume()
            assert await handle.result(5) == ["event", "timer", "call"]
            return

    async with running(local, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        await quiet(hub)
        assert await status_of(handle) == RuntimeStatus.SUSPENDED
        await handle.resume()

        assert await handle.result(5) == ["event", "timer", "call"]


async def advance_beside_activity(clock: ManualClock, hub: Any, seconds: float) -> None:
    """Turn the clock while an activity runs, and return when the timer was taken."""
    clock.advance(seconds)
    while shard_of(hub).timers.pending:
        await anyio.sleep(0.0005)
    for partition in partitions_of(hub):
        await Door(partition).wait_durable()


@WAITS
async def test_suspend_and_resume_are_recorded_and_can_be_repeated(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        for _ in range(2):
            await handle.suspend("a")
            await handle.suspend("again")
            assert await status_of(handle) == RuntimeStatus.SUSPENDED
            await handle.resume("b")
            await handle.resume("again")
            assert await status_of(handle) == RuntimeStatus.RUNNING
        await evict(hub)

        await handle.raise_event("go", 1)

        assert await handle.result(5) == 1
        types = await event_types(handle)
        assert types.count("ExecutionSuspended") == types.count("ExecutionResumed") == 2


@KINDS
async def test_why_an_instance_is_suspended_shows_in_its_status(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        handle = await hub.client.start_new(refuses, instance_id="x")
        scheduled = await hub.client.start_new(refuses, instance_id="y", start_at=HOUR)
        await handle.suspend("the bank is closed")
        await scheduled.suspend("not today")
    async with running(app, store) as hub:
        handle, scheduled = hub.client.get_handle("x"), hub.client.get_handle("y")
        reasons = [(await one.status()).suspended for one in (handle, scheduled)]
        await handle.resume("it is open")
        resumed = (await handle.status()).suspended
        await scheduled.terminate()
        ended = (await scheduled.status()).suspended

    assert reasons == ["the bank is closed", "not today"]
    assert (resumed, ended) == (None, None)


async def test_children_are_not_suspended_and_their_answer_waits() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        await handle.suspend()

        await hub.client.raise_event("leaf", "go", 5)

        assert await hub.client.get_handle("middle").result(5) == 5
        await quiet(hub)
        assert await status_of(handle) == RuntimeStatus.SUSPENDED
        await handle.resume()
        assert await handle.result(5) == 5
