"""What PostgreSQL is asked to do for a hub, and what the store makes of what it cannot."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
import orjson
import pytest

from perdure.actors.errors import LeaseLostError, StorageError, StoreFullError
from perdure.storage.postgres import PostgresStore, folding, queries, store as store_module
from perdure.storage.records import (
    Checkpoint,
    ChunkRow,
    EntityRow,
    InstanceFilter,
    MailRow,
    RequestRow,
    TimerRow,
)
from perdure.testing.store_conformance import Owner, created, own, progress

MANY = 100_000


@pytest.fixture
async def store(newest_postgres: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(newest_postgres)
    yield store
    await store.close()


async def ask(store: PostgresStore, sql: str, *values: Any) -> list[Any]:
    """Ask the server by a connection of the store's."""

    async def work(connection: Any) -> list[Any]:
        return list(await connection.fetch(store.sql(sql), *values))

    return await store.bridge.run(lambda: store.querier.use(work))


async def test_a_commit_is_one_statement_and_updates_nothing(store: PostgresStore) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    asked: list[str] = []

    async def listen(connection: Any) -> None:
        def hear(record: Any) -> None:
            asked.append(record.query)

        connection.add_query_logger(hear)

    await store.bridge.run(lambda: store.committer(0).link.use(listen))
    versions = "SELECT xmin::text, ctid::text FROM {s}.partition UNION ALL SELECT xmin::text, ctid::text FROM {s}.folded"
    before = await ask(store, versions)
    for id in range(2, 12):
        await owner.commit(created=[created(id)], progress=[progress(id)])

    assert len(asked) == 10
    assert all("INSERT INTO" in sql and "UPDATE" not in sql for sql in asked)
    assert await ask(store, versions) == before


async def test_the_server_spends_no_time_on_making_bodies_smaller_the_slow_way(
    postgres: str,
) -> None:
    store = PostgresStore(postgres)
    await store.open(1)
    [(has_lz4, storage, compression)] = await ask(
        store,
        "SELECT (SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'),"
        " attstorage::text, attcompression::text FROM pg_attribute"
        " WHERE attrelid = '{s}.journal'::regclass AND attname = 'body'",
    )
    await store.close()

    assert (storage, compression) == (("x", "l") if has_lz4 else ("e", ""))


async def test_no_text_keeps_checkpoints_from_the_tables(store: PostgresStore) -> None:
    # More than an index takes, and nothing that compression makes less of.
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
    owner = await own(store)
    waits = orjson.dumps([long, "a\0b"])
    tags = orjson.dumps({"long": long, "nul": "a\0b", long: "x"})
    await owner.commit(
        created=[
            created(1)._replace(tags=tags, name="n\0", version="v\0", parent="p\0"),
            created(2, key="k\0"),
        ],
        progress=[
            progress(1, failure_type=long, waits=waits),
            progress(2, failure_type="E\0x"),
        ],
        entities=[EntityRow(3, "n\0", "k\0", 0, b"1", None, None, None)],
        mail=[MailRow(1, "a\0", b'"\\u0000"')],
        timers=[TimerRow(2, 5, "a\0", b"1")],
        requests=[RequestRow("r\0", 1, b"1")],
    )
    await owner.partition.apply()

    assert not await ask(store, "SELECT FROM {s}.journal")
    for conditions in (
        {"failure_type": long},
        {"waits": long},
        {"waits": "a\0b"},
        {"tags": (("long", long),)},
        {"tags": (("nul", "a\0b"), (long, "x"))},
        {"name": "n\0", "parent": "p\0"},
    ):
        assert await owner.keys(**conditions) == ["i1"], conditions
    assert await owner.keys(failure_type=long + "x") == []
    assert await owner.keys(failure_type="E\0x") == ["k\ufffd"]
    assert await owner.keys(name="\ud800") == []
    assert len(await owner.partition.read_mail(None, 0, 9)) == 1


