"""The way to a hub over HTTP: what ``perdure.connect("http://...")`` asks with."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, cast

import httpx
import orjson

from perdure import InternalError, UnavailableError, UsageError

from ...runtime.client.operations import Operation
from ...runtime.client.remote_client import AnswerLostError
from .feed import Answer, EventFeed
from .problems import MEDIA_TYPE, error_of
from .routes import API, CONTEXT, IDEMPOTENCY_KEY, ROUTE_OF

#: Seconds for a connection, and for an answer beyond what the request itself waits for.
_CONNECT_S = 5.0
_ANSWER_S = 90.0
#: Waits for an end hold a connection each, and others must not wait behind them.
_CONNECTIONS_MAX = 1_000
_KEPT_MAX = 100

_LOST = (httpx.TransportError,)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class HttpTransport:
    """Asks a hub by its HTTP interface; inside ``async with``.

    Args:
        address: where it is, such as ``http://127.0.0.1:7071``; what it is mounted at included.
        key: what it asks for, if it asks for any.
        transport: what carries requests, where it is not the network.

    Raises:
        UsageError: the address or the key cannot be one.
    """

    def __init__(
        self, address: str, key: str | None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        try:
            self._base = httpx.URL(address)
        except httpx.InvalidURL as error:
            raise UsageError(f"place {address!r} is no address: {error}") from None
        if not self._base.host or self._base.query or self._base.fragment:
            raise UsageError(f"place must be http(s)://HOST:PORT, not {address!r}")
        prefix = self._base.raw_path.decode("ascii").rstrip("/")
        self._prefix = "/".join([prefix, *API])
        self._authority: dict[str, str] = {}
        if key is not None:
            given = cast("object", key)
            if not (isinstance(given, str) and given and given.isascii() and given.isprintable()):
                raise _bad_key(given)
            self._authority["Authorization"] = f"Bearer {key}"
        kind = "application/json"
        self._http = httpx.AsyncClient(
            transport=transport,
            headers={"Accept": kind, "Content-Type": kind, **self._authority},
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            limits=httpx.Limits(
                max_connections=_CONNECTIONS_MAX, max_keepalive_connections=_KEPT_MAX
            ),
            follow_redirects=False,
            trust_env=False,
            # To read what authorities there are takes longer than most of what is asked.
            verify=self._base.scheme != "http",
        )
        self._stack = AsyncExitStack()
        # Another way than the network may keep an answer back until it has ended.
        self._streams = transport is None
        self._feeds: list[EventFeed] = []

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._http)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for feed in self._feeds:
            await feed.close()
        await self._stack.aclose()

    def follow(self) -> EventFeed | None:
        """See ``Transport``."""
        if not self._streams:
            return None
        feed = EventFeed(self._open_stream)
        self._feeds.append(feed)
        return feed

    async def ask(self, operation: Operation, arguments: dict[str, Any]) -> Any:
        """See ``Transport``."""
        if self._feeds:
            await self._sweep()
        route = ROUTE_OF.get(operation.name)
        if route is None:
            raise UsageError(f"{operation.name} is not asked for over HTTP")
        path, body = route.write(arguments)
        url = self._url(path)
        headers: dict[str, bytes] = {}
        request_id = arguments.get("request_id")
        if request_id is not None:
            headers[IDEMPOTENCY_KEY] = request_id.encode()
        carried = arguments.get("carried")
        if carried:
            headers[CONTEXT] = orjson.dumps(carried)
        try:
            response = await self._http.request(
                route.method,
                url,
                content=body,
                headers=cast("dict[str, str]", headers),  # bytes are taken, and UTF-8 in them
            )
        except _NOT_SENT as error:
            raise AnswerLostError(f"{self._base}: {_words(error)}", sent=False) from error
        except _LOST as error:
            raise AnswerLostError(f"{self._base}: {_words(error)}", sent=True) from error
        return self._read(response, missing=route.missing)

    def _url(self, path: str) -> httpx.URL:
        return self._base.copy_with(raw_path=(self._prefix + path).encode("ascii"))

    async def _open_stream(self, arguments: dict[str, Any]) -> Answer:
        """Begin the stream of changes, behind the one that was read last.

        Raises:
            AnswerLostError: no answer came.
            PerdureError: what the hub says instead.
        """
        await self._sweep()
        given = dict(arguments)
        after = given.pop("after", None)
        path, _ = ROUTE_OF["changes"].write(given)
        headers = {**self._authority, "Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        answer = await Answer.ask(self._url(path), headers, _CONNECT_S)
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer
        try:
            self._read(await answer.whole(), missing=False)
        finally:
            await answer.close()
        raise UsageError(f"{self._base} has no stream of changes: is it the address of a hub?")

    async def _sweep(self) -> None:
        """End the streams that nobody reads any more."""
        for feed in [one for one in self._feeds if one.is_abandoned]:
            self._feeds.remove(feed)
            await feed.close()

    def _read(self, response: httpx.Response, *, missing: bool) -> Any:
        status = response.status_code
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        if response.is_success and kind == "application/json":
            return orjson.loads(response.content)
        if kind == MEDIA_TYPE:
            problem = cast("dict[str, Any]", orjson.loads(response.content))
            if missing and status == 404 and problem["type"] == "about:blank":
                return None
            error = error_of(problem)
            if error is not None:
                raise error
        # Of a server in between, or of another than a hub's.
        if status in (502, 504):
            raise AnswerLostError(f"{self._base}: the gateway answered {status}", sent=True)
        if status == 503:
            raise UnavailableError(f"{self._base} answered 503; repeat it")
        if status >= 500:
            raise InternalError(f"{self._base} answered {status}")
        raise UsageError(f"{self._base} answered {status}: is it the address of a hub?")


def _bad_key(key: object) -> UsageError:
    # Its kind, and not what it is: it may be nearly right.
    kind = type(key).__name__
    return UsageError(
        f"key must be a str in ASCII, without line breaks and not empty, not a {kind}"
    )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
