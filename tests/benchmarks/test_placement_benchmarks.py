"""The benchmarks of shards: what they measure, and what they refuse to report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve

from perdure import Client, Hub
from perdure.benchmarks import isolation, stripes
from perdure.benchmarks.bench import Bench, MakeHub, Options
from perdure.benchmarks.crossing import measure_crossing
from perdure.benchmarks.drivers import (
    Order,
    Plan,
    make_plan,
    measure_plan,
)
from perdure.benchmarks.figures import Outcome, Sweep, WrongOutcomeError
from perdure.benchmarks.isolation import measure_isolation
from perdure.benchmarks.rebalance import measure_rebalance
from perdure.benchmarks.schedule import Arrivals, partition_of
from perdure.benchmarks.sharding import (
    measure_sharding,
)
from perdure.benchmarks.stripes import measure_stripes
from perdure.benchmarks.workloads import Meter
from tests.benchmarks.sizes import make_small

Measure = Callable[[Bench], Awaitable[Outcome]]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def a_bench(folder: Path | None = None, make_hub: MakeHub = Hub, n: int = 64) -> Bench:
    # What a hub of its own loses is given up soon, and what a busy machine holds up is not.
    stalled_s = 10.0 if make_hub is Hub else 0.3
    return Bench(Options(n=n, concurrency=8, stalled_s=stalled_s), folder, make_hub=make_hub)


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [leaf for one in group.exceptions for leaf in leaves(one)]
    return [error]


def points(sweep: Sweep, *heads: str) -> list[tuple[Any, ...]]:
    return list(zip(*(sweep.column(head) for head in heads), strict=True))


class Sabotage:
    """A client that falsifies, cuts short or doubles what drivers are told to send, or calls."""

    def __init__(self, client: Client, kind: str) -> None:
        self._client: Any = client
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def start_new(self, f: Any, input: Any, *, instance_id: str) -> Any:
        if isinstance(input, Order):
            if self._kind == "falsify":
                input = evolve(input, first=input.first + 1)
            elif self._kind == "cut short":
                input = evolve(input, drawn=input.drawn[:-1])
            elif self._kind == "double":
                twin = await self._client.start_new(f, input, instance_id=f"{instance_id}-twin")
                await twin.result()
        elif self._kind == "falsify":
            input = [input[0], input[1] + 1]
        return await self._client.start_new(f, input, instance_id=instance_id)

    async def call_entity(self, id: Any, op: Any, *input: Any) -> Any:
        if self._kind == "double calls" and op is Meter.mark:
            await self._client.call_entity(id, op, *input)
        return await self._client.call_entity(id, op, *input)


def sabotaged(kind: str) -> MakeHub:
    class SabotagedHub(Hub):
        @property
        def client(self) -> Client:
            return cast(Client, Sabotage(super().client, kind))

    return SabotagedHub


@pytest.mark.by_turns
@pytest.mark.parametrize(
    "measure", [measure_sharding, measure_crossing, measure_stripes, measure_isolation]
)
@pytest.mark.parametrize("kind", ["falsify", "cut short", "double"])
async def test_a_wrong_outcome_is_never_reported_as_a_figure(measure: Measure, kind: str) -> None:
    with pytest.raises((WrongOutcomeError, ExceptionGroup)) as caught:
        await measure(a_bench(make_hub=sabotaged(kind)))

    found = leaves(caught.value)
    assert found
    assert all(isinstance(error, WrongOutcomeError) for error in found)


@pytest.mark.parametrize("kind", ["falsify", "cut short", "double"])
async def test_signals_that_are_not_as_planned_are_noticed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.benchmarks.sharding.LOADS", ("spread",))

    with pytest.raises((WrongOutcomeError, ExceptionGroup)) as caught:
        await measure_sharding(a_bench(make_hub=sabotaged(kind)))

    assert all(isinstance(error, WrongOutcomeError) for error in leaves(caught.value))


@pytest.mark.by_turns
@pytest.mark.parametrize("measure", [measure_isolation, measure_rebalance])
async def test_calls_that_were_made_twice_are_noticed(measure: Measure) -> None:
    with pytest.raises((WrongOutcomeError, ExceptionGroup)) as caught:
        await measure(a_bench(make_hub=sabotaged("double calls")))

    assert all(isinstance(error, WrongOutcomeError) for error in leaves(caught.value))


@pytest.mark.by_turns
async def test_a_signal_that_never_comes_counts_as_lost() -> None:
    # What is sent has come when its driver has ended, but for a moment.
    bench = Bench(Options(n=64, concurrency=8, stalled_s=2.0), None)
    plan = make_plan("meter", "x-", [0, 1, 0], ["one"])
    id = next(iter(plan.wanted))
    wrong = Plan(plan.orders, {**plan.wanted, id: [3, 2]})

    async with bench.hub(stripes.app) as hub:
        with pytest.raises(ExceptionGroup) as caught:
            await measure_plan(bench, hub, "x", wrong)

    assert [str(error) for error in leaves(caught.value)] == [
        "signals applied to @meter@x-0: 2 instead of 3"
    ]


@pytest.mark.by_turns
async def test_sharding_measures_each_load_on_each_number_of_shards() -> None:
    outcome = await measure_sharding(a_bench())

    [sweep] = outcome.sweeps
    assert points(sweep, "kind", "load", "shards") == [
        ("threads", load, shards) for load in ("hello", "spread", "skewed") for shards in (1, 2, 4)
    ]
    assert sweep.note.endswith("Worker processes cannot use memory: left out.")
    assert all(load.operations == 64 for load in outcome.loads)
    assert sweep.numbers("speedup", shards=1) == [1.0] * 3
    assert set(sweep.numbers("balance, max/mean messages", shards=1)) == {1.0}
    crossing = dict(points(sweep, "shards", "to other shards, % of signals")[3:6])
    assert crossing[1] == 0
    assert 0 < crossing[2] < crossing[4] <= 100
    # Children live beside their parents; one in four signals has its entity beside its driver.
    away = dict(points(sweep, "load", "to other partitions, % of messages"))
    assert away["hello"] == 0
    assert 30 < away["spread"] < 90


@pytest.mark.by_turns
async def test_crossing_compares_all_places_on_threads_and_on_processes(tmp_path: Path) -> None:
    outcome = await measure_crossing(a_bench(tmp_path))

    [sweep] = outcome.sweeps
    places = ("same partition", "another partition", "another shard")
    assert points(sweep, "kind", "to") == [
        (kind, place) for kind in ("threads", "processes") for place in places
    ]
    assert [load.operations for load in outcome.loads] == [64] * 12
    assert all(load.cpu_us > 0 and load.commits > 0 for load in outcome.loads)
    assert sweep.numbers("CPU, times the same partition", to="same partition") == [1.0, 1.0]
    assert len([fact for fact in outcome.facts if fact.target == 2.0]) == 4
    assert all(fact.value > 0 for fact in outcome.facts)


@pytest.mark.by_turns
async def test_stripes_keep_operations_where_they_were_sent_from() -> None:
    outcome = await measure_stripes(a_bench())

    [sweep] = outcome.sweeps
    assert points(sweep, "kind", "entity") == [("threads", "single"), ("threads", "striped")]
    single, striped = sweep.numbers("to other partitions, % of messages")
    assert striped < single
    [fact] = outcome.facts
    assert fact.value > 0
    assert fact.target is None  # of threads nothing is asked


@pytest.mark.by_turns
async def test_isolation_probes_each_place_under_each_load() -> None:
    outcome = await measure_isolation(a_bench(n=10))

    [sweep] = outcome.sweeps
    assert points(sweep, "kind", "cold entities on the", "load") == [
        (kind, place, load)
        for kind, place in (
            ("one loop", "same shard"),
            ("threads", "same shard"),
            ("threads", "another shard"),
        )
        for load in isolation.CONDITIONS
    ]
    assert sweep.column("operations/s", load=isolation.QUIET) == [None] * 3
    for condition in isolation.CONDITIONS[1:]:
        assert all(rate > 0 for rate in sweep.numbers("operations/s", load=condition))
    for base in (isolation.OF_SPREAD, isolation.OF_FEW):
        assert all(ratio > 0 for ratio in sweep.numbers(base, load=isolation.HOT))
        assert sweep.column(base, load=isolation.SPREAD) == [None] * 3
    assert [fact.target for fact in outcome.facts] == [None] * 4 + [1.1] * 2
    assert {
        name.rpartition(", ")[2]: one.total for name, one in outcome.histograms.items()
    } == dict.fromkeys(isolation.CONDITIONS, 20) | {isolation.MOST: 10}


@pytest.mark.by_turns("trio")
@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
async def test_isolation_offers_the_same_operations_spread_and_on_one_key(
    arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "ROUNDS", 1)
    started: list[tuple[str, list[int]]] = []

    class Watch(Sabotage):
        async def start_new(self, f: Any, input: Any, *, instance_id: str) -> Any:
            started.append((instance_id.partition("::")[0], input.drawn))
            return await super().start_new(f, input, instance_id=instance_id)

    class Watched(Hub):
        @property
        def client(self) -> Client:
            return cast(Client, Watch(super().client, "nothing"))

    options = Options(n=20, concurrency=8, arrivals=arrivals)
    await measure_isolation(Bench(options, None, make_hub=Watched))

    def is_of(keys: Callable[[int], bool]) -> list[tuple[str, list[int]]]:
        return [(home, drawn) for home, drawn in started if keys(len(set(drawn)))]

    loads = {
        "many": is_of(lambda n: n > 8),
        "few": is_of(lambda n: n == 8),
        "one": is_of({1}.__contains__),
    }
    assert {len(drawn) for _, drawn in started} == {isolation.ORDER}
    for load in loads.values():
        assert {partition_of(home, 4) for home, _ in load} == {0, 1, 2, 3}
    for keys in ("many", "few"):
        to = Counter(
            partition_of(f"@meter@load-{key}", 4) for _, drawn in loads[keys] for key in drawn
        )
        assert max(to.values()) <= 1.2 * min(to.values())
    assert {
        partition_of(f"@meter@load-{key}", 4) for _, drawn in loads["one"] for key in drawn
    } == {3}
