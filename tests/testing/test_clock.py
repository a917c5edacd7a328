from __future__ import annotations

import anyio
import pytest

from perdure.testing.clock import VirtualClock
from tests.faults import settle

START = 1_700_000_000_000_000


async def test_who_waits_for_a_time_is_woken_when_the_clock_shows_it() -> None:
    clock = VirtualClock(START)
    woken: list[int] = []

    async def wait(due: int) -> None:
        await clock.wait_until(due, anyio.Event())
        woken.append(due - START)

    async with anyio.create_task_group() as tasks:
        for due in (30, 10, 20):
            tasks.start_soon(wait, START + due)
        await settle()
        clock.set(START + 20)
        await settle()

        assert sorted(woken) == [10, 20]
        assert clock.next_due() == START + 30
        clock.set(START + 30)

    assert woken[-1] == 30
    assert clock.next_due() is None


async def test_who_is_woken_before_waits_no_more() -> None:
    clock = VirtualClock(START)
    woken = anyio.Event()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.wait_until, START + 10, woken)
        await settle()
        woken.set()

    assert clock.next_due() is None
    assert clock.now() == START


async def test_a_time_that_has_come_is_not_waited_for() -> None:
    clock = VirtualClock(START)

    with anyio.fail_after(10):
        await clock.wait_until(START, anyio.Event())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_clock_is_never_set_back() -> None:
    clock = VirtualClock(START)
    clock.set(START + 5)

    clock.set(START + 1)

    assert clock.now() == START + 5
    assert clock.shown.timestamp() == pytest.approx(START / 1e6)
