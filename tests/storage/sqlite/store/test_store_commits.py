"""What only the SQLite store does as it commits."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from anyio import CancelScope, create_task_group

from perdure.actors.errors import LeaseLostError, StorageError, StoreFullError
from perdure.storage import MailRow
from perdure.storage.sqlite import SqliteStore
from perdure.testing.store_conformance import Owner, created, entity, own, progress
from tests.storage.files import change, kill_committing
from tests.storage.sqlite.store.hub import partition_of, pragma


async def test_a_commit_is_one_statement(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit()
    statements: list[str] = []
    partition = partition_of(owner)
    connection = partition.journal.opened
    assert connection is not None
    connection.set_trace_callback(statements.append)

    await owner.commit(
        created=[created(n) for n in range(1, 50)],
        progress=[progress(n) for n in range(1, 50)],
        entities=[entity(50)],
        mail=[MailRow(1, "a", b"1")],
    )

    # What the trigger does is traced under the text of the statement that set it off.
    [statement] = set(statements)
    assert statement.startswith("INSERT INTO entry")
    await store.close()


async def test_a_full_disk_writes_nothing_and_can_be_emptied(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit(created=[created(1)])
    [(pages,)] = await pragma(owner, "PRAGMA page_count")
    await pragma(owner, f"PRAGMA max_page_count = {pages + 5}")
    large = [created(n, input=b'"%s"' % (b"x" * 3000)) for n in range(2, 50)]

    with pytest.raises(StoreFullError, match="no space"):
        await owner.commit(created=large, mail=[MailRow(1, "a", b"1")])

    assert await owner.keys() == ["i1"]
    assert await owner.partition.waiting(["a"]) == {}
    await pragma(owner, "PRAGMA max_page_count = 100000")
    await owner.commit(created=large)
    assert len(await owner.keys()) == 49
    await store.close()


async def test_a_broken_connection_is_opened_anew_by_recover(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit(created=[created(1)])
    partition = partition_of(owner)
    broken = partition.journal.opened
    assert broken is not None
    broken.close()

    with pytest.raises(StorageError):
        await owner.commit(created=[created(2)])
    recovered = await partition.recover()

    assert recovered.sequence == 1
    assert recovered.epoch > owner.recovered.epoch
    again = Owner(partition, recovered)
    await again.commit(created=[created(2)])
    assert await again.keys() == ["i1", "i2"]
    await store.close()


async def test_a_cancelled_caller_waits_for_its_commit(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)

    with CancelScope() as scope:
        scope.cancel()
        await owner.commit(created=[created(1)])

    assert await owner.keys() == ["i1"]
    await owner.commit()
    await store.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_cancelled_by_asyncio_leaves_a_whole_commit(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit()  # the connection is open from here on
    task = asyncio.ensure_future(owner.commit(created=[created(1)], mail=[MailRow(1, "a", b"1")]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    recovered = await owner.partition.recover()

    assert recovered.sequence == 2
    assert len(recovered.mail) == len(await owner.keys()) == 1
    await Owner(owner.partition, recovered).commit()
    await store.close()


async def test_a_cancelled_read_leaves_the_reader_usable(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit(created=[created(1)])

    for _ in range(5):
        with CancelScope() as scope:
            scope.cancel()
            await owner.partition.read_instances(["i1", "none"])

    assert len(await owner.partition.read_instances(["i1", "none"])) == 1
    await store.close()


async def test_readers_that_begin_together_share_a_connection(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit(created=[created(1)])
    found: list[str] = []

    async def read() -> None:
        read = await owner.partition.read_instances(["i1", "none"])
        found.extend(row.key for row in read)
        found.extend(await owner.keys())

    async with create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(read)

    assert found == ["i1"] * 16
    await store.close()


async def test_a_long_query_does_not_delay_commits(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    partition = partition_of(owner)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    await owner.keys()
    querier = partition.querier.opened
    assert querier is not None

    async def query() -> None:
        with pytest.raises(sqlite3.OperationalError, match="interrupt"):
            await partition.bridge.run(lambda: partition.querier.fetch(endless))

    async with create_task_group() as tasks:
        tasks.start_soon(query)
        await owner.commit(created=[created(1)])
        assert len(await partition.read_instances(["i1", "none"])) == 1
        await partition.bridge.run(querier.interrupt)

    await store.close()


CRASHING = """
import asyncio, sys
from perdure.storage import Checkpoint, ChunkRow, MailRow
from perdure.storage.sqlite import SqliteStore
from perdure.testing.store_conformance import created, own, progress

async def main():
    owner = await own(SqliteStore(sys.argv[1]))
    while True:
        n = owner.sequence + 1
        await owner.commit(
            created=[created(n)],
            progress=[progress(n, events=n)],
            history=[ChunkRow(n, 0, b"[" + b"1," * 5000 + b"1]")],
            mail=[MailRow(n, "a", b"1")],
        )
        print(owner.sequence, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kill_after", [1, 17, 300])
async def test_every_acknowledged_checkpoint_survives_a_kill(folder: Path, kill_after: int) -> None:
    acknowledged = kill_committing(CRASHING, folder, after=kill_after)

    store = SqliteStore(folder)
    owner = await own(store)

    # The last one may be stored and not acknowledged.
    sequence = owner.recovered.sequence
    assert sequence in (acknowledged, acknowledged + 1)
    keys = await owner.keys(limit=sequence + 1)
    assert keys == [f"i{n}" for n in range(1, sequence + 1)]
    assert [row.n for row in owner.recovered.mail] == list(range(1, sequence + 1))
    assert len(await owner.partition.read_history(sequence)) == 1
    await owner.commit()
    await store.close()


async def test_an_older_process_is_fenced_by_epoch(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    change(folder / "journal-00.sqlite", "UPDATE meta SET epoch = epoch + 1")

    with pytest.raises(LeaseLostError, match="journal-00"):
        await owner.commit(created=[created(1)])

    assert await owner.keys() == []
    await store.close()
