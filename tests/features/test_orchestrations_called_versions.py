"""Which version of an orchestration is run: asked for, by default, and afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure import (
    App,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    RuntimeStatus,
    UnknownNameError,
)
from tests.runtime.orchestrating import HOUR, quiet, running


def release(*versions: str | None) -> App:
    """An application with these versions of ``flow``."""
    local = App()
    for version in versions:

        @local.orchestration(name="flow", version=version)
        async def flow(ctx: OrchestrationContext, mark: str = "") -> list[str | None]:
            said = [ctx.version, mark]
            if ctx.instance_id.startswith("x"):
                await ctx.wait_for_external_event("go")
            return said

    return local


async def test_a_new_instance_takes_the_highest_version() -> None:
    async with running(release(None, "1.9", "1.10", "1.2")) as hub:
        handle = await hub.client.start_new("flow")

        assert await handle.result(5) == ["1.10", ""]
        assert (await handle.status()).version == "1.10"


async def test_a_version_can_be_asked_for() -> None:
    async with running(release("1", "2")) as hub:
        handle = await hub.client.start_new("flow", version="1")

        assert await handle.result(5) == ["1", ""]
        with pytest.raises(UnknownNameError, match="it has: 1, 2"):
            await hub.client.start_new("flow", version="3")


async def test_a_function_stands_for_its_own_version() -> None:
    local = App()

    @local.orchestration(name="flow", version="1")
    async def first(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    @local.orchestration(name="flow", version="2")
    async def second(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> list[str | None]:
        return await ctx.task_all(
            [
                ctx.call_sub_orchestrator(first),
                ctx.call_sub_orchestrator("flow"),
                ctx.call_sub_orchestrator("flow", version="1"),
            ]
        )

    async with running(local) as hub:
        assert await (await hub.client.start_new(first)).result(5) == "1"
        assert await (await hub.client.start_new(calls)).result(5) == ["1", "2", "1"]


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("old", ["1", None])
async def test_a_running_instance_keeps_its_version_when_a_higher_one_comes(
    kind: str, old: str | None, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(release(old), store) as hub:
        await hub.client.start_new("flow", "old", instance_id="x")

    async with running(release(old, "2"), store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")
        new = await hub.client.start_new("flow", "new")

        assert await handle.result(5) == [old, "old"]
        assert await new.result(5) == ["2", "new"]


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_missing_version_parks_the_instance_until_it_is_back(
    kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(release("1", "2"), store) as hub:
        await hub.client.start_new("flow", "old", instance_id="x", version="1")

    async with running(release("2"), store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")
        status = await handle.status()
        assert status.runtime_status == RuntimeStatus.RUNNING
        assert status.parked is not None
        assert status.parked.type == "UnknownNameError"
        assert "no version '1' of orchestration 'flow'" in status.parked.reason
        assert [s.instance_id async for s in hub.client.query(parked=True)] == ["x"]

    async with running(release("1", "2"), store) as hub:
        handle = hub.client.get_handle("x")
        assert await handle.result(5) == ["1", "old"]
        assert (await handle.status()).parked is None


async def test_a_version_registered_again_in_the_running_hub_is_found_by_retry() -> None:
    store = MemoryStore()
    async with running(release("1"), store) as hub:
        await hub.client.start_new("flow", "old", instance_id="x")

    later = release("2")
    async with running(later, store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")
        assert (await handle.status()).parked is not None
        later.include(release("1"))

        await handle.retry()

        assert await handle.result(5) == ["1", "old"]


async def test_a_parked_instance_can_be_terminated() -> None:
    store = MemoryStore()
    async with running(release("1"), store) as hub:
        await hub.client.start_new("flow", "old", instance_id="x")

    async with running(release("2"), store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")
        assert (await handle.status()).parked is not None

        await handle.terminate()

        status = await handle.status()
        assert status.runtime_status == RuntimeStatus.TERMINATED
        assert status.parked is None


@pytest.mark.by_turns
async def test_a_scheduled_instance_whose_version_is_gone_is_parked_at_its_time() -> None:
    store, clock = MemoryStore(), ManualClock()
    async with running(release("1"), store, clock=clock) as hub:
        await hub.client.start_new("flow", "m", instance_id="s", start_at=HOUR)
    clock.advance(3600)

    async with running(release("2"), store, clock=clock) as hub:
        await quiet(hub)
        assert (await hub.client.get_handle("s").status()).parked is not None

    async with running(release("1"), store, clock=clock) as hub:
        assert await hub.client.get_handle("s").result(5) == ["1", "m"]


async def test_continue_as_new_migrates_to_another_version() -> None:
    local = App()

    @local.orchestration(name="flow", version="1")
    async def first(ctx: OrchestrationContext, n: int) -> list[Any]:
        ctx.continue_as_new(n + 1, version="2")
        return []

    @local.orchestration(name="flow", version="2")
    async def second(ctx: OrchestrationContext, n: int) -> list[Any]:
        if n < 5:
            ctx.continue_as_new(n + 1)
        return [ctx.version, n]

    async with running(local) as hub:
        handle = await hub.client.start_new(first, 1)

        assert await handle.result(5) == ["2", 5]
        assert (await handle.status()).version == "2"


async def test_continue_as_new_to_an_unknown_version_is_refused_at_the_call() -> None:
    local = App()

    @local.orchestration(version="1")
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            ctx.continue_as_new(version="2")
        except UnknownNameError:
            return "refused"
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(flow)

        assert await handle.result(5) == "refused"
