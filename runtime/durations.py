"""How long things take, as it is counted."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .statistics import Durations

#: Seconds, in order: the bounds between what is counted together.
BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)


class DurationCounter:
    """Counts how long things take.

    Attributes:
        instant: how many took no time; who has many of these counts them here.
    """

    __slots__ = ("_counts", "_total_s", "instant")

    def __init__(self) -> None:
        self.instant = 0
        self._total_s = 0.0
        self._counts = [0] * (len(BOUNDS_S) + 1)

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._total_s += seconds
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1

    def read(self) -> Durations:
        """Give what was counted."""
        from .statistics import Durations  # which a hub that nobody asks never needs

        shortest, *others = self._counts
        return Durations(total_s=self._total_s, counts=(shortest + self.instant, *others))
