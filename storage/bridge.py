"""From any event loop to asyncio, which aiosqlite needs.

On asyncio a call just runs. On trio it runs on an asyncio loop in a thread that the store owns:
one hop there and one back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, TypeVar

from anyio import CancelScope

T = TypeVar("T")


class AsyncioBridge:
    """Runs coroutines that need asyncio, for callers on any loop and in any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    @property
    def has_thread(self) -> bool:
        """Whether asyncio runs in a thread of its own, for callers on other loops."""
        return self._thread is not None

    async def run(self, call: Callable[[], Coroutine[Any, Any, T]], *, shield: bool = False) -> T:
        """Run ``call`` where asyncio is.

        With ``shield`` a cancelled caller waits for the end of it first. Without, it stops
        waiting; what was begun still ends in its own time.
        """
        if not on_asyncio():
            return await _from_trio(self._started(), call, shield)
        if not shield:
            return await call()
        with CancelScope(shield=True):
            return await call()
        raise AssertionError("a scope that nobody cancels swallows nothing")

    def close(self) -> None:
        """End the thread, if there is one, after what runs on it. Blocks; call it in a thread."""
        with self._lock:
            if self._loop is None or self._thread is None:
                return
            asyncio.run_coroutine_threadsafe(_drain(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        if (running := self._loop) is not None:
            return running
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A store that nobody closed must not keep the process alive.
                self._thread = Thread(
                    target=self._loop.run_forever, name="perdure-storage", daemon=True
                )
                self._thread.start()
            return self._loop


class ApartBridge(AsyncioBridge):
    """One that has a thread of its own for callers on asyncio, too.

    For what callers on several loops share, or what would hold theirs.
    """

    async def run(self, call: Callable[[], Coroutine[Any, Any, T]], *, shield: bool = False) -> T:
        """See ``AsyncioBridge.run``."""
        loop = self._started()
        if not on_asyncio():
            return await _from_trio(loop, call, shield)
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))
        with CancelScope(shield=shield):
            return await asyncio.shield(future)
        raise AssertionError("a scope that nobody cancels swallows nothing")


async def _drain() -> None:
    # Callers that were cancelled have left their calls behind; those end before the loop does.
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)


def on_asyncio() -> bool:
    """Whether the running task is one of asyncio's (else it is one of trio's)."""
    # Asking for the task, not the loop, also tells trio as a guest of an asyncio loop apart.
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


async def _from_trio(
    loop: asyncio.AbstractEventLoop, call: Callable[[], Coroutine[Any, Any, T]], shield: bool
) -> T:
    import trio

    from .bells import Bell

    token = trio.lowlevel.current_trio_token()
    done = Bell()

    def wake(_: object) -> None:
        # The run may be over, if the caller was cancelled and did not wait.
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    future = asyncio.run_coroutine_threadsafe(call(), loop)
    future.add_done_callback(wake)
    with trio.CancelScope(shield=shield):
        await done.wait()
    return future.result()
