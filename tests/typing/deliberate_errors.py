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
    ShoppingBasket,
    Visits,
    app,
    branch,
    collect,
    double,
    fetch,
    parse,
    roll,
    ship_order,
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

    await ctx.call_sub_orchestrator(double, "one")  # error
    await ctx.call_sub_orchestrator(double)  # error
    text: str = await ctx.call_sub_orchestrator(collect, ["url"])  # error

    await ctx.call_entity(counter, Counter.add, "one")  # error
    await ctx.call_entity(counter, Counter.push)  # error
    await ctx.call_entity(counter, Counter.slow, 5)  # error
    await ctx.call_entity(counter, Counter.slow_push, 5)  # error
    await ctx.call_entity(counter, Counter.get, 5)  # error
    await ctx.call_entity(basket, Counter.get)  # error
    state: str = await ctx.call_entity(counter, Counter.get)  # error
    ctx.signal_entity(counter, Counter.add, "one")  # error
    ctx.signal_entity(basket, ShoppingBasket.put, "book")  # error
    ctx.signal_entity(basket, ShoppingBasket.put)  # error
    ctx.signal_entity(counter, Counter.add, 5, at="noon")  # error
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
    ctx.start_new(double, "one")  # error


async def in_a_client(client: Client) -> None:
    counter = EntityId(Counter, "clicks")

    await client.start_new(double, "one")  # error
    await client.start_new(double)  # error
    await client.start_new(collect, "url")  # error
    await client.start_new(double, 1, on_existing="ignore")  # error
    text: str = await (await client.start_new(double, 1)).result()  # error
    await client.call_entity(counter, Counter.add, "one")  # error
    await client.call_entity(EntityId(ShoppingBasket, "mine"), Counter.get)  # error
    await client.call_entity(counter, Counter.slow_push)  # error
    await client.signal_entity(counter, Counter.add, "one")  # error
    await client.signal_entity(counter, Counter.push)  # error
    await client.signal_entity(EntityId(Visits, "page"), Visits.add, "one")  # error
    print((await client.read_entity_state(counter)).value)  # error
    print(text)
