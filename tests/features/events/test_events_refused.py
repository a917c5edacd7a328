"""External events that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import (
    App,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidIdError,
    OrchestrationContext,
    PayloadError,
    PayloadTooLargeError,
)
from tests.features.events.application import app, takes
from tests.runtime.orchestrating import event_types, evict, quiet, running


async def test_an_event_for_an_unknown_instance_is_refused() -> None:
    async with running(app) as hub:
        with pytest.raises(InstanceNotFoundError, match="nobody"):
            await hub.client.raise_event("nobody", "x")

        assert await hub.client.get_status("nobody") is None


@pytest.mark.parametrize("ending", ["Completed", "Failed", "Terminated", "Canceled"])
async def test_an_event_for_an_instance_that_has_ended_is_refused(ending: str) -> None:
    local = App()

    @local.orchestration
    async def ends(ctx: OrchestrationContext) -> None:
        if await ctx.wait_for_external_event("how") == "Failed":
            raise ValueError("as asked")

    async with running(local) as hub:
        handle = await hub.client.start_new(ends)
        if ending == "Terminated":
            await handle.terminate()
        elif ending == "Canceled":
            await handle.cancel()
        else:
            await handle.raise_event("how", ending)
        await quiet(hub)
        before = await event_types(handle)

        for _ in range(2):
            with pytest.raises(InstanceFinishedError, match=ending):
                await handle.raise_event("x")
            await evict(hub)

        assert await event_types(handle) == before


async def test_bad_names_and_data_are_refused_and_nothing_is_stored() -> None:
    async with running(app, max_payload=100) as hub:
        handle = await hub.client.start_new(takes, ["x"])
        await quiet(hub)
        before = await event_types(handle)

        for name in ("", "a\n", 5):
            bad: Any = name
            with pytest.raises(InvalidIdError):
                await handle.raise_event(bad)
        with pytest.raises(PayloadTooLargeError):
            await handle.raise_event("x", "y" * 100)
        with pytest.raises(PayloadError):
            await handle.raise_event("x", object())

        assert await event_types(handle) == before
