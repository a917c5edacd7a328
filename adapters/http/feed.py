"""The stream of changes as a client reads it: server-sent events, gone on with where they broke.

It speaks HTTP by itself. httpx gives a body by generators within generators, which nothing can end
in order where they are left half way; and a stream is left in no other way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import h11
import httpx
import orjson
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from ...runtime.client.remote_client import AnswerLostError
from .problems import error_of
from .routes import HEARTBEAT_S

#: Seconds without an event and without a sign of life, after which a stream counts as broken.
SILENCE_S = 3 * HEARTBEAT_S

_LOST = (OSError, anyio.BrokenResourceError, anyio.EndOfStream, h11.RemoteProtocolError)
_CHUNK = 65_536


class Answer:
    """The answer to a GET, read as it comes.

    Attributes:
        status: its status.
        headers: its headers.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT)
        self.status = 0
        self.headers = httpx.Headers()

    @classmethod
    async def ask(cls, url: httpx.URL, headers: Mapping[str, str], connect_s: float) -> Answer:
        """Send the request, and read the head of the answer.

        Raises:
            AnswerLostError: no answer came.
        """
        is_secret = url.scheme == "https"
        port = url.port or (443 if is_secret else 80)
        try:
            with anyio.fail_after(connect_s):
                stream: ByteStream = await anyio.connect_tcp(url.host, port)
                if is_secret:
                    stream = await TLSStream.wrap(
                        stream, hostname=url.host, ssl_context=httpx.create_ssl_context()
                    )
        except OSError as error:
            raise AnswerLostError(_words(error), sent=False) from error
        answer = cls(stream)
        try:
            await answer._begin(url, headers)
        except BaseException:
            await answer.close()
            raise
        return answer

    async def _begin(self, url: httpx.URL, headers: Mapping[str, str]) -> None:
        protocol = self._protocol
        head = {"Host": url.netloc.decode("ascii"), **headers}
        request = h11.Request(method="GET", target=url.raw_path, headers=list(head.items()))
        try:
            await self._stream.send((protocol.send(request) or b"") + _ended(protocol))
        except _LOST as error:
            raise AnswerLostError(_words(error), sent=False) from error
        while not isinstance(event := await self._next(), h11.Response):
            pass
        self.status = event.status_code
        self.headers = httpx.Headers(list(event.headers.raw_items()))

    async def receive(self) -> bytes:
        """Give what comes next of the body; nothing at its end.

        Raises:
            AnswerLostError: the connection broke, or was silent for too long.
        """
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def whole(self) -> httpx.Response:
        """Give the answer with the rest of its body, which is short."""
        body = b""
        while part := await self.receive():
            body += part
        return httpx.Response(self.status, headers=self.headers, content=body)

    async def _next(self) -> Any:
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                with anyio.fail_after(SILENCE_S):
                    self._protocol.receive_data(await self._stream.receive(_CHUNK))
        except _LOST as error:  # a silence among them
            raise AnswerLostError(_words(error), sent=False) from error
        return event

    async def close(self) -> None:
        """End the connection."""
        await anyio.aclose_forcefully(self._stream)


def _ended(protocol: h11.Connection) -> bytes:
    return protocol.send(h11.EndOfMessage()) or b""


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


class EventFeed:
    """One stream of a hub's changes: its connection is open while somebody means to read on.

    Args:
        begin: asks for the stream, behind the id that the arguments have as ``after``.
    """

    def __init__(self, begin: Callable[[dict[str, Any]], Awaitable[Answer]]) -> None:
        self._begin = begin
        self._answer: Answer | None = None
        self._left = b""
        self.is_abandoned = False

    async def read(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """Wait for the next changes; where the stream is not open, it is opened.

        Raises:
            AnswerLostError: the connection broke; the next reading opens another.
            PerdureError: what the hub says.
        """
        is_whole = False
        try:
            if self._answer is None:
                self._answer = await self._begin(arguments)
            while not (items := self._take()):
                part = await self._answer.receive()
                if not part:
                    raise AnswerLostError("the server ended the stream", sent=False)
                self._left += part
            is_whole = True
            return items
        finally:
            if not is_whole:
                await self.close()

    def _take(self) -> list[dict[str, Any]]:
        """Give the changes that have come whole.

        Raises:
            PerdureError: what the server says instead of one.
        """
        *events, self._left = self._left.split(b"\n\n")
        items: list[dict[str, Any]] = []
        for event in events:
            lines = [line.partition(b": ") for line in event.split(b"\n")]
            fields = {name: value for name, _, value in lines}
            data = fields.get(b"data")
            if data is None:
                continue  # a sign of life, or how soon to come back
            told = orjson.loads(data)
            if fields.get(b"event") != b"error":
                items.append(told)
            elif items:
                self._left = event + b"\n\n"  # it comes behind them
            else:
                raise error_of(told) or AnswerLostError("the stream failed", sent=False)
        return items

    def abandon(self) -> None:
        """Say that nobody reads on."""
        self.is_abandoned = True

    async def close(self) -> None:
        """End the connection, if one is open."""
        answer, self._answer, self._left = self._answer, None, b""
        if answer is not None:
            with anyio.CancelScope(shield=True):
                await answer.close()
