"""Nothing that a hub does leaves reference cycles: the garbage collector has nothing to do."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

import perdure
from perdure import (
    App,
    Cancelled,
    EntityContext,
    EntityId,
    Hub,
    NonRetryableError,
    OrchestrationContext,
    PerdureError,
    RetryPolicy,
    SqliteStore,
    Store,
)
from perdure.storage import Checkpoint
from perdure.testing.inside import partitions_of
from tests.runtime.harness import Faults, FaultyStore, disk_error, until_true
from tests.runtime.orchestrating import evict, quiet

Kind = Callable[[Hub, str], Awaitable[None]]

#: How often each is done for the count. One object each that is left is an object too many.
TIMES = 10
#: And where all of them are done one after another, to see that what is beneath is no other.
FEW_TIMES = 4

HOUR = timedelta(hours=1)
MOMENT = timedelta(milliseconds=1)
AT_ONCE = RetryPolicy(first_interval=0.001, max_attempts=3)

KINDS: dict[str, Kind] = {}

#: What fails, by the key of the call: a test mends it.
broken: set[str] = set()
#: The code of an orchestration that is changed while its instances live.
body: list[Callable[[OrchestrationContext], Awaitable[Any]]] = []
#: What the store of the hub does wrong.
faults: list[Faults] = []

app = App()


def kind(function: Kind) -> Kind:
    """Have it be one of the things that leave nothing."""
    KINDS[function.__name__] = function
    return function


# What is called.


TEXT: Any = "text"  # where an int is declared


def wrong() -> int:
    """Give what is no int, for functions that say that they give one."""
    return cast("int", TEXT)


@app.activity
async def quick(n: int) -> int:
    return n


@app.activity
def threaded(n: int) -> int:
    return n


@app.activity
async def suspending(n: int) -> int:
    await anyio.lowlevel.checkpoint()
    return n


@app.activity
async def endless(n: int) -> int:
    await anyio.sleep(3600)
    return n


@app.activity
async def fails(n: int) -> int:
    raise ValueError("no")


@app.activity
async def fails_for_a_reason(n: int) -> int:
    try:
        raise KeyError("why")
    except KeyError as error:
        raise NonRetryableError("no") from error


@app.activity
async def fails_suspended(n: int) -> int:
    await anyio.lowlevel.checkpoint()
    raise ValueError("no")


@app.activity
def fails_threaded(n: int) -> int:
    raise ValueError("no")


@app.activity
async def gives_what_cannot_be_stored(n: int) -> int:
    return wrong()


@app.activity
async def fails_while_broken(key: str) -> str:
    if key in broken:
        broken.remove(key)
        raise ValueError("broken")
    return key


@app.entity
class Box:
    total: int = 0

    def add(self, n: int) -> int:
        self.total += n
        return self.total

    def forget(self, ctx: EntityContext) -> None:
        ctx.delete()

    def pass_on(self, n: int, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Box, ctx.key + "-next"), Box.add, n)

    async def add_slowly(self, n: int) -> int:
        await anyio.lowlevel.checkpoint()
        self.total += n
        return self.total

    def fail(self, n: int) -> int:
        raise ValueError("no")

    async def fail_at_once(self, n: int) -> int:
        raise ValueError("no")

    async def fail_slowly(self, n: int) -> int:
        await anyio.lowlevel.checkpoint()
        raise ValueError("no")

    def spoil(self, n: int) -> None:
        self.total = TEXT

    @perdure.readonly
    def peek(self) -> int:
        return self.total

    @perdure.readonly
    async def peek_slowly(self) -> int:
        await anyio.lowlevel.checkpoint()
        return self.total

    @perdure.readonly
    def peek_in_vain(self) -> int:
        raise ValueError("no")

    @perdure.readonly
    async def peek_slowly_in_vain(self) -> int:
        await anyio.lowlevel.checkpoint()
        raise ValueError("no")


@app.entity
class Sums:
    total: int = 0

    def add(self, n: int) -> None:
        self.total += n

    @perdure.combine(add)
    @staticmethod
    def _sum(amounts: list[int]) -> int:
        if 13 in amounts:
            raise ArithmeticError("unlucky")
        return sum(amounts)


@app.entity(stripes=4)
class Striped:
    total: int = 0

    @perdure.commutative
    def add(self, n: int) -> None:
        if n < 0:
            raise ValueError("no")
        self.total += n

    def get(self) -> int:
        return self.total

    def merge(self, other: Striped) -> None:
        self.total += other.total


@app.entity
def tally(ctx: EntityContext) -> None:
    if ctx.operation_name == "fail":
        raise ValueError("no")
    ctx.set_state(ctx.get_state(lambda: 0) + 1)
    ctx.set_result(ctx.get_state())


# What orchestrations do; each is started, and its end awaited.


def flow(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have starting this orchestration, and awaiting its end, be one of the things."""
    app.orchestration(function)

    async def run(hub: Hub, key: str) -> None:
        handle = await hub.client.start_new(function, instance_id=key)
        with suppress(PerdureError):
            await handle.result()

    run.__name__ = function.__name__
    KINDS[run.__name__] = run
    return function


