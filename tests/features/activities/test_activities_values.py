"""What activities are given, and how they answer and fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from perdure import (
    ActivityError,
    App,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    PayloadError,
    UnknownNameError,
    UsageError,
)
from perdure.runtime.partitions.door import Door
from perdure.testing.inside import partitions_of
from tests.runtime.orchestrating import cause_of, event_types, events_of, evict, quiet, running

app = App()


@app.activity
async def double(x: int) -> int:
    return 2 * x


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
        for partition in partitions_of(hub):
            await Door(partition).wait_durable()
            partition.catalog.evict(1000)
            partition.catalog.evict(1000)
        assert not any(partition.activations for partition in partitions_of(hub))

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
