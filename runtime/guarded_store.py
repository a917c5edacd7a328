"""A partition's store, of which every error is one that the package knows.

A store may be a third party's. What it raises that no store should is an ``StorageError`` with
that as its cause, so that the partition recovers from it as from a disk that fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..actors.errors import PerdureError, StorageError
from ..actors.printing import text_of, type_name
from ..storage.records import SLICE_ROWS

if TYPE_CHECKING:
    from ..storage.protocol import PartitionStore, Store
    from ..storage.records import (
        Checkpoint,
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

    @property
    def place(self) -> str:
        """See ``PartitionStore.place``."""
        return self.inner.place

    async def recover(self) -> Recovered:
        """See ``PartitionStore.recover``."""
        return await _guard("recover", self.inner.recover())

    async def commit(self, checkpoint: Checkpoint) -> None:
        """See ``PartitionStore.commit``."""
        await _guard("commit", self.inner.commit(checkpoint))

    async def read_instances(
        self, keys: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRecord]:
        """See ``PartitionStore.read_instances``."""
        return await _guard("read_instances", self.inner.read_instances(keys, payloads=payloads))

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        """See ``PartitionStore.read_entities``."""
        return await _guard("read_entities", self.inner.read_entities(ids))

    async def read_history(self, instance: int) -> list[bytes]:
        """See ``PartitionStore.read_history``."""
        return await _guard("read_history", self.inner.read_history(instance))

    async def read_request(self, request: str) -> RequestRow | None:
        """See ``PartitionStore.read_request``."""
        return await _guard("read_request", self.inner.read_request(request))

    async def read_mail(
        self, actor: str | None, after: int, upto: int, limit: int = SLICE_ROWS
    ) -> list[MailRow]:
        """See ``PartitionStore.read_mail``."""
        return await _guard("read_mail", self.inner.read_mail(actor, after, upto, limit))

    async def read_outbox(
        self, target: int, after: int, limit: int = SLICE_ROWS
    ) -> list[OutboxRow]:
        """See ``PartitionStore.read_outbox``."""
        return await _guard("read_outbox", self.inner.read_outbox(target, after, limit))

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """See ``PartitionStore.query_instances``."""
        return await _guard("query_instances", self.inner.query_instances(filter))

    async def count_instances(self, filter: InstanceFilter) -> int:
        """See ``PartitionStore.count_instances``."""
        return await _guard("count_instances", self.inner.count_instances(filter))

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """See ``PartitionStore.query_entities``."""
        return await _guard("query_entities", self.inner.query_entities(filter))

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        """See ``PartitionStore.set_aside``."""
        await _guard("set_aside", self.inner.set_aside(rows))

    async def settle(self) -> None:
        """See ``PartitionStore.settle``."""
        await _guard("settle", self.inner.settle())

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        """See ``PartitionStore.find_unknown``."""
        return await _guard("find_unknown", self.inner.find_unknown(known))

    async def waiting(self, actor: str) -> int:
        """See ``PartitionStore.waiting``."""
        return await _guard("waiting", self.inner.waiting(actor))

    async def size(self) -> int:
        """See ``PartitionStore.size``."""
        return await _guard("size", self.inner.size())


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


async def _guard(what: str, call: Awaitable[T]) -> T:
    try:
        return await call
    except PerdureError:
        raise
    except Exception as error:
        raise StorageError(
            f"the store's {what} raised {type_name(error)}: {text_of(error)}"
        ) from error
