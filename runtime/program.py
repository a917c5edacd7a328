"""Runs a hub as a program of its own, until a signal says that it should stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio

from ..actors.arguments import choice, flag, optional_flag, refusal
from ..actors.logs import Log
from .hub import Hub, store_of
from .scheduling.hidden_tasks import hold
from .scheduling.interpreter import tune
from .scheduling.loop_kinds import backend_options
from .scheduling.waiter import thread_waker
from .transport.sockets import folder_of, has_sockets, own_socket

if TYPE_CHECKING:
    from pathlib import Path

    from ..actors.registry.app import App
    from ..storage import Store
    from .observer import Observer, TraceObserver
    from .settings import Settings

_log = Log("perdure.hub")


def run(
    app: App | str,
    *,
    store: str | Path | Store = "memory:",
    partitions: int | None = None,
    shards: int = 1,
    workers: int = 0,
    socket: str | Path | None = None,
    settings: Settings | None = None,
    observer: Observer | TraceObserver | str | None = None,
    node_listen: str | None = None,
    node_address: str | None = None,
    node_key: bytes | str | Path | None = None,
    node_http: str | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
    uvloop: bool | None = None,
    tuned: bool = True,
    on_ready: Callable[[Hub], None] | None = None,
    beside: Callable[[Hub], AbstractAsyncContextManager[object]] | None = None,
) -> None:
    """Run a hub in this thread, the main one, until SIGINT or SIGTERM; then drain it and return.

    A second signal ends the process at once, also while code of users keeps the event loop. That
    loses nothing: what was under way goes on when a hub next opens the store.

    Args:
        app: the application, or where it is: ``"module:name"``, looked for from the current
            folder as well.
        store: ``memory:``, ``sqlite:PATH`` (a folder), the folder as a ``Path``,
            ``postgresql://...``, or a ``Store``.
        partitions: how many partitions a new store gets; see ``Hub``.
        shards: how many event loops of this process serve them.
        workers: how many processes of their own serve them instead; 0 for none.
        socket: where clients of other processes find the hub; by default ``hub.sock`` in the
            store's folder, if it has one.
        settings: the limits.
        observer: is told of the hub's work, or has it belong to traces; see ``Hub``.
        node_listen: where this process listens for the others that serve the hub; see ``Hub``, as
            for the next three.
        node_address: what the others dial.
        node_key: the key that all of them have, or the file with it.
        node_http: where this process's HTTP API is.
        backend: which event loop.
        uvloop: whether asyncio runs on uvloop; by default where it is installed.
        tuned: whether the interpreter is set up for a hub, see ``perdure.tune``.
        on_ready: called once, with the hub, when it serves.
        beside: called once, with the hub, for what runs beside it on its event loop, such as a
            server: an async context manager, entered when the hub serves, and left before it
            drains.

    Raises:
        UsageError: a bad argument, no such application, or no uvloop.
        StorageError: the store cannot be opened (in use, newer, damaged, ...), or was lost.
    """
    backend = choice(backend, "backend", ("asyncio", "trio"))
    uvloop = optional_flag(uvloop, "uvloop")
    flag(tuned, "tuned")
    if on_ready is not None and not callable(on_ready):
        raise refusal("on_ready", "a function that takes the hub", on_ready)
    if beside is not None and not callable(beside):
        raise refusal("beside", "a function that gives an async context manager", beside)
    made = store_of(store)
    folder = folder_of(made)
    if socket is None and folder is not None and has_sockets():
        socket = own_socket(folder)
    hub = Hub(
        app,
        store=made,
        partitions=partitions,
        shards=shards,
        workers=workers,
        socket=socket,
        settings=settings,
        observer=observer,
        node_listen=node_listen,
        node_address=node_address,
        node_key=node_key,
        node_http=node_http,
    )
    options = backend_options(backend, uvloop)
    if tuned:
        tune()
    with Signals(hub._kill) as signals:  # pyright: ignore[reportPrivateUsage]
        serve = partial(_serve, hub, on_ready, _nothing if beside is None else beside, signals)
        anyio.run(hold, serve, backend=backend, backend_options=options)


class Signals:
    """Takes SIGINT and SIGTERM: the first is waited for, the second ends the process at once.

    By handlers of Python's own, which run between any two instructions of the main thread: those
    of an event loop are called by the loop, and code of users may keep that for ever.

    Args:
        kill: ends the processes that would outlive this one, for as long as they drain.
    """

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill = kill
        self._first: signal.Signals | None = None
        self._wake: Callable[[], None] = lambda: None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for one in (signal.SIGINT, signal.SIGTERM):
            self._before[one] = signal.signal(one, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, signal.SIG_DFL if handler is None else handler)

    def _take(self, number: int, _: object) -> None:
        if self._first is None:
            self._first = signal.Signals(number)
            self._wake()
            return
        # No handler, no clean-up: all that runs may be what keeps the process from ending.
        signal.signal(number, signal.SIG_DFL)
        with suppress(Exception):  # whatever it meets of what it has interrupted
            self._kill()
        os.kill(os.getpid(), number)

    async def wait(self) -> signal.Signals:
        """Give the first that comes, or has come already."""
        come = anyio.Event()
        self._wake = thread_waker(come.set)
        if self._first is None:
            await come.wait()
        assert self._first is not None
        return self._first


@asynccontextmanager
async def _nothing(_: Hub) -> AsyncGenerator[None, None]:
    yield


async def _serve(
    hub: Hub,
    on_ready: Callable[[Hub], None] | None,
    beside: Callable[[Hub], AbstractAsyncContextManager[object]],
    signals: Signals,
) -> None:
    status = 1
    try:
        await _serve_until_told(hub, on_ready, beside, signals)
        status = 0
    finally:
        if hub.left_behind:
            # The loop would wait for it, for ever.
            _log.critical("the process ends although users' code does not")
            sys.stdout.flush()
            os._exit(status)


async def _serve_until_told(
    hub: Hub,
    on_ready: Callable[[Hub], None] | None,
    beside: Callable[[Hub], AbstractAsyncContextManager[object]],
    signals: Signals,
) -> None:
    async with hub:
        if on_ready is not None:
            on_ready(hub)
        async with beside(hub):
            received = await signals.wait()
            _log.info("stopping on %s", received.name)
