"""Guarantee 5, with worker processes: what was acknowledged survives the death of any of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from perdure import Client
from tests.guarantees.worker_load import (
    Load,
    crew_of,
    hub_on,
    is_running,
    pid_of,
    seed_of,
    until_served,
)

CLIENTS = 8


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder whose path is short enough for sockets."""
    return tmp_path_factory.mktemp("w")


async def run(folder: Path, kills: int, number: int = 0) -> None:
    load = Load(seed_of(number), folder)
    with anyio.fail_after(60 + 10 * kills):
        async with hub_on(folder) as hub:
            workers = crew_of(hub)._workers
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, hub.client)
                for _ in range(kills):
                    await load.more(load.random.randint(1, 40))
                    await anyio.sleep(load.random.uniform(0, 0.02))  # not always on an answer
                    victim = load.random.choice(workers)
                    if not victim.serves and load.random.random() < 0.5:
                        await until_served(hub, victim.number)
                    if victim.failed_starts == 0 and victim.process is not None:
                        victim.process.kill()
                await load.more(20)
                load.stopped = True
            await load.check(hub.client)
        # What the store holds is the same.
        async with hub_on(folder) as hub:
            await load.check(hub.client)


async def test_what_was_acknowledged_survives_kills_of_workers(folder: Path) -> None:
    await run(folder, 5)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
async def test_what_was_acknowledged_survives_many_kills_of_workers(
    folder: Path, number: int
) -> None:
    await run(folder, 100, number)
