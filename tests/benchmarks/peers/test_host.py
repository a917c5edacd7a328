from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.benchmarks.peers import host
from perdure.benchmarks.peers.contender import Place
from perdure.benchmarks.peers.host import attend, first_cause
from perdure.benchmarks.peers.measure import Course, Figure, Size, WrongOutcomeError

SIZE, PLACE = Size(), Place(folder=Path(), programs=Path())
FIGURE = Figure(
    load="hello", unit="ones", operations=1, in_flight=1, seconds=1, p50_ms=None, p99_ms=None
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # what the contenders run on


class Contender:
    """One that starts, if it can, and is stopped."""

    error: Exception | None = None
    log: list[str]

    async def start(self, place: Place) -> str:
        if self.error is not None:
            raise self.error
        return "1.0"

    async def stop(self) -> None:
        self.log.append("stopped")


@pytest.fixture
def contend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Have a contender run loads, with the errors that these raise; gives what is told."""

    def made(*loads: Exception | None, error: Exception | None = None) -> list[Any]:
        told: list[Any] = []

        class Made(Contender):
            log = told

        def run_of(outcome: Exception | None) -> Any:
            async def run(course: Course) -> Figure:
                if outcome is not None:
                    raise outcome
                return FIGURE

            return run

        Made.error = error

        def find(name: str) -> type[Contender]:
            return Made

        monkeypatch.setattr(host, "contender_class", find)
        runs = {f"load {number}": run_of(load) for number, load in enumerate(loads)}
        monkeypatch.setattr(host, "LOADS", runs)
        return told

    return made


async def test_what_happens_is_told_as_it_does(contend: Callable[..., list[Any]]) -> None:
    told = contend(None, None)

    await attend("x", PLACE, SIZE, lambda what, value: told.append((what, value)))

    assert [one if isinstance(one, str) else one[0] for one in told] == [
        *("version", "begins", "figure", "begins", "figure", "stopped")
    ]
    assert told[2][1]["load"] == "hello"


@pytest.mark.parametrize("at", ["start", "load"])
async def test_a_contender_is_stopped_also_where_it_breaks(
    at: str, contend: Callable[..., list[Any]]
) -> None:
    error = WrongOutcomeError("counted twice")
    told = contend(error) if at == "load" else contend(error=error)

    with pytest.raises(WrongOutcomeError):
        await attend("x", PLACE, SIZE, lambda what, value: None)

    assert told == ["stopped"]


def test_the_cause_is_the_first_error_inside_of_groups() -> None:
    error = ValueError("no")

    assert first_cause(ExceptionGroup("a", [ExceptionGroup("b", [error]), KeyError()])) is error
    assert first_cause(error) is error
