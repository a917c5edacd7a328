"""The custom status that an orchestration sets."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from perdure import App, OrchestrationContext, PayloadError
from tests.runtime.orchestrating import Flow, evict, quiet, running

app = App()


@app.orchestration
async def reports(ctx: OrchestrationContext, values: list[Any]) -> str:
    for value in values:
        ctx.set_custom_status("overwritten")
        ctx.set_custom_status(value)
        await ctx.wait_for_external_event("next")
    return "done"


@app.orchestration
def reports_by_yield(ctx: OrchestrationContext, values: list[Any]) -> Generator[Any, Any, str]:
    for value in values:
        ctx.set_custom_status("overwritten")
        ctx.set_custom_status(value)
        yield ctx.wait_for_external_event("next")
    return "done"


@pytest.mark.parametrize("flow", [reports, reports_by_yield])
async def test_each_custom_status_is_visible_at_the_next_checkpoint(flow: Flow) -> None:
    values = ["half", {"percent": 50, "list": [1, None]}, 7, None, False]
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, values)
        shown: list[Any] = []
        for _ in values:
            await evict(hub)
            shown.append((await handle.status()).custom_status)
            await handle.raise_event("next")

        assert await handle.result(5) == "done"
        assert shown == values
        assert (await handle.status()).custom_status is False


async def test_a_custom_status_of_a_first_turn_that_ends_is_kept() -> None:
    local = App()

    @local.orchestration
    async def once(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status({"at": "end"})

    async with running(local) as hub:
        handle = await hub.client.start_new(once)
        await handle.result(5)

        assert (await handle.status()).custom_status == {"at": "end"}


async def test_a_custom_status_survives_failure_and_termination() -> None:
    local = App()

    @local.orchestration
    async def fails(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status("failing")
        raise ValueError("bad")

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status("waiting")
        await ctx.wait_for_external_event("never")

    async with running(local) as hub:
        failed = await hub.client.start_new(fails)
        terminated = await hub.client.start_new(waits)
        await terminated.terminate()
        await quiet(hub)

        assert (await failed.status()).custom_status == "failing"
        assert (await terminated.status()).custom_status == "waiting"


async def test_a_custom_status_without_json_form_is_refused_at_the_call() -> None:
    local = App()

    @local.orchestration
    async def bad(ctx: OrchestrationContext) -> str:
        try:
            ctx.set_custom_status(object())
        except PayloadError as error:
            return type(error).__name__
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(bad)

        assert await handle.result(5) == "PayloadError"
        assert (await handle.status()).custom_status is None
