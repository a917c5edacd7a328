import config
from config import CACHE, FAST, SLOW
from perdure import App, OrchestrationContext

app = App()


@app.orchestration
async def by_name(ctx: OrchestrationContext) -> None:
    if FAST or SLOW:  # PDU004
        await ctx.call_activity("work")


@app.orchestration
async def by_module(ctx: OrchestrationContext) -> None:
    if config.FAST or config.SLOW:  # PDU004
        await ctx.call_activity("work")


@app.orchestration
async def by_table(ctx: OrchestrationContext) -> None:
    if CACHE:  # PDU015
        await ctx.call_activity("work")
