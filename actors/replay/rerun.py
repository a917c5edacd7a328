"""A history gone through once more, to see whether the code of today still does what it says.

As at a load of the instance, and by the same comparison; but also of one that has ended, whose code
must have come to the same end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from ..errors import NondeterminismError
from .executor import Executor
from .history import KIND, describe, differs_by_input, recorded_input
from .inputs import Given
from .trace import seen_by_code

_STATUS = 2
_INPUT_MAX = 300
_PAUSE = 1_000_000_000  # events: there is no loop that has to breathe


class Rerun(Executor):
    """An execution that is made for this alone, and has no effects."""

    __slots__ = ("end", "ended_at", "note")

    def follow(
        self,
        history: list[list[Any]],
        input: bytes | None,
        note: Callable[[int], None] | None = None,
    ) -> None:
        """Go through a history, to its end where it has one.

        Args:
            history: the events.
            input: the input.
            note: is told the place of each event that the code is about to hear of.

        Raises:
            NondeterminismError: the code does something else than the history says.
            PayloadError: what could be read then cannot be read now.
        """
        seen = seen_by_code(history)
        self.note = note
        self.ended_at: str | None = None
        self.end: list[Any] | None = history[len(seen)] if len(seen) < len(history) else None
        for _ in self.replay(seen, input, _PAUSE):
            pass
        if self.end is not None:
            self._check_end(self.end, len(seen))

    def step(self, happened: Callable[..., object], *given: Any) -> None:
        """See ``Executor.step``."""
        if self.note is not None:
            self.note(self.position - 1)
        super().step(happened, *given)

    def record(
        self, decision: tuple[Any, ...], data: bytes | None = None, given: Given | None = None
    ) -> bool:
        """See ``Executor.record``; says how an input differs, where that is all that does."""
        script, before = self._script, self.mismatch
        recorded = None if script is None else script.next
        try:
            return super().record(decision, data, given)
        finally:
            if self.mismatch is not before and recorded is not None:
                _add_inputs(self.mismatch, recorded, decision, data)

    def _check(self) -> None:
        script = self._script
        has_ended = self.end is not None and script is not None and script.next is None
        if self.mismatch is None and has_ended:
            self.ended_at = self._where()
            return  # at the same place; whether in the same way is looked at behind it
        super()._check()

    def _check_end(self, end: list[Any], position: int) -> None:
        wanted = {"ContinueAsNew": "ContinuedAsNew", "ExecutionTerminated": None}.get(
            end[KIND], end[_STATUS] if len(end) > _STATUS else None
        )
        outcome = self.outcome
        if wanted is None or (outcome is not None and outcome.status == wanted):
            return  # what was terminated had not come to an end of its own
        why, done = "", "nothing more"
        if outcome is not None:
            done = f"the end of the function ({outcome.status})"
            if outcome.failure is not None:
                why = f"{outcome.failure.error_type}: {outcome.failure.message}"
        where = self._where() if self.ended_at is None or outcome is None else self.ended_at
        raise NondeterminismError(self.instance_id, position, describe(end), done, where, why)


def _add_inputs(
    error: NondeterminismError | None,
    recorded: list[Any],
    decision: tuple[Any, ...],
    data: bytes | None,
) -> None:
    if error is None or not differs_by_input(recorded, decision):
        return
    then = recorded_input(recorded)
    if then is None:
        return  # not recorded then
    was = _shown(orjson.dumps(then[0])) if then else "none"
    now = "none" if data is None else _shown(data)
    error.add_note(f"its input was {was}, and is {now} now")


def _shown(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return text if len(text) <= _INPUT_MAX else f"{text[: _INPUT_MAX - 3]}..."
