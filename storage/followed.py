"""A partition that somebody follows: what it commits is brought elsewhere while it is served."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Final, cast

import anyio

from .layered import LayeredReads
from .postgres.store import PostgresPartition
from .records import Checkpoint, Recovered, SetAside
from .sqlite.store import SqlitePartition

if TYPE_CHECKING:
    from .protocol import PartitionStore

WAITING_MAX: Final = 500
"""Checkpoints that wait to be brought elsewhere, beyond which commits wait, too; at first."""

_WAIT_S: Final = 0.01


class Trail:
    """What was committed, in order, until somebody takes it; for any thread.

    Attributes:
        most: how many checkpoints may wait, beyond which commits wait, too; None for any number.
        is_lost: whether it is not known any more what was committed: then it takes nothing more.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: list[Checkpoint] = []
        self.most: int | None = WAITING_MAX
        self.is_lost = False

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more should come."""
        return self.most is not None and len(self._waiting) >= self.most

    def add(self, checkpoint: Checkpoint) -> None:
        """Take the next checkpoint."""
        with self._lock:
            if not self.is_lost:
                self._waiting.append(checkpoint)

    def take(self) -> list[Checkpoint]:
        """Give what has come since the last time."""
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def lose(self) -> None:
        """Take nothing more, and let go of what nobody has taken."""
        with self._lock:
            self.is_lost = True
            self._waiting = []


class Followed(LayeredReads):
    """A partition that leaves a trail, once it is followed; it stands before that of a store.

    Attributes:
        trail: what it has committed since.
    """

    trail: Trail | None = None

    def follow(self) -> Trail:
        """Leave a trail from now on: of each commit that returns after this."""
        if self.trail is not None:
            self.trail.lose()
        self.trail = Trail()
        return self.trail

    @property
    def sequence(self) -> int:
        """The last checkpoint that was committed."""
        return -1 if self._layers is None else self._layers.sequence

    async def commit(self, checkpoint: Checkpoint) -> None:
        """See ``PartitionStore.commit``; it waits for whoever follows, too, within bounds."""
        # Polled, since it is another thread that takes them, and only while the hub moves.
        while self.trail is not None and self.trail.is_full:  # noqa: ASYNC110
            await anyio.sleep(_WAIT_S)
        await _rest(super()).commit(checkpoint)
        if self.trail is not None:
            self.trail.add(checkpoint)

    async def recover(self) -> Recovered:
        """See ``PartitionStore.recover``; a commit that failed may be among what it finds."""
        self._lose()
        return await _rest(super()).recover()

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        """See ``PartitionStore.set_aside``, which is no checkpoint."""
        self._lose()
        await _rest(super()).set_aside(rows)

    def _lose(self) -> None:
        if self.trail is not None:
            self.trail.lose()


def _rest(partition: object) -> PartitionStore:
    """Give what stands behind ``Followed``, which is a partition of a store."""
    return cast("PartitionStore", partition)


class FollowedSqlite(Followed, SqlitePartition):
    """A partition of a folder that is followed."""


class FollowedPostgres(Followed, PostgresPartition):
    """A partition of a schema that is followed."""
