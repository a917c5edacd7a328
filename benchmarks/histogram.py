"""Latencies as HdrHistogram counts them: in buckets at most a thousandth of their value wide.

The layout is Gil Tene's: the first 11 significant bits of a number of nanoseconds name its bucket.
So an hour and a microsecond fit into one histogram, each to three digits, and histograms of
repetitions can be added up, which percentiles cannot.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

_BITS = 11
_BUCKETS = 1 << _BITS

PERCENTS = (50.0, 90.0, 99.0, 99.9, 99.99)


def rank(total: int, percent: float) -> int:
    """Give which of ``total`` sorted values is that percentile, from 1 (nearest rank)."""
    # Rounded first: 99.99 % of 10,000 is 9,999, and a hair more in floating point.
    return max(math.ceil(round(total * percent / 100, 6)), 1)


class Histogram:
    """Counts of latencies; values come in as seconds and go out as milliseconds.

    Attributes:
        total: how many values it holds.
        max_ms: the greatest of them, exactly.
    """

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts: Counter[int] = Counter()
        self.total = 0
        self.max_ms = 0.0
        for value in seconds:
            self.record(value)

    def record(self, seconds: float) -> None:
        """Count one value."""
        self._counts[_bucket(max(round(seconds * 1e9), 0))] += 1
        self.total += 1
        self.max_ms = max(self.max_ms, seconds * 1e3)

    def add(self, other: Histogram) -> None:
        """Count all that another one has counted."""
        self._counts.update(other._counts)
        self.total += other.total
        self.max_ms = max(self.max_ms, other.max_ms)

    def percentiles_ms(self, percents: Sequence[float]) -> list[float]:
        """Give these percentiles, in ascending order, each at most a thousandth too great.

        Raises:
            ValueError: the histogram is empty.
        """
        if not self.total:
            raise ValueError("an empty histogram has no percentiles")
        found: list[float] = []
        buckets = iter(sorted(self._counts.items()))
        seen, bucket = 0, 0
        for percent in percents:
            wanted = rank(self.total, percent)
            while seen < wanted:
                bucket, count = next(buckets)
                seen += count
            found.append(min(_greatest(bucket) / 1e6, self.max_ms))
        return found

    def percentile_ms(self, percent: float) -> float:
        """Give one percentile."""
        return self.percentiles_ms([percent])[0]

    def tail_ms(self) -> list[float | None]:
        """Give ``PERCENTS``; None where too few values were counted for that many nines."""
        known = [percent for percent in PERCENTS if self.total * (100 - percent) / 100 > 0.999]
        return [*self.percentiles_ms(known), *[None] * (len(PERCENTS) - len(known))]

    def curve(self) -> list[tuple[float, float]]:
        """Give percent and milliseconds from the median on, in even steps of nines.

        It ends where a further step would be of less than one value.
        """
        steps = range(4, int(10 * math.log10(self.total or 1)) + 1)
        percents = [50.0, *(100 * (1 - 10 ** (-step / 10)) for step in steps)]
        return list(zip(percents, self.percentiles_ms(percents), strict=True))


def _bucket(nanoseconds: int) -> int:
    shift = max(nanoseconds.bit_length() - _BITS, 0)
    return shift << _BITS | nanoseconds >> shift


def _greatest(bucket: int) -> int:
    shift, leading = divmod(bucket, _BUCKETS)
    return ((leading + 1) << shift) - 1
