"""The loads in a closed loop: hello, fanout, hot, spread and signal.

Each checks its own outcome exactly and raises ``WrongOutcomeError``.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from attrs import evolve

from perdure import App, Client, EntityId, Hub, OrchestrationContext, RuntimeStatus, readonly

from .bench import Bench, Request
from .figures import Fact, Load, Outcome, expect, percentile

app = App("benchmarks")

HELLO_ACTIVITIES = 3
FANOUT_ACTIVITIES = 1_000
SPREAD_ENTITIES = 1_000
SIGNALS = 10


@app.entity
class Meter:
    """Adds up what it is sent, and says whether that came in order."""

    count: int = 0
    total: int = 0
    last: int = -1
    disordered: int = 0

    def mark(self, number: int) -> int:
        """Take a number; gives how many it has taken."""
        self.count += 1
        self.total += number
        if number <= self.last:
            self.disordered += 1
        self.last = number
        return self.count

    @readonly
    def read(self) -> list[int]:
        """Give count, total and how often a number came out of order."""
        return [self.count, self.total, self.disordered]


@app.activity
async def greet(name: str) -> str:
    """Do next to nothing."""
    return f"Hello {name}!"


@app.activity
async def double(number: int) -> int:
    """Do next to nothing."""
    return number * 2


@app.orchestration
async def hello(ctx: OrchestrationContext, number: int) -> list[str]:
    """Three activities, one after another."""
    return [
        await ctx.call_activity(greet, f"Tokyo {number}"),
        await ctx.call_activity(greet, f"Seattle {number}"),
        await ctx.call_activity(greet, f"London {number}"),
    ]


@app.orchestration
async def fan_out(ctx: OrchestrationContext, start: int) -> list[int]:
    """A thousand activities at once."""
    numbers = range(start, start + FANOUT_ACTIVITIES)
    return await ctx.task_all([ctx.call_activity(double, number) for number in numbers])


@app.orchestration
async def send_signals(ctx: OrchestrationContext, target: list[Any]) -> int:
    """Ten signals to ten entities: ``[prefix, number, entities]`` says which and what."""
    prefix, number, entities = target
    for index in range(SIGNALS):
        key = f"{prefix}{(number * SIGNALS + index) % entities}"
        ctx.signal_entity(EntityId(Meter, key), Meter.mark, number)
    return SIGNALS


def hello_request(client: Client, base: int) -> Request:
    """One hello, from start to result."""

    async def request(index: int) -> None:
        number = base + index
        handle = await client.start_new(hello, number)
        expect("hello", await handle.result(), greetings(number))

    return request


def greetings(number: int) -> list[str]:
    """Give what a hello of that number must give."""
    return [f"Hello Tokyo {number}!", f"Hello Seattle {number}!", f"Hello London {number}!"]


async def completed(client: Client, name: str) -> int:
    """Count the completed instances of an orchestration."""
    found = client.query(
        name=name, statuses=[RuntimeStatus.COMPLETED], payloads=False, page_size=10_000
    )
    return sum([1 async for _ in found])


async def measure_hello(bench: Bench) -> Outcome:
    """Hello under load and alone, and what four commits alone take."""
    async with bench.hub(app) as hub:
        client = hub.client
        warm = min(bench.n(40_000), 2_000)
        await bench.unmeasured("hello", hello_request(client, 0), warm)
        n = bench.n(40_000)
        load = await bench.closed_loop(
            hub, "hello", hello_request(client, 10**6), n, unit="orchestrations"
        )
        expect("completed instances", await completed(client, "hello"), warm + n)
        alone = await _measure_alone(bench, hub, load)
    return evolve(alone, verified=[f"every result of {warm + n:,} hellos", *alone.verified])


async def _measure_alone(bench: Bench, hub: Hub, load: Load) -> Outcome:
    n = min(bench.n(1_000), 1_000)
    client = hub.client
    commits = HELLO_ACTIVITIES + 1
    meter = EntityId(Meter, "alone")
    numbers = itertools.count()

    async def sequential_commits(index: int) -> None:
        for _ in range(commits):
            await client.signal_entity(meter, Meter.mark, next(numbers))

    alone = await bench.closed_loop(
        hub, "hello-alone", hello_request(client, 10**7), n, unit="orchestrations", concurrency=1
    )
    four = await bench.closed_loop(
        hub,
        "four-signals-alone",
        sequential_commits,
        n,
        unit="times four",
        concurrency=1,
        note="four signals, each awaited before the next: four commits, without an orchestration",
    )
    total = n * commits
    await expect_meter(client, meter, total, total * (total - 1) // 2)
    facts = [
        Fact(
            name="hello-alone / four-signals-alone",
            value=alone.p50_ms / four.p50_ms,
            unit="times",
            note="medians; a hello alone needs four commits one after another",
        )
    ]
    if bench.folder is not None:
        raw = raw_commits_ms(bench.folder / "raw.sqlite", n, commits)
        facts.append(
            Fact(
                name="four raw commits",
                value=raw,
                unit="ms",
                note="median of four plain SQLite commits of 200 bytes, same folder, no event loop",
            )
        )
    words = f"count, sum and order of {total:,} signals sent one after another"
    return Outcome(loads=[load, alone, four], facts=facts, verified=[words])


def raw_commits_ms(path: Path, n: int, commits: int) -> float:
    """Measure the floor: what the disk and SQLite take for that many small commits."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (body TEXT)"
    )
    body = "x" * 200
    times: list[float] = []
    for _ in range(n):
        begun = perf_counter()
        for _ in range(commits):
            connection.execute("INSERT INTO t VALUES (?)", (body,))
        times.append(perf_counter() - begun)
    connection.close()
    return percentile(sorted(times), 50) * 1e3


