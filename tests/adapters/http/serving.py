"""What the tests of the HTTP application share: an application, and a way to ask it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
from attrs import define
from starlette.types import ASGIApp

from perdure import (
    App,
    Client,
    EntityContext,
    EntityId,
    Hub,
    Observer,
    OrchestrationContext,
    RuntimeStatus,
    TraceObserver,
)
from perdure.adapters.http import Keys, Limits, create_app

WEBHOOKS = "/runtime/webhooks/durabletask"
SDK = "/durabletask"

KEYS = """
# who may come in
look read look-secret
work full work-secret
"""


def make_app() -> App:
    """Make an application with one of each."""
    app = App()

    @app.activity
    def double(number: int) -> int:
        return 2 * number

    @app.orchestration
    async def echo(ctx: OrchestrationContext, input: Any = None) -> Any:
        return input

    @app.orchestration
    async def count(ctx: OrchestrationContext, number: int) -> int:
        ctx.set_custom_status({"asked": number})
        return await ctx.call_activity(double, number)

    @app.orchestration(version="2")
    async def versioned(ctx: OrchestrationContext) -> str:
        return "two"

    @app.orchestration
    async def approval(ctx: OrchestrationContext, input: Any = None) -> Any:
        return await ctx.wait_for_external_event("Approved")

    @app.orchestration
    async def fail(ctx: OrchestrationContext, input: Any = None) -> None:
        raise ValueError("no luck")

    @app.orchestration
    async def timed(ctx: OrchestrationContext) -> str:
        await ctx.create_timer(timedelta(milliseconds=1))
        return "done"

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> None:
            self.value += amount

        def get(self) -> int:
            return self.value

    @app.entity
    def anything(ctx: EntityContext) -> None:
        ctx.set_state([ctx.operation_name, ctx.get_input()])

    return app


@define
class Served:
    """A hub with its application, and an HTTP client of it."""

    hub: Hub
    http: httpx.AsyncClient
    web: ASGIApp

    @property
    def client(self) -> Client:
        return self.hub.client

    async def run(self, name: str, input: Any = None, *, id: str) -> None:
        """Start an orchestration, and wait for its end."""
        await self.client.start_new(name, input, instance_id=id)
        await self.ended(id)

    async def ended(self, id: str) -> None:
        """Wait for an instance's end, however it ends."""
        await self.reaches(id, *(one for one in RuntimeStatus if one.is_terminal))

    async def reaches(self, id: str, *statuses: RuntimeStatus) -> None:
        """Wait until an instance stands somewhere."""
        with anyio.fail_after(10):
            while True:
                status = await self.client.get_status(id)
                if status is not None and status.runtime_status in statuses:
                    return
                await anyio.sleep(0.001)

    async def reaches_state(self, name: str, key: str) -> None:
        """Wait until an entity has a state."""
        with anyio.fail_after(10):
            while await self.client.read_entity_state(EntityId[Any](name, key)) is None:
                await anyio.sleep(0.001)


@asynccontextmanager
async def served(
    app: App | None = None,
    *,
    keys: str | None = None,
    limits: Limits | None = None,
    allowed_hosts: tuple[str, ...] = ("localhost",),
    expose_errors: bool = False,
    root_path: str = "",
    observer: Observer | TraceObserver | None = None,
) -> AsyncGenerator[Served, None]:
    """Serve a hub in memory, without a socket."""
    async with Hub(app or make_app(), observer=observer) as hub:
        web = create_app(
            hub,
            keys=None if keys is None else Keys.parse(keys),
            limits=limits,
            allowed_hosts=allowed_hosts,
            expose_errors=expose_errors,
        )
        transport = httpx.ASGITransport(web, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield Served(hub, http, web)


async def ask_raw(
    web: ASGIApp,
    method: str,
    path: str,
    body: Sequence[bytes] = (b"",),
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, bytes]:
    """Send a request as it is, which a client of HTTP might mend or refuse; give what comes back.

    After the parts of the body the connection breaks off.
    """
    raw, _, query = path.partition("?")
    status = 0
    answer = bytearray()
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(body)}
        for number, part in enumerate(body, 1)
    ]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        answer.extend(message.get("body", b""))

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode("latin-1"),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await web(scope, receive, send)
    return status, bytes(answer)
