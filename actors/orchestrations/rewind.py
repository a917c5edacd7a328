"""Rewinding a failed instance: it goes on where the plan says that it can.

A lock that the code holds in what stands was given back when the instance failed. It is asked for
again, under a number of its own (a grant for the old one may be on its way), and the calls of the
entities under it are sent when it is granted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import orjson

from ..effects import HELD
from ..errors import (
    NondeterminismError,
    PayloadError,
    PerdureError,
    RewindError,
    StoreDamagedError,
    UnknownNameError,
    UsageError,
)
from ..failures import failure_of, read_failure
from ..messages import Command, Completion, Event, LockRequest, read_run
from ..replay.execution import Outcome, let_go
from ..replay.executor import Executor
from ..replay.history import AT, KIND, NUMBER, open_activities, open_lock
from ..replay.locks import LOCK_AGAIN
from ..replay.tasks import TimerTask
from .rewind_plan import Events, Rewind, find_plan

if TYPE_CHECKING:
    from ..effects import Effects
    from .orchestration import OrchestrationActor


def prepare(actor: OrchestrationActor, events: Events, force: bool) -> Rewind | RewindError | None:
    """Find out, from the stored history, where a failed instance can go on.

    An error says that it would forget what was done. None, with the instance parked, if its code
    does not even match what comes before the failure.

    Raises:
        StoreDamagedError: why it failed cannot be read.
    """
    try:
        failure = None if actor.failure is None else read_failure(actor.failure)
    except (ValueError, TypeError, LookupError) as error:
        raise StoreDamagedError(f"its stored failure cannot be read ({error})") from error
    plan = find_plan(events, force, failure, partial(_try_replay, actor))
    if isinstance(plan, list):
        actor.parked = actor.parked_type = None
        return RewindError(actor.instance_id, ", ".join(plan))
    return plan


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
        let_go(executor)
        actor.parked_type, actor.parked = type(error).__name__, str(error)
        return None, error.position if isinstance(error, NondeterminismError) else len(events)
    actor.parked = actor.parked_type = None
    return executor, len(events)


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
    take_in_again(actor, plan.later, now, effects)


def _apply_again(actor: OrchestrationActor, again: Events, now: int, effects: Effects) -> None:
    executor = actor.executor
    assert isinstance(executor, Executor)
    event, *sent = again
    if event[KIND] == "ExecutionStarted" and not sent:
        actor.run_first(now, effects)
        actor.finish_now()
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
        for _ in executor.unfinished or ():
            pass
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
    following = plan.again[0] if plan.again else None
    for entity, message in executor.make_again(number, plan.calls, following):
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


def take_in_again(actor: OrchestrationActor, later: Events, now: int, effects: Effects) -> None:
    """Let come in what came in before, behind what the code has been taken through."""
    for event in later:
        if event[KIND] == "EventRaised" and actor.status == "Failed":
            actor.record(now, *event[:1], *event[2:])  # for the next rewind
            continue
        if event[KIND] == "EventRaised":
            message: Event | Completion = Event(event[2], orjson.dumps(event[3]))
        else:
            answer, ran = orjson.dumps(event[3]), read_run(event[4:])
            message = Completion(event[KIND], actor.execution, event[NUMBER], answer, ran)
        if actor.handle(message, now, effects) is HELD:
            message.keep = True
            actor.held = [*(actor.held or ()), message]
        actor.finish_now()
