from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from perdure.storage.sqlite.schema import (
    JOURNAL_SCRIPTS,
    SCRIPTS,
    lacking,
    read_scripts,
    scripts_of,
)

TABLES, JOURNAL = Path("hub/partition-00.sqlite"), Path("hub/journal-00.sqlite")


@pytest.fixture
def tables() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(read_scripts(SCRIPTS))
        yield connection


def test_a_files_name_says_what_made_it() -> None:
    assert scripts_of(TABLES) == SCRIPTS
    assert scripts_of(JOURNAL) == JOURNAL_SCRIPTS
    assert scripts_of(Path("journal-x/partition-00.sqlite")) == SCRIPTS


def test_a_file_as_it_was_made_lacks_nothing(tables: sqlite3.Connection) -> None:
    assert lacking(tables, TABLES) == ()
    with closing(sqlite3.connect(":memory:")) as journal:
        journal.executescript(read_scripts(JOURNAL_SCRIPTS))
        assert lacking(journal, JOURNAL) == ()


def test_what_else_is_in_a_file_is_left_alone(tables: sqlite3.Connection) -> None:
    tables.execute("CREATE TABLE mine (n)")
    tables.execute("ALTER TABLE meta ADD COLUMN mine TEXT")

    assert lacking(tables, TABLES) == ()


@pytest.mark.parametrize(
    ("drop", "title"),
    [
        ("DROP INDEX mail_actor", "the index mail_actor"),
        ("DROP VIEW instances", "the view instances"),
        ("DROP TRIGGER checkpoint_applied", "the trigger checkpoint_applied"),
    ],
)
def test_what_holds_nothing_is_made_anew_by_its_statement(
    tables: sqlite3.Connection, drop: str, title: str
) -> None:
    tables.execute(drop)

    [part] = lacking(tables, TABLES)

    assert part.title == title
    assert part.sql is not None
    tables.execute(part.sql)
    assert lacking(tables, TABLES) == ()


def test_what_a_table_or_column_held_is_lost_with_it(tables: sqlite3.Connection) -> None:
    tables.execute("ALTER TABLE request_row RENAME COLUMN at TO moment")
    tables.execute("DROP TABLE peer_row")

    found = {part.title: part.sql for part in lacking(tables, TABLES)}

    assert found["the table peer_row"] is None
    assert found["the column peer of the table peer_row"] is None
    assert found["the column at of the table request_row"] is None


def test_an_empty_file_lacks_all_that_a_whole_one_has(tables: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(":memory:")) as empty:
        titles = {part.title for part in lacking(empty, TABLES)}

    objects = tables.execute("SELECT type, name FROM sqlite_master").fetchall()
    assert titles >= {f"the {kind} {name}" for kind, name in objects}
