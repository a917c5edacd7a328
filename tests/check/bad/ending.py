# %% more behind it
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    ctx.continue_as_new(n + 1)  # PDU019
    await ctx.call_activity(charge, n)

# %% a branch that does not return
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> str:
    if n < 10:
        ctx.continue_as_new(n + 1)  # PDU019
    await ctx.call_activity(charge, n)
    return "done"

# %% in a loop
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    while True:
        await ctx.call_activity(charge, n)
        if n > 10:
            ctx.continue_as_new(0)  # PDU019

# %% a result that is waited for
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> str:
    ctx.continue_as_new(n + 1)  # PDU019
    return await ctx.call_activity(charge, n)

# %% a signal behind it
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    ctx.continue_as_new(n + 1)  # PDU019
    ctx.signal_entity(EntityId(Counter, "a"), Counter.add, 1)

# %% twice
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    if n:
        ctx.continue_as_new(n - 1)  # PDU019
    ctx.continue_as_new(10)

# %% in a generator
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    ctx.continue_as_new()  # PDU019
    yield ctx.call_activity(charge, 1)

# %% a timer that is not awaited
from datetime import timedelta

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    ctx.create_timer(timedelta(days=1))  # PDU020
    await ctx.call_activity(charge, 1)

# %% a call that is not awaited
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    ctx.call_activity(charge, 1)  # PDU020

# %% tasks that are not awaited
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    ctx.task_all([ctx.call_activity(charge, 1)])  # PDU020

# %% a name that nobody uses
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    task = ctx.call_activity(charge, 1)  # PDU020
    await ctx.call_activity(charge, 2)

# %% a helper that is not awaited
async def pay(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(charge, 1)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    pay(ctx)  # PDU020

# %% an event that is not awaited
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    ctx.wait_for_external_event("paid")  # PDU020

# %% work that is left out in a replay
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    if not ctx.is_replaying:  # PDU021
        await ctx.call_activity(charge, 1)

# %% a value that is another in a replay
@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    amount = 1 if ctx.is_replaying else 2  # PDU021
    return await ctx.call_activity(charge, amount)

# %% a return in a replay
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    if ctx.is_replaying:  # PDU021
        return ""
    return await ctx.call_activity(charge, 1)

# %% a number that is yielded
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield 5  # PDU022

# %% nothing that is yielded
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield  # PDU022

# %% a list that is yielded
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield [ctx.call_activity(charge, n) for n in range(3)]  # PDU022

# %% a list that a helper yields
def pay(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield [ctx.call_activity(charge, 1)]  # PDU022

@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield from pay(ctx)

# %% a generator that is yielded whole
def pay(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield ctx.call_activity(charge, 1)

@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield pay(ctx)  # PDU022

# %% a signal that is yielded
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield ctx.signal_entity(EntityId(Counter, "a"), Counter.add, 1)  # PDU022

# %% both forms at once
@app.orchestration
async def flow(ctx: OrchestrationContext):
    await ctx.call_activity(charge, 1)
    yield ctx.call_activity(charge, 2)  # PDU023

# %% a task taken for its result
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    if ctx.call_entity(EntityId(Counter, "a"), Counter.add, 1):  # PDU020
        return f"{ctx.call_activity(charge, 1)}"  # PDU020
    for part in ctx.task_all([ctx.call_activity(charge, 2)]):  # PDU020
        return part
    return "" if not ctx.wait_for_external_event("paid") else "x"  # PDU020

# %% a task taken for its result, in a generator
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, int]:
    yield ctx.call_activity(charge, 1)
    return 1 + ctx.call_entity(EntityId(Counter, "a"), Counter.add, 1)  # PDU020

# %% a replay, under another name
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    again = ctx.is_replaying  # PDU021
    if again and True:
        return
    await ctx.call_activity(charge, 1)

# %% a replay, as an input
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(charge, ctx.is_replaying)  # PDU021
