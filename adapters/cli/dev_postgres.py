"""``perdure dev-postgres``: a PostgreSQL to try several processes on, without setting one up."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from .dev import Stopped, told_to_stop


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command; it is about no hub yet, so its kind is another."""
    del kind
    app.command("dev-postgres", epilog="Example: perdure dev-postgres pg")(dev_postgres)


def dev_postgres(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where its data are; made if it is not there.")
    ],
    port: Annotated[
        int,
        typer.Option(
            help="On 127.0.0.1.", show_default="a free one, and the same again", min=0, max=65_535
        ),
    ] = 0,
    major: Annotated[
        int | None,
        typer.Option(help="The version, of those on this machine.", show_default="the newest"),
    ] = None,
) -> None:
    """Run a PostgreSQL server in a folder, to develop on.

    That of Debian's package, or of the wheel in the extra ``server``. It ends at SIGINT or SIGTERM,
    and with this command however that ends; the data stay. What is printed is its address, which
    is a store: perdure serve MODULE:APP --store ADDRESS
    """
    from ...storage.postgres.server import Server, pick_binaries

    with told_to_stop(), suppress(Stopped):
        binaries = None if major is None else pick_binaries(major)
        server = Server(folder, binaries, port=port, with_password=True)
        made_by = f"PostgreSQL {server.binaries.major}"
        if not server.data.exists():
            _tell(f"makes {made_by} in {server.folder}")
        with server:
            _tell(f"{made_by} runs until Ctrl-C; its log is {server.log}")
            if port not in (0, server.port):
                _tell(f"port {port} was taken")
            print(server.dsn, flush=True)
            _tell(f"perdure serve MODULE:APP --store '{server.dsn}'")
            server.wait()
            _tell(f"{made_by} has ended by itself; its log says:\n{server.said()}")
        raise typer.Exit(1)
    _tell(f"has stopped; the data are in {folder}")


def _tell(words: str) -> None:
    # Beside the address on stdout, which a script may want alone.
    print(f"perdure dev-postgres: {words}", file=sys.stderr, flush=True)
