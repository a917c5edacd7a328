"""What a hub leaves behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import EntityId, Hub, LeaseLostError, Settings, SqliteStore
from perdure.testing.inside import shard_of
from tests.runtime.harness import FaultyStore, lease_lost, until
from tests.runtime.hub.application import (
    COUNTER,
    Counter,
    app,
    gates,
    new_gate,
    reached,
    run_thread,
    run_work,
    thread_gates,
)


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
            return shard_of(hub).pump.suspended == 0

        await until(done)
        kept = len(tasks_alive() - before)

    assert kept < 200
