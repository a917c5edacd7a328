"""Following what becomes of instances: ``client.changes``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import App, Change, Client, Hub, OrchestrationContext, UnavailableError, UsageError
from tests.runtime.harness import FaultyStore, disk_error, partition_here, until_true

app = App()


@app.orchestration
async def visit(ctx: OrchestrationContext, n: int) -> int:
    return n


@app.orchestration
async def wait(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


async def read_until(changes: AsyncIterator[Change], instance_id: str, status: str) -> list[Change]:
    """Read until an instance has a status."""
    read: list[Change] = []
    with anyio.fail_after(10):
        async for change in changes:
            read.append(change)
            if change.instance_id != instance_id or change.status is None:
                continue
            if change.status.runtime_status == status:
                return read
    raise AssertionError("it ended")


@pytest.fixture(params=["memory:", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory:" else f"sqlite:{tmp_path / 'hub'}"


@pytest.mark.by_turns
async def test_a_stream_begins_with_a_reset_and_tells_the_last_state_of_each(store: str) -> None:
    async with Hub(app, store=store) as hub:
        changes = hub.client.changes()
        first = await anext(changes)
        for n in range(20):
            await (await hub.client.start_new(visit, n, instance_id=f"v{n}")).result()
        told: dict[str, Any] = {}
        with anyio.fail_after(10):
            while told != {f"v{n}": n for n in range(20)}:
                change = await anext(changes)
                assert (change.kind, change.status is None) == ("changed", False)
                if change.status is not None and change.status.is_completed:
                    told[change.status.instance_id] = change.status.output

    assert (first.kind, first.instance_id) == ("reset", None)


async def test_a_stream_goes_on_behind_a_change(store: str) -> None:
    async with Hub(app, store=store, partitions=2) as hub:
        client = hub.client
        changes = client.changes()
        await anext(changes)
        await client.start_new(visit, 1, instance_id="one")
        last = (await read_until(changes, "one", "Completed"))[-1]
        await (await client.start_new(visit, 2, instance_id="two")).result()
        changes = client.changes(after=last.id)
        read = await read_until(changes, "two", "Completed")

    assert {change.kind for change in read} == {"changed"}


async def test_what_leaves_the_conditions_is_told_without_its_status() -> None:
    async with Hub(app) as hub:
        changes = hub.client.changes(statuses=["Running"])
        await anext(changes)
        handle = await hub.client.start_new(wait, instance_id="w")
        await read_until(changes, "w", "Running")
        await handle.raise_event("go", 1)
        await handle.result()
        with anyio.fail_after(10):
            left = await anext(changes)

    assert (left.kind, left.instance_id, left.status) == ("left", "w", None)


async def test_a_purge_is_told() -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(visit, 1, instance_id="v")
        await handle.result()
        changes = hub.client.changes()
        await anext(changes)
        await hub.client.purge()
        with anyio.fail_after(10):
            gone = await anext(changes)

    assert (gone.kind, gone.instance_id) == ("purged", "v")


async def test_one_instance_can_be_followed_alone() -> None:
    async with Hub(app) as hub:
        changes = hub.client.changes(instance_id="b")
        await anext(changes)
        for name in "abc":
            await (await hub.client.start_new(visit, 1, instance_id=name)).result()
        read = await read_until(changes, "b", "Completed")

    assert {change.instance_id for change in read} == {"b"}


async def test_after_a_restart_of_the_hub_the_reader_is_told_to_look(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'hub'}"
    async with Hub(app, store=store, partitions=1) as hub:
        changes = hub.client.changes()
        before = await anext(changes)
        await (await hub.client.start_new(visit, 1)).result()
    async with Hub(app, store=store, partitions=1) as hub:
        changes = hub.client.changes(after=before.id)
        with anyio.fail_after(10):
            change = await anext(changes)

    assert change.kind == "reset"


async def test_an_id_of_another_hub_is_told_as_a_reset_though_this_one_has_got_so_far() -> None:
    async with Hub(app, partitions=1) as other:
        changes = other.client.changes()
        await anext(changes)
        await (await other.client.start_new(visit, 1, instance_id="v")).result()
        read = await read_until(changes, "v", "Completed")
    async with Hub(app, partitions=1) as hub:
        await anext(hub.client.changes())  # somebody follows this one from its beginning
        for n in range(10):
            await (await hub.client.start_new(visit, n)).result()
        with anyio.fail_after(10):
            change = await anext(hub.client.changes(after=read[-1].id))

    assert change.kind == "reset"


async def test_a_checkpoint_whose_outcome_was_not_known_is_told_as_a_reset() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        changes = hub.client.changes()
        await anext(changes)
        await (await hub.client.start_new(visit, 1, instance_id="v")).result()
        await read_until(changes, "v", "Completed")
        store.faults.lost_commit = disk_error()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.client.start_new, visit, 1)
            await until_true(lambda: store.faults.recoveries > 1)
            store.faults.lost_commit = None
        with anyio.fail_after(10):
            while (change := await anext(changes)).kind == "changed":
                pass  # of what the recovery let go on

    assert change.kind == "reset"


async def test_a_recovery_that_hides_nothing_goes_unnoticed() -> None:
    async with Hub(app, partitions=1) as hub:
        changes = hub.client.changes()
        await anext(changes)
        partition_here(hub, "v").break_down(RuntimeError("a test"))
        with anyio.fail_after(10):
            while True:
                with suppress(UnavailableError):
                    await hub.client.start_new(visit, 1, instance_id="v")
                    break
        read = await read_until(changes, "v", "Completed")

    assert {change.kind for change in read} == {"changed"}


async def test_a_stream_follows_its_partitions_to_other_shards() -> None:
    async with Hub(app, shards=2, partitions=2) as hub:
        changes = hub.client.changes()
        await anext(changes)
        for partition, to in ((0, 1), (1, 0)):
            await hub.move_partition(partition, to)
        for n in range(8):
            await (await hub.client.start_new(visit, n, instance_id=f"v{n}")).result()
        wanted = {f"v{n}" for n in range(8)}
        with anyio.fail_after(10):
            while wanted:
                change = await anext(changes)
                if change.kind == "reset":
                    async for status in hub.client.query(statuses=["Completed"]):
                        wanted.discard(status.instance_id)
                elif change.status and change.status.is_completed:
                    wanted.discard(change.status.instance_id)


@pytest.mark.parametrize("after", ["", "nonsense", "0:1", "0:1,1:1,2:1,3:1,4:1", "1:0,0:0"])
async def test_an_id_that_no_such_stream_gave_is_refused(after: str) -> None:
    async with Hub(app, partitions=4) as hub:
        with pytest.raises(UsageError, match="after"):
            hub.client.changes(after=after)


async def test_many_streams_end_with_the_block_that_reads_them() -> None:
    async with Hub(app) as hub:

        async def follow(client: Client) -> None:
            changes = client.changes()
            async for _ in changes:
                pass

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(follow, hub.client)
            await (await hub.client.start_new(visit, 1)).result()
            tasks.cancel_scope.cancel()
