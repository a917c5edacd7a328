"""The machine's clock is set while a hub runs, or the machine sleeps: what waits is in time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    Hub,
    MemoryStore,
    OrchestrationContext,
    RetryPolicy,
    RuntimeStatus,
    Settings,
    SystemClock,
)
from perdure.runtime.scheduling import clock
from perdure.runtime.scheduling.clock import pass_time
from perdure.runtime.scheduling.timers import TimerQueue
from tests.runtime.harness import until_true

HOUR_S = 3600.0
LATE_S = 5.0  # a second is what is promised; the machine that runs this may be busy

app = App()
gate = anyio.Event()
begun: list[None] = []


class Machine:
    """A clock that a test may set."""

    def __init__(self) -> None:
        self._real = time.time_ns
        self._offset = 0

    def time_ns(self) -> int:
        return self._real() + self._offset

    def set_by(self, seconds: float) -> None:
        self._offset += round(seconds * 1e9)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_ns() / 1e9, UTC)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(time, "time_ns", made.time_ns)
    # A second is what is promised; that it is looked at again is the same after a tenth of it.
    assert clock.LOOK_AGAIN_S <= 1
    monkeypatch.setattr(clock, "LOOK_AGAIN_S", 0.1)
    return made


@app.entity
class Note:
    times: list[datetime] = []

    def write(self, ctx: EntityContext) -> int:
        self.times.append(ctx.current_utc_datetime)
        return len(self.times)

    def write_later(self, seconds: float, ctx: EntityContext) -> None:
        self.times.append(ctx.current_utc_datetime)
        ctx.signal_entity(ctx.entity_id, "write", at=timedelta(seconds=seconds))


@app.activity
async def fail() -> None:
    raise ValueError("no")


@app.activity
async def wait_for_gate() -> str:
    begun.append(None)
    await gate.wait()
    return "done"


@app.orchestration
async def sleep(ctx: OrchestrationContext, seconds: float) -> str:
    await ctx.create_timer(timedelta(seconds=seconds))
    return "fired"


@app.orchestration
async def act(ctx: OrchestrationContext, kind: str) -> list[Any]:
    """Be told to go on, and then wait for a while, in one of many ways."""
    before = ctx.current_utc_datetime
    until = await ctx.wait_for_external_event("go", data_type=datetime)
    if kind == "timer":
        await ctx.create_timer(timedelta(seconds=0.1))
    elif kind == "time":
        await ctx.create_timer(until)
    elif kind == "timeout":
        with pytest.raises(TimeoutError):
            await ctx.wait_for_external_event("never", timeout=0.1)
    elif kind == "scope":
        with ctx.move_on_after(0.1):
            await ctx.wait_for_external_event("never")
    elif kind == "signal":
        ctx.signal_entity(EntityId(Note, "late"), Note.write, at=timedelta(seconds=0.1))
    else:
        with pytest.raises(Exception, match="no"):
            await ctx.call_activity(fail, retry=RetryPolicy(first_interval=0.1, max_attempts=2))
    after = ctx.current_utc_datetime
    ctx.set_custom_status("waited")
    await ctx.wait_for_external_event("end")
    return [before, after]


@app.orchestration
async def bounded(ctx: OrchestrationContext, seconds: float) -> str:
    try:
        return await ctx.call_activity(wait_for_gate, timeout=seconds)
    except Exception as error:
        return str(error)


async def test_what_waits_for_a_time_that_the_clock_jumps_over_comes_soon(
    machine: Machine,
) -> None:
    note = EntityId(Note, "n")
    async with Hub(app) as hub:
        timer = await hub.client.start_new(sleep, HOUR_S)
        start = await hub.client.start_new(sleep, 0.0, start_at=timedelta(hours=1))
        await hub.client.signal_entity(note, Note.write, at=timedelta(hours=1))
        while (await timer.status()).runtime_status is not RuntimeStatus.RUNNING:
            await anyio.lowlevel.checkpoint()

        machine.set_by(2 * HOUR_S)

        with anyio.fail_after(LATE_S):
            assert await timer.result() == "fired"
            assert await start.result() == "fired"
            while await hub.client.read_entity_state(note) is None:
                await anyio.sleep(0.01)


@pytest.mark.parametrize("kind", ["timer", "timeout", "scope", "retry", "signal"])
async def test_a_delay_is_not_longer_for_a_clock_that_was_set_back(
    machine: Machine, kind: str
) -> None:
    store = MemoryStore()
    async with Hub(app, store=store) as hub:
        old = await hub.client.start_new(act, kind)
        while (await old.status()).runtime_status is not RuntimeStatus.RUNNING:
            await anyio.lowlevel.checkpoint()

        machine.set_by(-HOUR_S)
        new = await hub.client.start_new(act, kind)

        with anyio.fail_after(LATE_S):
            for handle in (old, new):
                await handle.raise_event("go", machine.now())
                while (await handle.status()).custom_status != "waited":
                    await anyio.sleep(0.01)
            while kind == "signal":
                state = await hub.client.read_entity_state(EntityId(Note, "late"))
                if state is not None and len(state.times) == 2:
                    break
                await anyio.sleep(0.01)
    async with Hub(app, store=store) as hub:
        for id in (old.instance_id, new.instance_id):
            handle = hub.client.get_handle(id)
            await handle.raise_event("end")
            before, after = await handle.result(LATE_S)
            assert before <= after, "time for turns never goes back"


async def test_a_time_has_not_come_before_the_clock_shows_it_also_where_it_was_set_back(
    machine: Machine,
) -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(act, "time")
        while (await handle.status()).runtime_status is not RuntimeStatus.RUNNING:
            await anyio.lowlevel.checkpoint()

        machine.set_by(-HOUR_S)
        due = machine.now() + timedelta(seconds=0.3)
        await handle.raise_event("go", due)

        with anyio.fail_after(LATE_S):
            while (await handle.status()).custom_status != "waited":
                await anyio.sleep(0.01)
        assert machine.now() >= due


async def test_the_time_of_an_entity_s_turns_never_goes_back_while_its_delays_stay(
    machine: Machine,
) -> None:
    note, store = EntityId(Note, "n"), MemoryStore()
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(note, Note.write)
        machine.set_by(-HOUR_S)
        await hub.client.call_entity(note, Note.write_later, 0.1)
        with anyio.fail_after(LATE_S):
            while await hub.client.call_entity(note, Note.write) < 4:
                await anyio.sleep(0.05)
    machine.set_by(-HOUR_S)
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(note, Note.write)
        state = await hub.client.read_entity_state(note)

    assert state is not None
    assert state.times == sorted(state.times)
    assert state.times[-1] - state.times[0] < timedelta(minutes=1)


@pytest.mark.parametrize("step", [-HOUR_S, HOUR_S])
async def test_an_activity_s_timeout_is_measured_and_not_read_from_the_clock(
    machine: Machine, step: float
) -> None:
    global gate
    gate = anyio.Event()
    begun.clear()
    async with Hub(app, partitions=1) as hub:
        long, short = [await hub.client.start_new(bounded, one) for one in (600.0, 0.5)]
        with anyio.fail_after(LATE_S):
            await until_true(lambda: len(begun) == 2)

        machine.set_by(step)

        with anyio.fail_after(LATE_S):
            assert "no answer within 0.5 seconds" in await short.result()
        await anyio.sleep(0.2)  # the queue has looked at the clock again
        gate.set()
        assert await long.result() == "done"


async def test_a_request_id_is_not_forgotten_early_for_a_clock_that_was_set_forward(
    machine: Machine,
) -> None:
    note = EntityId(Note, "n")
    settings = Settings(request_retention_s=3600)
    async with Hub(app, settings=settings) as hub:
        assert await hub.client.call_entity(note, Note.write, request_id="r") == 1
        machine.set_by(48 * HOUR_S)
        for _ in range(3):
            await hub.client.call_entity(note, Note.write)

        assert await hub.client.call_entity(note, Note.write, request_id="r") == 1


@pytest.mark.parametrize("step", [-HOUR_S, HOUR_S])
async def test_a_while_passes_whatever_the_clock_is_set_to(machine: Machine, step: float) -> None:
    clock = SystemClock()
    began = time.monotonic()
    with anyio.fail_after(LATE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pass_time, clock, 250_000)
            await anyio.wait_all_tasks_blocked()
            machine.set_by(step)

    assert time.monotonic() - began >= 0.25


async def test_a_queue_has_alarms_by_the_clock_and_alarms_by_what_has_passed(
    machine: Machine,
) -> None:
    clock = SystemClock()
    queue = TimerQueue(clock)
    rung: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        queue.set_after(1800.0, lambda: rung.append("after half an hour"))
        queue.set_after(0.25, lambda: rung.append("after a while"))
        queue.set(clock.now() + 3_600_000_000, lambda: rung.append("at a time"))
        machine.set_by(2 * HOUR_S)
        with anyio.fail_after(LATE_S):
            await until_true(lambda: len(rung) == 2)
        tasks.cancel_scope.cancel()

    assert sorted(rung) == ["after a while", "at a time"]
