"""Chooses where a striped entity's commutative operations run: at a stripe near to the sender."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING
from zlib import crc32

from ...actors.entities.stripes import MARK, stripe_key
from ...actors.ids import is_entity
from ...actors.messages import Message, Operation
from .hashing import partition_of

if TYPE_CHECKING:
    from ...actors.registry.definitions import EntityDefinition
    from ...actors.registry.lookup import Lookup
    from ..scheduling.clock import Clock

_WINDOW = 1_000_000
#: How many entities are remembered before those of the last time are forgotten.
ROUTES_MAX = 5_000


class StripeRouter:
    """Finds the actor that takes an operation, for one sender: a partition or a client.

    Senders choose alone, and may choose differently: a commutative operation may run anywhere.

    Invariants:

    * What is remembered of an entity follows from its definition, its key and the number of
      partitions, but for the count of the operations of a second, which is only for ``auto``.
    * At most ``2 * ROUTES_MAX`` entities are remembered; those that get operations stay longest.

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
        self._routes: dict[str, _Route] = {}
        self._older: dict[str, _Route] = {}  # those that there was no more room for

    @property
    def remembered(self) -> int:
        """How many entities it remembers."""
        return len(self._routes) + len(self._older)

    def route(self, key: str, message: Message, partitions: int) -> str:
        """Give the key of the actor that a message for ``key`` goes to."""
        if not isinstance(message, Operation):
            return key
        route = self._routes.get(key)
        if route is None or route.partitions != partitions:
            definition = self._striped.get(key[1:].partition("@")[0])
            if definition is None or not is_entity(key) or MARK in key:
                return key
            route = self._recall(definition, key, partitions)
        operation = route.operations.get(message.name)
        if operation is None or not operation.commutative:
            return key
        return self._choose(route, key)

    def choose(
        self, definition: EntityDefinition, key: str, partitions: int, request: str | None = None
    ) -> str:
        """Choose for a commutative operation; one request id always goes to the same actor."""
        if request is not None:
            return stripe_key(key, crc32(request.encode()) % definition.stripe_count(partitions))
        route = self._routes.get(key)
        if route is None or route.partitions != partitions:
            route = self._recall(definition, key, partitions)
        return self._choose(route, key)

    def _choose(self, route: _Route, key: str) -> str:
        if route.is_auto and not self._is_hot(route):
            return key
        return route.near or stripe_key(key, next(self._turns) % route.stripes)

    def _recall(self, definition: EntityDefinition, key: str, partitions: int) -> _Route:
        """Give what was known of an entity; else find it out."""
        route = self._older.pop(key, None)
        if route is None or route.partitions != partitions:
            route = _Route(definition, partitions)
            if self._place is not None:
                near = (self._place - partition_of(key, partitions)) % partitions
                number = near if near < route.stripes else self._place % route.stripes
                route.near = stripe_key(key, number)
        if len(self._routes) >= ROUTES_MAX:
            self._older, self._routes = self._routes, {}
        self._routes[key] = route
        return route

    def _is_hot(self, route: _Route) -> bool:
        """Count an operation, and say whether its entity gets many of them from here."""
        now = self._clock.now()
        begun = route.begun
        if begun is None:
            route.begun = now
        elif not 0 <= now - begun < _WINDOW:
            # What was hot in the last second stays so through the start of this one.
            route.hot = route.count >= self._hot_at and now - begun < 2 * _WINDOW
            route.begun, route.count = now, 0
        route.count += 1
        route.hot = route.hot or route.count > self._hot_at
        return route.hot


class _Route:
    """Where one striped entity's operations go from one sender.

    Attributes:
        partitions: how many there are.
        stripes: how many of them it has.
        operations: those of the entity, by name.
        is_auto: whether they go to stripes only while it is hot.
        near: the key of the sender's stripe; empty for a client, which takes all in turn.
        begun: when the second began whose operations are counted, None before the first.
        count: how many there were in it.
        hot: whether these are many.
    """

    __slots__ = ("begun", "count", "hot", "is_auto", "near", "operations", "partitions", "stripes")

    def __init__(self, definition: EntityDefinition, partitions: int) -> None:
        self.partitions = partitions
        self.stripes = definition.stripe_count(partitions)
        self.operations = definition.operations
        self.is_auto = definition.stripes == "auto"
        self.near = ""
        self.begun: int | None = None
        self.count = 0
        self.hot = False
