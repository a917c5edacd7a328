"""Hidden tasks: what serves a hub runs in tasks that other code on the same event loop does not find.

On asyncio any code may ask for all tasks of its loop and cancel them, as helpers that shut a
program down do. A task of the hub that was cancelled so would take along the group that it is in,
and with that the shard. So the hub's tasks are not in asyncio's register: whoever cancels all
tasks cancels his own. One that stands for them is, since an event loop that ends cancels all that
it finds, and the hub has to hear of that. On trio a task is cancelled by its own scopes alone.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio.tasks import _unregister_task  # pyright: ignore[reportPrivateUsage]  # documented all the same
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio import CancelScope

from ...actors.logs import Log
from .sparing import Sparing
from .waiter import on_asyncio

T = TypeVar("T")

_log = Log("perdure.hub")


def hide(task: asyncio.Task[Any]) -> None:
    """Take a task out of those that any code on its loop finds."""
    _unregister_task(task)


def _make(loop: asyncio.AbstractEventLoop, code: Any, **options: Any) -> asyncio.Task[Any]:
    # Not by the loop's create_task: its factory is the application's, and may be an eager one.
    task = asyncio.Task(code, loop=loop, **options)
    hide(task)
    return task


class TaskGroup:
    """A task group of anyio's whose tasks are hidden."""

    def __init__(self) -> None:
        self._group = anyio.create_task_group()
        self._loop = asyncio.get_running_loop() if on_asyncio() else None

    @property
    def cancel_scope(self) -> CancelScope:
        """What cancels all of it."""
        return self._group.cancel_scope

    def start_soon(
        self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any
    ) -> None:
        """Run a function in a task of the group."""
        loop = self._loop
        if loop is None:
            self._group.start_soon(function, *arguments)
            return
        factory = loop.get_task_factory()
        loop.set_task_factory(_make)
        try:
            self._group.start_soon(function, *arguments)
        finally:
            loop.set_task_factory(factory)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return bool(await self._group.__aexit__(kind, error, trace))


def begin(function: Callable[[], Coroutine[Any, Any, None]], end: Callable[[], None]) -> None:
    """Run a function that raises nothing in a task of its own, which no other task has to wait for.

    Args:
        function: what to run.
        end: has it end; called when the event loop ends while it runs.
    """
    if not on_asyncio():
        import trio

        trio.lowlevel.spawn_system_task(function, context=contextvars.copy_context())
        return
    loop = asyncio.get_running_loop()
    task = _make(loop, function(), name="perdure-hub")
    _begun.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(_begun.discard)
    _stand_for(task, loop, end, Sparing(_log.warning))


_begun: set[asyncio.Task[None]] = set()


class _Sentry(asyncio.Task[None]):
    """Stands for a hidden task among those of the loop, and is cancelled in its place."""

    is_end = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Take note whether it is the end of the loop that does this."""
        self.is_end = self.is_end or not self.get_loop().is_running()
        return super().cancel(msg)


def _stand_for(
    task: asyncio.Task[None],
    loop: asyncio.AbstractEventLoop,
    end: Callable[[], None],
    warnings: Sparing,
) -> None:
    async def stand() -> None:
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            if sentry.is_end:
                end()
                await asyncio.wait((task,))
            raise

    def replace(_: object) -> None:
        if not task.done() and not sentry.is_end:
            warnings.write(
                "code on the event loop of the hub cancelled the task that stands for it, and all "
                "others perhaps: the hub goes on"
            )
            _stand_for(task, loop, end, warnings)

    sentry = _Sentry(stand(), loop=loop, name="perdure-hub")
    sentry.add_done_callback(replace)


async def hold(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a function to its end in a hidden task, as all that an event loop of the hub is for."""
    if not on_asyncio():
        return await function()
    task = _make(asyncio.get_running_loop(), function(), name="perdure-main")
    warnings = Sparing(_log.warning)
    while not task.done():
        # Nobody of the hub cancels this one.
        with suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
        if not task.done():
            warnings.write(
                "code on an event loop that serves a hub cancelled its main task, and all others "
                "perhaps: it goes on"
            )
    result: T = task.result()
    return result
