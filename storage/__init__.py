"""The storage room: what a hub makes durable, and where.

Internal as a whole; users meet it through ``Hub(store=...)`` and ``perdure``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from ..actors.errors import UsageError
from .memory import MemoryStore
from .mended import DAMAGED, MendedEntity, MendedInstance, is_time
from .protocol import (
    PartitionStore,
    ReadStore,
    SharedPartition,
    SharedStore,
    StoppedPartition,
    Store,
)
from .records import (
    ENDED,
    ActivityRow,
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
    SetAside,
    TimerRow,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .sqlite import Synchronous
    from .sqlite.stopped import StoppedStore

__all__ = [
    "DAMAGED",
    "ENDED",
    "ActivityRow",
    "Checkpoint",
    "ChunkRow",
    "CreatedRow",
    "EntityFilter",
    "EntityRow",
    "InstanceFilter",
    "InstanceRecord",
    "MailRow",
    "MemoryStore",
    "MendedEntity",
    "MendedInstance",
    "OutboxRow",
    "PartitionStore",
    "PeerRow",
    "ProgressRow",
    "ReadStore",
    "Recovered",
    "RequestRow",
    "SetAside",
    "SharedPartition",
    "SharedStore",
    "StoppedPartition",
    "Store",
    "TimerRow",
    "is_database",
    "is_time",
    "open_database",
    "open_stopped",
    "open_store",
    "refuse_moved",
    "split_place",
]

_DATABASES = ("postgresql://", "postgres://")


def split_place(spec: str) -> tuple[str, str]:
    """Give the folder that ``sqlite:PATH`` names, and how synchronous its commits are."""
    path, _, synchronous = spec.removeprefix("sqlite:").partition("?synchronous=")
    return os.path.expanduser(path), synchronous or "FULL"


def is_database(place: object) -> bool:
    """Whether a place is a database, which several processes have open at once."""
    return issubclass(type(place), str) and str(place).startswith(_DATABASES)


def open_store(spec: str | os.PathLike[str] | Store) -> Store:
    """Make the store that ``spec`` names; a store is given back as it is.

    Raises:
        UsageError: ``spec`` is none of ``memory:``, ``sqlite:PATH``, ``postgresql://...`` and a path.
    """
    if isinstance(spec, os.PathLike):
        return _open_folder(spec)
    if not isinstance(spec, str):
        return spec
    if spec == "memory:":
        return MemoryStore()
    if spec.startswith("sqlite:") and spec != "sqlite:":
        return _open_folder(*split_place(spec))
    if is_database(spec):
        from .postgres import PostgresStore

        return PostgresStore(spec)
    raise UsageError(
        f"store {spec!r} is not understood; give 'memory:' (lost when the process ends), "
        "'sqlite:PATH' (a folder of that path), 'postgresql://user@host/database', or an object "
        "that is a store"
    )


def _open_folder(path: str | os.PathLike[str], synchronous: str = "FULL") -> Store:
    from .sqlite import SqliteStore  # with aiosqlite and sqlite3, which a hub in memory never needs

    return SqliteStore(path, synchronous=cast("Synchronous", synchronous))


def open_stopped(folder: Path) -> StoppedStore:
    """Make what reads the folder of a hub that does not run."""
    from .sqlite.stopped import StoppedStore

    return StoppedStore(folder)


def refuse_moved(folder: Path) -> None:
    """Refuse a hub that stopped in order in a folder, and is elsewhere by now.

    Raises:
        StoreMovedError: it is.
    """
    from .sqlite.stopped import refuse_moved

    refuse_moved(folder)


def open_database(spec: str) -> ReadStore:
    """Make what reads a hub from its database, whether it runs or not."""
    from .postgres.stopped import StoppedPostgres

    return StoppedPostgres(spec)
