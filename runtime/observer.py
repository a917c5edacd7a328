"""The observer: who is told when a turn, a checkpoint or an activity begins and ends.

Traces and metrics are made of it. Where there is none, nothing of it costs anything.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


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
    """An attempt at an activity: which, for which instance and task, and which attempt."""

    activity: str
    instance_id: str
    task: int
    attempt: int


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
