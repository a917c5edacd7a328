"""Chooses where a striped entity's commutative operations run: at a stripe near to the sender."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING
from zlib import crc32

from ..actors.messages import Message, Operation
from ..actors.stripes import MARK, stripe_key
from .placement import partition_of

if TYPE_CHECKING:
    from ..actors.definitions import EntityDefinition
    from ..actors.lookup import Lookup
    from .clock import Clock

_WINDOW = 1_000_000
_ENTITIES_MAX = 10_000


class StripeRouter:
    """Finds the actor that takes an operation, for one sender: a partition or a client.

    Senders choose alone, and may choose differently: a commutative operation may run anywhere.

    Args:
        lookup: knows the striped entities.
        clock: tells how many operations there are in a second.
        place: the sender's partition; None for a client, which has none.
    """

    def __init__(self, lookup: Lookup, clock: Clock, place: int | None = None) -> None:
        self._striped = lookup.striped
        self._hot_at = lookup.stripe_hot_per_s
        self._clock = clock
        self._place = place
        self._turns = count()
        self._windows: dict[str, _Window] = {}

    def route(self, key: str, message: Message, partitions: int) -> str:
        """Give the key of the actor that a message for ``key`` goes to."""
        if not isinstance(message, Operation) or MARK in key:
            return key
        definition = self._striped.get(key[1:].partition("@")[0])
        if definition is None or key[0] != "@":
            return key
        operation = definition.operations.get(message.name)
        if operation is None or not operation.commutative:
            return key
        return self.choose(definition, key, partitions)

    def choose(
        self, definition: EntityDefinition, key: str, partitions: int, request: str | None = None
    ) -> str:
        """Choose for a commutative operation; one request id always goes to the same actor."""
        stripes = definition.stripe_count(partitions)
        if request is not None:
            return stripe_key(key, crc32(request.encode()) % stripes)
        if definition.stripes == "auto" and not self._is_hot(key):
            return key
        if self._place is None:
            return stripe_key(key, next(self._turns) % stripes)
        near = (self._place - partition_of(key, partitions)) % partitions
        return stripe_key(key, near if near < stripes else self._place % stripes)

    def _is_hot(self, key: str) -> bool:
        """Count an operation, and say whether its entity gets many of them from here."""
        now = self._clock.now()
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= _ENTITIES_MAX:
                self._windows.clear()
            window = self._windows[key] = _Window(now)
        elif not 0 <= now - window.begun < _WINDOW:
            # What was hot in the last second stays so through the start of this one.
            window.hot = window.count >= self._hot_at and now - window.begun < 2 * _WINDOW
            window.begun, window.count = now, 0
        window.count += 1
        window.hot = window.hot or window.count > self._hot_at
        return window.hot


class _Window:
    """The operations of one second that one entity got from one sender."""

    __slots__ = ("begun", "count", "hot")

    def __init__(self, begun: int) -> None:
        self.begun = begun
        self.count = 0
        self.hot = False
