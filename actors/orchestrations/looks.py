"""What an instance looks like at one moment; nothing of it is changed by being looked at.

One that is not in memory is looked at by an actor that is made for that and let go. Its code is
taken through its history by an execution that has no effects, and nothing of the user's runs but
what runs at each replay.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import NondeterminismError, PayloadError, UnknownNameError
from ..replay.executor import Executor
from ..replay.history import carried_by
from ..replay.trace import Trace
from ..replay.waits import Branch, branches_of

if TYPE_CHECKING:
    from ..replay.execution import OpenLock
    from .orchestration import OrchestrationActor

#: Strands of code, and names, that are told of.
BRANCHES_MAX = 100
NAMES_MAX = 500

#: Said of code that another process runs.
ELSEWHERE = "its code runs in another process, which is not asked where it stands"


class AwaitedName(NamedTuple):
    """An event that is waited for: its name, since when, and until when if that is limited."""

    name: str
    since: int
    due: int | None


class InstanceLook:
    """An instance at one moment: what its history does not say.

    Attributes:
        events: how many events its history had.
        branches: where its code stood: the first strands, and ``branch_count`` of all.
        awaited: the first events that it waited for, and ``awaited_count`` of all.
        unconsumed: the names of the events that it had taken and that nobody took.
        lock: the lock that it held or had asked for.
        trouble: why there is no word of its code, where there is none.
    """

    def __init__(self, actor: OrchestrationActor) -> None:
        executor = actor.executor
        self.id = actor.id
        self.instance_id = actor.instance_id
        self.name = actor.name
        self.version = actor.version
        self.status = actor.status or "Pending"
        self.execution = actor.execution
        self.start_at = actor.start_at if self.status == "Pending" else None
        self.suspended = _suspended(actor)
        self.parked = None if actor.parked is None else (actor.parked_type or "", actor.parked)
        self.events = actor.seq + len(actor.events)
        work = actor.open_work if executor is None else executor.open_work()
        self.lock: OpenLock | None = work.lock
        self.branches: list[Branch] = []
        self.branch_count = 0
        self.awaited: list[AwaitedName] = []
        self.awaited_count = 0
        self.unconsumed: list[str] = []
        self.trouble: str | None = None
        if isinstance(executor, Executor):
            self._look_at_code(executor)
        elif executor is not None:
            self.trouble = ELSEWHERE
        elif actor.parked is not None:
            self.trouble = f"it is parked: {actor.parked}"

    def _look_at_code(self, executor: Executor) -> None:
        self.branches = branches_of(executor, BRANCHES_MAX)
        self.branch_count = executor.fiber_count
        self.unconsumed = executor.unconsumed_names()
        awaited = [*executor.awaited_events()]
        self.awaited_count = len(awaited)
        self.awaited = [
            AwaitedName(one.title, one.since, None if one.timer is None else one.timer.due)
            for one in awaited[:NAMES_MAX]
        ]


def _suspended(actor: OrchestrationActor) -> str | None:
    reason: str | None = actor.noted().get("suspended")
    return reason if actor.status == "Suspended" else None


def rebuild(
    actor: OrchestrationActor, events: list[list[Any]], every: int
) -> Generator[None, None, str | None]:
    """Give an actor its live code to look at; says why, where that cannot be.

    Args:
        actor: one that nobody else has.
        events: its history.
        every: after how many events it pauses.
    """
    actor.lie_idle(events)
    if actor.parked is not None:
        return f"it is parked: {actor.parked}"
    actor.carried = carried_by(events)
    try:
        executor = actor.new_execution()
        if not isinstance(executor, Executor):
            return ELSEWHERE
        actor.executor = executor
        yield from executor.replay(events, actor.input, every)
    except (NondeterminismError, PayloadError, UnknownNameError) as error:
        yield from actor.close() or ()
        return str(error)
    return None


def trace(
    actor: OrchestrationActor, events: list[list[Any]], first: int, end: int
) -> Generator[None, None, Trace]:
    """Step an actor's code through its history, and look at it behind events of a page.

    Pauses behind each event that came in.

    Args:
        actor: one that nobody else has.
        events: its history.
        first: the place of the first event of the page.
        end: the place behind its last one.
    """
    actor.carried = carried_by(events)
    try:
        if isinstance(actor.new_execution(), Executor):
            return (yield from actor.new_tracer().follow(events, actor.input, first, end))
        trouble = ELSEWHERE
    except UnknownNameError as error:
        trouble = str(error)
    trace = Trace()
    trace.trouble = trouble
    return trace
