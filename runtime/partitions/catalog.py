"""The catalog of a partition: its actors in memory.

Invariants:

* There is at most one activation of an actor. One that was dropped is ``dead``: whatever still
  holds it finds that out before it does anything with it.
* An activation that holds what the store has not is not dropped, but with all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from ...actors.messages import Command
from ...actors.orchestrations.orchestration import OrchestrationActor

if TYPE_CHECKING:
    from .activation import Activation


class Catalog:
    """The activations of one partition, by key.

    Args:
        make: makes an activation without an actor.
        load: brings the actor of one from the store.
        room: how many activations should stay in memory.
        let_go: goes through the rest of what takes long to be let go of.
    """

    def __init__(
        self,
        make: Callable[[str], Activation],
        load: Callable[[Activation], None],
        room: int,
        let_go: Callable[[Generator[None]], None],
    ) -> None:
        self._make = make
        self._load = load
        self._room = room
        self._let_go = let_go
        #: Another one after ``retire_all``.
        self.activations: dict[str, Activation] = {}
        #: How many cold ones were dropped.
        self.evictions = 0
        #: Instances that are gone as soon as the batch that says so is durable.
        self.purging: set[str] = set()

    def activate(self, key: str) -> Activation:
        """Begin to load an actor."""
        activation = self._make(key)
        activation.queued = True
        self.activations[key] = activation
        self._load(activation)
        return activation

    def load_anew(self, activation: Activation) -> None:
        """Load an actor once more, of which all is durable."""
        if isinstance(activation.actor, OrchestrationActor):
            self._end(activation.actor.close())  # an entity's readings may go on
        activation.actor = None
        for message in activation.mail:
            if isinstance(message, Command):
                message.loaded = True
        self._load(activation)

    def drop(self, activation: Activation) -> None:
        """Take an activation out of memory."""
        del self.activations[activation.key]
        activation.retire()
        self._end(activation.close())

    def _end(self, rest: Generator[None] | None) -> None:
        if rest is not None:
            self._let_go(rest)

    def retire_all(self) -> list[Activation]:
        """Take all out of memory at once; gives those whose code is still there, to be closed."""
        dropped, self.activations = [*self.activations.values()], {}
        for activation in dropped:
            activation.retire()
        self.purging.clear()
        return dropped

    def evict_cold(self) -> None:
        """Drop cold activations where there are more than there is room for (second chance)."""
        count = len(self.activations)
        if count > self._room:
            self.evict(count - self._room + self._room // 8)

    def evict(self, count: int) -> int:
        """Drop up to ``count`` activations that are idle and were not used lately."""
        gone: list[Activation] = []
        for activation in self.activations.values():
            if not activation.is_idle or activation.actor is None:
                continue
            if activation.used:
                activation.used = False
                continue
            gone.append(activation)
            if len(gone) >= count:
                break
        for activation in gone:
            self.drop(activation)
        self.evictions += len(gone)
        return len(gone)
