"""``perdure serve``: a hub as a program of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure import Hub, PerdureError, __version__, run

from .http import add_http_options, http_beside

if TYPE_CHECKING:
    from .commands import Commands


def add_to(commands: Commands) -> None:
    """Declare the command and what it takes."""
    serve = commands.add_parser(
        "serve",
        help="run a hub until SIGINT or SIGTERM",
        description="Run a hub until SIGINT or SIGTERM; then let what is under way come to a "
        "durable stop. A second signal does not wait for that, and loses nothing.",
    )
    serve.add_argument("app", metavar="MODULE:APP", help="the application: examples.shop:app")
    serve.add_argument("--store", required=True, help="sqlite:PATH, a folder; or memory:")
    serve.add_argument("--partitions", type=int, default=4, help="of a new store (4)")
    serve.add_argument("--shards", type=int, default=1, help="event loops of this process (1)")
    serve.add_argument("--workers", type=int, default=0, help="worker processes (0: none)")
    serve.add_argument(
        "--socket",
        help="where clients of other processes and the other commands find the hub; by default "
        "hub.sock in the store's folder",
    )
    serve.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    serve.add_argument(
        "--uvloop",
        action=argparse.BooleanOptionalAction,
        help="asyncio on uvloop or not; by default on uvloop where it is installed",
    )
    add_http_options(serve)
    serve.set_defaults(run=_serve)


def _serve(wanted: argparse.Namespace) -> int:
    def announce(hub: Hub) -> None:
        app = hub.app
        print(
            f"perdure {__version__} serves {wanted.app} on {wanted.store} ({hub.durability}): "
            f"{_count(app.orchestrations, 'orchestration')}, "
            f"{_count(app.entities, 'entity', 'entities')}, "
            f"{_count(app.activities, 'activity', 'activities')}; Ctrl-C stops it",
            flush=True,
        )

    try:
        with http_beside(
            http=wanted.http,
            key_file=wanted.key_file,
            local_rpc=wanted.local_rpc,
            allowed_hosts=tuple(wanted.allowed_host),
            expose_errors=wanted.expose_errors,
        ) as beside:
            run(
                wanted.app,
                store=wanted.store,
                partitions=wanted.partitions,
                shards=wanted.shards,
                workers=wanted.workers,
                socket=wanted.socket,
                backend=wanted.backend,
                uvloop=wanted.uvloop,
                on_ready=announce,
                beside=beside,
            )
    except PerdureError as error:
        print(f"perdure: {error}", file=sys.stderr)
        return 1
    print("stopped; what had not ended goes on at the next start", flush=True)
    return 0


def _count(names: Sequence[str], one: str, many: str | None = None) -> str:
    return f"{len(names)} {one if len(names) == 1 else many or one + 's'}"
