"""One entity that all partitions want something of, plain and striped, on two shards.

Drivers in all partitions signal it. If it is plain, all that goes to its home; if it has a stripe
for each partition, each driver's operations run beside it. The two take turns, in one hub.
"""

from __future__ import annotations

from statistics import median
from typing import Self

import perdure
from perdure import App, Hub, readonly

from .bench import Bench
from .drivers import (
    Kind,
    app as drivers,
    drivers_in,
    key_in,
    kinds,
    make_plan,
    measure_plan,
    note_on_kinds,
    on,
    verify_plan,
)
from .figures import Cell, Fact, Load, Outcome, Sweep, joined
from .sharding import away_percent

app = App("stripes")
app.include(drivers)

PARTITIONS = 4
DRIVERS = 32  # in each partition: enough that neither variant waits for senders
ROUNDS = 3
TARGET = 1.7

KIND, VARIANT, RATE, CPU, CORES = "kind", "entity", "operations/s", "CPU us", "cores used"
AWAY = "to other partitions, % of messages"
SWEEP = "stripes"
HEADS = (KIND, VARIANT, RATE, CPU, CORES, AWAY)


@app.entity
class Single:
    """Adds up what it is sent."""

    count: int = 0
    total: int = 0

    def mark(self, number: int) -> None:
        """Take a number."""
        self.count += 1
        self.total += number

    @readonly
    def read(self) -> list[int]:
        """Give how many it took, and their sum."""
        return [self.count, self.total]


@app.entity(stripes=PARTITIONS)
class Striped:
    """Does the same, on a stripe in each partition."""

    count: int = 0
    total: int = 0

    @perdure.commutative
    def mark(self, number: int) -> None:
        """Take a number."""
        self.count += 1
        self.total += number

    @readonly
    def read(self) -> list[int]:
        """Give how many it took, and their sum."""
        return [self.count, self.total]

    def merge(self, other: Self) -> None:
        """Take over what a stripe took."""
        self.count += other.count
        self.total += other.total


VARIANTS = ("single", "striped")


async def measure_stripes(bench: Bench) -> Outcome:
    """Both variants, on threads and on processes."""
    whole = joined([await _measure(bench, kind) for kind in kinds(bench)])
    rows = [row for sweep in whole.sweeps for row in sweep.rows]
    note = (
        f"Medians of {ROUNDS} rounds, on {PARTITIONS} partitions, with {DRIVERS} drivers in each. CPU is of all processes. "
        f"{note_on_kinds(bench)}"
    ).strip()
    return Outcome(
        loads=whole.loads,
        facts=whole.facts,
        sweeps=[Sweep(name=SWEEP, heads=HEADS, rows=rows, note=note)],
        verified=whole.verified,
    )


async def _measure(bench: Bench, kind: Kind) -> Outcome:
    n = bench.n(1_280_000)
    found: dict[str, list[Load]] = {variant: [] for variant in VARIANTS}
    away: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    async with bench.hub(app, kind, partitions=PARTITIONS, **on(kind, 2)) as hub:
        for variant in VARIANTS:
            await _send(bench, hub, kind, variant, "warm", min(n, 5_000))
        for number in range(ROUNDS):
            for variant in VARIANTS:
                before = await hub.statistics()
                found[variant].append(await _send(bench, hub, kind, variant, f"{number}", n))
                away[variant].append(away_percent(before, await hub.statistics()))
    rows: list[list[Cell]] = [
        [
            kind,
            variant,
            median(load.rate for load in loads),
            median(load.cpu_us for load in loads),
            median(load.cores for load in loads),
            median(away[variant]),
        ]
        for variant, loads in found.items()
    ]
    ratios = [
        one.rate / other.rate for one, other in zip(found["striped"], found["single"], strict=True)
    ]
    return Outcome(
        loads=[load for loads in found.values() for load in loads],
        facts=[
            Fact(
                name=f"stripes: rate of one entity, striped / plain, on 2 {kind}",
                value=median(ratios),
                unit="times",
                better="higher",
                note=f"median of {ROUNDS} rounds",
                # Threads share one processor's worth of Python, so nothing is asked of them.
                target=TARGET if kind == "processes" else None,
            )
        ],
        sweeps=[Sweep(name=SWEEP, heads=HEADS, rows=rows)],
        verified=[f"count and sum at the entity after each of {ROUNDS} rounds ({kind})"],
    )


async def _send(bench: Bench, hub: Hub, kind: Kind, variant: str, part: str, n: int) -> Load:
    ids = drivers_in(range(PARTITIONS), PARTITIONS, f"{variant}-{part}", DRIVERS)
    prefix = f"{key_in(0, PARTITIONS, variant)}::{part}-"
    plan = make_plan(variant, prefix, [0] * n, ids)
    timed = await measure_plan(bench, hub, f"stripes, {kind}: {variant}", plan, unit="operations")
    await verify_plan(bench, hub.client, plan)
    return timed.load
