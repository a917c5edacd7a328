"""Where activities run: threads and loops."""

from __future__ import annotations

import threading

import anyio

from perdure import App, OrchestrationContext
from tests.runtime.orchestrating import running


async def test_sync_activities_run_in_threads_and_async_ones_on_the_loop() -> None:
    local = App()

    @local.activity
    def in_thread() -> str:
        return threading.current_thread().name

    @local.activity
    async def on_loop() -> str:
        await anyio.lowlevel.checkpoint()
        return threading.current_thread().name

    @local.orchestration
    async def both(ctx: OrchestrationContext) -> list[str]:
        return [await ctx.call_activity(in_thread), await ctx.call_activity(on_loop)]

    async with running(local) as hub:
        handle = await hub.client.start_new(both)

        thread, loop = await handle.result(5)

        assert thread.startswith("perdure-activity")
        assert loop == threading.current_thread().name


async def test_sync_activities_run_at_the_same_time() -> None:
    local = App()
    barrier = threading.Barrier(3, timeout=10)

    @local.activity
    def meets(n: int) -> int:
        barrier.wait()
        return n

    @local.orchestration
    async def three(ctx: OrchestrationContext) -> list[int]:
        return await ctx.task_all([ctx.call_activity(meets, n) for n in range(3)])

    async with running(local, activity_threads_max=3) as hub:
        handle = await hub.client.start_new(three)

        assert await handle.result(10) == [0, 1, 2]
