"""Activities: where they run, how long, how many at once, and what they see of their call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest

from perdure import (
    ActivityContext,
    ActivityError,
    App,
    InvalidTimeError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    PayloadError,
    UnknownNameError,
    UsageError,
)
from perdure.runtime.partitions.door import Door
from tests.runtime.orchestrating import (
    advance,
    cause_of,
    event_types,
    events_of,
    evict,
    quiet,
    running,
)

app = App()


@app.activity
async def double(x: int) -> int:
    return 2 * x


# Where they run.


async def test_sync_activities_run_in_threads_and_async_ones_on_the_loop() -> None:
    local = App()

    @local.activity
    def in_thread() -> str:
        return threading.current_thread().name

    @local.activity
    async def on_loop() -> str:
        await anyio.lowlevel.checkpoint()
        return threading.current_thread().name

    @local.orchestration
    async def both(ctx: OrchestrationContext) -> list[str]:
        return [await ctx.call_activity(in_thread), await ctx.call_activity(on_loop)]

    async with running(local) as hub:
        handle = await hub.client.start_new(both)

        thread, loop = await handle.result(5)

        assert thread.startswith("perdure-activity")
        assert loop == threading.current_thread().name


async def test_sync_activities_run_at_the_same_time() -> None:
    local = App()
    barrier = threading.Barrier(3, timeout=10)

    @local.activity
    def meets(n: int) -> int:
        barrier.wait()
        return n

    @local.orchestration
    async def three(ctx: OrchestrationContext) -> list[int]:
        return await ctx.task_all([ctx.call_activity(meets, n) for n in range(3)])

    async with running(local, activity_threads_max=3) as hub:
        handle = await hub.client.start_new(three)

        assert await handle.result(10) == [0, 1, 2]


# How many at once.


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("sync", [False, True])
async def test_max_concurrency_is_honoured_over_all_instances(limit: int, sync: bool) -> None:
    local = App()
    lock = threading.Lock()
    now = [0, 0]

    def enter() -> None:
        with lock:
            now[0] += 1
            now[1] = max(now)

    def leave() -> None:
        with lock:
            now[0] -= 1

    if sync:

        @local.activity(name="limited", max_concurrency=limit)
        def limited_sync() -> None:
            enter()
            threading.Event().wait(0.002)  # long enough for others to come in, if they may
            leave()

    else:

        @local.activity(name="limited", max_concurrency=limit)
        async def limited_async() -> None:
            enter()
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            leave()

    @local.orchestration
    async def many(ctx: OrchestrationContext) -> int:
        return len(await ctx.task_all([ctx.call_activity("limited") for _ in range(10)]))

    async with running(local) as hub:
        handles = [await hub.client.start_new(many) for _ in range(3)]
        results = [await handle.result(10) for handle in handles]

        assert results == [10, 10, 10]
        assert now == [0, limit]


async def test_the_hubs_limit_for_async_activities_is_honoured() -> None:
    local = App()
    now = [0, 0]

    @local.activity
    async def counted() -> None:
        now[0] += 1
        now[1] = max(now)
        for _ in range(50):  # long enough for all to begin
            await anyio.lowlevel.checkpoint()
        now[0] -= 1

    @local.orchestration
    async def many(ctx: OrchestrationContext) -> int:
        return len(await ctx.task_all([ctx.call_activity(counted) for _ in range(30)]))

    async with running(local, activities_max=4) as hub:
        handle = await hub.client.start_new(many)

        assert await handle.result(10) == 30
        assert now == [0, 4]


async def test_a_failing_or_cancelled_run_gives_its_place_free() -> None:
    local = App()
    begun: list[int] = []
    entered = anyio.Event()

    @local.activity(max_concurrency=1)
    async def limited(n: int) -> int:
        begun.append(n)
        if n == 0:
            raise ValueError("bad")
        if n == 1:
            entered.set()
            await anyio.sleep_forever()
        return n

    @local.orchestration
    async def many(ctx: OrchestrationContext) -> list[str]:
        tasks = [ctx.call_activity(limited, n) for n in range(5)]
        await ctx.wait_for_external_event("go")
        tasks[1].cancel()
        tasks[3].cancel()
        await ctx.task_any([tasks[4]])
        return [
            "failed" if t.is_faulted else "cancelled" if t.is_cancelled else str(t.result)
            for t in tasks
        ]

    async with running(local) as hub:
        handle = await hub.client.start_new(many)
        await entered.wait()
        await handle.raise_event("go")

        assert await handle.result(5) == ["failed", "cancelled", "2", "cancelled", "4"]
        assert begun == [0, 1, 2, 4]


# How long.


@pytest.mark.parametrize("where", ["call", "registration", "timedelta"])
async def test_an_async_attempt_that_takes_too_long_fails_and_is_cancelled(where: str) -> None:
    local = App()
    clock = ManualClock()
    begun, stopped = anyio.Event(), anyio.Event()

    async def endless() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    local.activity(timeout=10 if where == "registration" else None)(endless)
    timeout = {"call": 10.0, "registration": None, "timedelta": timedelta(seconds=10)}[where]

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> list[str]:
        try:
            await ctx.call_activity(endless, timeout=timeout)
        except ActivityError as error:
            return [error.error_type, error.message]
        return []

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(waits)
        await begun.wait()
        clock.advance(9.9)
        assert not stopped.is_set()

        clock.advance(0.1)

        assert await handle.result(5) == ["TimeoutError", "no answer within 10 seconds"]
        await stopped.wait()


async def test_a_sync_attempt_that_takes_too_long_fails_and_is_told() -> None:
    local = App()
    clock = ManualClock()
    begun, leave, left = threading.Event(), threading.Event(), threading.Event()
    told: list[bool] = []

    @local.activity
    def endless(ctx: ActivityContext) -> str:
        begun.set()
        leave.wait(10)
        told.append(ctx.cancelled)
        left.set()
        return "late"

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_activity(endless, timeout=10)
        except ActivityError as error:
            return error.error_type

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(waits)
        await anyio.to_thread.run_sync(begun.wait)
        clock.advance(10)

        result = await handle.result(5)
        leave.set()
        await anyio.to_thread.run_sync(left.wait)
        await quiet(hub)

        assert result == "TimeoutError"
        assert told == [True]
        assert (await event_types(handle)).count("TaskCompleted") == 0


async def test_an_attempt_in_time_is_not_touched_by_its_timeout() -> None:
    local = App()
    local.include(app)
    clock = ManualClock()

    @local.orchestration
    async def quick(ctx: OrchestrationContext) -> list[Any]:
        first = await ctx.call_activity(double, 1, timeout=5)
        return [first, await ctx.wait_for_external_event("end")]

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(quick)
        await advance(hub, clock, 60)
        await handle.raise_event("end", 2)

        assert await handle.result(5) == [2, 2]


async def test_a_bad_timeout_is_refused_at_the_call() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def bad(ctx: OrchestrationContext) -> str:
        try:
            ctx.call_activity(double, 1, timeout=-1)
        except InvalidTimeError as error:
            return str(error)
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(bad)

        assert "-1" in await handle.result(5)


# What they see.


async def test_the_context_says_what_is_called_by_whom() -> None:
    local = App()

    @local.activity
    async def tells(ctx: ActivityContext, x: int) -> dict[str, Any]:
        ctx.heartbeat({"done": x})
        return {
            "instance": ctx.instance_id,
            "name": ctx.name,
            "task": ctx.task_id,
            "attempt": ctx.attempt,
            "tags": dict(ctx.tags),
            "key": ctx.idempotency_key,
            "cancelled": ctx.cancelled,
            "progress": ctx.progress,
        }

    @local.activity
    def tells_from_a_thread(x: int, ctx: ActivityContext) -> str:
        return f"{ctx.instance_id} {x}"

    @local.orchestration
    async def asks(ctx: OrchestrationContext) -> list[Any]:
        return [
            await ctx.call_activity(tells, 1, tags={"a": "b"}),
            await ctx.call_activity(tells, 2),
            await ctx.call_activity("tells_from_a_thread", 3),
        ]

    async with running(local) as hub:
        handle = await hub.client.start_new(asks, instance_id="x")

        first, second, third = await handle.result(5)

        assert first | {"key": ""} == {
            "instance": "x",
            "name": "tells",
            "task": 1,
            "attempt": 1,
            "tags": {"a": "b"},
            "key": "",
            "cancelled": False,
            "progress": {"done": 1},
        }
        assert second["tags"] == {}
        assert first["key"] != second["key"]
        assert third == "x 3"


async def test_the_idempotency_key_is_the_same_when_a_call_runs_again_after_a_stop() -> None:
    local = App()
    keys: list[str] = []
    gate, begun = anyio.Event(), anyio.Event()

    @local.activity
    async def slow(ctx: ActivityContext) -> str:
        keys.append(ctx.idempotency_key)
        begun.set()
        await gate.wait()
        return "done"

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(slow)

    store = MemoryStore()
    async with running(local, store, drain_s=0.01) as hub:
        await hub.client.start_new(calls, instance_id="x")
        await begun.wait()
    gate.set()

    async with running(local, store) as hub:
        assert await hub.client.get_handle("x").result(5) == "done"
        assert len(keys) == 2
        assert keys[0] == keys[1]


async def test_answers_taken_twice_do_not_hide_that_another_call_is_open() -> None:
    local = App()
    runs: dict[str, int] = {"quick": 0, "slow": 0}
    gates = [anyio.Event()]

    @local.activity
    async def quick() -> str:
        runs["quick"] += 1
        return "quick"

    @local.activity
    async def slow() -> str:
        runs["slow"] += 1
        await gates[0].wait()
        return "slow"

    @local.orchestration
    async def both(ctx: OrchestrationContext) -> list[str]:
        await ctx.wait_for_external_event("go")
        return await ctx.task_all([ctx.call_activity(quick), ctx.call_activity(slow)])

    store = MemoryStore()
    async with running(local, store, drain_s=0.01) as hub:
        handle = await hub.client.start_new(both, instance_id="x")
        await handle.raise_event("go")
        await handle.suspend()
        while not runs["quick"]:
            await anyio.sleep(0.001)
    # The answer of the first is stored and held; both are run again, so it has two of them.
    async with running(local, store, drain_s=0.01) as hub:
        handle = hub.client.get_handle("x")
        while runs["slow"] < 2:
            await anyio.sleep(0.001)
        await handle.resume()
        while (await event_types(handle)).count("TaskCompleted") < 1:
            await anyio.sleep(0.001)
    gates[0].set()

    async with running(local, store) as hub:
        assert await hub.client.get_handle("x").result(5) == ["quick", "slow"]


# Values and failures.


async def test_a_result_that_has_no_json_form_fails_the_call_with_the_path() -> None:
    local = App()

    @local.activity
    async def odd() -> Any:
        return {"a": [1, object()]}

    @local.activity
    def odd_in_thread() -> Any:
        return {"a": [1, object()]}

    @local.activity
    async def wrong() -> int:
        value: Any = "text"
        return value  # type: ignore[no-any-return]

    @local.activity
    async def large() -> str:
        return "x" * 2000

    @local.orchestration
    async def calls(ctx: OrchestrationContext, name: str) -> list[str]:
        try:
            await ctx.call_activity(name)
        except ActivityError as error:
            return [error.error_type, error.message]
        return []

    async with running(local, max_payload=1000) as hub:
        found = {
            name: await (await hub.client.start_new(calls, name)).result(5)
            for name in ("odd", "odd_in_thread", "wrong", "large")
        }

        assert found["odd"][0] == found["odd_in_thread"][0] == "PayloadError"
        assert "$.a[1]" in found["odd"][1]
        assert found["wrong"][0] == "PayloadError"
        assert found["large"][0] == "PayloadTooLargeError"


async def test_bad_input_is_refused_at_the_call_and_nothing_is_scheduled() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def bad(ctx: OrchestrationContext) -> list[str]:
        text: Any = "text"
        refused: list[str] = []
        calls: list[Callable[[], Any]] = [
            lambda: ctx.call_activity("double", text),
            lambda: ctx.call_activity("double"),
            lambda: ctx.call_activity("double", object()),
            lambda: ctx.call_activity("duoble", 1),
        ]
        for call in calls:
            try:
                call()
            except (PayloadError, UnknownNameError, UsageError) as error:
                refused.append(type(error).__name__)
        return refused

    async with running(local) as hub:
        handle = await hub.client.start_new(bad)

        assert await handle.result(5) == [
            "PayloadError",
            "UsageError",
            "PayloadError",
            "UnknownNameError",
        ]
        assert not events_of(await handle.history(), "TaskScheduled")


class DeclinedError(Exception):
    """A user's own."""


