"""What is done around each turn of a partition, where anything is.

Notes are taken of what runs where processes have died, and an observer is told.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..observer import TurnFacts
from ..scheduling.deaths import noted

if TYPE_CHECKING:
    from ...actors.messages import Message
    from ..scheduling.deaths import Notes
    from ..scheduling.watch import Watch
    from .activation import Activation

Operation = Coroutine[Any, Any, None]


class Around:
    """Has turns taken, and says so to whom it may concern."""

    def __init__(self, notes: Notes | None, watch: Watch | None) -> None:
        self._notes = notes
        self._watch = watch

    def take(self, activation: Activation, mail: list[Message]) -> Operation | None:
        """Have an activation take a turn."""
        watch = self._watch
        with noted(self._notes, activation.key):
            if watch is None:
                return activation.take(mail)
            turn = TurnFacts(activation.key, activation.partition.index, len(mail))
            begun = watch.begin("turn", turn)
            try:
                operation = activation.take(mail)
            except BaseException as error:
                watch.end("turn", begun, error)
                raise
            if operation is not None:
                return _finish(operation, watch, begun)
            watch.end("turn", begun, None)
            return None


async def _finish(operation: Operation, watch: Watch, begun: Any) -> None:
    try:
        await operation
    except BaseException as error:
        watch.end("turn", begun, error)
        raise
    watch.end("turn", begun, None)
