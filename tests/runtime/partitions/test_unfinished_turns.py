"""A turn with much to do goes on in parts in front of the checkpoint: it is whole there, or not at all."""

from __future__ import annotations

from typing import Any

import anyio
import orjson
import pytest

from perdure import (
    App,
    Cancelled,
    OrchestrationContext,
    StorageError,
    UnavailableError,
    UsageError,
)
from perdure.actors.messages import Command, Completion, Event, Fork, Start
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.actors.replay.executor import WIDE
from perdure.actors.replay.tasks import Task
from tests.runtime.harness import FaultyStore
from tests.runtime.partitions.alone import Alone, alone

app = App()
COUNT = WIDE + 500


@app.activity
async def work(number: int) -> None: ...


@app.orchestration
async def child(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("go")


@app.orchestration
async def give_up(ctx: OrchestrationContext, count: int) -> list[int]:
    """Wait for calls until it is cancelled; then give which of them were, and take an event."""
    calls = [ctx.call_activity(work, number) for number in range(count)]
    cancelled = 0
    try:
        await ctx.task_all(calls)
    except Cancelled:
        cancelled = sum(call.is_cancelled for call in calls)
    return [cancelled, await ctx.wait_for_external_event("n", data_type=int)]


@app.orchestration
async def branch_out(ctx: OrchestrationContext, count: int) -> int:
    """Begin branches, of which each takes one event."""
    taken: list[int] = []

    async def branch(number: int) -> None:
        if number == count - 1:
            await ctx.wait_for_external_event("go")
            raise ValueError("no more")
        try:
            await ctx.wait_for_external_event("never")
        except Cancelled:
            taken.append(number)
            raise

    try:
        async with ctx.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(branch, number)
    except* ValueError:
        pass
    assert taken == list(range(count - 1))
    return len(taken)


def _crash(*given: object) -> None:
    raise RuntimeError("a bug")


async def begun(one: Alone, key: str, name: str) -> None:
    one.door.request(key, Start(name, None, b"%d" % COUNT))
    await one.settle()


async def output(one: Alone, key: str) -> object:
    [record] = await one.partition.store.read_instances([key])
    assert record.status == "Completed", record.status
    return orjson.loads(record.output or b"null")


async def test_no_other_message_is_taken_until_a_turn_is_finished() -> None:
    async with alone(app) as one:
        await begun(one, "i", "give_up")
        one.partition.send("i", Command("cancel", "no more"))
        one.partition.send("i", Event("n", b"7"))
        # An answer to what the turn gives up.
        one.partition.send("i", Completion("TaskCompleted", 1, COUNT, b"null"))
        await one.quiet()
        [(key, _)] = one.partition.batch.unready
        assert key == "i"
        assert len(one.partition.activations["i"].mail) == 2

        await one.settle()

        assert await output(one, "i") == [COUNT, 7]


async def test_a_turn_that_is_not_finished_when_the_store_fails_has_not_happened() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        await begun(one, "i", "give_up")
        waiter = one.door.request("i", Command("cancel", "no more"))
        await one.quiet()
        [(_, steps)] = one.partition.batch.unready
        next(steps)
        one.faults.commit = StorageError("the disk fails")
        await one.commit_loop.commit_once()
        one.faults.commit = None
        with pytest.raises(UnavailableError):
            await waiter
        await one.settle()
        [record] = await one.partition.store.read_instances(["i"])
        assert record.pending == COUNT

        one.partition.send("i", Command("cancel", "no more"))
        one.partition.send("i", Event("n", b"8"))
        await one.settle()

        assert await output(one, "i") == [COUNT, 8]


@pytest.mark.by_turns
@pytest.mark.parametrize("parts", [0, 1, 5])
async def test_a_partition_that_leaves_finishes_what_it_has_begun(parts: int) -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        await begun(one, "i", "give_up")
        one.partition.send("i", Command("cancel", "no more"))
        one.partition.send("i", Event("n", b"9"))
        await one.quiet()
        [(_, steps)] = one.partition.batch.unready
        for _ in range(parts):
            next(steps)
        left = one.partition.leave()
        assert await one.commit_loop.run()
        await left
    async with alone(app, store) as one:
        await one.settle()

        assert await output(one, "i") == [COUNT, 9]


async def test_many_branches_are_begun_and_cancelled_in_order_and_alike_in_a_replay() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        await begun(one, "i", "branch_out")
        [record] = await one.partition.store.read_instances(["i"])
        assert record.status == "Running"
        await one.evict()
        one.partition.send("i", Event("go", b"null"))
        await one.settle()

        assert await output(one, "i") == COUNT - 1


async def test_a_part_of_a_turn_that_crashes_is_recovered_from_as_in_any_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        await begun(one, "i", "give_up")
        one.partition.send("i", Command("cancel", "no more"))
        await one.quiet()
        with monkeypatch.context() as broken:
            broken.setattr(Task, "let_go", _crash)
            await one.commit_loop.commit_once()
        assert one.partition.crashes.in_a_row.keys() == {"i"}
        await one.settle()
        [record] = await one.partition.store.read_instances(["i"])
        assert record.pending == COUNT
        one.partition.send("i", Command("cancel", "no more"))
        one.partition.send("i", Event("n", b"4"))
        await one.settle()

        assert await output(one, "i") == [COUNT, 4]


async def test_a_replay_that_is_broken_off_lets_its_code_go() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        await begun(one, "i", "branch_out")
    async with alone(app, store) as one:
        one.partition.send("i", Event("go", b"null"))
        while one.partition.loader.replays == 0:
            await anyio.lowlevel.checkpoint()
        assert one.partition.activations["i"].actor is None
        # Here the loader is cancelled; code that nobody closed would be told so by its end.


async def test_a_fork_of_much_is_made_in_parts() -> None:
    async with alone(app) as one:
        await begun(one, "i", "give_up")
        [record] = await one.partition.store.read_instances(["i"])
        chunks = await one.partition.store.read_history(record.id)
        fork = Fork("give_up", None, b"%d" % COUNT, "i", COUNT, chunks)
        waiter = one.door.request("j", fork)
        one.partition.send("j", Command("cancel", "no more"))
        one.partition.send("j", Event("n", b"3"))
        await one.quiet()
        assert one.partition.batch.unready

        await one.settle()

        assert await waiter == b"true"
        assert await output(one, "j") == [COUNT, 3]


left: list[str] = []


@app.orchestration
async def take_leave(ctx: OrchestrationContext, count: int) -> None:
    """Wait for calls; note what it may ask for once it is let go."""
    try:
        await ctx.task_all([ctx.call_activity(work, number) for number in range(count)])
    finally:
        try:
            ctx.call_activity(work, count)
        except UsageError as error:
            left.append(str(error))
        else:
            left.append("let go")


async def test_a_fork_that_is_broken_off_lets_its_code_go() -> None:
    async with alone(app) as one:
        await begun(one, "i", "take_leave")
        [record] = await one.partition.store.read_instances(["i"])
        chunks = await one.partition.store.read_history(record.id)
        one.door.request("j", Fork("take_leave", None, b"%d" % COUNT, "i", COUNT, chunks))
        await one.quiet()
        [(_, steps)] = one.partition.batch.unready
        fork = one.partition.activations["j"].actor
        assert isinstance(fork, OrchestrationActor)
        while "_follow" not in _under_way(steps):
            next(steps)
        assert fork.executor is None
        left.clear()

    assert left == ["let go", "let go"]


def _under_way(steps: Any) -> list[str]:
    """Give the generators that a turn has been divided into, outermost first."""
    names: list[str] = []
    while steps is not None:
        names.append(steps.gi_code.co_name)
        steps = steps.gi_yieldfrom
    return names


@pytest.mark.parametrize("parts", [1, 5])
async def test_an_instance_is_explained_as_it_is_between_two_turns(parts: int) -> None:
    async with alone(app) as one:
        await begun(one, "i", "give_up")
        one.partition.send("i", Command("cancel", "no more"))
        await one.quiet()
        [(_, steps)] = one.partition.batch.unready
        for _ in range(parts):
            next(steps)
        explained: list[Any] = []

        async def explain() -> None:
            explained.append(await one.door.explain("i"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(explain)
            while not explained:
                await one.settle()

        [told] = explained
        assert (told["counts"]["activities"], told["counts"]["events"]) == (0, 1)
