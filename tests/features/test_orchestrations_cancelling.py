"""Cancellation is delivered once, waits for a shield's end, and reaches what is held up."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
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
    RuntimeStatus,
)
from perdure.runtime.partitions.door import Door
from perdure.storage import Checkpoint
from perdure.testing.inside import shard_of
from tests.runtime.harness import FaultyStore, partition_here, until_true
from tests.runtime.orchestrating import (
    EVICTED,
    HOUR,
    SECOND,
    Flow,
    advance,
    event_types,
    evict,
    quiet,
    running,
    status_of,
)

log: list[str] = []


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


app = App()


@app.activity
async def note(text: str) -> None:
    log.append(text)


@app.orchestration
async def compensates(ctx: OrchestrationContext) -> None:
    try:
        await ctx.wait_for_external_event("never")
    finally:
        await ctx.create_timer(SECOND)
        await ctx.call_activity(note, "compensated")


@app.orchestration
async def parent(ctx: OrchestrationContext) -> None:
    await ctx.call_sub_orchestrator(compensates, instance_id="child")


@EVICTED
@pytest.mark.parametrize("by", ["client", "parent"])
async def test_a_second_cancel_does_not_break_off_the_clean_up(by: str, evicted: bool) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        top = await hub.client.start_new(parent, instance_id="parent")
        await quiet(hub)
        child = hub.client.get_handle("child")
        await child.cancel("first")
        if evicted:
            await evict(hub)
        await (top if by == "parent" else child).cancel("second")
        if evicted:
            await evict(hub)
        await advance(hub, clock, 2)

        with pytest.raises(OrchestrationCanceledError, match="first"):
            await child.result(5)
        types = await event_types(child)

    assert log == ["compensated"]
    assert types.count("CancelRequested") == 1


async def test_a_deadline_around_does_not_break_off_the_clean_up_of_a_cancelled_instance() -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def hurries(ctx: OrchestrationContext) -> None:
        with ctx.move_on_after(5):
            try:
                await ctx.wait_for_external_event("never")
            finally:
                await ctx.create_timer(HOUR)
                log.append("compensated")

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(hurries)
        await handle.cancel()
        await advance(hub, clock, 10)
        await advance(hub, clock, 3600)

        with pytest.raises(OrchestrationCanceledError):
            await handle.result(5)

    assert log == ["compensated"]


# Shields.


@app.orchestration
async def shielded(ctx: OrchestrationContext) -> None:
    with ctx.shield():
        await ctx.wait_for_external_event("one")
        await ctx.call_activity(note, "first half")
        await ctx.wait_for_external_event("two")
        await ctx.call_activity(note, "second half")
    await ctx.call_activity(note, "behind")


@app.orchestration
def shielded_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    with ctx.shield():
        yield ctx.wait_for_external_event("one")
        yield ctx.call_activity(note, "first half")
        yield ctx.wait_for_external_event("two")
        yield ctx.call_activity(note, "second half")
    yield ctx.call_activity(note, "behind")


@EVICTED
@pytest.mark.parametrize("flow", [shielded, shielded_by_yield])
async def test_a_cancel_inside_a_shield_waits_for_its_end(flow: Flow, evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        await handle.cancel("enough")
        await handle.raise_event("one")
        if evicted:
            await evict(hub)
        await quiet(hub)
        assert log == ["first half"]
        assert await status_of(handle) == RuntimeStatus.RUNNING
        await handle.raise_event("two")

        with pytest.raises(OrchestrationCanceledError, match="enough"):
            await handle.result(5)

    assert log == ["first half", "second half"]


async def test_a_function_that_ends_with_its_shield_is_completed() -> None:
    local = App()

    @local.orchestration
    async def ends(ctx: OrchestrationContext) -> str:
        with ctx.shield():
            return await ctx.wait_for_external_event("go", data_type=str)

    async with running(local) as hub:
        handle = await hub.client.start_new(ends)
        await handle.cancel()
        await handle.raise_event("go", "done")

        assert await handle.result(5) == "done"


@EVICTED
async def test_a_deadline_around_a_shield_waits_and_one_inside_does_not(evicted: bool) -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def nested(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []
        with ctx.move_on_after(2):
            with ctx.shield():
                with ctx.move_on_after(5) as inner:
                    await ctx.wait_for_external_event("never")
                seen.append(f"inner: {inner.cancelled_caught}")
                with ctx.shield():
                    await ctx.create_timer(SECOND)
                seen.append("whole")
            await ctx.create_timer(HOUR)
            seen.append("not reached")
        return seen

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(nested)
        for _ in range(8):
            await advance(hub, clock, 1)
            if evicted:
                await evict(hub)

        assert await handle.result(5) == ["inner: True", "whole"]


@EVICTED
async def test_a_shielded_branch_ends_before_its_cancelled_group_does(evicted: bool) -> None:
    local = App()

    @local.orchestration
    async def group(ctx: OrchestrationContext) -> None:
        async def whole() -> None:
            with ctx.shield():
                await ctx.wait_for_external_event("go")
                log.append("whole")
            await ctx.wait_for_external_event("never")

        async def open_branch() -> None:
            try:
                await ctx.wait_for_external_event("never")
            finally:
                if not ctx.is_replaying:
                    log.append("open")

        async with ctx.create_task_group() as tasks:
            tasks.start_soon(whole)
            tasks.start_soon(open_branch)

    async with running(local) as hub:
        handle = await hub.client.start_new(group)
        await quiet(hub)
        await handle.cancel()
        assert log == ["open"]
        if evicted:
            await evict(hub)
        log.clear()
        await handle.raise_event("go")

        with pytest.raises(OrchestrationCanceledError):
            await handle.result(5)

    assert log == ["whole"]


# What is held up.


async def test_a_parked_instance_gets_its_cancel_at_retry() -> None:
    store = MemoryStore()
    async with running(app, store) as hub:
        handle = await hub.client.start_new(compensates, instance_id="x")
        await quiet(hub)
    async with running(App(), store) as hub:  # a release that lost it
        handle = hub.client.get_handle("x")
        await quiet(hub)
        with anyio.fail_after(5):
            await handle.cancel("while it was parked")
        status = await handle.status()
        assert status.parked is not None
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        await advance(hub, clock, 2)

        with pytest.raises(OrchestrationCanceledError, match="while it was parked"):
            await hub.client.get_handle("x").result(5)

    assert log == ["compensated"]


async def test_cancel_losers_cancels_the_activities_and_children_that_lost() -> None:
    local = App()
    told = anyio.Event()

    @local.activity
    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            told.set()

    @local.orchestration
    async def child(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("never")

    @local.orchestration
    async def race(ctx: OrchestrationContext) -> str:
        lost = [ctx.call_activity(slow), ctx.call_sub_orchestrator(child, instance_id="child")]
        won = ctx.wait_for_external_event("go", data_type=str)
        first = await ctx.task_any([*lost, won], cancel_losers=True)
        with pytest.raises(Cancelled):
            await lost[0]
        return f"{first.result} {[task.is_cancelled for task in lost]}"

    async with running(local) as hub:
        handle = await hub.client.start_new(race)
        await quiet_but_for_activities(hub)
        await handle.raise_event("go", "won")

        assert await handle.result(5) == "won [True, True]"
        with anyio.fail_after(5):
            await told.wait()
        with pytest.raises(OrchestrationCanceledError):
            await hub.client.get_handle("child").result(5)


async def quiet_but_for_activities(hub: Any) -> None:
    while not shard_of(hub).activities.running_count:
        await anyio.sleep(0.001)


@app.orchestration
async def notes(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(note, "started")


async def test_an_activity_whose_start_is_being_committed_when_it_is_given_up_does_not_run() -> (
    None
):
    store = FaultyStore()
    committing, go_on = anyio.Event(), anyio.Event()

    async def hold(checkpoint: Checkpoint) -> None:
        committing.set()
        await go_on.wait()

    async with running(app, store) as hub:
        store.faults.before_commit = hold
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(hub.client.start_new, notes, instance_id="x"))
            await committing.wait()
            tasks.start_soon(hub.client.terminate, "x")
            await until_true(lambda: not Door(partition_here(hub, "x")).is_live_here("x"))
            go_on.set()
        await quiet(hub)

        assert await status_of(hub.client.get_handle("x")) == RuntimeStatus.TERMINATED
        assert log == []
