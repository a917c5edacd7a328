"""Handles: waiting for results, status and history."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    HubStoppingError,
    InstanceNotFoundError,
    ManualClock,
    MemoryStore,
    OrchestrationCanceledError,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationTerminatedError,
    UnavailableError,
)
from tests.runtime.orchestrating import evict, quiet, running

app = App()


@app.activity
async def double(x: int) -> int:
    return 2 * x


@app.orchestration
async def waits(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


@app.orchestration
async def fails(ctx: OrchestrationContext) -> None:
    raise ValueError("bad")


async def test_a_result_that_does_not_come_in_time_raises_timeout_error_and_goes_on() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits, instance_id="x")

        with pytest.raises(TimeoutError, match=r"'x' has not ended within 0\.01 seconds"):
            await handle.result(timeout=0.01)

        await handle.raise_event("go", 1)
        assert await handle.result(timeout=5) == 1


async def test_a_timeout_of_zero_gives_a_result_that_is_there() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0)
        await handle.raise_event("go", 1)
        await quiet(hub)

        assert await handle.result(timeout=0) == 1


async def test_many_may_wait_for_one_result() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits)
        results: list[Any] = []
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                results.append(await handle.result(5))

            for _ in range(20):
                tasks.start_soon(wait)
            await quiet(hub)
            await handle.raise_event("go", 1)

        assert results == [1] * 20


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_result_is_there_long_after_the_end(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits)
        await handle.raise_event("go", {"a": 1})
        await quiet(hub)
        if evicted:
            await evict(hub)

        assert await handle.result(5) == {"a": 1}
        assert await handle.result(5) == {"a": 1}


async def test_each_ending_that_is_no_completion_has_its_error() -> None:
    async with running(app) as hub:
        failed = await hub.client.start_new(fails)
        terminated = await hub.client.start_new(waits)
        await terminated.terminate("t")
        canceled = await hub.client.start_new(waits)
        await canceled.cancel("c")

        with pytest.raises(OrchestrationFailedError, match="ValueError: bad"):
            await failed.result(5)
        with pytest.raises(OrchestrationTerminatedError, match="t"):
            await terminated.result(5)
        with pytest.raises(OrchestrationCanceledError, match="c"):
            await canceled.result(5)


async def test_the_result_of_nobody_is_refused() -> None:
    async with running(app) as hub:
        for call in ("result", "status", "history"):
            with pytest.raises(InstanceNotFoundError, match="nobody"):
                await getattr(hub.client.get_handle("nobody"), call)()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_results_outlive_the_hub(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        handle = await hub.client.start_new(waits, instance_id="x")
        await handle.raise_event("go", [1, 2])
        failed = await hub.client.start_new(fails, instance_id="f")
        with pytest.raises(OrchestrationFailedError):
            await failed.result(5)

    async with running(app, store) as hub:
        assert await hub.client.get_handle("x").result(5) == [1, 2]
        with pytest.raises(OrchestrationFailedError) as caught:
            await hub.client.get_handle("f").result(5)
        assert "raise ValueError" in caught.value.stack_trace


async def test_who_waits_when_the_hub_stops_is_told() -> None:
    told: list[str] = []
    async with anyio.create_task_group() as tasks, running(app) as hub:
        handle = await hub.client.start_new(waits)
        waiting = anyio.Event()

        async def wait() -> None:
            waiting.set()
            try:
                await handle.result()
            except UnavailableError as error:
                told.append(type(error).__name__)

        tasks.start_soon(wait)
        await waiting.wait()
        await quiet(hub)

    assert told == [HubStoppingError.__name__]


async def test_a_history_tells_what_happened_in_order() -> None:
    local = App()
    local.include(app)
    clock = ManualClock(int(datetime(2030, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000)

    @local.orchestration
    async def steps(ctx: OrchestrationContext) -> int:
        ctx.send_event("elsewhere", "hello", 1)
        x = await ctx.call_activity(double, 4)
        await ctx.wait_for_external_event("Go", timeout=60)
        await ctx.call_sub_orchestrator(child, instance_id="child")
        return x

    @local.orchestration
    async def child(ctx: OrchestrationContext) -> None:
        return None

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(steps, instance_id="x")
        await quiet(hub)
        clock.advance(5)
        await handle.raise_event("go", {"a": 1})
        await handle.result(5)

        history = await handle.history()

        assert [event.event_type for event in history] == [
            "ExecutionStarted",
            "EventSent",
            "TaskScheduled",
            "TaskCompleted",
            "TimerCreated",
            "EventRaised",
            "SubOrchestrationInstanceCreated",
            "SubOrchestrationInstanceCompleted",
            "ExecutionCompleted",
        ]
        fields = {"task_id": 2, "result": 8, "started": None, "shard": 0}
        assert history[3].fields == fields
        assert history[5].fields == {"name": "go", "data": {"a": 1}}
        assert (history[5].timestamp - history[0].timestamp).total_seconds() == 5
        assert history[0].timestamp == datetime(2030, 1, 1, tzinfo=UTC)
        assert (await handle.status()).history_length == len(history)


async def test_a_handle_names_its_instance() -> None:
    async with running(app) as hub:
        handle = hub.client.get_handle("x")

        assert (handle.instance_id, repr(handle)) == ("x", "OrchestrationHandle('x')")
