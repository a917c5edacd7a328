"""What only the SQLite store does with its files: names, locks, versions, full disks."""
# ruff: noqa: ASYNC240 (a test blocks nobody when it looks at its files)

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.actors.errors import (
    StorageError,
    StoreDamagedError,
    StoreInUseError,
    StoreReadOnlyError,
    StoreVersionError,
    UsageError,
)
from perdure.storage import InstanceFilter, MemoryStore, open_store
from perdure.storage.sqlite import SqliteStore
from perdure.testing.store_conformance import created, own
from tests.storage.files import ROOT, change
from tests.storage.sqlite.store.hub import make, pragma, select


async def test_a_program_that_fails_with_an_open_store_still_ends(folder: Path) -> None:
    code = (
        "import asyncio, sys\nfrom perdure.storage.sqlite import SqliteStore\n"
        "async def main():\n"
        "    [sys.kept] = await SqliteStore(sys.argv[1]).open(1)\n"
        "    await sys.kept.recover()\n"
        "    sys.exit(3)\n"
        "asyncio.run(main())"
    )

    ended = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, timeout=60, check=False
    )

    assert ended.returncode == 3


def test_a_text_names_a_store(tmp_path: Path) -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    store = open_store(f"sqlite:{tmp_path}")
    assert isinstance(store, SqliteStore)
    assert store.path == tmp_path
    assert open_store(store) is store


@pytest.mark.parametrize("text", ["", "sqlite:", "memory", "memory:x", "postgres:hub", "hub"])
def test_any_other_text_is_refused_with_what_is_understood(text: str) -> None:
    with pytest.raises(UsageError, match=r"'memory:'.*'sqlite:PATH'"):
        open_store(text)


def test_an_unknown_synchronous_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="FULL"):
        SqliteStore(folder, synchronous="full")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def test_the_folder_has_a_file_per_partition_and_no_log_after_close(folder: Path) -> None:
    await make(folder, 3, created=[created(1)])

    assert sorted(path.name for path in folder.iterdir()) == [
        "journal-00.sqlite",
        "journal-01.sqlite",
        "journal-02.sqlite",
        "owner.sqlite",
        "partition-00.sqlite",
        "partition-01.sqlite",
        "partition-02.sqlite",
    ]


async def test_a_file_says_what_it_is(folder: Path) -> None:
    await make(folder, 2)

    [(schema, hub, partition, partitions, software)] = select(
        folder, "SELECT schema_version, hub, partition, partitions, software FROM meta"
    )
    assert (schema, len(hub), partition, partitions, software) == (5, 36, 0, 2, "perdure")
    assert select(folder, "PRAGMA application_id") == [(0x50524455,)]
    assert select(folder, "PRAGMA user_version") == [(5,)]
    assert select(folder, "PRAGMA page_size") == [(4096,)]
    assert select(folder, "PRAGMA journal_mode") == [("wal",)]


async def test_commits_are_synchronous_by_default(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)

    assert store.durability == "sqlite WAL synchronous=FULL"
    assert await pragma(owner, "PRAGMA synchronous") == [(2,)]
    assert await pragma(owner, "PRAGMA wal_autocheckpoint") == [(1000,)]
    assert await pragma(owner, "PRAGMA secure_delete") == [(2,)]  # FAST, whatever the build has
    await store.close()


async def test_a_second_hub_is_refused_in_the_same_process(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    other = SqliteStore(folder)

    with pytest.raises(StoreInUseError, match=r"hub is in use by another hub; stop"):
        await other.open(1)
    await other.close()

    await owner.commit(created=[created(1)])
    await store.close()
    await make(folder)


@pytest.mark.by_turns
async def test_a_second_hub_is_refused_in_another_process(folder: Path) -> None:
    store = SqliteStore(folder)
    await store.open(1)
    code = (
        "import asyncio, sys\nfrom perdure.storage.sqlite import SqliteStore\n"
        "asyncio.run(SqliteStore(sys.argv[1]).open(1))"
    )

    ended = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True
    )

    assert "StoreInUseError" in ended.stderr
    await store.close()


async def test_a_newer_schema_is_refused(folder: Path) -> None:
    await make(folder)
    change(folder / "partition-00.sqlite", "PRAGMA user_version = 6")

    with pytest.raises(StoreVersionError, match=r"version 6, .*upgrade"):
        await SqliteStore(folder).open(1)


