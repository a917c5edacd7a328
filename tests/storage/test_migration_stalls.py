"""A hub that moves to another store holds the loop of whoever moves it for a moment only."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure import SqliteStore
from perdure.storage import Checkpoint
from perdure.storage.migration import migrate, open_end
from perdure.storage.postgres.place import read_place
from perdure.storage.records import CreatedRow, ProgressRow
from tests.postgres import ask
from tests.runtime.stretches import MEASURED, measured

pytestmark = MEASURED


async def fill(place: Path, count: int) -> None:
    """Have a folder hold so many instances that have ended."""
    numbers = range(1, count + 1)
    store = SqliteStore(place)
    [partition] = await store.open(1)
    recovered = await partition.recover()
    created = [
        CreatedRow(n, f"i{n:06}", "wait", None, 1, n, None, 0, 0, b'{"a":"b"}', b"1", None)
        for n in numbers
    ]
    progress = [
        ProgressRow(n, "Completed", n, 1, 0, 0, b"3", None, None, None, None) for n in numbers
    ]
    rows = Checkpoint(sequence=1, epoch=recovered.epoch, created=created, progress=progress)
    await partition.commit(rows)
    await partition.apply()
    await store.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("count", [2_500, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_many_instances_that_go_to_another_store_and_back_do_not_hold_the_loop(
    tmp_path: Path, newest_postgres: str, count: int
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    await fill(first, count)
    for place in (newest_postgres, f"sqlite:{first}"):
        open_end(place)  # which imports what is needed, as this does
    await ask(read_place(newest_postgres).dsn, "SELECT 1")

    with measured() as stretches:
        await migrate(f"sqlite:{first}", newest_postgres)
        await migrate(newest_postgres, f"sqlite:{again}")

        assert stretches.longest_s < stretches.bound_s
