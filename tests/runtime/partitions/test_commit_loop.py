"""What waits for an entity at a checkpoint: taken in front of it, so that it is not stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure import App, EntityContext, EntityId, Hub, OrchestrationContext, Settings
from perdure.actors.messages import Operation
from perdure.runtime.partitions.commit_loop import CommitLoop
from perdure.runtime.partitions.door import Door
from perdure.runtime.partitions.partition import Partition
from perdure.runtime.partitions.rounds import Rounds
from perdure.storage import Checkpoint
from tests.faults import Crash, let_turns_crash, within
from tests.runtime.harness import FaultyStore, partition_here, until

app = App()
exits: list[str] = []  # one for each time that an operation is to crash


class Adding:
    total: int = 0

    def add(self, amount: int) -> None:
        self.total += amount

    def get(self) -> int:
        return self.total


@app.entity
class Sum(Adding):
    def crash(self, amount: int) -> None:
        if exits:
            raise Crash(exits.pop())
        self.total += amount

    def pass_on(self, amount: int, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Sum, "next"), Sum.add, amount)


@app.entity
class Slow(Adding):
    async def wait(self) -> None:
        """Do nothing; but what is async may suspend."""


@app.orchestration
async def send(ctx: OrchestrationContext, times: int) -> None:
    for _ in range(times):
        ctx.signal_entity(SUM, Sum.add, 1)
    await ctx.wait_for_external_event("go")


SUM, NEXT, SLOW = EntityId(Sum, "s"), EntityId(Sum, "next"), EntityId(Slow, "s")


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
async def hub(store: FaultyStore) -> AsyncIterator[Hub]:
    # It looks at the event loop after every turn, so that checkpoints come in between.
    settings = Settings(pump_budget_s=1e-9, turn_messages_max=20)
    async with within(), Hub(app, store=store, partitions=1, settings=settings) as hub:
        for id in (SUM, NEXT, SLOW):
            await hub.client.call_entity(id, "get")  # so that they are in memory
        yield hub


def drain(partition: Partition) -> None:
    CommitLoop(partition, Rounds(partition.new_waiter)).drain()


def sent(hub: Hub, id: EntityId[Any], operation: str, times: int) -> Partition:
    """Have messages wait for an entity that must be stored, if it does not take them."""
    partition = partition_here(hub.client, str(id))
    for _ in range(times):
        partition.send(str(id), Operation(operation, b"1"))
    return partition


def waiting(partition: Partition, id: EntityId[Any]) -> int:
    return partition.activations[str(id)].count


async def total(hub: Hub, id: EntityId[Any]) -> int:
    return int(await hub.client.call_entity(id, "get"))


async def test_signals_that_wait_at_a_checkpoint_are_taken_and_not_stored(
    hub: Hub, store: FaultyStore
) -> None:
    stored: list[int] = []

    async def note(checkpoint: Checkpoint) -> None:
        stored.append(len(checkpoint.mail))

    store.faults.before_commit = note
    handle = await hub.client.start_new(send, 20)
    await handle.raise_event("go")
    await handle.result()

    assert sum(stored) == 0
    assert await total(hub, SUM) == 20


async def test_the_pump_passes_over_what_was_taken_and_takes_what_comes_later(hub: Hub) -> None:
    partition = sent(hub, SUM, "add", 3)
    drain(partition)
    assert waiting(partition, SUM) == 0
    sent(hub, SUM, "add", 4)

    assert await total(hub, SUM) == 7


async def test_a_turn_has_its_limit_and_no_turn_begins_when_the_time_is_over(hub: Hub) -> None:
    partition = sent(hub, SUM, "add", 50)
    drain(partition)

    assert waiting(partition, SUM) == 30  # one turn is as long as it may take
    assert await total(hub, SUM) == 50


async def test_a_batch_that_is_full_takes_no_more(hub: Hub) -> None:
    partition = sent(hub, SUM, "add", 3)
    partition.batch.size = 1 << 30
    drain(partition)

    assert waiting(partition, SUM) == 3
    assert await total(hub, SUM) == 3


async def test_what_is_sent_on_meanwhile_is_left_to_the_pump(hub: Hub) -> None:
    partition = sent(hub, SUM, "pass_on", 5)
    drain(partition)

    assert (waiting(partition, SUM), waiting(partition, NEXT)) == (0, 5)

    async def arrived() -> bool:
        return await total(hub, NEXT) == 5

    await until(arrived)


async def test_an_entity_that_may_suspend_takes_its_turns_in_the_pump_only(hub: Hub) -> None:
    partition = sent(hub, SLOW, "add", 5)
    drain(partition)

    assert waiting(partition, SLOW) == 5
    assert await total(hub, SLOW) == 5


async def test_a_crash_in_front_of_a_checkpoint_leaves_nothing_of_the_batch(
    hub: Hub, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_turns_crash(monkeypatch)
    partition = sent(hub, SUM, "add", 1)
    await Door(partition).wait_durable()
    recoveries = store.faults.recoveries
    exits[:] = ["crashed on purpose"]
    sent(hub, SUM, "add", 10)
    sent(hub, SUM, "crash", 1)
    sent(hub, NEXT, "add", 1)
    drain(partition)

    async def recovered() -> bool:
        return store.faults.recoveries > recoveries and partition.gate.reason is None

    await until(recovered)
    assert exits == []
    assert await total(hub, SUM) == 1
    assert await total(hub, NEXT) == 0
