"""What one key that everybody wants costs the others: a sweep from even to wholly skewed load.

Signals go to 1,001 entities, drawn beforehand: a growing share of them to one key, then by Zipf's
law with a growing exponent. Entities take their turns one after another, so the one key has a
limit; the question is whether the *cold* keys, that few want, wait behind it. Beside plain
entities there are striped ones, and ones that combine what waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from attrs import frozen

import perdure
from perdure import App, EntityId, Hub, HubStatistics, PartitionStatistics, readonly

from .bench import Bench
from .figures import Cell, Load, Outcome, Sweep, expect, percentiles_ms
from .schedule import draw_with_share, draw_zipf, tally

app = App("hotspot")

KEYS = 1_001
STRIPES = 8
SHARES = (0, 10, 25, 50, 75, 90, 100)
EXPONENTS = (0.0, 0.5, 0.8, 1.0, 1.2, 1.5)
RATE, P50, P99 = "signals/s", "p50 ms", "p99 ms"
COLD = "cold keys' p99 ms"
TURNS, MESSAGES = "busiest partition, % of turns", "% of messages"
SHARE, EXPONENT = "traffic to one key, %", "Zipf exponent"


@app.entity
class Plain:
    """Adds up what it is sent: counts and sums, so that several can become one."""

    count: int = 0
    total: int = 0

    def mark(self, counted: list[int]) -> None:
        """Take a count and a sum."""
        self.count += counted[0]
        self.total += counted[1]

    @readonly
    def read(self) -> list[int]:
        """Give how many it took, and their sum."""
        return [self.count, self.total]


@app.entity(stripes=STRIPES)
class Striped:
    """Does the same, on stripes."""

    count: int = 0
    total: int = 0

    @perdure.commutative
    def mark(self, counted: list[int]) -> None:
        """Take a count and a sum."""
        self.count += counted[0]
        self.total += counted[1]

    @readonly
    def read(self) -> list[int]:
        """Give how many it took, and their sum."""
        return [self.count, self.total]

    def merge(self, other: Self) -> None:
        """Take over what a stripe took."""
        self.count += other.count
        self.total += other.total


@app.entity
class Combined:
    """Does the same, and takes all that waits as one."""

    count: int = 0
    total: int = 0

    def mark(self, counted: list[int]) -> None:
        """Take a count and a sum."""
        self.count += counted[0]
        self.total += counted[1]

    @perdure.combine(mark)
    @staticmethod
    def mark_all(waiting: list[list[int]]) -> list[int]:
        """Add up what waits."""
        return [sum(count for count, _ in waiting), sum(total for _, total in waiting)]

    @readonly
    def read(self) -> list[int]:
        """Give how many it took, and their sum."""
        return [self.count, self.total]


# An entity of any other kind with these two operations is one more line.
VARIANTS: dict[str, type[Any]] = {"plain": Plain, "striped": Striped, "combined": Combined}


@frozen
class _Skew:
    sweep: str
    head: str
    points: Sequence[float]
    draw: Callable[[int, float], list[int]]
    cold_part: float  # the keys after this part of them are the cold ones


def _by_share(n: int, percent: float) -> list[int]:
    return draw_with_share(n, KEYS, percent / 100, seed=int(percent))


def _by_zipf(n: int, exponent: float) -> list[int]:
    return draw_zipf(n, KEYS, exponent, seed=int(10 * exponent))


_SKEWS = (
    _Skew("hotspot: share", SHARE, SHARES, _by_share, 0.0),
    _Skew("hotspot: Zipf", EXPONENT, EXPONENTS, _by_zipf, 0.1),
)


async def measure_hotspot(bench: Bench) -> Outcome:
    """Every variant under every skew."""
    n = bench.n(20_000)
    loads: list[Load] = []
    rows: dict[str, list[list[Cell]]] = {skew.sweep: [] for skew in _SKEWS}
    for variant in VARIANTS:
        async with bench.hub(app, variant) as hub:
            target = _Target(bench, hub, variant)
            await target.measure(f"{variant}, warm-up", _by_zipf(min(n, 5_000), 0.0), 1)
            for skew in _SKEWS:
                for point in skew.points:
                    name = f"{variant}, {skew.head} {point:g}"
                    cold_from = max(int(KEYS * skew.cold_part), 1)
                    load, row = await target.measure(name, skew.draw(n, point), cold_from)
                    loads.append(load)
                    rows[skew.sweep].append([variant, point, *row])
    heads = (RATE, P50, P99, COLD, TURNS, MESSAGES)
    points = len(SHARES) + len(EXPONENTS)
    return Outcome(
        loads=loads,
        sweeps=[
            Sweep(name=skew.sweep, heads=("variant", skew.head, *heads), rows=rows[skew.sweep])
            for skew in _SKEWS
        ],
        verified=[
            f"count and sum at each of {KEYS:,} entities ({', '.join(VARIANTS)}) after each of "
            f"{points} points of {n:,} signals"
        ],
    )


class _Target:
    """The entities of one variant, and what they should have been sent so far."""

    def __init__(self, bench: Bench, hub: Hub, variant: str) -> None:
        self._bench = bench
        self._hub = hub
        self._entity = VARIANTS[variant]
        self._ids: list[EntityId[Any]] = [
            EntityId(self._entity, f"key-{key}") for key in range(KEYS)
        ]
        self._counts = [0] * KEYS
        self._totals = [0] * KEYS

    async def measure(self, name: str, drawn: list[int], cold_from: int) -> tuple[Load, list[Cell]]:
        signal = self._hub.client.signal_entity
        mark = self._entity.mark
        ids = self._ids

        async def request(index: int) -> None:
            await signal(ids[drawn[index]], mark, [1, index])

        before = await self._hub.statistics()
        timed = await self._bench.timed_loop(self._hub, name, request, len(drawn), unit="signals")
        after = await self._hub.statistics()
        tally(drawn, self._counts, self._totals)
        await self._verify(name)
        cold = [timed.latencies[i] for i, key in enumerate(drawn) if key >= cold_from]
        load = timed.load
        return load, [
            load.rate,
            load.p50_ms,
            load.p99_ms,
            percentiles_ms(cold)[1] if cold else None,
            _busiest_percent(before, after, lambda one: one.turns),
            _busiest_percent(before, after, lambda one: one.messages),
        ]

    async def _verify(self, name: str) -> None:
        client = self._hub.client

        async def verify(key: int) -> None:
            found = await client.call_entity(self._ids[key], self._entity.read)
            expect(f"{name}: {self._ids[key]}", found, [self._counts[key], self._totals[key]])

        await self._bench.unmeasured(f"{name}, checking", verify, KEYS)


def _busiest_percent(
    before: HubStatistics, after: HubStatistics, of: Callable[[PartitionStatistics], int]
) -> float:
    pairs = zip(before.partitions, after.partitions, strict=True)
    counts = [of(late) - of(early) for early, late in pairs]
    return 100 * max(counts) / max(sum(counts), 1)
