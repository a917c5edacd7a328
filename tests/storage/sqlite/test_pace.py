"""Turns of the appliers, and the rests behind them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from perdure.storage.sqlite.pace import REST_MAX_S, RESTS, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += seconds


def test_the_rest_behind_a_turn_is_some_times_as_long() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.book() == 100.0

    pace.take(lambda: clock.go_on(0.002))

    assert pace.book() == pytest.approx(100.002 + RESTS * 0.002)


def test_what_is_booked_for_later_is_booked_once() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.take(lambda: clock.go_on(0.002))

    times = [pace.book() for _ in range(3)]

    length = 0.002 + RESTS * 0.002
    assert times == pytest.approx([100.0 + length, 100.0 + 2 * length, 100.0 + 3 * length])


def test_after_a_long_pause_a_turn_is_to_be_had_at_once() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.take(lambda: clock.go_on(0.002))

    clock.go_on(1.0)

    assert pace.book() == clock.now


def test_a_turn_that_took_longer_than_the_last_one_puts_off_what_is_not_booked() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.take(lambda: clock.go_on(0.001))
    clock.now = pace.book()
    began = clock.now

    pace.take(lambda: clock.go_on(0.010))

    assert pace.book() == pytest.approx(began + 0.010 + RESTS * 0.010)


def test_phases_that_follow_one_another_are_far_from_each_other() -> None:
    pace = Pace()

    for n in (2, 4, 8):
        phases = sorted(pace.phase() for _ in range(n))

        gaps = [b - a for a, b in pairwise([*phases, phases[0] + 1])]
        assert min(gaps) > 0.5 / n
        assert max(gaps) < 2 / n


def test_a_turn_that_was_held_up_makes_no_longer_rest_than_there_may_be() -> None:
    clock = Clock()
    pace = Pace(clock)

    pace.take(lambda: clock.go_on(10.0))

    assert pace.book() == pytest.approx(110.0 + REST_MAX_S)


def test_there_is_a_rest_behind_a_turn_that_failed_and_then_another_turn() -> None:
    clock = Clock()
    pace = Pace(clock)

    def fail() -> None:
        clock.go_on(0.002)
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        pace.take(fail)

    assert pace.book() == pytest.approx(100.002 + RESTS * 0.002)
    pace.take(lambda: None)
