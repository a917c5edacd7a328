"""What the nodes serve: counters, and orders that count themselves."""

from perdure import App, EntityId, OrchestrationContext, readonly

ORDER_COUNTERS = 8

app = App("cluster-demo")


@app.entity
class Counter:
    total: int = 0

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    @readonly
    def get(self) -> int:
        return self.total


@app.activity
async def price(number: int) -> int:
    return number % 7 + 1


@app.orchestration
async def order(ctx: OrchestrationContext, number: int) -> int:
    amount = await ctx.call_activity(price, number)
    ctx.signal_entity(EntityId(Counter, "revenue"), Counter.add, amount)
    await ctx.call_entity(order_counter(number), Counter.add, 1)
    return amount


def order_counter(number: int) -> EntityId[Counter]:
    return EntityId(Counter, f"orders-{number % ORDER_COUNTERS}")