async def measure_fanout(bench: Bench) -> Outcome:
    """Orchestrations that each run a thousand activities at once."""

    def request_from(client: Client, base: int) -> Request:
        async def request(index: int) -> None:
            start = base + index * FANOUT_ACTIVITIES
            handle = await client.start_new(fan_out, start)
            wanted = [2 * number for number in range(start, start + FANOUT_ACTIVITIES)]
            expect("fanout", await handle.result(), wanted)

        return request

    async with bench.hub(app) as hub:
        n = bench.n(150)
        await bench.unmeasured("fanout", request_from(hub.client, 0), min(n, 3))
        load = await bench.closed_loop(
            hub,
            "fanout",
            request_from(hub.client, 10**7),
            n,
            unit="activities",
            per_request=FANOUT_ACTIVITIES,
            concurrency=min(bench.options.concurrency, 10),
            note="latency is of an orchestration of 1,000 activities; 10 in flight",
        )
    return Outcome(
        loads=[load], verified=[f"every result of {load.operations:,} activities, in order"]
    )


async def expect_meter(client: Client, meter: EntityId[Meter], count: int, total: int) -> None:
    """Refuse a meter that has not taken exactly these numbers, in order."""
    expect(f"{meter}", await client.call_entity(meter, Meter.read), [count, total, 0])


def signal_request(client: Client, meter: EntityId[Meter]) -> Request:
    """One signal to one entity."""
    signal = client.signal_entity
    mark: Callable[[Meter, int], int] = Meter.mark

    async def request(index: int) -> None:
        await signal(meter, mark, index)

    return request


def call_request(client: Client, meter: EntityId[Meter]) -> Request:
    """One call of one entity, with its answer."""
    call = client.call_entity
    mark: Callable[[Meter, int], int] = Meter.mark

    async def request(index: int) -> None:
        count = await call(meter, mark, index)
        if count != index + 1:
            expect("answer to a call", count, index + 1)

    return request


