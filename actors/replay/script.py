"""The script: what code did before, which it has to do again, decision for decision."""

from __future__ import annotations

from typing import Any

import orjson

from .history import IDENTITY, KIND, NUMBER, DecisionKind, differs_by_input, recorded_input
from .inputs import Given, same_input


class Script:
    """A history while code is taken through it, or decisions that it has to repeat.

    Invariant: what lies before ``position`` has happened again.

    Attributes:
        events: the events, as they are read.
        position: where the next one stands.
        goes_on: whether the code goes on live once all of this has happened again.
        failed_at: the line at which the code has failed, if it has.
    """

    __slots__ = ("events", "failed_at", "goes_on", "position")

    def __init__(self, events: list[list[Any]], *, goes_on: bool = False) -> None:
        self.events = events
        self.position = 0
        self.goes_on = goes_on
        self.failed_at: str | None = None

    @property
    def next(self) -> list[Any] | None:
        """The event that comes next; None behind the last."""
        return self.events[self.position] if self.position < len(self.events) else None

    def next_of(self, kind: DecisionKind) -> list[Any] | None:
        """Give the event that comes next, if it is of that kind."""
        recorded = self.next
        return recorded if recorded is not None and recorded[0] == kind else None

    def takes(self, decision: tuple[Any, ...], data: bytes | None, given: Given | None) -> bool:
        """Go past the next event if that is what the code decides; False if it is not.

        Args:
            decision: what the code decides.
            data: the input that its hash is of, if it has one.
            given: the same before it was encoded.
        """
        position, events = self.position, self.events
        recorded = events[position] if position < len(events) else None
        kind = decision[0]
        end = 2 + IDENTITY[kind]
        if (
            recorded is None or recorded[0] != kind or tuple(recorded[2:end]) != decision[2:end]
        ) and not _is_same_today(recorded, decision, data, given):
            return False
        self.position = position + 1
        return True


class CopiedScript(Script):
    """The history of another instance, which becomes the code's own as it goes through it.

    What an id goes into may differ: inputs, data, whom something is for, and, by what is drawn, the
    time of a timer. The code's own takes the recorded one's place, so that a replay afterwards
    finds it.
    """

    __slots__ = ()

    def next_of(self, kind: DecisionKind) -> list[Any] | None:
        # The id of the other's child is none for a child of this one.
        return None if kind == "SubOrchestrationInstanceCreated" else super().next_of(kind)

    def takes(self, decision: tuple[Any, ...], data: bytes | None, given: Given | None) -> bool:
        recorded, kind = self.next, decision[KIND]
        if recorded is None or recorded[KIND] != kind or recorded[NUMBER] != decision[NUMBER]:
            return False
        named = _NAMED.get(kind)
        if named is not None and recorded[named] != decision[named]:
            return False
        made: list[Any] = orjson.loads(orjson.dumps(decision))
        if kind == "TimerCreated":
            made += recorded[4:]  # how far the clock was behind, which the code has counted with
        self.events[self.position] = made
        self.position += 1
        return True


#: Where in a decision the name is of what is called.
_NAMED: dict[DecisionKind, int] = {
    "TaskScheduled": 3,
    "SubOrchestrationInstanceCreated": 3,
    "EventSent": 4,
    "EntityOperationSignaled": 4,
    "EntityOperationCalled": 4,
}


def _is_same_today(
    recorded: list[Any] | None, decision: tuple[Any, ...], data: bytes | None, given: Given | None
) -> bool:
    """Whether a recorded decision differs by its input, and that by its class alone."""
    if recorded is None or given is None or not differs_by_input(recorded, decision):
        return False
    then = recorded_input(recorded)
    if then is None:
        return True  # not recorded then: there is nothing to compare with
    return bool(then) and data is not None and same_input(then[0], data, given)
