"""Nothing of ours holds a loop: CPU time between two of its turns, users' code left out."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityId,
    Hub,
    OrchestrationContext,
    OrchestrationHandle,
    OrchestrationTerminatedError,
    Settings,
    SqliteStore,
)
from tests.runtime.stretches import BOUND_S, MEASURED, Stretches, measured

pytestmark = MEASURED

app = App()


class Measure:
    """The stretches of the test that runs."""

    stretches: Stretches


measure = Measure()


@pytest.fixture(params=[20_000, pytest.param(100_000, marks=pytest.mark.slow)])
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
async def work(number: int) -> int:
    return number


@app.orchestration
async def fan_out(ctx: OrchestrationContext, count: int) -> int:
    theirs = measure.stretches.theirs
    with theirs():
        tasks = ctx.task_all([ctx.call_activity(work, number) for number in range(count)])
    numbers = await tasks
    with theirs():
        return sum(numbers)


@pytest.mark.by_turns
async def test_a_large_fan_out_does_not_hold_its_loop(
    tmp_path: Path, many: int, stretches: Stretches
) -> None:
    async with Hub(app, store=SqliteStore(tmp_path), rebalance=None) as hub:
        await (await hub.client.start_new(fan_out, 1)).result()
        stretches.begin_anew()

        handle = await hub.client.start_new(fan_out, many)

        assert await handle.result() == many * (many - 1) // 2
        assert stretches.longest_s < stretches.bound_s


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> None:
        self.value += amount


@app.orchestration
async def signal_many(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        for number in range(count):
            ctx.signal_entity(EntityId(Counter, str(number % 100)), Counter.add)


@app.orchestration
async def wait_for_timers(ctx: OrchestrationContext, plan: list[float]) -> None:
    count, seconds = plan
    with measure.stretches.theirs():
        due = timedelta(seconds=seconds)
        tasks = ctx.task_all([ctx.create_timer(due) for _ in range(int(count))])
    await tasks


@pytest.mark.by_turns
async def test_many_signals_of_one_turn_do_not_hold_their_loop(
    tmp_path: Path, many: int, stretches: Stretches
) -> None:
    async with Hub(app, store=SqliteStore(tmp_path), rebalance=None) as hub:
        await (await hub.client.start_new(signal_many, 100)).result()
        stretches.begin_anew()

        await (await hub.client.start_new(signal_many, many)).result()
    # Closing, it lets the entities take what waits for them, and commits that.

    assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
async def test_many_timers_that_are_due_at_once_do_not_hold_their_loop(
    tmp_path: Path, many: int, stretches: Stretches
) -> None:
    async with Hub(app, store=SqliteStore(tmp_path), rebalance=None) as hub:
        await (await hub.client.start_new(wait_for_timers, [1, 0.0])).result()
        stretches.begin_anew()

        await (await hub.client.start_new(wait_for_timers, [many / 2, 0.2])).result()

        assert stretches.longest_s < stretches.bound_s


@app.activity
async def rest(number: int) -> None:
    await anyio.sleep_forever()


@app.orchestration
async def give_up_many(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        tasks = [ctx.call_activity(rest, number) for number in range(count)]
    await ctx.create_timer(timedelta(seconds=0.1))
    with measure.stretches.theirs():
        for task in tasks:
            task.cancel()
    await ctx.create_timer(timedelta(seconds=0))


@pytest.mark.by_turns
async def test_giving_many_activities_up_does_not_hold_their_loop(stretches: Stretches) -> None:
    async with Hub(app, rebalance=None) as hub:
        await (await hub.client.start_new(give_up_many, 100)).result()
        stretches.begin_anew()

        handle = await hub.client.start_new(give_up_many, 20_000)
        await handle.result()

        assert stretches.longest_s < stretches.bound_s
        failed = [one for one in await handle.history() if one.event_type == "TaskFailed"]
        assert len(failed) == 20_000


@app.orchestration
async def return_before_many(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        tasks = ctx.task_all([ctx.call_activity(rest, number) for number in range(count)])
    await ctx.task_any([tasks, ctx.create_timer(timedelta(seconds=0.1))])


@pytest.mark.by_turns
async def test_many_activities_that_go_on_behind_a_return_do_not_hold_their_loop(
    tmp_path: Path, many: int, stretches: Stretches
) -> None:
    async with Hub(
        app, store=SqliteStore(tmp_path), rebalance=None, settings=Settings(drain_s=0.1)
    ) as hub:
        stretches.begin_anew()

        handle = await hub.client.start_new(return_before_many, many)
        await handle.result()

        assert stretches.longest_s < stretches.bound_s
        found = await handle.explain()
        assert found.counts["activities"] == many
        await handle.purge()
        assert stretches.longest_s < stretches.bound_s


@app.orchestration
async def hang_on_children(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        tasks = ctx.task_all([ctx.call_sub_orchestrator(take_one) for _ in range(count)])
    await tasks


@app.orchestration
async def hang_in_branches(ctx: OrchestrationContext, count: int) -> None:
    async def branch() -> None:
        with measure.stretches.theirs():
            event = ctx.wait_for_external_event("go")
        await event

    with measure.stretches.theirs():
        async with ctx.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(branch)


@pytest.mark.by_turns
async def test_terminating_what_has_much_under_way_does_not_hold_its_loop(
    many: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        flows: list[tuple[str, Any]] = [
            ("wait_for_timers", [many, 1_000.0]),
            ("hang_on_many", many),
            ("hang_on_children", many // 5),
            ("hang_in_branches", many // 5),
        ]
        for flow, count in flows:
            handle = await hub.client.start_new(flow, count)
            await started(handle)
            stretches.begin_anew()

            await handle.terminate("no more")
            with pytest.raises(OrchestrationTerminatedError):
                await handle.result()
            await hub.statistics()

            assert stretches.longest_s < stretches.bound_s


@app.orchestration
async def hang_on_many(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        tasks = ctx.task_all([ctx.call_activity(rest, number) for number in range(count)])
    await tasks


async def started(handle: OrchestrationHandle[Any]) -> None:
    with anyio.fail_after(30):
        while (await handle.status()).runtime_status != "Running":
            await anyio.sleep(0.01)


@app.orchestration
async def take_one(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("go")


@app.orchestration
async def raise_many(ctx: OrchestrationContext, target: str) -> None:
    with measure.stretches.theirs():
        for number in range(20_000):
            ctx.send_event(target, "other", number)
        ctx.send_event(target, "go")


@pytest.mark.by_turns("trio")
async def test_many_events_that_nobody_took_do_not_hold_the_loop_at_the_end(
    stretches: Stretches,
) -> None:
    longest: list[float] = []
    async with Hub(app, rebalance=None) as hub:
        # Twice, since memory that is new to the process is short on a busy machine.
        for _ in range(2):
            handle = await hub.client.start_new(take_one)
            await started(handle)
            stretches.begin_anew()

            await hub.client.start_new(raise_many, handle.instance_id)
            await handle.result()
            await hub.statistics()

            longest.append(stretches.longest_s)

    assert min(longest) < BOUND_S


@app.orchestration
async def raise_some(ctx: OrchestrationContext, target: str) -> None:
    with measure.stretches.theirs():
        for number in range(5_000):
            ctx.send_event(target, "other", number)


@app.orchestration
async def keep_all(ctx: OrchestrationContext, again: bool) -> None:
    await ctx.wait_for_external_event("go")
    if again:
        ctx.continue_as_new(False, keep_events=True)


@pytest.mark.by_turns
async def test_an_instance_that_goes_on_with_many_events_does_not_hold_its_loop(
    stretches: Stretches,
) -> None:
    longest: list[float] = []
    async with Hub(app, rebalance=None) as hub:
        for _ in range(2):
            handle = await hub.client.start_new(keep_all, True)
            await started(handle)
            stretches.begin_anew()

            for sender in (raise_some, raise_many):
                await (await hub.client.start_new(sender, handle.instance_id)).result()
            await handle.raise_event("go")
            await handle.result()

            longest.append(stretches.longest_s)

    assert min(longest) < BOUND_S


@app.orchestration
async def signal_each(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        for number in range(count):
            ctx.signal_entity(EntityId(Counter, str(number)), Counter.add)


@pytest.mark.by_turns
async def test_neither_many_new_entities_nor_counting_them_holds_their_loop(
    tmp_path: Path, stretches: Stretches
) -> None:
    async with Hub(app, store=SqliteStore(tmp_path), rebalance=None) as hub:
        await (await hub.client.start_new(signal_each, 10)).result()
        stretches.begin_anew()

        await (await hub.client.start_new(signal_each, 20_000)).result()
        await hub.statistics(hottest=3)
        while (await hub.statistics(hottest=3)).waiting:
            await anyio.sleep(0.01)

        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
@pytest.mark.parametrize("partitions", [4, 16])
async def test_drains_of_many_partitions_at_once_do_not_hold_their_loop(
    many: int, partitions: int, stretches: Stretches
) -> None:
    async with Hub(app, partitions=partitions, rebalance=None) as hub:
        await (await hub.client.start_new(signal_each, 100)).result()
        stretches.begin_anew()

        await (await hub.client.start_new(signal_each, many)).result()
        while (await hub.statistics()).waiting:
            await anyio.sleep(0.01)

        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
async def test_neither_an_end_nor_a_return_with_many_timers_holds_its_loop(
    tmp_path: Path, stretches: Stretches
) -> None:
    async with Hub(app, store=SqliteStore(tmp_path), rebalance=None) as hub:
        handle = await hub.client.start_new(wait_for_timers, [10_000, 1_000.0], instance_id="w")
        with anyio.fail_after(30):
            while (await handle.status()).runtime_status != "Running":
                await anyio.sleep(0.01)
        stretches.begin_anew()
    assert stretches.longest_s < stretches.bound_s

    async with Hub(app, store=SqliteStore(tmp_path), rebalance=None):
        assert stretches.longest_s < stretches.bound_s


async def ended_beside(hub: Hub, count: int) -> int:
    """Tell how many instances began behind a fan-out's start, one by one, and ended before it."""
    large = await hub.client.start_new(fan_out, count)
    ended = 0
    while True:
        await (await hub.client.start_new(wait_for_timers, [1, 0.001])).result()
        if (await large.status()).runtime_status in ("Completed", "Failed"):
            break
        ended += 1
    assert await large.result() == count * (count - 1) // 2
    return ended


@pytest.mark.by_turns
async def test_another_instance_goes_on_beside_a_large_fan_out(
    tmp_path: Path, stretches: Stretches
) -> None:
    async with Hub(app, store=SqliteStore(tmp_path), rebalance=None) as hub:
        await (await hub.client.start_new(fan_out, 1)).result()
        ended = 0

        # How many there is time for beside one depends on how quick the disk is; where nothing else
        # goes on until a fan-out has ended, none ends beside any.
        for _ in range(5):
            ended += await ended_beside(hub, 20_000)
            if ended > 3:
                break

        assert ended > 3


@pytest.mark.by_turns
async def test_an_activity_in_flight_takes_little_memory() -> None:
    with measured() as measure.stretches:
        async with Hub(app, rebalance=None) as hub:
            await (await hub.client.start_new(fan_out, 10)).result()
            tracemalloc.start()
            try:
                await (await hub.client.start_new(fan_out, 5_000)).result()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()

    assert peak / 5_000 < 1_900
