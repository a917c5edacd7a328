"""Serves the application beside a hub: uvicorn on asyncio, hypercorn on trio.

The server lives inside the hub: it begins when the hub serves, and it ends, with the requests that
are under way, before the hub drains.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
from attrs import Factory, define, field, frozen

from perdure import Hub, UsageError

from .keys import LOOPBACK, VARIABLE, Keys
from .limits import Limits
from .packages import SERVING, check_packages

if TYPE_CHECKING:
    from asyncio import BaseTransport, TimerHandle

    from starlette.applications import Starlette

_BACKLOG = 2_048

#: Seconds that a connection is kept between two requests, and that a request's head may take.
_KEEP_ALIVE_S = 75
HEAD_S = 20


@frozen
class Address:
    """Where a server listens.

    Attributes:
        host: a host's name or IP address; that of IPv6 without brackets.
        port: the port; 0 for a free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, what: str = "the address") -> Address:
        """Read ``HOST:PORT``, such as ``127.0.0.1:7071`` or ``[::1]:0``.

        Raises:
            UsageError: it is none.
        """
        host, separator, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            separator = ""
        if not (separator and host and port.isascii() and port.isdecimal() and int(port) < 65_536):
            raise UsageError(f"{what} must be HOST:PORT, such as 127.0.0.1:7071, not {text!r}")
        return cls(host, int(port))

    @property
    def bare_host(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.bare_host}:{self.port}"


@frozen(kw_only=True)
class ServerOptions:
    """What a server is to be.

    Attributes:
        address: where it listens.
        keys: who may come in; without any it listens on loopback alone.
        allowed_hosts: what the Host header may say besides the address's own host.
        local_rpc: a loopback address at which language SDKs are answered, who send no key.
        expose_errors: whether answers show the traceback of an unexpected error.
        limits: what a request may be.
    """

    address: Address
    keys: Keys | None = None
    allowed_hosts: tuple[str, ...] = ()
    local_rpc: Address | None = None
    expose_errors: bool = False
    limits: Limits = Factory(Limits)


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - who started the server reads there where it is


@contextmanager
def listen(
    options: ServerOptions, *, announce: Callable[[str], None] = _print
) -> Generator[HttpServer]:
    """Take the addresses, and give what serves there beside a hub; ``perdure.run(beside=)`` takes it.

    Args:
        options: what the server is to be.
        announce: is told the URL of the server, once it serves.

    Raises:
        UsageError: an address is not to be had, or is not loopback though no key is asked for.
    """
    check_packages(*SERVING)
    listeners: list[_Listener] = []
    try:
        listeners.append(_Listener(_bind(options.address, "--http")))
        _check_reach(options, listeners[0].socket)
        if options.local_rpc is not None:
            listeners.append(_Listener(_bind(options.local_rpc, "--local-rpc"), is_local=True))
            if not _is_loopback(listeners[1].socket):
                raise UsageError(
                    f"--local-rpc {options.local_rpc} would let in whoever reaches it, without a "
                    "key: give a loopback address, such as 127.0.0.1:17071"
                )
        yield HttpServer(options, listeners, announce)
    finally:
        for listener in listeners:
            listener.socket.close()


@define
class _Listener:
    socket: socket.socket
    is_local: bool = False
    port: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.port = self.socket.getsockname()[1]  # whoever serves may take the socket's place

    def url(self, host: str) -> str:
        return f"http://{host}:{self.port}"


class HttpServer:
    """Serves a hub over HTTP at addresses that were taken; ``listen`` gives it."""

    def __init__(
        self,
        options: ServerOptions,
        listeners: Sequence[_Listener],
        announce: Callable[[str], None],
    ) -> None:
        self._options = options
        self._listeners = listeners
        self._announce = announce

    @property
    def url(self) -> str:
        """Where it is."""
        return self._listeners[0].url(self._options.address.bare_host)

    @property
    def local_rpc_url(self) -> str | None:
        """Where language SDKs are answered without a key, if anywhere."""
        local = self._options.local_rpc
        return None if local is None else self._listeners[1].url(local.bare_host)

    def beside(self, hub: Hub) -> AbstractAsyncContextManager[None]:
        """Serve while the block runs; at its end requests under way end, and no new one comes in."""
        return self._serve(hub)

    @asynccontextmanager
    async def _serve(self, hub: Hub) -> AsyncGenerator[None, None]:
        apps = [(self._app(hub, one.is_local), one.socket) for one in self._listeners]
        stop = anyio.Event()
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            for app, listener in apps:
                tasks.start_soon(_serve_socket, app, listener, self._options.limits, stop)
            self._announce(self.url)
            if self.local_rpc_url is not None:
                self._announce(f"language SDKs without a key: {self.local_rpc_url}/durabletask/")
            try:
                yield
            except Exception as error:
                failed = error  # it comes out as it is, and not in a group
            for app, _ in apps:
                app.state.entrance.close()
            stop.set()
        if failed is not None:
            raise failed

    def _app(self, hub: Hub, is_local: bool) -> Starlette:
        from .app import create_app, create_local_rpc

        options = self._options
        if is_local:
            return create_local_rpc(hub, expose_errors=options.expose_errors, limits=options.limits)
        return create_app(
            hub,
            keys=options.keys,
            allowed_hosts=_allowed_hosts(options),
            expose_errors=options.expose_errors,
            limits=options.limits,
        )


