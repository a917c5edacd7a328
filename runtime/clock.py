"""Time, as the hub is given it."""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Where a hub's time comes from."""

    def now(self) -> int:
        """The time in microseconds since the Unix epoch, UTC."""
        ...

    async def wait_until(self, due: int | None, woken: anyio.Event) -> None:
        """Return when ``due`` has come (None: never) or ``woken`` is set, whichever is first."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """The time in microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000

    async def wait_until(self, due: int | None, woken: anyio.Event) -> None:
        """Return when ``due`` has come (None: never) or ``woken`` is set, whichever is first."""
        if due is None:
            await woken.wait()
        else:
            # A day at the most: the machine's clock may be set while we wait.
            delay = min((due - self.now()) / 1e6, 86_400.0)
            with anyio.move_on_after(max(delay, 0.0)):
                await woken.wait()


class ManualClock:
    """A clock that tests turn by hand."""

    def __init__(self, start: int = 1_700_000_000_000_000) -> None:
        self._now = start
        # An event for each that waits: one of them all would bind the clock to an event loop.
        self._waiting: set[anyio.Event] = set()

    def now(self) -> int:
        """The time in microseconds since the Unix epoch, UTC."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let that many seconds pass at once."""
        self._now += round(seconds * 1e6)
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
    async with anyio.create_task_group() as tasks:

        async def leave_after(event: anyio.Event) -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(leave_after, first)
        tasks.start_soon(leave_after, second)