async def test_another_number_of_partitions_names_the_right_one(folder: Path) -> None:
    await make(folder, 2)

    for wrong in (1, 3):
        with pytest.raises(StoreVersionError, match="partitions=2"):
            await SqliteStore(folder).open(wrong)


@pytest.mark.parametrize("content", [b"", b"no database at all" * 400], ids=["empty", "garbage"])
async def test_a_file_that_is_no_database_is_refused_and_kept(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    path = folder / "partition-00.sqlite"
    path.write_bytes(content)

    with pytest.raises(StoreDamagedError, match="partition-00"):
        await SqliteStore(folder).open(1)

    assert path.read_bytes() == content


async def test_a_foreign_database_is_refused_and_kept(folder: Path) -> None:
    folder.mkdir(parents=True)
    change(folder / "partition-00.sqlite", "CREATE TABLE meta (a)")
    before = (folder / "partition-00.sqlite").read_bytes()

    with pytest.raises(StoreDamagedError, match="something else"):
        await SqliteStore(folder).open(1)

    assert (folder / "partition-00.sqlite").read_bytes() == before


@pytest.mark.parametrize("size", [100, 4096, 20_000])
async def test_a_truncated_file_is_refused_and_kept(folder: Path, size: int) -> None:
    await make(folder, created=[created(1)])
    path = folder / "partition-00.sqlite"
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(StoreDamagedError, match="partition-00"):
        await SqliteStore(folder).open(1)

    assert path.stat().st_size == size


async def test_damage_found_later_is_said_too(folder: Path) -> None:
    await make(folder, created=[created(n, input=b'"%s"' % (b"x" * 2000)) for n in range(1, 99)])
    path = folder / "partition-00.sqlite"
    content = bytearray(path.read_bytes())
    root = select(folder, "SELECT rootpage FROM sqlite_master WHERE name = 'instance_row'")[0][0]
    content[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    store = SqliteStore(folder)
    [partition] = await store.open(1)

    with pytest.raises(StoreDamagedError, match="restore"):
        await partition.query_instances(InstanceFilter())

    await store.close()


async def test_a_missing_partition_is_refused(folder: Path) -> None:
    await make(folder, 3)
    (folder / "partition-01.sqlite").unlink()

    with pytest.raises(StoreDamagedError, match=r"partition-01\.sqlite is missing"):
        await SqliteStore(folder).open(3)


async def test_a_missing_first_partition_is_refused_when_others_have_data(folder: Path) -> None:
    await make(folder, 1)
    (folder / "partition-00.sqlite").rename(folder / "partition-01.sqlite")

    with pytest.raises(StoreDamagedError, match=r"partition-00\.sqlite is missing"):
        await SqliteStore(folder).open(2)


async def test_a_partition_of_another_hub_is_refused(folder: Path, tmp_path: Path) -> None:
    await make(folder, 2)
    await make(tmp_path / "other", 2)
    shutil.copy(tmp_path / "other" / "partition-01.sqlite", folder / "partition-01.sqlite")

    with pytest.raises(StoreDamagedError, match="of hub"):
        await SqliteStore(folder).open(2)


@pytest.mark.by_turns
async def test_a_hub_whose_making_was_cut_off_is_made_again(folder: Path) -> None:
    store = SqliteStore(folder)
    await store.open(3)
    await store.close()
    (folder / "partition-00.sqlite").unlink()
    (folder / "partition-00.new").write_bytes(b"half")

    await make(folder, 3, created=[created(1)])

    assert not (folder / "partition-00.new").exists()


async def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("mine")

    with pytest.raises(StoreDamagedError, match="is a file"):
        await SqliteStore(tmp_path / "hub").open(1)

    assert (tmp_path / "hub").read_text() == "mine"


async def test_a_folder_that_cannot_be_written_to_is_refused() -> None:
    # The kernel makes no folders there, not even for root.
    if not Path("/sys/kernel").is_dir():
        pytest.skip("needs sysfs, which nobody can write a folder to")

    with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
        await SqliteStore("/sys/kernel/perdure").open(1)
    with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
        await SqliteStore("/sys/kernel").open(1)


async def test_a_file_that_cannot_be_written_to_is_said(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await pragma(owner, "PRAGMA query_only = 1")

    with pytest.raises(StoreReadOnlyError):
        await owner.commit(created=[created(1)])

    await store.close()


async def test_an_old_sqlite_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))

    with pytest.raises(StorageError, match=r"3\.38 or newer"):
        await SqliteStore(folder).open(1)

    assert not folder.exists()
