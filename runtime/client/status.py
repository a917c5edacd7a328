"""What the client shows of instances and entities."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
import orjson
from attrs import field, frozen

from ...actors.changes import read_parked
from ...actors.classes import class_of, is_a
from ...actors.codec import codec_for
from ...actors.codec.states import SCHEMA
from ...actors.errors import (
    FailedError,
    FailureDetails,
    OrchestrationCanceledError,
    OrchestrationFailedError,
    OrchestrationTerminatedError,
    UsageError,
)
from ...actors.failures import read_failure
from ...actors.ids import EntityId
from ...actors.messages import Caller
from ...actors.replay.history import named_fields
from ...actors.times import to_datetime
from ...actors.values import RuntimeStatus
from ...storage import DAMAGED
from ..facts import Fact, ParkedReason, json_form

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ...storage.records import EntityRow, InstanceRecord

E = TypeVar("E")

_ANY = codec_for(Any)


@frozen(kw_only=True)
class OrchestrationStatus(Fact):
    """An orchestration instance, as of the last checkpoint.

    Attributes:
        instance_id: its id.
        name: the orchestration's name.
        version: the version it was started with, or None.
        runtime_status: where it stands.
        created_time: when it was started; aware, UTC.
        last_updated_time: when its last turn was.
        completed_time: when it ended, or None.
        input: its input as JSON values, or None where none was asked for.
        output: its result as JSON values, or None.
        custom_status: what ``set_custom_status`` was given last.
        failure: why it failed, was cancelled or terminated.
        parent_instance_id: the instance that started it as its child, or None.
        execution: 1, and one more for each continue-as-new or replacement.
        rewinds: how often its executions were rewound.
        suspended: the reason that ``suspend`` was given, while it is suspended; else None.
        history_length: events in its history.
        tags: the tags it was started with.
        parked: why it takes no turns, or None.
        waiting_for: what it waits for, in the words of ``InstanceConditions``; of many things the
            first are told. ``explain`` has all, and more of each.
        attempts: which attempt the call is at that was tried most; 1 where nothing is repeated.
    """

    instance_id: str
    name: str
    version: str | None
    runtime_status: RuntimeStatus
    created_time: datetime
    last_updated_time: datetime
    completed_time: datetime | None
    input: Any
    output: Any
    custom_status: Any
    failure: FailureDetails | None
    parent_instance_id: str | None
    execution: int
    rewinds: int
    suspended: str | None
    history_length: int
    tags: Mapping[str, str]
    parked: ParkedReason | None
    waiting_for: tuple[str, ...] = ()
    attempts: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values only: times in ISO 8601, the status as a text."""
        completed = self.completed_time
        return {
            "instance_id": self.instance_id,
            "name": self.name,
            "version": self.version,
            "runtime_status": self.runtime_status.value,
            "created_time": self.created_time.isoformat(),
            "last_updated_time": self.last_updated_time.isoformat(),
            "completed_time": None if completed is None else completed.isoformat(),
            # What was stored as JSON needs no look at every part of it.
            "input": self.input,
            "output": self.output,
            "custom_status": self.custom_status,
            "failure": None if self.failure is None else json_form(self.failure),
            "parent_instance_id": self.parent_instance_id,
            "execution": self.execution,
            "rewinds": self.rewinds,
            "suspended": self.suspended,
            "history_length": self.history_length,
            "tags": dict(self.tags),
            "parked": None if self.parked is None else self.parked.to_dict(),
            "waiting_for": list(self.waiting_for),
            "attempts": self.attempts,
        }

    @property
    def is_completed(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.runtime_status.is_terminal


@frozen(kw_only=True)
class EntityStatus(Fact, Generic[E]):
    """An entity, as of the last checkpoint.

    Attributes:
        entity_id: its address.
        exists: whether it has state.
        state: its state: an object of its class, or None.
        last_modified: when it was changed last; aware, UTC. None if it never was.
        locked_by: the orchestration instance that holds its lock, or None.
        lock_waiters: the instances that wait for the lock, the next one first; where many
            messages wait, the first of them.
        lock_waiter_count: how many wait for the lock.
        waiting: stored messages that wait for it.
        failed_signals: how many signalled operations have failed, ever.
        failures: the last of them: time, operation, error type and message.
        parked: why it takes no turns, or None.
    """

    entity_id: EntityId[E]
    exists: bool
    state: E | None
    last_modified: datetime | None
    locked_by: str | None
    lock_waiters: tuple[str, ...]
    lock_waiter_count: int
    waiting: int
    failed_signals: int
    failures: list[tuple[datetime, str, str, str]]
    parked: ParkedReason | None
    _stored: Any = field(default=None, repr=False, eq=False, alias="stored")
    _schema: int = field(default=1, repr=False, eq=False, alias="schema")

    @property
    def schema_version(self) -> int:
        """The version of its class that the state was stored by."""
        return self._schema

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values only, the state as its fields."""
        names = ("time", "operation", "error_type", "message")
        failures = [dict(zip(names, json_form(one), strict=True)) for one in self.failures]
        shown = attrs.evolve(self, state=None, failures=[])
        return {**Fact.to_dict(shown), "state": self._stored, "failures": failures}


@frozen(kw_only=True)
class AppDescription(Fact):
    """What a hub's application has.

    Attributes:
        orchestrations: their names, each with its versions, the lowest first; None is the one
            without a version.
        entities: their names, each with its operations; none where it takes any.
        activities: their names.
    """

    orchestrations: Mapping[str, tuple[str | None, ...]]
    entities: Mapping[str, tuple[str, ...]]
    activities: tuple[str, ...]


@frozen(kw_only=True)
class HistoryEvent(Fact):
    """One event of an orchestration's history.

    Attributes:
        event_type: its type, such as ``TaskScheduled``.
        timestamp: when it was recorded; aware, UTC.
        fields: the rest of it, by the names that ``docs/storage.md`` gives: payloads as JSON
            values, times as aware datetimes, failures as ``FailureDetails``.
    """

    event_type: str
    timestamp: datetime
    fields: Mapping[str, Any]


def history_event(event: list[Any]) -> HistoryEvent:
    """Show a stored event."""
    return HistoryEvent(
        event_type=event[0], timestamp=to_datetime(event[1]), fields=named_fields(event)
    )


def parked_reason(data: bytes | None) -> ParkedReason | None:
    """Read why an actor is parked."""
    if data is None:
        return None
    kind, reason = read_parked(data)
    return ParkedReason(type=kind, reason=reason)


def _json(data: bytes | None) -> Any:
    return None if data is None else orjson.loads(data)


def _tags(data: bytes | None) -> Mapping[str, str]:
    tags = _json(data)
    return tags if class_of(tags) is dict else {}


def stored_failure(data: bytes | None) -> FailureDetails | None:
    """Read why an instance failed; what cannot be read is shown as that."""
    if data is None:
        return None
    try:
        return read_failure(data)
    except (ValueError, TypeError, LookupError) as error:
        return FailureDetails("StoreDamagedError", f"the stored failure cannot be read ({error})")


_ENDINGS = {
    "Failed": OrchestrationFailedError,
    "Terminated": OrchestrationTerminatedError,
    "Canceled": OrchestrationCanceledError,
}


def ending_error(instance_id: str, status: str, failure: FailureDetails | None) -> FailedError:
    """Make the error for who waits for the result of an instance that has none."""
    details = failure or FailureDetails(status, "")
    return _ENDINGS[status](f"orchestration {instance_id!r}", details)


def hindrance(status: OrchestrationStatus | None) -> str:
    """Say what keeps an instance from ending until somebody does something about it."""
    if status is None:
        return ""
    if status.parked is not None:
        return f"; it is parked, until client.retry: {status.parked.reason}"
    suspended = status.runtime_status == RuntimeStatus.SUSPENDED
    return "; it is suspended" if suspended else ""


def _time(value: int | None) -> datetime | None:
    return None if value is None else to_datetime(value)


def _notes(data: bytes | None) -> dict[str, Any]:
    try:
        notes = _json(data)
    except ValueError:
        return {}  # damaged, and nothing that anybody acts on
    return notes if is_a(notes, dict) else {}


def _words(data: bytes | None) -> list[str]:
    try:
        words: list[Any] = _json(data)
    except ValueError:
        return []  # damaged, and nothing that anybody acts on
    return [str(word) for word in words] if is_a(words, list) else []


def instance_status(record: InstanceRecord) -> OrchestrationStatus:
    """Show a stored instance."""
    notes = _notes(record.notes)
    return OrchestrationStatus(
        instance_id=record.key,
        name=record.name,
        version=record.version,
        runtime_status=RuntimeStatus(record.status),
        created_time=to_datetime(record.created),
        last_updated_time=to_datetime(record.updated),
        completed_time=_time(record.completed),
        input=_json(record.input),
        output=_json(record.output),
        custom_status=_json(record.custom_status),
        failure=stored_failure(record.failure),
        parent_instance_id=record.parent,
        execution=record.execution,
        rewinds=notes.get("rewinds", 0),
        suspended=notes.get("suspended"),
        history_length=record.events,
        tags=_tags(record.tags),
        parked=parked_reason(record.parked),
        waiting_for=tuple(_words(record.waits)),
        attempts=record.attempts or 1,
    )


def _fields_of(state: bytes | None) -> tuple[Any, int]:
    """Give a stored state as JSON values, and the version of its class."""
    stored = _json(state)
    version = stored.pop(SCHEMA, 1) if class_of(stored) is dict else 1
    return stored, version if type(version) is int else 1


def entity_status(row: EntityRow, lookup: Lookup, waiting: int) -> EntityStatus[Any]:
    """Show a stored entity. A state that its class cannot read is given as plain JSON values."""
    state: Any = None
    if row.state is not None:
        try:
            state = lookup.registry.find_entity(row.name).state.decode(row.state)
        except UsageError:
            state = orjson.loads(row.state)
    parked = parked_reason(row.parked)
    count: int = 0
    failures: list[tuple[datetime, str, str, str]] = []
    holder: str | None = None
    waiters: tuple[str, ...] = ()
    asking: int = 0
    try:
        if row.failures is not None:
            count, listed, *_ = orjson.loads(row.failures)
            failures = [(to_datetime(at), op, kind, text) for at, op, kind, text in listed]
        if row.lock is not None:
            lock = orjson.loads(row.lock)
            holder = Caller(*lock[:3]).instance_id
            waiters = tuple(str(one) for one in (lock[3] if len(lock) > 3 else ()))
            asking = int(lock[4]) if len(lock) > 4 else len(waiters)
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        reason = f"its lock or its list of failures cannot be read ({error})"
        parked = parked or ParkedReason(type=DAMAGED, reason=reason)
    stored, schema = _fields_of(row.state)
    return EntityStatus(
        stored=stored,
        schema=schema,
        entity_id=EntityId(row.name, row.key),
        exists=row.state is not None,
        state=state,
        last_modified=to_datetime(row.updated),
        locked_by=holder,
        lock_waiters=waiters,
        lock_waiter_count=asking,
        waiting=waiting,
        failed_signals=count,
        failures=failures,
        parked=parked,
    )
