"""Orchestrations that are started."""

from __future__ import annotations

from perdure import App, OrchestrationContext

app = App()


@app.orchestration
async def countdown(ctx: OrchestrationContext, n: int) -> str:
    if n:
        ctx.continue_as_new(n - 1)
        return "not this"
    return f"{ctx.instance_id} done"


@app.orchestration
async def holds(ctx: OrchestrationContext, mark: str) -> str:
    return f"{mark} {await ctx.wait_for_external_event('go')}"
