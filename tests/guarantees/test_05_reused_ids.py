"""Guarantee 5: a request id is for one request; under the id of another, a request is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest

import perdure
from perdure import (
    App,
    Client,
    EntityId,
    Hub,
    MemoryStore,
    OrchestrationContext,
    RequestIdReusedError,
    SqliteStore,
    UsageError,
)
from perdure.runtime.placement.hashing import partition_of
from tests.faults import FaultyStore, settle

app = App()


@app.entity
class Account:
    cents: int = 0

    def pay(self, cents: int) -> int:
        self.cents += cents
        return self.cents

    def refund(self, cents: int) -> int:
        self.cents -= cents
        return self.cents


@app.orchestration
async def order(ctx: OrchestrationContext, item: str) -> Any:
    return [item, await ctx.wait_for_external_event("paid")]


@app.orchestration
async def other(ctx: OrchestrationContext, item: str) -> Any:
    return item


A, B = EntityId(Account, "a"), EntityId(Account, "b")
ID = "order-1"

Request = Callable[[Client], Awaitable[Any]]

#: Requests with the same id, each of which is another one.
REQUESTS: dict[str, Request] = {
    "pay": lambda c: c.call_entity(A, Account.pay, 5, request_id=ID),
    "pay more": lambda c: c.call_entity(A, Account.pay, 7, request_id=ID),
    "pay another": lambda c: c.call_entity(B, Account.pay, 5, request_id=ID),
    "refund": lambda c: c.call_entity(A, Account.refund, 5, request_id=ID),
    "signal": lambda c: c.signal_entity(A, Account.pay, 5, request_id=ID),
    "signal later": lambda c: c.signal_entity(A, Account.refund, 5, at=0.01, request_id=ID),
    "start": lambda c: c.start_new(order, "pen", request_id=ID),
    "start with another input": lambda c: c.start_new(order, "ink", request_id=ID),
    "start another": lambda c: c.start_new(other, "pen", request_id=ID),
    "start as": lambda c: c.start_new(order, "pen", instance_id="x", request_id=ID),
    "start with tags": lambda c: c.start_new(order, "pen", tags={"a": "b"}, request_id=ID),
    "event": lambda c: c.raise_event("live", "paid", 5, request_id=ID),
    "another event": lambda c: c.raise_event("live", "sent", 5, request_id=ID),
    "event with other data": lambda c: c.raise_event("live", "paid", 6, request_id=ID),
}


async def prepare(client: Client) -> None:
    await client.start_new(order, "pen", instance_id="live", on_existing="reuse")


@pytest.mark.parametrize("first", REQUESTS)
async def test_an_id_that_was_used_for_another_request_is_refused(first: str) -> None:
    async with Hub(app, partitions=4) as hub:
        await prepare(hub.client)
        await REQUESTS[first](hub.client)

        for name, request in REQUESTS.items():
            if name != first:
                with pytest.raises(RequestIdReusedError, match=r"order-1.* was used for") as raised:
                    await request(hub.client)
                assert isinstance(raised.value, UsageError)
        await REQUESTS[first](hub.client)


async def test_the_error_says_what_the_id_was_used_for() -> None:
    async with Hub(app) as hub:
        await REQUESTS["pay"](hub.client)
        with pytest.raises(RequestIdReusedError) as raised:
            await REQUESTS["refund"](hub.client)

    assert (raised.value.request_id, raised.value.used_for) == (ID, "a call of @account@a.pay")


@pytest.mark.by_turns
@pytest.mark.parametrize("first", ["pay", "start", "event", "signal later"])
async def test_it_is_refused_also_after_a_restart_and_a_repetition_is_not(
    tmp_path: Path, first: str
) -> None:
    store = SqliteStore(tmp_path / "hub")
    async with Hub(app, store=store) as hub:
        await prepare(hub.client)
        answer = await REQUESTS[first](hub.client)

    async with Hub(app, store=SqliteStore(tmp_path / "hub")) as hub:
        for name, request in REQUESTS.items():
            if name != first:
                with pytest.raises(RequestIdReusedError):
                    await request(hub.client)
        again = await REQUESTS[first](hub.client)

    assert getattr(again, "instance_id", again) == getattr(answer, "instance_id", answer)


@pytest.mark.parametrize("one", ["pay", "pay another", "start"])
@pytest.mark.parametrize("two", ["pay more", "refund", "start another", "signal later"])
async def test_of_two_requests_at_once_with_one_id_one_is_applied(one: str, two: str) -> None:
    outcomes: list[str] = []

    async def ask(client: Client, name: str) -> None:
        try:
            await REQUESTS[name](client)
            outcomes.append("applied")
        except RequestIdReusedError:
            outcomes.append("refused")

    async with Hub(app) as hub, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, hub.client, one)
        tasks.start_soon(ask, hub.client, two)

    assert sorted(outcomes) == ["applied", "refused"]


class HeldLookup(FaultyStore):
    """No request id is looked up for a while."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.let_go = anyio.Event()

    async def deliver(self, method: str, partition: int) -> None:
        if method == "read_request":
            await self.let_go.wait()


