# %% the last call
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    await ctx.call_activity(charge, n)
    ctx.continue_as_new(n + 1)

# %% a return behind it
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> str:
    if n < 10:
        ctx.continue_as_new(n + 1)
        return ""
    await ctx.call_activity(charge, n)
    return "done"

# %% one of two branches
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    if n < 10:
        ctx.continue_as_new(n + 1)
    else:
        await ctx.call_activity(charge, n)

# %% out of a loop
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    while True:
        await ctx.call_activity(charge, n)
        if n > 10:
            ctx.continue_as_new(0)
            break
        n += 1

# %% out of a loop by return
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    for _ in range(100):
        command = await ctx.wait_for_external_event("command")
        if command == "renew":
            ctx.continue_as_new(n)
            return
        await ctx.call_activity(charge, n)
    ctx.continue_as_new(n)

# %% words behind it
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> int:
    ctx.continue_as_new(n + 1)
    ctx.set_custom_status({"n": n})
    ctx.logger.info("again")
    total = n + 1
    return total

# %% in a lock
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    async with ctx.lock_entities(EntityId(Counter, "a")):
        await ctx.call_entity(EntityId(Counter, "a"), Counter.add, 1)
        ctx.continue_as_new(n)

# %% of something else
class Book:
    def continue_as_new(self, n: int) -> None: ...

@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    Book().continue_as_new(n)
    await ctx.call_activity(charge, n)

# %% in a try
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    try:
        await ctx.call_activity(charge, n)
    except ValueError:
        ctx.continue_as_new(n)
        return
    await ctx.call_activity(charge, n)

# %% dropped on purpose
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    _ = ctx.call_activity(charge, 1)
    _notice = ctx.call_activity(book, "x")
    await ctx.call_activity(charge, 2)

# %% awaited later
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    paying = ctx.call_activity(charge, 1)
    booking = ctx.call_activity(book, "Rome")
    tasks = []
    tasks.append(ctx.call_activity(charge, 2))
    await ctx.task_all([*tasks, booking])
    return await paying

# %% given back, and to others
def begun(ctx: OrchestrationContext) -> Any:
    return ctx.call_activity(charge, 1)

async def settled(task: Any) -> str:
    return await task

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await settled(begun(ctx))

# %% a timer that bounds an event
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    deadline = ctx.create_timer(timedelta(days=1))
    event = ctx.wait_for_external_event("paid")
    if await ctx.task_any([event, deadline]) is deadline:
        return "late"
    deadline.cancel()
    return event.result

# %% a walrus
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    if (answer := await ctx.call_activity(charge, 1)) != "0":
        return answer
    return await (task := ctx.call_activity(charge, 2))

# %% printed, where it is not a replay
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    if not ctx.is_replaying:
        print("begun")
    ctx.logger.info("replaying: %s", ctx.is_replaying)
    await ctx.call_activity(charge, 1)

# %% signals give nothing to await
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    ctx.signal_entity(EntityId(Counter, "a"), Counter.add, 1)
    ctx.send_event("other", "begun", 1)
    ctx.set_custom_status("x")

# %% a generator
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    first = yield ctx.call_activity(charge, 1)
    tasks = [ctx.call_activity(charge, n) for n in range(3)]
    second = yield ctx.task_all(tasks)
    task = ctx.create_timer(timedelta(seconds=1))
    yield task
    yield tasks[0]
    return f"{first}{second}"

# %% a generator in parts
def pay(ctx: OrchestrationContext, n: int) -> Generator[Any, Any, str]:
    return (yield ctx.call_activity(charge, n))

@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    first = yield from pay(ctx, 1)
    return first

# %% a plain generator beside it
def chunks(items: list[int], size: int) -> Generator[list[int], None, None]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

def numbers() -> Generator[int, None, None]:
    yield 1
    yield 2

@app.orchestration
async def flow(ctx: OrchestrationContext, items: list[int]) -> None:
    for chunk in chunks(items, 10):
        await ctx.task_all([ctx.call_activity(charge, n) for n in chunk])
    for n in numbers():
        await ctx.call_activity(charge, n)

# %% a plain generator beside a generator
def pairs(items: list[int]) -> Generator[tuple[int, int], None, None]:
    yield from ((item, item + 1) for item in items)
    yield 0, 1

@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    for a, b in pairs([1, 2]):
        yield ctx.call_activity(charge, a + b)

# %% async generators beside it
async def parts(ctx: OrchestrationContext) -> Any:
    for n in range(3):
        yield await ctx.call_activity(charge, n)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[str]:
    return [part async for part in parts(ctx)]

# %% context managers of one's own
from contextlib import contextmanager

@contextmanager
def told(ctx: OrchestrationContext, what: str) -> Generator[None, None, None]:
    ctx.set_custom_status(what)
    yield
    ctx.set_custom_status("done")

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with told(ctx, "paying"):
        await ctx.call_activity(charge, 1)

# %% printing is not looked for by default
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    print("hello")

# %% silenced, and why
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    begun = time.time()  # noqa: PDU001
    ended = time.time()  # noqa
    both = time.time(  # noqa: F401, PDU001
    )
    third = time.time()  # noqa: pdu001 for the log alone
    return begun + ended + both + third

# %% tasks that are compared as tasks
@app.orchestration
async def flow(ctx: OrchestrationContext, fast: bool) -> str:
    task = ctx.call_activity(charge, 1) if fast else ctx.call_activity(charge, 2)
    timer = ctx.create_timer(timedelta(days=1))
    winner = await ctx.task_any([task, timer])
    if winner is timer or winner in (timer,) or winner != task:
        return ""
    return (await task) + f"{await ctx.call_activity(charge, 3)}"

# %% whether it is a replay, to be seen
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    again = ctx.is_replaying
    seen: list[bool] = []
    seen.append(again)
    if again:
        print("again")
    else:
        ctx.logger.info("first %s", ctx.is_replaying)
    await ctx.call_activity(charge, 1)