async def test_a_failure_tells_type_message_trace_and_causes() -> None:
    local = App()

    @local.activity
    async def pays() -> None:
        try:
            raise KeyError("card")
        except KeyError as error:
            raise DeclinedError("no money") from error

    @local.orchestration
    async def catches(ctx: OrchestrationContext) -> dict[str, Any]:
        try:
            await ctx.call_activity(pays)
        except ActivityError as error:
            return {
                "target": error.target,
                "type": error.error_type,
                "message": error.message,
                "trace": error.stack_trace,
                "cause": cause_of(error),
                "text": str(error),
            }
        return {}

    async with running(local) as hub:
        handle = await hub.client.start_new(catches)

        found = await handle.result(5)

        trace = found.pop("trace")
        assert found == {
            "target": "pays",
            "type": "DeclinedError",
            "message": "no money",
            "cause": ["KeyError", "'card'"],
            "text": "pays failed: DeclinedError: no money",
        }
        assert "raise DeclinedError" in trace
        assert __file__ in trace


async def test_an_uncaught_failure_of_an_activity_shows_in_status_and_result() -> None:
    local = App()

    @local.activity
    def breaks() -> None:
        raise DeclinedError("no money")

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(breaks)

    async with running(local) as hub:
        handle = await hub.client.start_new(calls)
        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        status = await handle.status()

        assert caught.value.failure == status.failure
        assert caught.value.error_type == "ActivityError"
        assert "await ctx.call_activity(breaks)" in caught.value.stack_trace
        assert caught.value.cause is not None
        assert caught.value.cause.error_type == "DeclinedError"
        assert "raise DeclinedError" in caught.value.cause.stack_trace


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio's own Cancelled cannot be raised
async def test_an_activity_that_raises_a_cancellation_of_its_own_has_failed() -> None:
    local = App()

    @local.activity
    async def odd() -> None:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        await asyncio.sleep(0)
        task.cancel()
        await task

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(odd)
        except ActivityError as error:
            return error.error_type
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(calls)

        assert await handle.result(5) == "CancelledError"


