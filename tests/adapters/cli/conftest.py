"""Hubs for the commands: one that runs, which they reach over its socket and over HTTP, and files."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from perdure import EntityId, Hub, Settings
from perdure.__main__ import main
from perdure.adapters.http.keys import Keys
from perdure.adapters.http.server import Address, ServerOptions, listen
from tests.adapters.cli.shop import KEY, Counter, Ended, Live, Run, app, double, wait_for_go, work

#: What hangs is not waited for.
QUICK = Settings(drain_s=0.1)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as in a shell, at a place where no hub is."""
    for name in ("PERDURE_HUB", "PERDURE_KEY", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # which is no terminal

    def run_command(*arguments: str) -> Ended:
        status = main(arguments)
        captured = capfd.readouterr()
        return Ended(status, captured.out, captured.err)

    return run_command


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("l") / "hub"
    places: list[Live] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        keys = Keys.parse(f"shop full {KEY}")
        options = ServerOptions(address=Address("127.0.0.1", 0), keys=keys)
        with listen(options, announce=lambda _: None) as server:
            async with (
                Hub(app, store=folder, socket=folder / "hub.sock", settings=QUICK) as hub,
                server.beside(hub),
            ):
                places.append(Live(f"sqlite:{folder}", server.url))
                ready.set()
                await anyio.to_thread.run_sync(over.wait)

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(30)
        yield places[0]
    finally:
        over.set()
        thread.join()


@pytest.fixture(params=["socket", "http"])
def place(live: Live, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The running hub, by its store and by its address; a key is in the environment."""
    if request.param == "http":
        request.getfixturevalue("run")
        monkeypatch.setenv("PERDURE_KEY", KEY)
    found: str = getattr(live, request.param)
    return found


@pytest.fixture(scope="session")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a hub has left that has stopped."""
    folder = tmp_path_factory.mktemp("stopped") / "hub"

    async def leave() -> None:
        async with Hub(app, store=folder, settings=QUICK) as hub:
            await hub.client.start_new(wait_for_go, instance_id="waits")
            await hub.client.start_new(work, instance_id="works")
            await (await hub.client.start_new(double, 4, instance_id="ended")).result(timeout=20)
            await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 3)

    anyio.run(leave)
    return folder


@pytest.fixture
def stopped(left: Path, tmp_path: Path) -> str:
    """A store whose hub does not run."""
    return f"sqlite:{shutil.copytree(left, tmp_path / 'hub')}"
