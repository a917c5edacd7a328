from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from perdure import UsageError
from perdure.runtime.transport.tcp import (
    DEAD_S,
    TcpListener,
    TcpStream,
    dial_tcp,
    is_loopback,
    join_address,
    listen_tcp,
    split_address,
)


async def pair(host: str = "127.0.0.1") -> tuple[TcpStream, TcpStream, TcpListener]:
    listener = await listen_tcp(host, 0, "--node-listen")
    with anyio.fail_after(5):
        one = await dial_tcp(host, listener.port)
        return one, await listener.accept(), listener


async def close(*ends: TcpStream | TcpListener) -> None:
    for end in ends:
        if isinstance(end, TcpStream):
            await end.aclose()
        else:
            end.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_a_free_port_is_chosen_and_told_and_reached(host: str) -> None:
    one, other, listener = await pair(host)

    assert listener.port > 0
    await one.send(b"abc")
    assert await other.receive_exactly(2) == b"ab"
    assert await other.receive() == b"c"
    await one.send_eof()
    with pytest.raises(anyio.EndOfStream):
        await other.receive()
    await close(one, other, listener)


async def test_all_addresses_of_a_host_are_listened_at_where_none_is_named() -> None:
    listener = await listen_tcp("", 0, "--node-listen")
    for host in ("127.0.0.1", "::1"):
        await close(await dial_tcp(host, listener.port))
    listener.close()


async def test_a_dead_peer_is_noticed_by_probes_and_by_what_it_does_not_acknowledge() -> None:
    one, other, listener = await pair()
    wanted = {"TCP_NODELAY": 1, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": int(DEAD_S * 1000)}
    for end in (one, other):
        raw = end.extra(SocketAttribute.raw_socket)
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in wanted.items():
            if hasattr(socket, name):
                found = raw.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                assert found == value, name
    await close(one, other, listener)


async def test_a_port_that_is_taken_is_refused_with_the_flag_s_name() -> None:
    listener = await listen_tcp("127.0.0.1", 0, "--node-listen")
    with pytest.raises(UsageError, match=f"127.0.0.1:{listener.port} \\(--node-listen\\): Address"):
        await listen_tcp("127.0.0.1", listener.port, "--node-listen")
    listener.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_of_another_host_is_refused_with_the_flag_s_name(host: str) -> None:
    with pytest.raises(UsageError, match=f"cannot listen at {host}:0 \\(--node-listen\\)"):
        await listen_tcp(host, 0, "--node-listen")


async def test_a_port_can_be_listened_at_again_right_after_its_last_connection() -> None:
    one, other, listener = await pair()
    await close(other, one, listener)

    (await listen_tcp("127.0.0.1", listener.port, "--node-listen")).close()


async def test_a_port_that_nobody_listens_at_refuses() -> None:
    listener = await listen_tcp("127.0.0.1", 0, "--node-listen")
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await dial_tcp("127.0.0.1", listener.port)


async def test_a_dial_that_the_system_connects_to_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.socket
    with real() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def bound(*arguments: Any) -> socket.socket:
        made = real(*arguments)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))  # as the system may choose to
        return made

    monkeypatch.setattr("perdure.runtime.transport.tcp.socket.socket", bound)
    with pytest.raises(ConnectionRefusedError):
        await dial_tcp("127.0.0.1", port)


async def send_for_ever(stream: TcpStream) -> None:
    while True:
        await stream.send(bytes(100_000))


async def test_what_is_sent_to_a_peer_that_is_gone_breaks() -> None:
    one, other, listener = await pair()
    await other.aclose()
    with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(5):
        await send_for_ever(one)
    await close(one, listener)


@pytest.mark.by_turns
async def test_more_is_sent_than_the_system_keeps() -> None:
    one, other, listener = await pair()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.send, bytes(20_000_000))
        assert len(await other.receive_exactly(20_000_000)) == 20_000_000
    await close(one, other, listener)


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("a.b:70", "a.b", 70),
        ("[::1]:0", "::1", 0),
        (":7000", "", 7000),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
    ],
)
def test_an_address_is_a_host_and_a_port(given: str, host: str, port: int) -> None:
    assert split_address(given, "--node-listen") == (host, port)
    assert join_address(host, port) == given


@pytest.mark.parametrize(
    "given",
    [
        "",
        "a",
        "a:",
        "a:x",
        "a:65536",
        "::1:70",
        "::1",
        "a:-1",
        "a:٣",
        "[::1:70",
        7000,
        None,
        b"a:1",
    ],
)
def test_what_is_no_address_is_refused(given: object) -> None:
    with pytest.raises(UsageError, match="--node-listen must be an address as HOST:PORT"):
        split_address(given, "--node-listen")


@pytest.mark.parametrize(
    ("host", "is_so"),
    [("127.0.0.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False)],
)
def test_only_this_host_reaches_a_loopback_address(host: str, is_so: bool) -> None:
    assert is_loopback(host) is is_so
