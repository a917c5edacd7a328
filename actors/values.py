"""Small values and checks that several modules of the model share."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final, Literal

from .ids import check_folded


class Missing(Enum):
    """The type of ``MISSING``: no input was given, which is not the same as None."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
MissingType = Literal[Missing.MISSING]


class RuntimeStatus(StrEnum):
    """Where an orchestration instance stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    CONTINUED_AS_NEW = "ContinuedAsNew"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    TERMINATED = "Terminated"

    @property
    def is_terminal(self) -> bool:
        """Whether an instance never leaves this status by itself."""
        return self.value in TERMINAL


#: How an execution may have ended.
ExecutionEnd = Literal["Completed", "Failed", "Canceled", "Terminated", "ContinuedAsNew"]
#: Where an instance stands: the words of ``RuntimeStatus``.
Status = Literal["Pending", "Running", "Suspended"] | ExecutionEnd

#: What a strand of code, or a task, may wait for.
WaitKind = Literal[
    "activity", "timer", "event", "child", "entity", "lock", "all", "any", "branches", "task"
]
#: What a timer is for: the code's own, or part of something else.
TimerPurpose = Literal["timer", "deadline", "event_timeout", "retry", "overall_timeout"]

TERMINAL: Final = frozenset({"Completed", "Failed", "Canceled", "Terminated"})


def check_event_name(name: object) -> str:
    """Check an external event's name and fold its case: names that differ in case are one."""
    return check_folded(name, "an event name")
