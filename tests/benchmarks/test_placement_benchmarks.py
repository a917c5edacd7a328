"""``sharding`` and ``rebalance``, on a stand-in for a hub with shards, since hubs have none yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import App, Hub, HubStatistics, PartitionStatistics
from perdure.benchmarks import sharding
from perdure.benchmarks.bench import Bench, Options
from perdure.benchmarks.figures import WrongOutcomeError, gather
from perdure.benchmarks.rebalance import BIN_S, in_bins, longest_gap, measure_rebalance
from perdure.benchmarks.schedule import partition_of
from perdure.benchmarks.sharding import (
    balance_of,
    cross_percent,
    drivers,
    make_plan,
    measure_sharding,
    place_in,
)
from perdure.benchmarks.workloads import Meter


class OneLoop(Hub):
    """Takes all that hubs with shards take, and serves it from one loop."""

    def __init__(self, app: App, *, shards: int = 1, workers: int = 0, **options: Any) -> None:
        super().__init__(app, **options)
        self.moved: list[tuple[int, int]] = []

    async def move_partition(self, partition: int, *, to: int) -> None:
        await anyio.lowlevel.checkpoint()
        self.moved.append((partition, to))


async def test_sharding_gives_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "ENTITIES", 50)
    bench = Bench(Options(n=64, concurrency=8), None, make_hub=OneLoop)

    outcome = await measure_sharding(bench)

    [sweep] = outcome.sweeps
    points = list(zip(*(sweep.column(head) for head in ("kind", "load", "shards")), strict=True))
    assert points == [
        (kind, load, shards)
        for kind in ("threads", "processes")
        for load in ("hello", "spread", "skewed")
        for shards in (1, 2, 4)
    ]
    assert all(load.operations == 64 for load in outcome.loads)
    assert sweep.numbers("speedup", shards=1) == [1.0] * 6
    # One loop is one shard, whatever it was asked for.
    assert set(sweep.numbers("balance, max/mean turns")) == {1.0}
    assert set(sweep.numbers("cross-shard messages, %")) == {0.0}


async def test_sharding_refuses_calls_that_were_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubling(OneLoop):
        async def statistics(self) -> HubStatistics:
            await self.client.call_entity(sharding.meter(0), Meter.mark, 7)
            return await super().statistics()

    monkeypatch.setattr(sharding, "ENTITIES", 5)
    bench = Bench(Options(n=32, concurrency=8), None, make_hub=Doubling)

    with pytest.raises(ExceptionGroup) as caught:
        await measure_sharding(bench)

    assert caught.group_contains(WrongOutcomeError, match="shard-0")


@pytest.mark.parametrize("partitions", [1, 2, 4, 12])
def test_drivers_lie_in_all_partitions_in_equal_numbers(partitions: int) -> None:
    places = [partition_of(id, partitions) for id in drivers(partitions)]

    assert sorted(places) == sorted([*range(partitions)] * 4)
    assert len(set(drivers(partitions))) == len(places)
    assert partition_of(place_in(partitions - 1, partitions, "x"), partitions) == partitions - 1


def test_a_plan_hands_out_every_call_once_and_is_the_same_again() -> None:
    plan = make_plan(500, 1.0, 4)

    numbers = sorted(number for calls in plan.calls for _, number in calls)
    assert numbers == list(range(500))
    assert sum(plan.counts) == 500
    assert sum(plan.totals) == sum(range(500))
    assert plan == make_plan(500, 1.0, 4)


def test_calls_cross_between_shards_and_not_inside_one() -> None:
    plan = make_plan(2_000, 0.0, 4)

    assert cross_percent(plan, 4, {0: 0, 1: 0, 2: 0, 3: 0}) == 0
    assert cross_percent(plan, 4, {0: 0, 1: 1, 2: 0, 3: 1}) == pytest.approx(50, abs=5)
    assert cross_percent(plan, 4, {0: 0, 1: 1, 2: 2, 3: 3}) == pytest.approx(75, abs=5)


def test_balance_is_the_busiest_shard_over_the_mean() -> None:
    def counted(*turns: int) -> HubStatistics:
        rest = {"commits": 0, "failed_operations": 0, "waiting": 0}
        return HubStatistics(
            partitions=tuple(
                PartitionStatistics(index=index, turns=one, activations=0, stored_bytes=0, **rest)
                for index, one in enumerate(turns)
            )
        )

    found = balance_of(counted(1, 1, 1, 1), counted(31, 11, 31, 11), {0: 0, 1: 1, 2: 0, 3: 1})

    assert found == pytest.approx(60 / 40)


async def test_rebalance_moves_a_partition_in_the_middle_and_checks_the_totals() -> None:
    hubs: list[OneLoop] = []

    def make_hub(app: App, **options: Any) -> OneLoop:
        hubs.append(OneLoop(app, **options))
        return hubs[-1]

    bench = Bench(Options(n=600, concurrency=8), None, make_hub=make_hub)

    outcome = await measure_rebalance(bench)

    facts = {fact.name: fact.value for fact in outcome.facts}
    [sweep] = outcome.sweeps
    calls = [
        sum(sweep.numbers(head)) * BIN_S
        for head in ("moved partition, calls/s", "other partitions, calls/s")
    ]
    assert hubs[0].moved == [(0, 1)]
    assert 0 < facts["rebalance: move began"] < outcome.loads[0].seconds
    assert facts["rebalance: pause of the moved partition"] > 0
    assert round(sum(calls)) == 600
    assert min(calls) > 0


async def test_rebalance_refuses_a_move_that_loses_work() -> None:
    class Losing(OneLoop):
        async def move_partition(self, partition: int, *, to: int) -> None:
            found = [one.entity_id async for one in self.client.query_entities()]
            [first, *_] = [id for id in found if partition_of(str(id), 4) == partition]
            await self.client.purge_entity(first)

    bench = Bench(Options(n=600, concurrency=8), None, make_hub=Losing)

    with pytest.raises(WrongOutcomeError, match="moving-"):
        await measure_rebalance(bench)


def test_a_pause_is_the_longest_time_without_an_answer() -> None:
    assert longest_gap([0.0, 0.1, 0.5, 0.6]) == pytest.approx(0.4)
    assert longest_gap([3.0]) == 0


def test_answers_are_counted_in_bins_and_empty_ones_show() -> None:
    rows = in_bins([0.01, 0.02, 0.16], [0.06])

    assert rows == [
        [0.0, 2 / BIN_S, 0.0],
        [BIN_S, 0.0, 1 / BIN_S],
        [2 * BIN_S, 0.0, 0.0],
        [pytest.approx(3 * BIN_S), 1 / BIN_S, 0.0],
    ]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # pictures are the same on both
async def test_both_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from perdure.benchmarks.plots import draw

    monkeypatch.setattr(sharding, "ENTITIES", 20)
    options = Options(n=200, concurrency=8)
    for measure, section in ((measure_sharding, "shards"), (measure_rebalance, "rebalancing")):
        figures = gather([await measure(Bench(options, None, make_hub=OneLoop))])

        picture = draw(section, figures, tmp_path)

        assert picture.svg.startswith("<svg")
        assert (tmp_path / f"{section}.png").stat().st_size > 10_000
