from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.actors.messages import Message, Operation
from perdure.runtime.observer import TurnFacts
from perdure.runtime.partitions.around import Around

MAIL: list[Message] = [Operation("add", b"1"), Operation("add", b"2")]


class Told:
    """A watch, and notes, that write down in one list what is begun and ended."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, what: str, facts: TurnFacts) -> str:
        self.told.append(("begin", what, facts))
        return "begun"

    def end(self, what: str, begun: str, error: BaseException | None) -> None:
        self.told.append(("end", what, begun, error))

    @contextmanager
    def running(self, what: str) -> Generator[None]:
        self.told.append(("noted", what))
        try:
            yield
        finally:
            self.told.append(("crossed out", what))


BEGAN = ("begin", "turn", TurnFacts("@counter@a", 3, 2))


def activation(outcome: Any = None) -> Any:
    """One that takes a turn with that outcome, which may be an error."""

    def take(mail: list[Message]) -> Any:
        assert mail is MAIL
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return SimpleNamespace(key="@counter@a", partition=SimpleNamespace(index=3), take=take)


def watched(told: Any) -> Around:
    return Around(None, told)


async def end_with(error: BaseException | None) -> None:
    if error is not None:
        raise error


def test_a_turn_is_told_as_it_begins_and_as_it_ends() -> None:
    told = Told()

    assert watched(told).take(activation(), MAIL) is None

    assert told.told == [BEGAN, ("end", "turn", "begun", None)]


def test_a_turn_that_crashes_is_told_with_its_error_which_goes_on() -> None:
    told, crash = Told(), KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt) as raised:
        watched(told).take(activation(crash), MAIL)

    assert raised.value is crash
    assert told.told == [BEGAN, ("end", "turn", "begun", crash)]


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()], ids=repr)
async def test_a_turn_that_awaits_ends_when_that_does(error: BaseException | None) -> None:
    told = Told()
    operation: Coroutine[Any, Any, None] | None
    operation = watched(told).take(activation(end_with(error)), MAIL)
    assert told.told == [BEGAN]
    assert operation is not None

    raised = None
    try:
        await operation
    except BaseException as caught:
        raised = caught

    assert raised is error
    assert told.told == [BEGAN, ("end", "turn", "begun", error)]


@pytest.mark.parametrize("error", [None, ValueError("no")], ids=repr)
def test_a_note_says_what_runs_for_as_long_as_it_does(error: BaseException | None) -> None:
    notes: Any = Told()

    with suppress(ValueError):
        Around(notes, None).take(activation(error), MAIL)

    noted, crossed_out = notes.told
    assert noted[0] == "noted"
    assert crossed_out == ("crossed out", noted[1])
    assert "@counter@a" in noted[1]


def test_what_the_observer_hears_is_inside_of_the_note() -> None:
    both: Any = Told()

    Around(both, both).take(activation(), MAIL)

    assert [one[0] for one in both.told] == ["noted", "begin", "end", "crossed out"]


def test_where_nobody_is_told_the_turn_is_the_activations_own() -> None:
    outcome: Any = object()

    assert Around(None, None).take(activation(outcome), MAIL) is outcome
