"""An application to ask why its actors wait; worker processes import it, too."""

from __future__ import annotations

import threading
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from perdure import App, EntityId, OrchestrationContext, RetryPolicy, SourceLine

app = App()

HOUR = timedelta(hours=1)
THRICE = RetryPolicy(first_interval=60.0, max_attempts=3)

#: Set to let what is held go; threads and loops look at it.
let_go = threading.Event()


async def held() -> None:
    """Wait until that is let go."""
    while not let_go.is_set():
        await anyio.sleep(0.001)


@app.activity
async def fetch(url: str) -> str:
    await held()
    return url


@app.activity(max_concurrency=1)
async def one_at_a_time() -> None:
    await anyio.lowlevel.checkpoint()
    await held()


@app.activity
async def fails() -> None:
    raise ValueError("it is broken")


@app.activity
async def echo(n: int) -> int:
    return n


@app.activity
def sync() -> None:
    """Runs in a thread."""


@app.entity
class Slow:
    value: int = 0

    async def work(self) -> None:
        await held()
        self.value += 1

    def add(self, n: int) -> None:
        self.value += n


S: EntityId[Slow] = EntityId(Slow, "s")
T: EntityId[Slow] = EntityId(Slow, "t")


@app.orchestration
async def child(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("grown up")


@app.orchestration
async def shop(ctx: OrchestrationContext) -> None:
    async def pay() -> None:
        await charge()

    async def charge() -> None:
        task = ctx.call_activity(fetch, "a", retry=THRICE, summary="take the money")
        await task  # the activity

    async def ask() -> None:
        with ctx.fail_after(HOUR):
            approval = ctx.wait_for_external_event("approve", timeout=1800)
            await ctx.task_any([approval, ctx.create_timer(HOUR)])  # the event

    async def ship() -> None:
        await ctx.task_all(  # the child
            [
                ctx.call_sub_orchestrator(child, instance_id="the child"),
                ctx.call_entity(S, Slow.work),
            ]
        )

    async with ctx.create_task_group() as branches:  # the group
        branches.start_soon(pay)
        branches.start_soon(ask)
        branches.start_soon(ship)


@app.orchestration
def shop_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield ctx.call_activity(echo, 1)
    yield from _approval(ctx)  # the generator


def _approval(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    answer = yield ctx.wait_for_external_event("approve")  # inside of it
    return answer


@app.orchestration
async def in_a_thread(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(sync)


@app.orchestration
async def queue(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(one_at_a_time)


@app.orchestration
async def retried(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(fails, retry=THRICE)  # the retries


@app.orchestration
async def locks(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(S, T):  # the lock
        await ctx.wait_for_external_event("go")


@app.orchestration
async def leaves(ctx: OrchestrationContext) -> str:
    ctx.call_activity(fetch, "left")
    return "done"


@app.orchestration
async def counts(ctx: OrchestrationContext, n: int) -> int:
    total = 0
    for i in range(n):
        total += await ctx.call_activity(echo, i)  # the count
    await ctx.wait_for_external_event("go")
    return total


@app.orchestration
async def fans_out(ctx: OrchestrationContext, n: int) -> None:
    await ctx.task_all([ctx.create_timer(HOUR) for _ in range(n)])  # the timers


def line_of(comment: str) -> tuple[str, int]:
    """Give the line of this file that bears a comment, and its number."""
    lines = Path(__file__).read_text().splitlines()
    [found] = [n for n, line in enumerate(lines, 1) if line.endswith(f"# {comment}")]
    return lines[found - 1].strip(), found


def stands(line: SourceLine | None, comment: str) -> bool:
    """Whether a line is the one that bears a comment."""
    return line is not None and (line.text, line.line) == line_of(comment)
