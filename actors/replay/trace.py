"""The steps of a replay, one by one: where the code stood after each event of its history.

A trace is taken of an execution made for it alone. It goes by the history and by nothing else, so
it has no effects, and what lives is not touched.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import NondeterminismError, PayloadError
from ..registry.outside import CodeLine, running_lines
from .executor import Executor
from .history import IDENTITY, KIND
from .waits import Branch, OpenTask, Wait, branches_of, open_tasks

if TYPE_CHECKING:
    from .inputs import Given

#: Strands of code, and open tasks, that a step names.
BRANCHES_MAX = 20
OPEN_MAX = 50

#: How much the steps of one trace may say together, before it ends early.
WEIGHT_MAX = 10_000

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

    __slots__ = ("first", "made_at")

    def follow(
        self, history: list[list[Any]], input: bytes | None, first: int, end: int
    ) -> Generator[None, None, Trace]:
        """Go through the history, and look at the steps of the events from ``first`` to before ``end``.

        Pauses behind each event that came in.
        """
        trace = Trace()
        self.first, self.made_at = first, trace.made_at
        seen = seen_by_code(history)
        steps = self.replay(seen, input, 0)
        before = weight = 0
        try:
            while before < min(end, len(seen)):
                next(steps)
                if self.position > first and not _is_decision(seen, self.position):
                    step = yield from self._look(before)
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

    def _look(self, before: int) -> Generator[None, None, Step]:
        found = yield from open_tasks(self)
        return Step(
            before,
            self.position,
            branches_of(self, BRANCHES_MAX),
            len(self.fibers),
            found[:OPEN_MAX],
            len(found),
            [one.title for one in self.awaited_events()[:OPEN_MAX]],
        )

    def record(
        self, decision: tuple[Any, ...], data: bytes | None = None, given: Given | None = None
    ) -> bool:
        """See ``Executor.record``; takes note of the lines that made the decision."""
        position = self.position
        lines = running_lines(_RUNS) if position >= self.first and not self.closed else None
        is_new = super().record(decision, data, given)
        if lines is not None and self.mismatch is None:
            self.made_at[position] = lines
        return is_new

    def _check(self) -> None:
        script = self._script
        if self.mismatch is None and script is not None and script.next is None:
            return  # it has ended where its history has
        super()._check()


def _is_decision(history: list[list[Any]], position: int) -> bool:
    """Whether a history has a decision next, which code that has stopped would have made."""
    return position < len(history) and history[position][KIND] in IDENTITY


#: What runs all of the code: lines outside of it are none of the code's.
_RUNS = Executor._run.__code__  # pyright: ignore[reportPrivateUsage]


def seen_by_code(history: list[list[Any]]) -> list[list[Any]]:
    """Give the events up to the one that ended the execution, if one did."""
    for place, event in enumerate(history):
        if event[KIND] in _ENDS:
            return history[:place]
    return history
