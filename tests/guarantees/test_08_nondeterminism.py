"""Guarantee 8: code that left its history is caught, loses nothing, and goes on once repaired."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from attrs import frozen

from perdure import (
    App,
    EntityId,
    Hub,
    InstanceFinishedError,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    RuntimeStatus,
    Settings,
)
from tests.faults import JumpingClock, settle as let_all_run, within

Code = Callable[[OrchestrationContext, int], Awaitable[Any]]


def app_with(code: Code) -> App:
    """Make an application whose orchestration ``flow`` has that code."""
    app = App()

    @app.activity
    async def first(x: int) -> int:
        return x + 1

    @app.activity
    async def second(x: int) -> int:
        return x + 1

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

        def sub(self, amount: int) -> int:
            self.value -= amount
            return self.value

    @app.orchestration
    async def child(ctx: OrchestrationContext, x: int) -> int:
        return x

    app.orchestration(name="flow")(code)
    return app


COUNTER: EntityId[Any] = EntityId("counter", "c")
OTHER: EntityId[Any] = EntityId("counter", "d")


async def right(ctx: OrchestrationContext, x: int) -> list[Any]:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("second", x)
    ctx.signal_entity(COUNTER, "add", x)
    await ctx.create_timer(timedelta(seconds=1))
    await ctx.call_sub_orchestrator("child", x)
    heard = [await ctx.wait_for_external_event("go") for _ in range(2)]
    return [x, *heard]


# The position of each event of that history:
#  0 ExecutionStarted      1 TaskScheduled first    2 TaskCompleted
#  3 TaskScheduled second  4 TaskCompleted
#  5 EntityOperationSignaled  6 TimerCreated  7 TimerFired
#  8 SubOrchestrationInstanceCreated  9 SubOrchestrationInstanceCompleted


async def changed_name(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("first", x)  # here
    return await ctx.wait_for_external_event("go")


async def changed_input(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("second", x + 1)  # here
    return await ctx.wait_for_external_event("go")


async def changed_order(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("second", x)  # here
    x = await ctx.call_activity("first", x)
    return await ctx.wait_for_external_event("go")


async def removed_call(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    ctx.signal_entity(COUNTER, "add", x)  # here
    return await ctx.wait_for_external_event("go")


async def added_call(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    await ctx.create_timer(timedelta(seconds=1))  # here
    x = await ctx.call_activity("second", x)
    return await ctx.wait_for_external_event("go")


async def changed_target(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("second", x)
    ctx.signal_entity(OTHER, "add", x)  # here
    return await ctx.wait_for_external_event("go")


async def changed_operation(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("second", x)
    ctx.signal_entity(COUNTER, "sub", x)  # here
    return await ctx.wait_for_external_event("go")


async def changed_delay(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("second", x)
    ctx.signal_entity(COUNTER, "add", x)
    await ctx.create_timer(timedelta(seconds=2))  # here
    return await ctx.wait_for_external_event("go")


async def changed_child_id(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("second", x)
    ctx.signal_entity(COUNTER, "add", x)
    await ctx.create_timer(timedelta(seconds=1))
    await ctx.call_sub_orchestrator("child", x, instance_id="other")  # here
    return await ctx.wait_for_external_event("go")


async def extra_call_at_the_end(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("second", x)
    ctx.signal_entity(COUNTER, "add", x)
    await ctx.create_timer(timedelta(seconds=1))
    await ctx.call_sub_orchestrator("child", x)
    ctx.signal_entity(COUNTER, "add", x)  # here
    return await ctx.wait_for_external_event("go")


async def early_return(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    return await ctx.call_activity("second", x)


async def early_failure(ctx: OrchestrationContext, x: int) -> Any:
    await ctx.call_activity("first", x)
    raise ValueError("early")  # here


async def missing_call_at_the_end(ctx: OrchestrationContext, x: int) -> Any:
    x = await ctx.call_activity("first", x)
    x = await ctx.call_activity("second", x)
    ctx.signal_entity(COUNTER, "add", x)
    await ctx.create_timer(timedelta(seconds=1))
    return await ctx.wait_for_external_event("go")  # here


async def caught_by_the_code(ctx: OrchestrationContext, x: int) -> Any:
    try:
        x = await ctx.call_activity("second", x)  # here
    except Exception:
        return "swallowed"
    finally:
        ctx.signal_entity(COUNTER, "add", 1)
    return x


@frozen
class Case:
    code: Code
    position: int
    recorded: str
    produced: str


CASES = [
    Case(changed_name, 3, "TaskScheduled(2, 'second'", "TaskScheduled(2, 'first'"),
    Case(changed_input, 3, "TaskScheduled(2, 'second'", "TaskScheduled(2, 'second'"),
    Case(changed_order, 1, "TaskScheduled(1, 'first'", "TaskScheduled(1, 'second'"),
    Case(removed_call, 3, "TaskScheduled(2, 'second'", "EntityOperationSignaled(2, '@counter@c'"),
    Case(added_call, 3, "TaskScheduled(2, 'second'", "TimerCreated(2, "),
    Case(changed_target, 5, "(3, '@counter@c', 'add'", "(3, '@counter@d', 'add'"),
    Case(changed_operation, 5, "(3, '@counter@c', 'add'", "(3, '@counter@c', 'sub'"),
    Case(changed_delay, 6, "TimerCreated(4, ", "TimerCreated(4, "),
    Case(
        changed_child_id,
        8,
        "SubOrchestrationInstanceCreated(5, 'child'",
        "SubOrchestrationInstanceCreated(5, 'child'",
    ),
    Case(extra_call_at_the_end, 10, "nothing", "EntityOperationSignaled(6, '@counter@c', 'add'"),
    Case(early_return, 5, "EntityOperationSignaled(3", "the end of the function"),
    Case(early_failure, 3, "TaskScheduled(2, 'second'", "the end of the function"),
    Case(missing_call_at_the_end, 8, "SubOrchestrationInstanceCreated(5", "nothing more"),
    Case(caught_by_the_code, 1, "TaskScheduled(1, 'first'", "TaskScheduled(1, 'second'"),
]


def line_of(code: Code) -> int:
    """The line marked "here", or the first line of a function that has none."""
    lines, start = inspect.getsourcelines(code)
    return next((start + n for n, line in enumerate(lines) if "# here" in line), start)


def hub_on(store: MemoryStore, code: Code, on_nondeterminism: Any = "park") -> Hub:
    settings = Settings(drain_s=2, on_nondeterminism=on_nondeterminism)
    return Hub(app_with(code), store=store, partitions=2, clock=JumpingClock(), settings=settings)


async def with_history(store: MemoryStore) -> list[tuple[str, Any]]:
    """Run the right code up to where it waits; give the history."""
    async with hub_on(store, right) as hub:
        await hub.client.start_new("flow", 1, instance_id="i")
        while not await hub.client.get_status("i::1.5"):
            await let_all_run()
        await hub.client.wait("i::1.5")
        await let_all_run()
    return await history_in(store)


async def history_in(store: MemoryStore) -> list[tuple[str, Any]]:
    async with hub_on(store, right) as hub:
        return [(e.event_type, e.fields) for e in await hub.client.get_history("i")]


async def parked_status(hub: Hub) -> OrchestrationStatus:
    while True:
        status = await hub.client.get_status("i")
        assert status is not None
        if status.parked is not None:
            return status
        await let_all_run()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code.__name__)
async def test_code_that_left_its_history_is_reported_by_position_content_and_line(
    case: Case,
) -> None:
    store = MemoryStore()
    async with within():
        await with_history(store)

        async with hub_on(store, case.code) as hub:
            await hub.client.raise_event("i", "go", "one")
            status = await parked_status(hub)

    assert status.runtime_status == RuntimeStatus.RUNNING
    assert status.parked is not None
    assert status.parked.type == "NondeterminismError"
    reason = status.parked.reason
    match = re.search(
        r"at event (\d+): recorded (.*), but the code did (.*) \((.*):(\d+)\);", reason
    )
    assert match is not None, reason
    position, recorded, produced, file, line = match.groups()
    assert int(position) == case.position
    assert case.recorded in recorded
    assert case.produced in produced
    assert file == __file__
    assert int(line) == line_of(case.code)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code.__name__)
async def test_a_parked_instance_keeps_history_and_mailbox_and_goes_on_when_repaired(
    case: Case,
) -> None:
    store = MemoryStore()
    async with within():
        before = await with_history(store)
        async with hub_on(store, case.code) as hub:
            await hub.client.raise_event("i", "go", "one")
            await parked_status(hub)
            await hub.client.raise_event("i", "go", "two")
        assert await history_in_raw(store) == before

        async with hub_on(store, right) as hub:
            result = await hub.client.wait("i")
            total = await hub.client.read_entity_state(COUNTER)
            status = await hub.client.get_status("i")

    assert result == [3, "one", "two"]
    assert total is not None
    assert total.value == 3
    assert status is not None
    assert status.parked is None


async def history_in_raw(store: MemoryStore) -> list[tuple[str, Any]]:
    """Read the history without any code that could go on with it."""
    async with hub_on(store, changed_order) as hub:
        return [(e.event_type, e.fields) for e in await hub.client.get_history("i")]


async def test_a_parked_instance_is_listed_and_the_others_of_its_partition_go_on() -> None:
    store = MemoryStore()
    async with within():
        await with_history(store)
        async with hub_on(store, changed_name) as hub:
            await hub.client.raise_event("i", "go", "one")
            await parked_status(hub)

            beside = await hub.client.start_new("flow", 5, instance_id="i::beside")
            await beside.raise_event("go", "x")
            assert await beside.result() == "x"

            listed = [status.instance_id async for status in hub.client.query(parked=True)]
            others = [status.instance_id async for status in hub.client.query(parked=False)]

    assert listed == ["i"]
    assert "i::beside" in others


async def test_a_retry_without_a_repair_parks_it_again_with_everything_it_had() -> None:
    store = MemoryStore()
    async with within():
        before = await with_history(store)
        async with hub_on(store, changed_name) as hub:
            await hub.client.raise_event("i", "go", "one")
            await parked_status(hub)
            for _ in range(3):
                await hub.client.retry("i")
                await let_all_run()
            await hub.client.raise_event("i", "go", "two")
            status = await parked_status(hub)
        assert await history_in_raw(store) == before

        async with hub_on(store, right) as hub:
            result = await hub.client.wait("i")

    assert status.parked is not None
    assert result == [3, "one", "two"]


async def test_a_parked_instance_may_be_terminated() -> None:
    store = MemoryStore()
    async with within():
        await with_history(store)
        async with hub_on(store, changed_name) as hub:
            await hub.client.raise_event("i", "go", "one")
            await parked_status(hub)

            await hub.client.terminate("i", "enough")
            status = await hub.client.get_status("i")
            assert status is not None
            assert status.runtime_status == RuntimeStatus.TERMINATED
            assert await hub.client.purge_instance("i") == 2  # with its child

            assert [status async for status in hub.client.query(parked=True)] == []


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.code.__name__)
async def test_it_fails_instead_where_the_hub_is_told_so(case: Case) -> None:
    store = MemoryStore()
    async with within():
        await with_history(store)
        async with hub_on(store, case.code, "fail") as hub:
            # The event has the instance loaded; when it comes to its turn, the instance has ended.
            with pytest.raises(InstanceFinishedError):
                await hub.client.raise_event("i", "go", "one")

            with pytest.raises(OrchestrationFailedError) as caught:
                await hub.client.wait("i")
            status = await hub.client.get_status("i")

    assert caught.value.error_type == "NondeterminismError"
    assert f"at event {case.position}:" in caught.value.message
    assert status is not None
    assert status.runtime_status == RuntimeStatus.FAILED
    assert status.parked is None


async def test_code_that_does_the_same_in_other_words_is_not_taken_for_another() -> None:
    async def same(ctx: OrchestrationContext, x: int) -> list[Any]:
        for name in ("first", "second"):
            x = await ctx.call_activity(name, x)
        ctx.signal_entity(COUNTER, "add", x)
        await ctx.create_timer(1 * timedelta(milliseconds=1000))
        await ctx.call_sub_orchestrator("child", x)
        ctx.set_custom_status("new code")
        one = await ctx.wait_for_external_event("GO")
        return [x, one, await ctx.wait_for_external_event("Go")]

    store = MemoryStore()
    async with within():
        await with_history(store)
        async with hub_on(store, same) as hub:
            for data in ("one", "two"):
                await hub.client.raise_event("i", "go", data)

            assert await hub.client.wait("i") == [3, "one", "two"]
