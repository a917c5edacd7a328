"""What a client of another process may ask of a partition: the shape of it is checked here.

Our own client checks what it is given, by the application, before it sends it; but whoever may
open the socket may send anything. What passes here makes no sense at the worst, and is then
refused or kept by the actor it is for; it cannot hurt another one, or the partition. Each check is
that of a verb (``verbs``), takes its arguments, and raises ``UsageError`` for what is none of a client's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from ...actors.entities.stripes import split_key
from ...actors.errors import PayloadTooLargeError, UsageError
from ...actors.ids import EntityId, check_instance_id, check_text, is_entity, split_entity
from ...actors.messages import Command, Event, Fork, Message, Operation, Start
from ...actors.orchestrations.commands import COMMANDS
from ...actors.payloads import check_size
from ...storage import is_time
from ..placement.claims import id_of
from ..placement.hashing import partition_of
from ..placement.places import MovedError

_ENTITY_COMMANDS = frozenset(("fold", "purge", "retry"))
NEWS_MAX = 10_000
"""How many changed instances are told of at a time."""

#: How many steps of a trace are given at a time.
TRACE_MAX = 1_000
_ON_EXISTING = frozenset(("reject", "reuse", "replace"))


class Limits(NamedTuple):
    """What the requests of clients are measured by."""

    partitions: int
    payload_max: int


def admit(limits: Limits, partition: int, *arguments: Any) -> None:
    """Take what reads only, or can be wrong for its caller alone."""


def check_request(limits: Limits, partition: int, key: Any, message: Message, request: Any) -> None:
    """Check a message to an actor, with a request id or none."""
    _check(limits, partition, key, message)
    _check_optional(request, str, "a request id")


def check_request_new(limits: Limits, partition: int, key: Any, message: Message) -> None:
    """Check the first message of an orchestration."""
    _check(limits, partition, key, message)
    if type(message) is not Start:
        raise UsageError("a client may begin an instance only with a start")


def check_request_all(limits: Limits, partition: int, parcels: list[tuple[Any, Message]]) -> None:
    """Check messages to some actors."""
    for key, message in parcels:
        _check(limits, partition, key, message)


def check_request_later(
    limits: Limits, partition: int, key: Any, message: Message, due: Any, request: Any
) -> None:
    """Check a message for later."""
    _check(limits, partition, key, message)
    _check_time(due, "a due time")
    _check_optional(request, str, "a request id")


def check_claim(limits: Limits, partition: int, request: Any, claim: Any) -> None:
    """Check a claim on a request id."""
    check_text(request, "a request id")
    _check_type(claim, str, "a claim")
    if id_of(claim) != request or claim == request:
        raise UsageError("a client's claim is not of the request id that it names")


def check_news(limits: Limits, partition: int, after: Any, most: Any) -> None:
    """Check behind which checkpoint news are asked for, and how many."""
    _check_optional(after, int, "the number of a checkpoint")
    if type(most) is not int or not 0 < most <= NEWS_MAX:
        raise UsageError(f"a client may ask for 1 to {NEWS_MAX:,} news")


def check_wait_for_end(limits: Limits, partition: int, key: Any) -> None:
    """Check whose end is waited for."""
    check_instance_id(key)


def check_explain(limits: Limits, partition: int, key: Any) -> None:
    """Check whose waiting is to be explained."""
    _check_key(limits, partition, key)


def check_trace(limits: Limits, partition: int, key: Any, after: Any, limit: Any) -> None:
    """Check whose steps are asked for, and which."""
    check_instance_id(key)
    _check_type(after, int, "a step's number")
    _check_type(limit, int, "a number of steps")
    if after < 0 or not 0 < limit <= TRACE_MAX:
        raise UsageError(f"{limit} steps behind step {after} are no page of a trace")


def check_unlock(limits: Limits, partition: int, key: Any, owner: Any) -> None:
    """Check an entity, and who had locked it."""
    _check_key(limits, partition, key)
    _check_type(owner, list, "an owner of a lock")
    if len(owner) != 3:
        raise UsageError("a client named no owner of a lock")
    instance_id, execution, task = owner
    check_instance_id(instance_id)
    _check_type(execution, int, "an execution")
    _check_type(task, int, "a task")


def _check(limits: Limits, partition: int, key: Any, message: Message) -> None:
    _check_key(limits, partition, key)
    for_entity = is_entity(key)
    kind = type(message)
    message.request = None  # the partition sets it, from what is asked
    if message.size > limits.payload_max:
        _check_large(limits, key, message)
    if message.carried is not None:
        for value in message.carried.values():
            _check_type(value, str, "a context variable that goes along")
        check_size(orjson.dumps(message.carried), limits.payload_max, f"what goes along to {key}")
    if kind is Operation and for_entity:
        assert isinstance(message, Operation)
        check_text(message.name, "an operation's name")
        _check_type(message.call, bool, "whether an operation is a call")
        if message.caller is None:
            return
    elif kind is Event and not for_entity:
        assert isinstance(message, Event)
        check_text(message.name, "an event's name")
        return
    elif kind is Start and not for_entity:
        assert isinstance(message, Start)
        check_text(message.name, "an orchestration's name")
        _check_optional(message.version, str, "a version")
        if message.start_at is not None:
            _check_time(message.start_at, "a start time")
        if message.tags is not None:
            _check_tags(orjson.loads(message.tags))
        if message.parent is None and message.on_existing in _ON_EXISTING:
            return
    elif kind is Fork and not for_entity:
        assert isinstance(message, Fork)
        check_text(message.name, "an orchestration's name")
        _check_optional(message.version, str, "a version")
        check_instance_id(message.source)
        _check_type(message.at, int, "the number of an event")
        if message.tags is not None:
            _check_tags(orjson.loads(message.tags))
        return
    elif kind is Command:
        assert isinstance(message, Command)
        _check_type(message.reason, str, "a reason")
        _check_type(message.recursive, bool, "whether a command is recursive")
        _check_type(message.execution, int, "an execution")
        if message.action in (_ENTITY_COMMANDS if for_entity else COMMANDS):
            return
    raise UsageError(f"a client may not send {key} such a {kind.__name__}")


def _check_large(limits: Limits, key: str, message: Message) -> None:
    # Of a fork the input counts alone: its history has been the hub's.
    size = len(message.input or b"") if isinstance(message, Fork) else message.size
    if size > limits.payload_max:
        raise PayloadTooLargeError(f"what a client sent {key}", size, limits.payload_max)


def _check_key(limits: Limits, partition: int, key: Any) -> None:
    if isinstance(key, str) and key and is_entity(key):
        name, rest = split_entity(key)
        home, _ = split_key(rest)
        EntityId(name, home)
    else:
        check_instance_id(key)
    if partition_of(key, limits.partitions) != partition:
        raise MovedError(f"{key} is not of partition {partition}")


def _check_time(value: Any, what: str) -> None:
    _check_type(value, int, what)
    if not is_time(value):
        raise UsageError(f"{what} of {value} is none")


def _check_tags(tags: Any) -> None:
    _check_type(tags, dict, "a client's tags")
    for name, value in tags.items():
        _check_type(name, str, "a tag's name")
        _check_type(value, str, "a tag")


def _check_type(value: Any, kind: type, what: str) -> None:
    if type(value) is not kind:
        raise UsageError(f"{what} must be of type {kind.__name__}, not {type(value).__name__}")


def _check_optional(value: Any, kind: type, what: str) -> None:
    if value is not None:
        _check_type(value, kind, what)
