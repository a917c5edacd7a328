"""The comparison with other frameworks takes turns, checks everybody, and hides nobody.

The others are not installed here: they are represented by fakes, and Perdure by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import anyio
import pytest

from perdure.benchmarks.peers.contender import (
    Contender,
    Place,
    doubles,
    greetings,
)
from perdure.benchmarks.peers.host import first_cause
from perdure.benchmarks.peers.measure import (
    LOADS,
    Course,
    Size,
    WrongOutcomeError,
    percentiles_ms,
)

SMALL = Size(seconds=60, concurrency=4, n=20)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # what the contenders run on


class Honest(Contender):
    """Does what it is asked."""

    durability = tuning = entity = "-"

    def __init__(self) -> None:
        self.sums: dict[str, tuple[int, int]] = {}

    async def start(self, place: Place) -> str:
        return "1.0"

    async def hello(self, number: int) -> list[str]:
        await anyio.lowlevel.checkpoint()
        return greetings(number)

    async def fanout(self, start: int) -> list[int]:
        return doubles(start)

    async def add(self, key: str, number: int) -> None:
        await anyio.lowlevel.checkpoint()
        count, total = self.sums.get(key, (0, 0))
        self.sums[key] = count + 1, total + number

    async def totals(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        return {key: self.sums[key] for key in keys if key in self.sums}

    async def stop(self) -> None:
        pass


class FalsifiesGreetings(Honest):
    async def hello(self, number: int) -> list[str]:
        return greetings(number if number % 7 else number + 1)


class SwapsDoubles(Honest):
    async def fanout(self, start: int) -> list[int]:
        return [*reversed(doubles(start))]


class LosesAdditions(Honest):
    async def add(self, key: str, number: int) -> None:
        if number != 7:
            await super().add(key, number)


class DoublesAdditions(Honest):
    async def add(self, key: str, number: int) -> None:
        await super().add(key, number)
        if number == 7:
            await super().add(key, number)


class AddsSomethingElse(Honest):
    async def add(self, key: str, number: int) -> None:
        await super().add(key, number + 1 if number == 7 else number)


class Late(Honest):
    """Accepts at once, and applies when it is asked whether it has."""

    answers = False
    lag_s = 0.05

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[tuple[str, int]] = []

    async def add(self, key: str, number: int) -> None:
        self.accepted.append((key, number))

    async def applied(self, counts: Mapping[str, int]) -> None:
        await anyio.sleep(self.lag_s)
        for key, number in self.accepted:
            await super().add(key, number)
        self.accepted.clear()


async def test_a_contender_that_does_as_asked_is_measured() -> None:
    figures = {load: await run(Course(Honest(), SMALL)) for load, run in LOADS.items()}

    assert {load: figure.operations for load, figure in figures.items()} == {
        "hello": 20,
        "hello-alone": 20,
        "fanout": 1_000,
        "hot": 20,
        "spread": 20,
    }
    assert {load: figure.in_flight for load, figure in figures.items()} == {
        "hello": 4,
        "hello-alone": 1,
        "fanout": 1,
        "hot": 4,
        "spread": 4,
    }
    assert all(figure.p50_ms is not None and figure.rate > 0 for figure in figures.values())


@pytest.mark.parametrize(
    ("load", "make"),
    [
        ("hello", FalsifiesGreetings),
        ("hello-alone", FalsifiesGreetings),
        ("fanout", SwapsDoubles),
        ("hot", LosesAdditions),
        ("hot", DoublesAdditions),
        ("hot", AddsSomethingElse),
        ("spread", LosesAdditions),
        ("spread", DoublesAdditions),
        ("spread", AddsSomethingElse),
    ],
)
async def test_a_wrong_outcome_gives_no_figure(load: str, make: Callable[[], Contender]) -> None:
    with pytest.raises((WrongOutcomeError, BaseExceptionGroup)) as caught:
        await LOADS[load](Course(make(), SMALL))

    assert isinstance(first_cause(caught.value), WrongOutcomeError)


async def test_time_until_applied_counts_and_acceptance_is_no_latency() -> None:
    figure = await LOADS["hot"](Course(Late(), SMALL))

    assert figure.seconds >= Late.lag_s
    assert (figure.p50_ms, figure.p99_ms) == (None, None)


async def test_a_load_ends_when_its_time_is_over() -> None:
    begun = perf_counter()
    figure = await LOADS["hello"](Course(Honest(), Size(seconds=0.05, concurrency=2)))

    assert figure.seconds >= 0.05
    assert figure.operations > 2
    assert perf_counter() - begun < 30


def test_percentiles_are_nearest_ranks_and_few_requests_have_no_99th() -> None:
    assert percentiles_ms([0.003, 0.001, 0.002]) == (2.0, None)
    p50, p99 = percentiles_ms([number / 1e3 for number in range(200, 0, -1)])
    assert (p50, p99) == (100.0, 198.0)
