"""A partition's store, of which every error is one that the package knows.

A store may be a third party's. What it raises that no store should is an ``StorageError`` with
that as its cause, so that the partition recovers from it as from a disk that fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ...actors.errors import PerdureError, StorageError
from ...actors.printing import text_of, type_name
from ...storage.records import SLICE_ROWS
from ..scheduling.forks import end_child, forks

if TYPE_CHECKING:
    from ...storage.protocol import PartitionStore, Store
    from ...storage.records import (
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
    )

T = TypeVar("T")


class GuardedStore:
    """A ``PartitionStore`` that raises ``StorageError`` and ``LeaseLostError`` only."""

    def __init__(self, inner: PartitionStore) -> None:
        self.inner = inner
        self._forks = forks()

    @property
    def place(self) -> str:
        """See ``PartitionStore.place``."""
        return self.inner.place

    @property
    def unapplied(self) -> int:
        """See ``PartitionStore.unapplied``; a store that says nothing of the kind has no lag."""
        try:
            found = getattr(self.inner, "unapplied", 0)
        except Exception as error:
            raise _error("unapplied", error) from error
        return found if type(found) is int else 0

    async def recover(self) -> Recovered:
        """See ``PartitionStore.recover``."""
        return await _guard("recover", self.inner.recover(), self._forks)

    async def commit(self, checkpoint: Checkpoint) -> None:
        """See ``PartitionStore.commit``."""
        await _guard("commit", self.inner.commit(checkpoint), self._forks)

    async def read_instances(
        self, keys: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRecord]:
        """See ``PartitionStore.read_instances``."""
        return await _guard(
            "read_instances", self.inner.read_instances(keys, payloads=payloads), self._forks
        )

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        """See ``PartitionStore.read_entities``."""
        return await _guard("read_entities", self.inner.read_entities(ids), self._forks)

    async def read_history(self, instance: int) -> list[bytes]:
        """See ``PartitionStore.read_history``."""
        return await _guard("read_history", self.inner.read_history(instance), self._forks)

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        """See ``PartitionStore.read_history_part``."""
        reading = self.inner.read_history_part(instance, first, end)
        return await _guard("read_history_part", reading, self._forks)

    async def read_request(self, request: str) -> RequestRow | None:
        """See ``PartitionStore.read_request``."""
        return await _guard("read_request", self.inner.read_request(request), self._forks)

    async def read_mail(
        self, actor: str | None, after: int, upto: int, limit: int = SLICE_ROWS
    ) -> list[MailRow]:
        """See ``PartitionStore.read_mail``."""
        return await _guard(
            "read_mail", self.inner.read_mail(actor, after, upto, limit), self._forks
        )

    async def read_outbox(
        self, target: int, after: int, limit: int = SLICE_ROWS
    ) -> list[OutboxRow]:
        """See ``PartitionStore.read_outbox``."""
        return await _guard(
            "read_outbox", self.inner.read_outbox(target, after, limit), self._forks
        )

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """See ``PartitionStore.query_instances``."""
        return await _guard("query_instances", self.inner.query_instances(filter), self._forks)

    async def count_instances(self, filter: InstanceFilter) -> int:
        """See ``PartitionStore.count_instances``."""
        return await _guard("count_instances", self.inner.count_instances(filter), self._forks)

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """See ``PartitionStore.query_entities``."""
        return await _guard("query_entities", self.inner.query_entities(filter), self._forks)

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        """See ``PartitionStore.set_aside``."""
        await _guard("set_aside", self.inner.set_aside(rows), self._forks)

    async def apply(self) -> None:
        """See ``PartitionStore.apply``."""
        await _guard("apply", self.inner.apply(), self._forks)

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        """See ``PartitionStore.find_unknown``."""
        return await _guard("find_unknown", self.inner.find_unknown(known), self._forks)

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        """See ``PartitionStore.waiting``."""
        return await _guard("waiting", self.inner.waiting(actors), self._forks)

    async def size(self) -> int:
        """See ``PartitionStore.size``."""
        return await _guard("size", self.inner.size(), self._forks)


async def open_guarded(store: Store, partitions: int) -> list[PartitionStore]:
    """Open a store; gives its partitions.

    Raises:
        StorageError: it cannot be opened, or gave what are not its partitions.
    """

    async def opened() -> list[PartitionStore]:
        return list(await store.open(partitions))

    found = await _guard("open", opened())
    if len(found) != partitions:
        raise StorageError(f"the store's open gave {len(found)} partitions, not {partitions}")
    return found


async def close_guarded(store: Store) -> None:
    """Close a store.

    Raises:
        StorageError: it says that something was lost, or cannot be closed.
    """

    async def closed() -> None:
        await store.close()

    await _guard("close", closed())


async def _guard(what: str, call: Awaitable[T], here: int | None = None) -> T:
    if here is not None and here != forks():
        # The copy of a hub in a forked child: some thread of the parent's may have held a lock.
        end_child()
    try:
        return await call
    except PerdureError:
        raise
    except Exception as error:
        raise _error(what, error) from error


def _error(what: str, error: Exception) -> StorageError:
    return StorageError(f"the store's {what} raised {type_name(error)}: {text_of(error)}")
