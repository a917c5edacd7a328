"""Orchestration code has no event loop around it: what it asks of one is refused, for it alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from datetime import timedelta
from typing import Any

import anyio
import anyio._backends._asyncio as anyio_backend_module
import anyio.lowlevel
import pytest
import trio

import perdure
from perdure import (
    App,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    OrchestrationContext,
    OrchestrationFailedError,
)
from perdure.runtime.client import applications
from perdure.runtime.scheduling import stage as staging
from perdure.testing.inside import partitions_of
from tests.runtime.orchestrating import evict, quiet, running

app = App()
SECOND = timedelta(seconds=1)


@app.activity
async def quick(number: int) -> int:
    return number


Use = Callable[[OrchestrationContext], Awaitable[Any]]


def entering(make: Callable[[], Any]) -> Use:
    """Enter what it makes around a durable await."""

    async def use(ctx: OrchestrationContext) -> None:
        made = make()
        if hasattr(made, "__aenter__"):
            async with made:
                await ctx.call_activity(quick, 1)
        else:
            with made:
                await ctx.call_activity(quick, 1)

    return use


def calling(function: Callable[..., Any], *args: Any) -> Use:
    """Call it, and await what it gives if that can be awaited; nothing durable in between."""

    async def use(ctx: OrchestrationContext) -> None:
        made = function(*args)
        if hasattr(made, "__await__"):
            await made

    return use


async def nothing() -> None: ...


def gather(*_: Any) -> Any:
    return asyncio.gather(nothing(), nothing())


async def gather_calls(ctx: OrchestrationContext) -> None:
    await asyncio.gather(ctx.call_activity(quick, 1), ctx.call_activity(quick, 2))


def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def running_it(run: Callable[[Any], Any]) -> None:
    coroutine = nothing()
    with contextlib.closing(coroutine):
        run(coroutine)


GROUP, TIMER = "ctx.create_task_group()", "ctx.create_timer("
ALL, FAIL, MOVE = "ctx.task_all(", "ctx.fail_after(", "ctx.move_on_after("
EITHER: list[tuple[Use, str]] = [
    (entering(functools.partial(anyio.move_on_after, 0.01)), MOVE),
    (entering(functools.partial(anyio.fail_after, 0.01)), FAIL),
    (entering(anyio.CancelScope), MOVE),
    (entering(anyio.create_task_group), GROUP),
    (calling(anyio.sleep, 0.01), TIMER),
    (calling(anyio.lowlevel.checkpoint), TIMER),
    (calling(anyio.get_current_task), ""),
    (calling(anyio.to_thread.run_sync, int), "activity"),
]
ON_ASYNCIO: list[tuple[Use, str]] = [
    (entering(functools.partial(asyncio.timeout, 0.01)), FAIL),
    (entering(functools.partial(asyncio.timeout, None)), FAIL),
    (entering(asyncio.TaskGroup), GROUP),
    (calling(gather), ALL),
    (gather_calls, ALL),
    (calling(lambda: asyncio.wait_for(nothing(), 1)), FAIL),
    (calling(lambda: asyncio.create_task(nothing())), GROUP),
    (calling(lambda: asyncio.ensure_future(nothing())), GROUP),
    (calling(lambda: asyncio.get_running_loop().create_task(nothing())), GROUP),
    (calling(lambda: asyncio.wait([asyncio.Future()])), ""),
    (calling(asyncio.sleep, 0.01), TIMER),
    (calling(asyncio.sleep, 0), TIMER),
    (calling(asyncio.to_thread, int), "activity"),
    (calling(cancel_itself), MOVE),
]
ON_TRIO: list[tuple[Use, str]] = [
    (entering(functools.partial(trio.move_on_after, 0.01)), MOVE),
    (entering(functools.partial(trio.fail_after, 0.01)), FAIL),
    (entering(functools.partial(trio.CancelScope, deadline=0)), MOVE),
    (entering(trio.open_nursery), GROUP),
    (calling(trio.sleep, 0.01), TIMER),
    (calling(trio.sleep, 0), TIMER),
    (calling(trio.lowlevel.checkpoint), TIMER),
    (calling(lambda: trio.Event().wait()), ""),
    (calling(trio.lowlevel.current_task), ""),
]
OF_ITS_OWN: list[tuple[Use, str]] = [
    (calling(running_it, asyncio.run), "asyncio.run"),
    (calling(running_it, asyncio.Runner().run), "asyncio.Runner"),
    (calling(lambda: trio.run(nothing)), "trio.run"),
    (calling(lambda: anyio.run(nothing)), "anyio.run"),
    (calling(trio.current_time), "trio.current_time"),
    (calling(trio.lowlevel.spawn_system_task, nothing), "trio.spawn_system_task"),
]
TASK_GROUP = len(EITHER) + 2
# What the hub does not run on is refused as well.
USES = [
    pytest.param(backend, *one, id=f"{backend}-{number}")
    for backend in ("asyncio", "trio")
    for number, one in enumerate(EITHER + ON_ASYNCIO + ON_TRIO + OF_ITS_OWN)
]


@contextlib.asynccontextmanager
async def served(use: Use) -> AsyncGenerator[tuple[Hub, Any], None]:
    """A hub with an orchestration that uses it, and an innocent one."""
    local = App()
    local.include(app)

    @local.orchestration
    async def uses(ctx: OrchestrationContext) -> str:
        await ctx.create_timer(timedelta(0))
        await use(ctx)
        return "went on"

    @local.orchestration
    async def innocent(ctx: OrchestrationContext) -> int:
        return await ctx.call_activity(quick, 7)

    async with running(local, partitions=1) as hub:
        yield hub, uses
        handle = await hub.client.start_new(innocent)
        assert await handle.result(5) == 7


@pytest.mark.parametrize(("anyio_backend", "use", "named"), USES)
async def test_what_belongs_to_the_loop_is_refused_with_its_line_and_ours(
    use: Use, named: str
) -> None:
    async with served(use) as (hub, uses):
        handle = await hub.client.start_new(uses)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        assert caught.value.error_type == "NonDurableAwaitError"
        assert f"{__file__}:{uses.__code__.co_firstlineno + 3}" in caught.value.message
        assert named in caught.value.message


@pytest.mark.parametrize(("anyio_backend", "use", "named"), USES)
async def test_code_may_catch_the_refusal_and_go_on(use: Use, named: str) -> None:
    async def caught(ctx: OrchestrationContext) -> None:
        with contextlib.suppress(Exception):
            await use(ctx)
        await ctx.create_timer(timedelta(0))

    async with served(caught) as (hub, uses):
        handle = await hub.client.start_new(uses)

        assert await handle.result(5) == "went on"


@pytest.fixture
def task_of_the_thread(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have asyncio keep the current task by the thread, as CPython 3.14 does."""
    swapped: list[Any] = []
    real = asyncio.current_task

    def current_task(loop: Any = None) -> Any:
        # It is that of the thread if the loop is the one that runs there, whatever that is.
        if swapped and loop in (None, asyncio._get_running_loop()):
            return swapped[-1]
        return real(loop)

    def swap(loop: Any, task: Any) -> Any:
        if asyncio._get_running_loop() is not loop:
            raise RuntimeError(f"loop {loop!r} is not the running loop")
        before = swapped[-1] if swapped else real(loop)
        swapped[:] = [] if task is real(loop) else [task]
        return before

    monkeypatch.setattr(staging, "_swap_current_task", swap)
    monkeypatch.setattr(applications, "STAGE", staging.stage_with_task)
    for module in (asyncio, asyncio.tasks, anyio_backend_module):
        monkeypatch.setattr(module, "current_task", current_task)
    return swapped


