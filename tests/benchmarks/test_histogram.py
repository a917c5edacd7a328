"""Histograms give the percentiles that sorting gives, to three digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from perdure.benchmarks.histogram import PERCENTS, Histogram, rank

SECONDS = st.floats(0, 3_600, allow_nan=False)


def exact_ms(values: list[float], percent: float) -> float:
    return sorted(values)[rank(len(values), percent) - 1] * 1e3


@given(st.lists(SECONDS, min_size=1, max_size=200))
def test_percentiles_are_those_of_sorting_and_at_most_a_thousandth_above(
    values: list[float],
) -> None:
    histogram = Histogram(values)

    for percent in (0.0, *PERCENTS, 100.0):
        exact = exact_ms(values, percent)
        # Half a nanosecond is lost on the way in.
        assert exact - 1e-6 <= histogram.percentile_ms(percent) <= exact * 1.001 + 1e-6
    assert histogram.max_ms == max(values) * 1e3


@given(st.lists(SECONDS, min_size=1, max_size=50), st.lists(SECONDS, max_size=50))
def test_two_histograms_added_are_one_of_all_values(
    first: list[float], second: list[float]
) -> None:
    added = Histogram(first)
    added.add(Histogram(second))

    whole = Histogram(first + second)

    assert added.total == whole.total
    assert added.percentiles_ms(PERCENTS) == whole.percentiles_ms(PERCENTS)


@pytest.mark.parametrize(
    ("total", "percent", "wanted"),
    [(10_000, 99.99, 9_999), (1_000, 99.9, 999), (3, 50, 2), (1, 99, 1), (5, 0, 1), (7, 100, 7)],
)
def test_a_rank_is_the_nearest_whatever_floating_point_makes_of_it(
    total: int, percent: float, wanted: int
) -> None:
    assert rank(total, percent) == wanted


@pytest.mark.parametrize(
    ("n", "known"), [(1, 0), (2, 1), (99, 2), (100, 3), (1_000, 4), (10_000, 5)]
)
def test_a_percentile_that_no_value_lies_above_is_not_given(n: int, known: int) -> None:
    tail = Histogram(number / 1e3 for number in range(n)).tail_ms()

    assert [value is not None for value in tail] == [True] * known + [False] * (5 - known)


def test_a_curve_rises_from_the_median_to_the_last_value_but_few() -> None:
    curve = Histogram(number / 1e3 for number in range(1, 1_001)).curve()

    percents = [percent for percent, _ in curve]
    times = [time for _, time in curve]
    assert percents[0] == 50
    assert percents[-1] == pytest.approx(99.9)
    assert percents == sorted(percents)
    assert times == sorted(times)
    assert times[0] == pytest.approx(500, rel=1e-3)
    assert times[-1] == pytest.approx(999, rel=1e-3)


def test_an_empty_histogram_has_no_percentiles() -> None:
    with pytest.raises(ValueError, match="empty"):
        Histogram().percentile_ms(50)


def test_numbers_far_apart_fit_into_one_histogram() -> None:
    histogram = Histogram([1e-6, 3_600.0])

    low, high = histogram.percentiles_ms([50, 100])

    assert math.isclose(low, 1e-3, rel_tol=1e-3)
    assert high == 3_600e3
