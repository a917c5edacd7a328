"""What is sent when, and to whom: all of it drawn beforehand, the same in every run."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, count, islice, repeat
from typing import Literal
from zlib import crc32

Arrivals = Literal["poisson", "constant"]


def arrivals(kind: Arrivals, n: int, rate: float) -> array[float]:
    """Give the times of ``n`` requests, in seconds from the start, ``rate`` a second on average.

    ``poisson`` is what many independent clients make: the gaps are random, so some come together.
    ``constant`` is a metronome.
    """
    return array("d", islice(endless_arrivals(kind, rate, seed=n), n))


def endless_arrivals(kind: Arrivals, rate: float, seed: int) -> Iterator[float]:
    """Give times of requests as ``arrivals`` does, without end."""
    if kind == "constant":
        return (number / rate for number in count(1))
    source = random.Random(seed)
    return accumulate(source.expovariate(rate) for _ in repeat(None))


def draw_with_share(n: int, keys: int, share: float, seed: int) -> list[int]:
    """Draw ``n`` of ``keys`` keys: the first with probability ``share``, else any of the others."""
    source = random.Random(seed)
    return [
        0 if source.random() < share else source.randrange(1, keys)  # random() is below 1
        for _ in range(n)
    ]


def draw_zipf(n: int, keys: int, s: float, seed: int) -> list[int]:
    """Draw ``n`` of ``keys`` keys, the one of rank ``r`` (from 1) with a weight of ``1 / r**s``."""
    weights = [1 / rank**s for rank in range(1, keys + 1)]
    return random.Random(seed).choices(range(keys), cum_weights=list(accumulate(weights)), k=n)


def tally(drawn: Sequence[int], counts: list[int], totals: list[int]) -> None:
    """Add what the keys get when request number ``i`` sends ``i`` to ``drawn[i]``."""
    for number, key in enumerate(drawn):
        counts[key] += 1
        totals[key] += number


def partition_of(id: str, partitions: int) -> int:
    """Give the partition of an actor, as the documents say that it is found."""
    return crc32(id.partition("::")[0].encode()) % partitions
