"""Code of users forks the process that runs a hub: the child is none of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from perdure.runtime.scheduling.forks import no_copies
from perdure.runtime.scheduling.waiter import thread_waker

ROOT = Path(__file__).parents[3]

PROGRAM = """
import multiprocessing, os, signal, sys, time
from functools import partial
import anyio
from perdure import App, EntityId, Hub, OrchestrationContext, connect

HOW, BACKEND, FOLDER = sys.argv[1:]
app = App()

def come_back():
    if HOW == "raises":
        raise ValueError("in the child")
    if HOW == "exits":
        sys.exit(0)
    return os.getpid()

def fork():
    child = os.fork()
    return come_back() if child == 0 else child

def tell_pid(pipe):
    pipe.send(os.getpid())

@app.activity
def in_thread() -> int:
    return fork()

@app.activity
async def on_loop() -> int:
    return fork()

@app.activity
def by_multiprocessing() -> int:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=tell_pid, args=[theirs])
    process.start()
    process.join()
    return ours.recv()

@app.entity
class Forker:
    count: int = 0

    def fork(self) -> int:
        self.count += 1
        return fork()

    def add(self) -> int:
        self.count += 1
        return self.count

@app.orchestration
async def call(ctx: OrchestrationContext, name: str) -> int:
    return await ctx.call_activity(name)

async def end_of(pid):
    assert pid != os.getpid()
    with anyio.fail_after(10):
        while True:
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    return
            except ChildProcessError:
                return
            await anyio.sleep(0.005)

async def main():
    place, hub_of = FOLDER + "/hub.sock", partial(Hub, app, store="sqlite:" + FOLDER + "/hub")
    with anyio.fail_after(40):
        async with hub_of(shards=2, socket=place) as hub, connect(place, app) as other:
            for name in ("in_thread", "on_loop", "by_multiprocessing"):
                await end_of(await (await hub.client.start_new(call, name)).result())
            for key in "abcd":
                for client in (hub.client, other):
                    await end_of(await client.call_entity(EntityId(Forker, key), Forker.fork))
            for key in "abcd":
                assert await other.call_entity(EntityId(Forker, key), Forker.add) == 3
            await end_of(fork())
        async with hub_of(shards=2) as hub:
            for key in "abcd":
                assert await hub.client.call_entity(EntityId(Forker, key), Forker.add) == 4
    print("well", flush=True)

if __name__ == "__main__":
    uvloop = BACKEND == "uvloop"
    options = {"use_uvloop": True} if uvloop else {}
    anyio.run(main, backend="asyncio" if uvloop else BACKEND, backend_options=options)
"""


@pytest.mark.parametrize(
    ("how", "backend"),
    [("raises", "asyncio"), ("exits", "asyncio"), ("exits", "uvloop"), ("returns", "trio")],
)
def test_a_child_that_comes_back_from_users_code_ends_and_touches_nothing(
    tmp_path_factory: pytest.TempPathFactory, how: str, backend: str
) -> None:
    folder = tmp_path_factory.mktemp("f")
    (folder / "program.py").write_text(PROGRAM)

    done = subprocess.run(
        [sys.executable, str(folder / "program.py"), how, backend, str(folder)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.stdout, done.returncode) == ("well\n", 0), done.stderr
    assert done.stderr.count("came back from the code that forked it") == 11


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_child_does_not_wait_for_a_thread_that_woke_the_loop_at_the_fork() -> None:
    queue: Any = vars(type(trio.lowlevel.current_trio_token()))["_reentry_queue"]
    lock = queue.__get__(trio.lowlevel.current_trio_token()).lock
    locked, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            locked.set()
            forked.wait()

    with no_copies():
        wake, thread = thread_waker(lambda: None), threading.Thread(target=hold)
        thread.start()
        locked.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            wake()
            os._exit(0)
        forked.set()
        thread.join()

    assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222
