from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from perdure.actors.errors import UnavailableError
from perdure.storage import InstanceFilter
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
