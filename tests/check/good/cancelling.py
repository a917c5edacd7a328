# %% clean-up that lets it pass
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    try:
        await ctx.wait_for_external_event("paid")
    except Cancelled:
        await ctx.call_activity(book, "undo")
        raise

# %% a cancellation that is meant to end well
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.wait_for_external_event("paid")
    except Cancelled:
        return "nobody paid"

# %% exceptions do not take it
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(charge, 1)
    except Exception as error:
        return str(error)

# %% everything, and raised again
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(charge, 1)
    except BaseException:
        await ctx.call_activity(book, "undo")
        raise

# %% everything, bare, and raised again
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(charge, 1)
    except:
        ctx.set_custom_status("failed")
        raise

# %% the cancellation first
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(charge, 1)
    except Cancelled:
        raise
    except BaseException as error:
        return str(error)

# %% where nothing is awaited
@app.orchestration
async def flow(ctx: OrchestrationContext, text: str) -> int:
    try:
        return int(text)
    except:
        return 0

# %% a finally that awaits
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(charge, 1)
    finally:
        await ctx.call_activity(book, "clean")

# %% a return behind a finally
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(charge, 1)
    finally:
        for city in ("Rome", "Oslo"):
            if city == "Rome":
                continue
            await ctx.call_activity(book, city)
    return "done"

# %% groups of exceptions
@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    failed = 0
    try:
        await ctx.task_all([ctx.call_activity(charge, 1)], fail_fast=False)
    except* ValueError as group:
        failed = len(group.exceptions)
    return failed

# %% suppressed, but not all
from contextlib import suppress

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with suppress(Exception):
        await ctx.call_activity(charge, 1)
    with suppress(TimeoutError, ValueError):
        await ctx.wait_for_external_event("paid", timeout=1)

# %% everything, in an activity
@app.activity
async def careful(n: int) -> str:
    try:
        return await charge(n)
    except:
        return ""

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(careful, 1)

# %% a class that is called BaseException
class BaseException(ValueError):
    pass

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(charge, 1)
    except BaseException:
        return ""

# %% a function in a try
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        async def later() -> str:
            return await ctx.call_activity(charge, 1)
    except:
        return ""
    return await later()

# %% a return in a function in a finally
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(charge, 1)
    finally:
        def shown() -> str:
            return "x"

        ctx.set_custom_status(shown())