async def test_a_sync_activity_that_exits_has_failed() -> None:
    local = App()

    @local.activity
    def leaves() -> None:
        raise SystemExit(3)

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(leaves)
        except ActivityError as error:
            return error.error_type
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(calls)

        assert await handle.result(5) == "SystemExit"


async def test_an_answer_reaches_an_evicted_orchestration() -> None:
    local = App()
    gate, begun = anyio.Event(), anyio.Event()

    @local.activity
    async def slow() -> str:
        begun.set()
        await gate.wait()
        return "answer"

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(slow)

    async with running(local) as hub:
        handle = await hub.client.start_new(calls)
        await begun.wait()
        for partition in hub._partitions:
            await Door(partition).wait_durable()
            partition.catalog.evict(1000)
            partition.catalog.evict(1000)
        assert not any(partition.activations for partition in hub._partitions)

        gate.set()

        assert await handle.result(5) == "answer"
        assert await evict(hub) == 0


async def test_an_activity_that_a_release_lost_parks_its_callers() -> None:
    store = MemoryStore()

    def release(known: bool) -> App:
        local = App()
        if known:

            @local.activity
            async def old() -> None:
                await anyio.sleep_forever()

        @local.orchestration
        async def calls(ctx: OrchestrationContext) -> str:
            try:
                await ctx.call_activity("old")
            except ActivityError as error:
                return error.error_type
            return ""

        return local

    async with running(release(True), store, drain_s=0.01) as hub:
        handle = await hub.client.start_new("calls", instance_id="x")
        while "TaskScheduled" not in await event_types(handle):
            await anyio.sleep(0.001)

    async with running(release(False), store) as hub:
        handle = hub.client.get_handle("x")
        await quiet(hub)
        status = await handle.status()

        # The call cannot be looked up in the replay either, so the code is not what it was.
        assert status.parked is not None
        assert status.parked.type == "NondeterminismError"
        assert "TaskScheduled(1, 'old'" in status.parked.reason
