"""What has the work of actors belong to traces: told where code begins and ends, if anything is.

Where nothing traces, nothing of this costs anything. What a tracer has go along with messages
travels, and is stored, as declared context variables are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from .carried import Carried
    from .errors import FailureDetails


class StartFacts(NamedTuple):
    """An execution of an orchestration instance: whose, of what, which one, and what went along.

    ``parent_instance_id`` is None where it is no child; ``created`` is when the instance was
    started, in microseconds since the epoch.
    """

    instance_id: str
    name: str
    version: str | None
    execution: int
    parent_instance_id: str | None
    created: int
    carried: Carried | None


class OperationFacts(NamedTuple):
    """An operation of an entity: which, whether somebody wants its result, who calls, what came along.

    An orchestration that calls is told by its instance id, its execution and the number of the
    call there; a client, or an entity, by None.
    """

    entity_id: str
    operation: str
    is_call: bool
    instance_id: str | None
    execution: int
    task: int
    carried: Carried


class Passed(NamedTuple):
    """What an execution recorded that is over before any of it was told.

    ``chunks`` are as those of its history; ``continued`` is when another took its place, None if
    the events say how it ended; and ``failure`` is why it failed.
    """

    start: StartFacts
    chunks: list[bytes]
    continued: int | None
    failure: bytes | None


class Tracer(Protocol):
    """Has what actors do belong to traces. Nothing that it meets comes out of it."""

    def carry(self) -> Carried | None:
        """Give what of the caller's context goes along with what it sends."""
        ...

    def begin_trace(self, start: StartFacts, /) -> Carried | None:
        """Give what goes along with all that an execution sets going."""
        ...

    def continue_trace(self, start: StartFacts, /) -> Carried | None:
        """Give the same for the execution that goes on from one, as a new one."""
        ...

    def enter_instance(self, carried: Carried, /) -> None:
        """The code of an execution, with which this goes along, gets the running context."""
        ...

    def begin_operation(self, operation: OperationFacts, /) -> Any:
        """An operation begins, in the running context."""
        ...

    def end_operation(self, begun: Any, failure: FailureDetails | None, /) -> Any:
        """It has ended; gives what is to be told once that is durable."""
        ...
