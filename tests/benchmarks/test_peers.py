"""The comparison with other frameworks takes turns, checks everybody, and hides nobody.

The others are not installed here: they are represented by fakes, and Perdure by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from time import perf_counter

import anyio
import orjson
import pytest
from rich.console import Console

from perdure.benchmarks.peers import command
from perdure.benchmarks.peers.contender import (
    NAMES,
    OURS,
    Contender,
    Needs,
    NotAvailableError,
    Place,
    contender_class,
    doubles,
    greetings,
)
from perdure.benchmarks.peers.environment import prepare
from perdure.benchmarks.peers.host import first_cause
from perdure.benchmarks.peers.measure import (
    LOADS,
    Course,
    Figure,
    Size,
    WrongOutcomeError,
    percentiles_ms,
)
from perdure.benchmarks.peers.race import Rounds, Run, race, rates, ratio, run_apart
from perdure.benchmarks.peers.table import (
    Comparison,
    figure_rows,
    print_comparison,
    write_json,
    write_markdown,
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


def run_at(name: str, rate: float) -> Run:
    figure = Figure(
        load="hello",
        unit="orchestrations",
        operations=int(rate * 10),
        in_flight=4,
        seconds=10,
        p50_ms=1.0,
        p99_ms=2.0,
    )
    return Run(name, version="1.0", figures=[figure])


def test_contenders_take_turns() -> None:
    order: list[tuple[str, int]] = []

    def run_one(name: str, number: int) -> Run:
        order.append((name, number))
        return Run(name)

    race(["a", "b", "c"], 2, run_one)

    assert order == [(name, number) for number in (0, 1) for name in ("a", "b", "c")]


def test_who_is_not_available_is_not_asked_again_and_stays_in_the_list() -> None:
    asked: list[str] = []

    def run_one(name: str, number: int) -> Run:
        asked.append(name)
        return Run(name, unavailable="no such program" if name == "b" else None)

    rounds = race(["a", "b"], 3, run_one)

    assert asked == ["a", "b", "a", "a"]
    assert [runs["b"].unavailable for runs in rounds] == ["no such program"] * 3


def rounds_of(ours: Sequence[float], theirs: Sequence[float]) -> Rounds:
    return [
        {OURS: run_at(OURS, our), "restate": run_at("restate", their)}
        for our, their in zip(ours, theirs, strict=True)
    ]


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    # The machine slowed down for the whole of the second round: 4, 5 and 10 times all the same.
    rounds = rounds_of([400, 50, 1_000], [100, 10, 100])

    assert ratio(rounds, "restate", "hello", OURS) == 5
    assert ratio(rounds, OURS, "hello", OURS) == 1
    assert rates(rounds, "restate", "hello") == [100, 10, 100]


def test_a_wrong_run_counts_for_nothing() -> None:
    rounds = rounds_of([400, 400, 400], [100, 10, 100])
    rounds[1]["restate"].wrong = "counted twice"

    assert rates(rounds, "restate", "hello") == [100, 100]
    assert ratio(rounds, "restate", "hello", OURS) == 4


def test_without_perdure_there_is_no_ratio() -> None:
    assert ratio([{"restate": run_at("restate", 1)}], "restate", "hello", OURS) is None


def test_the_table_says_who_was_wrong_and_who_is_missing_and_why(tmp_path: Path) -> None:
    rounds = rounds_of([400, 400], [100, 10])
    rounds[1]["restate"].wrong = "counted twice"
    for runs in rounds:
        runs["dbos-postgres"] = Run("dbos-postgres", unavailable="no PostgreSQL")
    comparison = Comparison(description={"command": "x"}, rounds=rounds)

    rows = {(row[0], row[1]): row for row in figure_rows(comparison)}
    console = Console(file=StringIO(), record=True, width=200)
    print_comparison(console, comparison)
    write_markdown(tmp_path / "table.md", comparison)
    write_json(tmp_path / "runs.json", comparison)

    assert rows["hello", OURS][3:7] == ["400", "400", "400", "1.0 x"]
    assert rows["hello", "restate"][3:7] == ["100", "100", "100", "4.0 x"]
    assert rows["hello", "restate"][-1] == "WRONG: 1 of 2"
    assert rows["hello", "dbos-postgres"][-1] == "not available"
    for shown in (console.export_text(), (tmp_path / "table.md").read_text("utf-8")):
        assert "not available: no PostgreSQL" in shown
        assert "WRONG: 1 of 2" in shown
    written = orjson.loads((tmp_path / "runs.json").read_bytes())
    assert [runs["restate"]["verified"] for runs in written["rounds"]] == [True, False]
    assert written["rounds"][0][OURS]["figures"][0]["rate"] == 400


def test_every_contender_says_what_it_promises() -> None:
    for name in NAMES:
        found = contender_class(name)
        assert found.durability
        assert found.tuning
        assert found.entity


def test_what_pip_cannot_install_is_not_available(tmp_path: Path) -> None:
    needs = Needs(name="nobody", python=(str(tmp_path / "no-such-package"),))

    with pytest.raises(NotAvailableError, match="no-such-package"):
        prepare(needs, tmp_path)
    assert not (tmp_path / "nobody" / "installed").exists()


def test_perdure_itself_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    only = ["--only", "perdure-sqlite", "perdure-memory"]

    status = command.main([*only, "--rounds", "1", "-n", "20", "--quiet", "--json", str(file)])

    (runs,) = orjson.loads(file.read_bytes())["rounds"]
    assert status == 0
    for name in only[1:]:
        assert runs[name]["verified"], runs[name]
        assert [figure["load"] for figure in runs[name]["figures"]] == list(LOADS)


def test_a_contender_that_breaks_fails_the_run(tmp_path: Path) -> None:
    run = run_apart("perdure-memory", Size(seconds=0), tmp_path, lambda load: None)

    assert not run.verified
    assert run.wrong is not None
    assert "ended with status 1" in run.wrong


def test_a_wrong_run_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(name: str, *_: object) -> Run:
        return Run(name, wrong="counted twice")

    def gone(name: str, *_: object) -> Run:
        return Run(name, unavailable="no such program")

    monkeypatch.setattr(command, "run_apart", gone)
    assert command.main(["--only", "restate", "--rounds", "1"]) == 0
    assert "not available: no such program" in capsys.readouterr().out
    monkeypatch.setattr(command, "run_apart", wrong)
    assert command.main(["--only", "restate", "--rounds", "1"]) == 1
    assert "restate FAILED in round 1: counted twice" in capsys.readouterr().err
