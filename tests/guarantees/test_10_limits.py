"""Guarantee 10: no value over ``max_payload`` goes in or comes out, by any way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio.lowlevel
import pytest

from perdure import (
    App,
    Client,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    OrchestrationContext,
    OrchestrationFailedError,
    PayloadTooLargeError,
    Settings,
)

LIMIT = 2_000
MUCH = LIMIT * "x"

app = App()


@app.entity
class Box:
    text: str = ""

    def much(self) -> str:
        return MUCH

    async def much_later(self) -> str:
        await anyio.lowlevel.checkpoint()
        return MUCH

    def keep(self) -> None:
        self.text = MUCH

    async def keep_later(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.text = MUCH

    def send(self, text: str, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Box, "other"), Box.take, text + MUCH)

    def take(self, text: str) -> None:
        self.text = text


@app.activity
async def fetch(text: str) -> str:
    return MUCH


@app.orchestration
async def give(ctx: OrchestrationContext, how: str) -> Any:
    if how == "return":
        return MUCH
    if how == "status":
        ctx.set_custom_status(MUCH)
    if how == "activity":
        await ctx.call_activity(fetch, "x")
    if how == "input":
        await ctx.call_activity(fetch, MUCH)
    if how == "event":
        ctx.send_event("nobody", "event", MUCH)
    if how == "child":
        await ctx.call_sub_orchestrator(give, "return")
    if how == "entity":
        await ctx.call_entity(EntityId(Box, "b"), Box.much)
    if how == "again":
        ctx.continue_as_new(MUCH)
    return None


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Hub(app, partitions=1, settings=Settings(max_payload=LIMIT)) as hub:
        yield hub.client


B = EntityId(Box, "b")

REFUSED: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "tags": lambda c: c.start_new(give, "", tags={"a": MUCH}),
    "start": lambda c: c.start_new(give, MUCH),
    "call": lambda c: c.call_entity(B, Box.take, MUCH),
    "signal": lambda c: c.signal_entity(B, Box.take, MUCH),
    "signals": lambda c: c.signal_entities([(B, Box.take, MUCH)]),
    "event": lambda c: c.raise_event("nobody", "event", MUCH),
}


@pytest.mark.parametrize("way", REFUSED)
async def test_what_goes_in_is_refused_at_the_call(client: Client, way: str) -> None:
    with pytest.raises(PayloadTooLargeError):
        await REFUSED[way](client)


@pytest.mark.parametrize("operation", [Box.much, Box.much_later, Box.keep, Box.keep_later])
async def test_a_result_or_state_that_is_too_large_fails_the_operation(
    client: Client, operation: Any
) -> None:
    with pytest.raises(EntityOperationError) as raised:
        await client.call_entity(B, operation)

    assert raised.value.error_type == "PayloadTooLargeError"
    assert await client.read_entity_state(B) is None


async def test_what_an_entity_sends_is_bounded(client: Client) -> None:
    with pytest.raises(EntityOperationError, match="PayloadTooLargeError"):
        await client.call_entity(B, Box.send, "x")


@pytest.mark.parametrize(
    "way", ["return", "status", "activity", "input", "event", "child", "entity", "again"]
)
async def test_what_an_orchestration_gives_or_gets_is_bounded(client: Client, way: str) -> None:
    handle = await client.start_new(give, way)

    with pytest.raises(OrchestrationFailedError) as raised:
        await handle.result(10)

    assert "PayloadTooLargeError" in str(raised.value)
