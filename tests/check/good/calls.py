# %% by the context
@app.orchestration
async def child(ctx: OrchestrationContext, n: int) -> str:
    return await ctx.call_activity(charge, n)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    a = await ctx.call_activity(charge, 1)
    b = await ctx.call_activity("book", "Rome")
    c = await ctx.call_sub_orchestrator(child, 1)
    d = await ctx.call_entity(EntityId(Counter, "x"), Counter.add, 1)
    return f"{a}{b}{c}{d}"

# %% handed on by a helper
async def attempt(ctx: OrchestrationContext, f: Any, value: Any) -> Any:
    return await ctx.call_activity(f, value)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await attempt(ctx, charge, 1)

# %% partials that are handed on
import functools

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[str]:
    call = functools.partial(ctx.call_activity, charge)
    return await ctx.task_all([call(1), call(2)])

# %% a local function of the same name
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    def charge(cents: int) -> str:
        return f"{cents}"

    return charge(1)

# %% a method of the same name
class Desk:
    def __init__(self, ctx: OrchestrationContext) -> None:
        self.ctx = ctx

    async def charge(self, cents: int) -> str:
        return await self.ctx.call_activity(charge, cents)

    async def book(self, city: str) -> str:
        return await self.ctx.call_activity(book, city)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    desk = Desk(ctx)
    return await desk.charge(1) + await desk.book("Rome")

# %% an activity calls another as a function
@app.activity
async def both(cents: int) -> str:
    return await charge(cents) + book("Rome")

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(both, 1)

# %% an operation calls its own methods
@app.entity
class Account:
    balance: int = 0

    def deposit(self, cents: int) -> int:
        self._check(cents)
        self.balance += cents
        return self.balance

    def withdraw(self, cents: int) -> int:
        return self.deposit(-cents)

    def _check(self, cents: int) -> None:
        if self.balance + cents < 0:
            raise ValueError("not so much")

# %% tests call everything
async def test_charge() -> None:
    assert await charge(1) == "1"
    assert book("Rome") == "Rome"
    assert Counter().add(1) == 1

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(charge, 1)

# %% a table of activities
STEPS = {"charge": charge, "book": book}

@app.orchestration
async def flow(ctx: OrchestrationContext, step: str, value: Any) -> Any:
    return await ctx.call_activity(STEPS[step], value)

# %% steps of a saga with what undoes them
@app.activity
def undo(city: str) -> None: ...

@app.orchestration
async def flow(ctx: OrchestrationContext, cities: list[str]) -> None:
    undone: list[tuple[Any, str]] = []
    try:
        for city in cities:
            await ctx.call_activity(book, city)
            undone.append((undo, city))
    except Exception:
        for f, city in reversed(undone):
            await ctx.call_activity(f, city)
        raise

# %% branches
@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[str]:
    done: list[str] = []

    async def one(city: str) -> None:
        done.append(await ctx.call_activity(book, city))

    async with ctx.create_task_group() as tasks:
        tasks.start_soon(one, "Rome")
        for city in ("Oslo", "Bern"):
            tasks.start_soon(one, city)
    return sorted(done)

# %% scopes of the context
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with ctx.move_on_after(1.0):
        await ctx.wait_for_external_event("never")
    try:
        with ctx.fail_after(timedelta(seconds=1)):
            await ctx.wait_for_external_event("never")
    except TimeoutError:
        pass
    with ctx.shield():
        await ctx.call_activity(charge, 1)

# %% coroutines of one's own
async def pay(ctx: OrchestrationContext, cents: int) -> str:
    return await ctx.call_activity(charge, cents)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    paying = pay(ctx, 1)
    return await paying

# %% a function of its input alone, in a library
from somewhere import plan

@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    for step in plan(n):
        await ctx.call_activity(charge, step)

# %% a library that is made for orchestrations
from perdure_extras import retried

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await retried(ctx, charge, 1)

# %% an object that can be awaited, of the context
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    tasks = [ctx.call_activity(charge, n) for n in range(3)]
    first = await ctx.task_any(tasks)
    for task in tasks:
        await task
    timer = ctx.create_timer(timedelta(days=1))
    timer.cancel()
    return first.result

# %% contexts entered together
from contextlib import AsyncExitStack, ExitStack

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(ctx.create_task_group())
        stack.enter_context(ctx.move_on_after(1))
    with ExitStack() as plain:
        plain.callback(print)

# %% names of asyncio that a class of one's own has
class asyncio:
    @staticmethod
    async def sleep(ctx: OrchestrationContext, seconds: float) -> None:
        await ctx.create_timer(timedelta(seconds=seconds))

    @staticmethod
    async def gather(ctx: OrchestrationContext, *tasks: Any) -> list[Any]:
        return await ctx.task_all(list(tasks))

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await asyncio.sleep(ctx, 1)
    await asyncio.gather(ctx, ctx.call_activity(charge, 1))

# %% asyncio beside orchestrations
import asyncio

import anyio

@app.activity
async def work(n: int) -> int:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(0))
    await asyncio.gather(asyncio.sleep(0), anyio.sleep(0))
    return n

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(work, 1)

async def main() -> None:
    await asyncio.gather(asyncio.sleep(1))

# %% the client beside orchestrations
from perdure import Hub

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(charge, 1)

async def main() -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(flow)
        await handle.result()
        await hub.client.call_entity(EntityId(Counter, "x"), Counter.add, 1)

# %% a predicate for retries
from perdure import FailureDetails

def is_passing(failure: FailureDetails) -> bool:
    return failure.error_type == "ConnectionError"

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    retry = RetryPolicy(1.0, max_attempts=3, retry_on=is_passing)
    return await ctx.call_activity(charge, 1, retry=retry)
