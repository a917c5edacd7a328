"""Entities that orchestrations call and signal."""

from __future__ import annotations

import pytest

from perdure import Client, Hub, Store
from tests.features.entities.application import add_by_yield, app, call_failing, seen, write


@pytest.mark.by_turns
async def test_an_orchestrations_signals_and_calls_reach_an_entity_in_order(store: Store) -> None:
    async with Hub(app, store=store) as hub:
        for i in range(5):
            handle = await hub.client.start_new(write, f"j{i}")
            await handle.result(10)

            assert await seen(hub.client, f"j{i}") == ["one", "two", "three"]


async def test_a_generator_orchestration_signals_and_calls(client: Client) -> None:
    handle = await client.start_new(add_by_yield, "a")

    assert await handle.result(10) == [15, 15]


async def test_a_failing_call_surfaces_in_the_orchestration_and_is_rolled_back(
    client: Client,
) -> None:
    handle = await client.start_new(call_failing, "a")

    assert await handle.result(10) == [
        "@counter@a.fail_after_adding",
        "ValueError",
        "no luck",
        1,
    ]
