"""Entities among themselves."""

from __future__ import annotations

import pytest

from perdure import Client, EntityId, EntityOperationError
from tests.features.entities.application import Journal, new_gate, seen, write
from tests.runtime.harness import until


async def test_an_entity_signals_others_and_itself(client: Client) -> None:
    await client.call_entity(EntityId(Journal, "a"), Journal.tell, "b")
    await client.call_entity(EntityId(Journal, "a"), Journal.count_down, 3)

    async def arrived() -> bool:
        return await seen(client, "b") == ["from a"] and len(await seen(client, "a")) == 4

    await until(arrived)
    assert await seen(client, "a") == ["3", "2", "1", "0"]


async def test_an_entity_starts_an_orchestration_under_the_id_it_gave(client: Client) -> None:
    started = await client.call_entity(EntityId(Journal, "a"), Journal.start, "b")

    async def there() -> bool:
        return await client.get_status(started) is not None

    await until(there)
    assert started == "started-for-b"
    assert await client.get_handle(started).result(10) == "b"


async def test_an_entity_starts_an_orchestration_under_an_id_that_is_made_up(
    client: Client,
) -> None:
    id = EntityId(Journal, "a")

    first = await client.call_entity(id, Journal.start_with_any_id, "b")
    second = await client.call_entity(id, Journal.start_with_any_id, "c")

    async def there() -> bool:
        return None not in [await client.get_status(one) for one in (first, second)]

    await until(there)
    assert [await client.get_handle(one).result(10) for one in (first, second)] == ["b", "c"]


async def test_starting_an_id_that_is_live_leaves_that_instance_alone(client: Client) -> None:
    opened, begun = new_gate("hold")
    await client.signal_entity(EntityId(Journal, "b"), Journal.slow_note, "hold")
    await begun.wait()
    await client.start_new(write, "b", instance_id="started-for-b")

    await client.call_entity(EntityId(Journal, "a"), Journal.start, "b")
    opened.set()
    await client.get_handle("started-for-b").result(10)

    status = await client.get_status("started-for-b")
    assert status is not None
    assert status.execution == 1
    assert (await seen(client, "b")).count("three") == 1


async def test_starting_an_unknown_orchestration_fails_the_operation(client: Client) -> None:
    with pytest.raises(EntityOperationError) as caught:
        await client.call_entity(EntityId(Journal, "a"), Journal.start_unknown)

    assert caught.value.error_type == "UnknownNameError"
