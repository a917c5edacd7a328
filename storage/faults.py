"""From SQLite's errors to the package's, so that each says what to do next."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..actors.errors import (
    LeaseLostError,
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreReadOnlyError,
)

FENCED = "perdure: lease lost"


def explain(error: Exception, path: Path) -> StorageError | LeaseLostError:
    """Give the package's exception for one that came out of ``sqlite3`` or ``aiosqlite``."""
    if not isinstance(error, sqlite3.Error):
        return StorageError(f"the store of {path} is closed ({error}); open it again")
    if str(error) == FENCED:
        return lease_lost(path)
    # The low byte is the primary result code, the rest says more (SQLite, "Result Codes").
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(f"no space left for {path}; free some, then go on")
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return StorageError(f"{path} was moved or deleted under the running hub; put it back")
    if code == sqlite3.SQLITE_READONLY:
        return StoreReadOnlyError(f"{path} cannot be written to; check its owner and mount")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamagedError(
            f"{path} is damaged or not SQLite ({error}); it was left as it is: restore a copy"
        )
    return StorageError(f"{path}: {error}")


def lease_lost(path: Path) -> LeaseLostError:
    """Give the error for a partition that has another owner."""
    return LeaseLostError(
        f"{path} has another epoch or sequence than this owner expects; the checkpoint was "
        "refused: recover, or stop"
    )


@contextmanager
def explained(path: Path) -> Generator[None, None, None]:
    """Raise the package's exceptions instead of SQLite's."""
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        raise explain(error, path) from error
