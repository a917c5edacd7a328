"""What a hub says of why an actor waits, and of how an orchestration came to where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from attrs import frozen

from ..actors.errors import FailureDetails
from ..actors.ids import EntityId
from ..actors.values import RuntimeStatus, TimerPurpose, WaitKind
from .facts import Fact, ParkedReason

#: Where an attempt of an activity is: it waits for a place, it runs, or the next one is waited for.
AttemptState = Literal["waiting", "running", "retrying"]


@frozen(kw_only=True)
class SourceLine(Fact):
    """A line of an application's code.

    Attributes:
        file: the file's path.
        line: the line's number in it, from 1.
        function: the function that it is of.
        text: the line itself, as the file has it now; None where the file cannot be read.
    """

    file: str
    line: int
    function: str
    text: str | None


@frozen(kw_only=True)
class SourceFunction(Fact):
    """A function of an application's code.

    Attributes:
        file: the file's path.
        function: its name.
        first_line: the number of its first line, from 1.
        text: its lines, as the file has them now; None where the file cannot be read.
    """

    file: str
    function: str
    first_line: int
    text: str | None


@frozen(kw_only=True)
class Waited(Fact):
    """What a branch of an orchestration waits for.

    Attributes:
        kind: what that is; ``all`` and ``any`` of other things, or the ``branches`` of a group.
        task_id: the number of its task, if it has one.
        name: the activity, the event, the child's instance id, the entity and its operation, or the
            entities of a lock.
        count: how many things are waited for together.
        parts: the first of these.
        branches: the numbers of the first of the branches.
    """

    kind: WaitKind
    task_id: int | None
    name: str
    count: int
    parts: tuple[Waited, ...]
    branches: tuple[int, ...]


@frozen(kw_only=True)
class WaitingBranch(Fact):
    """A branch of an orchestration's code, and where it stands.

    It is the function itself, or one that a task group has begun.

    Attributes:
        number: 0 for the function itself, then one more for each branch that has not ended, in the
            order they began.
        parent: the number of the branch whose group it is of, or None.
        function: the function that it runs.
        lines: where it stands: a line of that function, and of each that it awaits inside of it;
            the last is where it waits.
        waits_for: what it waits for.
        deadline: when a scope around it (``fail_after``, ``move_on_after``) cancels it, if one does.
    """

    number: int
    parent: int | None
    function: str
    lines: tuple[SourceLine, ...]
    waits_for: Waited | None
    deadline: datetime | None

    @property
    def place(self) -> SourceLine | None:
        """The line at which it waits."""
        return self.lines[-1] if self.lines else None


@frozen(kw_only=True)
class PendingActivity(Fact):
    """An activity that an orchestration has called and that has not answered.

    Attributes:
        task_id: the number of the task; where the next attempt is waited for, of the last one.
        name: the activity's name.
        summary: the text that the call was given for people, or None.
        attempt: which attempt it is, from 1.
        max_attempts: how many there may be; None where the code is not there to say it.
        scheduled_at: when the attempt was called for; None where an execution that has ended left
            it behind, to be carried out though nobody awaits it.
        state: whether it waits for a place (or is about to begin), runs, or the next attempt is
            waited for.
        started_at: when it began to run, if that is known.
        shard: the shard where it runs, or waits.
        next_attempt_at: when the next attempt is due, if it is waited for.
        last_failure: why the last attempt failed, if one has.
        gives_up_at: when the call is given up as a whole, if that is limited.
    """

    task_id: int
    name: str
    summary: str | None
    attempt: int
    max_attempts: int | None
    scheduled_at: datetime | None
    state: AttemptState
    started_at: datetime | None
    shard: int | None
    next_attempt_at: datetime | None
    last_failure: FailureDetails | None
    gives_up_at: datetime | None


@frozen(kw_only=True)
class PendingTimer(Fact):
    """A timer that has not fired.

    Attributes:
        task_id: the number of its task.
        created_at: when it was set.
        due: when it fires.
        purpose: what for: by itself, as a scope's ``deadline``, as the timeout of an event or of a
            whole call, or for the next attempt of one (``retry``).
    """

    task_id: int
    created_at: datetime
    due: datetime
    purpose: TimerPurpose


@frozen(kw_only=True)
class AwaitedEvent(Fact):
    """An event that an orchestration waits for.

    Attributes:
        name: the event's name.
        since: since when.
        times_out_at: until when, if that is limited.
    """

    name: str
    since: datetime
    times_out_at: datetime | None


@frozen(kw_only=True)
class PendingChild(Fact):
    """A sub-orchestration that has not ended.

    Attributes:
        task_id: the number of the task; where the next attempt is waited for, of the last one.
        instance_id: the child's id.
        name: the child's orchestration.
        started_at: when it was started.
        attempt: which attempt it is, from 1, if it is tried again.
        max_attempts: how many there may be.
        next_attempt_at: when the next attempt is due, if it is waited for.
        last_failure: why the last attempt failed, if one has.
    """

    task_id: int
    instance_id: str
    name: str
    started_at: datetime
    attempt: int | None
    max_attempts: int | None
    next_attempt_at: datetime | None
    last_failure: FailureDetails | None


@frozen(kw_only=True)
class PendingEntityCall(Fact):
    """A call of an entity that has not been answered.

    Attributes:
        task_id: the number of its task.
        entity_id: the entity.
        operation: the operation's name.
        called_at: when it was called.
    """

    task_id: int
    entity_id: EntityId[Any]
    operation: str
    called_at: datetime


@frozen(kw_only=True)
class AskedLock(Fact):
    """A lock that an orchestration holds, or has asked for.

    Attributes:
        task_id: the number of its task.
        entities: the entities, in the order in which they are locked.
        is_granted: whether it holds all of them.
        asked_at: when it asked.
        waits_at: of one that is not granted, the entity that it waits for.
        holder: the instance that has locked that one.
        place: its place in the queue there, from 1; None where the request is on its way, or too
            far behind to be known.
    """

    task_id: int
    entities: tuple[EntityId[Any], ...]
    is_granted: bool
    asked_at: datetime | None
    waits_at: EntityId[Any] | None
    holder: str | None
    place: int | None


@frozen(kw_only=True)
class InstanceExplanation(Fact):
    """What an orchestration instance waits for, as of the last checkpoint.

    Of each kind of thing the first 500 are listed, and all are counted in ``counts``.

    Attributes:
        instance_id: its id.
        name: the orchestration's name.
        version: the version it was started with, or None.
        runtime_status: where it stands.
        execution: 1, and one more for each continue-as-new or replacement.
        partition: the partition that it is in.
        shard: the shard that serves that.
        is_in_memory: whether its code is in memory, or had to be taken through its history.
        start_at: of one that is scheduled, when it begins.
        suspended: the reason that ``suspend`` was given, while it is suspended; else None.
        parked: why it takes no turns, or None.
        backlog: messages that were sent to it and that it has not taken.
        backlog_in_memory: how many of these are in memory; the others lie in the store.
        unconsumed_events: names of events that it has taken and that nothing in it has waited for.
        activities: what it has called, and what an execution that has ended left behind.
        timers: what it has set.
        events: what it waits for from outside.
        children: its sub-orchestrations.
        entity_calls: its calls of entities.
        lock: the lock that it holds or has asked for.
        counts: how many there are of each: ``activities``, ``timers`` and so on.
        branches: where its code stands, the first 100 branches.
        branch_count: how many there are.
        code_trouble: why there is no word of its code, where there is none.
    """

    instance_id: str
    name: str
    version: str | None
    runtime_status: RuntimeStatus
    execution: int
    partition: int
    shard: int
    is_in_memory: bool
    start_at: datetime | None
    suspended: str | None
    parked: ParkedReason | None
    backlog: int
    backlog_in_memory: int
    unconsumed_events: tuple[str, ...]
    activities: tuple[PendingActivity, ...]
    timers: tuple[PendingTimer, ...]
    events: tuple[AwaitedEvent, ...]
    children: tuple[PendingChild, ...]
    entity_calls: tuple[PendingEntityCall, ...]
    lock: AskedLock | None
    counts: Mapping[str, int]
    branches: tuple[WaitingBranch, ...]
    branch_count: int
    code_trouble: str | None


@frozen(kw_only=True)
class RunningOperation(Fact):
    """An operation of an entity that is under way: an async one that waits for something.

    Attributes:
        name: the operation's name.
        since: when it began; None for one that only reads, beside another.
        is_readonly: whether it is such a one.
    """

    name: str
    since: datetime | None
    is_readonly: bool


@frozen(kw_only=True)
class EntityExplanation(Fact):
    """What an entity is busy with, as of the last checkpoint.

    Attributes:
        entity_id: its address.
        exists: whether it has state.
        partition: the partition that it is in.
        shard: the shard that serves that.
        is_in_memory: whether it is in memory.
        backlog: messages that were sent to it and that it has not done, those under way included.
        backlog_in_memory: how many of these are in memory; the others lie in the store.
        running: the operations that are under way.
        locked_by: the orchestration instance that holds its lock, or None.
        lock_waiters: the instances that wait for the lock, the next one first; where many
            messages wait, the first of them.
        lock_waiter_count: how many wait for the lock.
        parked: why it takes no turns, or None.
    """

    entity_id: EntityId[Any]
    exists: bool
    partition: int
    shard: int
    is_in_memory: bool
    backlog: int
    backlog_in_memory: int
    running: tuple[RunningOperation, ...]
    locked_by: str | None
    lock_waiters: tuple[str, ...]
    lock_waiter_count: int
    parked: ParkedReason | None


@frozen(kw_only=True)
class TraceStep(Fact):
    """An event of a history, and where the code stood behind it.

    Attributes:
        seq: the event's number in the history; the first has the number 0.
        event_type: its type, such as ``TaskScheduled``.
        timestamp: when it was recorded; aware, UTC.
        task_id: the number of the task that it is about, if it is about one.
        cause: of what the code asked for: the number of the event that let it run; else its own.
        made_at: of what the code asked for: the line that did, and those that it was called by,
            outermost first; empty where no line did (the next attempt of a call, say).
        decided: of an event that came in: the numbers of what the code asked for then.
        branches: where the code stood then, and waited, the first 20 branches. Of what the code
            asked for on the way there, nothing.
        branch_count: how many branches there were.
        open: what was open then, the first 50 things.
        open_count: how many there were.
    """

    seq: int
    event_type: str
    timestamp: datetime
    task_id: int | None
    cause: int
    made_at: tuple[SourceLine, ...]
    decided: tuple[int, ...]
    branches: tuple[WaitingBranch, ...]
    branch_count: int
    open: tuple[Waited, ...]
    open_count: int


@frozen(kw_only=True)
class Trace(Fact):
    """How an orchestration came to where it stands: one page of the steps of a replay.

    Attributes:
        instance_id: its id.
        execution: which of its executions, whose history is kept.
        event_count: how many events its history has.
        steps: the steps of this page, one for each event.
        next_after: what to pass as ``after`` for the next page; None if there is none.
        sources: the functions in which the steps stand.
        code_trouble: why the steps, or the last of them, have no word of the code.
    """

    instance_id: str
    execution: int
    event_count: int
    steps: tuple[TraceStep, ...]
    next_after: int | None
    sources: tuple[SourceFunction, ...]
    code_trouble: str | None
