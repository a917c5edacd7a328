"""Times and delays: from what the public face takes to microseconds, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

from .arguments import is_a, plain_number, refusal
from .errors import InvalidTimeError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


#: Seconds. Due times must stay within the years that a datetime has.
LONGEST_S = 10**11


def microseconds(delay: object, name: str = "a delay", *, least: int = 0) -> int:
    """Give a duration (seconds or a timedelta) in microseconds.

    Args:
        delay: the duration.
        name: how to call it in an error.
        least: microseconds that it must have at least.

    Raises:
        InvalidTimeError: it is no duration, too short, endless, or longer than 3,000 years.
    """
    exact: float | None
    if is_a(delay, timedelta):
        given = cast("timedelta", delay)
        exact = (given.days * 86_400 + given.seconds) * 1_000_000 + given.microseconds
    else:
        seconds = plain_number(delay)
        # Compared before it is multiplied: an int may have any number of digits.
        inside = seconds is not None and -LONGEST_S < seconds < LONGEST_S
        exact = round(cast("float", seconds) * 1_000_000) if inside else None
        if exact == 0 < cast("float", seconds):
            exact = least  # longer than 0, though less than a microsecond
    if exact is None or not least <= exact < LONGEST_S * 1_000_000:
        taken = "seconds (an int or a float) or a timedelta, " + (
            "longer than 0" if least else "zero or more"
        )
        raise refusal(name, f"{taken}, and finite", delay, InvalidTimeError)
    return exact


def seconds(delay: object, name: str, *, least: int = 0) -> float:
    """Give a duration (seconds or a timedelta) in seconds; see ``microseconds``."""
    return microseconds(delay, name, least=least) / 1e6


def timestamp(when: object, name: str = "a time") -> int:
    """Give an aware datetime in microseconds since the epoch.

    Raises:
        InvalidTimeError: it is no datetime, a naive one, or one that UTC has no year for.
    """
    if is_a(when, datetime):
        given = cast("datetime", when)
        try:
            time = (given - EPOCH) // timedelta(microseconds=1)
            to_datetime(time)  # in its own zone it may be of a year that UTC does not reach
            return time
        except Exception:  # what a user's tzinfo raises; for a naive one, a TypeError
            pass
    taken = (
        "a timezone-aware datetime, such as datetime.now(timezone.utc), or in an orchestration "
        "ctx.current_utc_datetime"
    )
    raise refusal(name, taken, when, InvalidTimeError)


def optional_timestamp(when: object, name: str) -> int | None:
    """Give an aware datetime in microseconds since the epoch, or None."""
    return None if when is None else timestamp(when, name)


def due_time(at: object, now: int, name: str = "at") -> int:
    """Give the time meant by an aware datetime, or by a delay from now.

    Raises:
        InvalidTimeError: it is neither.
    """
    if type(at) is timedelta:
        return now + microseconds(at, name)
    if is_a(at, datetime):
        return timestamp(at, name)
    if is_a(at, (timedelta, int, float)):
        return now + microseconds(at, name)
    taken = "a timezone-aware datetime, seconds or a timedelta"
    raise refusal(name, taken, at, InvalidTimeError)


def to_datetime(time: int) -> datetime:
    """Give microseconds since the epoch as an aware datetime."""
    return EPOCH + timedelta(microseconds=time)
