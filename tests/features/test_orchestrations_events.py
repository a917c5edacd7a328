"""External events: who gets them, in which order, and when there is nobody."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import attrs
import pytest

from perdure import (
    App,
    EventDataError,
    FailedError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidIdError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    PayloadError,
    PayloadTooLargeError,
    RuntimeStatus,
)
from tests.runtime.orchestrating import (
    HOUR,
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


@app.orchestration
async def takes(ctx: OrchestrationContext, names: list[str]) -> list[Any]:
    return [await ctx.wait_for_external_event(name) for name in names]


@app.orchestration
def takes_by_yield(ctx: OrchestrationContext, names: list[str]) -> Generator[Any, Any, list[Any]]:
    taken: list[Any] = []
    for name in names:
        taken.append((yield ctx.wait_for_external_event(name)))  # noqa: PERF401
    return taken


FLOWS = pytest.mark.parametrize("flow", [takes, takes_by_yield])


@FLOWS
async def test_event_names_ignore_case(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, ["Approval", "STRASSE"])

        await handle.raise_event("aPPROVAL", 1)
        await handle.raise_event("straße", 2)

        assert await handle.result(5) == [1, 2]


@FLOWS
async def test_events_of_one_name_are_taken_in_the_order_raised(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, ["x"] * 20)

        for n in range(20):
            await handle.raise_event("x", n)

        assert await handle.result(5) == list(range(20))


async def test_several_waiters_of_one_name_are_served_in_the_order_in_which_they_wait() -> None:
    local = App()

    @local.orchestration
    async def three(ctx: OrchestrationContext) -> list[Any]:
        tasks = [ctx.wait_for_external_event("x") for _ in range(3)]
        return await ctx.task_all(list(reversed(tasks)))

    async with running(local) as hub:
        handle = await hub.client.start_new(three)
        await quiet(hub)

        for n in range(3):
            await handle.raise_event("x", n)

        assert await handle.result(5) == [2, 1, 0]


@FLOWS
async def test_events_wait_until_somebody_wants_them(flow: Flow) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, ["first", "second", "second"])

        await handle.raise_event("second", 1)
        await handle.raise_event("second", 2)
        await handle.raise_event("first", 0)

        assert await handle.result(5) == [0, 1, 2]


async def test_events_are_kept_for_an_instance_that_has_not_begun() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(takes, ["x", "y"], start_at=HOUR)

        await handle.raise_event("y", 2)
        await handle.raise_event("x", 1)
        status = await status_of(handle)
        await advance(hub, clock, 3600)

        assert status == RuntimeStatus.PENDING
        assert await handle.result(5) == [1, 2]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_an_acknowledged_event_survives_a_restart(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        pending = await hub.client.start_new(takes, ["x"], start_at=HOUR, instance_id="pending")
        buffering = await hub.client.start_new(takes, ["a", "b"], instance_id="buffering")
        suspended = await hub.client.start_new(takes, ["x"], instance_id="suspended")
        await suspended.suspend()
        await pending.raise_event("x", "kept")
        await buffering.raise_event("b", "B")
        await suspended.raise_event("x", "held")

    clock = ManualClock(4_000_000_000_000_000)
    async with running(app, store, clock=clock) as hub:
        await hub.client.get_handle("buffering").raise_event("a", "A")
        await hub.client.get_handle("suspended").resume()

        assert await hub.client.get_handle("pending").result(5) == ["kept"]
        assert await hub.client.get_handle("buffering").result(5) == ["A", "B"]
        assert await hub.client.get_handle("suspended").result(5) == ["held"]


async def test_events_reach_an_evicted_orchestration_in_order() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(takes, ["x", "y", "x"])
        for name, data in [("x", 1), ("x", 3), ("y", 2)]:
            assert await evict(hub) == 1
            await handle.raise_event(name, data)

        assert await handle.result(5) == [1, 2, 3]


# Timeout.


@app.orchestration
async def patient(ctx: OrchestrationContext) -> list[Any]:
    try:
        return ["event", await ctx.wait_for_external_event("Go", timeout=60)]
    except TimeoutError as error:
        return ["timeout", str(error)]


@app.orchestration
def patient_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[Any]]:
    try:
        data = yield ctx.wait_for_external_event("Go", timeout=60)
    except TimeoutError as error:
        return ["timeout", str(error)]
    return ["event", data]


PATIENT = pytest.mark.parametrize("flow", [patient, patient_by_yield])


@PATIENT
async def test_a_wait_with_a_timeout_raises_timeout_error(flow: Flow) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow)
        await advance(hub, clock, 59)
        before = await status_of(handle)

        await advance(hub, clock, 1)

        assert before == RuntimeStatus.RUNNING
        assert await handle.result(5) == ["timeout", "no event 'go' arrived in time"]


@PATIENT
async def test_an_event_in_time_cancels_the_timeouts_timer(flow: Flow) -> None:
    clock, store = ManualClock(), MemoryStore()
    async with running(app, store, clock=clock) as hub:
        handle = await hub.client.start_new(flow)
        await advance(hub, clock, 59)

        await handle.raise_event("go", 5)

        assert await handle.result(5) == ["event", 5]
        await quiet(hub)
        assert stored_timers(store) == 0


async def test_an_event_after_the_timeout_goes_to_the_next_who_waits() -> None:
    local = App()
    clock = ManualClock()

    @local.orchestration
    async def twice(ctx: OrchestrationContext) -> list[Any]:
        first = ctx.wait_for_external_event("x", timeout=10)
        second = ctx.wait_for_external_event("x")
        try:
            await first
        except TimeoutError:
            return ["timeout", await second]
        return []

    async with running(local, clock=clock) as hub:
        handle = await hub.client.start_new(twice)
        await advance(hub, clock, 10)

        await handle.raise_event("x", 1)

        assert await handle.result(5) == ["timeout", 1]


async def test_a_cancelled_wait_leaves_the_event_to_the_next() -> None:
    local = App()

    @local.orchestration
    async def gives_up(ctx: OrchestrationContext) -> Any:
        first = ctx.wait_for_external_event("x", timeout=10)
        second = ctx.wait_for_external_event("x")
        first.cancel()
        return await second

    store = MemoryStore()
    async with running(local, store, clock=ManualClock()) as hub:
        handle = await hub.client.start_new(gives_up)
        await handle.raise_event("x", 1)

        assert await handle.result(5) == 1
        assert stored_timers(store) == 0


# Types.


@attrs.define
class Approval:
    approved: bool
    by: str = ""


async def test_data_type_gives_typed_data() -> None:
    local = App()

    @local.orchestration
    async def approve(ctx: OrchestrationContext) -> str:
        approval = await ctx.wait_for_external_event("approval", data_type=Approval)
        return f"{type(approval).__name__} {approval.approved} {approval.by}"

    async with running(local) as hub:
        waiting = await hub.client.start_new(approve)
        buffered = await hub.client.start_new(approve, start_at=HOUR)
        await waiting.raise_event("approval", {"approved": True, "by": "Ada"})
        await buffered.raise_event("approval", Approval(False))

        assert await waiting.result(5) == "Approval True Ada"
        assert await status_of(buffered) == RuntimeStatus.PENDING


typed = App()


@typed.orchestration
async def wants_ints(ctx: OrchestrationContext, way: str) -> list[Any]:
    if way == "not waiting yet":
        await ctx.wait_for_external_event("go")
    try:
        await ctx.wait_for_external_event("n", data_type=list[int])
    except EventDataError as error:
        mro = type(error).__mro__
        kinds = [FailedError in mro, PayloadError in mro]
        found = [kinds, error.target, error.path, error.reason, error.error_type]
        return [*found, await ctx.wait_for_external_event("n", data_type=int)]
    return ["taken"]


@typed.orchestration
async def sends_ints(ctx: OrchestrationContext, to: str) -> None:
    ctx.send_event(to, "n", [1, "two"])


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_clients_event_of_another_type_is_refused_and_nothing_is_recorded(
    evicted: bool,
) -> None:
    async with running(typed) as hub:
        handle = await hub.client.start_new(wants_ints, "waits", instance_id="x")
        if evicted:
            await evict(hub)
        with pytest.raises(PayloadError, match="event 'n' of 'x'") as caught:
            await handle.raise_event("N", [1, "two"], request_id="r")
        assert not isinstance(caught.value, EventDataError)
        assert caught.value.path == "$[1]"
        assert "EventRaised" not in await event_types(handle)
        await handle.raise_event("n", [1, 2], request_id="r")

        assert await handle.result(5) == ["taken"]


@pytest.mark.parametrize("way", ["not waiting yet", "suspended", "scheduled", "from an actor"])
async def test_data_of_another_type_that_were_taken_in_raise_at_the_wait(way: str) -> None:
    async with running(typed, clock=ManualClock()) as hub:
        start_at = HOUR if way == "scheduled" else None
        handle = await hub.client.start_new(wants_ints, way, instance_id="x", start_at=start_at)
        if way == "suspended":
            await handle.suspend()
        if way == "from an actor":
            await (await hub.client.start_new(sends_ints, "x")).result(5)
        else:
            await handle.raise_event("n", [1, "two"])
        await evict(hub)
        if way == "suspended":
            await handle.resume()
        elif way == "scheduled":
            clock = hub._clock
            assert isinstance(clock, ManualClock)
            clock.advance(3600)
        elif way == "not waiting yet":
            await handle.raise_event("go")
        await quiet(hub)
        await evict(hub)
        await handle.raise_event("n", 5)

        kinds, target, path, reason, kind, value = await handle.result(5)

        assert (kinds, target, path, kind, value) == (
            [True, True],
            "event 'n'",
            "$[1]",
            "PayloadError",
            5,
        )
        assert "int" in reason


async def test_an_event_is_held_against_the_wait_that_will_take_it() -> None:
    local = App()

    @local.orchestration
    async def two_waits(ctx: OrchestrationContext) -> list[Any]:
        first = ctx.wait_for_external_event("n", data_type=int)
        second = ctx.wait_for_external_event("n", data_type=str)
        return await ctx.task_all([first, second])

    async with running(local) as hub:
        handle = await hub.client.start_new(two_waits)
        with pytest.raises(PayloadError):
            await handle.raise_event("n", "one")
        await handle.raise_event("n", 1)
        with pytest.raises(PayloadError):
            await handle.raise_event("n", 2)
        await handle.raise_event("n", "two")

        assert await handle.result(5) == [1, "two"]


# Refusals.


async def test_an_event_for_an_unknown_instance_is_refused() -> None:
    async with running(app) as hub:
        with pytest.raises(InstanceNotFoundError, match="nobody"):
            await hub.client.raise_event("nobody", "x")

        assert await hub.client.get_status("nobody") is None


@pytest.mark.parametrize("ending", ["Completed", "Failed", "Terminated", "Canceled"])
async def test_an_event_for_an_instance_that_has_ended_is_refused(ending: str) -> None:
    local = App()

    @local.orchestration
    async def ends(ctx: OrchestrationContext) -> None:
        if await ctx.wait_for_external_event("how") == "Failed":
            raise ValueError("as asked")

    async with running(local) as hub:
        handle = await hub.client.start_new(ends)
        if ending == "Terminated":
            await handle.terminate()
        elif ending == "Canceled":
            await handle.cancel()
        else:
            await handle.raise_event("how", ending)
        await quiet(hub)
        before = await event_types(handle)

        for _ in range(2):
            with pytest.raises(InstanceFinishedError, match=ending):
                await handle.raise_event("x")
            await evict(hub)

        assert await event_types(handle) == before


async def test_bad_names_and_data_are_refused_and_nothing_is_stored() -> None:
    async with running(app, max_payload=100) as hub:
        handle = await hub.client.start_new(takes, ["x"])
        await quiet(hub)
        before = await event_types(handle)

        for name in ("", "a\n", 5):
            bad: Any = name
            with pytest.raises(InvalidIdError):
                await handle.raise_event(bad)
        with pytest.raises(PayloadTooLargeError):
            await handle.raise_event("x", "y" * 100)
        with pytest.raises(PayloadError):
            await handle.raise_event("x", object())

        assert await event_types(handle) == before


# send_event.


@app.orchestration
async def sends(ctx: OrchestrationContext, target: str) -> str:
    for n in range(5):
        ctx.send_event(target, "X", n)
    return "sent"


@app.orchestration
def sends_by_yield(ctx: OrchestrationContext, target: str) -> Generator[Any, Any, str]:
    for n in range(5):
        ctx.send_event(target, "X", n)
    yield ctx.task_all([])
    return "sent"


@pytest.mark.parametrize("flow", [sends, sends_by_yield])
@pytest.mark.parametrize("target", ["target-0", "target-1", "target-2", "target-3"])
async def test_an_orchestration_sends_events_to_another_in_order(flow: Flow, target: str) -> None:
    async with running(app, partitions=4) as hub:
        receiver = await hub.client.start_new(takes, ["x"] * 5, instance_id=target)
        sender = await hub.client.start_new(flow, target)

        assert await sender.result(5) == "sent"
        assert await receiver.result(5) == list(range(5))


async def test_an_event_sent_to_an_unknown_or_ended_instance_is_dropped() -> None:
    async with running(app) as hub:
        ended = await hub.client.start_new(takes, list[str](), instance_id="ended")
        await ended.result(5)

        for target in ("ended", "nobody"):
            sender = await hub.client.start_new(sends, target)
            assert await sender.result(5) == "sent"
        await quiet(hub)

        assert await hub.client.get_status("nobody") is None
        assert "EventRaised" not in await event_types(ended)


async def test_an_event_sent_again_under_its_request_id_arrives_once() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(takes, ["x", "x"])
        for _ in range(3):
            await handle.raise_event("x", 1, request_id="once")

        await handle.raise_event("x", 2, request_id="other")

        assert await handle.result(5) == [1, 2]


async def test_a_failing_orchestration_takes_no_more_events() -> None:
    local = App()

    @local.orchestration
    async def fails(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("x")
        raise ValueError("bad")

    async with running(local) as hub:
        handle = await hub.client.start_new(fails)
        await handle.raise_event("x")

        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        with pytest.raises(InstanceFinishedError):
            await handle.raise_event("x")
