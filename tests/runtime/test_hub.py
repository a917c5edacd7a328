from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

import perdure
from perdure import (
    ActivityContext,
    App,
    EntityId,
    Hub,
    HubStoppingError,
    LeaseLostError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OutcomeUnknownError,
    PerdureError,
    Settings,
    SqliteStore,
    StorageError,
    Store,
    StoreDamagedError,
    StoreFullError,
    StoreInUseError,
    StoreReadOnlyError,
    StoreVersionError,
    UnavailableError,
    UsageError,
)
from perdure.runtime.partitions import recovery
from tests.runtime.harness import (
    FaultyStore,
    disk_error,
    lease_lost,
    made,
    partition_here,
    until,
    until_true,
)

app = App()

gates: dict[str, anyio.Event] = {}
reached: dict[str, anyio.Event] = {}
thread_gates: dict[str, threading.Event] = {}
keys_seen: list[str] = []


def new_gate(name: str) -> tuple[anyio.Event, anyio.Event]:
    gates[name], reached[name] = anyio.Event(), anyio.Event()
    return gates[name], reached[name]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    keys_seen.clear()
    yield
    for gate in thread_gates.values():
        gate.set()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    async def add_slowly(self, gate: str) -> int:
        self.value += 1
        reached[gate].set()
        await gates[gate].wait()
        return self.value

    def add_for_ever(self, ctx: perdure.EntityContext) -> None:
        self.value += 1
        ctx.signal_entity(ctx.entity_id, "add_for_ever")


@app.activity
async def work(ctx: ActivityContext, gate: str) -> str:
    keys_seen.append(ctx.idempotency_key)
    reached[gate].set()
    await gates[gate].wait()
    return f"worked {gate}"


@app.activity
def work_in_thread(ctx: ActivityContext, gate: str) -> str:
    keys_seen.append(ctx.idempotency_key)
    assert thread_gates[gate].wait(30)
    return f"worked {gate}"


@app.activity
async def quick(text: str) -> str:
    keys_seen.append(text)
    return text


@app.orchestration
async def run_work(ctx: OrchestrationContext, gate: str) -> list[str]:
    return [await ctx.call_activity(work, gate), await ctx.call_activity(quick, "after")]


@app.orchestration
async def run_thread(ctx: OrchestrationContext, gate: str) -> str:
    return await ctx.call_activity(work_in_thread, gate)


@app.orchestration
async def sleep(ctx: OrchestrationContext, seconds: float) -> str:
    await ctx.create_timer(timedelta(seconds=seconds))
    return "woken"


