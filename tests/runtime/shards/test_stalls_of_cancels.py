"""What is cancelled, won or begun in very many places at once does not hold its loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    Hub,
    OrchestrationCanceledError,
    OrchestrationContext,
    OrchestrationHandle,
    Settings,
)
from tests.runtime.stretches import MEASURED, Stretches, measured

pytestmark = MEASURED

app = App()


class Measure:
    """The stretches of the test that runs, and what its code does not free by itself."""

    stretches: Stretches
    kept: object = None


measure = Measure()


@pytest.fixture(params=[10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def many(request: pytest.FixtureRequest) -> int:
    """How many of whatever is many."""
    count: int = request.param
    return count


@pytest.fixture
async def stretches() -> AsyncGenerator[Stretches]:
    """What is measured of the loop that the test runs on."""
    with measured() as measure.stretches:
        yield measure.stretches


@app.activity
async def rest(number: int) -> None:
    await anyio.sleep_forever()


@app.orchestration
async def child(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("go")


def begin_many(ctx: OrchestrationContext, kind: str, count: int) -> Any:
    """Begin so much of a kind, and give what waits for it."""
    with measure.stretches.theirs():
        if kind == "timers":
            return ctx.task_all([ctx.create_timer(timedelta(days=1)) for _ in range(count)])
        if kind == "children":
            return ctx.task_all([ctx.call_sub_orchestrator(child) for _ in range(count // 5)])
        calls = [ctx.call_activity(rest, number) for number in range(count)]
        return ctx.task_any(calls) if kind == "any" else ctx.task_all(calls)


KINDS = ("activities", "timers", "children", "any")


@app.orchestration
async def give_up_in_time(ctx: OrchestrationContext, plan: list[Any]) -> int:
    kind, count = plan
    with ctx.move_on_after(timedelta(seconds=0.2)) as scope:
        await begin_many(ctx, kind, count)
    await ctx.create_timer(timedelta(0))
    return int(scope.cancelled_caught)


@app.orchestration
async def hang(ctx: OrchestrationContext, plan: list[Any]) -> None:
    await begin_many(ctx, *plan)


@app.orchestration
async def hang_in_branches(ctx: OrchestrationContext, count: int) -> None:
    async def branch() -> None:
        with measure.stretches.theirs():
            event = ctx.wait_for_external_event("go")
        await event

    async with ctx.create_task_group() as tasks:
        with measure.stretches.theirs():
            for _ in range(count):
                tasks.start_soon(branch)


@app.orchestration
async def fail_among_branches(ctx: OrchestrationContext, count: int) -> str:
    async def branch() -> None:
        with measure.stretches.theirs():
            event = ctx.wait_for_external_event("never")
        await event

    async def failing() -> None:
        await ctx.wait_for_external_event("go")
        raise ValueError("no more")

    try:
        async with ctx.create_task_group() as tasks:
            with measure.stretches.theirs():
                tasks.start_soon(failing)
                for _ in range(count):
                    tasks.start_soon(branch)
    except* ValueError:
        pass
    return "stopped"


@app.orchestration
async def race_many(ctx: OrchestrationContext, plan: list[Any]) -> int:
    count, cancel_losers = plan
    with measure.stretches.theirs():
        calls: list[Any] = [ctx.call_activity(rest, number) for number in range(count)]
        go = ctx.wait_for_external_event("go")
        first = ctx.task_any([*calls, go], cancel_losers=cancel_losers)
    assert await first is go
    with measure.stretches.theirs():
        return sum(call.is_cancelled for call in calls)


async def settled(handle: OrchestrationHandle[Any]) -> None:
    """Wait until all that it begins has begun."""
    with anyio.fail_after(60):
        while (await handle.status()).runtime_status != "Running":
            await anyio.sleep(0.01)
    await handle.explain()


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_of_much_does_not_hold_the_loop(
    kind: str, many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        await (await hub.client.start_new(give_up_in_time, [kind, 100])).result()
        stretches.begin_anew()

        handle = await hub.client.start_new(give_up_in_time, [kind, many])

        assert await handle.result() == 1
        assert stretches.longest_s < stretches.bound_s


@app.orchestration
async def time_out(ctx: OrchestrationContext, plan: list[Any]) -> int:
    """Race what waits for much against a timer."""
    timer = ctx.create_timer(timedelta(seconds=0.2))
    first = await ctx.task_any([begin_many(ctx, *plan), timer], cancel_losers=True)
    return int(first is timer)


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", KINDS)
async def test_a_timer_that_wins_against_much_does_not_hold_the_loop(
    kind: str, many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        await (await hub.client.start_new(time_out, [kind, 100])).result()
        stretches.begin_anew()

        handle = await hub.client.start_new(time_out, [kind, many])

        assert await handle.result() == 1
        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", KINDS)
async def test_to_cancel_what_waits_for_much_does_not_hold_the_loop(
    kind: str, many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        handle = await hub.client.start_new(hang, [kind, many])
        await settled(handle)
        stretches.begin_anew()

        await handle.cancel("no more")
        with pytest.raises(OrchestrationCanceledError):
            await handle.result()

        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
async def test_neither_to_begin_nor_to_cancel_many_branches_holds_the_loop(
    many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        stretches.begin_anew()
        handle = await hub.client.start_new(hang_in_branches, many // 5)
        await settled(handle)
        assert stretches.longest_s < stretches.bound_s

        await handle.cancel("no more")
        with pytest.raises(OrchestrationCanceledError):
            await handle.result()

        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
async def test_a_branch_that_fails_among_many_does_not_hold_the_loop(
    many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        handle = await hub.client.start_new(fail_among_branches, many // 5)
        await settled(handle)
        stretches.begin_anew()

        await handle.raise_event("go")

        assert await handle.result() == "stopped"
        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
@pytest.mark.parametrize("cancel_losers", [False, True])
async def test_the_first_of_very_many_does_not_hold_the_loop(
    cancel_losers: bool, many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None, settings=Settings(drain_s=0.1)) as hub:
        handle = await hub.client.start_new(race_many, [many, cancel_losers])
        await settled(handle)
        stretches.begin_anew()

        await handle.raise_event("go")

        assert await handle.result() == (many if cancel_losers else 0)
        assert stretches.longest_s < stretches.bound_s


@app.activity
async def fail(number: int) -> None:
    raise ValueError(f"number {number}")


@app.orchestration
async def fail_often(ctx: OrchestrationContext, count: int) -> int:
    with measure.stretches.theirs():
        calls = ctx.task_all([ctx.call_activity(fail, n) for n in range(count)], fail_fast=False)
    try:
        await calls
    except ExceptionGroup as failed:
        measure.kept = failed
        return len(failed.exceptions)
    return 0


@pytest.mark.by_turns
async def test_many_failures_that_are_gathered_do_not_hold_the_loop(
    many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        handle = await hub.client.start_new(fail_often, many)

        assert await handle.result() == many
        assert stretches.longest_s < stretches.bound_s
    measure.kept = None


@app.orchestration
async def take_many(ctx: OrchestrationContext, plan: list[Any]) -> int:
    """Have much open, and behind it some events."""
    count, events = plan
    with measure.stretches.theirs():
        calls = ctx.task_all([ctx.call_activity(work, number) for number in range(count)])
    await calls
    return sum([await ctx.wait_for_external_event("n", data_type=int) for _ in range(events)])


@app.activity
async def work(number: int) -> int:
    return number


@pytest.mark.by_turns
async def test_a_fork_of_a_long_history_does_not_hold_the_loop(
    many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        handle = await hub.client.start_new(take_many, [many, 1])
        await settled(handle)
        with anyio.fail_after(60):
            while len(await handle.history()) < 2 * many + 1:
                await anyio.sleep(0.05)
        at = 2 * many
        stretches.begin_anew()

        forked = await handle.fork(at=at)

        await forked.raise_event("n", 7)
        assert await forked.result() == 7
        assert stretches.longest_s < stretches.bound_s
