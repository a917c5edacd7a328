"""Rewinding a failed execution: which of its history stands, and what has to be done again.

A history falls into segments: an incoming event, and the decisions that the code made when it
arrived. Failures are taken back with the decisions they led to, so the calls that failed are open
again while completed ones stay. Where the rest does not replay (the code had gone on differently
because of the failure), the history is cut before the segment in which the first call that failed
was made, and that segment's event is given to the code anew. What the code decided then, before
that call, is not to happen twice, so it stays as far as the code decides it again. What came
in later, the answers to calls that stand and external events, comes in once more behind that, and
so does what came in when the instance had failed already.

A lock that the code holds in what stands was given back when the instance failed. It is asked for
again, under a number of its own (a grant for the old one may be on its way), and the calls of the
entities under it are sent when it is granted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from attrs import frozen

from ..effects import HELD
from ..errors import (
    FailureDetails,
    NondeterminismError,
    PayloadError,
    PerdureError,
    RewindError,
    UnknownNameError,
    UsageError,
)
from ..failures import failure_of, read_failure
from ..messages import Command, Completion, Event, LockRequest
from ..replay.execution import Outcome
from ..replay.executor import GIVEN_UP, Executor
from ..replay.history import (
    ANSWERS,
    AT,
    FAILURES,
    IDENTITY,
    KIND,
    NUMBER,
    SILENT,
    open_activities,
    open_lock,
    recorded_input,
)
from ..replay.tasks import LOCK_AGAIN, TimerTask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ..effects import Effects
    from .orchestration import OrchestrationActor

Events = list[list[Any]]
Decision = tuple[str, int]

#: How often a history is replayed in search of what followed from its failures.
_TRIES_MAX = 20

_GIVEN_UP = orjson.loads(GIVEN_UP)


def _is_failure(event: list[Any]) -> bool:
    """Whether a call failed, and was not only given up by the code."""
    return event[KIND] in FAILURES and event[3] != _GIVEN_UP


def without_failures(
    events: Events, since: int = 0, undone: Iterable[Decision] = ()
) -> Events | None:
    """Give the history without its failures, from an index on, and what followed from them.

    None if it holds what cannot be opened again, a failed call of an entity from before inputs
    were recorded: then it has to be cut.

    Args:
        events: the history.
        since: the index.
        undone: decisions that followed from them as well, though not at once.
    """
    kept = events[:since]
    removed = set(undone)
    made = {event[NUMBER]: event for event in events if event[KIND] == "EntityOperationCalled"}
    dropping = False
    for event in events[since:]:
        kind = event[KIND]
        if kind in IDENTITY:
            if dropping or (kind, event[NUMBER]) in removed:
                removed.add((kind, event[NUMBER]))
            else:
                kept.append(event)
            continue
        failed = _is_failure(event)
        follows = kind in ANSWERS and (ANSWERS[kind], event[NUMBER]) in removed
        dropping = failed or follows
        if failed and not follows and kind == "EntityOperationFailed":
            call = made.get(event[NUMBER])
            if call is None or recorded_input(call) is None:
                return None
        if not dropping:
            kept.append(event)
    return kept


def cut(events: Events, refused: Collection[int], since: int = 0) -> tuple[Events, Events]:
    """Give the history before the segment with the first failed call, and what may stay of that.

    That is its event, and what was decided before the call. Only calls count that failed from the
    index ``since`` on; ``refused`` are the calls of entities that failed at all.
    """
    failed = {(ANSWERS[e[KIND]], e[NUMBER]) for e in events[since:] if _is_failure(e)}
    starts = _segment_starts(events)
    for at, event in enumerate(events):
        if event[KIND] in IDENTITY and (event[KIND], event[NUMBER]) in failed:
            start = starts[at]
            break
    else:
        # The code itself raised: what it saw last is given to it again.
        start = max(i for i, event in enumerate(events) if event[KIND] not in _NOT_SEEN)
        at = len(events)
    end = start + 1
    while end < at:
        kind, number = events[end][KIND], events[end][NUMBER]
        # These are made anew: a lock was given back, and a call that failed is called again.
        if kind == "EntityLockRequested" or (kind == "EntityOperationCalled" and number in refused):
            break
        end += 1
    return events[:start], events[start:end]


_NOT_SEEN = frozenset({*SILENT, *IDENTITY})


def _refused(events: Events) -> set[int]:
    return {event[NUMBER] for event in events if event[KIND] == "EntityOperationFailed"}


def _segment_starts(events: Events) -> list[int]:
    starts: list[int] = []
    start = 0
    for index, event in enumerate(events):
        if event[KIND] not in IDENTITY:
            start = index
        starts.append(start)
    return starts


#: What comes in once more if the history was cut before it.
_KEPT = frozenset(
    {"TaskCompleted", "SubOrchestrationInstanceCompleted", "EntityOperationCompleted"}
)


def _later(events: Events, known: Events) -> Events:
    """Give what came in behind the known part: answers to its calls, and external events."""
    seen = {id(event) for event in known}
    made = {(event[KIND], event[NUMBER]) for event in known if event[KIND] in IDENTITY}
    return [
        event
        for event in events
        if id(event) not in seen
        and (
            event[KIND] == "EventRaised"
            or (event[KIND] in _KEPT and (ANSWERS[event[KIND]], event[NUMBER]) in made)
        )
    ]


def _called_again(events: Events, known: Events) -> Events:
    """Find the calls of entities that are known, and failed in what is not."""
    seen = {id(event) for event in known}
    failed = {
        event[NUMBER]
        for event in events
        if event[KIND] == "EntityOperationFailed" and id(event) not in seen
    }
    return [
        event
        for event in known
        if event[KIND] == "EntityOperationCalled" and event[NUMBER] in failed
    ]


@frozen
class Rewind:
    """Where a failed instance can go on.

    Attributes:
        executor: live code that has been taken through what is kept.
        kept: the part of the history that stands.
        again: an event to give to the code anew, if the history had to be cut, and behind it
            what of its decisions then the code takes again.
        later: events that come in again, behind all of that.
        calls: the decisions, in what is kept, to call entities whose calls failed.
    """

    executor: Executor
    kept: Events
    again: Events
    later: Events
    calls: Events

    @property
    def known(self) -> Events:
        """What is known to have happened, the event to be given anew included."""
        return self.kept + self.again


def prepare(actor: OrchestrationActor, events: Events, force: bool) -> Rewind | RewindError | None:
    """Find out, from the stored history, where a failed instance can go on.

    As many of its failures are taken back as can be without forgetting what completed after them;
    an error says that not even the last can. With ``force`` all of them are. None, with the
    instance parked, if its code does not even match what comes before the failure.
    """
    end = next(
        (i for i, event in enumerate(events) if event[KIND] == "ExecutionCompleted"), len(events)
    )
    # What came in since it failed is not part of what the code did.
    lived, events = events[:end], events[:end] + events[end + 1 :]
    refused = _refused(events)
    lost: list[str] = []
    for since in [0] if force else _starts(actor, lived):
        plan = _take_back(actor, lived, since, events, force)
        if plan is not None:
            return plan
        kept, again = cut(lived, refused, since)
        if len(again) > 1:
            again = again[: _count_repeated(actor, kept, again)]
        lost = [] if force else forgotten(events, kept + again)
        if not lost:
            executor, _ = _try_replay(actor, kept)
            return None if executor is None else _plan(executor, kept, again, events)
    actor.parked = actor.parked_type = None
    return RewindError(actor.instance_id, ", ".join(lost))


def _take_back(
    actor: OrchestrationActor, lived: Events, since: int, events: Events, force: bool
) -> Rewind | None:
    """Find out whether the history replays without its failures from an index on.

    What followed from a failure may stand much later, where the code saw it: where the replay
    comes to decisions that the code does not take any more, these are taken back, too.
    """
    undone: set[Decision] = set()
    for _ in range(_TRIES_MAX):
        kept = without_failures(lived, since, undone)
        if kept is None or (not force and forgotten(events, kept)):
            return None
        executor, at = _try_replay(actor, kept)
        if executor is not None:
            return _plan(executor, kept, [], events)
        if not since <= at < len(kept) or kept[at][KIND] not in IDENTITY:
            return None
        while at < len(kept) and kept[at][KIND] in IDENTITY:
            undone.add((kept[at][KIND], kept[at][NUMBER]))
            at += 1
    return None


def _plan(executor: Executor, kept: Events, again: Events, events: Events) -> Rewind:
    known = kept + again
    open_calls = [e for e in _called_again(events, known) if e[NUMBER] in executor.pending]
    return Rewind(executor, kept, again, _later(events, known), open_calls)


def _starts(actor: OrchestrationActor, events: Events) -> list[int]:
    """From where on failures may be taken back: each of them, or none if the code itself failed."""
    starts = [index for index, event in enumerate(events) if _is_failure(event)]
    if actor.failure is None or not _is_of_a_call(read_failure(actor.failure)):
        starts.append(len(events))
    return starts


def _is_of_a_call(failure: FailureDetails) -> bool:
    inner = (*failure.members, *(() if failure.cause is None else (failure.cause,)))
    name = failure.error_type
    return name in _OF_CALLS or "FailedError" in failure.bases or any(map(_is_of_a_call, inner))


_OF_CALLS = frozenset({"ActivityError", "SubOrchestrationError", "EntityOperationError"})

#: What has an effect outside, once it is asked for or has completed.
_DONE = frozenset(
    {
        "TaskCompleted",
        "SubOrchestrationInstanceCompleted",
        "EntityOperationCalled",
        "EntityOperationSignaled",
        "EventSent",
    }
)


def forgotten(events: Events, kept: Events) -> list[str]:
    """Name what was done and is neither in what is kept of the history, nor comes in again."""
    known = {id(event) for event in kept + _later(events, kept)}
    made = {(event[KIND], event[NUMBER]): event for event in events if event[KIND] in IDENTITY}
    refused = _refused(events)
    lost: list[str] = []
    for event in events:
        if event[KIND] == "EntityOperationCalled" and event[NUMBER] in refused:
            continue
        if event[KIND] in _DONE and id(event) not in known:
            lost.append(_in_words(made.get(_decision_of(event), event)))
    return lost


def _decision_of(event: list[Any]) -> tuple[Any, int]:
    """Name the decision that an event is, or answers."""
    return ANSWERS.get(event[KIND], event[KIND]), event[NUMBER]


def _in_words(decision: list[Any]) -> str:
    kind, name = decision[KIND], decision[3]
    if kind == "TaskScheduled":
        return f"activity {name!r}"
    if kind == "SubOrchestrationInstanceCreated":
        return f"sub-orchestration {name!r} ({decision[5]})"
    if kind == "EventSent":
        return f"event {decision[4]!r} to {name}"
    verb = "signal" if kind == "EntityOperationSignaled" else "call"
    return f"{verb} {name}.{decision[4]}"


def _try_replay(actor: OrchestrationActor, events: Events) -> tuple[Executor | None, int]:
    """Take the code through a history; gives none, and how far it went, where that fails."""
    try:
        executor = actor.new_execution()
    except UnknownNameError as error:
        actor.park("UnknownNameError", str(error))
        return None, len(events)
    if not isinstance(executor, Executor):
        raise UsageError(
            f"{actor.instance_id!r} cannot be rewound: its code does not run in this process, "
            "where it could be taken through a changed history; restart the instance"
        )
    try:
        for _ in executor.replay(events, actor.input):
            pass
    except (NondeterminismError, PayloadError) as error:
        executor.close()
        actor.parked_type, actor.parked = type(error).__name__, str(error)
        return None, error.position if isinstance(error, NondeterminismError) else len(events)
    actor.parked = actor.parked_type = None
    return executor, len(events)


def _count_repeated(actor: OrchestrationActor, kept: Events, again: Events) -> int:
    """Count of an event, and the decisions behind it, what the code takes again; 1 or more."""
    executor, at = _try_replay(actor, kept + again)
    if executor is not None:
        executor.close()
    return min(max(at - len(kept), 1), len(again))


def rewind(actor: OrchestrationActor, reason: str, force: bool, now: int, effects: Effects) -> None:
    """Let a failed instance go on as ``prepare`` found, which has been asked just before."""
    actor.completed = None
    actor.failure = None
    actor.failure_type = None
    actor.status = "Running"
    actor.note(rewinds=actor.noted().get("rewinds", 0) + 1)
    plan, actor.rewinding = actor.rewinding, None
    assert not isinstance(plan, PerdureError)
    if plan is None:
        actor.changed = True
        return
    actor.executor = plan.executor
    actor.rewritten = True
    actor.begun = bool(plan.kept)
    actor.seq = 0
    actor.events = [orjson.dumps(event) for event in plan.kept]
    _reopen(actor, plan, reason, force, now, effects)
    if plan.again:
        _apply_again(actor, plan.again, now, effects)
        _reopen_decided(actor, plan, force, effects)
    _take_in(actor, plan.later, now, effects)


def _apply_again(actor: OrchestrationActor, again: Events, now: int, effects: Effects) -> None:
    executor = actor.executor
    assert isinstance(executor, Executor)
    event, *sent = again
    if event[KIND] == "ExecutionStarted" and not sent:
        actor.run_first(now, effects)
        return
    actor.begun = True
    # At its old time where there is something to repeat: what the code decides depends on that.
    seen = event[AT] if sent else now
    actor.events.append(orjson.dumps([event[KIND], seen, *event[2:]]))
    actor.events += map(orjson.dumps, sent)
    executor.begin_turn(seen, effects, actor.events)
    executor.repeat(sent)
    try:
        if event[KIND] == "ExecutionStarted":
            executor.start(actor.input)
        else:
            executor.apply_recorded(event)
        executor.check_repeated()
    except (NondeterminismError, PayloadError) as error:
        # It decides something else than just before, when it was asked where it can go on.
        actor.finish(Outcome("Failed", failure=failure_of(error)), now, effects)
        return
    actor.adopt(now, effects)


def _reopen(
    actor: OrchestrationActor, plan: Rewind, reason: str, force: bool, now: int, effects: Effects
) -> None:
    """Set out again what the history leaves open: the lock, calls, children, timers."""
    executor = plan.executor
    lock = executor.lock if open_lock(plan.known) is not None else None
    number = None if lock is None else lock.number + LOCK_AGAIN
    calls = [call[NUMBER] for call in plan.calls]
    actor.record(now, "ExecutionRewound", reason, *((number, calls) if lock or calls else ()))
    if lock is not None and number is not None:
        effects.send(lock.entities[0], LockRequest(executor.caller(number), lock.entities, 0))
    for entity, message in executor.make_again(number, plan.calls, plan.again):
        effects.send(entity, message)
    answered = {event[NUMBER] for event in plan.later if event[KIND] == "TaskCompleted"}
    for call in open_activities(plan.known, actor.instance_id, actor.execution):
        if call.caller.task not in answered:
            effects.start_activity(call)
    _reopen_tasks(executor, list(executor.pending), force, effects)
    actor.pending = len(executor.unanswered)
    actor.updated = now
    actor.changed = True


def _reopen_decided(actor: OrchestrationActor, plan: Rewind, force: bool, effects: Effects) -> None:
    """Do it for what the code has decided again just now."""
    if actor.executor is plan.executor and actor.is_live:
        numbers = [decision[NUMBER] for decision in plan.again[1:]]
        _reopen_tasks(plan.executor, numbers, force, effects)


def _reopen_tasks(executor: Executor, numbers: list[int], force: bool, effects: Effects) -> None:
    """Arm timers, and have children go on, by the numbers of their tasks."""
    children = executor.children or {}
    for number in numbers:
        task = executor.pending.get(number)
        if isinstance(task, TimerTask):
            effects.arm_timer(executor.caller(number), task.due)
        elif task is not None and number in children:
            # One that failed is rewound, one that ended otherwise answers once more.
            caller = executor.caller(number)
            again = Command("rewind", "its parent was rewound", True, 1, force, caller)
            effects.send(children[number], again)


def _take_in(actor: OrchestrationActor, later: Events, now: int, effects: Effects) -> None:
    """Let come in what came in before, behind what the code has been taken through."""
    for event in later:
        if event[KIND] == "EventRaised" and actor.status == "Failed":
            actor.record(now, *event[:1], *event[2:])  # for the next rewind
            continue
        if event[KIND] == "EventRaised":
            message: Event | Completion = Event(event[2], orjson.dumps(event[3]))
        else:
            message = Completion(
                event[KIND], actor.execution, event[NUMBER], orjson.dumps(event[3])
            )
        if actor.handle(message, now, effects) is HELD:
            message.keep = True
            actor.held = [*(actor.held or ()), message]
