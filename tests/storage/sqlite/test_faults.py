from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from perdure.actors.errors import (
    LeaseLostError,
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreMovedError,
    StoreReadOnlyError,
)
from perdure.storage.sqlite import faults
from perdure.storage.sqlite.faults import FENCED, PATH_MAX, explain, explained


def failed(code: int | None, text: str = "it failed") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    if code is not None:
        error.sqlite_errorcode = code
    return error


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "partition-00.sqlite"
    path.touch()
    return path


def full(_: Path) -> bool:
    return True


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("closed"), StorageError, "is closed (closed); open it again"),
        (KeyError("x"), StorageError, "KeyError: 'x'"),
        (failed(sqlite3.SQLITE_CONSTRAINT, FENCED), LeaseLostError, "another epoch or sequence"),
        (failed(None, "Could not decode to UTF-8 x"), StoreDamagedError, "text that is no UTF-8"),
        (failed(sqlite3.SQLITE_BUSY), StorageError, "another program uses it"),
        (failed(sqlite3.SQLITE_BUSY_SNAPSHOT), StorageError, "another program uses it"),
        (failed(sqlite3.SQLITE_FULL), StoreFullError, "no space left"),
        (failed(sqlite3.SQLITE_READONLY_DBMOVED), StoreMovedError, "moved or deleted"),
        (failed(sqlite3.SQLITE_READONLY), StoreReadOnlyError, "cannot be written to"),
        (failed(sqlite3.SQLITE_READONLY_DIRECTORY), StoreReadOnlyError, "cannot be written to"),
        (failed(sqlite3.SQLITE_CORRUPT), StoreDamagedError, "is damaged or not SQLite"),
        (failed(sqlite3.SQLITE_CORRUPT_INDEX), StoreDamagedError, "is damaged or not SQLite"),
        (failed(sqlite3.SQLITE_NOTADB), StoreDamagedError, "restore a copy"),
        (failed(sqlite3.SQLITE_IOERR), StorageError, "it failed"),
        (failed(sqlite3.SQLITE_CANTOPEN), StorageError, "it failed"),
        (failed(None), StorageError, "it failed"),
    ],
    ids=range(16),
)
def test_an_error_of_sqlite_becomes_one_that_says_what_to_do(
    file: Path, error: Exception, kind: type[Exception], text: str
) -> None:
    explained = explain(error, file)

    assert type(explained) is kind
    assert text in str(explained)
    assert str(file) in str(explained)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN])
def test_where_there_is_no_space_that_is_the_reason(
    file: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(faults, "is_full", full)

    assert type(explain(failed(code), file)) is StoreFullError
    file.unlink()
    assert type(explain(failed(code), file)) is StoreFullError


def test_what_cannot_be_opened_since_it_is_gone_was_moved(file: Path) -> None:
    file.unlink()

    assert type(explain(failed(sqlite3.SQLITE_CANTOPEN), file)) is StoreMovedError
    file.parent.rmdir()
    assert type(explain(failed(sqlite3.SQLITE_CANTOPEN), file)) is StoreMovedError


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_what_cannot_be_opened_since_a_folder_is_there_is_damaged(file: Path, end: str) -> None:
    place = Path(f"{file}{end}")
    place.unlink(missing_ok=True)
    place.mkdir()

    explained = explain(failed(sqlite3.SQLITE_CANTOPEN), file)

    assert type(explained) is StoreDamagedError
    assert str(explained) == f"{place} is a folder, not a file; restore a copy"


def test_what_nobody_may_read_is_said_to_be_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def access(path: object, mode: int) -> bool:
        return mode != os.R_OK | os.W_OK

    monkeypatch.setattr(os, "access", access)  # whoever runs this may be root

    assert type(explain(failed(sqlite3.SQLITE_CANTOPEN), file)) is StoreReadOnlyError


def test_a_path_that_is_too_long_for_sqlite_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*["x" * 99] * (PATH_MAX // 99))

    assert "too long for SQLite" in str(explain(failed(sqlite3.SQLITE_CANTOPEN), path))


def test_too_few_open_files_are_named_before_anything_else(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(faults, "open", refuse, raising=False)

    assert "(Too many open files): an open partition takes up to 16" in str(
        explain(failed(sqlite3.SQLITE_CANTOPEN), file)
    )


def test_only_what_is_no_error_of_ours_is_explained(file: Path) -> None:
    ours = LeaseLostError("lost")

    with pytest.raises(LeaseLostError) as kept, explained(file):
        raise ours
    with pytest.raises(StorageError, match="RuntimeError: x") as made, explained(file):
        raise RuntimeError("x")
    with pytest.raises(KeyboardInterrupt), explained(file):
        raise KeyboardInterrupt

    assert kept.value is ours
    assert type(made.value.__cause__) is RuntimeError
