"""An orchestration's history: the form of its events, and what can be read off them.

An event is a JSON array: its type, the time it was recorded (integer microseconds since the
epoch), then its fields. There are two kinds. *Incoming* events say what happened to the
orchestration; applying them in order rebuilds its live code. *Decisions* say what its code asked
for; a replay must produce exactly these again, so each keeps what identifies it (kind, number,
name, target, a hash of the input) right behind the time.

| event | fields |
|---|---|
| ``ExecutionStarted`` | name, version, execution, parent, context variables if any came along |
| ``TaskScheduled`` | number, name, hash, [input], timeout, attempt, tags, number of the first attempt, summary if given |
| ``TaskCompleted`` | number, result, when the attempt began (null if it ended at once), on which shard |
| ``TaskFailed`` | number, failure, when the attempt began (null if it ended at once), on which shard |
| ``TimerCreated`` | number, due, how far the clock was behind if it was |
| ``TimerFired`` | number |
| ``SubOrchestrationInstanceCreated`` | number, name, hash, instance id, version, input |
| ``SubOrchestrationInstanceCompleted`` / ``...Failed`` | number, result / failure |
| ``EventRaised`` | name, data |
| ``EventSent`` | number, instance id, name, hash, data |
| ``EntityOperationSignaled`` | number, entity, operation, hash, due, input |
| ``EntityOperationCalled`` | number, entity, operation, hash, input |
| ``EntityOperationCompleted`` / ``...Failed`` | number, result / failure |
| ``EntityLockRequested`` | number, entities |
| ``EntityLockGranted`` | number |
| ``EntityLockReleased`` | number |
| ``CancelRequested`` | reason |
| ``ExecutionSuspended`` / ``ExecutionResumed`` | reason |
| ``ExecutionRewound`` | reason, number of the lock asked for again, numbers of the calls of entities made again |
| ``ExecutionForked`` | id of the instance that all before comes from |
| ``ExecutionTerminated`` | reason |
| ``ContinueAsNew`` | - |
| ``ExecutionCompleted`` | status |

An input stands last, and is missing where none was given, or where the event is from before
inputs were recorded.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, cast

import orjson

from ..carried import Carried
from ..errors import FailureDetails
from ..failures import encode_failure, read_failure
from ..messages import ActivityCall, AnswerKind, Caller
from ..times import EPOCH, timestamp

#: What the code asked for.
DecisionKind = Literal[
    "TaskScheduled",
    "TimerCreated",
    "SubOrchestrationInstanceCreated",
    "EventSent",
    "EntityOperationSignaled",
    "EntityOperationCalled",
    "EntityLockRequested",
    "EntityLockReleased",
]
#: What a replay passes over: no code saw it.
SilentKind = Literal[
    "ExecutionSuspended", "ExecutionResumed", "ExecutionRewound", "ExecutionForked"
]
EventKind = (
    DecisionKind
    | AnswerKind
    | SilentKind
    | Literal[
        "ExecutionStarted",
        "EventRaised",
        "CancelRequested",
        "ExecutionTerminated",
        "ContinueAsNew",
        "ExecutionCompleted",
    ]
)

#: Where in an event its type is, its time, and the number of the task that it is about, if any.
KIND, AT, NUMBER = 0, 1, 2

#: Behind how many events a long search lets a loop breathe: a power of two, less one.
_BREATH = 255

#: The names of the fields, in the order that they are stored in. What may be missing stands last.
FIELDS: dict[EventKind, tuple[str, ...]] = {
    "ExecutionStarted": ("name", "version", "execution", "parent_instance_id", "context_vars"),
    "TaskScheduled": (
        "task_id",
        "name",
        "input_hash",
        "input",
        "timeout",
        "attempt",
        "tags",
        "first_task_id",
        "summary",
    ),
    "TaskCompleted": ("task_id", "result", "started", "shard"),
    "TaskFailed": ("task_id", "failure", "started", "shard"),
    "TimerCreated": ("task_id", "due", "clock_behind_us"),
    "TimerFired": ("task_id",),
    "SubOrchestrationInstanceCreated": (
        "task_id",
        "name",
        "input_hash",
        "instance_id",
        "version",
        "input",
    ),
    "SubOrchestrationInstanceCompleted": ("task_id", "result"),
    "SubOrchestrationInstanceFailed": ("task_id", "failure"),
    "EventRaised": ("name", "data"),
    "EventSent": ("task_id", "instance_id", "name", "data_hash", "data"),
    "EntityOperationSignaled": (
        "task_id",
        "entity_id",
        "operation",
        "input_hash",
        "due",
        "input",
    ),
    "EntityOperationCalled": ("task_id", "entity_id", "operation", "input_hash", "input"),
    "EntityOperationCompleted": ("task_id", "result"),
    "EntityOperationFailed": ("task_id", "failure"),
    "EntityLockRequested": ("task_id", "entity_ids"),
    "EntityLockGranted": ("task_id",),
    "EntityLockReleased": ("task_id",),
    "CancelRequested": ("reason",),
    "ExecutionSuspended": ("reason",),
    "ExecutionResumed": ("reason",),
    "ExecutionRewound": ("reason", "lock_task_id", "called_again"),
    "ExecutionForked": ("forked_from",),
    "ExecutionTerminated": ("reason",),
    "ContinueAsNew": (),
    "ExecutionCompleted": ("status",),
}

#: Events that a replay passes over: no code saw them.
SILENT: frozenset[SilentKind] = frozenset(
    {"ExecutionSuspended", "ExecutionResumed", "ExecutionRewound", "ExecutionForked"}
)

#: How many fields behind the time identify a decision.
IDENTITY: dict[DecisionKind, int] = {
    "TaskScheduled": 3,
    "TimerCreated": 2,
    "SubOrchestrationInstanceCreated": 4,
    "EventSent": 4,
    "EntityOperationSignaled": 5,
    "EntityOperationCalled": 4,
    "EntityLockRequested": 2,
    "EntityLockReleased": 1,
}

#: Where the hash of an input is in a decision, and where the input.
INPUTS: dict[DecisionKind, tuple[int, int]] = {
    "TaskScheduled": (4, 5),
    "SubOrchestrationInstanceCreated": (4, 7),
    "EventSent": (5, 6),
    "EntityOperationSignaled": (5, 7),
    "EntityOperationCalled": (5, 6),
}

#: Answers, and the decision each of them belongs to.
ANSWERS: dict[AnswerKind, DecisionKind] = {
    "TaskCompleted": "TaskScheduled",
    "TaskFailed": "TaskScheduled",
    "TimerFired": "TimerCreated",
    "SubOrchestrationInstanceCompleted": "SubOrchestrationInstanceCreated",
    "SubOrchestrationInstanceFailed": "SubOrchestrationInstanceCreated",
    "EntityOperationCompleted": "EntityOperationCalled",
    "EntityOperationFailed": "EntityOperationCalled",
    "EntityLockGranted": "EntityLockRequested",
}

FAILURES: frozenset[AnswerKind] = frozenset(
    {"TaskFailed", "SubOrchestrationInstanceFailed", "EntityOperationFailed"}
)


def parse_history(chunks: list[bytes]) -> list[list[Any]]:
    """Give the events of stored chunks (JSON arrays of events) as one list."""
    events: list[list[Any]] = []
    for chunk in chunks:
        events += orjson.loads(chunk)
    return events


def named_fields(event: list[Any]) -> dict[str, Any]:
    """Give the fields of an event by name: times as datetimes, failures as ``FailureDetails``.

    An input or data that was not given, or not recorded, is left out. Fields that this version
    does not know are under ``more``.
    """
    names, values = FIELDS.get(event[KIND], ()), event[2:]
    fields: dict[str, Any] = dict(zip(names, values, strict=False))
    more = [value for value in values[len(names) :] if value is not None]  # a grant has no content
    if more:
        fields["more"] = more
    for name in ("due", "started"):
        if type(fields.get(name)) is int:
            fields[name] = EPOCH + timedelta(microseconds=fields[name])
    if type(fields.get("failure")) is list:
        fields["failure"] = read_failure(fields["failure"])
    if event[KIND] == "TaskScheduled" and "input" in fields:
        packed = fields.pop("input")
        if packed:
            fields["input"] = packed[0]
    return fields


def stored_event(kind: str, at: datetime, named: Mapping[str, Any]) -> list[Any]:
    """Give an event as it is stored, from its fields by name: what ``named_fields`` gave of it.

    Raises:
        ValueError: there is no such kind of event, or no such field.
    """
    names = FIELDS.get(cast("EventKind", kind))
    if names is None:
        raise ValueError(f"there is no kind of event {kind!r}")
    fields: dict[str, Any] = {**named}
    more = fields.pop("more", [])
    unknown = ", ".join(map(repr, fields.keys() - set(names)))
    if unknown:
        raise ValueError(f"an event {kind} has no field {unknown}")
    if kind == "TaskScheduled":
        fields["input"] = [fields["input"]] if "input" in fields else []
    for name in ("due", "started"):
        if isinstance(fields.get(name), datetime):
            fields[name] = timestamp(fields[name])
    if isinstance(fields.get("failure"), FailureDetails):
        fields["failure"] = orjson.loads(encode_failure(fields["failure"]))
    count = max((place for place, name in enumerate(names, 1) if name in fields), default=0)
    return [kind, timestamp(at), *(fields.get(name) for name in names[:count]), *more]


def differs_by_input(recorded: list[Any], decision: Sequence[Any]) -> bool:
    """Whether a recorded decision is the other one but for the hash of its input."""
    kind = decision[KIND]
    if recorded[0] != kind or kind not in INPUTS:
        return False
    hash_at, end = INPUTS[kind][0], 2 + IDENTITY[kind]
    return (
        type(recorded[hash_at]) is int
        and recorded[2:hash_at] == [*decision[2:hash_at]]
        and recorded[hash_at + 1 : end] == [*decision[hash_at + 1 : end]]
    )


def recorded_input(recorded: list[Any]) -> list[Any] | None:
    """Give a decision's input in a list, which is empty if there was none; None if not known."""
    hash_at, input_at = INPUTS[recorded[0]]
    if recorded[0] == "TaskScheduled":
        packed: list[Any] = recorded[input_at]
        return packed
    if len(recorded) > input_at:
        return [recorded[input_at]]
    return None if recorded[hash_at] else []  # the hash of nothing is 0


