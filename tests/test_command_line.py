"""The command `perdure`, and `perdure.run`, which it serves with."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

import perdure
from perdure import App, Hub, HubStoppingError, ManualClock, RuntimeStatus, UsageError
from perdure.__main__ import main

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


@pytest.fixture
def app_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with the module ``greeter``."""
    (tmp_path / "greeter.py").write_text(APP, "utf-8")
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
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


STUBBORN = """
import sys, time
from perdure import App, EntityId, run

app = App()

@app.entity
class Stubborn:
    def hold(self) -> None:
        print("holds", flush=True)
        while True:
            HOLD

def begin(hub):
    import anyio, asyncio, trio
    client = hub.client
    if sys.argv[1] == "trio":
        trio.lowlevel.spawn_system_task(client.call_entity, EntityId(Stubborn, "s"), "hold")
    else:
        hub.task = asyncio.ensure_future(client.call_entity(EntityId(Stubborn, "s"), "hold"))

run(app, backend=sys.argv[1], uvloop=sys.argv[2] == "uvloop", on_ready=begin)
"""


@pytest.mark.parametrize("hold", ["pass", "time.sleep(60)"])
@pytest.mark.parametrize(
    ("backend", "loop"), [("asyncio", ""), ("asyncio", "uvloop"), ("trio", "")]
)
@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_process_whose_loop_never_comes_back(
    tmp_path: Path, hold: str, backend: str, loop: str, signalled: signal.Signals
) -> None:
    code = STUBBORN.replace("HOLD", hold)
    with command(tmp_path, "-c", code, backend, loop) as process:
        assert read_line(process) == "holds\n"
        # Two that come at once are one.
        ends = time.monotonic() + 20
        while process.poll() is None:
            assert time.monotonic() < ends
            process.send_signal(signalled)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        process.communicate()

    assert process.returncode == -signalled


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
async def test_serve_runs_a_hub_until_a_signal_and_leaves_it_in_order(
    app_folder: Path, signalled: signal.Signals, anyio_backend_name: str
) -> None:
    await start_for_later(app_folder, "sqlite:hub")
    arguments = ["greeter:app", "--store", "sqlite:hub", "--backend", anyio_backend_name]

    with command(app_folder, "-m", "perdure", "serve", *arguments) as process:
        lines = {read_line(process), read_line(process)}
        process.send_signal(signalled)
        rest, errors = process.communicate(timeout=30)

    assert "served\n" in lines
    [announced] = lines - {"served\n"}
    assert "serves greeter:app on sqlite:hub (sqlite WAL synchronous=FULL)" in announced
    assert "2 orchestrations, 1 entity, 2 activities" in announced
    assert rest == "stopped; what had not ended goes on at the next start\n"
    assert errors == ""
    assert process.returncode == 0
    assert not list((app_folder / "hub").glob("*-wal")), "the store was not closed in order"


async def test_what_was_served_is_completed_in_the_store(app_folder: Path) -> None:
    await start_for_later(app_folder, "sqlite:hub")
    with command(
        app_folder, "-m", "perdure", "serve", "greeter:app", "--store", "sqlite:hub"
    ) as process:
        lines = {read_line(process), read_line(process)}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    async with Hub(App(), store="sqlite:hub") as hub:
        status = await hub.client.get_status("one")

    assert "served\n" in lines
    assert status is not None
    assert (status.runtime_status, status.output) == (RuntimeStatus.COMPLETED, "served")


def test_run_returns_after_a_signal(app_folder: Path) -> None:
    code = (
        "import os, signal, perdure\n"
        "stop = lambda hub: os.kill(os.getpid(), signal.SIGTERM)\n"
        "perdure.run('greeter:nested.app', uvloop=False, on_ready=stop)\n"
        "print('returned')\n"
    )

    with command(app_folder, "-c", code) as process:
        output, errors = process.communicate(timeout=30)

    assert (output, errors, process.returncode) == ("returned\n", "", 0)


