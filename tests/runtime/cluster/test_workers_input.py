"""Hubs with worker processes: what is refused, with which words, and that nothing is left behind."""

from __future__ import annotations

import os
import py_compile
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import orjson
import pytest

from perdure import (
    App,
    Hub,
    InternalError,
    ManualClock,
    MemoryStore,
    PerdureError,
    Settings,
    UnavailableError,
    UsageError,
    connect,
)
from perdure.runtime.placement.places import LineLostError
from perdure.runtime.scheduling.waiter import waiter_factory
from perdure.runtime.transport import router as routing
from perdure.runtime.transport.lines import Line

ROOT = Path(__file__).parents[3]

FLOWS = """
import os, sys
from perdure import App

app = App()
in_worker = "perdure.runtime.cluster.worker" in sys.orig_argv

@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value
"""

SCRIPT = """
import anyio
from perdure import EntityId, Hub
from perdure import App

app = App()

@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

async def main():
    async with Hub(app, store="sqlite:hub", workers=2, partitions=2) as hub:
        print(await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 2))
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder whose path is short enough for sockets."""
    return tmp_path_factory.mktemp("i")


def children() -> set[int]:
    """Give the pids of the worker processes that this process started and that still run."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        if (
            stat[1] == str(os.getpid())
            and stat[0] != "Z"
            and "perdure.runtime.cluster.worker" in command
        ):
            found.add(int(entry.name))
    return found


def sockets(folder: Path) -> list[Path]:
    return list(folder.glob("**/*.sock*"))


async def check_nothing_left(folder: Path) -> None:
    """Check that no process, no socket and no lock on the store remain."""
    assert children() == set()
    assert sockets(folder) == []
    async with Hub(App(), store=f"sqlite:{folder / 'hub'}", partitions=4):
        pass


def make_flows(folder: Path, more: str = "") -> str:
    (folder / "flows.py").write_text(FLOWS + more)
    return f"{folder / 'flows.py'}:app"


@pytest.mark.parametrize(
    ("workers", "reason"),
    [
        (-1, "workers must be an int from 0 to 1,024, not -1"),
        (5, "5 workers cannot share 4 partitions: give at least as many partitions as workers"),
    ],
)
async def test_a_number_of_workers_that_cannot_be_is_refused(
    folder: Path, workers: int, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        Hub(make_flows(folder), store=f"sqlite:{folder / 'hub'}", workers=workers)

    assert not (folder / "hub").exists()


async def test_shards_and_workers_at_once_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        Hub(make_flows(folder), store=f"sqlite:{folder / 'hub'}", workers=2, shards=2)


@pytest.mark.parametrize("store", ["memory:", MemoryStore()], ids=["named", "made"])
async def test_a_store_in_memory_is_refused_since_workers_cannot_share_it(
    folder: Path, store: str | MemoryStore
) -> None:
    with pytest.raises(UsageError, match="give store='sqlite:PATH', or shards instead of workers"):
        Hub(make_flows(folder), store=store, workers=2)


async def test_a_clock_that_other_processes_do_not_see_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="leave clock out"):
        Hub(make_flows(folder), store=f"sqlite:{folder / 'hub'}", workers=1, clock=ManualClock())


async def test_a_socket_path_that_is_too_long_is_refused(folder: Path) -> None:
    deep, store = folder / ("x" * 100), f"sqlite:{folder / 'hub'}"

    with pytest.raises(UsageError, match="bytes long, and the system takes"):
        Hub(make_flows(folder), store=store, workers=2, socket=deep / "hub.sock")

    assert not deep.exists()


@pytest.mark.by_turns
async def test_a_hub_with_workers_in_a_folder_of_a_long_path_has_its_sockets_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    deep = folder / ("x" * 100)

    async with Hub(make_flows(folder), store=f"sqlite:{deep}", workers=1):
        async with connect(f"sqlite:{deep}") as client:
            described = await client.describe()
        sockets = {path.suffix for path in (folder / "perdure").iterdir()}

    assert described.entities == {"counter": ("add", "delete")}
    assert sockets == {".sock", ".0"}
    assert [*(folder / "perdure").iterdir()] == []


@pytest.mark.by_turns
async def test_a_socket_in_a_folder_that_is_not_there_is_refused(folder: Path) -> None:
    hub = Hub(
        make_flows(folder),
        store=f"sqlite:{folder / 'hub'}",
        workers=2,
        socket=folder / "missing" / "hub.sock",
    )
    with pytest.raises(UsageError, match="missing"):
        async with hub:
            pass

    await check_nothing_left(folder)


async def test_an_app_that_no_module_has_is_refused_with_the_way_to_name_it(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"put it in a module .* Hub\('shop.flows:app'"):
        Hub(App(), store=f"sqlite:{folder / 'hub'}", workers=2)


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("more", "error", "reason"),
    [
        (
            "\nif in_worker: raise RuntimeError('no such printer')\n",
            UsageError,
            "cannot import .*flows.py:app: RuntimeError: no such printer",
        ),
        ("\nif in_worker: import no_such_module\n", UsageError, "No module named 'no_such_module'"),
        ("\nif in_worker: del app\n", UsageError, "it has no perdure.App"),
        ("\nif in_worker: os._exit(3)\n", InternalError, r"before it served \(status 3\)"),
        (
            "\nif in_worker: os.kill(os.getpid(), 9)\n",
            InternalError,
            r"before it served \(killed by signal 9\)",
        ),
        ("\nif in_worker: sys.exit(4)\n", InternalError, r"before it served \(status 4\)"),
    ],
    ids=["raises", "imports", "lacks", "exits", "dies", "leaves"],
)
async def test_an_app_that_a_worker_cannot_import_stops_the_hub_with_the_reason(
    folder: Path, more: str, error: type[PerdureError], reason: str
) -> None:
    hub = Hub(make_flows(folder, more), store=f"sqlite:{folder / 'hub'}", workers=2)

    with anyio.fail_after(30), pytest.raises(error, match=reason):
        async with hub:
            pass

    await check_nothing_left(folder)


@pytest.mark.by_turns("trio")
async def test_a_body_that_raises_and_one_that_is_cancelled_leave_nothing_behind(
    folder: Path,
) -> None:
    app = make_flows(folder)
    with pytest.raises(ZeroDivisionError):
        async with Hub(app, store=f"sqlite:{folder / 'hub'}", workers=2):
            raise ZeroDivisionError
    await check_nothing_left(folder)

    with anyio.CancelScope() as scope:
        async with Hub(app, store=f"sqlite:{folder / 'hub'}", workers=2):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await check_nothing_left(folder)


async def test_a_start_that_is_cancelled_leaves_nothing_behind(folder: Path) -> None:
    app = make_flows(folder, "\nif in_worker: import time; time.sleep(2)\n")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def enter() -> None:
                settings = Settings(drain_s=0.1)
                hub = Hub(app, store=f"sqlite:{folder / 'hub'}", workers=2, settings=settings)
                async with hub:
                    raise AssertionError("it cannot serve yet")

            tasks.start_soon(enter)
            while len(children()) < 2:
                await anyio.sleep(0.005)
            scope.cancel()

    await check_nothing_left(folder)


async def test_nobody_connects_where_no_hub_listens(folder: Path) -> None:
    with pytest.raises(UnavailableError, match="no hub listens at"):
        async with connect(f"sqlite:{folder / 'hub'}", App()):
            pass
    with pytest.raises(UsageError, match="bytes long"):
        async with connect(folder / ("x" * 120), App()):
            pass


# In processes of their own.


@contextmanager
def command(folder: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run Python as the leader of a process group, and end what is left of that."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


PROGRAMS = {
    "script": ("script.py", ["script.py"]),
    "module": ("shop/run.py", ["-m", "shop.run"]),
    "folder": ("shop/__main__.py", ["shop"]),
    "package": ("shop/__main__.py", ["-m", "shop"]),
    "script without an ending": ("bin/server", ["bin/server"]),
    "script with another ending": ("bin/server.v2", ["bin/server.v2"]),
    "compiled script": ("script.py", ["script.pyc"]),
    "archive": ("shop/__main__.py", ["shop.pyz"]),
    "compiled archive": ("shop/__main__.py", ["shop.pyz"]),
}


#: What one of the others has a part of each of.
RARE = ("script with another ending", "compiled archive")


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind in RARE)) for kind in PROGRAMS],
)
def test_a_program_serves_with_workers_however_it_is_started_and_whatever_it_imports(
    folder: Path, kind: str
) -> None:
    file, arguments = PROGRAMS[kind]
    (folder / file).parent.mkdir(exist_ok=True)
    moves = "    import os\n    os.mkdir('elsewhere')\n    os.chdir('elsewhere')\n"
    (folder / file).write_text(
        f"import multiprocessing\n{SCRIPT}\nif __name__ == '__main__':\n{moves}    anyio.run(main)\n"
    )
    if kind.startswith("compiled"):
        py_compile.compile(str(folder / file), str(folder / f"{file}c"))
        (folder / file).unlink()
    if kind.endswith("archive"):
        shutil.make_archive(str(folder / "shop"), "zip", folder / "shop")
        (folder / "shop.zip").rename(folder / "shop.pyz")
        shutil.rmtree(folder / "shop")

    with command(folder, *arguments) as process:
        output, errors = process.communicate(timeout=30)

    assert (output, errors, process.returncode) == ("2\n", "", 0)


@pytest.mark.by_turns
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_script_that_guards_its_start_serves_with_workers(folder: Path, backend: str) -> None:
    guarded = f"\nif __name__ == '__main__':\n    anyio.run(main, backend={backend!r})\n"
    (folder / "script.py").write_text(SCRIPT + guarded)

    with command(folder, "script.py") as process:
        output, errors = process.communicate(timeout=30)

    assert (output, errors, process.returncode) == ("2\n", "", 0)


def test_a_script_that_does_not_guard_its_start_is_told_so(folder: Path) -> None:
    (folder / "script.py").write_text(SCRIPT + "\nanyio.run(main)\n")

    with command(folder, "script.py") as process:
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "if __name__ == '__main__'" in errors
    assert not list(folder.glob("**/*.sock*"))


def test_an_app_typed_in_is_refused_with_the_way_to_name_it(folder: Path) -> None:
    with command(folder, "-c", SCRIPT + "\nanyio.run(main)\n") as process:
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "Hub('shop.flows:app', workers=2)" in errors
    assert not (folder / "hub").exists()


@pytest.mark.by_turns
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hub_with_workers_is_served_and_looked_at_and_stopped_from_the_command_line(
    folder: Path, backend: str
) -> None:
    make_flows(folder)
    serve = ("-m", "perdure", "serve", "flows:app", "--store", "sqlite:hub", "--workers", "2")
    look = ("-m", "perdure", "shards", "sqlite:hub", "--once", "--interval", "0.05")
    with command(folder, *serve, "--backend", backend) as process:
        assert process.stdout is not None
        assert "serves flows:app" in process.stdout.readline()
        with command(folder, *look, "--move", "0", "1") as shards:
            view, errors = shards.communicate(timeout=30)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        rest, serving_errors = process.communicate(timeout=30)

    assert (errors, shards.returncode) == ("", 0)
    assert "Shards and their partitions" in view
    rows = re.findall(r"(\d)(?: +\d+){7} +\d+\.\d", view)
    assert rows == ["1", "0", "2", "3"], "shard 0 has partition 1 left, shard 1 the others"
    assert rest == "stopped; what had not ended goes on at the next start\n"
    assert (serving_errors, process.returncode) == ("", 0)
    assert not list(folder.glob("**/*.sock*"))
    assert not list((folder / "hub").glob("*-wal")), "the store was not closed in order"


def test_a_look_at_no_hub_says_so(folder: Path) -> None:
    with command(folder, "-m", "perdure", "shards", "sqlite:hub", "--once") as process:
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 4
    assert "no hub listens at " in errors


def test_a_worker_whose_supervisor_is_gone_leaves_the_next_one_its_socket(folder: Path) -> None:
    path = folder / "hub.sock.0"
    config = {
        "app": make_flows(folder),
        "store": f"sqlite:{folder / 'hub'}",
        "partitions": 4,
        "number": 0,
        "socket": str(folder / "hub.sock"),
        "settings": {"drain_s": 0.1},
        "backend": "asyncio",
        "uvloop": False,
        "path": [str(ROOT), *sys.path],
    }
    with socket.socket(socket.AF_UNIX) as next_one, tempfile.TemporaryFile() as file:
        next_one.bind(str(path))
        inode = path.stat().st_ino
        file.write(orjson.dumps(config))
        file.seek(0)
        ended = subprocess.run(
            [sys.executable, "-m", "perdure.runtime.cluster.worker", str(file.fileno())],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            pass_fds=[file.fileno()],
            timeout=30,
        )

    assert ended.returncode == 0
    assert path.stat().st_ino == inode


class LineThatBreaks:
    """Loses the first two requests, the second after a long while."""

    is_up = was_up = True

    def __init__(self) -> None:
        self.asked = 0

    async def call(self, *_: object) -> str:
        self.asked += 1
        if self.asked == 2:
            await anyio.sleep(2.1)
        if self.asked < 3:
            raise LineLostError(True)
        return "answer"


@pytest.mark.by_turns
async def test_the_time_that_a_shard_has_a_request_for_takes_none_of_the_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "PATIENCE_S", 2.0)
    line: Any = LineThatBreaks()

    class RouterOfOne(routing.Router):
        def line(self, shard: int) -> Line:
            return cast("Line", line)

    place = RouterOfOne(1, None, waiter_factory()).places[0]

    await place.wait_durable()
    assert line.asked == 3
