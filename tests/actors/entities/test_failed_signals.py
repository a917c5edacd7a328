from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.entities.failed_signals import FailedSignals
from perdure.actors.errors import FailureDetails

FAILURE = FailureDetails("ValueError", "no such item")


def test_all_failed_signals_are_counted_and_the_last_ten_kept() -> None:
    failed = FailedSignals()

    for now in range(13):
        failed.add(now, "add", FAILURE)

    assert failed.count == 13
    assert failed.last == [[now, "add", "ValueError", "no such item"] for now in range(3, 13)]


def test_those_of_a_stripe_come_among_the_others_by_their_times() -> None:
    failed = FailedSignals(7, [[now, "add", "ValueError", "here"] for now in range(0, 14, 2)])

    failed.take(20, [[now, "add", "ValueError", "there"] for now in range(1, 13, 2)])

    assert failed.count == 27
    assert [now for now, *_ in failed.last] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


def test_stored_ones_are_read_back_and_none_where_none_failed() -> None:
    stored = [[5, "add", "ValueError", "no"]]

    read = FailedSignals.read(7, stored)

    assert read is not None
    assert (read.count, read.last) == (7, stored)
    assert FailedSignals.read(0, []) is None


NONE: list[tuple[Any, Any]] = [
    ("7", []),
    (7, 5),
    (7, {}),
    (7, [5]),
    (7, [[]]),
    (7, [[5, "add", "ValueError"]]),
    (7, [["5", "add", "ValueError", "no"]]),
    (7, [[5, "add", None, "no"]]),
]


@pytest.mark.parametrize(("count", "last"), NONE, ids=str)
def test_what_are_no_failed_signals_is_refused(count: Any, last: Any) -> None:
    with pytest.raises(ValueError, match="are no failed signals"):
        FailedSignals.read(count, last)
