"""Worker processes that are members by themselves, and their supervisor, on a real database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import perdure
from perdure import EntityId, Hub, Settings, StoreVersionError, UsageError
from perdure.runtime.cluster.supervisor import MemberSupervisor
from tests.cluster.app import Counter, app
from tests.cluster.small_cluster import Cluster

PARTITIONS = 8


def hub_on(place: str, *, workers: int = 2, **given: Any) -> Hub:
    settings = Settings(lease_s=3.0, drain_s=2.0)
    given = {"partitions": PARTITIONS, **given}
    return Hub("tests.cluster.app:app", store=place, workers=workers, settings=settings, **given)


def crew_of(hub: Hub) -> MemberSupervisor:
    assert isinstance(hub.crew, MemberSupervisor)
    return hub.crew


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


@pytest.mark.by_turns("trio")
async def test_workers_are_members_and_one_that_is_killed_is_another_one_from_then_on(
    newest_postgres: str, tmp_path: Path
) -> None:
    with anyio.fail_after(60):
        async with hub_on(newest_postgres, socket=tmp_path / "s") as hub:
            await until(lambda: sorted(hub.placement) == [1] * 4 + [2] * 4)
            ids = [EntityId(Counter, f"c{n}") for n in range(16)]
            for id in ids:
                assert await hub.client.call_entity(id, Counter.add, 1) == 1
            counted = await hub.statistics()
            assert {one.index for one in counted.shards} == {1, 2}
            processes = [worker.process for worker in crew_of(hub).workers]
            assert {one.pid for one in counted.shards} == {one.pid for one in processes if one}
            assert len((await hub.nodes()).nodes) == 2

            for place in (tmp_path / "s", newest_postgres):
                async with perdure.connect(place, app) as client:
                    assert await client.call_entity(ids[0], Counter.get) == 1

            crew_of(hub).workers[0].kill()
            for id in ids:
                assert await hub.client.call_entity(id, Counter.add, 1, request_id=id.key) == 2
            await until(lambda: sorted(crew_of(hub).members) in ([1, 3], [2, 3]))
            await until(lambda: hub.placement.count(3) == 4)
            number = hub.placement.index(3)
            await hub.move_partition(number, min(hub.placement))
            assert hub.placement[number] == min(hub.placement)
        async with hub_on(newest_postgres, workers=1) as hub:
            for id in ids:
                assert await hub.client.call_entity(id, Counter.get) == 2


async def test_workers_that_cannot_serve_say_why(newest_postgres: str) -> None:
    with anyio.fail_after(60):
        async with hub_on(newest_postgres, workers=1):
            pass
        with pytest.raises(StoreVersionError):
            await hub_on(newest_postgres, workers=1, partitions=4).start()
        with pytest.raises(UsageError, match="2001"):
            await hub_on(
                newest_postgres, workers=1, node_listen="203.0.113.1:2001", node_key=b"k" * 16
            ).start()


def test_workers_import_the_application() -> None:
    with pytest.raises(UsageError, match="module"):
        Hub(perdure.App("nowhere"), store=Cluster().store(), workers=2)
