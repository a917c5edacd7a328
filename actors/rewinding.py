"""Rewinding a failed execution: which of its history stands, and what has to be done again.

A history falls into segments: an incoming event, and the decisions that the code made when it
arrived. Failures are taken back with the decisions they led to, so the calls that failed are open
again while completed ones stay. Where the rest does not replay (the code had gone on differently
because of the failure), or holds what cannot be opened again (a call of an entity, a lock), the
history is cut before the segment in which the first such call was made, and that segment's event
is given to the code anew. What the code sent then, before that call, it is not to send once more,
so these decisions stay if the code makes them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from attrs import frozen

from .errors import FailureDetails, NondeterminismError, PayloadError, RewindError
from .failures import read_failure
from .history import ANSWERS, FAILURES, IDENTITY, open_activities
from .messages import Command
from .tasks import TimerTask

if TYPE_CHECKING:
    from .effects import Effects
    from .executor import Executor
    from .orchestration import OrchestrationActor

Events = list[list[Any]]

_REOPENED = frozenset({"TaskFailed", "SubOrchestrationInstanceFailed"})


def without_failures(events: Events, since: int = 0) -> Events | None:
    """Give the history without its failures, from an index on, and what followed from them.

    None if it holds what cannot be opened again: then it has to be cut.
    """
    kept: Events = [event for event in events[:since] if event[0] != "ExecutionCompleted"]
    removed: set[tuple[str, int]] = set()
    dropping = False
    for event in events[since:]:
        kind = event[0]
        if kind in IDENTITY:
            if dropping:
                removed.add((kind, event[2]))
            else:
                kept.append(event)
            continue
        answered = ANSWERS.get(kind)
        dropping = kind in FAILURES or (answered is not None and (answered, event[2]) in removed)
        if kind in FAILURES and kind not in _REOPENED and (answered, event[2]) not in removed:
            return None
        if not dropping and kind != "ExecutionCompleted":
            kept.append(event)
    return None if _unanswered_entities(kept) else kept


def cut(events: Events, since: int = 0, *, whole: bool = False) -> tuple[Events, Events]:
    """Give the history before the segment with the first failed call, and what stays of that.

    That is its event, and what was sent before the call unless it is cut ``whole``. Only calls
    count that failed from the index ``since`` on.
    """
    failed = {(ANSWERS[e[0]], e[2]) for e in events[since:] if e[0] in FAILURES}
    starts = _segment_starts(events)
    for at, event in enumerate(events):
        if event[0] in IDENTITY and (event[0], event[2]) in failed:
            start = starts[at]
            break
    else:
        # The code itself raised: what it saw last is given to it again.
        start = max(i for i, event in enumerate(events) if event[0] not in _ENDINGS)
        at = len(events)
    while True:
        end = start + 1
        while not whole and end < at and events[end][0] in _SENT:
            end += 1
        # What stays is known: it may be the answer to the last of these calls.
        lost = _unanswered_entities(events[:end])
        if not lost:
            return events[:start], events[start:end]
        at = lost[0]
        start = starts[at]


#: Decisions that nothing answers.
_SENT = frozenset({"EntityOperationSignaled", "EventSent", "EntityLockReleased"})

_ENDINGS = frozenset({"ExecutionCompleted", "ExecutionRewound", *IDENTITY})


def _segment_starts(events: Events) -> list[int]:
    starts: list[int] = []
    start = 0
    for index, event in enumerate(events):
        if event[0] not in IDENTITY:
            start = index
        starts.append(start)
    return starts


def _unanswered_entities(events: Events) -> list[int]:
    """Find entity calls without answer, and locks that are held or asked for, by position."""
    open_: dict[tuple[str, int], int] = {}
    for index, event in enumerate(events):
        kind = event[0]
        if kind in ("EntityOperationCalled", "EntityLockRequested"):
            open_[kind, event[2]] = index
        elif kind in ("EntityOperationCompleted", "EntityOperationFailed"):
            open_.pop(("EntityOperationCalled", event[2]), None)
        elif kind == "EntityLockReleased":
            open_.pop(("EntityLockRequested", event[2]), None)
    return sorted(open_.values())


@frozen
class Rewind:
    """Where a failed instance can go on.

    Attributes:
        executor: live code that has been taken through what is kept.
        kept: the part of the history that stands.
        again: an event to give to the code anew, if the history had to be cut, and behind it
            what the code had sent then.
    """

    executor: Executor
    kept: Events
    again: Events

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
    lost: list[str] = []
    for since in [0] if force else _starts(actor, events):
        kept = without_failures(events, since)
        if kept is not None and (force or not forgotten(events, kept)):
            executor = _try_replay(actor, kept)
            if executor is not None:
                return Rewind(executor, kept, [])
        kept, again = cut(events, since)
        if len(again) > 1 and not _repeats(actor, kept + again):
            kept, again = cut(events, since, whole=True)
        lost = [] if force else forgotten(events, kept + again)
        if not lost:
            executor = _try_replay(actor, kept)
            return None if executor is None else Rewind(executor, kept, again)
    actor.parked = actor.parked_type = None
    return RewindError(actor.instance_id, ", ".join(lost))


def _starts(actor: OrchestrationActor, events: Events) -> list[int]:
    """From where on failures may be taken back: each of them, or none if the code itself failed."""
    starts = [index for index, event in enumerate(events) if event[0] in FAILURES]
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
        "EntityOperationCompleted",
        "EntityOperationSignaled",
        "EventSent",
    }
)


def forgotten(events: Events, kept: Events) -> list[str]:
    """Name what was done and is not in the part of the history that is kept."""
    known = {id(event) for event in kept}
    made = {(event[0], event[2]): event for event in events if event[0] in IDENTITY}
    lost: list[str] = []
    for event in events:
        if event[0] in _DONE and id(event) not in known:
            decision = made.get((ANSWERS.get(event[0], event[0]), event[2]), event)
            lost.append(_in_words(decision))
    return lost


def _in_words(decision: list[Any]) -> str:
    kind, name = decision[0], decision[3]
    if kind == "TaskScheduled":
        return f"activity {name!r}"
    if kind == "SubOrchestrationInstanceCreated":
        return f"sub-orchestration {name!r} ({decision[5]})"
    if kind == "EventSent":
        return f"event {decision[4]!r} to {name}"
    verb = "signal" if kind == "EntityOperationSignaled" else "call"
    return f"{verb} {name}.{decision[4]}"


def _try_replay(actor: OrchestrationActor, events: Events) -> Executor | None:
    executor = actor.make_executor()
    actor.executor = None
    if executor is None:
        return None
    try:
        for _ in executor.replay(events, actor.make_context(executor), actor.input):
            pass
    except (NondeterminismError, PayloadError) as error:
        executor.close()
        actor.parked_type, actor.parked = type(error).__name__, str(error)
        return None
    actor.parked = actor.parked_type = None
    return executor


def _repeats(actor: OrchestrationActor, events: Events) -> bool:
    """Whether the code takes all these decisions, whatever it does then."""
    executor = actor.make_executor()
    actor.executor = None
    if executor is None:
        return False
    try:
        for _ in executor.replay(events, actor.make_context(executor), actor.input):
            pass
    except NondeterminismError as error:
        return error.position >= len(events)
    except PayloadError:
        return False
    finally:
        executor.close()
    return True


def rewind(actor: OrchestrationActor, reason: str, force: bool, now: int, effects: Effects) -> None:
    """Let a failed instance go on as ``prepare`` found, which has been asked just before."""
    actor.completed = None
    actor.failure = None
    actor.failure_type = None
    actor.status = "Running"
    actor.note(rewinds=actor.noted().get("rewinds", 0) + 1)
    plan, actor.rewinding = actor.rewinding, None
    assert not isinstance(plan, RewindError)
    if plan is None:
        actor.changed = True
        return
    actor.executor = plan.executor
    actor.rewritten = True
    actor.begun = bool(plan.kept)
    actor.seq = 0
    actor.events = [orjson.dumps(event) for event in plan.kept]
    actor.record(now, "ExecutionRewound", reason)
    _reopen(actor, plan.known, force, now, effects)
    if plan.again:
        _apply_again(actor, plan.again, now, effects)


def _apply_again(actor: OrchestrationActor, again: Events, now: int, effects: Effects) -> None:
    executor = actor.executor
    assert executor is not None
    event, *sent = again
    if event[0] == "ExecutionStarted" and not sent:
        actor.run_first(now, effects)
        return
    actor.begun = True
    actor.events.append(orjson.dumps([event[0], now, *event[2:]]))
    actor.events += map(orjson.dumps, sent)
    executor.resume(now, effects, actor.events)
    executor.repeat(sent)
    if event[0] == "ExecutionStarted":
        executor.start(actor.make_context(executor), actor.input)
    else:
        executor.apply(event)
    executor.check_repeated()
    actor.settle_turn(now, effects)


def _reopen(
    actor: OrchestrationActor, known: Events, force: bool, now: int, effects: Effects
) -> None:
    """Set out again what the known history leaves open: activities, children, timers."""
    executor = actor.executor
    assert executor is not None
    for call in open_activities(known, actor.instance_id, actor.execution):
        effects.start_activity(call)
    for number, task in list(executor.pending.items()):
        if isinstance(task, TimerTask):
            effects.arm_timer(executor.caller(number), task.due)
    for child in (executor.children or {}).values():
        # One that failed is rewound, one that has completed answers once more.
        effects.send(child, Command("rewind", "its parent was rewound", execution=1, force=force))
    actor.pending = len(executor.unanswered)
    actor.updated = now
    actor.changed = True
