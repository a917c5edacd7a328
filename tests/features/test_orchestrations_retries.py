"""RetryPolicy at work: for activities and sub-orchestrations, with durable delays."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    ActivityContext,
    ActivityError,
    App,
    EntityId,
    FailureDetails,
    ManualClock,
    MemoryStore,
    NonRetryableError,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    RuntimeStatus,
    SubOrchestrationError,
    UsageError,
)
from perdure.testing.inside import partitions_of, shard_of
from tests.runtime.harness import until_true
from tests.runtime.orchestrating import (
    Flow,
    advance,
    cause_of,
    events_of,
    evict,
    quiet,
    running,
    status_of,
    stored_timers,
)

attempts: list[tuple[int, int]] = []
"""Of each run of ``flaky``: which attempt, and when, in seconds of the clock."""

keys: list[str] = []
clock = ManualClock()
error: list[Callable[[], Exception]] = []
succeed_at: list[int] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    global clock
    clock = ManualClock(0)
    attempts.clear()
    keys.clear()
    error[:] = [lambda: ValueError("not yet")]
    succeed_at[:] = [10**9]


app = App()


@app.activity
async def flaky(ctx: ActivityContext) -> int:
    attempts.append((ctx.attempt, clock.now() // 1_000_000))
    keys.append(ctx.idempotency_key)
    if len(attempts) < succeed_at[0]:
        raise error[0]()
    return ctx.attempt


@app.orchestration
async def calls(ctx: OrchestrationContext, options: dict[str, Any]) -> int:
    return await ctx.call_activity(flaky, retry=RetryPolicy(**options))


@app.orchestration
def calls_by_yield(ctx: OrchestrationContext, options: dict[str, Any]) -> Generator[Any, Any, int]:
    result: int = yield ctx.call_activity(flaky, retry=RetryPolicy(**options))
    return result


FLOWS = pytest.mark.parametrize("flow", [calls, calls_by_yield])


async def passes(hub: Any, seconds: int) -> None:
    """Let time pass a second at a time."""
    for _ in range(seconds):
        await advance(hub, clock, 1)


@FLOWS
@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({"first_interval": 1}, [0, 1, 2]),
        ({"first_interval": 2, "max_attempts": 4}, [0, 2, 4, 6]),
        ({"first_interval": 1, "max_attempts": 1}, [0]),
        ({"first_interval": 1, "max_attempts": 5, "backoff": 2}, [0, 1, 3, 7, 15]),
        (
            {"first_interval": 1, "max_attempts": 5, "backoff": 3, "max_interval": 4},
            [0, 1, 4, 8, 12],
        ),
        ({"first_interval": 3, "max_attempts": 9, "timeout": 10}, [0, 3, 6, 9]),
    ],
    ids=["default", "max_attempts", "no retry", "backoff", "max_interval", "timeout"],
)
async def test_attempts_are_made_at_the_times_that_the_policy_says(
    flow: Flow, options: dict[str, Any], times: list[int]
) -> None:
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow, options)

        await passes(hub, 30)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)
        assert attempts == [(n, at) for n, at in enumerate(times, 1)]
        assert caught.value.error_type == "ActivityError"
        assert caught.value.cause is not None
        assert caught.value.cause.error_type == "ValueError"


@FLOWS
async def test_a_late_success_ends_the_attempts(flow: Flow) -> None:
    succeed_at[:] = [3]
    store = MemoryStore()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(flow, {"first_interval": 1, "max_attempts": 9})

        await passes(hub, 10)

        assert await handle.result(5) == 3
        assert len(attempts) == 3
        assert stored_timers(store) == 0


@FLOWS
async def test_non_retryable_error_stops_at_once(flow: Flow) -> None:
    error[:] = [lambda: NonRetryableError("hopeless")]
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow, {"first_interval": 1})

        with pytest.raises(OrchestrationFailedError, match="hopeless"):
            await handle.result(5)
        assert len(attempts) == 1


class OwnError(NonRetryableError):
    """A user's error that must not be tried again either."""