def carried_by(events: list[list[Any]]) -> Carried | None:
    """Give the context variables that came along when an execution was started."""
    if not events or events[0][0] != "ExecutionStarted" or len(events[0]) < 7:
        return None
    carried: Carried = events[0][6]
    return carried


def open_activities(
    events: list[list[Any]], instance_id: str, execution: int
) -> list[ActivityCall]:
    """Find the activities that must be run (again) after a restart."""
    found = find_activities(events, instance_id, execution)
    return [call for call in found if call is not None]


def find_activities(
    events: list[list[Any]], instance_id: str, execution: int
) -> Generator[ActivityCall | None]:
    """Find the same one by one; gives None now and then, so that a loop can breathe."""
    found: dict[int, list[Any]] = {}
    carried = carried_by(events)
    for place, event in enumerate(events):
        if event[KIND] == "TaskScheduled":
            found[event[NUMBER]] = event
        elif event[KIND] in ("TaskCompleted", "TaskFailed"):
            found.pop(event[NUMBER], None)
        if not place & _BREATH:
            yield None
    for event in found.values():
        _, _, number, name, _, packed, timeout, attempt, tags, call, *_ = event
        yield ActivityCall(
            Caller(instance_id, execution, number),
            name,
            orjson.dumps(packed[0]) if packed else None,
            timeout,
            attempt,
            tags,
            call,
            carried,
        )


