"""A line: what one event loop sends to a shard elsewhere, and the answers it gets.

The side that dials asks and tells; answers come back on the same connection. A line that breaks
is dialled again until it is closed. What was on its way then is lost, and that is all right: the
exchange sends again what was not acknowledged, and a request fails with ``LineLostError``.

A line may have a second way, which it takes while the first is down (``detours.py`` says when). It
is back on the first as soon as that is there; answers to what was asked on the second still come
over that, for a while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio

from ...actors.errors import HubStoppingError, UnavailableError
from ...actors.logs import Log
from ..placement.places import LineLostError
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.waiter import Waiter
from .channels import Channel
from .detours import Outage
from .verbs import WITH_MESSAGE, VerbName
from .wire import Item

_log = Log("perdure.lines")

#: Requests that may wait for the answer of one shard, and bytes of their large payloads.
ASKED_MAX = 50_000
ASKED_SIZE_MAX = 64 * 1024 * 1024
_LARGE = 1024

#: The number of no request: who answers it answers what was asked so far, and does nothing more.
OVER = 0

_BACKOFF_S = 0.005
_BACKOFF_MAX_S = 0.25
#: Seconds for which answers may come over the second way when the first is there again.
LINGER_S = 5.0


class _Way:
    """One connection, and who waits for answers that come over it.

    Attributes:
        is_over: whether the other side has said that it does nothing more of what it is asked.
    """

    __slots__ = ("asked", "channel", "is_over")

    def __init__(self, channel: Channel, asked: dict[int, Waiter]) -> None:
        self.channel = channel
        self.asked = asked
        self.is_over = False

    def lose(self) -> None:
        """Tell those who wait that no answer comes."""
        lost = [*self.asked.values()]
        self.asked.clear()
        for waiter in lost:
            waiter.fail(LineLostError(not self.is_over))


class Line:
    """The way to one shard.

    Args:
        dial: makes a connection; raises ``OSError`` while that is not possible.
        new_waiter: makes a place for one answer.
        on_up: called whenever the line is up (again), before anything else is sent.
        detour: makes a connection the second way; raises ``OSError`` while that is not possible.

    Attributes:
        was_up: whether it is connected, or was so before.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Channel]],
        new_waiter: Callable[[], Waiter],
        on_up: Callable[[], None] = lambda: None,
        detour: Callable[[], Awaitable[Channel]] | None = None,
    ) -> None:
        self._dial = dial
        self._detour = detour
        self._new_waiter = new_waiter
        self._on_up = on_up
        self._channel: Channel | None = None
        self._way: _Way | None = None  # that of the channel
        self._former: _Way | None = None  # over which some answers still come
        self._asked: dict[int, Waiter] = {}  # over the channel, or when there is one
        self.was_up = False
        self._large: dict[int, int] = {}  # bytes of the large ones among these
        self._size = 0
        self._early: list[Item] = []  # what waits for the line
        self._number = 0
        self._closed = False
        self._attempt: anyio.CancelScope | None = None  # one connection, from its dialling on
        self.scope = anyio.CancelScope()
        self._outage: Outage | None = None
        self._changed = anyio.Event()  # whether the first way is up
        self._lingering = anyio.CancelScope()  # of the second way

    @property
    def is_up(self) -> bool:
        """Whether it is connected."""
        return self._channel is not None

    @property
    def waiting(self) -> int:
        """How many requests wait for an answer."""
        return len(self._asked) + (0 if self._former is None else len(self._former.asked))

    @property
    def is_detoured(self) -> bool:
        """Whether it goes the second way."""
        return self._way is not None and self._outage is not None and not self._outage.is_over

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
            elif self._former is not None and self._former.asked.pop(number, None) is not None:
                self._former.channel.post(("drop", number))

    async def run(self) -> None:
        """Keep the line up until it is closed."""
        with self.scope:
            if self._detour is None:
                await self._keep_up()
                return
            self._outage = Outage(anyio.current_time())
            async with TaskGroup() as tasks:
                tasks.start_soon(self._keep_detour, self._detour, self._outage)
                await self._keep_up()
                tasks.cancel_scope.cancel()

    async def _keep_up(self) -> None:
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
        outage = self._outage
        if outage is None:
            await self._serve(channel)
            return
        outage.came_up(anyio.current_time())
        try:
            await self._serve(channel)
        finally:
            outage.broke(anyio.current_time())
            self._changed.set()

    async def _serve(self, channel: Channel) -> None:
        """Have all go over a channel from now on, until that ends."""
        if self._way is not None:
            self._retire(self._way)
        way = self._way = _Way(channel, self._asked)
        self._channel = channel
        self.was_up = True
        self._on_up()
        early, self._early = self._early, []
        for item in early:
            if item[0] != "ask" or item[1] in self._asked:
                channel.post(item)
        try:
            await channel.run(partial(self._take, way))
        finally:
            if self._way is way:
                self._way = self._channel = None
            elif self._former is way:
                self._former = None
            way.lose()

    # The second way.

    async def _keep_detour(self, dial: Callable[[], Awaitable[Channel]], outage: Outage) -> None:
        """Go the second way whenever the first has been down for long."""
        while True:
            await self._wait_for_outage(outage)
            try:
                channel = await dial()
                if self._way is None:
                    outage.detour_served()
                    with anyio.CancelScope() as self._lingering:
                        await self._serve(channel)
                else:  # the first has come up meanwhile
                    channel.close()
                    await channel.run(_ignore)
            except OSError as error:
                _log.debug("cannot go the second way yet: %s", error)
            except Exception as error:
                _log.error("the second way of a line broke", why=error)
            outage.detour_ended(anyio.current_time())

    async def _wait_for_outage(self, outage: Outage) -> None:
        while (wait := outage.wait_s(anyio.current_time())) != 0:
            self._changed = anyio.Event()
            with anyio.move_on_after(wait):
                await self._changed.wait()

    def _retire(self, way: _Way) -> None:
        """Let a way end, when those have their answers who wait for one."""
        self._asked = {}
        if way.asked:
            self._former = way
            self._lingering.deadline = anyio.current_time() + LINGER_S
        else:
            way.channel.close()

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

    def _take(self, way: _Way, items: list[Item]) -> None:
        asked = way.asked
        for kind, number, value in items:
            if number == OVER:
                way.is_over = True
            waiter = asked.pop(number, None)
            if kind != "answer" or waiter is None:
                continue  # nobody waits for it any more
            if isinstance(value, BaseException):
                waiter.fail(value)
            else:
                waiter.set(value)
        if way is self._former and not asked:
            way.channel.close()

    def _lose(self) -> None:
        """Tell those who wait that no answer comes, but for what was not sent yet."""
        early = {item[1] for item in self._early if item[0] == "ask"}
        lost = [number for number in self._asked if number not in early]
        for number in lost:
            self._asked.pop(number).fail(LineLostError(True))

    async def sent(self) -> None:
        """Return when what was posted up to now is on its way, or lost."""
        if self._channel is not None:
            await self._channel.sent()

    def give_up(self) -> None:
        """End the line to a shard that is gone, while the hub goes on."""
        self._early.clear()
        self.close()

    def close(self) -> None:
        """End the line; what waits for answers is told so."""
        self._closed = True
        self._lose()
        gone = HubStoppingError("the hub has stopped before this was sent; repeat it")
        asked, self._asked = self._asked, {}
        self._early.clear()
        for waiter in asked.values():
            waiter.fail(gone)
        for way in (self._way, self._former):
            if way is not None:
                way.lose()
                way.channel.close()
        self.scope.cancel()


def _ignore(items: list[Item]) -> None:
    """Do nothing with what comes."""
