"""An application that the tests of the kit run."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from attrs import frozen

from perdure import (
    ActivityContext,
    App,
    EntityContext,
    EntityId,
    OrchestrationContext,
    RetryPolicy,
    commutative,
)

app = App("shop")

DAY = timedelta(days=1)


@frozen
class Order:
    item: str
    price: int


@app.activity
async def charge(order: Order) -> str:
    return f"paid {order.price}"


@app.activity
def pack(order: Order) -> str:
    return f"packed {order.item}"


@app.activity
async def refund(receipt: str) -> None:
    return


@app.activity
async def fetch(ctx: ActivityContext, url: str) -> str:
    return f"{url} at attempt {ctx.attempt}"


@app.entity
class Stock:
    items: int = 10

    def take(self, count: int = 1) -> int:
        if count > self.items:
            raise ValueError(f"only {self.items} left")
        self.items -= count
        return self.items

    def give(self, count: int = 1) -> int:
        self.items += count
        return self.items

    def order(self, item: str, ctx: EntityContext) -> str:
        return ctx.start_new(nap, 60.0)


@app.orchestration
async def nap(ctx: OrchestrationContext, seconds: float) -> float:
    await ctx.create_timer(timedelta(seconds=seconds))
    return seconds


@app.orchestration
async def approval(ctx: OrchestrationContext, hours: float) -> str:
    approved = False
    try:
        with ctx.fail_after(timedelta(hours=hours)):
            approved = await ctx.wait_for_external_event("approved", data_type=bool)
    except TimeoutError:
        return "too late"
    return "approved" if approved else "refused"


@app.orchestration
async def tick(ctx: OrchestrationContext, times: int) -> list[str]:
    """A timer that sets the next, and tells when each fired."""
    fired: list[str] = []
    for number in range(times):
        await ctx.create_timer(timedelta(hours=number + 1))
        fired.append(ctx.current_utc_datetime.isoformat())
    return fired


@app.orchestration
async def crawl(ctx: OrchestrationContext, url: str) -> str:
    retry = RetryPolicy(first_interval=60.0, max_attempts=5, backoff=2.0)
    return await ctx.call_activity(fetch, url, retry=retry)


@app.orchestration
async def buy(ctx: OrchestrationContext, order: Order) -> str:
    """A saga: what was done is undone where a later step fails."""
    stock = EntityId(Stock, order.item)
    await ctx.call_entity(stock, Stock.take, 1)
    receipt = await ctx.call_activity(charge, order)
    try:
        parcel = await ctx.call_activity(pack, order)
    except Exception:
        await ctx.call_activity(refund, receipt)
        await ctx.call_entity(stock, Stock.give, 1)
        return "undone"
    await ctx.create_timer(DAY)
    return f"{receipt}, {parcel}"


@app.entity
class Account:
    balance: int = 100

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance


@app.entity(stripes=3)
class Visits:
    count: int = 0

    @commutative
    def add(self, times: int = 1) -> None:
        self.count += times

    def merge(self, other: Visits) -> None:
        self.count += other.count


@app.orchestration
async def transfer(ctx: OrchestrationContext, names: list[str]) -> list[int]:
    """Move one from account to account, each pair of them under a lock."""
    balances: list[int] = []
    for source, target in pairwise(names):
        one, other = EntityId(Account, source), EntityId(Account, target)
        async with ctx.lock_entities(one, other):
            balances.append(await ctx.call_entity(one, Account.add, -1))
            balances.append(await ctx.call_entity(other, Account.add, 1))
    return balances


@app.orchestration
async def family(ctx: OrchestrationContext, depth: int) -> int:
    """Children of children, side by side, one of which is not waited for."""
    if not depth:
        ctx.signal_entity(EntityId(Visits, "leaves"), Visits.add)
        return 1
    children = [ctx.call_sub_orchestrator(family, depth - 1) for _ in range(2)]
    async with ctx.create_task_group() as tasks:
        tasks.start_soon(_sleep, ctx)
    return sum(await ctx.task_all(children))


async def _sleep(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(seconds=10))


@app.orchestration
async def rounds(ctx: OrchestrationContext, left: int) -> str:
    """One execution after another; what came early for the next ones is kept."""
    name: str = await ctx.wait_for_external_event("name")
    await ctx.call_activity(charge, Order(name, left))
    if left:
        ctx.continue_as_new(left - 1)
        return ""
    return f"the last was {name}"
