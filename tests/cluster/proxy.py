"""A network that a test can spoil: TCP proxies before each edge, between whom the test names.

Each proxy leads to one *target* by its name, and finds out which process a connection comes from,
so that what is spoilt is one edge: ``net.hold("a", "b")`` and not all that reaches ``b``. What is
forwarded is forwarded whole and in order, as by TCP: what is held comes later, and what is lost
takes its connection along when the edge is mended.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")

Way = Literal["both", "there", "back"]
"""Which direction of an edge: what the one who dialled sends, or what it gets."""

CAN_TELL = Path("/proc/net/tcp").exists()
"""Whether this system says which process a connection comes from."""

_CHUNK = 65_536
_HELLO_MAX = 1_000


class Edge:
    """What happens to connections from one process to one target.

    Attributes:
        delay_s: seconds that everything takes longer, each way.
        held: the directions in which nothing goes on, until that is mended.
        lost: the directions in which everything vanishes.
        lost_of: what a connection has said near its beginning if it is one that loses things.
        is_refused: whether new connections are reset at once.
        is_mute: whether new connections are taken and lead nowhere, as if the host were gone.
        connections: how many are open.
        opened: how many there ever were.
        forwarded: bytes, by direction.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.held: set[Way] = set()
        self.lost: set[Way] = set()
        self.lost_of = b""
        self.is_refused = False
        self.is_mute = False
        self.opened = 0
        self.forwarded: dict[Way, int] = {"there": 0, "back": 0}
        self.pairs: set[_Pair] = set()
        self.changed = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self.pairs)

    @property
    def has_lost(self) -> bool:
        """Whether one that is open has lost something."""
        return any(pair.has_lost for pair in tuple(self.pairs))

    def tell(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class _Pair:
    """One connection: from who dialled, and on to the target."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.hello = b""  # what who dialled said first
        self.has_lost = False

    def reset(self) -> None:
        for writer in (self.near, self.far):
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with suppress(OSError):  # it may be closed already
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _ways(way: Way) -> set[Way]:
    return {"there", "back"} if way == "both" else {way}


class Net:
    """All proxies of a test, on a loop in a thread of their own.

    Its methods may be called from any other thread; what they ask is done when they return.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._edges: dict[tuple[str, str], Edge] = {}
        self._processes: dict[int, str] = {}
        self._listeners: dict[str, socket.socket] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._accepted: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ask(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def proxy(self, target: str, host: str, port: int) -> int:
        """Lead to a target, by a port of 127.0.0.1 that this gives."""
        return self._do(lambda: self._listen(target, (host, port)))

    def redirect(self, target: str, host: str, port: int) -> None:
        """Have a target be somewhere else from now on, for new connections."""
        self._do(lambda: self._places.update({target: (host, port)}))

    def withdraw(self, target: str) -> None:
        """Refuse new connections to a target as a kernel does on which nobody listens any more."""
        self._do(lambda: self._withdraw(target))

    def know(self, source: str, process: int) -> None:
        """Say which process it is that connections come from; others are ``"?"``."""
        self._do(lambda: self._processes.update({process: source}))

    def edge(self, source: str, target: str) -> Edge:
        """What happens between two, to be read only; there is one from the first call on."""
        return self._edges.setdefault((source, target), Edge())

    def delay(self, source: str, target: str, seconds: float) -> None:
        """Have everything between two take longer, each way."""
        self._change(source, target, lambda edge: setattr(edge, "delay_s", seconds))

    def hold(self, source: str, target: str, way: Way = "both") -> None:
        """Let nothing on between two until that is mended: a cable that was pulled."""
        self._change(source, target, lambda edge: edge.held.update(_ways(way)))

    def lose(self, source: str, target: str, way: Way = "both", *, of: bytes = b"") -> None:
        """Let vanish what one says to the other, as of now: answers that are lost, if ``back``.

        Args:
            source: who dialled.
            target: whom.
            way: in which direction.
            of: what those connections have said first that lose anything.
        """

        def lose(edge: Edge) -> None:
            edge.lost.update(_ways(way))
            edge.lost_of = of

        self._change(source, target, lose)

    def refuse(self, source: str, target: str) -> None:
        """Reset new connections."""
        self._change(source, target, lambda edge: setattr(edge, "is_refused", True))

    def mute(self, source: str, target: str) -> None:
        """Let new connections lead nowhere."""
        self._change(source, target, lambda edge: setattr(edge, "is_mute", True))

    def reset(self, source: str, target: str) -> int:
        """Reset all connections between two; gives how many there were."""
        edge = self.edge(source, target)
        return self._do(lambda: _reset_all(list(edge.pairs)))

    def mend(self, source: str, target: str) -> None:
        """Have all be well again between two; a connection that has lost something is reset."""
        edge = self.edge(source, target)

        def mend() -> None:
            edge.delay_s = 0.0
            edge.held.clear()
            edge.lost.clear()
            edge.lost_of = b""
            edge.is_refused = edge.is_mute = False
            _reset_all([pair for pair in edge.pairs if pair.has_lost])
            edge.tell()

        self._do(mend)

    def mend_all(self) -> None:
        """Have all be well again."""
        for source, target in list(self._edges):
            self.mend(source, target)

    def _change(self, source: str, target: str, change: Callable[[Edge], object]) -> None:
        edge = self.edge(source, target)

        def apply() -> None:
            change(edge)
            edge.tell()

        self._do(apply)

    def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _do(self, work: Callable[[], T]) -> T:
        async def do() -> T:
            return work()

        return self._ask(do())

    def _listen(self, target: str, place: tuple[str, int]) -> int:
        # asyncio's own server leaks what it accepts while it is being closed.
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        listener.setblocking(False)
        self._places[target] = place

        def accept() -> None:
            with suppress(BlockingIOError):
                near, _ = listener.accept()
                near.setblocking(False)
                self._accepted.add(near)
                task = self._loop.create_task(self._serve(near, target))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        self._loop.add_reader(listener, accept)
        self._listeners[target] = listener
        own: int = listener.getsockname()[1]
        return own

    def _withdraw(self, target: str) -> None:
        listener = self._listeners.pop(target, None)
        if listener is not None:
            self._loop.remove_reader(listener)
            listener.close()

    async def _serve(self, near: socket.socket, target: str) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, near)
        self._accepted.discard(near)
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            await self._carry(target, reader, writer)
        finally:
            _reset(writer)

    async def _close(self) -> None:
        for target in list(self._listeners):
            self._withdraw(target)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)  # what is reset closes a step later
        for near in self._accepted:
            near.close()

    async def _carry(
        self,
        target: str,
        near: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        edge = self.edge(self._source_of(writer), target)
        edge.opened += 1
        if edge.is_refused:
            _reset(writer)
            return
        while edge.is_mute:
            await edge.changed.wait()
        try:
            far, onward = await asyncio.open_connection(*self._places[target])
        except OSError:
            _reset(writer)  # as the target would
            return
        pair = _Pair(writer, onward)
        edge.pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_forward(edge, pair, near, onward, "there"))
                ways.create_task(_forward(edge, pair, far, writer, "back"))
        except* OSError:
            pass  # one of them has reset it, so the other gets a reset as well
        finally:
            pair.reset()
            edge.pairs.discard(pair)

    def _source_of(self, writer: asyncio.StreamWriter) -> str:
        known = self._processes
        port: int = writer.get_extra_info("peername")[1]
        own: int = writer.get_extra_info("sockname")[1]
        inode = _inode(port, own)
        for process, source in known.items():
            if inode is not None and _has_open(process, inode):
                return source
        return "?"


