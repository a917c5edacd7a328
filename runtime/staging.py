"""Steps orchestrations' code where there is no event loop: what asks for one is refused there.

The code runs inside a task of the pump, whose cancel scopes, timeouts and cancellation must
not become its own. So for the time of a step a stand-in takes the place by which libraries find
that task: the running loop on asyncio, the current task on trio. Whatever they ask of it raises
``NonDurableAwaitError`` on the line that did it. What is ours needs neither inside of a step.
"""

from __future__ import annotations

import sys
from asyncio import _get_running_loop, _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, NoReturn

from ..actors.outside import refuse_use


class _NoLoop:
    """Takes the place of asyncio's running loop."""

    # asyncio looks the current task up by the loop, so hashing it is asking for the task.
    def __hash__(self) -> int:
        raise refuse_use("current_task")

    def __eq__(self, other: object) -> bool:
        return self is other

    def create_task(self, coroutine: Any, **_: Any) -> NoReturn:
        coroutine.close()  # it will not be awaited, and need not complain
        raise refuse_use("create_task")

    def __getattr__(self, name: str) -> NoReturn:
        raise refuse_use(name)


class _NoTask:
    """Takes the place of trio's current task."""

    def __hash__(self) -> int:
        raise refuse_use("current_task")

    def __eq__(self, other: object) -> bool:
        return self is other

    def __getattr__(self, name: str) -> NoReturn:
        raise refuse_use("current_task")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise refuse_use("current_task")


Step = Callable[[Any, Any], None]

_NO_LOOP: Final[Any] = _NoLoop()
_NO_TASK: Final = _NoTask()


def stage(context: Context, function: Step, happened: Any, given: Any) -> None:
    """Run a step of an orchestration's code, in its context and with no event loop around it."""
    loop = _get_running_loop()
    if loop is None:
        _stage_on_trio(context, function, happened, given)
        return
    _set_running_loop(_NO_LOOP)
    try:
        context.run(function, happened, given)
    finally:
        _set_running_loop(loop)


def _stage_on_trio(context: Context, function: Step, happened: Any, given: Any) -> None:
    if "trio" not in sys.modules:
        context.run(function, happened, given)
        return
    from trio._core._run import GLOBAL_RUN_CONTEXT

    running: Any = GLOBAL_RUN_CONTEXT
    task = getattr(running, "task", None)
    running.task = _NO_TASK
    try:
        context.run(function, happened, given)
    finally:
        if task is None:
            del running.task
        else:
            running.task = task
