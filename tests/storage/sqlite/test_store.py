"""What only the SQLite store does: files, locks, views, plans, full disks, crashes."""
# ruff: noqa: ASYNC240 (a test blocks nobody when it looks at its files)

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from anyio import CancelScope, Event, create_task_group, wait_all_tasks_blocked

from perdure.actors.errors import (
    LeaseLostError,
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreInUseError,
    StoreReadOnlyError,
    StoreVersionError,
    UsageError,
)
from perdure.storage import (
    Checkpoint,
    ChunkRow,
    EntityFilter,
    InstanceFilter,
    MailRow,
    MemoryStore,
    OutboxRow,
    TimerRow,
    open_store,
)
from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite.queries import (
    Candidate,
    entity_page,
    instance_candidates,
    instance_page,
)
from perdure.storage.sqlite.store import (
    READ_ENTITIES,
    READ_HISTORY,
    READ_INSTANCES,
    READ_MAIL,
    READ_REQUEST,
    UNKNOWN,
    SqlitePartition,
)
from perdure.storage.sqlite.takeover import PARKED, UNANSWERED
from tests.storage.files import ROOT, change, kill_committing, rows
from tests.storage.test_conformance import Owner, created, entity, own, progress


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "hub"


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
    return await partition._journal.execute(statement)


async def test_a_program_that_fails_with_an_open_store_still_ends(folder: Path) -> None:
    code = (
        "import asyncio, sys\nfrom perdure.storage.sqlite import SqliteStore\n"
        "async def main():\n"
        "    [sys.kept] = await SqliteStore(sys.argv[1]).open(1)\n"
        "    await sys.kept.recover()\n"
        "    sys.exit(3)\n"
        "asyncio.run(main())"
    )

    ended = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, timeout=60, check=False
    )

    assert ended.returncode == 3


# Which store a text names.


def test_a_text_names_a_store(tmp_path: Path) -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    store = open_store(f"sqlite:{tmp_path}")
    assert isinstance(store, SqliteStore)
    assert store.path == tmp_path
    assert open_store(store) is store


@pytest.mark.parametrize("text", ["", "sqlite:", "memory", "memory:x", "postgres:hub", "hub"])
def test_any_other_text_is_refused_with_what_is_understood(text: str) -> None:
    with pytest.raises(UsageError, match=r"'memory:'.*'sqlite:PATH'"):
        open_store(text)


def test_an_unknown_synchronous_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="FULL"):
        SqliteStore(folder, synchronous="full")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# Files.


async def test_the_folder_has_a_file_per_partition_and_no_log_after_close(folder: Path) -> None:
    await make(folder, 3, created=[created(1)])

    assert sorted(path.name for path in folder.iterdir()) == [
        "journal-00.sqlite",
        "journal-01.sqlite",
        "journal-02.sqlite",
        "owner.sqlite",
        "partition-00.sqlite",
        "partition-01.sqlite",
        "partition-02.sqlite",
    ]


async def test_a_file_says_what_it_is(folder: Path) -> None:
    await make(folder, 2)

    [(schema, hub, partition, partitions, software)] = select(
        folder, "SELECT schema_version, hub, partition, partitions, software FROM meta"
    )
    assert (schema, len(hub), partition, partitions, software) == (3, 36, 0, 2, "perdure")
    assert select(folder, "PRAGMA application_id") == [(0x50524455,)]
    assert select(folder, "PRAGMA user_version") == [(3,)]
    assert select(folder, "PRAGMA page_size") == [(4096,)]
    assert select(folder, "PRAGMA journal_mode") == [("wal",)]


async def test_commits_are_synchronous_by_default(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)

    assert store.durability == "sqlite WAL synchronous=FULL"
    assert await pragma(owner, "PRAGMA synchronous") == [(2,)]
    assert await pragma(owner, "PRAGMA wal_autocheckpoint") == [(1000,)]
    await store.close()


