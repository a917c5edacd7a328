"""What a signal costs that goes to another partition, or to another shard, or stays where it is.

All drivers live in one partition; the entities they signal live there as well, or in another
partition of the same shard, or on another shard. The three take turns, in one hub, so that what
slows the machine for a while slows them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from perdure import Hub

from .bench import Bench
from .drivers import (
    Kind,
    app,
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

HOME = 0
SAME, BESIDE, ACROSS = "same partition", "another partition", "another shard"
PLACES = (SAME, BESIDE, ACROSS)
ENTITIES = 100
ROUNDS = 5
TARGET = 2.0  # times the cost inside of one shard

KIND, PLACE, RATE, CPU, CORES, COST = (
    "kind", "to", "signals/s", "CPU us", "cores used", "CPU, times the same partition",
)  # fmt: skip
SWEEP = "crossing"
HEADS = (KIND, PLACE, RATE, CPU, CORES, COST)


async def measure_crossing(bench: Bench) -> Outcome:
    """Signals from one partition to all three places, between threads and between processes."""
    whole = joined([await _measure(bench, kind) for kind in kinds(bench)])
    rows = [row for sweep in whole.sweeps for row in sweep.rows]
    note = f"Medians of {ROUNDS} rounds. CPU is of all processes. {note_on_kinds(bench)}".strip()
    return Outcome(
        loads=whole.loads,
        facts=whole.facts,
        sweeps=[Sweep(name=SWEEP, heads=HEADS, rows=rows, note=note)],
        verified=whole.verified,
    )


async def _measure(bench: Bench, kind: Kind) -> Outcome:
    n = bench.n(60_000)
    partitions = max(bench.options.partitions, 4)
    found: dict[str, list[Load]] = {place: [] for place in PLACES}
    async with bench.hub(app, kind, partitions=partitions, **on(kind, 2)) as hub:
        targets = _targets(hub.placement)
        for place in PLACES:
            await _send(bench, hub, kind, place, targets[place], "warm", min(n, 2_000))
        for number in range(ROUNDS):
            for place in PLACES:
                load = await _send(bench, hub, kind, place, targets[place], f"{number}", n)
                found[place].append(load)
    rows: list[list[Cell]] = [
        [
            kind,
            place,
            median(load.rate for load in found[place]),
            median(load.cpu_us for load in found[place]),
            median(load.cores for load in found[place]),
            _ratio(found[place], found[SAME], _cpu),
        ]
        for place in PLACES
    ]
    return Outcome(
        loads=[load for place in PLACES for load in found[place]],
        facts=[fact for within in (SAME, BESIDE) for fact in _facts(kind, found, within)],
        sweeps=[Sweep(name=SWEEP, heads=HEADS, rows=rows)],
        verified=[
            f"count and sum at each of {ENTITIES} entities of each place, {ROUNDS} times ({kind})"
        ],
    )


def _targets(placement: Sequence[int]) -> dict[str, int]:
    here = placement[HOME]
    others = [number for number in range(len(placement)) if number != HOME]
    return {
        SAME: HOME,
        BESIDE: next(number for number in others if placement[number] == here),
        ACROSS: next(number for number in others if placement[number] != here),
    }


async def _send(
    bench: Bench, hub: Hub, kind: Kind, place: str, target: int, part: str, n: int
) -> Load:
    partitions = len(hub.placement)
    drivers = drivers_in([HOME], partitions, f"{target}-{part}")
    prefix = f"{key_in(target, partitions, 'meter')}::{part}-"
    plan = make_plan("meter", prefix, [number % ENTITIES for number in range(n)], drivers)
    timed = await measure_plan(bench, hub, f"crossing, {kind}: {place}", plan)
    await verify_plan(bench, hub.client, plan)
    return timed.load


def _facts(kind: Kind, found: dict[str, list[Load]], within: str) -> list[Fact]:
    words = f"another shard / {within} ({kind})"
    note = f"median of {ROUNDS} rounds"
    return [
        Fact(
            name=f"crossing: CPU of a signal to {words}",
            value=_ratio(found[ACROSS], found[within], _cpu),
            unit="times",
            note=f"{note}; all processes together",
            target=TARGET,
        ),
        Fact(
            name=f"crossing: rate of signals to {words}",
            value=_ratio(found[ACROSS], found[within], _rate),
            unit="times",
            better="higher",
            note=note,
        ),
    ]


def _ratio(some: Sequence[Load], others: Sequence[Load], of: Callable[[Load], float]) -> float:
    return median(of(one) / of(other) for one, other in zip(some, others, strict=True))


def _cpu(load: Load) -> float:
    return load.cpu_us


def _rate(load: Load) -> float:
    return load.rate