def open_children(events: list[list[Any]]) -> list[str]:
    """Find the instance ids of sub-orchestrations that have not ended."""
    found: dict[int, str] = {}
    for event in events:
        if event[KIND] == "SubOrchestrationInstanceCreated":
            found[event[NUMBER]] = event[5]
        elif ANSWERS.get(event[KIND]) == "SubOrchestrationInstanceCreated":
            found.pop(event[NUMBER], None)
    return list(found.values())


def open_lock(events: list[list[Any]]) -> tuple[int, list[str]] | None:
    """Find the lock that was requested and not released: its number and entities."""
    found: tuple[int, list[str]] | None = None
    for event in events:
        if event[KIND] == "EntityLockRequested":
            found = (event[NUMBER], event[3])
        elif event[KIND] == "EntityLockReleased":
            found = None
        elif (
            event[KIND] == "ExecutionRewound" and found and len(event) > 3 and event[3] is not None
        ):
            found = (event[3], found[1])
    return found


def describe(event: list[Any] | None) -> str:
    """Put an event into words for a report: its type and what identifies it."""
    if event is None:
        return "nothing"
    fields = event[2 : 2 + IDENTITY.get(event[KIND], 1)]
    return f"{event[KIND]}({', '.join(repr(field) for field in fields)})"
