"""How fast a long history is replayed, once its orchestration is not in memory any more.

The histories are built while the instances are alive, and each instance then waits for an event.
Half of them get it there, in memory: that is the price of an event and an answer. Then the hub is
left, another one opens the store, and the other half get theirs: the first thing that happens to
such an instance is that its whole history is read and replayed. Nothing is taken off from these
times; the difference of the medians is given beside them.
"""

from __future__ import annotations

from array import array
from time import perf_counter

from perdure import App, Client, OrchestrationContext, OrchestrationHandle

from .bench import Bench
from .figures import Fact, Outcome, expect, percentiles_ms

app = App("replay")

ACTIVITIES = 5_000

_INSTANCES_MAX = 10  # building two histories for each is what takes the time


@app.activity
async def increase(number: int) -> int:
    """Do next to nothing."""
    return number + 1


@app.orchestration
async def build_history(ctx: OrchestrationContext, activities: int) -> int:
    """Run activities one after another, then wait for the event ``go``."""
    number = 0
    for _ in range(activities):
        number = await ctx.call_activity(increase, number)
    ctx.set_custom_status("built")
    return number + await ctx.wait_for_external_event("go", data_type=int)


async def measure_replay(bench: Bench, activities: int = ACTIVITIES) -> Outcome:
    """Time from an event to the result: in memory, and after a restart with 10,000 events."""
    n = min(bench.n(3), _INSTANCES_MAX)
    kept = [f"kept-{index}" for index in range(n + 1)]
    evicted = [f"evicted-{index}" for index in range(n + 1)]
    async with bench.hub(app) as hub:
        handles = [
            await hub.client.start_new(build_history, activities, instance_id=instance_id)
            for instance_id in (*kept, *evicted)
        ]
        await bench.wait_until(
            "replay: building", lambda: _count_built(hub.client, handles), len(handles)
        )
        in_memory = await _finish(hub.client, kept, activities)
    begun = perf_counter()
    async with bench.hub(app) as hub:
        started = perf_counter() - begun
        replayed = await _finish(hub.client, evicted, activities)
    p50, longest = percentiles_ms(replayed)
    alone, _ = percentiles_ms(in_memory)
    events = 2 * activities + 1  # the start, and two for each activity
    return Outcome(
        facts=[
            Fact(
                name="replay",
                value=events / (p50 / 1e3),
                unit="events/s",
                better="higher",
                note=f"{events:,} events, from raising an event to the result, in a new hub",
            ),
            Fact(
                name="replay: time",
                value=p50,
                unit="ms",
                note="the same as a time, the median over instances",
            ),
            Fact(name="replay: longest time", value=longest, unit="ms", note="of one instance"),
            Fact(
                name="replay: round trip",
                value=alone,
                unit="ms",
                note="what event and result take of an instance that is in memory, the median",
            ),
            Fact(
                name="replay: without the round trip",
                value=events / max((p50 - alone) / 1e3, 1e-9),
                unit="events/s",
                better="higher",
                note="the median time, less the round trip",
            ),
            Fact(
                name="replay: start of the hub",
                value=started * 1e3,
                unit="ms",
                note="opening the store and recovering, before any of this",
            ),
        ],
        verified=[f"the result and the length of the history of {2 * (n + 1)} instances"],
    )


async def _count_built(client: Client, handles: list[OrchestrationHandle[int]]) -> int:
    built = 0
    for handle in handles:
        built += (await handle.status()).custom_status == "built"
    return built


async def _finish(client: Client, ids: list[str], activities: int) -> array[float]:
    times = array("d")
    for number, instance_id in enumerate(ids):
        handle = client.get_handle(instance_id)
        begun = perf_counter()
        await handle.raise_event("go", number)
        result = await handle.result()
        times.append(perf_counter() - begun)
        expect(f"result of {instance_id}", result, activities + number)
        found = (await handle.status()).history_length
        # The start, the event and the end come on top.
        expect(f"events in the history of {instance_id}", found, 2 * activities + 3)
    return times[1:]  # the first one warmed up
