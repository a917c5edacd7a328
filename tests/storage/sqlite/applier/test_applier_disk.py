"""What is on the disk, also where the process is killed in the middle."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from perdure.actors.errors import StoreDamagedError
from perdure.storage import ActivityRow, ChunkRow, EntityFilter, InstanceFilter, MailRow
from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite.schema import SCHEMA_VERSION
from perdure.testing.store_conformance import created, own, progress, reopen
from tests.storage.files import change, kill_committing, rows
from tests.storage.sqlite.applier.looks import copy_of


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
WITHOUT_VERSION_5 = (
    "DROP VIEW checkpoint",
    "CREATE VIEW checkpoint AS SELECT 1",
    *(f"DROP TRIGGER tags_{what}" for what in ("inserted", "updated", "deleted")),
    "DROP TABLE tag_row",
)
WITHOUT_VERSION_4 = (
    *WITHOUT_VERSION_5,
    *(f"DROP TRIGGER waits_{what}" for what in ("inserted", "updated", "deleted")),
    "DROP TABLE wait_row",
    "DROP INDEX instance_attempts",
    "ALTER TABLE instance_row DROP COLUMN waits",
    "ALTER TABLE instance_row DROP COLUMN attempts",
)
WITHOUT_VERSION_3 = (
    *WITHOUT_VERSION_4,
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
        assert rows(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert rows(path, "SELECT schema_version FROM meta") == [(SCHEMA_VERSION,)]


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
        assert rows(copied / f"{name}-00.sqlite", "PRAGMA user_version") == [(SCHEMA_VERSION,)]


async def test_a_folder_of_the_third_schema_is_upgraded_with_what_its_journal_has(
    store: SqliteStore, folder: Path, never: None
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    await owner.commit(progress=[progress(1)])
    copied = copy_of(folder, "copy")
    older = "UPDATE meta SET schema_version = 3", "PRAGMA user_version = 3"
    change(
        copied / "journal-00.sqlite",
        "UPDATE entry SET progress = json_remove(progress, "
        "'$[0][13]', '$[0][12]') WHERE progress IS NOT NULL",
        *older,
    )
    change(copied / "partition-00.sqlite", *WITHOUT_VERSION_4, *older)

    owner = await own(upgraded := SqliteStore(copied))
    waiting = InstanceFilter(waits="timer")
    assert await owner.partition.query_instances(waiting) == []
    await owner.commit(progress=[progress(1, waits=b'["timer"]')])

    assert await owner.keys() == ["i1"]
    [found] = await owner.partition.query_instances(waiting)
    assert (found.key, found.waits) == ("i1", b'["timer"]')
    await upgraded.close()
    await store.close()
    for name in ("journal", "partition"):
        assert rows(copied / f"{name}-00.sqlite", "PRAGMA user_version") == [(SCHEMA_VERSION,)]


async def test_a_folder_of_the_fourth_schema_finds_by_tags_what_it_had(
    store: SqliteStore, folder: Path, never: None
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1, tags=b'{"x":"1"}'), created(2, tags=b'{"x":"2"}')])
    await owner.partition.apply()
    await owner.commit(created=[created(3, tags=b'{"x":"1"}')])
    copied = copy_of(folder, "copy")
    older = "UPDATE meta SET schema_version = 4", "PRAGMA user_version = 4"
    change(copied / "journal-00.sqlite", *older)
    change(copied / "partition-00.sqlite", *WITHOUT_VERSION_5, *older)

    owner = await own(upgraded := SqliteStore(copied))

    found = await owner.partition.query_instances(InstanceFilter(tags=(("x", "1"),)))
    assert [one.key for one in found] == ["i1", "i3"]
    tagged = "SELECT tag, value, instance FROM tag_row ORDER BY instance"
    assert rows(copied / "partition-00.sqlite", tagged) == [
        ("x", "1", 1),
        ("x", "2", 2),
        ("x", "1", 3),
    ]
    await upgraded.close()
    await store.close()
    for name in ("journal", "partition"):
        assert rows(copied / f"{name}-00.sqlite", "PRAGMA user_version") == [(SCHEMA_VERSION,)]


CRASHING = """
import asyncio, sys
from perdure.storage import ChunkRow, EntityFilter, MailRow
from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite import applier as applying
from perdure.testing.store_conformance import created, entity, own, progress

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
