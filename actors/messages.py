"""What actors are sent: one class for each kind of message, and their durable form.

A message carries, besides its content, how it stands with durability; the partition that
holds it keeps these up to date:

* ``row``: its number in the store's mailbox, 0 while it is not there.
* ``timer``: the number of the stored timer that it came from, 0 if it came from none.
* ``keep``: whether it must be stored if a checkpoint finds it unconsumed. True for what
  another actor sent: the sender's checkpoint says that it was sent. False for what would be
  made again (an activity's answer) or was not acknowledged yet (a client's request).
* ``reply``: who waits for the outcome, in this process.
* ``request``: the client's request id, if it gave one.
* ``carried``: the context variables that go along, if there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import orjson

from .carried import Carried
from .errors import InternalError
from .payloads import compact

#: What a command has done to an actor.
Action = Literal[
    "terminate", "cancel", "suspend", "resume", "rewind", "retry", "purge", "fold", "park"
]
#: The history events that answers become.
AnswerKind = Literal[
    "TaskCompleted",
    "TaskFailed",
    "TimerFired",
    "SubOrchestrationInstanceCompleted",
    "SubOrchestrationInstanceFailed",
    "EntityOperationCompleted",
    "EntityOperationFailed",
    "EntityLockGranted",
]
#: What becomes of a start whose id a live instance has.
OnExisting = Literal["reject", "reuse", "replace"]


class Caller(NamedTuple):
    """The orchestration call that waits for an answer: instance, execution, task number."""

    instance_id: str
    execution: int
    task: int


class ActivityCall(NamedTuple):
    """An activity to run: who waits for it, what, with which input, how, and the attempt.

    ``call`` is the task number of the first attempt, the same for all attempts of one call.
    """

    caller: Caller
    name: str
    input: bytes | None
    timeout: float | None  # seconds
    attempt: int
    tags: Mapping[str, str] | None
    call: int
    carried: Carried | None = None


def encode_call(call: ActivityCall) -> bytes:
    """Give an activity's call as one JSON text."""
    fields = [[*call.caller], call.name, _pack(call.input), *call[3:]]
    return compact(orjson.dumps(fields))


def decode_call(body: bytes) -> ActivityCall:
    """Read the durable form of an activity's call back."""
    caller, name, input, *rest = orjson.loads(body)
    return ActivityCall(Caller(*caller), name, _unpack(input), *rest)


class Message:
    """One envelope to one actor.

    Attributes:
        row: its number among the stored ones; 0 where it is not.
        timer: the number of the stored timer that sent it, or 0.
        keep: whether it has to be stored where it waits at a checkpoint.
        reply: who waits for what comes of it.
        request: the id under which a client may repeat it.
        carried: the context variables that go along with it, if there are any.
        size: bytes of the payload that it brings.
        target: the actor's key; set where a client sent it, and only there.
    """

    __slots__ = ("carried", "keep", "reply", "request", "row", "size", "target", "timer")

    target: str

    def __init__(self) -> None:
        self.carried: Carried | None = None
        self.row = 0
        self.timer = 0
        self.keep = False
        self.reply: Any = None
        self.request: str | None = None
        self.size = 0

    @property
    def is_unanswered(self) -> bool:
        """Whether it is a client's that may still be refused: one that was stored is taken."""
        return self.reply is not None and not self.row and not self.keep

    def content(self) -> list[Any]:
        """Give the tag and the fields of the durable form, with payloads as JSON fragments."""
        raise NotImplementedError

    def fields(self) -> list[Any]:
        """Give the durable form."""
        if self.carried is None:
            return [*self.content(), self.request]
        return [*self.content(), self.request, self.carried]


def _pack(data: bytes | None) -> list[orjson.Fragment]:
    """Wrap an optional payload, so that an absent one and JSON null stay different."""
    return [] if data is None else [orjson.Fragment(data)]


def _plain(caller: Caller | None) -> list[Any] | None:
    # orjson takes lists and tuples, but no named tuples.
    return None if caller is None else [*caller]


def _unpack(packed: list[Any]) -> bytes | None:
    return compact(orjson.dumps(packed[0])) if packed else None


