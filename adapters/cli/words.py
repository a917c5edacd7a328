"""Times, values and sizes in words for people, and what people write for them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from perdure import UsageError

_STEPS = (
    (1.0, 1.0, "s"),
    (60.0, 60.0, "min"),
    (3_600.0, 3_600.0, "h"),
    (86_400.0, 86_400.0, "days"),
)
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?")


def read_time(text: str) -> datetime:
    """Read a time of the API."""
    return datetime.fromisoformat(text)


def duration(seconds: float) -> str:
    """Say how long something takes: ``12 s``, ``3 min``, ``5 h``, ``2 days``."""
    seconds = abs(seconds)
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    size, name = max((size, name) for least, size, name in _STEPS if seconds >= least)
    number = int(seconds / size)
    return f"{number} {'day' if name == 'days' and number == 1 else name}"


def relative(when: datetime, now: datetime) -> str:
    """Say when something was or will be, from now."""
    away = (when - now).total_seconds()
    if abs(away) < 1:
        return "now"
    return f"in {duration(away)}" if away > 0 else f"{duration(away)} ago"


def absolute(when: datetime) -> str:
    """Say when something is, on this machine's clock."""
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S}"


def both(when: datetime, now: datetime) -> str:
    """Say when something is, both ways."""
    return f"{absolute(when)} ({relative(when, now)})"


def utc_now() -> datetime:
    """Give the time."""
    return datetime.now(UTC)


def read_seconds(text: str) -> float | None:
    """Read ``90``, ``90s``, ``5m``, ``2h``, ``1d`` or ``1w``; None if it is no such thing."""
    found = _DURATION.fullmatch(text.strip())
    return None if found is None else float(found[1]) * _UNITS[found[2] or "s"]


def read_when(text: str, option: str) -> str | float:
    """Read when something is to be: a time, or how long from now; gives what the API takes."""
    seconds = read_seconds(text)
    return _time(text, option, "from now") if seconds is None else seconds


def read_since(text: str, option: str) -> str:
    """Read a time, or how long ago something was; gives what the API takes."""
    seconds = read_seconds(text)
    if seconds is None:
        return _time(text, option, "ago")
    try:
        return (utc_now() - timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        raise UsageError(f"{option}: {text!r} is longer ago than there are times") from None


def _time(text: str, option: str, what: str) -> str:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} takes a time, such as 2026-05-01T12:00:00, or how long {what}, such as 90s, "
            f"5m, 2h or 1d; not {text!r}"
        ) from None
    return time.astimezone().isoformat()


def counted(number: int, what: str) -> str:
    """Say how many there are of something: ``1 message``, ``2,000 messages``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def in_one_line(text: str) -> str:
    """Give a text that does nothing to a terminal: breaks and control characters as escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def in_lines(text: str) -> str:
    """Do the same, and keep the breaks of its lines."""
    return "\n".join(in_one_line(line) for line in text.expandtabs(4).split("\n"))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+), in (?P<name>.*)')
_OURS = re.compile(
    r"[/\\]perdure[/\\](actors|adapters|benchmarks|perdure|runtime|storage|testing)[/\\]"
)


def frames_of(traceback: str) -> list[tuple[str, bool]]:
    """Split a traceback into its frames; gives each, and whether it is one of Perdure itself."""
    frames: list[tuple[str, bool]] = []
    for line in traceback.splitlines():
        found = _FRAME.fullmatch(line)
        if found is not None:
            frames.append((line, _OURS.search(found["file"]) is not None))
        elif frames:
            text, ours = frames[-1]
            frames[-1] = f"{text}\n{line}", ours
        else:
            frames.append((line, False))
    return frames


def place_of(traceback: str) -> str | None:
    """Say where something failed, by its traceback: ``shop.py:42``; None if that does not say."""
    for frame, ours in reversed(frames_of(traceback)):
        found = _FRAME.fullmatch(frame.partition("\n")[0])
        if found is not None and not ours:
            name = found["file"].replace("\\", "/").rpartition("/")[2]
            return f"{name}:{found['line']}"
    return None


def value(given: Any) -> str:
    """Give a JSON value as text in one line."""
    import orjson

    return orjson.dumps(given).decode()


def shortened(text: str, most: int) -> str:
    """Give a text in one line, and no more of it than so many characters."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    return f"{line[: most - 3].rsplit(' ', 1)[0]}..."
