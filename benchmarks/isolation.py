"""Whether the rest of a hub notices that all of its load goes to one key.

Drivers in all partitions send operations, evenly to many entities or all of them to one. All else
is the same: drivers, operations, and the times at which drivers start. Meanwhile a client calls
cold entities at a low rate, in an open loop: some in another partition of the hot key's shard, some
on another shard. What counts is their 99th percentile with all load on one key, over that with the
load spread: were it above 1, they would wait behind the hot key.

A thousand keys are more work than one, since each is a row to write. That alone would make one key
look good, so the load is spread over a few keys, too, which are little more work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from itertools import count
from statistics import median
from time import perf_counter
from typing import Any

import anyio
from anyio.abc import TaskGroup
from attrs import evolve, frozen

from perdure import EntityId, Hub

from .bench import Bench
from .drivers import (
    Order,
    Plan,
    app,
    await_applied,
    drive,
    drivers_in,
    key_in,
    kinds,
    note_on_kinds,
    on,
    verify_plan,
)
from .figures import Cell, Fact, Load, Outcome, Sweep, expect, joined, percentiles_ms
from .histogram import Histogram
from .schedule import endless_arrivals, partition_of
from .workloads import Meter

ONE_LOOP = "one loop"
SAME, OTHER = "same shard", "another shard"
PROBES = 100  # cold entities of each place
RATE = 200.0  # calls a second, of each place
ROUNDS = 5
MANY, FEW = 1_000, 8  # keys of a load that is spread, over all partitions together
ORDER = 100  # operations of one run of a driver
WARM = 2  # runs of each driver before calls begin
OFFERED = 0.5  # of what the hub takes at most, spread or on one key, whichever is less
TARGET = 1.1  # p99 with all load on one key, of that with the load spread

QUIET, SPREAD, SPREAD_FEW, HOT, MOST = (
    "none", "even over many keys", "even over a few keys", "all on one key", "unlimited on one key",
)  # fmt: skip
CONDITIONS = (QUIET, SPREAD, SPREAD_FEW, HOT, MOST)

KIND, PLACE, LOAD = "kind", "cold entities on the", "load"
OPERATIONS, CORES, P50, P99 = "operations/s", "processors used", "p50 ms", "p99 ms"
OF_SPREAD, OF_FEW, OF_QUIET = (
    "p99, times that of many keys", "times that of a few", "times that of no load",
)  # fmt: skip
SWEEP = "isolation"
HEADS = (KIND, PLACE, LOAD, OPERATIONS, CORES, P50, P99, OF_SPREAD, OF_FEW, OF_QUIET)


@frozen
class _Stretch:
    """What one stretch of calls found.

    Attributes:
        p50_ms: the median, by place.
        p99_ms: the 99th percentile, by place.
        cores: processors that were busy, with the load.
        rate: operations of the load a second; None without one.
    """

    p50_ms: dict[str, float]
    p99_ms: dict[str, float]
    cores: float
    rate: float | None = None


async def measure_isolation(bench: Bench) -> Outcome:
    """On one loop, on two in threads, and on two in processes."""
    placements: dict[str, dict[str, Any]] = {ONE_LOOP: on("threads", 1)}
    placements |= {kind: on(kind, 2) for kind in kinds(bench)}
    whole = joined([await _measure(bench, kind, placed) for kind, placed in placements.items()])
    rows = [row for sweep in whole.sweeps for row in sweep.rows]
    partitions = _partitions(bench)
    many, few = (partitions * _each(keys, partitions) for keys in (MANY, FEW))
    note = (
        f"Latencies are of calls of cold entities, {RATE:g} a second to each place in an open loop, "
        "counted from the intended time of sending. The load is operations that drivers in all "
        f"partitions send: evenly to {many:,} keys (0 % on one), evenly to {few}, which are little "
        "more work than one, or all to one key (100 %). These three are offered at the same rate, "
        f"{100 * OFFERED:g} % of what the hub takes at most of many keys or of one, whichever is "
        "less. Unlimited means that each driver starts again when it has ended. "
        f"Medians of {ROUNDS} rounds that take turns, each ratio inside of a round; the unlimited "
        f"load is one stretch, before. {note_on_kinds(bench)}"
    ).strip()
    return Outcome(
        loads=whole.loads,
        facts=whole.facts,
        sweeps=[Sweep(name=SWEEP, heads=HEADS, rows=rows, note=note)],
        histograms=whole.histograms,
        verified=whole.verified,
    )


async def _measure(bench: Bench, kind: str, placed: dict[str, Any]) -> Outcome:
    async with bench.hub(
        app, kind.replace(" ", "-"), partitions=_partitions(bench), **placed
    ) as hub:
        probes = _Probes(bench, hub, kind)
        load = _HubLoad(bench, hub)
        found = await _measure_all(bench, probes, load)
        await load.verify()
        await probes.verify()
    rows: list[list[Cell]] = []
    facts: list[Fact] = []
    for place in probes.places:
        rows += [[kind, place, *_row(found, place, condition)] for condition in CONDITIONS]
        facts += [
            Fact(
                name=f"isolation: p99, {HOT} / {base}, {place} ({kind})",
                value=_ratio(found, place, HOT, base),
                unit="times",
                note="of calls of cold entities, at the same rate of the same operations",
                target=TARGET if place == OTHER else None,
            )
            for base in (SPREAD, SPREAD_FEW)
        ]
    return Outcome(
        loads=probes.loads,
        facts=facts,
        sweeps=[Sweep(name=SWEEP, heads=HEADS, rows=rows)],
        histograms={
            f"{kind}, {place}, {condition}": Histogram(probes.latencies[place, condition])
            for place in probes.places
            for condition in CONDITIONS
        },
        verified=[f"count and sum at each key of the load and at each cold entity ({kind})"],
    )


async def _measure_all(bench: Bench, probes: _Probes, load: _HubLoad) -> dict[str, list[_Stretch]]:
    """Give the stretches of each condition, round by round."""
    n = bench.n(500)
    found: dict[str, list[_Stretch]] = {condition: [] for condition in CONDITIONS}
    async with load.running(SPREAD) as most:
        await probes.send("warm-up", n // 2 + 1)
    async with load.running(HOT) as running:
        stretch = await probes.send(MOST, n)
    found[MOST].append(evolve(stretch, rate=running.rate))
    offered = OFFERED * min(most.rate, running.rate)
    for number in range(ROUNDS):
        found[QUIET].append(await probes.send(QUIET, n))
        turn = number % 3  # so that none always follows the same one
        for condition in (SPREAD, SPREAD_FEW, HOT, SPREAD, SPREAD_FEW)[turn : turn + 3]:
            async with load.running(condition, offered) as running:
                stretch = await probes.send(condition, n)
            found[condition].append(evolve(stretch, rate=running.rate))
    return found


def _row(found: dict[str, list[_Stretch]], place: str, condition: str) -> list[Cell]:
    stretches = found[condition]
    rates = [stretch.rate for stretch in stretches if stretch.rate is not None]
    return [
        condition,
        median(rates) if rates else None,
        median(stretch.cores for stretch in stretches),
        median(stretch.p50_ms[place] for stretch in stretches),
        median(stretch.p99_ms[place] for stretch in stretches),
        _ratio(found, place, condition, SPREAD) if condition == HOT else None,
        _ratio(found, place, condition, SPREAD_FEW) if condition == HOT else None,
        None if condition == QUIET else _ratio(found, place, condition, QUIET),
    ]


def _ratio(found: dict[str, list[_Stretch]], place: str, condition: str, base: str) -> float:
    """Give the median over the rounds of p99 under a condition, of that under another."""
    return median(
        one.p99_ms[place] / other.p99_ms[place]
        # The unlimited load has one stretch only: the first of the others is the nearest.
        for one, other in zip(found[condition], found[base], strict=False)
    )


def _partitions(bench: Bench) -> int:
    return max(bench.options.partitions, 4)  # two for each shard, for all places of cold entities


def _each(keys: int, partitions: int) -> int:
    """How many keys of a load that is spread lie in each partition."""
    return max(keys // partitions, 1)


def _hot_partition(hub: Hub) -> int:
    return len(hub.placement) - 1  # on the last shard, which is not the client's own


class _Probes:
    """Calls of cold entities, by turns in each place; the partition of the hot key has none."""

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
        self.loads: list[Load] = []

    async def send(self, when: str, n: int) -> _Stretch:
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
        self.loads.append(timed.load)
        p50: dict[str, float] = {}
        p99: dict[str, float] = {}
        for start, place in enumerate(self.places):
            latencies = timed.latencies[start :: len(self.places)]
            p50[place], p99[place] = percentiles_ms(latencies)
            self.latencies.setdefault((place, when), []).extend(latencies)
        return _Stretch(p50, p99, timed.load.cores)

    async def verify(self) -> None:
        """Refuse entities that have not got exactly what was sent to them."""
        for meter, wanted in self._sent.items():
            found = await self._hub.client.call_entity(meter, Meter.read)
            expect(f"{meter}", found[:2], wanted)


class _Running:
    """What a load has done, from when it began."""

    def __init__(self, enough: int) -> None:
        self.is_stopping = False
        self.warm = anyio.Event()
        self.ended = 0.0
        self._begun = perf_counter()
        self._enough = enough
        self._operations = 0

    @property
    def rate(self) -> float:
        """Operations per second, until the last driver had ended."""
        return self._operations / (self.ended - self._begun)

    def count(self, operations: int) -> None:
        """Add what a driver has sent."""
        self._operations += operations
        if self._operations >= self._enough:
            self.warm.set()


class _HubLoad:
    """Drivers in all partitions, and how much each key should have got of them."""

    def __init__(self, bench: Bench, hub: Hub) -> None:
        self._bench = bench
        self._hub = hub
        partitions = len(hub.placement)
        self._drivers = drivers_in(range(partitions), partitions, "run")
        hot = _first_keys([_hot_partition(hub)], partitions, 1)
        everywhere = range(partitions)
        self._keys = {
            SPREAD: _first_keys(everywhere, partitions, _each(MANY, partitions)),
            SPREAD_FEW: _first_keys(everywhere, partitions, _each(FEW, partitions)),
            HOT: hot,
        }
        self._runs = 0
        self._sent: dict[int, list[int]] = {}

    @asynccontextmanager
    async def running(
        self, condition: str, offered: float | None = None
    ) -> AsyncGenerator[_Running]:
        """Send so many operations a second, or all that is taken, inside of the block.

        It begins when drivers have run for a while, and ends when the last has ended.
        """
        keys = self._keys[condition]
        running = _Running(WARM * ORDER * len(self._drivers))
        async with anyio.create_task_group() as tasks:
            if offered is None:
                for _ in self._drivers:
                    tasks.start_soon(self._repeat, keys, running)
            else:
                tasks.start_soon(self._start_on_time, keys, running, offered, tasks)
            await running.warm.wait()
            yield running
            running.is_stopping = True
        running.ended = perf_counter()

    async def _repeat(self, keys: list[int], running: _Running) -> None:
        while not running.is_stopping:
            await self._run_driver(keys, running)

    async def _start_on_time(
        self, keys: list[int], running: _Running, offered: float, tasks: TaskGroup
    ) -> None:
        """Start drivers by a schedule, the same for all conditions, whether others have ended."""
        begun = perf_counter()
        for due in endless_arrivals(self._bench.options.arrivals, offered / ORDER, seed=ORDER):
            await anyio.sleep(max(begun + due - perf_counter(), 0))
            if running.is_stopping:
                return
            tasks.start_soon(self._run_driver, keys, running)

    async def _run_driver(self, keys: list[int], running: _Running) -> None:
        first = self._runs * ORDER
        id = f"{self._drivers[self._runs % len(self._drivers)]}-{self._runs}"
        self._runs += 1
        drawn = [keys[number % len(keys)] for number in range(first, first + ORDER)]
        for number, key in enumerate(drawn, first):
            counted = self._sent.setdefault(key, [0, 0])
            counted[0] += 1
            counted[1] += number
        order = Order(entity="meter", prefix=_PREFIX, drawn=drawn, first=first)
        handle = await self._hub.client.start_new(drive, order, instance_id=id)
        expect(f"sent by {id}", await handle.result(), ORDER)
        running.count(ORDER)

    async def verify(self) -> None:
        """Refuse entities that have not got exactly what was sent to them."""
        wanted: dict[EntityId[Any], list[int]] = {
            EntityId("meter", f"{_PREFIX}{key}"): sent for key, sent in self._sent.items()
        }
        plan = Plan({}, wanted)
        await await_applied(self._bench, self._hub.client, plan)
        await verify_plan(self._bench, self._hub.client, plan)


_PREFIX = "load-"


def _first_keys(places: Iterable[int], partitions: int, each: int) -> list[int]:
    """Give numbers of keys, so many in each of these partitions, which take turns."""
    found: dict[int, list[int]] = {place: [] for place in places}
    for number in count():
        keys = found.get(partition_of(f"@meter@{_PREFIX}{number}", partitions))
        if keys is not None and len(keys) < each:
            keys.append(number)
        if all(len(keys) == each for keys in found.values()):
            return [key for turn in zip(*found.values(), strict=True) for key in turn]
    raise AssertionError
