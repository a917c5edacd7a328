"""A round that is spread out: what is read meanwhile, and who makes it hurry."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from perdure.actors.errors import StorageError
from perdure.storage import Checkpoint
from perdure.storage.encoding import encode_parts
from perdure.storage.records import SetAside
from perdure.storage.sqlite import SqliteStore, applier as applying
from perdure.storage.sqlite.pace import Pace
from perdure.testing.store_conformance import Owner, created, entity, own
from tests.storage.sqlite.applier.looks import applier_of


class Endless(Pace):
    """A pace whose rests do not end; counts the turns."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0

    def book(self) -> float:
        return super().book() + (3600.0 if self.turns else 0.0)

    def take(self, work: Callable[[], object]) -> None:
        super().take(work)
        self.turns += 1


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch, at_once: None) -> Endless:
    endless = Endless()
    monkeypatch.setattr(applying, "PACE", endless)
    monkeypatch.setattr(applying, "PORTION", 1)
    return endless


async def resting(store: SqliteStore, pace: Endless) -> Owner:
    """Commit what takes four turns and the end of a transaction, and wait for the first of them."""
    owner = await own(store)
    await owner.commit(created=[created(1), created(2)], entities=[entity(3), entity(4)])
    while not pace.turns:
        await anyio.lowlevel.checkpoint()
    return owner


def tables_of(folder: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(folder / "partition-00.sqlite")) as tables:
        [(sequence,)] = tables.execute("SELECT sequence FROM meta").fetchall()
        [(count,)] = tables.execute("SELECT count(*) FROM instance_row").fetchall()
    return sequence, count


async def test_what_is_half_applied_is_nowhere_seen(
    store: SqliteStore, folder: Path, pace: Endless
) -> None:
    owner = await resting(store, pace)

    assert tables_of(folder) == (0, 0)
    assert pace.turns == 1
    rows = await owner.partition.read_instances(["i1", "i2"])
    assert sorted(row.key for row in rows) == ["i1", "i2"]
    assert applier_of(owner).layers.applied == 0
    await store.close()


async def test_whoever_waits_for_a_round_has_it_end_without_rests(
    store: SqliteStore, folder: Path, pace: Endless
) -> None:
    owner = await resting(store, pace)

    with anyio.fail_after(10):
        await owner.partition.apply()

    assert pace.turns == 5
    assert tables_of(folder) == (1, 2)
    await store.close()


async def test_who_closes_a_store_waits_for_no_rest(
    store: SqliteStore, folder: Path, pace: Endless
) -> None:
    await resting(store, pace)

    with anyio.fail_after(10):
        await store.close()

    assert tables_of(folder) == (1, 2)


async def test_what_is_set_aside_waits_for_no_rest(store: SqliteStore, pace: Endless) -> None:
    owner = await resting(store, pace)

    await owner.partition.set_aside([SetAside("instance_row", 1, "i1", "why")])

    [row] = await owner.partition.read_instances(["i1"])
    assert row.parked is not None
    await store.close()


async def test_much_that_gathers_behind_a_round_ends_its_rests(
    store: SqliteStore, folder: Path, pace: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await resting(store, pace)
    monkeypatch.setattr(applying, "LARGE", 100)

    await owner.commit(entities=[entity(5, state=b'"%b"' % (b"x" * 100))])

    with anyio.fail_after(10):
        while applier_of(owner).layers.applied < 1:
            await anyio.lowlevel.checkpoint()
    assert tables_of(folder)[0] >= 1
    await store.close()


async def test_a_round_that_fails_in_the_middle_leaves_nothing_and_is_tried_again(
    store: SqliteStore, folder: Path, pace: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await own(store)
    monkeypatch.setattr(applying, "GATHER_S", 3600.0)
    left = [2]

    def encode_two(checkpoint: Checkpoint) -> tuple[object, ...]:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("no more")
        return encode_parts(checkpoint)

    monkeypatch.setattr(applying, "encode_parts", encode_two)
    await owner.commit(created=[created(1), created(2)], entities=[entity(3)])
    with pytest.raises(StorageError):
        await owner.partition.apply()
    assert tables_of(folder) == (0, 0)

    monkeypatch.setattr(applying, "encode_parts", encode_parts)
    await owner.partition.apply()

    assert tables_of(folder) == (1, 2)
    await store.close()
