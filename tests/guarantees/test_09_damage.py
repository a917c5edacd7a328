"""Guarantee 9, of rows and files: whatever bytes one holds, it stops its own actor alone."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import frozen

from perdure import (
    App,
    EntityContext,
    EntityId,
    Hub,
    OrchestrationContext,
    OutcomeUnknownError,
    PerdureError,
    SqliteStore,
    StorageError,
    StoreMovedError,
    UnavailableError,
)

app = App()

HOUR = timedelta(hours=1)
ENTITIES = {"a": 1, "b": 2, "c": 3, "d": 4}
LIVE = ["waits-1", "waits-2", "waits-3"]


@app.entity
class Counter:
    n: int = 0

    def add(self, by: int) -> int:
        self.n += by
        return self.n

    def get(self) -> int:
        return self.n

    def later(self, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Counter, "later"), Counter.add, 1, at=HOUR)


@app.activity
def double(n: int) -> int:
    return 2 * n


@app.orchestration
async def waits(ctx: OrchestrationContext) -> object:
    await ctx.call_activity(double, 1)
    await ctx.create_timer(ctx.current_utc_datetime)
    return await ctx.wait_for_external_event("go")


@app.orchestration
async def fails(ctx: OrchestrationContext) -> None:
    raise ValueError("badly")


@app.orchestration
async def holds(ctx: OrchestrationContext) -> object:
    async with ctx.lock_entities(EntityId(Counter, "held")):
        return await ctx.wait_for_external_event("go")


@app.orchestration
async def sleeps(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(ctx.current_utc_datetime.replace(year=2999))


async def make(folder: Path) -> None:
    """Make a hub with a row of every kind, and one folder as it is when the hub is killed."""
    async with Hub(app, store=SqliteStore(folder, synchronous="OFF"), partitions=2) as hub:
        client = hub.client
        for key, by in ENTITIES.items():
            await client.call_entity(EntityId(Counter, key), Counter.add, by, request_id=f"r-{key}")
        await client.call_entity(EntityId(Counter, "a"), Counter.later)
        await client.signal_entity(EntityId(Counter, "delayed"), Counter.add, 1, at=HOUR)
        for id in LIVE:
            await client.start_new(waits, instance_id=id, tags={"kind": "live"})
        await client.start_new(waits, instance_id="suspended")
        await client.suspend("suspended")
        await client.raise_event("suspended", "go", "held")
        await client.start_new(sleeps, instance_id="sleeps")
        await client.start_new(holds, instance_id="holds")
        done = await client.start_new(waits, instance_id="done")
        await done.raise_event("go", "result")
        assert await done.result(timeout=20) == "result"
        bad = await client.start_new(fails, instance_id="bad")
        with pytest.raises(PerdureError):
            await bad.result(timeout=20)
        for id in LIVE:
            with anyio.fail_after(20):
                while (await client.get_handle(id).status()).history_length < 5:
                    await anyio.sleep(0.001)
        shutil.copytree(folder, folder.with_name("killed"))


@frozen
class Harm:
    """What was done to a folder.

    Attributes:
        what: in words, to find it again.
        victims: the actors that may suffer; None where nobody knows.
    """

    what: str
    victims: frozenset[str] | None


VALUES: list[object] = [
    None,
    "zz",
    "[1]",
    "{}",
    "[999]",
    "null",
    '"text"',
    "",
    -1,
    2**62,
    1.5,
    b"\xff\x00",
    '["operation",5,[],"x",null,null]',
    '["command","explode","",true,0,null]',
    '["timer",[],{},null]',
    '[["Unheard",1,2]]',
    '[["TaskScheduled","x"]]',
    "[" * 2_000,
    sqlite3.Binary(b"'"),
]
OWNERS = {
    "instance_row": "key",
    "entity_row": "'@' || name || '@' || key",
    "mail_row": "actor",
    "timer_row": "actor",
    "history_row": "(SELECT key FROM instance_row WHERE id = instance)",
    "input_row": "(SELECT key FROM instance_row r WHERE r.id = input_row.id)",
    "request_row": "'nobody'",
    "activity_row": "'nobody'",
    "outbox_row": None,
    "meta": None,
    "peer_row": None,
}


def columns_of(folder: Path) -> list[tuple[str, str]]:
    """Give every column of every table, with its table."""
    connection = sqlite3.connect(folder / "partition-00.sqlite")
    try:
        return [
            (table, row[1])
            for table in sorted(OWNERS)
            for row in connection.execute(f"PRAGMA table_info({table})")
        ]
    finally:
        connection.close()


def spoil_row(
    folder: Path, chance: random.Random, where: tuple[str, str] | None = None
) -> Harm | None:
    """Put something bad into one field of one row, of that table and column if they are given."""
    file = folder / f"partition-{chance.randrange(2):02}.sqlite"
    table = chance.choice(sorted(OWNERS)) if where is None else where[0]
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = chance.choice(columns) if where is None else where[1]
        value = chance.choice(VALUES)
        rows = connection.execute(f"SELECT rowid FROM {table} ORDER BY rowid").fetchall()
        if not rows:
            return None
        [row] = chance.choice(rows)
        owner = OWNERS[table]
        victims: set[str] | None = None
        if owner is not None:
            query = f"SELECT {owner} FROM {table} WHERE rowid = ?"
            victims = {connection.execute(query, (row,)).fetchone()[0]}
        text = column if chance.random() < 0.8 else "not a column"
        bad = "CAST(x'ff41' AS TEXT)" if text != column else "?"
        values = () if bad != "?" else (value,)
        try:
            connection.execute(
                f"UPDATE {table} SET {column} = {bad} WHERE rowid = ?", (*values, row)
            )
        except sqlite3.Error:
            return None  # the file itself refuses that
        if victims is not None:  # a row that is given to another actor harms that one, too
            victims |= {"@counter@held", "holds"} if {"@counter@held", "holds"} & victims else set()
            if table in ("instance_row", "entity_row", "history_row") and column in (
                "id",
                "instance",
            ):
                victims = None
        shown = bad if bad != "?" else repr(value)[:40]
        return Harm(f"{file.name}: {table}.{column} of {row} = {shown}", _frozen(victims))
    finally:
        connection.close()


def _frozen(victims: set[str] | None) -> frozenset[str] | None:
    return None if victims is None else frozenset(victims)


def spoil_journal(folder: Path, chance: random.Random) -> Harm | None:
    """Put something bad into one field of an entry of a journal."""
    file = folder / f"journal-{chance.randrange(2):02}.sqlite"
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(entry)")]
        column, value = chance.choice(columns), chance.choice(VALUES)
        try:
            connection.execute(
                f"UPDATE entry SET {column} = ? WHERE sequence = (SELECT max(sequence) FROM entry)",
                (value,),
            )
        except sqlite3.Error:
            return None
        return Harm(f"{file.name}: {column} = {repr(value)[:40]}", None)
    finally:
        connection.close()


def spoil_file(folder: Path, chance: random.Random) -> Harm:
    """Truncate, overwrite, remove or swap a file."""
    files = sorted(path for path in folder.iterdir() if path.name != "owner.sqlite")
    path, other = chance.sample(files, 2)
    how = chance.choice(["truncate", "flip", "empty", "remove", "swap", "folder"])
    size = path.stat().st_size
    if how == "truncate":
        with path.open("r+b") as file:
            file.truncate(chance.randrange(size or 1))
    elif how == "flip":
        with path.open("r+b") as file:
            for _ in range(20):
                file.seek(chance.randrange(size or 1))
                file.write(bytes([chance.randrange(256)]))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "swap":
        spare = folder / "spare"
        path.rename(spare)
        other.rename(path)
        spare.rename(other)
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
    return Harm(f"{how} {path.name} ({other.name})", None)


async def look(folder: Path, harm: Harm) -> None:
    """Open a hub on what was harmed, and ask it for everything."""
    refused: StorageError | None = None
    try:
        async with Hub(app, store=SqliteStore(folder, synchronous="OFF"), partitions=2) as hub:
            await ask(hub, harm)
    except StorageError as error:
        refused = error
    if refused is not None:
        assert str(folder) in str(refused), refused
        assert harm.victims is None, refused


async def ask(hub: Hub, harm: Harm) -> None:
    client = hub.client

    async def one(victim: str, call: Callable[[], Any]) -> None:
        try:
            with anyio.fail_after(30 if is_innocent(victim) else 1):
                await call()
        except StorageError:
            assert harm.victims is None or victim in harm.victims
            # It is parked, and not only refused whenever somebody asks.
            assert victim not in {*LIVE, "suspended", "sleeps"} or await is_parked(victim)
        except PerdureError:
            assert harm.victims is None or victim in harm.victims
        except (TimeoutError, AssertionError):
            if harm.victims is not None and victim not in harm.victims:
                raise

    def is_innocent(id: str) -> bool:
        return harm.victims is not None and id not in harm.victims

    async def is_parked(id: str) -> bool:
        status = await client.get_status(id)
        return status is not None and status.parked is not None

    async def count(key: str, n: int) -> None:
        assert await client.call_entity(EntityId(Counter, key), Counter.get) == n

    async def finish(id: str) -> None:
        await client.raise_event(id, "go", id)
        if not is_innocent(id) and await is_parked(id):
            return
        assert await client.get_handle(id).result(25 if is_innocent(id) else 0.5) == id

    async def read() -> None:
        found = [status async for status in client.query()]
        parked = [status async for status in client.query(parked=True)]
        if harm.victims is not None:
            assert {status.instance_id for status in found} >= {*LIVE, "done"} - harm.victims
            assert {status.instance_id for status in parked} <= harm.victims
        [status async for status in client.query_entities(include_empty=True)]
        [status async for status in client.query(tags={"kind": "live"})]
        await hub.statistics()

    for key, n in ENTITIES.items():
        await one(f"@counter@{key}", lambda key=key, n=n: count(key, n))  # type: ignore[misc]
    await one("", read)
    for id in LIVE:
        await one(id, lambda id=id: finish(id))  # type: ignore[misc]
    await one("suspended", lambda: client.resume("suspended"))
    await one("holds", lambda: finish("holds"))
    await one("sleeps", lambda: client.terminate("sleeps"))
    await one("bad", lambda: client.rewind("bad"))
    await one(
        "nobody", lambda: client.call_entity(EntityId(Counter, "a"), "add", 1, request_id="r-a")
    )
    for key in ("later", "delayed", "held"):
        await one(f"@counter@{key}", lambda key=key: count(key, 0))  # type: ignore[misc]
    await one("", read)


async def harm_and_look(tmp_path: Path, seeds: range) -> None:
    whole = tmp_path / "whole"
    await make(whole)
    for seed in seeds:
        chance = random.Random(seed)
        kind = chance.choice([spoil_row] * 6 + [spoil_journal, spoil_file])
        source = tmp_path / "killed" if kind is not spoil_row else whole
        folder = tmp_path / f"seed-{seed}"
        shutil.copytree(source, folder)
        await look_after(folder, kind(folder, chance), seed)


async def look_after(folder: Path, harm: Harm | None, seed: int) -> None:
    """Look what a harm has done, if there was any, and remove the folder."""
    if harm is not None:
        try:
            with anyio.fail_after(60):
                await look(folder, harm)
        except BaseException as error:
            error.add_note(f"seed {seed}: {harm}")
            raise
    shutil.rmtree(folder)


async def harm_every_column(tmp_path: Path, rounds: range) -> None:
    whole = tmp_path / "whole"
    await make(whole)
    for seed in rounds:
        chance = random.Random(seed)
        for where in columns_of(whole):
            folder = tmp_path / f"{seed}-{'-'.join(where)}"
            shutil.copytree(whole, folder)
            await look_after(folder, spoil_row(folder, chance, where), seed)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the long one runs on both
async def test_whichever_column_is_harmed_hurts_nothing_more_than_itself(tmp_path: Path) -> None:
    await harm_every_column(tmp_path, range(1))


@pytest.mark.slow
async def test_whichever_column_is_harmed_hurts_nothing_more_for_long(tmp_path: Path) -> None:
    await harm_every_column(tmp_path, range(1, 60))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the long one runs on both
async def test_what_is_harmed_hurts_nothing_more_than_itself(tmp_path: Path) -> None:
    await harm_and_look(tmp_path, range(60))


@pytest.mark.slow
async def test_what_is_harmed_hurts_nothing_more_than_itself_for_long(tmp_path: Path) -> None:
    await harm_and_look(tmp_path, range(1_000, 3_000))


# Files that are gone under a running hub.


async def _write_until_refused(folder: Path, **options: Any) -> None:
    counter = EntityId("ledger", "x")
    async with Hub(
        "tests.guarantees.worker_load:app", store=f"sqlite:{folder}", rebalance=None, **options
    ) as hub:
        await hub.client.call_entity(counter, "write", "first")
        shutil.rmtree(folder)
        with anyio.fail_after(30):
            while True:
                await hub.client.call_entity(counter, "write", "next")
                await anyio.sleep(0.01)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("options", [{"shards": 1}, {"shards": 2}, {"workers": 1}], ids=str)
async def test_a_hub_whose_folder_is_deleted_acknowledges_nothing_more(
    tmp_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises((StoreMovedError, OutcomeUnknownError, UnavailableError)):
        await _write_until_refused(tmp_path / "hub", partitions=2, **options)
