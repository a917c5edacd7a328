"""Members that come, go, pause and die under load: nothing is lost, repeated or reordered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from perdure import Hub, Settings
from tests.cluster.small_cluster import Cluster
from tests.guarantees.worker_load import PARTITIONS, Load, app, seed_of

CLIENTS = 8


def hub_on(cluster: Cluster, *, drain_s: float = 2.0) -> Hub:
    settings = Settings(lease_s=1.5, drain_s=drain_s)
    return Hub(app, store=cluster.store(), partitions=PARTITIONS, settings=settings, rebalance=None)


@asynccontextmanager
async def driven(hub: Hub, folder: Path, seed: int = 0) -> AsyncGenerator[Load]:
    load = Load(seed_of(seed), folder)
    async with anyio.create_task_group() as tasks:
        for _ in range(CLIENTS):
            tasks.start_soon(load.drive, hub.client)
        yield load
        load.stopped = True


@pytest.mark.by_turns
async def test_moves_by_wish_lose_and_repeat_nothing(tmp_path: Path) -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one, hub_on(cluster) as two:
            async with driven(one, tmp_path) as load:
                for _ in range(30):
                    await load.more(load.random.randint(0, 6))
                    to = load.random.choice((one, two)).crew.local_shard.number
                    await two.move_partition(load.random.randrange(PARTITIONS), to)
            await load.check(two.client)
            print(load.repeated, load.answers)
            assert not load.repeated, "a client was told of a move"
            load.check_runs()


@pytest.mark.by_turns
async def test_members_that_come_and_go_are_not_noticed(tmp_path: Path) -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one:
            async with driven(one, tmp_path) as load:
                for _ in range(6):
                    async with hub_on(cluster):
                        await load.more(20)
                    await load.more(10)
            await load.check(one.client)
            print(load.repeated, load.answers)
            assert not load.repeated


@pytest.mark.by_turns
async def test_a_member_that_is_cut_off_loses_nothing(tmp_path: Path) -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one, hub_on(cluster) as two:
            async with driven(one, tmp_path) as load:
                for _ in range(3):
                    await load.more(20)
                    number = two.crew.local_shard.number
                    while number not in cluster.leases_owned():
                        await anyio.sleep(0.01)
                    cluster.unreachable.add(number)
                    while number in cluster.leases_owned():
                        await anyio.sleep(0.05)
                    await load.more(20)
                    cluster.unreachable.clear()
                    while two.crew.local_shard.number == number:
                        await anyio.sleep(0.05)
                    await load.more(20)
            await load.check(one.client)
            print(load.repeated, load.answers)
