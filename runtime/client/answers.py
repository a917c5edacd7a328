"""Answers: what operations give as JSON values, read back as the facts that they tell of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import orjson

from ...actors.codec.states import SCHEMA
from ...actors.errors import FailureDetails, UsageError
from ...actors.ids import EntityId
from ...actors.values import RuntimeStatus
from ...storage.slices import in_slices, map_each
from ..facts import ParkedReason
from ..statistics import HubStatistics, SilentShard, read_migration, read_partition, read_shard
from .changes import Change
from .pages import HistoryPage
from .status import AppDescription, EntityStatus, HistoryEvent, OrchestrationStatus

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _parked(value: dict[str, str] | None) -> ParkedReason | None:
    return None if value is None else ParkedReason(**value)


def read_failure(value: Mapping[str, Any] | None) -> FailureDetails | None:
    """Read why something failed."""
    if value is None:
        return None
    return FailureDetails(
        value["error_type"],
        value["message"],
        value.get("stack_trace", ""),
        read_failure(value["cause"]),
        value["non_retryable"],
        tuple(value["bases"]),
        tuple(cast("FailureDetails", read_failure(one)) for one in value["members"]),
    )


def read_status(told: Mapping[str, Any]) -> OrchestrationStatus:
    """Read an instance's status."""
    fields: dict[str, Any] = dict(told)
    fields["runtime_status"] = RuntimeStatus(told["runtime_status"])
    for name in ("created_time", "last_updated_time", "completed_time"):
        fields[name] = _time(told[name])
    fields["failure"] = read_failure(told["failure"])
    fields["parked"] = _parked(told["parked"])
    fields["waiting_for"] = tuple(told["waiting_for"])
    return OrchestrationStatus(**fields)


def read_change(told: Mapping[str, Any]) -> Change:
    """Read what became of an instance."""
    status = told["status"]
    return Change(
        id=told["id"],
        kind=told["kind"],
        instance_id=told["instance_id"],
        status=None if status is None else read_status(status),
    )


def read_entity(told: Mapping[str, Any], lookup: Lookup | None) -> EntityStatus[Any]:
    """Read an entity's status; its state as an object of its class, where that is known."""
    id = EntityId.parse(told["entity_id"])
    return EntityStatus(
        entity_id=id,
        exists=told["exists"],
        state=_state_or_plain(id, told, lookup),
        last_modified=_time(told["last_modified"]),
        locked_by=told["locked_by"],
        lock_waiters=tuple(told["lock_waiters"]),
        lock_waiter_count=told["lock_waiter_count"],
        waiting=told["waiting"],
        failed_signals=told["failed_signals"],
        failures=[
            (
                datetime.fromisoformat(one["time"]),
                one["operation"],
                one["error_type"],
                one["message"],
            )
            for one in told["failures"]
        ],
        parked=_parked(told["parked"]),
        stored=told["state"],
        schema=told["schema_version"],
    )


def _state_or_plain(id: EntityId[Any], told: Mapping[str, Any], lookup: Lookup | None) -> Any:
    if lookup is None or told["state"] is None:
        return told["state"]
    try:
        return read_state(id, told, lookup)
    except UsageError:
        return told["state"]


def read_state(id: EntityId[Any], told: Mapping[str, Any], lookup: Lookup) -> Any:
    """Read an entity's state as an object of its class.

    Raises:
        PayloadError: its class cannot read what is stored.
    """
    stored = told["state"]
    if isinstance(stored, dict) and told["schema_version"] != 1:
        stored = {SCHEMA: told["schema_version"], **cast("dict[str, Any]", stored)}
    return lookup.registry.find_entity(id.name).state.decode(orjson.dumps(stored))


def read_event(told: Mapping[str, Any]) -> HistoryEvent:
    """Read an event of a history."""
    fields: dict[str, Any] = dict(told["fields"])
    for name in ("due", "started"):
        if isinstance(fields.get(name), str):
            fields[name] = datetime.fromisoformat(fields[name])
    if isinstance(fields.get("failure"), dict):
        fields["failure"] = read_failure(fields["failure"])
    return HistoryEvent(
        event_type=told["event_type"],
        timestamp=datetime.fromisoformat(told["timestamp"]),
        fields=fields,
    )


async def read_history_page(told: Mapping[str, Any]) -> HistoryPage:
    """Read some events of a history."""
    items = tuple(await in_slices(map_each(told["items"], read_event)))
    return HistoryPage(items=items, first=told["first"], total=told["total"], after=told["after"])


def read_statistics(told: Mapping[str, Any]) -> HubStatistics:
    """Read a hub's counters."""
    return HubStatistics(
        partitions=tuple(map(read_partition, told["partitions"])),
        shards=tuple(map(read_shard, told["shards"])),
        silent=tuple(SilentShard(**row) for row in told["silent"]),
        restarted=told["restarted"],
        migration=read_migration(told),
    )


def read_description(told: Mapping[str, Any]) -> AppDescription:
    """Read what an application has."""
    return AppDescription(
        orchestrations={name: tuple(one) for name, one in told["orchestrations"].items()},
        entities={name: tuple(one) for name, one in told["entities"].items()},
        activities=tuple(told["activities"]),
    )
