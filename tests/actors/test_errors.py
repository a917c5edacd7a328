from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

from perdure.actors import errors
from perdure.actors.errors import FailureDetails, PayloadError, PayloadTooLargeError, PerdureError

FAILURE = FailureDetails(
    "ValueError", "bad", "trace", FailureDetails("KeyError", "why", bases=("LookupError",))
)
# What each parameter of an error's initialiser may be.
VALUES: dict[str, Any] = {
    "path": "$.a",
    "reason": "it is bad",
    "size": 6,
    "limit": 5,
    "request_id": "r-1",
    "used_for": "start 'a'",
    "instance_id": "i-1",
    "status": "Failed",
    "action": "rewind",
    "at": 7,
    "forgotten": "activity 'refund'",
    "target": "activity 'work'",
    "failure": FAILURE,
    "where": "@counter@a",
    "position": 3,
    "recorded": "a timer",
    "produced": "an activity",
    "source": "app.py:5",
    "actor": "@counter@a",
}
CLASSES = [
    one
    for one in vars(errors).values()
    if inspect.isclass(one) and issubclass(one, Exception) and one.__module__ == errors.__name__
]


def make(cls: type[Any]) -> Any:
    own = cls.__init__ is not Exception.__init__
    names = list(inspect.signature(cls.__init__).parameters)[1:] if own else []
    given = [VALUES[name] for name in names if name in VALUES]
    return cls(*(given or ["what happened; do that"]))


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_crosses_to_another_process_as_it_was(cls: type[Any]) -> None:
    error = make(cls)

    read = pickle.loads(pickle.dumps(error))

    assert type(read) is cls
    assert (str(read), read.args, vars(read)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_says_all_that_it_was_given(cls: type[Any]) -> None:
    error = make(cls)
    given = [one for one in error.args if one is not FAILURE and one != ""]

    assert all(f"{one:,}" in str(error) if type(one) is int else one in str(error) for one in given)


def test_the_tree_in_the_documentation_is_that_of_the_classes() -> None:
    tree: dict[str, str] = {}
    open_: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( *)[*x+-] (\w+)", line)
        if match is not None:
            depth = len(match[1]) // 2
            open_[depth:] = [match[2]]
            tree[match[2]] = open_[depth - 1] if depth else "Exception"

    actual = {one.__name__: one.__bases__[0].__name__ for one in CLASSES}
    del actual["NonRetryableError"]  # for users to raise
    assert tree == actual


def test_whose_value_it_is_is_said_by_the_one_who_knows_it_first() -> None:
    error = PayloadError("$.a", "int expected").of("the input of f").of("the input of g")

    assert str(error) == "the input of f, at $.a: int expected"


def test_a_payload_that_is_too_large_says_by_how_much_and_what_to_do() -> None:
    assert str(PayloadTooLargeError("the input", 6_000, 5_000)) == (
        "at the input: 6,000 bytes as JSON, over the limit of 5,000; pass a reference to the data "
        "instead, or raise Settings.max_payload"
    )


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (ValueError, True),
        ("ValueError", True),
        (KeyError, True),
        (LookupError, True),
        (OSError, False),
        ("Value", False),
    ],
    ids=str,
)
def test_a_failure_is_caused_by_its_own_class_its_bases_and_those_of_its_causes(
    cause: Any, expected: bool
) -> None:
    assert FAILURE.is_caused_by(cause) is expected


def test_the_failure_of_the_other_side_is_read_at_the_error() -> None:
    error = errors.ActivityError("activity 'work'", FAILURE)

    assert (error.error_type, error.message, error.stack_trace) == ("ValueError", "bad", "trace")
    assert error.cause is FAILURE.cause
    assert isinstance(error, PerdureError)


def test_an_event_of_another_type_is_a_failure_and_a_payload_error() -> None:
    error = errors.EventDataError("event 'paid'", "$.amount", "int expected")

    assert isinstance(error, PayloadError)
    assert (error.error_type, error.message) == ("PayloadError", "at $.amount: int expected")
    assert str(error) == "event 'paid' is not of the type waited for: at $.amount: int expected"


def test_what_no_longer_matches_says_how_the_code_ended_if_it_did() -> None:
    fields = ("i-1", 3, "a timer", "the end", "app.py:5")

    assert str(errors.NondeterminismError(*fields, "KeyError: 'x'")).startswith(
        "KeyError: 'x'; so "
    )
    assert str(errors.NondeterminismError(*fields)).startswith("orchestration 'i-1' no longer")


def test_a_cancellation_knows_its_reason_and_scope() -> None:
    scope = object()
    cancelled = errors.Cancelled("enough", scope=scope)

    assert (cancelled.reason, cancelled.scope, str(cancelled)) == ("enough", scope, "enough")
    assert not isinstance(cancelled, Exception)