async def group_a_task(ctx: OrchestrationContext) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(nothing())
        await ctx.call_activity(quick, 1)


# A group without a task asks nothing of the loop's or the current task there, and does nothing.
WITH_TASK = [
    pytest.param("asyncio", group_a_task if number == TASK_GROUP else use, named, id=str(number))
    for number, (use, named) in enumerate(EITHER + ON_ASYNCIO)
]


@pytest.mark.parametrize(("anyio_backend", "use", "named"), WITH_TASK)
async def test_a_task_that_is_the_threads_is_not_found_either(
    use: Use, named: str, task_of_the_thread: list[Any]
) -> None:
    seen: list[Any] = []

    async def uses_it(ctx: OrchestrationContext) -> None:
        seen.extend(task_of_the_thread)
        await use(ctx)

    async with served(uses_it) as (hub, uses):
        handle = await hub.client.start_new(uses)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        [failure] = caught.value.failure.members or [caught.value.failure]
        assert failure.error_type == "NonDurableAwaitError"
        assert named in failure.message
        assert len(seen) == 1
    assert task_of_the_thread == []


async def test_generators_and_code_that_is_let_go_have_no_loop_either() -> None:
    local = App()
    refused: list[str] = []

    def use() -> None:
        try:
            anyio.CancelScope().__enter__()
        except Exception as error:
            refused.append(type(error).__name__)

    @local.orchestration
    def by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
        use()
        try:
            yield ctx.wait_for_external_event("go")
        finally:
            use()

    async with running(local, partitions=1) as hub:
        await hub.client.start_new(by_yield)
        await quiet(hub)
        assert refused == ["NonDurableAwaitError"]

        await evict(hub)

        assert refused == ["NonDurableAwaitError"] * 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_pump_has_its_own_task_and_scopes_after_whatever_code_did() -> None:
    async def everything(ctx: OrchestrationContext) -> None:
        for use, _ in EITHER + ON_ASYNCIO:
            with contextlib.suppress(Exception):
                await use(ctx)

    seen: set[Any] = set()
    local = App()

    @local.activity
    async def look() -> None:
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        with anyio.move_on_after(60) as scope:
            await anyio.lowlevel.checkpoint()
        seen.add((asyncio.get_running_loop(), scope.cancel_called))

    @local.orchestration
    async def rude(ctx: OrchestrationContext) -> None:
        await everything(ctx)
        await ctx.call_activity(look)

    local.include(app)
    async with running(local, partitions=1) as hub:
        for _ in range(3):
            await (await hub.client.start_new(rude)).result(5)

        assert seen == {(asyncio.get_running_loop(), False)}


