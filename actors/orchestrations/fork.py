"""Forking: a new instance that begins with the first part of another's history, and goes on.

The code of the new one is taken through that part, as at a replay: what has completed by then is
not done again, and what was sent is not sent again. What is open there is begun anew, under the new
instance's id: activities, children and calls of entities; timers keep their time. What the code
makes of its id (the ids of children, random numbers, inputs) is its own, and stands in its history
in the place of what the other decided, so that each replay afterwards finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from attrs import frozen

from ..errors import (
    ForkError,
    NondeterminismError,
    PayloadError,
    PerdureError,
    UnknownNameError,
)
from ..messages import Start
from ..replay.execution import let_go
from ..replay.executor import GIVEN_UP, Executor
from ..replay.history import IDENTITY, KIND, NUMBER, carried_by
from ..replay.stored import read_history
from ..replay.tasks import TimerTask

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..effects import Effects
    from ..messages import Fork
    from .orchestration import OrchestrationActor

Events = list[list[Any]]

#: How many events, or tasks, are gone through in one step.
_SOME = 500

_ENDS = frozenset({"ExecutionCompleted", "ExecutionTerminated", "ContinueAsNew"})
_GIVEN_UP = orjson.loads(GIVEN_UP)


def write_up_to(events: Events, at: int, instance_id: str) -> Generator[None, None, list[bytes]]:
    """Write the history up to and including the event number ``at``, if a fork may begin with it.

    Pauses now and then.

    Returns:
        The events, as JSON arrays of some each.

    Raises:
        ForkError: there is no such event, it comes with the end or behind it, or it stands in the
            middle of what one turn decided.
    """
    if not events:
        raise ForkError(instance_id, at, "it has no history yet, since its code has not begun")
    if not 0 <= at < len(events):
        raise ForkError(instance_id, at, f"its history has the events 0 to {len(events) - 1}")
    written: list[bytes] = []
    for start in range(0, at + 1, _SOME):
        some = events[start : min(start + _SOME, at + 1)]
        end = next((place for place, event in enumerate(some, start) if event[KIND] in _ENDS), None)
        if end is not None:
            reason = f"it had ended by then; its last event before is {end - 1}"
            raise ForkError(instance_id, at, reason)
        written.append(orjson.dumps(some))
        yield
    if at + 1 < len(events) and _is_of_turn(events[at + 1]):
        first, last = at, at + 1
        while first and _is_of_turn(events[first]):
            first -= 1
        while last + 1 < len(events) and _is_of_turn(events[last + 1]):
            last += 1
        choice = f"{first - 1} or {last}" if first else f"{last}"
        raise ForkError(
            instance_id,
            at,
            f"one turn wrote the events {first} to {last}, which stand together: fork it at {choice}",
        )
    return written


def _is_of_turn(event: list[Any]) -> bool:
    """Whether an event was written by the turn that the one before it belongs to."""
    kind = event[KIND]
    return kind in IDENTITY or (kind == "TaskFailed" and event[3] == _GIVEN_UP)


@frozen
class Forked:
    """An instance that is to be one.

    Attributes:
        model: has what the new one begins with; thrown away afterwards.
        executor: its code, taken through the history.
        events: the history, with the decisions of its own.
        source: the id of the other.
    """

    model: OrchestrationActor
    executor: Executor
    events: Events
    source: str


def fork(actor: OrchestrationActor, message: Fork, now: int, effects: Effects) -> Generator[None]:
    """Let an instance be what is made for it of another's history, or say why not; pauses now and then."""
    forked = yield from make_fork(actor, message, now)
    if isinstance(forked, PerdureError):
        effects.refuse(message, forked)
        return
    if actor.status is not None or actor.purged:
        actor.make_room(effects)
    yield from _begin(actor, forked, now, effects)
    effects.reply(message, b"true")


