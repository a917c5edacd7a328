"""Brings a hub to another store while it serves: a partition after the other, each as a move."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import anyio

from ...actors.errors import PerdureError, StorageError
from ...actors.logs import Log
from ...actors.printing import text_of
from ...storage import migration
from ..migrations import MigrationStatus
from ..scheduling.timers import backoff

if TYPE_CHECKING:
    from ...storage.migrating import MigratingStore
    from ...storage.protocol import PartitionStore

_log = Log("perdure.placement")


class Reopens(Protocol):
    """Whoever serves partitions in this process."""

    async def reopen(
        self, partition: int, change: Callable[[], Awaitable[PartitionStore]]
    ) -> float:
        """Serve a partition from what ``change`` gives while nobody serves it; gives the pause."""
        ...


class Moves(Protocol):
    """Whoever brings single partitions to another store; each may be asked again where it fails."""

    async def follow(self, number: int) -> None:
        """Have a partition be served such that what it commits can be followed."""
        ...

    async def copy(self, number: int, tell: Callable[[int], None]) -> None:
        """Copy it while it is served, until hardly anything is left to follow.

        Args:
            number: which.
            tell: is told how many rows have been copied; in any thread.
        """
        ...

    async def switch(self, number: int) -> float | None:
        """Serve it from there; gives the seconds of the pause, or None where it stays."""
        ...


class Mover:
    """Brings partitions that this process serves; see ``Moves``.

    Args:
        store: where they are.
        crew: serves them.
    """

    def __init__(self, store: MigratingStore, crew: Reopens) -> None:
        self.store = store
        self._crew = crew

    async def follow(self, number: int) -> None:
        """See ``Moves``."""
        if self.store.is_followed(number):
            return
        await self._crew.reopen(number, lambda: self._follow(number))
        await self.store.put_away()
        migration.reached(f"following {number}")

    async def copy(self, number: int, tell: Callable[[int], None]) -> None:
        """See ``Moves``."""
        await self.store.copy(number, tell)

    async def switch(self, number: int) -> float | None:
        """See ``Moves``."""
        pause_s = await self._crew.reopen(number, lambda: self._switch(number))
        if number not in self.store.moved:
            return None
        await self.store.put_away()
        return pause_s

    async def _follow(self, number: int) -> PartitionStore:
        return self.store.follow(number)

    async def _switch(self, number: int) -> PartitionStore:
        migration.reached(f"stopped {number}")
        await self.store.switch(number)
        return self.store.partition(number)


class Migration:
    """One hub on its way.

    Args:
        store: where its partitions are.
        moves: brings them.
        all_moved: is told when all are there; raises ``StorageError`` where it is to be told again.
    """

    def __init__(
        self, store: MigratingStore, moves: Moves, all_moved: Callable[[], Awaitable[None]]
    ) -> None:
        self.store = store
        self._moves = moves
        self._all_moved = all_moved
        self._moved = set(store.moved)  # and served from there
        self._partition: int | None = None
        self._step: str | None = None
        self._rows = self._copied_rows = 0
        self._longest_pause_s = 0.0
        self._trouble: str | None = None

    def status(self) -> MigrationStatus:
        """Say how far it is."""
        return MigrationStatus(
            source=self.store.source.location,
            target=self.store.location,
            pid=os.getpid(),
            partitions=self.store.count,
            moved=tuple(sorted(self._moved)),
            partition=self._partition,
            step=self._step,
            rows=self._rows,
            copied_rows=self._copied_rows + self._rows,
            longest_pause_s=self._longest_pause_s,
            trouble=self._trouble,
        )

    async def run(self) -> None:
        """Bring one partition after the other, until all are there."""
        source = self.store.source.location
        for number in range(self.store.count):
            tries = 0
            while number not in self._moved:
                try:
                    await self._bring(number)
                    self._trouble = None
                except PerdureError as error:
                    self._say(number, text_of(error))
                    await anyio.sleep(backoff(tries))
                    tries += 1
        self._partition = self._step = None
        try:
            await self.store.settle()
        except StorageError as error:
            _log.warning("the database has no counts of what has moved yet: %s", error)
        tries = 0
        while True:
            try:
                await self._all_moved()
                break
            except PerdureError as error:
                if text_of(error) != self._trouble:
                    _log.warning("%s does not know yet that all has moved: %s", source, error)
                self._trouble = text_of(error)
            await anyio.sleep(backoff(tries))
            tries += 1
        self._trouble = None
        _log.info(
            "all of the hub has moved to %s: give that to the next process that serves it",
            self.store.location,
        )

    def _say(self, number: int, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning("partition %d has not moved, and is tried again: %s", number, trouble)
        self._trouble = trouble

    async def _bring(self, number: int) -> None:
        store, moves = self.store, self._moves
        self._partition, self._step = number, "copied"
        self._copied_rows, self._rows = self._copied_rows + self._rows, 0
        await moves.follow(number)
        await moves.copy(number, self._count)
        self._step = "switched"
        pause_s = await moves.switch(number)
        if pause_s is None:
            return
        self._longest_pause_s = max(self._longest_pause_s, pause_s)
        self._moved.add(number)
        _log.info(
            "partition %d has moved to %s: %d rows, and it paused for %.3f seconds",
            number,
            store.location,
            self._rows,
            pause_s,
        )
        migration.reached(f"moved {number}")

    def _count(self, rows: int) -> None:
        self._rows = rows
