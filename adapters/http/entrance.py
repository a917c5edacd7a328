"""The entrance: what is looked at before anything is done, and the way to the area that does it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from traceback import format_exception
from types import TracebackType

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from perdure import Client, Hub

from .areas import Area, Call
from .callers import in_trace_of, says_trace
from .keys import Guard, Key
from .limits import Limits, check_size
from .paths import raw_segments
from .refusals import RETRY_AFTER_S, Refusal, refusal_of

_log = logging.getLogger("perdure.http")
_access = logging.getLogger("perdure.http.access")


class Entrance(BaseRoute):
    """Takes every request, checks it, and hands it to its area; nothing it raises gets out.

    Attributes:
        hub_or_client: what the requests are made of.
        guard: who may come in.
        limits: what a request may be.
        expose_errors: whether an answer shows the traceback of an unexpected error.
    """

    def __init__(
        self,
        hub_or_client: Hub | Client,
        guard: Guard,
        limits: Limits,
        areas: Sequence[Area],
        *,
        expose_errors: bool = False,
    ) -> None:
        self.hub_or_client = hub_or_client
        self.guard = guard
        self.limits = limits
        self.expose_errors = expose_errors
        # The longest prefix first, so that it is found first; the last has none.
        self._areas = sorted(areas, key=lambda area: -len(area.prefix))
        self._under_way = 0
        self._waits: set[anyio.CancelScope] = set()
        self._is_closing = False

    @property
    def waiting(self) -> int:
        """How many requests wait for something to happen, and are let go when it closes."""
        return len(self._waits)

    @property
    def client(self) -> Client:
        """The client of the hub.

        Raises:
            HubStoppingError: the hub does not run.
        """
        target = self.hub_or_client
        return target.client if isinstance(target, Hub) else target

    def until_closing(self) -> _Wait:
        """Break the block off when the server begins to stop: for waits and event streams."""
        scope = anyio.CancelScope()
        if self._is_closing:
            scope.cancel()
        return _Wait(self._waits, scope)

    def close(self) -> None:
        """Break off what only waits, since the server stops. On the server's event loop."""
        self._is_closing = True
        for scope in list(self._waits):
            scope.cancel()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        self._under_way += 1
        status = 500
        try:
            if says_trace(scope):
                with in_trace_of(scope):
                    response = await self._answer(Request(scope, receive))
            else:
                response = await self._answer(Request(scope, receive))
            status = response.status_code
            await response(scope, receive, send)
        finally:
            self._under_way -= 1
            if _access.isEnabledFor(logging.INFO):
                _note(scope, status, time.perf_counter() - began)

    async def _answer(self, request: Request) -> Response:
        before, segments = raw_segments(request.scope)
        area = self._area_of(segments)
        try:
            key = self._check(request, area)
            depth = len(area.prefix)
            base = "/".join([before, *segments[:depth]])
            return await area.answer(Call(request, self, base, segments[depth:], key))
        except Refusal as refusal:
            return area.refuse(refusal)
        except Exception as error:
            known = refusal_of(error)
            return area.refuse(known if known.status != 500 else self._fail(request, error))

    def _check(self, request: Request, area: Area) -> Key | None:
        if area.checks_host:
            self.guard.check_host(request)
        check_size(request, self.limits)
        if self._under_way > self.limits.requests_max:
            raise Refusal(
                503,
                f"{self.limits.requests_max:,} requests are under way, which is all there may be",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self.guard.check_origin(request)
        return self.guard.check_key(request) if area.needs_key else None

    def _fail(self, request: Request, error: Exception) -> Refusal:
        """Log what nobody expected, and say no more of it than may be said."""
        _log.error("%s %s failed", request.method, _shown_path(request.scope), exc_info=error)
        message = "Something went wrong while processing your request; the server's log says what"
        if not self.expose_errors:
            return Refusal(500, message)
        return Refusal(500, message, error=error, trace="".join(format_exception(error)))

    def _area_of(self, segments: list[str]) -> Area:
        for area in self._areas:
            depth = len(area.prefix)
            if [one.lower() for one in segments[:depth]] == [*area.prefix]:
                return area
        raise AssertionError("the area without a prefix answers what no other does")


class _Wait:
    """A block that whoever stops the server can break off."""

    __slots__ = ("_scope", "_waits")

    def __init__(self, waits: set[anyio.CancelScope], scope: anyio.CancelScope) -> None:
        self._waits = waits
        self._scope = scope

    def __enter__(self) -> anyio.CancelScope:
        self._waits.add(self._scope)
        return self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._waits.discard(self._scope)
        return self._scope.__exit__(kind, error, trace)


def _note(scope: Scope, status: int, seconds: float) -> None:
    """Write the access log: without the query, which may hold a key."""
    client = scope.get("client")
    _access.info(
        "%s %s %s %d %.1f ms",
        client[0] if client else "-",
        scope["method"],
        _shown_path(scope),
        status,
        seconds * 1e3,
    )


def _shown_path(scope: Scope) -> str:
    """Give the path as it was sent, in which no line of a log can break."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    return ascii(raw.decode("latin-1"))[1:-1]
