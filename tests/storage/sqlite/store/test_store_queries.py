"""The views that people read, and the plans of what is asked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from anyio import Event, create_task_group, wait_all_tasks_blocked

from perdure.actors.errors import StorageError
from perdure.storage import (
    Checkpoint,
    ChunkRow,
    EntityFilter,
    InstanceFilter,
    MailRow,
    OutboxRow,
    TimerRow,
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
)
from perdure.storage.sqlite.takeover import PARKED, UNANSWERED
from perdure.testing.store_conformance import created, entity, own, progress
from tests.storage.sqlite.store.hub import make, partition_of, select


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
    execute = partition.journal.execute
    begun, go_on = Event(), Event()

    async def slowly(*arguments: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await execute(*arguments)

    monkeypatch.setattr(partition.journal, "execute", slowly)
    async with create_task_group() as tasks:
        tasks.start_soon(partial(owner.commit, created=[created(1)], progress=[progress(1)]))
        await begun.wait()
        monkeypatch.setattr(partition.journal, "execute", execute)
        tasks.start_soon(store.close)
        await wait_all_tasks_blocked()
        go_on.set()

    assert owner.sequence == 1
    assert select(folder, "SELECT key FROM instance_row") == [("i1",)]
