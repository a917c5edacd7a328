"""Throughput over time while a partition moves to another shard.

A closed loop of calls goes round entities of all partitions. In the middle of it one partition is
moved. What counts is the pause of that partition (the longest time in which none of its calls was
answered), whether the others notice, and that nothing is lost or done twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from time import perf_counter

import anyio
from attrs import evolve

from perdure import App, EntityId, Hub

from .bench import Bench, Timed
from .drivers import Kind, kinds, note_on_kinds, on
from .figures import Cell, Fact, Outcome, Sweep, expect, joined
from .schedule import partition_of
from .workloads import Meter, app as workloads

app = App("rebalance")
app.include(workloads)

BIN_S = 0.05
ENTITIES = 256
PARTITION = 0

KIND, TIME = "kind", "time, s"
MOVED, OTHERS = "moved partition, calls/s", "other partitions, calls/s"
SWEEP = "rebalance: calls over time"
PAUSE = "pause of the moved partition"
PAUSE_MAX_MS = 50.0  # what a move may take from those who call
MOVE_BEGAN, MOVE_TOOK = "move began", "move took"


def fact_name(kind: str, what: str) -> str:
    """Name a figure of one kind of shards."""
    return f"rebalance with {kind}: {what}"


async def measure_rebalance(bench: Bench) -> Outcome:
    """Move a partition when half of the calls are answered, between threads and processes."""
    outcomes = [await _measure(bench, kind) for kind in kinds(bench)]
    whole = joined(outcomes)
    rows = [row for sweep in whole.sweeps for row in sweep.rows]
    sweep = Sweep(name=SWEEP, heads=whole.sweeps[0].heads, rows=rows, note=note_on_kinds(bench))
    return evolve(whole, sweeps=[sweep])


async def _measure(bench: Bench, kind: Kind) -> Outcome:
    n = bench.n(150_000)
    partitions = max(bench.options.partitions, 2)
    meters = [EntityId(Meter, f"moving-{key}") for key in range(ENTITIES)]
    async with bench.hub(app, kind, partitions=partitions, **on(kind, 2)) as hub:
        client = hub.client
        timed, answered, moved = await _call_while_it_moves(bench, hub, kind, meters, n)

        async def verify(key: int) -> None:
            numbers = range(key, n, ENTITIES)
            found = await client.call_entity(meters[key], Meter.read)
            expect(f"{meters[key]}", found[:2], [len(numbers), sum(numbers)])

        await bench.unmeasured("rebalance, checking", verify, ENTITIES)
    is_moved = [partition_of(str(meter), partitions) == PARTITION for meter in meters]
    own = sorted(time for i, time in enumerate(answered) if is_moved[i % ENTITIES])
    other = sorted(time for i, time in enumerate(answered) if not is_moved[i % ENTITIES])
    rows: list[list[Cell]] = [[kind, *row] for row in in_bins(own, other)]
    return Outcome(
        loads=[timed.load],
        facts=_facts(kind, longest_gap(own), longest_gap(other), *moved),
        sweeps=[Sweep(name=SWEEP, heads=(KIND, TIME, MOVED, OTHERS), rows=rows)],
        verified=[
            f"count and sum at each of {ENTITIES} entities after {n:,} calls and a move ({kind})"
        ],
    )


async def _call_while_it_moves(
    bench: Bench, hub: Hub, kind: Kind, meters: list[EntityId[Meter]], n: int
) -> tuple[Timed, list[float], tuple[float, float]]:
    """Move a partition when half of the calls are answered.

    Gives when each was answered, and when the move began and ended, in seconds from the first call.
    """
    client = hub.client
    answered = array("d", bytes(8 * n))
    half, is_over = anyio.Event(), anyio.Event()
    done = 0

    async def request(index: int) -> None:
        nonlocal done
        await client.call_entity(meters[index % ENTITIES], Meter.mark, index)
        answered[index] = perf_counter()
        done += 1
        if done * 2 >= n:
            half.set()

    moves: list[tuple[float, float]] = []

    async def move() -> None:
        await half.wait()
        to = 1 - hub.placement[PARTITION]
        start = perf_counter()
        await hub.move_partition(PARTITION, to)
        moves.append((start, perf_counter()))
        expect("shard that serves the moved partition", hub.placement[PARTITION], to)
        is_over.set()

    begun = perf_counter()
    timed = await bench.timed_loop(
        hub, f"rebalance with {kind}", request, n, unit="calls", beside=move, then=is_over.wait
    )
    [(start, end)] = moves
    return timed, [time - begun for time in answered], (start - begun, end - begun)


def _facts(kind: Kind, own: float, other: float, start: float, end: float) -> list[Fact]:
    """Name the pauses, of the partition that moved and of the others, and the times of the move."""
    facts = (
        (PAUSE, own * 1e3, "ms", "the longest time in which none of its calls was answered"),
        (
            "pause of the others",
            other * 1e3,
            "ms",
            "the same of all other partitions together",
        ),
        (MOVE_BEGAN, start, "s", "from the first call"),
        (MOVE_TOOK, (end - start) * 1e3, "ms", "until the hub said that it was done"),
    )
    return [
        Fact(
            name=fact_name(kind, what),
            value=value,
            unit=unit,
            note=note,
            target=PAUSE_MAX_MS if what == PAUSE else None,
        )
        for what, value, unit, note in facts
    ]


def longest_gap(times: Sequence[float]) -> float:
    """Give the longest time between two of these, which are sorted."""
    return max((after - before for before, after in pairwise(times)), default=0)


def in_bins(own: Sequence[float], other: Sequence[float]) -> list[list[Cell]]:
    """Give the rates in bins of ``BIN_S`` from the start."""
    last = max([*own[-1:], *other[-1:]], default=0.0)
    bins = int(last / BIN_S) + 1
    counted = [_count(times, bins) for times in (own, other)]
    return [[index * BIN_S, *(count[index] / BIN_S for count in counted)] for index in range(bins)]


def _count(times: Iterable[float], bins: int) -> list[int]:
    counts = [0] * bins
    for time in times:
        counts[int(time / BIN_S)] += 1
    return counts
