"""Two-way, ordered connections between event loops: in one process, or over Unix sockets.

What is posted in one turn of the loop travels together: one wake-up and one system call for all
of it, which is most of what a message between loops costs.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import SocketAttribute, SocketListener, SocketStream

from ...actors.errors import InternalError, UsageError
from ...actors.logs import Log
from ..scheduling.forks import close_in_children
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.waiter import thread_waker
from .sockets import LENGTH_MAX
from .wire import Item, Splitter, encode

if TYPE_CHECKING:
    from ..scheduling.keeper import Keeper

C = TypeVar("C")

_log = Log("perdure.lines")

OnItems = Callable[[list[Item]], None]

_CHUNK = 256 * 1024
#: Bytes that a frame may have before a greeting was taken.
_GREETING_SIZE_MAX = 64 * 1024
#: Answers that gather before no more requests are read.
POSTED_MAX = 1_000
#: Seconds that a client may leave answers unread.
STALL_S = 60.0

#: For this user alone. To connect takes no right to execute: that says whose socket it is, also of
#: one whose process does not answer any more.
_HUB_MODE = 0o600
_SHARD_MODE = 0o700

#: Seconds for a greeting and its answer; a loop that is blocked for longer is dialled again.
_GREETING_S = 5.0


class Channel(Protocol):
    """One end of a connection.

    Attributes:
        incarnation: which of the processes that a worker has been is at the other end; None where
            that is this process.
    """

    incarnation: int | None

    def post(self, item: Item) -> None:
        """Send an item, at the end of this turn of the loop. What is posted after the end is lost."""
        ...

    def take_requests(self, size_max: int) -> None:
        """Be the side that is asked, in frames of so many bytes at most.

        It does not read on while its answers are not taken, and ends where that lasts. The asking
        side reads always: else both could wait for each other.
        """
        ...

    async def sent(self) -> None:
        """Return when what was posted up to now is on its way."""
        ...

    async def run(self, on_items: OnItems) -> None:
        """Carry items both ways until the connection ends."""
        ...

    def close(self) -> None:
        """End the connection, once what was posted is sent."""
        ...


class Outbox:
    """What was posted and is not on its way yet."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._gate = anyio.Event()
        self._closing = False
        self._taken = self._under_way = 0
        self._progress: anyio.Event | None = None  # where somebody waits for it

    def post(self, item: Item) -> None:
        """Have an item sent with what gathers."""
        self._items.append(item)
        self._gate.set()

    def close(self) -> None:
        """Take no more, once what has gathered is on its way."""
        self._closing = True
        self._gate.set()

    def __len__(self) -> int:
        """How much has gathered."""
        return len(self._items)

    @property
    def is_congested(self) -> bool:
        """Whether more gathers than the other side takes."""
        return len(self._items) > POSTED_MAX

    async def take(self) -> list[Item] | None:
        """Give what has gathered, when the last of it is on its way; None for nothing any more."""
        self._taken += self._under_way
        self._under_way = 0
        self._tell()
        while not self._items:
            if self._closing:
                return None
            self._gate = anyio.Event()
            await self._gate.wait()
        items, self._items = self._items, []
        self._under_way = len(items)
        return items

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress.set()
            self._progress = None

    async def sent(self) -> None:
        """Return when what was posted up to now is on its way."""
        last = self._taken + self._under_way + len(self._items)
        while self._taken < last:
            if self._progress is None:
                self._progress = anyio.Event()
            await self._progress.wait()


