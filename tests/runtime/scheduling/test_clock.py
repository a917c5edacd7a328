from __future__ import annotations

import time

import anyio
import pytest

from perdure import Clock, ManualClock, SystemClock


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
async def test_waiting_for_a_past_time_returns_at_once(clock: Clock) -> None:
    with anyio.fail_after(10):
        await clock.wait_until(clock.now() - 1, anyio.Event())


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
@pytest.mark.parametrize("due", [None, 10**18])
async def test_waiting_ends_when_woken(clock: Clock, due: int | None) -> None:
    woken = anyio.Event()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.wait_until, due, woken)
            await anyio.lowlevel.checkpoint()
            woken.set()


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
async def test_waiting_when_woken_already_returns_at_once(clock: Clock) -> None:
    woken = anyio.Event()
    woken.set()

    with anyio.fail_after(10):
        await clock.wait_until(None, woken)


def test_the_systems_clock_gives_microseconds_since_the_epoch() -> None:
    before = time.time()
    now = SystemClock().now()
    after = time.time()

    assert before - 1e-3 <= now / 1e6 <= after + 1e-3


async def test_the_systems_clock_waits_until_the_time_has_come() -> None:
    clock = SystemClock()
    due = clock.now() + 5_000

    with anyio.fail_after(10):
        await clock.wait_until(due, anyio.Event())

    assert clock.now() >= due - 1_000


def test_a_manual_clock_stands_still_until_it_is_turned() -> None:
    clock = ManualClock(start=1_000_000)

    first, second = clock.now(), clock.now()
    clock.advance(1.5)

    assert (first, second) == (1_000_000, 1_000_000)
    assert clock.now() == 2_500_000


async def test_turning_a_manual_clock_wakes_only_those_whose_time_has_come() -> None:
    clock = ManualClock(start=0)
    done: list[int] = []

    async def wait(due: int) -> None:
        await clock.wait_until(due, anyio.Event())
        done.append(due)

    async def settle() -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for due in (1_000_000, 2_000_000):
            tasks.start_soon(wait, due)
        await settle()
        clock.advance(0.5)
        await settle()
        first = list(done)
        clock.advance(0.5)
        await settle()
        second = list(done)
        clock.advance(5)
        assert (first, second) == ([], [1_000_000])

    assert done == [1_000_000, 2_000_000]


async def test_waiting_on_a_manual_clock_can_be_cancelled() -> None:
    clock = ManualClock()

    with anyio.move_on_after(0.01) as scope:
        await clock.wait_until(None, anyio.Event())

    assert scope.cancelled_caught


def test_one_manual_clock_serves_one_event_loop_after_another() -> None:
    clock = ManualClock(start=0)

    async def wait() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.wait_until, clock.now() + 1, anyio.Event())
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            clock.advance(1)

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(wait, backend=backend)

    assert clock.now() == 3_000_000