def test_a_hub_under_plain_asyncio_run_refuses_them_too() -> None:
    async def main() -> str:
        async with served(entering(functools.partial(anyio.move_on_after, 0.01))) as (hub, uses):
            handle = await hub.client.start_new(uses)
            try:
                return str(await handle.result(5))
            except OrchestrationFailedError as error:
                return error.message

    assert MOVE in asyncio.run(main())


class Odd(BaseException):
    def __str__(self) -> str:
        raise ValueError("not even this")


RAISED: list[Callable[[], BaseException]] = [
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    StopIteration,
    asyncio.CancelledError,
    Odd,
    functools.partial(BaseExceptionGroup, "several", [Odd()]),
]


@pytest.mark.parametrize("make", RAISED, ids=str)
@pytest.mark.parametrize("waits", [False, True])
async def test_whatever_code_raises_fails_that_instance_alone(
    make: Callable[[], BaseException], waits: bool
) -> None:
    async def use(ctx: OrchestrationContext) -> None:
        if waits:
            await ctx.call_activity(quick, 1)
        raise make()

    async with served(use) as (hub, uses):
        handle = await hub.client.start_new(uses)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        expected = "RuntimeError" if make is StopIteration else type(make()).__name__
        assert caught.value.error_type == expected
        assert sum(partition.failed_commits for partition in partitions_of(hub)) == 0
        assert all(not partition.crashes.in_a_row for partition in partitions_of(hub))


@pytest.mark.parametrize("make", RAISED, ids=str)
async def test_a_branch_that_raises_anything_ends_its_group(
    make: Callable[[], BaseException],
) -> None:
    async def use(ctx: OrchestrationContext) -> None:
        async def branch() -> None:
            await ctx.call_activity(quick, 1)
            raise make()

        async with ctx.create_task_group() as group:
            group.start_soon(branch)
            await ctx.wait_for_external_event("never")

    async with served(use) as (hub, uses):
        handle = await hub.client.start_new(uses)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)

        assert caught.value.error_type.endswith("ExceptionGroup")


def test_what_a_plain_function_or_an_input_raises_fails_that_instance_alone() -> None:
    local = App()

    @local.orchestration
    def plain(ctx: OrchestrationContext) -> None:
        raise Odd

    async def main() -> str:
        async with running(local) as hub:
            handle = await hub.client.start_new("plain")
            with pytest.raises(OrchestrationFailedError) as caught:
                await handle.result(5)
            return caught.value.error_type

    assert anyio.run(main) == "Odd"


@app.entity
class Counter:
    count: int = 0

    def add(self) -> int:
        self.count += 1
        return self.count


COUNTER = EntityId(Counter, "one")
Ask = Callable[[Hub], Awaitable[Any]]


async def query(hub: Hub) -> None:
    async for _ in hub.client.query():
        pass


async def enter_another(hub: Hub) -> None:
    async with Hub(app):
        pass


