"""What is said to a partition, wherever it is: the contracts ``Peer`` and ``Place``.

Partitions talk to each other as ``Peer``; any of that may be lost, since what is not acknowledged is
sent again. Clients ask a ``Place``; where the partition is not there any more, that is
``MovedError``, and they ask the next one. The event loop that a partition is on sees it as
``Hosted``. A partition is all of these itself, and ``Elsewhere`` stands for one on another loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ...actors.errors import UnavailableError
from ...actors.messages import Completion, Message

if TYPE_CHECKING:
    from ...storage.records import ChunkRow, EntityFilter, EntityRow, InstanceFilter, InstanceRecord
    from ..scheduling.waiter import Waiter

T = TypeVar("T")

#: What a message that is sent takes besides its payload, about.
ENVELOPE_SIZE = 256

#: Frames of 100 to 300 messages crossed between processes fastest.
FRAME_MESSAGES_MAX = 250

#: Status, output and failure of what has ended.
Ending = tuple[str, bytes | None, bytes | None]


class Frame(NamedTuple):
    """Messages owed to another partition; the last of them has the number ``last``."""

    n: int
    last: int
    body: bytes
    parcels: list[tuple[str, Message]] | None  # None where it was read back from the store


class MovedError(UnavailableError):
    """The partition is not on this shard (any more); nothing happened."""


class LineLostError(UnavailableError):
    """The connection broke; ``sent`` says whether the request may have arrived."""

    def __init__(self, sent: bool) -> None:
        super().__init__(sent)
        self.sent = sent

    def __str__(self) -> str:
        return "the connection to the shard broke"


class Peer(Protocol):
    """What partitions say to a partition. Any of it may be lost: then it is said again."""

    def receive(self, source: int, frame: Frame) -> None:
        """Take a frame of messages from the partition ``source`` in."""
        ...

    def acknowledge(self, target: int, last: int) -> None:
        """Hear what the partition ``target`` has made durable, up to the number ``last``."""
        ...

    def resend(self, target: int) -> None:
        """Give the partition ``target`` all that it has not acknowledged, once more."""
        ...

    def post_answer(self, instance_id: str, completion: Completion) -> None:
        """Take an activity's answer in."""
        ...


class Records(Protocol):
    """What is stored of a partition's actors; see ``PartitionStore``."""

    async def read_instances(self, keys: Sequence[str]) -> list[InstanceRecord]: ...
    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]: ...
    async def read_history(self, instance: int) -> list[bytes]: ...
    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]: ...
    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]: ...
    async def count_instances(self, filter: InstanceFilter) -> int: ...
    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]: ...
    async def waiting(self, actors: Sequence[str]) -> dict[str, int]: ...


class AskedRecords(ABC):
    """Records that somebody else reads, who is asked by the name of each method."""

    @abstractmethod
    async def _read(self, verb: Any, *arguments: Any) -> Any:
        """Ask; gives the answer."""

    async def read_instances(self, keys: Sequence[str]) -> list[InstanceRecord]:
        """See ``PartitionStore.read_instances``."""
        rows: list[InstanceRecord] = await self._read("read_instances", list(keys))
        return rows

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        """See ``PartitionStore.read_entities``."""
        rows: list[EntityRow] = await self._read("read_entities", list(ids))
        return rows

    async def read_history(self, instance: int) -> list[bytes]:
        """See ``PartitionStore.read_history``."""
        chunks: list[bytes] = await self._read("read_history", instance)
        return chunks

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        """See ``PartitionStore.read_history_part``."""
        chunks: list[ChunkRow] = await self._read("read_history_part", instance, first, end)
        return chunks

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """See ``PartitionStore.query_instances``."""
        rows: list[InstanceRecord] = await self._read("query_instances", filter)
        return rows

    async def count_instances(self, filter: InstanceFilter) -> int:
        """See ``PartitionStore.count_instances``."""
        count: int = await self._read("count_instances", filter)
        return count

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """See ``PartitionStore.query_entities``."""
        rows: list[EntityRow] = await self._read("query_entities", filter)
        return rows

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        """See ``PartitionStore.waiting``."""
        counts: dict[str, int] = await self._read("waiting", list(actors))
        return counts


