"""Members of one hub in threads of one process, each with a loop of its own: quick to start and to kill.

They are asked and hurt as the processes of ``nodes.py`` are, by the same names. What is spoilt of
the network is one member's way to the database, or all ways to a member: nobody can tell here which
thread dials.

* To be killed is to have no network from then on, and no time; what is left is tidied up later.
* To stand still is a loop that does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from perdure import Hub
from tests.cluster.clocks import SkewedClock
from tests.cluster.nodes import GoneError, NodeError, free_port, until
from tests.cluster.proxy import Net

START_S = 30.0
#: Seconds after which one that stands still goes on, whatever the test has come to.
_STILL_MOST_S = 60.0


class ThreadNode:
    """One member, in a thread.

    Attributes:
        was_killed: whether it was.
        failure: what its hub ended with, if not in order.
    """

    def __init__(self, name: str, given: dict[str, Any], cut_off: Callable[[str], None]) -> None:
        self.name = name
        self._given = given
        self._cut_off = cut_off
        self._clock = SkewedClock()
        self._loop = asyncio.new_event_loop()
        self._asked: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._may_go_on = threading.Event()
        self._stop = asyncio.Event()
        self._hub: Hub | None = None
        self._task: asyncio.Task[None] | None = None
        self.was_killed = False
        self._is_stopped = False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_up(self) -> bool:
        """Whether it has neither ended nor been killed."""
        return self._thread.is_alive() and not self.was_killed

    @property
    def is_ready(self) -> bool:
        """Whether it serves, or did so."""
        return self._ready.is_set()

    @property
    def is_asked(self) -> bool:
        """Whether it has been asked something that it has not answered."""
        return bool(self._asked)

    @property
    def stopped_in_order(self) -> bool:
        """Whether its hub ended as it should."""
        return self._is_stopped

    def wait_ready(self, seconds: float = START_S) -> None:
        """Return when its hub serves, or it has ended."""
        until(lambda: self._ready.is_set() or not self.is_up, seconds, lambda: self.name)

    def ask(self, operation: str, /, **arguments: Any) -> Future[Any]:
        """Have this very member do an operation of ``client.ask``; see ``nodes.Node.ask``."""
        answer: Future[Any] = Future()
        with self._lock:
            if self.was_killed or not self._ready.is_set():
                answer.set_exception(GoneError(self.name))
                return answer
            self._asked.add(answer)
        self._call(lambda: self._loop.create_task(self._answer(answer, operation, arguments)))
        return answer

    async def _answer(self, answer: Future[Any], operation: str, given: dict[str, Any]) -> None:
        assert self._hub is not None
        try:
            result = await self._hub.client.ask(operation, given)
        except asyncio.CancelledError:
            self._settle(answer, GoneError(self.name))
            raise
        except Exception as error:
            self._settle(answer, NodeError(type(error).__name__, str(error)))
        else:
            self._settle(answer, result)

    def _settle(self, answer: Future[Any], outcome: Any) -> None:
        # Of one that was killed nothing is heard any more.
        with self._lock:
            if answer not in self._asked:
                return
            self._asked.discard(answer)
        if isinstance(outcome, BaseException):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def kill(self) -> None:
        """Let nothing be heard of it any more, and nothing reach it."""
        with self._lock:
            self.was_killed = True
            asked, self._asked = self._asked, set()
        self._cut_off(self.name)
        for answer in asked:
            answer.set_exception(GoneError(self.name))
        self._may_go_on.set()
        self._call(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        """Let its loop stand still, as a machine that is not given any time."""
        self._may_go_on.clear()
        self._call(lambda: self._may_go_on.wait(_STILL_MOST_S))

    def go_on(self) -> None:
        """Let it go on."""
        self._may_go_on.set()

    def set_clock(self, seconds: float) -> None:
        """Set its clock wrong, by so much."""
        self._clock.skew_s = seconds

    def stop(self, seconds: float = START_S) -> None:
        """Have its hub stop in order: it lets its partitions go.

        Raises:
            AssertionError: it does not.
        """
        self._call(self._stop.set)
        self.join(seconds)
        assert self._is_stopped, f"{self.name} did not stop in order: {self.failure!r}"

    def join(self, seconds: float = START_S) -> None:
        """Wait until its thread has ended.

        Raises:
            AssertionError: it does not.
        """
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self.name} does not end"

    def tail(self) -> str:
        """What it failed with, if it did."""
        return f"{self.name}: {self.failure!r}"

    def _call(self, work: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:  # its loop has ended
            with self._lock:
                asked, self._asked = self._asked, set()
            for answer in asked:
                answer.set_exception(GoneError(self.name))

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            # One that was killed may fail as it likes.
            if not self.was_killed:
                self.failure = error
                logging.getLogger("nemesis").exception("%s failed", self.name)

    async def _serve(self) -> None:
        self._task = asyncio.current_task()
        if self.was_killed:
            return
        given = dict(self._given)
        hub = self._hub = Hub(given.pop("app"), clock=self._clock, **given)
        try:
            async with hub:
                self._ready.set()
                await self._stop.wait()
        finally:
            with self._lock:
                asked, self._asked = self._asked, set()
            for answer in asked:
                answer.set_exception(GoneError(self.name))
        self._is_stopped = True


class ThreadCluster:
    """Members on one database, in threads, with proxies before each; used as ``RealCluster`` is.

    Args:
        place: the hub's store, as ``postgresql://...``.
        given: more of what their hubs are made of.
    """

    def __init__(self, place: str, **given: Any) -> None:
        self.place = place
        self.nodes: list[ThreadNode] = []
        self.net = Net()
        self._given = given

    def __enter__(self) -> Self:
        self.net.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            if node.is_up:
                node.kill()
        for node in self.nodes:
            node.join()
        self.net.__exit__(kind, error, trace)

    def start(self, count: int = 1, *, wait: bool = True) -> list[ThreadNode]:
        """Start some more members, and wait until they serve."""
        started = [self._start() for _ in range(count)]
        if wait:
            for node in started:
                node.wait_ready()
        return started

    def _start(self) -> ThreadNode:
        name = f"n{len(self.nodes)}"
        parts = urlsplit(self.place)
        assert parts.hostname is not None, "a proxy leads to a host only"
        database = self.net.proxy(f"{name}'s database", parts.hostname, parts.port or 5432)
        who, at, _ = parts.netloc.rpartition("@")
        listening = free_port()
        dialled = self.net.proxy(name, "127.0.0.1", listening)
        words = {
            "store": urlunsplit(parts._replace(netloc=f"{who}{at}127.0.0.1:{database}")),
            "node_listen": f"127.0.0.1:{listening}",
            "node_address": f"127.0.0.1:{dialled}",
            **self._given,
        }
        node = ThreadNode(name, words, self._cut_off)
        self.nodes.append(node)
        return node

    def _cut_off(self, name: str) -> None:
        for target in (name, f"{name}'s database"):
            self.net.withdraw(target)
            self.net.reset("?", target)

    def move_database(self, place: str) -> None:
        """Have the database be somewhere else from now on: what was open breaks."""
        parts = urlsplit(place)
        assert parts.hostname is not None
        self.place = place
        for node in self.nodes:
            self.net.redirect(f"{node.name}'s database", parts.hostname, parts.port or 5432)
            self.net.reset("?", f"{node.name}'s database")

    def to_database(self, node: ThreadNode) -> tuple[str, str]:
        """Name the edge between a member and the database."""
        return "?", f"{node.name}'s database"

    def between(self, one: ThreadNode, other: ThreadNode) -> list[tuple[str, str]]:
        """Name the edges by which two reach each other, and others reach them."""
        return [("?", one.name), ("?", other.name)]
