"""Sub-orchestrations: what they answer, how they fail, and which ids they have."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from perdure import (
    App,
    FailureDetails,
    OrchestrationContext,
    OrchestrationFailedError,
    PayloadError,
    RuntimeStatus,
    SubOrchestrationError,
    UnknownNameError,
    UsageError,
)
from perdure.actors.messages import Start
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.placement.hashing import partition_of
from perdure.testing.inside import partitions_of
from tests.actors.recording import START, Instance
from tests.runtime.orchestrating import (
    Flow,
    cause_of,
    event_types,
    evict,
    quiet,
    running,
    status_of,
)

app = App()


@app.orchestration
async def describes(ctx: OrchestrationContext, name: str) -> dict[str, Any]:
    return {"name": name, "id": ctx.instance_id, "parent": ctx.parent_instance_id}


@app.orchestration
async def family(ctx: OrchestrationContext) -> list[dict[str, Any]]:
    return await ctx.task_all(
        [
            ctx.call_sub_orchestrator(describes, "a"),
            ctx.call_sub_orchestrator("describes", "b"),
            ctx.call_sub_orchestrator(describes, "c", instance_id="named"),
        ]
    )


@app.orchestration
def family_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    for name, instance_id in (("a", None), ("b", None), ("c", "named")):
        task = ctx.call_sub_orchestrator(describes, name, instance_id=instance_id)
        found.append((yield task))
    return found


@pytest.mark.parametrize("flow", [family, family_by_yield])
async def test_children_know_their_parent_and_have_ids_of_their_own(flow: Flow) -> None:
    async with running(app, partitions=4) as hub:
        handle = await hub.client.start_new(flow, instance_id="p")

        children = await handle.result(5)

        assert [child["name"] for child in children] == ["a", "b", "c"]
        assert {child["parent"] for child in children} == {"p"}
        assert len({child["id"] for child in children}) == 3
        assert children[2]["id"] == "named"
        status = await hub.client.get_handle("named").status()
        assert status.parent_instance_id == "p"
        assert (await handle.status()).parent_instance_id is None


async def test_children_that_are_replayed_keep_their_ids() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def top(ctx: OrchestrationContext) -> list[str]:
        ids: list[str] = []
        for _ in range(3):
            ids.append((await ctx.call_sub_orchestrator(describes, "x"))["id"])
            await ctx.wait_for_external_event("next")
        return ids

    async with running(local) as hub:
        handle = await hub.client.start_new(top, instance_id="p")
        for _ in range(3):
            await evict(hub)
            await handle.raise_event("next")

        ids = await handle.result(5)

        children = [s.instance_id async for s in hub.client.query(parent_instance_id="p")]
        assert sorted(ids) == sorted(children)
        assert len(set(ids)) == 3


@app.orchestration
async def breaks(ctx: OrchestrationContext) -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


async def test_a_failed_child_surfaces_as_sub_orchestration_error() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def catches(ctx: OrchestrationContext) -> dict[str, Any]:
        try:
            await ctx.call_sub_orchestrator(breaks, instance_id="child")
        except SubOrchestrationError as error:
            return {
                "target": error.target,
                "type": error.error_type,
                "message": error.message,
                "trace": error.stack_trace,
                "cause": cause_of(error),
            }
        return {}

    async with running(local) as hub:
        handle = await hub.client.start_new(catches)

        found = await handle.result(5)

        assert "raise ValueError" in found.pop("trace")
        assert found == {
            "target": "breaks (child)",
            "type": "ValueError",
            "message": "outer",
            "cause": ["KeyError", "'inner'"],
        }


async def test_an_uncaught_failure_of_a_grandchild_shows_the_chain_of_causes() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def middle(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator(breaks)

    @local.orchestration
    async def top(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator(middle)

    async with running(local) as hub:
        handle = await hub.client.start_new(top)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        chain: list[str] = []
        failure: FailureDetails | None = caught.value.failure
        while failure is not None:
            chain.append(failure.error_type)
            failure = failure.cause
        assert chain == ["SubOrchestrationError", "SubOrchestrationError", "ValueError", "KeyError"]


async def test_a_child_under_the_id_of_a_live_instance_fails_its_call() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @local.orchestration
    async def collides(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_sub_orchestrator(describes, "x", instance_id="taken")
        except SubOrchestrationError as error:
            return error.error_type
        return ""

    async with running(local) as hub:
        taken = await hub.client.start_new(waits, instance_id="taken")
        handle = await hub.client.start_new(collides)

        assert await handle.result(5) == "InstanceAlreadyExistsError"
        assert await status_of(taken) == RuntimeStatus.RUNNING


async def test_a_terminated_child_fails_in_its_parent() -> None:
    local = App()

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @local.orchestration
    async def notices(ctx: OrchestrationContext) -> list[str]:
        try:
            await ctx.call_sub_orchestrator(waits, instance_id="child")
        except SubOrchestrationError as error:
            return [error.error_type, error.message]
        return []

    async with running(local) as hub:
        handle = await hub.client.start_new(notices)
        await quiet(hub)

        await hub.client.terminate("child", "gone")

        assert await handle.result(5) == ["Terminated", "gone"]


async def test_a_child_that_continues_as_new_answers_once_at_its_end() -> None:
    local = App()

    @local.orchestration
    async def counts(ctx: OrchestrationContext, n: int) -> int:
        if n < 5:
            ctx.continue_as_new(n + 1)
        return n

    @local.orchestration
    async def top(ctx: OrchestrationContext) -> int:
        return await ctx.call_sub_orchestrator(counts, 0)

    async with running(local) as hub:
        handle = await hub.client.start_new(top)

        assert await handle.result(5) == 5
        types = await event_types(handle)
        assert types.count("SubOrchestrationInstanceCompleted") == 1


async def test_a_child_goes_on_when_its_parent_is_completed() -> None:
    local = App()

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @local.orchestration
    async def leaves(ctx: OrchestrationContext) -> str:
        ctx.call_sub_orchestrator(waits, instance_id="child")
        return "left"

    async with running(local) as hub:
        handle = await hub.client.start_new(leaves)
        assert await handle.result(5) == "left"
        await quiet(hub)
        before = await event_types(handle)

        await hub.client.raise_event("child", "go", 1)

        assert await hub.client.get_handle("child").result(5) == 1
        await quiet(hub)
        assert await event_types(handle) == before


async def test_children_run_in_other_partitions_too() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def spreads(ctx: OrchestrationContext) -> int:
        children = [
            ctx.call_sub_orchestrator(describes, "x", instance_id=f"child-{n}") for n in range(40)
        ]
        return len(await ctx.task_all(children))

    async with running(local, partitions=8) as hub:
        handle = await hub.client.start_new(spreads)

        assert await handle.result(10) == 40
        used = [p for p in partitions_of(hub) if p.commits]
        assert len(used) > 1


async def test_a_bad_call_of_a_child_is_refused_at_the_call() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def bad(ctx: OrchestrationContext) -> list[str]:
        wrong: Any = 5
        calls: list[Callable[[], Any]] = [
            lambda: ctx.call_sub_orchestrator("unknown"),
            lambda: ctx.call_sub_orchestrator(describes, "x", version="9"),
            lambda: ctx.call_sub_orchestrator(describes, wrong),
            lambda: ctx.call_sub_orchestrator("describes"),
            lambda: ctx.call_sub_orchestrator(describes, "x", instance_id="@x@y"),
        ]
        refused: list[str] = []
        for call in calls:
            try:
                call()
            except (UnknownNameError, PayloadError) as error:
                refused.append(type(error).__name__)
            except UsageError as error:
                refused.append(type(error).__name__)
        return refused

    async with running(local) as hub:
        handle = await hub.client.start_new(bad)

        assert await handle.result(5) == [
            "UnknownNameError",
            "UnknownNameError",
            "PayloadError",
            "UsageError",
            "InvalidIdError",
        ]
        assert await event_types(handle) == ["ExecutionStarted", "ExecutionCompleted"]


@app.orchestration
async def down(ctx: OrchestrationContext, left: int) -> list[str]:
    if not left:
        return [ctx.instance_id]
    return [ctx.instance_id, *await ctx.call_sub_orchestrator(down, left - 1)]


@pytest.mark.parametrize(("id", "depth"), [("top", 80), ("x" * 256, 3), ("a::" + "é" * 253, 3)])
async def test_children_have_valid_ids_beside_their_parents_at_any_depth(
    id: str, depth: int
) -> None:
    async with running(app, partitions=16) as hub:
        handle = await hub.client.start_new(down, depth, instance_id=id)

        ids = await handle.result(30)

        assert len(set(ids)) == depth + 1
        assert max(map(len, ids)) <= max(128, 256 + 26)
        assert len({partition_of(each, 16) for each in ids}) == 1
        assert (await hub.client.get_handle(ids[-1]).status()).runtime_status == "Completed"
        assert len(ids[-1]) < 129 or depth == 3


def test_a_child_that_was_given_its_id_in_full_keeps_it() -> None:
    long = "top" + "::1.1" * 30  # of the release that wrote ids in full

    with Instance(Lookup(app, 1_000_000), long) as instance:
        instance.take(Start("down", None, b"1"), START)
        created = instance.history[1]
        assert created[0] == "SubOrchestrationInstanceCreated"
        assert len(created[5]) < len(long)
        created[5] = f"{long}::1.1"

        again = instance.restored()

        assert again.executor.children == {1: f"{long}::1.1"}
        again.actor.close()
