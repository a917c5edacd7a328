"""Virtual time: a clock that is set, and that knows what waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from ..actors.times import to_datetime

if TYPE_CHECKING:
    from datetime import datetime


class _Wait:
    """Somebody who waits: for a time, or to be woken before."""

    __slots__ = ("due", "woken")

    def __init__(self, due: int | None, woken: anyio.Event) -> None:
        self.due = due
        self.woken = woken


class VirtualClock:
    """A clock that stands still until it is set; for the event loop of one hub.

    Nobody sets it back, so it is its own steady time, too.

    Args:
        start: the time at first, in microseconds since the Unix epoch, UTC.
    """

    def __init__(self, start: int) -> None:
        self._now = start
        self._waits: dict[_Wait, None] = {}  # in the order in which they came

    def now(self) -> int:
        """The time in microseconds since the Unix epoch, UTC."""
        return self._now

    @property
    def shown(self) -> datetime:
        """The time as it is shown to people: aware, UTC."""
        return to_datetime(self._now)

    def next_due(self) -> int | None:
        """Give the next time that somebody waits for; None if nobody waits for any."""
        dues = [wait.due for wait in self._waits if wait.due is not None]
        return min(dues) if dues else None

    def set(self, to: int) -> None:
        """Let it be that time, unless it is later already, and wake who waited for it."""
        self._now = max(self._now, to)
        for wait in self._waits:
            if wait.due is not None and wait.due <= self._now:
                # Whoever waits looks at the time, whatever wakes him: no second event is needed.
                wait.woken.set()

    async def wait_until(self, due: int | None, woken: anyio.Event) -> None:
        """Return when ``due`` has come (None: never) or ``woken`` is set, whichever is first."""
        if due is not None and due <= self._now:
            await anyio.lowlevel.checkpoint()
            return
        wait = _Wait(due, woken)
        self._waits[wait] = None
        try:
            await woken.wait()
        finally:
            del self._waits[wait]
