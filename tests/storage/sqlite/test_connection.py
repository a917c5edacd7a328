from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import anyio
import pytest

from perdure.storage.sqlite import connection as module
from perdure.storage.sqlite.connection import Connection, Connector, location


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    path = tmp_path / "file.sqlite"
    sqlite3.connect(path).close()
    path.touch()
    return Connector(location(path, "rw"))


def test_what_was_opened_for_somebody_who_gave_up_is_closed(connector: Connector) -> None:
    made = connector()

    connector.give_up()

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made.execute("SELECT 1")


def test_nothing_stays_open_that_is_opened_after_it_was_given_up(connector: Connector) -> None:
    connector.give_up()

    with pytest.raises(ValueError, match="closed"):
        connector()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as aiosqlite
async def test_whoever_gives_up_waits_for_the_thread_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    ended: list[str] = []

    def open_slowly(uri: str) -> sqlite3.Connection:
        begun.set()
        go.wait(20)
        ended.append(uri)
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(module, "connect_to", open_slowly)
    reader = Connection(tmp_path / "file.sqlite", "")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.fetch, "SELECT 1")
        await anyio.to_thread.run_sync(begun.wait)
        threading.Timer(0.05, go.set).start()
        tasks.cancel_scope.cancel()

    # A thread that ends later has a loop to tell that may be closed by then.
    assert ended
