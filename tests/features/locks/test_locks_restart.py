"""Locks over a restart."""

from __future__ import annotations

import pytest

import perdure
from perdure import Hub, Store
from perdure.testing.inside import partitions_of
from tests.features.locks.application import (
    Account,
    account,
    app,
    hold,
    holder,
    notes,
    until_locked,
)
from tests.runtime.harness import FaultyStore, disk_error, until_true


@pytest.mark.by_turns
async def test_a_lock_survives_a_restart_and_so_do_those_that_wait(store: Store) -> None:
    async with Hub(app, store=store) as hub:
        first = await hub.client.start_new(hold, "ab", instance_id="first")
        await until_locked(first)
        second = await hub.client.start_new(hold, "ab", instance_id="second")
        await second.raise_event("go")
        await hub.client.signal_entity(account("a"), Account.note, "signal")

    async with Hub(app, store=store) as hub:
        client = hub.client
        assert await holder(client, "a") == await holder(client, "b") == "first"
        await client.signal_entity(account("a"), Account.note, "later")
        with pytest.raises(TimeoutError):
            await client.call_entity(account("b"), Account.get, timeout=0.02)
        await client.get_handle("first").raise_event("go")

        assert await client.get_handle("first").result(10) == "released"
        assert await client.get_handle("second").result(10) == "released"
        assert sorted(await notes(client, "a")) == [
            "inside first",
            "inside second",
            "later",
            "signal",
        ]
        kept = await notes(client, "a")
        assert kept[0] == "inside first"
        assert kept.index("signal") < kept.index("later")


async def test_a_lock_survives_a_recovery_of_its_partition() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        handle = await client.start_new(hold, "ab")
        await until_locked(handle)
        await client.signal_entity(account("a"), Account.note, "signal")
        store.faults.commit = disk_error()
        with pytest.raises(perdure.UnavailableError):
            await client.call_entity(account("z"), Account.add, 1)
        store.faults.commit = None
        partition = partitions_of(hub)[0]
        await until_true(lambda: partition.gate.reason is None)

        assert await holder(client, "a") == handle.instance_id
        await handle.raise_event("go")

        assert await handle.result(10) == "released"
        assert await notes(client, "a") == [f"inside {handle.instance_id}", "signal"]