async def test_a_second_hub_is_refused_in_the_same_process(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    other = SqliteStore(folder)

    with pytest.raises(StoreInUseError, match=r"hub is in use by another hub; stop"):
        await other.open(1)
    await other.close()

    await owner.commit(created=[created(1)])
    await store.close()
    await make(folder)


async def test_a_second_hub_is_refused_in_another_process(folder: Path) -> None:
    store = SqliteStore(folder)
    await store.open(1)
    code = (
        "import asyncio, sys\nfrom perdure.storage.sqlite import SqliteStore\n"
        "asyncio.run(SqliteStore(sys.argv[1]).open(1))"
    )

    ended = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True
    )

    assert "StoreInUseError" in ended.stderr
    await store.close()


async def test_a_newer_schema_is_refused(folder: Path) -> None:
    await make(folder)
    change(folder / "partition-00.sqlite", "PRAGMA user_version = 4")

    with pytest.raises(StoreVersionError, match=r"version 4, .*upgrade"):
        await SqliteStore(folder).open(1)


async def test_another_number_of_partitions_names_the_right_one(folder: Path) -> None:
    await make(folder, 2)

    for wrong in (1, 3):
        with pytest.raises(StoreVersionError, match="partitions=2"):
            await SqliteStore(folder).open(wrong)


