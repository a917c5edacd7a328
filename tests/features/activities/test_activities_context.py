"""What activities see of their call."""

from __future__ import annotations

from typing import Any

import anyio

from perdure import ActivityContext, App, MemoryStore, OrchestrationContext
from tests.runtime.orchestrating import event_types, running


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
