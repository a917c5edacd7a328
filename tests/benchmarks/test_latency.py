from __future__ import annotations

import pytest

from perdure.benchmarks import latency
from perdure.benchmarks.figures import Cell
from perdure.benchmarks.latency import HEADS, IS_KEPT, KEPT_UP, SHARE


def row(share: int, kept: float | None) -> list[Cell]:
    cells: list[Cell] = [0.0] * len(HEADS)
    cells[HEADS.index(SHARE)], cells[HEADS.index(IS_KEPT)] = share, kept
    return cells


def test_loads_that_fell_behind_are_named() -> None:
    rows = [row(10, 1.0), row(75, KEPT_UP), row(90, KEPT_UP - 0.01), row(95, None)]

    assert "Fell behind the schedule at 90 %, 95 %:" in latency.judge(rows)
    assert latency.judge(rows[:2]) == "The schedule was kept at every load."


@pytest.mark.parametrize("quick", [False, True])
def test_a_point_takes_its_time_and_neither_too_few_nor_too_many_requests(quick: bool) -> None:
    seconds = latency.POINT_S / (10 if quick else 1)
    between = (latency.POINT_MIN + latency.POINT_MAX) / 2 / seconds

    assert latency.point_n(0.0, quick=quick) == latency.POINT_MIN
    assert latency.point_n(1e12, quick=quick) == latency.POINT_MAX
    assert latency.point_n(between, quick=quick) == pytest.approx(between * seconds, abs=1)
