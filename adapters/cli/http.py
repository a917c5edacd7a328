"""What of a command serves HTTP: its options, and the server that they mean."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from perdure import UsageError

if TYPE_CHECKING:
    from perdure import Hub

    Beside = Callable[[Hub], AbstractAsyncContextManager[object]]

Keys = Annotated[
    str | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="Who may come in over HTTP: lines NAME read|full SECRET; by default those in "
        "PERDURE_KEYS; without any, HTTP is served on loopback alone.",
        show_default=False,
    ),
]
LocalRpc = Annotated[
    str | None,
    typer.Option(
        metavar="127.0.0.1:PORT",
        help="Answer language SDKs there as a Functions host does, without a key.",
        show_default=False,
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        metavar="HOST",
        help="What the Host header may say, besides the address served at; may be repeated.",
    ),
]
ExposeErrors = Annotated[
    bool, typer.Option("--expose-errors", help="Show tracebacks in answers over HTTP.")
]


@contextmanager
def http_beside(
    *,
    http: str | None,
    key_file: str | None = None,
    local_rpc: str | None = None,
    allowed_hosts: tuple[str, ...] = (),
    expose_errors: bool = False,
) -> Generator[tuple[Beside | None, str | None]]:
    """Take the addresses, and give what ``perdure.run(beside=)`` takes, and where that serves.

    Both are None without ``http``.

    Raises:
        UsageError: an option means nothing, or an address is not to be had.
    """
    if http is None:
        if key_file or local_rpc or allowed_hosts or expose_errors:
            raise UsageError("nothing is served over HTTP: say where with --http HOST:PORT")
        yield None, None
        return
    from ..http.packages import SERVING, check_packages

    check_packages(*SERVING)
    from ..http.server import Address, ServerOptions, keys_of, listen

    options = ServerOptions(
        address=Address.parse(http, "--http"),
        keys=keys_of(key_file),
        allowed_hosts=allowed_hosts,
        local_rpc=None if local_rpc is None else Address.parse(local_rpc, "--local-rpc"),
        expose_errors=expose_errors,
    )
    with listen(options) as server:
        yield server.beside, server.url
