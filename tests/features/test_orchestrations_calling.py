"""Inputs and forms of orchestrations, sub-orchestrations, versions and custom status."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    App,
    FailureDetails,
    ManualClock,
    MemoryStore,
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
from tests.actors.recording import START, Instance
from tests.runtime.orchestrating import (
    HOUR,
    Flow,
    cause_of,
    event_types,
    evict,
    quiet,
    running,
    status_of,
)

app = App()


@dataclass
class Order:
    item: str
    count: int = 1


# Inputs.


@app.orchestration
async def takes_input(ctx: OrchestrationContext, order: Order) -> Order:
    return Order(order.item.upper(), order.count + 1)


@app.orchestration
def takes_input_by_yield(ctx: OrchestrationContext, order: Order) -> Generator[Any, Any, Order]:
    yield ctx.task_all([])
    return Order(order.item.upper(), order.count + 1)


@pytest.mark.parametrize("flow", [takes_input, takes_input_by_yield])
@pytest.mark.parametrize("by_name", [False, True])
async def test_input_and_result_have_their_declared_types(flow: Flow, by_name: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow.__name__ if by_name else flow, Order("tea", 2))

        result = await handle.result(5)

        assert result == Order("TEA", 3)
        assert await hub.client.get_handle(handle.instance_id).result(5) == Order("TEA", 3)


@app.orchestration
async def gets_input(ctx: OrchestrationContext) -> Any:
    return ctx.get_input()


@app.orchestration
def gets_input_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    yield ctx.task_all([])
    return ctx.get_input()


@pytest.mark.parametrize("name", ["gets_input", "gets_input_by_yield"])
@pytest.mark.parametrize("value", [None, 5, {"a": [1, {"b": None}]}, "text", []])
async def test_a_function_of_its_context_alone_gets_any_input(name: str, value: Any) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(name, value)

        assert await handle.result(5) == value


async def test_get_input_of_nothing_is_none() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(gets_input)

        assert await handle.result(5) is None


async def test_get_input_gives_the_typed_input_each_time() -> None:
    local = App()

    @local.orchestration
    async def both(ctx: OrchestrationContext, order: Order) -> list[bool]:
        order.count = 99
        again: Order = ctx.get_input()
        return [again == Order("tea"), type(again) is Order]

    async with running(local) as hub:
        handle = await hub.client.start_new(both, Order("tea"))

        assert await handle.result(5) == [True, True]


async def test_a_parameter_with_a_default_may_be_left_out() -> None:
    local = App()

    @local.orchestration
    async def defaulted(ctx: OrchestrationContext, n: int = 7) -> int:
        return n

    async with running(local) as hub:
        left_out = await hub.client.start_new("defaulted")
        given = await hub.client.start_new("defaulted", 1)

        assert (await left_out.result(5), await given.result(5)) == (7, 1)


# Sub-orchestrations.


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
        used = [p for p in hub._partitions if p.commits]
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


# Versions.


def release(*versions: str | None) -> App:
    """An application with these versions of ``flow``."""
    local = App()
    for version in versions:

        @local.orchestration(name="flow", version=version)
        async def flow(ctx: OrchestrationContext, mark: str = "") -> list[str | None]:
            said = [ctx.version, mark]
            if ctx.instance_id.startswith("x"):
                await ctx.wait_for_external_event("go")
            return said

    return local


async def test_a_new_instance_takes_the_highest_version() -> None:
    async with running(release(None, "1.9", "1.10", "1.2")) as hub:
        handle = await hub.client.start_new("flow")

        assert await handle.result(5) == ["1.10", ""]
        assert (await handle.status()).version == "1.10"


async def test_a_version_can_be_asked_for() -> None:
    async with running(release("1", "2")) as hub:
        handle = await hub.client.start_new("flow", version="1")

        assert await handle.result(5) == ["1", ""]
        with pytest.raises(UnknownNameError, match="it has: 1, 2"):
            await hub.client.start_new("flow", version="3")


async def test_a_function_stands_for_its_own_version() -> None:
    local = App()

    @local.orchestration(name="flow", version="1")
    async def first(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    @local.orchestration(name="flow", version="2")
    async def second(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> list[str | None]:
        return await ctx.task_all(
            [
                ctx.call_sub_orchestrator(first),
                ctx.call_sub_orchestrator("flow"),
                ctx.call_sub_orchestrator("flow", version="1"),
            ]
        )

    async with running(local) as hub:
        assert await (await hub.client.start_new(first)).result(5) == "1"
        assert await (await hub.client.start_new(calls)).result(5) == ["1", "2", "1"]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("old", ["1", None])
async def test_a_running_instance_keeps_its_version_when_a_higher_one_comes(
    kind: str, old: str | None, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(release(old), store) as hub:
        await hub.client.start_new("flow", "old", instance_id="x")

    async with running(release(old, "2"), store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")
        new = await hub.client.start_new("flow", "new")

        assert await handle.result(5) == [old, "old"]
        assert await new.result(5) == ["2", "new"]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_missing_version_parks_the_instance_until_it_is_back(
    kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(release("1", "2"), store) as hub:
        await hub.client.start_new("flow", "old", instance_id="x", version="1")

    async with running(release("2"), store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")
        status = await handle.status()
        assert status.runtime_status == RuntimeStatus.RUNNING
        assert status.parked is not None
        assert status.parked.type == "UnknownNameError"
        assert "no version '1' of orchestration 'flow'" in status.parked.reason
        assert [s.instance_id async for s in hub.client.query(parked=True)] == ["x"]

    async with running(release("1", "2"), store) as hub:
        handle = hub.client.get_handle("x")
        assert await handle.result(5) == ["1", "old"]
        assert (await handle.status()).parked is None


async def test_a_version_registered_again_in_the_running_hub_is_found_by_retry() -> None:
    store = MemoryStore()
    async with running(release("1"), store) as hub:
        await hub.client.start_new("flow", "old", instance_id="x")

    later = release("2")
    async with running(later, store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")
        assert (await handle.status()).parked is not None
        later.include(release("1"))

        await handle.retry()

        assert await handle.result(5) == ["1", "old"]


async def test_a_parked_instance_can_be_terminated() -> None:
    store = MemoryStore()
    async with running(release("1"), store) as hub:
        await hub.client.start_new("flow", "old", instance_id="x")

    async with running(release("2"), store) as hub:
        handle = hub.client.get_handle("x")
        await handle.raise_event("go")
        assert (await handle.status()).parked is not None

        await handle.terminate()

        status = await handle.status()
        assert status.runtime_status == RuntimeStatus.TERMINATED
        assert status.parked is None


async def test_a_scheduled_instance_whose_version_is_gone_is_parked_at_its_time() -> None:
    store, clock = MemoryStore(), ManualClock()
    async with running(release("1"), store, clock=clock) as hub:
        await hub.client.start_new("flow", "m", instance_id="s", start_at=HOUR)
    clock.advance(3600)

    async with running(release("2"), store, clock=clock) as hub:
        await quiet(hub)
        assert (await hub.client.get_handle("s").status()).parked is not None

    async with running(release("1"), store, clock=clock) as hub:
        assert await hub.client.get_handle("s").result(5) == ["1", "m"]


async def test_continue_as_new_migrates_to_another_version() -> None:
    local = App()

    @local.orchestration(name="flow", version="1")
    async def first(ctx: OrchestrationContext, n: int) -> list[Any]:
        ctx.continue_as_new(n + 1, version="2")
        return []

    @local.orchestration(name="flow", version="2")
    async def second(ctx: OrchestrationContext, n: int) -> list[Any]:
        if n < 5:
            ctx.continue_as_new(n + 1)
        return [ctx.version, n]

    async with running(local) as hub:
        handle = await hub.client.start_new(first, 1)

        assert await handle.result(5) == ["2", 5]
        assert (await handle.status()).version == "2"


async def test_continue_as_new_to_an_unknown_version_is_refused_at_the_call() -> None:
    local = App()

    @local.orchestration(version="1")
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            ctx.continue_as_new(version="2")
        except UnknownNameError:
            return "refused"
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(flow)

        assert await handle.result(5) == "refused"


# Custom status.


@app.orchestration
async def reports(ctx: OrchestrationContext, values: list[Any]) -> str:
    for value in values:
        ctx.set_custom_status("overwritten")
        ctx.set_custom_status(value)
        await ctx.wait_for_external_event("next")
    return "done"


@app.orchestration
def reports_by_yield(ctx: OrchestrationContext, values: list[Any]) -> Generator[Any, Any, str]:
    for value in values:
        ctx.set_custom_status("overwritten")
        ctx.set_custom_status(value)
        yield ctx.wait_for_external_event("next")
    return "done"


@pytest.mark.parametrize("flow", [reports, reports_by_yield])
async def test_each_custom_status_is_visible_at_the_next_checkpoint(flow: Flow) -> None:
    values = ["half", {"percent": 50, "list": [1, None]}, 7, None, False]
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, values)
        shown: list[Any] = []
        for _ in values:
            await evict(hub)
            shown.append((await handle.status()).custom_status)
            await handle.raise_event("next")

        assert await handle.result(5) == "done"
        assert shown == values
        assert (await handle.status()).custom_status is False


async def test_a_custom_status_of_a_first_turn_that_ends_is_kept() -> None:
    local = App()

    @local.orchestration
    async def once(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status({"at": "end"})

    async with running(local) as hub:
        handle = await hub.client.start_new(once)
        await handle.result(5)

        assert (await handle.status()).custom_status == {"at": "end"}


async def test_a_custom_status_survives_failure_and_termination() -> None:
    local = App()

    @local.orchestration
    async def fails(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status("failing")
        raise ValueError("bad")

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status("waiting")
        await ctx.wait_for_external_event("never")

    async with running(local) as hub:
        failed = await hub.client.start_new(fails)
        terminated = await hub.client.start_new(waits)
        await terminated.terminate()
        await quiet(hub)

        assert (await failed.status()).custom_status == "failing"
        assert (await terminated.status()).custom_status == "waiting"


async def test_a_custom_status_without_json_form_is_refused_at_the_call() -> None:
    local = App()

    @local.orchestration
    async def bad(ctx: OrchestrationContext) -> str:
        try:
            ctx.set_custom_status(object())
        except PayloadError as error:
            return type(error).__name__
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(bad)

        assert await handle.result(5) == "PayloadError"
        assert (await handle.status()).custom_status is None


# The ids of children.


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
