"""Latency under 10 to 90 % of the greatest load, in an open loop: requests are sent at their time.

In a closed loop a client that waits for an answer sends nothing meanwhile, so a stall is counted
once though it would have kept many waiting: coordinated omission (Gil Tene, "How NOT to measure
latency"; HdrHistogram and wrk2 are his remedies). Here the times of sending are fixed beforehand,
as in wrk2, and a latency counts from the time at which the request should have been sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from perdure import Client, EntityId, Hub

from .bench import Bench, Request, Timed
from .figures import Cell, Fact, Load, Outcome, Sweep, expect, joined
from .histogram import PERCENTS, Histogram
from .workloads import Meter, app, call_request, completed, expect_meter, hello_request

SHARES = (10, 25, 50, 75, 90)  # percent of the greatest rate
HALF = 50
KEPT_UP = 0.97

OPERATION, SHARE, WANTED, ACHIEVED, IS_KEPT = (
    "operation", "load, %", "wanted/s", "achieved/s", "kept up",
)  # fmt: skip
TAIL = tuple(f"p{percent:g} ms" for percent in PERCENTS)
HEADS = (OPERATION, SHARE, WANTED, ACHIEVED, IS_KEPT, *TAIL, "max ms", "sent late, p99 ms")

#: Seconds that a load is kept up, and how many requests it has at the most and at the least.
POINT_S = 4.0
POINT_MAX = 200_000
POINT_MIN = 200


async def measure_latency(bench: Bench) -> Outcome:
    """Hello and calls of one entity, each at shares of its greatest rate in the same run."""
    return joined([await _measure_hello(bench), await _measure_calls(bench)])


async def _measure_hello(bench: Bench) -> Outcome:
    async with bench.hub(app, "hello") as hub:
        client = hub.client
        n = bench.n(20_000)
        warm = min(n, 2_000)
        await bench.unmeasured("latency-hello", hello_request(client, 0), warm)
        limit = await bench.closed_loop(
            hub, "hello-limit", hello_request(client, 10**6), n, unit="orchestrations"
        )

        async def measure(name: str, share: int, n: int, rate: float) -> Timed:
            request = hello_request(client, share * 10**7)
            return await _open(bench, hub, name, request, n, rate, limit.unit)

        outcome, sent = await _at_shares(bench, "hello", limit, measure)
        wanted = warm + n + sent
        expect("completed instances", await completed(client, "hello"), wanted)
    return joined([outcome, Outcome(verified=[f"every result of {wanted:,} hellos"])])


async def _measure_calls(bench: Bench) -> Outcome:
    async with bench.hub(app, "calls") as hub:
        client = hub.client
        n = bench.n(50_000)
        warm, at_limit = EntityId(Meter, "warm"), EntityId(Meter, "limit")
        await bench.unmeasured("latency-hot-call", call_request(client, warm), min(n, 5_000))
        limit = await bench.closed_loop(
            hub, "hot-call-limit", call_request(client, at_limit), n, unit="calls"
        )
        await expect_meter(client, at_limit, n, n * (n - 1) // 2)

        async def measure(name: str, share: int, n: int, rate: float) -> Timed:
            meter = EntityId(Meter, f"at-{share}")
            request = _call_in_any_order(client, meter, n)
            timed = await _open(bench, hub, name, request, n, rate, limit.unit)
            found = await client.call_entity(meter, Meter.read)
            expect(f"{meter}", found[:2], [n, n * (n - 1) // 2])
            return timed

        outcome, sent = await _at_shares(bench, "hot-call", limit, measure)
    words = f"every answer of {n + sent:,} calls, given once; the entities' counts and sums"
    return joined([outcome, Outcome(verified=[words])])


def _call_in_any_order(client: Client, meter: EntityId[Meter], n: int) -> Request:
    # Whose time comes within one tick of the loop's clock may be sent in another order.
    answered = bytearray(n + 1)

    async def request(index: int) -> None:
        count = await client.call_entity(meter, Meter.mark, index)
        expect("times this count was given before", answered[count], 0)
        answered[count] = 1

    return request


async def _open(
    bench: Bench, hub: Hub, name: str, request: Request, n: int, rate: float, unit: str
) -> Timed:
    note = "latency counts from the intended time of sending"
    return await bench.open_loop(hub, name, request, n, rate, unit=unit, note=note)


async def _at_shares(
    bench: Bench,
    operation: str,
    limit: Load,
    measure: Callable[[str, int, int, float], Awaitable[Timed]],
) -> tuple[Outcome, int]:
    loads, facts = [limit], list[Fact]()
    rows: list[list[Cell]] = []
    histograms: dict[str, Histogram] = {}
    sent = 0
    for share in SHARES:
        rate = limit.rate * share / 100
        n = bench.options.n or point_n(rate, quick=bench.options.quick)
        name = f"latency-{operation}" + ("" if share == HALF else f" at {share} %")
        timed = await measure(name, share, n, rate)
        sent += n
        late = Histogram(timed.late)
        counted = Histogram(timed.latencies)
        histograms[f"{operation} at {share} %"] = counted
        rows.append(
            [
                operation,
                share,
                rate,
                timed.load.rate,
                timed.kept_up,
                *counted.tail_ms(),
                counted.max_ms,
                late.percentile_ms(99),
            ]
        )
        loads.append(timed.load)
        facts.append(_kept_up(timed))
    sweep = Sweep(name=f"latency: {operation}", heads=HEADS, rows=rows, note=judge(rows))
    return Outcome(loads=loads, facts=facts, sweeps=[sweep], histograms=histograms), sent


def point_n(rate: float, *, quick: bool) -> int:
    """Give how many requests to make at a rate: as many as come in the time of a point."""
    seconds = POINT_S / 10 if quick else POINT_S
    return min(max(int(rate * seconds), POINT_MIN), POINT_MAX)


def _kept_up(timed: Timed) -> Fact:
    return Fact(
        name=f"{timed.load.name}: load kept up",
        value=timed.kept_up,
        unit="of 1",
        better="higher",
        note=f"below {KEPT_UP} the hub fell behind, and the latencies are those of a queue that grows",
    )


def judge(rows: list[list[Cell]]) -> str:
    """Say at which loads the schedule was not kept."""
    at, kept = HEADS.index(SHARE), HEADS.index(IS_KEPT)
    behind = [f"{row[at]} %" for row in rows if float(row[kept] or 0) < KEPT_UP]
    if not behind:
        return "The schedule was kept at every load."
    return (
        f"Fell behind the schedule at {', '.join(behind)}: those latencies are of a growing queue."
    )
