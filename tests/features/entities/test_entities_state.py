"""The state of an entity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from perdure import (
    App,
    Client,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    ManualClock,
    Store,
    UnknownNameError,
)
from tests.features.entities.application import (
    Cart,
    Counter,
    Journal,
    Line,
    Point,
    Square,
    app,
    seen,
)
from tests.runtime.harness import FaultyStore, made


async def test_the_state_of_an_entity_that_never_was_is_none(client: Client) -> None:
    assert await client.read_entity_state(EntityId(Counter, "nobody")) is None
    assert await client.get_entity(EntityId(Counter, "nobody")) is None


async def test_reading_the_state_of_an_unknown_entity_is_refused(client: Client) -> None:
    with pytest.raises(UnknownNameError):
        await client.read_entity_state(EntityId("nothing", "k"))


@pytest.mark.by_turns
async def test_the_state_read_is_a_typed_object_of_all_kinds_of_fields(store: Store) -> None:
    cart = EntityId(Cart, "c")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(cart, Cart.add, Line("a", ["new"]))
        await hub.client.call_entity(cart, Cart.add, Line("b"))

    async with Hub(app, store=store) as hub:
        state = await hub.client.read_entity_state(cart)

    assert state == made(
        Cart,
        lines=[Line("a", ["new"]), Line("b")],
        prices={"a": 1.5, "b": 1.5},
        owners={"a", "b"},
        at=Point(2),
    )


async def test_a_mutable_default_is_fresh_for_each_entity(client: Client) -> None:
    await client.call_entity(EntityId(Cart, "a"), Cart.add, Line("x"))

    assert await client.call_entity(EntityId(Cart, "b"), Cart.get_lines) == []


async def test_the_state_read_is_the_last_committed_one() -> None:
    store = FaultyStore()
    counter = EntityId(Counter, "a")
    committing, go_on = anyio.Event(), anyio.Event()

    async def hold(_: object) -> None:
        committing.set()
        await go_on.wait()

    async with Hub(app, store=store) as hub:
        client = hub.client
        await client.call_entity(counter, Counter.add, 1)
        store.faults.before_commit = hold

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_entity, counter, Counter.add, 10)
            await committing.wait()
            during = await client.read_entity_state(counter)
            go_on.set()
            assert during == made(Counter, value=1)

        assert await client.read_entity_state(counter) == made(Counter, value=11)


@pytest.mark.by_turns
@pytest.mark.parametrize("op", ["clear", "delete"])
async def test_a_deleted_entity_has_no_state_and_begins_anew(store: Store, op: str) -> None:
    journal = EntityId(Journal, "j")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(journal, Journal.note, "x")
        await hub.client.call_entity(journal, op)
        assert await hub.client.read_entity_state(journal) is None
        assert await hub.client.get_entity(journal) is None

    async with Hub(app, store=store) as hub:
        assert await hub.client.get_entity(journal) is None
        await hub.client.call_entity(journal, Journal.note, "y")
        assert await seen(hub.client, "j") == ["y"]


async def test_an_entity_may_define_delete_itself() -> None:
    own = App()

    @own.entity
    class Account:
        balance: int = 10

        def delete(self, ctx: EntityContext) -> str:
            if self.balance:
                raise ValueError("not empty")
            ctx.delete()
            return "deleted"

        def empty(self) -> None:
            self.balance = 0

    account = EntityId(Account, "a")

    async with Hub(own) as hub:
        with pytest.raises(EntityOperationError, match="not empty"):
            await hub.client.call_entity(account, Account.delete)
        await hub.client.call_entity(account, Account.empty)
        assert await hub.client.call_entity(account, Account.delete) == "deleted"
        assert await hub.client.read_entity_state(account) is None


async def test_inherited_operations_and_fields_are_the_entitys(client: Client) -> None:
    square = EntityId(Square, "s")

    renamed = await client.call_entity(square, Square.rename, "box")
    area = await client.call_entity(square, Square.area)

    assert (renamed, area) == ("box", 4.0)
    assert await client.read_entity_state(square) == made(Square, name="box", side=2.0)


async def test_the_context_may_come_before_or_behind_the_input(client: Client) -> None:
    journal = EntityId(Journal, "j")

    first = await client.call_entity(journal, "context_first", "x")
    last = await client.call_entity(journal, Journal.context_last, "x")

    assert first == "j/@journal@j/context_first/x"
    assert last == "j/@journal@j/context_last/x"


async def test_the_context_gives_the_hubs_time_in_utc() -> None:
    clock = ManualClock()

    async with Hub(app, clock=clock) as hub:
        time = await hub.client.call_entity(EntityId(Journal, "j"), Journal.context_only)

    assert time == datetime.fromtimestamp(clock.now() / 1e6, UTC)
    assert time.utcoffset() == timedelta(0)
