"""Async operations."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from perdure import Client, EntityId, EntityOperationError, Hub, Store
from tests.features.entities.application import Counter, Journal, app, new_gate, seen
from tests.runtime.harness import made


async def test_an_async_operation_that_never_suspends_is_like_a_sync_one(client: Client) -> None:
    result = await client.call_entity(EntityId(Journal, "j"), Journal.at_once, "x")

    assert result == "x"
    assert await seen(client, "j") == ["x"]


async def test_operations_behind_an_async_one_wait_for_it_in_order(client: Client) -> None:
    opened, begun = new_gate("first")
    journal = EntityId(Journal, "j")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, journal, Journal.slow_note, "first")
        await begun.wait()
        for text in ("second", "third"):
            await client.signal_entity(journal, Journal.note, text)
        before = await client.read_entity_state(journal)
        opened.set()
        assert before is None

    assert await seen(client, "j") == ["begun first", "done first", "second", "third"]


async def test_other_entities_go_on_during_an_async_operation(client: Client) -> None:
    opened, begun = new_gate("slow")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, EntityId(Journal, "j"), Journal.slow_note, "slow")
        await begun.wait()
        others = [
            await client.call_entity(EntityId(Counter, str(i)), Counter.add, i) for i in range(50)
        ]
        opened.set()
        assert others == list(range(50))


async def test_many_async_operations_are_under_way_at_the_same_time(client: Client) -> None:
    opened, begun = new_gate("crowd")
    results: list[str] = []

    async def call(key: str) -> None:
        results.append(await client.call_entity(EntityId(Journal, key), Journal.slow_note, "crowd"))

    async with anyio.create_task_group() as tasks:
        for i in range(200):
            tasks.start_soon(call, str(i))
        await begun.wait()
        opened.set()

    assert results == ["crowd"] * 200


async def test_a_checkpoint_during_an_async_operation_stores_the_state_before_it(
    store: Store,
) -> None:
    opened, begun = new_gate("slow")
    journal = EntityId(Journal, "j")

    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(journal, Journal.note, "before")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_entity, journal, Journal.slow_note, "slow")
            await begun.wait()
            await client.call_entity(EntityId(Counter, "a"), Counter.add, 1)
            during = await client.read_entity_state(journal)
            opened.set()
            assert during == made(Journal, seen=["before"])

        assert await seen(client, "j") == ["before", "begun slow", "done slow"]


async def test_a_change_just_before_an_async_operation_is_stored_without_the_operations_own(
    store: Store,
) -> None:
    opened, begun = new_gate("slow")
    journal = EntityId(Journal, "j")

    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client

        # Both in one turn, so that the first is not committed when the second begins.
        await client.signal_entities(
            [(journal, Journal.note, "first"), (journal, Journal.slow_note, "slow")]
        )
        await begun.wait()
        during = await client.read_entity_state(journal)
        opened.set()

        assert await seen(client, "j") == ["first", "begun slow", "done slow"]
        assert during == made(Journal, seen=["first"])
        assert await client.read_entity_state(journal) == made(
            Journal, seen=["first", "begun slow", "done slow"]
        )


async def test_a_failing_async_operation_is_rolled_back_with_its_messages(client: Client) -> None:
    opened, _ = new_gate("bad")
    opened.set()
    journal = EntityId(Journal, "j")
    await client.call_entity(journal, Journal.note, "kept")

    with pytest.raises(EntityOperationError, match="bad"):
        await client.call_entity(journal, Journal.slow_fail, "bad")

    assert await seen(client, "j") == ["kept"]
    assert await seen(client, "other") == []


async def test_timeouts_work_inside_an_async_operation(client: Client) -> None:
    assert await client.call_entity(EntityId(Journal, "j"), Journal.within, 0.001) is True


@app.entity
class Canceller:
    value: int = 0

    async def raise_it(self) -> None:
        self.value = 5
        raise asyncio.CancelledError

    async def raise_it_late(self) -> None:
        self.value = 5
        await anyio.lowlevel.checkpoint()
        raise asyncio.CancelledError

    async def await_a_cancelled_task(self) -> None:
        self.value = 5
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    def set(self, value: int) -> int:
        self.value = value
        return self.value


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio has no such exception
@pytest.mark.parametrize("op", ["raise_it", "raise_it_late", "await_a_cancelled_task"])
async def test_an_operation_that_raises_a_cancellation_of_its_own_has_failed(
    client: Client, op: str
) -> None:
    canceller = EntityId(Canceller, "c")
    await client.call_entity(canceller, Canceller.set, 1)

    with anyio.fail_after(10), pytest.raises(EntityOperationError) as caught:
        await client.call_entity(canceller, op)

    assert caught.value.error_type == "CancelledError"
    assert await client.read_entity_state(canceller) == made(Canceller, value=1)
    assert await client.call_entity(canceller, Canceller.set, 2, timeout=10) == 2
