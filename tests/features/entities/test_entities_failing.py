"""Operations that fail."""

from __future__ import annotations

import logging
from datetime import UTC
from typing import Any

import anyio
import pytest

import perdure
from perdure import Client, EntityId, EntityOperationError, Hub, Store
from tests.features.entities.application import Cart, Counter, Journal, Line, app, seen
from tests.runtime.harness import made, until


async def test_a_failing_operation_rolls_back_its_own_change_and_only_its_own(
    client: Client,
) -> None:
    counter = EntityId(Counter, "a")
    outcomes: list[Any] = []

    async def call(op: str, amount: int) -> None:
        try:
            outcomes.append(await client.call_entity(counter, op, amount))
        except EntityOperationError as error:
            outcomes.append(error.message)

    async with anyio.create_task_group() as tasks:
        for op, amount in [("add", 1), ("fail_after_adding", 10), ("add", 100)]:
            tasks.start_soon(call, op, amount)

    assert "no luck" in outcomes
    assert {1, 100} & set(outcomes)  # whichever addition came first
    assert 101 in outcomes
    assert await client.call_entity(counter, Counter.get) == 101


async def test_a_failure_carries_type_message_and_traceback(client: Client) -> None:
    with pytest.raises(EntityOperationError) as caught:
        await client.call_entity(EntityId(Counter, "a"), Counter.fail_after_adding, 1)

    error = caught.value
    assert (error.target, error.error_type) == ("@counter@a.fail_after_adding", "ValueError")
    assert error.message == "no luck"
    assert "fail_after_adding" in error.stack_trace


async def test_a_failing_first_operation_leaves_no_entity_behind(store: Store) -> None:
    counter = EntityId(Counter, "a")

    async with Hub(app, store=store) as hub:
        with pytest.raises(EntityOperationError):
            await hub.client.call_entity(counter, Counter.fail_after_adding, 1)

        assert await hub.client.read_entity_state(counter) is None
        assert await hub.client.get_entity(counter) is None


async def test_in_place_changes_of_all_kinds_of_fields_are_rolled_back(store: Store) -> None:
    cart = EntityId(Cart, "c")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(cart, Cart.add, Line("a", ["new"]))
        before = await hub.client.read_entity_state(cart)

        with pytest.raises(EntityOperationError, match="spoilt"):
            await hub.client.call_entity(cart, Cart.spoil)
        lines = await hub.client.call_entity(cart, Cart.get_lines)

        assert lines == [Line("a", ["new"])]
        assert await hub.client.read_entity_state(cart) == before


async def test_a_failing_operation_takes_its_messages_and_starts_back(client: Client) -> None:
    journal = EntityId(Journal, "a")
    await client.call_entity(journal, Journal.note, "kept")

    with pytest.raises(EntityOperationError, match="after telling"):
        await client.call_entity(journal, Journal.tell_and_fail, "b")
    await client.call_entity(journal, Journal.tell, "b")

    async def arrived() -> bool:
        return bool(await seen(client, "b"))

    await until(arrived)
    assert await seen(client, "a") == ["kept"]
    assert await seen(client, "b") == ["from a"]
    assert await client.get_status("started-for-b") is None


@pytest.mark.by_turns
async def test_a_failed_signal_is_logged_counted_and_listed(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(counter, Counter.add, 1)
        with caplog.at_level(logging.ERROR, "perdure"):
            for amount in range(12):
                await hub.client.signal_entity(counter, Counter.fail_after_adding, amount)

    async with Hub(app, store=store) as hub:
        status = await hub.client.get_entity(counter)

    assert status is not None
    assert status.failed_signals == 12
    assert len(status.failures) == 10
    at, operation, kind, message = status.failures[-1]
    assert (operation, kind, message) == ("fail_after_adding", "ValueError", "no luck")
    assert at.tzinfo is UTC
    assert status.state == made(Counter, value=1)
    assert caplog.text.count("@counter@a.fail_after_adding failed") == 12


async def test_a_failed_call_is_not_listed_among_the_failed_signals(client: Client) -> None:
    counter = EntityId(Counter, "a")
    await client.call_entity(counter, Counter.add, 1)

    with pytest.raises(EntityOperationError):
        await client.call_entity(counter, Counter.fail_after_adding, 1)

    status = await client.get_entity(counter)
    assert status is not None
    assert (status.failed_signals, status.failures) == (0, [])


@app.entity
class Bad:
    value: int = 0
    items: list[int] = []

    def set_wrong_type(self) -> None:
        self.value = "text"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]

    def fill_wrongly(self, count: int) -> int:
        self.items = [1] * count
        self.items.append(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return count

    def fill(self, count: int) -> int:
        self.items = [1] * count
        return count

    def give_wrong_type(self) -> int:
        self.value = 5
        return "text"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("op", ["set_wrong_type", "give_wrong_type"])
async def test_a_state_or_result_that_cannot_be_stored_fails_the_operation(
    client: Client, op: str
) -> None:
    bad = EntityId(Bad, "b")
    await client.call_entity(bad, Bad.fill, 1)

    with pytest.raises(EntityOperationError) as caught:
        await client.call_entity(bad, op)

    assert caught.value.error_type == "PayloadError"
    assert await client.read_entity_state(bad) == made(Bad, value=0, items=[1])


@pytest.mark.by_turns
@pytest.mark.parametrize("op", ["fill", "fill_wrongly"])
async def test_a_large_state_that_cannot_be_stored_fails_the_operation_that_made_it_so(
    op: str,
) -> None:
    bad = EntityId(Bad, "b")

    async with Hub(app, settings=perdure.Settings(max_payload=50_000)) as hub:
        client = hub.client
        await client.call_entity(bad, Bad.fill, 5_000)
        for _ in range(5):
            # A large state is checked at the checkpoint. Nothing of that one is stored, and
            # repeating the call then tells what is wrong with it.
            with pytest.raises((EntityOperationError, perdure.UnavailableError)):
                await client.call_entity(bad, op, 30_000)
            with pytest.raises(EntityOperationError) as caught:
                await client.call_entity(bad, op, 30_000)
            assert caught.value.error_type in ("PayloadError", "PayloadTooLargeError")

        assert await client.call_entity(bad, Bad.fill, 3) == 3
        assert await client.read_entity_state(bad) == made(Bad, value=0, items=[1] * 3)
