"""The pump: one deque of whatever has work, run inside real tasks as leader and followers.

The leader runs turns inline, one after another: no task, lock or stream per actor. When the code
of a turn truly suspends, the leader's task stays with it and an idle follower takes the deque
over. So users' code runs inside a real task of the event loop, where cancel scopes and timeouts
work, at a fraction of a task per message (leader/followers: Schmidt et al., POSA 2, 2000).
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from time import perf_counter
from typing import Any, Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

_IDLE_MAX = 64


class Runnable(Protocol):
    """Something that can be given to the pump."""

    def run(self) -> Coroutine[Any, Any, None] | None:
        """Do the work, or give what has to be awaited for it. Must not raise."""
        ...

    def on_suspended(self) -> None:
        """Take note that what ``run`` gave has suspended for the first time."""
        ...


class Pump:
    """Runs whatever is ready, in order."""

    def __init__(self, budget_s: float) -> None:
        self._ready: deque[Runnable] = deque()
        self._budget_s = budget_s
        self._idle: list[anyio.Event] = []
        self._gate: anyio.Event | None = None
        self._tasks: TaskGroup | None = None
        self.suspended = 0
        self.busy_s = 0.0  # spent in turns, up to where they suspend

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is ready and nothing has suspended."""
        return not self._ready and not self.suspended

    def put(self, item: Runnable) -> None:
        """Have the item run, behind those that are ready."""
        self._ready.append(item)
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    def start(self, tasks: TaskGroup) -> None:
        """Begin to run, with tasks of that group."""
        self._tasks = tasks
        tasks.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            await self._lead()
            if len(self._idle) >= _IDLE_MAX:
                return
            promoted = anyio.Event()
            self._idle.append(promoted)
            await promoted.wait()

    async def _lead(self) -> None:
        """Run what is ready until this task is kept by work that suspended."""
        ready = self._ready
        budget = self._budget_s
        began = perf_counter()
        while True:
            while ready:
                item = ready.popleft()
                work = item.run()
                if work is not None and await self._drive(item, work):
                    return
                now = perf_counter()
                if now > began + budget:
                    self.busy_s += now - began
                    await anyio.lowlevel.checkpoint()
                    began = perf_counter()
            self.busy_s += perf_counter() - began
            self._gate = gate = anyio.Event()
            await gate.wait()
            began = perf_counter()

    @types.coroutine
    def _drive(self, item: Runnable, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, bool]:
        """Run a coroutine in this task, in a context of its own; says whether it suspended."""
        run = copy_context().run
        try:
            trap = run(work.send, None)
        except StopIteration:
            return False
        item.on_suspended()
        self._hand_over()
        self.suspended += 1
        try:
            while True:
                try:
                    value = yield trap
                except BaseException as error:
                    trap = run(work.throw, error)
                else:
                    trap = run(work.send, value)
        except StopIteration:
            return True
        finally:
            self.suspended -= 1

    def _hand_over(self) -> None:
        if self._idle:
            self._idle.pop().set()
        else:
            assert self._tasks is not None
            self._tasks.start_soon(self._work)
