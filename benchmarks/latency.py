"""Latency at half of the greatest load, in an open loop: requests are sent at their time.

In a closed loop a client that waits for an answer sends nothing meanwhile, so a stall is counted
once though it would have kept many waiting: coordinated omission (Gil Tene, "How NOT to measure
latency"). Here the times of sending are fixed beforehand, and latency counts from these.
"""

from __future__ import annotations

from perdure import Client, EntityId, Hub

from .bench import Bench, Request
from .figures import Fact, Load, Outcome, expect
from .workloads import Meter, app, call_request, completed, expect_meter, hello_request

SHARE = 0.5


async def measure_latency(bench: Bench) -> Outcome:
    """Hello and calls of one entity, each at half of its greatest rate in the same run."""
    hellos = await _measure_hello(bench)
    calls = await _measure_calls(bench)
    return Outcome(loads=[*hellos.loads, *calls.loads], facts=[*hellos.facts, *calls.facts])


async def _measure_hello(bench: Bench) -> Outcome:
    async with bench.hub(app, "hello") as hub:
        client = hub.client
        n = bench.n(20_000)
        warm = min(n, 2_000)
        await bench.unmeasured("latency-hello", hello_request(client, 0), warm)
        limit = await bench.closed_loop(
            hub, "hello-limit", hello_request(client, 10**6), n, unit="orchestrations"
        )
        half = await _measure_half(bench, hub, "latency-hello", hello_request(client, 10**7), limit)
        expect("completed instances", await completed(client, "hello"), warm + 2 * n)
    return _outcome(limit, half)


async def _measure_calls(bench: Bench) -> Outcome:
    async with bench.hub(app, "calls") as hub:
        client = hub.client
        n = bench.n(50_000)
        warm, at_limit, at_half = (EntityId(Meter, key) for key in ("warm", "limit", "half"))
        await bench.unmeasured("latency-hot-call", call_request(client, warm), min(n, 5_000))
        limit = await bench.closed_loop(
            hub, "hot-call-limit", call_request(client, at_limit), n, unit="calls"
        )
        request = _call_in_any_order(client, at_half, n)
        half = await _measure_half(bench, hub, "latency-hot-call", request, limit)
        for meter in (at_limit, at_half):
            found = await client.call_entity(meter, Meter.read)
            expect(f"{meter}", found[:2], [n, n * (n - 1) // 2])
        await expect_meter(client, at_limit, n, n * (n - 1) // 2)
    return _outcome(limit, half)


def _call_in_any_order(client: Client, meter: EntityId[Meter], n: int) -> Request:
    # Whose time comes within one tick of the loop's clock may be sent in another order.
    answered = bytearray(n + 1)

    async def request(index: int) -> None:
        count = await client.call_entity(meter, Meter.mark, index)
        expect("times this count was given before", answered[count], 0)
        answered[count] = 1

    return request


async def _measure_half(bench: Bench, hub: Hub, name: str, request: Request, limit: Load) -> Load:
    rate = limit.rate * SHARE
    return await bench.open_loop(
        hub,
        name,
        request,
        limit.requests,
        rate,
        unit=limit.unit,
        note="sent at random times at half of the limit's rate; latency counts from these times",
    )


def _outcome(limit: Load, half: Load) -> Outcome:
    kept = Fact(
        name=f"{half.name}: load kept up",
        value=half.rate / (limit.rate * SHARE),
        unit="of 1",
        better="higher",
        note="below 0.97 the hub fell behind, and the latencies are those of a queue that grows",
    )
    return Outcome(loads=[limit, half], facts=[kept])