@app.orchestration
async def wait_for_go(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


COUNTER = EntityId(Counter, "c")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


# Entering and leaving.


async def test_a_hub_serves_between_entering_and_leaving_and_not_before_or_after() -> None:
    hub = Hub(app)
    with pytest.raises(HubStoppingError, match="async with"):
        _ = hub.client

    async with hub:
        client = hub.client
        assert await client.call_entity(COUNTER, Counter.add, 1) == 1

    with pytest.raises(HubStoppingError):
        _ = hub.client
    with pytest.raises(HubStoppingError):
        await client.call_entity(COUNTER, Counter.add, 1)
    with pytest.raises(HubStoppingError):
        await client.signal_entity(COUNTER, Counter.add, 1)
    with pytest.raises(HubStoppingError):
        await client.signal_entities([(COUNTER, Counter.add, 1)])
    with pytest.raises(HubStoppingError):
        await client.read_entity_state(COUNTER)
    with pytest.raises(HubStoppingError):
        await client.start_new(sleep, 1.0)
    with pytest.raises(HubStoppingError):
        await client.get_handle("x").result()
    with pytest.raises(HubStoppingError):
        [one async for one in client.query_entities()]
    with pytest.raises(HubStoppingError):
        [one async for one in client.query()]
    with pytest.raises(HubStoppingError):
        await client.purge_entity(COUNTER)
    with pytest.raises(HubStoppingError):
        await hub.statistics()


def test_a_hub_may_be_made_before_an_event_loop_runs() -> None:
    hub = Hub(app)

    async def main() -> int:
        async with hub:
            return await hub.client.call_entity(COUNTER, Counter.add, 1)

    assert anyio.run(main) == 1


async def test_a_hub_is_entered_only_once() -> None:
    hub = Hub(app)
    async with hub:
        with pytest.raises(UsageError, match="only once"):
            await hub.__aenter__()

        assert await hub.client.call_entity(COUNTER, Counter.add, 1) == 1

    with pytest.raises(UsageError, match="only once"):
        await hub.__aenter__()


@pytest.mark.parametrize("partitions", [0, -1, 1_025])
def test_a_bad_number_of_partitions_is_refused(partitions: int) -> None:
    with pytest.raises(UsageError, match="partitions"):
        Hub(app, partitions=partitions)


@pytest.mark.parametrize("spec", ["", "sqlite", "sqlite:", "memory", "postgres:x", "/tmp/hub"])
def test_a_bad_store_spec_is_refused_with_the_ones_that_are_understood(spec: str) -> None:
    with pytest.raises(UsageError, match=r"sqlite:PATH"):
        Hub(app, store=spec)


@pytest.mark.parametrize(
    "bad",
    [
        {"drain_s": 0},
        {"drain_s": -1},
        {"mailbox_messages_max": 0},
        {"on_nondeterminism": "ignore"},
        {"crashes_max": 0},
    ],
)
def test_a_bad_setting_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        Settings(**bad)


async def test_two_hubs_on_stores_of_their_own_run_side_by_side() -> None:
    async with Hub(app) as first, Hub(app) as second:
        await first.client.call_entity(COUNTER, Counter.add, 1)

        assert await second.client.call_entity(COUNTER, Counter.get) == 0


# The body's exceptions and cancellation.


async def test_an_exception_of_the_body_comes_out_as_itself_and_the_hub_drains(
    store: Store,
) -> None:
    opened, begun = new_gate("body")
    error = RuntimeError("body")

    with pytest.raises(RuntimeError) as caught:  # noqa: PT012
        async with Hub(app, store=store) as hub:
            await hub.client.start_new(run_work, "body", instance_id="i")
            await begun.wait()
            opened.set()
            raise error

    assert caught.value is error
    async with Hub(app, store=store) as hub:
        assert await hub.client.get_handle("i").result(10) == ["worked body", "after"]
        assert keys_seen.count("i/1/1") == 1


async def test_a_body_whose_task_group_fails_gives_that_group() -> None:
    async def fail() -> None:
        raise ValueError("child")

    with pytest.raises(ExceptionGroup) as caught:
        async with Hub(app), anyio.create_task_group() as tasks:
            tasks.start_soon(fail)

    assert [type(one) for one in caught.value.exceptions] == [ValueError]


async def test_cancelling_the_task_that_holds_the_hub_stops_it_cleanly(store: Store) -> None:
    running = anyio.Event()
    hubs: list[Hub] = []

    async def hold_hub() -> None:
        async with Hub(app, store=store) as hub:
            hubs.append(hub)
            await hub.client.signal_entity(COUNTER, Counter.add, 5)
            running.set()
            await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold_hub)
            await running.wait()
            tasks.cancel_scope.cancel()

    with pytest.raises(HubStoppingError, match="stopped"):
        _ = hubs[0].client
    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 5


async def test_a_timeout_around_a_hub_is_that_timeout(store: Store) -> None:
    with anyio.move_on_after(0.02) as scope:
        async with Hub(app, store=store):
            await anyio.sleep_forever()

    assert scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # a task of asyncio itself
async def test_cancelling_an_asyncio_task_that_holds_the_hub_stops_it(store: Store) -> None:
    running = anyio.Event()

    async def hold_hub() -> None:
        async with Hub(app, store=store):
            running.set()
            await asyncio.sleep(3_600)

    task = asyncio.ensure_future(hold_hub())
    await running.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    async with Hub(app, store=store):
        pass


