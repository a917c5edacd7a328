"""A client that stays the same over all crashes of a hub under test.

It does what a client elsewhere does whose hub comes back: what a crash has cut off is asked again,
of the next life, under the same request id; so what changes something is applied once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from ..actors.errors import OutcomeUnknownError, StorageError, UnavailableError
from ..actors.messages import Message
from ..actors.values import TERMINAL
from ..runtime.client.hub_client import HubClient
from ..runtime.placement.claims import claim_of
from .store import CrashedError

if TYPE_CHECKING:
    from ..actors.messages import Completion
    from ..runtime.placement.places import Ending, Frame, Place
    from ..storage.records import ChunkRow, EntityFilter, EntityRow, InstanceFilter, InstanceRecord
    from .lives import Lives
    from .store import Faults

T = TypeVar("T")


class SteadyClient(HubClient):
    """A client whose ids are the same in each run of a test.

    Attributes:
        mark: what its hub's ids have that those of the hubs before on the same store have not.
    """

    mark = ""

    def _new_instance_id(self) -> str:
        return f"test-{self.mark}{next(self._made):08d}"


class SteadyRoutes:
    """The way to the partitions of whichever life is at hand.

    Args:
        lives: the lives.
        faults: what goes wrong.
        mark: see ``SteadyClient``; a request of an id that the store knows would not be done.
    """

    def __init__(self, lives: Lives, faults: Faults, mark: str) -> None:
        self._lives = lives
        requests = (f"perdure-test-{mark}{number}" for number in count(1))
        self.places: Sequence[Place] = [
            SteadyPlace(number, lives, faults, requests) for number in range(len(lives.owners))
        ]

    async def wait_moved(self) -> None:
        """Return when a partition that moves has found a place, or soon enough to look again."""
        await (await self._lives.alive()).router.wait_moved()


class SteadyPlace:
    """One partition, in whichever life is at hand."""

    def __init__(self, index: int, lives: Lives, faults: Faults, requests: Iterator[str]) -> None:
        self.index = index
        self._lives = lives
        self._faults = faults
        self._requests = requests

    @property
    def store(self) -> SteadyPlace:
        """Where stored actors are read."""
        return self

    async def _ask(self, ask: Callable[[Place], Awaitable[T]]) -> T:
        """Ask what may be asked twice, until a life has answered."""
        while True:
            with suppress(CrashedError):
                return await self._ask_once(ask)

    async def _ask_once(self, ask: Callable[[Place], Awaitable[T]]) -> T:
        """Ask the life at hand.

        Raises:
            CrashedError: it has ended before it answered: what was asked may have been done.
        """
        lives = self._lives
        life = await lives.alive()
        lives.stir()
        try:
            return await ask(life.place(self.index))
        except (UnavailableError, OutcomeUnknownError, StorageError) as error:
            if life.is_over:
                raise CrashedError from error
            raise
        finally:
            lives.told += 1
            lives.stir()

    async def _change(self, ask: Callable[[Place], Awaitable[T]]) -> T:
        """Ask for what is done once, whoever repeats it; the answer may be lost on its way."""
        while True:
            answer = await self._ask(ask)
            if not self._faults.takes_answer():
                return answer

    def _new_request(self) -> str:
        return next(self._requests)

    # What changes something.

    async def request_once(self, key: str, message: Message, request: str | None) -> Any:
        """See ``Place.request_once``; without an id, one is made up."""
        id = request or self._new_request()
        return await self._change(lambda place: place.request_once(key, copy(message), id))

    async def request_new(self, key: str, message: Message) -> Any:
        """See ``Place.request_new``; the id is new, so what was cut off can be looked up."""
        while True:
            with suppress(CrashedError):
                answer = await self._ask_once(lambda place: place.request_new(key, copy(message)))
                if not self._faults.takes_answer():
                    return answer
            if await self._ask(lambda place: _is_there(place, key)):
                return None

    async def request_all(self, parcels: Sequence[tuple[str, Message]]) -> None:
        """See ``Place.request_all``; what was cut off is repeated one by one, each by its id."""
        named = [(self._new_request(), key, message) for key, message in parcels]
        claimed: list[tuple[str, Message]] = []
        for id, key, message in named:
            one = copy(message)
            one.request = claim_of(id, key, one)
            claimed.append((key, one))
        with suppress(CrashedError):
            await self._ask_once(lambda place: place.request_all(claimed))
            if not self._faults.takes_answer():
                return
        for id, key, message in named:
            await self.request_once(key, message, id)

    async def request_later(
        self, key: str, message: Message, due: int, request: str | None
    ) -> None:
        """See ``Place.request_later``; without an id, one is made up."""
        id = request or self._new_request()
        await self._change(lambda place: place.request_later(key, copy(message), due, id))

    async def claim(self, request: str, claim: str) -> None:
        """See ``Place.claim``."""
        await self._ask(lambda place: place.claim(request, claim))

    async def unlock(self, key: str, owner: list[Any]) -> Any:
        """See ``Place.unlock``."""
        return await self._ask(lambda place: place.unlock(key, owner))

    async def purge_ended(self, keys: list[str]) -> list[tuple[str, bool]]:
        """See ``Place.purge_ended``; what a life purged that ended over it counts as well."""
        before: dict[str, bool] = {}
        gone: dict[str, bool] = {}

        async def purge(place: Place) -> None:
            records = await place.store.read_instances(keys)
            for key in before.keys() - {record.key for record in records}:
                gone[key] = before[key]
            for record in records:
                if record.parked is not None or record.status in TERMINAL:
                    before[record.key] = record.parked is not None
            gone.update(await place.purge_ended(keys))

        await self._ask(purge)
        return list(gone.items())

    # What reads, and what waits.

    async def wait_for_end(self, key: str) -> Ending | None:
        """See ``Place.wait_for_end``."""
        return await self._ask(lambda place: place.wait_for_end(key))

    async def news(self, after: int | None, most: int) -> list[Any]:
        """See ``Place.news``."""
        return await self._ask(lambda place: place.news(after, most))

    async def wait_durable(self) -> None:
        """See ``Place.wait_durable``."""
        await self._ask(lambda place: place.wait_durable())

    async def explain(self, key: str) -> dict[str, Any] | None:
        """See ``Place.explain``."""
        return await self._ask(lambda place: place.explain(key))

    async def trace(self, key: str, after: int, limit: int) -> dict[str, Any] | None:
        """See ``Place.trace``."""
        return await self._ask(lambda place: place.trace(key, after, limit))

    async def read_instances(self, keys: Sequence[str]) -> list[InstanceRecord]:
        """See ``PartitionStore.read_instances``."""
        return await self._ask(lambda place: place.store.read_instances(keys))

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        """See ``PartitionStore.read_entities``."""
        return await self._ask(lambda place: place.store.read_entities(ids))

    async def read_history(self, instance: int) -> list[bytes]:
        """See ``PartitionStore.read_history``."""
        return await self._ask(lambda place: place.store.read_history(instance))

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        """See ``PartitionStore.read_history_part``."""
        return await self._ask(lambda place: place.store.read_history_part(instance, first, end))

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """See ``PartitionStore.query_instances``."""
        return await self._ask(lambda place: place.store.query_instances(filter))

    async def count_instances(self, filter: InstanceFilter) -> int:
        """See ``PartitionStore.count_instances``."""
        return await self._ask(lambda place: place.store.count_instances(filter))

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """See ``PartitionStore.query_entities``."""
        return await self._ask(lambda place: place.store.query_entities(filter))

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        """See ``PartitionStore.waiting``."""
        return await self._ask(lambda place: place.store.waiting(actors))

    # What partitions say to each other does not pass here.

    def receive(self, source: int, frame: Frame) -> None:
        """See ``Peer.receive``."""
        raise NotImplementedError("a client exchanges no frames")

    def acknowledge(self, target: int, last: int) -> None:
        """See ``Peer.acknowledge``."""
        raise NotImplementedError("a client exchanges no frames")

    def resend(self, target: int) -> None:
        """See ``Peer.resend``."""
        raise NotImplementedError("a client exchanges no frames")

    def post_answer(self, instance_id: str, completion: Completion) -> None:
        """See ``Peer.post_answer``."""
        raise NotImplementedError("a client answers no activities")


async def _is_there(place: Place, key: str) -> bool:
    """Say whether an instance was started; in this order: its start leaves the mailbox for a row."""
    await place.wait_durable()
    return bool(await place.store.waiting([key]) or await place.store.read_instances([key]))
