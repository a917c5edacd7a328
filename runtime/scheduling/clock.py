"""Time, as the hub is given it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import anyio

from ...actors.arguments import whole
from ...actors.times import LONGEST_S, microseconds
from .hidden_tasks import TaskGroup

#: How late a time may be noticed that comes because the clock was set.
LOOK_AGAIN_S = 1.0


class Clock(Protocol):
    """Where a hub's time comes from."""

    def now(self) -> int:
        """The time in microseconds since the Unix epoch, UTC."""
        ...

    async def wait_until(self, due: int | None, woken: anyio.Event) -> None:
        """Return when ``due`` has come (None: never) or ``woken`` is set, or sooner.

        Whoever waits looks again at the time.
        """
        ...


def steady_time(clock: Clock) -> Callable[[], int]:
    """Give the clock's time as if nobody ever set it: what a delay is measured by.

    It is ``clock.steady``, where there is that, and ``clock.now`` otherwise.
    """
    steady: Callable[[], int] = getattr(clock, "steady", clock.now)
    return steady


async def pass_time(clock: Clock, microseconds: int) -> None:
    """Return when that much time has passed, also where the clock is set meanwhile."""
    steady, never = steady_time(clock), anyio.Event()
    until = steady() + microseconds
    while (left := until - steady()) > 0:
        await clock.wait_until(clock.now() + left, never)


class SystemClock:
    """The machine's clock, which may be set, and stands still for nobody while it sleeps."""

    def __init__(self) -> None:
        self._began = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        """The time in microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000

    def steady(self) -> int:
        """The time as it would be had nobody set the clock since this object was made."""
        return (self._began + time.monotonic_ns()) // 1_000

    async def wait_until(self, due: int | None, woken: anyio.Event) -> None:
        """Return when ``due`` has come (None: never), ``woken`` is set, or a second has passed.

        Event loops sleep by a clock that is not set and stands still while the machine sleeps, so
        how long a wait really is has to be looked at now and then.
        """
        if due is None:
            await woken.wait()
        else:
            delay = min((due - self.now()) / 1e6, LOOK_AGAIN_S)
            with anyio.move_on_after(max(delay, 0.0)):
                await woken.wait()


class ManualClock:
    """A clock that tests turn by hand.

    Args:
        start: the time at first, in microseconds since the Unix epoch, UTC.
    """

    def __init__(self, start: int = 1_700_000_000_000_000) -> None:
        self._now = whole(start, "start", most=LONGEST_S * 1_000_000)
        # An event for each that waits: one of them all would bind the clock to an event loop.
        self._waiting: set[anyio.Event] = set()

    def now(self) -> int:
        """The time in microseconds since the Unix epoch, UTC."""
        return self._now

    def advance(self, seconds: float | timedelta) -> None:
        """Let that many seconds, or that timedelta, pass at once.

        Raises:
            InvalidTimeError: it is no duration, or negative.
        """
        self._now += microseconds(seconds, "seconds")
        for turned in self._waiting:
            turned.set()

    async def wait_until(self, due: int | None, woken: anyio.Event) -> None:
        """Return when ``due`` has come (None: never) or ``woken`` is set, whichever is first."""
        while not woken.is_set() and (due is None or self._now < due):
            turned = anyio.Event()
            self._waiting.add(turned)
            try:
                await _wait_for_either(woken, turned)
            finally:
                self._waiting.discard(turned)


async def _wait_for_either(first: anyio.Event, second: anyio.Event) -> None:
    async with TaskGroup() as tasks:

        async def leave_after(event: anyio.Event) -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(leave_after, first)
        tasks.start_soon(leave_after, second)
