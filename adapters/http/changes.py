"""Changes as a stream of server-sent events: a page that listens never has to ask again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from perdure import Change, OrchestrationStatus, PerdureError

from ...runtime.client.operations import write_around
from .problems import hide_stacks, problem_of
from .refusals import refusal_of
from .routes import HEARTBEAT_S

if TYPE_CHECKING:
    from .entrance import Entrance

#: Milliseconds after which a browser that was cut off comes back.
_RETRY_MS = 1_000

#: Events that are sent together.
_TOGETHER_MAX = 100
#: Statuses that are kept as JSON, and how large each may be.
_KEPT_MAX = 256
_KEPT_BYTES_MAX = 16 * 1024

_BEGIN = b"retry: %d\n\n" % _RETRY_MS
_BEAT = b":\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(Response):
    """Tells of changes until the listener goes or the server stops."""

    media_type = "text/event-stream"

    def __init__(
        self,
        changes: AsyncIterator[Change],
        entrance: Entrance,
        encoded: EncodedStatuses,
        *,
        exposes: bool,
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._changes = changes
        self._entrance = entrance
        self._encoded = encoded
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
        events: list[bytes] = []
        try:
            with anyio.move_on_after(HEARTBEAT_S):
                events.append(self._event(await anext(self._changes)))
            with anyio.move_on_after(0):  # what is at hand comes without a wait
                while events and len(events) < _TOGETHER_MAX:
                    events.append(self._event(await anext(self._changes)))
        except PerdureError as error:
            problem = problem_of(refusal_of(error), exposes=self._exposes)
            events.append(b"event: error\ndata: %b\n\n" % write_around(problem))
            return b"".join(events), True
        return b"".join(events) or _BEAT, False

    def _event(self, change: Change) -> bytes:
        told = {"id": change.id, "kind": change.kind, "instance_id": change.instance_id}
        data = orjson.dumps({**told, "status": self._encoded.give(change.status)})
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (
            change.id.encode(),
            change.kind.encode(),
            data,
        )


class EncodedStatuses:
    """Statuses as JSON: what many streams tell of at the same time is encoded once.

    Args:
        exposes: whether tracebacks are shown.
    """

    def __init__(self, *, exposes: bool) -> None:
        self._exposes = exposes
        # By what the object is, since a status can be no key; it is kept, so that it stays so.
        self._kept: dict[int, tuple[OrchestrationStatus, bytes]] = {}

    def give(self, status: OrchestrationStatus | None) -> orjson.Fragment | None:
        """Give a status as JSON."""
        if status is None:
            return None
        kept = self._kept.get(id(status))
        if kept is not None:
            return orjson.Fragment(kept[1])
        told = status.to_dict()
        if not self._exposes:
            hide_stacks(told["failure"])
        encoded = write_around(told)
        if len(encoded) <= _KEPT_BYTES_MAX:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[id(status)] = status, encoded
        return orjson.Fragment(encoded)


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
