"""Worker processes that are members by themselves, and their supervisor, on a real database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

import perdure
from perdure import (
    EntityId,
    Hub,
    OutcomeUnknownError,
    Settings,
    StoreVersionError,
    UnavailableError,
    UsageError,
)
from perdure.runtime.cluster.supervisor import MemberSupervisor
from perdure.storage.postgres import PostgresStore
from tests.cluster.app import Counter, Fatal, app, end
from tests.cluster.small_cluster import Cluster

PARTITIONS = 8


def hub_on(place: str | PostgresStore, *, workers: int = 2, **given: Any) -> Hub:
    settings = Settings(lease_s=3.0, drain_s=2.0)
    given = {"partitions": PARTITIONS, "settings": settings, **given}
    return Hub("tests.cluster.app:app", store=place, workers=workers, **given)


def crew_of(hub: Hub) -> MemberSupervisor:
    assert isinstance(hub.crew, MemberSupervisor)
    return hub.crew


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


async def test_workers_know_the_password_of_a_store_that_the_hub_was_given(
    locked_postgres: str,
) -> None:
    with anyio.fail_after(60):
        # perdure.run, and so perdure serve, makes the store before the hub.
        async with hub_on(PostgresStore(locked_postgres), workers=1) as hub:
            assert await hub.client.call_entity(EntityId(Counter, "c"), Counter.add, 1) == 1


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


@pytest.mark.by_turns("asyncio")
async def test_workers_are_counted_apart_from_other_nodes(newest_postgres: str) -> None:
    with anyio.fail_after(60):
        async with hub_on(newest_postgres) as hub:
            async with Hub(app, store=newest_postgres, settings=hub.settings) as other:
                await until(lambda: {*hub.placement} == {*other.placement} == {1, 2, 3})
                own, others = await hub.own_statistics(), await other.own_statistics()
            assert {one.index for one in own.shards} == {1, 2}
            assert {one.shard for one in own.partitions} == {1, 2}
            assert {one.index for one in others.shards} == {3}
            assert {one.shard for one in others.partitions} == {3}
            assert len(own.partitions) + len(others.partitions) == PARTITIONS


@pytest.mark.by_turns
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


@pytest.mark.by_turns("asyncio")
async def test_what_ends_its_process_fails_or_is_parked_and_the_rest_goes_on(
    newest_postgres: str,
) -> None:
    fatal = EntityId(Fatal, "f")
    settings = Settings(lease_s=3.0, drain_s=2.0, crashes_max=2)
    with anyio.fail_after(90):
        async with hub_on(newest_postgres, settings=settings) as hub:
            await hub.client.start_new(end, instance_id="ends", request_id="r")
            assert await told(lambda: hub.client.wait("ends")) == "ProcessEndedError"

            soon = timedelta(seconds=0.1)
            client = hub.client
            await told(lambda: client.signal_entity(fatal, Fatal.strike, at=soon, request_id="s"))

            async def is_parked() -> bool:
                status = await hub.client.get_entity(fatal)
                return status is not None and status.parked is not None

            while not await told(is_parked):
                await anyio.sleep(0.05)
            await until(lambda: min(hub.placement) >= 0)
            counter = EntityId(Counter, "c")
            added = await hub.client.call_entity(counter, Counter.add, 1, request_id="a")
            assert added == 1


async def told(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until somebody answers: processes end meanwhile."""
    while True:
        with suppress(UnavailableError, OutcomeUnknownError):
            return await ask()
        await anyio.sleep(0.05)
