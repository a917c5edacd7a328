"""Purge by filter, and what else clients ask of many instances at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import anyio
import pytest

import perdure
from perdure import (
    App,
    EntityId,
    Hub,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationHandle,
    OrchestrationTerminatedError,
    PerdureError,
    SqliteStore,
    Store,
    UsageError,
)
from perdure.actors.messages import Action, Command, Start
from perdure.runtime.client import orchestration_client
from perdure.storage import Checkpoint
from tests.runtime.harness import FaultyStore, partition_here, until, until_true

app = App()


@app.entity
class Counter:
    n: int = 0

    def add(self) -> int:
        self.n += 1
        return self.n


@app.orchestration
async def ends(ctx: OrchestrationContext) -> None:
    pass


@app.orchestration
async def waits(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("go")


@app.orchestration
async def holds(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(EntityId(Counter, "held")):
        await ctx.wait_for_external_event("go")


@app.orchestration
async def asks(ctx: OrchestrationContext, depth: int) -> None:
    if depth:
        await ctx.call_sub_orchestrator(asks, depth - 1, instance_id=f"{ctx.instance_id}.{depth}")
    else:
        await ctx.wait_for_external_event("go")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return (
        MemoryStore()
        if request.param == "memory"
        else SqliteStore(tmp_path / "hub", synchronous="OFF")
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of few instances."""
    monkeypatch.setattr(orchestration_client, "PURGE_SLICE", 7)


async def ids(hub: Hub) -> set[str]:
    return {status.instance_id async for status in hub.client.query(payloads=False)}


async def park(hub: Hub, id: str) -> None:
    partition_here(hub, id).post(id, Command("park", "for the test"))

    async def parked() -> bool:
        status = await hub.client.get_status(id)
        return status is not None and status.parked is not None

    await until(parked)


@pytest.mark.by_turns
@pytest.mark.usefixtures("small")
async def test_many_are_purged_in_slices_and_commits_go_on_between_them(store: Store) -> None:
    async with Hub(app, store=store, partitions=2) as hub:
        handles = [await hub.client.start_new(ends, instance_id=f"i{n:02}") for n in range(50)]
        for handle in handles:
            await handle.result(timeout=10)
        await hub.client.start_new(waits, instance_id="live")
        before = (await hub.statistics()).commits

        assert await hub.client.purge() == 50

        assert await ids(hub) == {"live"}
        commits = (await hub.statistics()).commits - before
        assert 8 <= commits <= 20
        # What was purged may be started again at once.
        await (await hub.client.start_new(ends, instance_id="i00")).result(timeout=10)
        assert await hub.client.purge(instance_id_prefix="i") == 1


@pytest.mark.by_turns
async def test_a_start_beside_a_purge_is_not_lost(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        for _ in range(20):
            await (await hub.client.start_new(ends, instance_id="x")).result(timeout=10)
            handle: OrchestrationHandle[None] | None = None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.client.purge)
                handle = await hub.client.start_new(waits, instance_id="x")
            assert handle is not None
            await handle.raise_event("go")
            await handle.result(timeout=10)


@pytest.mark.by_turns
@pytest.mark.usefixtures("small")
async def test_a_purge_by_filter_takes_children_and_theirs(store: Store) -> None:
    async with Hub(app, store=store, partitions=3) as hub:
        for n in range(10):
            await hub.client.start_new(asks, 2, instance_id=f"p{n}", tags={"top": "yes"})
        for n in range(10):
            leaf = hub.client.get_handle(f"p{n}.2.1")
            await until(lambda leaf=leaf: _exists(hub, leaf.instance_id))  # type: ignore[misc]
            await leaf.raise_event("go")
            await hub.client.get_handle(f"p{n}").result(timeout=10)

        assert await hub.client.purge(tags={"top": "yes"}) == 30
        assert await ids(hub) == set()


async def _exists(hub: Hub, id: str) -> bool:
    return await hub.client.get_status(id) is not None


@pytest.mark.by_turns
async def test_a_parked_instance_is_purged_as_if_it_was_terminated_first(store: Store) -> None:
    async with Hub(app, store=store, partitions=3) as hub:
        await hub.client.start_new(asks, 2, instance_id="p")
        await until(lambda: _exists(hub, "p.2.1"))
        await hub.client.start_new(holds, instance_id="h")
        held = EntityId(Counter, "held")
        await until(lambda: _is_locked(hub, held))
        await hub.client.start_new(waits, instance_id="live")
        await park(hub, "p")
        await park(hub, "h")
        with pytest.raises(InstanceNotFinishedError):
            await hub.client.purge_instance("live")

        assert await hub.client.purge_instance("p") == 3
        assert await hub.client.purge(created_to=datetime.now().astimezone() + timedelta(1)) == 1

        assert await ids(hub) == {"live"}
        with anyio.fail_after(10):
            assert await hub.client.call_entity(held, Counter.add) == 1


