"""The ways to a hub: each gives the same ``Client``, and each test of this folder tries them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from attrs import frozen

from perdure import Client, Hub, connect
from tests.features.clients.application import app

#: Those over which values are JSON values, since the application is not there.
PLAIN = ["socket"]
#: Those that know the application.
TYPED = ["in process", "socket with app"]


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
        case _:
            raise LookupError(name)


@pytest.fixture
def client(way: Way) -> Client:
    return way.client
