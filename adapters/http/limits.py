"""How much a request may be, and how long it may take."""

from __future__ import annotations

from typing import Any

import anyio
import orjson
from attrs import field, frozen, validators
from starlette.requests import Request

from .paths import header
from .refusals import Refusal


def _positive(default: float) -> float:
    made: float = field(default=default, validator=validators.gt(0))
    return made


def _count(default: int) -> int:
    made: int = field(default=default, validator=validators.gt(0))
    return made


@frozen(kw_only=True)
class Limits:
    """What a request may be, and what many of them may be together.

    Attributes:
        body_bytes_max: bytes of a body.
        head_bytes_max: bytes of all headers together.
        url_bytes_max: bytes of path and query together.
        body_s: seconds that a body may take to come.
        wait_s_max: seconds that a request may wait for an orchestration's end; it is answered
            by then as if it had asked for no more.
        requests_max: requests under way at a time, event streams included.
        drain_s: seconds that requests under way are given when the server stops.
    """

    body_bytes_max: int = _count(16 * 1024 * 1024)
    head_bytes_max: int = _count(32 * 1024)
    url_bytes_max: int = _count(8 * 1024)
    body_s: float = _positive(30.0)
    wait_s_max: float = _positive(230.0)
    requests_max: int = _count(4_096)
    drain_s: float = _positive(10.0)


async def read_body(request: Request, limits: Limits, most: int | None = None) -> bytes:
    """Give a request's body.

    Args:
        request: the request.
        limits: how large it may be, and how long it may take.
        most: bytes that it may have at the most, where that is less.

    Raises:
        Refusal: 413 if it is too large, 408 if it takes too long, 400 if it breaks off.
    """
    most = limits.body_bytes_max if most is None else min(most, limits.body_bytes_max)
    told = header(request.scope, b"content-length") or "0"
    if told.isdecimal() and int(told[:20]) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    with anyio.move_on_after(limits.body_s):
        # Not its stream(): that is a generator, which a refusal would leave half way.
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the connection broke off before the end of the body")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > most:
                raise _too_large(most)
            parts.append(part)
            if not message.get("more_body", False):
                return part if len(parts) == 1 else b"".join(parts)
    raise Refusal(408, f"the body did not come within {limits.body_s:g} seconds", headers=_CLOSE)


#: The rest of a body that was not read must not be taken for the next request.
_CLOSE = {"Connection": "close"}


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body has more than {most:,} bytes", headers=_CLOSE)


def check_size(request: Request, limits: Limits) -> None:
    """Refuse a URL or a head that is too long.

    Raises:
        Refusal: 414 or 431.
    """
    scope = request.scope
    raw: bytes = scope.get("raw_path") or b""
    query: bytes = scope.get("query_string") or b""
    if len(raw) + len(query) > limits.url_bytes_max:
        raise Refusal(414, f"the URL has more than {limits.url_bytes_max:,} bytes")
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if sum(len(name) + len(value) for name, value in headers) > limits.head_bytes_max:
        raise Refusal(431, f"the headers have more than {limits.head_bytes_max:,} bytes")


def read_json(data: bytes) -> Any:
    """Read a body as JSON.

    Raises:
        Refusal: 400, where it is none.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"Invalid JSON content: {error}") from None
