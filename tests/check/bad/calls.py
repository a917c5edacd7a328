# %% an activity
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await charge(100)  # PDU013

# %% a sync activity
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return book("Rome")  # PDU013

# %% an activity in a helper
async def pay(ctx: OrchestrationContext, cents: int) -> str:
    return await charge(cents)  # PDU013

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await pay(ctx, 100)

# %% an activity as a branch
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with ctx.create_task_group() as tasks:
        tasks.start_soon(charge, 100)  # PDU013

# %% another orchestration
@app.orchestration
async def child(ctx: OrchestrationContext) -> str:
    return "done"

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await child(ctx)  # PDU013

# %% an operation of an entity
@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return Counter().add(1)  # PDU013

# %% an activity among tasks
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.task_all([charge(cents) for cents in (1, 2)])  # PDU013

# %% an activity registered by a call
async def send(text: str) -> None: ...

app.activity(send)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await send("hello")  # PDU013

# %% in a generator
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield ctx.call_activity(charge, 1)
    book("Rome")  # PDU013

# %% an activity, from an operation
@app.entity
class Desk:
    last: str = ""

    async def pay(self, cents: int) -> None:
        self.last = await charge(cents)  # PDU013
