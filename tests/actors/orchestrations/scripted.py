"""A second ``Execution``: no code at all, but a script of what is decided at each event.

It is what an execution by a program elsewhere would be to the instance, told at once or later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any

import orjson

from perdure.actors.effects import Effects
from perdure.actors.errors import FailureDetails, NondeterminismError, PayloadError
from perdure.actors.messages import ActivityCall, Caller
from perdure.actors.replay.execution import (
    NO_WORK,
    NOTHING,
    Continuation,
    Execution,
    OpenLock,
    OpenWork,
    Outcome,
    Summary,
)

Decision = tuple[Any, ...]
Later = Callable[[], Awaitable[None]]

INCOMING = ("ExecutionStarted", "TaskCompleted", "TaskFailed", "EventRaised", "CancelRequested")


class Scripted:
    """Decides what its script says, line by line: one line for the start, one for each event.

    A decision is ``("activity", name, input)``, ``("child", instance_id)``, ``("lock", entity)``,
    ``("granted",)``, ``("status", value)``, ``("ends", result)``, ``("fails", reason)`` or
    ``("again", input)``.
    """

    def __init__(
        self,
        instance_id: str,
        execution: int,
        script: Sequence[Sequence[Decision]],
        later: Later | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.execution = execution
        self.outcome: Outcome | None = None
        self.continuation: Continuation | None = None
        self.custom_status: bytes | None = None
        self.cancel_requested: str | None = None
        self.pending: set[int] = set()
        self.unanswered: dict[int, ActivityCall] = {}
        self.unfinished: Generator[None] | None = None
        self.is_closed = False
        self._script = script
        self._later = later
        self._line = 0
        self._children: list[str] = []
        self._lock: OpenLock | None = None
        self._events: list[tuple[str, bytes]] = []
        self._failed: list[tuple[str, FailureDetails]] = []
        self._effects: Effects | None = None
        self._written: list[bytes] | None = None
        self._now = 0

    @property
    def answers_later(self) -> bool:
        return self._later is not None

    @property
    def unconsumed_count(self) -> int:
        return len(self._events)

    def unconsumed_events(self) -> list[tuple[str, bytes]]:
        return self._events

    def summary(self) -> Summary:
        return NOTHING

    def open_activities(self) -> dict[int, ActivityCall]:
        return dict(self.unanswered)

    def open_work(self) -> OpenWork:
        if not self._children and self._lock is None:
            return NO_WORK
        return OpenWork(self._children, self._lock)

    def unheard(self) -> list[tuple[str, FailureDetails]]:
        return self._failed

    def begin_turn(self, now: int, effects: Effects, events: list[bytes]) -> None:
        self._now, self._effects, self._written = now, effects, events

    def start(self, input: bytes | None) -> Awaitable[None] | None:
        return self._go_on()

    def apply(self, event: tuple[Any, ...]) -> Awaitable[None] | None:
        self._take(event)
        return self._go_on()

    def replay(self, history: list[list[Any]], input: bytes | None) -> Generator[None, None, None]:
        self._effects = self._written = None
        for event in history:
            if event[0] in INCOMING:
                if self._line >= len(self._script):
                    line = "the script has no line for it"
                    raise NondeterminismError(self.instance_id, 0, event[0], line, "script:0", "")
                self._take(tuple(event))
                self._decide()
                yield

    def check_event(self, name: str, data: bytes) -> None:
        if name == "typed" and not data.isdigit():
            raise PayloadError("$", "an int expected")

    def forget_events(self) -> None:
        self._written = []

    def close(self) -> None:
        self.is_closed = True

    def _take(self, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if kind == "EventRaised":
            self._events.append((event[2], event[3]))
        elif kind == "CancelRequested":
            self.cancel_requested = event[2]
        elif kind in ("TaskCompleted", "TaskFailed"):
            self.pending.discard(event[2])
            self.unanswered.pop(event[2], None)
            if kind == "TaskFailed":
                self._failed.append(("double", FailureDetails("ValueError", "too odd")))

    def _go_on(self) -> Awaitable[None] | None:
        if self._later is None:
            self._decide()
            return None
        return self._decide_later(self._later)

    async def _decide_later(self, later: Later) -> None:
        await later()
        if not self.is_closed:
            self._decide()

    def _decide(self) -> None:
        line, self._line = self._script[self._line], self._line + 1
        for decision in line:
            self._do(*decision)

    def _do(self, what: str, *given: Any) -> None:
        number = len(self.pending) + len(self._children) + 1
        if what == "activity":
            name, input = given
            caller = Caller(self.instance_id, self.execution, number)
            call = ActivityCall(caller, name, orjson.dumps(input), None, 1, None, number)
            self.unanswered[number] = call
            self.pending.add(number)
            if self._effects is not None and self._written is not None:
                fields = ["TaskScheduled", self._now, number, name, 0, [input], None, 1, None]
                self._written.append(orjson.dumps([*fields, number]))
                self._effects.start_activity(call)
        elif what == "child":
            self._children.append(given[0])
        elif what == "lock":
            self._lock = OpenLock(7, [given[0]], is_granted=False)
        elif what == "granted":
            assert self._lock is not None
            self._lock = self._lock._replace(is_granted=True)
        elif what == "status":
            self.custom_status = orjson.dumps(given[0])
        elif what == "ends":
            self.outcome = Outcome("Completed", orjson.dumps(given[0]))
        elif what == "fails":
            self.outcome = Outcome("Failed", failure=FailureDetails("ValueError", given[0]))
        else:
            assert what == "again"
            self.continuation = Continuation(orjson.dumps(given[0]), True, None)
            self.outcome = Outcome("ContinuedAsNew")


def is_execution(scripted: Scripted) -> Execution:
    """Show to the type checkers that it is one."""
    return scripted
