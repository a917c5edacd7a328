"""More entities than memory may hold."""

from __future__ import annotations

import pytest

import perdure
from perdure import Client, EntityId, Hub, Store
from perdure.testing.inside import partitions_of
from tests.features.entities.application import Counter, app
from tests.runtime.harness import partition_here, until_true


@pytest.mark.by_turns
async def test_totals_are_exact_with_far_more_entities_than_are_kept_in_memory(
    store: Store,
) -> None:
    settings = perdure.Settings(cached_actors_max=20)
    count, rounds = 2_000, 3

    async with Hub(app, store=store, settings=settings, partitions=2) as hub:
        for _ in range(rounds):
            for start in range(0, count, 250):
                await hub.client.signal_entities(
                    [(EntityId(Counter, str(i)), Counter.add, 1) for i in range(start, start + 250)]
                )
        kept = sum(len(partition.activations) for partition in partitions_of(hub))
        total = 0
        async for status in hub.client.query_entities(page_size=500):
            assert status.state is not None
            total += status.state.value

    assert total == count * rounds
    assert kept < count // 2  # about what two checkpoints touched


async def test_a_locked_and_an_idle_entity_are_evicted_and_come_back_with_all_they_had(
    hub: Hub, client: Client
) -> None:
    counter = EntityId(Counter, "a")
    await client.call_entity(counter, Counter.add, 5)
    await client.signal_entity(counter, Counter.fail_after_adding, 5)
    partition = partition_here(hub, str(counter))
    await until_true(lambda: not partition.has_work)

    partition.catalog.evict(10)
    evicted = partition.catalog.evict(10)

    assert evicted == 1
    assert str(counter) not in partition.activations
    assert await client.call_entity(counter, Counter.get) == 5
    status = await client.get_entity(counter)
    assert status is not None
    assert status.failed_signals == 1
