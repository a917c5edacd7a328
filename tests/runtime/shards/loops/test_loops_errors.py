"""Errors of a loop, and what is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    Hub,
    LeaseLostError,
    ManualClock,
    MemoryStore,
    StorageError,
    UnavailableError,
    UsageError,
)
from perdure.runtime.partitions.commit_loop import CommitLoop
from tests.faults import FaultyStore as GatedStore
from tests.runtime.harness import FaultyStore, disk_error, until
from tests.runtime.shards.loops.application import COUNTERS, SHARDS, Counter, app, running, value_of


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_a_lease_lost_by_any_loop_stops_the_hub_with_the_reason(shard: int) -> None:
    store = MemoryStore()

    async def lose() -> None:
        async with running(store) as hub:
            await hub.client.call_entity(COUNTERS[shard], Counter.add, 1)
            store.rows[shard].epoch += 1  # another owner
            with pytest.raises(UnavailableError):
                await hub.client.call_entity(COUNTERS[shard], Counter.add, 1)
            await anyio.sleep_forever()

    with pytest.raises(LeaseLostError, match="refused"):
        await lose()


async def test_a_bug_in_a_loop_is_told_and_its_partition_recovers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[str] = []
    drain = CommitLoop.drain

    def break_down(loop: CommitLoop) -> None:
        partition = loop.partition
        thread = threading.current_thread().name
        if thread == "perdure-shard-1" and partition.batch.dirty and not failed:
            failed.append(thread)
            raise ZeroDivisionError("a bug, for the test")
        drain(loop)

    monkeypatch.setattr(CommitLoop, "drain", break_down)
    async with running(FaultyStore()) as hub:
        with pytest.raises(UnavailableError, match="commit loop of partition"):
            await hub.client.call_entity(COUNTERS[1], Counter.add, 1)

        async def serves() -> bool:
            try:
                return await hub.client.call_entity(COUNTERS[1], Counter.add, 1) == 1
            except UnavailableError:
                return False

        await until(serves)
        replaced = [shard.replaced for shard in (await hub.statistics()).shards]

    assert replaced == [0, 1, 0]
    assert "ZeroDivisionError: a bug, for the test" in caplog.text


async def test_a_commit_that_fails_in_a_loop_is_recovered_from_there() -> None:
    store = FaultyStore()
    async with running(store) as hub:
        await hub.client.call_entity(COUNTERS[1], Counter.add, 1)
        store.faults.commit = disk_error()
        with pytest.raises(UnavailableError):
            await hub.client.call_entity(COUNTERS[1], Counter.add, 1)
        store.faults.commit = None

        async def serves() -> bool:
            try:
                return bool(await value_of(hub, COUNTERS[1]) == 1)
            except UnavailableError:
                return False

        await until(serves)


@pytest.mark.parametrize("failures", [1, 2, 3])
async def test_a_store_that_a_loop_cannot_read_at_the_start_is_told_as_it_is(
    failures: int,
) -> None:
    inner = MemoryStore()
    store = GatedStore(inner)
    calls = 0

    async def fail_late(method: str, partition: int) -> None:
        nonlocal calls
        if method == "recover" and partition >= SHARDS - failures:
            raise StorageError("cannot be read, for the test")

    store.deliver = fail_late  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="cannot be read"):
        async with running(store):
            pytest.fail("it began")

    async with running(inner) as hub:
        assert await value_of(hub, COUNTERS[2]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 0}, "shards must be an int from 1 to 1,024"),
        ({"shards": 5, "partitions": 4}, "5 shards cannot share 4 partitions"),
        ({"shards": 2, "workers": 2}, "not both"),
        ({"shards": 2, "clock": ManualClock()}, "clock"),
        ({"shards": 2, "socket": "/" + "x" * 120}, "the socket path .* is 123 bytes long"),
    ],
    ids=["none", "too many", "both", "clock", "long path"],
)
def test_hubs_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Hub(app, **options)


async def test_a_socket_in_no_folder_is_refused_and_the_store_given_back(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(UsageError, match="listen"):
        async with running(store, socket=tmp_path / "none" / "hub.sock"):
            pytest.fail("it began")

    async with running(store):
        pass
