"""Failures unheard: those of which nobody awaits the outcome are logged and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...actors.failures import read_failure
from ...actors.logs import Log
from ...actors.replay.history import FAILURES

if TYPE_CHECKING:
    from ...actors.errors import FailureDetails
    from ...actors.messages import Completion

_CALLED = {
    "TaskFailed": "an activity",
    "SubOrchestrationInstanceFailed": "a sub-orchestration",
    "EntityOperationFailed": "an entity's operation",
}
_STOPPED = frozenset({"Cancelled", "Terminated"})

_log = Log("perdure.partition")


class Unheard:
    """The failures in one partition that nobody heard.

    Attributes:
        operations: how many signals have failed.
        calls: how many calls have.
    """

    def __init__(self) -> None:
        self.operations = 0
        self.calls = 0

    def operation(self, entity: str, operation: str, failure: FailureDetails) -> None:
        """A signalled operation failed."""
        self.operations += 1
        _log.error(
            "signal %s.%s failed and was rolled back: %s: %s",
            entity,
            operation,
            failure.error_type,
            failure.message,
        )

    def answer(self, instance_id: str, answer: Completion) -> None:
        """A call was answered, and nobody waits for that."""
        if answer.event in FAILURES:
            self.call(instance_id, _CALLED[answer.event], read_failure(answer.body))

    def call(self, instance_id: str, what: str, failure: FailureDetails) -> None:
        """A call failed."""
        if failure.error_type in _STOPPED:
            return  # that was asked for
        self.calls += 1
        _log.error(
            "%s, called by %s, failed and nobody awaited it: %s: %s",
            what,
            instance_id,
            failure.error_type,
            failure.message,
        )
