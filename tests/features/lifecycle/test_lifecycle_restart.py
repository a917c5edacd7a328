"""Restart."""

from __future__ import annotations

import pytest

from perdure import App, InstanceAlreadyExistsError, InstanceNotFoundError, OrchestrationContext
from tests.features.lifecycle.application import app
from tests.runtime.orchestrating import running


@app.orchestration
async def echoes(ctx: OrchestrationContext, data: dict[str, int]) -> dict[str, int]:
    await ctx.wait_for_external_event("go")
    return data


async def test_restart_starts_the_same_under_a_new_id() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(echoes, {"a": 1}, tags={"t": "1"}, instance_id="x")
        await first.raise_event("go")
        await first.result(5)

        second = await first.restart()

        assert second.instance_id != "x"
        status = await second.status()
        assert (status.name, status.input, status.tags) == ("echoes", {"a": 1}, {"t": "1"})
        await second.raise_event("go")
        assert await second.result(5) == {"a": 1}


async def test_restart_under_the_same_id_needs_an_instance_that_has_ended() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(echoes, {"a": 1}, instance_id="x")
        with pytest.raises(InstanceAlreadyExistsError):
            await handle.restart(with_new_instance_id=False)
        await handle.terminate()

        again = await handle.restart(with_new_instance_id=False)

        assert again.instance_id == "x"
        assert (await again.status()).execution == 2
        await again.raise_event("go")
        assert await again.result(5) == {"a": 1}


async def test_restart_keeps_the_version() -> None:
    local = App()

    @local.orchestration(name="v", version="1")
    async def first(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    @local.orchestration(name="v", version="2")
    async def second(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    async with running(local) as hub:
        handle = await hub.client.start_new(first)
        assert await handle.result(5) == "1"

        again = await handle.restart()

        assert await again.result(5) == "1"


async def test_restart_of_an_unknown_instance_is_refused() -> None:
    async with running(app) as hub:
        with pytest.raises(InstanceNotFoundError):
            await hub.client.restart("nobody")

        assert [status async for status in hub.client.query()] == []