@pytest.mark.parametrize("content", [b"", b"no database at all" * 400], ids=["empty", "garbage"])
async def test_a_file_that_is_no_database_is_refused_and_kept(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    path = folder / "partition-00.sqlite"
    path.write_bytes(content)

    with pytest.raises(StoreDamagedError, match="partition-00"):
        await SqliteStore(folder).open(1)

    assert path.read_bytes() == content


async def test_a_foreign_database_is_refused_and_kept(folder: Path) -> None:
    folder.mkdir(parents=True)
    change(folder / "partition-00.sqlite", "CREATE TABLE meta (a)")
    before = (folder / "partition-00.sqlite").read_bytes()

    with pytest.raises(StoreDamagedError, match="something else"):
        await SqliteStore(folder).open(1)

    assert (folder / "partition-00.sqlite").read_bytes() == before


@pytest.mark.parametrize("size", [100, 4096, 20_000])
async def test_a_truncated_file_is_refused_and_kept(folder: Path, size: int) -> None:
    await make(folder, created=[created(1)])
    path = folder / "partition-00.sqlite"
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(StoreDamagedError, match="partition-00"):
        await SqliteStore(folder).open(1)

    assert path.stat().st_size == size


async def test_damage_found_later_is_said_too(folder: Path) -> None:
    await make(folder, created=[created(n, input=b'"%s"' % (b"x" * 2000)) for n in range(1, 99)])
    path = folder / "partition-00.sqlite"
    content = bytearray(path.read_bytes())
    root = select(folder, "SELECT rootpage FROM sqlite_master WHERE name = 'instance_row'")[0][0]
    content[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    store = SqliteStore(folder)
    [partition] = await store.open(1)

    with pytest.raises(StoreDamagedError, match="restore"):
        await partition.query_instances(InstanceFilter())

    await store.close()


async def test_a_missing_partition_is_refused(folder: Path) -> None:
    await make(folder, 3)
    (folder / "partition-01.sqlite").unlink()

    with pytest.raises(StoreDamagedError, match=r"partition-01\.sqlite is missing"):
        await SqliteStore(folder).open(3)


async def test_a_missing_first_partition_is_refused_when_others_have_data(folder: Path) -> None:
    await make(folder, 1)
    (folder / "partition-00.sqlite").rename(folder / "partition-01.sqlite")

    with pytest.raises(StoreDamagedError, match=r"partition-00\.sqlite is missing"):
        await SqliteStore(folder).open(2)


async def test_a_partition_of_another_hub_is_refused(folder: Path, tmp_path: Path) -> None:
    await make(folder, 2)
    await make(tmp_path / "other", 2)
    shutil.copy(tmp_path / "other" / "partition-01.sqlite", folder / "partition-01.sqlite")

    with pytest.raises(StoreDamagedError, match="of hub"):
        await SqliteStore(folder).open(2)


async def test_a_hub_whose_making_was_cut_off_is_made_again(folder: Path) -> None:
    store = SqliteStore(folder)
    await store.open(3)
    await store.close()
    (folder / "partition-00.sqlite").unlink()
    (folder / "partition-00.new").write_bytes(b"half")

    await make(folder, 3, created=[created(1)])

    assert not (folder / "partition-00.new").exists()


async def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("mine")

    with pytest.raises(StoreDamagedError, match="is a file"):
        await SqliteStore(tmp_path / "hub").open(1)

    assert (tmp_path / "hub").read_text() == "mine"


async def test_a_folder_that_cannot_be_written_to_is_refused() -> None:
    # The kernel makes no folders there, not even for root.
    if not Path("/sys/kernel").is_dir():
        pytest.skip("needs sysfs, which nobody can write a folder to")

    with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
        await SqliteStore("/sys/kernel/perdure").open(1)
    with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
        await SqliteStore("/sys/kernel").open(1)


async def test_a_file_that_cannot_be_written_to_is_said(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await pragma(owner, "PRAGMA query_only = 1")

    with pytest.raises(StoreReadOnlyError):
        await owner.commit(created=[created(1)])

    await store.close()


async def test_an_old_sqlite_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))

    with pytest.raises(StorageError, match=r"3\.38 or newer"):
        await SqliteStore(folder).open(1)

    assert not folder.exists()


# Commits.


async def test_a_commit_is_one_statement(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit()
    statements: list[str] = []
    partition = partition_of(owner)
    connection = partition._journal._opened
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
    assert await owner.partition.waiting("a") == 0
    await pragma(owner, "PRAGMA max_page_count = 100000")
    await owner.commit(created=large)
    assert len(await owner.keys()) == 49
    await store.close()


async def test_a_broken_connection_is_opened_anew_by_recover(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit(created=[created(1)])
    partition = partition_of(owner)
    broken = partition._journal._opened
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
            await owner.partition.read_instances(["i1"])

    assert len(await owner.partition.read_instances(["i1"])) == 1
    await store.close()


async def test_readers_that_begin_together_share_a_connection(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit(created=[created(1)])
    found: list[str] = []

    async def read() -> None:
        found.extend(row.key for row in await owner.partition.read_instances(["i1"]))
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
    querier = partition._querier._opened
    assert querier is not None

    async def query() -> None:
        with pytest.raises(sqlite3.OperationalError, match="interrupt"):
            await partition._bridge.run(lambda: partition._querier.fetch(endless))

    async with create_task_group() as tasks:
        tasks.start_soon(query)
        await owner.commit(created=[created(1)])
        assert len(await partition.read_instances(["i1"])) == 1
        await partition._bridge.run(querier.interrupt)

    await store.close()


CRASHING = """
import asyncio, sys
from perdure.storage import Checkpoint, ChunkRow, MailRow
from perdure.storage.sqlite import SqliteStore
from tests.storage.test_conformance import created, own, progress

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


# For people.


async def test_the_views_are_readable(folder: Path) -> None:
    hour = 1_700_000_000_000_000
    await make(
        folder,
        created=[created(1, created=hour + 5, input=b"[1]", parent="p")],
        progress=[progress(1, "Completed", updated=hour, completed=hour + 1_000_000)],
        history=[
            ChunkRow(
                1, 0, b'[["ExecutionStarted",%d,"crawl"],["TimerCreated",%d,1]]' % (hour, hour)
            ),
            ChunkRow(1, 2, b'[["TimerFired",%d,1]]' % (hour + 7)),
        ],
        entities=[entity(2, updated=hour)],
        mail=[MailRow(1, "i1", b"[]")],
        timers=[TimerRow(2, hour, "i1", b"[]")],
        outbox=[OutboxRow(3, 1, 9, b"[[]]")],
    )

    assert select(
        folder, "SELECT instance_id, status, created, completed, input FROM instances"
    ) == [("i1", "Completed", "2023-11-14T22:13:20.000005Z", "2023-11-14T22:13:21.000000Z", "[1]")]
    assert select(folder, "SELECT * FROM histories WHERE instance_id = 'i1' ORDER BY seq") == [
        (
            "i1",
            0,
            "ExecutionStarted",
            "2023-11-14T22:13:20.000000Z",
            f'["ExecutionStarted",{hour},"crawl"]',
        ),
        ("i1", 1, "TimerCreated", "2023-11-14T22:13:20.000000Z", f'["TimerCreated",{hour},1]'),
        ("i1", 2, "TimerFired", "2023-11-14T22:13:20.000007Z", f'["TimerFired",{hour + 7},1]'),
    ]
    assert select(folder, "SELECT entity_id, updated, state FROM entities") == [
        ("@counter@e2", "2023-11-14T22:13:20.000000Z", "1")
    ]
    assert select(folder, "SELECT * FROM mailbox") == [(1, "i1", "[]")]
    assert select(folder, "SELECT * FROM timers") == [
        (2, "2023-11-14T22:13:20.000000Z", "i1", "[]")
    ]
    assert select(folder, "SELECT * FROM outbox") == [(3, 1, 9, "[[]]")]


# Query plans.


def plan(folder: Path, sql: str, values: list[object]) -> str:
    connection = sqlite3.connect(folder / "partition-00.sqlite")
    try:
        rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    finally:
        connection.close()
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("conditions", "search"),
    [
        ({"parent": "p"}, "instance_parent (parent=?)"),
        ({"parents": ("p", "q")}, "instance_parent (parent=?)"),
        ({"newest": True}, "SCAN instance_row USING INDEX instance_created"),
        ({"newest": True, "after": (1, "a")}, "instance_created (created<?)"),
        ({"newest": True, "name": "n"}, "instance_name (name=?)"),
        ({"failure_type": "E"}, "instance_failure (failure_type=?)"),
        ({"parked": True}, "SCAN instance_row USING INDEX instance_parked"),
        ({"statuses": ("Failed",)}, "instance_status (status=?)"),
        ({"statuses": ("Failed", "Running")}, "instance_status (status=?)"),
        ({"name": "n"}, "instance_name (name=?)"),
        ({"name": "n", "created_from": 1}, "instance_name (name=? AND created>?)"),
        ({"created_from": 1, "created_to": 2}, "instance_created (created>? AND created<?)"),
        ({"after": (1, "a")}, "instance_created (created>?)"),
        ({"prefix": "a"}, "instance_key (key>? AND key<?)"),
        ({"updated_from": 1}, "instance_updated (updated>?)"),
        ({"completed_to": 1}, "instance_completed (completed<?)"),
        ({}, "SCAN instance_row USING INDEX instance_created"),
    ],
    ids=repr,
)
async def test_a_filter_of_instances_is_served_by_an_index(
    folder: Path, conditions: dict[str, Any], search: str
) -> None:
    await make(folder)
    filter = InstanceFilter(**conditions)
    candidates = instance_candidates(filter)

    plans = [plan(folder, *instance_page(filter, driver)) for driver in candidates]

    assert any(search in text for text in plans), plans
    for text, driver in zip(plans, candidates, strict=True):
        # The last step sorts the page, and the one before it the arms; what must not be sorted
        # is all that the index gives, which is the line behind the index itself.
        using = f"INDEX {driver.index}"
        behind = [
            after
            for line, after in pairwise(text.splitlines())
            if using in line and driver.ordered and len(filter.statuses + filter.parents) < 2
        ]
        assert all("RIGHT PART" in line or "LAST TERM" in line for line in behind), text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("conditions", "search"),
    [
        ({}, "SCAN e USING INDEX entity_name"),
        ({"name": "n"}, "SEARCH e USING INDEX entity_name (name=?)"),
        ({"name": "n", "prefix": "a"}, "entity_name (name=? AND key>? AND key<?)"),
        ({"prefix": "a"}, "entity_name (name=? AND key>? AND key<?)"),
        ({"after": ("n", "k")}, "entity_name ((name,key)>(?,?))"),
        ({"locked": True}, "SCAN e USING INDEX entity_locked"),
        ({"parked": True}, "SCAN e USING INDEX entity_parked"),
    ],
    ids=repr,
)
async def test_a_filter_of_entities_is_served_by_an_index(
    folder: Path, conditions: dict[str, Any], search: str
) -> None:
    await make(folder)

    assert search in plan(folder, *entity_page(EntityFilter(**conditions)))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_recovery_and_reads_only_look_up_indexes(folder: Path) -> None:
    await make(folder)

    for sql, values in (
        (READ_INSTANCES, [b"[]"]),
        (READ_ENTITIES, [b"[]"]),
        (READ_HISTORY, [1]),
        (READ_REQUEST, ["a"]),
    ):
        assert "SCAN" not in plan(folder, sql, list(values)).replace("SCAN json_each", ""), sql
    searched = plan(folder, READ_MAIL, ["a", 0, 9, 9, 9])
    assert "mail_row USING INDEX mail_actor (actor=? AND rowid>? AND rowid<?)" in searched
    assert "INDEX instance_live" in plan(folder, UNKNOWN, [b"[]"])
    assert "USING INDEX instance_unanswered" in plan(folder, UNANSWERED, [])
    assert "USING INDEX instance_parked" in plan(folder, PARKED, [])


def test_the_best_wide_driver_comes_first() -> None:
    wide: list[Candidate] = instance_candidates(
        InstanceFilter(parent="p", statuses=("Failed",), prefix="a")
    )

    assert [each.index for each in wide] == [
        "instance_parent",
        "instance_status",
        "instance_created",
        "instance_key",
    ]


async def test_a_refused_row_says_which(folder: Path) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    checkpoint = Checkpoint(1, owner.recovered.epoch, created=[created(1), created(2, key="i1")])

    with pytest.raises(StorageError, match=r"instance_row\.key"):
        await owner.partition.commit(checkpoint)

    await store.close()


async def test_a_log_that_another_process_left_is_folded_where_the_store_is_closed(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "hub")
    await store.open(2)
    (tmp_path / "hub" / "none.sqlite-wal").touch()
    file = tmp_path / "hub" / "journal-01.sqlite"
    reader = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    reader.execute("SELECT 1 FROM meta").fetchall()
    with closing(sqlite3.connect(file)) as other:
        other.execute("SELECT 1 FROM meta").fetchall()
    reader.close()  # the last one, which only reads, and so leaves the log
    assert file.with_name("journal-01.sqlite-wal").exists()

    await store.close()

    assert [one.name for one in (tmp_path / "hub").glob("*-wal")] == ["none.sqlite-wal"]


async def test_a_commit_under_way_is_in_the_tables_when_the_store_has_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(folder)
    owner = await own(store)
    partition = partition_of(owner)
    execute = partition._journal.execute
    begun, go_on = Event(), Event()

    async def slowly(*arguments: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await execute(*arguments)

    monkeypatch.setattr(partition._journal, "execute", slowly)
    async with create_task_group() as tasks:
        tasks.start_soon(partial(owner.commit, created=[created(1)], progress=[progress(1)]))
        await begun.wait()
        monkeypatch.setattr(partition._journal, "execute", execute)
        tasks.start_soon(store.close)
        await wait_all_tasks_blocked()
        go_on.set()

    assert owner.sequence == 1
    assert select(folder, "SELECT key FROM instance_row") == [("i1",)]
