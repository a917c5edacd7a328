"""Whether the others notice that one entity gets all that it can take.

Drivers beside one entity send it as much as it takes. Meanwhile a client calls cold entities at a
low rate, in an open loop: some in another partition of the same shard, some on another shard.
Quiet and loaded stretches take turns, and what counts is the one's 99th percentile over the other's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import anyio

from perdure import EntityId, Hub

from .bench import Bench
from .drivers import Order, app, drive, drivers_in, key_in, kinds, note_on_kinds, on
from .figures import Cell, Fact, Load, Outcome, Sweep, expect, joined, percentiles_ms
from .histogram import Histogram
from .workloads import Meter

ONE_LOOP = "one loop"
SAME, OTHER = "same shard", "another shard"
QUIET, HOT = "quiet", "hot"
PROBES = 100  # cold entities of each place
RATE = 200.0  # a second, to each place
ROUNDS = 2
ORDER = 2_000  # operations of one run of a driver of the hot entity
TARGET = 1.1  # p99 under load, of that without

KIND, PLACE = "kind", "cold entities on the"
QUIET_P50, QUIET_P99, HOT_P50, HOT_P99 = (
    "quiet p50 ms", "quiet p99 ms", "loaded p50 ms", "loaded p99 ms",
)  # fmt: skip
RATIO, HOT_RATE = "p99, times the quiet one", "hot operations/s"
SWEEP = "isolation"
HEADS = (KIND, PLACE, QUIET_P50, QUIET_P99, HOT_P50, HOT_P99, RATIO, HOT_RATE)


async def measure_isolation(bench: Bench) -> Outcome:
    """On one loop, on two in threads, and on two in processes."""
    placements: dict[str, dict[str, Any]] = {ONE_LOOP: on("threads", 1)}
    placements |= {kind: on(kind, 2) for kind in kinds(bench)}
    whole = joined([await _measure(bench, kind, placed) for kind, placed in placements.items()])
    rows = [row for sweep in whole.sweeps for row in sweep.rows]
    note = (
        "Probes are calls in an open loop; latency counts from the intended time of sending. "
        f"{note_on_kinds(bench)}"
    ).strip()
    return Outcome(
        loads=whole.loads,
        facts=whole.facts,
        sweeps=[Sweep(name=SWEEP, heads=HEADS, rows=rows, note=note)],
        histograms=whole.histograms,
        verified=whole.verified,
    )


async def _measure(bench: Bench, kind: str, placed: dict[str, Any]) -> Outcome:
    partitions = max(bench.options.partitions, 4)
    n = bench.n(800)
    loads: list[Load] = []
    async with bench.hub(app, kind.replace(" ", "-"), partitions=partitions, **placed) as hub:
        probes = _Probes(bench, hub, kind)
        await probes.send("warm-up", n // 4 + 1)
        load = _HotLoad(hub)
        for _ in range(ROUNDS):
            loads.append(await probes.send(QUIET, n))
            async with load.running():
                loads.append(await probes.send(HOT, n))
        await load.verify()
        await probes.verify()
    rows: list[list[Cell]] = []
    facts: list[Fact] = []
    for place in probes.places:
        quiet, hot = (percentiles_ms(probes.latencies[place, when]) for when in (QUIET, HOT))
        ratio = hot[1] / quiet[1]
        rows.append([kind, place, *quiet, *hot, ratio, load.rate])
        facts.append(
            Fact(
                name=f"isolation: p99 beside a hot key, {place} ({kind})",
                value=ratio,
                unit="times",
                note="of calls of cold entities, against the same while nothing else runs",
                target=TARGET if place == OTHER else None,
            )
        )
    return Outcome(
        loads=loads,
        facts=facts,
        sweeps=[Sweep(name=SWEEP, heads=HEADS, rows=rows)],
        histograms={
            f"{kind}, {place}, {when}": Histogram(probes.latencies[place, when])
            for place in probes.places
            for when in (QUIET, HOT)
        },
        verified=[f"count and sum at the hot and at each cold entity ({kind})"],
    )


def _hot_partition(hub: Hub) -> int:
    return len(hub.placement) - 1  # on the last shard, which is not the client's own


class _Probes:
    """Calls of cold entities, by turns in each place; the partition of the hot one has none."""

    def __init__(self, bench: Bench, hub: Hub, kind: str) -> None:
        self._bench = bench
        self._hub = hub
        self._kind = kind
        placement = hub.placement
        hot = _hot_partition(hub)
        others = [number for number in range(len(placement)) if number != hot]
        homes = {SAME: [number for number in others if placement[number] == placement[hot]]}
        homes[OTHER] = [number for number in others if placement[number] != placement[hot]]
        self.places = [place for place in homes if homes[place]]
        self._meters = {
            place: [
                EntityId(Meter, f"{key_in(homes[place][0], len(placement), 'meter')}::cold-{key}")
                for key in range(PROBES)
            ]
            for place in self.places
        }
        self._sent: dict[EntityId[Meter], list[int]] = {}
        self.latencies: dict[tuple[str, str], list[float]] = {}

    async def send(self, when: str, n: int) -> Load:
        """Probe each place ``n`` times."""
        client = self._hub.client
        targets = [
            self._meters[place][number % PROBES] for number in range(n) for place in self.places
        ]
        for number, meter in enumerate(targets):
            counted = self._sent.setdefault(meter, [0, 0])
            counted[0] += 1
            counted[1] += number

        async def request(index: int) -> None:
            await client.call_entity(targets[index], Meter.mark, index)

        timed = await self._bench.open_loop(
            self._hub,
            f"isolation, {self._kind}: {when}",
            request,
            len(targets),
            RATE * len(self.places),
            unit="calls",
            note="latency counts from the intended time of sending; CPU is that of the load as well",
        )
        for start, place in enumerate(self.places):
            found = self.latencies.setdefault((place, when), [])
            found.extend(timed.latencies[start :: len(self.places)])
        return timed.load

    async def verify(self) -> None:
        """Refuse entities that have not got exactly what was sent to them."""
        for meter, wanted in self._sent.items():
            found = await self._hub.client.call_entity(meter, Meter.read)
            expect(f"{meter}", found[:2], wanted)


class _HotLoad:
    """Drivers beside one entity, that send it as much as it takes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._partitions = len(hub.placement)
        self._hot = _hot_partition(hub)
        self._prefix = f"{key_in(self._hot, self._partitions, 'meter')}::hot-"
        self._runs = 0
        self._seconds = 0.0
        self._stopping = False

    @property
    def rate(self) -> float:
        """Operations per second while it ran."""
        return self._runs * ORDER / self._seconds

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run inside of the block, from when every driver has ended once."""
        self._stopping = False
        begun = perf_counter()
        drivers = drivers_in([self._hot], self._partitions, f"at-{self._runs}")
        async with anyio.create_task_group() as tasks:
            warm: list[anyio.Event] = []
            for driver in drivers:
                warm.append(anyio.Event())
                tasks.start_soon(self._press, driver, warm[-1])
            for event in warm:
                await event.wait()
            yield
            self._stopping = True
        self._seconds += perf_counter() - begun

    async def _press(self, driver: str, warm: anyio.Event) -> None:
        order = Order(entity="meter", prefix=self._prefix, drawn=[0] * ORDER)
        number = 0
        while not self._stopping:
            id = f"{driver}-{number}"
            handle = await self._hub.client.start_new(drive, order, instance_id=id)
            expect(f"sent by {id}", await handle.result(), ORDER)
            self._runs += 1
            number += 1
            warm.set()

    async def verify(self) -> None:
        """Refuse an entity that has not got exactly what was sent to it."""
        meter = EntityId(Meter, f"{self._prefix}0")
        found = await self._hub.client.call_entity(meter, Meter.read)
        expect(f"{meter}", found[:2], [self._runs * ORDER, self._runs * sum(range(ORDER))])
