"""To explain and to trace holds no loop, however much there is of an instance."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from anyio.lowlevel import checkpoint

from perdure import App, OrchestrationContext
from tests.runtime.orchestrating import evict, quiet, running
from tests.runtime.stretches import MEASURED, Stretches, measured

pytestmark = MEASURED

app = App()


class Measure:
    """The stretches of the test that runs, if it measures."""

    stretches: Stretches | None = None


measure = Measure()


@contextmanager
def theirs() -> Generator[None]:
    """Leave out what is done inside."""
    if measure.stretches is None:
        yield
    else:
        with measure.stretches.theirs():
            yield


@pytest.fixture
async def stretches() -> AsyncGenerator[Stretches]:
    with measured() as measure.stretches:
        yield measure.stretches
    measure.stretches = None


@app.activity
async def work(number: int) -> int:
    return number


@app.orchestration
async def has_much_open(ctx: OrchestrationContext, count: int) -> None:
    with theirs():
        hour = timedelta(hours=1)
        tasks = ctx.task_all([ctx.create_timer(hour) for _ in range(count)])
    await tasks


@app.orchestration
async def has_many_branches(ctx: OrchestrationContext, count: int) -> None:
    async def branch() -> None:
        await ctx.wait_for_external_event("go")

    async with ctx.create_task_group() as tasks:
        with theirs():
            for _ in range(count):
                tasks.start_soon(branch)


@app.orchestration
async def has_long_history(ctx: OrchestrationContext, count: int) -> None:
    for number in range(count):
        await ctx.call_activity(work, number)
    await ctx.wait_for_external_event("go")


VERY_MUCH = pytest.param(has_much_open, 100_000, marks=pytest.mark.slow)


@pytest.mark.by_turns
@pytest.mark.parametrize("evicted", [False, True], ids=["live", "evicted"])
@pytest.mark.parametrize(
    ("flow", "count"),
    [(has_much_open, 20_000), VERY_MUCH, (has_many_branches, 1_000), (has_long_history, 1_000)],
)
async def test_a_look_at_much_does_not_hold_the_loop(
    evicted: bool, flow: object, count: int, stretches: Stretches
) -> None:
    async with running(app, partitions=1) as hub:
        handle = await hub.client.start_new(getattr(flow, "__name__", ""), count)
        await quiet(hub)
        if evicted:
            await evict(hub)
        await handle.explain()  # which reads the source
        stretches.begin_anew()

        found = await handle.explain()
        await checkpoint()  # the stretch ends with the turn of the loop

        assert found.branch_count or found.counts["timers"]
        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns("trio")
@pytest.mark.parametrize(
    ("flow", "count"),
    [(has_much_open, 20_000), VERY_MUCH, (has_many_branches, 500), (has_long_history, 1_500)],
)
async def test_a_trace_does_not_hold_the_loop(
    flow: object, count: int, stretches: Stretches
) -> None:
    async with running(app, partitions=1) as hub:
        handle = await hub.client.start_new(getattr(flow, "__name__", ""), count)
        await quiet(hub)
        if flow is has_many_branches:
            for _ in range(count - 1):
                await handle.raise_event("go")
        await hub.client.trace(handle.instance_id, limit=1)
        stretches.begin_anew()

        trace = await hub.client.trace(handle.instance_id)
        await checkpoint()

        assert len(trace.steps) == 1_000 or trace.next_after
        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_a_trace_from_the_middle_of_a_long_turn_does_not_hold_the_loop(
    count: int, stretches: Stretches
) -> None:
    async with running(app, partitions=1) as hub:
        handle = await hub.client.start_new(has_much_open, count)
        await quiet(hub)
        await hub.client.trace(handle.instance_id, limit=1)
        stretches.begin_anew()

        trace = await hub.client.trace(handle.instance_id, after=count - 10)
        await checkpoint()

        assert [step.cause for step in trace.steps] == [0] * 11
        assert stretches.longest_s < stretches.bound_s
