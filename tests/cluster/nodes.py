"""Real nodes: processes that serve one hub on a real server, with a proxy before each edge.

    with RealCluster(place, tmp_path) as cluster:
        a, b, c = cluster.start(3)
        a.ask("call", entity="@counter@x", operation="add", input=1).result(10)
        cluster.net.hold(a.name, "database")
        b.kill()

Edges are named by the nodes' names, ``"database"``, and ``"?"`` for whatever is no node, as the
test itself. What a node says is in its log, whose end is told where a wait fails.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit, urlunsplit

import orjson

from perdure.storage import open_store
from perdure.storage.membership import ClusterStore, View
from tests.cluster.proxy import Net

ROOT = Path(__file__).parents[2]
DATABASE = "database"
START_S = 30.0


class NodeError(Exception):
    """What a node answered, if that was an error.

    Attributes:
        kind: the name of the error's class.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class GoneError(Exception):
    """The node ended before it answered: whether it did what was asked is not known."""


class Node:
    """One process that serves the hub.

    Args:
        name: what the test, the net and the log call it.
        given: what its hub is made of.
        folder: for its log.

    Attributes:
        when_gone: called when its process has ended.
        was_killed: whether it was.
    """

    def __init__(self, name: str, given: dict[str, Any], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._answers: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._is_stopped = False
        self.when_gone: Callable[[], None] = lambda: None
        self.was_killed = False
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.node_child", orjson.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[bytes] = self._process.stdin
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name=f"{name}'s answers"
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether its process has not ended, which a stopped one has not."""
        return self._process.poll() is None

    @property
    def is_ready(self) -> bool:
        """Whether it serves, or did so."""
        return self._ready.is_set()

    @property
    def is_asked(self) -> bool:
        """Whether it has been asked something that it has not answered."""
        return any(not answer.done() for answer in list(self._answers.values()))

    @property
    def stopped_in_order(self) -> bool:
        """Whether its hub ended as it should."""
        return self._is_stopped

    def wait_ready(self, seconds: float = START_S) -> None:
        """Return when its hub serves.

        Raises:
            AssertionError: it does not.
        """
        until(lambda: self._ready.is_set() or not self.is_up, seconds, self.tail)
        assert self._ready.is_set(), f"{self.name} ended: {self.tail()}"

    def ask(self, operation: str, /, **arguments: Any) -> Future[Any]:
        """Have this very node do an operation of ``client.ask``.

        The result is what it gives, a ``NodeError``, or a ``GoneError``.
        """
        answer: Future[Any] = Future()
        with self._lock:
            number = len(self._answers)
            self._answers[number] = answer
        self._write({"n": number, "ask": operation, "with": arguments}, answer)
        return answer

    def _write(self, words: dict[str, Any], answer: Future[Any] | None = None) -> None:
        try:
            with self._lock:
                self._stdin.write(orjson.dumps(words) + b"\n")
                self._stdin.flush()
        except (OSError, ValueError):
            if answer is not None and not answer.done():
                answer.set_exception(GoneError(self.name))

    def _read(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                self._take(orjson.loads(line))
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_exception(GoneError(self.name))

    def _take(self, words: dict[str, Any]) -> None:
        if "ready" in words:
            self._ready.set()
        elif "stopped" in words:
            self._is_stopped = True
        elif "error" in words:
            self._answers[words["n"]].set_exception(NodeError(words["error"], words["text"]))
        else:
            self._answers[words["n"]].set_result(words["result"])

    def kill(self) -> None:
        """Kill it, with nothing said and nothing tidied up."""
        self.was_killed = True
        self._process.kill()
        self._end()

    def pause(self) -> None:
        """Let it stand still, as a machine that is not given any time."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def set_clock(self, seconds: float) -> None:
        """Set its clock wrong, by so much."""
        self._write({"skew": seconds})

    def stop(self, seconds: float = START_S) -> None:
        """Have its hub stop in order: it lets its partitions go.

        Raises:
            AssertionError: it does not.
        """
        self._write({"stop": True})
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not stop: {self.tail()}") from None
        self._end()
        assert self._is_stopped, f"{self.name} did not stop in order: {self.tail()}"

    def _end(self) -> None:
        self._process.wait()
        self.when_gone()
        with suppress(OSError):
            self._stdin.close()
        self._reader.join()

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-3_000:]


