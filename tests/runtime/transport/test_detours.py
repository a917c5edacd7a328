from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from perdure.runtime.transport.detours import DETOUR_AFTER_S, STEADY_S, Outage


def test_a_line_that_is_down_for_a_second_goes_the_long_way() -> None:
    outage = Outage(100.0)

    assert outage.wait_s(100.0) == DETOUR_AFTER_S
    assert outage.wait_s(100.75) == 0.25
    assert outage.wait_s(101.0) == 0
    assert outage.wait_s(500.0) == 0


def test_a_line_that_is_up_does_not() -> None:
    outage = Outage(100.0)
    outage.came_up(100.5)

    assert outage.wait_s(1_000.0) is None


def test_a_line_that_was_well_has_a_second_to_come_back() -> None:
    outage = Outage(100.0)
    outage.came_up(100.1)
    outage.broke(200.0)

    assert outage.wait_s(200.0) == DETOUR_AFTER_S
    outage.came_up(200.9)
    assert outage.wait_s(201.5) is None


def test_a_line_that_comes_and_goes_goes_the_long_way_as_soon_as_it_breaks() -> None:
    outage = Outage(100.0)
    for n in range(10):
        outage.came_up(100.2 + n)
        outage.broke(100.2 + n + STEADY_S / 2)

    assert outage.wait_s(110.0) == 0


@pytest.mark.parametrize("tries", [1, 2, 3, 50])
def test_the_long_way_is_tried_again_later_and_later_but_within_bounds(tries: int) -> None:
    outage = Outage(0.0)
    now, wait = 10.0, None
    for _ in range(tries):
        outage.detour_ended(now)
        wait = outage.wait_s(now)
        assert wait is not None
        now += wait

    assert wait == min(0.25 * 2 ** (tries - 1), 4.0)
    outage.detour_served()
    outage.detour_ended(now)
    assert outage.wait_s(now) == 0.25


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("ubse")), max_size=40))
def test_whatever_happens_a_line_that_stays_down_goes_the_long_way_within_seconds(
    events: list[tuple[float, str]],
) -> None:
    now = 0.0
    outage = Outage(now)
    for later, event in events:
        now += later
        if event == "u":
            outage.came_up(now)
        elif event == "b":
            outage.broke(now)
        elif event == "s":
            outage.detour_served()
        else:
            outage.detour_ended(now)
    outage.broke(now)

    wait = outage.wait_s(now)
    assert wait is not None
    assert wait <= 4.0 + 1e-6
    assert outage.wait_s(now + wait + 1e-6) == 0
