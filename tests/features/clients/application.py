"""The application that every kind of client is tried with."""

from __future__ import annotations

from contextvars import ContextVar

from attrs import frozen

from perdure import ActivityContext, App, EntityContext, OrchestrationContext

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")

app = App(context_vars=[TENANT])


@frozen
class Order:
    """Something that is typed where the application is known."""

    item: str
    count: int = 1


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    def fail(self, text: str) -> None:
        raise ValueError(text)


@app.entity
class Shelf:
    orders: list[Order] = []

    def put(self, order: Order) -> Order:
        self.orders.append(order)
        return order


@app.entity
def box(ctx: EntityContext) -> None:
    ctx.set_state(ctx.get_input())
    ctx.set_result([ctx.operation_name])


@app.activity
async def shout(ctx: ActivityContext, text: str) -> str:
    return text.upper()


@app.orchestration
async def hello(ctx: OrchestrationContext, name: str) -> str:
    return "hello " + await ctx.call_activity(shout, name)


@app.orchestration(version="1")
async def versioned(ctx: OrchestrationContext) -> str:
    return "one"


@app.orchestration(name="versioned", version="2")
async def versioned_2(ctx: OrchestrationContext) -> str:
    return "two"


@app.orchestration
async def order(ctx: OrchestrationContext, order: Order) -> Order:
    return Order(order.item, order.count + 1)


@app.orchestration
async def listen(ctx: OrchestrationContext) -> object:
    ctx.set_custom_status({"waits": True})
    return await ctx.wait_for_external_event("end")


@app.orchestration
async def fail(ctx: OrchestrationContext, text: str) -> None:
    raise LookupError(text)


@app.orchestration
async def tenant(ctx: OrchestrationContext) -> str:
    return TENANT.get()


@app.entity
class Visitor:
    last: str = ""

    def come(self) -> str:
        self.last = TENANT.get()
        return self.last
