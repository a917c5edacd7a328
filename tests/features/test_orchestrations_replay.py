"""What replay must not change, and what it must catch."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from perdure import (
    App,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    ParkedReason,
    RetryPolicy,
    RuntimeStatus,
)
from perdure.testing.inside import partitions_of
from tests.runtime.orchestrating import SECOND, Flow, advance, event_types, evict, quiet, running

app = App()


@app.activity
async def double(x: int) -> int:
    return 2 * x


def draw(ctx: OrchestrationContext) -> list[Any]:
    return [
        str(ctx.new_uuid()),
        ctx.random.random(),
        ctx.random.randrange(10**9),
        ctx.current_utc_datetime.isoformat(),
    ]


seen: dict[str, list[list[Any]]] = {}
replaying: dict[str, list[bool]] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    seen.clear()
    replaying.clear()


@app.orchestration
async def draws(ctx: OrchestrationContext, count: int) -> list[list[Any]]:
    drawn: list[list[Any]] = [draw(ctx)]
    for _ in range(count):
        await ctx.wait_for_external_event("next")
        replaying.setdefault(ctx.instance_id, []).append(ctx.is_replaying)
        ctx.logger.warning("step %d", len(drawn))
        drawn.append(draw(ctx))
    seen.setdefault(ctx.instance_id, []).append(drawn)
    return drawn


@app.orchestration
def draws_by_yield(ctx: OrchestrationContext, count: int) -> Generator[Any, Any, list[list[Any]]]:
    drawn: list[list[Any]] = [draw(ctx)]
    for _ in range(count):
        yield ctx.wait_for_external_event("next")
        replaying.setdefault(ctx.instance_id, []).append(ctx.is_replaying)
        ctx.logger.warning("step %d", len(drawn))
        drawn.append(draw(ctx))
    return drawn


DRAWS = pytest.mark.parametrize("flow", [draws, draws_by_yield])


@DRAWS
async def test_uuids_random_numbers_and_time_are_the_same_after_each_replay(flow: Flow) -> None:
    results: list[Any] = []
    for evicted in (False, True):
        clock = ManualClock()
        async with running(app, clock=clock) as hub:
            handle = await hub.client.start_new(flow, 5, instance_id="x")
            for _ in range(5):
                await advance(hub, clock, 1)
                if evicted:
                    assert await evict(hub) == 1
                await handle.raise_event("next")
            results.append(await handle.result(5))

    lived, replayed = results
    assert lived == replayed
    for column in range(4):
        assert len({row[column] for row in lived}) == 6
    assert all(uuid.UUID(row[0]).version == 5 for row in lived)


async def test_instances_and_executions_draw_differently() -> None:
    local = App()

    @local.orchestration
    async def once(ctx: OrchestrationContext, before: list[Any] | None) -> list[Any]:
        mine = [str(ctx.new_uuid()), ctx.random.random()]
        if before is None:
            ctx.continue_as_new(mine)
            return []
        return [before, mine]

    async with running(local) as hub:
        a = await (await hub.client.start_new(once, None)).result(5)
        b = await (await hub.client.start_new(once, None)).result(5)

        assert len({row[0] for row in a + b}) == 4
        assert len({row[1] for row in a + b}) == 4


@DRAWS
async def test_is_replaying_is_true_for_the_past_only(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, 3, instance_id="x")
        await handle.raise_event("next")
        await handle.raise_event("next")
        await evict(hub)
        await handle.raise_event("next")
        await handle.result(5)

        assert replaying["x"] == [False, False, True, True, False]


@DRAWS
async def test_the_logger_speaks_once_however_often_code_is_replayed(
    flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, 4, instance_id="x")
        for _ in range(4):
            await evict(hub)
            await handle.raise_event("next")
        await handle.result(5)

        name = f"perdure.orchestrations.{(await handle.status()).name}"
        messages = [r.getMessage() for r in caplog.records if r.name == name]
        assert messages == ["step 1", "step 2", "step 3", "step 4"]
        assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.by_turns
@DRAWS
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_restart_changes_nothing_for_the_code(
    flow: Flow, kind: str, tmp_path: Path
) -> None:
    results: list[Any] = []
    for restarts in (False, True):
        store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/{restarts}"
        clock = ManualClock()
        async with running(app, store, clock=clock) as hub:
            handle = await hub.client.start_new(flow, 3, instance_id="x")
            await quiet(hub)
            if not restarts:
                for _ in range(3):
                    await advance(hub, clock, 1)
                    await handle.raise_event("next")
                results.append(await handle.result(5))
                continue
        for last in (False, False, True):
            async with running(app, store, clock=clock) as hub:
                handle = hub.client.get_handle("x")
                clock.advance(1)
                await handle.raise_event("next")
                await quiet(hub)
                if last:
                    results.append(await handle.result(5))

    assert results[0] == results[1]


@app.orchestration
async def sums(ctx: OrchestrationContext, n: int) -> int:
    total = 0
    for _ in range(3):
        total += await ctx.call_activity(double, n)
        await ctx.create_timer(SECOND)
        total += await ctx.wait_for_external_event("add", data_type=int)
    return total


@pytest.mark.by_turns
async def test_hundreds_of_waiting_orchestrations_finish_with_ten_in_memory() -> None:
    clock = ManualClock()
    count = 300
    async with running(app, clock=clock, cached_actors_max=10) as hub:
        handles = [await hub.client.start_new(sums, n) for n in range(count)]
        for _ in range(3):
            await advance(hub, clock, 1)
            async with anyio.create_task_group() as tasks:
                for n, handle in enumerate(handles):
                    tasks.start_soon(handle.raise_event, "add", n)
        for n, handle in enumerate(handles):
            assert await handle.result(10) == 9 * n
        await quiet(hub)

        assert sum(len(partition.activations) for partition in partitions_of(hub)) < count


async def test_a_single_cached_actor_is_enough() -> None:
    async with running(app, partitions=1, cached_actors_max=1) as hub:
        handles = [await hub.client.start_new(draws, 4, instance_id=f"i{n}") for n in range(5)]
        for _ in range(4):
            for handle in handles:
                await handle.raise_event("next")

        results = [await handle.result(5) for handle in handles]

        assert all(len(result) == 5 for result in results)
        assert any(len(flags) > 4 for flags in replaying.values())  # somebody was evicted


# Awaiting what is not durable.


async def _asyncio_sleep() -> None:
    await asyncio.sleep(10)


async def _asyncio_sleep_zero() -> None:
    await asyncio.sleep(0)


async def _trio_sleep() -> None:
    await trio.sleep(10)


async def _trio_checkpoint() -> None:
    await trio.lowlevel.checkpoint()


async def _anyio_sleep() -> None:
    await anyio.sleep(10)


async def _to_thread() -> None:
    await asyncio.to_thread(int)


async def _future() -> None:
    await asyncio.get_running_loop().create_future()


async def _gather() -> None:
    await asyncio.gather(asyncio.sleep(1), asyncio.sleep(1))


async def _anyio_event() -> None:
    await anyio.Event().wait()


class _Odd:
    def __await__(self) -> Generator[Any, Any, None]:
        yield 5


async def _odd() -> None:
    await _Odd()


ON_ASYNCIO: list[Callable[[], Awaitable[None]]] = [
    _asyncio_sleep,
    _asyncio_sleep_zero,
    _to_thread,
    _future,
    _gather,
    _anyio_sleep,
    _anyio_event,
    _odd,
]
ON_TRIO: list[Callable[[], Awaitable[None]]] = [
    _trio_sleep,
    _trio_checkpoint,
    _anyio_sleep,
    _anyio_event,
    _odd,
]


@pytest.mark.parametrize(
    ("anyio_backend", "wait"),
    [("asyncio", wait) for wait in ON_ASYNCIO] + [("trio", wait) for wait in ON_TRIO],
)
async def test_awaiting_what_is_not_durable_raises_at_that_line(
    wait: Callable[[], Awaitable[None]],
) -> None:
    local = App()

    @local.orchestration
    async def wrong(ctx: OrchestrationContext) -> str:
        await ctx.create_timer(timedelta(0))
        await wait()
        return "not reached"

    line = wrong.__code__.co_firstlineno + 3
    async with running(local) as hub:
        handle = await hub.client.start_new(wrong)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        assert caught.value.error_type == "NonDurableAwaitError"
        assert f"{__file__}:{line}" in caught.value.message
        # The hub is none the worse for it.
        after = await hub.client.start_new(wrong)
        with pytest.raises(OrchestrationFailedError):
            await after.result(5)


async def test_yielding_what_is_not_durable_raises_at_that_line() -> None:
    local = App()

    @local.orchestration
    def wrong(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
        yield ctx.create_timer(timedelta(0))
        yield 5

    line = wrong.__code__.co_firstlineno + 3
    async with running(local) as hub:
        handle = await hub.client.start_new(wrong)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        assert caught.value.error_type == "NonDurableAwaitError"
        assert f"{__file__}:{line}" in caught.value.message
        assert "int" in caught.value.message


async def test_a_branch_that_awaits_what_is_not_durable_fails_at_its_line() -> None:
    local = App()
    lines: list[int] = []

    @local.orchestration
    async def wrong(ctx: OrchestrationContext) -> str:
        async def branch() -> None:
            await anyio.sleep(1)

        lines.append(branch.__code__.co_firstlineno + 1)
        try:
            async with ctx.create_task_group() as tg:
                tg.start_soon(branch)
        except ExceptionGroup as group:
            return str(group.exceptions[0])
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(wrong)

        assert f"{__file__}:{lines[0]}" in await handle.result(5)


@pytest.mark.parametrize("anyio_backend", ["trio"])  # only trio's traps are bound to a task
async def test_a_wait_of_trio_that_was_refused_wakes_nobody_later() -> None:
    local = App()
    local.include(app)
    event = trio.Event()

    @local.orchestration
    async def wrong(ctx: OrchestrationContext) -> None:
        await event.wait()

    async with running(local) as hub:
        failed = await hub.client.start_new(wrong)
        with pytest.raises(OrchestrationFailedError):
            await failed.result(5)
        handle = await hub.client.start_new(draws, 1)
        await quiet(hub)

        async with trio.open_nursery() as nursery:
            # Both before the pump gets to run: it would be woken twice.
            nursery.start_soon(handle.raise_event, "next")
            nursery.start_soon(_set, event)

        assert len(await handle.result(5)) == 2


async def _set(event: trio.Event) -> None:
    event.set()


async def test_a_thread_that_was_refused_harms_nobody_when_it_ends() -> None:
    local = App()
    local.include(app)
    done = anyio.Event()

    @local.orchestration
    async def wrong(ctx: OrchestrationContext) -> None:
        await anyio.to_thread.run_sync(int)

    @local.orchestration
    async def right(ctx: OrchestrationContext) -> int:
        return await ctx.call_activity(double, 1)

    async with running(local) as hub:
        handle = await hub.client.start_new(wrong)
        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)
        assert caught.value.error_type == "NonDurableAwaitError"
        # Threads of the pool are used again: once this is back, that one has reported.
        for _ in range(5):
            await anyio.to_thread.run_sync(done.is_set)

        assert await (await hub.client.start_new(right)).result(5) == 2


# Code that no longer matches its history.


def one_version(body: Flow, name: str = "flow") -> App:
    """An application whose orchestration ``flow`` has that body."""
    local = App()
    local.include(app)
    local.orchestration(name=name)(body)
    return local


async def old(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(double, 1)
    ctx.create_timer(timedelta(days=1))
    await ctx.wait_for_external_event("go")
    return "old"


async def other_activity_input(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(double, 2)
    return ""


async def other_kind(ctx: OrchestrationContext) -> str:
    await ctx.create_timer(SECOND)
    return ""


async def missing_timer(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(double, 1)
    await ctx.wait_for_external_event("go")
    return ""


async def another_call(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(double, 1)
    ctx.create_timer(timedelta(days=1))
    ctx.send_event("x", "y")
    await ctx.wait_for_external_event("go")
    return ""


async def other_due_time(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(double, 1)
    ctx.create_timer(timedelta(days=2))
    await ctx.wait_for_external_event("go")
    return ""


async def ends_early(ctx: OrchestrationContext) -> str:
    await ctx.call_activity(double, 1)
    return ""


async def raises_early(ctx: OrchestrationContext) -> str:
    raise ValueError("early")


async def catches_everything(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(double, 5)
    except BaseException:
        return "swallowed"
    return ""


CHANGED = [
    (other_activity_input, 1, 1),
    (other_kind, 1, 1),
    (missing_timer, 3, None),
    (another_call, 4, 3),
    (other_due_time, 3, 2),
    (ends_early, 3, None),
    (raises_early, 1, None),
    (catches_everything, 1, 2),
]


@pytest.mark.by_turns
@pytest.mark.parametrize(("changed", "position", "line"), CHANGED)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_changed_code_parks_the_instance_which_goes_on_once_it_is_repaired(
    changed: Flow, position: int, line: int | None, kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(one_version(old), store) as hub:
        handle = await hub.client.start_new("flow", instance_id="x")
        await quiet(hub)
        before = await event_types(handle)

    async with running(one_version(changed), store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")  # kept for the repaired code
        status = await handle.status()

        assert status.runtime_status == RuntimeStatus.RUNNING
        assert isinstance(status.parked, ParkedReason)
        assert status.parked.type == "NondeterminismError"
        assert f"at event {position}" in status.parked.reason
        if line is not None:
            at = changed.__code__.co_firstlineno + line
            assert f"{__file__}:{at}" in status.parked.reason
        assert await event_types(handle) == before

    async with running(one_version(old), store) as hub:
        assert await hub.client.get_handle("x").result(5) == "old"


async def test_on_nondeterminism_fail_fails_the_instance() -> None:
    store = MemoryStore()
    async with running(one_version(old), store) as hub:
        await hub.client.start_new("flow", instance_id="x")
        await quiet(hub)

    async with running(one_version(other_kind), store, on_nondeterminism="fail") as hub:
        handle = hub.client.get_handle("x")
        with anyio.fail_after(5):
            await hub.client.retry("x")
        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        assert caught.value.error_type == "NondeterminismError"


async def test_repaired_code_in_the_running_hub_goes_on_after_retry() -> None:
    store = MemoryStore()
    body: list[Flow] = [old]

    async def switch(ctx: OrchestrationContext) -> str:
        return str(await body[0](ctx))

    async with running(one_version(switch), store) as hub:
        handle = await hub.client.start_new("flow", instance_id="x")
        await evict(hub)
        body[0] = other_kind
        await handle.raise_event("go")
        assert (await handle.status()).parked is not None
        body[0] = old

        await handle.retry()

        assert await handle.result(5) == "old"
        assert (await handle.status()).parked is None


async def retries_slowly(ctx: OrchestrationContext) -> int:
    retry = RetryPolicy(first_interval=60, max_attempts=3)
    return await ctx.call_activity("breaks", retry=retry)  # type: ignore[no-any-return]


async def retries_quickly(ctx: OrchestrationContext) -> int:
    retry = RetryPolicy(first_interval=1, max_attempts=3)
    return await ctx.call_activity("breaks", retry=retry)  # type: ignore[no-any-return]


async def scope_slowly(ctx: OrchestrationContext) -> None:
    async with ctx.create_task_group() as tg:
        tg.start_soon(retries_slowly, ctx)


async def scope_quickly(ctx: OrchestrationContext) -> None:
    async with ctx.create_task_group() as tg:
        tg.start_soon(retries_quickly, ctx)


@pytest.mark.parametrize(
    ("before", "after"), [(retries_slowly, retries_quickly), (scope_slowly, scope_quickly)]
)
async def test_a_changed_retry_policy_is_caught_as_well(before: Flow, after: Flow) -> None:
    store, clock = MemoryStore(), ManualClock()

    def version(body: Flow) -> App:
        local = one_version(body)

        @local.activity
        async def breaks() -> int:
            raise ValueError("bad")

        return local

    async with running(version(before), store, clock=clock) as hub:
        await hub.client.start_new("flow", instance_id="x")
        await quiet(hub)

    async with running(version(after), store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("wake")
        status = await handle.status()

        assert status.parked is not None
        assert status.parked.type == "NondeterminismError"
        assert "TimerCreated" in status.parked.reason

    async with running(version(before), store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        for _ in range(2):
            await advance(hub, clock, 60)

        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)


async def test_an_unordered_choice_by_the_global_random_is_caught() -> None:
    async def fickle(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(double, random.randrange(10**12))
        await ctx.wait_for_external_event("go")

    async with running(one_version(fickle)) as hub:
        handle = await hub.client.start_new("flow")
        await evict(hub)

        await handle.raise_event("other")

        parked = (await handle.status()).parked
        assert parked is not None
        assert "TaskScheduled" in parked.reason
