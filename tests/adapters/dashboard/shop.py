"""The application that the pages are tested with: something of everything that they show."""

from __future__ import annotations

from datetime import timedelta

import anyio

from perdure import App, EntityId, OrchestrationContext, RetryPolicy

app = App("shop")


@app.entity
class Stock:
    """How many of something there are."""

    amount: int = 0

    def add(self, amount: int) -> int:
        self.amount += amount
        return self.amount

    def take(self, amount: int) -> int:
        if amount > self.amount:
            raise ValueError(f"there are {self.amount} only")
        self.amount -= amount
        return self.amount


@app.activity
async def charge(amount: int) -> str:
    await anyio.sleep(0.02)
    return f"charged {amount}"


@app.activity
async def pack(what: str) -> str:
    await anyio.sleep(0.01)
    return f"packed {what}"


@app.activity
async def bank(amount: int) -> str:
    raise ConnectionError("the bank does not answer")


@app.activity
async def wrap(number: int) -> int:
    return number


@app.orchestration
async def parcel(ctx: OrchestrationContext, what: str) -> str:
    return await ctx.call_activity(pack, what, summary=f"pack the {what}")


@app.orchestration
async def order(ctx: OrchestrationContext, what: str) -> str:
    ctx.set_custom_status({"step": "charging"})
    await ctx.call_activity(charge, 5, summary="take the money")
    stock = EntityId(Stock, what)
    await ctx.call_entity(stock, Stock.add, 2)
    async with ctx.lock_entities(stock):
        await ctx.call_entity(stock, Stock.take, 1)
    sent = await ctx.call_sub_orchestrator(parcel, what)
    ctx.set_custom_status({"step": "waiting for the approval"})
    async with ctx.create_task_group() as branches:

        async def approve() -> None:
            with ctx.fail_after(timedelta(days=2)):
                await ctx.wait_for_external_event("approved")

        async def remind() -> None:
            await ctx.create_timer(timedelta(milliseconds=20))

        branches.start_soon(approve)
        branches.start_soon(remind)
    return sent


@app.orchestration
async def payment(ctx: OrchestrationContext, amount: int) -> str:
    retry = RetryPolicy(first_interval=0.05, max_attempts=3)
    return await ctx.call_activity(bank, amount, retry=retry, summary="ask the bank")


@app.orchestration
async def subscription(ctx: OrchestrationContext, amount: int) -> str:
    retry = RetryPolicy(first_interval=3600.0, max_attempts=5)
    return await ctx.call_activity(bank, amount, retry=retry, summary="ask the bank")


@app.orchestration
async def quick(ctx: OrchestrationContext, number: int) -> int:
    return number


@app.orchestration
async def approval(ctx: OrchestrationContext, what: str) -> str:
    await ctx.wait_for_external_event("approved")
    return f"approved {what}"


@app.orchestration
async def stocktaking(ctx: OrchestrationContext, what: str) -> int:
    stock = EntityId(Stock, what)
    async with ctx.lock_entities(stock):
        await ctx.wait_for_external_event("counted")
        return await ctx.call_entity(stock, Stock.add, 0)


@app.activity
async def fall(text: str) -> None:
    raise ValueError(text)


@app.orchestration
async def repeat(ctx: OrchestrationContext, text: str) -> None:
    """Have a text wherever users have texts."""
    ctx.set_custom_status({text: text})
    await ctx.call_entity(EntityId(Stock, ctx.instance_id), Stock.add, 1)
    with ctx.move_on_after(timedelta(milliseconds=20)):
        await ctx.wait_for_external_event(ctx.instance_id)
    await ctx.call_activity(fall, text, summary=text)


@app.orchestration
async def gifts(ctx: OrchestrationContext, count: int) -> int:
    return len(await ctx.task_all([ctx.call_activity(wrap, one) for one in range(count)]))


@app.orchestration
async def hampers(ctx: OrchestrationContext, count: int) -> None:
    async with ctx.create_task_group() as branches:

        async def fill() -> None:
            await ctx.wait_for_external_event("filled")

        for _ in range(count):
            branches.start_soon(fill)
