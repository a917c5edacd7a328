"""Children that a process forks while it runs a hub: they are none of it.

A fork copies the process's memory and shares its open files. What user code does in a child is its
own business. The hub in the copied memory must do nothing: its sockets are closed there, so that a
child which outlives its parent holds nobody's line; and a child that comes back from users' code
to the event loop, or to a thread of the hub, is ended.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

from .waiter import on_asyncio

_sockets: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_loops: Final[dict[object, tuple[int, Callable[[], None]]]] = {}
_unlocks: Final[dict[object, Callable[[], None]]] = {}
_forks = 0


def close_in_children(socket: Any) -> None:
    """Have a socket closed in each child that is forked while it is open."""
    _sockets.add(socket)


@contextmanager
def no_copies() -> Generator[None]:
    """Have a child that is forked meanwhile by code on the running loop end when it comes back."""
    mark = object()
    if on_asyncio():
        loop = asyncio.get_running_loop()

        def end_soon() -> None:
            loop.call_soon(end_child)

    else:
        import trio

        token: Any = trio.lowlevel.current_trio_token()

        async def end() -> None:
            end_child()

        def unlock() -> None:
            # A thread that woke this loop at the fork had its lock, and is not in the child.
            token._reentry_queue.lock = threading.RLock()

        _unlocks[mark] = unlock

        def end_soon() -> None:
            # Not by a token: that wakes the loop through a socket, which the parent reads, too.
            trio.lowlevel.spawn_system_task(end)

    _loops[mark] = (threading.get_ident(), end_soon)
    try:
        yield
    finally:
        _loops.pop(mark, None)
        _unlocks.pop(mark, None)


def forks() -> int:
    """Give how many forks lie between the process that first ran a hub and this one."""
    return _forks


def end_child() -> None:
    """End this process, which is a forked child, and do nothing else."""
    # Nothing of Python's is run: what that would close or remove is the parent's.
    text = (
        f"perdure: process {os.getpid()} was forked by process {os.getppid()}, which runs a hub, "
        "and came back from the code that forked it: it ends here. A child should end with "
        "os._exit(), as those of multiprocessing do\n"
    )
    with suppress(OSError):
        os.write(2, text.encode())
    os._exit(1)


def _leave_to_parent() -> None:
    global _forks
    if not _loops:
        return
    _forks += 1
    for unlock in list(_unlocks.values()):
        with suppress(AttributeError):
            unlock()
    for socket in list(_sockets):
        with suppress(OSError, ValueError):
            handle = socket.detach()
            if handle >= 0:
                os.close(handle)
    _see_no_events()
    here = threading.get_ident()
    for thread, end_soon in list(_loops.values()):
        if thread == here:
            with suppress(RuntimeError):
                end_soon()
    _sockets.clear()
    _unlocks.clear()
    _loops.clear()  # a hub that the child starts for itself is its own


def _see_no_events() -> None:
    """Give the child's copy of an event loop nothing to hear of until it is ended.

    What the loops of the parent wait with is shared: the child would take what wakes them.
    """
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                    with select.epoll() as deaf:
                        os.dup2(deaf.fileno(), int(name), inheritable=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