@flow
async def nothing(ctx: OrchestrationContext) -> int:
    return 1


@flow
async def activities(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(quick, await ctx.call_activity(quick, 1))


@flow
def activities_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, int]:
    n: int = yield ctx.call_activity(quick, 1)
    n = yield from ctx.call_activity(quick, n)
    return n


@flow
async def threaded_activity(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(threaded, 1)


@flow
async def suspending_activity(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(suspending, 1)


@flow
async def activity_of_a_custom_status(ctx: OrchestrationContext) -> str:
    ctx.set_custom_status({"at": 1})
    ctx.logger.info("now")
    return f"{ctx.new_uuid()} {ctx.random.random()} {await ctx.call_activity(quick, 1)}"


@flow
async def fan_out(ctx: OrchestrationContext) -> list[int]:
    return await ctx.task_all([ctx.call_activity(quick, n) for n in range(10)])


@flow
def fan_out_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[int]]:
    return (yield ctx.task_all([ctx.call_activity(quick, n) for n in range(10)]))  # type: ignore[no-any-return]


@flow
async def timers(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(MOMENT)
    ctx.create_timer(HOUR)
    ctx.create_timer(HOUR).cancel()


@flow
def timers_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield ctx.create_timer(MOMENT)
    ctx.create_timer(HOUR)


@flow
async def child(ctx: OrchestrationContext) -> int:
    return await ctx.call_sub_orchestrator(activities)


@flow
def child_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, int]:
    return (yield ctx.call_sub_orchestrator(activities_by_yield))  # type: ignore[no-any-return]


@flow
async def entity_calls(ctx: OrchestrationContext) -> int:
    box = EntityId(Box, ctx.instance_id)
    ctx.signal_entity(box, Box.add, 1)
    ctx.signal_entity(box, Box.pass_on, 1)
    ctx.signal_entity(box, Box.add, 1, at=MOMENT)
    await ctx.call_entity(box, Box.add_slowly, 1)
    return await ctx.call_entity(box, Box.peek) + await ctx.call_entity(box, Box.peek_slowly)


@flow
def entity_calls_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, int]:
    box = EntityId(Box, ctx.instance_id)
    ctx.signal_entity(box, Box.add, 1)
    return (yield ctx.call_entity(box, Box.add, 1))  # type: ignore[no-any-return]


@flow
async def lock(ctx: OrchestrationContext) -> int:
    one, two = EntityId(Box, ctx.instance_id), EntityId(Box, ctx.instance_id + "-two")
    async with ctx.lock_entities(one, two):
        return await ctx.call_entity(one, Box.add, 1)


@flow
def lock_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, int]:
    box = EntityId(Box, ctx.instance_id)
    with (yield ctx.lock_entities(box)):
        return (yield ctx.call_entity(box, Box.add, 1))  # type: ignore[no-any-return]


@flow
async def lock_that_fails(ctx: OrchestrationContext) -> int:
    box = EntityId(Box, ctx.instance_id)
    async with ctx.lock_entities(box):
        return await ctx.call_entity(box, Box.fail, 1)


@flow
async def event_that_does_not_come(ctx: OrchestrationContext) -> None:
    with suppress(TimeoutError):
        await ctx.wait_for_external_event("go", timeout=MOMENT)


