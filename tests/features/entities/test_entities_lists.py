"""Lists of entities."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

import perdure
from perdure import Client, EntityId, Hub, ManualClock, Store, UsageError
from tests.features.entities.application import Counter, Journal, app
from tests.runtime.harness import made


async def test_query_entities_finds_by_name_prefix_time_and_in_order() -> None:
    clock = ManualClock()
    async with Hub(app, clock=clock) as hub:
        client = hub.client
        for key in ("b2", "a1", "b1", "c"):
            await client.call_entity(EntityId(Counter, key), Counter.add, 1)
        clock.advance(10)
        middle = datetime.fromtimestamp(clock.now() / 1e6, UTC)
        await client.call_entity(EntityId(Journal, "b3"), Journal.note, "x")

        async def found(**conditions: Any) -> list[str]:
            return [str(s.entity_id) async for s in client.query_entities(**conditions)]

        assert await found() == [
            "@counter@a1",
            "@counter@b1",
            "@counter@b2",
            "@counter@c",
            "@journal@b3",
        ]
        assert await found(name="Counter", key_prefix="b") == ["@counter@b1", "@counter@b2"]
        assert await found(key_prefix="b") == ["@counter@b1", "@counter@b2", "@journal@b3"]
        assert await found(updated_from=middle) == ["@journal@b3"]
        assert await found(name="counter", updated_to=middle, key_prefix="c") == ["@counter@c"]
        assert await found(locked=True) == []
        assert await found(parked=True) == []
        assert await found(name="nothing") == []


@pytest.mark.by_turns
@pytest.mark.parametrize("page_size", [1, 3, 10, 25, 26])
async def test_query_entities_gives_each_once_whatever_the_page_size(
    store: Store, page_size: int
) -> None:
    async with Hub(app, store=store) as hub:
        await hub.client.signal_entities(
            [(EntityId(Counter, f"{i:02}"), Counter.add, i) for i in range(25)]
        )

        keys = [
            (status.entity_id.key, status.state.value if status.state else None)
            async for status in hub.client.query_entities(page_size=page_size)
        ]

    assert keys == [(f"{i:02}", i) for i in range(25)]


async def test_query_entities_goes_on_behind_an_entity_also_one_that_is_gone(
    client: Client,
) -> None:
    for key in ("a", "b", "c", "d"):
        await client.signal_entity(EntityId(Counter, key), Counter.add, 1)
        await client.call_entity(EntityId(Counter, key), Counter.get)
    await client.purge_entity(EntityId(Counter, "b"))

    found = client.query_entities(name=Counter, after=EntityId(Counter, "b"), page_size=1)

    assert [one.entity_id.key async for one in found] == ["c", "d"]


async def test_query_entities_may_leave_the_states_out(client: Client) -> None:
    await client.call_entity(EntityId(Counter, "a"), Counter.add, 1)

    [status] = [one async for one in client.query_entities(states=False)]

    assert status.state is None


@pytest.mark.parametrize("size", [0, -1, 10_001])
async def test_a_bad_page_size_is_refused(client: Client, size: int) -> None:
    with pytest.raises(UsageError, match="1 to 10,000"):
        [one async for one in client.query_entities(page_size=size)]


@pytest.mark.by_turns
async def test_an_entity_without_state_is_listed_only_if_asked_for_and_cleaned_away(
    store: Store,
) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        client = hub.client
        await client.signal_entity(counter, Counter.fail_after_adding, 1)
        await client.call_entity(EntityId(Counter, "b"), Counter.add, 1)

        listed = [s.entity_id.key async for s in client.query_entities()]
        all_listed = [
            (s.entity_id.key, s.exists) async for s in client.query_entities(include_empty=True)
        ]
        result = await client.clean_entity_storage()

        assert listed == ["b"]
        assert all_listed == [("a", False), ("b", True)]
        assert result.empty_entities_removed == 1
        assert await client.get_entity(counter) is None
        assert await client.read_entity_state(EntityId(Counter, "b")) == made(Counter, value=1)
        assert await client.clean_entity_storage() == perdure.CleanResult(0, 0)


@pytest.mark.by_turns
async def test_purge_entity_deletes_the_state(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(counter, Counter.add, 5)
        await hub.client.signal_entity(counter, Counter.fail_after_adding, 5)

        await hub.client.purge_entity(counter)

        assert await hub.client.get_entity(counter) is None
        assert await hub.client.call_entity(counter, Counter.add, 1) == 1
        status = await hub.client.get_entity(counter)
        assert status is not None
        assert status.failed_signals == 0

    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(counter, Counter.get) == 1


async def test_purging_forgets_the_count_of_failed_signals(client: Client) -> None:
    counter = EntityId(Counter, "a")
    await client.signal_entity(counter, Counter.fail_after_adding, 5)
    await client.purge_entity(counter)

    await client.signal_entity(counter, Counter.fail_after_adding, 5)

    status = await client.get_entity(counter)
    assert status is not None
    assert status.failed_signals == 1