class RealCluster:
    """Nodes on one database, each with proxies before it.

    Args:
        place: the hub's store, as ``postgresql://...``.
        folder: for the nodes' logs.
        app: what they serve.
        through_proxies: whether each edge can be spoilt.
        given: more of what their hubs are made of.
    """

    def __init__(
        self,
        place: str,
        folder: Path,
        *,
        app: str = "tests.cluster.app:app",
        through_proxies: bool = True,
        **given: Any,
    ) -> None:
        self.place = place
        self.nodes: list[Node] = []
        self.net = Net()
        self._folder = folder
        self._given = {"app": app, **given}
        self._through_proxies = through_proxies
        self._behind = place

    def __enter__(self) -> Self:
        self.net.__enter__()
        parts = urlsplit(self.place)
        if self._through_proxies:
            host, port = parts.hostname, parts.port
            assert host is not None, "a proxy leads to a host only"
            own = self.net.proxy(DATABASE, host, port or 5432)
            who, at, _ = parts.netloc.rpartition("@")
            netloc = f"{who}{at}127.0.0.1:{own}"
            self._behind = urlunsplit(parts._replace(netloc=netloc))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            node.kill()
        self.net.__exit__(kind, error, trace)

    def start(self, count: int = 1, *, wait: bool = True, **given: Any) -> list[Node]:
        """Start some more nodes, and wait until they serve."""
        started = [self._start(given) for _ in range(count)]
        if wait:
            for node in started:
                node.wait_ready()
        return started

    def _start(self, given: dict[str, Any]) -> Node:
        name = f"n{len(self.nodes)}"
        words = {"store": self._behind, **self._given, **given}
        if self._through_proxies:
            listening = free_port()
            dialled = self.net.proxy(name, "127.0.0.1", listening)
            words |= {
                "node_listen": f"127.0.0.1:{listening}",
                "node_address": f"127.0.0.1:{dialled}",
            }
        node = Node(name, words, self._folder)
        self.nodes.append(node)
        if self._through_proxies:
            # A dial is refused then, as without a proxy: members go by that.
            node.when_gone = lambda: self.net.withdraw(name)
        self.net.know(name, node.pid)
        return node

    def cut(self, one: Node, other: Node) -> None:
        """Pull the cable between two nodes."""
        self.net.hold(one.name, other.name)
        self.net.hold(other.name, one.name)

    def to_database(self, node: Node) -> tuple[str, str]:
        """Name the edge between a node and the database."""
        return node.name, DATABASE

    def between(self, one: Node, other: Node) -> list[tuple[str, str]]:
        """Name the edges by which two nodes reach each other."""
        return [(one.name, other.name), (other.name, one.name)]

    async def view(self) -> View:
        """Look into the database, past all proxies: who is a member, and who has what."""
        store = open_store(self.place)
        assert isinstance(store, ClusterStore)
        try:
            return await store.view()
        finally:
            await store.close()

    async def partitions_of(self, node: Node) -> set[int]:
        """Look up what a node has, by what the database says."""
        view = await self.view()
        members = {row.member for row in view.members if row.pid == node.pid}
        return {lease.partition for lease in view.leases if lease.owner in members}


def until(
    holds: Callable[[], bool], seconds: float, why: Callable[[], str] = str, *, rest_s: float = 0.01
) -> None:
    """Wait until something holds that nothing tells of.

    Between two looks it rests, longer where a look is a process of its own.

    Raises:
        AssertionError: it does not.
    """
    end = time.monotonic() + seconds
    while True:
        now = time.monotonic()  # before it is asked: who stands still between the two asks again
        if holds():
            return
        assert now < end, f"not within {seconds:g} s: {why()}"
        time.sleep(rest_s)


@contextmanager
def standing_still(process: int) -> Generator[None]:
    """Let a process and all below it stand still: a database that does not answer."""
    paused = [process, *_below(process)]
    for number in paused:
        with suppress(ProcessLookupError):  # a session may end meanwhile
            os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        for number in paused:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGCONT)


def _below(process: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{process}/task"):
            told = Path(f"/proc/{process}/task/{task}/children").read_text()
            children += map(int, told.split())
    return [found for child in children for found in (child, *_below(child))]


def free_port() -> int:
    """Give a port of this host that nobody has now."""
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        port: int = asking.getsockname()[1]
        return port
