# %% what is locked
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here, there = EntityId(Counter, "here"), EntityId(Counter, "there")
    async with ctx.lock_entities(here, there):
        await ctx.call_entity(here, Counter.add, 1)
        await ctx.call_entity(there, Counter.add, -1)
    await ctx.call_entity(EntityId(Counter, "log"), Counter.add, 1)

# %% made anew, and the same
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(EntityId(Counter, "a")):
        await ctx.call_entity(EntityId(Counter, "a"), Counter.add, 1)

# %% under another name
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here = EntityId(Counter, "here")
    same = here
    async with ctx.lock_entities(here):
        await ctx.call_entity(same, Counter.add, 1)

# %% a list
@app.orchestration
async def flow(ctx: OrchestrationContext, names: list[str]) -> None:
    ids = [EntityId(Counter, name) for name in names]
    async with ctx.lock_entities(ids):
        for id in ids:
            await ctx.call_entity(id, Counter.add, 1)
        await ctx.call_entity(ids[0], Counter.add, 1)

# %% unpacked
@app.orchestration
async def flow(ctx: OrchestrationContext, names: list[str]) -> None:
    first = EntityId(Counter, names[0])
    ids = [EntityId(Counter, name) for name in names]
    async with ctx.lock_entities(*ids):
        await ctx.call_entity(first, Counter.add, 1)

# %% one of several
@app.orchestration
async def flow(ctx: OrchestrationContext, back: bool) -> None:
    here, there = EntityId(Counter, "here"), EntityId(Counter, "there")
    async with ctx.lock_entities(here, there):
        for id in (here, there):
            await ctx.call_entity(id, Counter.add, 1)
        target = here if back else there
        await ctx.call_entity(target, Counter.add, 1)

# %% signals to others, and activities
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here, log = EntityId(Counter, "here"), EntityId(Counter, "log")
    async with ctx.lock_entities(here):
        ctx.signal_entity(log, Counter.add, 1)
        await ctx.call_activity(charge, 1)
    ctx.signal_entity(here, Counter.add, 1)

# %% one lock behind the other
@app.orchestration
async def child(ctx: OrchestrationContext) -> None: ...

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here, there = EntityId(Counter, "here"), EntityId(Counter, "there")
    async with ctx.lock_entities(here):
        await ctx.call_entity(here, Counter.add, 1)
    await ctx.call_sub_orchestrator(child)
    async with ctx.lock_entities(there):
        await ctx.call_entity(there, Counter.add, 1)

# %% in a generator
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    here, there = EntityId(Counter, "here"), EntityId(Counter, "there")
    with (yield ctx.lock_entities(here, there)):
        yield ctx.call_entity(there, Counter.add, 1)
        yield ctx.call_entity(here, Counter.add, 1)

# %% in a helper that is given them
async def move(ctx: OrchestrationContext, here: Any, there: Any) -> None:
    await ctx.call_entity(here, Counter.add, -1)
    await ctx.call_entity(there, Counter.add, 1)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    a, b = EntityId(Counter, "a"), EntityId(Counter, "b")
    async with ctx.lock_entities(a, b):
        await move(ctx, a, b)

# %% ids by a function
def stock(name: str) -> EntityId[Counter]:
    return EntityId(Counter, name)

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> None:
    async with ctx.lock_entities(stock(name), stock("all")):
        await ctx.call_entity(stock(name), Counter.add, 1)
        await ctx.call_entity(stock("all"), Counter.add, 1)

# %% other locks than the context's
class Door:
    def lock_entities(self, *names: str) -> "Door":
        return self

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None: ...

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with Door().lock_entities("a"):
        await ctx.call_entity(EntityId(Counter, "b"), Counter.add, 1)

# %% the same by a name and by a class
from dataclasses import dataclass

@dataclass
class Order:
    source: str
    target: str

@app.orchestration
async def flow(ctx: OrchestrationContext, order: Order) -> None:
    key = order.source
    async with ctx.lock_entities(EntityId(Counter, order.source), EntityId("Counter", order.target)):
        await ctx.call_entity(EntityId("counter", key), "add", -1)
        await ctx.call_entity(EntityId(Counter, order.target), Counter.add, 1)

# %% each at a time
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here, there = EntityId(Counter, "here"), EntityId(Counter, "there")
    async with ctx.lock_entities(here, there):
        await ctx.task_all([
            ctx.call_entity(here, Counter.add, 1),
            ctx.call_entity(there, Counter.add, 2),
        ])
        await ctx.call_entity(here, Counter.add, 1)
