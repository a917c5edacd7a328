"""An executor that has no code: it notes what tasks ask of it."""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from perdure.actors.errors import UsageError
from perdure.actors.replay.tasks import DONE, Task, TimerTask


class FakeExecutor:
    """What tasks need of the execution whose they are.

    Attributes:
        asked: what was asked of it, in order.
        is_stepped: whether its code runs.
        running: the fiber that runs, if one does.
        timers: the timers that were made.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.is_stepped = True
        self.is_between = False
        self.closed = False
        self.cancel_requested: str | None = None
        self.running: Any = None
        self.pending: dict[int, Any] = {}
        self.unseen: dict[int, Any] = {}
        self.timers: list[TimerTask] = []
        self.now = 0
        self.drawn = 0.5
        self.lacks = False

    def in_scope(self, *scopes: Any) -> None:
        """Have code run in the innermost of these scopes."""
        for outer, inner in pairwise(scopes):
            inner.parent = outer
        self.running = SimpleNamespace(scope=scopes[-1] if scopes else None)

    def check_stepped(self) -> None:
        if not self.is_stepped:
            raise UsageError("its code does not run")

    def put_off(self, steps: Generator[None], count: int) -> None:
        for _ in steps:
            pass

    def wait_closed(self) -> None:
        self.asked.append(("wait closed",))

    def withdraw_call(self, task: Any) -> None:
        self.asked.append(("withdraw call", task.number))

    def withdraw_timer(self, task: Any) -> None:
        self.asked.append(("withdraw timer", task.number))

    def forget_wait(self, task: Any) -> None:
        self.asked.append(("forget wait", task.name))

    def release_lock(self, lock: Any) -> None:
        self.asked.append(("release", lock.number))

    def send_calls(self, calls: list[Any]) -> None:
        self.asked.append(("send", calls))

    def later(self, delay: int) -> int:
        return self.now + delay

    def lacks_timer(self) -> bool:
        return self.lacks

    def create_timer(self, due: int) -> TimerTask:
        made: Any = self
        self.timers.append(TimerTask(made, len(self.timers) + 1, due))
        return self.timers[-1]

    def draw(self) -> float:
        return self.drawn


def scope(name: str = "") -> Any:
    """A cancel scope, as far as tasks look at it."""
    return SimpleNamespace(name=name, parent=None)


class Watching:
    """Somebody who watches tasks."""

    only_notes = False

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.forgotten = 0

    def on_settled(self, task: Task[Any]) -> None:
        self.seen.append(task)

    def forget_watchers(self) -> None:
        self.forgotten += 1

    def on_shared(self) -> None:
        """Whoever else watches."""


def plain_task(executor: Any) -> Task[Any]:
    return Task(executor)


def done(executor: Any, value: Any) -> Task[Any]:
    """A task that has a result."""
    task: Task[Any] = Task(executor)
    task.settle(DONE, value)
    return task
