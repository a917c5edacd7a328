"""How a client reaches the partitions."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio

from ...actors.errors import HubStoppingError, UnavailableError
from ...actors.ids import check_text
from ...actors.messages import Message
from ..placement.claims import claim_of
from ..placement.hashing import partition_of
from ..placement.places import MovedError
from ..scheduling.homes import Home, PlacesAbroad, refuse_inside
from .client import Client

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ..nodes import HubNodes
    from ..placement.places import Place, Routes
    from ..scheduling.clock import Clock
    from ..statistics import HubStatistics

#: How long a request waits for the partition of its id, where that is another than its target's.
CLAIM_S = 2.0

T = TypeVar("T")


class Overseer(Protocol):
    """Who sees all of a hub."""

    async def statistics(self, *, hottest: int = 0) -> HubStatistics:
        """Give the hub's counters."""
        ...

    async def move_partition(self, partition: int, to: int) -> None:
        """Have another shard serve a partition."""
        ...

    async def nodes(self) -> HubNodes:
        """Give the processes that serve the hub."""
        ...

    async def drain_node(self, member: int) -> None:
        """Have a process let its partitions go to the others."""
        ...

    async def undrain_node(self, member: int) -> None:
        """Have a process take partitions again."""
        ...


class Requester(Client):
    """Finds the partition of a key, and makes requests of it: what other clients stand on."""

    def __init__(
        self, lookup: Lookup, routes: Routes, clock: Clock, home: Home, overseer: Overseer
    ) -> None:
        self._lookup = lookup
        self._routes = routes
        self._clock = clock
        self._home = home
        self._overseer = overseer
        self._here = home.here
        self._prefix = f"{clock.now() // 1_000:012x}{secrets.token_hex(6)}"
        self._made = count(1)  # one step, also where several threads take from it

    def _partition(self, key: str) -> Place:
        # As in _all(), without a call for each request.
        is_home = self._here() == self._home.door
        places = self._routes.places if is_home else self._abroad()
        return places[partition_of(key, len(places))]

    def _all(self) -> Sequence[Place]:
        if self._here() != self._home.door:
            return self._abroad()
        return self._routes.places

    def _abroad(self) -> Sequence[Place]:
        """Give the places as another loop than the hub's has to see them, if the hub runs."""
        refuse_inside()
        if self._home.is_shut:
            raise HubStoppingError("the hub is stopping or has stopped; repeat it on the next one")
        return PlacesAbroad(self._home, self._routes.places)

    async def _wait_moved(self) -> None:
        """Return when a partition that moves has found a place, or soon enough to look again."""
        if self._here() != self._home.door:
            await self._home.fetch(self._routes.wait_moved)
        else:
            await self._routes.wait_moved()

    async def _request(self, key: str, message: Message, request_id: str | None = None) -> Any:
        if request_id is not None:
            await self._claim(check_text(request_id, "request_id"), key, message)
        while True:
            try:
                return await self._partition(key).request_once(key, message, request_id)
            except Exception as error:
                message.reply = None  # which has the error, and that leads here by its traceback
                if not isinstance(error, MovedError):
                    raise
                await self._wait_moved()

    async def _claim(self, request_id: str, key: str, message: Message) -> None:
        """Keep a request id for a message, where its target is in another partition than it.

        Raises:
            RequestIdReusedError: it was used for another.
        """
        count = len(self._all())
        if partition_of(request_id, count) == partition_of(key, count):
            return  # where the request itself is looked up
        claim = claim_of(request_id, key, message)
        # The partition of the target may be well, so the request does not wait for long.
        with anyio.move_on_after(CLAIM_S), suppress(UnavailableError):
            await self._at(request_id, lambda place: place.claim(request_id, claim))

    async def _at(self, key: str, ask: Callable[[Place], Awaitable[T]]) -> T:
        """Ask the partition of a key, and again wherever it moves meanwhile."""
        while True:
            try:
                return await ask(self._partition(key))
            except MovedError:
                await self._wait_moved()

    def _new_instance_id(self) -> str:
        # Ids that grow together keep the store's index of them dense where it is written.
        return f"{self._prefix}{next(self._made):08x}"