ASKED: list[tuple[Ask, str, str]] = [
    (lambda hub: hub.client.call_entity(COUNTER, Counter.add), "Client.call_entity", "call_entity"),
    (
        lambda hub: hub.client.call_entity(COUNTER, Counter.add, timeout=5, request_id="r"),
        "Client.call_entity",
        "call_entity",
    ),
    (
        lambda hub: hub.client.signal_entity(COUNTER, Counter.add),
        "Client.signal_entity",
        "signal_entity",
    ),
    (
        lambda hub: hub.client.start_new("innocent", instance_id="new"),
        "Client.start_new",
        "call_sub_orchestrator",
    ),
    (lambda hub: hub.client.raise_event("kept", "e"), "Client.raise_event", "send_event"),
    (lambda hub: hub.client.terminate("kept"), "Client.terminate", "activity"),
    (lambda hub: hub.client.get_status("kept"), "Client.get_status", "activity"),
    (query, "Client.query", "activity"),
    (
        lambda hub: hub.client.get_handle("kept").result(5),
        "OrchestrationHandle.result",
        "call_sub_orchestrator",
    ),
    (lambda hub: hub.statistics(), "Hub.statistics", "activity"),
    (lambda hub: hub.move_partition(0, 0), "Hub.move_partition", "activity"),
    (lambda hub: hub.stop(), "Hub.stop", "activity"),
    (enter_another, "Hub.", "activity"),
]


@pytest.mark.parametrize("is_caught", [False, True])
@pytest.mark.parametrize(
    ("ask", "named", "instead"), ASKED, ids=[str(at) for at in range(len(ASKED))]
)
async def test_a_client_is_refused_in_an_orchestration_and_nothing_is_applied(
    ask: Ask, named: str, instead: str, is_caught: bool
) -> None:
    hubs: list[Hub] = []

    async def use(ctx: OrchestrationContext) -> None:
        try:
            await ask(hubs[0])
        except Exception as error:
            refused.append(error)
            if not is_caught:
                raise

    refused: list[Exception] = []
    async with served(use) as (hub, uses):
        hubs.append(hub)
        kept = await hub.client.start_new(uses, instance_id="kept")
        if is_caught:
            assert await kept.result(5) == "went on"
        else:
            with pytest.raises(OrchestrationFailedError):
                await kept.result(5)

        (error,) = refused
        assert type(error).__name__ == "NonDurableAwaitError"
        assert named in str(error)
        assert instead in str(error)
        assert __file__ in str(error)
        await quiet(hub)
        assert await hub.client.read_entity_state(COUNTER) is None
        assert await hub.client.get_status("new") is None


Foreign = Callable[[Any], Any]
FOREIGN: list[Foreign] = [
    lambda kept: kept["ctx"].call_activity(quick, 5),
    lambda kept: kept["ctx"].create_timer(0),
    lambda kept: kept["ctx"].wait_for_external_event("go"),
    lambda kept: kept["ctx"].wait_for_external_event("go", timeout=5),
    lambda kept: kept["ctx"].call_entity(COUNTER, Counter.add),
    lambda kept: kept["ctx"].signal_entity(COUNTER, Counter.add),
    lambda kept: kept["ctx"].lock_entities(COUNTER),
    lambda kept: kept["ctx"].call_sub_orchestrator("innocent"),
    lambda kept: kept["ctx"].send_event("kept", "go"),
    lambda kept: kept["ctx"].continue_as_new(),
    lambda kept: kept["ctx"].set_custom_status("theirs"),
    lambda kept: kept["ctx"].new_uuid(),
    lambda kept: kept["ctx"].random.random(),
    lambda kept: kept["ctx"].task_any([kept["timer"]], cancel_losers=True),
    lambda kept: kept["timer"].cancel(),
    lambda kept: kept["open"].cancel(),
    lambda kept: kept["scope"].__enter__(),
    lambda kept: kept["group"].start_soon(nothing),
    lambda kept: kept["lock"].release(),
]


