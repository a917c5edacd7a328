"""What a file of a hub must have in it: its tables, and the indexes, views and triggers on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Final

from attrs import frozen

SCHEMA_VERSION: Final = 5  # 1 had no journals, 2 no table of activities, 3 no waits, 4 no tags
SCRIPTS: Final = ("schema.sql", "activities.sql", "waits.sql", "tags.sql", "checkpoint.sql")
JOURNAL_SCRIPTS: Final = ("journal.sql",)

_CONTENT: Final = (
    "SELECT s.type, s.name, s.sql, c.name FROM sqlite_master s"
    " LEFT JOIN pragma_table_info(CASE s.type WHEN 'table' THEN s.name END) c ORDER BY s.rowid"
)


@frozen
class Part:
    """A table, a column, an index, a view or a trigger.

    Attributes:
        title: what it is, in words.
        sql: what makes it anew; None where that would not bring back what it held.
    """

    title: str
    sql: str | None


def scripts_of(path: Path) -> tuple[str, ...]:
    """Name what made a file: a journal, or the tables of a partition."""
    return JOURNAL_SCRIPTS if path.name.startswith("journal-") else SCRIPTS


def read_scripts(scripts: Sequence[str]) -> str:
    """Give the statements of some scripts."""
    return "\n".join(Path(__file__).with_name(name).read_text("utf-8") for name in scripts)


def lacking(connection: sqlite3.Connection, path: Path) -> tuple[Part, ...]:
    """Find what a file of the present version lacks; what else is in it is left alone."""
    found = set(_parts(connection))
    return tuple(part for key, part in _expected(scripts_of(path)).items() if key not in found)


@cache
def _expected(scripts: tuple[str, ...]) -> dict[tuple[str, ...], Part]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(read_scripts(scripts))
        return _parts(connection)


def _parts(connection: sqlite3.Connection) -> dict[tuple[str, ...], Part]:
    found: dict[tuple[str, ...], Part] = {}
    for kind, name, sql, column in connection.execute(_CONTENT):
        # What a table held is lost with it, so nothing makes it anew.
        found[kind, name] = Part(f"the {kind} {name}", None if kind == "table" else sql)
        if column is not None:
            found[kind, name, column] = Part(f"the column {column} of the table {name}", None)
    return found
