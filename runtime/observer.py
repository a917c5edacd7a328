"""The observer: who is told when a turn, a checkpoint or an activity begins and ends.

Traces and metrics are made of it. Where there is none, nothing of it costs anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from ..actors.errors import FailureDetails
from ..actors.tracing import OperationFacts, StartFacts


class TurnFacts(NamedTuple):
    """A turn: of which actor, in which partition, with how many messages."""

    actor: str
    partition: int
    messages: int


class CheckpointFacts(NamedTuple):
    """A checkpoint: of which partition, which one, and how many turns and messages are in it."""

    partition: int
    sequence: int
    turns: int
    messages: int


class ActivityFacts(NamedTuple):
    """An attempt at an activity: which, for which instance, execution and task, and which attempt.

    ``carried`` is what went along with its call, if anything did.
    """

    activity: str
    instance_id: str
    task: int
    attempt: int
    execution: int = 1
    carried: Mapping[str, str] | None = None


#: What a piece of an orchestration's work is; an orchestration is its own.
WorkKind = Literal["orchestration", "activity", "timer"]


class WorkFacts(NamedTuple):
    """A piece of an orchestration's work that has ended.

    ``trace`` is what ``follow`` gave for the execution ``start``; ``task`` is the number of the
    task, 0 for the execution itself; ``began`` and ``ended`` are microseconds since the epoch, as
    the history has them; ``status`` is a word of ``RuntimeStatus``; ``rewinds`` says how often the
    execution had been rewound, after which numbers of tasks may come again.
    """

    kind: WorkKind
    trace: Any
    start: StartFacts
    task: int
    name: str
    attempt: int
    began: int
    ended: int
    status: str
    failure: FailureDetails | None
    rewinds: int


class Observer(Protocol):
    """Is told of a hub's work, in this process.

    What ``begin_...`` gives is given back to its ``end_...``. All of it is called on the event loop
    that does the work, but for sync activities, which begin in their own thread; so it has to be
    quick, and with ``shards`` to bear several threads. What it raises is logged, and changes
    nothing. A turn whose operation awaits ends when that has ended; read-only operations beside it
    are not told.
    """

    def begin_turn(self, turn: TurnFacts, /) -> Any:
        """A turn begins."""
        ...

    def end_turn(self, begun: Any, error: BaseException | None, /) -> None:
        """It has ended; it crashed, and its partition recovers, if there is an error."""
        ...

    def begin_checkpoint(self, checkpoint: CheckpointFacts, /) -> Any:
        """A checkpoint is given to the store."""
        ...

    def end_checkpoint(self, begun: Any, error: BaseException | None, /) -> None:
        """It is durable, if there is no error."""
        ...

    def begin_activity(self, activity: ActivityFacts, /) -> Any:
        """The code of an activity begins."""
        ...

    def end_activity(self, begun: Any, failure: str | None, /) -> None:
        """It has ended; ``failure`` is the type of its error, or of what took its place."""
        ...


class TraceObserver(Protocol):
    """An observer that has a hub's work belong to traces.

    It has all of these methods, and those of an ``Observer`` for turns and for checkpoints only if
    it is to be told of these. What it has go along travels with messages as context variables do, and is stored with them and
    in histories: texts by name.
    """

    def begin_activity(self, activity: ActivityFacts, /) -> Any:
        """The code of an activity comes next in this context; None not to be told of its end."""
        ...

    def end_activity(self, begun: Any, failure: str | None, /) -> None:
        """It has ended; ``failure`` is the type of its error, or of what took its place."""
        ...

    def carry(self) -> Mapping[str, str] | None:
        """Give what of the caller's context goes along with what a client sends."""
        ...

    def begin_trace(self, start: StartFacts, /) -> Mapping[str, str] | None:
        """An execution is to begin: give what goes along with all that it sets going.

        What it gives is stored with the execution. It is asked again where that failed.
        """
        ...

    def continue_trace(self, start: StartFacts, /) -> Mapping[str, str] | None:
        """An execution continues as a new one: give the same for that; ``start`` has the former."""
        ...

    def follows(self, carried: Mapping[str, str], /) -> bool:
        """Say whether work is to be told with which this goes along."""
        ...

    def follow(self, start: StartFacts, /) -> Any:
        """Say by what an execution is known, with which something goes along, that comes into memory.

        None not to be told of it.
        """
        ...

    def enter_instance(self, carried: Mapping[str, str], /) -> None:
        """The code of an execution, with which this goes along, gets the running context."""
        ...

    def enter_activity(self, carried: Mapping[str, str], /) -> bool:
        """The code of an activity, with which this came along, gets the running context.

        Say whether ``begin_activity`` is to be told what it is.
        """
        ...

    def begin_operation(self, operation: OperationFacts, /) -> Any:
        """An operation of an entity, with which something came along, begins in this context."""
        ...

    def end_operation(self, begun: Any, failure: FailureDetails | None, /) -> Any:
        """It has ended; gives what ``tell`` is given once that is durable."""
        ...

    def tell(self, ended: Sequence[Any], /) -> None:
        """These have ended, and that is durable: ``WorkFacts``, and what ``end_operation`` gave."""
        ...
