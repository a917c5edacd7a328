"""How far one hub goes on 1, 2 and 4 shards: threads and processes, spread and skewed load.

The load is made inside the hub, by drivers in every partition. ``hello``'s run hellos as children,
which live beside their parent; those of ``spread`` and ``skewed`` signal entities of all
partitions, evenly or by Zipf's law. Speedup is against one shard of the same kind, in the same run.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from perdure import App, Client, Hub, HubStatistics, OrchestrationContext

from .bench import Bench
from .drivers import (
    Kind,
    Plan,
    app as drivers,
    drivers_in,
    kinds,
    make_plan,
    measure_plan,
    note_on_kinds,
    on,
    send_plan,
    verify_plan,
)
from .figures import Cell, Fact, Load, Outcome, Sweep, expect
from .schedule import draw_zipf, partition_of
from .workloads import greetings, hello

app = App("sharding")
app.include(drivers)

SHARDS = (1, 2, 4)
EXPONENTS = {"spread": 0.0, "skewed": 1.0}  # of Zipf's law
LOADS = ("hello", *EXPONENTS)
EVEN = ("hello", "spread")  # loads that are the same for all partitions
TARGET = 1.7  # of two workers, times one
ENTITIES = 1_000
WAVE = 20  # hellos that a driver has under way

KIND, LOAD, SHARD_COUNT, RATE, SPEEDUP = "kind", "load", "shards", "operations/s", "speedup"
CPU, CORES, BALANCE = "CPU us", "cores used", "balance, max/mean messages"
AWAY, CROSS = "to other partitions, % of messages", "to other shards, % of signals"
HEADS = (KIND, LOAD, SHARD_COUNT, RATE, SPEEDUP, CPU, CORES, BALANCE, AWAY, CROSS)
_NOTE = (
    "CPU is of all processes, per operation. Messages are counted by the hub; the share of signals "
    "to other shards is known from where both sides live."
)


@app.orchestration
async def drive_hellos(ctx: OrchestrationContext, numbers: list[int]) -> int:
    """Run a hello for each number of ``[first, count]``, some at a time; gives how many were right."""
    first, count = numbers
    right = 0
    for start in range(first, first + count, WAVE):
        wave = range(start, min(start + WAVE, first + count))
        results = await ctx.task_all([ctx.call_sub_orchestrator(hello, one) for one in wave])
        right += sum(found == greetings(one) for found, one in zip(results, wave, strict=True))
    return right


@app.orchestration
async def stay(ctx: OrchestrationContext, number: int) -> None:
    """Be live, and wait for what does not come."""
    await ctx.wait_for_external_event("never")


def plan_signals(name: str, n: int, exponent: float, partitions: int) -> Plan:
    """Draw ``n`` operations, the same for the same arguments, for drivers in all partitions."""
    drawn = draw_zipf(n, ENTITIES, exponent, seed=n)
    drivers = drivers_in(range(partitions), partitions, name)
    return make_plan("meter", f"{name}-", drawn, drivers)


def cross_percent(plan: Plan, placement: Sequence[int]) -> float:
    """Give the share of operations whose entity lives on another shard than their driver."""
    # The ids are in the order of their numbers.
    shards = [placement[partition_of(str(id), len(placement))] for id in plan.wanted]
    crossing = 0
    for driver, order in plan.orders.items():
        here = placement[partition_of(driver, len(placement))]
        crossing += sum(shards[key] != here for key in order.drawn)
    return 100 * crossing / max(plan.operations, 1)


def balance_of(before: HubStatistics, after: HubStatistics) -> float:
    """Give the messages of the busiest shard, of what each would have if all had the same."""
    taken: dict[int, int] = {}
    for early, late in zip(before.partitions, after.partitions, strict=True):
        taken[late.shard] = taken.get(late.shard, 0) + late.messages - early.messages
    return max(taken.values()) * len(taken) / max(sum(taken.values()), 1)


def away_percent(before: HubStatistics, after: HubStatistics) -> float:
    """Give the share of messages that went from one partition to another."""
    taken = after.messages - before.messages
    return 100 * (after.sent_away - before.sent_away) / max(taken, 1)


async def measure_sharding(bench: Bench) -> Outcome:
    """Every kind, load and number of shards."""
    loads: list[Load] = []
    rows: list[list[Cell]] = []
    facts: list[Fact] = []
    for kind in kinds(bench):
        for what in LOADS:
            alone = 0.0
            for shards in SHARDS:
                point = await _measure(bench, kind, what, shards)
                load = point.load
                alone = alone or load.rate
                loads.append(load)
                rows.append(
                    [
                        kind,
                        what,
                        shards,
                        load.rate,
                        load.rate / alone,
                        load.cpu_us,
                        load.cores,
                        point.balance,
                        point.away,
                        point.cross,
                    ]
                )
                if shards > 1:
                    wanted = (kind, shards) == ("processes", 2) and what in EVEN
                    facts.append(
                        Fact(
                            name=f"sharding: speedup of {what} on {shards} {kind}",
                            value=load.rate / alone,
                            unit="times",
                            better="higher",
                            note="against one shard of the same kind, in the same run",
                            target=TARGET if wanted else None,
                        )
                    )
    note = f"{_NOTE} {note_on_kinds(bench)}".strip()
    return Outcome(
        loads=loads,
        facts=facts,
        sweeps=[Sweep(name="sharding", heads=HEADS, rows=rows, note=note)],
        verified=[
            "every result of a hello, counted by its driver",
            f"what each driver sent; count and sum at each of {ENTITIES:,} entities",
        ],
    )


@frozen
class _Point:
    load: Load
    balance: float
    away: float
    cross: float


async def _measure(bench: Bench, kind: Kind, what: str, shards: int) -> _Point:
    partitions = max(bench.options.partitions, *SHARDS)
    name = f"{what} on {shards} {kind}"
    placed = on(kind, shards)
    async with bench.hub(app, f"{kind}-{what}-{shards}", partitions=partitions, **placed) as hub:
        if what == "hello":
            warm = _Hellos(hub.client, "warm", partitions, min(bench.n(120_000), 1_000))
            await bench.unmeasured(name, warm.request, len(warm.ids))
            hellos = _Hellos(hub.client, what, partitions, bench.n(120_000))
            before = await hub.statistics()
            load = await hellos.measure(bench, hub, name)
            after = await hub.statistics()
            cross = 0.0  # children live beside their parents
        else:
            n = bench.n(600_000)
            warm_plan = plan_signals("warm", min(n, 10_000), 0.0, partitions)
            await send_plan(bench, hub, name, warm_plan)
            plan = plan_signals(what, n, EXPONENTS[what], partitions)
            before = await hub.statistics()
            load = (await measure_plan(bench, hub, name, plan)).load
            after = await hub.statistics()
            cross = cross_percent(plan, hub.placement)
            await verify_plan(bench, hub.client, plan)
    return _Point(load, balance_of(before, after), away_percent(before, after), cross)


class _Hellos:
    """Drivers of hellos in all partitions."""

    def __init__(self, client: Client, name: str, partitions: int, n: int) -> None:
        self._client = client
        self.ids = drivers_in(range(partitions), partitions, name)
        self._each = max(n // len(self.ids), 1)

    async def request(self, index: int) -> None:
        """Run one driver."""
        numbers = [index * self._each, self._each]
        id = self.ids[index]
        handle = await self._client.start_new(drive_hellos, numbers, instance_id=id)
        expect(f"right hellos of {id}", await handle.result(), self._each)

    async def measure(self, bench: Bench, hub: Hub, name: str) -> Load:
        """Run them all."""
        timed = await bench.timed_loop(
            hub,
            name,
            self.request,
            len(self.ids),
            unit="orchestrations",
            concurrency=len(self.ids),
            operations=self._each * len(self.ids),
            note="latency is of a driver, from its start to its end",
        )
        return timed.load