async def test_a_cancelled_hub_keeps_to_its_bound_while_an_activity_goes_on(
    store: Store,
) -> None:
    _, begun = new_gate("stuck")

    with anyio.fail_after(10):
        with anyio.CancelScope() as scope:
            async with Hub(app, store=store, settings=Settings(drain_s=0.05)) as hub:
                await hub.client.start_new(run_work, "stuck", instance_id="i")
                await begun.wait()
                scope.cancel()
                await anyio.lowlevel.checkpoint()

    opened, _ = new_gate("stuck")
    opened.set()
    async with Hub(app, store=store) as hub:
        assert await hub.client.get_handle("i").result(10) == ["worked stuck", "after"]


# Draining.


async def test_leaving_waits_for_the_async_activities_that_run(store: Store) -> None:
    opened, begun = new_gate("drain")

    async with Hub(app, store=store) as hub:
        await hub.client.start_new(run_work, "drain", instance_id="i")
        await begun.wait()
        opened.set()

    async with Hub(app, store=store) as hub:
        assert await hub.client.get_handle("i").result(10) == ["worked drain", "after"]
    assert keys_seen.count("i/1/1") == 1


async def test_leaving_waits_for_the_sync_activities_that_run(store: Store) -> None:
    thread_gates["thread"] = threading.Event()

    async with Hub(app, store=store) as hub:
        await hub.client.start_new(run_thread, "thread", instance_id="i")
        await until_true(lambda: bool(keys_seen))
        thread_gates["thread"].set()

    async with Hub(app, store=store) as hub:
        assert await hub.client.get_handle("i").result(10) == "worked thread"
    assert keys_seen == ["i/1/1"]


