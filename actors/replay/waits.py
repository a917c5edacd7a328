"""What an execution waits for, read off its live code and its history; nothing of it is changed.

The code is looked at between two turns, where all of its strands wait. What a history says besides
(when something was asked for, and with what) is found by the number of the task.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ActivityError, SubOrchestrationError
from ..registry.outside import CodeLine, lines_of
from .compound_tasks import AllTask, AnyTask, Called, Retrying, RetryTask
from .history import ANSWERS, KIND, NUMBER, DecisionKind
from .locks import EntityLock
from .scopes import CancelScope, GroupEnd, TaskGroup
from .tasks import CallTask, EventTask, Task, TimerTask

if TYPE_CHECKING:
    from ..values import TimerPurpose, WaitKind
    from .executor import Executor
    from .scopes import Fiber

#: Of many things waited for together so many are named.
NAMED_MAX = 20
#: How deep what is made of other tasks is looked into.
DEPTH_MAX = 8
#: Of many events, how many are looked at before a pause.
PAUSE = 1_000


class Wait(NamedTuple):
    """What a strand of code waits for.

    Attributes:
        kind: what that is; ``all`` and ``any`` of other things, or the ``branches`` of a group.
        number: the number of its task, if it has one.
        name: the activity, the event, the child's id, or the entity and its operation.
        size: how many things are waited for together.
        parts: the first of these.
        branches: the numbers of the first of the branches.
    """

    kind: WaitKind
    number: int | None = None
    name: str = ""
    size: int = 1
    parts: tuple[Wait, ...] = ()
    branches: tuple[int, ...] = ()


class Branch(NamedTuple):
    """A strand of an orchestration's code.

    Attributes:
        number: its place among those that have not ended, in the order they began; the function
            itself is 0.
        parent: the number of the one that began it, or None.
        function: the function that it runs.
        lines: where it stands: from that function's line inwards, in users' code.
        wait: what it waits for; None where it does not.
        deadline: when a scope around it ends it, if one does.
    """

    number: int
    parent: int | None
    function: str
    lines: list[CodeLine]
    wait: Wait | None
    deadline: int | None


class OpenTask(NamedTuple):
    """A task that waits for its answer.

    Attributes:
        number: its number.
        purpose: of a timer, what it is for.
        retrying: how far the call has come that it is an attempt of, if that is tried again.
    """

    number: int
    purpose: TimerPurpose
    retrying: Retrying | None


def branches_of(executor: Executor, most: int) -> list[Branch]:
    """Give where the code stands: its first strands, in the order they began."""
    numbers = {fiber: number for number, fiber in enumerate(executor.fibers[:most])}
    groups = _groups(numbers)
    found: list[Branch] = []
    for fiber, number in numbers.items():
        group = fiber.group
        opener = None if group is None else group.cancel_scope.fiber
        lines = lines_of(fiber.coroutine)
        found.append(
            Branch(
                number,
                None if opener is None else numbers.get(opener),
                lines[0].function if lines else "unknown",
                lines,
                None if fiber.waiting is None else _wait(executor, fiber.waiting, groups),
                _deadline(fiber),
            )
        )
    return found


def open_tasks(executor: Executor) -> Generator[None, None, list[OpenTask]]:
    """Give the tasks without an answer; pauses now and then, and passes over what came meanwhile."""
    found: list[OpenTask] = []
    for place, number in enumerate([*executor.pending]):
        if not place % PAUSE:
            yield
        task = executor.pending.get(number)
        if task is not None:
            found.append(open_task(number, task))
    return found


def decisions_of(events: list[list[Any]]) -> Generator[None, None, dict[int, list[Any]]]:
    """Give what was asked for, by number; pauses now and then."""
    found: dict[int, list[Any]] = {}
    for place, event in enumerate(events):
        if not place % PAUSE:
            yield
        if event[KIND] in _ASKING:
            found[event[NUMBER]] = event
    return found


def unanswered(events: list[list[Any]]) -> Generator[None, None, list[OpenTask]]:
    """Give what a history alone has open, where there is no code; pauses now and then.

    A timer, or a call, that the code gave up is among it: the history does not say so.
    """
    found: dict[int, OpenTask] = {}
    for place, event in enumerate(events):
        if not place % PAUSE:
            yield
        if event[KIND] in _ASKING:
            found[event[NUMBER]] = OpenTask(event[NUMBER], "timer", None)
        elif event[KIND] in ANSWERS or event[KIND] == "EntityLockReleased":
            found.pop(event[NUMBER], None)
    return [*found.values()]


_ASKING: frozenset[DecisionKind] = frozenset(ANSWERS.values())


def open_task(number: int, task: Task[Any]) -> OpenTask:
    """Describe a task without an answer."""
    retrying: Retrying | None = None
    purpose: TimerPurpose = "timer"
    for watcher in task._watchers or ():  # pyright: ignore[reportPrivateUsage]
        if isinstance(watcher, RetryTask):
            retrying = watcher.progress
            purpose = "retry" if watcher.current is task else "overall_timeout"
            break
        if isinstance(watcher, CancelScope):
            purpose = "deadline"
            break
        if isinstance(watcher, EventTask):
            purpose = "event_timeout"
            break
    return OpenTask(number, purpose, retrying)


def _deadline(fiber: Fiber) -> int | None:
    dues: list[int] = []
    here = fiber.scope
    while here is not None:
        if here.due is not None:
            dues.append(here.due)
        here = here.parent
    return min(dues, default=None)


#: The first branches of each group.
_Groups = dict[TaskGroup, list[int]]


def _groups(numbers: dict[Fiber, int]) -> _Groups:
    found: _Groups = {}
    for fiber, number in numbers.items():
        if fiber.group is not None:
            found.setdefault(fiber.group, []).append(number)
    return found


def _wait(executor: Executor, task: Task[Any], groups: _Groups, depth: int = 0) -> Wait:
    if isinstance(task, CallTask):
        return _call(executor, task)
    if isinstance(task, TimerTask):
        return Wait("timer", task.number)
    if isinstance(task, EventTask):
        return Wait("event", None, task.title)
    if isinstance(task, EntityLock):
        return Wait("lock", task.number, ", ".join(task.entities[:NAMED_MAX]))
    if isinstance(task, RetryTask):
        return _retried(executor, task, groups, depth)
    if isinstance(task, (AllTask, AnyTask)) and depth < DEPTH_MAX:
        first = islice(task.open_tasks(), NAMED_MAX)
        parts = tuple(_wait(executor, one, groups, depth + 1) for one in first)
        if isinstance(task, AllTask):
            return Wait("all", None, "", task.missing, parts)
        return Wait("any", None, "", task.count, parts)
    if isinstance(task, GroupEnd):
        numbers = groups.get(task.group, [])[:NAMED_MAX]
        return Wait("branches", None, "", task.group.count, (), tuple(numbers))
    return Wait("task")


def _retried(executor: Executor, task: RetryTask[Any], groups: _Groups, depth: int) -> Wait:
    current = task.current
    if current is None or isinstance(current, TimerTask):
        failed = task.progress.failed  # it is between two attempts
        return Wait("task") if failed is None else _call(executor, failed)
    return _wait(executor, current, groups, depth + 1)


def _call(executor: Executor, task: CallTask[Any] | Called) -> Wait:
    if task.error is ActivityError:
        return Wait("activity", task.number, task.target)
    if task.error is SubOrchestrationError:
        return Wait("child", task.number, (executor.children or {}).get(task.number, task.target))
    return Wait("entity", task.number, task.target)
