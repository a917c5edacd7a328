from __future__ import annotations

from collections.abc import Callable

import anyio

from perdure import App, EntityId, Hub, Settings
from tests.cluster.small_cluster import Cluster

app = App("shop")


@app.entity
class Counter:
    n: int = 0

    def add(self, by: int) -> int:
        self.n += by
        return self.n

    def get(self) -> int:
        return self.n


SETTINGS = Settings(lease_s=1.0, drain_s=2.0)


def hub_on(cluster: Cluster, partitions: int = 8) -> Hub:
    return Hub(app, store=cluster.store(), partitions=partitions, settings=SETTINGS)


def owners(cluster: Cluster) -> list[int | None]:
    return [lease.owner for lease in cluster.leases]


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    with anyio.fail_after(within_s):
        while not condition():
            await anyio.sleep(0.005)


async def test_one_member_serves_all() -> None:
    cluster = Cluster()
    with anyio.fail_after(10):
        async with hub_on(cluster) as hub:
            for n in range(20):
                assert await hub.client.call_entity(EntityId(Counter, f"c{n}"), "add", 1) == 1
            assert set(owners(cluster)) == {1}
        assert set(owners(cluster)) == {None}


async def test_members_share() -> None:
    cluster = Cluster()
    with anyio.fail_after(20):
        async with hub_on(cluster) as one:
            for n in range(20):
                await one.client.call_entity(EntityId(Counter, f"c{n}"), "add", 1)
            async with hub_on(cluster) as two:
                await until(lambda: owners(cluster).count(1) == 4 == owners(cluster).count(2))
                for hub in (one, two):
                    for n in range(20):
                        await hub.client.call_entity(EntityId(Counter, f"c{n}"), "add", 1)
            for n in range(20):
                got = await one.client.call_entity(EntityId(Counter, f"c{n}"), "get")
                assert got == 3
