"""A large checkpoint is made with pauses, and turns that are taken at these are in it as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from perdure import App, EntityId, OrchestrationContext, StorageError
from perdure.actors.ids import split_entity
from perdure.actors.messages import Command, Event, Message, Operation, Start
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.runtime.partitions.checkpoint import store_mail, store_much_mail, tell_ahead
from perdure.storage import slices
from perdure.storage.slices import at_once
from tests.runtime.harness import FaultyStore
from tests.runtime.partitions.alone import Alone, alone

app = App()


@app.entity
class Sum:
    total: int = 0

    def add(self, amount: int) -> None:
        self.total += amount

    def get(self) -> int:
        return self.total


@app.orchestration
async def wait(ctx: OrchestrationContext, name: str) -> Any:
    return await ctx.wait_for_external_event(name)


@app.orchestration
async def go_on(ctx: OrchestrationContext, numbers: int) -> list[int]:
    if numbers:
        return [await ctx.wait_for_external_event("n", data_type=int) for _ in range(numbers)]
    ctx.continue_as_new(await ctx.wait_for_external_event("go", data_type=int), keep_events=True)
    return []


@app.activity
async def work(number: int) -> None: ...


@app.orchestration
async def return_before(ctx: OrchestrationContext, count: int) -> None:
    for number in range(count):
        ctx.call_activity(work, number)
    await ctx.wait_for_external_event("go")


SUM = str(EntityId(Sum, "a"))


def signal(one: Alone, times: int) -> None:
    for _ in range(times):
        one.partition.send(SUM, Operation("add", b"1"))


async def test_what_is_consumed_at_a_pause_gets_no_row_and_all_else_does() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        assert await one.call(SUM, "get") == b"0"
        partition = one.partition
        activation = partition.activations[SUM]
        signal(one, 1_000)

        steps = store_much_mail(partition, partition.batch, activation)
        next(steps)
        for _ in range(2):  # two turns of 200 messages
            activation.run()
        signal(one, 10)
        at_once(steps)

        rows = [row.n for row in partition.batch.mail]
        assert len(rows) == 256 + 600 + 10
        assert rows == sorted(set(rows))
        assert set(partition.batch.mail_deleted) == set(rows[:256])
        assert activation.strays == set()
        await one.commit_loop.commit_once()
    async with alone(app, store) as one:
        await one.settle()
        assert await one.call(SUM, "get") == b"1010"


@pytest.mark.parametrize("in_steps", [False, True])
async def test_a_row_that_is_given_late_is_known_to_be_out_of_order(in_steps: bool) -> None:
    async with alone(app) as one:
        assert await one.call(SUM, "get") == b"0"
        partition = one.partition
        activation = partition.activations[SUM]
        signal(one, 600)
        first = activation.mail[0]
        first.keep = False
        at_once(store_much_mail(partition, partition.batch, activation))
        signal(one, 1)

        first.keep = True
        if in_steps:
            at_once(store_much_mail(partition, partition.batch, activation))
        else:
            store_mail(partition, partition.batch, activation)

        assert activation.mail[599].row < first.row < activation.mail[600].row
        assert activation.strays == {first.row}


async def events(one: Alone, instance: int) -> list[Any]:
    """Give the history of an instance, however many parts it was stored in."""
    chunks = await one.partition.store.read_history(instance)
    return [event for chunk in chunks for event in orjson.loads(chunk)]


Act = Callable[[Alone], None]


def take(key: str, *messages: Message) -> Act:
    def act(one: Alone) -> None:
        for message in messages:
            one.door.request(key, message)

    return act


@pytest.mark.parametrize(
    "act",
    [
        take("x"),
        take("x", Event("go", b"7")),
        take("x", Event("other", b"7"), Command("suspend", "a while")),
        take("x", Command("terminate", "no more")),
        take("x", Start("wait", None, b'"go"', on_existing="replace"), Event("go", b"8")),
        take("x", Command("terminate", "no more"), Command("purge")),
        take("c", Event("go", b"3")),
        take(SUM, Operation("add", b"5", call=True)),
        take("y", Start("wait", None, b'"go"')),
    ],
    ids=["none", "ends", "suspended", "terminated", "replaced", "purged", "goes on", "add", "new"],
)
async def test_what_is_told_ahead_of_the_seal_and_since_is_what_is_told_at_once(act: Act) -> None:
    stored: list[Any] = []
    for ahead in (False, True):
        async with alone(app) as one:
            take("x", Start("wait", None, b'"go"'))(one)
            take("c", Start("go_on", None, b"0"))(one)
            signal(one, 3)
            await one.quiet()
            if ahead:
                at_once(tell_ahead(one.partition, one.partition.batch))
                assert len(one.partition.batch.ahead) == 3
            act(one)
            await one.quiet()
            await one.settle()
            read = one.partition.store
            records = await read.read_instances(["x", "c", "y"])
            stored.append(
                (
                    records,
                    [await events(one, record.id) for record in records],
                    await read.read_entities([split_entity(SUM)]),
                )
            )

    assert stored[0][0]
    assert stored[0] == stored[1]


async def test_the_loop_turns_while_many_tell_what_a_checkpoint_has_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = [0]
    seal = OrchestrationActor.seal

    def count(actor: OrchestrationActor, now: int) -> Any:
        counts[-1] += 1
        return seal(actor, now)

    async def see_turns() -> None:
        while True:
            await checkpoint()
            counts.append(0)

    monkeypatch.setattr(OrchestrationActor, "seal", count)
    monkeypatch.setattr(slices, "slice_s", 0.0)
    async with alone(app) as one, create_task_group() as tasks:
        for number in range(1_000):
            one.door.request(f"i{number}", Start("wait", None, b'"go"'))
        await one.quiet()
        tasks.start_soon(see_turns)

        await one.commit_loop.commit_once()

        tasks.cancel_scope.cancel()
    assert sum(counts) == 1_000
    assert max(counts) <= 4 * 64  # several slices may be in one turn


@pytest.mark.parametrize("behind", [0, 300])
async def test_many_events_are_kept_in_order_in_front_of_what_comes_later(behind: int) -> None:
    store = FaultyStore()
    kept = 1_000
    async with alone(app, store) as one:
        one.door.request("c", Start("go_on", None, b"0"))
        for number in range(kept):
            one.partition.send("c", Event("n", b"%d" % number))
        one.partition.send("c", Event("go", b"%d" % (kept + behind)))
        for number in range(kept, kept + behind):
            one.partition.send("c", Event("n", b"%d" % number))
        await one.quiet()
        assert one.partition.batch.unready
        await one.commit_loop.commit_once()
    async with alone(app, store) as one:
        await one.settle()

        [record] = await one.partition.store.read_instances(["c"])
        assert record.status == "Completed"
        numbers = ",".join(map(str, range(kept + behind)))
        assert record.output == f"[{numbers}]".encode()


async def test_a_partition_that_leaves_takes_along_the_events_that_are_being_kept() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        one.door.request("c", Start("go_on", None, b"0"))
        for number in range(1_000):
            one.partition.send("c", Event("n", b"%d" % number))
        one.partition.send("c", Event("go", b"1000"))
        await one.quiet()
        assert one.partition.batch.unready
        left = one.partition.leave()
        assert await one.commit_loop.run()
        await left
    async with alone(app, store) as one:
        await one.settle()

        [record] = await one.partition.store.read_instances(["c"])
        assert record.status == "Completed"


async def test_a_partition_that_leaves_takes_along_many_activities_behind_a_return() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        one.door.request("a", Start("return_before", None, b"1000"))
        await one.settle()
        assert len(one.activities.calls) == 1_000
        one.partition.send("a", Event("go", b"1"))
        await one.quiet()
        assert one.partition.leftovers.unwritten
        left = one.partition.leave()
        assert await one.commit_loop.run()
        await left
    async with alone(app, store) as one:
        await one.settle()

        assert len(one.activities.calls) == 1_000


async def test_nothing_stands_of_a_checkpoint_that_fails_after_it_was_made_with_pauses() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        one.door.request("c", Start("go_on", None, b"0"))
        await one.settle()
        for number in range(1_000):
            one.partition.send("c", Event("n", b"%d" % number))
        one.partition.send("c", Event("go", b"1000"))
        await one.quiet()
        assert one.partition.batch.unready
        [(_, steps)] = one.partition.batch.unready
        next(steps)
        at_once(tell_ahead(one.partition, one.partition.batch))
        one.faults.commit = StorageError("the disk fails")
        await one.commit_loop.commit_once()
        one.faults.commit = None
        assert not one.partition.batch.unready
        assert not one.partition.batch.ahead

        await one.settle()

        [record] = await one.partition.store.read_instances(["c"])
        assert record.status == "Running"
        assert await events(one, record.id)


async def test_events_that_are_being_kept_do_not_outlive_a_termination() -> None:
    async with alone(app) as one:
        one.door.request("c", Start("go_on", None, b"0"))
        for number in range(1_000):
            one.partition.send("c", Event("n", b"%d" % number))
        one.partition.send("c", Event("go", b"1"))
        one.partition.send("c", Command("terminate", "no more"))
        await one.settle()

        [record] = await one.partition.store.read_instances(["c"])
        assert record.status == "Terminated"
        assert one.partition.waiting == one.partition.overflow.count == 0
        assert not any(one.count for one in one.partition.activations.values())
