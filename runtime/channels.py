"""Two-way, ordered connections between event loops: in one process, or over Unix sockets.

What is posted in one turn of the loop travels together: one wake-up and one system call for all
of it, which is most of what a message between loops costs.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio.abc import ByteStream, SocketListener, TaskGroup

from ..actors.errors import UsageError
from .waiting import thread_waker
from .wire import Item, Splitter, encode

OnItems = Callable[[list[Item]], None]

_CHUNK = 256 * 1024


class Channel(Protocol):
    """One end of a connection."""

    def post(self, item: Item) -> None:
        """Send an item, at the end of this turn of the loop. What is posted after the end is lost."""
        ...

    async def run(self, on_items: OnItems) -> None:
        """Carry items both ways until the connection ends."""
        ...

    def close(self) -> None:
        """End the connection, once what was posted is sent."""
        ...


class _Outbox:
    """What was posted and is not on its way yet."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._gate = anyio.Event()
        self._closing = False

    def post(self, item: Item) -> None:
        self._items.append(item)
        self._gate.set()

    def close(self) -> None:
        self._closing = True
        self._gate.set()

    async def take(self) -> list[Item] | None:
        """Give what has gathered; None when nothing will any more."""
        while not self._items:
            if self._closing:
                return None
            self._gate = anyio.Event()
            await self._gate.wait()
        items, self._items = self._items, []
        return items


class SocketChannel:
    """A channel over a stream of bytes."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._outbox = _Outbox()
        self.post = self._outbox.post
        self.close = self._outbox.close

    async def run(self, on_items: OnItems) -> None:
        """Carry items both ways until either side ends it."""
        async with self._stream, anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, tasks)
            splitter = Splitter()
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    on_items(splitter.feed(await self._stream.receive(_CHUNK)))
            tasks.cancel_scope.cancel()

    async def _write(self, tasks: TaskGroup) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            while (items := await self._outbox.take()) is not None:
                await self._stream.send(encode(items))
        tasks.cancel_scope.cancel()


class LoopChannel:
    """A channel between two event loops of one process; items cross as they are."""

    def __init__(self) -> None:
        self._outbox = _Outbox()
        self.post = self._outbox.post
        self.close = self._outbox.close
        self._inbox: deque[Item] = deque()
        self._ended = False
        self._wake: Callable[[], None] | None = None
        self.other: LoopChannel = self

    async def run(self, on_items: OnItems) -> None:
        """Carry items both ways until either side ends it."""
        async with anyio.create_task_group() as tasks:

            def take() -> None:
                items: list[Item] = []
                while self._inbox:  # the other loop may be adding to it
                    items.append(self._inbox.popleft())
                if items:
                    on_items(items)
                if self._ended:
                    tasks.cancel_scope.cancel()

            self._wake = thread_waker(take)
            take()
            try:
                while (items := await self._outbox.take()) is not None:
                    self.other.give(items)
            finally:
                self.other.end()

    def give(self, items: list[Item]) -> None:
        """Hand items over, from the other loop."""
        self._inbox.extend(items)
        if self._wake is not None:
            self._wake()

    def end(self) -> None:
        """Let this side end, from the other loop."""
        self._ended = True
        if self._wake is not None:
            self._wake()


def loop_channels() -> tuple[LoopChannel, LoopChannel]:
    """Make the two ends of a channel between loops."""
    one, other = LoopChannel(), LoopChannel()
    one.other, other.other = other, one
    return one, other


def check_socket(path: Path) -> Path:
    """Give a socket's path back if the operating system takes one of its length.

    Raises:
        UsageError: it is too long.
    """
    limit = 107 if sys.platform == "linux" else 103  # sun_path, less its closing zero byte
    size = len(os.fsencode(path))
    if size > limit:
        raise UsageError(
            f"the socket path {path} is {size} bytes long, and the system takes {limit}: give the "
            "hub a shorter folder for its sockets with sockets=..."
        )
    return path


async def listen(path: Path) -> SocketListener:
    """Listen at a path that only this user may connect to; a stale socket there is replaced."""
    await anyio.Path(path).unlink(missing_ok=True)
    return await anyio.create_unix_listener(path, mode=0o600, backlog=128)


async def dial(path: Path) -> SocketChannel:
    """Connect to a path.

    Raises:
        OSError: nobody listens there.
    """
    return SocketChannel(await anyio.connect_unix(path))


async def serve(listener: SocketListener, on_channel: Callable[[Channel], Awaitable[Any]]) -> None:
    """Give each connection that comes in to ``on_channel``, for ever."""

    async def handle(stream: ByteStream) -> None:
        await on_channel(SocketChannel(stream))

    async with listener:
        await listener.serve(handle)