async def test_a_second_signal_ends_the_process_and_loses_nothing(
    app_folder: Path, anyio_backend_name: str
) -> None:
    await start_for_later(app_folder, "sqlite:hub", "get_stuck")
    code = (
        "import logging, perdure\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        f"perdure.run('greeter:app', store='sqlite:hub', backend={anyio_backend_name!r})\n"
    )

    with command(app_folder, "-c", code) as process:
        assert read_line(process) == "served\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while process.stderr.readline() != "stopping on SIGTERM\n":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=5)

    async with Hub(App(), store="sqlite:hub") as hub:
        status = await hub.client.get_status("one")
    assert process.returncode == -signal.SIGTERM
    assert status is not None
    assert status.runtime_status == RuntimeStatus.RUNNING


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("greeter", "give 'module:name'"),
        (":app", "give 'module:name'"),
        ("greeter:", "give 'module:name'"),
        ("no_such_module_here:app", "there is no module 'no_such_module_here'"),
        ("greeter.sub:app", "there is no module 'greeter.sub'"),
        ("greeter:not_an_app", "is no perdure.App but 5"),
        ("greeter:missing", "has no 'missing'; its apps are app"),
    ],
)
def test_run_says_what_is_wrong_with_the_place_of_an_app(
    app_folder: Path, place: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        perdure.run(place)


def test_run_lets_an_import_that_fails_inside_the_module_come_out(app_folder: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        perdure.run("broken:app")


def test_run_refuses_an_event_loop_that_it_does_not_know() -> None:
    with pytest.raises(UsageError, match="'asyncio', 'trio', not 'curio'"):
        perdure.run(App(), backend="curio")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_run_refuses_uvloop_on_trio() -> None:
    with pytest.raises(UsageError, match="leave it out on trio"):
        perdure.run(App(), backend="trio", uvloop=True)


def test_serve_says_in_one_line_what_is_wrong(
    app_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["serve", "greeter:app", "--store", "sqlit:hub"])

    captured = capsys.readouterr()
    assert status == 1
    assert captured.err.startswith("perdure: store 'sqlit:hub' is not understood")
    assert captured.err.count("\n") == 1


def test_serve_wants_to_be_told_where_the_hub_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "greeter:app"])

    assert caught.value.code == 2
    assert "--store" in capsys.readouterr().err


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"perdure {perdure.__version__}\n"


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([])

    assert status == 2
    assert {"serve", "bench"} <= set(capsys.readouterr().out.split())


def test_bench_runs_a_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["bench", "hot", "--store", "memory:", "-n", "20"])

    assert status == 0
    assert {"hot-signal", "hot-call"} <= set(capsys.readouterr().out.split())


async def test_a_hub_counts_what_it_does() -> None:
    app = App()

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> None:
            self.value += amount

    async with Hub(app, partitions=3) as hub:
        before = await hub.statistics()
        for key in ("a", "b"):
            await hub.client.signal_entity(perdure.EntityId(Counter, key), Counter.add, 1)
        after = await hub.statistics()

    assert [partition.index for partition in after.partitions] == [0, 1, 2]
    assert (before.commits, before.turns, before.activations) == (0, 0, 0)
    assert (after.commits, after.turns, after.activations) == (2, 2, 2)
    assert (after.waiting, after.failed_operations, after.stored_bytes) == (0, 0, 0)


async def test_a_hub_on_files_says_how_large_they_are(tmp_path: Path) -> None:
    async with Hub(App(), store=f"sqlite:{tmp_path / 'hub'}") as hub:
        stored = (await hub.statistics()).stored_bytes

    assert stored >= 4 * 4_096


async def test_a_hub_that_does_not_run_counts_nothing() -> None:
    async with Hub(App()) as hub:
        pass

    with pytest.raises(HubStoppingError, match="the hub is stopped"):
        await hub.statistics()
