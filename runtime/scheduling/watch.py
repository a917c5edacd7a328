"""The watch: tells an observer, and keeps from everybody else what comes of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.printing import text_of, type_name
from .sparing import Sparing

if TYPE_CHECKING:
    from ..observer import Observer

_log = Log("perdure.observer")


class Watch:
    """An observer, from which nothing that it raises comes back.

    Attributes:
        failures: how often it has raised.
    """

    NOTHING: Final = object()

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._sparing = Sparing(_log.error)
        self.failures = 0

    def begin(self, what: str, facts: Any) -> Any:
        """Tell that a turn, a checkpoint or an activity begins."""
        try:
            return getattr(self._observer, f"begin_{what}")(facts)
        except BaseException as error:
            self._take(error, f"begin_{what}")
            return self.NOTHING

    def end(self, what: str, begun: Any, outcome: Any) -> None:
        """Tell that it has ended."""
        if begun is self.NOTHING:
            return
        try:
            getattr(self._observer, f"end_{what}")(begun, outcome)
        except BaseException as error:
            self._take(error, f"end_{what}")

    def _take(self, error: BaseException, method: str) -> None:
        if is_interrupt(error):
            raise error
        self.failures += 1
        self._sparing.write(
            "the observer raised %s in %s: %s", type_name(error), method, text_of(error)
        )
