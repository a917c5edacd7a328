from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from anyio import CancelScope, create_task_group, sleep_forever
from anyio.lowlevel import checkpoint

from perdure import (
    App,
    EntityContext,
    EntityId,
    Hub,
    LeaseLostError,
    OrchestrationContext,
    OutcomeUnknownError,
    Settings,
    StorageError,
    StoreMovedError,
    UnavailableError,
)
from perdure.actors.entities.entity import EntityActor
from perdure.actors.messages import Event, Operation, Start
from perdure.runtime.partitions.commit_loop import CommitLoop
from perdure.runtime.partitions.door import Door
from perdure.runtime.partitions.partition import Partition
from perdure.runtime.partitions.rounds import Rounds
from perdure.runtime.scheduling.allowance import Allowance
from perdure.storage import Checkpoint
from tests.faults import Crash, let_turns_crash, within
from tests.runtime.harness import FaultyStore, partition_here, until
from tests.runtime.partitions.alone import Alone, alone
from tests.runtime.told import Told

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
    CommitLoop(partition, Rounds(partition.new_waiter), Allowance(4e-9)).drain()


def sent(hub: Hub, id: EntityId[Any], operation: str, times: int) -> Partition:
    """Have messages wait for an entity that must be stored, if it does not take them."""
    partition = partition_here(hub, str(id))
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


# On a partition without a hub, whose commits happen when the test says so.


@app.activity
async def work(number: int) -> int:
    return number


@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> Any:
    if name == "work":
        return await ctx.call_activity(work, 7)
    return await ctx.wait_for_external_event(name)


def ask(one: Alone, id: EntityId[Any] = SUM, operation: str = "add") -> Told:
    told = Told()
    one.door.request(str(id), Operation(operation, b"1", call=True), told)
    return told


async def test_nothing_leaves_before_its_commit_and_all_of_it_does_then() -> None:
    async with alone(app) as one:
        seen: list[Any] = []

        async def look(checkpoint: Checkpoint) -> None:
            seen.append(([*told.told], [*one.activities.calls], one.partition.commits))

        one.faults.before_commit = look
        told = ask(one)
        one.door.request("x", Start("flow", None, b'"work"'))

        await one.commit()

        assert seen == [([], [], 0)]
        assert told.told == [b"null"]
        assert [call.name for call in one.activities.calls] == ["work"]
        assert (one.partition.commits, one.partition.sequence) == (1, 1)
        assert (one.partition.turns, one.partition.messages) == (2, 2)


async def test_who_waits_for_what_is_durable_already_is_answered_without_a_commit() -> None:
    async with alone(app) as one, create_task_group() as tasks:
        ask(one)
        await one.settle()
        commits = one.faults.commits
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await one.door.wait_durable())

        tasks.start_soon(wait)
        await one.commit()
        await one.quiet()

        assert answers == [None]
        assert one.faults.commits == commits


async def test_what_gathers_while_a_commit_is_under_way_is_the_next_one_s() -> None:
    async with alone(app) as one:
        later: list[Told] = []

        async def take_more(checkpoint: Checkpoint) -> None:
            one.faults.before_commit = None
            assert one.partition.flying is not None
            later.append(ask(one))
            await one.quiet()

        one.faults.before_commit = take_more
        first = ask(one)
        await one.commit()
        assert (first.told, later[0].told) == ([b"null"], [])
        assert one.partition.flying is None

        await one.settle()

        assert later[0].told == [b"null"]
        assert one.partition.commits == 2


async def test_who_waits_for_a_commit_goes_on_when_it_has_ended_however_it_did() -> None:
    async with alone(app) as one:
        woken: list[str] = []
        activation: Any = SimpleNamespace(queued=False, wake=lambda: woken.append("woken"))

        async def defer(checkpoint: Checkpoint) -> None:
            assert one.partition.defers(activation)
            raise StorageError("the disk fails")

        one.faults.before_commit = defer
        ask(one, NEXT)
        await one.commit()

        assert woken == ["woken"]
        assert one.partition.failed_commits == 1
        assert one.faults.recoveries == 2  # one at the start
        one.faults.before_commit = None
        ask(one, NEXT)
        await one.settle()
        assert one.partition.failed_commits == 0


@pytest.mark.parametrize(
    ("error", "told_of"),
    [
        (LeaseLostError("another has it"), LeaseLostError),
        (StoreMovedError("its files are gone"), OutcomeUnknownError),
    ],
)
async def test_who_has_lost_its_store_stops_and_recovers_nothing(
    error: Exception, told_of: type[Exception]
) -> None:
    async with alone(app) as one:
        recoveries = one.faults.recoveries
        told = ask(one)
        one.faults.commit = error

        await one.commit()

        assert one.fatal == [error]
        assert [type(one_error) for one_error in told.errors] == [told_of]
        assert one.faults.recoveries == recoveries


