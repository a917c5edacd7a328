"""Homes: the event loop that a hub's partitions are on, and the way there from other loops.

A client is used from other threads as well: a web framework's workers, a notebook's helpers. What
they ask is carried to the home loop, done there, and its outcome brought back.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # documented all the same
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar, cast

import anyio

from ...actors.errors import HubStoppingError, OutcomeUnknownError, UsageError
from ...actors.logs import Log
from ...actors.registry.outside import INSIDE, refuse_use
from .hidden_tasks import TaskGroup
from .waiter import event_factory, on_asyncio, thread_waker

T = TypeVar("T")

_log = Log("perdure.hub")

_LOOK_S = 1.0
_SHUT = object()


class _Errand(Generic[T]):
    """Something to be done at home for a caller on another loop."""

    def __init__(self, ask: Callable[[], Awaitable[T]], wake: Callable[[], None]) -> None:
        self.ask = ask
        self.wake = wake
        self.scope: anyio.CancelScope | None = None
        self.is_dropped = False
        self.error: Exception | None = None
        self.answer: T | None = None

    def outcome(self) -> T:
        """Give the answer, or raise the error, that there is now."""
        if self.error is not None:
            raise self.error
        return cast("T", self.answer)

    def tell(self) -> None:
        """Wake the caller; whatever becomes of that, home goes on."""
        try:
            self.wake()
        except Exception as error:
            _log.error("another event loop could not be told that its request is done", why=error)


class Home:
    """The event loop on which this is made.

    Attributes:
        here: says which loop, or thread, runs the code that asks; asked for each request, so a C
            function on asyncio. Code of an orchestration is nowhere: it has no event loop.
        door: what ``here`` says at home, and nowhere once nobody is at home any more.
    """

    def __init__(self) -> None:
        self.here: Callable[[], object]
        if on_asyncio():
            loop = asyncio.get_running_loop()
            self.here, self._runs = _get_running_loop, loop.is_running
        else:  # trio: a loop is a thread's as long as it runs
            self.here, self._runs = _thread_outside, lambda: True
        self.door: object = self.here()
        self._loop = self.door
        self._thread = threading.get_ident()
        self._wake = thread_waker(self._take)
        self._errands: deque[_Errand[Any]] = deque()
        self._dropped: deque[_Errand[Any]] = deque()
        self._tasks: TaskGroup | None = None

    def is_elsewhere(self) -> bool:
        """Whether the code that asks runs on another loop.

        Raises:
            NonDurableAwaitError: it is an orchestration's.
        """
        if self.here() == self._loop:
            return False
        refuse_inside()
        return True

    @property
    def is_shut(self) -> bool:
        """Whether nobody is at home any more."""
        return self.door is _SHUT

    def close(self) -> None:
        """Let in nobody any more."""
        self.door = _SHUT

    async def serve(self, then: Callable[[], Awaitable[None]]) -> None:
        """Do what other loops ask for until ``then`` has returned; nobody is at home afterwards."""
        failed: Exception | None = None
        try:
            async with TaskGroup() as self._tasks:
                try:
                    await then()
                except Exception as error:
                    failed = error  # it comes out as it is, and not in a group
                finally:
                    self.close()
                    # What is still under way has been answered by now, or never will be.
                    self._tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            self.close()
            self._take()
        if failed is not None:
            raise failed

    def _take(self) -> None:
        while self._errands:
            errand = self._errands.popleft()
            if self._tasks is None or self.is_shut:
                errand.error = _gone()
                errand.tell()
            else:
                self._tasks.start_soon(self._do, errand)
        while self._dropped:
            scope = self._dropped.popleft().scope
            if scope is not None:
                scope.cancel()

    async def _do(self, errand: _Errand[Any]) -> None:
        try:
            with anyio.CancelScope() as errand.scope:
                if not errand.is_dropped:
                    errand.error = OutcomeUnknownError(
                        "the hub has stopped before this was answered: it may have been applied; "
                        "repeat it under the same request id"
                    )
                    errand.answer = await errand.ask()
                    errand.error = None
        except Exception as error:
            errand.error = error
        finally:
            errand.tell()

    async def fetch(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Have something done at home, from another loop, and give its outcome.

        Raises:
            HubStoppingError: nobody is at home.
            NonDurableAwaitError: an orchestration asks.
            UsageError: the loop at home does not run.
        """
        refuse_inside()
        self._check()
        done = event_factory()()
        errand = _Errand(ask, thread_waker(done.set))
        try:
            self._send(errand)
            while not done.is_set():
                with anyio.move_on_after(_LOOK_S):
                    await done.wait()
                if not done.is_set():
                    self._check()
        except BaseException:
            self._drop(errand)
            raise
        return errand.outcome()

    def fetch_blocking(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Have something done at home, for a thread that stands still meanwhile; see ``fetch``.

        Raises:
            HubStoppingError: nobody is at home.
            UsageError: it is the thread of home, or the loop at home does not run.
        """
        refuse_inside()
        if threading.get_ident() == self._thread:
            raise UsageError(
                "the event loop that the hub was entered on runs in this thread, and would stand "
                "still: await the method of the hub itself here, without .sync"
            )
        self._check()
        done = threading.Event()
        errand = _Errand(ask, done.set)
        try:
            self._send(errand)
            while not done.wait(_LOOK_S):
                self._check()
        except BaseException:
            self._drop(errand)
            raise
        return errand.outcome()

    def _send(self, errand: _Errand[Any]) -> None:
        self._errands.append(errand)
        self._wake()
        if self.is_shut:
            with suppress(ValueError):  # then it has been taken, and is answered
                self._errands.remove(errand)
                raise _gone()

    def _drop(self, errand: _Errand[Any]) -> None:
        errand.is_dropped = True
        self._dropped.append(errand)
        self._wake()

    def _check(self) -> None:
        if self.is_shut:
            raise _gone()
        if not self._runs():
            raise UsageError(
                "the event loop that this hub was entered on does not run: use the hub while that "
                "loop runs, and leave it there"
            )


def _thread_outside() -> object:
    """Say which thread this is, unless an orchestration's code runs."""
    return threading.get_ident() if INSIDE.get() is None else None


def refuse_inside() -> None:
    """Refuse what an orchestration's code asks of a client: it would be done at every replay.

    Raises:
        NonDurableAwaitError: it is an orchestration's code that asks.
    """
    if INSIDE.get() is not None:
        raise refuse_use("a client")


def _gone() -> HubStoppingError:
    return HubStoppingError("the hub is stopping or has stopped; repeat it on the next one")


class Abroad:
    """A partition, or its store, as another loop sees it: each request is carried home."""

    def __init__(self, home: Home, place: Any) -> None:
        self._home = home
        self._place = place

    @property
    def store(self) -> Abroad:
        """The partition's store."""
        return Abroad(self._home, self._place.store)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._place, name)
        return lambda *arguments: self._home.fetch(partial(method, *arguments))


class PlacesAbroad(Sequence[Any]):
    """All partitions, as another loop sees them."""

    def __init__(self, home: Home, places: Sequence[Any]) -> None:
        self._home = home
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        return Abroad(self._home, self._places[index])

    def __iter__(self) -> Iterator[Any]:
        return (Abroad(self._home, place) for place in self._places)


def current_task() -> object:
    """Give the task that runs this code."""
    if on_asyncio():
        return asyncio.current_task()
    import trio

    return trio.lowlevel.current_task()


def has_ended(task: object) -> bool:
    """Whether a task of asyncio has ended; trio's end together with what they have entered."""
    return isinstance(task, asyncio.Task) and task.done()
