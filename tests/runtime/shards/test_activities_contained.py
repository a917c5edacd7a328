"""An activity fails itself alone, whatever it raises, cancels, leaves open or does not end."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio

from perdure import ActivityContext, App, EntityId, Hub, OrchestrationContext, Settings
from perdure.testing.inside import shard_of
from tests.faults import within
from tests.runtime.harness import until_true


class Bad(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class Abort(BaseException):
    pass


RAISED: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (Bad, Abort, SystemExit, GeneratorExit, KeyboardInterrupt, asyncio.CancelledError)
}

app = App("contained")


@app.activity
async def raises(name: str) -> None:
    raise RAISED[name]


@app.activity
async def raises_later(name: str) -> None:
    await anyio.lowlevel.checkpoint()
    raise RAISED[name]


@app.activity
def raises_in_thread(name: str) -> None:
    raise RAISED[name]


@app.activity
async def unencodable(name: str) -> Any:
    return object()


@app.activity
async def spoils(how: str) -> str:
    if how == "cancel" and sniffio.current_async_library() == "asyncio":
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        task.cancel()
    elif how == "group":
        await anyio.create_task_group().__aenter__()
    else:
        anyio.move_on_after(0).__enter__()
    if how != "group":
        await anyio.lowlevel.checkpoint()
    return "done"


@app.activity
async def innocent(_: str) -> str:
    await anyio.sleep(0.001)
    return "done"


@app.orchestration
async def call(ctx: OrchestrationContext, call: tuple[str, str]) -> str:
    try:
        return str(await ctx.call_activity(call[0], call[1]))
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("name", RAISED)
async def test_whatever_an_activity_raises_its_caller_gets_an_activity_error(name: str) -> None:
    async with within(), Hub(app) as hub:
        for activity in ("raises", "raises_later", "raises_in_thread", "unencodable"):
            handle = await hub.client.start_new(call, (activity, name))

            assert await handle.result() == "ActivityError"


@pytest.mark.parametrize("how", ["cancel", "scope", "group"])
async def test_what_an_activity_does_to_its_task_stays_with_it(how: str) -> None:
    async with within(), Hub(app) as hub:
        for _ in range(3):
            guilty = await hub.client.start_new(call, ("spoils", how))
            beside = await hub.client.start_new(call, ("innocent", ""))

            assert await guilty.result() in ("done", "ActivityError")
            assert await beside.result() == "done"


async def test_closing_leaves_behind_what_swallows_its_cancellation_and_names_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    local, end = App(), anyio.Event()
    ended: list[str] = []

    async def stubborn_work() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except BaseException:
                with suppress(BaseException):  # it may be told once more just then
                    await anyio.lowlevel.cancel_shielded_checkpoint()
        ended.append("ended")

    @local.activity
    async def stubborn() -> None:
        await stubborn_work()

    @local.entity
    class Box:
        n: int = 0

        async def stick(self) -> None:
            await stubborn_work()

    @local.orchestration
    async def run(ctx: OrchestrationContext) -> None:
        ctx.signal_entity(EntityId("box", "b"), "stick")
        await ctx.call_activity(stubborn)

    with caplog.at_level(logging.ERROR):
        async with Hub(local, settings=Settings(drain_s=0.05)) as hub:
            await hub.client.start_new(run, instance_id="i")
            await until_true(lambda: shard_of(hub).pump.suspended == 2)
            began = anyio.current_time()

    assert anyio.current_time() - began < 5.05 + 20  # what a busy machine takes for the rest
    assert sorted(hub.left_behind) == [
        "activity stubborn of instance i",
        "operation stick of @box@b",
    ]
    for title in hub.left_behind:
        assert f"left {title} behind" in caplog.text
    end.set()
    await until_true(lambda: len(ended) == 2)


STUBBORN = """
import asyncio
from perdure import App, Hub, Settings
from perdure.testing.inside import shard_of

app = App()

@app.activity
async def stubborn():
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            continue

@app.orchestration
async def flow(ctx):
    await ctx.call_activity(stubborn)

async def main():
    async with Hub(app, settings=Settings(drain_s=0.1)) as hub:
        await hub.client.start_new(flow, instance_id="i")
        while not shard_of(hub).pump.suspended:
            await asyncio.sleep(0.01)
    assert hub.left_behind == ["activity stubborn of instance i"]

asyncio.run(main())
"""


def test_an_asyncio_program_ends_though_an_activity_swallows_its_cancellation() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 0, done.stderr
    assert "left activity stubborn of instance i behind" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_sync_attempt_that_outlives_its_limit_is_told_keeps_its_place_and_is_counted() -> (
    None
):
    local, go, told = App(), threading.Event(), threading.Event()
    begun: list[int] = []

    @local.activity(max_concurrency=1)
    def slow(ctx: ActivityContext, n: int) -> int:
        begun.append(n)
        while n == 0 and not go.wait(0.001):
            if ctx.cancelled:
                told.set()
        return n

    @local.orchestration
    async def run(ctx: OrchestrationContext, n: int) -> Any:
        try:
            return await ctx.call_activity(slow, n, timeout=0.05 if n == 0 else None)
        except Exception as error:
            return repr(error)

    async with within(), Hub(local) as hub:
        first = await hub.client.start_new(run, 0)
        outcome = await first.result()
        second = await hub.client.start_new(run, 1)
        await until_true(told.is_set)
        (shard,) = (await hub.statistics()).shards
        alone = list(begun)
        go.set()
        result = await second.result()
        await until_true(lambda: shard_of(hub).activities.abandoned == 0)

    assert "TimeoutError" in outcome
    assert shard.abandoned == 1
    assert alone == [0]  # the second waits for the place
    assert result == 1


async def test_the_limit_of_a_sync_attempt_begins_with_its_start() -> None:
    local, go = App(), threading.Event()

    @local.activity
    def block(_: int) -> None:
        go.wait(30)

    @local.activity(timeout=1.0)
    def quick(_: int) -> str:
        return "done"

    @local.orchestration
    async def run(ctx: OrchestrationContext) -> str:
        block_one = ctx.call_activity(block, 1)
        waits = ctx.call_activity(quick, 1)
        await block_one
        return await waits

    settings = Settings(activity_threads_max=1)
    async with within(), Hub(local, settings=settings) as hub:
        handle = await hub.client.start_new(run)
        await anyio.sleep(1.2)  # longer than the limit, in the queue
        go.set()

        assert await handle.result() == "done"


async def test_a_thread_that_never_returns_does_not_keep_the_hub_from_closing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    local, go = App(), threading.Event()

    @local.activity
    def stuck() -> None:
        go.wait(20)

    @local.orchestration
    async def run(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(stuck)

    async with within(), Hub(local, settings=Settings(drain_s=0.05)) as hub:
        await hub.client.start_new(run, instance_id="i")
        await until_true(
            lambda: (
                [one.title for one in shard_of(hub).activities.begun]
                == ["activity stuck of instance i"]
            )
        )

    assert "left activity stuck of instance i behind" in caplog.text
    go.set()
