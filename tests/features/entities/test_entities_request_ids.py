"""Calls and signals of entities under request ids."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from perdure import EntityId, EntityOperationError, Hub, ManualClock, Store
from tests.features.entities.application import Counter, app, until_exists


@pytest.mark.by_turns
async def test_a_call_repeated_under_its_request_id_is_applied_once(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        first = await hub.client.call_entity(counter, Counter.add, 5, request_id="r1")
        await hub.client.call_entity(counter, Counter.add, 100)

        second = await hub.client.call_entity(counter, Counter.add, 5, request_id="r1")

    async with Hub(app, store=store) as hub:
        third = await hub.client.call_entity(counter, Counter.add, 5, request_id="r1")
        assert (first, second, third) == (5, 5, 5)
        assert await hub.client.call_entity(counter, Counter.get) == 105


@pytest.mark.by_turns
async def test_a_failed_call_repeated_under_its_request_id_fails_alike(store: Store) -> None:
    counter = EntityId(Counter, "a")

    async with Hub(app, store=store) as hub:
        for _ in range(2):
            with pytest.raises(EntityOperationError, match="no luck"):
                await hub.client.call_entity(counter, Counter.fail_after_adding, 5, request_id="r1")


@pytest.mark.by_turns
async def test_a_signal_repeated_under_its_request_id_is_applied_once(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.signal_entity(counter, Counter.add, 5, request_id="r1")
        await hub.client.signal_entity(counter, Counter.add, 5, request_id="r1")

    async with Hub(app, store=store) as hub:
        await hub.client.signal_entity(counter, Counter.add, 5, request_id="r1")
        assert await hub.client.call_entity(counter, Counter.get) == 5


@pytest.mark.by_turns
async def test_calls_under_one_request_id_at_the_same_time_are_applied_once(store: Store) -> None:
    counter = EntityId(Counter, "a")
    results: list[int] = []

    async with Hub(app, store=store) as hub:

        async def call() -> None:
            results.append(await hub.client.call_entity(counter, Counter.add, 5, request_id="r1"))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call)

    assert results == [5] * 5


@pytest.mark.by_turns
async def test_delayed_signals_under_one_request_id_at_the_same_time_are_applied_once(
    store: Store,
) -> None:
    clock = ManualClock()
    counter = EntityId(Counter, "a")
    delay = timedelta(seconds=60)

    async with Hub(app, store=store, clock=clock) as hub:
        client = hub.client

        async def send() -> None:
            await client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(send)
        clock.advance(61)
        await until_exists(client, counter)

        assert await client.call_entity(counter, Counter.get) == 5
