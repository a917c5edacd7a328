"""How many activities run at once."""

from __future__ import annotations

import threading

import anyio
import pytest

from perdure import App, OrchestrationContext
from tests.runtime.orchestrating import running


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("sync", [False, True])
async def test_max_concurrency_is_honoured_over_all_instances(limit: int, sync: bool) -> None:
    local = App()
    lock = threading.Lock()
    now = [0, 0]

    def enter() -> None:
        with lock:
            now[0] += 1
            now[1] = max(now)

    def leave() -> None:
        with lock:
            now[0] -= 1

    if sync:

        @local.activity(name="limited", max_concurrency=limit)
        def limited_sync() -> None:
            enter()
            threading.Event().wait(0.002)  # long enough for others to come in, if they may
            leave()

    else:

        @local.activity(name="limited", max_concurrency=limit)
        async def limited_async() -> None:
            enter()
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            leave()

    @local.orchestration
    async def many(ctx: OrchestrationContext) -> int:
        return len(await ctx.task_all([ctx.call_activity("limited") for _ in range(10)]))

    async with running(local) as hub:
        handles = [await hub.client.start_new(many) for _ in range(3)]
        results = [await handle.result(10) for handle in handles]

        assert results == [10, 10, 10]
        assert now == [0, limit]


async def test_the_hubs_limit_for_async_activities_is_honoured() -> None:
    local = App()
    now = [0, 0]

    @local.activity
    async def counted() -> None:
        now[0] += 1
        now[1] = max(now)
        for _ in range(50):  # long enough for all to begin
            await anyio.lowlevel.checkpoint()
        now[0] -= 1

    @local.orchestration
    async def many(ctx: OrchestrationContext) -> int:
        return len(await ctx.task_all([ctx.call_activity(counted) for _ in range(30)]))

    async with running(local, activities_max=4) as hub:
        handle = await hub.client.start_new(many)

        assert await handle.result(10) == 30
        assert now == [0, 4]


async def test_a_failing_or_cancelled_run_gives_its_place_free() -> None:
    local = App()
    begun: list[int] = []
    entered = anyio.Event()

    @local.activity(max_concurrency=1)
    async def limited(n: int) -> int:
        begun.append(n)
        if n == 0:
            raise ValueError("bad")
        if n == 1:
            entered.set()
            await anyio.sleep_forever()
        return n

    @local.orchestration
    async def many(ctx: OrchestrationContext) -> list[str]:
        tasks = [ctx.call_activity(limited, n) for n in range(5)]
        await ctx.wait_for_external_event("go")
        tasks[1].cancel()
        tasks[3].cancel()
        await ctx.task_any([tasks[4]])
        return [
            "failed" if t.is_faulted else "cancelled" if t.is_cancelled else str(t.result)
            for t in tasks
        ]

    async with running(local) as hub:
        handle = await hub.client.start_new(many)
        await entered.wait()
        await handle.raise_event("go")

        assert await handle.result(5) == ["failed", "cancelled", "2", "cancelled", "4"]
        assert begun == [0, 1, 2, 4]
