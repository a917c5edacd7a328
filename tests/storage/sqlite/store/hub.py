"""A hub on the disk, and looks into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite.store import SqlitePartition
from perdure.testing.store_conformance import Owner, own
from tests.storage.files import rows


async def make(folder: Path, partitions: int = 1, **parts: Any) -> None:
    """Make a hub with one checkpoint and close it."""
    store = SqliteStore(folder, synchronous="OFF")
    owner = await own(store, partitions)
    await owner.commit(**parts)
    await store.close()


def select(folder: Path, sql: str) -> list[Any]:
    return rows(folder / "partition-00.sqlite", sql)


def partition_of(owner: Owner) -> SqlitePartition:
    assert isinstance(owner.partition, SqlitePartition)
    return owner.partition


async def pragma(owner: Owner, statement: str) -> list[Any]:
    partition = partition_of(owner)
    return await partition.journal.execute(statement)
