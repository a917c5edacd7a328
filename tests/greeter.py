"""An application for programs of their own, and how tests run these."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import Hub, ManualClock, RuntimeStatus

ROOT = Path(__file__).parent.parent

APP = """
import anyio
import perdure

app = perdure.App("greeter")
nested = type("Nested", (), {"app": app})
not_an_app = 5

@app.activity
async def say(text: str) -> None:
    print(text, flush=True)

@app.entity
class Counter:
    value: int = 0
    def add(self, amount: int) -> None:
        self.value += amount

@app.activity
async def hang(text: str) -> None:
    print(text, flush=True)
    await anyio.sleep_forever()

@app.orchestration
async def get_stuck(ctx: perdure.OrchestrationContext, text: str) -> None:
    await ctx.call_activity(hang, text)

@app.orchestration
async def greet(ctx: perdure.OrchestrationContext, text: str) -> str:
    await ctx.call_activity(say, text)
    return text
"""


@contextmanager
def app_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Have a current folder with the module ``greeter``."""
    (path / "greeter.py").write_text(APP, "utf-8")
    (path / "broken.py").write_text("import no_such_module_anywhere", "utf-8")
    monkeypatch.chdir(path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield path
    for name in ("greeter", "broken"):
        sys.modules.pop(name, None)


@contextmanager
def command(folder: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run the command in a process of its own, which is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


async def start_for_later(folder: Path, store: str, name: str = "greet") -> None:
    """Leave an instance in the store whose time comes while another process serves it."""
    found = importlib.util.spec_from_file_location("greeter_here", folder / "greeter.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    # The clock stands still, so that it does not start here.
    clock = ManualClock(time.time_ns() // 1_000)
    async with Hub(module.app, store=store, clock=clock) as hub:
        await hub.client.start_new(
            name, "served", instance_id="one", start_at=timedelta(microseconds=1)
        )
        status = await hub.client.get_status("one")
    assert status is not None
    assert status.runtime_status == RuntimeStatus.PENDING
