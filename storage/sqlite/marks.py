"""That a hub moves, as a row of its first partition's file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from ..marks import COMING, HERE, Mark
from .connection import connect
from .faults import explained

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS migration (one INTEGER PRIMARY KEY CHECK (one = 1),"
    " state TEXT NOT NULL, token TEXT NOT NULL, place TEXT NOT NULL)"
)
_THERE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migration'"
_ARRIVE: Final = "UPDATE migration SET state = ? WHERE token = ? AND state = ? RETURNING one"


def mark_in(tables: sqlite3.Connection) -> Mark | None:
    """Read that the hub of a file moves, if it does."""
    if not tables.execute(_THERE).fetchall():
        return None
    found = tables.execute("SELECT state, token, place FROM migration").fetchall()
    return Mark(*found[0]) if found else None


def read_mark(path: Path) -> Mark | None:
    """Read it from the file of a hub's first partition."""
    with explained(path), closing(connect(path)) as tables:
        return mark_in(tables)


def put_mark(tables: sqlite3.Connection, mark: Mark) -> None:
    """Write that the hub of a file moves; durable on return."""
    tables.execute("PRAGMA synchronous = FULL")
    tables.execute("BEGIN IMMEDIATE")
    try:
        tables.execute(_TABLE)
        values = (mark.state, mark.token, mark.place)
        tables.execute("INSERT OR REPLACE INTO migration VALUES (1, ?, ?, ?)", values)
        tables.execute("COMMIT")
    except BaseException:
        tables.rollback()
        raise


def write_mark(path: Path, mark: Mark) -> None:
    """Write it into the file of a hub's first partition."""
    with explained(path), closing(connect(path)) as tables:
        put_mark(tables, mark)


def arrive(path: Path, token: str) -> bool:
    """Make a hub valid that has come; False if it is not the one."""
    with explained(path), closing(connect(path)) as tables:
        tables.execute("PRAGMA synchronous = FULL")
        return bool(tables.execute(_ARRIVE, (HERE, token, COMING)).fetchall())
