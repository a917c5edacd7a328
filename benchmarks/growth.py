"""What it costs that the store is full: operations beside 1,000 to 1,000,000 other actors.

The store is filled through the client at full speed, by orchestrations that end at once and by
entities that get one signal each. The hub is then left and started anew, so nothing of this is in
memory. Then hello is measured as on an empty store in the same run, and entities are called that
must first be loaded from among all others.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from attrs import frozen

from perdure import App, Client, EntityId, Hub, OrchestrationContext, RuntimeStatus

from .bench import Bench, Request
from .figures import Cell, Fact, Load, Outcome, Sweep, expect
from .workloads import Meter, app as workloads, hello_request

app = App("growth")
app.include(workloads)

_STEPS = (1_000, 10_000, 100_000, 1_000_000)

KIND, COUNT, HELLO, EMPTY = "stored", "how many", "hello, us", "hello on an empty store, us"
COLD, START = "call of a stored entity, us", "start of the hub, ms"
HEADS = (KIND, COUNT, HELLO, EMPTY, COLD, START)


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


@frozen
class _Step:
    kind: str
    count: int
    empty: Load
    full: Load
    cold: Load | None
    start_ms: float

    def row(self) -> list[Cell]:
        return [
            self.kind,
            self.count,
            1e6 / self.full.rate,
            1e6 / self.empty.rate,
            None if self.cold is None else 1e6 / self.cold.rate,
            self.start_ms,
        ]

    def facts(self) -> list[Fact]:
        return [
            Fact(
                name=f"start of a hub with {self.count:,} {self.kind}",
                value=self.start_ms,
                unit="ms",
                note="opening the store and recovering",
            ),
            Fact(
                name=f"hello with {self.count:,} {self.kind}",
                value=self.full.rate / self.empty.rate,
                unit="of empty",
                better="higher",
                note="its rate as a share of the rate on an empty store just before",
            ),
        ]


async def measure_growth(bench: Bench) -> Outcome:
    """Beside more and more instances, then beside entities, each time with an empty hub."""
    steps: list[_Step] = []
    for kind, fill in (("instances", _instances), ("entities", _entities)):
        filled = 0
        for count in _counts(bench.options.instances):
            # Measured anew beside each step: machines have better and worse minutes.
            async with bench.hub(app, f"empty-{kind}-{count}") as hub:
                empty = await _measure_hello(bench, hub, f"empty ({count:,} {kind})", 0)
            steps.append(await _measure_step(bench, kind, fill, filled, count, empty))
            filled = count
    loads = [load for one in steps for load in (one.empty, one.full, one.cold) if load]
    return Outcome(
        loads=loads,
        facts=[*(fact for one in steps for fact in one.facts()), *_flatness(steps)],
        sweeps=[Sweep(name="growth", heads=HEADS, rows=[one.row() for one in steps])],
        verified=[
            "every answer while the stores were filled, and every result of a hello",
            "up to 1,000 stored instances and entities at each step, and each called entity",
        ],
    )


def _flatness(steps: list[_Step]) -> list[Fact]:
    note = "what an operation costs beside the most, of what it costs beside the fewest"
    found: list[Fact] = []
    for kind in ("instances", "entities"):
        of_kind = [one for one in steps if one.kind == kind]
        first, last = of_kind[0], of_kind[-1]
        # Against empty stores of the same minutes, so that the machine's moods cancel out.
        value = (last.empty.rate / last.full.rate) / (first.empty.rate / first.full.rate)
        found.append(
            Fact(name=f"flatness: hello beside {kind}", value=value, unit="times", note=note)
        )
        if first.cold is not None and last.cold is not None:
            value = first.cold.rate / last.cold.rate
            name = "flatness: call of a stored entity"
            found.append(Fact(name=name, value=value, unit="times", note=note))
    return found


def _counts(most: int) -> list[int]:
    counts = [count for count in _STEPS if count < most]
    return [*counts, most]


async def _measure_step(
    bench: Bench,
    kind: str,
    fill: Callable[[Client, int], Request],
    filled: int,
    count: int,
    empty: Load,
) -> _Step:
    name = f"growth-{kind}"
    async with bench.hub(app, name) as hub:
        await bench.unmeasured(f"filling with {kind}", fill(hub.client, filled), count - filled)
    begun = perf_counter()
    async with bench.hub(app, name) as hub:
        started = perf_counter() - begun
        cold = await _measure_cold(bench, hub, count) if kind == "entities" else None
        full = await _measure_hello(bench, hub, f"with {count:,} {kind}", count)
        await _expect_stored(hub.client, kind, count)
    return _Step(kind, count, empty, full, cold, started * 1e3)


async def _measure_hello(bench: Bench, hub: Hub, name: str, step: int) -> Load:
    n = bench.n(5_000)
    base = 10**9 + step
    await bench.unmeasured(name, hello_request(hub.client, base), min(n, 1_000))
    return await bench.closed_loop(
        hub, name, hello_request(hub.client, base), n, unit="orchestrations"
    )


async def _measure_cold(bench: Bench, hub: Hub, count: int) -> Load:
    n = min(bench.options.n or 1_000, count)
    client = hub.client

    async def request(index: int) -> None:
        number = index * count // n
        found = await client.call_entity(EntityId(Meter, f"full-{number}"), Meter.read)
        expect(f"stored entity {number}", found, [1, number, 0])

    name = f"call among {count:,} entities"
    note = "of entities that are not in memory: each is loaded first"
    return await bench.closed_loop(hub, name, request, n, unit="calls", note=note)


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