@flow
async def event_of_its_own(ctx: OrchestrationContext) -> None:
    ctx.send_event(ctx.instance_id, "go", 1)
    ctx.send_event(ctx.instance_id, "unwanted", 1)
    await ctx.wait_for_external_event("go", timeout=HOUR)


async def branch(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(quick, 1)


async def endless_branch(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(HOUR)


async def failing_branch(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(fails, 1)


def branch_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield ctx.call_activity(quick, 1)


@flow
async def group(ctx: OrchestrationContext) -> None:
    async with ctx.create_task_group() as tasks:
        tasks.start_soon(branch, ctx)
        tasks.start_soon(branch_by_yield, ctx)


@flow
async def group_that_is_cancelled(ctx: OrchestrationContext) -> None:
    async with ctx.create_task_group() as tasks:
        tasks.start_soon(endless_branch, ctx)
        await ctx.call_activity(quick, 1)
        tasks.cancel_scope.cancel()
        await ctx.create_timer(HOUR)


@flow
async def group_whose_failure_is_caught(ctx: OrchestrationContext) -> None:
    try:
        async with ctx.create_task_group() as tasks:
            tasks.start_soon(endless_branch, ctx)
            tasks.start_soon(failing_branch, ctx)
    except ExceptionGroup:
        pass


@flow
async def group_that_fails(ctx: OrchestrationContext) -> None:
    async with ctx.create_task_group() as tasks:
        tasks.start_soon(endless_branch, ctx)
        tasks.start_soon(failing_branch, ctx)


@flow
async def deadlines(ctx: OrchestrationContext) -> None:
    with ctx.fail_after(3600):
        await ctx.call_activity(quick, 1)
    with ctx.move_on_after(0.001):
        await ctx.create_timer(HOUR)
    with suppress(TimeoutError), ctx.fail_after(0.001):
        await ctx.call_activity(endless, 1)


@flow
def deadlines_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    with ctx.move_on_after(0.001):
        yield ctx.create_timer(HOUR)
    with suppress(TimeoutError), ctx.fail_after(0.001):
        yield ctx.create_timer(HOUR)


@flow
async def deadline_that_fails(ctx: OrchestrationContext) -> None:
    with ctx.fail_after(0.001):
        await ctx.create_timer(HOUR)


@flow
async def shielded(ctx: OrchestrationContext) -> None:
    with ctx.move_on_after(0.001):
        with ctx.shield():
            await ctx.create_timer(timedelta(milliseconds=3))
        await ctx.create_timer(HOUR)


@flow
async def any_with_losers(ctx: OrchestrationContext) -> int:
    won = await ctx.task_any([ctx.call_activity(quick, n) for n in range(3)])
    return int(won.result)


@flow
async def any_with_lost_timers(ctx: OrchestrationContext) -> None:
    kept = ctx.create_timer(HOUR)
    await ctx.task_any([ctx.create_timer(HOUR), ctx.call_activity(quick, 1), kept])
    await ctx.task_any([ctx.call_activity(quick, 1), kept, ctx.wait_for_external_event("go")])


@flow
async def any_that_cancels_losers(ctx: OrchestrationContext) -> None:
    tasks = [ctx.create_timer(HOUR), ctx.call_activity(quick, 1), ctx.call_activity(endless, 1)]
    await ctx.task_any(tasks, cancel_losers=True)


@flow
def any_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    tasks = [ctx.create_timer(HOUR), ctx.call_activity(quick, 1)]
    won = yield ctx.task_any(tasks)
    assert won is tasks[1]


@flow
async def any_won_by_a_failure(ctx: OrchestrationContext) -> None:
    won = await ctx.task_any([ctx.call_activity(fails, 1), ctx.create_timer(HOUR)])
    with suppress(PerdureError):
        assert won.result


@flow
async def all_with_losers(ctx: OrchestrationContext) -> None:
    with suppress(PerdureError):
        await ctx.task_all([ctx.call_activity(fails, 1), ctx.create_timer(HOUR)])


@flow
async def all_with_losers_that_fails(ctx: OrchestrationContext) -> None:
    await ctx.task_all([ctx.call_activity(quick, 1), ctx.call_activity(fails, 1)])


@flow
async def all_that_waits_for_all(ctx: OrchestrationContext) -> None:
    calls = [ctx.call_activity(f, 1) for f in (quick, fails, fails)]
    with suppress(ExceptionGroup):
        await ctx.task_all(calls, fail_fast=False)


@flow
async def caught_failures(ctx: OrchestrationContext) -> None:
    for activity in (fails, fails_for_a_reason, fails_suspended, fails_threaded):
        with suppress(PerdureError):
            await ctx.call_activity(activity, 1)


@flow
async def caught_failure_that_is_kept_for_a_while(ctx: OrchestrationContext) -> str:
    kept: Exception | None = None
    try:
        await ctx.call_activity(fails_for_a_reason, 1)
    except PerdureError as error:
        kept = error
    await ctx.call_activity(quick, 1)
    try:
        return str(kept)
    finally:
        kept = None


@flow
def caught_failures_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    for activity in (fails, fails_for_a_reason):
        with suppress(PerdureError):
            yield ctx.call_activity(activity, 1)
    with suppress(PerdureError):
        yield from ctx.call_activity(fails, 1)


@flow
async def caught_failure_of_a_child(ctx: OrchestrationContext) -> None:
    with suppress(PerdureError):
        await ctx.call_sub_orchestrator(dies_of_an_activity)


@flow
async def caught_failures_of_an_entity(ctx: OrchestrationContext) -> None:
    box = EntityId(Box, ctx.instance_id)
    for operation in (Box.fail, Box.fail_at_once, Box.fail_slowly, Box.spoil, Box.peek_in_vain):
        with suppress(PerdureError):
            await ctx.call_entity(
                box, operation.__name__, *([1] if operation is not Box.peek_in_vain else [])
            )


@flow
async def failure_that_nobody_sees(ctx: OrchestrationContext) -> None:
    ctx.call_activity(fails, 1)
    await ctx.create_timer(MOMENT)


@flow
async def refused_calls(ctx: OrchestrationContext) -> None:
    with suppress(PerdureError):
        await ctx.call_activity("no such")
    with suppress(PerdureError):
        await ctx.call_activity(quick, TEXT)
    with suppress(PerdureError):
        await ctx.task_any([])


@flow
async def activity_whose_result_cannot_be_stored(ctx: OrchestrationContext) -> None:
    with suppress(PerdureError):
        await ctx.call_activity(gives_what_cannot_be_stored, 1)


@flow
async def activity_that_is_late(ctx: OrchestrationContext) -> None:
    with suppress(PerdureError):
        await ctx.call_activity(endless, 1, timeout=0.001)


@flow
async def activity_that_is_given_up(ctx: OrchestrationContext) -> None:
    task = ctx.call_activity(endless, 1)
    await ctx.call_activity(quick, 1)
    task.cancel()
    with suppress(Cancelled):
        await task


@flow
async def retries(ctx: OrchestrationContext) -> str:
    broken.add(ctx.instance_id)
    return await ctx.call_activity(fails_while_broken, ctx.instance_id, retry=AT_ONCE)


@flow
async def retries_in_vain(ctx: OrchestrationContext) -> None:
    with suppress(PerdureError):
        await ctx.call_activity(fails, 1, retry=AT_ONCE)


@flow
async def retries_until_late(ctx: OrchestrationContext) -> None:
    slowly = RetryPolicy(first_interval=3600, max_attempts=3)
    await ctx.call_activity(fails, 1, retry=slowly, overall_timeout=0.01)


@flow
def retries_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield ctx.call_activity(fails, 1, retry=AT_ONCE)


@flow
async def retries_of_a_child(ctx: OrchestrationContext) -> None:
    with suppress(PerdureError):
        await ctx.call_sub_orchestrator(dies, retry=AT_ONCE)


@flow
async def dies(ctx: OrchestrationContext) -> None:
    raise ValueError("no")


@flow
async def dies_of_a_chain(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(fails, 1)
    except PerdureError as error:
        raise ValueError("no") from error


@flow
async def dies_of_an_activity(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(fails, 1)


@flow
def dies_of_an_activity_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, int]:
    return (yield ctx.call_activity(fails, 1))  # type: ignore[no-any-return]


@flow
async def dies_of_a_child(ctx: OrchestrationContext) -> int:
    return await ctx.call_sub_orchestrator(dies_of_an_activity)


@flow
async def dies_of_an_entity(ctx: OrchestrationContext) -> int:
    return await ctx.call_entity(EntityId(Box, ctx.instance_id), Box.fail, 1)


@flow
async def dies_of_its_result(ctx: OrchestrationContext) -> int:
    return wrong()


@flow
def dies_without_a_step(ctx: OrchestrationContext) -> int:
    raise ValueError("no")


@flow
async def dies_of_what_is_not_durable(ctx: OrchestrationContext) -> None:
    await anyio.sleep(1)


@flow
async def waits_for_what_is_not_durable(ctx: OrchestrationContext) -> None:
    with suppress(PerdureError):
        await Foreign()


class Foreign:
    def __await__(self) -> Generator[Any, Any, None]:
        yield self


@flow
async def goes_on_anew(ctx: OrchestrationContext) -> None:
    n = ctx.get_input() or 0
    await ctx.call_activity(quick, 1)
    if n < 3:
        ctx.continue_as_new(n + 1)


@flow
def goes_on_anew_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    n = ctx.get_input() or 0
    yield ctx.call_activity(quick, 1)
    if n < 3:
        ctx.continue_as_new(n + 1)


@app.orchestration
async def keeping(ctx: OrchestrationContext) -> str:
    kept: Exception | None = None
    try:
        await ctx.call_activity(fails, 1)
    except PerdureError as error:
        kept = error
    return str(kept)


# What clients do to orchestrations.


@app.orchestration
async def waiting(ctx: OrchestrationContext) -> None:
    task = ctx.call_activity(endless, 1)
    try:
        await ctx.wait_for_external_event("go")
    finally:
        task.cancel()


@app.orchestration
def waiting_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    yield ctx.wait_for_external_event("go")


@app.orchestration
async def cleans_up(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_sub_orchestrator(waiting)
    except Cancelled:
        await ctx.call_activity(quick, 1)
        raise


@app.orchestration
async def working(ctx: OrchestrationContext) -> str:
    first = await ctx.call_activity(quick, 1)
    with suppress(PerdureError):
        await ctx.call_activity(fails, 1)
    await ctx.wait_for_external_event("go")
    return f"{first} {await ctx.call_activity(fails_while_broken, ctx.instance_id)}"


@app.orchestration
async def changing(ctx: OrchestrationContext) -> None:
    await body[-1](ctx)


async def as_recorded(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(quick, 1)
    await ctx.wait_for_external_event("go")


async def other_call(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(threaded, 1)
    await ctx.wait_for_external_event("go")


async def early_end(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(quick, 1)


async def over(hub: Hub, key: str) -> None:
    """Return when the instance has ended, however it has."""
    with suppress(PerdureError):
        await hub.client.get_handle(key).result()


@kind
async def events(hub: Hub, key: str) -> None:
    for flow in (waiting, waiting_by_yield):
        handle = await hub.client.start_new(flow, instance_id=key)
        await handle.raise_event("unwanted", 1)
        await handle.raise_event("go", 1)
        await over(hub, key)


@kind
async def terminating(hub: Hub, key: str) -> None:
    for flow in (waiting, waiting_by_yield, cleans_up):
        handle = await hub.client.start_new(flow, instance_id=key)
        await quiet_but_for_activities(hub)
        await handle.terminate("enough")
        await over(hub, key)


@kind
async def cancelling(hub: Hub, key: str) -> None:
    for flow in (waiting, waiting_by_yield, cleans_up):
        handle = await hub.client.start_new(flow, instance_id=key)
        await quiet_but_for_activities(hub)
        await handle.cancel("enough")
        await over(hub, key)


@kind
async def suspending_and_resuming(hub: Hub, key: str) -> None:
    handle = await hub.client.start_new(waiting, instance_id=key)
    await handle.suspend()
    await handle.raise_event("go")
    await handle.resume()
    await over(hub, key)


@kind
async def eviction_and_replay(hub: Hub, key: str) -> None:
    handle = await hub.client.start_new(working, instance_id=key)
    assert await evict(hub)
    await handle.raise_event("go")
    await over(hub, key)


@kind
async def rewinding(hub: Hub, key: str) -> None:
    broken.add(key)
    handle = await hub.client.start_new(working, instance_id=key)
    await handle.raise_event("go")
    await over(hub, key)
    await handle.rewind()
    await handle.result()
    with suppress(PerdureError):
        await handle.rewind()


@kind
async def restarting(hub: Hub, key: str) -> None:
    handle = await hub.client.start_new(dies, instance_id=key)
    await over(hub, key)
    await handle.restart(with_new_instance_id=False)
    await over(hub, key)


@kind
async def purging(hub: Hub, key: str) -> None:
    handle = await hub.client.start_new(waiting, instance_id=key)
    with suppress(PerdureError):
        await handle.purge()
    await handle.terminate()
    await handle.purge()
    await hub.client.start_new(child, instance_id=key)
    await over(hub, key)
    await hub.client.purge(instance_id_prefix=key)


@kind
async def parking(hub: Hub, key: str) -> None:
    for other in (other_call, early_end):
        body.append(as_recorded)
        handle = await hub.client.start_new(changing, instance_id=key)
        await evict(hub)
        body.append(other)
        await handle.raise_event("go")
        assert (await handle.status()).parked is not None
        with suppress(PerdureError):
            await handle.retry()
        body.append(as_recorded)
        await handle.retry()
        await handle.result()
        body.clear()


@kind
async def looking(hub: Hub, key: str) -> None:
    handle = await hub.client.start_new(activities, instance_id=key)
    await over(hub, key)
    await handle.status()
    await handle.history()
    async for _ in hub.client.query(instance_id_prefix=key):
        pass


@kind
async def waiting_in_vain(hub: Hub, key: str) -> None:
    handle = await hub.client.start_new(waiting, instance_id=key)
    with suppress(TimeoutError):
        await handle.result(timeout=0.001)
    await handle.terminate()


@kind
async def refusals_by_instances(hub: Hub, key: str) -> None:
    client = hub.client
    missing = client.get_handle("no-such")
    for refused in (missing.status, missing.result, missing.terminate, missing.history):
        with suppress(PerdureError):
            await refused()
    with suppress(PerdureError):
        await missing.raise_event("go")
    handle = await client.start_new(waiting, instance_id=key)
    for make in (
        lambda: client.start_new(waiting, instance_id=key),
        lambda: client.start_new("no such"),
        lambda: client.start_new(waiting, 1),
        lambda: client.start_new(waiting, instance_id=""),
        lambda: handle.rewind(),
    ):
        with suppress(PerdureError):
            await make()
    await handle.terminate()


# What clients do to entities.


@kind
async def signals(hub: Hub, key: str) -> None:
    box = EntityId(Box, key)
    await hub.client.signal_entity(box, Box.add, 1)
    await hub.client.signal_entity(box, Box.pass_on, 1)
    await hub.client.signal_entity(box, Box.add, 1, at=MOMENT)
    await hub.client.signal_entities([(box, Box.add, 1), (EntityId(Box, key + "-2"), Box.add, 1)])


@kind
async def failing_signals(hub: Hub, key: str) -> None:
    box = EntityId(Box, key)
    for operation in (Box.fail, Box.fail_at_once, Box.fail_slowly, Box.spoil):
        await hub.client.signal_entity(box, operation.__name__, 1)


@kind
async def calls(hub: Hub, key: str) -> None:
    box = EntityId(Box, key)
    for operation in (Box.add, Box.add_slowly):
        await hub.client.call_entity(box, operation.__name__, 1)
    for reading in (Box.peek, Box.peek_slowly):
        await hub.client.call_entity(box, reading.__name__)
    await hub.client.call_entity(box, Box.forget)
    await hub.client.call_entity(EntityId(tally, key), "count")


@kind
async def failing_calls(hub: Hub, key: str) -> None:
    box = EntityId(Box, key)
    for operation in (Box.fail, Box.fail_at_once, Box.fail_slowly, Box.spoil):
        with suppress(PerdureError):
            await hub.client.call_entity(box, operation.__name__, 1)
    for reading in (Box.peek_in_vain, Box.peek_slowly_in_vain):
        with suppress(PerdureError):
            await hub.client.call_entity(box, reading.__name__)
    with suppress(PerdureError):
        await hub.client.call_entity(EntityId(tally, key), "fail")


@kind
async def overlapping_calls(hub: Hub, key: str) -> None:
    box = EntityId(Box, key)

    async def call(operation: str, *given: Any) -> None:
        with suppress(PerdureError):
            await hub.client.call_entity(box, operation, *given)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, "add_slowly", 1)
        tasks.start_soon(call, "fail_slowly", 1)
        tasks.start_soon(call, "peek")
        tasks.start_soon(call, "peek_slowly_in_vain")


@kind
async def repeated_requests(hub: Hub, key: str) -> None:
    box = EntityId(Box, key)

    async def call(operation: Any, request_id: str) -> None:
        with suppress(PerdureError):
            await hub.client.call_entity(box, operation, 1, request_id=request_id)

    for operation in (Box.add, Box.fail):
        request_id = f"{key} {operation.__name__}"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, operation, request_id)
            tasks.start_soon(call, operation, request_id)
        await call(operation, request_id)
        await call(Box.add_slowly, request_id)  # another request, which is refused
    handle = await hub.client.start_new(waiting, instance_id=key)
    for name in ("go", "stop"):
        with suppress(PerdureError):
            await handle.raise_event(name, 1, request_id=f"{key} event")
    await over(hub, key)


@kind
async def commits_that_fail(hub: Hub, key: str) -> None:
    async def fail(checkpoint: Checkpoint) -> None:
        faults[-1].before_commit = None
        raise disk_error()

    await ask_while_commits_fail(hub, key, fail)


@kind
async def commits_that_are_lost(hub: Hub, key: str) -> None:
    async def lose(checkpoint: Checkpoint) -> None:
        faults[-1].before_commit = keep
        faults[-1].lost_commit = disk_error()

    async def keep(checkpoint: Checkpoint) -> None:
        faults[-1].before_commit = faults[-1].lost_commit = None

    await ask_while_commits_fail(hub, key, lose)


async def ask_while_commits_fail(
    hub: Hub, key: str, fault: Callable[[Checkpoint], Awaitable[None]]
) -> None:
    client, box = hub.client, EntityId(Box, key)

    async def ask(request: Callable[[], Awaitable[Any]]) -> None:
        with suppress(PerdureError):
            await request()

    two = [(EntityId(Box, f"{key}-{n}"), Box.add, n) for n in range(2)]
    handle = await client.start_new(waiting_by_yield, instance_id=key)
    faults[-1].before_commit = fault
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, lambda: client.call_entity(box, Box.add, 1))
        tasks.start_soon(ask, lambda: client.start_new(activities))
        tasks.start_soon(ask, handle.terminate)
        tasks.start_soon(ask, lambda: client.signal_entities(two))
        tasks.start_soon(ask, lambda: client.signal_entity(box, Box.add, 1, request_id=key))
    await until_true(lambda: faults[-1].before_commit is not fault)
    faults[-1].before_commit = faults[-1].lost_commit = None
    await recovered(hub)
    await ask(handle.terminate)
    await over(hub, key)


async def recovered(hub: Hub) -> None:
    """Return when each partition takes requests again."""
    await until_true(lambda: all(partition.gate.reason is None for partition in partitions_of(hub)))


@kind
async def combined_signals(hub: Hub, key: str) -> None:
    sums = EntityId(Sums, key)
    await hub.client.signal_entities([(sums, Sums.add, n) for n in range(5)])
    await hub.client.signal_entities([(sums, Sums.add, n) for n in (12, 13, 14)])


@kind
async def striped_entities(hub: Hub, key: str) -> None:
    striped = EntityId(Striped, key)
    for n in range(3):
        await hub.client.signal_entity(striped, Striped.add, n)
    await hub.client.call_entity(striped, Striped.get)
    with suppress(PerdureError):
        await hub.client.call_entity(striped, Striped.add, -1)


@kind
async def refusals_by_entities(hub: Hub, key: str) -> None:
    client = hub.client
    box = EntityId(Box, key)
    made: list[Coroutine[Any, Any, Any]] = [
        client.call_entity(box, "no such"),
        client.call_entity(box, Box.add, TEXT),
        client.signal_entity(EntityId("none", key), "add", 1),
        client.signal_entity(box, Box.add, 1, at=float("nan")),
    ]
    for call in made:
        with suppress(PerdureError):
            await call
    del made


@kind
async def looking_at_entities(hub: Hub, key: str) -> None:
    box = EntityId(Box, key)
    await hub.client.call_entity(box, Box.add, 1)
    await hub.client.read_entity_state(box)
    await hub.client.get_entity(box)
    async for _ in hub.client.query_entities(name=Box):
        pass
    await evict(hub)
    await hub.client.call_entity(box, Box.add, 1)
    await hub.client.purge_entity(box)


async def run_keeping(hub: Hub, key: str) -> None:
    await (await hub.client.start_new(keeping, instance_id=key)).result()


#: What is to be done with the loop of the test alone.
OF_ONE_LOOP = (
    eviction_and_replay,
    parking,
    looking_at_entities,
    commits_that_fail,
    commits_that_are_lost,
)


async def quiet_but_for_activities(hub: Hub) -> None:
    """Return when an instance that was started waits; an activity of its may run on."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def left_by(hub: Hub, kind: Kind, times: int = TIMES, first: int = 0) -> dict[str, float]:
    """Do it so often; give how much of it each time only the collector would free, by type."""
    for time in range(2):
        await kind(hub, f"{kind.__name__}-warm-{first + time}")
    await quiet(hub)
    gc.collect()
    try:
        for time in range(first, first + times):
            await kind(hub, f"{kind.__name__}-{time}")
        await quiet(hub)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    return {kind: count / times for kind, count in left.items() if count > times // 2}


@pytest.fixture(autouse=True, scope="module")
def uncollected() -> Generator[None, None, None]:
    """Collect when a test says so, and look at none of what was there before this module."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()  # what is frozen stays so: most of it is so for the whole run, by tests/conftest.py


@asynccontextmanager
async def hub_on(inner: Store | None = None) -> AsyncGenerator[Hub, None]:
    """Run a hub whose commits fail where a test wants it."""
    store = FaultyStore(inner)
    faults.append(store.faults)
    with anyio.fail_after(100):
        async with Hub(app, store=store, partitions=2) as hub:
            yield hub
    faults.clear()


@pytest.mark.parametrize("name", KINDS)
async def test_it_leaves_nothing_to_the_collector(name: str) -> None:
    async with hub_on() as hub:
        left = await left_by(hub, KINDS[name])
        if left:
            # Perhaps that was a hub before, which something of its test has held until now.
            left = await left_by(hub, KINDS[name], first=1_000)

        assert left == {}


@pytest.mark.by_turns
async def test_nothing_is_left_where_it_is_stored_on_disk(tmp_path: Path) -> None:
    left: dict[str, dict[str, float]] = {}
    async with hub_on(SqliteStore(tmp_path / "hub", synchronous="OFF")) as hub:
        for name, kind in KINDS.items():
            left[name] = await left_by(hub, kind, FEW_TIMES)

    assert {name: types for name, types in left.items() if types} == {}


@pytest.mark.by_turns("trio")
async def test_nothing_is_left_where_the_hub_is_asked_by_another_loop(tmp_path: Path) -> None:
    left: dict[str, dict[str, float]] = {}
    async with Hub(app, store=SqliteStore(tmp_path / "hub", synchronous="OFF"), shards=2) as hub:
        for name, kind in KINDS.items():
            if kind not in OF_ONE_LOOP:
                left[name] = await left_by(hub, kind, FEW_TIMES)

    assert {name: types for name, types in left.items() if types} == {}


async def test_an_error_that_code_keeps_for_good_is_a_cycle_of_its_own() -> None:
    async with hub_on() as hub:
        left = await left_by(hub, run_keeping)

    # Its frame holds the error, whose traceback leads to the frame: so Python has it.
    assert left["frame"] >= 1
