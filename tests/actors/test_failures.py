from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from perdure.actors.errors import (
    ActivityError,
    FailureDetails,
    NonRetryableError,
    SubOrchestrationError,
)
from perdure.actors.failures import encode_failure, failure_of, read_failure

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def failures(inner: st.SearchStrategy[FailureDetails]) -> st.SearchStrategy[FailureDetails]:
    return st.builds(
        FailureDetails,
        TEXT,
        TEXT,
        TEXT,
        st.none() | inner,
        st.booleans(),
        st.lists(TEXT, max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
    )


FAILURES = st.recursive(st.builds(FailureDetails, TEXT, TEXT), failures, max_leaves=6)


@given(FAILURES)
def test_a_failure_is_read_back_as_it_was(failure: FailureDetails) -> None:
    assert read_failure(encode_failure(failure)) == failure


def caught(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as raised:
        return raised


def in_context(error: BaseException, context: BaseException) -> BaseException:
    try:
        raise context
    except BaseException:
        return caught(error)


def test_a_failure_has_the_cause_and_the_trace_of_its_exception() -> None:
    failure = failure_of(caught(ValueError("bad"), KeyError("why")))

    assert (failure.error_type, failure.message) == ("ValueError", "bad")
    assert "in caught" in failure.stack_trace
    assert failure.cause is not None
    assert failure.cause.error_type == "KeyError"
    assert failure.is_caused_by(LookupError)


def test_what_was_handled_when_it_was_raised_is_its_cause_unless_another_is_given() -> None:
    with_context = ValueError("bad")
    with_context.__context__ = KeyError("why")
    silent = ValueError("bad")
    silent.__context__ = KeyError("why")
    silent.__suppress_context__ = True

    cause = failure_of(with_context).cause

    assert cause is not None
    assert cause.error_type == "KeyError"
    assert failure_of(silent).cause is None


def test_only_what_says_so_stops_a_retry_policy() -> None:
    assert failure_of(type("Final", (NonRetryableError,), {})("no")).non_retryable
    assert not failure_of(ValueError("no")).non_retryable


def test_the_failure_of_elsewhere_is_the_cause_of_the_error_that_tells_of_it() -> None:
    elsewhere = failure_of(ExceptionGroup("two", [ValueError("a"), KeyError("b")]))

    failure = failure_of(ActivityError("activity 'work'", elsewhere))

    assert failure.cause == elsewhere
    assert failure.message == f"activity 'work' failed: ExceptionGroup: {elsewhere.message}"


@pytest.mark.parametrize("failure", [None, "text"])
def test_an_error_that_lost_its_failure_is_described_without(failure: Any) -> None:
    class Forgetful(ActivityError):
        def __init__(self) -> None:
            if failure is not None:
                self.failure = failure

    described = failure_of(Forgetful())

    assert (described.error_type, described.cause) == ("Forgetful", None)


def test_a_failure_that_went_through_a_thousand_hands_can_still_be_stored() -> None:
    failure = failure_of(ValueError("first"))
    for _ in range(1_000):
        failure = failure_of(SubOrchestrationError("sub-orchestration 'deeper'", failure))

    assert read_failure(encode_failure(failure)) == failure
    assert failure.cause is not None


def test_failures_that_gather_those_of_others_do_not_grow_without_end() -> None:
    failure = failure_of(ValueError("first"))
    for _ in range(8):
        errors = [SubOrchestrationError("sub-orchestration 'wider'", failure) for _ in range(10)]
        failure = failure_of(ExceptionGroup("ten", errors))

    assert encode_failure(failure).count(b'"SubOrchestrationError"') <= 50


def test_a_failure_without_bases_and_members_is_written_as_it_always_was() -> None:
    assert encode_failure(FailureDetails("ValueError", "bad")) == (
        b'["ValueError","bad","",null,false]'
    )


def test_members_beyond_twenty_are_left_out() -> None:
    group = ExceptionGroup("many", [ValueError(str(number)) for number in range(30)])

    assert [one.message for one in failure_of(group).members] == [str(n) for n in range(20)]
