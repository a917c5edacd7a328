"""A crew whose process can bring its hub to another store while it serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ...actors.errors import StoreMovedError, UsageError
from ..partitions.guarded_store import close_guarded, open_guarded
from .crews import Crew

if TYPE_CHECKING:
    from ...storage import PartitionStore, Store
    from ...storage.membership import Membership
    from ...storage.migrating import MigratingStore
    from ..migrations import MigrationStatus
    from ..scheduling.hidden_tasks import TaskGroup
    from .migration import Migration, Moves


class MovingCrew(Crew):
    """Shards of this process alone, of which some may be served from another store than others."""

    _store: Store
    _tasks: TaskGroup | None = None  # while it serves
    _is_ready = False
    _migration: Migration | None = None
    _membership: Callable[[], Membership] | None = None  # of a store that has members

    async def _open_store(self, partitions: int) -> list[PartitionStore]:
        """Open the store; gives its partitions, or none where a migration that had begun has them."""
        try:
            return await open_guarded(self._store, partitions)
        except StoreMovedError:
            from ...storage.migrating import reopened  # with all that reaches a database

            found = await reopened(
                self._store, partitions, is_shared=self.count > 1, membership=self._membership
            )
            if found is None:
                raise
            self._take_up(found)
            return []

    async def _close_store(self) -> None:
        await close_guarded(self._store if self._migration is None else self._migration.store)

    def _take_up(self, store: MigratingStore) -> None:
        """Have a migration go on, once all is ready."""
        from .migration import Migration

        self._migration = Migration(store, self._moves(store), self.all_moved)
        self._begin_migration()

    def _moves(self, store: MigratingStore) -> Moves:
        """Give who brings the partitions."""
        from .migration import Mover

        return Mover(store, self)

    def _begin_migration(self) -> None:
        """Begin it, where it can be by now."""
        if self._migration is not None and self._tasks is not None and self._is_ready:
            self._tasks.start_soon(self.keeper.persist, "the migration", self._migration.run)

    async def migrate(self, target: str) -> None:
        """See ``Crew.migrate``."""
        from ...storage.migrating import begun

        async with self._moving:
            if self._migration is not None:
                self._migration.store.check_target(target)
                return
            self._take_up(
                await begun(
                    self._store, target, is_shared=self.count > 1, membership=self._membership
                )
            )

    @property
    def durability(self) -> str | None:
        """See ``Crew.durability``."""
        return None if self._migration is None else self._migration.store.durability

    def migration(self) -> MigrationStatus | None:
        """See ``Crew.migration``."""
        return None if self._migration is None else self._migration.status()

    async def reopen(
        self, partition: int, change: Callable[[], Awaitable[PartitionStore]]
    ) -> float:
        """Serve a partition from what ``change`` gives while nobody serves it; gives the pause.

        Raises:
            UnavailableError, StorageError: it is served as it was.
        """
        raise UsageError("nothing of this hub moves")

    async def all_moved(self) -> None:
        """Hear that all is served from the other store.

        Raises:
            StorageError: the first one does not know that yet.
        """
        return