@pytest.mark.by_turns
async def test_people_see_a_history_with_nul_in_it(store: PostgresStore) -> None:
    owner = await own(store)
    chunk = ChunkRow(1, 0, b'[["Began",0,"a"],["Called",1500000,"\\u0000"]]')
    await owner.commit(created=[created(1)], history=[chunk])
    await owner.partition.apply()

    rows = await ask(
        store, "SELECT instance_id, seq, type, extract(epoch FROM time)::float8 FROM {s}.histories"
    )
    assert sorted(tuple[Any, ...](row) for row in rows) == [
        ("i1", 0, "Began", 0.0),
        ("i1", 1, "Called", 1.5),
    ]
    assert await owner.partition.read_history(1) == [chunk.body]


@pytest.mark.by_turns
async def test_a_round_that_fails_is_said_once_and_made_later(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []
    make = folding.fold

    async def counted(*args: Any) -> None:
        tries.append(1)
        await make(*args)

    monkeypatch.setattr(folding, "GATHER_S", 0.01)
    monkeypatch.setattr(folding, "fold", counted)
    owner = await own(store)
    # A person has put a row there whose key is the next one's.
    await ask(
        store,
        "INSERT INTO {s}.instance_row (partition, id, key, name, execution, created, parent_task,"
        " parent_execution, status, updated, pending, events) VALUES (0, 99, 'i1', 'x', 1, 0, 0, 0,"
        " 'Running', 0, 0, 0)",
    )
    await owner.commit(created=[created(1)])
    with anyio.fail_after(20):
        while len(tries) < 4:
            await owner.commit(created=[created(owner.sequence + 1)])
            await anyio.sleep(0.01)
    said = [one.getMessage() for one in caplog.records if "is not folded" in one.getMessage()]
    assert len(said) == 1
    with pytest.raises(StorageError, match="instance_key"):
        await owner.partition.apply()

    await ask(store, "DELETE FROM {s}.instance_row WHERE id = 99")
    assert len(await owner.keys()) == owner.sequence


@pytest.mark.by_turns
async def test_an_owner_that_was_fenced_folds_nothing(
    store: PostgresStore, newest_postgres: str
) -> None:
    old = await own(store)
    await old.commit(created=[created(1)])
    other = PostgresStore(newest_postgres)
    [partition] = await other.open(1)
    await partition.recover()
    await ask(store, "DELETE FROM {s}.instance_row")  # to see whether it is put there again

    with pytest.raises(LeaseLostError):
        await old.partition.apply()
    assert not await ask(store, "SELECT FROM {s}.instance_row")
    await other.close()


@pytest.mark.by_turns
async def test_a_store_that_cannot_fold_tries_once_when_it_is_closed(
    store: PostgresStore, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    async def fail(connection: Any, partition: int, *_: Any) -> None:
        tries.append(partition)
        raise TimeoutError("no answer")

    monkeypatch.setattr(folding, "GATHER_S", 60.0)
    owners = [Owner(one, await one.recover()) for one in await store.open(3)]
    for owner in owners:
        await owner.commit(created=[created(1)])
    with monkeypatch.context() as patched:
        patched.setattr(folding, "fold", fail)
        with pytest.raises(StorageError, match="no answer"):
            await store.close()

    assert tries == [0]
    for one in await store.open(3):
        assert await Owner(one, await one.recover()).keys() == ["i1"]


@pytest.mark.by_turns
async def test_a_new_connection_commits_only_to_a_server_that_keeps_it(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: object) -> str:
        raise StorageError("fsync=off")

    async def take(*_: object) -> str:
        return "as on another server"

    async def drop(_: object) -> None:
        store.committer(0).link.drop()
        async with store.takers.link() as link:
            link.drop()

    owner = await own(store)
    before = store.durability
    await store.bridge.run(lambda: store.committer(0).link.use(drop))
    monkeypatch.setattr(store_module, "read_durability", refuse)
    with pytest.raises(StorageError, match="fsync=off"):
        await owner.commit(created=[created(1)])
    assert not await ask(store, "SELECT FROM {s}.journal")
    with pytest.raises(StorageError, match="fsync=off"):
        await owner.partition.recover()

    monkeypatch.setattr(store_module, "read_durability", take)
    again = Owner(owner.partition, await owner.partition.recover())
    await again.commit(created=[created(1)])
    assert store.durability == "as on another server" != before
    assert "commits are now as on another server" in caplog.text


FULL = (
    "CREATE FUNCTION {s}.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
    " 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$"
)


@pytest.mark.by_turns
async def test_a_commit_to_a_full_disk_stores_nothing_and_is_made_when_there_is_room(
    store: PostgresStore,
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    await ask(store, FULL)
    await ask(
        store,
        "CREATE TRIGGER full_disk BEFORE INSERT ON {s}.journal EXECUTE FUNCTION {s}.full_disk()",
    )

    checkpoint = Checkpoint(2, owner.recovered.epoch, created=[created(2)])
    for _ in range(2):
        with pytest.raises(StoreFullError, match=r"no space left for .*free some, then go on"):
            await owner.partition.commit(checkpoint)
    await ask(store, "DROP TRIGGER full_disk ON {s}.journal")
    await owner.partition.commit(checkpoint)

    assert await owner.keys() == ["i1", "i2"]


@pytest.mark.by_turns
async def test_queries_see_what_was_committed_before_a_recovery_that_fails(
    store: PostgresStore,
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    await ask(store, "ALTER TABLE {s}.partition RENAME TO away")
    with pytest.raises(StorageError):
        await owner.partition.recover()

    assert await owner.keys() == ["i1"]
    assert await owner.partition.count_instances(InstanceFilter()) == 1
    await ask(store, "ALTER TABLE {s}.away RENAME TO partition")
    assert (await owner.partition.recover()).sequence == 1


@pytest.mark.by_turns
async def test_a_database_that_cannot_hold_all_characters_is_refused(
    store: PostgresStore, newest_postgres: str
) -> None:
    await store.open(1)
    await ask(
        store,
        "CREATE DATABASE narrow ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    try:
        narrow = PostgresStore(urlunsplit(urlsplit(newest_postgres)._replace(path="/narrow")))
        with pytest.raises(StorageError, match=r"LATIN1.*ENCODING 'UTF8'"):
            await narrow.open(1)
        await narrow.close()
    finally:
        await ask(store, "DROP DATABASE narrow WITH (FORCE)")


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a plan's node, and all below it."""
    return [plan, *(node for below in plan.get("Plans", ()) for node in nodes(below))]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_page_of_a_large_hub_is_found_by_an_index(store: PostgresStore) -> None:
    owner = await own(store)
    await ask(
        store,
        "INSERT INTO {s}.instance_row (partition, id, key, name, execution, created, parent_task,"
        " parent_execution, status, updated, pending, events, tagged, completed, failure_type)"
        " SELECT 0, n, 'i' || n, 'work' || n % 5, 1, n / 2, 0, 0, CASE WHEN n % 1000 = 0 THEN 'Failed'"
        " ELSE 'Completed' END, n, 0, 0, ARRAY['[\"customer\",\"' || n / 10 || '\"]'], n,"
        " CASE WHEN n % 1000 = 0 THEN 'ValueError' END FROM generate_series(1, $1::int) AS n",
        MANY,
    )
    await ask(store, "ANALYZE {s}.instance_row")
    cases: list[dict[str, Any]] = [
        {},
        {"newest": True},
        {"after": (MANY // 4, "i0")},
        {"after": (MANY // 4, "i0"), "newest": True, "payloads": False},
        {"name": "work3"},
        {"statuses": ("Failed",)},
        {"statuses": ("Completed",), "newest": True},
        {"failure_type": "ValueError"},
        {"prefix": "i9999"},
        {"tags": (("customer", "77"),)},
        {"created_from": MANY // 4},
        {"updated_from": MANY - 50},
        {"parked": True},
    ]
    for conditions in cases:
        filter = InstanceFilter(**conditions)
        sql, values = queries.instance_page(0, filter)
        [(text,)] = await ask(store, f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *values)
        [plan] = json.loads(text)
        found = nodes(plan["Plan"])
        read = sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in found
            if "Scan" in node["Node Type"]
        )
        assert all(node["Node Type"] != "Seq Scan" for node in found), (conditions, text)
        assert read <= 1_000, (conditions, text)
    assert len(await owner.keys(tags=(("customer", "77"),))) == 10