class Operation(Message):
    """An operation for an entity: a call (somebody wants the result) or a signal.

    ``begun`` is set by whoever runs it, if anything traces.
    """

    __slots__ = ("begun", "call", "caller", "input", "name")

    begun: Any

    def __init__(
        self, name: str, input: bytes | None, call: bool = False, caller: Caller | None = None
    ) -> None:
        self.carried = None
        self.row = 0
        self.timer = 0
        self.keep = False
        self.reply = None
        self.request = None
        self.name = name
        self.input = input
        self.call = call
        self.caller = caller
        self.size = 0 if input is None else len(input)

    def content(self) -> list[Any]:
        return ["operation", self.name, _pack(self.input), self.call, _plain(self.caller)]


class LockRequest(Message):
    """A lock that travels along sorted entities; the last of them tells the orchestration."""

    __slots__ = ("entities", "owner", "position")

    def __init__(self, owner: Caller, entities: list[str], position: int) -> None:
        super().__init__()
        self.owner = owner
        self.entities = entities
        self.position = position

    def content(self) -> list[Any]:
        return ["lock", _plain(self.owner), self.entities, self.position]


class LockRelease(Message):
    """The end of a lock. With a position it travels behind a request that may be on its way."""

    __slots__ = ("entities", "owner", "position")

    def __init__(self, owner: Caller, entities: list[str], position: int) -> None:
        super().__init__()
        self.owner = owner
        # One that does not travel needs none of the others, and each of many would carry them all.
        self.entities = entities if position >= 0 else []
        self.position = position

    def content(self) -> list[Any]:
        return ["unlock", _plain(self.owner), self.entities, self.position]


class Start(Message):
    """Begin an orchestration instance."""

    __slots__ = ("input", "name", "on_existing", "parent", "start_at", "tags", "version")

    def __init__(
        self,
        name: str,
        version: str | None,
        input: bytes | None,
        *,
        parent: Caller | None = None,
        tags: bytes | None = None,
        start_at: int | None = None,
        on_existing: OnExisting = "reject",
    ) -> None:
        self.carried = None
        self.row = 0
        self.timer = 0
        self.keep = False
        self.reply = None
        self.request = None
        self.name = name
        self.version = version
        self.input = input
        self.parent = parent
        self.tags = tags
        self.start_at = start_at
        self.on_existing: OnExisting = on_existing
        self.size = 0 if input is None else len(input)

    def content(self) -> list[Any]:
        return [
            "start",
            self.name,
            self.version,
            _pack(self.input),
            _plain(self.parent),
            _pack(self.tags),
            self.start_at,
            self.on_existing,
        ]


class Fork(Start):
    """Begin an orchestration instance with the first part of another's history.

    Attributes:
        source: the other's id.
        at: the number of the last event that it begins with.
        history: the events up to that, as JSON arrays of some each.
    """

    __slots__ = ("at", "history", "source")

    def __init__(
        self,
        name: str,
        version: str | None,
        input: bytes | None,
        source: str,
        at: int,
        history: list[bytes],
        *,
        tags: bytes | None = None,
    ) -> None:
        super().__init__(name, version, input, tags=tags)
        self.source = source
        self.at = at
        self.history = history
        self.size += sum(map(len, history))

    def content(self) -> list[Any]:
        return [
            "fork",
            self.name,
            self.version,
            _pack(self.input),
            self.source,
            self.at,
            [orjson.Fragment(b"[%b]" % b",".join(some[1:-1] for some in self.history if some[2:]))],
            _pack(self.tags),
        ]


class Fold(Message):
    """The home of a striped entity asks a stripe for its state, or (``purge``) to drop it.

    ``number`` is that of the round.
    """

    __slots__ = ("number", "purge")

    def __init__(self, number: int, purge: bool) -> None:
        super().__init__()
        self.number = number
        self.purge = purge

    def content(self) -> list[Any]:
        return ["fold", self.number, self.purge]


