"""Purge."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from perdure import (
    App,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    RuntimeStatus,
)
from tests.features.lifecycle.application import KINDS, app, parent, waits
from tests.runtime.orchestrating import HOUR, advance, evict, quiet, running


@pytest.mark.parametrize("evicted", [False, True])
async def test_purge_deletes_an_instance_with_its_history(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits, instance_id="x")
        await handle.raise_event("go")
        await handle.result(5)
        if evicted:
            await evict(hub)

        deleted = await handle.purge()

        assert deleted == 1
        assert await hub.client.get_status("x") is None
        for call in (handle.status, handle.history, handle.result, handle.purge):
            with pytest.raises(InstanceNotFoundError):
                await call()


async def test_a_live_instance_is_not_purged() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits)
        suspended = await hub.client.start_new(waits)
        await suspended.suspend()
        scheduled = await hub.client.start_new(waits, start_at=HOUR)

        for live in (handle, suspended, scheduled):
            with pytest.raises(InstanceNotFinishedError):
                await live.purge()

        await handle.raise_event("go", 1)
        assert await handle.result(5) == 1


async def test_purge_deletes_the_children_and_theirs() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        await hub.client.raise_event("leaf", "go")
        await handle.result(5)

        deleted = await handle.purge()

        assert deleted == 3
        assert [status async for status in hub.client.query()] == []


async def test_purge_that_is_not_recursive_leaves_the_children() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        await hub.client.raise_event("leaf", "go")
        await handle.result(5)

        deleted = await handle.purge(recursive=False)

        assert deleted == 1
        assert {s.instance_id async for s in hub.client.query()} == {"middle", "leaf"}


async def test_purge_by_filter_deletes_only_what_matches_and_has_ended() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        begin = clock.now()
        for name in ("done-1", "done-2", "ended-1", "live-1"):
            handle = await hub.client.start_new(
                waits, instance_id=name, tags={"kind": name.split("-")[0]}
            )
            if name.startswith("done"):
                await handle.raise_event("go")
            elif name.startswith("ended"):
                await handle.terminate()
            await advance(hub, clock, 60)
        assert begin < clock.now()

        async def ids() -> list[str]:
            return sorted([status.instance_id async for status in hub.client.query()])

        assert await hub.client.purge(name="other") == 0
        assert await hub.client.purge(statuses=["Running"]) == 0
        assert await hub.client.purge(instance_id_prefix="live") == 0
        assert await hub.client.purge(tags={"kind": "done"}, instance_id_prefix="done-2") == 1
        assert await ids() == ["done-1", "ended-1", "live-1"]
        assert await hub.client.purge(statuses=[RuntimeStatus.TERMINATED]) == 1
        assert await ids() == ["done-1", "live-1"]
        assert await hub.client.purge() == 1
        assert await ids() == ["live-1"]


async def test_purge_by_filter_is_recursive() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        await hub.client.raise_event("leaf", "go")
        await handle.result(5)

        deleted = await hub.client.purge(name="parent")

        assert deleted == 3
        assert [status async for status in hub.client.query()] == []


async def test_purge_by_completed_window() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        times: list[Any] = []
        for name in "abc":
            handle = await hub.client.start_new(waits, instance_id=name)
            await handle.raise_event("go")
            await handle.result(5)
            times.append((await handle.status()).completed_time)
            await advance(hub, clock, 60)

        deleted = await hub.client.purge(completed_from=times[1], completed_to=times[2])

        assert deleted == 1
        assert sorted([s.instance_id async for s in hub.client.query()]) == ["a", "c"]


@KINDS
async def test_a_purged_instance_stays_away_across_a_restart_and_its_id_is_free(
    kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        handle = await hub.client.start_new(waits, instance_id="x")
        await handle.raise_event("go")
        await handle.result(5)
        await handle.purge()

    async with running(app, store) as hub:
        assert await hub.client.get_status("x") is None
        again = await hub.client.start_new(waits, instance_id="x")
        await again.raise_event("go", 2)

        assert await again.result(5) == 2
        assert (await again.status()).execution == 1


async def test_a_wait_that_times_out_says_what_keeps_the_instance() -> None:
    local = App()

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")

    @local.orchestration
    async def gives_the_call(ctx: OrchestrationContext) -> int:
        return cast("int", ctx.call_sub_orchestrator(waits))

    async with running(local) as hub:
        handle = await hub.client.start_new(waits)
        with pytest.raises(TimeoutError, match=r"within 0.01 seconds$"):
            await handle.result(0.01)
        await handle.suspend()
        with pytest.raises(TimeoutError, match=r"within 0.01 seconds; it is suspended$"):
            await handle.result(0.01)
        with pytest.raises(
            OrchestrationFailedError, match="CallTask <a call, to be awaited: waits"
        ):
            await (await hub.client.start_new(gives_the_call)).result(5)
