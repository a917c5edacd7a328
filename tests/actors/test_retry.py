from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from perdure.actors.errors import FailureDetails, InvalidTimeError, UsageError
from perdure.actors.failures import failure_of
from perdure.actors.retry import PredicateError, RetryPolicy

FAILURE = FailureDetails("ValueError", "bad")
SECOND = 1_000_000


def no_random() -> float:
    raise AssertionError("a policy without jitter must not draw random numbers")


def delays(policy: RetryPolicy, count: int) -> list[int | None]:
    return [policy.next_delay(attempt, 0, FAILURE, no_random) for attempt in range(1, count + 1)]


def test_the_delay_grows_by_the_backoff_until_the_attempts_are_used_up() -> None:
    policy = RetryPolicy(first_interval=1.0, max_attempts=4, backoff=2.0)

    assert delays(policy, 4) == [1 * SECOND, 2 * SECOND, 4 * SECOND, None]


def test_no_delay_is_longer_than_the_longest_interval() -> None:
    policy = RetryPolicy(first_interval=1.0, max_attempts=5, backoff=3.0, max_interval=5)

    assert delays(policy, 4) == [1 * SECOND, 3 * SECOND, 5 * SECOND, 5 * SECOND]


def test_times_may_be_timedeltas() -> None:
    policy = RetryPolicy(timedelta(milliseconds=1500), timeout=timedelta(minutes=1))

    assert (policy.first_interval_us, policy.timeout_us) == (1_500_000, 60 * SECOND)


def test_the_delay_of_a_huge_attempt_does_not_overflow() -> None:
    policy = RetryPolicy(first_interval=1.0, max_attempts=10**12, backoff=10.0)

    delay = policy.next_delay(10**11, 0, FAILURE, no_random)

    assert delay is not None
    assert delay < 2**63


def test_a_retry_that_would_begin_after_the_timeout_is_not_made() -> None:
    policy = RetryPolicy(first_interval=2.0, max_attempts=10, timeout=10.0)

    assert policy.next_delay(1, 8 * SECOND, FAILURE, no_random) == 2 * SECOND
    assert policy.next_delay(1, 8 * SECOND + 1, FAILURE, no_random) is None


@given(st.floats(0, 1), st.floats(0.001, 1), st.integers(1, 9))
def test_jitter_spreads_the_delay_to_both_sides(drawn: float, jitter: float, attempt: int) -> None:
    plain = RetryPolicy(first_interval=1.0, max_attempts=10, backoff=2.0, max_interval=20.0)
    policy = RetryPolicy(
        first_interval=1.0, max_attempts=10, backoff=2.0, max_interval=20.0, jitter=jitter
    )
    middle = plain.next_delay(attempt, 0, FAILURE, no_random)
    assert middle is not None

    delay = policy.next_delay(attempt, 0, FAILURE, lambda: drawn)

    assert delay is not None
    assert delay == pytest.approx(middle * (1 - jitter + 2 * jitter * drawn), abs=1)


def test_a_failure_that_forbids_it_is_not_tried_again() -> None:
    policy = RetryPolicy(first_interval=1.0, retry_on=("NonRetryableError", "ValueError"))

    assert (
        policy.next_delay(1, 0, FailureDetails("ValueError", "", non_retryable=True), no_random)
        is None
    )
    assert policy.next_delay(1, 0, FailureDetails("NonRetryableError", ""), no_random) is None


@pytest.mark.parametrize("kind", [ValueError, "ValueError"], ids=["class", "name"])
def test_only_the_listed_types_are_tried_again(kind: Any) -> None:
    policy = RetryPolicy(first_interval=1.0, retry_on=(kind,))

    assert policy.next_delay(1, 0, FAILURE, no_random) == SECOND
    assert policy.next_delay(1, 0, FailureDetails("KeyError", ""), no_random) is None


def test_a_listed_type_also_matches_a_cause() -> None:
    policy = RetryPolicy(first_interval=1.0, retry_on=(ValueError,))
    failure = FailureDetails("ActivityError", "", cause=FAILURE)

    assert policy.next_delay(1, 0, failure, no_random) == SECOND


def test_a_base_class_matches_by_the_names_that_the_failure_has() -> None:
    policy = RetryPolicy(first_interval=1.0, retry_on=(Exception,))

    assert policy.next_delay(1, 0, failure_of(ValueError("bad")), no_random) == SECOND
    assert policy.next_delay(1, 0, FAILURE, no_random) is None  # written by an older release


def test_what_a_predicate_raises_is_added_to_the_failure() -> None:
    policy = RetryPolicy(first_interval=1.0, retry_on=lambda failure: 1 / 0 > 1)

    with pytest.raises(PredicateError) as caught:
        policy.next_delay(1, 0, FAILURE, no_random)

    assert caught.value.failure.error_type == FAILURE.error_type
    assert [one.error_type for one in caught.value.failure.members] == ["ZeroDivisionError"]


def test_an_async_predicate_is_refused() -> None:
    async def never(failure: FailureDetails) -> bool:
        return True

    with pytest.raises(UsageError, match="a plain function"):
        RetryPolicy(first_interval=1.0, retry_on=never)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_predicate_decides_on_the_details() -> None:
    policy = RetryPolicy(first_interval=1.0, retry_on=lambda failure: failure.message == "bad")

    assert policy.next_delay(1, 0, FAILURE, no_random) == SECOND
    assert policy.next_delay(1, 0, FailureDetails("ValueError", "worse"), no_random) is None


@pytest.mark.parametrize("name", ["first_interval", "max_interval", "timeout"])
@pytest.mark.parametrize(
    "value", [0, -1.0, timedelta(0), timedelta(seconds=-1), math.nan, math.inf, "1", True]
)
def test_a_time_that_is_not_longer_than_zero_is_refused(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"first_interval": 1.0, name: value}

    with pytest.raises(InvalidTimeError, match=name):
        RetryPolicy(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 1.5),
        ("max_attempts", True),
        ("backoff", 0.5),
        ("backoff", math.inf),
        ("backoff", math.nan),
        ("backoff", "2"),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("retry_on", ValueError),
        ("retry_on", [ValueError]),
        ("retry_on", (int,)),
    ],
)
def test_an_argument_out_of_its_range_is_refused_by_name(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"first_interval": 1.0, name: value}

    with pytest.raises(UsageError, match=name):
        RetryPolicy(**arguments)


def test_a_missing_first_interval_is_refused() -> None:
    nothing: Any = None

    with pytest.raises(InvalidTimeError, match="first_interval"):
        RetryPolicy(nothing)


def test_durable_functions_options_make_the_same_policy() -> None:
    policy = RetryPolicy.from_options(5000, 3)

    assert policy == RetryPolicy(first_interval=timedelta(seconds=5), max_attempts=3)
