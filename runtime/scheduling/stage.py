"""Steps orchestrations' code where there is no event loop: what asks for one is refused there.

The code runs inside a task of the pump, whose cancel scopes, timeouts and cancellation must
not become its own. So for the time of a step a stand-in takes the place by which libraries find
that task: the running loop on asyncio, the current task on trio. Whatever they ask of it raises
``NonDurableAwaitError`` on the line that did it. What is ours needs neither inside of a step.
"""

from __future__ import annotations

from asyncio import _get_running_loop, _set_running_loop, tasks  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable
from contextvars import Context
from sys import modules, version_info
from types import SimpleNamespace
from typing import Any, Final, NoReturn

from ...actors.registry.outside import refuse_use


class _NoLoop:
    """Takes the place of asyncio's running loop."""

    # asyncio looks the current task up by the loop, so hashing it is asking for the task; but see
    # stage_with_task.
    def __hash__(self) -> int:
        raise refuse_use("current_task")

    def __eq__(self, other: object) -> bool:
        return self is other

    def create_task(self, coroutine: Any, **_: Any) -> NoReturn:
        coroutine.close()  # it will not be awaited, and need not complain
        raise refuse_use("create_task")

    def __getattr__(self, name: str) -> NoReturn:
        raise refuse_use(name)


class _NoTrio:
    """Takes the place of trio's current task, and of a run where there is none."""

    def __hash__(self) -> int:
        raise refuse_use("current_task")

    def __eq__(self, other: object) -> bool:
        return self is other

    def __getattr__(self, name: str) -> NoReturn:
        raise refuse_use(_NAMES.get(name, "current_task"))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise refuse_use("current_task")


class _NoTask(_NoTrio):
    """Takes the place of asyncio's current task, where that is not found by the loop."""


class _TrioRun:
    """Takes the place of trio's run, which what is ours may ask to wake tasks."""

    __slots__ = ("_run",)

    def __init__(self, run: Any) -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        if name in _NAMES:
            raise refuse_use(_NAMES[name])
        return getattr(self._run, name)


Step = Callable[[Any, Any], None]

#: How users call what trio asks its run for.
_NAMES = {
    "clock": "current_time",
    "current_time": "current_time",
    "spawn_system_task": "spawn_system_task",
}

_NO_LOOP: Final[Any] = _NoLoop()
_NO_TRIO: Final = _NoTrio()
_NO_TASK: Final = _NoTask()
_ABSENT: Final = object()


def stage(context: Context, function: Step, happened: Any, given: Any) -> None:
    """Run a step of an orchestration's code, in its context and with no event loop around it."""
    loop = _get_running_loop()
    if loop is None or "trio" in modules:
        # Code may use the library that the hub does not run on, too.
        _stage_with_trio(loop, context, function, happened, given)
        return
    _set_running_loop(_NO_LOOP)
    try:
        context.run(function, happened, given)
    finally:
        _set_running_loop(loop)


def _stage_with_trio(
    loop: Any, context: Context, function: Step, happened: Any, given: Any
) -> None:
    run = _find_run()
    task = getattr(run, "task", _ABSENT)
    runner = getattr(run, "runner", _ABSENT)
    _set_running_loop(_NO_LOOP)
    run.task = _NO_TRIO
    run.runner = _NO_TRIO if runner is _ABSENT else _TrioRun(runner)
    try:
        context.run(function, happened, given)
    finally:
        _set_running_loop(loop)
        for name, value in (("task", task), ("runner", runner)):
            if value is _ABSENT:
                delattr(run, name)
            else:
                setattr(run, name, value)


def _find_run() -> Any:
    """Find where trio keeps what runs in this thread."""
    if "trio" not in modules:
        return SimpleNamespace()
    from trio._core._run import GLOBAL_RUN_CONTEXT

    return GLOBAL_RUN_CONTEXT


# There since CPython 3.12, and needed from 3.14 on.
_swap_current_task: Final[Any] = getattr(tasks, "_swap_current_task", None)


def stage_with_task(context: Context, function: Step, happened: Any, given: Any) -> None:
    """Run a step where asyncio keeps the current task by the thread, whatever loop is asked for.

    So from CPython 3.14 on a stand-in takes the task's place, too.
    """
    loop = _get_running_loop()
    if loop is None:
        stage(context, function, happened, given)
        return
    # The task is swapped while the loop is the one that it runs on, or asyncio refuses that.
    task = _swap_current_task(loop, _NO_TASK)
    try:
        stage(context, function, happened, given)
    finally:
        _swap_current_task(loop, task)


#: How orchestrations' code is stepped on this Python.
STAGE: Final = stage_with_task if version_info >= (3, 14) else stage
