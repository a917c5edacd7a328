"""The contract between an instance and its code: given this history and these events, what now?

``OrchestrationActor`` knows no more of its code than this. ``Executor`` runs it as coroutines in
this process; another execution may ask a program elsewhere, and then what it gives is awaited.

A turn of an execution: ``begin_turn`` says when it is, where effects go and where events are
written; then ``start``, or ``apply`` for an event that came in, which is written down already. The
execution writes what its code decides behind that, sends it out as effects, and has what came of it
ready to be read. One that answers later does all of this behind its last await, at once: so a turn
is whole or has not happened. What it awaits is cancelled where the instance is terminated meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Container, Generator, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ..effects import Effects
    from ..errors import FailureDetails
    from ..messages import ActivityCall
    from ..values import ExecutionEnd


class Outcome:
    """How an execution ended."""

    __slots__ = ("failure", "output", "status")

    def __init__(
        self,
        status: ExecutionEnd,
        output: bytes | None = None,
        failure: FailureDetails | None = None,
    ) -> None:
        self.status: ExecutionEnd = status
        self.output = output
        self.failure = failure


class Continuation:
    """What ``continue_as_new`` asked for."""

    __slots__ = ("input", "keep_events", "version")

    def __init__(self, input: bytes | None, keep_events: bool, version: str | None) -> None:
        self.input = input
        self.keep_events = keep_events
        self.version = version


class OpenLock(NamedTuple):
    """Entities that an execution locks, and the number of the task that asked for it."""

    number: int
    entities: list[str]
    is_granted: bool


class OpenWork(NamedTuple):
    """What an execution has open elsewhere."""

    children: list[str]
    lock: OpenLock | None


NO_WORK = OpenWork([], None)


Summary = tuple[bytes | None, int | None]
"""What an execution waits for, in short.

That is a JSON array of texts: ``activity:NAME``, ``event:NAME``, ``entity:@NAME@KEY``,
``lock:@NAME@KEY``, ``child``, ``timer``, or None where it waits for nothing; and how often the call
was tried that was tried most, or None for once.
"""

NOTHING: Summary = (None, None)


class Execution(Protocol):
    """One execution of an orchestration's code, wherever that runs.

    Attributes:
        answers_later: whether ``start`` and ``apply`` give what has to be awaited.
        outcome: how it ended; None while it has not.
        continuation: with which input it goes on anew, where it ended so.
        custom_status: what the code has set, as JSON.
        cancel_requested: why its code was told to stop, if it was.
        pending: the numbers of the tasks whose answers it waits for.
        unanswered: the activities without an answer, by number. Whoever writes an answer down that
            nobody waits for takes it out.
        unconsumed_count: how many events it has taken that its code has not.
        unfinished: what is left to be done of the last step, with pauses, where that is much; it is
            whole, and may be read, only behind that.
    """

    # What has come of it.

    @property
    def answers_later(self) -> bool: ...
    @property
    def outcome(self) -> Outcome | None: ...
    @property
    def continuation(self) -> Continuation | None: ...
    @property
    def custom_status(self) -> bytes | None: ...
    @property
    def cancel_requested(self) -> str | None: ...
    @property
    def pending(self) -> Container[int]: ...
    @property
    def unanswered(self) -> dict[int, ActivityCall]: ...
    @property
    def unconsumed_count(self) -> int: ...
    @property
    def unfinished(self) -> Generator[None] | None: ...

    def unconsumed_events(self) -> Iterable[tuple[str, bytes]]:
        """Give the events that the code has not taken by now, by name, in the order they came.

        What they are made of is looked at as they are gone through, which may be behind its end.
        """
        ...

    def open_activities(self) -> dict[int, ActivityCall]:
        """Give the activities that have no answer and were not given up, by number; once, at its end."""
        ...

    def open_work(self) -> OpenWork:
        """Give what else it has open: its children, and entities that it locks."""
        ...

    def unheard(self) -> list[tuple[str, FailureDetails]]:
        """Give the calls that failed and that the code did not look at, by what was called."""
        ...

    def summary(self) -> Summary:
        """Give what it waits for, in short."""
        ...

    # What happens to it.

    def begin_turn(self, now: int, effects: Effects, events: list[bytes]) -> None:
        """Say when the next decisions are made, where they go, and where they are written down."""
        ...

    def start(self, input: bytes | None) -> Awaitable[None] | None:
        """Let the code begin, and run until it waits."""
        ...

    def replay(self, history: list[list[Any]], input: bytes | None) -> Generator[None, None, None]:
        """Take the code through its history; yields now and then, so that a loop can breathe.

        Raises:
            NondeterminismError: the code does something else than the history says.
            PayloadError: what could be read then cannot be read now.
        """
        ...

    def check_event(self, name: str, data: bytes) -> None:
        """Refuse an event's data that do not fit the wait that would take them.

        Raises:
            PayloadError: they are not of the type that the oldest open wait declares.
        """
        ...

    def apply(self, event: tuple[Any, ...]) -> Awaitable[None] | None:
        """Take one incoming event, and let the code run until all of it waits.

        Args:
            event: its kind, its time, then the number of the task that it answers and the answer
                as JSON; for ``EventRaised`` name and data, for ``CancelRequested`` the reason.
        """
        ...

    def forget_events(self) -> None:
        """Let go of the list of the last turn's events, which are told."""
        ...

    def close(self) -> Generator[None] | None:
        """Let the code go; nothing that it still asks for happens.

        Returns:
            What is left to be done where that takes long, and pauses now and then.
        """
        ...


def let_go(execution: Execution) -> None:
    """Let an execution's code go, and all of what is left of it, without a pause."""
    for _ in execution.close() or ():
        pass
