"""A hub moves from one store to another: all of it, once, and however often the command dies."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st

from perdure import EntityId, Hub
from perdure.actors.errors import (
    InstanceFinishedError,
    LeaseLostError,
    StorageError,
    StoreDamagedError,
    StoreInUseError,
    StoreMovedError,
    UnavailableError,
    UsageError,
)
from perdure.benchmarks import bank
from perdure.storage import ENDED, Checkpoint, migration, open_stopped, open_store
from perdure.storage.membership import Newcomer
from perdure.storage.migration import Content, Portion, compare, migrate
from perdure.storage.postgres import PostgresStore, folding, migration as postgres_migration
from perdure.storage.postgres.place import read_place
from perdure.storage.postgres.tables import Step, steps
from perdure.storage.sqlite import applier, schema as sqlite_schema
from perdure.testing.store_conformance import created
from tests.storage.migrating import PARTITIONS, fill, filled, rows_of
from tests.storage.postgres.sessions import Session

STEPS = ["settled", "begun", "bringing 1", "brought 1", "left", "arrived", "buried"]
KILLS = [
    pytest.param(step, is_back, id=f"{'back' if is_back else 'there'}-{step}")
    if (step, is_back) in (("brought 1", False), ("left", False), ("arrived", True))
    else pytest.param(
        step, is_back, id=f"{'back' if is_back else 'there'}-{step}", marks=pytest.mark.slow
    )
    for step in STEPS
    for is_back in (False, True)
]


#: Both ends are used on asyncio whatever the caller is on, so two of these tests show the way there.
BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.slow)])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return tmp_path / "other"


@pytest.fixture
async def session(newest_postgres: str) -> AsyncIterator[Session]:
    made = Session(read_place(newest_postgres))
    yield made
    await made.close()


def at(folder: Path) -> str:
    return f"sqlite:{folder}"


async def opens(place: str) -> bool:
    """Whether a hub could open a store; whoever cannot is told the command, or where it is."""
    store = open_store(place)
    try:
        await store.open(PARTITIONS)
    except StoreMovedError as error:
        return not any(words in str(error) for words in ("perdure migrate", "has moved to"))
    await store.close()
    return True


@pytest.mark.by_turns
@BOTH
async def test_all_rows_come_to_postgresql_and_back(
    folder: Path, other: Path, postgres: str
) -> None:
    await fill(at(folder))
    before = rows_of(folder)

    there = await migrate(at(folder), postgres)
    assert await compare(at(folder), postgres) == []
    back = await migrate(postgres, at(other))
    assert await compare(postgres, at(other)) == []

    assert rows_of(other) == before
    assert (there.hub, there.partitions) == (back.hub, back.partitions)
    assert there.counts == back.counts
    assert there.counts["damaged_row"] == PARTITIONS
    assert all(there.counts.values())


async def test_a_hub_goes_back_to_where_it_was(folder: Path, newest_postgres: str) -> None:
    await fill(at(folder))
    before = rows_of(folder)
    await migrate(at(folder), newest_postgres)
    store = PostgresStore(newest_postgres)
    [first, *_] = await store.open(PARTITIONS)
    recovered = await first.recover()
    await first.commit(Checkpoint(recovered.sequence + 1, recovered.epoch, created=[created(99)]))
    await store.close()

    await migrate(newest_postgres, at(folder))

    now = rows_of(folder)
    changed = {name for name in now if now[name] != before[name]}
    assert changed == {
        "partition-00.sqlite meta",
        "partition-00.sqlite instance_row",
        "partition-00.sqlite input_row",
    }
    assert not await opens(newest_postgres)
    assert await opens(at(folder))
    # And there again, over what is left of it there.
    await migrate(at(folder), newest_postgres)
    assert await opens(newest_postgres)


async def test_what_a_killed_hub_had_only_in_its_journal_comes_over(
    folder: Path, other: Path, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier, "GATHER_S", 3600.0)
    monkeypatch.setattr(folding, "GATHER_S", 3600.0)
    copy = folder.with_name("copy")
    store = await filled(at(folder))
    shutil.copytree(folder, copy)  # as it is when the process is killed here
    await store.close()

    there = await migrate(at(copy), newest_postgres)
    held = PostgresStore(newest_postgres)
    [first, *_] = await held.open(PARTITIONS)
    recovered = await first.recover()
    await first.commit(Checkpoint(recovered.sequence + 1, recovered.epoch, timers_deleted=[23]))
    back = await migrate(newest_postgres, at(other))
    with pytest.raises(LeaseLostError):
        await first.commit(Checkpoint(recovered.sequence + 2, recovered.epoch, mail_deleted=[21]))
    await held.close()

    assert there.counts["mail_row"] == PARTITIONS  # the other one was deleted by the last of them
    assert back.counts["timer_row"] == PARTITIONS - 1
    assert back.counts["mail_row"] == PARTITIONS


async def test_what_has_come_over_is_not_brought_again(
    folder: Path, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(at(folder))
    stop_at(monkeypatch, "brought 1")
    with pytest.raises(Stopped):
        await migrate(at(folder), newest_postgres)
    steps: list[str] = []
    monkeypatch.setattr(migration, "reached", steps.append)

    await migrate(at(folder), newest_postgres)

    assert {step for step in steps if step.startswith("bringing")} == {"bringing 2"}


async def test_a_table_that_came_over_otherwise_keeps_the_source_valid(
    folder: Path, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(at(folder))

    def without_peers(checkpoint: Checkpoint) -> Iterator[Step]:
        for sql, values in steps(checkpoint):
            if "peer_row" not in sql:
                yield sql, values

    monkeypatch.setattr("perdure.storage.postgres.migration.steps", without_peers)

    with pytest.raises(StoreDamagedError, match=r"partition 0 of .* is not the same .*: peer_row"):
        await migrate(at(folder), newest_postgres)

    assert not await opens(newest_postgres)
    assert await opens(at(folder))


@pytest.mark.parametrize(("step", "is_back"), KILLS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_command_that_was_killed_is_finished_by_the_next(
    folder: Path, other: Path, newest_postgres: str, step: str, is_back: bool
) -> None:
    await fill(at(folder))
    before = rows_of(folder)
    source, target = at(folder), newest_postgres
    if is_back:
        await migrate(source, target)
        source, target = newest_postgres, at(other)
    await run_killed(step, source, target)

    # Whatever was done, one of them at the most is a hub's.
    if step in ("settled", "begun", "bringing 1", "brought 1"):
        assert await opens(source)  # for a hub that runs meanwhile
    elif step == "left":
        assert not await opens(source)
    if step != "settled":
        assert await opens(target) == (step in ("arrived", "buried"))
    done = await migrate(source, target)

    assert done.had_ended == (step == "buried")
    assert not await opens(source)
    assert await opens(target)
    assert (await migrate(source, target)).had_ended
    assert await content(target) == await content(source)
    if not is_back:
        return
    # The epoch is of a hub that had it open, and nothing else has changed.
    now = rows_of(other)
    assert {name for name in now if now[name] != before[name]} <= {
        f"partition-{number:02}.sqlite meta" for number in range(PARTITIONS)
    }


async def content(place: str) -> list[Any]:
    """Give what a store has, hub or no hub."""
    end = migration.open_end(place)
    found: list[Any] = []
    await end.look()
    for number in range(PARTITIONS):
        its = Content()
        async for portion in end.portions(number):
            its.add(portion)
        found.append((its.counts, its.differing(Content())))
    await end.close()
    return found


async def run_killed(step: str, source: str, target: str) -> None:
    command = [sys.executable, "-m", "tests.storage.migrating", step, "migrate", source, target]
    ended = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


async def test_a_folder_that_was_half_made_is_made_again(
    folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(at(folder))
    before = rows_of(folder)
    scripts_of = sqlite_schema.scripts_of
    made: list[Path] = []

    def stop(path: Path) -> tuple[str, ...]:
        if len(made) == 2 * PARTITIONS - 1:
            raise OSError("here it ends")
        made.append(path)
        return scripts_of(path)

    monkeypatch.setattr("perdure.storage.sqlite.folder.scripts_of", stop)
    with pytest.raises((OSError, StorageError), match="here it ends"):
        await migrate(at(folder), at(other))
    monkeypatch.undo()
    await migrate(at(folder), at(other))

    assert rows_of(other) == before


async def test_a_hub_that_is_elsewhere_is_refused_by_whatever_opens_it(
    folder: Path, newest_postgres: str
) -> None:
    await fill(at(folder))
    await migrate(at(folder), newest_postgres)
    shown = read_place(newest_postgres).location

    async with Hub(bank.app, store=newest_postgres, partitions=PARTITIONS):
        pass
    with pytest.raises(StoreMovedError, match="has moved to") as refused:
        async with Hub(bank.app, store=at(folder), partitions=PARTITIONS):
            pass
    assert shown in str(refused.value)
    with pytest.raises(StoreMovedError, match="has moved to"):
        await open_stopped(folder).open()


async def test_a_process_that_slept_while_its_hub_moved_is_refused(
    newest_postgres: str, folder: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(newest_postgres)
    await store.open(PARTITIONS)
    me = Newcomer(address="h:1", host="h", pid=1, software="0", app="a", app_hash="b", ttl_s=60)
    member = await store.join(me)
    view = await member.look()
    await member.take(0, view.leases[0])
    recovered = await member.partitions[0].recover()
    await session.do("UPDATE {s}.member SET expires = clock_timestamp() - interval '1 s'")

    stop_at(monkeypatch, "left")
    with pytest.raises(Stopped):
        await migrate(newest_postgres, at(folder))
    monkeypatch.undo()
    with pytest.raises(StoreMovedError, match="is being moved to"):
        await store.join(me)
    await migrate(newest_postgres, at(folder))

    with pytest.raises(LeaseLostError):
        await member.partitions[0].commit(
            Checkpoint(recovered.sequence + 1, recovered.epoch, created=[created(1)])
        )
    with pytest.raises(StoreMovedError, match="has moved to"):
        await member.take(1, (await member.look()).leases[1])
    with pytest.raises(StoreMovedError, match="has moved to"):
        await member.beat()
    with pytest.raises(StoreMovedError, match="has moved to"):
        await store.join(me)
    await store.close()


async def test_a_hub_that_runs_is_refused(folder: Path, other: Path, newest_postgres: str) -> None:
    store = open_store(at(folder))
    await store.open(PARTITIONS)
    for refused in (migrate, compare):
        with pytest.raises(StoreInUseError, match=r"sqlite:.* runs: stop it, since this is done"):
            await refused(at(folder), newest_postgres)
    await store.close()
    await migrate(at(folder), newest_postgres)

    held = PostgresStore(newest_postgres)
    await held.open(PARTITIONS)
    await held.join(
        Newcomer(address="h:1", host="there", pid=7, software="0", app="a", app_hash="b")
    )
    with pytest.raises(StoreInUseError, match=r"runs: member 1 \(there, 7\); stop all"):
        await migrate(newest_postgres, at(other))
    assert not await anyio.Path(other).exists()
    await held.close()


async def test_a_hub_that_was_opened_in_the_middle_is_not_left(
    folder: Path, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(newest_postgres)
    epochs = "UPDATE {s}.partition SET epoch = epoch + 1"
    migrated = postgres_migration.MovablePostgres
    leave = migrated.leave

    async def open_and_leave(self: Any, *rest: Any) -> None:
        somebody = Session(read_place(newest_postgres))
        await somebody.do(epochs)
        await somebody.close()
        await leave(self, *rest)

    monkeypatch.setattr(migrated, "leave", open_and_leave)
    with pytest.raises(StoreInUseError, match="was opened while it was moved"):
        await migrate(newest_postgres, at(folder))

    assert await opens(newest_postgres)
    assert not await opens(at(folder))
    monkeypatch.undo()
    await migrate(newest_postgres, at(folder))
    assert await opens(at(folder))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE mail_row SET body = '{' WHERE n = 21", "mail_row, row 21: body is b'{'"),
        ("UPDATE mail_row SET actor = x'00' WHERE n = 21", "mail_row, row 21: actor is"),
        ("UPDATE instance_row SET created = 'x' WHERE id = 2", "instance_row, row 2: created is"),
        ("UPDATE entity_row SET state = '{' WHERE id = 11", "entity_row, row 11: state is"),
        ("UPDATE history_row SET body = CAST(x'ff' AS TEXT)", "history_row, row 1: body is"),
        ("UPDATE damaged_row SET found = 'then'", "damaged_row, row 22: found is 'then'"),
        ("UPDATE instance_row SET key = 'a' || char(0) || 'b' WHERE id = 2", "row 2: key is"),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_row_that_cannot_be_read_is_named_and_nothing_is_changed(
    folder: Path, newest_postgres: str, session: Session, change: str, told: str
) -> None:
    await fill(at(folder))
    with closing(sqlite3.connect(folder / "partition-01.sqlite")) as tables, tables:
        tables.execute(change)
    before = rows_of(folder)

    with pytest.raises(StoreDamagedError) as refused:
        await migrate(at(folder), newest_postgres)

    assert told in str(refused.value)
    assert rows_of(folder) == before
    [(there,)] = await session.do("SELECT to_regclass('{s}.hub') IS NOT NULL")
    assert not there
    assert await opens(at(folder))


async def test_a_target_with_another_hub_is_refused(
    folder: Path, other: Path, newest_postgres: str
) -> None:
    await fill(at(folder))
    await fill(newest_postgres)
    await fill(at(other))
    for source, target in (
        (at(folder), newest_postgres),
        (newest_postgres, at(folder)),
        (at(folder), at(other)),
    ):
        with pytest.raises(StoreInUseError, match="has another hub"):
            await migrate(source, target)
    assert await opens(at(folder))
    assert await opens(at(other))
    assert await opens(newest_postgres)


async def test_a_copy_of_a_hub_is_no_target(folder: Path, other: Path) -> None:
    await fill(at(folder))
    shutil.copytree(folder, other)

    with pytest.raises(StoreInUseError, match="both have this hub"):
        await migrate(at(folder), at(other))


async def test_a_hub_on_its_way_goes_nowhere_else(
    folder: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(at(folder))
    stop_at(monkeypatch, "left")
    with pytest.raises(Stopped):
        await migrate(at(folder), at(other))
    monkeypatch.undo()

    for source, target in ((folder, tmp_path / "third"), (other, tmp_path / "third")):
        with pytest.raises(StoreMovedError, match=f"perdure migrate {at(folder)} {at(other)}"):
            await migrate(at(source), at(target))
    # A target that is gone before it was valid has nothing that anybody needs.
    shutil.rmtree(other)
    await migrate(at(folder), at(other))
    assert await opens(at(other))
    with pytest.raises(StoreMovedError, match="has moved to"):
        await migrate(at(folder), at(tmp_path / "third"))


class Stopped(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def reached(here: str) -> None:
        if here == step:
            raise Stopped

    monkeypatch.setattr(migration, "reached", reached)


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        ("memory:", "sqlite:x", UsageError),
        ("sqlite:x", "http://h:1", UsageError),
        ("sqlite:x", "sqlite:./x", UsageError),
        ("sqlite:", "sqlite:x", UsageError),
        ("sqlite:x", "sqlite:y", UnavailableError),
    ],
)
async def test_what_is_no_store_or_has_no_hub_is_refused(
    source: str,
    target: str,
    error: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(error):
        await migrate(source, target)

    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


async def test_what_differs_is_named(folder: Path, other: Path) -> None:
    await fill(at(folder))
    await migrate(at(folder), at(other))
    with closing(sqlite3.connect(other / "partition-02.sqlite")) as tables, tables:
        tables.execute("DELETE FROM timer_row")
        tables.execute("UPDATE entity_row SET state = '2'")
        tables.execute("UPDATE meta SET next_row = 99")

    found = await compare(at(folder), at(other))

    assert [(one.partition, one.table, one.rows) for one in found] == [
        (2, "entity_row", (2, 2)),
        (2, "timer_row", (1, 0)),
        (2, "meta", (2, 2)),
    ]


async def test_stores_that_did_not_stop_in_order_are_not_compared(
    folder: Path, newest_postgres: str
) -> None:
    await fill(at(folder))
    await migrate(at(folder), newest_postgres)
    store = PostgresStore(newest_postgres)
    member = Newcomer(address="h:1", host="h", pid=1, software="0", app="a", app_hash="b")
    await store.open(PARTITIONS)
    joined = await store.join(member)
    await joined.take(0, (await joined.look()).leases[0])
    with pytest.raises(StoreInUseError, match="runs"):
        await compare(at(folder), newest_postgres)
    await joined.leave()
    await store.close()

    assert await compare(at(folder), newest_postgres) == []


values = st.one_of(
    st.tuples(st.just("null"), st.none()),
    st.tuples(st.just("integer"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("real"), st.floats(allow_nan=False)),
    st.tuples(st.just("text"), st.binary()),
    st.tuples(st.just("text"), st.text().map(str.encode)),
    st.tuples(st.just("blob"), st.binary()),
)


@given(st.tuples(st.sampled_from(["mail_row", "timer_row"]), values, values, values))
def test_a_copy_of_a_damaged_row_is_the_same_in_json(row: tuple[Any, ...]) -> None:
    table, actor, due, body = row
    null = ("null", None)
    copy = migration.DamagedRow(table, 5, 1_500_000, "why", actor, due, null, null, body)

    stored = postgres_migration.stored_copy(copy)

    assert postgres_migration.read_copy(*stored) == copy


@given(st.lists(st.integers(0, 3), min_size=1), st.integers(0, 3))
def test_a_hash_depends_on_the_rows_and_not_on_their_portions(sizes: list[int], n: int) -> None:
    rows = [created(id) for id in range(sum(sizes))]

    def content(sizes: list[int], rows: list[Any]) -> Content:
        made, left = Content(), iter(rows)
        for size in sizes:
            some = [row for _, row in zip(range(size), left, strict=False)]
            made.add(Portion(Checkpoint(0, 0, created=some)))
        return made

    whole = content([len(rows)], rows)
    assert content(sizes, rows).differing(whole) == []
    if n < len(rows):
        rows[n] = rows[n]._replace(name="other")
        assert content(sizes, rows).differing(whole) == ["instance_row"]


TRANSFERS = 60


async def begin(hub: Hub, number: int, one: bank.Transfer) -> None:
    """Begin a transfer, and stop it before it has ended, if it is not too quick for that."""
    given = [number, one.source, one.target, one.amount]
    handle = await hub.client.start_new(bank.move, given, instance_id=f"transfer-{number}")
    with suppress(InstanceFinishedError):
        await handle.suspend("the hub moves")


async def resume_all(hub: Hub) -> None:
    async for status in hub.client.query(statuses=["Suspended"]):
        await hub.client.get_handle(status.instance_id).resume()


async def count_live(place: str) -> int:
    """Count the instances of a stopped hub that have not ended; on asyncio."""
    end = migration.open_end(place)
    hub = await end.look()
    assert hub is not None
    await end.settle(hub)
    live = 0
    for number in range(PARTITIONS):
        async for portion in end.portions(number):
            live += sum(row.status not in ENDED for row in portion.checkpoint.progress)
    await end.close()
    return live


@pytest.mark.by_turns
@BOTH
async def test_a_bank_goes_on_where_it_moves(
    folder: Path, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers = bank.draw_transfers(TRANSFERS, seed=7)
    places = [at(folder), newest_postgres]
    live = 0
    for turn in range(3):
        place, following = places[turn % 2], places[(turn + 1) % 2]
        async with Hub(bank.app, store=place, partitions=PARTITIONS) as hub:
            await resume_all(hub)
            async with anyio.create_task_group() as starting:
                for number in range(turn, TRANSFERS, 3):
                    starting.start_soon(begin, hub, number, transfers[number])
        live += await anyio.to_thread.run_sync(anyio.run, count_live, place)
        stop_at(monkeypatch, ["left", "arrived", "brought 0"][turn])
        with pytest.raises(Stopped):
            await migrate(place, following)
        monkeypatch.undo()
        await migrate(place, following)

    async with Hub(bank.app, store=newest_postgres, partitions=PARTITIONS) as hub:
        await resume_all(hub)
        with anyio.fail_after(30):  # what got lost on the way is waited for in vain
            moved = [
                await hub.client.get_handle(f"transfer-{number}").result()
                for number in range(TRANSFERS)
            ]
        wanted = [[bank.OPENING, 0, 0, 0, 0] for _ in range(bank.ACCOUNTS)]
        for number, (one, is_moved) in enumerate(zip(transfers, moved, strict=True)):
            for account, sign, place_of in ((one.source, -1, 1), (one.target, 1, 3)):
                if is_moved:
                    wanted[account][0] += sign * one.amount
                    wanted[account][place_of] += 1
                    wanted[account][place_of + 1] += number
        found = [
            await hub.client.call_entity(
                EntityId(bank.Account, f"account-{index}"), bank.Account.audit
            )
            for index in range(bank.ACCOUNTS)
        ]
    assert found == wanted
    assert any(moved)
    assert live >= 3, "nothing was under way when the hub moved"