class SocketChannel:
    """A channel over a connected socket.

    Whoever dials a shard greets it first: with the run of the hub that he means, so that nobody
    takes the workers of an earlier run for this one's, and, if he is of the hub, with its secret.

    Attributes:
        stream: the socket.
    """

    def __init__(self, stream: SocketStream) -> None:
        self.incarnation: int | None = None
        self._splitter = Splitter()
        self._early: list[Item] = []  # what came right behind a greeting
        self.stream = stream
        # Read and written by hand: a stream of anyio that is cancelled in the very turn in which
        # data comes has asyncio report an error that is none.
        self._socket = stream.extra(SocketAttribute.raw_socket)
        close_in_children(self._socket)
        self._outbox = Outbox()
        self._is_asked = False
        self.post = self._outbox.post
        self.close = self._outbox.close
        self.sent = self._outbox.sent

    def take_requests(self, size_max: int) -> None:
        """Be the side that is asked: read no more than what is answered."""
        self._is_asked = True
        self._splitter.size_max = size_max

    async def run(self, on_items: OnItems) -> None:
        """Carry items both ways until either side ends it."""
        async with self.stream, TaskGroup() as tasks:
            tasks.start_soon(self._write, tasks)
            if self._early:
                early, self._early = self._early, []
                on_items(early)
            while data := await self._receive():
                try:
                    items = self._splitter.feed(data)
                except InternalError as error:
                    # Whoever sent it gets no more; all others must not suffer from it.
                    _log.error("a connection ends: %s", error)
                    break
                on_items(items)
                await anyio.lowlevel.checkpoint()
                while self._is_asked and self._outbox.is_congested:
                    await self._outbox.sent()
            tasks.cancel_scope.cancel()

    async def greet(self, run: str, secret: str | None) -> None:
        """Say who dials, and hear that he is expected.

        Raises:
            OSError: he is not, or nobody answers: it is another run's shard, or what a dead
                process left.
        """
        try:
            with anyio.fail_after(_GREETING_S):
                await self._send(encode([("hello", run, secret)]))
                welcome = await self._first()
            if welcome is None or welcome[0] != "welcome":
                raise ConnectionRefusedError("the shard is another run's, or ends")
        except BaseException:
            await anyio.aclose_forcefully(self.stream)
            raise
        self.incarnation = welcome[1]

    async def is_greeted(self, run: str, secret: str, incarnation: int) -> bool | None:
        """Take a greeting; gives whether it was one of the hub's own, None if it is not for us.

        One that is not for us ends the connection.
        """
        hello = None
        with anyio.move_on_after(_GREETING_S):
            with suppress(InternalError, OSError):
                hello = await self._first()
        if hello is None or hello[0] != "hello" or hello[1] != run:
            if hello is None or hello[0] != "hello":
                _log.error("a connection ends: it did not begin with a greeting")
            await anyio.aclose_forcefully(self.stream)
            return None
        self.post(("welcome", incarnation))
        return isinstance(hello[2], str) and compare_digest(hello[2].encode(), secret.encode())

    async def _first(self) -> Item | None:
        """Give the first item that comes; None where the connection ends before."""
        while data := await self._receive():
            items = self._splitter.feed(data)
            if items:
                self._early += items[1:]
                return items[0]
        return None

    async def _receive(self) -> bytes:
        """Give what has come; nothing when the connection has ended."""
        while True:
            try:
                return self._socket.recv(_CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except OSError:
                return b""

    async def _write(self, tasks: TaskGroup) -> None:
        with suppress(OSError):
            while (items := await self._outbox.take()) is not None:
                await self._send(encode(items))
        tasks.cancel_scope.cancel()

    async def _send(self, frames: bytes) -> None:
        data = memoryview(frames)
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                await self._wait_writable()

    async def _wait_writable(self) -> None:
        if not self._is_asked:
            await anyio.wait_writable(self._socket)
            return
        with anyio.move_on_after(STALL_S) as waited:
            await anyio.wait_writable(self._socket)
        if waited.cancelled_caught:
            _log.error("a connection ends: its answers have not been read for %g seconds", STALL_S)
            raise TimeoutError


class LoopChannel:
    """A channel between two event loops of one process; items cross as they are."""

    def __init__(self) -> None:
        self.incarnation: int | None = None
        self._outbox = Outbox()
        self.post = self._outbox.post
        self.close = self._outbox.close
        self.sent = self._outbox.sent
        self._inbox: deque[Item] = deque()
        self._ended = False  # by the other side
        self._done = False
        self._wake: Callable[[], None] | None = None
        self.other: LoopChannel = self

    async def run(self, on_items: OnItems) -> None:
        """Carry items both ways until either side ends it."""
        async with TaskGroup() as tasks:

            def take() -> None:
                if self._done:
                    return
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
                self._done = True
                self.other.end()

    def take_requests(self, size_max: int) -> None:
        """Do nothing: a loop of this process takes what it is sent, and asks within bounds."""

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
    size = len(os.fsencode(path))
    if size > LENGTH_MAX:
        raise UsageError(
            f"the socket path {path} is {size} bytes long, and the system takes {LENGTH_MAX}: give "
            "the hub another with socket=..., or leave that out"
        )
    return path


async def check_free(path: Path, *, of_shard: bool = False) -> None:
    """Check that a hub may listen at a path: nothing is there, or a socket that nobody serves.

    Args:
        path: where.
        of_shard: whether it is the place of a shard's socket. One that a shard of an earlier run
            still has open there, a worker that outlives its supervisor, say, is in nobody's way.

    Raises:
        UsageError: another hub listens there, or what is there is no socket; it stays as it is.
    """
    try:
        found = await anyio.Path(path).lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"a hub cannot listen at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no socket"
        raise UsageError(
            f"a hub cannot listen at {path}: what is there is {kind}, and stays; give the hub a "
            "path of its own with socket=..."
        )
    if of_shard and stat.S_IMODE(found.st_mode) == _SHARD_MODE:
        return
    if await _is_served(path):
        raise UsageError(f"another hub listens at {path}; give this one a socket of its own")


async def _is_served(path: Path) -> bool:
    try:
        stream = await anyio.connect_unix(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EPROTOTYPE):
            return True  # somebody who is busy, or who expects something else
        raise UsageError(f"a hub cannot listen at {path}: {error.strerror}") from error
    async with stream:
        return _is_running(_listening_process(stream))


def _listening_process(stream: SocketStream) -> int:
    """Give the process that began to listen, 0 where the system does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return 0
    raw = stream.extra(SocketAttribute.raw_socket)
    return int(struct.unpack("3i", raw.getsockopt(socket.SOL_SOCKET, option, 12))[0])


def _is_running(process: int) -> bool:
    # A child that a dead hub had forked may still have its socket open, and serves nobody.
    if not process:
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


async def listen(path: Path, *, of_shard: bool = True) -> SocketListener:
    """Listen at a path that only this user may connect to; a stale socket there is replaced.

    Args:
        path: where.
        of_shard: whether it is a shard's socket, and not that of a hub.

    Raises:
        UsageError: another hub listens there, it is no socket's place, or nobody can.
    """
    await check_free(path, of_shard=of_shard)
    mode = _SHARD_MODE if of_shard else _HUB_MODE
    try:
        await anyio.Path(path).unlink(missing_ok=True)
        listener = await anyio.create_unix_listener(path, mode=mode, backlog=128)
    except OSError as error:
        raise UsageError(f"a hub cannot listen at {path}: {error.strerror}") from error
    close_in_children(listener.extra(SocketAttribute.raw_socket))
    return listener


async def remove_socket(path: Path) -> None:
    """Remove a socket; anything else that is at its place by now stays."""
    with suppress(OSError):
        if stat.S_ISSOCK((await anyio.Path(path).lstat()).st_mode):
            await anyio.Path(path).unlink()


async def dial(path: Path) -> SocketChannel:
    """Connect to a path.

    Raises:
        OSError: nobody listens there.
    """
    return SocketChannel(await anyio.connect_unix(path))


async def dial_shard(path: Path, run: str, secret: str | None = None) -> SocketChannel:
    """Connect to a shard of a run of a hub.

    Raises:
        OSError: nobody listens there, or only another run's shard does.
    """
    channel = await dial(path)
    await channel.greet(run, secret)
    return channel


async def serve(
    listener: SocketListener,
    on_channel: Callable[[SocketChannel], Awaitable[Any]],
    keeper: Keeper,
) -> None:
    """Give each connection that comes in to ``on_channel``, for ever."""

    async def handle(stream: SocketStream) -> None:
        channel = SocketChannel(stream)
        channel.take_requests(_GREETING_SIZE_MAX)  # until it is known who that is
        await contain(on_channel, channel)

    async def take() -> None:
        while True:
            tasks.start_soon(handle, await listener.accept())

    async with listener, TaskGroup() as tasks:
        # The system may refuse one more connection, for too many files that are open, say.
        await keeper.persist("the taking of connections", take)


async def contain(on_channel: Callable[[C], Awaitable[Any]], channel: C) -> None:
    """Serve a channel: what goes wrong there ends it, and nothing else."""
    try:
        await on_channel(channel)
    except* Exception as errors:
        # Whoever sends what makes no sense must not end anything but the connection.
        _log.error("ended a connection: %s", errors.exceptions[0])
