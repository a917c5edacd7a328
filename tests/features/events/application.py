"""Orchestrations that take external events."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from perdure import App, OrchestrationContext

app = App()


@app.orchestration
async def takes(ctx: OrchestrationContext, names: list[str]) -> list[Any]:
    return [await ctx.wait_for_external_event(name) for name in names]


@app.orchestration
def takes_by_yield(ctx: OrchestrationContext, names: list[str]) -> Generator[Any, Any, list[Any]]:
    taken: list[Any] = []
    for name in names:
        taken.append((yield ctx.wait_for_external_event(name)))  # noqa: PERF401
    return taken


FLOWS = pytest.mark.parametrize("flow", [takes, takes_by_yield])
