from __future__ import annotations

import logging
from typing import Any

import pytest

from perdure.runtime.scheduling import watch as watching
from perdure.runtime.scheduling.sparing import RECORDS_MAX
from perdure.runtime.scheduling.watch import Watch

WHATS = pytest.mark.parametrize("what", ["turn", "checkpoint", "activity"])


class Observer:
    """Writes down what it is told, or raises."""

    def __init__(self, error: BaseException | None = None, at: str = "") -> None:
        self.told: list[Any] = []
        self._error = error
        self._at = at

    def __getattr__(self, name: str) -> Any:
        def tell(*facts: Any) -> str:
            self.told.append((name, *facts))
            if self._error is not None and name.startswith(self._at):
                raise self._error
            return "begun"

        return tell


def watch(observer: Any) -> Watch:
    return Watch(observer)


@WHATS
def test_what_begin_gives_is_given_back_to_its_end(what: str) -> None:
    observer = Observer()
    told = watch(observer)

    told.end(what, told.begin(what, "facts"), "outcome")

    assert observer.told == [(f"begin_{what}", "facts"), (f"end_{what}", "begun", "outcome")]
    assert told.failures == 0


class Unprintable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@WHATS
@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), Unprintable(), GeneratorExit()], ids=repr
)
def test_what_an_observer_raises_is_counted_and_logged_with_the_method(
    what: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    told = watch(Observer(error))

    begun = told.begin(what, "facts")
    told.end(what, "begun before", "outcome")

    assert begun is Watch.NOTHING
    assert told.failures == 2
    assert f"raised {type(error).__name__} in begin_{what}" in caplog.text
    assert f"raised {type(error).__name__} in end_{what}" in caplog.text


def test_what_was_not_begun_is_not_ended() -> None:
    observer = Observer(ValueError("no"), at="begin")
    told = watch(observer)

    told.end("turn", told.begin("turn", "facts"), None)

    assert observer.told == [("begin_turn", "facts")]
    assert told.failures == 1


def test_an_observer_may_give_nothing_and_is_told_of_the_end() -> None:
    observer = Observer()
    told = watch(observer)

    told.end("turn", None, None)

    assert observer.told == [("end_turn", None, None)]


def test_ctrl_c_in_an_observer_stops_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    error = KeyboardInterrupt()

    def is_interrupt(raised: BaseException) -> bool:
        return raised is error

    monkeypatch.setattr(watching, "is_interrupt", is_interrupt)
    told = watch(Observer(error))

    with pytest.raises(KeyboardInterrupt):
        told.begin("turn", "facts")
    with pytest.raises(KeyboardInterrupt):
        told.end("turn", "begun", None)


def test_an_observer_that_always_raises_is_logged_a_few_times_and_counted_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = watch(Observer(ValueError("no")))

    with caplog.at_level(logging.ERROR):
        for _ in range(10 * RECORDS_MAX):
            told.begin("turn", "facts")

    assert told.failures == 10 * RECORDS_MAX
    assert len(caplog.records) == RECORDS_MAX