@pytest.mark.parametrize("use", FOREIGN, ids=range(len(FOREIGN)))
async def test_the_context_of_another_instance_is_refused_and_that_one_left_alone(
    use: Foreign,
) -> None:
    kept: dict[str, Any] = {}
    local = App()
    local.include(app)

    @local.orchestration
    async def keeper(ctx: OrchestrationContext) -> list[Any]:
        kept["ctx"], kept["timer"] = ctx, ctx.create_timer(timedelta(hours=1))
        kept["scope"] = ctx.move_on_after(5)
        other = EntityId(Counter, "other")
        counted = 0
        with ctx.move_on_after(3600) as kept["open"]:
            lock = ctx.lock_entities(other)
            async with ctx.create_task_group() as kept["group"], lock as kept["lock"]:
                await ctx.wait_for_external_event("go")
                counted = await ctx.call_entity(other, Counter.add)
        kept["timer"].cancel()
        return [counted, await ctx.call_activity(quick, 1), ctx.new_uuid().hex, ctx.random.random()]

    @local.orchestration
    async def innocent(ctx: OrchestrationContext) -> None: ...

    @local.orchestration
    async def foreign(ctx: OrchestrationContext) -> None:
        use(kept)

    async with running(local, partitions=1) as hub:
        expected_handle = await hub.client.start_new(keeper, instance_id="kept")
        await quiet(hub)
        before = [event.event_type for event in await expected_handle.history()]

        with pytest.raises(OrchestrationFailedError) as caught:
            await (await hub.client.start_new(foreign)).result(5)
        assert caught.value.error_type == "UsageError"
        assert "'kept'" in caught.value.message
        assert __file__ in caught.value.message
        assert [event.event_type for event in await expected_handle.history()] == before

        await evict(hub)  # so that what it does is compared with its history
        await expected_handle.raise_event("go")
        counted, done, *_ = await expected_handle.result(5)
        assert (counted, done) == (1, 1)
        assert (await expected_handle.status()).custom_status is None
        assert await hub.client.read_entity_state(COUNTER) is None


async def test_a_context_is_of_no_use_to_what_outlives_its_code() -> None:
    kept: list[OrchestrationContext] = []
    local = App()
    local.include(app)

    @local.orchestration
    async def keeper(ctx: OrchestrationContext) -> None:
        kept.append(ctx)

    @local.activity
    async def use() -> None:
        kept[0].call_activity(quick, 1)

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> None:
        kept[:] = [ctx]
        await ctx.call_activity(use)

    async with running(local, partitions=1) as hub:
        await (await hub.client.start_new(keeper)).result(5)
        with pytest.raises(Exception, match="does not run"):
            kept[0].call_activity(quick, 1)
        with pytest.raises(OrchestrationFailedError, match="does not run"):
            await (await hub.client.start_new(calls)).result(5)


LATE: list[Callable[[EntityContext], Any]] = [
    lambda ctx: ctx.signal_entity(COUNTER, Counter.add),
    lambda ctx: ctx.start_new("innocent", instance_id="new"),
    lambda ctx: ctx.delete(),
    lambda ctx: ctx.set_state({"count": 9}),
    lambda ctx: ctx.get_state(dict),
    lambda ctx: ctx.set_result(1),
]


@pytest.mark.parametrize("late", LATE, ids=range(len(LATE)))
@pytest.mark.parametrize("kind", ["keep", "keep_async", "look", "look_async", "fail", "fail_async"])
async def test_the_context_of_an_operation_that_has_ended_is_refused(
    late: Callable[[EntityContext], Any], kind: str
) -> None:
    kept: list[EntityContext] = []
    local = App()
    local.include(app)

    @local.entity
    class Keeper:
        count: int = 0

        def keep(self, ctx: EntityContext) -> None:
            kept.append(ctx)

        async def keep_async(self, ctx: EntityContext) -> None:
            kept.append(ctx)

        @perdure.readonly
        def look(self, ctx: EntityContext) -> None:
            kept.append(ctx)

        @perdure.readonly
        async def look_async(self, ctx: EntityContext) -> None:
            kept.append(ctx)

        def fail(self, ctx: EntityContext) -> None:
            kept.append(ctx)
            raise ValueError

        async def fail_async(self, ctx: EntityContext) -> None:
            kept.append(ctx)
            raise ValueError

    @local.orchestration
    async def innocent(ctx: OrchestrationContext) -> None: ...

    keeper = EntityId(Keeper, "k")
    async with running(local, partitions=1) as hub:
        with contextlib.suppress(EntityOperationError):
            await hub.client.call_entity(keeper, kind)
        before = await hub.client.read_entity_state(keeper)

        with pytest.raises(perdure.UsageError, match=f"the operation {kind} of .* had ended"):
            late(kept[0])

        await quiet(hub)
        assert await hub.client.read_entity_state(keeper) == before
        assert await hub.client.read_entity_state(COUNTER) is None
        assert await hub.client.get_status("new") is None
