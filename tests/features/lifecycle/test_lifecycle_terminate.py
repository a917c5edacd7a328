"""Terminate."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from perdure import (
    App,
    InstanceFinishedError,
    InstanceNotFoundError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationTerminatedError,
    RuntimeStatus,
)
from tests.features.lifecycle.application import (
    ACCOUNT,
    CLEANS,
    KINDS,
    Account,
    app,
    cleans,
    log,
    parent,
    waits,
)
from tests.runtime.orchestrating import (
    HOUR,
    Flow,
    event_types,
    evict,
    quiet,
    running,
    status_of,
    stored_timers,
)


@CLEANS
async def test_terminate_ends_an_instance_and_does_nothing_its_code_asks_for(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        await quiet(hub)

        await handle.terminate("enough")

        with pytest.raises(OrchestrationTerminatedError, match="enough") as caught:
            await handle.result(5)
        await quiet(hub)
        status = await handle.status()
        assert caught.value.message == "enough"
        assert status.runtime_status == RuntimeStatus.TERMINATED
        assert status.failure is not None
        assert (status.failure.error_type, status.failure.message) == ("Terminated", "enough")
        assert "compensated" not in log
        assert "cancelled" not in log
        assert "TaskScheduled" not in await event_types(handle)


@CLEANS
async def test_terminate_of_an_evicted_instance_runs_none_of_its_code(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        await evict(hub)
        log.clear()

        await handle.terminate()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert "compensated" not in log


@pytest.mark.parametrize("evicted", [False, True])
async def test_terminate_ends_the_children_and_theirs(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        if evicted:
            await evict(hub)

        await handle.terminate("all of it")
        await quiet(hub)

        for name in ("middle", "leaf"):
            status = await hub.client.get_handle(name).status()
            assert status.runtime_status == RuntimeStatus.TERMINATED
            assert status.failure is not None
            assert status.failure.message == "all of it"


async def test_terminate_that_is_not_recursive_leaves_the_children() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)

        await handle.terminate(recursive=False)
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert await status_of(hub.client.get_handle("leaf")) == RuntimeStatus.RUNNING
        await hub.client.raise_event("leaf", "go", 1)
        assert await hub.client.get_handle("middle").result(5) == 1


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_suspended_instance_can_be_terminated(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits)
        await handle.suspend()
        await handle.raise_event("go", 1)
        if evicted:
            await evict(hub)

        await handle.terminate()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert "EventRaised" not in await event_types(handle)


async def test_terminate_tells_running_activities_and_drops_their_answers() -> None:
    local = App()
    begun, told = anyio.Event(), anyio.Event()

    @local.activity
    async def slow() -> str:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            told.set()
        return "late"

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(slow)

    async with running(local) as hub:
        handle = await hub.client.start_new(calls)
        await begun.wait()

        await handle.terminate()
        await told.wait()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert "TaskCompleted" not in await event_types(handle)


@pytest.mark.parametrize("evicted", [False, True])
async def test_terminate_gives_locks_and_timers_back(evicted: bool) -> None:
    local = App()
    local.include(app)
    store = MemoryStore()

    @local.orchestration
    async def locks(ctx: OrchestrationContext) -> None:
        ctx.create_timer(HOUR)
        async with ctx.lock_entities(ACCOUNT):
            await ctx.wait_for_external_event("never", timeout=3600)

    async with running(local, store) as hub:
        handle = await hub.client.start_new(locks)
        await quiet(hub)
        locked = await hub.client.get_entity(ACCOUNT)
        if evicted:
            await evict(hub)

        await handle.terminate()
        total = await hub.client.call_entity(ACCOUNT, Account.add, 5, timeout=5)
        await quiet(hub)

        assert locked is not None
        assert locked.locked_by == handle.instance_id
        assert total == 5
        assert stored_timers(store) == 0


async def test_an_orchestration_that_never_waits_can_be_terminated() -> None:
    local = App()

    @local.orchestration
    async def eternal(ctx: OrchestrationContext, n: int) -> None:
        ctx.continue_as_new(n + 1)

    async with running(local) as hub:
        handle = await hub.client.start_new(eternal, 0)

        await handle.terminate("at last")

        assert await status_of(handle) == RuntimeStatus.TERMINATED


@pytest.mark.parametrize("action", ["terminate", "cancel", "suspend", "resume"])
async def test_commands_are_refused_for_unknown_and_ended_instances(action: str) -> None:
    async with running(app) as hub:
        ended = await hub.client.start_new(waits)
        await ended.raise_event("go")
        await ended.result(5)

        with pytest.raises(InstanceNotFoundError):
            await getattr(hub.client.get_handle("nobody"), action)()
        with pytest.raises(InstanceFinishedError, match="Completed"):
            await getattr(ended, action)()

        assert await status_of(ended) == RuntimeStatus.COMPLETED


@KINDS
async def test_a_terminated_instance_stays_so_across_a_restart(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(cleans, instance_id="x")
        await quiet(hub)
        await handle.terminate("enough")
    clock.advance(3600)

    async with running(app, store, clock=clock) as hub:
        await quiet(hub)

        with pytest.raises(OrchestrationTerminatedError, match="enough"):
            await hub.client.get_handle("x").result(5)
        assert "compensated" not in log
