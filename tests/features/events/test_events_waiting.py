"""External events: which wait takes which, in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure import App, ManualClock, MemoryStore, OrchestrationContext, RuntimeStatus
from tests.features.events.application import FLOWS, app, takes
from tests.runtime.orchestrating import HOUR, Flow, advance, evict, quiet, running, status_of


@FLOWS
async def test_event_names_ignore_case(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, ["Approval", "STRASSE"])

        await handle.raise_event("aPPROVAL", 1)
        await handle.raise_event("straße", 2)

        assert await handle.result(5) == [1, 2]


@FLOWS
async def test_events_of_one_name_are_taken_in_the_order_raised(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, ["x"] * 20)

        for n in range(20):
            await handle.raise_event("x", n)

        assert await handle.result(5) == list(range(20))


async def test_several_waiters_of_one_name_are_served_in_the_order_in_which_they_wait() -> None:
    local = App()

    @local.orchestration
    async def three(ctx: OrchestrationContext) -> list[Any]:
        tasks = [ctx.wait_for_external_event("x") for _ in range(3)]
        return await ctx.task_all(list(reversed(tasks)))

    async with running(local) as hub:
        handle = await hub.client.start_new(three)
        await quiet(hub)

        for n in range(3):
            await handle.raise_event("x", n)

        assert await handle.result(5) == [2, 1, 0]


@FLOWS
async def test_events_wait_until_somebody_wants_them(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, ["first", "second", "second"])

        await handle.raise_event("second", 1)
        await handle.raise_event("second", 2)
        await handle.raise_event("first", 0)

        assert await handle.result(5) == [0, 1, 2]


async def test_events_are_kept_for_an_instance_that_has_not_begun() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(takes, ["x", "y"], start_at=HOUR)

        await handle.raise_event("y", 2)
        await handle.raise_event("x", 1)
        status = await status_of(handle)
        await advance(hub, clock, 3600)

        assert status == RuntimeStatus.PENDING
        assert await handle.result(5) == [1, 2]


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_an_acknowledged_event_survives_a_restart(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        pending = await hub.client.start_new(takes, ["x"], start_at=HOUR, instance_id="pending")
        buffering = await hub.client.start_new(takes, ["a", "b"], instance_id="buffering")
        suspended = await hub.client.start_new(takes, ["x"], instance_id="suspended")
        await suspended.suspend()
        await pending.raise_event("x", "kept")
        await buffering.raise_event("b", "B")
        await suspended.raise_event("x", "held")

    clock = ManualClock(4_000_000_000_000_000)
    async with running(app, store, clock=clock) as hub:
        await hub.client.get_handle("buffering").raise_event("a", "A")
        await hub.client.get_handle("suspended").resume()

        assert await hub.client.get_handle("pending").result(5) == ["kept"]
        assert await hub.client.get_handle("buffering").result(5) == ["A", "B"]
        assert await hub.client.get_handle("suspended").result(5) == ["held"]


async def test_events_reach_an_evicted_orchestration_in_order() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(takes, ["x", "y", "x"])
        for name, data in [("x", 1), ("x", 3), ("y", 2)]:
            assert await evict(hub) == 1
            await handle.raise_event(name, data)

        assert await handle.result(5) == [1, 2, 3]
