"""The storage room: what a hub makes durable, and where.

Internal as a whole; users meet it through ``Hub(store=...)`` and ``perdure``.
"""

from __future__ import annotations

from typing import cast

from ..actors.errors import UsageError
from .memory import ENDED, MemoryStore
from .protocol import PartitionStore, SharedPartition, SharedStore, Store
from .records import (
    Checkpoint,
    ChunkRow,
    CreatedRow,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    MailRow,
    OutboxRow,
    PeerRow,
    ProgressRow,
    Recovered,
    RequestRow,
    TimerRow,
)
from .sqlite import SqliteStore, Synchronous

__all__ = [
    "ENDED",
    "Checkpoint",
    "ChunkRow",
    "CreatedRow",
    "EntityFilter",
    "EntityRow",
    "InstanceFilter",
    "InstanceRecord",
    "MailRow",
    "MemoryStore",
    "OutboxRow",
    "PartitionStore",
    "PeerRow",
    "ProgressRow",
    "Recovered",
    "RequestRow",
    "SharedPartition",
    "SharedStore",
    "SqliteStore",
    "Store",
    "TimerRow",
    "open_store",
]


def open_store(spec: str | Store) -> Store:
    """Make the store that ``spec`` names; a store is given back as it is.

    Raises:
        UsageError: ``spec`` is none of ``memory:`` and ``sqlite:PATH``.
    """
    if not isinstance(spec, str):
        return spec
    if spec == "memory:":
        return MemoryStore()
    scheme, _, path = spec.partition(":")
    if scheme == "sqlite" and path:
        path, _, synchronous = path.partition("?synchronous=")
        return SqliteStore(path, synchronous=cast(Synchronous, synchronous or "FULL"))
    raise UsageError(
        f"store {spec!r} is not understood; give 'memory:' (lost when the process ends), "
        "'sqlite:PATH' (a folder of that path), or an object that is a store"
    )
