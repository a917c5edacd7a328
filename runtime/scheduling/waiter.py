"""One caller waiting for one outcome: the cheapest form that each event loop has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

try:
    import sniffio
except ModuleNotFoundError:  # then anyio asks asyncio itself
    sniffio = None  # type: ignore[assignment]


if TYPE_CHECKING:
    from ...storage.bells import Bell


class Waiter(Protocol):
    """A place for one outcome. The first one given counts."""

    def set(self, value: Any) -> None:
        """Give the value that the waiter returns."""
        ...

    def fail(self, error: BaseException) -> None:
        """Give the error that the waiter raises."""
        ...

    def __await__(self) -> Generator[Any, Any, Any]: ...


class _AsyncioWaiter:
    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def set(self, value: Any) -> None:
        try:
            self._future.set_result(value)
        except asyncio.InvalidStateError:
            return  # the first one counted

    def fail(self, error: BaseException) -> None:
        if not self._future.done():
            self._future.set_exception(error)
            # A caller that has gone is no reason to complain when the future is collected.
            self._future.exception()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._future.__await__()


class _BellWaiter:
    __slots__ = ("_error", "_event", "_value")

    def __init__(self, event: Bell) -> None:
        self._event = event
        self._value: Any = None
        self._error: BaseException | None = None

    def set(self, value: Any) -> None:
        if not self._event.is_set():
            self._value = value
            self._event.set()

    def fail(self, error: BaseException) -> None:
        if not self._event.is_set():
            self._error = error
            self._event.set()

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._event.wait().__await__()
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # or the error would lead to itself, by its traceback
        return self._value


class Countdown:
    """One waiter for many outcomes; it hears when all are there, and of an error among them."""

    __slots__ = ("_error", "_left", "_waiter")

    def __init__(self, waiter: Waiter, left: int) -> None:
        self._waiter = waiter
        self._left = left
        self._error: BaseException | None = None

    def set(self, value: Any) -> None:
        """Take one of the outcomes."""
        self._left -= 1
        if self._left == 0:
            if self._error is None:
                self._waiter.set(None)
            else:
                # The error, once raised, leads to the messages, and these here.
                waiter, error, self._waiter, self._error = self._waiter, self._error, TOLD, None
                waiter.fail(error)

    def fail(self, error: BaseException) -> None:
        """Take an error as one of the outcomes."""
        self._error = error
        self.set(None)


class _Told:
    """Stands for a client that was told already that its message is stored."""

    __slots__ = ()

    def set(self, value: Any) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        pass

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError("nobody waits for it")


TOLD: Final[Waiter] = _Told()


def on_asyncio() -> bool:
    """Whether the running event loop is asyncio's (else it is trio's)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_cancellation(error: BaseException) -> bool:
    """Whether the exception is how an event loop cancels a task; of either kind, in either."""
    return issubclass(type(error), (asyncio.CancelledError, anyio.get_cancelled_exc_class()))


def waiter_factory() -> Callable[[], Waiter]:
    """Choose the waiter for the running event loop."""
    if on_asyncio():
        return _AsyncioWaiter
    from ...storage.bells import Bell

    return lambda: _BellWaiter(Bell())


def event_factory() -> Callable[[], anyio.Event | Bell]:
    """Choose the event for the running event loop, where users' code may be what waits for it."""
    if on_asyncio():
        return anyio.Event
    from ...storage.bells import Bell

    return Bell


def _context_of_loop() -> Context:
    """Give a context for callbacks of asyncio's loop, in which anyio knows whose they are.

    anyio asks for the current task, and a bare callback has none; and where nothing is given, the
    callback would run with the context variables of the thread that woke it.
    """
    context = copy_context()
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, "asyncio")
    return context


def context_for_threads() -> Context:
    """Copy the running context for threads, in which no event loop runs.

    What is set of the loop's library would have code there take itself for the loop's, which can
    then run none of its own.
    """
    context = copy_context()
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def thread_waker(callback: Callable[[], None]) -> Callable[[], None]:
    """Give a function that other threads may call to have ``callback`` run on this loop.

    The callback may do all that a task may do without waiting, however the loop was started.
    """
    if on_asyncio():
        loop = asyncio.get_running_loop()
        context = _context_of_loop()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(callback, context=context)
            except RuntimeError:
                if not loop.is_closed():
                    raise
                # The loop has ended, and with it whoever would have been woken.

        return wake
    import trio

    token = trio.lowlevel.current_trio_token()

    def wake_trio() -> None:
        try:
            token.run_sync_soon(callback)
        except trio.RunFinishedError:
            return  # the loop has ended, and with it whoever would have been woken

    return wake_trio
