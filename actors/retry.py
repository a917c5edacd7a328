"""When to try again: a pure function from what failed to a delay."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from datetime import timedelta
from inspect import iscoroutinefunction
from types import FunctionType, MethodType
from typing import Any, cast

from attrs import Attribute, Factory, evolve, field, frozen

from .arguments import is_a, number, refusal, whole
from .errors import FailureDetails
from .failures import failure_of
from .interrupts import is_interrupt
from .times import microseconds

Duration = float | timedelta

RetryOn = tuple[type[BaseException] | str, ...] | Callable[[FailureDetails], bool]

_FUNCTIONS = (FunctionType, MethodType, functools.partial)

NON_RETRYABLE = "NonRetryableError"

# Due times must stay within the 64 bits that stores keep for them; a thousand years leave room.
_LONGEST_US = 1000 * 366 * 86_400 * 1_000_000


class PredicateError(Exception):
    """A ``retry_on`` function raised, which counts as no.

    Attributes:
        failure: the failure that it was asked about, with what it raised as the last member.
    """

    def __init__(self, failure: FailureDetails, mistake: FailureDetails) -> None:
        super().__init__(failure, mistake)
        said = f"retry_on raised {mistake.error_type}: {mistake.message}"
        self.failure = evolve(
            failure,
            message=f"{failure.message} (not tried again: {said})",
            members=(*failure.members, mistake),
        )


def _check_attempts(_: object, attribute: Attribute[int], value: object) -> None:
    whole(value, attribute.name, least=1)


def _check_backoff(_: object, attribute: Attribute[float], value: object) -> None:
    number(value, attribute.name, least=1)


def _check_jitter(_: object, attribute: Attribute[float], value: object) -> None:
    number(value, attribute.name, least=0, most=1)


def _is_kind(kind: object) -> bool:
    return is_a(kind, str) or (is_a(kind, type) and issubclass(cast("type", kind), BaseException))


def _check_retry_on(_: object, attribute: Attribute[RetryOn | None], value: object) -> None:
    if value is None or (
        callable(value)
        and not is_a(value, type)
        and not (is_a(value, _FUNCTIONS) and iscoroutinefunction(value))
    ):
        return
    if is_a(value, tuple) and all(map(_is_kind, cast("tuple[object, ...]", value))):
        return
    taken = "a tuple of exception classes or of their names, or a plain function of FailureDetails"
    raise refusal(attribute.name, taken, value)


def _microseconds_of(name: str) -> Any:
    def convert(policy: RetryPolicy) -> int | None:
        value = getattr(policy, name)
        if value is None and name != "first_interval":
            return None
        return min(microseconds(value, name, least=1), _LONGEST_US)

    return field(default=Factory(convert, takes_self=True), init=False, repr=False, eq=False)


@frozen
class RetryPolicy:
    """How often and when a failed activity or sub-orchestration is tried again.

    The delay after attempt ``n`` is ``first_interval * backoff ** (n - 1)``, at most
    ``max_interval``, spread by ``jitter``.

    Args:
        first_interval: the delay after the first attempt, in seconds or as a timedelta.
        max_attempts: how many attempts there are at most, the first one included.
        backoff: by what the delay is multiplied after each attempt.
        max_interval: the longest delay, before jitter.
        timeout: how long all attempts may take, from the call on, with the waits between them. No
            attempt begins later than that, and one that is under way then is given up.
        jitter: 0 to 1; each delay is spread evenly over ``delay * (1 - jitter)`` to
            ``delay * (1 + jitter)``, also where ``max_interval`` has cut it.
        retry_on: which failures are tried again; all of them by default. Exception classes, with
            their subclasses, are matched by class name, since only that crosses: the name of the
            failure itself or of one that it was raised from, or of a base class of these. A
            function must give the same answer for the same failure, since it runs again in a
            replay; one that raises says no, and what it raised is a member of the failure.

    Raises:
        InvalidTimeError: a time is not longer than 0.
        UsageError: another argument is out of its range.
    """

    first_interval: Duration
    max_attempts: int = field(default=3, validator=_check_attempts)
    backoff: float = field(default=1.0, validator=_check_backoff)
    max_interval: Duration | None = None
    timeout: Duration | None = None
    jitter: float = field(default=0.0, validator=_check_jitter)
    retry_on: RetryOn | None = field(default=None, validator=_check_retry_on)
    first_interval_us: int = _microseconds_of("first_interval")
    max_interval_us: int | None = _microseconds_of("max_interval")
    timeout_us: int | None = _microseconds_of("timeout")

    @classmethod
    def from_options(
        cls, first_retry_interval_in_milliseconds: int, max_number_of_attempts: int
    ) -> RetryPolicy:
        """Make a policy from the two options that Durable Functions' ``RetryOptions`` takes."""
        most = 10**12  # of milliseconds: thirty years
        wait = whole(
            first_retry_interval_in_milliseconds,
            "first_retry_interval_in_milliseconds",
            least=1,
            most=most,
        )
        attempts = whole(max_number_of_attempts, "max_number_of_attempts", least=1)
        return cls(timedelta(milliseconds=wait), attempts)

    def next_delay(
        self,
        attempt: int,
        elapsed_us: int,
        failure: FailureDetails,
        random: Callable[[], float],
    ) -> int | None:
        """Say how long to wait before the next attempt, or None to give up.

        Args:
            attempt: which attempt has failed, from 1.
            elapsed_us: microseconds since the first attempt began.
            failure: why it failed.
            random: gives a number from 0 to 1; called once if there is jitter, never otherwise,
                and not when the answer is None for another reason than the timeout.

        Returns:
            Microseconds, at least 0.

        Raises:
            PredicateError: the ``retry_on`` function raised.
        """
        if attempt >= self.max_attempts or not self._retries(failure):
            return None
        delay = self._delay(attempt)
        if self.jitter > 0:
            delay = round(delay * (1 + self.jitter * (2 * random() - 1)))
        if self.timeout_us is not None and elapsed_us + delay > self.timeout_us:
            return None
        return delay

    def _retries(self, failure: FailureDetails) -> bool:
        if failure.non_retryable or failure.error_type == NON_RETRYABLE:
            return False
        if self.retry_on is None:
            return True
        if callable(self.retry_on):
            try:
                return bool(self.retry_on(failure))
            except BaseException as mistake:
                if is_interrupt(mistake):
                    raise
                raise PredicateError(failure, failure_of(mistake)) from mistake
        return any(failure.is_caused_by(kind) for kind in self.retry_on)

    def _delay(self, attempt: int) -> int:
        try:
            delay = self.first_interval_us * float(self.backoff) ** (attempt - 1)
        except OverflowError:
            delay = math.inf
        return self._capped(delay)

    def _capped(self, delay: float) -> int:
        longest = _LONGEST_US if self.max_interval_us is None else self.max_interval_us
        return round(min(delay, longest))