async def _is_locked(hub: Hub, id: EntityId[Counter]) -> bool:
    status = await hub.client.get_entity(id)
    return status is not None and status.locked_by is not None


@pytest.mark.by_turns
async def test_statuses_say_whether_parked_ones_are_meant(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        await (await hub.client.start_new(ends, instance_id="done")).result(timeout=10)
        await hub.client.start_new(waits, instance_id="live")
        await hub.client.start_new(waits, instance_id="parked")
        await park(hub, "parked")

        assert await hub.client.purge(statuses=["Completed"]) == 1
        assert await ids(hub) == {"live", "parked"}
        assert await hub.client.purge(statuses=["Suspended"]) == 0
        assert await hub.client.purge(statuses=["Running"]) == 1
        assert await ids(hub) == {"live"}


@pytest.mark.by_turns
async def test_newest_first_and_counts(store: Store) -> None:
    clock = ManualClock()
    async with Hub(app, store=store, partitions=3, clock=clock) as hub:
        client = hub.client
        for n in range(9):
            await client.start_new(
                waits if n % 3 else ends, instance_id=f"i{n}", tags={"n": str(n)}
            )
            clock.advance(1)

        down = [status.instance_id async for status in client.query(order="newest", page_size=2)]
        assert down == [f"i{n}" for n in reversed(range(9))]
        first = await client.query_page(order="newest", page_size=4, name=waits)
        second = await client.query_page(
            order="newest", page_size=4, name=waits, continuation_token=first.continuation_token
        )
        found = [status.instance_id for status in (*first.items, *second.items)]
        assert found == ["i8", "i7", "i5", "i4", "i2", "i1"]
        assert await client.count() == 9
        assert await client.count(name=waits) == 6
        assert await client.count(tags={"n": "3"}, instance_id_prefix="i") == 1
        with pytest.raises(UsageError, match="order"):
            await client.query_page(order="up")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_of_another_process_orders_counts_and_purges(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hub", synchronous="OFF")
    async with Hub(app, store=store, partitions=2, socket=tmp_path / "s") as hub:
        for n in range(4):
            await (await hub.client.start_new(ends, instance_id=f"i{n}")).result(timeout=10)
        await hub.client.start_new(asks, 1, instance_id="p")
        await until(lambda: _exists(hub, "p.1"))
        await park(hub, "p")

        async with perdure.connect(tmp_path / "s", app) as client:
            assert await client.count(name=ends) == 4
            found = [status.instance_id async for status in client.query(name=ends, order="newest")]
            assert found == ["i3", "i2", "i1", "i0"]
            assert await client.purge() == 6
            assert await client.count() == 0


@pytest.mark.parametrize("follows", ["in the same batch", "in the next one", "as another end"])
async def test_who_waits_for_an_end_hears_what_is_durable_when_more_follows_it(
    follows: str,
) -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await hub.client.start_new(waits, instance_id="w")
        partition = partition_here(hub, "w")
        more: list[Literal["purge", "start"]] = (
            ["purge"] if follows != "as another end" else ["purge", "start"]
        )
        seen: list[object] = []
        committed = 0

        async def follow(checkpoint: Checkpoint) -> None:
            nonlocal committed
            committed += 1
            if committed == 1 and follows != "in the same batch":
                store.faults.before_commit = hold
                for action in more:
                    send(action)
                await until_true(lambda: partition.activations["w"].dirty)

        async def hold(checkpoint: Checkpoint) -> None:
            await until_true(lambda: bool(seen))

        def send(action: Action | Literal["start"]) -> None:
            message = Start("ends", None, None) if action == "start" else Command(action)
            partition.post("w", message)

        async def wait() -> None:
            try:
                await handle.result(10)
            except PerdureError as error:
                seen.append(type(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await until_true(lambda: "w" in partition.watchers)
            store.faults.before_commit = follow
            send("terminate")
            if follows == "in the same batch":
                send("purge")

        assert seen == [
            InstanceNotFoundError
            if follows == "in the same batch"
            else OrchestrationTerminatedError
        ]
