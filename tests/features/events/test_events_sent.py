"""Events that orchestrations send to one another."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from perdure import App, InstanceFinishedError, OrchestrationContext, OrchestrationFailedError
from tests.features.events.application import app, takes
from tests.runtime.orchestrating import Flow, event_types, quiet, running


@app.orchestration
async def sends(ctx: OrchestrationContext, target: str) -> str:
    for n in range(5):
        ctx.send_event(target, "X", n)
    return "sent"


@app.orchestration
def sends_by_yield(ctx: OrchestrationContext, target: str) -> Generator[Any, Any, str]:
    for n in range(5):
        ctx.send_event(target, "X", n)
    yield ctx.task_all([])
    return "sent"


@pytest.mark.parametrize("flow", [sends, sends_by_yield])
@pytest.mark.parametrize("target", ["target-0", "target-1", "target-2", "target-3"])
async def test_an_orchestration_sends_events_to_another_in_order(flow: Flow, target: str) -> None:
    async with running(app, partitions=4) as hub:
        receiver = await hub.client.start_new(takes, ["x"] * 5, instance_id=target)
        sender = await hub.client.start_new(flow, target)

        assert await sender.result(5) == "sent"
        assert await receiver.result(5) == list(range(5))


async def test_an_event_sent_to_an_unknown_or_ended_instance_is_dropped() -> None:
    async with running(app) as hub:
        ended = await hub.client.start_new(takes, list[str](), instance_id="ended")
        await ended.result(5)

        for target in ("ended", "nobody"):
            sender = await hub.client.start_new(sends, target)
            assert await sender.result(5) == "sent"
        await quiet(hub)

        assert await hub.client.get_status("nobody") is None
        assert "EventRaised" not in await event_types(ended)


async def test_an_event_sent_again_under_its_request_id_arrives_once() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(takes, ["x", "x"])
        for _ in range(3):
            await handle.raise_event("x", 1, request_id="once")

        await handle.raise_event("x", 2, request_id="other")

        assert await handle.result(5) == [1, 2]


async def test_a_failing_orchestration_takes_no_more_events() -> None:
    local = App()

    @local.orchestration
    async def fails(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("x")
        raise ValueError("bad")

    async with running(local) as hub:
        handle = await hub.client.start_new(fails)
        await handle.raise_event("x")

        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        with pytest.raises(InstanceFinishedError):
            await handle.raise_event("x")
