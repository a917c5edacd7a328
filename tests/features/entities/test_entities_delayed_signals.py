"""Signals of entities that are for later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import Client, EntityId, Hub, InvalidTimeError, ManualClock, Store
from tests.features.entities.application import (
    Counter,
    Journal,
    app,
    seen,
    until_exists,
    write_later,
)
from tests.runtime.harness import until


async def test_a_delayed_signal_arrives_at_its_time_and_not_before(store: Store) -> None:
    clock = ManualClock()
    journal = EntityId(Journal, "j")
    async with Hub(app, store=store, clock=clock) as hub:
        client = hub.client
        await client.signal_entity(journal, Journal.note, "delayed", at=timedelta(seconds=60))
        clock.advance(59)
        before = await seen(client, "j")

        clock.advance(1)

        async def arrived() -> bool:
            return await seen(client, "j") == ["delayed"]

        await until(arrived)
        assert before == []


@pytest.mark.by_turns
async def test_a_delayed_signal_arrives_after_a_restart(store: Store) -> None:
    clock = ManualClock()
    journal = EntityId(Journal, "j")
    at = datetime.fromtimestamp(clock.now() / 1e6, UTC) + timedelta(seconds=60)
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.signal_entity(journal, Journal.note, "delayed", at=at)
        clock.advance(30)

    async with Hub(app, store=store, clock=clock) as hub:
        before = await hub.client.get_entity(journal)
        clock.advance(30)
        await until_exists(hub.client, journal)

        assert before is None
        assert await seen(hub.client, "j") == ["delayed"]


@pytest.mark.by_turns
async def test_a_delayed_signal_that_came_due_while_the_hub_was_down_arrives_once(
    store: Store,
) -> None:
    clock = ManualClock()
    journal = EntityId(Journal, "j")
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.signal_entity(journal, Journal.note, "delayed", at=timedelta(seconds=60))
    clock.advance(3_600)

    for _ in range(2):
        async with Hub(app, store=store, clock=clock) as hub:
            await until_exists(hub.client, journal)

    async with Hub(app, store=store, clock=clock) as hub:
        assert await seen(hub.client, "j") == ["delayed"]


@pytest.mark.by_turns
async def test_a_delayed_signal_repeated_under_its_request_id_is_applied_once(
    store: Store,
) -> None:
    clock = ManualClock()
    counter = EntityId(Counter, "a")
    delay = timedelta(seconds=60)
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")
        await hub.client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")

    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")
        clock.advance(61)
        await until_exists(hub.client, counter)
        await hub.client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")
        clock.advance(61)

        assert await hub.client.call_entity(counter, Counter.get) == 5


async def test_a_signal_for_a_past_time_arrives_at_once(client: Client) -> None:
    journal = EntityId(Journal, "j")

    await client.signal_entity(journal, Journal.note, "x", at=datetime(2000, 1, 1, tzinfo=UTC))
    await until_exists(client, journal)

    assert await seen(client, "j") == ["x"]


@pytest.mark.parametrize("at", [datetime(2030, 1, 1), timedelta(seconds=-1)])  # noqa: DTZ001
async def test_a_naive_time_or_negative_delay_of_a_signal_is_refused(
    client: Client, at: Any
) -> None:
    with pytest.raises(InvalidTimeError):
        await client.signal_entity(EntityId(Counter, "a"), Counter.add, 1, at=at)


@pytest.mark.by_turns
async def test_an_orchestrations_delayed_signals_arrive_across_a_restart(store: Store) -> None:
    clock = ManualClock()
    async with Hub(app, store=store, clock=clock) as hub:
        handle = await hub.client.start_new(write_later, "j")
        await handle.result(10)
        await until_exists(hub.client, EntityId(Journal, "j"))
        assert await seen(hub.client, "j") == ["past"]

    async with Hub(app, store=store, clock=clock) as hub:
        for expected in (["past", "delay"], ["past", "delay", "time"]):
            clock.advance(60)

            async def arrived(expected: list[str] = expected) -> bool:
                return await seen(hub.client, "j") == expected

            await until(arrived)


@pytest.mark.by_turns
async def test_an_entitys_delayed_signal_arrives_across_a_restart(store: Store) -> None:
    clock = ManualClock()
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.call_entity(EntityId(Journal, "a"), Journal.tell_later, "b")
        assert await seen(hub.client, "b") == []

    async with Hub(app, store=store, clock=clock) as hub:
        clock.advance(60)

        async def arrived() -> bool:
            return await seen(hub.client, "b") == ["later from a"]

        await until(arrived)
