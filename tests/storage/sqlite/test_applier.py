"""The way from the journal to the tables: what is read meanwhile, and what may fail on it."""

from __future__ import annotations

import logging
import os
import random
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
from perdure.storage import (
    ActivityRow,
    Checkpoint,
    ChunkRow,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    MailRow,
    MemoryStore,
    OutboxRow,
    PeerRow,
    RequestRow,
    TimerRow,
)
from perdure.storage.sqlite import (
    SqliteStore,
    applier as applying,
    store as sqlite,
    takeover as recovering,
)
from perdure.storage.sqlite.connection import connect
from perdure.storage.sqlite.encoding import encode_parts, next_numbers
from perdure.storage.sqlite.presence import Presence
from perdure.storage.sqlite.schema import SCRIPTS
from perdure.storage.sqlite.store import SqlitePartition
from perdure.storage.sqlite.unapplied import Unapplied
from tests.storage.files import ROOT, change, kill_committing, rows
from tests.storage.test_conformance import (
    Owner,
    StoreConformance,
    created,
    entity,
    own,
    progress,
    reopen,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def store(folder: Path) -> SqliteStore:
    return SqliteStore(folder, synchronous="OFF")


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is applied that nobody asks for."""
    monkeypatch.setattr(applying, "GATHER_S", 3600.0)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is applied as soon as it is committed."""
    monkeypatch.setattr(applying, "GATHER_S", 0.0)


def applier_of(owner: Owner) -> applying.Applier:
    assert isinstance(owner.partition, SqlitePartition)
    assert owner.partition._applier is not None
    return owner.partition._applier


def copy_of(folder: Path, name: str) -> Path:
    """Copy a folder as it is on the disk now, as a crash would leave it."""
    copied = folder.parent / name
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("*-shm"))
    return copied


