from __future__ import annotations

from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    HubStoppingError,
    LeaseLostError,
    OrchestrationContext,
    OutcomeUnknownError,
    StoreDamagedError,
    StoreMovedError,
    UnavailableError,
)
from perdure.actors.messages import Caller, Command, Completion, Event, Operation, Start
from perdure.runtime.partitions import recovery
from perdure.runtime.partitions.recovery import abandon, callers_of, outcome_unknown, reintroduce
from perdure.storage.slices import at_once
from tests.faults import Crash, let_turns_crash
from tests.runtime.harness import FaultyStore, disk_error, lease_lost
from tests.runtime.partitions.alone import Alone, alone
from tests.runtime.told import Told

app = App()
crashes: list[str] = []  # one for each time that an operation is to crash


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def crash(self, amount: int) -> int:
        if crashes:
            raise Crash(crashes.pop())
        return self.add(amount)

    def pass_on(self, amount: int, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Counter, "b"), Counter.add, amount)


@app.activity
async def work(number: int) -> int:
    return number


@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(work, 7)


@app.orchestration
async def wait(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


A, B = "@counter@a", "@counter@b"


@pytest.fixture(autouse=True)
def promptly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no time pass between two tries, and turns crash where a test says so."""
    crashes.clear()

    def at_once(tries: int) -> float:
        return 0

    monkeypatch.setattr(recovery, "backoff", at_once)
    let_turns_crash(monkeypatch)


def ask(one: Alone, key: str = A, name: str = "add", amount: int = 1) -> Told:
    told = Told()
    one.door.request(key, Operation(name, b"%d" % amount, call=True), told)
    return told


def is_well(one: Alone) -> bool:
    return one.partition.gate.reason is None and not one.partition.is_tainted


async def value(one: Alone, key: str = A) -> int:
    return int(await one.call(key, "add", b"0"))


async def test_a_commit_that_failed_leaves_nothing_and_all_who_waited_are_told_so() -> None:
    async with alone(app) as one:
        await ask_and_settle(one, 5)
        first, second = ask(one, A), ask(one, B)
        one.faults.commit = disk_error()

        await one.commit()
        one.faults.commit = None

        for told in (first, second):
            [error] = told.errors
            assert isinstance(error, UnavailableError)
            assert "nothing of it happened" in str(error)
        assert (await value(one, A), await value(one, B)) == (5, 0)
        assert one.partition.gate.reason is None


async def ask_and_settle(one: Alone, amount: int) -> None:
    told = ask(one, A, amount=amount)
    await one.settle()
    assert told.told == [b"%d" % amount]


async def test_a_commit_that_was_stored_and_not_acknowledged_is_answered_as_applied() -> None:
    async with alone(app) as one:
        first = ask(one, A, amount=5)
        await one.quiet()
        one.faults.lost_commit = disk_error()

        await one.commit()
        one.faults.lost_commit = None

        assert (first.told, first.errors) == ([b"5"], [])
        assert await value(one) == 5


async def test_what_was_taken_ahead_of_a_commit_did_not_happen_where_that_failed() -> None:
    async with alone(app) as one:
        first, later = ask(one, A, amount=5), list[Told]()

        async def take_more(checkpoint: Any) -> None:
            one.faults.before_commit = None
            later.append(ask(one, A, amount=6))
            later.append(ask(one, B, amount=7))
            await one.pump.run()

        one.faults.before_commit = take_more
        one.faults.lost_commit = disk_error()
        await one.commit()
        one.faults.lost_commit = None
        await one.settle()

        assert first.told == [b"5"]
        assert [len(told.errors) for told in later] == [1, 1]
        assert (await value(one, A), await value(one, B)) == (5, 0)


async def test_a_crash_is_told_to_its_own_client_and_all_else_is_done_over_unnoticed() -> None:
    async with alone(app) as one:
        beside, later = ask(one, B, amount=5), list[Told]()
        crashes.append("on purpose")
        crashed = ask(one, A, "crash")
        await one.quiet()
        assert one.partition.is_tainted
        recover = one.partition.store.recover

        async def ask_more() -> Any:
            later.append(ask(one, B, amount=6))
            return await recover()

        one.partition.store.recover = ask_more  # type: ignore[method-assign]
        await one.settle()

        [error] = crashed.errors
        assert "a turn of @counter@a crashed (Crash: on purpose)" in str(error)
        assert (beside.told, beside.errors) == ([b"5"], [])
        assert [told.told for told in later] == [[b"11"]]
        assert one.partition.waiting == 0


async def test_crashes_in_a_row_are_counted_and_forgotten_with_a_turn_that_stands() -> None:
    async with alone(app) as one:
        for count in (1, 2):
            crashes.append("on purpose")
            ask(one, A, "crash")
            await one.settle()
            assert one.partition.crashes.in_a_row == {A: count}

        await ask_and_settle(one, 5)

        assert one.partition.crashes.in_a_row == {}


async def test_what_actors_sent_is_neither_lost_nor_sent_twice_where_another_crashes() -> None:
    async with alone(app) as one:
        for amount in (1, 2):
            ask(one, A, "pass_on", amount)
        await one.settle()
        crashes.append("on purpose")
        passed = ask(one, "@counter@c", "pass_on", 4)
        lost = ask(one, A, "pass_on", 8)
        ask(one, A, "crash")

        await one.settle()

        assert (len(passed.told), len(lost.errors)) == (1, 1)
        assert await value(one, B) == 7


async def test_activities_run_again_where_their_answers_did_not_come_and_only_there() -> None:
    async with alone(app) as one:
        for key in ("x", "y"):
            one.door.request(key, Start("flow", None, None))
        await one.settle()
        calls = [call.caller for call in one.activities.calls]
        assert calls == [Caller("x", 1, 1), Caller("y", 1, 1)]
        one.faults.commit = disk_error()
        ask(one)
        await one.commit()
        one.faults.commit = None

        assert one.activities.stopped == 1
        assert sorted(call.caller for call in one.activities.calls) == calls
        crashes.append("on purpose")
        ask(one, A, "crash")
        await one.settle()

        assert one.activities.stopped == 1  # a crash of somebody stops nobody's
        assert sorted(call.caller for call in one.activities.calls) == calls


async def test_an_answer_that_comes_during_a_recovery_from_a_crash_is_taken_after_it() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        one.door.request("x", Start("flow", None, None))
        await one.settle()
        recover = one.partition.store.recover

        async def answer() -> Any:
            one.door.post_answer("x", Completion("TaskCompleted", 1, 1, b"7"))
            return await recover()

        one.partition.store.recover = answer  # type: ignore[method-assign]
        crashes.append("on purpose")
        ask(one, A, "crash")
        await one.settle()
        outcome: list[Any] = []

        async def wait_for_end() -> None:
            outcome.append(await one.door.wait_for_end("x"))

        tasks.start_soon(wait_for_end)
        await one.settle()
        assert outcome == [("Completed", b"7", None)]


async def test_who_waits_for_an_end_looks_again_after_a_recovery() -> None:
    async with alone(app) as one:
        one.door.request("x", Start("wait", None, None))
        await one.settle()
        told = Told()
        one.door.watch_with("x", told)
        one.faults.commit = disk_error()
        ask(one)

        await one.commit()
        one.faults.commit = None

        assert told.told == [None]


async def test_what_waits_in_a_stored_mailbox_is_there_again_though_memory_was_dropped() -> None:
    async with alone(app) as one:
        one.door.request("x", Start("wait", None, None))
        one.door.request("x", Command("suspend"))
        await one.settle()
        event = Told()
        one.door.request("x", Event("go", b"7"), event)
        await one.settle()
        assert event.told == [None]  # it waits, and is as good as done
        one.faults.commit = disk_error()
        ask(one)
        await one.commit()
        one.faults.commit = None
        one.door.request("x", Command("resume"))
        await one.settle()

        assert await one.door.wait_for_end("x") == ("Completed", b"7", None)


async def test_a_store_that_cannot_be_read_is_tried_again_until_it_can() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        await ask_and_settle(one, 5)
        told = ask(one)
        one.faults.commit = one.faults.recover = disk_error()
        await one.quiet()
        tasks.start_soon(one.commit_loop.commit_once)
        while one.faults.recoveries < 5:
            await anyio.lowlevel.checkpoint()
        assert not is_well(one)
        assert told.errors == []
        one.faults.commit = one.faults.recover = None
        while not is_well(one):
            await anyio.lowlevel.checkpoint()

        assert len(told.errors) == 1
        assert await value(one) == 5


async def test_nobody_waits_for_long_for_a_store_that_stays_unwell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "SILENT_S", 0.0)
    told, repeated = Told(), Told()
    async with alone(app) as one, anyio.create_task_group() as tasks:
        one.door.request(A, Operation("add", b"1", call=True), told)
        await one.partition.requests.outcome_of_first("r", "r")
        one.partition.requests.under_way["r"].append(repeated)
        one.faults.commit = one.faults.recover = disk_error()
        await one.quiet()
        tasks.start_soon(one.commit_loop.commit_once)
        while not told.errors:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    for one_told in (told, repeated):
        error = one_told.errors[0]
        assert isinstance(error, OutcomeUnknownError)
        assert "repeat it under the same request id" in str(error)


@pytest.mark.parametrize(
    "error", [lease_lost(), StoreMovedError("moved"), StoreDamagedError("damaged")]
)
async def test_a_store_that_does_not_come_back_ends_the_partition(error: Exception) -> None:
    async with alone(app) as one:
        told = ask(one)
        one.faults.commit, one.faults.recover = disk_error(), error

        await one.commit()

        assert one.fatal == [error]
        assert isinstance(told.errors[0], OutcomeUnknownError)
        assert one.partition.gate.reason is not None


async def test_a_recovery_that_is_cut_off_leaves_nobody_waiting() -> None:
    async with alone(app) as one:
        told, waiting = ask(one), list[Told]()
        await one.quiet()
        one.faults.commit = disk_error()

        async def hang() -> Any:
            scope.cancel()
            await anyio.sleep_forever()

        one.partition.store.recover = hang  # type: ignore[method-assign]
        with anyio.CancelScope() as scope:
            await one.commit_loop.commit_once()
        one.faults.commit = None

        assert isinstance(told.errors[0], OutcomeUnknownError)
        assert waiting == []


async def test_what_breaks_down_again_as_it_goes_on_is_recovered_from_once_more() -> None:
    async with alone(app) as one:
        one.door.request("x", Start("flow", None, None))
        await one.settle()
        read, fails = one.partition.store.read_instances, [disk_error()]

        async def fail_once(keys: Any, *, payloads: bool = True) -> Any:
            if fails:
                raise fails.pop()
            return await read(keys, payloads=payloads)

        one.partition.store.read_instances = fail_once  # type: ignore[method-assign]
        one.faults.commit = disk_error()
        ask(one)
        await one.commit()
        assert not is_well(one)
        one.faults.commit = None

        await one.settle()

        assert is_well(one)
        assert [call.caller for call in one.activities.calls] == [Caller("x", 1, 1)]


async def test_a_partition_that_is_given_up_tells_everybody_who_waits() -> None:
    async with alone(app) as one:
        one.door.request("x", Start("wait", None, None))
        await one.settle()
        told, watching, leaving = ask(one), Told(), one.partition.leave()
        one.door.watch_with("x", watching)
        await one.quiet()
        waits_in_its_mailbox = ask(one, B)

        at_once(abandon(one.partition))

        for who in (told, watching, waits_in_its_mailbox):
            assert [type(error) for error in who.errors] == [HubStoppingError]
        with pytest.raises(HubStoppingError):
            await leaving
        assert one.partition.activations == {}


async def test_a_request_that_waits_in_the_store_may_be_applied_by_the_next_hub() -> None:
    async with alone(app) as one:
        told = ask(one)
        [message] = one.partition.activations[A].mail
        message.row = 7

        at_once(abandon(one.partition))

        assert isinstance(told.errors[0], OutcomeUnknownError)


class Place:
    def __init__(self, index: int) -> None:
        self.index = index
        self.asked: list[int] = []

    def resend(self, target: int) -> None:
        self.asked.append(target)


async def test_partitions_tell_each_other_what_either_may_have_missed() -> None:
    async with alone(app) as one:
        others: Any = [one.door, Place(1), Place(2)]
        resent: list[int] = []
        exchange: Any = one.partition.exchange
        exchange.resend = resent.append
        one.partition.places = others

        reintroduce(one.partition)

        assert resent == [1, 2]
        assert [other.asked for other in others[1:]] == [[0], [0]]
        one.partition.places = [one.door]


def test_all_who_wait_for_activities_on_other_shards_are_known() -> None:
    one, other = Caller("x", 1, 1), Caller("y", 1, 2)

    assert callers_of({}) == set()
    assert callers_of({1: {one}, 2: {one, other}}) == {one, other}


def test_who_cannot_know_is_told_how_to_find_out() -> None:
    assert "repeat it under the same request id" in str(outcome_unknown())


async def test_a_lost_lease_is_told_to_who_waits_and_is_not_recovered_from() -> None:
    async with alone(app) as one:
        told = ask(one)
        one.faults.commit = lease_lost()
        recoveries = one.faults.recoveries

        await one.commit()
        one.faults.commit = None

        assert isinstance(told.errors[0], LeaseLostError)
        assert one.fatal == [told.errors[0]]
        assert one.faults.recoveries == recoveries


async def test_a_partition_comes_back_from_its_store_as_it_was() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        await ask_and_settle(one, 5)
        one.door.request("x", Start("flow", None, None))
        one.door.request("y", Start("wait", None, None))
        await one.settle()
        numbers = (one.partition.sequence, one.partition.next_id)

    async with alone(app, store) as one:
        assert one.partition.sequence == numbers[0]
        assert one.partition.next_id >= numbers[1]
        assert [call.caller for call in one.activities.calls] == [Caller("x", 1, 1)]
        one.door.post_answer("x", Completion("TaskCompleted", 1, 1, b"7"))
        one.door.request("y", Event("go", b"8"))
        await one.settle()
        assert await value(one) == 5
        assert await one.door.wait_for_end("x") == ("Completed", b"7", None)
        assert await one.door.wait_for_end("y") == ("Completed", b"8", None)