async def test_an_id_of_another_partition_is_kept_though_its_first_request_was_given_up() -> None:
    store, first, answers = HeldLookup(MemoryStore()), anyio.CancelScope(), list[int]()
    id = next(f"{n}" for n in range(99) if partition_of(f"{n}", 4) != partition_of(str(A), 4))

    async with Hub(app, store=store, partitions=4) as hub:

        async def give_up() -> None:
            with first:
                await hub.client.call_entity(A, Account.pay, 5, request_id=id)

        async def repeat() -> None:
            answers.append(await hub.client.call_entity(A, Account.pay, 5, request_id=id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up)
            await settle()
            tasks.start_soon(repeat)
            await settle()
            first.cancel()
            await settle()
            store.let_go.set()

        with pytest.raises(RequestIdReusedError):
            await hub.client.call_entity(B, Account.pay, 5, request_id=id)
    assert answers == [5]


async def test_repetitions_at_once_are_applied_once_and_answered_alike() -> None:
    answers: list[int] = []

    async def ask(client: Client) -> None:
        answers.append(await client.call_entity(A, Account.pay, 5, request_id=ID))

    async with Hub(app) as hub:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask, hub.client)

        assert await hub.client.call_entity(A, Account.pay, 0) == 5
    assert answers == [5] * 5


async def test_a_client_of_another_process_is_refused_as_well(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with Hub(app, socket=path) as hub:
        await hub.client.call_entity(A, Account.pay, 5, request_id=ID)
        async with perdure.connect(path, app) as client:
            await prepare(client)
            assert await client.call_entity(A, Account.pay, 5, request_id=ID) == 5
            for name, request in REQUESTS.items():
                if name != "pay":
                    with pytest.raises(RequestIdReusedError):
                        await request(client)


async def test_what_an_older_release_stored_is_taken_for_a_repetition() -> None:
    store = MemoryStore()
    async with Hub(app, store=store, partitions=1) as hub:
        await hub.client.call_entity(A, Account.pay, 5, request_id=ID)
    [rows] = store.rows
    stored = rows.requests[ID]
    rows.requests[ID] = stored._replace(body=orjson.dumps(orjson.loads(stored.body)[:2]))

    async with Hub(app, store=store, partitions=1) as hub:
        assert await hub.client.call_entity(A, Account.pay, 7, request_id=ID) == 5


def _shop(currency: bool, size: str) -> tuple[App, Any, Any, Any]:
    """An app whose input's class has, or has not yet, a field with a default."""
    more = [("currency", str, dataclasses.field(default="EUR"))] if currency else []
    coin = dataclasses.make_dataclass("Coin", [("cents", int), *more])
    money = dataclasses.make_dataclass(
        "Money",
        [("cents", int), ("note", str), ("coins", list[coin]), *more],  # type: ignore[valid-type]
    )
    shop = App()

    class Till:
        cents: int = 0

        def pay(self, money: Any) -> int:
            self.cents += money.cents
            return self.cents

    async def sale(ctx: OrchestrationContext, money: Any) -> int:
        return int(money.cents)

    def worth(cents: int, note: str = NOTES[size][0], *more: str) -> Any:
        return money(cents, note, [coin(n) for n in range(NOTES[size][1])], *more)

    Till.pay.__annotations__["money"] = sale.__annotations__["money"] = money
    return shop, worth, shop.entity(Till), shop.orchestration(sale)


#: A note and a number of coins, of requests that are kept in several ways.
NOTES = {
    "small": ("", 0),
    "nearly large": ("x" * 830, 0),
    "a long text": ("é" * 500_000, 3),
    "many parts": ("", 1_000),
}


@pytest.mark.by_turns
@pytest.mark.parametrize("size", NOTES)
@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("first", [False, True])
async def test_a_repetition_is_one_also_when_the_class_of_its_input_got_a_field(
    tmp_path: Path, first: bool, partitions: int, size: str
) -> None:
    path = tmp_path / "hub"
    for currency in (first, not first):
        shop, money, till, sale = _shop(currency, size)
        async with Hub(shop, store=SqliteStore(path), partitions=partitions) as hub:
            client = hub.client
            for n in range(4):  # some of these ids are in another partition than the target
                a = EntityId(till, "a")
                paid = await client.call_entity(a, till.pay, money(5), request_id=f"pay-{n}")
                assert paid == 5 * (n + 1)
            await client.start_new(sale, money(5), instance_id="s", request_id="sale")

    shop, money, till, sale = _shop(not first, size)
    async with Hub(shop, store=SqliteStore(path), partitions=partitions) as hub:
        a = EntityId(till, "a")
        note = NOTES[size][0]
        others = [money(6), money(5, note + "x")]
        if not first:
            others.append(money(5, note, "USD"))
        for other in others:
            with pytest.raises(RequestIdReusedError):
                await hub.client.call_entity(a, till.pay, other, request_id="pay-1")
            with pytest.raises(RequestIdReusedError):
                await hub.client.start_new(sale, other, instance_id="s", request_id="sale")


@pytest.mark.parametrize("size", [2, 500, 30_000])
async def test_the_order_of_keys_does_not_make_another_request(size: int) -> None:
    ordered = {str(n): n for n in range(size)}
    turned = dict(reversed(ordered.items()))
    async with Hub(app) as hub:
        await prepare(hub.client)
        await hub.client.raise_event("live", "paid", ordered, request_id=ID)
        await hub.client.raise_event("live", "paid", turned, request_id=ID)
        with pytest.raises(RequestIdReusedError):
            await hub.client.raise_event("live", "paid", turned | {"0": 1}, request_id=ID)
