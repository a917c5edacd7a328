from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve

from perdure.benchmarks.figures import (
    Fact,
    Load,
    Outcome,
    Sweep,
    WrongOutcomeError,
    best_fact,
    best_load,
    by_name,
    expect,
    gather,
    joined,
    middle_fact,
    middle_load,
    middle_sweeps,
    percentile,
    percentiles_ms,
)
from perdure.benchmarks.histogram import Histogram
from perdure.benchmarks.report import target_words


def a_load(rate: float) -> Load:
    return Load(
        name="x",
        unit="ones",
        operations=100,
        requests=100,
        concurrency=1,
        seconds=100 / rate,
        p50_ms=1.0,
        p99_ms=2.0,
        cpu_us=3.0,
        commits=4,
        stored=5,
        written=None,
    )


@pytest.mark.parametrize(
    ("rates", "middle"), [([5.0], 5.0), ([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 2.0], 2.0)]
)
def test_repetitions_become_a_median_and_a_best_run(rates: list[float], middle: float) -> None:
    loads = [a_load(rate) for rate in rates]

    found = middle_load(loads).rate, best_load(loads).rate

    assert found == pytest.approx((middle, max(rates)))


@pytest.mark.parametrize(
    ("better", "value", "is_met", "words"),
    [
        ("lower", 1.1, True, "at most 1.1: met"),
        ("lower", 1.2, False, "at most 1.1: not met"),
        ("higher", 1.1, True, "at least 1.1: met"),
        ("higher", 1.0, False, "at least 1.1: not met"),
    ],
)
def test_a_target_is_met_by_what_is_as_good_or_better(
    better: Any, value: float, is_met: bool, words: str
) -> None:
    fact = Fact(name="x", value=value, unit="times", better=better, target=1.1)

    assert fact.is_met is is_met
    assert target_words(fact) == words


def test_a_figure_that_nothing_was_wanted_of_has_no_target() -> None:
    fact = Fact(name="x", value=1.0, unit="times")

    assert fact.is_met is None
    assert target_words(fact) == ""


@pytest.mark.parametrize(("better", "best"), [("lower", 1.0), ("higher", 6.0)])
def test_the_best_of_a_fact_is_in_its_own_direction(better: Any, best: float) -> None:
    facts = [Fact(name="x", value=value, unit="ms", better=better) for value in (6.0, 1.0, 2.0)]

    found = middle_fact(facts), best_fact(facts)

    assert found == (2.0, best)


