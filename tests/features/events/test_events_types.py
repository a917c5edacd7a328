"""The types of what external events carry."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from perdure import (
    App,
    EventDataError,
    FailedError,
    ManualClock,
    OrchestrationContext,
    PayloadError,
    RuntimeStatus,
)
from tests.runtime.orchestrating import HOUR, event_types, evict, quiet, running, status_of


@attrs.define
class Approval:
    approved: bool
    by: str = ""


async def test_data_type_gives_typed_data() -> None:
    local = App()

    @local.orchestration
    async def approve(ctx: OrchestrationContext) -> str:
        approval = await ctx.wait_for_external_event("approval", data_type=Approval)
        return f"{type(approval).__name__} {approval.approved} {approval.by}"

    async with running(local) as hub:
        waiting = await hub.client.start_new(approve)
        buffered = await hub.client.start_new(approve, start_at=HOUR)
        await waiting.raise_event("approval", {"approved": True, "by": "Ada"})
        await buffered.raise_event("approval", Approval(False))

        assert await waiting.result(5) == "Approval True Ada"
        assert await status_of(buffered) == RuntimeStatus.PENDING


typed = App()


@typed.orchestration
async def wants_ints(ctx: OrchestrationContext, way: str) -> list[Any]:
    if way == "not waiting yet":
        await ctx.wait_for_external_event("go")
    try:
        await ctx.wait_for_external_event("n", data_type=list[int])
    except EventDataError as error:
        mro = type(error).__mro__
        kinds = [FailedError in mro, PayloadError in mro]
        found = [kinds, error.target, error.path, error.reason, error.error_type]
        return [*found, await ctx.wait_for_external_event("n", data_type=int)]
    return ["taken"]


@typed.orchestration
async def sends_ints(ctx: OrchestrationContext, to: str) -> None:
    ctx.send_event(to, "n", [1, "two"])


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_clients_event_of_another_type_is_refused_and_nothing_is_recorded(
    evicted: bool,
) -> None:
    async with running(typed) as hub:
        handle = await hub.client.start_new(wants_ints, "waits", instance_id="x")
        if evicted:
            await evict(hub)
        with pytest.raises(PayloadError, match="event 'n' of 'x'") as caught:
            await handle.raise_event("N", [1, "two"], request_id="r")
        assert not isinstance(caught.value, EventDataError)
        assert caught.value.path == "$[1]"
        assert "EventRaised" not in await event_types(handle)
        await handle.raise_event("n", [1, 2], request_id="r")

        assert await handle.result(5) == ["taken"]


@pytest.mark.parametrize("way", ["not waiting yet", "suspended", "scheduled", "from an actor"])
async def test_data_of_another_type_that_were_taken_in_raise_at_the_wait(way: str) -> None:
    clock = ManualClock()
    async with running(typed, clock=clock) as hub:
        start_at = HOUR if way == "scheduled" else None
        handle = await hub.client.start_new(wants_ints, way, instance_id="x", start_at=start_at)
        if way == "suspended":
            await handle.suspend()
        if way == "from an actor":
            await (await hub.client.start_new(sends_ints, "x")).result(5)
        else:
            await handle.raise_event("n", [1, "two"])
        await evict(hub)
        if way == "suspended":
            await handle.resume()
        elif way == "scheduled":
            clock.advance(3600)
        elif way == "not waiting yet":
            await handle.raise_event("go")
        await quiet(hub)
        await evict(hub)
        await handle.raise_event("n", 5)

        kinds, target, path, reason, kind, value = await handle.result(5)

        assert (kinds, target, path, kind, value) == (
            [True, True],
            "event 'n'",
            "$[1]",
            "PayloadError",
            5,
        )
        assert "int" in reason


async def test_an_event_is_held_against_the_wait_that_will_take_it() -> None:
    local = App()

    @local.orchestration
    async def two_waits(ctx: OrchestrationContext) -> list[Any]:
        first = ctx.wait_for_external_event("n", data_type=int)
        second = ctx.wait_for_external_event("n", data_type=str)
        return await ctx.task_all([first, second])

    async with running(local) as hub:
        handle = await hub.client.start_new(two_waits)
        with pytest.raises(PayloadError):
            await handle.raise_event("n", "one")
        await handle.raise_event("n", 1)
        with pytest.raises(PayloadError):
            await handle.raise_event("n", 2)
        await handle.raise_event("n", "two")

        assert await handle.result(5) == [1, "two"]
