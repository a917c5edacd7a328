"""Stores that cannot be opened."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Hub,
    HubStoppingError,
    SqliteStore,
    StorageError,
    Store,
    StoreDamagedError,
    StoreInUseError,
    StoreReadOnlyError,
    StoreVersionError,
)
from tests.runtime.harness import FaultyStore, disk_error
from tests.runtime.hub.application import COUNTER, Counter, app


async def test_a_second_hub_on_the_same_folder_is_refused_and_the_first_goes_on(
    tmp_path: Path,
) -> None:
    folder = f"sqlite:{tmp_path / 'hub'}"
    async with Hub(app, store=folder) as first:
        await first.client.call_entity(COUNTER, Counter.add, 1)

        with pytest.raises(StoreInUseError, match="another hub"):
            async with Hub(app, store=folder):
                pass

        assert await first.client.call_entity(COUNTER, Counter.add, 1) == 2
    async with Hub(app, store=folder) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 2


async def test_a_second_hub_on_the_same_store_object_is_refused_and_the_first_goes_on(
    store: Store,
) -> None:
    async with Hub(app, store=store) as first:
        with pytest.raises(StoreInUseError):
            async with Hub(app, store=store):
                pass

        assert await first.client.call_entity(COUNTER, Counter.add, 1) == 1


async def test_another_number_of_partitions_than_the_stores_is_refused(store: Store) -> None:
    async with Hub(app, store=store, partitions=2) as hub:
        await hub.client.call_entity(COUNTER, Counter.add, 1)

    with pytest.raises(StoreVersionError, match="2 partitions, not 4"):
        async with Hub(app, store=store):
            pass

    async with Hub(app, store=store, partitions=2) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 1


async def make_hub_in(folder: Path) -> list[Path]:
    async with Hub(app, store=SqliteStore(folder), partitions=2) as hub:
        await hub.client.call_entity(COUNTER, Counter.add, 1)
    return [folder / "partition-00.sqlite", folder / "partition-01.sqlite"]


async def test_a_store_of_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    [first, *_] = await make_hub_in(tmp_path)
    with sqlite3.connect(first) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = first.read_bytes()

    with pytest.raises(StoreVersionError, match="upgrade perdure"):
        async with Hub(app, store=SqliteStore(tmp_path), partitions=2):
            pass

    assert first.read_bytes() == before


@pytest.mark.parametrize("damage", ["garbage", "empty", "foreign", "missing"])
async def test_a_damaged_or_foreign_file_is_refused_and_left_as_it_is(
    tmp_path: Path, damage: str
) -> None:
    [_, second] = await make_hub_in(tmp_path)
    second.unlink()
    if damage == "garbage":
        second.write_bytes(b"not a database at all" * 1_000)
    elif damage == "empty":
        second.touch()
    elif damage == "foreign":
        connection = sqlite3.connect(second)
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
        connection.close()
    before = second.read_bytes() if second.exists() else None

    with pytest.raises(StoreDamagedError, match="partition-01"):
        async with Hub(app, store=SqliteStore(tmp_path), partitions=2):
            pass

    assert (second.read_bytes() if second.exists() else None) == before


async def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")

    with pytest.raises(StorageError, match="not the folder of a hub"):
        async with Hub(app, store=f"sqlite:{path}"):
            pass

    assert path.read_text() == "mine"


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root may write to any folder"
)
async def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
            async with Hub(app, store=f"sqlite:{folder}"):
                pass
    finally:
        folder.chmod(0o700)


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
        async with Hub(app, store=f"sqlite:{tmp_path / 'file' / 'hub'}"):
            pass


async def test_a_hub_that_could_not_open_its_store_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "hub"
    [_, second] = await make_hub_in(path)
    kept = second.read_bytes()
    second.write_bytes(b"x" * 100)

    hub = Hub(app, store=SqliteStore(path), partitions=2)
    with pytest.raises(StoreDamagedError):
        await hub.__aenter__()
    with pytest.raises(HubStoppingError):
        _ = hub.client
    second.write_bytes(kept)

    async with Hub(app, store=SqliteStore(path), partitions=2) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 1


async def test_a_store_that_fails_while_the_hub_starts_is_given_up_again() -> None:
    store = FaultyStore()
    store.faults.recover = disk_error()

    with pytest.raises(StorageError, match="the disk fails"):
        async with Hub(app, store=store):
            pass

    store.faults.recover = None
    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.add, 1) == 1


class NoStore:
    """An object that has a store's methods, and does not keep its contract."""

    durability = "none"

    def __init__(self, opened: object) -> None:
        self.opened = opened

    def open(self, partitions: int) -> Any:
        async def give() -> Any:
            return self.opened

        return self.opened if self.opened is None else give()

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("opened", "what"),
    [
        (None, "the store's open raised TypeError"),
        (7, "the store's open raised TypeError"),
        ([], "gave 0 partitions, not 4"),
    ],
)
async def test_an_object_that_is_no_store_is_said_to_be_none(opened: object, what: str) -> None:
    with pytest.raises(StorageError, match=what):
        async with Hub(app, store=NoStore(opened)):
            pass


async def test_what_a_store_raises_as_it_is_closed_is_said_to_be_the_stores() -> None:
    class Closing(FaultyStore):
        async def close(self) -> None:
            raise KeyError("for the test")

    with pytest.raises(StorageError, match="the store's close raised KeyError"):
        async with Hub(app, store=Closing()) as hub:
            assert await hub.client.call_entity(COUNTER, Counter.add, 1) == 1
