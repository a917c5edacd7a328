"""Throughput over time while a partition moves to another shard.

A closed loop of calls goes round entities of all partitions. In the middle of it one partition is
moved. What counts is the pause of that partition (the longest time in which none of its calls was
answered), whether the others notice, and that nothing is lost or done twice.

Not in the suite until hubs have shards. What it takes for granted: ``Hub(app, shards=2)`` and
``await hub.move_partition(partition, to=shard)``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any

import anyio

from perdure import App, EntityId

from .bench import Bench
from .figures import Cell, Fact, Outcome, Sweep, expect
from .schedule import partition_of
from .workloads import Meter, app as workloads

app = App("rebalance")
app.include(workloads)

BIN_S = 0.05
ENTITIES = 256
PARTITION = 0

TIME, MOVED, OTHERS = "time, s", "moved partition, calls/s", "other partitions, calls/s"
SWEEP = "rebalance: calls over time"
MOVE_BEGAN, MOVE_TOOK = "rebalance: move began", "rebalance: move took"


async def measure_rebalance(bench: Bench, to: int = 1) -> Outcome:
    """Move a partition when half of the calls are answered."""
    n = bench.n(200_000)
    partitions = bench.options.partitions
    meters = [EntityId(Meter, f"moving-{key}") for key in range(ENTITIES)]
    is_moved = [partition_of(str(meter), partitions) == PARTITION for meter in meters]
    answered = array("d", bytes(8 * n))
    half, is_over = anyio.Event(), anyio.Event()
    done = 0

    async with bench.hub(app, shards=2) as hub:
        client = hub.client

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
            moving: Any = hub
            begun = perf_counter()
            await moving.move_partition(PARTITION, to=to)
            moves.append((begun, perf_counter()))
            is_over.set()

        begun = perf_counter()
        timed = await bench.timed_loop(
            hub, "rebalance", request, n, unit="calls", beside=move, then=is_over.wait
        )
        for key, meter in enumerate(meters):
            numbers = range(key, n, ENTITIES)
            found = await client.call_entity(meter, Meter.read)
            expect(f"{meter}", found[:2], [len(numbers), sum(numbers)])
    own = sorted(time - begun for i, time in enumerate(answered) if is_moved[i % ENTITIES])
    other = sorted(time - begun for i, time in enumerate(answered) if not is_moved[i % ENTITIES])
    [(started, ended)] = moves
    return Outcome(
        loads=[timed.load],
        facts=[
            Fact(
                name="rebalance: pause of the moved partition",
                value=longest_gap(own) * 1e3,
                unit="ms",
                note="the longest time in which none of its calls was answered",
            ),
            Fact(
                name="rebalance: pause of the others",
                value=longest_gap(other) * 1e3,
                unit="ms",
                note="the same of all other partitions together",
            ),
            Fact(name=MOVE_BEGAN, value=started - begun, unit="s", note="from the first call"),
            Fact(name=MOVE_TOOK, value=(ended - started) * 1e3, unit="ms"),
        ],
        sweeps=[Sweep(name=SWEEP, heads=(TIME, MOVED, OTHERS), rows=in_bins(own, other))],
        verified=[f"count and sum at each of {ENTITIES} entities after {n:,} calls and a move"],
    )


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