async def test_a_subclass_of_non_retryable_error_stops_as_well() -> None:
    error[:] = [lambda: OwnError("hopeless")]
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(calls, {"first_interval": 1})

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)
        assert caught.value.cause is not None
        assert caught.value.cause.error_type == "OwnError"
        assert len(attempts) == 1


def is_not_yet(failure: FailureDetails) -> bool:
    return failure.message == "not yet"


def is_key_error(failure: FailureDetails) -> bool:
    return failure.error_type == "KeyError"


RETRY_ON: list[tuple[Any, bool]] = [
    ((ValueError,), True),
    ((KeyError,), False),
    (("ValueError",), True),
    (("KeyError", ValueError), True),
    ((), False),
    ((Exception,), True),
    ((LookupError, "ArithmeticError"), False),
    (is_not_yet, True),
    (is_key_error, False),
]


@pytest.mark.parametrize(
    ("retry_on", "retried"),
    RETRY_ON,
    ids=[
        "type",
        "other type",
        "name",
        "one of two",
        "nothing",
        "base",
        "other bases",
        "predicate",
        "other predicate",
    ],
)
async def test_retry_on_chooses_by_type_name_or_predicate(retry_on: Any, retried: bool) -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def picky(ctx: OrchestrationContext) -> int:
        policy = RetryPolicy(first_interval=1, max_attempts=2, retry_on=retry_on)
        return await ctx.call_activity(flaky, retry=policy)

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(picky)
        await passes(hub, 2)

        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        assert len(attempts) == (2 if retried else 1)


@pytest.mark.parametrize("raised", [KeyError("broken"), SystemExit("broken")], ids=repr)
async def test_a_predicate_that_raises_says_no_and_both_errors_are_told(
    raised: BaseException,
) -> None:
    local = App()
    local.include(app)

    def broken(failure: FailureDetails) -> bool:
        raise raised

    @local.orchestration
    async def picky(ctx: OrchestrationContext) -> list[Any]:
        try:
            await ctx.call_activity(flaky, retry=RetryPolicy(first_interval=1, retry_on=broken))
        except ActivityError as error:
            members = [member.error_type for member in error.failure.members]
            return [error.error_type, error.message, members]
        return []

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(picky)
        kind, message, members = await handle.result(5)

    assert (kind, members) == ("ValueError", [type(raised).__name__])
    assert "not yet" in message
    assert "broken" in message
    assert len(attempts) == 1


# Limits of the whole call.


timed = App()
timed.include(app)
begun: list[anyio.Event] = []
told: list[int] = []


