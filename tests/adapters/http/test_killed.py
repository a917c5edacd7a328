"""A server that is killed in the middle of what it is asked, and a client that goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from perdure import EntityId, connect
from tests.greeter import command, read_line

BOOKS = """
import perdure

app = perdure.App("books")

@app.entity
class Book:
    lines: int = 0
    def add(self, amount: int) -> int:
        self.lines += amount
        return self.lines
    def count(self) -> int:
        return self.lines

@app.activity
async def write(number: int) -> int:
    return number

@app.orchestration
async def entry(ctx: perdure.OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(write, number)
"""
KILLS = 2
LOAD = 8


@contextmanager
def serving(folder: Path, port: int) -> Generator[subprocess.Popen[str]]:
    arguments = ["books:app", "--store", "sqlite:hub", "--http", f"127.0.0.1:{port}"]
    with command(folder, "-m", "perdure", "serve", *arguments) as process:
        while not (line := read_line(process)).startswith("http://"):
            assert line, process.communicate()
        yield process


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_was_asked_when_the_server_was_killed_is_asked_again_and_applied_once(
    tmp_path: Path, free_tcp_port: int, anyio_backend: str
) -> None:
    (tmp_path / "books.py").write_text(BOOKS, "utf-8")
    called: dict[str, int] = {}
    signalled: dict[str, int] = {}
    started: dict[str, int] = {}
    over = False

    async def work(name: str) -> None:
        calls, signals = EntityId[object]("book", name), EntityId[object]("book", f"{name}-s")
        number = 0
        while not over:
            number += 1
            called[name] = await client.call_entity(calls, "add", 1)
            assert called[name] == number  # each was applied once, in order
            await client.signal_entity(signals, "add", 1, request_id=f"{name}-{number}")
            signalled[name] = number
            handle = await client.start_new("entry", number, instance_id=f"{name}-{number}")
            assert await handle.result(60) == number
            started[name] = number

    def serve() -> None:
        up.enter_context(serving(tmp_path, free_tcp_port))

    with anyio.fail_after(150), ExitStack() as up:
        await anyio.to_thread.run_sync(serve)
        async with connect(f"http://127.0.0.1:{free_tcp_port}") as client:
            async with anyio.create_task_group() as tasks:
                for number in range(LOAD):
                    tasks.start_soon(work, f"w{number}")
                for _ in range(KILLS):
                    before = dict(started)
                    while len(started) < LOAD or started == before:
                        await anyio.sleep(0.01)
                    await anyio.to_thread.run_sync(up.close)  # by SIGKILL
                    await anyio.to_thread.run_sync(serve)
                over = True
            for name, count in signalled.items():
                book = EntityId[object]("book", f"{name}-s")
                assert await client.call_entity(book, "count") == count
            assert await client.count(name="entry") == sum(started.values())

    assert len(called) == len(signalled) == len(started) == LOAD
