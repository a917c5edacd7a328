from __future__ import annotations

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