@timed.activity(max_concurrency=1)
async def stuck() -> None:
    begun[-1].set()
    try:
        await anyio.sleep_forever()
    finally:
        told.append(clock.now() // 1_000_000)


@timed.orchestration
async def stuck_child(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("never")


@timed.orchestration
async def limited(ctx: OrchestrationContext, given: tuple[str, float | None, float | None]) -> Any:
    way, policys, calls = given
    retry = None if policys is None else RetryPolicy(first_interval=1, timeout=policys)
    try:
        if way == "child":
            await ctx.call_sub_orchestrator(stuck_child, instance_id="child", retry=retry)
        else:
            await ctx.call_activity(stuck, retry=retry, overall_timeout=calls)
    except (ActivityError, SubOrchestrationError) as error:
        return [type(error).__name__, error.error_type, error.message]


@pytest.mark.parametrize(
    "limits", [(3, None), (None, 3), (3, 9), (9, 3)], ids=["policy's", "call's", "a", "b"]
)
@pytest.mark.parametrize("evicted", [False, True])
async def test_the_shorter_limit_ends_the_attempt_under_way(limits: Any, evicted: bool) -> None:
    begun[:] = [anyio.Event()]
    told.clear()
    store = MemoryStore()
    async with running(timed, store, clock=clock) as hub:
        handle = await hub.client.start_new(limited, ("activity", *limits))
        await begun[0].wait()
        clock.advance(2)
        if evicted:
            for partition in [*partitions_of(hub)] * 2:
                partition.catalog.evict(10)
        assert not told
        clock.advance(1)

        kind, error_type, message = await handle.result(5)
        while not told:
            await anyio.sleep(0.001)
        await quiet(hub)

    assert (kind, error_type) == ("ActivityError", "TimeoutError")
    assert message == "no result within 3 seconds, attempts: 1"
    assert told == [3]
    assert stored_timers(store) == 0


async def test_the_limit_counts_the_time_in_which_an_activity_waits_for_its_place() -> None:
    begun[:] = [anyio.Event()]
    told.clear()
    async with running(timed, clock=clock, drain_s=0.1) as hub:
        await hub.client.start_new(limited, ("activity", None, 100))
        await begun[0].wait()
        begun.append(anyio.Event())
        queued = await hub.client.start_new(limited, ("activity", None, 3))
        await until_true(lambda: shard_of(hub).activities.waiting_count == 1)
        clock.advance(3)

        assert (await queued.result(5))[1] == "TimeoutError"
        assert not begun[1].is_set()


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_the_limit_counts_over_a_restart(kind: str, tmp_path: Path) -> None:
    begun[:] = [anyio.Event()]
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(timed, store, clock=clock, drain_s=0.1) as hub:
        await hub.client.start_new(limited, ("activity", None, 3), instance_id="x")
        await begun[0].wait()
    clock.advance(3)
    async with running(timed, store, clock=clock, drain_s=0.1) as hub:
        assert (await hub.client.wait("x", timeout=5))[1] == "TimeoutError"


async def test_an_attempt_that_took_too_long_is_tried_again_by_a_base_class() -> None:
    local = App()

    @local.activity(timeout=1)
    async def slow_at_first(ctx: ActivityContext) -> int:
        if ctx.attempt == 1:
            begun[-1].set()
            await anyio.sleep_forever()
        return ctx.attempt

    @local.orchestration
    async def tries(ctx: OrchestrationContext) -> int:
        return await ctx.call_activity(slow_at_first, retry=RetryPolicy(1, retry_on=(OSError,)))

    begun[:] = [anyio.Event()]
    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(tries)
        await begun[0].wait()
        clock.advance(1)
        await passes(hub, 2)

        assert await handle.result(5) == 2


async def test_the_limit_of_a_policy_cancels_the_child_under_way() -> None:
    async with running(timed, clock=clock) as hub:
        handle = await hub.client.start_new(limited, ("child", 3, None))
        await passes(hub, 3)

        assert (await handle.result(5))[:2] == ["SubOrchestrationError", "TimeoutError"]
        await quiet(hub)
        assert await status_of(hub.client.get_handle("child")) == RuntimeStatus.CANCELED


async def test_a_limit_tells_the_last_failure_and_a_result_in_time_takes_the_timer_away() -> None:
    local = App()
    local.include(timed)
    store = MemoryStore()

    @local.activity
    async def fails_then_hangs(ctx: ActivityContext) -> None:
        if ctx.attempt == 1:
            raise ValueError("at first")
        begun[-1].set()
        await anyio.sleep_forever()

    @local.orchestration
    async def both(ctx: OrchestrationContext) -> list[Any]:
        await ctx.call_activity(flaky, overall_timeout=50)
        try:
            await ctx.call_activity(fails_then_hangs, retry=RetryPolicy(1), overall_timeout=3)
        except ActivityError as error:
            return [error.message, None if error.cause is None else error.cause.error_type]
        return []

    succeed_at[:] = [1]
    begun[:] = [anyio.Event()]
    async with running(local, store, clock=clock) as hub:
        handle = await hub.client.start_new(both)
        await quiet(hub)
        clock.advance(1)
        await begun[0].wait()
        assert stored_timers(store) == 1
        clock.advance(2)

        assert await handle.result(5) == ["no result within 3 seconds, attempts: 2", "ValueError"]
        await quiet(hub)
        assert stored_timers(store) == 0


async def test_a_summary_is_in_the_history_and_a_bad_one_or_a_bad_limit_is_refused() -> None:
    local = App()
    local.include(app)
    succeed_at[:] = [1]

    @local.orchestration
    async def summed(ctx: OrchestrationContext) -> int:
        refused: list[dict[str, Any]] = [
            {"summary": ""},
            {"summary": 5},
            {"summary": "a\nb"},
            {"overall_timeout": -1},
        ]
        for bad in refused:
            with pytest.raises(UsageError):
                ctx.call_activity(flaky, **bad)
        return await ctx.call_activity(flaky, summary="charge for order 7")

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(summed)
        await handle.result(5)
        events = events_of(await handle.history(), "TaskScheduled")

    assert len(events) == 1
    assert events[0].fields["summary"] == "charge for order 7"


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_the_delay_is_a_durable_timer(kind: str, tmp_path: Path) -> None:
    succeed_at[:] = [3]
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    for restart in range(3):
        async with running(app, store, clock=clock) as hub:
            if not restart:
                await hub.client.start_new(
                    calls, {"first_interval": 3600, "max_attempts": 5}, instance_id="x"
                )
            await quiet(hub)
            assert len(attempts) == restart + 1
        clock.advance(3600)

    async with running(app, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        assert await handle.result(5) == 3
        timers = events_of(await handle.history(), "TimerCreated")

        assert len(timers) == 2
        assert attempts == [(1, 0), (2, 3600), (3, 7200)]


async def test_jitter_spreads_delays_and_is_the_same_under_replay() -> None:
    due: list[list[Any]] = []
    for evicted in (False, True):
        attempts.clear()
        clock._now = 0
        async with running(app, clock=clock) as hub:
            handle = await hub.client.start_new(
                calls,
                {"first_interval": 100, "max_attempts": 6, "jitter": 0.5},
                instance_id="x",
            )
            for _ in range(5):
                if evicted:
                    await evict(hub)
                await advance(hub, clock, 150)
            history = await handle.history()
            due.append(
                [
                    round(e.fields["due"].timestamp() * 1e6)
                    for e in events_of(history, "TimerCreated")
                ]
            )
            assert await status_of(handle) == RuntimeStatus.FAILED

    delays = [at - n * 150_000_000 for n, at in enumerate(due[0])]
    assert due[0] == due[1]
    assert len(set(delays)) == 5
    assert all(50_000_000 <= delay <= 150_000_000 for delay in delays)


async def test_the_wait_before_a_retry_can_be_cancelled() -> None:
    local = App()
    local.include(app)
    store = MemoryStore()

    @local.orchestration
    async def impatient(ctx: OrchestrationContext) -> str:
        with ctx.move_on_after(5):
            await ctx.call_activity(flaky, retry=RetryPolicy(first_interval=60))
        await ctx.wait_for_external_event("end")
        return "gave up"

    async with running(local, store, clock=clock) as hub:
        handle = await hub.client.start_new(impatient)
        await advance(hub, clock, 5)
        timers = stored_timers(store)
        await advance(hub, clock, 100)
        await handle.raise_event("end")

        assert await handle.result(5) == "gave up"
        assert timers == 0
        assert len(attempts) == 1


async def test_the_idempotency_key_stays_over_retries_and_differs_between_calls() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def two(ctx: OrchestrationContext) -> None:
        for _ in range(2):
            try:
                await ctx.call_activity(flaky, retry=RetryPolicy(first_interval=1))
            except ActivityError:
                continue

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(two)
        await passes(hub, 5)
        await handle.result(5)

        assert len(keys) == 6
        assert len(set(keys[:3])) == len(set(keys[3:])) == 1
        assert keys[0] != keys[3]


# Policies of the registration.


async def test_an_activitys_own_policy_is_used_unless_the_call_gives_one() -> None:
    local = App()
    runs: list[str] = []

    @local.activity(retry=RetryPolicy(first_interval=1, max_attempts=4))
    async def stubborn(name: str) -> None:
        runs.append(name)
        raise ValueError(name)

    @local.orchestration
    async def both(ctx: OrchestrationContext) -> None:
        tasks = [
            ctx.call_activity(stubborn, "own"),
            ctx.call_activity(stubborn, "given", retry=RetryPolicy(1, 2)),
        ]
        try:
            await ctx.task_all(tasks, fail_fast=False)
        except ExceptionGroup:
            return

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(both)
        await passes(hub, 5)
        await handle.result(5)

        assert (runs.count("own"), runs.count("given")) == (4, 2)


# Sub-orchestrations.


@app.orchestration
async def child(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(flaky)


@app.orchestration
async def parent(ctx: OrchestrationContext, instance_id: str | None) -> int:
    return await ctx.call_sub_orchestrator(
        child,
        instance_id=instance_id,
        retry=RetryPolicy(first_interval=timedelta(seconds=2), max_attempts=3, backoff=2),
    )


@pytest.mark.parametrize("instance_id", [None, "child"])
async def test_a_failed_sub_orchestration_is_started_again(instance_id: str | None) -> None:
    succeed_at[:] = [3]
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(parent, instance_id, instance_id="p")

        await passes(hub, 8)

        assert await handle.result(5) == 1
        assert [at for _, at in attempts] == [0, 2, 6]
        children = [s async for s in hub.client.query(parent_instance_id="p")]
        if instance_id is None:
            assert len(children) == 3
        else:
            assert [(s.instance_id, s.execution) for s in children] == [("child", 3)]


async def test_a_sub_orchestration_that_keeps_failing_fails_its_parent() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def catches(ctx: OrchestrationContext) -> list[str]:
        try:
            await ctx.call_sub_orchestrator(child, retry=RetryPolicy(1, 2))
        except SubOrchestrationError as failed:
            return [failed.error_type, *cause_of(failed)]
        return []

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(catches)
        await passes(hub, 2)

        assert await handle.result(5) == ["ActivityError", "ValueError", "not yet"]
        assert len(attempts) == 2


async def test_a_child_that_raises_non_retryable_is_not_started_again() -> None:
    local = App()
    begun: list[str] = []

    @local.orchestration
    async def hopeless(ctx: OrchestrationContext) -> None:
        begun.append(ctx.instance_id)
        raise NonRetryableError("hopeless")

    @local.orchestration
    async def top(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator(hopeless, retry=RetryPolicy(1))

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(top)

        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        assert len(begun) == 1


async def test_an_orchestrations_own_policy_is_used_where_the_call_gives_none() -> None:
    local = App()
    begun: list[str] = []

    @local.orchestration(retry=RetryPolicy(1, 2))
    async def stubborn(ctx: OrchestrationContext) -> None:
        begun.append(ctx.instance_id)
        raise ValueError("bad")

    @local.orchestration
    async def top(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator(stubborn)

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(top)
        await passes(hub, 2)

        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        assert len(begun) == 2


async def test_a_retry_that_comes_due_inside_a_lock_is_refused_there() -> None:
    local = App()

    @local.entity
    class Thing:
        value: int = 0

    @local.orchestration
    async def fails(ctx: OrchestrationContext) -> None:
        raise ValueError("bad")

    @local.orchestration
    async def locks(ctx: OrchestrationContext) -> str:
        task = ctx.call_sub_orchestrator(fails, retry=RetryPolicy(5))
        await ctx.create_timer(timedelta(seconds=1))
        async with ctx.lock_entities(EntityId(Thing, "a")):
            await ctx.create_timer(timedelta(seconds=10))
        try:
            await task
        except Exception as refused:
            return type(refused).__name__
        return ""

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(locks)
        await passes(hub, 12)

        assert await handle.result(5) == "LockRuleError"
