"""What a store promises: the contract that third parties implement.

A store holds one hub: some partitions, each with an order of checkpoints of its own. One
conformance suite (``tests/storage/test_conformance.py``) says whether a store keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from .records import (
    SLICE_ROWS,
    Checkpoint,
    ChunkRow,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    MailRow,
    OutboxRow,
    Recovered,
    RequestRow,
    SetAside,
    TimerRow,
)


class PartitionStore(Protocol):
    """The durable half of one partition.

    Any method may raise ``StorageError``. Reads see every checkpoint whose ``commit`` has
    returned before the read began.
    """

    @property
    def place(self) -> str:
        """Where its rows are, in words for people: the file."""
        ...

    @property
    def unapplied(self) -> int:
        """How many checkpoints are durable that its tables lack still; 0 where there is no such lag."""
        ...

    async def recover(self) -> Recovered:
        """Read what is needed to go on, under a new and greater epoch that fences older owners."""
        ...

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Apply the checkpoint, all of it or nothing, and make it durable before returning.

        The caller must not change ``checkpoint`` and its rows afterwards, and gives no key or
        name to two rows: a store refuses what it notices, and may notice too late.

        Raises:
            LeaseLostError: the stored epoch or sequence is not the expected one; nothing was written.
            StoreFullError: no space; nothing was written.
            StorageError: anything else. It may have been written: ``recover`` tells by ``sequence``.
        """
        ...

    async def read_instances(
        self, keys: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRecord]:
        """Give the stored instances among ``keys``, in any order, in one round trip.

        Without ``payloads``, inputs and outputs may be None.
        """
        ...

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        """Give the stored entities among (name, key) ``ids``, in any order, in one round trip."""
        ...

    async def read_history(self, instance: int) -> list[bytes]:
        """Give the chunks of an instance's history, JSON arrays, oldest first."""
        ...

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        """Give the chunks that have events from number ``first`` to before ``end``, oldest first."""
        ...

    async def read_request(self, request: str) -> RequestRow | None:
        """Give what was recorded for a client's request id."""
        ...

    async def read_mail(
        self, actor: str | None, after: int, upto: int, limit: int = SLICE_ROWS
    ) -> list[MailRow]:
        """Give the oldest stored messages for an actor, or for all, with ``after < n <= upto``.

        They are in order, and no more than one slice may have (``SLICE_SIZE``); none, and only
        that, means that there are no more.
        """
        ...

    async def read_outbox(
        self, target: int, after: int, limit: int = SLICE_ROWS
    ) -> list[OutboxRow]:
        """Give the oldest frames owed to another partition with ``n > after``, like ``read_mail``."""
        ...

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """Give one page of instances; fewer than ``filter.limit`` means there are no more."""
        ...

    async def count_instances(self, filter: InstanceFilter) -> int:
        """Count the instances that match, on all pages."""
        ...

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """Give one page of entities; fewer than ``filter.limit`` means there are no more."""
        ...

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        """Keep rows that nobody can read where a person finds them; durable on return.

        Of messages, timers and frames a copy is kept, and a checkpoint deletes the row itself.
        An instance or entity is marked as parked, and left as it is but for that.
        """
        ...

    async def apply(self) -> None:
        """Do what would make the next ``recover`` slow; there may be nothing to do."""
        ...

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        """Give the keys of live instances whose name and version are none of those known."""
        ...

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        """Count the stored messages that wait for each of ``actors``, in one round trip.

        Those for whom none waits may be left out.
        """
        ...

    async def size(self) -> int:
        """Give the bytes this partition takes in the store (0 where that has no meaning)."""
        ...


class Store(Protocol):
    """The durable half of one hub; from ``open`` to ``close`` it has one owner."""

    @property
    def durability(self) -> str:
        """How durable a commit is, in words for people: ``sqlite WAL synchronous=FULL``."""
        ...

    async def open(self, partitions: int) -> Sequence[PartitionStore]:
        """Take the store over and give its partitions, making it if it is new.

        Raises:
            StoreInUseError: another hub owns it.
            StoreVersionError: newer schema, or another number of partitions.
            StoreDamagedError: damaged, or not a Perdure store.
            StoreReadOnlyError: it cannot be written to.
        """
        ...

    async def close(self) -> None:
        """Give the store up. Idempotent, also after a failed ``open``."""
        ...


class SharedPartition(PartitionStore, Protocol):
    """The durable half of one partition, in a worker process."""

    async def close(self) -> None:
        """Give up what is open for it; it may be opened anew elsewhere. Idempotent."""
        ...


class StoppedPartition(PartitionStore, Protocol):
    """A partition that nobody serves, of a store whose files can be read as they lie."""

    async def read_histories(self, instances: Sequence[int]) -> dict[int, list[bytes]]:
        """Give what ``read_history`` does, of several instances and in one round trip.

        Raises:
            StoreDamagedError: ``read_history`` would raise it of one of them.
        """
        ...

    async def read_timers(self, after: int, limit: int = SLICE_ROWS) -> list[TimerRow]:
        """Give the oldest messages that wait for their time, with ``n > after``."""
        ...


class ReadStore(Protocol):
    """A store that is read, whoever serves the hub or nobody; from ``open`` to ``close``."""

    @property
    def location(self) -> str:
        """The place, as people may see it."""
        ...

    async def open(self) -> Sequence[PartitionStore]:
        """Give its partitions, of which the methods that read may be called.

        Raises:
            UnavailableError: no hub is there, or it cannot be read while one is at work.
            StoreMovedError: the hub is not there any more, or not yet.
            StorageError: it cannot be read.
        """
        ...

    async def close(self) -> None:
        """Let go of it. Idempotent."""
        ...


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store whose partitions worker processes can open beside the hub's own process."""

    @property
    def location(self) -> str:
        """What ``open_store`` takes in another process to make a store of the same place."""
        ...

    async def attach(self, partitions: int) -> Sequence[SharedPartition]:
        """Give the partitions of a store that another process of the same hub has open.

        A partition is touched only when something is asked of it, and each is used by one process
        at a time.
        """
        ...