async def test_a_commit_that_is_cut_off_tells_that_nobody_knows_what_became_of_it() -> None:
    async with alone(app) as one:

        async def hang(checkpoint: Checkpoint) -> None:
            cut.cancel()
            await sleep_forever()

        told = ask(one)
        await one.quiet()
        one.faults.before_commit = hang
        with CancelScope() as cut:
            await one.commit_loop.commit_once()

        assert [type(error) for error in told.errors] == [OutcomeUnknownError]
        assert one.partition.flying is None


async def test_memory_that_is_tainted_while_a_commit_is_under_way_is_dropped_behind_it() -> None:
    async with alone(app) as one:

        async def taint(checkpoint: Checkpoint) -> None:
            one.faults.before_commit = None
            one.partition.break_down(ValueError("a bug"))

        one.faults.before_commit = taint
        told = ask(one)
        one.door.request("x", Start("flow", None, b'"work"'))
        await one.commit()
        assert told.told == [b"null"]  # it is durable, and says so
        assert one.activities.calls == []  # the recovery does

        await one.settle()

        assert one.faults.recoveries == 2  # one at the start
        assert [call.name for call in one.activities.calls] == ["work"]
        assert await one.call(str(SUM), "get") == b"1"


async def test_a_state_that_cannot_be_stored_is_laid_at_its_actor_s_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with alone(app) as one:
        ask(one)
        await one.settle()
        seal = EntityActor.seal

        def fail(actor: EntityActor, now: int) -> Any:
            if actor.entity_key == SUM.key:
                raise StorageError("no bytes for it")
            return seal(actor, now)

        monkeypatch.setattr(EntityActor, "seal", fail)
        guilty, innocent = ask(one), ask(one, NEXT)
        await one.commit()
        assert one.partition.crashes.in_a_row == {str(SUM): 1}
        monkeypatch.undo()
        await one.settle()

        [error] = guilty.errors
        assert isinstance(error, UnavailableError)
        assert innocent.told == [b"null"]


async def test_the_end_of_an_instance_that_goes_on_is_what_is_durable() -> None:
    async with alone(app) as one:
        one.door.request("x", Start("flow", None, b'"go"'))
        await one.settle()
        told = Told()
        one.door.watch_with("x", told)
        one.door.request("x", Event("go", b"7"))

        await one.settle()

        assert told.told == [("Completed", b"7", None)]
        assert "x" not in one.partition.activations  # and it takes no memory any more


class Watched:
    """A watch that writes down what it is told of checkpoints."""

    sees_checkpoints = True

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, what: str, facts: Any) -> int:
        self.told.append((what, *facts))
        return len(self.told)

    def end(self, what: str, begun: int, outcome: Any) -> None:
        self.told.append((what, begun, outcome))


async def test_each_checkpoint_is_told_with_what_is_in_it_and_how_it_ended() -> None:
    async with alone(app) as one:
        watch: Any = Watched()
        one.commit_loop = CommitLoop(
            one.partition, Rounds(one.partition.new_waiter), Allowance(0.004), watch
        )
        for _ in range(2):
            ask(one)
        await one.settle()
        ask(one)
        one.faults.commit = error = StorageError("the disk fails")
        await one.commit()
        one.faults.commit = None

    assert watch.told == [
        ("checkpoint", 0, 1, 1, 2),
        ("checkpoint", 1, None),
        ("checkpoint", 0, 2, 1, 1),
        ("checkpoint", 3, error),
    ]


async def test_the_loop_commits_what_gathers_until_the_partition_leaves() -> None:
    async with alone(app) as one, create_task_group() as tasks:
        ended: list[bool] = []

        async def run() -> None:
            ended.append(await one.commit_loop.run())

        tasks.start_soon(run)
        waiters = [one.door.request(str(id), Operation("add", b"1")) for id in (SUM, NEXT)]
        for waiter in waiters:
            while one.pump.ready or one.partition.loader.is_loading:
                await one.pump.run()
                await checkpoint()
            await waiter
        assert one.partition.leaving is None
        left = one.partition.leave()

        assert await left == {}

        while not ended:
            await checkpoint()
        assert ended == [True]
        assert one.partition.gate.has_moved


async def test_a_partition_that_is_tainted_recovers_before_it_leaves() -> None:
    async with alone(app) as one, create_task_group() as tasks:
        one.partition.break_down(ValueError("a bug"))
        left = one.partition.leave()

        tasks.start_soon(one.commit_loop.run)

        await left
        assert one.faults.recoveries == 2
