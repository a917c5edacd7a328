"""What the tests of the lifecycle of instances share: flows that wait, and those that clean up."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from perdure import App, Cancelled, EntityId, OrchestrationContext

log: list[str] = []


app = App()


@app.entity
class Account:
    total: int = 0

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total


ACCOUNT = EntityId(Account, "a")


@app.activity
async def note(text: str) -> str:
    log.append(text)
    return text


@app.orchestration
async def waits(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


@app.orchestration
def waits_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield ctx.wait_for_external_event("go"))


@app.orchestration
async def parent(ctx: OrchestrationContext) -> Any:
    return await ctx.call_sub_orchestrator(middle, instance_id="middle")


@app.orchestration
async def middle(ctx: OrchestrationContext) -> Any:
    return await ctx.call_sub_orchestrator(waits, instance_id="leaf")


WAITS = pytest.mark.parametrize("flow", [waits, waits_by_yield])
KINDS = pytest.mark.parametrize("kind", ["memory", "sqlite"])


@app.orchestration
async def cleans(ctx: OrchestrationContext) -> None:
    try:
        await ctx.wait_for_external_event("go")
    except Cancelled:
        log.append("cancelled")
    finally:
        log.append("finally")
        await ctx.call_activity(note, "compensated")


@app.orchestration
def cleans_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    try:
        yield ctx.wait_for_external_event("go")
    except Cancelled:
        log.append("cancelled")
    finally:
        log.append("finally")
        yield ctx.call_activity(note, "compensated")


CLEANS = pytest.mark.parametrize("flow", [cleans, cleans_by_yield])


@app.orchestration
async def refuses(ctx: OrchestrationContext) -> str:
    try:
        await ctx.wait_for_external_event("go")
    except Cancelled as cancelled:
        return f"not me: {cancelled.reason}"
    return ""
