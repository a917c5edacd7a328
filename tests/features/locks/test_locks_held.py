"""What a lock does."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import Client, Hub, Store
from tests.features.locks.application import (
    Account,
    account,
    app,
    enter_without_yield,
    hold,
    hold_by_yield,
    holder,
    notes,
    until_free,
    until_locked,
)
from tests.runtime.harness import until


@pytest.mark.by_turns
async def test_a_lock_keeps_others_out_and_they_run_afterwards_in_order(store: Store) -> None:
    async with Hub(app, store=store) as hub:
        client = hub.client
        handle = await client.start_new(hold, "ab", instance_id="holder")
        await until_locked(handle)
        for text in ("one", "two", "three"):
            await client.signal_entity(account("a"), Account.note, text)
        waiting = await client.get_entity(account("a"))

        await handle.raise_event("go")

        assert await handle.result(10) == "released"
        assert await notes(client, "a") == ["inside holder", "one", "two", "three"]
        assert waiting is not None
        assert (waiting.locked_by, waiting.waiting, waiting.state) == ("holder", 3, None)


@pytest.mark.by_turns
async def test_the_status_of_a_locked_entity_names_its_holder_and_who_waits(store: Store) -> None:
    async def names(client: Client) -> tuple[str | None, tuple[str, ...]]:
        status = await client.get_entity(account("a"))
        assert status is not None
        return status.locked_by, status.lock_waiters

    async def become(client: Client, *expected: Any) -> None:
        async def ask() -> bool:
            return await names(client) == expected

        await until(ask)

    async with Hub(app, store=store) as hub:
        client = hub.client
        first = await client.start_new(hold, "a", instance_id="first")
        await until_locked(first)
        assert await names(client) == ("first", ())
        wait: tuple[str, ...] = ()
        for id in ("second", "third", "fourth"):
            await client.start_new(hold, "ab", instance_id=id)
            wait = (*wait, id)
            await become(client, "first", wait)
    async with Hub(app, store=store) as hub:
        client = hub.client
        assert await names(client) == ("first", ("second", "third", "fourth"))
        await client.terminate("third")
        await become(client, "first", ("second", "fourth"))
        await client.purge_instance("third")
        await client.raise_event("first", "go")
        await become(client, "second", ("fourth",))
        await client.terminate("second")
        await become(client, "fourth", ())
        await client.raise_event("fourth", "go")

        assert await client.wait("fourth") == "released"
        await become(client, None, ())


async def test_a_call_of_a_locked_entity_waits_for_the_release(client: Client) -> None:
    handle = await client.start_new(hold, "a")
    await until_locked(handle)

    with pytest.raises(TimeoutError):
        await client.call_entity(account("a"), Account.add, 5, timeout=0.02)
    await handle.raise_event("go")

    assert await client.call_entity(account("a"), Account.get, timeout=10) == 5


async def test_another_orchestrations_call_waits_for_the_release(client: Client) -> None:
    first = await client.start_new(hold, "ab", instance_id="first")
    await until_locked(first)
    second = await client.start_new(hold, "ba", instance_id="second")
    await second.raise_event("go")
    assert await holder(client, "a") == "first"

    await first.raise_event("go")

    assert await first.result(10) == "released"
    assert await second.result(10) == "released"
    assert await notes(client, "b") == ["inside first", "inside second"]


async def test_a_readonly_operation_does_not_wait_behind_a_lock(client: Client) -> None:
    await client.call_entity(account("a"), Account.add, 7)
    handle = await client.start_new(hold, "a")
    await until_locked(handle)
    await client.signal_entity(account("a"), Account.add, 1)

    value = await client.call_entity(account("a"), Account.peek, timeout=10)

    assert value == 7
    await handle.raise_event("go")
    assert await handle.result(10) == "released"


async def test_entities_not_locked_go_on(client: Client) -> None:
    handle = await client.start_new(hold, "a")
    await until_locked(handle)

    assert await client.call_entity(account("b"), Account.add, 1, timeout=10) == 1
    await handle.raise_event("go")
    await handle.result(10)


@pytest.mark.by_turns
async def test_the_status_shows_the_holder_and_a_query_finds_the_locked(store: Store) -> None:
    async with Hub(app, store=store) as hub:
        client = hub.client
        await client.call_entity(account("a"), Account.add, 1)
        await client.call_entity(account("c"), Account.add, 1)
        handle = await client.start_new(hold, "ab", instance_id="holder")
        await until_locked(handle)

        locked = [
            (status.entity_id.key, status.locked_by)
            async for status in client.query_entities(locked=True, include_empty=True)
        ]
        free = [s.entity_id.key async for s in client.query_entities(locked=False)]
        await handle.raise_event("go")
        await handle.result(10)
        await until_free(client, "a", "b")

        assert locked == [("a", "holder"), ("b", "holder")]
        assert free == ["c"]
        assert [s async for s in client.query_entities(locked=True, include_empty=True)] == []


async def test_a_lock_is_asked_for_sorted_and_without_doubles(client: Client) -> None:
    handle = await client.start_new(hold, "cabbac")
    await handle.raise_event("go")
    await handle.result(10)

    [request] = [e for e in await handle.history() if e.event_type == "EntityLockRequested"]

    assert request.fields["entity_ids"] == ["@account@a", "@account@b", "@account@c"]


async def test_the_generator_form_locks_and_releases(client: Client) -> None:
    handle = await client.start_new(hold_by_yield, "ab")
    await until_locked(handle)
    assert await holder(client, "b") == handle.instance_id
    await client.signal_entity(account("a"), Account.add, 10)

    await handle.raise_event("go")

    assert await handle.result(10) == [1, 1]
    assert await client.call_entity(account("a"), Account.get, timeout=10) == 11


async def test_a_lock_entered_before_it_was_yielded_is_refused(client: Client) -> None:
    handle = await client.start_new(enter_without_yield)

    assert "the lock is not granted yet: enter it by async with" in await handle.result(10)
    assert await client.call_entity(account("a"), Account.add, 1, timeout=10) == 1