async def measure_hot(bench: Bench) -> Outcome:
    """One entity that everybody wants something of."""
    loads: list[Load] = []
    async with bench.hub(app) as hub:
        client = hub.client
        for name, make_request, usual in (
            ("hot-signal", signal_request, 100_000),
            ("hot-call", call_request, 50_000),
        ):
            n = bench.n(usual)
            warm = EntityId(Meter, f"{name}-warm")
            await bench.unmeasured(name, make_request(client, warm), min(n, 5_000))
            meter = EntityId(Meter, name)
            request = make_request(client, meter)
            loads.append(await bench.closed_loop(hub, name, request, n, unit=f"{name[4:]}s"))
            await expect_meter(client, meter, n, n * (n - 1) // 2)
    words = "every answer to a call; count, sum and order at the entities"
    return Outcome(loads=loads, verified=[words])


async def measure_spread(bench: Bench) -> Outcome:
    """Signals that go round a thousand entities."""
    async with bench.hub(app) as hub:
        client = hub.client
        n = bench.n(300_000)

        def request_to(prefix: str) -> Request:
            meters = [EntityId(Meter, f"{prefix}{index}") for index in range(SPREAD_ENTITIES)]
            signal = client.signal_entity
            mark: Callable[[Meter, int], int] = Meter.mark

            async def request(index: int) -> None:
                await signal(meters[index % SPREAD_ENTITIES], mark, index)

            return request

        await bench.unmeasured("spread", request_to("warm-"), min(n, 5_000))
        load = await bench.closed_loop(hub, "spread", request_to("spread-"), n, unit="signals")
        for index in range(min(n, SPREAD_ENTITIES)):
            numbers = range(index, n, SPREAD_ENTITIES)
            meter = EntityId(Meter, f"spread-{index}")
            await expect_meter(client, meter, len(numbers), sum(numbers))
    words = f"count, sum and order at each of {min(n, SPREAD_ENTITIES):,} entities"
    return Outcome(loads=[load], verified=[words])


async def measure_signal(bench: Bench) -> Outcome:
    """Orchestrations that signal ten entities each, until all of that is applied and durable."""
    async with bench.hub(app) as hub:
        client = hub.client
        n = bench.n(10_000)

        def request_to(prefix: str) -> Request:
            async def request(index: int) -> None:
                handle = await client.start_new(send_signals, [prefix, index, SPREAD_ENTITIES])
                expect("signals sent", await handle.result(), SIGNALS)

            return request

        await bench.unmeasured("signal", request_to("warm-"), min(n, 500))
        wanted = _signals_wanted(n)
        load = await bench.closed_loop(
            hub,
            "signal",
            request_to("signal-"),
            n,
            unit="signals",
            per_request=SIGNALS,
            then=lambda: _await_signals(client, wanted, bench.options.stalled_s),
            note="until all are applied and durable; latency is of an orchestration of 10 signals",
        )
        await _expect_signals(client, wanted)
    return Outcome(loads=[load], verified=[f"count and sum at each of {len(wanted):,} entities"])


def _signals_wanted(n: int) -> dict[int, list[int]]:
    wanted: dict[int, list[int]] = {}
    for number in range(n):
        for index in range(SIGNALS):
            key = (number * SIGNALS + index) % SPREAD_ENTITIES
            count, total = wanted.get(key, (0, 0))
            wanted[key] = [count + 1, total + number]
    return wanted


async def _await_signals(client: Client, wanted: dict[int, list[int]], stalled_s: float) -> None:
    for key, (count, _) in wanted.items():
        meter = EntityId(Meter, f"signal-{key}")
        given_up = perf_counter() + stalled_s
        # The answer to a call is durable, and so is all that was applied before it.
        while (found := (await client.call_entity(meter, Meter.read))[0]) < count:
            if perf_counter() > given_up:
                expect(f"signals applied to {meter}", found, count)


async def _expect_signals(client: Client, wanted: dict[int, list[int]]) -> None:
    # Between different orchestrations there is no order, so this does not look at it.
    for key, numbers in wanted.items():
        meter = EntityId(Meter, f"signal-{key}")
        found = await client.call_entity(meter, Meter.read)
        expect(f"{meter}", found[:2], numbers)
