# mypy: ignore-errors
# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportAssignmentType=false, reportOptionalMemberAccess=false
# The lines above keep the checks of the whole tree quiet; test_typing.py checks without them.
"""Mistakes in a user's program; each line marked ``# error`` must be reported, and no other."""

from __future__ import annotations

from datetime import timedelta

from sample_program import (
    Counter,
    Order,
    Shelf,
    ShoppingBasket,
    Visits,
    app,
    beat,
    beat_later,
    branch,
    collect,
    double,
    fetch,
    page,
    parse,
    roll,
    ship_later,
    ship_order,
    tick,
    who_called,
)

import perdure
from perdure import Client, EntityContext, EntityId, OrchestrationContext


async def in_an_orchestration(ctx: OrchestrationContext, order: Order) -> None:
    counter = EntityId(Counter, "clicks")
    basket = EntityId(ShoppingBasket, "mine")

    await ctx.call_activity(fetch, 5)  # error
    await ctx.call_activity(fetch)  # error
    await ctx.call_activity(roll, 5)  # error
    await ctx.call_activity(ship_order, "book")  # error
    await ctx.call_activity(parse, b"page", retry=3)  # error
    length: int = await ctx.call_activity(fetch, "url")  # error
    (await ctx.call_activity(roll)).upper()  # error
    await ctx.call_activity(42)  # error
    await ctx.call_activity(page, "one")  # error
    await ctx.call_activity(beat, "one")  # error
    await ctx.call_activity(beat_later, "one")  # error
    await ctx.call_activity(tick, 5)  # error
    await ctx.call_activity(who_called, 5)  # error
    await ctx.call_activity(ship_order)  # error
    await ctx.call_activity(ship_later)  # error
    await ctx.call_activity(fetch, "url", "url")  # error
    await ctx.call_activity(double, 1)  # error

    await ctx.call_sub_orchestrator(double, "one")  # error
    await ctx.call_sub_orchestrator(double)  # error
    text: str = await ctx.call_sub_orchestrator(collect, ["url"])  # error
    await ctx.call_sub_orchestrator(fetch, "url")  # error
    await ctx.call_sub_orchestrator(roll)  # error

    await ctx.call_entity(counter, Counter.add, "one")  # error
    await ctx.call_entity(counter, Counter.push)  # error
    await ctx.call_entity(counter, Counter.slow, 5)  # error
    await ctx.call_entity(counter, Counter.slow_push, 5)  # error
    await ctx.call_entity(counter, Counter.get, 5)  # error
    await ctx.call_entity(basket, Counter.get)  # error
    await ctx.call_entity(counter, Counter.slow)  # error
    await ctx.call_entity(counter, Counter.poke, 5)  # error
    await ctx.call_entity(counter, Counter.peek, 5)  # error
    await ctx.call_entity(counter, Counter.add, 5, 6)  # error
    await ctx.call_entity(EntityId(Shelf, "top"), Shelf.put, {"a": ["b"]})  # error
    await ctx.call_entity(EntityId(Shelf, "top"), Shelf.find, 5)  # error
    await ctx.call_entity(EntityId(Shelf, "top"), Shelf.find_later, 5)  # error
    await ctx.call_entity("@counter@clicks", Counter.get)  # error
    await ctx.call_entity(counter, 5)  # error
    state: str = await ctx.call_entity(counter, Counter.get)  # error
    ctx.signal_entity(counter, Counter.add, "one")  # error
    ctx.signal_entity(basket, ShoppingBasket.put, "book")  # error
    ctx.signal_entity(basket, ShoppingBasket.put)  # error
    ctx.signal_entity(counter, Counter.add, 5, at="noon")  # error
    ctx.signal_entity(counter, Counter.push, 5)  # error
    ctx.signal_entity(counter, Counter.push)  # error
    ctx.signal_entity(counter, Counter.slow_push, 5)  # error
    ctx.signal_entity(counter, Counter.poke, 5)  # error
    ctx.signal_entity(counter, Counter.reset, 5)  # error
    ctx.signal_entity(counter, Visits.add, 5)  # error
    ctx.lock_entities("@counter@clicks")  # error
    EntityId(5, "key")  # error
    EntityId(Counter, 5)  # error

    flag: bool = await ctx.wait_for_external_event("go", data_type=str)  # error
    numbers: list[int] = await ctx.task_all([ctx.call_activity(roll)])  # error
    await ctx.task_all([fetch("url")])  # error
    ctx.create_timer("60")  # error
    async with ctx.create_task_group() as tasks:
        tasks.start_soon(branch, ctx, 5)  # error
    print(length, text, state, flag, numbers, order, timedelta)


