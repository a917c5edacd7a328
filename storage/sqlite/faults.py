"""From SQLite's errors to the package's, so that each says what to do next."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from ...actors.errors import (
    LeaseLostError,
    PerdureError,
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreMovedError,
    StoreReadOnlyError,
)
from .connection import UNDECODABLE, companions

FENCED = "perdure: lease lost"

PATH_MAX: Final = 500  # SQLite takes 512 bytes, with what it puts behind a file's name
_OPEN_AT_ONCE: Final = 4  # files that SQLite opens for one connection, and one more


def explain(error: Exception, path: Path) -> StorageError | LeaseLostError:
    """Give the package's exception for one that came out of what a store calls."""
    if isinstance(error, ValueError):
        return StorageError(f"the store of {path} is closed ({error}); open it again")
    if not isinstance(error, sqlite3.Error):
        return StorageError(f"{path}: {type(error).__name__}: {error}")
    if str(error) == FENCED:
        return lease_lost(path)
    if str(error).startswith(UNDECODABLE):
        return StoreDamagedError(f"{path} has text that is no UTF-8 ({error}): restore a copy")
    # The low byte is the primary result code, the rest says more (SQLite, "Result Codes").
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return StorageError(f"{path}: {error}: another program uses it; end that")
    if code == sqlite3.SQLITE_FULL:
        return _no_space(path)
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return missing(path)
    if code == sqlite3.SQLITE_READONLY:
        return StoreReadOnlyError(f"{path} cannot be written to; check its owner and mount")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamagedError(
            f"{path} is damaged or not SQLite ({error}); it was left as it is: restore a copy"
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return _cannot_open(path, error)
    if code == sqlite3.SQLITE_IOERR and is_full(path):
        return _no_space(path)
    return StorageError(f"{path}: {error}")


def missing(path: Path) -> StoreMovedError:
    """Give the error for a file that is not where it was opened."""
    return StoreMovedError(f"{path} was moved or deleted under the running hub; put it back")


def _cannot_open(path: Path, error: sqlite3.Error) -> StorageError:
    """Say why SQLite cannot open a file; it does not say so itself.

    Never by opening the file: closing it again would drop the locks that this process has on it.
    """
    with ExitStack() as opened:
        try:
            for _ in range(_OPEN_AT_ONCE):
                opened.enter_context(open(os.devnull, "rb"))
        except OSError as reason:
            return StorageError(
                f"{path} cannot be opened ({reason.strerror}): an open partition takes up to 16 "
                "files, so allow the process more of them (ulimit -n), or use fewer partitions"
            )
    if len(os.fsencode(path.absolute())) > PATH_MAX:
        return StorageError(f"{path} cannot be opened: its path is too long for SQLite")
    for name in (path, *companions(path)):
        if name.is_dir():
            return StoreDamagedError(f"{name} is a folder, not a file; restore a copy")
        if name.exists() and not os.access(name, os.R_OK | os.W_OK):
            return StoreReadOnlyError(
                f"{name} cannot be opened ({os.strerror(errno.EACCES)}); check its owner and mount"
            )
    if not path.exists():
        return _no_space(path) if is_full(path) else missing(path)
    return _no_space(path) if is_full(path) else StorageError(f"{path}: {error}")


def _no_space(path: Path) -> StoreFullError:
    return StoreFullError(f"no space left for {path}; free some, then go on")


def is_full(path: Path) -> bool:
    """Whether the disk that a file is on has no space left."""
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except (OSError, AttributeError):  # Windows has no statvfs
        return False


def lease_lost(path: Path) -> LeaseLostError:
    """Give the error for a partition that has another owner."""
    return LeaseLostError(
        f"{path} has another epoch or sequence than this owner expects; the checkpoint was "
        "refused: recover, or stop"
    )


@contextmanager
def explained(path: Path) -> Generator[None, None, None]:
    """Raise the package's exceptions instead of whatever else comes out."""
    try:
        yield
    except PerdureError:
        raise
    except Exception as error:
        raise explain(error, path) from error
