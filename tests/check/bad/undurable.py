# %% gather
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await asyncio.gather(ctx.call_activity(charge, 1), ctx.call_activity(charge, 2))  # PDU014

# %% tasks of asyncio
from asyncio import create_task, wait_for

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async def work() -> None:
        await ctx.call_activity(charge, 1)

    task = create_task(work())  # PDU014
    await wait_for(task, 10)  # PDU014

# %% a task group of asyncio
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with asyncio.TaskGroup() as tasks:  # PDU014
        tasks.create_task(asyncio.sleep(1))  # PDU014 PDU009

# %% a timeout of asyncio
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with asyncio.timeout(10):  # PDU014
        await ctx.call_activity(charge, 1)

# %% a task group of anyio
import anyio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with anyio.create_task_group() as tasks:  # PDU014
        tasks.start_soon(print)
    with anyio.move_on_after(1):  # PDU014
        await ctx.call_activity(charge, 1)

# %% a nursery
import trio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with trio.open_nursery() as nursery:  # PDU014
        nursery.start_soon(print)

# %% an event of the loop
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    event = asyncio.Event()  # PDU014
    await event.wait()  # PDU014

# %% a lock of the loop, which the module has
import asyncio

LOCK = asyncio.Lock()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with LOCK:  # PDU014
        await ctx.call_activity(charge, 1)

# %% the hub's own client
import perdure

hub = perdure.Hub(app)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await hub.client.start_new("other")  # PDU014

# %% what a library gives
from somewhere import fetch

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await fetch("https://example.org")  # PDU014

# %% a session of a library
from somewhere.db import Session

async def save(session: Session) -> None:
    await session.commit()  # PDU014

@app.orchestration
async def flow(ctx: OrchestrationContext, session: Any) -> None:
    await save(session)

# %% an iterator of a library
from somewhere import rows

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async for row in rows():  # PDU014
        await ctx.call_activity(charge, row)

# %% the current task
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    asyncio.current_task()  # PDU014
