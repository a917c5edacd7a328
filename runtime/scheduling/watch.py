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
    from ..observer import ActivityFacts, Observer, TraceObserver

_log = Log("perdure.observer")


_OBSERVED = ("turn", "checkpoint", "activity")
_TOLD = tuple(f"{when}_{what}" for when in ("begin", "end") for what in _OBSERVED)
_TRACED = (
    "begin_activity",
    "end_activity",
    "carry",
    "begin_trace",
    "continue_trace",
    "follows",
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
    UNSAID: Final = object()

    def __init__(self, observer: Observer | TraceObserver) -> None:
        self._observer = observer
        self._sparing = Sparing(_log.error)
        self.failures = 0
        self.traces = has_methods(observer, *_TRACED)
        # What is asked for each request, orchestration and activity is looked up once.
        asked = cast("Any", observer)
        self._begin_activity, self._end_activity = asked.begin_activity, asked.end_activity
        if self.traces:
            self._carry, self._begin_trace = asked.carry, asked.begin_trace
            self._follows, self._follow, self._tell = asked.follows, asked.follow, asked.tell
            self._enter_instance = asked.enter_instance
            self._enter_activity = asked.enter_activity
        told = ("turn", "checkpoint")
        self.sees_turns, self.sees_checkpoints = (
            not self.traces or has_methods(observer, f"begin_{what}", f"end_{what}")
            for what in told
        )

    def begin(self, what: str, facts: Any) -> Any:
        """Tell that a turn or a checkpoint begins."""
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

    def begin_activity(self, activity: ActivityFacts) -> Any:
        """Tell that an activity begins; gives what is given back at its end, None to tell of none."""
        try:
            begun = self._begin_activity(activity)
        except BaseException as error:
            self._take(error, "begin_activity")
            return None
        return self.UNSAID if begun is None and not self.traces else begun

    def end_activity(self, begun: Any, failure: str | None) -> None:
        """Tell that it has ended."""
        try:
            self._end_activity(None if begun is self.UNSAID else begun, failure)
        except BaseException as error:
            self._take(error, "end_activity")

    def carry(self) -> Carried | None:
        """Give what of the caller's context goes along with what it sends."""
        try:
            carried = self._carry()
        except BaseException as error:
            self._take(error, "carry")
            return None
        return None if carried is None else checked_carried(carried)

    def begin_trace(self, start: StartFacts) -> Carried | None:
        """Give what goes along with all that an execution sets going."""
        try:
            carried = self._begin_trace(start)
        except BaseException as error:
            self._take(error, "begin_trace")
            return start.carried
        return start.carried if carried is None else checked_carried(carried)

    def continue_trace(self, start: StartFacts) -> Carried | None:
        """Give the same for the execution that goes on from one, as a new one."""
        carried = self._ask("continue_trace", start)
        return start.carried if carried is None else checked_carried(carried)

    def follows(self, carried: Carried) -> bool:
        """Say whether work is told with which this goes along."""
        try:
            return self._follows(carried) is True
        except BaseException as error:
            self._take(error, "follows")
            return False

    def follow(self, start: StartFacts) -> Any:
        """Give by what an execution is known; None not to tell of it."""
        try:
            return self._follow(start)
        except BaseException as error:
            self._take(error, "follow")
            return None

    def enter_instance(self, carried: Carried) -> None:
        """Tell that the code of an execution gets the running context."""
        try:
            self._enter_instance(carried)
        except BaseException as error:
            self._take(error, "enter_instance")

    def enter_activity(self, carried: Carried) -> bool:
        """Tell that the code of an activity does; says whether to tell what it is."""
        try:
            return self._enter_activity(carried) is True
        except BaseException as error:
            self._take(error, "enter_activity")
            return False

    def begin_operation(self, operation: OperationFacts) -> Any:
        """Tell that an operation of an entity begins, in the running context."""
        return self._ask("begin_operation", operation)

    def end_operation(self, begun: Any, failure: FailureDetails | None) -> Any:
        """Tell that it has ended."""
        return self._ask("end_operation", begun, failure)

    def tell(self, ended: Sequence[Any]) -> None:
        """Tell what has ended durably."""
        try:
            self._tell(ended)
        except BaseException as error:
            self._take(error, "tell")

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
