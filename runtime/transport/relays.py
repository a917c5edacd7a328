"""Channels between members through their store: the second way of a line, while the first is down.

What is posted is put down in the store for the other member, which looks there: every ``POLL_S``
while it has such a channel, else every ``IDLE_S``, since a line may be down one way only.

The store may lose what it is given, and it says nothing of a member that is gone. So what is put
down is numbered, and who has nothing to say says so once in ``BEAT_S``; a channel ends where a
number is missing, or nothing comes for ``SILENCE_S``. A channel that has not ended has lost nothing.

Nobody greets here: who may write to the store has the hub already. What comes from somebody who is
no member, or was meant for a member that this process has been before, is dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio

from ...actors.errors import PerdureError, StorageError
from ...actors.logs import Log
from ..scheduling.hidden_tasks import TaskGroup
from .channels import Channel, OnItems, Outbox, contain
from .wire import Item, Splitter, encode

if TYPE_CHECKING:
    from ...storage.membership import Membership
    from ..scheduling.keeper import Keeper
    from .nodes import OnNode

_log = Log("perdure.relays")

#: Seconds between two looks for what has come.
POLL_S, IDLE_S = 0.1, 1.0
#: Seconds in which what is posted gathers.
_GATHER_S = 0.02
#: Seconds after which who has nothing to say says that, and who heard nothing gives up.
BEAT_S, SILENCE_S = 1.0, 5.0
#: Seconds in which the other member says that it has taken a channel.
OPEN_S = 4.0
#: Bytes of what is put down in one piece.
PIECE_SIZE = 256 * 1024
#: Seconds between two words about one member.
_SAY_AGAIN_S = 60.0
#: Seconds for saying that a channel has ended.
_LEAVE_S = 0.25

_HEAD = struct.Struct("!BQQ")  # what it is, the channel's number, the piece's
_OPEN, _PIECE, _END = 1, 2, 3
_BY_DIALLER = 0x80  # said by the member that opened the channel

#: Which channel it is: the other member, whether this one opened it, and its number there.
_Key = tuple[int, bool, int]


class RelayChannel:
    """One end of a channel through the store; ``Relays`` makes them."""

    def __init__(
        self,
        send: Callable[[int, int, bytes], Awaitable[None]],
        forget: Callable[[], object],
        is_opening: bool,
    ) -> None:
        self.incarnation: int | None = None
        self._send = send
        self._forget = forget
        self._splitter = Splitter()
        self._outbox = Outbox()
        self.post = self._outbox.post
        self.close = self._outbox.close
        self.sent = self._outbox.sent
        self._said = 0  # the number of the last piece that was put down
        self._heard = 0  # ... of the last one that came
        self._heard_at = anyio.current_time()
        self._inbox: list[bytes] = []
        self._news = anyio.Event()
        self._is_opening = is_opening
        self._why: str | None = None  # it has ended
        self._is_left = False  # by the other end

    def take_requests(self, size_max: int) -> None:
        """Be the side that is asked, in frames of so many bytes at most."""
        self._splitter.size_max = size_max

    @property
    def has_ended(self) -> bool:
        """Whether nothing comes any more."""
        return self._why is not None

    def hear(self, what: int, number: int, body: bytes) -> None:
        """Take what the other end has put down."""
        self._heard_at = anyio.current_time()
        if what == _END:
            self._is_left = True
            self.end("the other side has ended it")
        elif number > self._heard + bool(body):
            self.end(f"piece {self._heard + 1} is lost")
        elif number > self._heard:
            self._heard = number
            self._inbox.append(body)
        self._news.set()

    def end(self, why: str) -> None:
        """Have nothing more come or go."""
        if self._why is None:
            self._why = why
            self._news.set()

    async def opened(self) -> None:
        """Return when the other end is there.

        Raises:
            ConnectionError: it is not.
        """
        with anyio.move_on_after(OPEN_S):
            await self._say(_OPEN)
            await self._news.wait()
            if self._why is None:
                return
        raise ConnectionError(self._why or "it does not look into the store, or is gone")

    async def run(self, on_items: OnItems) -> None:
        """Carry items both ways until either side ends it, or something is lost."""
        try:
            async with TaskGroup() as tasks:
                tasks.start_soon(self._write, tasks)
                await self._read(on_items)
                tasks.cancel_scope.cancel()
        finally:
            self._forget()
            if self._why is not None:
                _log.debug("a channel through the store ends: %s", self._why)
            if not self._is_left:
                with anyio.move_on_after(_LEAVE_S, shield=True), suppress(PerdureError):
                    await self._send(_END, self._said, b"")

    async def _read(self, on_items: OnItems) -> None:
        while True:
            pieces, self._inbox = self._inbox, []
            for piece in pieces:
                on_items(self._splitter.feed(piece))
            if self._why is not None:
                return
            self._news = anyio.Event()
            with anyio.CancelScope(deadline=self._heard_at + SILENCE_S):
                await self._news.wait()
            if anyio.current_time() >= self._heard_at + SILENCE_S:
                self.end(f"nothing has come for {SILENCE_S:g} seconds")

    async def _write(self, tasks: TaskGroup) -> None:
        if not self._is_opening:
            await self._say(_PIECE)  # so that the other end knows that this one is there
        items: list[Item] | None = []
        while items is not None:
            frames = encode(items)
            for start in range(0, len(frames), PIECE_SIZE):
                self._said += 1
                await self._say(_PIECE, frames[start : start + PIECE_SIZE])
            await anyio.sleep(_GATHER_S)
            with anyio.move_on_after(BEAT_S) as waited:
                items = await self._outbox.take()
            if waited.cancelled_caught:
                items = []
                await self._say(_PIECE)
        tasks.cancel_scope.cancel()

    async def _say(self, what: int, body: bytes = b"") -> None:
        """Put something down, however long the store takes; who gives up is whoever reads."""
        while True:
            try:
                await self._send(what, self._said, body)
            except StorageError as error:
                _log.debug("cannot put anything down in the store: %s", error)
                await anyio.sleep(POLL_S)
            else:
                return


class Relays:
    """The channels of one process through the store.

    Args:
        membership: gives as which member; None while it is none. Channels end where it is another.
        is_member: whether a number is that of a member that lives, as far as is known.

    Attributes:
        sent_count: how many pieces were put into the store for others.
    """

    def __init__(
        self, membership: Callable[[], Membership | None], is_member: Callable[[int], bool]
    ) -> None:
        self._membership = membership
        self._is_member = is_member
        self._joined: Membership | None = None  # as which the channels are
        self._channels: dict[_Key, RelayChannel] = {}
        self._opened = 0
        self._wake = anyio.Event()
        self._poll_until = 0.0
        self._said: dict[int, float] = {}  # when something was last said about each member
        self.sent_count = 0

    @property
    def members(self) -> list[int]:
        """The members that are reached through the store."""
        return sorted({member for member, is_mine, _ in self._channels if is_mine})

    async def dial(self, member: int) -> Channel:
        """Open a channel to a member.

        Raises:
            ConnectionError: it does not answer, or this process is no member.
        """
        self._look_who()
        if self._joined is None:
            raise ConnectionError("this process is no member of the hub now")
        self._opened += 1
        key = (member, True, self._opened)
        channel = self._channels[key] = self._make(key)
        self._wake.set()
        try:
            await channel.opened()
        except BaseException:
            del self._channels[key]
            raise
        self._tell(member)
        return channel

    def _make(self, key: _Key) -> RelayChannel:
        membership = self._joined
        assert membership is not None
        member, is_mine, number = key
        by = _BY_DIALLER if is_mine else 0

        async def send(what: int, piece: int, body: bytes) -> None:
            await membership.send(member, [_HEAD.pack(what | by, number, piece) + body])
            self.sent_count += 1

        return RelayChannel(send, partial(self._channels.pop, key, None), is_mine)

    def _tell(self, member: int) -> None:
        now = anyio.current_time()
        if now >= self._said.get(member, 0.0):
            self._said[member] = now + _SAY_AGAIN_S
            _log.warning(
                "member %d is reached through the store, which is slow: no direct connection to it "
                "has been made for a while",
                member,
            )

    async def run(self, on_channel: OnNode, keeper: Keeper) -> None:
        """Carry what comes, and give each channel that others open to ``on_channel``, for ever."""
        async with TaskGroup() as tasks:
            take = partial(self._receive, partial(self._accept, tasks, on_channel))
            await keeper.persist("the reading of what comes through the store", take)

    async def _receive(self, accept: Callable[[_Key], RelayChannel]) -> None:
        while True:
            self._look_who()
            found: list[tuple[int, bytes]] = []
            if self._joined is not None:
                with suppress(StorageError):  # the beats say so, and what is there stays there
                    found = await self._joined.receive()
            now = anyio.current_time()
            for source, body in found:
                await self._take(source, body, accept)
            if found or self._channels:
                self._poll_until = now + IDLE_S
            self._wake = anyio.Event()
            with anyio.move_on_after(POLL_S if now < self._poll_until else IDLE_S):
                await self._wake.wait()

    def _look_who(self) -> None:
        membership = self._membership()
        if membership is not self._joined:
            self._joined = membership
            for channel in self._channels.values():
                channel.end("this process is another member now")

    async def _take(self, source: int, body: bytes, accept: Callable[[_Key], RelayChannel]) -> None:
        if not self._is_member(source) or len(body) < _HEAD.size:
            _log.debug("dropped what %d put down in the store: it is no member", source)
            return
        what, number, piece = _HEAD.unpack_from(body)
        is_mine = not what & _BY_DIALLER
        what &= ~_BY_DIALLER
        key = (source, is_mine, number)
        channel = self._channels.get(key)
        if channel is None and what == _OPEN and not is_mine:
            channel = accept(key)
        if channel is not None:
            channel.hear(what, piece, body[_HEAD.size :])
        elif what != _END and self._joined is not None:
            # It would go on until it has heard nothing for long.
            end = _HEAD.pack(_END | (_BY_DIALLER if is_mine else 0), number, 0)
            with suppress(StorageError):
                await self._joined.send(source, [end])

    def _accept(self, tasks: TaskGroup, on_channel: OnNode, key: _Key) -> RelayChannel:
        source = key[0]
        for other in [one for one in self._channels if one[0] == source and not one[1]]:
            self._channels.pop(other).end("the other side has opened another")
        channel = self._channels[key] = self._make(key)
        tasks.start_soon(self._serve, on_channel, key, channel)
        return channel

    async def _serve(self, on_channel: OnNode, key: _Key, channel: RelayChannel) -> None:
        async def answer(channel: Channel) -> None:
            await on_channel(channel, key[0])

        try:
            await contain(answer, channel)
        finally:
            self._channels.pop(key, None)  # also where it was never run