async def test_an_activity_scheduled_while_the_hub_is_left_runs_at_the_next_start(
    store: Store,
) -> None:
    opened, begun = new_gate("late")
    async with Hub(app, store=store) as hub:
        await hub.client.start_new(run_work, "late", instance_id="i")
        await begun.wait()
        opened.set()
    first = list(keys_seen)

    async with Hub(app, store=store) as hub:
        result = await hub.client.get_handle("i").result(10)

    assert "after" not in first
    assert result == ["worked late", "after"]
    assert keys_seen == ["i/1/1", "after"]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_activity_that_outlasts_the_drain_runs_again_under_its_idempotency_key(
    store: Store, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    new_gate("long")
    held = thread_gates["long"] = threading.Event()
    settings = Settings(drain_s=0.05)
    f: Any = run_work if kind == "async" else run_thread
    with anyio.fail_after(10):
        async with Hub(app, store=store, settings=settings) as hub:
            await hub.client.start_new(f, "long", instance_id="i")
            await until_true(lambda: bool(keys_seen))
    held.set()
    opened, _ = new_gate("long")
    opened.set()

    async with Hub(app, store=store) as hub:
        await hub.client.get_handle("i").result(10)

    assert [key for key in keys_seen if key != "after"] == ["i/1/1", "i/1/1"]
    assert "did not end in time" in caplog.text


async def test_the_log_of_closing_counts_activities_and_operations_apart(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    begun = [new_gate(gate)[1] for gate in ("one", "two", "three")]
    thread_gates["sync"] = thread_gates["told"] = held = threading.Event()
    async with Hub(app, store=store, settings=Settings(drain_s=0.1)) as hub:
        client = hub.client
        await client.start_new(run_work, "one")
        await client.start_new(run_work, "two")
        await client.signal_entity(EntityId(Counter, "c"), Counter.add_slowly, "three")
        await client.start_new(run_thread, "sync")
        told = await client.start_new(run_thread, "told")
        for event in begun:
            await event.wait()
        await until_true(lambda: len(keys_seen) == 4)
        await told.terminate("not wanted")
        await until_true(lambda: hub._shard.activities.abandoned == 1)
    held.set()

    assert "3 activities and 1 operations did not end in time; they run again" in caplog.text
    assert "1 activities did not end in time, although they were told to stop" in caplog.text


async def test_activities_that_wait_for_their_limit_run_at_the_next_start(store: Store) -> None:
    opened, begun = new_gate("limit")
    settings = Settings(activities_max=1)
    async with Hub(app, store=store, settings=settings) as hub:
        for i in range(4):
            await hub.client.start_new(run_work, "limit", instance_id=f"i{i}")
        await begun.wait()
        opened.set()
    first = [key for key in keys_seen if key != "after"]

    async with Hub(app, store=store, settings=settings) as hub:
        for i in range(4):
            assert await hub.client.get_handle(f"i{i}").result(10) == ["worked limit", "after"]

    assert len(first) == 1
    assert sorted(key for key in keys_seen if key != "after") == [f"i{i}/1/1" for i in range(4)]


async def test_leaving_waits_for_an_async_operation(store: Store) -> None:
    opened, begun = new_gate("op")
    async with Hub(app, store=store) as hub:
        await hub.client.signal_entity(COUNTER, Counter.add_slowly, "op")
        await begun.wait()
        opened.set()

    async with Hub(app, store=store) as hub:
        assert await hub.client.read_entity_state(COUNTER) == made(Counter, value=1)


async def test_an_async_operation_that_outlasts_the_drain_runs_again(store: Store) -> None:
    _, begun = new_gate("op")
    with anyio.fail_after(10):
        async with Hub(app, store=store, settings=Settings(drain_s=0.05)) as hub:
            await hub.client.call_entity(COUNTER, Counter.add, 10)
            await hub.client.signal_entity(COUNTER, Counter.add_slowly, "op")
            await hub.client.signal_entity(COUNTER, Counter.add, 100)
            await begun.wait()
    opened, _ = new_gate("op")
    opened.set()

    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get, timeout=10) == 111


async def test_actors_that_signal_for_ever_do_not_keep_the_hub_from_stopping(
    store: Store,
) -> None:
    with anyio.fail_after(10):
        async with Hub(app, store=store, settings=Settings(drain_s=0.05)) as hub:
            await hub.client.signal_entity(COUNTER, Counter.add_for_ever)

            async def counting() -> bool:
                return await hub.client.call_entity(COUNTER, Counter.get) > 10

            await until(counting)
            before = await hub.client.call_entity(COUNTER, Counter.get)

    async with Hub(app, store=store, settings=Settings(drain_s=0.05)) as hub:

        async def gone_on() -> bool:
            return await hub.client.call_entity(COUNTER, Counter.get) > before + 10

        await until(gone_on)


async def test_durable_timers_are_armed_again_at_the_next_start(store: Store) -> None:
    clock = ManualClock()
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.start_new(sleep, 60.0, instance_id="short")
        await hub.client.start_new(sleep, 3_600.0, instance_id="long")

    clock.advance(100)
    async with Hub(app, store=store, clock=clock) as hub:
        assert await hub.client.get_handle("short").result(10) == "woken"
        assert (await hub.client.get_handle("long").status()).runtime_status == "Running"
        clock.advance(3_600)
        assert await hub.client.get_handle("long").result(10) == "woken"


# Clients that wait while the hub stops.


async def test_whoever_waits_for_a_result_is_told_that_the_hub_stopped(store: Store) -> None:
    errors: list[PerdureError] = []

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:  # noqa: SIM117 (the hub ends first)
            async with Hub(app, store=store) as hub:
                handle = await hub.client.start_new(wait_for_go)

                async def wait() -> None:
                    try:
                        await handle.result()
                    except PerdureError as error:
                        errors.append(error)

                tasks.start_soon(wait)
                partition = partition_here(handle._client, handle.instance_id)
                await until_true(lambda: bool(partition.watchers))

    assert [type(error) for error in errors] == [HubStoppingError]


async def test_whoever_waits_for_a_call_that_outlasts_the_drain_is_told(store: Store) -> None:
    _, begun = new_gate("op")
    errors: list[PerdureError] = []

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:  # noqa: SIM117 (the hub ends first)
            async with Hub(app, store=store, settings=Settings(drain_s=0.05)) as hub:
                client = hub.client

                async def call(op: str, input: Any, request_id: str | None) -> None:
                    try:
                        await client.call_entity(COUNTER, op, input, request_id=request_id)
                    except PerdureError as error:
                        errors.append(error)

                tasks.start_soon(call, "add_slowly", "op", "r1")
                await begun.wait()
                tasks.start_soon(call, "add", 10, None)
                tasks.start_soon(call, "add_slowly", "op", "r1")
                await anyio.lowlevel.checkpoint()

    opened, _ = new_gate("op")
    opened.set()
    assert len(errors) == 3
    assert all(isinstance(error, (OutcomeUnknownError, HubStoppingError)) for error in errors)
    assert any(isinstance(error, OutcomeUnknownError) for error in errors)
    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, "add_slowly", "op", request_id="r1") == 1


