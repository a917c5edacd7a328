"""The part of the client that is about why actors wait, and how they came to where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from attrs import evolve

from ...actors.arguments import is_a, whole
from ...actors.errors import InstanceNotFoundError
from ...actors.ids import EntityId, check_instance_id, entity_id
from ...storage.slices import in_slices
from ..facts import read_fact, read_in_parts
from ..scheduling.imports import EXPLAINING, imported
from ..transport.admission import TRACE_MAX
from .requester import Requester

if TYPE_CHECKING:
    from ..explanations import AskedLock, EntityExplanation, InstanceExplanation, Trace


class ExplanationClient(Requester):
    """What a client can ask of what waits."""

    @overload
    async def explain(self, actor: str) -> InstanceExplanation: ...
    @overload
    async def explain(self, actor: EntityId[Any]) -> EntityExplanation: ...
    async def explain(self, actor: str | EntityId[Any]) -> InstanceExplanation | EntityExplanation:
        await imported(*EXPLAINING)
        if is_a(actor, EntityId):
            return await self._explain_entity(entity_id(actor))
        from ..explanations import InstanceExplanation

        instance_id = check_instance_id(actor, "actor")
        found = await self._at(instance_id, lambda place: place.explain(instance_id))
        if found is None:
            raise InstanceNotFoundError(instance_id)
        explanation = await in_slices(read_in_parts(InstanceExplanation, found))
        lock = explanation.lock
        if lock is None or lock.is_granted:
            return explanation
        return evolve(explanation, lock=await self._find_in_queue(lock, instance_id))

    async def _explain_entity(self, id: EntityId[Any]) -> EntityExplanation:
        from ..explanations import EntityExplanation

        key = str(id)
        found = await self._at(key, lambda place: place.explain(key))
        assert found is not None  # there is any entity, with or without a state
        return read_fact(EntityExplanation, found)

    async def _find_in_queue(self, lock: AskedLock, instance_id: str) -> AskedLock:
        """Find the entity that a lock waits for: the first that it has not locked."""
        for id in lock.entities:
            entity = await self._explain_entity(id)
            if entity.locked_by == instance_id:
                continue
            waiters = entity.lock_waiters
            place = waiters.index(instance_id) + 1 if instance_id in waiters else None
            return evolve(lock, waits_at=id, holder=entity.locked_by, place=place)
        return lock  # all are locked, and the grant is on its way

    async def trace(self, instance_id: str, *, after: int = 0, limit: int = TRACE_MAX) -> Trace:
        await imported(*EXPLAINING)
        from ..explanations import Trace

        instance_id = check_instance_id(instance_id)
        whole(after, "after", least=0)
        whole(limit, "limit", least=1, most=TRACE_MAX)
        found = await self._at(instance_id, lambda place: place.trace(instance_id, after, limit))
        if found is None:
            raise InstanceNotFoundError(instance_id)
        return await in_slices(read_in_parts(Trace, found))
