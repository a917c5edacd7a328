"""The areas of the application: each answers under a prefix of the path, in words of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import define
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from .keys import sign_in, sign_out, signed_in
from .readiness import is_ready
from .refusals import Refusal

if TYPE_CHECKING:
    from perdure import Client

    from .entrance import Entrance
    from .keys import Key
    from .limits import Limits


@define(eq=False)
class Call:
    """One request, on its way to the area that answers it.

    Attributes:
        request: the request.
        entrance: what leads to all areas.
        before: the path up to the end of the area's prefix, as it was sent.
        segments: the path behind that: split, and not decoded.
        key: the key that it came with, where one is needed.
    """

    request: Request
    entrance: Entrance
    before: str
    segments: list[str]
    key: Key | None

    @property
    def method(self) -> str:
        """The method; a HEAD is answered as a GET whose body the server leaves out."""
        method: str = self.request.scope["method"]
        return "GET" if method == "HEAD" else method

    @property
    def client(self) -> Client:
        """The client of the hub.

        Raises:
            HubStoppingError: the hub does not run.
        """
        return self.entrance.client

    @property
    def limits(self) -> Limits:
        """What a request may be."""
        return self.entrance.limits

    @property
    def base_url(self) -> str:
        """The URL of the area as the caller reached it, without a slash at the end."""
        scope = self.request.scope
        host = self.request.headers.get("host") or "localhost"
        return f"{scope.get('scheme', 'http')}://{host}{self.before}"


class Area(Protocol):
    """What answers under one prefix of the path.

    Attributes:
        prefix: the segments that lead to it; none for what no other area answers.
        needs_key: whether it asks for a key, where there are any.
        checks_host: whether the Host header has to be one that is allowed.
    """

    prefix: tuple[str, ...]
    needs_key: bool
    checks_host: bool

    async def answer(self, call: Call) -> Response:
        """Answer a request.

        Raises:
            Refusal, PerdureError: what ``refuse`` puts into words.
        """
        ...

    def refuse(self, refusal: Refusal) -> Response:
        """Answer that it is not done."""
        ...


class Plain:
    """An area that refuses in plain text."""

    prefix: tuple[str, ...] = ()
    needs_key = False
    checks_host = True

    def refuse(self, refusal: Refusal) -> Response:
        """Answer that it is not done."""
        return PlainTextResponse(f"{refusal.message}\n", refusal.status, refusal.headers)

    @staticmethod
    def expect(call: Call, method: str) -> None:
        """Refuse another method, and any path below.

        Raises:
            Refusal: 404 or 405.
        """
        if call.segments:
            raise Refusal(404, "there is nothing here")
        if call.method != method:
            raise Refusal(405, f"only {method} is answered here", headers={"Allow": method})


class Nowhere(Plain):
    """Answers what no other area does."""

    async def answer(self, call: Call) -> Response:
        raise Refusal(404, "there is nothing here")


class Health(Plain):
    """``/healthz``: the server answers."""

    prefix: tuple[str, ...] = ("healthz",)
    checks_host = False  # a probe calls it by its address

    async def answer(self, call: Call) -> Response:
        self.expect(call, "GET")
        return PlainTextResponse("ok\n")


class Readiness(Plain):
    """``/readyz``: every partition is served."""

    prefix: tuple[str, ...] = ("readyz",)
    checks_host = False

    async def answer(self, call: Call) -> Response:
        self.expect(call, "GET")
        if await is_ready(call.entrance.hub_or_client):
            return PlainTextResponse("ready\n")
        raise Refusal(503, "not every partition is served")


class Metrics(Plain):
    """``/metrics``: the figures of this node, as Prometheus reads them; of all with ``?nodes=all``."""

    prefix: tuple[str, ...] = ("metrics",)
    needs_key = True

    async def answer(self, call: Call) -> Response:
        self.expect(call, "GET")
        try:
            from ..telemetry.metrics import (  # an extra of its own
                METRICS_CONTENT_TYPE,
                metrics_text,
            )
        except ModuleNotFoundError as error:
            missing = f"metrics need the package {error.name}: pip install 'perdure[otel]'"
            raise Refusal(501, missing) from error
        nodes = call.request.query_params.get("nodes", "own")
        if nodes not in ("own", "all"):
            raise Refusal(400, "nodes must be own or all")
        hub = call.entrance.hub_or_client
        text = await metrics_text(hub, "all" if nodes == "all" else "own")
        return Response(text, headers={"Content-Type": METRICS_CONTENT_TYPE})


class SignIn(Plain):
    """``/sign-in``: a key becomes a cookie; a GET says who is signed in."""

    prefix: tuple[str, ...] = ("sign-in",)

    async def answer(self, call: Call) -> Response:
        if call.method == "GET" and not call.segments:
            return signed_in(call.request, call.entrance.guard)
        self.expect(call, "POST")
        return await sign_in(call.request, call.entrance.guard, call.limits)


class SignOut(Plain):
    """``/sign-out``: the cookie goes."""

    prefix: tuple[str, ...] = ("sign-out",)

    async def answer(self, call: Call) -> Response:
        self.expect(call, "POST")
        return await sign_out(call.request)
