"""A hub's database that is read by who is no member: all that was committed, and nothing changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import product
from typing import Any

import orjson
import pytest

from perdure.actors.errors import StorageError, StoreMovedError, UnavailableError
from perdure.storage import PartitionStore
from perdure.storage.postgres import PostgresStore, folding
from perdure.storage.postgres.stopped import StoppedPostgres, StoppedPostgresPartition
from perdure.storage.records import EntityFilter, InstanceFilter, MailRow, TimerRow
from perdure.testing.store_conformance import Owner, created, entity, own, progress

_OF_INSTANCES: list[dict[str, Any]] = [
    {},
    {"statuses": ("Running",)},
    {"limit": 3},
    {"limit": 3, "after": (104, "i4")},
    {"prefix": "i1"},
    {"tags": (("team", "blue"),)},
    {"completed_from": 1},
    {"parked": True},
    {"attempts": 2},
]
INSTANCES = [
    InstanceFilter(newest=newest, payloads=payloads, **conditions)
    for newest, payloads in product((False, True), repeat=2)
    for conditions in _OF_INSTANCES
]
_OF_ENTITIES: list[dict[str, Any]] = [
    {},
    {"include_empty": True, "states": False},
    {"limit": 2},
    {"limit": 2, "after": ("counter", "e2")},
    {"locked": True},
]
ENTITIES = [EntityFilter(**conditions) for conditions in _OF_ENTITIES]


async def read(partition: PartitionStore) -> dict[str, Any]:
    """Give all that can be read of a partition."""
    found: dict[str, Any] = {
        "instances": [await partition.query_instances(one) for one in INSTANCES],
        "counts": [await partition.count_instances(one) for one in INSTANCES],
        "entities": [await partition.query_entities(one) for one in ENTITIES],
        "waiting": await partition.waiting(["i1", "i2", "@counter@e1", "nobody"]),
        "histories": [await partition.read_history(id) for id in range(1, 15)],
        "part": await partition.read_history_part(3, 1, 3),
        "mail": [await partition.read_mail(actor, 0, 1_000) for actor in (None, "i1")],
    }
    some = await partition.read_instances([f"i{id}" for id in range(1, 15)])
    found["read"] = sorted(some, key=lambda row: row.key)
    row = await partition.read_entities([("counter", "e1"), ("counter", "e3")])
    found["read entities"] = sorted(row, key=lambda row: row.key)
    return found


@pytest.fixture
async def owner(
    newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Owner, PostgresStore]]:
    """Who has committed some things that are in the tables, and others that the journal has."""
    store = PostgresStore(newest_postgres)
    monkeypatch.setattr(folding, "GATHER_S", 3600.0)
    one = await own(store)
    blue = orjson.dumps({"team": "blue"})
    await one.commit(
        created=[created(id, tags=blue if id % 3 else None, input=b"7") for id in range(1, 9)],
        progress=[progress(id) for id in range(1, 9)],
        history=[(id, 0, b'["a","b"]') for id in range(1, 9)],
        entities=[entity(id) for id in range(1, 5)],
        mail=[MailRow(n, "i1" if n % 2 else "i2", b"{}") for n in range(1, 7)],
        timers=[TimerRow(n, 50, "i3", b"{}") for n in range(20, 24)],
    )
    await one.partition.apply()
    await one.commit(
        purged=[1],
        created=[created(9, tags=blue), created(10, key="i1"), created(13, created=100)],
        progress=[progress(9), progress(2, "Completed", completed=5, output=b"8")],
        history=[(3, 2, b'["c"]'), (9, 0, b'["a"]')],
        entities=[entity(1, state=b"2"), entity(7, state=None), entity(8, lock=b"{}")],
        entities_deleted=[2],
        mail=[MailRow(8, "i1", b"{}"), MailRow(9, "@counter@e1", b"{}")],
        mail_deleted=[1, 2],
        timers=[TimerRow(25, 70, "i4", b"{}")],
        timers_deleted=[20, 21],
    )
    await one.commit(
        rewritten=[4],
        history=[(4, 0, b'["z"]')],
        progress=[progress(5, parked=b'{"why":1}'), progress(9, "Failed", attempts=3)],
    )
    yield one, store
    await store.close()


async def asked(store: PostgresStore, sql: str) -> Any:
    async def work(connection: Any) -> Any:
        return await connection.fetchval(store.sql(sql))

    return await store.bridge.run(lambda: store.querier.use(work))


async def rows_of(store: PostgresStore) -> Any:
    """Give what the tables have, and under which epochs."""
    tables = ("partition", "folded", "journal", "instance_row", "entity_row", "mail_row", "hub")
    each = [
        f"(SELECT string_agg(ctid::text || xmin::text || xmax::text, ',') FROM {{s}}.{table})"
        for table in tables
    ]
    return await asked(store, f"SELECT concat_ws(';', {', '.join(each)})")


@pytest.mark.by_turns
async def test_what_the_journal_has_is_read_as_it_will_be_when_it_is_folded(
    owner: tuple[Owner, PostgresStore], newest_postgres: str
) -> None:
    one, store = owner
    before = await rows_of(store)
    reader = StoppedPostgres(newest_postgres)
    try:
        [partition] = await reader.open()
        unfolded = await read(partition)
        untouched = await rows_of(store)
        of_the_owner = await read(one.partition)  # which folds
        folded = await read(partition)
    finally:
        await reader.close()

    assert await asked(store, "SELECT count(*) FROM {s}.journal") == 0
    assert untouched == before
    assert [row.key for row in unfolded["instances"][0]][:3] == ["i13", "i2", "i3"]
    for what, expected in of_the_owner.items():
        assert unfolded[what] == expected, what
        assert folded[what] == expected, what


@pytest.mark.by_turns
async def test_histories_and_timers_are_read_for_a_look_at_all_of_them(
    owner: tuple[Owner, PostgresStore], newest_postgres: str
) -> None:
    one, _ = owner
    reader = StoppedPostgres(newest_postgres)
    try:
        [partition] = await reader.open()
        assert isinstance(partition, StoppedPostgresPartition)
        for _ in ("unfolded", "folded"):
            assert [row.n for row in await partition.read_timers(-1)] == [22, 23, 25]
            assert [row.n for row in await partition.read_timers(-1, 1)] == [22]
            assert [row.n for row in await partition.read_timers(22)] == [23, 25]
            histories = await partition.read_histories([2, 3, 4, 9, 99])
            assert histories == {id: await partition.read_history(id) for id in (2, 3, 4, 9, 99)}
            assert histories[4] == [b'["z"]']
            await one.partition.apply()
    finally:
        await reader.close()


@pytest.mark.by_turns
async def test_a_reader_sees_what_is_committed_while_it_is_open(
    owner: tuple[Owner, PostgresStore], newest_postgres: str
) -> None:
    one, _ = owner
    reader = StoppedPostgres(newest_postgres)
    try:
        [partition] = await reader.open()
        first = await partition.count_instances(InstanceFilter())
        await one.commit(created=[created(20)])
        second = await partition.count_instances(InstanceFilter())
        await one.commit(created=[created(21)])
        await one.partition.apply()
        third = await partition.count_instances(InstanceFilter())
    finally:
        await reader.close()

    assert (first, second, third) == (10, 11, 12)


@pytest.mark.by_turns
async def test_a_database_that_may_only_be_read_is_read(
    owner: tuple[Owner, PostgresStore], newest_postgres: str
) -> None:
    reader = StoppedPostgres(f"{newest_postgres}&options=-c%20default_transaction_read_only%3Don")
    try:
        [partition] = await reader.open()
        assert await partition.count_instances(InstanceFilter()) == 10
    finally:
        await reader.close()


@pytest.mark.by_turns
async def test_who_reads_changes_nothing(
    owner: tuple[Owner, PostgresStore], newest_postgres: str
) -> None:
    reader = StoppedPostgres(newest_postgres)
    try:
        [partition] = await reader.open()
        await partition.apply()
        refused: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            partition.recover,
            lambda: partition.set_aside([]),
            lambda: partition.find_unknown([]),
            lambda: Owner(partition, owner[0].recovered).commit(),
        ]
        for ask in refused:
            with pytest.raises(StorageError, match="nothing is written"):
                await ask()
    finally:
        await reader.close()
    await owner[0].commit(created=[created(30)])  # its epoch is the latest still


async def test_no_schema_is_made_where_there_is_no_hub(newest_postgres: str) -> None:
    reader = StoppedPostgres(newest_postgres)
    store = PostgresStore(newest_postgres)
    try:
        with pytest.raises(UnavailableError, match="there is no hub in"):
            await reader.open()
        assert await store.count_partitions() is None
    finally:
        await reader.close()
        await store.close()


@pytest.mark.by_turns
async def test_a_hub_that_has_moved_is_read_where_it_is(
    owner: tuple[Owner, PostgresStore], newest_postgres: str
) -> None:
    _, store = owner

    async def mark(connection: Any) -> None:
        await connection.execute(
            store.sql(
                "CREATE TABLE {s}.migration AS SELECT 'gone' AS state, 't' AS token,"
                " 'sqlite:there' AS place"
            )
        )

    await store.bridge.run(lambda: store.querier.use(mark))
    reader = StoppedPostgres(newest_postgres)
    try:
        with pytest.raises(StoreMovedError, match="has moved to sqlite:there"):
            await reader.open()
    finally:
        await reader.close()
