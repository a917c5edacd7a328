from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.benchmarks.peers import processes
from perdure.benchmarks.peers.contender import NotAvailableError
from perdure.benchmarks.peers.processes import Server, accepts, as_user, free_port


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # what the contenders run on


def serve(code: str, log: Path) -> Server:
    return Server([sys.executable, "-c", code], log)


SERVES = """
import socket, sys
one = socket.socket(); one.bind(("127.0.0.1", PORT)); one.listen()
while True: one.accept()
"""


async def test_a_server_is_waited_for_until_it_is_ready(tmp_path: Path) -> None:
    port = free_port()
    assert not await accepts(port)
    server = serve(SERVES.replace("PORT", str(port)), tmp_path / "log")
    try:
        await server.until(lambda: accepts(port))
    finally:
        server.stop()

    assert not await accepts(port)


async def never() -> bool:
    return False


async def test_a_server_that_ends_is_not_available_and_its_last_words_are_told(
    tmp_path: Path,
) -> None:
    server = serve("import sys; sys.exit('no such file')", tmp_path / "log")

    with pytest.raises(NotAvailableError, match="ended: no such file"):
        await server.until(never)
    server.stop()


async def test_a_server_that_takes_too_long_is_not_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "START_S", 0.01)
    server = serve("input_ = __import__('time').sleep(60)", tmp_path / "log")
    try:
        with pytest.raises(NotAvailableError, match="was not ready after 0 s"):
            await server.until(never)
    finally:
        server.stop(signal.SIGKILL)


async def test_a_server_that_does_not_end_is_ended_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
    log = tmp_path / "log"
    server = serve(code, log)

    async def says_so() -> bool:
        return "ready" in log.read_text()

    await server.until(says_so)
    monkeypatch.setattr(processes, "STOP_S", 0.01)
    server.stop()

    assert server.returncode == -signal.SIGKILL


def test_who_runs_as_nobody_else_runs_as_himself() -> None:
    me = pwd.getpwuid(os.getuid())

    assert as_user(None) == {}
    assert as_user(me.pw_name)["group"] == me.pw_gid


def installed(monkeypatch: pytest.MonkeyPatch, on_path: Path | None, *folders: Path) -> None:
    """Have PostgreSQL where a test says."""

    def which(name: str) -> str | None:
        return None if on_path is None else str(on_path)

    def glob(path: Path, pattern: str) -> Iterator[Path]:
        return iter(folders)

    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setattr(Path, "glob", glob)


def test_without_its_programs_postgres_is_not_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postgres").write_text("")  # but no initdb
    installed(monkeypatch, tmp_path / "postgres")

    with pytest.raises(NotAvailableError, match="are not installed"):
        processes.find_postgres()


def test_the_postgres_of_the_path_goes_before_the_newest_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / version / "bin" for version in ("9", "15", "14")]
    for folder in folders:
        folder.mkdir(parents=True)
        for name in ("postgres", "initdb", "pg_isready"):
            (folder / name).write_text("")
    installed(monkeypatch, None, *folders)
    assert processes.find_postgres() == folders[1]
    installed(monkeypatch, folders[2] / "postgres", *folders)
    assert processes.find_postgres() == folders[2].resolve()
