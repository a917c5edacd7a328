"""How far one hub goes on 1, 2 and 4 shards: threads and processes, spread and skewed load.

A client lives on one loop and would be the limit, so the load is made inside the hub: by driver
orchestrations, some in every partition. ``hello``'s drivers run hellos as children, which live
beside their parent; ``spread``'s call entities of all partitions, evenly or by Zipf's law.
Speedup is against one shard of the same kind, in the same run.

Not in the suite until hubs have shards. What it takes for granted: ``Hub(app, shards=N)`` for
threads, ``Hub(app, workers=N)`` for processes, and ``PartitionStatistics.shard``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from attrs import frozen

from perdure import App, Client, EntityId, HubStatistics, OrchestrationContext

from .bench import Bench
from .figures import Cell, Fact, Load, Outcome, Sweep, expect
from .schedule import draw_zipf, partition_of, tally
from .workloads import Meter, app as workloads, greetings, hello

app = App("sharding")
app.include(workloads)

Kind = Literal["threads", "processes"]
KINDS: tuple[Kind, ...] = ("threads", "processes")
SHARDS = (1, 2, 4)
EXPONENTS = {"spread": 0.0, "skewed": 1.0}  # of Zipf's law
ENTITIES = 1_000
WAVE = 50  # calls that a driver has under way

KIND, LOAD, SHARD_COUNT, RATE, SPEEDUP = "kind", "load", "shards", "operations/s", "speedup"
BALANCE, CROSS = "balance, max/mean turns", "cross-shard messages, %"
HEADS = (KIND, LOAD, SHARD_COUNT, RATE, SPEEDUP, BALANCE, CROSS)

_DRIVERS_PER_PARTITION = 4


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
async def drive_calls(ctx: OrchestrationContext, plan: list[list[int]]) -> int:
    """Call entities, some at a time: ``[entity, number]`` each; gives how many answered."""
    answered = 0
    for start in range(0, len(plan), WAVE):
        wave = plan[start : start + WAVE]
        calls = [ctx.call_entity(meter(key), Meter.mark, number) for key, number in wave]
        answered += len(await ctx.task_all(calls))
    return answered


def meter(key: int) -> EntityId[Meter]:
    """Give the entity of a number."""
    return EntityId(Meter, f"shard-{key}")


def place_in(partition: int, partitions: int, name: str) -> str:
    """Find an id that lies in a partition: what follows ``::`` does not move it."""
    number = 0
    while partition_of(f"{name}-{number}", partitions) != partition:
        number += 1
    return f"{name}-{number}"


def drivers(partitions: int) -> list[str]:
    """Give the ids of the drivers: the same number in every partition."""
    return [
        f"{place_in(index % partitions, partitions, 'driver')}::{index}"
        for index in range(partitions * _DRIVERS_PER_PARTITION)
    ]


@frozen
class Plan:
    """Which driver calls which entities, with what number.

    Attributes:
        calls: ``[entity, number]`` of each driver.
        counts: calls that each entity gets.
        totals: the sum of the numbers that each gets.
    """

    calls: list[list[list[int]]]
    counts: list[int]
    totals: list[int]


def make_plan(n: int, exponent: float, partitions: int) -> Plan:
    """Draw ``n`` calls, the same for the same arguments, and deal them out to the drivers."""
    drawn = draw_zipf(n, ENTITIES, exponent, seed=n)
    counts, totals = [0] * ENTITIES, [0] * ENTITIES
    tally(drawn, counts, totals)
    hands: list[list[list[int]]] = [[] for _ in drivers(partitions)]
    for number, key in enumerate(drawn):
        hands[number % len(hands)].append([key, number])
    return Plan(hands, counts, totals)


def cross_percent(plan: Plan, partitions: int, shard_of: dict[int, int]) -> float:
    """Give the share of calls whose entity lives on another shard than their driver."""
    crossing = total = 0
    for driver, calls in zip(drivers(partitions), plan.calls, strict=True):
        here = shard_of[partition_of(driver, partitions)]
        for key, _ in calls:
            crossing += shard_of[partition_of(str(meter(key)), partitions)] != here
            total += 1
    return 100 * crossing / max(total, 1)


async def measure_sharding(bench: Bench) -> Outcome:
    """Every kind, load and number of shards."""
    loads: list[Load] = []
    rows: list[list[Cell]] = []
    facts: list[Fact] = []
    for kind in KINDS:
        for what in ("hello", *EXPONENTS):
            alone = 0.0
            for shards in SHARDS:
                load, balance, cross = await _measure(bench, kind, what, shards)
                alone = alone or load.rate
                loads.append(load)
                rows.append([kind, what, shards, load.rate, load.rate / alone, balance, cross])
            facts.append(
                Fact(
                    name=f"sharding: speedup of {what} on {SHARDS[-1]} {kind}",
                    value=loads[-1].rate / alone,
                    unit="times",
                    better="higher",
                    note="against one shard of the same kind, in the same run",
                )
            )
    return Outcome(
        loads=loads,
        facts=facts,
        sweeps=[Sweep(name="sharding", heads=HEADS, rows=rows)],
        verified=[
            "every result of a hello, counted by its driver",
            f"the number of answers of each driver; count and sum at each of {ENTITIES:,} entities",
        ],
    )


async def _measure(bench: Bench, kind: Kind, what: str, shards: int) -> tuple[Load, float, float]:
    placement: dict[str, Any] = {"shards": shards} if kind == "threads" else {"workers": shards}
    name = f"{what} on {shards} {kind}"
    partitions = bench.options.partitions
    async with bench.hub(app, f"{kind}-{what}-{shards}", **placement) as hub:
        client = hub.client
        ids = drivers(partitions)
        before = await hub.statistics()
        if what == "hello":
            each = max(bench.n(8_000) // len(ids), 1)
            total = each * len(ids)

            async def request(index: int) -> None:
                numbers = [10**6 + index * each, each]
                handle = await client.start_new(drive_hellos, numbers, instance_id=ids[index])
                expect(f"right hellos of {ids[index]}", await handle.result(), each)

            finish = None
        else:
            plan = make_plan(bench.n(40_000), EXPONENTS[what], partitions)
            total = sum(plan.counts)

            async def request(index: int) -> None:
                calls = plan.calls[index]
                handle = await client.start_new(drive_calls, calls, instance_id=ids[index])
                expect(f"answers to {ids[index]}", await handle.result(), len(calls))

            finish = plan
        timed = await bench.timed_loop(
            hub,
            name,
            request,
            len(ids),
            unit="orchestrations" if what == "hello" else "calls",
            concurrency=len(ids),
            operations=total,
            note="latency is of a driver, from its start to its end",
        )
        after = await hub.statistics()
        if finish is not None:
            await _verify(bench, client, finish)
    shard_of = _shards(after)
    # Children live beside their parents, so hellos never cross.
    cross = cross_percent(finish, partitions, shard_of) if finish else 0.0
    return timed.load, balance_of(before, after, shard_of), cross


async def _verify(bench: Bench, client: Client, plan: Plan) -> None:
    async def verify(key: int) -> None:
        found = await client.call_entity(meter(key), Meter.read)
        expect(f"{meter(key)}", found[:2], [plan.counts[key], plan.totals[key]])

    await bench.unmeasured("sharding, checking", verify, ENTITIES)


def _shards(statistics: HubStatistics) -> dict[int, int]:
    # Read loosely, until the statistics of a hub with shards have their form.
    return {one.index: getattr(one, "shard", 0) for one in statistics.partitions}


def balance_of(before: HubStatistics, after: HubStatistics, shard_of: dict[int, int]) -> float:
    """Give the turns of the busiest shard, of what each would have if all had the same."""
    turns = Counter[int]()
    for early, late in zip(before.partitions, after.partitions, strict=True):
        turns[shard_of[late.index]] += late.turns - early.turns
    return max(turns.values()) * len(turns) / max(turns.total(), 1)
