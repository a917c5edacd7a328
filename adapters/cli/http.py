"""What of a command serves HTTP: its options, and the server that they mean."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager

from perdure import Hub, UsageError

Beside = Callable[[Hub], AbstractAsyncContextManager[object]]


def add_http_options(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument("--http", metavar="HOST:PORT", help="serve HTTP there; port 0: a free one")
    command.add_argument(
        "--key-file",
        metavar="FILE",
        help="who may come in over HTTP: lines NAME read|full SECRET; by default those in "
        "PERDURE_KEYS; without any, HTTP is served on loopback alone",
    )
    command.add_argument(
        "--local-rpc",
        metavar="127.0.0.1:PORT",
        help="answer language SDKs there as a Functions host does, without a key",
    )
    command.add_argument(
        "--allowed-host",
        metavar="HOST",
        action="append",
        default=[],
        help="what the Host header may say, besides the address served at; may be repeated",
    )
    command.add_argument(
        "--expose-errors", action="store_true", help="show tracebacks in answers over HTTP"
    )


@contextmanager
def http_beside(
    *,
    http: str | None,
    key_file: str | None = None,
    local_rpc: str | None = None,
    allowed_hosts: tuple[str, ...] = (),
    expose_errors: bool = False,
) -> Generator[Beside | None]:
    """Take the addresses, and give what ``perdure.run(beside=)`` takes; None without ``http``.

    Raises:
        UsageError: an option means nothing, or an address is not to be had.
    """
    if http is None:
        if key_file or local_rpc or allowed_hosts or expose_errors:
            raise UsageError("nothing is served over HTTP: say where with --http HOST:PORT")
        yield None
        return
    from ..http.server import Address, ServerOptions, keys_of, listen

    options = ServerOptions(
        address=Address.parse(http, "--http"),
        keys=keys_of(key_file),
        allowed_hosts=allowed_hosts,
        local_rpc=None if local_rpc is None else Address.parse(local_rpc, "--local-rpc"),
        expose_errors=expose_errors,
    )
    with listen(options) as server:
        yield server.beside
