"""Cancel scopes and task groups as pure decisions; how they feel is tested with a hub."""

from __future__ import annotations

import gc
import random
from typing import Any

import orjson
import pytest

from perdure import App, OrchestrationContext
from perdure.actors.messages import Event, Start, TimerDue
from perdure.actors.registry.lookup import Lookup
from tests.actors.recording import START, Instance

SECOND = 1_000_000


def begun(flow: Any) -> Instance:
    """An instance of an orchestration after its first turn."""
    local = App()
    local.orchestration(name="flow")(flow)
    instance = Instance(Lookup(local, 1_000_000))
    instance.take(Start("flow", None, None), START)
    return instance


def decisions(instance: Instance) -> list[str]:
    """The types of the events in a history."""
    return [event[0] for event in instance.history]


async def with_deadline(ctx: OrchestrationContext) -> str:
    with ctx.move_on_after(10) as scope:
        await ctx.wait_for_external_event("go")
    await ctx.wait_for_external_event("end")
    return f"{scope.cancel_called} {scope.cancelled_caught}"


def test_a_deadline_is_a_timer_of_the_history() -> None:
    with begun(with_deadline) as instance:
        assert instance.history[1][0] == "TimerCreated"
        assert instance.history[1][3] == START + 10 * SECOND


def test_leaving_the_scope_in_time_takes_its_timer_back() -> None:
    with begun(with_deadline) as instance:
        effects = instance.take(Event("go", b"1"), START + 1)

        assert effects == [("disarm timer", ("x", 1, 1)), ("reply", None)]
        assert decisions(instance) == ["ExecutionStarted", "TimerCreated", "EventRaised"]


def test_a_deadline_that_fires_behind_the_scope_changes_nothing() -> None:
    with begun(with_deadline) as instance:
        instance.take(Event("go", b"1"), START + 1)
        before = instance.state()

        assert instance.take(TimerDue(1, 1), START + 10 * SECOND) == []
        assert instance.state() == before
        instance.take(Event("end", b"1"), START + 11 * SECOND)
        assert instance.actor.output == b'"False False"'


def test_cancelling_a_scope_takes_back_what_is_awaited_inside() -> None:
    with begun(with_deadline) as instance:
        instance.take(TimerDue(1, 1), START + 10 * SECOND)

        assert instance.state()["waiters"] == {"end": 1}
        instance.take(Event("end", b"1"), START + 11 * SECOND)
        assert instance.actor.output == b'"True True"'


async def endless_group(ctx: OrchestrationContext) -> None:
    async def branch(name: str) -> None:
        await ctx.wait_for_external_event(name)

    async with ctx.create_task_group() as tg:
        for name in "abc":
            tg.start_soon(branch, name)


def test_a_group_has_a_fiber_for_each_branch_and_one_for_its_body() -> None:
    with begun(endless_group) as instance:
        assert instance.state()["fibers"] == 4
        for left, name in zip((3, 2), "ba", strict=True):
            instance.take(Event(name, b"1"), START + 1)
            assert instance.state()["fibers"] == left
        instance.take(Event("c", b"1"), START + 1)

        assert instance.actor.status == "Completed"


@pytest.mark.parametrize("count", [2, 2_000])
def test_branches_that_begin_as_the_code_is_let_go_are_dropped_with_it(count: int) -> None:
    begins = 0

    async def begins_at_its_end(ctx: OrchestrationContext) -> None:
        async def branch() -> None:
            nonlocal begins
            try:
                await ctx.wait_for_external_event("never")
            finally:
                begins += 1
                tg.start_soon(branch)

        async with ctx.create_task_group() as tg:
            for _ in range(count):
                tg.start_soon(branch)

    with begun(begins_at_its_end) as instance:
        rest = instance.actor.close()
        for _ in rest or ():
            pass
    gc.collect()  # a coroutine that was never awaited says so now

    assert begins == count


def test_groups_and_scopes_without_deadline_leave_no_mark_in_the_history() -> None:
    with begun(endless_group) as instance:
        assert decisions(instance) == ["ExecutionStarted"]


@pytest.mark.parametrize("rebuilt", [False, True])
def test_branches_run_in_the_order_in_which_they_became_ready(rebuilt: bool) -> None:
    order: list[str] = []

    async def flow(ctx: OrchestrationContext) -> None:
        order.clear()

        async def branch(name: str) -> None:
            order.append(f"+{name}")
            await ctx.wait_for_external_event("all")
            order.append(f"-{name}")

        async with ctx.create_task_group() as tg:
            for name in "abc":
                tg.start_soon(branch, name)
            order.append("body")

    instance = begun(flow)
    for _ in range(3):
        if rebuilt:
            with instance:
                again = instance.restored()
            instance = again
        instance.take(Event("all", b"1"), START + 1)

    with instance:
        assert order == ["body", "+a", "+b", "+c", "-a", "-b", "-c"]


async def with_many_branches(ctx: OrchestrationContext) -> list[int]:
    ended: list[int] = []

    async def nested(number: int) -> None:
        await ctx.wait_for_external_event(f"{number} again")
        ended.append(number)

    async def branch(number: int) -> None:
        await ctx.wait_for_external_event(f"{number}")
        if number % 3 == 0:
            group.start_soon(nested, number)
        else:
            ended.append(number)

    async with ctx.create_task_group() as group:
        for number in range(200):
            group.start_soon(branch, number)
    return ended


@pytest.mark.parametrize("seed", range(3))
def test_many_branches_may_end_in_any_order(seed: int) -> None:
    order = random.Random(seed).sample(range(200), 200)
    with begun(with_many_branches) as instance:
        for number in order:
            instance.take(Event(f"{number}", b"1"), START + 1)
        with instance.restored() as again:
            for one in (instance, again):
                for number in reversed(order):
                    if number % 3 == 0:
                        one.take(Event(f"{number} again", b"1"), START + 2)

                expected = [number for number in order if number % 3]
                expected += [number for number in reversed(order) if number % 3 == 0]
                assert orjson.loads(one.actor.output or b"") == expected
