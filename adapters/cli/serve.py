"""``perdure serve``: a hub as a program of its own."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from socket import gethostname
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure import __version__

from .http import AllowedHosts, ExposeErrors, Keys, LocalRpc, http_beside
from .hubs import is_database, shown

if TYPE_CHECKING:
    from perdure import Hub

_LOOK_S = 0.5


class Backend(StrEnum):
    """Which event loop."""

    asyncio = "asyncio"
    trio = "trio"


Application = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:APP", help="The application: examples.shop:app, or FILE.py:app."
    ),
]

Socket = Annotated[
    str | None,
    typer.Option(
        help="Where clients of other processes and the other commands find the hub.",
        show_default="hub.sock in the store's folder",
    ),
]
Uvloop = Annotated[
    bool | None,
    typer.Option(
        "--uvloop/--no-uvloop", help="asyncio on uvloop or not.", show_default="if installed"
    ),
]
Http = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="Serve HTTP there; port 0: a free one.", show_default=False
    ),
]
Observer = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME",
        help="What is told of the hub's work, or traces it: perdure.adapters.telemetry:Tracing.",
        show_default=False,
    ),
]


Partitions = Annotated[
    int | None,
    typer.Option(help="Of a new store.", show_default="4; 64 on PostgreSQL"),
]
NodeListen = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Where other processes that serve the hub reach this one, on PostgreSQL.",
        show_default="a free port of this host, for those on it",
    ),
]
NodeAddress = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="What they dial.", show_default="where it listens"),
]
NodeKeyFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The key that all of them have: openssl rand -hex 32 > FILE; chmod 600 FILE.",
        show_default="on one host: from the database",
    ),
]


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command; it is about a hub that does not run yet, so its kind is another."""
    del kind
    example = "Example: perdure serve shop:app --store sqlite:hub --http 127.0.0.1:7071"
    app.command("serve", epilog=example)(serve)


def serve(
    app: Application,
    store: Annotated[
        str, typer.Option(help="sqlite:PATH, a folder; postgresql://HOST/DATABASE; or memory:.")
    ],
    partitions: Partitions = None,
    shards: Annotated[int, typer.Option(help="Event loops of this process.")] = 1,
    workers: Annotated[int, typer.Option(help="Worker processes; 0 for none.")] = 0,
    socket: Socket = None,
    backend: Annotated[Backend, typer.Option(help="The event loop.")] = Backend.asyncio,
    uvloop: Uvloop = None,
    http: Http = None,
    observer: Observer = None,
    node_listen: NodeListen = None,
    node_address: NodeAddress = None,
    node_key_file: NodeKeyFile = None,
    key_file: Keys = None,
    local_rpc: LocalRpc = None,
    allowed_host: AllowedHosts = None,
    expose_errors: ExposeErrors = False,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    tell: Annotated[bool, typer.Option("--tell", hidden=True)] = False,
) -> None:
    """Run a hub until SIGINT or SIGTERM.

    Then what is under way comes to a durable stop. A second signal does not wait for that, and
    loses nothing.
    """
    import perdure

    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with http_beside(
        http=http,
        key_file=key_file,
        local_rpc=local_rpc,
        allowed_hosts=tuple(allowed_host or ()),
        expose_errors=expose_errors,
    ) as (beside, url):
        if tell:
            from .terminal import with_failures

            beside = with_failures(beside)
        gc.enable()  # what is needed is loaded
        perdure.run(
            app,
            store=store,
            partitions=partitions,
            shards=shards,
            workers=workers,
            socket=socket,
            backend=backend.value,
            uvloop=uvloop,
            observer=observer,
            node_listen=node_listen,
            node_address=node_address,
            node_key=node_key_file,
            node_http=_published(url, store, node_address, allowed_host or ()),
            on_ready=partial(_announce, app, store),
            beside=beside,
        )
    print("stopped; what had not ended goes on at the next start", flush=True)


def _published(
    url: str | None, store: str, node_address: str | None, allowed_hosts: Sequence[str]
) -> str | None:
    """Give the address of the HTTP API that others may look up, where there is such a place."""
    if url is None or not is_database(store):
        return None
    host, _, port = url.removeprefix("http://").rpartition(":")
    if host not in ("0.0.0.0", "[::]"):
        return url
    # At all addresses of the host: by one that the server answers to, else as nodes dial it.
    named = [*allowed_hosts, (node_address or "").rpartition(":")[0], gethostname()]
    return f"http://{next(name for name in named if name)}:{port}"


def _announce(app: str, store: str, hub: Hub) -> None:
    served = hub.app
    print(
        f"perdure {__version__} serves {app} on {shown(store)} ({hub.durability}): "
        f"{_count(served.orchestrations, 'orchestration')}, "
        f"{_count(served.entities, 'entity', 'entities')}, "
        f"{_count(served.activities, 'activity', 'activities')}; Ctrl-C stops it",
        flush=True,
    )


def _end_with(parent: int) -> None:
    """Stop in order when the process that has started this one is gone."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _count(names: Sequence[str], one: str, many: str | None = None) -> str:
    return f"{len(names)} {one if len(names) == 1 else many or one + 's'}"
