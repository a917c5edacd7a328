from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import anyio
from hypothesis import given, strategies as st

from perdure import ManualClock, SystemClock
from perdure.runtime.scheduling.timers import Alarm, TimerQueue
from tests.runtime.harness import until_true

SECOND = 1_000_000


@asynccontextmanager
async def running(queue: TimerQueue) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        yield
        tasks.cancel_scope.cancel()


async def settle() -> None:
    """Give the queue's task all the turns it can use."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_an_alarm_rings_at_its_time_and_not_before() -> None:
    clock = ManualClock()
    queue = TimerQueue(clock)
    rung: list[int] = []

    async with running(queue):
        queue.set(clock.now() + 10 * SECOND, lambda: rung.append(clock.now()))
        clock.advance(9.999999)
        await settle()
        early = list(rung)
        clock.advance(0.000001)
        await until_true(lambda: bool(rung))

    assert early == []
    assert rung == [clock.now()]


async def test_a_past_time_rings_at_once() -> None:
    queue = TimerQueue(ManualClock())
    rung: list[str] = []

    async with running(queue):
        queue.set(0, lambda: rung.append("past"))
        await until_true(lambda: rung == ["past"])


async def test_alarms_ring_in_the_order_of_their_times_and_then_of_their_setting() -> None:
    clock = ManualClock()
    queue = TimerQueue(clock)
    rung: list[tuple[int, int]] = []
    dice = random.Random(3)
    wanted = [(dice.randrange(5), order) for order in range(100)]

    async with running(queue):
        for second, order in wanted:
            queue.set(clock.now() + second * SECOND, partial(rung.append, (second, order)))
        clock.advance(10)
        await until_true(lambda: len(rung) == 100)

    assert rung == sorted(wanted)


async def test_an_earlier_alarm_set_later_does_not_wait_for_the_first() -> None:
    clock = ManualClock()
    queue = TimerQueue(clock)
    rung: list[str] = []

    async with running(queue):
        queue.set(clock.now() + 100 * SECOND, lambda: rung.append("late"))
        await settle()
        queue.set(clock.now() + 1 * SECOND, lambda: rung.append("soon"))
        clock.advance(1)
        await until_true(lambda: rung == ["soon"])


async def test_an_earlier_alarm_wakes_a_queue_that_waits_on_the_systems_clock() -> None:
    clock = SystemClock()
    queue = TimerQueue(clock)
    rung: list[str] = []

    async with running(queue):
        queue.set(clock.now() + 3_600 * SECOND, lambda: rung.append("late"))
        await settle()
        queue.set(clock.now() + 1_000, lambda: rung.append("soon"))
        await until_true(lambda: rung == ["soon"])


async def test_a_stopped_alarm_does_not_ring_and_may_be_stopped_again() -> None:
    clock = ManualClock()
    queue = TimerQueue(clock)
    rung: list[str] = []

    async with running(queue):
        alarm = queue.set(clock.now() + SECOND, lambda: rung.append("stopped"))
        queue.set(clock.now() + SECOND, lambda: rung.append("other"))
        queue.stop(alarm)
        queue.stop(alarm)
        clock.advance(1)
        await until_true(lambda: bool(rung))

    assert rung == ["other"]


async def test_an_alarm_that_has_rung_may_be_stopped() -> None:
    clock = ManualClock()
    queue = TimerQueue(clock)
    rung: list[str] = []

    async with running(queue):
        alarm = queue.set(clock.now(), lambda: rung.append("first"))
        await until_true(lambda: bool(rung))
        queue.stop(alarm)
        queue.set(clock.now() + SECOND, lambda: rung.append("second"))
        clock.advance(1)
        await until_true(lambda: rung == ["first", "second"])


async def test_an_alarm_may_set_and_stop_others() -> None:
    clock = ManualClock()
    queue = TimerQueue(clock)
    rung: list[str] = []

    async with running(queue):
        victim = queue.set(clock.now() + 2 * SECOND, lambda: rung.append("victim"))

        def ring() -> None:
            rung.append("first")
            queue.stop(victim)
            queue.set(clock.now(), lambda: rung.append("at once"))

        queue.set(clock.now() + SECOND, ring)
        clock.advance(5)
        await until_true(lambda: rung == ["first", "at once"])
        await settle()

    assert rung == ["first", "at once"]


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60))
def test_what_rings_is_what_was_not_stopped(plan: list[tuple[int, bool]]) -> None:
    clock = ManualClock(start=0)
    rung: list[tuple[int, int]] = []

    async def main() -> None:
        queue = TimerQueue(clock)
        async with running(queue):
            alarms: list[Alarm] = [
                queue.set(due, partial(rung.append, (due, order)))
                for order, (due, _) in enumerate(plan)
            ]
            for alarm, (_, stopped) in zip(alarms, plan, strict=True):
                if stopped:
                    queue.stop(alarm)
            queue.set(100, lambda: rung.append((100, len(plan))))
            clock.advance(1)
            await until_true(lambda: (100, len(plan)) in rung)

    anyio.run(main)

    expected = sorted((due, i) for i, (due, stopped) in enumerate(plan) if not stopped)
    assert rung == [*expected, (100, len(plan))]


async def test_stopped_alarms_do_not_pile_up() -> None:
    clock = ManualClock()
    queue = TimerQueue(clock)
    rung: list[str] = []

    async with running(queue):
        queue.set(clock.now() + 50 * SECOND, lambda: rung.append("kept"))
        for i in range(20_000):
            queue.stop(queue.set(clock.now() + (100 + i) * SECOND, lambda: rung.append("never")))
        await settle()
        size = queue.size
        clock.advance(100_000)
        await until_true(lambda: bool(rung))
        await settle()

    assert size < 3_000
    assert rung == ["kept"]


def test_the_queues_time_is_its_clocks() -> None:
    clock = ManualClock(start=42)

    assert TimerQueue(clock).now() == 42


async def test_a_queue_is_idle_while_it_waits_for_what_is_next() -> None:
    clock = ManualClock()
    queue = TimerQueue(clock)
    before = queue.is_idle

    async with running(queue):
        await until_true(lambda: queue.is_idle)
        queue.set(clock.now() + SECOND, lambda: None)
        at_once = queue.is_idle
        await until_true(lambda: queue.is_idle)
        due = queue.next_due()

    assert not before, "it has not looked at anything yet"
    assert not at_once, "it has not heard of it yet"
    assert due == clock.now() + SECOND
