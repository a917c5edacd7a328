"""Terminate, cancel, suspend and resume, restart and purge."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from perdure import (
    App,
    Cancelled,
    EntityId,
    InstanceAlreadyExistsError,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    ManualClock,
    MemoryStore,
    OrchestrationCanceledError,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationTerminatedError,
    RuntimeStatus,
    SubOrchestrationError,
)
from perdure.runtime.partitions.door import Door
from tests.runtime.orchestrating import (
    HOUR,
    advance,
    event_types,
    evict,
    quiet,
    running,
    status_of,
    stored_timers,
)

Flow = Callable[..., Any]

log: list[str] = []


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


app = App()


@app.entity
class Account:
    total: int = 0

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total


ACCOUNT = EntityId(Account, "a")


@app.activity
async def note(text: str) -> str:
    log.append(text)
    return text


@app.orchestration
async def waits(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


@app.orchestration
def waits_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield ctx.wait_for_external_event("go"))


@app.orchestration
async def parent(ctx: OrchestrationContext) -> Any:
    return await ctx.call_sub_orchestrator(middle, instance_id="middle")


@app.orchestration
async def middle(ctx: OrchestrationContext) -> Any:
    return await ctx.call_sub_orchestrator(waits, instance_id="leaf")


WAITS = pytest.mark.parametrize("flow", [waits, waits_by_yield])
KINDS = pytest.mark.parametrize("kind", ["memory", "sqlite"])


# Terminate.


@app.orchestration
async def cleans(ctx: OrchestrationContext) -> None:
    try:
        await ctx.wait_for_external_event("go")
    except Cancelled:
        log.append("cancelled")
    finally:
        log.append("finally")
        await ctx.call_activity(note, "compensated")


@app.orchestration
def cleans_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    try:
        yield ctx.wait_for_external_event("go")
    except Cancelled:
        log.append("cancelled")
    finally:
        log.append("finally")
        yield ctx.call_activity(note, "compensated")


CLEANS = pytest.mark.parametrize("flow", [cleans, cleans_by_yield])


@CLEANS
async def test_terminate_ends_an_instance_and_does_nothing_its_code_asks_for(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        await quiet(hub)

        await handle.terminate("enough")

        with pytest.raises(OrchestrationTerminatedError, match="enough") as caught:
            await handle.result(5)
        await quiet(hub)
        status = await handle.status()
        assert caught.value.message == "enough"
        assert status.runtime_status == RuntimeStatus.TERMINATED
        assert status.failure is not None
        assert (status.failure.error_type, status.failure.message) == ("Terminated", "enough")
        assert "compensated" not in log
        assert "cancelled" not in log
        assert "TaskScheduled" not in await event_types(handle)


@CLEANS
async def test_terminate_of_an_evicted_instance_runs_none_of_its_code(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        await evict(hub)
        log.clear()

        await handle.terminate()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert "compensated" not in log


@pytest.mark.parametrize("evicted", [False, True])
async def test_terminate_ends_the_children_and_theirs(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        if evicted:
            await evict(hub)

        await handle.terminate("all of it")
        await quiet(hub)

        for name in ("middle", "leaf"):
            status = await hub.client.get_handle(name).status()
            assert status.runtime_status == RuntimeStatus.TERMINATED
            assert status.failure is not None
            assert status.failure.message == "all of it"


async def test_terminate_that_is_not_recursive_leaves_the_children() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)

        await handle.terminate(recursive=False)
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert await status_of(hub.client.get_handle("leaf")) == RuntimeStatus.RUNNING
        await hub.client.raise_event("leaf", "go", 1)
        assert await hub.client.get_handle("middle").result(5) == 1


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_suspended_instance_can_be_terminated(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits)
        await handle.suspend()
        await handle.raise_event("go", 1)
        if evicted:
            await evict(hub)

        await handle.terminate()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert "EventRaised" not in await event_types(handle)


async def test_terminate_tells_running_activities_and_drops_their_answers() -> None:
    local = App()
    begun, told = anyio.Event(), anyio.Event()

    @local.activity
    async def slow() -> str:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            told.set()
        return "late"

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(slow)

    async with running(local) as hub:
        handle = await hub.client.start_new(calls)
        await begun.wait()

        await handle.terminate()
        await told.wait()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.TERMINATED
        assert "TaskCompleted" not in await event_types(handle)


@pytest.mark.parametrize("evicted", [False, True])
async def test_terminate_gives_locks_and_timers_back(evicted: bool) -> None:
    local = App()
    local.include(app)
    store = MemoryStore()

    @local.orchestration
    async def locks(ctx: OrchestrationContext) -> None:
        ctx.create_timer(HOUR)
        async with ctx.lock_entities(ACCOUNT):
            await ctx.wait_for_external_event("never", timeout=3600)

    async with running(local, store) as hub:
        handle = await hub.client.start_new(locks)
        await quiet(hub)
        locked = await hub.client.get_entity(ACCOUNT)
        if evicted:
            await evict(hub)

        await handle.terminate()
        total = await hub.client.call_entity(ACCOUNT, Account.add, 5, timeout=5)
        await quiet(hub)

        assert locked is not None
        assert locked.locked_by == handle.instance_id
        assert total == 5
        assert stored_timers(store) == 0


async def test_an_orchestration_that_never_waits_can_be_terminated() -> None:
    local = App()

    @local.orchestration
    async def eternal(ctx: OrchestrationContext, n: int) -> None:
        ctx.continue_as_new(n + 1)

    async with running(local) as hub:
        handle = await hub.client.start_new(eternal, 0)

        await handle.terminate("at last")

        assert await status_of(handle) == RuntimeStatus.TERMINATED


@pytest.mark.parametrize("action", ["terminate", "cancel", "suspend", "resume"])
async def test_commands_are_refused_for_unknown_and_ended_instances(action: str) -> None:
    async with running(app) as hub:
        ended = await hub.client.start_new(waits)
        await ended.raise_event("go")
        await ended.result(5)

        with pytest.raises(InstanceNotFoundError):
            await getattr(hub.client.get_handle("nobody"), action)()
        with pytest.raises(InstanceFinishedError, match="Completed"):
            await getattr(ended, action)()

        assert await status_of(ended) == RuntimeStatus.COMPLETED


@KINDS
async def test_a_terminated_instance_stays_so_across_a_restart(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(cleans, instance_id="x")
        await quiet(hub)
        await handle.terminate("enough")
    clock.advance(3600)

    async with running(app, store, clock=clock) as hub:
        await quiet(hub)

        with pytest.raises(OrchestrationTerminatedError, match="enough"):
            await hub.client.get_handle("x").result(5)
        assert "compensated" not in log


# Cancel.


@CLEANS
async def test_cancel_lets_finally_and_except_blocks_compensate_durably(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        await quiet(hub)

        await handle.cancel("changed our mind")
        await quiet(hub)

        # It caught Cancelled and returned, so it is completed.
        assert await status_of(handle) == RuntimeStatus.COMPLETED
        assert log == ["cancelled", "finally", "compensated"]
        assert "TaskCompleted" in await event_types(handle)


@app.orchestration
async def lets_pass(ctx: OrchestrationContext) -> None:
    try:
        await ctx.wait_for_external_event("go")
    finally:
        await ctx.call_activity(note, "one")
        await ctx.create_timer(HOUR)
        await ctx.call_activity(note, "two")


@app.orchestration
def lets_pass_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
    try:
        yield ctx.wait_for_external_event("go")
    finally:
        yield ctx.call_activity(note, "one")
        yield ctx.create_timer(HOUR)
        yield ctx.call_activity(note, "two")


LETS_PASS = pytest.mark.parametrize("flow", [lets_pass, lets_pass_by_yield])


@LETS_PASS
@KINDS
async def test_a_compensation_goes_on_across_a_restart(
    flow: Flow, kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(flow, instance_id="x")
        await quiet(hub)
        await handle.cancel("why not")
        await quiet(hub)
        assert await status_of(handle) == RuntimeStatus.RUNNING
    clock.advance(3600)

    async with running(app, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")

        with pytest.raises(OrchestrationCanceledError, match="why not"):
            await handle.result(5)
        assert await status_of(handle) == RuntimeStatus.CANCELED
        assert log == ["one", "two"]


@LETS_PASS
async def test_a_cancelled_orchestration_is_canceled_with_the_reason(flow: Flow) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow)
        await evict(hub)

        await handle.cancel("why not")
        await advance(hub, clock, 3600)

        status = await handle.status()
        assert status.runtime_status == RuntimeStatus.CANCELED
        assert status.failure is not None
        assert status.failure.message == "why not"


@app.orchestration
async def refuses(ctx: OrchestrationContext) -> str:
    try:
        await ctx.wait_for_external_event("go")
    except Cancelled as cancelled:
        return f"not me: {cancelled.reason}"
    return ""


async def test_an_orchestration_that_catches_cancelled_and_returns_is_completed() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(refuses)

        await handle.cancel("please")

        assert await handle.result(5) == "not me: please"


async def test_an_orchestration_whose_compensation_raises_is_failed() -> None:
    local = App()

    @local.orchestration
    async def breaks(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_external_event("go")
        finally:
            raise ValueError("worse")

    async with running(local) as hub:
        handle = await hub.client.start_new(breaks)
        await handle.cancel()

        with pytest.raises(OrchestrationFailedError, match="worse"):
            await handle.result(5)


async def test_cancel_cascades_to_children_timers_and_activities() -> None:
    local = App()
    store = MemoryStore()
    begun, told = anyio.Event(), anyio.Event()

    @local.activity
    async def slow() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            told.set()

    @local.activity
    async def record(text: str) -> None:
        log.append(text)

    @local.orchestration
    async def child(ctx: OrchestrationContext, name: str) -> None:
        try:
            await ctx.wait_for_external_event("never", timeout=3600)
        except Cancelled as cancelled:
            log.append(f"{name}: {cancelled.reason}")
            await ctx.call_activity(record, name)
            raise

    @local.orchestration
    async def top(ctx: OrchestrationContext) -> None:
        ctx.create_timer(HOUR)
        ctx.call_activity(slow)
        ctx.call_sub_orchestrator(child, "beside", instance_id="beside")
        await ctx.call_sub_orchestrator(child, "awaited", instance_id="awaited")

    async with running(local, store) as hub:
        handle = await hub.client.start_new(top)
        await begun.wait()

        await handle.cancel("stop")
        await told.wait()
        await quiet(hub)

        assert await status_of(handle) == RuntimeStatus.CANCELED
        assert await status_of(hub.client.get_handle("beside")) == RuntimeStatus.CANCELED
        assert await status_of(hub.client.get_handle("awaited")) == RuntimeStatus.CANCELED
        assert {"beside", "awaited"} <= set(log)
        assert stored_timers(store) == 0


async def test_a_cancelled_child_fails_in_its_parent() -> None:
    local = App()
    local.include(app)

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

        await hub.client.get_handle("child").cancel("no more")

        assert await handle.result(5) == ["Cancelled", "no more"]


@pytest.mark.parametrize("evicted", [False, True])
async def test_cancel_of_a_suspended_instance_is_durable_and_waits_for_the_resume(
    evicted: bool,
) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(refuses)
        await handle.suspend()
        with anyio.fail_after(5):
            await handle.cancel("please")
        if evicted:
            await evict(hub)
        assert await status_of(handle) == RuntimeStatus.SUSPENDED

        await handle.resume()

        assert await handle.result(5) == "not me: please"


async def test_cancel_reaches_code_that_awaits_an_activity() -> None:
    local = App()
    begun, stopped = anyio.Event(), anyio.Event()

    @local.activity
    async def slow() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    @local.orchestration
    async def calls(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(slow)

    async with running(local) as hub:
        handle = await hub.client.start_new(calls)
        await begun.wait()

        await handle.cancel()
        await stopped.wait()

        with pytest.raises(OrchestrationCanceledError):
            await handle.result(5)


async def test_an_activity_that_was_given_up_is_not_run_again_after_a_restart() -> None:
    local = App()
    store = MemoryStore()
    runs: list[str] = []
    begun = anyio.Event()

    @local.activity
    async def slow() -> None:
        runs.append("run")
        begun.set()
        await anyio.sleep_forever()

    @local.orchestration
    async def gives_up(ctx: OrchestrationContext) -> str:
        task = ctx.call_activity(slow)
        await ctx.wait_for_external_event("give up")
        task.cancel()
        return str(await ctx.wait_for_external_event("end"))

    async with running(local, store) as hub:
        handle = await hub.client.start_new(gives_up, instance_id="x")
        await begun.wait()
        await handle.raise_event("give up")
        await quiet(hub)

    async with running(local, store) as hub:
        await quiet(hub)
        handle = hub.client.get_handle("x")
        await handle.raise_event("end", "over")

        assert await handle.result(5) == "over"
        assert runs == ["run"]


# Suspend and resume.


@app.orchestration
async def two_of_each(ctx: OrchestrationContext) -> list[Any]:
    timer = ctx.create_timer(HOUR)
    call = ctx.call_activity("gated")
    event = ctx.wait_for_external_event("x")
    names = {id(timer): "timer", id(call): "call", id(event): "event"}
    order: list[str] = []
    pending: list[Any] = [timer, call, event]
    while pending:
        winner = await ctx.task_any(pending)
        order.append(names[id(winner)])
        pending.remove(winner)
    return order


@pytest.mark.parametrize("how", ["here", "evicted", "restarted"])
@KINDS
async def test_what_arrives_while_suspended_is_kept_in_order(
    kind: str, how: str, tmp_path: Path
) -> None:
    local = App()
    local.include(app)
    gate, entered = anyio.Event(), anyio.Event()

    @local.activity
    async def gated() -> None:
        entered.set()
        await gate.wait()

    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(local, store, clock=clock) as hub:
        handle = await hub.client.start_new(two_of_each, instance_id="x")
        await entered.wait()
        await handle.suspend("hold on")
        await handle.raise_event("x")
        await advance_beside_activity(clock, hub, 3600)
        gate.set()
        await quiet(hub)

        status = await handle.status()
        assert status.runtime_status == RuntimeStatus.SUSPENDED
        assert {"EventRaised", "TimerFired", "TaskCompleted"}.isdisjoint(await event_types(handle))
        if how == "restarted":
            pass
        else:
            if how == "evicted":
                await evict(hub)
            await handle.resume()
            assert await handle.result(5) == ["event", "timer", "call"]
            return

    async with running(local, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        await quiet(hub)
        assert await status_of(handle) == RuntimeStatus.SUSPENDED
        await handle.resume()

        assert await handle.result(5) == ["event", "timer", "call"]


async def advance_beside_activity(clock: ManualClock, hub: Any, seconds: float) -> None:
    """Turn the clock while an activity runs, and return when the timer was taken."""
    clock.advance(seconds)
    while any(one.callback is not None for _, _, one in hub._shard.timers._at.alarms):
        await anyio.sleep(0.0005)
    for partition in hub._partitions:
        await Door(partition).wait_durable()


@WAITS
async def test_suspend_and_resume_are_recorded_and_can_be_repeated(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow)
        for _ in range(2):
            await handle.suspend("a")
            await handle.suspend("again")
            assert await status_of(handle) == RuntimeStatus.SUSPENDED
            await handle.resume("b")
            await handle.resume("again")
            assert await status_of(handle) == RuntimeStatus.RUNNING
        await evict(hub)

        await handle.raise_event("go", 1)

        assert await handle.result(5) == 1
        types = await event_types(handle)
        assert types.count("ExecutionSuspended") == types.count("ExecutionResumed") == 2


@KINDS
async def test_why_an_instance_is_suspended_shows_in_its_status(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        handle = await hub.client.start_new(refuses, instance_id="x")
        scheduled = await hub.client.start_new(refuses, instance_id="y", start_at=HOUR)
        await handle.suspend("the bank is closed")
        await scheduled.suspend("not today")
    async with running(app, store) as hub:
        handle, scheduled = hub.client.get_handle("x"), hub.client.get_handle("y")
        reasons = [(await one.status()).suspended for one in (handle, scheduled)]
        await handle.resume("it is open")
        resumed = (await handle.status()).suspended
        await scheduled.terminate()
        ended = (await scheduled.status()).suspended

    assert reasons == ["the bank is closed", "not today"]
    assert (resumed, ended) == (None, None)


async def test_children_are_not_suspended_and_their_answer_waits() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        await handle.suspend()

        await hub.client.raise_event("leaf", "go", 5)

        assert await hub.client.get_handle("middle").result(5) == 5
        await quiet(hub)
        assert await status_of(handle) == RuntimeStatus.SUSPENDED
        await handle.resume()
        assert await handle.result(5) == 5


# Restart.


@app.orchestration
async def echoes(ctx: OrchestrationContext, data: dict[str, int]) -> dict[str, int]:
    await ctx.wait_for_external_event("go")
    return data


async def test_restart_starts_the_same_under_a_new_id() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(echoes, {"a": 1}, tags={"t": "1"}, instance_id="x")
        await first.raise_event("go")
        await first.result(5)

        second = await first.restart()

        assert second.instance_id != "x"
        status = await second.status()
        assert (status.name, status.input, status.tags) == ("echoes", {"a": 1}, {"t": "1"})
        await second.raise_event("go")
        assert await second.result(5) == {"a": 1}


async def test_restart_under_the_same_id_needs_an_instance_that_has_ended() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(echoes, {"a": 1}, instance_id="x")
        with pytest.raises(InstanceAlreadyExistsError):
            await handle.restart(with_new_instance_id=False)
        await handle.terminate()

        again = await handle.restart(with_new_instance_id=False)

        assert again.instance_id == "x"
        assert (await again.status()).execution == 2
        await again.raise_event("go")
        assert await again.result(5) == {"a": 1}


async def test_restart_keeps_the_version() -> None:
    local = App()

    @local.orchestration(name="v", version="1")
    async def first(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    @local.orchestration(name="v", version="2")
    async def second(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    async with running(local) as hub:
        handle = await hub.client.start_new(first)
        assert await handle.result(5) == "1"

        again = await handle.restart()

        assert await again.result(5) == "1"


async def test_restart_of_an_unknown_instance_is_refused() -> None:
    async with running(app) as hub:
        with pytest.raises(InstanceNotFoundError):
            await hub.client.restart("nobody")

        assert [status async for status in hub.client.query()] == []


# Purge.


@pytest.mark.parametrize("evicted", [False, True])
async def test_purge_deletes_an_instance_with_its_history(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits, instance_id="x")
        await handle.raise_event("go")
        await handle.result(5)
        if evicted:
            await evict(hub)

        deleted = await handle.purge()

        assert deleted == 1
        assert await hub.client.get_status("x") is None
        for call in (handle.status, handle.history, handle.result, handle.purge):
            with pytest.raises(InstanceNotFoundError):
                await call()


async def test_a_live_instance_is_not_purged() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits)
        suspended = await hub.client.start_new(waits)
        await suspended.suspend()
        scheduled = await hub.client.start_new(waits, start_at=HOUR)

        for live in (handle, suspended, scheduled):
            with pytest.raises(InstanceNotFinishedError):
                await live.purge()

        await handle.raise_event("go", 1)
        assert await handle.result(5) == 1


async def test_purge_deletes_the_children_and_theirs() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        await hub.client.raise_event("leaf", "go")
        await handle.result(5)

        deleted = await handle.purge()

        assert deleted == 3
        assert [status async for status in hub.client.query()] == []


async def test_purge_that_is_not_recursive_leaves_the_children() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        await hub.client.raise_event("leaf", "go")
        await handle.result(5)

        deleted = await handle.purge(recursive=False)

        assert deleted == 1
        assert {s.instance_id async for s in hub.client.query()} == {"middle", "leaf"}


async def test_purge_by_filter_deletes_only_what_matches_and_has_ended() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        begin = clock.now()
        for name in ("done-1", "done-2", "ended-1", "live-1"):
            handle = await hub.client.start_new(
                waits, instance_id=name, tags={"kind": name.split("-")[0]}
            )
            if name.startswith("done"):
                await handle.raise_event("go")
            elif name.startswith("ended"):
                await handle.terminate()
            await advance(hub, clock, 60)
        assert begin < clock.now()

        async def ids() -> list[str]:
            return sorted([status.instance_id async for status in hub.client.query()])

        assert await hub.client.purge(name="other") == 0
        assert await hub.client.purge(statuses=["Running"]) == 0
        assert await hub.client.purge(instance_id_prefix="live") == 0
        assert await hub.client.purge(tags={"kind": "done"}, instance_id_prefix="done-2") == 1
        assert await ids() == ["done-1", "ended-1", "live-1"]
        assert await hub.client.purge(statuses=[RuntimeStatus.TERMINATED]) == 1
        assert await ids() == ["done-1", "live-1"]
        assert await hub.client.purge() == 1
        assert await ids() == ["live-1"]


async def test_purge_by_filter_is_recursive() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(parent)
        await quiet(hub)
        await hub.client.raise_event("leaf", "go")
        await handle.result(5)

        deleted = await hub.client.purge(name="parent")

        assert deleted == 3
        assert [status async for status in hub.client.query()] == []


async def test_purge_by_completed_window() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        times: list[Any] = []
        for name in "abc":
            handle = await hub.client.start_new(waits, instance_id=name)
            await handle.raise_event("go")
            await handle.result(5)
            times.append((await handle.status()).completed_time)
            await advance(hub, clock, 60)

        deleted = await hub.client.purge(completed_from=times[1], completed_to=times[2])

        assert deleted == 1
        assert sorted([s.instance_id async for s in hub.client.query()]) == ["a", "c"]


@KINDS
async def test_a_purged_instance_stays_away_across_a_restart_and_its_id_is_free(
    kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        handle = await hub.client.start_new(waits, instance_id="x")
        await handle.raise_event("go")
        await handle.result(5)
        await handle.purge()

    async with running(app, store) as hub:
        assert await hub.client.get_status("x") is None
        again = await hub.client.start_new(waits, instance_id="x")
        await again.raise_event("go", 2)

        assert await again.result(5) == 2
        assert (await again.status()).execution == 1


async def test_a_wait_that_times_out_says_what_keeps_the_instance() -> None:
    local = App()

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")

    @local.orchestration
    async def gives_the_call(ctx: OrchestrationContext) -> int:
        return cast("int", ctx.call_sub_orchestrator(waits))

    async with running(local) as hub:
        handle = await hub.client.start_new(waits)
        with pytest.raises(TimeoutError, match=r"within 0.01 seconds$"):
            await handle.result(0.01)
        await handle.suspend()
        with pytest.raises(TimeoutError, match=r"within 0.01 seconds; it is suspended$"):
            await handle.result(0.01)
        with pytest.raises(
            OrchestrationFailedError, match="CallTask <a call, to be awaited: waits"
        ):
            await (await hub.client.start_new(gives_the_call)).result(5)
