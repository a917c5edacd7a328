"""The application of the hubs that commands are tried on, and what comes of a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import orjson

from perdure import App, OrchestrationContext

KEY = "sesame"

app = App("shop")


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def fail(self) -> None:
        raise ValueError("it always fails")

    async def hang(self) -> None:
        await anyio.sleep_forever()


@app.activity
async def hang(text: str) -> None:
    await anyio.sleep_forever()


@app.orchestration
async def wait_for_go(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("Go")


@app.orchestration
async def double(ctx: OrchestrationContext, number: int) -> int:
    return 2 * number


@app.orchestration
async def fail(ctx: OrchestrationContext) -> None:
    raise ValueError("it was to fail")


@app.orchestration
async def work(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(hang, "x")


class Ended(NamedTuple):
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def values(self) -> list[Any]:
        """The JSON values that it printed, one a line."""
        return [orjson.loads(line) for line in self.out.splitlines()]

    def value(self) -> Any:
        """The one JSON value that it printed."""
        [value] = self.values
        return value


Run = Callable[..., Ended]


class Live(NamedTuple):
    """The places of a hub that runs."""

    socket: str
    http: str
