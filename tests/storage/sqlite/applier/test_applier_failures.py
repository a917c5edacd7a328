"""What fails on the way from the journal to the tables."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from perdure.actors.errors import LeaseLostError, StorageError, StoreDamagedError
from perdure.storage import ChunkRow, EntityFilter, InstanceFilter, MailRow, MemoryStore
from perdure.storage.encoding import encode_parts
from perdure.storage.sqlite import (
    SqliteStore,
    applier as applying,
    store as sqlite,
    takeover as recovering,
)
from perdure.storage.sqlite.connection import Connection, connect
from perdure.storage.sqlite.presence import Presence
from perdure.storage.sqlite.schema import SCRIPTS
from perdure.testing.store_conformance import Owner, created, entity, own, progress, reopen
from tests.storage.files import ROOT, change, rows
from tests.storage.sqlite.applier.looks import Chance, applier_of, copy_of, look, look_wide


def break_tables(folder: Path) -> None:
    change(folder / "partition-00.sqlite", "DROP VIEW checkpoint")


def repair_tables(folder: Path) -> None:
    script = (ROOT / "storage" / "sqlite" / SCRIPTS[-1]).read_text("utf-8")
    connection = sqlite3.connect(folder / "partition-00.sqlite", isolation_level=None)
    connection.executescript(script)
    connection.close()


@pytest.mark.usefixtures("never")
async def test_tables_that_take_nothing_hold_up_no_commit(
    store: SqliteStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    break_tables(folder)

    for _ in range(2):
        with pytest.raises(StorageError, match="checkpoint"):
            await owner.keys()
    await owner.commit(created=[created(2)])
    read = await owner.partition.read_instances(["i1", "i2"])
    repair_tables(folder)

    assert sorted(row.key for row in read) == ["i1", "i2"]
    assert await owner.keys() == ["i1", "i2"]
    [logged] = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "partition-00.sqlite is not applied" in logged.getMessage()
    await store.close()


@pytest.mark.usefixtures("never")
async def test_instances_that_the_tables_lack_are_read_without_them(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1), created(2)])
    await owner.commit(progress=[progress(1, events=7)], purged=[2])
    await owner.commit(created=[created(3, key="i2")])
    asked: list[str] = []

    async def fetch(_: Connection, sql: str, *__: object) -> list[Any]:
        asked.append(sql)
        return []

    monkeypatch.setattr(Connection, "fetch", fetch)
    read = await owner.partition.read_instances(["i1", "i2"])
    assert [(row.key, row.id, row.events) for row in read] == [("i1", 1, 7), ("i2", 3, 0)]
    assert not asked

    await owner.commit(purged=[1])
    assert await owner.partition.read_instances(["i1"]) == []
    assert len(asked) == 1  # the tables might have had it
    await store.close()


@pytest.mark.by_turns
@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("seed", range(10))
async def test_a_round_that_fails_in_between_changes_nothing_of_what_is_read(
    store: SqliteStore, folder: Path, seed: int
) -> None:
    chance = Chance(seed)
    owner, model = await own(store), await own(MemoryStore())
    broken = False

    for _ in range(40):
        checkpoint = chance.checkpoint(owner.sequence + 1, owner.recovered.epoch)
        await owner.partition.commit(checkpoint)
        checkpoint.epoch = model.recovered.epoch
        await model.partition.commit(checkpoint)
        owner.sequence += 1
        event = chance.random.random()
        if event < 0.2 and broken:
            repair_tables(folder)
            broken = False
            await owner.partition.apply()
        elif event < 0.2:
            break_tables(folder)
            broken = True
        elif event < 0.4 and broken:
            with pytest.raises(StorageError):
                await owner.partition.apply()
        ids = range(1, chance.next_id)
        assert await look(owner.partition, ids) == await look(model.partition, ids)
    if broken:
        repair_tables(folder)
    assert await look_wide(owner.partition) == await look_wide(model.partition)
    await store.close()


async def test_applying_is_tried_again_until_it_works(
    store: SqliteStore, folder: Path, at_once: None
) -> None:
    owner = await own(store)
    break_tables(folder)
    await owner.commit(created=[created(1)])
    applier = applier_of(owner)
    while not applier.has_failed:
        await anyio.sleep(0.001)

    repair_tables(folder)

    with anyio.fail_after(10):
        while applier.layers.applied < 1:
            await anyio.sleep(0.001)
    await store.close()


@pytest.mark.usefixtures("never")
async def test_what_could_not_be_applied_before_the_end_is_applied_at_the_next_start(
    store: SqliteStore, folder: Path
) -> None:
    owner = await own(store)
    break_tables(folder)
    await owner.commit(created=[created(1)])
    await store.close()
    assert rows(folder / "journal-00.sqlite", "SELECT sequence FROM entry") == [(1,)]
    repair_tables(folder)

    owner = await reopen(store)

    assert owner.recovered.sequence == 1
    assert await owner.keys() == ["i1"]
    await store.close()
    assert rows(folder / "journal-00.sqlite", "SELECT sequence FROM entry") == []


@pytest.mark.usefixtures("never")
async def test_commits_wait_while_too_much_is_not_applied(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "TOO_LARGE", 10_000)
    owner = await own(store)
    break_tables(folder)
    await owner.commit(entities=[entity(1, state=b'"%b"' % (b"x" * 10_000))])

    with pytest.raises(StorageError):
        await owner.commit(entities=[entity(2)])
    repair_tables(folder)
    owner = Owner(owner.partition, await owner.partition.recover())
    await owner.commit(entities=[entity(2)])

    assert owner.sequence == 2
    assert await owner.entity_keys() == ["e1", "e2"]
    await store.close()


@pytest.mark.usefixtures("never")
async def test_much_is_applied_without_delay(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "LARGE", 10_000)
    owner = await own(store)
    await owner.commit(entities=[entity(1, state=b'"%b"' % (b"x" * 10_000))])
    applier = applier_of(owner)

    with anyio.fail_after(10):
        while applier.layers.applied < 1:
            await anyio.sleep(0.001)
    await store.close()


@pytest.mark.usefixtures("never")
async def test_an_older_owner_applies_nothing(store: SqliteStore, folder: Path) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    [other] = await SqliteStore(folder, synchronous="OFF").attach(1)
    newer = Owner(other, await other.recover())
    await newer.commit(progress=[progress(1, "Failed")])

    with pytest.raises(LeaseLostError):
        await owner.partition.apply()
    with pytest.raises(LeaseLostError):
        await owner.commit(created=[created(2)])

    assert await newer.keys(statuses=("Failed",)) == ["i1"]
    await other.close()
    await store.close()
    assert rows(folder / "partition-00.sqlite", "SELECT key, status FROM instance_row") == [
        ("i1", "Failed")
    ]


@pytest.mark.usefixtures("never")
async def test_a_name_set_free_while_its_last_row_is_being_applied_may_be_taken(
    store: SqliteStore, folder: Path
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)], entities=[entity(5)])
    break_tables(folder)
    with pytest.raises(StorageError):
        await owner.partition.apply()  # the round stays open
    await owner.commit(purged=[1], entities_deleted=[5])

    await owner.commit(created=[created(2, key="i1")], entities=[entity(7, key="e5")])

    with pytest.raises(StorageError, match="the same"):
        await owner.commit(created=[created(3, key="i1")])
    repair_tables(folder)
    found = await owner.partition.query_instances(InstanceFilter())
    assert [(row.id, row.key) for row in found] == [(2, "i1")]
    assert [row.id for row in await owner.partition.query_entities(EntityFilter())] == [7]
    await store.close()


@pytest.mark.usefixtures("never")
async def test_reads_miss_nothing_while_a_partition_cannot_recover(
    store: SqliteStore, folder: Path
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)], history=[ChunkRow(1, 0, b"[1]")])
    break_tables(folder)

    for _ in range(2):
        with pytest.raises(StorageError):
            await owner.partition.recover()

        assert [row.key for row in await owner.partition.read_instances(["i1"])] == ["i1"]
        assert await owner.partition.read_history(1) == [b"[1]"]
        with pytest.raises(StorageError):
            await owner.keys()
        with pytest.raises(StorageError):
            await owner.commit()
    repair_tables(folder)
    assert (await owner.partition.recover()).sequence == 1
    assert await owner.keys() == ["i1"]
    await store.close()


@pytest.mark.usefixtures("never")
async def test_a_query_while_a_partition_recovers_waits_for_what_is_applied(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    applier = applier_of(owner)
    begun, go_on = threading.Event(), threading.Event()

    def encode(*arguments: Any) -> Any:
        begun.set()
        go_on.wait(10)
        return encode_parts(*arguments)

    monkeypatch.setattr(applying, "encode_parts", encode)
    found: list[str] = []

    async def query() -> None:
        found.extend(await owner.keys())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(owner.partition.recover)
        await anyio.to_thread.run_sync(begun.wait, 10)
        tasks.start_soon(query)
        while not applier.is_awaited:
            await anyio.lowlevel.checkpoint()
        go_on.set()

    assert found == ["i1"]
    await store.close()


@pytest.mark.usefixtures("never")
async def test_much_that_cannot_be_applied_is_not_tried_without_pause(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "LARGE", 1)
    tries: list[Path] = []

    def tried(path: Path) -> sqlite3.Connection:
        tries.append(path)
        return connect(path)

    monkeypatch.setattr(applying, "connect", tried)
    owner = await own(store)
    break_tables(folder)

    for n in range(100):
        await owner.commit(entities=[entity(1, state=b"%d" % n)])

    assert len(tries) <= 1
    repair_tables(folder)
    await owner.partition.apply()
    await store.close()


async def test_an_owner_that_was_overtaken_while_it_recovered_is_fenced_out(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await own(store)
    read = recovering.read_tables
    newer: list[recovering.Taken] = []

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(recovering, "read_tables", read)
        paths = folder / "partition-00.sqlite", folder / "journal-00.sqlite"
        newer.append(recovering.take_over(*paths, Presence(*paths), None))
        return read(*arguments)

    [partition] = await SqliteStore(folder, synchronous="OFF").attach(1)
    monkeypatch.setattr(recovering, "read_tables", overtaken)
    older = Owner(partition, await partition.recover())

    assert older.recovered.epoch < newer[0].recovered.epoch
    with pytest.raises(LeaseLostError):
        await older.commit(created=[created(1)])

    newer[0].tables.close()
    newer[0].journal.close()
    await partition.close()
    await store.close()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[recovering.Taken]:
    """All that was taken over."""
    every: list[recovering.Taken] = []

    def take_over(*arguments: Any) -> recovering.Taken:
        every.append(recovering.take_over(*arguments))
        return every[-1]

    monkeypatch.setattr(sqlite, "take_over", take_over)
    return every


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


async def test_a_partition_that_recovers_again_leaves_no_connection_open(
    store: SqliteStore, taken: list[recovering.Taken]
) -> None:
    owner = await own(store)
    await owner.partition.recover()

    assert is_closed(taken[0].tables)
    assert is_closed(taken[0].journal)
    await store.close()
    assert is_closed(taken[1].tables)
    assert is_closed(taken[1].journal)


async def test_a_partition_that_is_closed_while_it_recovers_leaves_nothing_open(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, taken: list[recovering.Taken]
) -> None:
    [partition] = await store.open(1)
    take_over = vars(sqlite)["take_over"]

    closing = threading.Event()

    async def close() -> None:
        closing.set()
        await partition.close()  # which waits for the end of the recovery

    async with anyio.create_task_group() as tasks:

        def closed_meanwhile(*arguments: Any) -> Any:
            anyio.from_thread.run_sync(tasks.start_soon, close)
            closing.wait(10)
            return take_over(*arguments)

        monkeypatch.setattr(sqlite, "take_over", closed_meanwhile)
        with pytest.raises(StorageError, match="closed"):
            await partition.recover()

    assert is_closed(taken[0].tables)
    assert is_closed(taken[0].journal)
    await store.close()


@pytest.mark.usefixtures("never")
async def test_one_partition_that_fails_to_close_keeps_no_other_from_it(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await store.open(2)
    other = Owner(good, await good.recover())
    await other.commit(created=[created(1)])
    applier = applier_of(other)

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(bad, "fold_log", fail)
    with pytest.raises(StorageError, match="disk I/O"):
        await store.close()

    assert not applier.is_running
    assert rows(folder / "journal-01.sqlite", "SELECT sequence FROM entry") == []


async def test_to_close_a_partition_again_does_nothing(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    [partition] = store.partitions

    await partition.close()
    await partition.close()
    await store.close()

    assert caplog.records == []
    for call in (partition.apply(), partition.waiting(["a"]), partition.recover()):
        with pytest.raises(StorageError, match="closed"):
            await call


async def test_tables_older_than_an_empty_journal_are_refused(
    store: SqliteStore, folder: Path, tmp_path: Path
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    await owner.partition.apply()
    copied = copy_of(folder, "copy")
    await owner.commit(created=[created(2)])
    await store.close()
    for file in os.listdir(copied):
        if file.startswith("partition"):
            shutil.copy(copied / file, folder)

    with pytest.raises(StoreDamagedError, match="different moments"):
        await own(store)
    await store.close()


@pytest.mark.usefixtures("never")
async def test_a_round_that_was_applied_and_reported_as_failed_is_not_applied_again(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    await owner.commit(mail=[MailRow(1, "a", b"1")])

    def fail_afterwards(self: applying.Applier, tables: sqlite3.Connection) -> None:
        layer = self.layers.begin()
        assert layer is not None
        parts = encode_parts(layer.checkpoint(self._epoch))
        tables.execute(applying.APPLY, (0, 2, self._epoch, 2, 2, *parts))
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(applying.Applier, "apply_round", fail_afterwards)
        with pytest.raises(StorageError, match="disk I/O error"):
            await owner.partition.apply()

    assert await owner.keys() == ["i1"]
    await owner.commit(created=[created(2)])
    assert await owner.keys() == ["i1", "i2"]
    assert await owner.partition.waiting(["a"]) == {"a": 1}
    await store.close()
