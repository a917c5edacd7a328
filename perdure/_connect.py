"""``connect``: a client of a hub that runs elsewhere, whatever the way there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .actors.registry.app import App
    from .runtime.client.client import Client
    from .runtime.settings import Settings


@asynccontextmanager
async def connect(
    place: str | Path,
    app: App | str | None = None,
    *,
    key: str | None = None,
    settings: Settings | None = None,
    node_key_file: str | Path | None = None,
) -> AsyncGenerator[Client, None]:
    """Give a client of a hub in another process, inside ``async with``.

    With the application, what is called is found by its function or class, checked before it is
    sent and read back as its type, as within the hub's own process. Without, functions are given
    by their names, and values are JSON values, which the hub checks.

    It finds the hub again after that was restarted, and what may be made again is made again: a
    lost answer is asked for under the same request id.

    Args:
        place: the hub's socket, its store if the socket is there (``sqlite:PATH``), the store that
            its nodes share (``postgresql://...``, extra ``postgres``), or its address
            (``http://HOST:PORT``, extra ``web``).
        app: the application, or where it is.
        key: what the hub's HTTP interface asks for, if it asks for any.
        settings: the limits of the hub, with ``app``.
        node_key_file: the key between the nodes of a hub on PostgreSQL, if they were given one.

    Raises:
        UnavailableError: no hub listens there.
        UsageError: the path is too long for a socket; or the key is wrong or missing.
        StoreMovedError: the hub has moved elsewhere: where it is.
        StorageError: the store that says where the hub's nodes are cannot be reached.
    """
    from .runtime.client import access, remote

    if remote.is_address(place):
        access.refuse_node_key(node_key_file)
        from .adapters.http.client import HttpTransport

        async with (
            HttpTransport(str(place), key) as transport,
            remote.connect_remotely(transport, app, settings) as client,
        ):
            yield client
    else:
        remote.refuse_key(key)
        if app is None:
            remote.refuse_settings(settings)
            async with remote.connect_plainly(place, node_key_file=node_key_file) as client:
                yield client
        else:
            async with remote.connect(
                place, app, settings=settings, node_key_file=node_key_file
            ) as client:
                yield client
