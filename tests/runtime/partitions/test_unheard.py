from __future__ import annotations

import pytest

from perdure.actors.errors import FailureDetails
from perdure.actors.failures import encode_failure
from perdure.actors.messages import Completion
from perdure.runtime.partitions.unheard import Unheard

FAILURE = FailureDetails("ValueError", "no such item")


def test_a_failed_signal_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    unheard = Unheard()

    unheard.operation("@cart@a", "add", FAILURE)

    assert (unheard.operations, unheard.calls) == (1, 0)
    assert caplog.messages == [
        "signal @cart@a.add failed and was rolled back: ValueError: no such item"
    ]


def test_a_failed_call_is_logged_with_what_it_called(caplog: pytest.LogCaptureFixture) -> None:
    unheard = Unheard()

    unheard.answer("i", Completion("TaskFailed", 1, 2, encode_failure(FAILURE)))
    unheard.call("i", "book", FAILURE)

    assert unheard.calls == 2
    words = "called by i, failed and nobody awaited it: ValueError: no such item"
    assert caplog.messages == [f"an activity, {words}", f"book, {words}"]


@pytest.mark.parametrize("kind", ["Cancelled", "Terminated"])
def test_what_was_told_to_stop_has_not_failed(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    unheard = Unheard()

    unheard.call("i", "book", FailureDetails(kind, "it was told to"))

    assert (unheard.calls, caplog.messages) == (0, [])


def test_a_result_that_nobody_awaits_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    unheard = Unheard()

    unheard.answer("i", Completion("TaskCompleted", 1, 2, b"1"))

    assert (unheard.calls, caplog.messages) == (0, [])
