"""A line: what one event loop sends to a shard elsewhere, and the answers it gets.

The side that dials asks and tells; answers come back on the same connection. A line that breaks
is dialled again until it is closed. What was on its way then is lost, and that is all right: the
exchange sends again what was not acknowledged, and a request fails with ``LineLostError``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from ...actors.errors import HubStoppingError, UnavailableError
from ...actors.logs import Log
from ..placement.places import LineLostError
from ..scheduling.waiter import Waiter
from .channels import Channel
from .verbs import WITH_MESSAGE, VerbName
from .wire import Item

_log = Log("perdure.lines")

#: Requests that may wait for the answer of one shard, and bytes of their large payloads.
ASKED_MAX = 50_000
ASKED_SIZE_MAX = 64 * 1024 * 1024
_LARGE = 1024

_BACKOFF_S = 0.005
_BACKOFF_MAX_S = 0.25


class Line:
    """The way to one shard.

    Args:
        dial: makes a connection; raises ``OSError`` while that is not possible.
        new_waiter: makes a place for one answer.
        on_up: called whenever the line is up (again), before anything else is sent.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Channel]],
        new_waiter: Callable[[], Waiter],
        on_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._dial = dial
        self._new_waiter = new_waiter
        self._on_up = on_up
        self._channel: Channel | None = None
        self._asked: dict[int, Waiter] = {}
        self._large: dict[int, int] = {}  # bytes of the large ones among these
        self._size = 0
        self._early: list[Item] = []  # what waits for the line
        self._number = 0
        self._closed = False
        self._attempt: anyio.CancelScope | None = None  # one connection, from its dialling on
        self.scope = anyio.CancelScope()

    @property
    def is_up(self) -> bool:
        """Whether it is connected."""
        return self._channel is not None

    @property
    def waiting(self) -> int:
        """How many requests wait for an answer."""
        return len(self._asked)

    @property
    def size(self) -> int:
        """How many bytes the large ones among them have."""
        return self._size

    def post(self, item: Item) -> None:
        """Send an item, or lose it where the line is down."""
        if self._channel is not None:
            self._channel.post(item)

    def post_surely(self, item: Item) -> None:
        """Send an item that nothing would send again, when the line is up."""
        if self._channel is not None:
            self._channel.post(item)
        elif not self._closed:
            self._early.append(item)

    def ask(self, verb: VerbName, *arguments: Any) -> tuple[int, Waiter]:
        """Make a request; gives its number, and the place where its answer will be.

        Raises:
            HubStoppingError: the line is closed.
            UnavailableError: too many wait for an answer.
        """
        if self._closed:
            raise HubStoppingError("the hub is stopping or has stopped; repeat it on the next one")
        if len(self._asked) >= ASKED_MAX or self._size > ASKED_SIZE_MAX:
            raise UnavailableError(
                f"{len(self._asked):,} requests, with {self._size:,} bytes, wait for one shard: "
                "wait for some of them, and repeat it"
            )
        self._number += 1
        if verb in WITH_MESSAGE and arguments[2].size > _LARGE:
            self._large[self._number] = arguments[2].size
            self._size += arguments[2].size
        item: Item = ("ask", self._number, verb, arguments)
        waiter = self._asked[self._number] = self._new_waiter()
        self.post_surely(item)
        return self._number, waiter

    async def call(self, verb: VerbName, *arguments: Any) -> Any:
        """Make a request and give its answer; a caller that is cancelled takes it back.

        Raises:
            LineLostError: the connection broke before the answer came.
            PerdureError: what the other side raised.
        """
        number, waiter = self.ask(verb, *arguments)
        try:
            return await waiter
        finally:
            del waiter  # has the error, if it is one, which leads here by its traceback
            if self._large:
                self._size -= self._large.pop(number, 0)
            if self._asked.pop(number, None) is not None:
                self.post(("drop", number))

    async def run(self) -> None:
        """Keep the line up until it is closed."""
        with self.scope:
            while not self._closed:
                with anyio.CancelScope() as self._attempt:
                    try:
                        await self._run_once()
                    except Exception as error:  # a bug of ours, or a stream that cannot be read
                        _log.error("a line broke, and is dialled again", why=error)
                        await anyio.sleep(_BACKOFF_MAX_S)

    async def _run_once(self) -> None:
        """Keep one connection, from its dialling to its end."""
        channel = await self._connect()
        self._channel = channel
        self._on_up()
        early, self._early = self._early, []
        for item in early:
            if item[0] != "ask" or item[1] in self._asked:
                channel.post(item)
        try:
            await channel.run(self._take)
        finally:
            self._channel = None
            self._lose()

    def expect(self, incarnation: int) -> None:
        """Hear which of the processes that a worker has been is the one that lives.

        A connection to another is given up, even if it looks well: children that a dead process
        had forked may have its end of it open.
        """
        channel = self._channel
        if channel is None or channel.incarnation not in (None, incarnation):
            self.renew()

    def renew(self) -> None:
        """Give the connection up, and dial again."""
        if self._attempt is not None:
            self._attempt.cancel()

    async def _connect(self) -> Channel:
        wait = _BACKOFF_S
        while True:
            try:
                return await self._dial()
            except OSError as error:
                _log.debug("cannot connect yet: %s", error)
            await anyio.sleep(wait)
            wait = min(wait * 2, _BACKOFF_MAX_S)

    def _take(self, items: list[Item]) -> None:
        asked = self._asked
        for kind, number, value in items:
            waiter = asked.pop(number, None)
            if kind != "answer" or waiter is None:
                continue  # nobody waits for it any more
            if isinstance(value, BaseException):
                waiter.fail(value)
            else:
                waiter.set(value)

    def _lose(self) -> None:
        early = {item[1] for item in self._early if item[0] == "ask"}
        lost = [number for number in self._asked if number not in early]
        for number in lost:
            self._asked.pop(number).fail(LineLostError(True))

    def close(self) -> None:
        """End the line; what waits for answers is told so."""
        self._closed = True
        self._lose()
        gone = HubStoppingError("the hub has stopped before this was sent; repeat it")
        asked, self._asked = self._asked, {}
        self._early.clear()
        for waiter in asked.values():
            waiter.fail(gone)
        if self._channel is not None:
            self._channel.close()
        self.scope.cancel()
