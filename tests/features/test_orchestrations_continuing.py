"""continue_as_new, starting under an id in use, and scheduled starts."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    InstanceAlreadyExistsError,
    InvalidTimeError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationTerminatedError,
    PayloadError,
    RuntimeStatus,
    UnknownNameError,
    UsageError,
)
from tests.runtime.orchestrating import (
    HOUR,
    SECOND,
    Flow,
    advance,
    event_types,
    evict,
    quiet,
    running,
    status_of,
    stored_timers,
)

app = App()


# continue_as_new.


@app.orchestration
async def countdown(ctx: OrchestrationContext, n: int) -> str:
    if n:
        ctx.continue_as_new(n - 1)
        return "not this"
    return f"{ctx.instance_id} done"


@app.orchestration
def countdown_by_yield(ctx: OrchestrationContext, n: int) -> Generator[Any, Any, str]:
    yield ctx.task_all([])
    if n:
        ctx.continue_as_new(n - 1)
        return "not this"
    return f"{ctx.instance_id} done"


COUNTDOWNS = pytest.mark.parametrize("flow", [countdown, countdown_by_yield])


@COUNTDOWNS
async def test_continue_as_new_begins_a_new_execution_with_an_empty_history(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, 3, instance_id="x")

        result = await handle.result(5)

        status = await handle.status()
        assert result == "x done"
        assert (status.execution, status.input) == (4, 0)
        assert await event_types(handle) == ["ExecutionStarted", "ExecutionCompleted"]


@COUNTDOWNS
async def test_ten_thousand_immediate_executions_neither_overflow_nor_starve(flow: Flow) -> None:
    async with running(app) as hub:
        long = await hub.client.start_new(flow, 10_000, instance_id="a")
        # In the same partition, so that it has to share the pump and the checkpoints.
        other = await hub.client.start_new(countdown, 1, instance_id="a::other")

        assert await other.result(5) == "a::other done"
        while_other = await long.status()
        assert await long.result(25) == "a done"

        assert while_other.execution < 10_000
        assert (await long.status()).execution == 10_001


@app.orchestration
async def waits_anew(ctx: OrchestrationContext, rounds: list[Any]) -> list[Any]:
    if not rounds:
        await ctx.wait_for_external_event("go")
        ctx.continue_as_new(["kept"], keep_events=True)
        return []
    return [
        *[await ctx.wait_for_external_event("b") for _ in range(2)],
        *[await ctx.wait_for_external_event("a") for _ in range(2)],
    ]


@pytest.mark.parametrize("evicted", [False, True])
async def test_events_that_nobody_took_go_along_in_order(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(waits_anew, list[Any]())
        for name, data in [("a", 1), ("b", 2), ("b", 3), ("a", 4)]:
            await handle.raise_event(name, data)
        if evicted:
            await evict(hub)
        await handle.raise_event("go")

        assert await handle.result(5) == [2, 3, 1, 4]
        events = [
            [*e.fields.values()] for e in await handle.history() if e.event_type == "EventRaised"
        ]
        assert events == [["a", 1], ["b", 2], ["b", 3], ["a", 4]]


async def test_kept_events_come_before_those_that_arrive_later() -> None:
    local = App()

    @local.orchestration
    async def one_each(ctx: OrchestrationContext, seen: list[int]) -> list[int]:
        seen.append(await ctx.wait_for_external_event("n"))
        if len(seen) == 100:
            return seen
        ctx.continue_as_new(seen)
        return []

    async with running(local) as hub:
        handle = await hub.client.start_new(one_each, list[int]())
        for n in range(100):
            await handle.raise_event("n", n)

        assert await handle.result(5) == list(range(100))


async def test_keep_events_false_drops_them() -> None:
    local = App()

    @local.orchestration
    async def drops(ctx: OrchestrationContext, second: bool) -> Any:
        if not second:
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new(True, keep_events=False)
            return None
        return await ctx.wait_for_external_event("x", data_type=str)

    async with running(local) as hub:
        handle = await hub.client.start_new(drops, False)
        await handle.raise_event("x", "old")
        await handle.raise_event("go")
        await quiet(hub)

        await handle.raise_event("x", "new")

        assert await handle.result(5) == "new"


async def test_continue_as_new_is_not_honoured_if_the_function_raises() -> None:
    local = App()

    @local.orchestration
    async def raises(ctx: OrchestrationContext, n: int) -> None:
        ctx.continue_as_new(n + 1)
        assert ctx.will_continue_as_new
        raise ValueError("after all")

    async with running(local) as hub:
        handle = await hub.client.start_new(raises, 1)

        with pytest.raises(OrchestrationFailedError, match="after all"):
            await handle.result(5)
        assert (await handle.status()).execution == 1


async def test_continue_as_new_drops_timers_and_late_answers() -> None:
    local = App()
    store, clock = MemoryStore(), ManualClock()
    begun, late = anyio.Event(), anyio.Event()

    @local.activity
    async def endless() -> int:
        begun.set()
        await late.wait()
        return 1

    @local.orchestration
    async def anew(ctx: OrchestrationContext, second: bool) -> list[bool]:
        timer, task = ctx.create_timer(10 * SECOND), ctx.create_timer(HOUR)
        if not second:
            ctx.call_activity(endless)
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new(True)
            return []
        await timer
        return [timer.is_completed, task.is_completed]

    async with running(local, store, clock=clock) as hub:
        handle = await hub.client.start_new(anew, False)
        await begun.wait()
        clock.advance(5)
        await handle.raise_event("go")
        late.set()  # the answer comes to an execution that did not ask
        await quiet(hub)

        assert stored_timers(store) == 2
        await advance(hub, clock, 5)
        assert await status_of(handle) == RuntimeStatus.RUNNING
        await advance(hub, clock, 5)

        assert await handle.result(5) == [True, False]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_stop_between_two_executions_loses_neither_instance_nor_events(
    kind: str, tmp_path: Path
) -> None:
    local = App()
    stop_at = 100

    @local.orchestration
    async def eternal(ctx: OrchestrationContext, n: int) -> int:
        # It never waits, so a stop always finds it between two executions.
        if n >= stop_at:
            return int(await ctx.wait_for_external_event("kept"))
        ctx.continue_as_new(n + 1 if ctx.instance_id == "counting" else n)
        return 0

    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(local, store, drain_s=0.05) as hub:
        handle = await hub.client.start_new(eternal, 0, instance_id="spinning")
        await handle.raise_event("kept", 7)
    stop_at = 0

    async with running(local, store) as hub:
        assert await hub.client.get_handle("spinning").result(5) == 7


async def test_a_bad_input_for_the_next_execution_is_refused_at_the_call() -> None:
    local = App()

    @local.orchestration
    async def wrong(ctx: OrchestrationContext, n: int) -> str:
        bad: Any = "text"
        try:
            ctx.continue_as_new(bad)
        except PayloadError:
            return f"refused, {ctx.will_continue_as_new}"
        return ""

    async with running(local) as hub:
        handle = await hub.client.start_new(wrong, 1)

        assert await handle.result(5) == "refused, False"


async def test_custom_status_and_children_belong_to_one_execution() -> None:
    local = App()

    @local.orchestration
    async def parent(ctx: OrchestrationContext, n: int) -> list[str]:
        child = await ctx.call_sub_orchestrator(names_itself)
        if n:
            ctx.continue_as_new(n - 1)
            return []
        return [child, ctx.instance_id]

    @local.orchestration
    async def names_itself(ctx: OrchestrationContext) -> str:
        return ctx.instance_id

    async with running(local) as hub:
        handle = await hub.client.start_new(parent, 2, instance_id="p")

        child, own = await handle.result(5)

        assert own == "p"
        children = [s.instance_id async for s in hub.client.query(parent_instance_id="p")]
        assert len(set(children)) == 3
        assert child in children


# Starting under an id in use.


@app.orchestration
async def holds(ctx: OrchestrationContext, mark: str) -> str:
    return f"{mark} {await ctx.wait_for_external_event('go')}"


async def test_a_live_instance_keeps_its_id_by_default() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(holds, "first", instance_id="x")

        with pytest.raises(InstanceAlreadyExistsError, match="'x' is live"):
            await hub.client.start_new(holds, "second", instance_id="x")

        await handle.raise_event("go", 1)
        assert await handle.result(5) == "first 1"


async def test_reuse_gives_the_handle_of_the_live_instance() -> None:
    async with running(app) as hub:
        await hub.client.start_new(holds, "first", instance_id="x")

        again = await hub.client.start_new(holds, "second", instance_id="x", on_existing="reuse")

        await again.raise_event("go", 1)
        assert await again.result(5) == "first 1"


async def test_reuse_by_many_at_once_starts_one() -> None:
    async with running(app) as hub:
        async with anyio.create_task_group() as tasks:

            async def start(n: int) -> None:
                await hub.client.start_new(holds, str(n), instance_id="one", on_existing="reuse")

            for n in range(50):
                tasks.start_soon(start, n)

        status = await hub.client.get_handle("one").status()
        assert status.execution == 1


async def test_replace_terminates_the_live_instance_and_begins_another() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "first", instance_id="x", tags={"n": "1"})
        await first.raise_event("other", 1)

        second = await hub.client.start_new(holds, "second", instance_id="x", on_existing="replace")

        assert (await second.status()).execution == 2
        assert (await second.status()).tags == {}
        await second.raise_event("go", 2)
        assert await second.result(5) == "second 2"
        assert "other" not in [
            e.fields["name"] for e in await second.history() if e.event_type == "EventRaised"
        ]


async def test_replacing_a_suspended_instance_drops_what_it_held() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "first", instance_id="x")
        await first.suspend()
        await first.raise_event("go", "for the first")

        second = await hub.client.start_new(holds, "second", instance_id="x", on_existing="replace")
        await second.raise_event("go", "for the second")

        assert await second.result(5) == "second for the second"


async def test_replace_ends_the_children_of_the_replaced() -> None:
    local = App()

    @local.orchestration
    async def parent(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator(child, instance_id="c")

    @local.orchestration
    async def child(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("never")

    @local.orchestration
    async def other(ctx: OrchestrationContext) -> str:
        return "other"

    async with running(local) as hub:
        await hub.client.start_new(parent, instance_id="p")
        await quiet(hub)

        handle = await hub.client.start_new(other, instance_id="p", on_existing="replace")
        await quiet(hub)

        assert await handle.result(5) == "other"
        assert await status_of(hub.client.get_handle("c")) == RuntimeStatus.TERMINATED


@pytest.mark.parametrize("on_existing", ["reject", "reuse", "replace"])
@pytest.mark.parametrize("ending", ["Completed", "Terminated"])
@pytest.mark.parametrize("evicted", [False, True])
async def test_an_instance_that_has_ended_is_replaced(
    on_existing: Any, ending: str, evicted: bool
) -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "first", instance_id="x")
        if ending == "Completed":
            await first.raise_event("go", 1)
        else:
            await first.terminate("enough")
        await quiet(hub)
        if evicted:
            await evict(hub)

        second = await hub.client.start_new(
            holds, "second", instance_id="x", on_existing=on_existing
        )

        status = await second.status()
        assert (status.runtime_status, status.execution) == (RuntimeStatus.RUNNING, 2)
        assert (status.output, status.failure, status.completed_time) == (None, None, None)
        await second.raise_event("go", 2)
        assert await second.result(5) == "second 2"


async def test_who_waits_for_a_replaced_instance_gets_the_result_of_the_new_one() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "first", instance_id="x")
        results: list[str] = []
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                results.append(await first.result(5))

            tasks.start_soon(wait)
            await quiet(hub)

            second = await hub.client.start_new(
                holds, "second", instance_id="x", on_existing="replace"
            )
            await second.raise_event("go", 2)

        assert results == ["second 2"]


async def test_an_unknown_way_is_refused() -> None:
    async with running(app) as hub:
        wrong: Any = "overwrite"

        with pytest.raises(UsageError, match="on_existing"):
            await hub.client.start_new(holds, "x", instance_id="x", on_existing=wrong)

        assert await hub.client.get_status("x") is None


# Scheduled starts.


@app.orchestration
async def tells_time(ctx: OrchestrationContext) -> str:
    return ctx.current_utc_datetime.isoformat()


@app.orchestration
def tells_time_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    yield ctx.task_all([])
    return ctx.current_utc_datetime.isoformat()


NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("flow", [tells_time, tells_time_by_yield])
@pytest.mark.parametrize("start_at", [HOUR, NOON + HOUR], ids=["delay", "time"])
async def test_a_scheduled_instance_is_pending_until_its_time(flow: Flow, start_at: Any) -> None:
    clock = ManualClock(int(NOON.timestamp()) * 1_000_000)
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow, start_at=start_at)
        await advance(hub, clock, 3599)
        before = await handle.status()

        await advance(hub, clock, 1)

        assert before.runtime_status == RuntimeStatus.PENDING
        assert before.history_length == 0
        assert await handle.result(5) == (NOON + HOUR).isoformat()


async def test_a_start_time_of_the_past_begins_at_once() -> None:
    async with running(app, clock=ManualClock()) as hub:
        handle = await hub.client.start_new(tells_time, start_at=datetime(2001, 1, 1, tzinfo=UTC))

        assert (await handle.result(5)).startswith("2023")


@pytest.mark.parametrize(
    "start_at",
    [datetime(2030, 1, 1), timedelta(seconds=-1)],  # noqa: DTZ001
    ids=["naive", "negative"],
)
async def test_a_naive_or_negative_start_time_is_refused(start_at: Any) -> None:
    async with running(app) as hub:
        with pytest.raises(InvalidTimeError):
            await hub.client.start_new(tells_time, instance_id="x", start_at=start_at)

        assert await hub.client.get_status("x") is None


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("late", [False, True])
async def test_a_scheduled_start_survives_a_restart(kind: str, late: bool, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        await hub.client.start_new(tells_time, start_at=HOUR, instance_id="x")
    clock.advance(7200 if late else 1800)

    async with running(app, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        if not late:
            await quiet(hub)
            assert await status_of(handle) == RuntimeStatus.PENDING
            await advance(hub, clock, 1800)

        assert await handle.result(5) != ""
        assert await event_types(handle) == ["ExecutionStarted", "ExecutionCompleted"]


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_scheduled_instance_can_be_terminated(evicted: bool) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(tells_time, start_at=HOUR)
        if evicted:
            await evict(hub)

        await handle.terminate("not needed")
        await advance(hub, clock, 7200)

        with pytest.raises(OrchestrationTerminatedError, match="not needed"):
            await handle.result(5)
        assert "ExecutionStarted" not in await event_types(handle)


async def test_a_scheduled_instance_can_be_cancelled() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(tells_time, start_at=HOUR)

        await handle.cancel("not needed")
        await advance(hub, clock, 7200)

        assert await status_of(handle) == RuntimeStatus.CANCELED
        assert "ExecutionStarted" not in await event_types(handle)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("resumed", ["before", "after"])
async def test_a_scheduled_instance_that_was_suspended_begins_once_resumed(
    restarted: bool, resumed: str
) -> None:
    clock, store = ManualClock(), MemoryStore()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(tells_time, start_at=HOUR, instance_id="x")
        await handle.suspend("wait")
        if resumed == "after":
            await advance(hub, clock, 7200)
            assert await status_of(handle) == RuntimeStatus.SUSPENDED
        if not restarted:
            await handle.resume()
            await advance(hub, clock, 7200)

            assert await handle.result(5) != ""
            return

    async with running(app, store, clock=clock) as hub:
        handle = hub.client.get_handle("x")
        await handle.resume()
        await advance(hub, clock, 7200)

        assert await handle.result(5) != ""


async def test_the_timer_of_a_purged_schedule_does_not_begin_its_successor() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        first = await hub.client.start_new(tells_time, start_at=HOUR, instance_id="x")
        await first.terminate()
        await first.purge()
        await evict(hub)
        second = await hub.client.start_new(tells_time, start_at=3 * HOUR, instance_id="x")

        await advance(hub, clock, 2 * 3600)

        assert await status_of(second) == RuntimeStatus.PENDING


# Bad starts.


async def test_a_bad_start_is_refused_and_nothing_is_stored() -> None:
    async with running(app, max_payload=50) as hub:
        bad: Any = "text"
        number: Any = 5
        for start in (
            lambda: hub.client.start_new("unknown"),
            lambda: hub.client.start_new(countdown, 1, version="9"),
        ):
            with pytest.raises(UnknownNameError):
                await start()
        for start in (
            lambda: hub.client.start_new(countdown, bad),
            lambda: hub.client.start_new(holds, "x" * 100),
            lambda: hub.client.start_new("countdown"),
            lambda: hub.client.start_new(countdown, 1, instance_id="@entity"),
            lambda: hub.client.start_new(countdown, 1, instance_id=""),
            lambda: hub.client.start_new(countdown, 1, instance_id="a\x00b"),
            lambda: hub.client.start_new(countdown, 1, instance_id="x" * 257),
            lambda: hub.client.start_new(countdown, 1, tags={"a": number}),
        ):
            with pytest.raises(UsageError):
                await start()

        assert [status async for status in hub.client.query()] == []


async def test_a_start_repeated_under_its_request_id_is_applied_once() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "x", request_id="r")
        again = await hub.client.start_new(holds, "x", request_id="r")
        named = await hub.client.start_new(holds, "n", instance_id="named", request_id="q")
        await named.raise_event("go")
        await named.result(5)

        repeated = await hub.client.start_new(holds, "n", instance_id="named", request_id="q")

        assert first.instance_id == again.instance_id
        assert await status_of(repeated) == RuntimeStatus.COMPLETED
        assert len([status async for status in hub.client.query()]) == 2
