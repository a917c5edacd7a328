from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

import perdure
from perdure import App, Hub, RuntimeStatus, UsageError
from perdure.runtime.program import Signals
from tests.greeter import app_folder, command, read_line, start_for_later


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with app_folder(tmp_path, monkeypatch) as folder:
        yield folder


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


def test_run_returns_after_a_signal(folder: Path) -> None:
    code = (
        "import os, signal, perdure\n"
        "stop = lambda hub: os.kill(os.getpid(), signal.SIGTERM)\n"
        "perdure.run('greeter:nested.app', uvloop=False, on_ready=stop)\n"
        "print('returned')\n"
    )

    with command(folder, "-c", code) as process:
        output, errors = process.communicate(timeout=30)

    assert (output, errors, process.returncode) == ("returned\n", "", 0)


def test_what_runs_beside_a_hub_is_left_before_the_hub_drains(
    folder: Path, anyio_backend_name: str
) -> None:
    code = (
        "import logging, os, signal, sys, perdure\n"
        "from contextlib import asynccontextmanager\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)\n"
        "@asynccontextmanager\n"
        "async def beside(hub):\n"
        "    print('entered', (await hub.statistics()).waiting)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    yield\n"
        "    print('left', (await hub.client.start_new('greet', 'hello')) is not None)\n"
        "on_ready = lambda hub: print('ready')\n"
        f"run = dict(uvloop=False, backend={anyio_backend_name!r})\n"
        "perdure.run('greeter:app', on_ready=on_ready, beside=beside, **run)\n"
    )

    with command(folder, "-c", code) as process:
        output, errors = process.communicate(timeout=30)

    lines = ["ready", "entered 0", "stopping on SIGTERM", "left True"]
    said = [line for line in output.splitlines() if line != "hello"]  # which is the activity's
    assert (said[:4], errors) == (lines, "")
    assert process.returncode == 0


async def test_a_second_signal_ends_the_process_and_loses_nothing(
    folder: Path, anyio_backend_name: str
) -> None:
    await start_for_later(folder, "sqlite:hub", "get_stuck")
    code = (
        "import logging, perdure\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        f"perdure.run('greeter:app', store='sqlite:hub', backend={anyio_backend_name!r})\n"
    )

    with command(folder, "-c", code) as process:
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
    folder: Path, place: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        perdure.run(place)


def test_run_lets_an_import_that_fails_inside_the_module_come_out(folder: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        perdure.run("broken:app")


def test_run_refuses_an_event_loop_that_it_does_not_know() -> None:
    with pytest.raises(UsageError, match="'asyncio', 'trio', not 'curio'"):
        perdure.run(App(), backend="curio")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_run_refuses_uvloop_on_trio() -> None:
    with pytest.raises(UsageError, match="leave it out on trio"):
        perdure.run(App(), backend="trio", uvloop=True)


@pytest.fixture
def kept() -> Iterator[None]:
    """Give signals back to who had them."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_is_waited_for_and_ends_nothing(
    kept: None, signalled: signal.Signals
) -> None:
    killed: list[str] = []
    with Signals(lambda: killed.append("killed")) as signals:
        received: list[signal.Signals] = []

        async def wait() -> None:
            received.append(await signals.wait())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            signal.raise_signal(signalled)

        assert received == [signalled]
        assert await signals.wait() == signalled  # it has come already
    assert killed == []


def test_signals_are_given_back_to_who_had_them(kept: None) -> None:
    def theirs(*_: object) -> None:
        """Do nothing."""

    signal.signal(signal.SIGTERM, theirs)
    with Signals(lambda: None):
        assert signal.getsignal(signal.SIGTERM) is not theirs

    assert signal.getsignal(signal.SIGTERM) is theirs


@pytest.mark.parametrize("trouble", [False, True])
def test_the_second_signal_ends_the_workers_and_the_process_whatever_they_do(
    kept: None, trouble: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []

    def kill() -> None:
        done.append("workers killed")
        if trouble:
            raise RuntimeError("in the middle of something")

    def signal_process(pid: int, number: int) -> None:
        done.append((pid, number))

    monkeypatch.setattr(os, "kill", signal_process)
    with Signals(kill):
        signal.raise_signal(signal.SIGTERM)
        assert done == []
        signal.raise_signal(signal.SIGTERM)

        assert done == ["workers killed", (os.getpid(), signal.SIGTERM)]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tuned": "yes"}, "tuned must be"),
        ({"uvloop": "yes"}, "uvloop must be"),
        ({"on_ready": 7}, "on_ready must be a function that takes the hub, not 7"),
        ({"beside": 7}, "beside must be a function that gives an async context manager, not 7"),
        ({"backend": 7}, "backend must be"),
    ],
)
def test_run_refuses_what_it_does_not_take(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        perdure.run(App(), **given)