def make_fork(
    actor: OrchestrationActor, message: Fork, now: int
) -> Generator[None, None, Forked | PerdureError]:
    """Take the code through the history, as the instance that it is to be; changes nothing.

    An error says that it cannot be. Pauses now and then.
    """
    model = type(actor)(actor.id, actor.instance_id, actor.lookup)
    try:
        events = yield from read_history(message.history, None)
        if not events or events[0][KIND] != "ExecutionStarted":
            raise ValueError("it does not begin with a start")
    except (ValueError, TypeError) as error:
        return ForkError(message.source, message.at, f"its history is damaged: {error}")
    model.name, model.version, model.input = message.name, message.version, message.input
    model.tags = message.tags
    model.execution = actor.execution + 1
    model.created = now
    model.carried = carried_by(events)
    if model.lookup.tracer is not None:
        model.carried = model.lookup.tracer.begin_trace(model.start_facts())
    events[0] = orjson.loads(model.started(events[0][1]))
    try:
        executor = model.new_execution()
    except UnknownNameError as error:
        return ForkError(message.source, message.at, str(error))
    if not isinstance(executor, Executor):
        reason = "its code does not run in this process; restart the instance"
        return ForkError(message.source, message.at, reason)
    is_whole = False
    try:
        refused = yield from _replay(executor, events, model.input)
        is_whole = True
    finally:
        if not is_whole:  # nor has the instance its code, which it could let go
            let_go(executor)
    if refused is not None:
        yield from executor.close() or ()
        yield from _free(events)
        return ForkError(message.source, message.at, refused)
    return Forked(model, executor, events, message.source)


def _replay(
    executor: Executor, events: Events, input: bytes | None
) -> Generator[None, None, str | None]:
    """Take code through a history; gives why that cannot be done, or a fork not begin there."""
    try:
        yield from executor.replay_copied(events, input)
    except (NondeterminismError, PayloadError) as error:
        if executor.outcome is not None:
            return "its code ends by what has come in by then; fork it at an earlier event"
        return f"its code of today does not do the same under another id: {error}"
    except (ValueError, TypeError, LookupError) as error:
        return f"its history is damaged: {error}"
    lock = executor.lock
    if lock is not None:
        entities = ", ".join(lock.entities)
        return f"it locks {entities} there, or waits for that; fork it before or behind that"
    return None


def _begin(
    actor: OrchestrationActor, forked: Forked, now: int, effects: Effects
) -> Generator[None]:
    model, executor, events = forked.model, forked.executor, forked.events
    actor.name, actor.version, actor.input = model.name, model.version, model.input
    actor.tags, actor.carried, actor.execution = model.tags, model.carried, model.execution
    actor.parent = actor.start_at = None
    actor.created = now
    actor.status = "Running"
    actor.begun = actor.fresh = True
    actor.executor = executor
    for start in range(0, len(events), _SOME):
        actor.events += map(orjson.dumps, events[start : start + _SOME])
        effects.unload(actor.instance_id)
        yield
    actor.record(now, "ExecutionForked", forked.source)
    executor.begin_turn(now, effects, actor.events)
    yield from _open(executor, events, effects)
    executor.begin_turn(now, effects, actor.events)
    actor.adopt(now, effects)
    yield from _free(events)


def _free(events: Events) -> Generator[None]:
    # What is in very many of them takes long.
    while events:
        del events[-_SOME:]
        yield


def _open(executor: Executor, events: Events, effects: Effects) -> Generator[None]:
    """Begin anew what the history leaves open."""
    for place, call in enumerate(executor.unanswered.values(), 1):
        effects.start_activity(call)
        if not place % _SOME:
            yield
    for place, (number, task) in enumerate(executor.pending.items(), 1):
        if isinstance(task, TimerTask):
            effects.arm_timer(executor.caller(number), task.due)
        if not place % _SOME:
            yield
    for start in range(0, len(events), _SOME):
        is_open = [
            event
            for event in events[start : start + _SOME]
            if event[KIND] in IDENTITY and event[NUMBER] in executor.pending
        ]
        calls = [event for event in is_open if event[KIND] == "EntityOperationCalled"]
        for entity, message in executor.make_again(None, calls, None):
            effects.send(entity, message)
        for event in is_open:
            if event[KIND] == "SubOrchestrationInstanceCreated":
                _begin_child(executor, event, effects)
        yield


def _begin_child(executor: Executor, decision: list[Any], effects: Effects) -> None:
    _, _, number, name, _, child, version, *data = decision
    input = orjson.dumps(data[0]) if data else None
    start = Start(name, version, input, parent=executor.caller(number))
    start.carried = executor.carried
    effects.send(child, start)
