"""Tasks of a hub: whoever cancels all tasks of its event loop cancels none of them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import App, EntityId, Hub, InternalError, OrchestrationContext
from perdure.runtime.scheduling.hidden_tasks import TaskGroup, begin, hold
from tests.runtime.harness import until_true

app = App("hidden")


def cancel_all() -> None:
    """Cancel all tasks of the loop, as helpers do, but the main program's."""
    for task in asyncio.all_tasks():
        if task.get_name() != "main":
            task.cancel()


def from_a_task() -> None:
    cancel_all()


def from_a_callback() -> None:
    asyncio.get_running_loop().call_soon(cancel_all)


def from_a_thread() -> None:
    loop = asyncio.get_running_loop()
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(cancel_all))
    thread.start()
    thread.join()


WAYS: dict[str, Callable[[], None]] = {
    way.__name__: way for way in (from_a_task, from_a_callback, from_a_thread)
}


@app.activity
async def cancels(way: str) -> str:
    WAYS[way]()
    await asyncio.sleep(0.001)
    return way


@app.activity
async def slow(n: int) -> int:
    await asyncio.sleep(0.05)
    return n


@app.entity
class Counter:
    n: int = 0

    async def cancels(self, way: str) -> int:
        WAYS[way]()
        await asyncio.sleep(0.001)
        self.n += 1
        return self.n

    async def add(self) -> int:
        await asyncio.sleep(0.01)
        self.n += 1
        return self.n


@app.orchestration
async def calls_slow(ctx: OrchestrationContext) -> list[int]:
    return await ctx.task_all([ctx.call_activity(slow, n) for n in range(4)])


@app.orchestration
async def calls_bad(ctx: OrchestrationContext, way: str) -> str:
    return await ctx.call_activity(cancels, way)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("served", ["on one loop", "on two loops", "in workers"])
async def test_who_cancels_all_tasks_of_the_loop_cancels_none_of_the_hub(
    served: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for task in asyncio.all_tasks():
        task.set_name("main")
    store = f"sqlite:{tmp_path / 'hub'}"
    shards = 2 if served == "on two loops" else 1
    workers = 2 if served == "in workers" else 0
    async with Hub(app, store=store, partitions=2, shards=shards, workers=workers) as hub:
        replaced = sum(one.replaced for one in (await hub.statistics()).shards)
        for way in WAYS:
            innocents = [await hub.client.start_new(calls_slow) for _ in range(6)]
            for n in range(4):
                bad = await hub.client.start_new(calls_bad, way)
                assert await bad.result(10) == way
                cancelling = EntityId(Counter, f"{way}{n}")
                assert await hub.client.call_entity(cancelling, Counter.cancels, way) == 1
                assert await hub.client.call_entity(cancelling, Counter.add) == 2
            for innocent in innocents:
                assert await innocent.result(10) == [0, 1, 2, 3]
        counted = await hub.statistics()

    assert sum(one.replaced for one in counted.shards) == replaced
    if served != "in workers":  # these have a log of their own
        assert "the hub goes on" in caplog.text
    if served == "on two loops":
        assert "it goes on" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_whose_own_task_is_cancelled_all_the_same_stops_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await Hub(app).start()
    found: list[Any] = gc.get_objects()
    kind: Any = asyncio.Task
    [task] = [one for one in found if type(one) is kind and is_of_hub(one)]

    task.cancel()
    await until_true(lambda: "somebody cancelled the task of the hub" in caplog.text)

    assert "the hub stops: somebody cancelled the task of the hub" in caplog.text
    with pytest.raises(InternalError, match="somebody cancelled the task of the hub"):
        await hub.stop()


def is_of_hub(task: asyncio.Task[object]) -> bool:
    return not task.done() and task.get_name() == "perdure-hub"


async def test_tasks_of_a_group_run_and_end_as_anyios_do() -> None:
    log: list[str] = []

    async def note(text: str) -> None:
        log.append(text)

    async def fail() -> None:
        raise ValueError("for the test")

    async def run() -> None:
        async with TaskGroup() as tasks:
            tasks.start_soon(note, "one")
            tasks.start_soon(fail)
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as raised:
        await run()
    async with TaskGroup() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.cancel_scope.cancel()

    assert log == ["one"]
    assert raised.group_contains(ValueError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_factory_of_the_application_is_left_as_it_is() -> None:
    loop = asyncio.get_running_loop()
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, code: Any, **options: Any) -> Any:
        made.append("task")
        return asyncio.Task(code, loop=loop, **options)

    async def nothing() -> None:
        pass

    loop.set_task_factory(factory)
    try:
        async with TaskGroup() as tasks:
            tasks.start_soon(nothing)
        assert made == []
        await loop.create_task(nothing())
        assert made == ["task"]
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_stands_for_a_hidden_task_is_made_anew_until_that_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended, goes = anyio.Event(), anyio.Event()
    ends: list[str] = []

    async def run() -> None:
        await goes.wait()
        ended.set()

    before = asyncio.all_tasks()
    begin(run, lambda: ends.append("the loop"))
    for _ in range(3):
        [sentry] = asyncio.all_tasks() - before
        sentry.cancel()
        with suppress(asyncio.CancelledError):
            await sentry
    goes.set()
    await ended.wait()
    await until_true(lambda: not asyncio.all_tasks() - before)

    assert caplog.text.count("the hub goes on") == 3
    assert ends == []


def test_a_hidden_task_ends_with_its_loop_and_before_it() -> None:
    log: list[str] = []

    async def main() -> None:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(0.01)
                        log.append("ended")

        begin(run, scope.cancel)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())

    assert log == ["ended"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_is_held_ends_as_it_does_whoever_cancels_the_task_that_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = anyio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    async def fail() -> None:
        raise ValueError("for the test")

    waiting = asyncio.get_running_loop().create_task(hold(work))
    for _ in range(2):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    gate.set()

    assert await waiting == "done"
    assert caplog.text.count("it goes on") == 2
    with pytest.raises(ValueError, match="for the test"):
        await hold(fail)


PROGRAM = """
import asyncio, os, signal
import perdure
from tests.runtime.scheduling.test_hidden_tasks import app, calls_bad, calls_slow

tasks = []

def ready(hub):
    async def work():
        asyncio.current_task().set_name("main")
        slow = await hub.client.start_new(calls_slow)
        bad = await hub.client.start_new(calls_bad, "from_a_task")
        print(await bad.result(10), await slow.result(10), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    tasks.append(asyncio.get_running_loop().create_task(work()))

perdure.run(app, on_ready=ready)
print("stopped in order")
"""


def test_a_program_that_only_serves_goes_on_where_all_its_tasks_are_cancelled() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout == "from_a_task [0, 1, 2, 3]\nstopped in order\n", done.stderr
    assert done.returncode == 0
