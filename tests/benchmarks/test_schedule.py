"""What is sent when, and to whom, is drawn beforehand and the same in every run."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from perdure.benchmarks.schedule import (
    Arrivals,
    arrivals,
    draw_with_share,
    draw_zipf,
    partition_of,
    tally,
)


@pytest.mark.parametrize("kind", ["poisson", "constant"])
def test_arrivals_are_in_order_at_the_rate_and_the_same_again(kind: Arrivals) -> None:
    times = arrivals(kind, 10_000, rate=500.0)

    assert times == arrivals(kind, 10_000, rate=500.0)
    assert list(times) == sorted(times)
    assert times[0] > 0
    assert times[-1] == pytest.approx(20, rel=0.05)


def test_constant_arrivals_are_evenly_apart_and_poisson_ones_are_not() -> None:
    def gaps(kind: Arrivals) -> list[float]:
        times = arrivals(kind, 1_000, rate=10.0)
        return [after - before for before, after in pairwise(times)]

    assert max(gaps("constant")) == pytest.approx(min(gaps("constant")))
    assert max(gaps("poisson")) > 3 * 0.1


@pytest.mark.parametrize("percent", [0, 10, 50, 100])
def test_one_key_gets_its_share_and_the_others_the_rest(percent: int) -> None:
    n, keys = 20_000, 101

    drawn = Counter(draw_with_share(n, keys, percent / 100, seed=percent))

    assert drawn[0] / n == pytest.approx(percent / 100, abs=0.02)
    assert (len(drawn) > 90) == (percent < 100)
    assert max(drawn) < keys


def test_zipf_with_exponent_zero_is_even_and_with_one_halves_from_rank_to_rank() -> None:
    n, keys = 50_000, 100

    even = Counter(draw_zipf(n, keys, 0.0, seed=1))
    skewed = Counter(draw_zipf(n, keys, 1.0, seed=1))

    assert max(even.values()) < 1.5 * min(even.values())
    assert skewed[0] / skewed[1] == pytest.approx(2, rel=0.1)
    assert skewed[0] / skewed[3] == pytest.approx(4, rel=0.1)
    assert draw_zipf(n, keys, 1.0, seed=1) == draw_zipf(n, keys, 1.0, seed=1)


def test_a_tally_adds_up_what_each_key_gets() -> None:
    counts, totals = [1, 0, 0], [5, 0, 0]

    tally([2, 0, 2], counts, totals)

    assert (counts, totals) == ([2, 0, 2], [6, 0, 2])


def test_an_id_lies_where_its_beginning_says() -> None:
    places = {partition_of(f"order-7{rest}", 4) for rest in ("", "::items", "::x::y")}

    assert len(places) == 1
