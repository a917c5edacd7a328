"""The client that speaks with the partitions themselves, wherever they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

import orjson

from ...actors.arguments import flag
from ...actors.errors import UsageError
from ...actors.ids import EntityId
from ...actors.printing import repr_of
from ...actors.registry.versions import version_key
from .client import CleanResult
from .entity_client import EntityClient
from .explanation_client import ExplanationClient
from .orchestration_client import OrchestrationClient
from .status import AppDescription, EntityStatus

if TYPE_CHECKING:
    from ..nodes import HubNodes
    from ..statistics import HubStatistics


class HubClient(OrchestrationClient, EntityClient, ExplanationClient):
    """What ``hub.client`` is, and what ``connect`` gives with the application."""

    async def statistics(self, *, hottest: int = 0) -> HubStatistics:
        return await self._overseer.statistics(hottest=hottest)

    async def move_partition(self, partition: int, to: int) -> None:
        await self._overseer.move_partition(partition, to)

    async def nodes(self) -> HubNodes:
        return await self._overseer.nodes()

    async def drain_node(self, member: int) -> None:
        await self._overseer.drain_node(member)

    async def undrain_node(self, member: int) -> None:
        await self._overseer.undrain_node(member)

    async def describe(self) -> AppDescription:
        registry = self._lookup.registry
        return AppDescription(
            orchestrations={
                name: tuple(sorted(versions, key=version_key))
                for name, versions in registry.orchestrations.items()
            },
            entities={
                name: tuple(sorted(entity.operations)) for name, entity in registry.entities.items()
            },
            activities=tuple(registry.activities),
        )

    async def ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        from .operations import ask  # here, since hardly a program in one process needs it

        return await ask(self, operation, arguments)

    @contextmanager
    def carrying(self, carried: Mapping[str, str] | None) -> Generator[None]:
        """Let context variables of the application hold what a caller elsewhere has in them.

        Raises:
            UsageError: the application declares no such variable.
        """
        if not carried:
            yield
            return
        variables = self._lookup.registry.context_vars
        for name in carried:
            if name not in variables:
                known = ", ".join(map(repr_of, variables)) or "none"
                raise UsageError(
                    f"carried: the app declares no context variable {repr_of(name)}; it has: {known}"
                )
        tokens = [(variables[name], variables[name].set(text)) for name, text in carried.items()]
        try:
            yield
        finally:
            for variable, token in tokens:
                variable.reset(token)

    async def clean_entity_storage(
        self, *, remove_empty_entities: bool = True, release_orphaned_locks: bool = True
    ) -> CleanResult:
        flag(remove_empty_entities, "remove_empty_entities")
        flag(release_orphaned_locks, "release_orphaned_locks")
        removed = released = 0
        every = self.query_entities(include_empty=True, states=True)
        # An error here would leave it to be ended by the garbage collector.
        async with aclosing(cast("AsyncGenerator[EntityStatus[Any]]", every)) as statuses:
            async for status in statuses:
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