class Place(Peer, Protocol):
    """What clients ask of a partition. Each request may raise ``MovedError``: ask again elsewhere."""

    @property
    def index(self) -> int:
        """The partition's number."""
        ...

    @property
    def store(self) -> Records:
        """Where stored actors are read."""
        ...

    def request_once(self, key: str, message: Message, request: str | None) -> Awaitable[Any]:
        """Take a client's message in and give its outcome, applied once for each request id."""
        ...

    def request_new(self, key: str, message: Message) -> Awaitable[Any]:
        """Take the first message for an orchestration in, whose id was made up just now."""
        ...

    def request_all(self, parcels: Sequence[tuple[str, Message]]) -> Awaitable[None]:
        """Take many messages in; all of them are durable when this returns."""
        ...

    def request_later(
        self, key: str, message: Message, due: int, request: str | None
    ) -> Awaitable[None]:
        """Keep a client's message until its time; durable when this returns."""
        ...

    def claim(self, request: str, claim: str) -> Awaitable[None]:
        """Keep a request id for a request whose target is in another partition."""
        ...

    def wait_for_end(self, key: str) -> Awaitable[Ending | None]:
        """Wait for an orchestration's end; the answer None means: ask again."""
        ...

    def news(self, after: int | None, most: int) -> Awaitable[list[Any]]:
        """Wait until instances change behind a checkpoint; give its number, and their ids.

        Of ``after=None`` the number is that of now, at once. The ids are None where it is not
        known any more what has changed; of more than ``most`` the first ones are given.
        """
        ...

    def wait_durable(self) -> Awaitable[None]:
        """Return when all that gathered up to now is durable."""
        ...

    def purge_ended(self, keys: list[str]) -> Awaitable[list[tuple[str, bool]]]:
        """Delete those instances that have ended or are parked; durable on return."""
        ...

    def unlock(self, key: str, owner: list[Any]) -> Awaitable[Any]:
        """Take the lock of an entity from an owner that is gone."""
        ...

    def explain(self, key: str) -> Awaitable[dict[str, Any] | None]:
        """Say why an actor waits, as JSON values; None where there is no such instance."""
        ...

    def trace(self, key: str, after: int, limit: int) -> Awaitable[dict[str, Any] | None]:
        """Give the steps behind an event of an instance's history, as JSON values."""
        ...


class Routes(Protocol):
    """The way of clients to the partitions, as seen from one event loop."""

    @property
    def places(self) -> Sequence[Place]:
        """All partitions, by number."""
        ...

    async def wait_moved(self) -> None:
        """Return when a partition that moves has found a place, or soon enough to look again."""
        ...


class Hosted(Place, Protocol):
    """A partition as its own event loop sees it."""

    def request(self, key: str, message: Message, reply: Waiter | None = None) -> Awaitable[Any]:
        """Take a client's message in; what comes of it is given to ``reply``, once durable."""
        ...

    def request_new(
        self, key: str, message: Message, reply: Waiter | None = None
    ) -> Awaitable[Any]:
        """See ``Place.request_new``; the answer is given to ``reply``."""
        ...

    def request_all(
        self, parcels: Sequence[tuple[str, Message]], reply: Waiter | None = None
    ) -> Awaitable[None]:
        """See ``Place.request_all``; the answer is given to ``reply``."""
        ...

    def is_live_here(self, key: str) -> bool:
        """Whether the orchestration is in memory and has not ended, and its end will be told."""
        ...

    def watch_with(self, key: str, waiter: Waiter) -> None:
        """Have a waiter hear of an orchestration's end; None means: ask again."""
        ...

    def unwatch(self, key: str, waiter: Waiter) -> None:
        """Do not wait any more."""
        ...

    def read(self, reading: Awaitable[T]) -> Awaitable[T]:
        """Read from the store for somebody outside, who is told where the partition has left."""
        ...

    def offer(self, number: int) -> None:
        """Exchange with another partition what either side may have missed."""
        ...
