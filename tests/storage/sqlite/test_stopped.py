from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from perdure.actors.errors import StoreDamagedError, UnavailableError
from perdure.storage import ChunkRow, InstanceFilter, TimerRow
from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite.stopped import StoppedStore
from perdure.testing.store_conformance import Owner, created
from tests.storage.files import change
from tests.storage.sqlite.applier.test_applier_disk import WITHOUT_VERSION_3


async def commit_one(folder: Path, *, closed: bool) -> SqliteStore:
    """Commit an instance; unless it is closed, the journal alone may have it."""
    store = SqliteStore(folder)
    [partition] = await store.open(1)
    owner = Owner(partition, await partition.recover())
    await owner.commit(created=[created(1)])
    if closed:
        await store.close()
    return store


async def keys_in(folder: Path) -> list[str]:
    stopped = StoppedStore(folder)
    try:
        [partition] = await stopped.open()
        return [one.key for one in await partition.query_instances(InstanceFilter())]
    finally:
        await stopped.close()


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


async def test_a_store_of_the_first_schema_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    await commit_one(tmp_path, closed=True)
    (tmp_path / "journal-00.sqlite").unlink()
    change(
        tmp_path / "partition-00.sqlite",
        *WITHOUT_VERSION_3,
        "UPDATE meta SET schema_version = 1",
        "PRAGMA user_version = 1",
    )
    before = content(tmp_path)

    found = await keys_in(tmp_path)

    assert found == ["i1"]
    assert content(tmp_path) == before


async def test_what_the_journal_alone_has_is_read_beside_its_owner(tmp_path: Path) -> None:
    store = await commit_one(tmp_path, closed=False)

    found = await keys_in(tmp_path)

    assert found == ["i1"]
    await store.close()


async def test_files_that_are_links_are_read_with_the_logs_beside_what_they_lead_to(
    tmp_path: Path,
) -> None:
    store = await commit_one(tmp_path / "hub", closed=False)
    elsewhere = tmp_path / "elsewhere"
    linked = tmp_path / "linked"
    shutil.copytree(tmp_path / "hub", elsewhere)
    linked.mkdir()
    for path in elsewhere.glob("*.sqlite"):
        (linked / path.name).symlink_to(path)

    found = await keys_in(linked)

    assert found == ["i1"]
    await store.close()


async def test_files_that_never_hold_still_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await commit_one(tmp_path, closed=False)
    copyfile = shutil.copyfile

    def write_meanwhile(source: Any, copy: Any) -> None:
        copyfile(source, copy)
        change(tmp_path / "partition-00.sqlite", "PRAGMA user_version = 4")

    monkeypatch.setattr(shutil, "copyfile", write_meanwhile)

    with pytest.raises(UnavailableError, match="a hub is at work in"):
        await keys_in(tmp_path)

    await store.close()


async def test_no_copy_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    store = await commit_one(tmp_path / "hub", closed=False)

    await keys_in(tmp_path / "hub")

    assert [*(tmp_path / "temporary").iterdir()] == []
    await store.close()


async def test_histories_and_timers_are_read_many_at_a_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    [partition] = await store.open(1)
    owner = Owner(partition, await partition.recover())
    chunks = [ChunkRow(1, 0, b"[1,2]"), ChunkRow(2, 0, b"[3]")]
    timers = [TimerRow(n, 10 * n, "@a@b", b"[%d]" % n) for n in (1, 2, 3)]
    await owner.commit(created=[created(1), created(2), created(3)], history=chunks, timers=timers)
    await partition.apply()
    await owner.commit(history=[ChunkRow(1, 2, b"[4]")])
    live = await partition.read_histories([1, 2, 3]), await partition.read_timers(0)
    await store.close()

    stopped = StoppedStore(tmp_path)
    try:
        [still] = await stopped.open()
        histories = await still.read_histories([2, 1, 3])
        behind = await still.read_timers(1, 1)
    finally:
        await stopped.close()

    assert histories == live[0] == {1: [b"[1,2]", b"[4]"], 2: [b"[3]"], 3: []}
    assert live[1] == timers
    assert behind == timers[1:2]


async def test_one_damaged_history_among_many_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    [partition] = await store.open(1)
    owner = Owner(partition, await partition.recover())
    chunks = [ChunkRow(1, 0, b"[1]"), ChunkRow(2, 0, b"[1,2]")]
    await owner.commit(created=[created(1), created(2)], history=chunks)
    await partition.apply()
    await owner.commit(history=[ChunkRow(2, 2, b"[3]")])
    await store.close()
    change(tmp_path / "partition-00.sqlite", "UPDATE history_row SET seq = 5 WHERE seq = 2")

    stopped = StoppedStore(tmp_path)
    try:
        [still] = await stopped.open()
        with pytest.raises(StoreDamagedError, match="seq is 5, not 2"):
            await still.read_histories([1, 2])
        assert await still.read_histories([1]) == {1: [b"[1]"]}
    finally:
        await stopped.close()
