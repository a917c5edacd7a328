"""What the workflows that people know from Durable Functions share: services that answer as a test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from perdure import App, Hub, ManualClock
from tests.runtime.orchestrating import running

DAY = 24 * 3600

log: list[Any] = []
"""What activities did, in order."""

answers: dict[str, Callable[[Any], Any]] = {}
"""What the services behind the activities answer, by activity."""


def act(name: str, input: Any) -> Any:
    """Do an activity's work: log it, and answer as the test says."""
    log.append((name, input))
    return answers[name](input) if name in answers else None


def names() -> list[str]:
    """The activities that ran, in order."""
    return [name for name, _ in log]


def activities(app: App, *wanted: str) -> None:
    """Register activities that do what the test says."""

    def make(name: str) -> Callable[[Any], Any]:
        async def activity(input: Any = None) -> Any:
            return act(name, input)

        return activity

    for name in wanted:
        app.activity(name=name)(make(name))


def fails(error: Exception) -> Callable[[Any], Any]:
    """An answer that is an exception."""

    def answer(input: Any) -> Any:
        raise error

    return answer


def always(value: Any) -> Callable[[Any], Any]:
    """An answer that is a value."""
    return lambda _: value


def fails_times(count: int, then: Any) -> Callable[[Any], Any]:
    """An answer that fails so many times, and then is a value."""
    left = [count]

    def answer(input: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("try again")
        return then

    return answer


@asynccontextmanager
async def served(app: App) -> AsyncGenerator[tuple[Hub, ManualClock], None]:
    """A hub with a clock that is turned by hand."""
    clock = ManualClock(int(datetime(2030, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000)
    async with running(app, clock=clock) as hub:
        yield hub, clock