class Folded(Message):
    """A stripe's state on its way home; the stripe has it no more.

    Attributes:
        stripe: the stripe's number.
        number: that of the round in which it was asked, 0 if it was not asked.
        state: its state, if it had any.
        failures: its failed signals: how many, and the last of them.
        trouble: why it could not give its state: the kind of trouble, and the reason.
    """

    __slots__ = ("failures", "number", "state", "stripe", "trouble")

    def __init__(
        self,
        stripe: int,
        number: int,
        state: bytes | None,
        failures: tuple[int, list[Any]] | None = None,
        trouble: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.stripe = stripe
        self.number = number
        self.state = state
        self.failures = failures
        self.trouble = trouble
        self.size = len(state or b"")

    def content(self) -> list[Any]:
        return [
            "folded",
            self.stripe,
            self.number,
            _pack(self.state),
            self.failures,
            self.trouble,
        ]


class Begin(Message):
    """The start time of a scheduled instance, or a continued execution, has come."""

    __slots__ = ("execution",)

    task = 0  # as a timer, it belongs to no task

    def __init__(self, execution: int, carried: Carried | None = None) -> None:
        super().__init__()
        self.execution = execution
        self.carried = carried

    def content(self) -> list[Any]:
        return ["begin", self.execution]


#: When an attempt of an activity began (microseconds; None for one that ran in one go, and ended as
#: soon as it began), and the number of the shard that it ran on.
Run = tuple[int | None, int]


class Completion(Message):
    """The answer to a task of an orchestration: ``event`` is the history event it becomes.

    Attributes:
        ran: of an activity that began, when and where.
    """

    __slots__ = ("body", "event", "execution", "ran", "task")

    def __init__(
        self, event: AnswerKind, execution: int, task: int, body: bytes, ran: Run | None = None
    ) -> None:
        self.carried = None
        self.row = 0
        self.timer = 0
        self.keep = False
        self.reply = None
        self.request = None
        self.event: AnswerKind = event
        self.execution = execution
        self.task = task
        self.body = body
        self.ran = ran
        self.size = len(body)

    def content(self) -> list[Any]:
        answer = orjson.Fragment(self.body)
        return ["completion", self.event, self.execution, self.task, answer, *(self.ran or ())]


class TimerDue(Message):
    """A durable timer of an orchestration has come due."""

    __slots__ = ("execution", "task")

    def __init__(self, execution: int, task: int) -> None:
        super().__init__()
        self.execution = execution
        self.task = task

    def content(self) -> list[Any]:
        return ["timer", self.execution, self.task]


class Event(Message):
    """An external event for an orchestration."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__()
        self.name = name
        self.data = data
        self.size = len(data)

    def content(self) -> list[Any]:
        return ["event", self.name, orjson.Fragment(self.data)]


class Command(Message):
    """A lifecycle command: terminate, cancel, suspend, resume, rewind, retry, purge, fold or park.

    ``execution`` is the one it is meant for, 0 for whichever runs. ``loaded`` says that the actor
    was loaded anew for it. ``force`` says that a rewind may forget what has completed, ``parent``
    who is rewound itself and waits for the answer.
    """

    __slots__ = ("action", "execution", "force", "loaded", "parent", "reason", "recursive")

    def __init__(
        self,
        action: Action,
        reason: str = "",
        recursive: bool = True,
        execution: int = 0,
        force: bool = False,
        parent: Caller | None = None,
    ) -> None:
        super().__init__()
        self.action: Action = action
        self.reason = reason
        self.recursive = recursive
        self.execution = execution
        self.force = force
        self.parent = parent
        self.loaded = False

    def content(self) -> list[Any]:
        fields = ["command", self.action, self.reason, self.recursive, self.execution]
        if self.parent is not None:
            return [*fields, self.force, _plain(self.parent)]
        return [*fields, True] if self.force else fields


class Backlog(Message):
    """Stands in a mailbox for messages that lie in the store alone, in their order.

    They are those of the actor with the numbers from ``row`` to ``last``, without ``others``. It
    is never stored itself, and never consumed: what it stands for takes its place, some at a time.

    Attributes:
        last: the number of the last of them.
        count: how many they are.
        locks: how many of them ask for the lock.
        others: numbers in between of messages that have a place of their own.
        refusal: why they are refused when their turn comes; None where they are taken.
    """

    __slots__ = ("count", "last", "locks", "others", "refusal")

    def __init__(self, first: int, last: int, count: int, others: set[int]) -> None:
        super().__init__()
        self.row = first
        self.last = last
        self.count = count
        self.locks = 0
        self.others = others
        self.refusal: str | None = None


def encode_message(message: Message) -> bytes:
    """Give the message as one JSON text."""
    return compact(orjson.dumps(message.fields()))


def request_of(fields: list[Any]) -> Any:
    """Give the request id in the durable form of a message."""
    return fields[-2 if type(fields[-1]) is dict else -1]


def decode_message(fields: list[Any]) -> Message:
    """Read the durable form of a message back, from the parsed JSON text."""
    carried: Carried | None = None
    if type(fields[-1]) is dict:  # a request id is a text or None
        *fields, carried = fields
    tag, *content, request = fields
    read = _READERS.get(tag)
    if read is None:
        raise InternalError(f"a stored message has the unknown tag {tag!r}")
    message = read(*content)
    message.request = request
    message.carried = carried
    return message


def read_parcels(rows: list[list[Any]]) -> list[tuple[str, Message]]:
    """Read messages back that each have their target in front."""
    parcels: list[tuple[str, Message]] = []
    for fields in rows:
        message: Message
        if (
            fields[1] == "operation" and len(fields) == 7
        ):  # what entities send each other is nearly always that
            key, _, name, packed, call, caller, request = fields
            input = compact(orjson.dumps(packed[0])) if packed else None
            message = Operation(name, input, call, None if caller is None else Caller(*caller))
            message.request = request
        else:
            key = fields[0]
            message = decode_message(fields[1:])
        parcels.append((key, message))
    return parcels


def _caller(fields: list[Any] | None) -> Caller | None:
    return None if fields is None else Caller(*fields)


def _read_start(
    name: str,
    version: str | None,
    input: list[Any],
    parent: list[Any] | None,
    tags: list[Any],
    start_at: int | None,
    on_existing: OnExisting,
) -> Start:
    return Start(
        name,
        version,
        _unpack(input),
        parent=_caller(parent),
        tags=_unpack(tags),
        start_at=start_at,
        on_existing=on_existing,
    )


def _read_fork(
    name: str,
    version: str | None,
    input: list[Any],
    source: str,
    at: int,
    history: list[Any],
    tags: list[Any],
) -> Fork:
    begins_with = [_unpack(history) or b"[]"]
    return Fork(name, version, _unpack(input), source, at, begins_with, tags=_unpack(tags))


def _read_operation(name: str, input: list[Any], call: bool, caller: list[Any] | None) -> Operation:
    return Operation(name, _unpack(input), call, _caller(caller))


def _read_lock(owner: list[Any], entities: list[str], position: int) -> LockRequest:
    return LockRequest(Caller(*owner), entities, position)


def _read_unlock(owner: list[Any], entities: list[str], position: int) -> LockRelease:
    return LockRelease(Caller(*owner), entities, position)


def _read_folded(
    stripe: int,
    number: int,
    state: list[Any],
    failures: list[Any] | None,
    trouble: list[str] | None,
) -> Folded:
    return Folded(
        stripe,
        number,
        _unpack(state),
        None if failures is None else (failures[0], failures[1]),
        None if trouble is None else (trouble[0], trouble[1]),
    )


def _read_completion(
    event: AnswerKind, execution: int, task: int, body: Any, *ran: Any
) -> Completion:
    return Completion(event, execution, task, compact(orjson.dumps(body)), read_run(ran))


def read_run(fields: Sequence[Any]) -> Run | None:
    """Read when and where an attempt ran, if that is known."""
    started, shard = fields[:2] if len(fields) > 1 else (None, None)
    if type(shard) is not int or not (started is None or type(started) is int):
        return None
    return started, shard


def _read_event(name: str, data: Any) -> Event:
    return Event(name, compact(orjson.dumps(data)))


def _read_command(
    action: Action,
    reason: str,
    recursive: bool,
    execution: int,
    force: bool = False,
    parent: list[Any] | None = None,
) -> Command:
    return Command(action, reason, recursive, execution, force, _caller(parent))


_READERS: dict[str, Callable[..., Message]] = {
    "operation": _read_operation,
    "lock": _read_lock,
    "unlock": _read_unlock,
    "fold": Fold,
    "folded": _read_folded,
    "start": _read_start,
    "fork": _read_fork,
    "begin": Begin,
    "completion": _read_completion,
    "timer": TimerDue,
    "event": _read_event,
    "command": _read_command,
}
