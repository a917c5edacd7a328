"""Read-only operations beside an async operation: they do not wait for it, and see what was before.

Each runs on a copy of the state, so any number of them may overlap the turn. What they answer
leaves with the batch that gathers, which is durable no sooner than the state that they saw.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ...actors.entities.entity import EntityActor
from ...actors.interrupts import is_interrupt

if TYPE_CHECKING:
    from ...actors.messages import Operation
    from ..scheduling.hands import Hand
    from .activation import Activation


class Reading:
    """One read-only operation that overlaps a turn; for the pump."""

    __slots__ = ("_activation", "hand", "message")

    def __init__(self, activation: Activation, message: Operation) -> None:
        self._activation = activation
        self.message = message
        self.hand: Hand | None = None

    @property
    def title(self) -> str:
        """How the log calls it."""
        return f"operation {self.message.name} of {self._activation.key}"

    def run(self) -> Coroutine[Any, Any, None] | None:
        """Run it; gives what has to be awaited if it is async."""
        activation = self._activation
        if activation.dead:
            return None  # the message waits in the store, or whoever sent it was told
        partition, actor = activation.partition, activation.actor
        assert isinstance(actor, EntityActor)
        now = partition.now()
        partition.lag = max(activation.latest - now, 0)
        try:
            outcome = actor.read(self.message, max(now, activation.latest), partition)
            if outcome is not None:
                return self._finish(actor, outcome)
            activation.end_reading(self)
        except BaseException as error:
            partition.crash(activation, error)
            if is_interrupt(error):
                raise  # which stops the hub
        return None

    def on_suspended(self, hand: Hand) -> None:
        """Take note of the task in which it has suspended."""
        self.hand = hand

    async def _finish(self, actor: EntityActor, outcome: Coroutine[Any, Any, None]) -> None:
        activation = self._activation
        partition = activation.partition
        try:
            try:
                await outcome
            except BaseException as error:
                if isinstance(error, Exception) or is_interrupt(error):
                    raise
                if activation.dead:
                    return  # the hub's doing, which drops an actor before it cancels
                actor.fail(self.message, error, partition.now(), partition)
            if not activation.dead:
                activation.end_reading(self)
        except BaseException as error:
            partition.crash(activation, error)
            if is_interrupt(error):
                raise  # which stops the hub
