"""A hub's files with all that a change of its code may break, and that change."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import anyio

from perdure import App, EntityId, Hub, Settings
from tests.testing.programs import load

WAS = """\
from __future__ import annotations
import os, re, signal, time
from datetime import timedelta
from perdure import App, EntityId, OrchestrationContext, commutative
import anyio
app = App()

@app.activity
async def reserve(n: int) -> int:
    return n

@app.activity
async def charge(n: int) -> int:
    return n

@app.activity
async def slow(n: int) -> int:
    await anyio.sleep_forever()

@app.activity
async def slower(n: int) -> int:
    await anyio.sleep_forever()

@app.entity
class Stock:
    left: int = 9
    def take(self, count: int) -> int:
        self.left -= count
        return self.left
    def add(self, count: int) -> None:
        self.left += count

@app.entity(stripes=2)
class Hits:
    count: int = 0
    @commutative
    def put(self, count: int) -> None:
        self.count += count
    def merge(self, other: Hits) -> None:
        self.count += other.count

@app.entity
class Basket:
    size: int = 0
    def put(self, count: int) -> None:
        self.size += count

@app.entity
class Shelf:
    size: int = 0
    def put(self, count: int) -> None:
        self.size += count

@app.entity
class Till:
    size: int = 0
    def put(self, count: int) -> None:
        self.size += count

async def wait(ctx: OrchestrationContext, n: int):
    await ctx.call_activity(reserve, n)
    return await ctx.wait_for_external_event("go")

