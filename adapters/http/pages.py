"""The dashboard's files: anybody may load them, since what they show is asked of the API."""

from __future__ import annotations

import hashlib
from functools import cache

import anyio.to_thread
from attrs import frozen
from starlette.responses import RedirectResponse, Response

from ..dashboard import read_files
from .areas import Call, Plain
from .refusals import Refusal

#: What a browser may do with the pages: load their own files, and ask this server.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A new version of the package is seen at once; what has not changed is not sent again.
    "Cache-Control": "no-cache",
}


@frozen
class _File:
    media_type: str
    body: bytes
    etag: str


@cache
def _files() -> dict[str, _File]:
    return {
        name: _File(kind, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        for name, (kind, body) in read_files().items()
    }


class Pages(Plain):
    """``/``: the dashboard's page; and what no other area answers."""

    prefix: tuple[str, ...] = ()

    async def answer(self, call: Call) -> Response:
        if call.segments:
            raise Refusal(404, "there is nothing here")
        self.expect(call, "GET")
        if not call.request.scope["path"].endswith("/"):
            return RedirectResponse(f"{call.before}/")  # what the page loads lies beside it
        return await _send(call, "index.html")


class PageFiles(Plain):
    """``/dashboard``: what the page loads."""

    prefix: tuple[str, ...] = ("dashboard",)

    async def answer(self, call: Call) -> Response:
        if len(call.segments) != 1:
            raise Refusal(404, "there is nothing here")
        if call.method != "GET":
            raise Refusal(405, "only GET is answered here", headers={"Allow": "GET"})
        return await _send(call, call.segments[0])


async def _send(call: Call, name: str) -> Response:
    file = (await anyio.to_thread.run_sync(_files)).get(name)
    if file is None:
        raise Refusal(404, "there is nothing here")
    headers = {**_HEADERS, "ETag": file.etag}
    known = call.request.headers.get("if-none-match", "")
    if file.etag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(None, 304, headers)
    return Response(file.body, 200, headers, file.media_type)
