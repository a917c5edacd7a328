"""Function entities."""

from __future__ import annotations

import pytest

from perdure import Client, EntityId, EntityOperationError, Hub, Store
from tests.features.entities.application import app, slow_tally, tally


@pytest.mark.by_turns
async def test_a_function_entity_keeps_state_and_gives_results(store: Store) -> None:
    id = EntityId(tally, "t")

    async with Hub(app, store=store) as hub:
        results = [await hub.client.call_entity(id, "vote", name) for name in ("a", "b", "a")]

    async with Hub(app, store=store) as hub:
        assert results == [1, 1, 2]
        assert await hub.client.read_entity_state(id) == {"a": 2, "b": 1}
        assert await hub.client.call_entity(EntityId("TALLY", "t"), "vote", "b") == 2


async def test_a_function_entitys_failure_is_rolled_back(client: Client) -> None:
    id = EntityId(tally, "t")
    await client.call_entity(id, "vote", "a")

    with pytest.raises(EntityOperationError, match="spoilt"):
        await client.call_entity(id, "spoil")
    with pytest.raises(EntityOperationError, match="unknown operation nonsense"):
        await client.call_entity(id, "nonsense")

    assert await client.read_entity_state(id) == {"a": 1}
    assert await client.call_entity(id, "vote", "a") == 2


@pytest.mark.by_turns
@pytest.mark.parametrize("op", ["reset", "drop"])
async def test_a_function_entity_whose_state_is_none_is_deleted(store: Store, op: str) -> None:
    id = EntityId(tally, "t")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(id, "vote", "a")

        await hub.client.call_entity(id, op)

        assert await hub.client.get_entity(id) is None
        assert await hub.client.call_entity(id, "vote", "a") == 1


@pytest.mark.by_turns
async def test_a_function_entity_may_be_async(store: Store) -> None:
    id = EntityId(slow_tally, "t")

    async with Hub(app, store=store) as hub:
        results = [await hub.client.call_entity(id, "any") for _ in range(3)]

    async with Hub(app, store=store) as hub:
        assert results == [1, 2, 3]
        assert await hub.client.read_entity_state(id) == 3
