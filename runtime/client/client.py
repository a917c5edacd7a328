"""The client: starts, signals, queries and manages actors from outside."""

from __future__ import annotations

from typing import Any

import orjson
from attrs import frozen

from ...actors.arguments import flag
from ...actors.ids import EntityId
from .entity_client import EntityClient
from .orchestration_client import OrchestrationClient


@frozen
class CleanResult:
    """What ``clean_entity_storage`` did.

    Attributes:
        empty_entities_removed: entities without state that were removed.
        orphaned_locks_released: locks released whose holder had ended.
    """

    empty_entities_removed: int
    orphaned_locks_released: int


class Client(OrchestrationClient, EntityClient):
    """Starts, signals, queries and manages actors; ``hub.client`` gives it.

    What a method says is done is durable when it returns. Where it raises ``UnavailableError``,
    nothing happened. A ``request_id`` makes a request safe to repeat, also across a crash: the
    hub applies it once, and answers a repetition as it answered the first.
    """

    async def clean_entity_storage(
        self, *, remove_empty_entities: bool = True, release_orphaned_locks: bool = True
    ) -> CleanResult:
        """Remove entities without state, and locks whose holders have ended.

        Neither is left behind in the ordinary course of things.
        """
        flag(remove_empty_entities, "remove_empty_entities")
        flag(release_orphaned_locks, "release_orphaned_locks")
        removed = released = 0
        async for status in self.query_entities(include_empty=True, states=True):
            id = status.entity_id
            if release_orphaned_locks and status.locked_by is not None:
                holder = await self.get_status(status.locked_by)
                if holder is None or holder.is_completed:
                    released += await self._release(id)
            elif (
                remove_empty_entities
                and not status.exists
                and not status.waiting
                and not self._is_striped(id)  # its stripes may have what its row has not
            ):
                await self.purge_entity(id)
                removed += 1
        return CleanResult(removed, released)

    async def _release(self, id: EntityId[Any]) -> int:
        rows = await self._partition(str(id)).store.read_entities([(id.name, id.key)])
        if not rows or rows[0].lock is None:
            return 0
        owner = orjson.loads(rows[0].lock)[:3]
        await self._at(str(id), lambda place: place.unlock(str(id), owner))
        return 1
