"""What is called by its name takes JSON values, read as the receiver's annotation says."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from perdure import App, Client, EntityContext, EntityId, OrchestrationContext, PayloadError
from tests.runtime.orchestrating import events_of, evict, quiet, running


class Kind(enum.Enum):
    BOOK = "book"
    TOY = "toy"


@dataclass
class Order:
    number: int
    kind: Kind
    price: Decimal
    due: datetime
    lines: tuple[str, ...] = ("standard",)


app = App()
VALUES = {"number": 7, "kind": "toy", "price": "1.50", "due": "2026-01-02T03:04:05+00:00"}
ORDER = Order(7, Kind.TOY, Decimal("1.50"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
WRONG = {**VALUES, "number": "seven"}


def check(order: Order) -> str:
    assert order == ORDER
    return "as it should be"


@app.activity
async def ship(order: Order) -> str:
    return check(order)


@app.orchestration
async def sell(ctx: OrchestrationContext, order: Order) -> str:
    return check(order)


@app.entity
class Desk:
    seen: list[str] = []

    def take(self, order: Order) -> str:
        self.seen.append(check(order))
        return self.seen[-1]

    def pass_on(self, order: dict[str, Any], ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId("desk", "other"), "take", order)
        ctx.start_new("sell", order, instance_id="started")

    def get(self) -> list[str]:
        return self.seen


@app.orchestration
async def asks(ctx: OrchestrationContext, order: dict[str, Any]) -> list[str]:
    ctx.signal_entity(EntityId("desk", "signalled"), "take", order)
    return [
        await ctx.call_activity("ship", order),
        await ctx.call_sub_orchestrator("sell", order),
        await ctx.call_entity(EntityId("desk", "called"), "take", order),
    ]


@app.orchestration
async def waits(ctx: OrchestrationContext) -> str:
    return check(await ctx.wait_for_external_event("order", data_type=Order))


Call = Callable[[Client, Any], Awaitable[Any]]


async def start(client: Client, order: Any) -> Any:
    return await (await client.start_new("sell", order)).result(5)


async def start_asking(client: Client, order: Any) -> Any:
    return (await (await client.start_new(asks, order)).result(5))[0]


async def call(client: Client, order: Any) -> Any:
    return await client.call_entity(EntityId("desk", "a"), "take", order)


async def signal(client: Client, order: Any) -> Any:
    await client.signal_entity(EntityId("desk", "b"), "take", order)
    return (await client.call_entity(EntityId("desk", "b"), "get"))[-1]


async def signal_many(client: Client, order: Any) -> Any:
    await client.signal_entities([(EntityId("desk", "c"), "take", order)])
    return (await client.call_entity(EntityId("desk", "c"), "get"))[-1]


async def raise_event(client: Client, order: Any) -> Any:
    handle = await client.start_new(waits)
    await handle.raise_event("order", order)
    return await handle.result(5)


@pytest.mark.parametrize(
    "way",
    [start, start_asking, call, signal, signal_many, raise_event],
    ids=lambda way: way.__name__,
)
async def test_json_values_are_read_as_the_receiver_declares(way: Call) -> None:
    async with running(app) as hub:
        assert await way(hub.client, VALUES) == "as it should be"


@pytest.mark.parametrize(
    "way", [start, call, signal, signal_many, raise_event], ids=lambda way: way.__name__
)
async def test_values_of_another_type_are_refused_at_the_call_with_the_path(way: Call) -> None:
    async with running(app) as hub:
        with pytest.raises(PayloadError) as caught:
            await way(hub.client, WRONG)

    assert caught.value.path == "$.number"


@pytest.mark.parametrize("way", [start, call, signal], ids=lambda way: way.__name__)
async def test_an_object_of_the_declared_class_is_taken_too(way: Call) -> None:
    async with running(app) as hub:
        assert await way(hub.client, ORDER) == "as it should be"


async def test_json_values_for_a_function_are_still_refused() -> None:
    given: Any = VALUES
    async with running(app) as hub:
        with pytest.raises(PayloadError):
            await hub.client.start_new(sell, given)
        with pytest.raises(PayloadError):
            await hub.client.call_entity(EntityId(Desk, "a"), Desk.take, given)


async def test_actors_call_by_name_with_json_values_and_replay_the_same() -> None:
    async with running(app) as hub:
        await hub.client.call_entity(EntityId(Desk, "a"), Desk.pass_on, VALUES)
        await quiet(hub)
        others = [hub.client.get_handle("started"), await hub.client.start_new(asks, VALUES)]
        await evict(hub)

        assert await others[0].result(5) == "as it should be"
        assert await others[1].result(5) == ["as it should be"] * 3
        assert await hub.client.call_entity(EntityId(Desk, "other"), Desk.get) == [
            "as it should be"
        ]
        scheduled = events_of(await others[1].history(), "TaskScheduled")
        assert len(scheduled) == 1
