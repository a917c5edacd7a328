"""Placement, with event loops in threads: partitions move under load, and nobody can tell.

Nothing is lost, repeated or reordered, nobody hangs, and what stands still does so briefly.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import median

import anyio
import pytest

from perdure import EntityId, Hub, MemoryStore, Settings, StorageError, Store, UnavailableError
from perdure.runtime.placement.hashing import partition_of
from tests.faults import FaultyStore, persist
from tests.guarantees.crash_child import Book
from tests.guarantees.worker_load import PARTITIONS, Load, app, seed_of
from tests.guarantees.workloads import brief_s

SHARDS = 3
CLIENTS = 8


def hub_on(store: str | Store, shards: int = SHARDS) -> Hub:
    return Hub(
        app,
        store=store,
        partitions=PARTITIONS,
        shards=shards,
        rebalance=None,
        settings=Settings(drain_s=2.0),
    )


async def move_at_random(hub: Hub, load: Load, moves: int) -> None:
    for _ in range(moves):
        await load.more(load.random.randint(0, 6))
        partition = load.random.randrange(PARTITIONS)
        await hub.move_partition(partition, load.random.randrange(hub.shards))


async def run(folder: Path, store: str | Store, moves: int, number: int = 0) -> None:
    load = Load(seed_of(number), folder)
    with anyio.fail_after(60 + moves):
        async with hub_on(store) as hub:
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, hub.client)
                await move_at_random(hub, load, moves)
                load.stopped = True
            await load.check(hub.client)
            assert not load.repeated, "a client was told of a move"
            load.check_runs()
        # What the store holds is the same.
        async with hub_on(store, 1) as hub:
            await load.check(hub.client)


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_partitions_that_move_under_load_lose_and_repeat_nothing(
    tmp_path: Path, kind: str
) -> None:
    store: str | Store = MemoryStore()
    if kind == "sqlite":
        store = f"sqlite:{tmp_path / 'hub'}?synchronous=OFF"
    await run(tmp_path, store, 60)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
async def test_partitions_that_move_for_long_lose_and_repeat_nothing(
    tmp_path: Path, number: int
) -> None:
    await run(tmp_path, MemoryStore(), 1_000, number)


async def run_with_faults(folder: Path, moves: int, number: int = 0) -> None:
    """Move while commits fail at random: a move may fail, and nothing else may be seen of it."""
    load = Load(seed_of(number), folder)
    inner = MemoryStore()
    store = FaultyStore(inner)
    failed = 0
    with anyio.fail_after(60 + moves):
        async with hub_on(store) as hub:
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, hub.client)
                for _ in range(moves):
                    await load.more(load.random.randint(0, 6))
                    partition = load.random.randrange(PARTITIONS)
                    fault = load.random.choice(("before", "after", "recover"))
                    if fault == "recover":
                        store.fail_reads("recover", load.random.randint(1, 3))
                    else:
                        store.fail_next("before" if fault == "before" else "after", partition)
                    try:
                        to = load.random.randrange(hub.shards)
                        await hub.move_partition(partition, to)
                    except (StorageError, UnavailableError):
                        failed += 1
                load.stopped = True
            store.fail_no_more()
            await load.check(hub.client)
        async with hub_on(inner, 1) as hub:
            await load.check(hub.client)
    assert failed > 0


@pytest.mark.by_turns
async def test_moves_that_fail_lose_and_repeat_nothing(tmp_path: Path) -> None:
    await run_with_faults(tmp_path, 40)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
async def test_many_moves_that_fail_lose_and_repeat_nothing(tmp_path: Path, number: int) -> None:
    await run_with_faults(tmp_path, 300, number)


@pytest.mark.by_turns
async def test_what_a_move_stops_goes_on_soon(tmp_path: Path) -> None:
    book = EntityId(Book, "paused")
    gaps: list[float] = []
    ordinary: list[float] = []
    async with hub_on(f"sqlite:{tmp_path / 'hub'}?synchronous=OFF", 2) as hub:
        client = hub.client
        partition = partition_of(str(book), len(hub.placement))
        answered = [anyio.current_time()]
        stopped = False

        async def call() -> None:
            n = 0
            while not stopped:
                n += 1
                await persist(client.call_entity, book, Book.note, f"call {n}")
                answered.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            for _ in range(30):
                count = len(answered)
                while len(answered) < count + 3:
                    await anyio.sleep(0.001)
                del answered[:-1]
                await hub.move_partition(partition, 1 - hub.placement[partition])
                count = len(answered)
                while len(answered) < count + 3:
                    await anyio.sleep(0.001)
                *shorter, longest = sorted(after - before for before, after in pairwise(answered))
                gaps.append(longest)
                ordinary += shorter
            stopped = True

    print(f"longest gap over a move: median {median(gaps) * 1e3:.1f} ms, max {max(gaps) * 1e3:.1f}")
    assert median(gaps) < brief_s(ordinary)
