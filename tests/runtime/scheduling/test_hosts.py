"""A hub works however its event loop was started: by anyio, or by the loop's own ``run``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import uvloop

from perdure import (
    App,
    EntityContext,
    EntityId,
    Hub,
    ManualClock,
    OrchestrationContext,
    Rebalance,
    RuntimeStatus,
    connect,
)
from perdure.runtime.scheduling.waiter import thread_waker

app = App()
mark: ContextVar[str] = ContextVar("mark", default="none")


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int, ctx: EntityContext) -> int:
        self.value += amount
        if amount > 1:
            ctx.signal_entity(EntityId(Counter, f"{ctx.key}-far"), "add", 1)
        return self.value

    async def nap(self, amount: int) -> int:
        await anyio.sleep(0.001)
        self.value += amount
        return self.value


@app.activity
def square(number: int) -> int:
    return number**2


@app.activity
async def cube(number: int) -> int:
    await anyio.sleep(0.001)
    return number**3


@app.orchestration
async def flow(ctx: OrchestrationContext, number: int) -> int:
    await ctx.create_timer(timedelta(milliseconds=5))
    found = await ctx.task_all([ctx.call_activity(square, number), ctx.call_activity(cube, number)])
    return sum(found)


def anyio_on(backend: str, run: Callable[[], Awaitable[Any]]) -> None:
    anyio.run(run, backend=backend)


RUNNERS: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "asyncio.run": lambda run: asyncio.run(run()),
    "uvloop.run": lambda run: uvloop.run(run()),
    "trio.run": trio.run,
    "anyio.run": partial(anyio_on, "asyncio"),
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_hub_of_several_loops_does_all_it_does_under(runner: str, tmp_path: Path) -> None:
    path = tmp_path / "hub.sock"

    async def use() -> None:
        eager = Rebalance(interval_s=0.01, busy=0.0001, gain=0.0001, rest_s=0.01)
        async with (
            Hub(
                app,
                shards=2,
                rebalance=eager,
                socket=path,
                retention={RuntimeStatus.COMPLETED: timedelta(0)},
            ) as hub,
            connect(path, app) as client,
        ):
            for key in map(str, range(8)):
                assert await hub.client.call_entity(EntityId(Counter, key), Counter.add, 2) == 2
                assert await client.call_entity(EntityId(Counter, key), Counter.nap, 1) == 3
            await hub.move_partition(0, 1)
            await hub.move_partition(3, 0)
            for number, one in enumerate([hub.client, client]):
                handle = await one.start_new(flow, 3, instance_id=f"flow-{number}")
                assert await handle.result(timeout=20) == 36
            assert len((await hub.statistics()).shards) == 2

    async def bounded() -> None:
        with anyio.fail_after(30):
            await use()

    RUNNERS[runner](bounded)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_callback_from_another_thread_may_do_what_a_task_may_under(runner: str) -> None:
    seen: list[str] = []

    async def use() -> None:
        async with anyio.create_task_group() as tasks:
            done = anyio.Event()

            async def note() -> None:
                seen.append(mark.get())
                done.set()

            def callback() -> None:
                anyio.CancelScope().cancel()
                assert anyio.current_time() > 0
                tasks.start_soon(note)

            wake = thread_waker(callback)

            def other_thread() -> None:
                mark.set("of the thread")
                wake()

            with anyio.fail_after(10):
                await anyio.to_thread.run_sync(other_thread)
                await done.wait()

    RUNNERS[runner](use)

    assert seen == ["none"], "a callback has the context of its loop"


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_clock_that_is_turned_by_hand_fires_timers_under(runner: str) -> None:
    clock = ManualClock()

    async def use() -> None:
        with anyio.fail_after(20):
            async with Hub(app, clock=clock) as hub:
                handle = await hub.client.start_new(flow, 2)
                while (await handle.status()).runtime_status is not RuntimeStatus.COMPLETED:
                    clock.advance(0.005)
                    await anyio.lowlevel.checkpoint()

    RUNNERS[runner](use)
