"""The steps of a replay, one by one: where the code stood after each event of its history.

A trace is taken of an execution made for it alone. It goes by the history and by nothing else, so
it has no effects, and what lives is not touched.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import NondeterminismError, PayloadError
from ..registry.outside import CodeLine, running_lines
from .executor import Executor
from .history import IDENTITY, KIND
from .waits import Branch, OpenTask, Wait, branches_of, open_task

if TYPE_CHECKING:
    from .inputs import Given

#: Strands of code, and open tasks, that a step names.
BRANCHES_MAX = 20
OPEN_MAX = 50

#: How much the steps of one trace may say together, before it ends early.
WEIGHT_MAX = 5_000

#: Events that end an execution: nothing that comes behind them was seen by its code.
_ENDS = frozenset({"ExecutionTerminated", "ContinueAsNew", "ExecutionCompleted"})


class Step(NamedTuple):
    """What one event of a history led to.

    Attributes:
        position: the event's place in the history, from 0.
        decided: the place behind the last decision that it led to; the first is behind the event.
        branches: where the code stood then; the first of its strands, and how many there were.
        open: what it waited for, the first of that, and how much there was.
        events: which events it waited for, by name.
    """

    position: int
    decided: int
    branches: list[Branch]
    branch_count: int
    open: list[OpenTask]
    open_count: int
    events: list[str]

    @property
    def weight(self) -> int:
        """How much it has to say, about: lines, and things that are waited for."""
        lines = sum(1 + len(one.lines) + _parts(one.wait) for one in self.branches)
        return 1 + lines + len(self.open) + len(self.events)


def _parts(wait: Wait | None) -> int:
    return 0 if wait is None else 1 + sum(map(_parts, wait.parts))


class Trace:
    """What a trace has found so far.

    Attributes:
        steps: the steps, in order.
        made_at: the lines of the code that made the decisions, by their places.
        end: the place behind its last step, where it says so much that it ends early.
        trouble: why it went no further, where the code is not the history's.
    """

    def __init__(self) -> None:
        self.end: int | None = None
        self.steps: list[Step] = []
        self.made_at: dict[int, list[CodeLine]] = {}
        self.trouble: str | None = None


class Tracer(Executor):
    """An execution that is taken through a history for a trace of it."""

    __slots__ = ("end", "first", "made_at")

    def follow(
        self, history: list[list[Any]], input: bytes | None, first: int, end: int
    ) -> Generator[None, None, Trace]:
        """Go through the history, and look at the steps of the events from ``first`` to before ``end``.

        Pauses behind each event that came in.
        """
        trace = Trace()
        self.first, self.end, self.made_at = first, end, trace.made_at
        steps = self.replay(history, input, 0)
        before = weight = 0
        try:
            while before < min(end, len(history)) and not _is_end(history[before]):
                next(steps)
                if self.unfinished is not None:
                    yield
                    continue
                if self.position > first and not _is_decision(history, self.position):
                    step = self._look(before)
                    trace.steps.append(step)
                    weight += step.weight
                before = self.position
                if weight > WEIGHT_MAX:
                    trace.end = before
                    break
                yield
        except StopIteration:
            pass
        except (NondeterminismError, PayloadError) as error:
            trace.trouble = str(error)
        finally:
            steps.close()
            rest = self.close()
        yield from rest or ()
        return trace

    def _look(self, before: int) -> Step:
        return Step(
            before,
            self.position,
            branches_of(self, BRANCHES_MAX),
            self.fiber_count,
            [open_task(*one) for one in islice(self.pending.items(), OPEN_MAX)],
            len(self.pending),
            [one.title for one in islice(self.awaited_events(), OPEN_MAX)],
        )

    def record(
        self, decision: tuple[Any, ...], data: bytes | None = None, given: Given | None = None
    ) -> bool:
        """See ``Executor.record``; takes note of the lines that made the decision."""
        position = self.position
        is_told = self.first <= position < self.end and not self.closed
        lines = running_lines(_RUNS) if is_told else None
        is_new = super().record(decision, data, given)
        if lines is not None and self.mismatch is None:
            self.made_at[position] = lines
        return is_new

    def _check(self) -> None:
        script = self._script
        if self.mismatch is None and script is not None and _is_end(script.next):
            return  # it has ended where its history has
        super()._check()


def _is_decision(history: list[list[Any]], position: int) -> bool:
    """Whether a history has a decision next, which code that has stopped would have made."""
    return position < len(history) and history[position][KIND] in IDENTITY


#: What runs all of the code: lines outside of it are none of the code's.
_RUNS = (
    Executor._run.__code__,  # pyright: ignore[reportPrivateUsage]
    Executor._go_on.__code__,  # pyright: ignore[reportPrivateUsage]
)


def seen_by_code(history: list[list[Any]]) -> list[list[Any]]:
    """Give the events up to the one that ended the execution, if one did."""
    for place, event in enumerate(history):
        if _is_end(event):
            return history[:place]
    return history


def _is_end(event: list[Any] | None) -> bool:
    """Whether nothing that comes from here on was seen by the code."""
    return event is None or event[KIND] in _ENDS
