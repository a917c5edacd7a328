"""Changes as a stream of server-sent events: a page that listens never has to ask again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from perdure import Change, PerdureError

from .problems import hide_stacks, problem_of
from .refusals import refusal_of

if TYPE_CHECKING:
    from .entrance import Entrance

#: Seconds without an event after which a comment says that the stream is alive.
HEARTBEAT_S = 15.0
#: Milliseconds after which a browser that was cut off comes back.
_RETRY_MS = 1_000

_BEGIN = b"retry: %d\n\n" % _RETRY_MS
_BEAT = b":\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(Response):
    """Tells of changes until the listener goes or the server stops."""

    media_type = "text/event-stream"

    def __init__(
        self, changes: AsyncIterator[Change], entrance: Entrance, *, exposes: bool
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._changes = changes
        self._entrance = entrance
        self._exposes = exposes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
        )
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        with self._entrance.until_closing():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
                await self._tell(send)
                tasks.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, send: Send) -> None:
        """Send one event after another, and a sign of life where none comes for a while."""
        await send({"type": "http.response.body", "body": _BEGIN, "more_body": True})
        ended = False
        while not ended:
            body, ended = await self._next()
            await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _next(self) -> tuple[bytes, bool]:
        """Give what to send next, and whether it is the last."""
        with anyio.move_on_after(HEARTBEAT_S):
            try:
                return self._event(await anext(self._changes)), False
            except PerdureError as error:
                problem = problem_of(refusal_of(error), exposes=self._exposes)
                return b"event: error\ndata: %b\n\n" % orjson.dumps(problem), True
        return _BEAT, False

    def _event(self, change: Change) -> bytes:
        told: dict[str, Any] = change.to_dict()
        if not self._exposes and told["status"] is not None:
            hide_stacks(told["status"]["failure"])
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (
            change.id.encode(),
            change.kind.encode(),
            orjson.dumps(told),
        )


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