def keys_of(key_file: str | None) -> Keys | None:
    """Give the keys of a file, or else those of the environment; None if there are none.

    Raises:
        UsageError: they cannot be read.
    """
    return Keys.of_environment() if key_file is None else Keys.of_file(key_file)


def _bind(address: Address, what: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, place = found[0]
        return socket.create_server(place[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(f"{what} {address} is not to be had: {error.strerror or error}") from error


def _check_reach(options: ServerOptions, listener: socket.socket) -> None:
    if options.keys is None and not _is_loopback(listener):
        raise UsageError(
            f"--http {options.address} without a key would let in whoever reaches it: give keys "
            f"with --key-file or {VARIABLE}, or a loopback address, such as 127.0.0.1:7071"
        )


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _allowed_hosts(options: ServerOptions) -> tuple[str, ...]:
    """Give the hosts that may be asked for.

    A key cannot be guessed by a page whose name was made to lead here, so with keys any host is
    good unless some are named.
    """
    if options.allowed_hosts:
        return (*options.allowed_hosts, options.address.bare_host)
    return ("*",) if options.keys is not None else (*LOOPBACK, options.address.bare_host)


async def _serve_socket(
    app: Starlette, listener: socket.socket, limits: Limits, stop: anyio.Event
) -> None:
    """Serve until told to stop, and then until what is under way has ended."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await _serve_hypercorn(app, listener, limits, stop)
    else:
        await _serve_uvicorn(app, listener, limits, stop)


async def _serve_hypercorn(
    app: Starlette, listener: socket.socket, limits: Limits, stop: anyio.Event
) -> None:
    import hypercorn

    on_trio: Any = import_module("hypercorn.trio")  # whose types are not all known
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]  # it closes it
    config.backlog = _BACKLOG
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = _KEEP_ALIVE_S
    config.graceful_timeout = limits.drain_s
    config.h11_max_incomplete_size = limits.head_bytes_max + limits.url_bytes_max
    config.websocket_max_message_size = 1
    await on_trio.serve(app, config, shutdown_trigger=stop.wait, mode="asgi")


async def _serve_uvicorn(
    app: Starlette, listener: socket.socket, limits: Limits, stop: anyio.Event
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        """One that leaves signals alone: the program's own lead to the end of the hub."""

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

        async def main_loop(self) -> None:
            while not stop.is_set():
                await self.on_tick(0)  # which writes the Date that answers have
                with anyio.move_on_after(1):
                    await stop.wait()

    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        limit_concurrency=limits.requests_max,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(limits.drain_s),
        h11_max_incomplete_event_size=limits.head_bytes_max + limits.url_bytes_max,
    )
    config.load()
    kind: Any = config.http_protocol_class
    config.http_protocol_class = bounded(kind, limits.head_bytes_max + limits.url_bytes_max)
    await Server(config).serve(sockets=[listener])


def bounded(kind: Any, head_bytes_max: int) -> Any:
    """Make a uvicorn protocol one whose requests must send their head soon, and not without end."""

    class Bounded(kind):  # type: ignore[misc]
        _timer: TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: BaseTransport) -> None:
            told: Any = super()
            told.connection_made(transport)
            self._timer = self.loop.call_later(HEAD_S, transport.close)

        def data_received(self, data: bytes) -> None:
            told: Any = super()
            told.data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._head_bytes = 0
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                return
            self._head_bytes += len(data)
            if self._head_bytes > head_bytes_max:
                self.transport.close()
            elif self._timer is None:
                self._timer = self.loop.call_later(HEAD_S, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            told: Any = super()
            told.connection_lost(exc)

    return Bounded
