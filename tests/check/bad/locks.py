# %% an entity that is not locked
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here, there = EntityId(Counter, "here"), EntityId(Counter, "there")
    async with ctx.lock_entities(here):
        await ctx.call_entity(there, Counter.add, 1)  # PDU018

# %% an entity that is made at once
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(EntityId(Counter, "a"), EntityId(Counter, "b")):
        await ctx.call_entity(EntityId(Counter, "c"), Counter.add, 1)  # PDU018

# %% in a generator
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    here, there = EntityId(Counter, "here"), EntityId(Counter, "there")
    with (yield ctx.lock_entities(here)):
        yield ctx.call_entity(there, Counter.add, 1)  # PDU018

# %% a lock in a lock
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here, there = EntityId(Counter, "here"), EntityId(Counter, "there")
    async with ctx.lock_entities(here):
        async with ctx.lock_entities(there):  # PDU018
            await ctx.call_entity(there, Counter.add, 1)

# %% a child in a lock
@app.orchestration
async def child(ctx: OrchestrationContext) -> None: ...

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(EntityId(Counter, "a")):
        await ctx.call_sub_orchestrator(child)  # PDU018

# %% a child in a helper that a lock calls
@app.orchestration
async def child(ctx: OrchestrationContext) -> None: ...

async def spread(ctx: OrchestrationContext) -> None:
    await ctx.call_sub_orchestrator(child)  # PDU018

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(EntityId(Counter, "a")):
        await spread(ctx)

# %% a signal to what is locked
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here = EntityId(Counter, "here")
    async with ctx.lock_entities(here):
        ctx.signal_entity(here, Counter.add, 1)  # PDU018

# %% a lock that is not waited for
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here = EntityId(Counter, "here")
    with ctx.lock_entities(here):  # PDU018
        await ctx.call_entity(here, Counter.add, 1)

# %% parameters
@app.orchestration
async def flow(ctx: OrchestrationContext, names: tuple[str, str]) -> None:
    await move(ctx, EntityId(Counter, names[0]), EntityId(Counter, names[1]))

async def move(ctx: OrchestrationContext, here: EntityId, there: EntityId) -> None:
    async with ctx.lock_entities(here):
        await ctx.call_entity(there, Counter.add, 1)  # PDU018

# %% one of two accounts
from dataclasses import dataclass

@dataclass
class Order:
    source: str
    target: str

@app.orchestration
async def flow(ctx: OrchestrationContext, order: Order) -> None:
    source = EntityId(Counter, order.source)
    async with ctx.lock_entities(source):
        await ctx.call_entity(source, Counter.add, -1)
        await ctx.call_entity(EntityId(Counter, order.target), Counter.add, 1)  # PDU018

# %% twice at a time
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    here = EntityId(Counter, "here")
    async with ctx.lock_entities(here):
        await ctx.task_all([
            ctx.call_entity(here, Counter.add, 1),
            ctx.call_entity(here, Counter.add, 2),  # PDU018
        ])
