# %% a bare except
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(charge, 1)
    except:  # PDU016
        return "failed"

# %% everything
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(charge, 1)
    except BaseException as error:  # PDU016
        return str(error)

# %% everything, among others
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    for _ in range(3):
        try:
            await ctx.call_activity(charge, 1)
        except (ValueError, BaseException):  # PDU016
            continue

# %% in a generator
@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    try:
        return (yield ctx.call_activity(charge, 1))
    except:  # PDU016
        return "failed"

# %% suppressed
from contextlib import suppress

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with suppress(BaseException):  # PDU016
        await ctx.call_activity(charge, 1)

# %% returned over
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(charge, 1)
    finally:
        return "done"  # PDU016

# %% gone on over
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    for _ in range(3):
        try:
            await ctx.call_activity(charge, 1)
        finally:
            continue  # PDU016

# %% the cancellation of another library
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(charge, 1)
    except asyncio.CancelledError:  # PDU016
        await ctx.call_activity(book, "undo")
        raise

# %% in a helper
async def attempt(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(charge, 1)
    except BaseException:  # PDU016
        return ""

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await attempt(ctx)

# %% what leaves memory
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(charge, 1)
    except GeneratorExit:  # PDU017
        raise

# %% at exit
import atexit

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    atexit.register(print)  # PDU017
    await ctx.call_activity(charge, 1)

# %% at a signal
import signal

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)  # PDU017

# %% when an object goes
import weakref

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    weakref.finalize(ctx, print)  # PDU017

# %% continuing in a finally
@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None:
    try:
        await ctx.call_activity(charge, n)
    finally:
        ctx.continue_as_new(n + 1)  # PDU017

# %% a cancellation that is passed over
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    for _ in range(3):
        try:
            await ctx.call_activity(charge, 1)
        except Cancelled:  # PDU016
            pass

# %% a cancellation that is suppressed
import contextlib

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with contextlib.suppress(Cancelled):  # PDU016
        await ctx.call_activity(charge, 1)

# %% told in a finally
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(charge, 1)
    finally:
        print("done")  # PDU017
