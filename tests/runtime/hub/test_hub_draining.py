"""A hub that stops lets what is under way come to an end."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from perdure import EntityId, Hub, ManualClock, Settings, Store
from perdure.testing.inside import shard_of
from tests.runtime.harness import made, until, until_true
from tests.runtime.hub.application import (
    COUNTER,
    Counter,
    app,
    keys_seen,
    new_gate,
    run_thread,
    run_work,
    sleep,
    thread_gates,
)


@pytest.mark.by_turns
async def test_leaving_waits_for_the_async_activities_that_run(store: Store) -> None:
    opened, begun = new_gate("drain")

    async with Hub(app, store=store) as hub:
        await hub.client.start_new(run_work, "drain", instance_id="i")
        await begun.wait()
        opened.set()

    async with Hub(app, store=store) as hub:
        assert await hub.client.get_handle("i").result(10) == ["worked drain", "after"]
    assert keys_seen.count("i/1/1") == 1


@pytest.mark.by_turns
async def test_leaving_waits_for_the_sync_activities_that_run(store: Store) -> None:
    thread_gates["thread"] = threading.Event()

    async with Hub(app, store=store) as hub:
        await hub.client.start_new(run_thread, "thread", instance_id="i")
        await until_true(lambda: bool(keys_seen))
        thread_gates["thread"].set()

    async with Hub(app, store=store) as hub:
        assert await hub.client.get_handle("i").result(10) == "worked thread"
    assert keys_seen == ["i/1/1"]


@pytest.mark.by_turns
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


@pytest.mark.by_turns
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


@pytest.mark.by_turns
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
        await until_true(lambda: shard_of(hub).activities.abandoned == 1)
    held.set()

    assert "3 activities and 1 operations did not end in time; they run again" in caplog.text
    assert "1 activities did not end in time, although they were told to stop" in caplog.text


@pytest.mark.by_turns
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


@pytest.mark.by_turns
async def test_leaving_waits_for_an_async_operation(store: Store) -> None:
    opened, begun = new_gate("op")
    async with Hub(app, store=store) as hub:
        await hub.client.signal_entity(COUNTER, Counter.add_slowly, "op")
        await begun.wait()
        opened.set()

    async with Hub(app, store=store) as hub:
        assert await hub.client.read_entity_state(COUNTER) == made(Counter, value=1)


@pytest.mark.by_turns
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


@pytest.mark.by_turns
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
