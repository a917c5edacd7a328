"""What waits for a time, or for a while: one queue for all of a shard, driven by what is due next.

What waits for a time waits for the clock to show it, whoever sets the clock; what waits for a while
is not moved by that.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush

import anyio

from ...storage.slices import in_slices
from .clock import Clock, steady_time


class Alarm:
    """A call to be made at a time, unless it is stopped before."""

    __slots__ = ("callback", "heap")

    def __init__(self, callback: Callable[[], None], heap: _Heap) -> None:
        self.callback: Callable[[], None] | None = callback
        self.heap = heap

    def stop(self) -> None:
        """Make the call not happen; the heap forgets the alarm when its time comes."""
        self.callback = None


class _Heap:
    """Alarms of one measure of time, earliest first; those of one time in order of setting."""

    __slots__ = ("_order", "_stopped", "alarms")

    def __init__(self) -> None:
        self.alarms: list[tuple[int, int, Alarm]] = []  # when it is due, and its place in order
        self._order = 0
        self._stopped = 0

    def add(self, due: int, callback: Callable[[], None]) -> Alarm:
        self._order += 1
        alarm = Alarm(callback, self)
        heappush(self.alarms, (due, self._order, alarm))
        return alarm

    def stop(self, alarm: Alarm) -> None:
        alarm.stop()
        self._stopped += 1

    @property
    def is_spoilt(self) -> bool:
        """Whether most of its alarms are stopped ones."""
        return self._stopped > 1_000 and self._stopped * 2 > len(self.alarms)

    def sweep(self) -> Generator[None]:
        """Forget the alarms that are stopped; pauses behind each that it looks at."""
        old, self.alarms = self.alarms, []
        self._stopped = 0
        while old:  # which frees them one by one
            one = old.pop()
            if one[2].callback is not None:
                heappush(self.alarms, one)
            yield

    def ring(self, now: int) -> Generator[None]:
        """Make the calls that are due; pauses behind each."""
        while self.alarms and self.alarms[0][0] <= now:
            _, _, alarm = heappop(self.alarms)
            callback, alarm.callback = alarm.callback, None
            if callback is None:
                self._stopped -= 1
            else:
                callback()
                yield


class TimerQueue:
    """Alarms of a shard."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: The clock's time, in microseconds since the epoch.
        self.now = clock.now
        self._steady = steady_time(clock)
        self._at = _Heap()  # by the clock
        self._after = _Heap()  # by a time that nobody sets
        self._woken = anyio.Event()
        self._woken.set()  # until it waits for the first time

    def set(self, due: int, callback: Callable[[], None]) -> Alarm:
        """Have ``callback`` called on the loop when the clock shows ``due`` (microseconds)."""
        alarm = self._at.add(due, callback)
        if self._at.alarms[0][2] is alarm:
            self._woken.set()
        return alarm

    def set_after(self, seconds: float, callback: Callable[[], None]) -> Alarm:
        """Have ``callback`` called on the loop after a while, whatever the clock is set to."""
        alarm = self._after.add(self._steady() + round(seconds * 1e6), callback)
        if self._after.alarms[0][2] is alarm:
            self._woken.set()
        return alarm

    def stop(self, alarm: Alarm) -> None:
        """Stop an alarm; once half of the heap is stopped ones, they are swept out."""
        if alarm.callback is not None:
            alarm.heap.stop(alarm)
            if alarm.heap.is_spoilt:
                self._woken.set()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for the clock, and has heard of nothing sooner since."""
        return not self._woken.is_set()

    async def run(self) -> bool:
        """Make the calls when their time comes, for ever."""
        while True:
            await in_slices(self._at.ring(self._clock.now()))
            await in_slices(self._after.ring(self._steady()))
            spoilt = [heap for heap in (self._at, self._after) if heap.is_spoilt]
            for heap in spoilt:
                await in_slices(heap.sweep())
            if spoilt:
                continue  # some may be due by now
            self._woken = woken = anyio.Event()
            await self._clock.wait_until(self.next_due(), woken)

    @property
    def size(self) -> int:
        """How many alarms it holds, with those that are stopped until they are swept out."""
        return len(self._at.alarms) + len(self._after.alarms)

    @property
    def pending(self) -> int:
        """How many alarms wait to ring; it looks at each."""
        every = (*self._at.alarms, *self._after.alarms)
        return sum(one.callback is not None for _, _, one in every)

    def next_due(self) -> int | None:
        """Give when the clock will show that something is due, unless it is set meanwhile."""
        due = self._at.alarms[0][0] if self._at.alarms else None
        if self._after.alarms:
            then = self._clock.now() + self._after.alarms[0][0] - self._steady()
            due = then if due is None else min(due, then)
        return due


_BACKOFF_MAX_S = 5.0


def backoff(tries: int) -> float:
    """Seconds to wait before the next try."""
    return min(0.05 * 2.0 ** min(tries, 10), _BACKOFF_MAX_S)
