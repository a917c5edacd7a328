"""Calls and signals from clients."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import (
    Client,
    EntityId,
    Hub,
    InvalidIdError,
    PayloadError,
    Store,
    UnknownNameError,
    UsageError,
)
from tests.features.entities.application import Counter, Journal, Point, app, new_gate, seen
from tests.runtime.harness import made


async def test_a_clients_call_returns_the_result_and_its_effect_is_durable(store: Store) -> None:
    counter = EntityId(Counter, "a")

    async with Hub(app, store=store) as hub:
        first = await hub.client.call_entity(counter, Counter.add, 5)
        second = await hub.client.call_entity(counter, Counter.add)
        durable = await hub.client.read_entity_state(counter)

    assert (first, second) == (5, 6)
    assert durable == made(Counter, value=6)


async def test_a_call_by_name_does_what_a_call_by_function_does(client: Client) -> None:
    await client.call_entity(EntityId("COUNTER", "a"), "add", 5)

    assert await client.call_entity(EntityId(Counter, "a"), Counter.get) == 5


async def test_entity_names_ignore_case_and_keys_do_not(client: Client) -> None:
    await client.call_entity(EntityId("CouNTer", "a"), "add", 1)
    await client.call_entity(EntityId("counter", "A"), "add", 10)

    assert await client.call_entity(EntityId("COUNTER", "a"), "get") == 1
    assert await client.call_entity(EntityId("COUNTER", "A"), "get") == 10


async def test_a_clients_signal_is_applied_when_the_call_after_it_is(client: Client) -> None:
    counter = EntityId(Counter, "a")

    for _ in range(10):
        await client.signal_entity(counter, Counter.add, 2)

    assert await client.call_entity(counter, Counter.get) == 20


@pytest.mark.by_turns
async def test_an_acknowledged_signal_survives_a_restart(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.signal_entity(counter, Counter.add, 7)

    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(counter, Counter.get) == 7


async def test_a_batch_of_signals_is_applied_in_order(client: Client) -> None:
    journal = EntityId(Journal, "j")

    await client.signal_entities(
        [(journal, Journal.note, str(i)) for i in range(50)]
        + [(EntityId(Counter, str(i)), Counter.add, i) for i in range(50)]
        + [(EntityId(Counter, "default"), "add", perdure.MISSING)]
    )

    assert await seen(client, "j") == [str(i) for i in range(50)]
    assert await client.read_entity_state(EntityId(Counter, "49")) == made(Counter, value=49)
    assert await client.read_entity_state(EntityId(Counter, "default")) == made(Counter, value=1)


async def test_a_batch_with_one_bad_signal_sends_none(client: Client) -> None:
    counter = EntityId(Counter, "a")

    with pytest.raises(PayloadError):
        await client.signal_entities([(counter, Counter.add, 1), (counter, Counter.add, "x")])

    assert await client.get_entity(counter) is None


async def test_an_empty_batch_of_signals_is_fine(client: Client) -> None:
    await client.signal_entities([])

    assert [status async for status in client.query_entities()] == []


@pytest.mark.parametrize(
    ("entity", "op", "input", "error", "text"),
    [
        ("countr", "add", 1, UnknownNameError, "counter"),
        ("counter", "ad", 1, UnknownNameError, "add"),
        ("counter", "_value", perdure.MISSING, UnknownNameError, "_value"),
        ("counter", "add", "five", PayloadError, "int"),
        ("counter", "get", 5, UsageError, "takes no input"),
        ("journal", "note", perdure.MISSING, UsageError, "needs an input"),
        ("journal", "note", "x" * 2_000_000, PayloadError, "limit"),
    ],
)
async def test_a_bad_call_or_signal_is_refused_at_the_door_and_nothing_is_stored(
    client: Client, entity: str, op: str, input: Any, error: type[UsageError], text: str
) -> None:
    id = EntityId[Any](entity, "k")

    with pytest.raises(error, match=text):
        await client.call_entity(id, op, input)
    with pytest.raises(error, match=text):
        await client.signal_entity(id, op, input)

    assert [status async for status in client.query_entities(include_empty=True)] == []


@pytest.mark.parametrize("key", ["", "x" * 257, "a\nb", 5])
def test_a_bad_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidIdError):
        EntityId("counter", key)


def test_a_class_that_is_no_entity_has_no_entity_id() -> None:
    with pytest.raises(UsageError, match="decorate it"):
        EntityId(Point, "k")


async def test_a_call_that_gets_no_answer_in_time_raises_and_is_applied_all_the_same(
    client: Client,
) -> None:
    opened, begun = new_gate("late")

    with pytest.raises(TimeoutError, match=r"@journal@j\.slow_note"):
        await client.call_entity(EntityId(Journal, "j"), Journal.slow_note, "late", timeout=0.01)
    await begun.wait()
    opened.set()

    assert await seen(client, "j") == ["begun late", "done late"]


async def test_a_call_in_time_is_not_bothered_by_its_timeout(client: Client) -> None:
    result = await client.call_entity(EntityId(Counter, "a"), Counter.add, 5, timeout=60)

    assert result == 5
