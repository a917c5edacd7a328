"""A shop to serve and to look into: ``perdure dev examples/shop.py:app``.

Then: ``perdure call @stock@tea add 5``, ``perdure start order '["tea", 2]' --id tea-1``,
``perdure explain tea-1``, ``perdure raise-event tea-1 Paid``.
"""

from datetime import timedelta

import anyio

from perdure import App, EntityId, Hub, OrchestrationContext, RetryPolicy

app = App("shop")


@app.entity
class Stock:
    count: int = 0

    def add(self, count: int) -> int:
        self.count += count
        return self.count

    def take(self, count: int) -> bool:
        there = self.count >= count
        self.count -= count if there else 0
        return there


@app.activity
async def ship(parcel: str) -> str:
    return f"shipped {parcel}"


@app.orchestration
async def order(ctx: OrchestrationContext, wanted: tuple[str, int]) -> str:
    what, count = wanted
    stock = EntityId(Stock, what)
    if not await ctx.call_entity(stock, Stock.take, count):
        return f"no {what} left"
    try:
        await ctx.wait_for_external_event("Paid", timeout=timedelta(days=1))
    except TimeoutError:
        ctx.signal_entity(stock, Stock.add, count)
        return "nobody paid"
    return await ctx.call_activity(ship, f"{count} {what}", retry=RetryPolicy(1.0, max_attempts=5))


async def main() -> None:
    async with Hub(app) as hub:
        await hub.client.call_entity(EntityId(Stock, "tea"), Stock.add, 3)
        first = await hub.client.start_new(order, ("tea", 2))
        await first.raise_event("Paid")
        print(await first.result(timeout=60))
        print(await (await hub.client.start_new(order, ("tea", 2))).result(timeout=60))


if __name__ == "__main__":
    anyio.run(main)
