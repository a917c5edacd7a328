"""What the public face takes: one check for each kind of argument.

Each gives the argument back in the one form that the rest of the package uses, or raises a
``UsageError`` that names the argument, shows its value and says what is taken. They look at the
type itself, never at what a value says of itself, so a value that raises wherever it is asked is
refused like any other. ``bool`` is no number here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from .errors import InvalidTimeError, UsageError
from .printing import repr_of

T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Seconds. Due times must stay within the years that a datetime has.
LONGEST_S = 10**11


def refusal(
    name: str, taken: str, value: object, error: type[UsageError] = UsageError
) -> UsageError:
    """Make the error that refuses an argument."""
    return error(f"{name} must be {taken}, not {repr_of(value)}")


def is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """Say whether a value is of a type, whatever its ``__class__`` says."""
    return issubclass(type(value), kind)


def instance(
    value: object, kind: type[T], name: str, taken: str, error: type[UsageError] = UsageError
) -> T:
    """Give a value back that is of that type."""
    if not is_a(value, kind):
        raise refusal(name, taken, value, error)
    return cast("T", value)


def _plain(value: object) -> str:
    return str.__str__(cast("str", value))  # of a subclass, whose methods are the user's


def text(value: object, name: str, error: type[UsageError] = UsageError) -> str:
    """Give a text back as a plain ``str`` that can be stored."""
    if not is_a(value, str):
        raise refusal(name, "a str", value, error)
    plain = _plain(value)
    if not plain.isascii():
        try:
            plain.encode()
        except UnicodeEncodeError:
            taken = "text without lone surrogates, which have no UTF-8"
            raise refusal(name, taken, value, error) from None
    return plain


def optional_text(value: object, name: str) -> str | None:
    """Give a text back, or None."""
    return None if value is None else text(value, name)


def flag(value: object, name: str) -> bool:
    """Give True or False back."""
    if value is not True and value is not False:
        raise refusal(name, "True or False", value)
    return value


def optional_flag(value: object, name: str) -> bool | None:
    """Give True, False or None back."""
    return None if value is None else flag(value, name)


def whole(
    value: object,
    name: str,
    *,
    least: int = 0,
    most: int | None = None,
    error: type[UsageError] = UsageError,
) -> int:
    """Give a whole number back that is not outside its bounds."""
    if is_a(value, int) and not is_a(value, bool):
        plain = int.__int__(cast("int", value))
        if plain >= least and (most is None or plain <= most):
            return plain
    bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
    raise refusal(name, f"an int {bounds}", value, error)


def _plain_number(value: object) -> float | None:
    if type(value) is float or type(value) is int:
        return value
    if is_a(value, int) and not is_a(value, bool):
        return int.__int__(cast("int", value))
    return float.__float__(cast("float", value)) if is_a(value, float) else None


def number(
    value: object, name: str, *, least: float, most: float | None = None, beyond: bool = False
) -> float:
    """Give a finite number back that is not outside its bounds.

    Args:
        value: the number.
        name: how to call it in an error.
        least: the least that it may be.
        most: the most that it may be, if there is one.
        beyond: whether ``least`` itself is not taken.
    """
    plain = _plain_number(value)
    top = float("1e308") if most is None else most
    if plain is not None and least <= plain <= top and not (beyond and plain == least):
        return plain
    bounds = f"greater than {least:g}" if beyond else f"of at least {least:g}"
    if most is not None:
        bounds = f"from {least:g} to {most:g}" if not beyond else f"{bounds} and at most {most:g}"
    raise refusal(name, f"a finite number {bounds}", value)


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
        seconds = _plain_number(delay)
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
        InvalidTimeError: it is no datetime, or a naive one.
    """
    if is_a(when, datetime):
        given = cast("datetime", when)
        try:
            return (given - EPOCH) // timedelta(microseconds=1)
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


def choice(value: object, name: str, choices: Iterable[str]) -> Any:
    """Give one of some texts back."""
    options = tuple(_plain(one) for one in choices)
    if is_a(value, str):
        plain = _plain(value)
        if plain in options:
            return plain
    raise refusal(name, f"one of {', '.join(repr(one) for one in options)}", value)


def labels(value: object, name: str = "tags") -> dict[str, str]:
    """Give a mapping of texts by texts back as a dict."""
    if not is_a(value, Mapping):
        raise refusal(name, "a mapping of str to str", value)
    try:
        given = list(cast("Mapping[Any, Any]", value).items())
    except Exception as error:
        raise refusal(name, "a mapping that can be read", value) from error
    made: dict[str, str] = {}
    for key, one in given:
        plain = text(key, f"a key of {name}")
        made[plain] = text(one, f"{name}[{plain!r}]")
    return made


def several(value: object, name: str, taken: str) -> list[Any]:
    """Give what an iterable holds; a single text is none."""
    if is_a(value, Iterable) and not is_a(value, (str, bytes, bytearray)):
        try:
            return list(cast("Iterable[Any]", value))
        except Exception as error:
            raise refusal(name, f"{taken} (and iterating over it failed)", value) from error
    raise refusal(name, taken, value)
