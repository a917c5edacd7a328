"""Instances whose name or version is not registered any more: parked at the start, never failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure import App, ManualClock, MemoryStore, OrchestrationContext, RuntimeStatus
from perdure.testing.inside import partitions_of
from tests.runtime.orchestrating import HOUR, advance, evict, quiet, running, status_of


def make(*versions: str | None, others: bool = True) -> App:
    """An application with these versions of ``flow``."""
    app = App()

    async def flow(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_external_event("go")
        return f"version {ctx.version}"

    async def other(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_external_event("go")
        return "other"

    for version in versions:
        app.orchestration(name="flow", version=version)(flow)
    if others:
        app.orchestration(other)
    return app


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_instances_without_code_are_parked_as_soon_as_the_hub_starts(
    kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(make("1", "2"), store, clock=clock) as hub:
        for version in ("1", "2"):
            await hub.client.start_new("flow", instance_id=version, version=version)
        await hub.client.start_new("flow", instance_id="later", version="1", start_at=HOUR)
        await hub.client.start_new("flow", instance_id="held", version="1")
        await hub.client.get_handle("held").suspend()
        await hub.client.start_new("other", instance_id="other")

    async with running(make("2", others=False), store, clock=clock) as hub:
        await quiet(hub)
        found = {one.instance_id: one async for one in hub.client.query(parked=True)}
        assert sorted(found) == ["1", "held", "later", "other"]
        reason = found["1"].parked
        assert reason is not None
        assert reason.type == "UnknownNameError"
        assert "version '1' of orchestration 'flow'" in reason.reason
        with pytest.raises(TimeoutError, match=r"it is parked, until client.retry: .*version '1'"):
            await hub.client.get_handle("1").result(0.01)
        states = {id: one.runtime_status for id, one in found.items()}
        assert states == {
            "1": RuntimeStatus.RUNNING,
            "held": RuntimeStatus.SUSPENDED,
            "later": RuntimeStatus.PENDING,
            "other": RuntimeStatus.RUNNING,
        }
        assert (
            len([a for p in partitions_of(hub) for a in p.activations]) <= 4
        )  # not all are loaded
        await hub.client.raise_event("1", "go")  # kept

    async with running(make("1", "2"), store, clock=clock) as hub:
        await quiet(hub)
        assert [one async for one in hub.client.query(parked=True)] == []
        await hub.client.get_handle("held").resume()
        await advance(hub, clock, 3600)
        for id in ("2", "later", "held", "other"):
            await hub.client.raise_event(id, "go")
        results = [await hub.client.wait(id) for id in ("1", "2", "later", "held", "other")]

    assert results == ["version 1", "version 2", "version 1", "version 1", "other"]


async def test_continue_as_new_migrates_to_a_version() -> None:
    app = App()

    @app.orchestration(name="flow", version="1")
    async def old(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_external_event("go")
        ctx.continue_as_new("from 1", version="2")
        return "never seen"

    @app.orchestration(name="flow", version="2")
    async def new(ctx: OrchestrationContext, given: str) -> str:
        taken = await ctx.wait_for_external_event("kept", data_type=str)
        return f"{given}, at {ctx.version}, {taken}"

    async with running(app) as hub:
        handle: Any = await hub.client.start_new("flow", version="1")
        await handle.raise_event("kept", "with its events")
        await handle.raise_event("go")
        await evict(hub)

        assert await handle.result(5) == "from 1, at 2, with its events"
        assert (await handle.status()).version == "2"
        assert await status_of(handle) == RuntimeStatus.COMPLETED
