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
}
#: The page is asked for again each time, so that a new version of the package is seen at once.
_ASKED = "no-cache"
#: Its files stand under their version, where they never change.
_KEPT = "public, max-age=31536000, immutable"


@frozen
class _File:
    media_type: str
    body: bytes
    etag: str


@cache
def _files() -> tuple[str, dict[str, _File]]:
    """Give the version of the files, and the files by name."""
    files = read_files()
    version = _digest(b"".join(_digest(files[name][1]) for name in sorted(files))).decode()
    kind, page = files["index.html"]
    files["index.html"] = kind, page.replace(b'"dashboard/', f'"dashboard/{version}/'.encode())
    made = {
        name: _File(kind, body, f'"{_digest(body).decode()}"')
        for name, (kind, body) in files.items()
    }
    return version, made


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:20].encode()


class Pages(Plain):
    """``/``: the dashboard's page; and what no other area answers."""

    prefix: tuple[str, ...] = ()

    async def answer(self, call: Call) -> Response:
        if call.segments:
            raise Refusal(404, "there is nothing here")
        self.expect(call, "GET")
        if not call.request.scope["path"].endswith("/"):
            return RedirectResponse(f"{call.before}/")  # what the page loads lies beside it
        return await _send(call, [], "index.html")


class PageFiles(Plain):
    """``/dashboard``: what the page loads, by name, under its version or not."""

    prefix: tuple[str, ...] = ("dashboard",)

    async def answer(self, call: Call) -> Response:
        if len(call.segments) not in (1, 2):
            raise Refusal(404, "there is nothing here")
        if call.method != "GET":
            raise Refusal(405, "only GET is answered here", headers={"Allow": "GET"})
        return await _send(call, call.segments[:-1], call.segments[-1])


async def _send(call: Call, under: list[str], name: str) -> Response:
    version, files = await anyio.to_thread.run_sync(_files)
    file = files.get(name)
    if file is None:
        raise Refusal(404, "there is nothing here")
    # An older page may ask for a file that has changed since.
    caching = _KEPT if under == [version] else _ASKED
    headers = {**_HEADERS, "ETag": file.etag, "Cache-Control": caching}
    known = call.request.headers.get("if-none-match", "")
    if file.etag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(None, 304, headers)
    return Response(file.body, 200, headers, file.media_type)
