# ruff: noqa: ASYNC240 (a test blocks nobody when it looks at its files)

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from anyio import create_task_group

from perdure.storage.sqlite.committer import Committers
from perdure.storage.sqlite.connection import connect
from perdure.storage.sqlite.journal import Journal
from tests.storage.files import rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "journal-00.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE entry (n)")
    return path


@pytest.fixture
async def journal(file: Path) -> AsyncIterator[Journal]:
    journal = Journal(file, "PRAGMA user_version = 7;", Committers())
    yield journal
    await journal.close(for_good=True)


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


def is_open(journal: Journal) -> bool:
    return journal.is_open


async def test_it_opens_when_it_is_first_used_and_is_set_up_then(
    journal: Journal, file: Path
) -> None:
    assert not is_open(journal)
    assert await journal.execute("INSERT INTO entry VALUES (?) RETURNING n", (5,)) == [(5,)]

    assert is_open(journal)
    assert await journal.execute("PRAGMA user_version") == [(7,)]
    assert rows(file, "SELECT n FROM entry") == [(5,)]


async def test_a_journal_that_is_closed_opens_again_unless_it_is_closed_for_good(
    journal: Journal,
) -> None:
    await journal.close(for_good=False)  # it never was open
    await journal.execute("SELECT 1")
    await journal.close(for_good=False)
    assert not is_open(journal)
    assert await journal.execute("SELECT 1") == [(1,)]

    await journal.close(for_good=True)
    await journal.close(for_good=False)

    with pytest.raises(ValueError, match="closed"):
        await journal.execute("SELECT 1")


async def test_a_connection_that_it_is_given_is_used_instead_of_a_new_one(
    journal: Journal, file: Path
) -> None:
    first, second = connect(file), connect(file)
    journal.adopt(first)
    journal.adopt(second)

    assert is_closed(first)
    await journal.execute("SELECT 1")
    assert journal.opened is second
    await journal.close(for_good=False)
    assert is_closed(second)


async def test_a_connection_that_nobody_used_is_closed_with_it(
    journal: Journal, file: Path
) -> None:
    made = connect(file)
    journal.adopt(made)

    await journal.close(for_good=True)

    assert is_closed(made)


async def test_a_file_that_cannot_be_opened_is_tried_again_at_the_next_use(
    journal: Journal, file: Path
) -> None:
    moved = file.rename(file.with_name("moved"))
    with pytest.raises(sqlite3.OperationalError):
        await journal.execute("SELECT 1")
    assert not is_open(journal)

    moved.rename(file)

    assert await journal.execute("SELECT 1") == [(1,)]


async def test_a_connection_that_cannot_be_set_up_is_closed(file: Path) -> None:
    journal = Journal(file, "SELECT nonsense;", Committers())
    made = connect(file)
    journal.adopt(made)

    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        await journal.execute("SELECT 1")

    assert is_closed(made)
    assert not is_open(journal)
    await journal.close(for_good=True)


async def test_what_fails_fails_alone(journal: Journal, file: Path) -> None:
    async def refused() -> None:
        with pytest.raises(sqlite3.OperationalError):
            await journal.execute("INSERT INTO nothing VALUES (1)")

    async with create_task_group() as tasks:
        tasks.start_soon(partial(journal.execute, "INSERT INTO entry VALUES (1)"))
        tasks.start_soon(refused)
        tasks.start_soon(partial(journal.execute, "INSERT INTO entry VALUES (2)"))

    assert sorted(rows(file, "SELECT n FROM entry")) == [(1,), (2,)]
