"""Placement, with worker processes: partitions move under load, and nobody can tell.

Nothing is lost, repeated or reordered, nobody hangs, and what stands still does so briefly.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from perdure import Hub, UnavailableError
from tests.guarantees.worker_load import (
    PARTITIONS,
    Load,
    crew_of,
    hub_on,
    seed_of,
    until_served,
)

CLIENTS = 8


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder whose path is short enough for sockets."""
    return tmp_path_factory.mktemp("m")


async def move_at_random(hub: Hub, load: Load, moves: int) -> None:
    for _ in range(moves):
        await load.more(load.random.randint(0, 6))
        partition = load.random.randrange(PARTITIONS)
        await hub.move_partition(partition, load.random.randrange(hub.shards))


async def run(folder: Path, moves: int, number: int = 0) -> None:
    load = Load(seed_of(number), folder)
    with anyio.fail_after(60 + moves):
        async with hub_on(folder, workers=3) as hub:
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, hub.client)
                await move_at_random(hub, load, moves)
                load.stopped = True
            await load.check(hub.client)
            assert not load.repeated, "a client was told of a move"
            load.check_runs()


async def test_partitions_that_move_under_load_lose_and_repeat_nothing(folder: Path) -> None:
    await run(folder, 40)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
async def test_partitions_that_move_for_long_lose_and_repeat_nothing(
    folder: Path, number: int
) -> None:
    await run(folder, 400, number)


async def run_with_kills(folder: Path, kills: int, number: int = 0) -> None:
    load = Load(seed_of(number), folder)
    moved = 0

    async def keep_moving(hub: Hub) -> None:
        nonlocal moved
        while not load.stopped:
            await load.more(load.random.randint(0, 6))
            try:
                await hub.move_partition(
                    load.random.randrange(PARTITIONS), load.random.randrange(hub.shards)
                )
            except UnavailableError:
                continue  # one of the two was killed
            moved += 1

    with anyio.fail_after(60 + 10 * kills):
        async with hub_on(folder, workers=3) as hub:
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, hub.client)
                tasks.start_soon(keep_moving, hub)
                for _ in range(kills):
                    await load.more(load.random.randint(1, 60))
                    await anyio.sleep(load.random.uniform(0, 0.02))  # not always on an answer
                    victim = load.random.choice(crew_of(hub)._workers)
                    await until_served(hub, victim.number)
                    assert victim.process is not None
                    victim.process.kill()
                await load.more(20)
                load.stopped = True
            await load.check(hub.client)
    assert moved > kills


async def test_kills_while_partitions_move_lose_and_repeat_nothing(folder: Path) -> None:
    await run_with_kills(folder, 5)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
async def test_many_kills_while_partitions_move_lose_and_repeat_nothing(
    folder: Path, number: int
) -> None:
    await run_with_kills(folder, 50, number)
