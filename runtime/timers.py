"""What waits for a time: one heap for all partitions of a shard, driven by the next due time."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import anyio

from .clock import Clock


class Alarm:
    """A call to be made at a time, unless it is stopped before."""

    __slots__ = ("callback", "due", "order")

    def __init__(self, due: int, order: int, callback: Callable[[], None]) -> None:
        self.due = due
        self.order = order
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: Alarm) -> bool:
        return (self.due, self.order) < (other.due, other.order)

    def stop(self) -> None:
        """Make the call not happen; the heap forgets the alarm when its time comes."""
        self.callback = None


class TimerQueue:
    """Alarms, earliest first; those of one time in the order in which they were set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[Alarm] = []
        self._order = 0
        self._stopped = 0
        self._woken = anyio.Event()

    def now(self) -> int:
        """The clock's time, in microseconds since the epoch."""
        return self._clock.now()

    def set(self, due: int, callback: Callable[[], None]) -> Alarm:
        """Have ``callback`` called on the loop at or after ``due`` (microseconds)."""
        self._order += 1
        alarm = Alarm(due, self._order, callback)
        heappush(self._heap, alarm)
        if self._heap[0] is alarm:
            self._woken.set()
        return alarm

    def stop(self, alarm: Alarm) -> None:
        """Stop an alarm; once half of the heap is stopped ones, they are swept out."""
        if alarm.callback is None:
            return
        alarm.stop()
        self._stopped += 1
        if self._stopped > 1_000 and self._stopped * 2 > len(self._heap):
            self._heap = sorted(alarm for alarm in self._heap if alarm.callback is not None)
            self._stopped = 0

    async def run(self) -> None:
        """Make the calls when their time comes, for ever."""
        while True:
            now = self._clock.now()
            while self._heap and self._heap[0].due <= now:
                alarm = heappop(self._heap)
                callback, alarm.callback = alarm.callback, None
                if callback is None:
                    self._stopped -= 1
                else:
                    callback()
            self._woken = woken = anyio.Event()
            await self._clock.wait_until(self._heap[0].due if self._heap else None, woken)
