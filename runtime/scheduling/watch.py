"""The watch: tells an observer, and keeps from everybody else what comes of that.

It is the ``Tracer`` of a hub's actors, too, where the observer traces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from ...actors.arguments import is_a, refusal
from ...actors.carried import checked_carried
from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.printing import text_of, type_name
from .sparing import Sparing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...actors.carried import Carried
    from ...actors.errors import FailureDetails
    from ...actors.tracing import OperationFacts, StartFacts
    from ..observer import Observer, TraceObserver

_log = Log("perdure.observer")


_OBSERVED = ("turn", "checkpoint", "activity")
_TOLD = tuple(f"{when}_{what}" for when in ("begin", "end") for what in _OBSERVED)
_TRACED = (
    "begin_activity",
    "end_activity",
    "carry",
    "begin_trace",
    "continue_trace",
    "follow",
    "enter_instance",
    "enter_activity",
    "begin_operation",
    "end_operation",
    "tell",
)


def make_watch(observer: object) -> Watch:
    """Watch for an observer.

    Raises:
        UsageError: it is none, or traces by some of the methods only.
    """
    traced = [name for name in _TRACED if has_methods(observer, name)]
    if len(traced) < len(_TRACED):
        if "begin_trace" in traced:
            missing = ", ".join(name for name in _TRACED if name not in traced)
            raise refusal("observer", f"one that traces to have {missing} as well", observer)
        if not has_methods(observer, *_TOLD):
            raise refusal("observer", f"an object with the methods {', '.join(_TOLD)}", observer)
    return Watch(cast("Observer | TraceObserver", observer))


def has_methods(value: object, *methods: str) -> bool:
    """Say whether a value is an object, and no class, with these methods."""
    try:
        return not is_a(value, type) and all(callable(getattr(value, name)) for name in methods)
    except Exception:
        return False


class Watch:
    """An observer, from which nothing that it raises comes back.

    Attributes:
        failures: how often it has raised.
        traces: whether it has the hub's work belong to traces.
        sees_turns: whether it is told of turns.
        sees_checkpoints: whether it is told of checkpoints.
    """

    NOTHING: Final = object()

    def __init__(self, observer: Observer | TraceObserver) -> None:
        self._observer = observer
        self._sparing = Sparing(_log.error)
        self.failures = 0
        self.traces = has_methods(observer, *_TRACED)
        self._carry: Any = getattr(observer, "carry", None) if self.traces else None
        told = ("turn", "checkpoint")
        self.sees_turns, self.sees_checkpoints = (
            not self.traces or has_methods(observer, f"begin_{what}", f"end_{what}")
            for what in told
        )

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

    def carry(self) -> Carried | None:
        """Give what of the caller's context goes along with what it sends."""
        # Without _ask(): it is asked for each request of a client, and mostly there is nothing.
        try:
            carried = self._carry()
        except BaseException as error:
            self._take(error, "carry")
            return None
        return None if carried is None else checked_carried(carried)

    def begin_trace(self, start: StartFacts) -> Carried | None:
        """Give what goes along with all that an execution sets going."""
        carried = self._ask("begin_trace", start)
        return start.carried if carried is None else checked_carried(carried)

    def continue_trace(self, start: StartFacts) -> Carried | None:
        """Give the same for the execution that goes on from one, as a new one."""
        carried = self._ask("continue_trace", start)
        return start.carried if carried is None else checked_carried(carried)

    def follow(self, start: StartFacts) -> Any:
        """Give by what an execution is known; None not to tell of it."""
        return self._ask("follow", start)

    def enter_instance(self, start: StartFacts) -> None:
        """Tell that the code of an execution gets its context, which is the running one."""
        self._ask("enter_instance", start)

    def enter_activity(self, begun: Any) -> None:
        """Tell that the code of an activity comes next in the running context."""
        if begun is not self.NOTHING:
            self._ask("enter_activity", begun)

    def begin_operation(self, operation: OperationFacts) -> Any:
        """Tell that an operation of an entity begins, in the running context."""
        return self._ask("begin_operation", operation)

    def end_operation(self, begun: Any, failure: FailureDetails | None) -> Any:
        """Tell that it has ended."""
        return self._ask("end_operation", begun, failure)

    def tell(self, ended: Sequence[Any]) -> None:
        """Tell what has ended durably."""
        self._ask("tell", ended)

    def _ask(self, method: str, *given: Any) -> Any:
        try:
            return getattr(self._observer, method)(*given)
        except BaseException as error:
            self._take(error, method)
            return None

    def _take(self, error: BaseException, method: str) -> None:
        if is_interrupt(error):
            raise error
        self.failures += 1
        self._sparing.write(
            "the observer raised %s in %s: %s", type_name(error), method, text_of(error)
        )
