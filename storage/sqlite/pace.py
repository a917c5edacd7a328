"""How fast the appliers of a process go: in short turns, with rests in between.

A process has one processor more than its event loop at best, and commits want some of that, and
of the disk. What an applier does at a stretch is what a commit may have to wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Final

RESTS: Final = 3
"""How long the rest behind a turn is, in times of the turn: they take a quarter of a processor."""

REST_MAX_S: Final = 0.05
"""The longest rest, also behind a turn that the disk or other programs have held up."""


class Pace:
    """Turns that appliers take, never two at a time, and the rests behind them.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.now = clock
        self._booking = Lock()
        self._turn = Lock()
        self._free = clock()  # when the next turn may begin
        self._took = 0.0  # seconds of the last turn
        self._phase = 0.0

    def book(self) -> float:
        """Give the time, by ``now()``, at which a turn may begin; it is nobody else's."""
        with self._booking:
            time = max(self.now(), self._free)
            self._free = time + self._took + self._rest(self._took)
        return time

    def phase(self) -> float:
        """Give a share of one, far from those that others got just before: by the golden ratio."""
        with self._booking:
            self._phase = (self._phase + 0.618034) % 1.0
            return self._phase

    def take(self, work: Callable[[], object]) -> None:
        """Do what a turn is for, which may be earlier than it was booked for."""
        with self._turn:
            began = self.now()
            try:
                work()
            finally:
                now = self.now()
                with self._booking:
                    self._took = now - began
                    self._free = max(self._free, now + self._rest(self._took))

    def _rest(self, took: float) -> float:
        return min(REST_MAX_S, RESTS * took)
