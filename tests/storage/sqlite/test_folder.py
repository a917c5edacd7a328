"""Of the folder what needs no store: ownership, names, and the files of a hub."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perdure.actors.errors import (
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreInUseError,
    StoreReadOnlyError,
    StoreVersionError,
    UsageError,
)
from perdure.storage.sqlite.folder import (
    APPLICATION_ID,
    PARTITIONS_MAX,
    Ownership,
    check_sqlite,
    journal_file,
    partition_file,
    prepare,
)
from perdure.storage.sqlite.schema import SCHEMA_VERSION
from tests.storage.files import change, rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "hub"
    made.mkdir()
    return made


@pytest.fixture
def hub(folder: Path) -> Path:
    """The folder of a hub of two partitions."""
    prepare(folder, 2)
    return folder


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Ownership]:
    ownership = Ownership(tmp_path / "a" / "hub")
    yield ownership
    ownership.release()


def test_the_files_of_a_partition_are_named_by_its_number() -> None:
    assert partition_file(Path("hub"), 3) == Path("hub/partition-03.sqlite")
    assert journal_file(Path("hub"), 1023) == Path("hub/journal-1023.sqlite")


def test_a_folder_has_one_owner_until_it_is_released(owner: Ownership, tmp_path: Path) -> None:
    other = Ownership(tmp_path / "a" / "hub")
    owner.take()

    with pytest.raises(StoreInUseError, match="in use by another hub"):
        other.take()
    owner.release()
    owner.release()

    other.take()
    other.release()


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EMFILE, StorageError, "more open files"),
        (errno.ENFILE, StorageError, "more open files"),
        (errno.ENOSPC, StoreFullError, "no space left"),
        (errno.ENAMETOOLONG, StorageError, "the path of the store is too long"),
        (errno.ENOTDIR, StoreReadOnlyError, "nor be a folder"),
        (errno.EACCES, StoreReadOnlyError, "check its owner and mount"),
    ],
    ids=str,
)
def test_why_a_folder_cannot_be_taken_is_said(
    owner: Ownership, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], text: str
) -> None:
    def refuse(**_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)

    with pytest.raises(kind, match=text) as raised:
        owner.take()

    assert type(raised.value) is kind


def test_what_is_no_owners_file_is_refused(owner: Ownership, tmp_path: Path) -> None:
    place = tmp_path / "a" / "hub" / "owner.sqlite"
    place.mkdir(parents=True)

    with pytest.raises(StoreDamagedError, match=r"owner\.sqlite is a folder, not a file; remove"):
        owner.take()
    place.rmdir()
    place.write_bytes(b"x" * 5_000)
    with pytest.raises(StoreDamagedError, match="damaged or not SQLite"):
        owner.take()


@pytest.mark.parametrize("count", [0, -1, PARTITIONS_MAX + 1])
def test_a_hub_has_some_partitions_and_not_too_many(folder: Path, count: int) -> None:
    with pytest.raises(UsageError, match="1 to 1024 partitions"):
        prepare(folder, count)

    assert not list(folder.iterdir())


def test_a_new_hub_has_whole_files_that_say_what_they_are(hub: Path) -> None:
    paths = [name(hub, number) for number in (0, 1) for name in (partition_file, journal_file)]

    assert sorted(hub.iterdir()) == sorted(paths)
    found = [
        rows(path, "SELECT hub, partition, partitions, created FROM meta")[0] for path in paths
    ]
    assert len({(hub, created) for hub, _, _, created in found}) == 1
    assert [row[1:3] for row in found] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    for path in paths:
        assert rows(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
        assert rows(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_files_that_are_there_are_left_as_they_are(hub: Path) -> None:
    before = {path: path.read_bytes() for path in hub.iterdir()}

    prepare(hub, 2)

    assert {path: path.read_bytes() for path in before} == before


def test_files_whose_making_was_cut_off_are_made_anew(hub: Path) -> None:
    before = rows(journal_file(hub, 1), "SELECT hub FROM meta")
    partition_file(hub, 0).rename(partition_file(hub, 0).with_suffix(".new"))

    prepare(hub, 1)

    assert rows(journal_file(hub, 0), "SELECT hub FROM meta") != before
    assert not partition_file(hub, 1).exists()


@pytest.mark.parametrize(
    "used",
    [
        ("partition-01.sqlite", "UPDATE meta SET sequence = 1"),
        ("journal-01.sqlite", "UPDATE meta SET sequence = 1"),
        (
            "journal-01.sqlite",
            "INSERT INTO entry (sequence, epoch, settled, next_id, next_row) VALUES (1, 0, 0, 1, 1)",
        ),
    ],
    ids=range(3),
)
def test_a_missing_first_file_is_lost_data_where_others_have_some(
    hub: Path, used: tuple[str, str]
) -> None:
    change(hub / used[0], used[1])
    partition_file(hub, 0).unlink()

    with pytest.raises(StoreDamagedError, match=f"is missing but {hub / used[0]} has data"):
        prepare(hub, 2)

    assert (hub / used[0]).exists()


@pytest.mark.parametrize(
    ("file", "statement", "kind", "text"),
    [
        (0, "PRAGMA application_id = 5", StoreDamagedError, "SQLite file of something else"),
        (0, "PRAGMA user_version = 9", StoreVersionError, "schema version 9, .*; upgrade perdure"),
        (0, "PRAGMA user_version = 2", StoreDamagedError, "version 2 in its head and 5 in the"),
        (0, "UPDATE meta SET schema_version = 2", StoreDamagedError, "5 in its head and 2 in the"),
        (0, "DELETE FROM meta", StoreDamagedError, "has an empty table meta"),
        (0, "DROP TABLE meta", StoreDamagedError, "lacks the table meta"),
        (0, "UPDATE meta SET epoch = 'x'", StoreDamagedError, "'x' is no count"),
        (0, "UPDATE meta SET sequence = -1", StoreDamagedError, "-1 is no count"),
        (0, "UPDATE meta SET next_id = (1 << 62) + 1", StoreDamagedError, "is no count"),
        (
            0,
            "UPDATE meta SET partitions = 3",
            StoreVersionError,
            r"has 3 partitions, not 2.* \(perdure serve --partitions 3\)",
        ),
        (1, "UPDATE meta SET partitions = 3", StoreDamagedError, "is partition 1 of 3 of hub"),
        (1, "UPDATE meta SET partition = 0", StoreDamagedError, "is partition 0 of 2 of hub"),
        (1, "UPDATE meta SET hub = 'other'", StoreDamagedError, "of hub other, not partition 1"),
        (1, "ALTER TABLE peer_row RENAME TO x", StoreDamagedError, "lacks the table peer_row"),
    ],
    ids=range(14),
)
def test_a_file_that_is_not_what_it_should_be_is_refused_and_kept(
    hub: Path, file: int, statement: str, kind: type[Exception], text: str
) -> None:
    change(partition_file(hub, file), statement)
    before = partition_file(hub, file).read_bytes()

    with pytest.raises(kind, match=text) as raised:
        prepare(hub, 2)

    assert type(raised.value) is kind
    assert partition_file(hub, file).read_bytes() == before


@pytest.mark.parametrize("name", ["partition-01.sqlite", "journal-00.sqlite"])
def test_a_file_that_is_missing_is_named(hub: Path, name: str) -> None:
    (hub / name).unlink()

    with pytest.raises(StoreDamagedError, match=f"{name} is missing; restore it"):
        prepare(hub, 2)


def test_a_file_that_is_empty_is_damaged(hub: Path) -> None:
    partition_file(hub, 1).write_bytes(b"")

    with pytest.raises(StoreDamagedError, match="is empty"):
        prepare(hub, 2)


def test_what_holds_no_data_and_is_missing_is_made_anew_and_said(
    hub: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = partition_file(hub, 1)
    change(path, "DROP INDEX mail_actor")

    with caplog.at_level("WARNING", "perdure.storage"):
        prepare(hub, 2)

    assert "lacked the index mail_actor, which was made anew" in caplog.text
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'mail_actor'")


def test_a_file_that_another_program_left_without_a_log_gets_one(hub: Path) -> None:
    change(partition_file(hub, 0), "PRAGMA journal_mode = DELETE")

    prepare(hub, 2)

    assert rows(partition_file(hub, 0), "PRAGMA journal_mode") == [("wal",)]


def test_sqlite_must_have_the_json_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    check_sqlite()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))

    with pytest.raises(StorageError, match=r"too old; 3\.38 or newer is needed"):
        check_sqlite()


def test_a_file_that_is_in_use_is_not_touched(hub: Path) -> None:
    with closing(sqlite3.connect(partition_file(hub, 0), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("UPDATE meta SET epoch = 5")
        other.execute("ROLLBACK")
        prepare(hub, 2)
