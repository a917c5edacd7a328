"""Hands: the tasks in which users' code runs, outside of every task group.

A hand may be spoilt: users' code cancels its task, leaves a cancel scope or a task group open in
it, or raises what nobody catches. Nothing of that reaches another task, since a hand has neither
parent nor siblings; it is told to whoever made the hand, when the hand has ended.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage]  # documented all the same
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeVar
from weakref import ref

from ...actors.replay.endless import keep_for_ever
from .hidden_tasks import hide
from .waiter import is_cancellation, on_asyncio

T = TypeVar("T")

Work = Callable[["Hand"], Coroutine[Any, Any, None]]
OnEnd = Callable[["Hand", BaseException | None], None]
HandFactory = Callable[[Work, OnEnd], "Hand"]


class Hand(Protocol):
    """A task of its own, from its making to its end.

    Attributes:
        is_shared: whether other code had run in it before what runs there now, and may have kept
            what cancels it.
    """

    is_shared: bool

    def cancel(self) -> None:
        """Cancel what runs in it. Code may swallow that, and be told again."""
        ...

    def leave_behind(self) -> None:
        """Let the event loop end without it, where that can be: it does not where it is told to."""
        ...

    def is_spoilt(self) -> bool:
        """Whether code that ran in it has cancelled it, or left a scope or task group open."""
        ...

    def give_up(self) -> None:
        """Cancel what was left open in it. Call it in the hand itself."""
        ...

    def lend(self, function: Callable[[], T]) -> T:
        """Run a function of another task as if it ran in this one, which waits."""
        ...


def hand_factory() -> HandFactory:
    """Choose the hands for the running event loop; each begins with the context of now."""
    context = copy_context()
    if on_asyncio():
        scopes = _find_scopes()
        return lambda work, on_end: _AsyncioHand(work, on_end, context.copy(), scopes)
    return lambda work, on_end: _TrioHand(work, on_end, context.copy())


def _find_scopes() -> dict[Any, Any]:
    """Find where anyio keeps the open cancel scope of each asyncio task."""
    try:
        from anyio._backends import _asyncio as backend  # which a program on trio has not loaded

        found: Any = backend._task_states  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType]
        scopes: dict[Any, Any] = found.data  # without the wrapper, which costs as much as a turn
    except (ImportError, AttributeError):
        return {}  # then a scope that was left open is not noticed before it does something
    return scopes


def is_foreign(hand: Hand, error: BaseException) -> bool:
    """Whether what ended code in a hand may be a cancellation that neither it nor the hub made."""
    return is_cancellation(error) and hand.is_spoilt()


async def _run(hand: Hand, work: Work, error: list[BaseException]) -> None:
    # An event loop has its own mind about KeyboardInterrupt and SystemExit in a task: it ends.
    try:
        await work(hand)
    except BaseException as raised:
        error.append(raised)


class _AsyncioHand:
    __slots__ = (
        "_cancelling",
        "_error",
        "_on_end",
        "_ref",
        "_scopes",
        "_task",
        "_told",
        "is_shared",
    )

    def __init__(
        self, work: Work, on_end: OnEnd, context: Context, scopes: Mapping[Any, Any]
    ) -> None:
        self._on_end = on_end
        self._scopes = scopes
        self._error: list[BaseException] = []
        self._told = 0
        self.is_shared = False
        # Not by the loop's create_task: its factory is the application's, and may be an eager one.
        self._task = task = asyncio.Task(
            _run(self, work, self._error),
            loop=asyncio.get_running_loop(),
            name="perdure-hand",
            context=context,
        )
        hide(task)
        self._ref = ref(task)
        self._cancelling = task.cancelling
        task.add_done_callback(self._done)

    def cancel(self) -> None:
        self._told += self._task.cancel()

    def leave_behind(self) -> None:
        keep_for_ever(self._task)  # and hidden from the end of the loop, which would wait for it

    def is_spoilt(self) -> bool:
        if self._cancelling() > self._told:
            return True
        state = self._scopes.get(self._ref)
        return state is not None and state.cancel_scope is not None

    def give_up(self) -> None:
        state = self._scopes.get(self._ref)
        scope = None if state is None else state.cancel_scope
        while scope is not None:
            scope.cancel()  # and with it the tasks of its group
            scope = scope._parent_scope

    def lend(self, function: Callable[[], T]) -> T:
        task = asyncio.current_task()
        if task is None or self._task.done():
            return function()
        loop = asyncio.get_running_loop()
        _leave_task(loop, task)
        _enter_task(loop, self._task)
        try:
            return function()
        finally:
            _leave_task(loop, self._task)
            _enter_task(loop, task)

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._error:
            error: BaseException | None = self._error[0]
        elif task.cancelled():
            error = asyncio.CancelledError()  # before it had begun, or as it ended
        else:
            error = task.exception()
        self._on_end(self, error)


class _TrioHand:
    __slots__ = ("_error", "_on_end", "_running", "_scope", "_status", "_task", "is_shared")

    def __init__(self, work: Work, on_end: OnEnd, context: Context) -> None:
        import trio
        from trio._core._run import GLOBAL_RUN_CONTEXT

        self._on_end = on_end
        self._error: list[BaseException] = []
        self._running: Any = GLOBAL_RUN_CONTEXT  # where trio keeps which task runs
        self._scope = trio.CancelScope()
        self._status: Any = None
        self._task: Any = None
        self.is_shared = False
        trio.lowlevel.spawn_system_task(self._guard, work, name="perdure-hand", context=context)

    def cancel(self) -> None:
        self._scope.cancel()

    def leave_behind(self) -> None:
        pass  # trio waits for all of its tasks

    def is_spoilt(self) -> bool:
        task = self._task
        if task is None:
            return False
        return bool(task.child_nurseries) or _status_of(task) is not self._status

    def give_up(self) -> None:
        # What was left open belongs to the nursery of the guard, which cancels it.
        self._scope.cancel()

    def lend(self, function: Callable[[], T]) -> T:
        if self._task is None:
            return function()
        running = self._running
        task, running.task = running.task, self._task
        try:
            return function()
        finally:
            running.task = task

    async def _guard(self, work: Work) -> None:
        import trio

        # A task whose scopes or nurseries are not closed in order ends with an error of trio's,
        # wherever that goes: here, to a nursery that is this hand's alone.
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._begin, work)
        except BaseException as error:
            self._error.append(error)
        self._on_end(self, self._error[0] if self._error else None)

    async def _begin(self, work: Work) -> None:
        import trio

        self._task = task = trio.lowlevel.current_task()
        self._status = _status_of(task)
        try:
            await _run(self, work, self._error)
        finally:
            self._task = None


def _status_of(task: Any) -> Any:
    return getattr(task, "_cancel_status", None)