@pytest.mark.usefixtures("never")
class TestNothingApplied(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SqliteStore:
        return SqliteStore(tmp_path / "hub", synchronous="OFF")


@pytest.mark.usefixtures("at_once")
class TestEverythingApplied(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SqliteStore:
        return SqliteStore(tmp_path / "hub", synchronous="OFF")


# What is left of many checkpoints.

KEYS = 9


class Chance:
    """Draws checkpoints as a partition might make them: names are unique among those alive."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.next_id = 1
        self.next_row = 1
        self.instances: dict[int, int] = {}  # how many events each has
        self.keys: dict[int, str] = {}
        self.freed: set[str] = set()
        self.entities: dict[int, str] = {}
        self.mail: list[int] = []
        self.now = 1_000

    def checkpoint(self, sequence: int, epoch: int) -> Checkpoint:
        c = Checkpoint(sequence, epoch)
        self.freed.clear()  # an entity's name is free from the next checkpoint on
        for _ in range(self.random.randrange(6)):
            self.random.choice(
                [self.create, self.move, self.move, self.purge, self.put, self.put, self.drop]
            )(c)
        self.deliver(c)
        return c

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def create(self, c: Checkpoint) -> None:
        key = f"i{self.random.randrange(KEYS)}"
        if key not in self.keys.values():
            id = self.new_id()
            self.instances[id] = 0
            self.keys[id] = key
            c.created.append(created(id, key=key, input=b"%d" % id))
            self.advance(c, id)

    def move(self, c: Checkpoint) -> None:
        touched = {row.id for row in c.progress} | set(c.purged)
        free = sorted(set(self.instances) - touched)
        if free:
            id = self.random.choice(free)
            if self.random.random() < 0.2:  # continued as new
                c.rewritten.append(id)
                c.created.append(created(id, key=self.keys[id], execution=2, input=b"[]"))
                self.instances[id] = 0
            self.advance(c, id)

    def advance(self, c: Checkpoint, id: int) -> None:
        status = self.random.choice(["Pending", "Running", "Completed", "Failed"])
        c.progress.append(
            progress(
                id,
                status,
                pending=self.random.randrange(3),
                output=self.random.choice([None, b"null", b'{"a":[1]}']),
                parked=self.random.choice([None, None, b'"why"']),
            )
        )
        if self.random.random() < 0.8:
            count = self.random.randrange(1, 4)
            body = b",".join(b"[%d,%d]" % (id, self.instances[id] + n) for n in range(count))
            c.history.append(ChunkRow(id, self.instances[id], b"[%b]" % body))
            self.instances[id] += count

    def purge(self, c: Checkpoint) -> None:
        free = sorted(set(self.instances) - {row.id for row in c.progress})
        if free:
            id = self.random.choice(free)
            del self.instances[id], self.keys[id]
            c.purged.append(id)

    def put(self, c: Checkpoint) -> None:
        free = [id for id in self.entities if id not in {row.id for row in c.entities}]
        if free and self.random.random() < 0.7:
            id = self.random.choice(free)
        else:
            key = f"k{self.random.randrange(4)}"
            if key in self.entities.values() or key in self.freed:
                return
            id = self.new_id()
            self.entities[id] = key
        c.entities.append(
            EntityRow(
                id, "counter", self.entities[id], self.now, b"%d" % self.now, None, None, None
            )
        )

    def drop(self, c: Checkpoint) -> None:
        free = [id for id in self.entities if id not in {row.id for row in c.entities}]
        if free:
            id = self.random.choice(free)
            c.entities_deleted.append(id)
            self.freed.add(self.entities.pop(id))

    def deliver(self, c: Checkpoint) -> None:
        self.now += self.random.randrange(5)
        for n in [n for n in self.mail if self.random.random() < 0.3]:
            self.mail.remove(n)
            c.mail_deleted.append(n)
            c.timers_deleted.append(n + 1)
            c.outbox_deleted.append(n + 2)
            c.activities_deleted.append(n)
        for _ in range(self.random.randrange(3)):
            n, self.next_row = self.next_row, self.next_row + 3
            self.mail.append(n)
            c.mail.append(MailRow(n, f"a{n % 3}", b"%d" % n))
            c.timers.append(TimerRow(n + 1, n, "a", b"%d" % n))
            c.outbox.append(OutboxRow(n + 2, 1, n, b"[%d]" % n))
            if self.instances:
                instance = self.random.choice(sorted(self.instances))
                c.activities.append(ActivityRow(n, instance, b"[%d]" % n))
        c.peers.append(PeerRow(self.random.randrange(2), self.now, self.next_row))
        c.requests.append(RequestRow(f"r{self.random.randrange(9)}", self.now, b"%d" % self.now))
        if self.random.random() < 0.3:
            c.requests_deleted_before = self.now - self.random.randrange(8)


async def look(partition: Any, ids: range) -> dict[str, Any]:
    """Read all that is there through what reads single actors."""
    keys = [f"i{n}" for n in range(KEYS)]
    names = [("counter", f"k{n}") for n in range(4)]
    histories = [b"".join(await partition.read_history(id)) for id in ids]
    return {
        "instances": sorted(await partition.read_instances(keys)),
        "entities": sorted(await partition.read_entities(names)),
        "histories": [chunks.replace(b"][", b",") for chunks in histories],
        "requests": [await partition.read_request(f"r{n}") for n in range(9)],
    }


async def look_wide(partition: Any) -> dict[str, Any]:
    """Read all that is there through what applies first."""
    return {
        "instances": await partition.query_instances(InstanceFilter(limit=1000)),
        "entities": await partition.query_entities(EntityFilter(limit=1000)),
        "waiting": [await partition.waiting(f"a{n}") for n in range(3)],
    }


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_applied_when_it_reads_like_a_store_without_a_journal(
    store: SqliteStore, seed: int
) -> None:
    chance = Chance(seed)
    owner, model = await own(store), await own(MemoryStore())

    for _ in range(25):
        checkpoint = chance.checkpoint(owner.sequence + 1, owner.recovered.epoch)
        await owner.partition.commit(checkpoint)
        checkpoint.epoch = model.recovered.epoch
        await model.partition.commit(checkpoint)
        owner.sequence += 1
        ids = range(1, chance.next_id)
        assert await look(owner.partition, ids) == await look(model.partition, ids)
        event = chance.random.random()
        if event < 0.15:
            await owner.partition.apply()
        elif event < 0.25:
            assert await look_wide(owner.partition) == await look_wide(model.partition)
        elif event < 0.35:
            recovered = await owner.partition.recover()
            again = await model.partition.recover()
            owner.recovered, model.recovered = recovered, again
            names = "sequence next_id next_row mail timers outbox peers activities"
            for name in names.split():
                assert getattr(recovered, name) == getattr(again, name), name
            assert sorted(recovered.unanswered) == sorted(again.unanswered)
            assert sorted(recovered.parked) == sorted(again.parked)
    assert await look_wide(owner.partition) == await look_wide(model.partition)
    await store.close()


# What fails on the way.


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
    while not applier._failed:
        await anyio.sleep(0.001)

    repair_tables(folder)

    with anyio.fail_after(10):
        while applier.applied < 1:
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
        while applier.applied < 1:
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
        return encode_in_steps(*arguments)

    encode_in_steps = vars(applying)["encode_in_steps"]
    monkeypatch.setattr(applying, "encode_in_steps", encode)
    found: list[str] = []

    async def query() -> None:
        found.extend(await owner.keys())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(owner.partition.recover)
        await anyio.to_thread.run_sync(begun.wait, 10)
        tasks.start_soon(query)
        while not applier._waiting:
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
    read = recovering._read
    newer: list[recovering.Taken] = []

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(recovering, "_read", read)
        paths = folder / "partition-00.sqlite", folder / "journal-00.sqlite"
        newer.append(recovering.take_over(*paths, Presence(*paths), None))
        return read(*arguments)

    [partition] = await SqliteStore(folder, synchronous="OFF").attach(1)
    monkeypatch.setattr(recovering, "_read", overtaken)
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

    monkeypatch.setattr(bad, "_fold_log", fail)
    with pytest.raises(StorageError, match="disk I/O"):
        await store.close()

    assert applier._thread is not None
    assert not applier._thread.is_alive()
    assert rows(folder / "journal-01.sqlite", "SELECT sequence FROM entry") == []


async def test_to_close_a_partition_again_does_nothing(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    [partition] = store._partitions

    await partition.close()
    await partition.close()
    await store.close()

    assert caplog.records == []
    for call in (partition.apply(), partition.waiting("a"), partition.recover()):
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
        layer = self._applying
        assert layer is not None
        parts = encode_parts(layer.checkpoint(self._epoch))
        tables.execute(applying.APPLY, (0, 2, self._epoch, 2, 2, *parts))
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(applying.Applier, "_apply", fail_afterwards)
        with pytest.raises(StorageError, match="disk I/O error"):
            await owner.partition.apply()

    assert await owner.keys() == ["i1"]
    await owner.commit(created=[created(2)])
    assert await owner.keys() == ["i1", "i2"]
    assert await owner.partition.waiting("a") == 1
    await store.close()


# What is on the disk.


@pytest.mark.usefixtures("never")
async def test_a_commit_writes_one_page_and_the_tables_none(
    store: SqliteStore, folder: Path
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)], progress=[progress(1)])
    log, tables = folder / "journal-00.sqlite-wal", folder / "partition-00.sqlite"
    before, tables_before = log.stat().st_size, tables.read_bytes()

    await owner.commit(progress=[progress(1, "Completed")], history=[ChunkRow(1, 0, b"[1]")])

    assert log.stat().st_size - before == 4096 + 24  # a page and its head
    assert tables.read_bytes() == tables_before
    await store.close()


async def test_the_journal_is_emptied_while_it_is_used(
    store: SqliteStore, folder: Path, at_once: None
) -> None:
    owner = await own(store)
    for n in range(1, 30):
        await owner.commit(created=[created(n)])
        await owner.partition.apply()

    entries = rows(folder / "journal-00.sqlite", "SELECT sequence FROM entry")

    assert entries == [(29,)]
    await store.close()


@pytest.mark.usefixtures("never")
async def test_several_checkpoints_are_applied_as_one(store: SqliteStore, folder: Path) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)], history=[ChunkRow(1, 0, b"[1,2]")])
    await owner.commit(progress=[progress(1)], history=[ChunkRow(1, 2, b"[3]")])
    await owner.commit(purged=[77], mail=[MailRow(1, "a", b"1")])
    await owner.commit(mail_deleted=[1], history=[ChunkRow(1, 3, b"[4]")])

    await store.close()

    tables = folder / "partition-00.sqlite"
    assert rows(tables, "SELECT seq, body FROM history_row") == [(0, "[1,2,3,4]")]
    assert rows(tables, "SELECT sequence, next_row FROM meta") == [(4, 2)]
    assert rows(tables, "SELECT * FROM mail_row") == []


@pytest.mark.usefixtures("never")
async def test_a_copy_of_a_running_hub_has_every_commit(store: SqliteStore, folder: Path) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    await owner.partition.apply()
    await owner.commit(created=[created(2)])

    copied = copy_of(folder, "copy")

    [partition] = await SqliteStore(copied).attach(1)
    assert (await partition.recover()).sequence == 2
    assert [row.key for row in await partition.query_instances(InstanceFilter())] == ["i1", "i2"]
    await partition.close()
    await store.close()


@pytest.mark.usefixtures("never")
async def test_tables_older_than_their_journal_are_refused(
    store: SqliteStore, folder: Path
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    copied = copy_of(folder, "copy")
    await owner.partition.apply()
    await owner.commit(created=[created(2)])
    await owner.partition.apply()
    await owner.commit(created=[created(3)])
    await owner.partition.apply()
    await owner.commit(created=[created(4)])
    later = copy_of(folder, "later")
    for path in later.glob("partition-00*"):
        path.unlink()
    for path in copied.glob("partition-00*"):
        shutil.copy(path, later)
    # The journal has forgotten what the tables had long ago.
    change(later / "journal-00.sqlite", "DELETE FROM entry WHERE sequence < 4")

    [partition] = await SqliteStore(later).attach(1)
    with pytest.raises(StoreDamagedError, match="different moments"):
        await partition.recover()

    await partition.close()
    await store.close()


async def test_a_journal_of_an_earlier_owner_is_refused(
    store: SqliteStore, folder: Path, tmp_path: Path
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    await store.close()
    shutil.copy(folder / "journal-00.sqlite", tmp_path / "old")
    owner = await reopen(store)
    await owner.commit(created=[created(2)])
    await store.close()
    shutil.copy(tmp_path / "old", folder / "journal-00.sqlite")

    with pytest.raises(StoreDamagedError, match=r"journal-00.sqlite is older than .*partition-00"):
        await reopen(store)
    await store.close()


@pytest.mark.parametrize("change", ["missing", "foreign", "other hub"])
async def test_a_journal_that_is_not_the_partitions_is_refused(
    store: SqliteStore, folder: Path, tmp_path: Path, change: str
) -> None:
    await own(store, 2)
    await store.close()
    journal = folder / "journal-01.sqlite"
    journal.unlink()
    if change == "foreign":
        sqlite3.connect(journal).execute("CREATE TABLE mine (a)").connection.close()
    elif change == "other hub":
        other = SqliteStore(tmp_path / "other")
        await own(other, 2)
        await other.close()
        shutil.copy(tmp_path / "other" / "journal-01.sqlite", journal)

    with pytest.raises(StoreDamagedError, match="journal-01"):
        await store.open(2)


async def test_a_first_partition_whose_journal_alone_is_left_is_missed(
    store: SqliteStore, folder: Path, never: None
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    copied = copy_of(folder, "copy")
    for path in copied.glob("partition-00*"):
        path.unlink()

    with pytest.raises(StoreDamagedError, match=r"journal-00\.sqlite has data"):
        await SqliteStore(copied).open(1)

    await store.close()


#: What makes tables as they were, but for the view that only writing needs.
WITHOUT_VERSION_3 = (
    "DROP VIEW checkpoint",
    "CREATE VIEW checkpoint AS SELECT 1",
    "DROP INDEX instance_live",
    "DROP VIEW activities",
    "DROP TABLE activity_row",
    "ALTER TABLE instance_row DROP COLUMN notes",
)


async def test_a_folder_of_the_first_schema_is_upgraded(store: SqliteStore, folder: Path) -> None:
    owner = await own(store, 2)
    await owner.commit(created=[created(1)])
    await store.close()
    for number in range(2):
        (folder / f"journal-0{number}.sqlite").unlink()
        change(
            folder / f"partition-0{number}.sqlite",
            *WITHOUT_VERSION_3,
            "UPDATE meta SET schema_version = 1",
            "PRAGMA user_version = 1",
        )

    owner = await own(store, 2)

    assert owner.recovered.sequence == 1
    await owner.commit(created=[created(2)])
    assert await owner.keys() == ["i1", "i2"]
    await store.close()
    for number in range(2):
        path = folder / f"partition-0{number}.sqlite"
        assert rows(path, "PRAGMA user_version") == [(3,)]
        assert rows(path, "SELECT schema_version FROM meta") == [(3,)]


async def test_a_folder_of_the_second_schema_is_upgraded_with_what_its_journal_has(
    store: SqliteStore, folder: Path, never: None
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    copied = copy_of(folder, "copy")
    change(
        copied / "journal-00.sqlite",
        "ALTER TABLE entry DROP COLUMN activities",
        "ALTER TABLE entry DROP COLUMN activities_deleted",
        "UPDATE meta SET schema_version = 2",
        "PRAGMA user_version = 2",
    )
    change(
        copied / "partition-00.sqlite",
        *WITHOUT_VERSION_3,
        "UPDATE meta SET schema_version = 2",
        "PRAGMA user_version = 2",
    )

    owner = await own(upgraded := SqliteStore(copied))
    await owner.commit(activities=[ActivityRow(1, 1, b"[1]")])

    assert await owner.keys() == ["i1"]
    owner = await reopen(upgraded)
    assert owner.recovered.activities == [ActivityRow(1, 1, b"[1]")]
    await upgraded.close()
    await store.close()
    for name in ("journal", "partition"):
        assert rows(copied / f"{name}-00.sqlite", "PRAGMA user_version") == [(3,)]


# Killed in the middle.

CRASHING = """
import asyncio, sys
from perdure.storage import ChunkRow, EntityFilter, MailRow
from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite import applier as applying
from tests.storage.test_conformance import created, entity, own, progress

applying.GATHER_S = float(sys.argv[2])

async def main():
    owner = await own(SqliteStore(sys.argv[1]))
    while True:
        n = owner.sequence + 1
        await owner.commit(
            created=[created(n)],
            progress=[progress(old, events=n) for old in range(max(n - 3, 1), n + 1)],
            history=[ChunkRow(old, n, b"[%d]" % n) for old in range(max(n - 3, 1), n + 1)],
            entities=[entity(1_000_000, state=b"%d" % n)],
            mail=[MailRow(n, "a", b"1")],
            mail_deleted=[n - 2],
        )
        print(owner.sequence, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("gather", ["0", "0.01", "3600"])
@pytest.mark.parametrize("kill_after", [7, 150])
async def test_a_kill_while_applying_loses_and_repeats_nothing(
    store: SqliteStore, folder: Path, gather: str, kill_after: int
) -> None:
    acknowledged = kill_committing(CRASHING, folder, gather, after=kill_after)

    owner = await own(store)

    sequence = owner.recovered.sequence
    assert sequence in (acknowledged, acknowledged + 1)
    assert await owner.keys(limit=sequence + 1) == [f"i{n}" for n in range(1, sequence + 1)]
    for n in range(1, sequence + 1):
        chunks = b"".join(await owner.partition.read_history(n)).replace(b"][", b",")
        last = min(n + 3, sequence)
        assert chunks == b"[%b]" % b",".join(b"%d" % one for one in range(n, last + 1))
    [found] = await owner.partition.query_entities(EntityFilter())
    assert found.state == b"%d" % sequence
    assert [row.n for row in owner.recovered.mail] == [sequence - 1, sequence]
    await owner.commit()
    await store.close()


# Parts.


def add(layer: Unapplied, checkpoint: Checkpoint) -> None:
    layer.add(checkpoint, next_numbers(checkpoint), 0)


def test_nothing_is_put_and_deleted_at_once() -> None:
    layer = Unapplied(0, 0)
    add(layer, Checkpoint(1, 1, entities=[entity(1)], mail=[MailRow(1, "a", b"1")]))
    add(layer, Checkpoint(2, 1, entities_deleted=[1], mail_deleted=[1]))
    add(layer, Checkpoint(3, 1, entities=[entity(1)], mail=[MailRow(1, "a", b"2")]))

    whole = layer.checkpoint(9)

    assert (whole.sequence, whole.epoch) == (3, 9)
    assert (whole.entities, whole.entities_deleted) == ([entity(1)], [])
    assert (whole.mail, whole.mail_deleted) == ([MailRow(1, "a", b"2")], [])
    assert (layer.follows, layer.next_id, layer.next_row) == (0, 2, 2)


def test_a_name_may_go_on_within_one_checkpoint() -> None:
    layer = Unapplied(0, 0)
    add(layer, Checkpoint(1, 1, entities=[entity(5)]))

    both = [entity(9, key="e5")]
    add(layer, Checkpoint(2, 1, entities=both, entities_deleted=[9, 5]))

    assert (layer.entities, layer.entity_ids) == ({}, {})


@pytest.mark.parametrize(
    "parts",
    [
        {"created": [created(2, key="i1")]},
        {"created": [created(3), created(4, key="i3")]},
        {"entities": [entity(7, key="e5")]},
    ],
    ids=["an instance's", "of two instances", "an entity's"],
)
@pytest.mark.usefixtures("never")
async def test_a_name_that_is_taken_is_refused_at_the_door(
    store: SqliteStore, parts: dict[str, Any]
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)], entities=[entity(5)])

    with pytest.raises(StorageError, match="the same"):
        await owner.commit(**parts)

    assert (await owner.partition.recover()).sequence == 1
    await store.close()