async def _forward(
    edge: Edge,
    pair: _Pair,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    way: Way,
) -> None:
    # What is delayed is on its way beside what comes behind it, and arrives in its order.
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

    async def read() -> None:
        while data := await reader.read(_CHUNK):
            if way == "there" and len(pair.hello) < _HELLO_MAX:
                pair.hello += data[:_HELLO_MAX]
            await queue.put((loop.time(), data))
        await queue.put((loop.time(), b""))

    async def write() -> None:
        while True:
            came, data = await queue.get()
            while way in edge.held or came + edge.delay_s > loop.time():
                changed = edge.changed
                wait = None if way in edge.held else came + edge.delay_s - loop.time()
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), wait)
            if way in edge.lost and edge.lost_of in pair.hello:
                pair.has_lost = True
                if not data:
                    await asyncio.Event().wait()  # not even that it ended is heard
                continue
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            edge.forwarded[way] += len(data)
            await writer.drain()

    async with asyncio.TaskGroup() as both:
        both.create_task(read())
        both.create_task(write())


def _reset_all(pairs: list[_Pair]) -> int:
    for pair in pairs:
        pair.reset()
    return len(pairs)


def _inode(port: int, peer: int) -> str | None:
    """Find the socket of who dialled, in the kernel's table."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1][-4:], 16) == port and int(fields[2][-4:], 16) == peer:
            return fields[9]
    return None


def _has_open(process: int, inode: str) -> bool:
    wanted = f"socket:[{inode}]"
    with suppress(OSError):  # it may be gone
        for number in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{process}/fd/{number}") == wanted:
                    return True
    return False
