"""The ways to a hub: each gives the same ``Client``, and each test of this folder tries them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from attrs import frozen

from perdure import App, Client, Hub, connect
from perdure.adapters.http import create_app
from perdure.adapters.http.client import HttpTransport
from perdure.adapters.http.server import Address, ServerOptions, listen
from perdure.runtime.client.remote import connect_remotely
from tests.features.clients.application import app

#: Those over which values are JSON values, since the application is not there.
PLAIN = ["socket", "http", "server"]
#: Those that know the application.
TYPED = ["in process", "socket with app", "http with app"]


@frozen
class Way:
    """A client, and how it gets to the hub.

    Attributes:
        name: which way it is.
        client: the client.
        hub: the hub at its other end.
    """

    name: str
    client: Client
    hub: Hub

    @property
    def is_plain(self) -> bool:
        return self.name in PLAIN


@pytest.fixture(params=[*TYPED, *PLAIN])
async def way(
    request: pytest.FixtureRequest,
    anyio_backend: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Way]:
    folder = tmp_path_factory.mktemp("w")
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(app, socket=folder / "s", partitions=2))
        yield Way(request.param, await open_client(request.param, hub, folder, stack), hub)


async def open_client(name: str, hub: Hub, folder: Path, stack: AsyncExitStack) -> Client:
    """Open the client of a way to a hub."""
    match name:
        case "in process":
            return hub.client
        case "socket with app":
            return await stack.enter_async_context(connect(folder / "s", app))
        case "socket":
            return await stack.enter_async_context(connect(folder / "s"))
        case "http" | "http with app":
            # A failure is the same over HTTP where its traceback may be shown.
            web = httpx.ASGITransport(create_app(hub, expose_errors=True))
            return await open_http(web, app if name == "http with app" else None, stack)
        case "server":  # uvicorn on asyncio, hypercorn on trio
            options = ServerOptions(address=Address("127.0.0.1", 0), expose_errors=True)
            server = stack.enter_context(listen(options, announce=lambda _: None))
            await stack.enter_async_context(server.beside(hub))
            return await stack.enter_async_context(connect(server.url))
        case _:
            raise LookupError(name)


async def open_http(
    web: httpx.AsyncBaseTransport, app: App | None, stack: AsyncExitStack
) -> Client:
    """Open a client over HTTP that needs no network."""
    transport = await stack.enter_async_context(HttpTransport("http://localhost", None, web))
    return await stack.enter_async_context(connect_remotely(transport, app, None))


@pytest.fixture
def client(way: Way) -> Client:
    return way.client