# Stores that cannot be opened.


async def test_a_second_hub_on_the_same_folder_is_refused_and_the_first_goes_on(
    tmp_path: Path,
) -> None:
    folder = f"sqlite:{tmp_path / 'hub'}"
    async with Hub(app, store=folder) as first:
        await first.client.call_entity(COUNTER, Counter.add, 1)

        with pytest.raises(StoreInUseError, match="another hub"):
            async with Hub(app, store=folder):
                pass

        assert await first.client.call_entity(COUNTER, Counter.add, 1) == 2
    async with Hub(app, store=folder) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 2


async def test_a_second_hub_on_the_same_store_object_is_refused_and_the_first_goes_on(
    store: Store,
) -> None:
    async with Hub(app, store=store) as first:
        with pytest.raises(StoreInUseError):
            async with Hub(app, store=store):
                pass

        assert await first.client.call_entity(COUNTER, Counter.add, 1) == 1


async def test_another_number_of_partitions_than_the_stores_is_refused(store: Store) -> None:
    async with Hub(app, store=store, partitions=2) as hub:
        await hub.client.call_entity(COUNTER, Counter.add, 1)

    with pytest.raises(StoreVersionError, match="2 partitions, not 4"):
        async with Hub(app, store=store):
            pass

    async with Hub(app, store=store, partitions=2) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 1


async def make_hub_in(folder: Path) -> list[Path]:
    async with Hub(app, store=SqliteStore(folder), partitions=2) as hub:
        await hub.client.call_entity(COUNTER, Counter.add, 1)
    return [folder / "partition-00.sqlite", folder / "partition-01.sqlite"]


async def test_a_store_of_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    [first, *_] = await make_hub_in(tmp_path)
    with sqlite3.connect(first) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = first.read_bytes()

    with pytest.raises(StoreVersionError, match="upgrade perdure"):
        async with Hub(app, store=SqliteStore(tmp_path), partitions=2):
            pass

    assert first.read_bytes() == before


@pytest.mark.parametrize("damage", ["garbage", "empty", "foreign", "missing"])
async def test_a_damaged_or_foreign_file_is_refused_and_left_as_it_is(
    tmp_path: Path, damage: str
) -> None:
    [_, second] = await make_hub_in(tmp_path)
    second.unlink()
    if damage == "garbage":
        second.write_bytes(b"not a database at all" * 1_000)
    elif damage == "empty":
        second.touch()
    elif damage == "foreign":
        connection = sqlite3.connect(second)
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
        connection.close()
    before = second.read_bytes() if second.exists() else None

    with pytest.raises(StoreDamagedError, match="partition-01"):
        async with Hub(app, store=SqliteStore(tmp_path), partitions=2):
            pass

    assert (second.read_bytes() if second.exists() else None) == before


async def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")

    with pytest.raises(StorageError, match="not the folder of a hub"):
        async with Hub(app, store=f"sqlite:{path}"):
            pass

    assert path.read_text() == "mine"


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root may write to any folder"
)
async def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
            async with Hub(app, store=f"sqlite:{folder}"):
                pass
    finally:
        folder.chmod(0o700)


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
        async with Hub(app, store=f"sqlite:{tmp_path / 'file' / 'hub'}"):
            pass


async def test_a_hub_that_could_not_open_its_store_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "hub"
    [_, second] = await make_hub_in(path)
    kept = second.read_bytes()
    second.write_bytes(b"x" * 100)

    hub = Hub(app, store=SqliteStore(path), partitions=2)
    with pytest.raises(StoreDamagedError):
        await hub.__aenter__()
    with pytest.raises(HubStoppingError):
        _ = hub.client
    second.write_bytes(kept)

    async with Hub(app, store=SqliteStore(path), partitions=2) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 1


