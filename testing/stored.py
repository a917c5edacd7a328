"""What a hub under test has stored, as it is shown to people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import Factory, evolve, frozen

from ..actors.entities.stripes import MARK
from ..actors.replay.stored import read_history
from ..runtime.client.status import (
    EntityStatus,
    HistoryEvent,
    OrchestrationStatus,
    entity_status,
    history_event,
    instance_status,
)
from ..runtime.facts import Fact
from ..storage.records import EntityFilter, InstanceFilter
from ..storage.slices import at_once

if TYPE_CHECKING:
    from ..actors.registry.lookup import Lookup
    from ..storage.protocol import PartitionStore
    from ..storage.records import EntityRow, InstanceRecord


@frozen(kw_only=True)
class Stored(Fact):
    """What was durable at some moment.

    Attributes:
        instances: the orchestrations, by their ids.
        histories: their histories, by their ids.
        entities: the entities, by their ids.
    """

    instances: Mapping[str, OrchestrationStatus] = Factory(dict[str, OrchestrationStatus])
    histories: Mapping[str, tuple[HistoryEvent, ...]] = Factory(dict[str, tuple[HistoryEvent, ...]])
    entities: Mapping[str, EntityStatus[Any]] = Factory(dict[str, EntityStatus[Any]])


async def read_stored(partitions: Sequence[PartitionStore], lookup: Lookup) -> Stored:
    """Read what is stored, while nothing changes it."""
    instances: dict[str, OrchestrationStatus] = {}
    histories: dict[str, tuple[HistoryEvent, ...]] = {}
    entities: dict[str, EntityStatus[Any]] = {}
    for partition in partitions:
        for record in await _instances(partition):
            chunks = await partition.read_history(record.id)
            instances[record.key] = instance_status(record)
            events = at_once(read_history(chunks, None))
            histories[record.key] = tuple(map(history_event, events))
        for row in await _entities(partition):
            if MARK in row.key:
                continue  # a stripe is no entity of its own
            actor = f"@{row.name}@{row.key}"
            waiting = (await partition.waiting([actor])).get(actor, 0)
            entities[actor] = entity_status(row, lookup, waiting)
    return Stored(
        instances=dict(sorted(instances.items())),
        histories=dict(sorted(histories.items())),
        entities=dict(sorted(entities.items())),
    )


async def last_number(partition: PartitionStore, prefix: str, others: Iterable[str]) -> int:
    """Give the greatest number behind a prefix among the ids of instances, and of some others."""
    filter = InstanceFilter(prefix=prefix, payloads=False)
    ids = [record.key for record in await _instances(partition, filter)]
    ids += [id for id in others if id.startswith(prefix)]
    numbers = [id.removeprefix(prefix) for id in ids]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


async def _instances(
    partition: PartitionStore,
    filter: InstanceFilter = InstanceFilter(),  # noqa: B008 - it is frozen
) -> list[InstanceRecord]:
    found: list[InstanceRecord] = []
    page = filter
    while True:
        records = await partition.query_instances(page)
        found += records
        if len(records) < filter.limit:
            return found
        page = evolve(filter, after=(found[-1].created, found[-1].key))


async def _entities(partition: PartitionStore) -> list[EntityRow]:
    found: list[EntityRow] = []
    page = filter = EntityFilter()
    while True:
        rows = await partition.query_entities(page)
        found += rows
        if len(rows) < filter.limit:
            return found
        page = evolve(filter, after=(found[-1].name, found[-1].key))
