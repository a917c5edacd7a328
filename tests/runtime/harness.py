"""What the tests of a running hub share: waiting for a condition, and a store with faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio

from perdure import Hub, LeaseLostError, MemoryStore, StorageError, Store
from perdure.runtime.partitions.door import Door
from perdure.runtime.partitions.partition import Partition
from perdure.runtime.placement.hashing import partition_of
from perdure.storage import (
    Checkpoint,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    MailRow,
    OutboxRow,
    PartitionStore,
    Recovered,
    RequestRow,
    SetAside,
)
from perdure.storage.records import SLICE_ROWS, ChunkRow

T = TypeVar("T")

PATIENCE_S = 30.0


def made(cls: type[T], **fields: Any) -> T:
    """Make an entity's object; mypy does not know the constructor that ``@app.entity`` gives."""
    return cls(**fields)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when the condition holds; for what no handle or reply tells.

    Raises:
        TimeoutError: it does not within the patience of the tests.
    """
    with anyio.fail_after(PATIENCE_S):
        while not await condition():
            await anyio.sleep(0.001)


def partition_here(hub: Hub, key: str) -> Partition:
    """Give the partition of a key, which the hub's own loop serves."""
    places = hub.crew.router.places
    place = places[partition_of(key, len(places))]
    assert isinstance(place, Door)
    return place.partition


async def until_true(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""

    async def ask() -> bool:
        return condition()

    await until(ask)


class Faults:
    """What a ``FaultyStore`` is to do wrong, for all of its partitions.

    Attributes:
        commit: raised by each commit, which writes nothing, while it is set.
        lost_commit: raised by each commit after it was written, while it is set.
        recover: raised by each recovery while it is set.
        read: raised by each read of entities while it is set.
        before_commit: awaited before each commit, if set.
        commits: how many commits were asked for.
        recoveries: how many recoveries were asked for.
        reads: how many reads of entities were asked for.
    """

    def __init__(self) -> None:
        self.commit: Exception | None = None
        self.lost_commit: Exception | None = None
        self.recover: Exception | None = None
        self.read: Exception | None = None
        self.before_commit: Callable[[Checkpoint], Awaitable[None]] | None = None
        self.commits = 0
        self.recoveries = 0
        self.reads = 0


class FaultyPartition:
    """One partition of a ``FaultyStore``."""

    def __init__(self, inner: PartitionStore, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    @property
    def unapplied(self) -> int:
        return self._inner.unapplied

    async def recover(self) -> Recovered:
        self._faults.recoveries += 1
        if self._faults.recover is not None:
            raise self._faults.recover
        return await self._inner.recover()

    async def commit(self, checkpoint: Checkpoint) -> None:
        faults = self._faults
        faults.commits += 1
        if faults.before_commit is not None:
            await faults.before_commit(checkpoint)
        if faults.commit is not None:
            raise faults.commit
        await self._inner.commit(checkpoint)
        if faults.lost_commit is not None:
            raise faults.lost_commit

    async def read_instances(
        self, keys: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRecord]:
        return await self._inner.read_instances(keys, payloads=payloads)

    async def count_instances(self, filter: InstanceFilter) -> int:
        return await self._inner.count_instances(filter)

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        self._faults.reads += 1
        if self._faults.read is not None:
            raise self._faults.read
        return await self._inner.read_entities(ids)

    async def read_history(self, instance: int) -> list[bytes]:
        return await self._inner.read_history(instance)

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        return await self._inner.read_history_part(instance, first, end)

    async def read_request(self, request: str) -> RequestRow | None:
        return await self._inner.read_request(request)

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        return await self._inner.query_instances(filter)

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        return await self._inner.query_entities(filter)

    async def read_mail(
        self, actor: str | None, after: int, upto: int, limit: int = SLICE_ROWS
    ) -> list[MailRow]:
        return await self._inner.read_mail(actor, after, upto, limit)

    async def read_outbox(
        self, target: int, after: int, limit: int = SLICE_ROWS
    ) -> list[OutboxRow]:
        return await self._inner.read_outbox(target, after, limit)

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        await self._inner.set_aside(rows)

    @property
    def place(self) -> str:
        return self._inner.place

    async def apply(self) -> None:
        await self._inner.apply()

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        return await self._inner.find_unknown(known)

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        return await self._inner.waiting(actors)

    async def size(self) -> int:
        return await self._inner.size()


class FaultyStore:
    """A memory store (or another) whose partitions do wrong what its ``faults`` say."""

    durability = "none to speak of"

    def __init__(self, inner: Store | None = None) -> None:
        self.inner: Store = MemoryStore() if inner is None else inner
        self.faults = Faults()

    async def open(self, partitions: int) -> Sequence[FaultyPartition]:
        opened = await self.inner.open(partitions)
        return [FaultyPartition(partition, self.faults) for partition in opened]

    async def close(self) -> None:
        await self.inner.close()


def disk_error() -> StorageError:
    return StorageError("the disk fails, for the test")


def lease_lost() -> LeaseLostError:
    return LeaseLostError("another owner, for the test")
