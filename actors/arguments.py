"""What the public face takes: one check for each kind of argument.

Each gives the argument back in the one form that the rest of the package uses, or raises a
``UsageError`` that names the argument, shows its value and says what is taken. They look at the
type itself, never at what a value says of itself, so a value that raises wherever it is asked is
refused like any other. ``bool`` is no number here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from .errors import UsageError
from .printing import repr_of

T = TypeVar("T")


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


def plain_number(value: object) -> float | None:
    """Give a number as a plain float or int; None if it is none."""
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
    plain = plain_number(value)
    top = float("1e308") if most is None else most
    if plain is not None and least <= plain <= top and not (beyond and plain == least):
        return plain
    bounds = f"greater than {least:g}" if beyond else f"of at least {least:g}"
    if most is not None:
        bounds = f"from {least:g} to {most:g}" if not beyond else f"{bounds} and at most {most:g}"
    raise refusal(name, f"a finite number {bounds}", value)


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
