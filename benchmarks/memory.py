"""Bytes that an idle actor takes in memory, as tracemalloc counts them.

The difference of ``tracemalloc`` before and after bringing many actors into memory and to rest,
divided by their number: what Python's own allocators gave out, without SQLite's caches and the
slack of the allocators. On the memory store it counts the stored rows as well.
"""

from __future__ import annotations

import gc
import tracemalloc

from perdure import App, Client, EntityId, Hub, OrchestrationContext, RuntimeStatus, Settings

from .bench import Bench, Request
from .figures import Fact, Outcome, expect

app = App("memory")

EVENTS = 10


@app.entity
class Counter:
    """One number."""

    value: int = 0

    def add(self, amount: int) -> None:
        """Add to it."""
        self.value += amount


@app.activity
async def increase(number: int) -> int:
    """Do next to nothing."""
    return number + 1


@app.orchestration
async def wait_idle(ctx: OrchestrationContext, number: int) -> int:
    """Have ten events in the history, the start among them, then wait for one that never comes."""
    number += await ctx.wait_for_external_event("first", data_type=int)
    for _ in range(4):
        number = await ctx.call_activity(increase, number)
    await ctx.wait_for_external_event("never")
    return number


async def measure_memory(bench: Bench) -> Outcome:
    """Fill memory with waiting orchestrations, then with entities."""
    n = bench.n(10_000)
    settings = Settings(cached_actors_max=4 * n + 10_000)
    where = "tracemalloc" + (", stored rows included" if bench.folder is None else "")
    async with bench.hub(app, settings=settings) as hub:
        # What is made once (caches, codecs, connections) is there before it is measured.
        await _bring_instances(bench, hub, "warm-", min(n, 500))
        await _bring_entities(bench, hub, "warm-", min(n, 500))
        tracemalloc.start()
        try:
            before = await _settled(hub.client)
            await _bring_instances(bench, hub, "idle-", n)
            between = await _settled(hub.client)
            await _bring_entities(bench, hub, "idle-", n)
            after = await _settled(hub.client)
        finally:
            tracemalloc.stop()
        expect("actors in memory", (await hub.statistics()).activations, 2 * (n + min(n, 500)))
    return Outcome(
        facts=[
            Fact(
                name="idle orchestration",
                value=(between - before) / n,
                unit="bytes",
                note=f"{where}, over {n:,} of them; history of {EVENTS} events, waits for one",
            ),
            Fact(
                name="idle entity",
                value=(after - between) / n,
                unit="bytes",
                note=f"{where}, over {n:,} of them; one integer as state",
            ),
        ],
        verified=[f"that all {2 * n:,} of them are in memory, and at rest"],
    )


async def _settled(client: Client) -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _bring_instances(bench: Bench, hub: Hub, prefix: str, n: int) -> None:
    client = hub.client

    def request_from() -> Request:
        async def request(index: int) -> None:
            handle = await client.start_new(wait_idle, index, instance_id=f"{prefix}{index}")
            await handle.raise_event("first", 1)

        return request

    async def count_idle() -> int:
        found = client.query(
            instance_id_prefix=prefix,
            statuses=[RuntimeStatus.RUNNING],
            payloads=False,
            page_size=10_000,
        )
        return sum([status.history_length == EVENTS async for status in found])

    await bench.unmeasured("memory: instances", request_from(), n)
    await bench.wait_until("memory: instances", count_idle, n)


async def _bring_entities(bench: Bench, hub: Hub, prefix: str, n: int) -> None:
    client = hub.client

    async def request(index: int) -> None:
        await client.signal_entity(EntityId(Counter, f"{prefix}{index}"), Counter.add, index)

    await bench.unmeasured("memory: entities", request, n)
    for index in range(0, n, max(n // 100, 1)):
        state = await client.read_entity_state(EntityId(Counter, f"{prefix}{index}"))
        expect(f"state of entity {index}", state and state.value, index)