async def test_a_store_that_fails_while_the_hub_starts_is_given_up_again() -> None:
    store = FaultyStore()
    store.faults.recover = disk_error()

    with pytest.raises(StorageError, match="the disk fails"):
        async with Hub(app, store=store):
            pass

    store.faults.recover = None
    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.add, 1) == 1


class NoStore:
    """An object that has a store's methods, and does not keep its contract."""

    durability = "none"

    def __init__(self, opened: object) -> None:
        self.opened = opened

    def open(self, partitions: int) -> Any:
        async def give() -> Any:
            return self.opened

        return self.opened if self.opened is None else give()

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("opened", "what"),
    [
        (None, "the store's open raised TypeError"),
        (7, "the store's open raised TypeError"),
        ([], "gave 0 partitions, not 4"),
    ],
)
async def test_an_object_that_is_no_store_is_said_to_be_none(opened: object, what: str) -> None:
    with pytest.raises(StorageError, match=what):
        async with Hub(app, store=NoStore(opened)):
            pass


async def test_what_a_store_raises_as_it_is_closed_is_said_to_be_the_stores() -> None:
    class Closing(FaultyStore):
        async def close(self) -> None:
            raise KeyError("for the test")

    with pytest.raises(StorageError, match="the store's close raised KeyError"):
        async with Hub(app, store=Closing()) as hub:
            assert await hub.client.call_entity(COUNTER, Counter.add, 1) == 1


# Stores that fail while the hub runs.


@pytest.mark.parametrize(
    "error", [StoreFullError("full, for the test"), disk_error(), UnavailableError("away")]
)
async def test_a_failed_commit_refuses_its_requests_and_leaves_nothing_partial(
    error: Exception,
) -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(COUNTER, Counter.add, 1)
        store.faults.commit = error

        with pytest.raises(UnavailableError):
            await client.call_entity(COUNTER, Counter.add, 10)
        store.faults.commit = None

        async def serves() -> bool:
            try:
                return await client.call_entity(COUNTER, Counter.get) == 1
            except UnavailableError:
                return False

        await until(serves)
        assert await client.call_entity(COUNTER, Counter.add, 100) == 101

    async with Hub(app, store=store, partitions=1) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 101


async def test_a_commit_that_was_written_though_it_failed_counts_as_written() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        await hub.client.call_entity(COUNTER, Counter.add, 1)
        store.faults.lost_commit = disk_error()

        async def mend(_: object) -> None:
            store.faults.before_commit = None

        store.faults.before_commit = mend
        result = await hub.client.call_entity(COUNTER, Counter.add, 10)
        store.faults.lost_commit = None

        assert result == 11

    async with Hub(app, store=store, partitions=1) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 11


async def test_a_store_that_cannot_recover_for_a_while_is_asked_again_until_it_can() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(COUNTER, Counter.add, 1)
        store.faults.commit = store.faults.recover = disk_error()
        asked = store.faults.recoveries
        outcomes: list[str] = []

        async def call() -> None:
            try:
                await client.call_entity(COUNTER, Counter.add, 10)
            except UnavailableError:
                outcomes.append("refused")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until_true(lambda: store.faults.recoveries >= asked + 2)
            with pytest.raises(UnavailableError, match="recovering"):
                await client.call_entity(COUNTER, Counter.add, 10)
            store.faults.commit = store.faults.recover = None

        assert outcomes == ["refused"]
        assert await client.call_entity(COUNTER, Counter.get) == 1


