"""What it costs that the store is full: hello beside 1,000 to 1,000,000 other actors.

The store is filled through the client at full speed, by orchestrations that end at once and by
entities that get one signal each. The hub is then left and started anew, so nothing of this is in
memory, and hello is measured as on an empty store in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from perdure import App, Client, EntityId, Hub, OrchestrationContext, RuntimeStatus

from .bench import Bench, Request
from .figures import Fact, Load, Outcome, expect
from .workloads import Meter, app as workloads, hello_request

app = App("growth")
app.include(workloads)

_STEPS = (1_000, 10_000, 100_000, 1_000_000)


@app.orchestration
async def end_at_once(ctx: OrchestrationContext, number: int) -> int:
    """Give the number back."""
    return number


def _instances(client: Client, base: int) -> Request:
    async def request(index: int) -> None:
        number = base + index
        handle = await client.start_new(end_at_once, number, instance_id=f"full-{number}")
        expect("result", await handle.result(), number)

    return request


def _entities(client: Client, base: int) -> Request:
    async def request(index: int) -> None:
        number = base + index
        await client.signal_entity(EntityId(Meter, f"full-{number}"), Meter.mark, number)

    return request


async def measure_growth(bench: Bench) -> Outcome:
    """Hello beside more and more instances, then beside entities, each time with an empty hub."""
    loads: list[Load] = []
    facts: list[Fact] = []
    for kind, fill in (("instances", _instances), ("entities", _entities)):
        filled = 0
        for step in _steps(bench.options.instances):
            # Measured anew beside each step: machines have better and worse minutes.
            async with bench.hub(app, f"empty-{kind}-{step}") as hub:
                empty = await _measure_hello(bench, hub, f"empty ({step:,} {kind})", 0)
            full, start = await _measure_step(bench, kind, fill, filled, step)
            filled = step
            loads += [empty, full]
            share = Fact(
                name=f"hello with {step:,} {kind}",
                value=full.rate / empty.rate,
                unit="of empty",
                better="higher",
                note="its rate as a share of the rate on an empty store just before",
            )
            facts += [start, share]
    return Outcome(loads=loads, facts=facts)


def _steps(most: int) -> list[int]:
    steps = [step for step in _STEPS if step < most]
    return [*steps, most]


async def _measure_step(
    bench: Bench, kind: str, fill: Callable[[Client, int], Request], filled: int, step: int
) -> tuple[Load, Fact]:
    name = f"growth-{kind}"
    async with bench.hub(app, name) as hub:
        await bench.unmeasured(f"filling with {kind}", fill(hub.client, filled), step - filled)
    begun = perf_counter()
    async with bench.hub(app, name) as hub:
        started = perf_counter() - begun
        load = await _measure_hello(bench, hub, f"with {step:,} {kind}", step)
        await _expect_stored(hub.client, kind, step)
    fact = Fact(
        name=f"start of a hub with {step:,} {kind}",
        value=started * 1e3,
        unit="ms",
        note="opening the store and recovering",
    )
    return load, fact


async def _measure_hello(bench: Bench, hub: Hub, name: str, step: int) -> Load:
    n = bench.n(5_000)
    base = 10**9 + step
    await bench.unmeasured(name, hello_request(hub.client, base), min(n, 1_000))
    return await bench.closed_loop(
        hub, name, hello_request(hub.client, base), n, unit="orchestrations"
    )


async def _expect_stored(client: Client, kind: str, wanted: int) -> None:
    # A thousand of them: each one's answer was checked when the store was filled.
    for number in range(0, wanted, max(wanted // 1_000, 1)):
        if kind == "instances":
            status = await client.get_status(f"full-{number}")
            ended = status and (status.runtime_status, status.output)
            expect(f"stored instance {number}", ended, (RuntimeStatus.COMPLETED, number))
        else:
            state = await client.read_entity_state(EntityId(Meter, f"full-{number}"))
            marked = state and (state.count, state.total)
            expect(f"stored entity {number}", marked, (1, number))
