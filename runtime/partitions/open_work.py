"""What an instance has open, each thing as it is told of: its tasks, told by their decisions."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any

from ...actors.ids import EntityId, split_entity
from ...actors.messages import ActivityCall, Caller
from ...actors.replay.history import AT, KIND, NUMBER
from ...actors.replay.locks import LOCK_AGAIN
from ...actors.replay.waits import PAUSE, Branch, OpenTask, Wait, decisions_of, unanswered
from ...actors.times import to_datetime
from ...storage.slices import let_go
from ..explanations import (
    PendingActivity,
    PendingChild,
    PendingEntityCall,
    PendingTimer,
    Waited,
    WaitingBranch,
)
from .calls import Run
from .sources import source_lines

#: How much of each kind is listed; all of it is counted.
LISTED_MAX = 500


class OpenWork:
    """Gathers what an instance has open.

    Args:
        find: says where an activity is that has not answered.
    """

    def __init__(self, find: Callable[[Caller], Run]) -> None:
        self._find = find
        self._decisions: dict[int, list[Any]] = {}
        self.activities: list[PendingActivity] = []
        self.timers: list[PendingTimer] = []
        self.children: list[PendingChild] = []
        self.entity_calls: list[PendingEntityCall] = []
        self.counts = {"activities": 0, "timers": 0, "children": 0, "entity_calls": 0}

    def gather(
        self, caller: Caller, events: list[list[Any]], opened: list[OpenTask] | None
    ) -> Generator[None]:
        """Tell tasks by what the history says of them; pauses now and then.

        Args:
            caller: the execution.
            events: its history.
            opened: its tasks without an answer, of which the list is given away; None where only
                the history knows them.
        """
        self._decisions = yield from decisions_of(events)
        tasks = (yield from unanswered(events)) if opened is None else opened
        for place, task in enumerate(tasks):
            if not place % PAUSE:
                yield
            decision = self._decisions.get(task.number)
            if decision is not None:
                self._take(caller, task, decision, is_known=opened is not None)
        yield from let_go(tasks)

    def take_left(self, call: ActivityCall) -> None:
        """Tell of an activity that was left behind by an execution that has ended."""
        if self._count("activities", self.activities):
            run = self._find(call.caller)
            self.activities.append(
                PendingActivity(
                    task_id=call.caller.task,
                    name=call.name,
                    summary=None,
                    attempt=call.attempt,
                    max_attempts=None,
                    scheduled_at=None,
                    state="running" if run.is_running else "waiting",
                    started_at=time_of(run.started),
                    shard=run.shard,
                    next_attempt_at=None,
                    last_failure=None,
                    gives_up_at=None,
                )
            )

    def asked_at(self, number: int) -> int | None:
        """When a lock was asked for first, by its number."""
        decision = self._decisions.get(number % LOCK_AGAIN)
        return None if decision is None else decision[AT]

    def _take(self, caller: Caller, task: OpenTask, decision: list[Any], is_known: bool) -> None:
        kind = decision[KIND]
        if kind == "TaskScheduled":
            if self._count("activities", self.activities):
                run = self._find(caller._replace(task=task.number))
                self.activities.append(_activity(task, decision, is_known, run))
        elif kind == "TimerCreated":
            if self._count("timers", self.timers):
                self.timers.append(
                    PendingTimer(
                        task_id=task.number,
                        created_at=to_datetime(decision[AT]),
                        due=to_datetime(decision[3]),
                        purpose=task.purpose,
                    )
                )
            if task.purpose == "retry":
                self._take_retry(task)
        elif kind == "SubOrchestrationInstanceCreated":
            if self._count("children", self.children):
                self.children.append(_child(task, decision))
        elif kind == "EntityOperationCalled" and self._count("entity_calls", self.entity_calls):
            self.entity_calls.append(
                PendingEntityCall(
                    task_id=task.number,
                    entity_id=EntityId(*split_entity(decision[3])),
                    operation=decision[4],
                    called_at=to_datetime(decision[AT]),
                )
            )

    def _count(self, what: str, listed: list[Any]) -> bool:
        """Count one more; gives whether it is listed."""
        self.counts[what] += 1
        return len(listed) < LISTED_MAX

    def _take_retry(self, task: OpenTask) -> None:
        """Tell of a call between two attempts, by the one that failed."""
        failed = None if task.retrying is None else task.retrying.failed
        decision = None if failed is None else self._decisions.get(failed.number)
        if decision is None:
            return
        if decision[KIND] == "TaskScheduled" and self._count("activities", self.activities):
            self.activities.append(_activity(task, decision, True, None))
        elif decision[KIND] != "TaskScheduled" and self._count("children", self.children):
            self.children.append(_child(task, decision))


def _activity(
    task: OpenTask, decision: list[Any], is_known: bool, run: Run | None
) -> PendingActivity:
    retrying = task.retrying
    return PendingActivity(
        task_id=decision[NUMBER],
        name=decision[3],
        summary=decision[10] if len(decision) > 10 else None,
        attempt=decision[7],
        max_attempts=retrying.attempts_max if retrying is not None else 1 if is_known else None,
        scheduled_at=to_datetime(decision[AT]),
        state="retrying" if run is None else "running" if run.is_running else "waiting",
        started_at=None if run is None else time_of(run.started),
        shard=None if run is None else run.shard,
        next_attempt_at=None if retrying is None else time_of(retrying.due),
        last_failure=None if retrying is None else retrying.failure,
        gives_up_at=None if retrying is None else time_of(retrying.limit),
    )


def _child(task: OpenTask, decision: list[Any]) -> PendingChild:
    retrying = task.retrying
    return PendingChild(
        task_id=decision[NUMBER],
        instance_id=decision[5],
        name=decision[3],
        started_at=to_datetime(decision[AT]),
        attempt=None if retrying is None else retrying.attempts,
        max_attempts=None if retrying is None else retrying.attempts_max,
        next_attempt_at=None if retrying is None else time_of(retrying.due),
        last_failure=None if retrying is None else retrying.failure,
    )


def branch_fact(branch: Branch) -> WaitingBranch:
    """Tell of a strand of code, with the lines at which it stands."""
    return WaitingBranch(
        number=branch.number,
        parent=branch.parent,
        function=branch.function,
        lines=source_lines(branch.lines),
        waits_for=None if branch.wait is None else _waited(branch.wait),
        deadline=time_of(branch.deadline),
    )


def _waited(wait: Wait) -> Waited:
    return Waited(
        kind=wait.kind,
        task_id=wait.number,
        name=wait.name,
        count=wait.size,
        parts=tuple(map(_waited, wait.parts)),
        branches=wait.branches,
    )


def time_of(value: int | None) -> datetime | None:
    """Give a time as people read it, if there is one."""
    return None if value is None else to_datetime(value)
