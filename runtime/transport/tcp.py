"""TCP as members of a cluster use it: streams of raw sockets, on any event loop.

A peer whose machine is gone is noticed within ``DEAD_S``: by probes while nothing is under way, and
by what it does not acknowledge while something is. What is sent is not held back to gather.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import SocketStream

from ...actors.arguments import is_a, refusal, text
from ...actors.errors import UsageError
from ..scheduling.forks import close_in_children

#: Seconds in which a peer that acknowledges nothing is taken for gone: as long as a lease.
DEAD_S = 6.0
_IDLE_S, _PROBE_S, _PROBES = 2, 1, 4
#: Connections that wait to be taken.
_BACKLOG = 128
_PORT_MAX = 65_535

#: The names of options, as the systems have them; one that a system lacks is left out.
_OPTIONS = (
    ("IPPROTO_TCP", "TCP_NODELAY", 1),
    ("SOL_SOCKET", "SO_KEEPALIVE", 1),
    ("IPPROTO_TCP", "TCP_KEEPIDLE", _IDLE_S),
    ("IPPROTO_TCP", "TCP_KEEPALIVE", _IDLE_S),  # what macOS calls TCP_KEEPIDLE
    ("IPPROTO_TCP", "TCP_KEEPINTVL", _PROBE_S),
    ("IPPROTO_TCP", "TCP_KEEPCNT", _PROBES),
    ("IPPROTO_TCP", "TCP_USER_TIMEOUT", int(DEAD_S * 1000)),
)


class TcpStream(SocketStream):
    """A connected socket.

    It reads and writes by hand, and has no reader of the event loop's: its socket may be read and
    written by whoever takes it over.
    """

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        close_in_children(raw)
        for level, name, value in _OPTIONS:
            if hasattr(socket, name):
                with suppress(OSError):
                    raw.setsockopt(getattr(socket, level), getattr(socket, name), value)
        self._raw = raw

    @property
    def _raw_socket(self) -> socket.socket:
        return self._raw

    @property
    def peer(self) -> str:
        """The host at the other end, as a number; empty where it is gone already."""
        try:
            return str(self._raw.getpeername()[0])
        except OSError:
            return ""

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Give what has come, at least one byte.

        Raises:
            EndOfStream: the other side has ended it.
            BrokenResourceError: it broke.
        """
        while True:
            try:
                data = self._raw.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._raw)
            except OSError as error:
                raise anyio.BrokenResourceError from error
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def receive_exactly(self, size: int) -> bytes:
        """Give so many bytes, and leave what comes behind them.

        Raises:
            EndOfStream: the other side ended it before.
            BrokenResourceError: it broke.
        """
        data = b""
        while len(data) < size:
            data += await self.receive(size - len(data))
        return data

    async def send(self, item: bytes) -> None:
        """Send bytes.

        Raises:
            BrokenResourceError: the connection broke.
        """
        left = memoryview(item)
        while left:
            try:
                left = left[self._raw.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._raw)
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Say that nothing more comes."""
        with suppress(OSError):
            self._raw.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close it."""
        self._raw.close()
        await anyio.lowlevel.checkpoint()


class TcpListener:
    """A socket that listens.

    Attributes:
        host: the host that it listens at, as a number.
        port: the port, also where the system chose it.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.host, self.port = raw.getsockname()[:2]

    async def accept(self) -> TcpStream:
        """Give the next connection that comes in.

        Raises:
            OSError: the system gives none, for too many files that are open, say.
        """
        while True:
            try:
                return TcpStream(self._raw.accept()[0])
            except BlockingIOError:
                await anyio.wait_readable(self._raw)
            except ConnectionAbortedError:
                continue  # it was given up before it was taken

    def close(self) -> None:
        """Listen no more. Nobody may be in ``accept``."""
        self._raw.close()


async def listen_tcp(host: str, port: int, name: str) -> TcpListener:
    """Listen at a port of a host; where a name has several addresses, at the first.

    Args:
        host: as a number or a name; empty for all.
        port: 0 for one that is free.
        name: what the address was given as.

    Raises:
        UsageError: nobody can listen there.
    """
    try:
        family, kind, protocol, address = (await _look_up(host or "::", port))[0]
        if not host and not socket.has_dualstack_ipv6():
            family, kind, protocol, address = (await _look_up("0.0.0.0", port))[0]
        raw = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, name, error) from error
    try:
        raw.setblocking(False)
        if sys.platform == "win32":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Else the port of a process that has just ended could not be had for a minute.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host not in ("", "::")))
        raw.bind(address)
        raw.listen(_BACKLOG)
    except OSError as error:
        raw.close()
        raise _cannot_listen(host, port, name, error) from error
    close_in_children(raw)
    return TcpListener(raw)


def _cannot_listen(host: str, port: int, name: str, error: OSError) -> UsageError:
    why = error.strerror or str(error)
    return UsageError(
        f"cannot listen at {join_address(host, port)} ({name}): {why}: give an address of this "
        "host and a port that is free, or port 0"
    )


async def dial_tcp(host: str, port: int, each_s: float = 5.0) -> TcpStream:
    """Connect to a port of a host; where a name has several addresses, to the first that answers.

    Raises:
        ConnectionRefusedError: the host says that nobody listens there.
        OSError: it cannot be reached.
    """
    failed: OSError | None = None
    for family, kind, protocol, address in await _look_up(host, port):
        raw = socket.socket(family, kind, protocol)
        try:
            stream = TcpStream(raw)
            with anyio.fail_after(each_s):
                await _connect(raw, address)
        except OSError as error:
            raw.close()
            failed = error
        except BaseException:
            raw.close()
            raise
        else:
            return stream
    raise failed or OSError(errno.EADDRNOTAVAIL, f"{host} has no address")


async def _connect(raw: socket.socket, address: Any) -> None:
    error = raw.connect_ex(address)
    if error in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN):
        await anyio.wait_writable(raw)
        error = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
    if raw.getsockname() == raw.getpeername():
        # The system took the very port that was dialled for this end, and connected it to itself.
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")


async def _look_up(host: str, port: int) -> list[tuple[Any, Any, int, Any]]:
    """Give the addresses of a host, one that is given as a number at once."""
    try:
        found: Any = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def split_address(value: object, name: str) -> tuple[str, int]:
    """Give the host and the port of an address; a host with colons is in brackets.

    Raises:
        UsageError: it is no address.
    """
    taken = "an address as HOST:PORT, with an IPv6 host in brackets: [::1]:7000"
    given = text(value, name) if is_a(value, str) else ""
    host, _, number = given.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    well = number.isascii() and number.isdecimal() and int(number) <= _PORT_MAX
    if not well or (":" in host and not bracketed):
        raise refusal(name, taken, value)
    return host[1:-1] if bracketed else host, int(number)


def join_address(host: str, port: int) -> str:
    """Give the address that ``split_address`` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only processes of this host reach what listens there."""
    import ipaddress  # here, since a hub in one process needs no address

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