perdure.combine(Counter.reset)  # error
perdure.combine("add")  # error


@app.entity(stripes="many")  # error
class Wrong:
    total: int = 0

    def add(self, amount: int) -> None:
        self.total += amount

    @perdure.combine(add)  # error
    @staticmethod
    def add_all(amounts: list[str]) -> int:
        return len(amounts)

    @perdure.combine(add)  # error
    @staticmethod
    def add_most(amounts: list[int]) -> str:
        return str(amounts)


def in_an_operation(ctx: EntityContext) -> None:
    ctx.signal_entity(EntityId(Counter, "clicks"), Counter.add, "one")  # error
    ctx.signal_entity(EntityId(Counter, "clicks"), Counter.push, 5)  # error
    ctx.signal_entity(EntityId(Counter, "clicks"), Counter.push)  # error
    ctx.signal_entity(EntityId(Counter, "clicks"), Counter.poke, 5)  # error
    ctx.signal_entity(EntityId(Counter, "clicks"), Visits.add, 5)  # error
    ctx.start_new(double, "one")  # error
    ctx.start_new(double)  # error
    ctx.start_new(roll)  # error


async def in_a_client(client: Client) -> None:
    counter = EntityId(Counter, "clicks")

    await client.start_new(double, "one")  # error
    await client.start_new(double)  # error
    await client.start_new(collect, "url")  # error
    await client.start_new(fetch, "url")  # error
    await client.start_new(roll)  # error
    await client.start_new(double, 1, on_existing="ignore")  # error
    text: str = await (await client.start_new(double, 1)).result()  # error
    await client.call_entity(counter, Counter.add, "one")  # error
    await client.call_entity(EntityId(ShoppingBasket, "mine"), Counter.get)  # error
    await client.call_entity(counter, Counter.slow_push)  # error
    await client.call_entity(counter, Counter.slow_push, 5)  # error
    await client.call_entity(counter, Counter.slow)  # error
    await client.call_entity(counter, Counter.push, 5)  # error
    await client.call_entity(counter, Counter.poke, 5)  # error
    await client.call_entity(counter, Counter.peek, 5)  # error
    await client.call_entity(counter, Counter.reset, 5)  # error
    await client.call_entity(EntityId(Shelf, "top"), Shelf.find, 5)  # error
    await client.signal_entity(counter, Counter.add, "one")  # error
    await client.signal_entity(counter, Counter.push)  # error
    await client.signal_entity(counter, Counter.push, 5)  # error
    await client.signal_entity(counter, Counter.poke, 5)  # error
    await client.signal_entity(counter, Counter.reset, 5)  # error
    await client.signal_entity(EntityId(Visits, "page"), Visits.add, "one")  # error
    print((await client.read_entity_state(counter)).value)  # error
    print(text)


async def elsewhere() -> None:
    perdure.connect(5)  # error
    perdure.connect("hub.sock", key=5)  # error
    perdure.connect("hub.sock", settings={})  # error
    async with perdure.connect("hub.sock", app) as client:
        await client.start_new(double, "one")  # error
        await client.query_entities_page(page_size="ten")  # error
        await client.get_history_page("x", order="random")  # error