@pytest.mark.parametrize(
    ("values", "percent", "wanted"),
    [
        ([1.0], 99, 1.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([float(value) for value in range(1, 101)], 99, 99.0),
        ([float(value) for value in range(1, 102)], 99, 100.0),
    ],
)
def test_a_percentile_is_by_nearest_rank(
    values: list[float], percent: float, wanted: float
) -> None:
    assert percentile(values, percent) == wanted


def test_percentiles_do_not_depend_on_the_order() -> None:
    assert percentiles_ms(array("d", [0.003, 0.001, 0.002])) == (2.0, 3.0)


def a_sweep(*rows: Sequence[str | float | None]) -> Outcome:
    return Outcome(sweeps=[Sweep(name="x", heads=("kind", "at", "rate"), rows=rows)])


def test_repetitions_of_a_sweep_become_medians_cell_by_cell() -> None:
    outcomes = [
        a_sweep(["a", 1, 10.0], ["b", 1, None]),
        a_sweep(["a", 1, 30.0], ["b", 1, None]),
        a_sweep(["a", 1, 20.0], ["b", 1, None]),
    ]

    sweep = middle_sweeps(outcomes)["x"]

    assert sweep.rows == [["a", 1, 20.0], ["b", 1, None]]
    assert sweep.column("rate", kind="b") == [None]


def test_repetitions_of_different_length_are_shown_by_the_first() -> None:
    outcomes = [a_sweep(["a", 1, 10.0]), a_sweep(["a", 1, 30.0], ["a", 2, 30.0])]

    assert middle_sweeps(outcomes)["x"] == outcomes[0].sweeps[0]


def test_repetitions_add_up_their_histograms() -> None:
    outcomes = [
        Outcome(histograms={"x": Histogram([0.001])}, facts=[Fact(name="f", value=1.0, unit="s")]),
        Outcome(histograms={"x": Histogram([0.003])}, facts=[Fact(name="f", value=3.0, unit="s")]),
    ]

    figures = gather(outcomes)

    assert figures.histograms["x"].total == 2
    assert figures.facts == {"f": 2.0}


def test_tables_of_different_form_are_shown_by_the_first() -> None:
    outcomes = [a_sweep(["a", 1, 10.0], ["b", 1, 1.0]), a_sweep(["a", 1, 30.0], ["b", 1])]

    assert middle_sweeps(outcomes)["x"] == outcomes[0].sweeps[0]


def test_what_some_repetitions_could_not_measure_is_the_median_of_the_others() -> None:
    outcomes = [a_sweep(["a", 1, cell]) for cell in (None, 10.0, 30.0)]

    assert middle_sweeps(outcomes)["x"].rows == [["a", 1, 20.0]]


def test_a_column_is_of_the_rows_that_are_asked_for_and_what_is_missing_is_no_number() -> None:
    sweep = Sweep(name="x", heads=("kind", "at", "rate"), rows=[["a", 1, 2.0], ["b", 1, None]])

    assert sweep.column("rate") == [2.0, None]
    assert sweep.column("rate", kind="a", at=1) == [2.0]
    assert sweep.column("rate", kind="c") == []
    assert sweep.numbers("rate", kind="a") == [2.0]
    assert sweep.numbers("rate", kind="b") != sweep.numbers("rate", kind="b")  # not a number


def test_an_outcome_that_is_not_the_one_wanted_is_refused_in_a_few_words() -> None:
    expect("sum", 3, 3)
    with pytest.raises(WrongOutcomeError, match="sum: 2 instead of 3"):
        expect("sum", 2, 3)
    with pytest.raises(WrongOutcomeError) as raised:
        expect("all", [0] * 10_000, 3)
    assert len(str(raised.value)) < 300


def test_a_load_says_how_fast_it_was_and_how_many_processors_it_kept_busy() -> None:
    load = evolve(a_load(50.0), cpu_us=30_000.0)

    assert load.rate == pytest.approx(50)
    assert load.cores == pytest.approx(1.5)


def test_parts_of_a_benchmark_are_put_together_in_order() -> None:
    one = Outcome(
        loads=[a_load(1.0)],
        facts=[Fact(name="f", value=1.0, unit="s")],
        histograms={"x": Histogram([0.001])},
        verified=["this"],
    )
    other = Outcome(
        facts=[Fact(name="g", value=2.0, unit="s")],
        sweeps=a_sweep(["a"]).sweeps,
        histograms={"y": Histogram([0.002])},
        verified=["that"],
    )

    found = joined(iter([one, other]))

    assert [fact.name for fact in found.facts] == ["f", "g"]
    assert (len(found.loads), len(found.sweeps), [*found.histograms]) == (1, 1, ["x", "y"])
    assert found.verified == ["this", "that"]


def test_repetitions_are_put_together_by_the_names_of_what_they_measured() -> None:
    outcomes = [
        Outcome(
            loads=[a_load(rate), evolve(a_load(rate), name="y")],
            facts=[Fact(name="f", value=rate, unit="s")],
        )
        for rate in (1.0, 2.0)
    ]

    loads, facts = by_name(outcomes)

    assert {name: [round(load.rate) for load in runs] for name, runs in loads.items()} == {
        "x": [1, 2],
        "y": [1, 2],
    }
    assert [fact.value for fact in facts["f"]] == [1.0, 2.0]


def test_of_a_target_the_median_is_shown() -> None:
    outcomes = [
        Outcome(
            facts=[
                Fact(name="f", value=value, unit="s", target=2.0),
                Fact(name="g", value=value, unit="s"),
            ]
        )
        for value in (1.0, 9.0, 3.0)
    ]

    figures = gather(outcomes)

    assert [(fact.name, fact.value, fact.is_met) for fact in figures.targets] == [("f", 3.0, False)]
    assert figures.facts == {"f": 3.0, "g": 3.0}
