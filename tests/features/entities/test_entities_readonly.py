"""Read-only operations."""

from __future__ import annotations

import anyio
import pytest

from perdure import Client, EntityId, Hub, Store
from tests.features.entities.application import Counter, Keeper, app, new_gate
from tests.runtime.harness import FaultyStore, made


@pytest.mark.by_turns
async def test_a_readonly_operation_sees_the_latest_state_and_writes_none(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(counter, Counter.add, 5)

        assert await hub.client.call_entity(counter, Counter.peek) == 5
        assert await hub.client.call_entity(counter, Counter.peek_and_touch) == 1_005
        assert await hub.client.call_entity(counter, Counter.peek) == 5
        assert await hub.client.call_entity(counter, Counter.add, 1) == 6
        assert await hub.client.read_entity_state(counter) == made(Counter, value=6)


async def test_a_readonly_async_operation_writes_nothing_either(client: Client) -> None:
    opened, _ = new_gate("peek")
    opened.set()
    counter = EntityId(Counter, "a")
    await client.call_entity(counter, Counter.add, 5)

    assert await client.call_entity(counter, Counter.peek_slowly) == 5
    assert await client.read_entity_state(counter) == made(Counter, value=5)


async def test_a_readonly_operation_does_not_make_an_entity(client: Client) -> None:
    counter = EntityId(Counter, "a")

    value = await client.call_entity(counter, Counter.peek)

    assert value == 0
    assert await client.get_entity(counter) is None


async def test_a_readonly_operation_is_answered_when_the_state_it_saw_is_durable() -> None:
    store = FaultyStore()
    counter = EntityId(Counter, "a")
    committing, go_on = anyio.Event(), anyio.Event()
    answers: list[int] = []

    async def hold(_: object) -> None:
        committing.set()
        await go_on.wait()

    async with Hub(app, store=store) as hub:
        client = hub.client
        await client.call_entity(counter, Counter.get)

        async def peek() -> None:
            answers.append(await client.call_entity(counter, Counter.peek))

        async with anyio.create_task_group() as tasks:
            store.faults.before_commit = hold
            tasks.start_soon(client.call_entity, counter, Counter.add, 7)
            await committing.wait()
            tasks.start_soon(peek)
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            early = list(answers)
            go_on.set()
            assert early == []

    assert answers == [7]


async def test_a_readonly_operation_cannot_delete(client: Client) -> None:
    keeper = EntityId(Keeper, "k")
    await client.call_entity(keeper, Keeper.keep, "x")

    await client.call_entity(keeper, Keeper.try_to_delete)

    assert await client.read_entity_state(keeper) == made(Keeper, items=["x"])
