"""Stores that fail while the hub runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityId,
    Hub,
    LeaseLostError,
    OutcomeUnknownError,
    PerdureError,
    Settings,
    SqliteStore,
    StorageError,
    StoreFullError,
    UnavailableError,
)
from perdure.runtime.partitions import recovery
from tests.runtime.harness import (
    FaultyStore,
    disk_error,
    lease_lost,
    partition_here,
    until,
    until_true,
)
from tests.runtime.hub.application import COUNTER, Counter, app, wait_for_go


@pytest.mark.parametrize(
    "error", [StoreFullError("full, for the test"), disk_error(), UnavailableError("away")]
)
async def test_a_failed_commit_refuses_its_requests_and_leaves_nothing_partial(
    error: Exception,
) -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(COUNTER, Counter.add, 1)
        store.faults.commit = error

        with pytest.raises(UnavailableError):
            await client.call_entity(COUNTER, Counter.add, 10)
        store.faults.commit = None

        async def serves() -> bool:
            try:
                return await client.call_entity(COUNTER, Counter.get) == 1
            except UnavailableError:
                return False

        await until(serves)
        assert await client.call_entity(COUNTER, Counter.add, 100) == 101

    async with Hub(app, store=store, partitions=1) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 101


async def test_a_commit_that_was_written_though_it_failed_counts_as_written() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        await hub.client.call_entity(COUNTER, Counter.add, 1)
        store.faults.lost_commit = disk_error()

        async def mend(_: object) -> None:
            store.faults.before_commit = None

        store.faults.before_commit = mend
        result = await hub.client.call_entity(COUNTER, Counter.add, 10)
        store.faults.lost_commit = None

        assert result == 11

    async with Hub(app, store=store, partitions=1) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 11


async def test_a_store_that_cannot_recover_for_a_while_is_asked_again_until_it_can() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(COUNTER, Counter.add, 1)
        store.faults.commit = store.faults.recover = disk_error()
        asked = store.faults.recoveries
        outcomes: list[str] = []

        async def call() -> None:
            try:
                await client.call_entity(COUNTER, Counter.add, 10)
            except UnavailableError:
                outcomes.append("refused")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until_true(lambda: store.faults.recoveries >= asked + 2)
            with pytest.raises(UnavailableError, match="recovering"):
                await client.call_entity(COUNTER, Counter.add, 10)
            store.faults.commit = store.faults.recover = None

        assert outcomes == ["refused"]
        assert await client.call_entity(COUNTER, Counter.get) == 1


async def test_nobody_waits_for_long_for_a_store_that_cannot_recover(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "SILENT_S", 0.0)
    store = FaultyStore()
    outcomes: dict[str, list[str]] = {}
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        partition = partition_here(hub, str(COUNTER))
        await client.call_entity(COUNTER, Counter.add, 1)

        async def call(name: str, request: str | None = None) -> None:
            try:
                await client.call_entity(COUNTER, Counter.add, 10, request_id=request)
            except PerdureError as error:
                outcomes.setdefault(name, []).append(type(error).__name__)

        async def fail(_: object) -> None:
            # What comes while it is being stored is in the next batch, which never is.
            tasks.start_soon(call, "behind")
            tasks.start_soon(call, "repeated", "r")
            await until_true(
                lambda: bool(partition.requests.under_way["r"] and partition.batch.replies)
            )

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                store.faults.before_commit = fail
                store.faults.commit = store.faults.recover = disk_error()
                tasks.start_soon(call, "stored or not", "r")
                await until_true(lambda: store.faults.commits > 1)
                store.faults.before_commit = None

        assert partition.gate.reason is not None
        assert outcomes == {
            "stored or not": ["OutcomeUnknownError"],
            "repeated": ["OutcomeUnknownError"],
            "behind": ["UnavailableError"],
        }
        store.faults.commit = store.faults.recover = None

        async def serves() -> bool:
            try:
                return await client.call_entity(COUNTER, Counter.add, 10, request_id="r") == 11
            except UnavailableError:
                return False

        await until(serves)
        assert await client.call_entity(COUNTER, Counter.get) == 11


async def test_a_hub_can_be_left_while_its_store_cannot_recover() -> None:
    store = FaultyStore()
    errors: list[PerdureError] = []

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:  # noqa: SIM117 (the hub ends first)
            async with Hub(app, store=store, settings=Settings(drain_s=0.1)) as hub:
                client = hub.client
                await client.call_entity(COUNTER, Counter.add, 1)
                store.faults.commit = store.faults.recover = disk_error()

                async def call() -> None:
                    try:
                        await client.call_entity(COUNTER, Counter.add, 10)
                    except PerdureError as error:
                        errors.append(error)

                tasks.start_soon(call)
                asked = store.faults.recoveries
                await until_true(lambda: store.faults.recoveries > asked)

    store.faults.commit = store.faults.recover = None
    assert [type(error) for error in errors] == [OutcomeUnknownError]
    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 1


@pytest.mark.by_turns
async def test_other_partitions_serve_while_one_recovers() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=2) as hub:
        client = hub.client
        ids = [EntityId(Counter, str(i)) for i in range(20)]
        first = partition_here(hub, str(ids[0]))
        other = next(id for id in ids if partition_here(hub, str(id)) is not first)
        store.faults.commit = store.faults.recover = disk_error()
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                with pytest.raises(UnavailableError):
                    await client.call_entity(ids[0], Counter.add, 1)

            tasks.start_soon(call)
            await until_true(lambda: first.gate.reason is not None)
            store.faults.commit = None

            assert await client.call_entity(other, Counter.add, 1) == 1
            assert first.gate.reason is not None
            store.faults.recover = None

        assert await client.call_entity(ids[0], Counter.get) == 0


@pytest.mark.parametrize("where", ["commit", "recover"])
async def test_a_lost_lease_stops_the_hub_and_comes_out_of_its_async_with(where: str) -> None:
    store = FaultyStore()
    errors: list[BaseException] = []

    with anyio.fail_after(10):
        async with anyio.create_task_group() as outer:
            with pytest.raises(LeaseLostError, match="another owner"):  # noqa: PT012
                async with Hub(app, store=store, partitions=2) as hub:
                    client = hub.client
                    await client.call_entity(COUNTER, Counter.add, 1)
                    handle = await client.start_new(wait_for_go)

                    async def expect(request: Any) -> None:
                        try:
                            await request
                        except PerdureError as error:
                            errors.append(error)

                    outer.start_soon(expect, handle.result())
                    if where == "commit":
                        store.faults.commit = lease_lost()
                    else:
                        store.faults.commit = disk_error()
                        store.faults.recover = lease_lost()
                    outer.start_soon(expect, client.call_entity(COUNTER, Counter.add, 10))
                    await anyio.sleep_forever()

    store.faults.commit = store.faults.recover = None
    # The group has ended, so nobody waits any more.
    assert len(errors) == 2
    assert all(isinstance(error, (UnavailableError, OutcomeUnknownError)) for error in errors)
    async with Hub(app, store=store, partitions=2) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 1


async def test_a_full_disk_refuses_requests_until_there_is_space_and_loses_nothing(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "hub")
    own = App()

    @own.entity
    class Blob:
        text: str = ""

        def put(self, text: str) -> int:
            self.text = text
            return len(text)

        def size(self) -> int:
            return len(self.text)

    taken: dict[str, int] = {}
    async with Hub(own, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(EntityId(Blob, "0"), Blob.put, "x" * 50_000)
        await limit_pages(store, 60)

        async def fill() -> None:
            for i in range(1, 50):
                taken[str(i)] = await client.call_entity(
                    EntityId(Blob, str(i)), Blob.put, "x" * 50_000
                )

        with pytest.raises((UnavailableError, StorageError)):
            await fill()
        refused = str(len(taken) + 1)
        await limit_pages(store, 1_000_000)

        async def serves() -> bool:
            try:
                return await client.call_entity(EntityId(Blob, "0"), Blob.size) == 50_000
            except UnavailableError:
                return False

        await until(serves)
        assert 0 < len(taken) < 49
        assert await client.get_entity(EntityId(Blob, refused)) is None
        assert await client.call_entity(EntityId(Blob, refused), Blob.put, "y" * 10) == 10

    async with Hub(own, store=store, partitions=1) as hub:
        for key, size in {**taken, refused: 10}.items():
            state = await hub.client.read_entity_state(EntityId(Blob, key))
            assert state is not None
            assert len(state.text) == size


async def limit_pages(store: SqliteStore, pages: int) -> None:
    """Let SQLite believe that the disk has only so many pages."""
    for partition in store.partitions:
        await partition.journal.execute(f"PRAGMA max_page_count = {pages}")