async def test_nobody_waits_for_long_for_a_store_that_cannot_recover(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "_SILENT_S", 0.0)
    store = FaultyStore()
    outcomes: dict[str, list[str]] = {}
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        partition = partition_here(client, str(COUNTER))
        await client.call_entity(COUNTER, Counter.add, 1)

        async def call(name: str, request: str | None = None) -> None:
            try:
                await client.call_entity(COUNTER, Counter.add, 10, request_id=request)
            except PerdureError as error:
                outcomes.setdefault(name, []).append(type(error).__name__)

        async def fail(_: object) -> None:
            # What comes while it is being stored is in the next batch, which never is.
            tasks.start_soon(call, "behind")
            tasks.start_soon(call, "repeated", "r")
            await until_true(
                lambda: bool(partition.requests.under_way["r"] and partition.batch.replies)
            )

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                store.faults.before_commit = fail
                store.faults.commit = store.faults.recover = disk_error()
                tasks.start_soon(call, "stored or not", "r")
                await until_true(lambda: store.faults.commits > 1)
                store.faults.before_commit = None

        assert partition.gate.reason is not None
        assert outcomes == {
            "stored or not": ["OutcomeUnknownError"],
            "repeated": ["OutcomeUnknownError"],
            "behind": ["UnavailableError"],
        }
        store.faults.commit = store.faults.recover = None

        async def serves() -> bool:
            try:
                return await client.call_entity(COUNTER, Counter.add, 10, request_id="r") == 11
            except UnavailableError:
                return False

        await until(serves)
        assert await client.call_entity(COUNTER, Counter.get) == 11


async def test_a_hub_can_be_left_while_its_store_cannot_recover() -> None:
    store = FaultyStore()
    errors: list[PerdureError] = []

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:  # noqa: SIM117 (the hub ends first)
            async with Hub(app, store=store, settings=Settings(drain_s=0.1)) as hub:
                client = hub.client
                await client.call_entity(COUNTER, Counter.add, 1)
                store.faults.commit = store.faults.recover = disk_error()

                async def call() -> None:
                    try:
                        await client.call_entity(COUNTER, Counter.add, 10)
                    except PerdureError as error:
                        errors.append(error)

                tasks.start_soon(call)
                asked = store.faults.recoveries
                await until_true(lambda: store.faults.recoveries > asked)

    store.faults.commit = store.faults.recover = None
    assert [type(error) for error in errors] == [OutcomeUnknownError]
    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 1


async def test_other_partitions_serve_while_one_recovers() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=2) as hub:
        client = hub.client
        ids = [EntityId(Counter, str(i)) for i in range(20)]
        first = partition_here(client, str(ids[0]))
        other = next(id for id in ids if partition_here(client, str(id)) is not first)
        store.faults.commit = store.faults.recover = disk_error()
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                with pytest.raises(UnavailableError):
                    await client.call_entity(ids[0], Counter.add, 1)

            tasks.start_soon(call)
            await until_true(lambda: first.gate.reason is not None)
            store.faults.commit = None

            assert await client.call_entity(other, Counter.add, 1) == 1
            assert first.gate.reason is not None
            store.faults.recover = None

        assert await client.call_entity(ids[0], Counter.get) == 0


@pytest.mark.parametrize("where", ["commit", "recover"])
async def test_a_lost_lease_stops_the_hub_and_comes_out_of_its_async_with(where: str) -> None:
    store = FaultyStore()
    errors: list[BaseException] = []

    with anyio.fail_after(10):
        async with anyio.create_task_group() as outer:
            with pytest.raises(LeaseLostError, match="another owner"):  # noqa: PT012
                async with Hub(app, store=store, partitions=2) as hub:
                    client = hub.client
                    await client.call_entity(COUNTER, Counter.add, 1)
                    handle = await client.start_new(wait_for_go)

                    async def expect(request: Any) -> None:
                        try:
                            await request
                        except PerdureError as error:
                            errors.append(error)

                    outer.start_soon(expect, handle.result())
                    if where == "commit":
                        store.faults.commit = lease_lost()
                    else:
                        store.faults.commit = disk_error()
                        store.faults.recover = lease_lost()
                    outer.start_soon(expect, client.call_entity(COUNTER, Counter.add, 10))
                    await anyio.sleep_forever()

    store.faults.commit = store.faults.recover = None
    # The group has ended, so nobody waits any more.
    assert len(errors) == 2
    assert all(isinstance(error, (UnavailableError, OutcomeUnknownError)) for error in errors)
    async with Hub(app, store=store, partitions=2) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 1


