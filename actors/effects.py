"""What a turn may decide: the one way out of the deterministic core.

State machines call these methods and nothing else; what they mean outside (a mailbox, a row, a
running function) is the partition's business. A recording implementation is all that a test
of a state machine needs.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any, Final, Protocol

from .errors import FailureDetails
from .messages import ActivityCall, Caller, Completion, Message


class Effects(Protocol):
    """Where a turn's decisions go.

    Attributes:
        lag: microseconds by which the clock is behind the time of this turn, since it was set
            back; what is due after a while is due by the clock.
    """

    lag: int

    def send(self, target: str, message: Message) -> None:
        """Send a message to the actor of that key, in order with the earlier ones."""
        ...

    def unload(self, key: str) -> None:
        """Write down what was recorded and sent so far, in a turn of that actor with much of it.

        It becomes durable with all else of the turn; only the work is done now.
        """
        ...

    def send_later(self, due: int, target: str, message: Message) -> None:
        """Send a message at or after ``due``, in microseconds since the epoch."""
        ...

    def start_activity(self, call: ActivityCall) -> None:
        """Run an activity once this turn is durable; its answer comes as a ``Completion``."""
        ...

    def cancel_activity(self, caller: Caller, running: bool = True) -> None:
        """Let go of an activity, or all of the execution's for task 0.

        One that was not started never is; one that runs is told to stop, if ``running`` says so.
        """
        ...

    def cancel_activities(self, instance_id: str, execution: int, tasks: Collection[int]) -> None:
        """Let go of some activities of an instance, by the numbers of their tasks.

        The collection is given away, and says quickly what is in it.
        """
        ...

    def leave_activities(
        self, instance: int, instance_id: str, execution: int, calls: dict[int, ActivityCall]
    ) -> None:
        """Have activities carried out although no turn will take their answers.

        Args:
            instance: the number of the actor that called them.
            instance_id: its key.
            execution: which of its executions called them.
            calls: what was called, by the numbers of the tasks. The dict is given away.
        """
        ...

    def drop_activities(self, instance_id: str) -> None:
        """Let go of the activities that were left by an instance, which is purged."""
        ...

    def drop_answer(self, instance_id: str, answer: Completion) -> None:
        """Take note of an answer that nobody waits for; a failure is counted and logged."""
        ...

    def failed_call(self, instance_id: str, what: str, failure: FailureDetails) -> None:
        """Count and log a call that failed, since nobody looked at its outcome."""
        ...

    def arm_timer(self, caller: Caller, due: int) -> None:
        """Send ``TimerDue`` to the caller at or after ``due``."""
        ...

    def disarm_timer(self, caller: Caller) -> None:
        """Remove an armed timer of the caller (all of them for task 0)."""
        ...

    def reply(self, message: Message, result: bytes | None) -> None:
        """Answer whoever waits for the message, once this turn is durable."""
        ...

    def reply_failure(self, message: Message, failure: FailureDetails) -> None:
        """Answer that the message's work failed, once this turn is durable."""
        ...

    def finished(self, instance_id: str) -> None:
        """Say that an orchestration has ended, to those who wait for its result."""
        ...

    def consume(self, message: Message) -> None:
        """Say that a held message is done with."""
        ...

    def refuse(self, message: Message, error: Exception) -> None:
        """Fail whoever waits for the message; nothing else happened."""
        ...

    def let_go(self, rest: Generator[None]) -> None:
        """Have the rest of something done when there is time; it pauses now and then."""
        ...

    def prepare(self, key: str, steps: Generator[None]) -> None:
        """Have something done, with pauses, before what this turn of an actor has decided is stored.

        What the actor holds then is stored as well. Until it is done it may put a message off by
        ``STAY``.
        """
        ...

    def observe(self, told: Any) -> None:
        """Have whoever traces told of something, once this turn is durable."""
        ...

    def failed_operation(self, entity: str, operation: str, failure: FailureDetails) -> None:
        """Count and log a signalled operation that failed, since nobody awaits it."""
        ...


HELD: Final = object()


RELOAD: Final = object()


FEED: Final = object()


STAY: Final = object()