@app.orchestration
async def same(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def renamed(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def hangs(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def exits(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def killed(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def leaves(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def forks(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def forks_on(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def prints(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def gone(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration(version="1")
async def versioned(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def retyped(ctx: OrchestrationContext, n: int):
    return await wait(ctx, n)

@app.orchestration
async def calls(ctx: OrchestrationContext, n: int):
    await ctx.call_activity(slow, n)

@app.orchestration
async def calls_on(ctx: OrchestrationContext, n: int):
    await ctx.call_activity(slower, n)

@app.orchestration
async def locks(ctx: OrchestrationContext, n: int):
    async with ctx.lock_entities(EntityId(Stock, "held")):
        return await wait(ctx, n)
"""

_NOW: list[tuple[str, str]] = [
    ("async def renamed(ctx: OrchestrationContext, n: int):\n    return await wait(ctx, n)",
     "async def renamed(ctx: OrchestrationContext, n: int):\n"
     "    await ctx.call_activity(charge, n)  # differs"),
    ("async def hangs(ctx: OrchestrationContext, n: int):\n    return await wait(ctx, n)",
     "async def hangs(ctx: OrchestrationContext, n: int):\n"
     "    await ctx.call_activity(reserve, n)\n    re.match('(a+)+$', 'a' * 99 + 'b')  # hangs"),
    ("async def exits(ctx: OrchestrationContext, n: int):\n    return await wait(ctx, n)",
     "async def exits(ctx: OrchestrationContext, n: int):\n"
     "    print('these are its last words', flush=True)\n    os._exit(7)"),
    ("async def killed(ctx: OrchestrationContext, n: int):\n    return await wait(ctx, n)",
     "async def killed(ctx: OrchestrationContext, n: int):\n"
     "    os.kill(os.getpid(), signal.SIGKILL)"),
    ("async def leaves(ctx: OrchestrationContext, n: int):\n    return await wait(ctx, n)",
     "async def leaves(ctx: OrchestrationContext, n: int):\n    raise SystemExit(3)  # leaves"),
    ("async def prints(ctx: OrchestrationContext, n: int):\n    return await wait(ctx, n)",
     "async def prints(ctx: OrchestrationContext, n: int):\n"
     "    print('n' * 200_000); os.write(1, b'bare\\n'); input_ = open(0).read()\n"
     "    return await wait(ctx, n)"),
    ("async def forks(ctx: OrchestrationContext, n: int):\n    return await wait(ctx, n)",
     "async def forks(ctx: OrchestrationContext, n: int):\n"
     "    if not os.fork(): time.sleep(1_000)\n    os._exit(9)"),
    ("async def forks_on(ctx: OrchestrationContext, n: int):\n    return await wait(ctx, n)",
     "async def forks_on(ctx: OrchestrationContext, n: int):\n    os.fork()\n"
     "    return await wait(ctx, n)"),
    ("async def gone(", "async def gone_for_good("),
    ('version="1"', 'version="2"'),
    ("async def retyped(ctx: OrchestrationContext, n: int):",
     "async def retyped(ctx: OrchestrationContext, n: dict[str, int]):  # retyped"),
    ("async def slow(n: int)", "async def slow(n: int | list[int])"),
    ("async def slower(n: int)", "async def slower(n: int, /)"),
    ("    def add(self, count: int)", "    def add(self, count: str)"),
    ("class Basket:\n    size: int = 0", "class Basket:  # basket\n    size: list[int] = []"),
    ("class Shelf:\n    size: int = 0",
     "class Shelf:\n    schema_version = 2\n    size: list[int] = []\n    @classmethod\n"
     "    def upgrade(cls, stored, version):\n        return {'size': [stored['size']]}"),
    ("class Till:", "class Register:"),
]  # fmt: skip

#: Slow enough for a busy machine; what hangs costs that.
LIMIT_S = 3.0


#: What ends a process; to look at that takes its time.
_DEADLY = ("hangs", "exits", "killed", "forks", "forks_on")


def changed(*, is_mild: bool = False) -> str:
    """Give the program of today; a mild one leaves the process alive."""
    code = WAS
    for was, now in _NOW:
        assert was in code, was
        if not (is_mild and any(f"def {name}(" in was for name in _DEADLY)):
            code = code.replace(was, now)
    return code


def line(file: Path, mark: str) -> int:
    """Give the number of the line that ends in that mark."""
    lines = file.read_text("utf-8").splitlines()
    [number] = [number for number, one in enumerate(lines, 1) if one.endswith(f"# {mark}")]
    return number


NAMES = (
    "renamed", "hangs", "exits", "killed", "leaves", "prints", "gone", "retyped", "calls",
    "calls_on", "locks", "forks", "forks_on",
)  # fmt: skip


async def leave(app: App, folder: Path, then: Callable[[], object] = lambda: None) -> None:
    """Run the program on a store, and stop; ``then`` is called before that."""
    async with Hub(app, store=folder, settings=Settings(drain_s=0.1)) as hub:
        client = hub.client
        for number in range(30):
            await client.start_new("same", number, instance_id=f"same-{number}")
        for name in NAMES:
            await client.start_new(name, 1, instance_id=f"{name}-1")
        for number in range(2, 6):
            await client.start_new("exits", 1, instance_id=f"exits-{number}")
        await client.start_new("versioned", 1, instance_id="versioned-1", version="1")
        day = timedelta(days=1)
        await client.start_new("retyped", 1, instance_id="retyped-later", start_at=day)
        for name in ("basket", "shelf", "till", "hits"):
            await client.signal_entity(EntityId(name, "a"), "put", 3)
        await client.signal_entity(EntityId("stock", "later"), "add", 1, at=day)
        with anyio.fail_after(30):
            while await client.count(waiting_for="event:go") < 44:
                await anyio.sleep(0.005)
            while await client.count(waiting_for="activity:slow") < 1:
                await anyio.sleep(0.005)
            # Waits in the mailbox, since the entity is locked.
            await client.signal_entity(EntityId("stock", "held"), "add", 1)
            for name in ("basket", "shelf", "till", "hits"):
                while await client.get_entity(EntityId(name, "a")) is None:
                    await anyio.sleep(0.005)
        then()


def leave_all(folder: Path) -> tuple[Path, Path]:
    """Leave a store in a folder, and a copy of it as it was while the hub ran; give both."""
    app, _ = load(WAS, folder)
    stopped, copy = folder / "hub", folder / "copy"

    async def run() -> None:
        await leave(app, stopped, lambda: shutil.copytree(stopped, copy, ignore=_no_sockets))

    anyio.run(run)
    sys.modules.pop("__perdure_main__", None)
    return stopped, copy


def _no_sockets(_: str, names: list[str]) -> list[str]:
    return [name for name in names if "sock" in name]