async def test_a_full_disk_refuses_requests_until_there_is_space_and_loses_nothing(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "hub")
    own = App()

    @own.entity
    class Blob:
        text: str = ""

        def put(self, text: str) -> int:
            self.text = text
            return len(text)

        def size(self) -> int:
            return len(self.text)

    taken: dict[str, int] = {}
    async with Hub(own, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(EntityId(Blob, "0"), Blob.put, "x" * 50_000)
        await limit_pages(store, 60)

        async def fill() -> None:
            for i in range(1, 50):
                taken[str(i)] = await client.call_entity(
                    EntityId(Blob, str(i)), Blob.put, "x" * 50_000
                )

        with pytest.raises((UnavailableError, StorageError)):
            await fill()
        refused = str(len(taken) + 1)
        await limit_pages(store, 1_000_000)

        async def serves() -> bool:
            try:
                return await client.call_entity(EntityId(Blob, "0"), Blob.size) == 50_000
            except UnavailableError:
                return False

        await until(serves)
        assert 0 < len(taken) < 49
        assert await client.get_entity(EntityId(Blob, refused)) is None
        assert await client.call_entity(EntityId(Blob, refused), Blob.put, "y" * 10) == 10

    async with Hub(own, store=store, partitions=1) as hub:
        for key, size in {**taken, refused: 10}.items():
            state = await hub.client.read_entity_state(EntityId(Blob, key))
            assert state is not None
            assert len(state.text) == size


async def limit_pages(store: SqliteStore, pages: int) -> None:
    """Let SQLite believe that the disk has only so many pages."""
    for partition in store._partitions:
        await partition._journal.execute(f"PRAGMA max_page_count = {pages}")


# What is left behind.


def threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("perdure")}


def tasks_alive() -> set[Any]:
    if asyncio_runs():
        # Those of a hub are hidden from asyncio.all_tasks().
        return {one for one in gc.get_objects() if type(one) is asyncio.Task and not one.done()}
    import trio

    root = trio.lowlevel.current_root_task()
    assert root is not None
    found: set[Any] = set()
    todo = [root]
    while todo:
        task = todo.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            todo += nursery.child_tasks
    return found


def asyncio_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("end", ["ordinary", "exception", "cancelled", "lease lost", "cut off"])
async def test_no_task_or_thread_of_a_hub_outlives_it(tmp_path: Path, end: str) -> None:
    new_gate("op")
    new_gate("activity")
    thread_gates["thread"] = threading.Event()
    thread_gates["thread"].set()
    store = FaultyStore(SqliteStore(tmp_path / "hub"))
    drain_s = 0.05 if end == "cut off" else 10.0
    before_tasks, before_threads = tasks_alive(), threads()

    with anyio.CancelScope() as scope:
        try:
            async with Hub(app, store=store, settings=Settings(drain_s=drain_s)) as hub:
                client = hub.client
                for i in range(100):  # more suspended operations than idle followers are kept
                    await client.signal_entity(EntityId(Counter, str(i)), "add_slowly", "op")
                await client.start_new(run_work, "activity")
                await reached["activity"].wait()
                handle = await client.start_new(run_thread, "thread")
                await handle.result(10)
                if end != "cut off":
                    gates["op"].set()
                    gates["activity"].set()
                if end == "exception":
                    raise RuntimeError(end)
                if end == "cancelled":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
                if end == "lease lost":
                    store.faults.commit = lease_lost()
                    await client.call_entity(COUNTER, Counter.add, 1)
        except (RuntimeError, LeaseLostError):
            pass

    for thread in threads() - before_threads:
        thread.join(10)
    assert tasks_alive() - before_tasks == set()
    assert threads() - before_threads == set()


async def test_a_hub_serves_a_thousand_suspended_operations_and_forgets_their_tasks() -> None:
    opened, _ = new_gate("many")
    before = tasks_alive()

    async with Hub(app) as hub:
        await hub.client.signal_entities(
            [(EntityId(Counter, str(i)), Counter.add_slowly, "many") for i in range(1_000)]
        )
        opened.set()

        async def done() -> bool:
            return hub._shard.pump.suspended == 0

        await until(done)
        kept = len(tasks_alive() - before)

    assert kept < 200
