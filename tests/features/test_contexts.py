"""Context variables: what users' code sets is seen by that piece of it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
import sniffio
import trio

import perdure
from perdure import App, EntityId, Hub, OrchestrationContext
from tests.runtime.orchestrating import evict, running

app = App()
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def seen_then_set(value: str) -> str:
    before = tenant.get()
    tenant.set(value)
    return before


@app.activity
async def on_the_loop() -> str:
    before = seen_then_set("activity")
    await anyio.lowlevel.checkpoint()
    assert tenant.get() == "activity"
    return before


@app.activity
def in_a_thread() -> str:
    return seen_then_set("thread")


@app.entity
class Box:
    count: int = 0

    def look(self) -> str:
        return seen_then_set("operation")

    async def look_slowly(self) -> str:
        before = seen_then_set("async operation")
        await anyio.lowlevel.checkpoint()
        assert tenant.get() == "async operation"
        return before

    def add(self, number: int) -> None:
        self.count += number
        if tenant.get() not in ("nobody", "fold"):
            self.count = -1_000
        tenant.set("signal")

    @perdure.combine(add)
    @staticmethod
    def fold(numbers: list[int]) -> int:
        tenant.set("fold")
        return sum(numbers)

    def get(self) -> int:
        return self.count


BOX = EntityId(Box, "b")


@app.orchestration
async def sees(ctx: OrchestrationContext, name: str) -> list[str]:
    seen = [seen_then_set(name)]
    for _ in range(2):
        seen += [
            await ctx.call_activity(on_the_loop),
            await ctx.call_activity(in_a_thread),
            await ctx.call_entity(BOX, Box.look),
            await ctx.call_entity(BOX, Box.look_slowly),
        ]
    await ctx.wait_for_external_event("go")
    seen.append(tenant.get())
    return seen


async def test_each_piece_of_code_sees_only_what_it_set_itself() -> None:
    async with running(app, partitions=1) as hub:
        handles = [await hub.client.start_new(sees, name) for name in ("ann", "bob")]
        for handle in handles:
            await handle.raise_event("go")

        results = [await handle.result(5) for handle in handles]

        assert results == [["nobody"] * 9 + [name] for name in ("ann", "bob")]


async def test_signals_of_one_turn_do_not_see_each_others() -> None:
    async with running(app, partitions=1) as hub:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(hub.client.signal_entity, BOX, Box.add, 1)

        assert await hub.client.call_entity(BOX, Box.get) == 20


async def test_a_replay_rebuilds_what_an_orchestration_set() -> None:
    async with running(app, partitions=1) as hub:
        handle = await hub.client.start_new(sees, "ann")
        await evict(hub)

        await handle.raise_event("go")

        assert (await handle.result(5))[-1] == "ann"


async def test_branches_share_the_context_of_their_orchestration() -> None:
    local = App()

    @local.orchestration
    async def branching(ctx: OrchestrationContext) -> str:
        async def branch() -> None:
            tenant.set("branch")
            await ctx.create_timer(timedelta(0))

        async with ctx.create_task_group() as group:
            group.start_soon(branch)
        return tenant.get()

    async with running(local) as hub:
        assert await (await hub.client.start_new(branching)).result(5) == "branch"
        assert tenant.get() == "nobody"


async def five() -> int:
    await anyio.lowlevel.checkpoint()
    return 5


def by_portal() -> int:
    with anyio.from_thread.start_blocking_portal() as portal:
        return portal.call(five)


LOOPS: dict[str, Callable[[], int]] = {
    "anyio": lambda: anyio.run(five),
    "anyio on trio": lambda: anyio.run(five, backend="trio"),
    "asyncio": lambda: asyncio.run(five()),
    "trio": lambda: trio.run(five),
    "a portal": by_portal,
}


@app.activity
def runs_a_loop(name: str) -> int:
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        sniffio.current_async_library()
    return LOOPS[name]()


@app.orchestration
async def runs_loops(ctx: OrchestrationContext) -> list[int]:
    return [await ctx.call_activity(runs_a_loop, name) for name in LOOPS]


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_sync_activity_can_run_an_event_loop_of_its_own(shards: int) -> None:
    async with Hub(app, partitions=2, shards=shards) as hub:
        for _ in range(2):  # the threads are used again
            assert await (await hub.client.start_new(runs_loops)).result(10) == [5] * len(LOOPS)
