from __future__ import annotations

from pathlib import Path
from typing import cast

import anyio
import pytest

from perdure import Hub
from perdure.benchmarks.bench import Bench, MakeHub, Options
from perdure.benchmarks.figures import WrongOutcomeError, gather
from perdure.benchmarks.rebalance import BIN_S, in_bins, longest_gap, measure_rebalance
from perdure.benchmarks.schedule import partition_of
from tests.benchmarks.sizes import make_small


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


@pytest.mark.by_turns
async def test_rebalance_moves_a_partition_in_the_middle_and_checks_the_totals() -> None:
    moved: list[tuple[int, int]] = []

    class Watched(Hub):
        async def move_partition(self, partition: int, to: int) -> None:
            moved.append((partition, to))
            await super().move_partition(partition, to)

    outcome = await measure_rebalance(a_bench(make_hub=Watched, n=600))

    facts = {fact.name: fact.value for fact in outcome.facts}
    [sweep] = outcome.sweeps
    calls = [
        sum(sweep.numbers(head)) * BIN_S
        for head in ("moved partition, calls/s", "other partitions, calls/s")
    ]
    assert moved == [(0, 1)]
    assert 0 < facts["rebalance with threads: move began"] < outcome.loads[0].seconds
    assert facts["rebalance with threads: pause of the moved partition"] > 0
    assert round(sum(calls)) == 600
    assert min(calls) > 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # pictures are the same on both
async def test_rebalance_between_processes_is_drawn_beside_that_between_threads(
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    from perdure.benchmarks.plots import draw

    outcome = await measure_rebalance(a_bench(tmp_path, n=600))

    picture = draw("rebalancing", gather([outcome]), tmp_path)
    assert set(outcome.sweeps[0].column("kind")) == {"threads", "processes"}
    assert "Threads: answers" in picture.svg
    assert "Processes: answers" in picture.svg


@pytest.mark.by_turns
async def test_rebalance_refuses_a_move_that_loses_work() -> None:
    class Losing(Hub):
        async def move_partition(self, partition: int, to: int) -> None:
            found = [one.entity_id async for one in self.client.query_entities()]
            [first, *_] = [id for id in found if partition_of(str(id), 4) == partition]
            await self.client.purge_entity(first)
            await super().move_partition(partition, to)

    with pytest.raises((WrongOutcomeError, ExceptionGroup)) as caught:
        await measure_rebalance(a_bench(make_hub=Losing, n=600))

    assert "moving-" in str(leaves(caught.value)[0])


async def test_rebalance_refuses_a_move_that_did_not_happen() -> None:
    class Lazy(Hub):
        async def move_partition(self, partition: int, to: int) -> None:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(ExceptionGroup) as caught:
        await measure_rebalance(a_bench(make_hub=Lazy, n=600))

    assert "shard that serves the moved partition" in str(leaves(caught.value)[0])


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
