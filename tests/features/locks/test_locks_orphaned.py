"""Locks without a holder."""

from __future__ import annotations

import anyio
import orjson
import pytest

import perdure
from perdure import (
    App,
    Client,
    EntityId,
    Hub,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    Store,
    UnavailableError,
    UsageError,
)
from perdure.storage import Checkpoint, EntityRow
from tests.features.locks.application import (
    Account,
    account,
    accounts,
    app,
    hold,
    holder,
    until_locked,
)
from tests.runtime.harness import FaultyStore, disk_error, until, until_true


async def store_orphan(store: Store, holder: str) -> None:
    """Write an entity whose lock is held by an instance that is not there."""
    [partition] = await store.open(1)
    recovered = await partition.recover()
    row = EntityRow(
        recovered.next_id,
        "account",
        "a",
        1,
        b'{"balance":5,"log":[]}',
        orjson.dumps([holder, 1, 1]),
        None,
        None,
    )
    await partition.commit(
        Checkpoint(sequence=recovered.sequence + 1, epoch=recovered.epoch, entities=[row])
    )
    await store.close()


@pytest.mark.by_turns
async def test_cleaning_releases_a_lock_whose_holder_is_not_there(store: Store) -> None:
    await store_orphan(store, "nobody")

    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.signal_entity(account("a"), Account.add, 1)
        before = await client.get_entity(account("a"))
        result = await client.clean_entity_storage()

        assert before is not None
        assert (before.locked_by, before.waiting) == ("nobody", 1)
        assert result == perdure.CleanResult(empty_entities_removed=0, orphaned_locks_released=1)
        assert await client.call_entity(account("a"), Account.get, timeout=10) == 6
        assert await client.clean_entity_storage() == perdure.CleanResult(0, 0)


@pytest.mark.by_turns
async def test_cleaning_takes_no_lock_while_the_partition_recovers(store: Store) -> None:
    await store_orphan(store, "nobody")
    faulty = FaultyStore(store)

    async with Hub(app, store=faulty, partitions=1) as hub:
        faults, client = faulty.faults, hub.client
        recoveries = faults.recoveries
        faults.commit = faults.recover = disk_error()

        async def signal_in_vain() -> None:
            with pytest.raises(UnavailableError):
                await client.signal_entity(account("a"), Account.add, 1)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(signal_in_vain)
                await until_true(lambda: faults.recoveries > recoveries)
                # It would act on what the partition may find to be out of date.
                with pytest.raises(UnavailableError):
                    await client.clean_entity_storage()
                faults.commit = faults.recover = None
        assert await holder(client, "a") == "nobody"


async def test_cleaning_leaves_a_lock_alone_whose_holder_is_live(client: Client) -> None:
    handle = await client.start_new(hold, "a")
    await until_locked(handle)

    result = await client.clean_entity_storage()

    assert result == perdure.CleanResult(0, 0)
    assert await holder(client, "a") == handle.instance_id
    await handle.raise_event("go")
    assert await handle.result(10) == "released"


async def test_cleaning_may_be_told_to_leave_orphans_alone(store: Store) -> None:
    await store_orphan(store, "nobody")

    async with Hub(app, store=store, partitions=1) as hub:
        result = await hub.client.clean_entity_storage(release_orphaned_locks=False)

        assert result == perdure.CleanResult(0, 0)
        assert await holder(hub.client, "a") == "nobody"


@app.orchestration
async def call_a(ctx: OrchestrationContext) -> int:
    return await ctx.call_entity(account("a"), Account.get)


async def test_purging_a_locked_entity_fails_the_orchestrations_whose_calls_wait(
    client: Client,
) -> None:
    holder = await client.start_new(hold, "a")
    await until_locked(holder)
    caller = await client.start_new(call_a)

    async def waits() -> bool:
        status = await client.get_entity(account("a"))
        return status is not None and status.waiting == 1

    await until(waits)
    await client.purge_entity(account("a"))

    with pytest.raises(OrchestrationFailedError, match="@account@a was purged"):
        await caller.result(10)
    await holder.raise_event("go")
    await holder.result(10)


async def test_purging_a_locked_entity_drops_its_state_and_fails_who_waits(
    client: Client,
) -> None:
    await client.call_entity(account("a"), Account.add, 5)
    handle = await client.start_new(hold, "a")
    await until_locked(handle)
    errors: list[str] = []

    async def call() -> None:
        try:
            await client.call_entity(account("a"), Account.add, 1)
        except UsageError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)

        async def waits() -> bool:
            status = await client.get_entity(account("a"))
            return status is not None and status.waiting == 1

        await until(waits)
        await client.purge_entity(account("a"))
    await handle.raise_event("go")

    assert errors == ["@account@a was purged"]
    assert await handle.result(10) == "released"
    assert await client.call_entity(account("a"), Account.get, timeout=10) == 0


@app.orchestration
async def lock_both(ctx: OrchestrationContext, keys: str) -> str:
    async with ctx.lock_entities(*accounts(keys)):
        return "locked"


@pytest.mark.parametrize("purged", ["a", "b"])
async def test_purging_a_locked_entity_leaves_nobody_waiting_for_its_lock(
    client: Client, purged: str
) -> None:
    holder = await client.start_new(hold, "ab")
    await until_locked(holder)
    waiters = [await client.start_new(lock_both, keys) for keys in ("a", "b", "ab")]

    async def all_wait() -> bool:
        statuses = [await client.get_entity(account(key)) for key in "ab"]
        return [status and status.waiting for status in statuses] == [2, 1]

    await until(all_wait)
    await client.purge_entity(account(purged))
    await holder.raise_event("go")

    assert await holder.result(10) == "released"
    assert [await waiter.result(10) for waiter in waiters] == 3 * ["locked"]

    async def all_are_free() -> bool:
        return not [status async for status in client.query_entities(locked=True)]

    await until(all_are_free)


async def test_a_lock_outlives_a_hub_that_does_not_know_the_entity() -> None:
    store = MemoryStore()
    async with Hub(app, store=store) as hub:
        holder = await hub.client.start_new(hold, "a", instance_id="holder")
        await until_locked(holder)

    async with Hub(App(), store=store) as hub:
        await hub.client.retry(EntityId("account", "a"))  # which has it loaded, and parked
        parked = [status async for status in hub.client.query_entities(parked=True)]
        assert [status.locked_by for status in parked] == ["holder"]

    async with Hub(app, store=store) as hub:
        await hub.client.retry(account("a"))
        await hub.client.retry("holder")
        await hub.client.raise_event("holder", "go")
        assert await hub.client.get_handle("holder").result(10) == "released"
