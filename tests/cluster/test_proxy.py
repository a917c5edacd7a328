"""The spoilt network spoils what it says, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.cluster.nodes import until
from tests.cluster.proxy import CAN_TELL, Net

pytestmark = pytest.mark.skipif(not CAN_TELL, reason="the proxies go by /proc to tell who dials")

ME = "me"


class Echo:
    """Gives back each line that it gets, in capitals."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.heard: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rwb") as file:
            for line in file:
                self.heard.append(line)
                file.write(line.upper())
                file.flush()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.listener.close()


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        net.know(ME, os.getpid())
        yield net


def dialled(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def say(line: socket.socket, text: bytes) -> bytes:
    line.sendall(text)
    return line.recv(100)


def gets_no_answer(line: socket.socket, text: bytes) -> bool:
    """Say something, and tell whether a moment passes in which nothing comes back."""
    line.sendall(text)
    line.settimeout(0.1)
    try:
        line.recv(100)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        line.settimeout(10)


def test_what_is_said_arrives_and_so_does_the_end(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)

    with dialled(port) as line:
        assert say(line, b"a\n") == b"A\n"
        line.shutdown(socket.SHUT_WR)
        assert line.recv(100) == b""

    assert net.edge(ME, "echo").forwarded == {"there": 2, "back": 2}
    until(lambda: net.edge(ME, "echo").connections == 0, 10)


def test_a_delay_is_one_each_way(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    net.delay(ME, "echo", 0.1)

    with dialled(port) as line:
        start = time.monotonic()
        assert say(line, b"a\n") == b"A\n"
        assert time.monotonic() - start >= 0.2


def test_what_is_held_comes_when_that_is_mended(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    with dialled(port) as line:
        say(line, b"a\n")
        net.hold(ME, "echo")
        assert gets_no_answer(line, b"b\n")
        assert echo.heard == [b"a\n"]

        net.mend(ME, "echo")

        assert line.recv(100) == b"B\n"


def test_answers_alone_can_be_lost_and_then_the_line_goes_with_them(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    with dialled(port) as line:
        say(line, b"a\n")
        net.lose(ME, "echo", "back")
        assert gets_no_answer(line, b"b\n")
        until(lambda: net.edge(ME, "echo").has_lost, 10)
        assert echo.heard == [b"a\n", b"b\n"]

        net.mend(ME, "echo")

        with pytest.raises(ConnectionResetError):
            line.recv(100)


def test_one_way_can_be_held_alone(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    with dialled(port) as line:
        net.hold(ME, "echo", "there")
        assert gets_no_answer(line, b"a\n")

    assert echo.heard == []


def test_a_reset_is_seen_at_once_by_all_connections(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    with dialled(port) as one, dialled(port) as other:
        for line in (one, other):
            say(line, b"a\n")

        assert net.reset(ME, "echo") == 2

        for line in (one, other):
            with pytest.raises(ConnectionResetError):
                line.recv(100)


def test_new_connections_are_refused_and_old_ones_go_on(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    with dialled(port) as old:
        say(old, b"a\n")
        net.refuse(ME, "echo")

        with pytest.raises(ConnectionError), dialled(port) as new:
            say(new, b"a\n")

        assert say(old, b"b\n") == b"B\n"


def test_a_target_that_is_gone_lets_nobody_in(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    net.withdraw("echo")

    with pytest.raises(ConnectionRefusedError):
        dialled(port)


def test_a_mute_target_says_nothing_until_it_is_mended(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    net.mute(ME, "echo")
    with dialled(port) as line:
        assert gets_no_answer(line, b"a\n")

        net.mend(ME, "echo")

        assert line.recv(100) == b"A\n"


_TALKER = """
import socket, sys
sys.stdin.buffer.peek()  # whoever dials is to be known before
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as line:
    for text in sys.stdin.buffer:
        line.sendall(text)
        sys.stdout.buffer.write(line.recv(100))
        sys.stdout.buffer.flush()
"""


def test_edges_of_one_target_are_told_apart_by_who_dials(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    command = [sys.executable, "-c", _TALKER, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as talker:
        assert talker.stdin is not None
        assert talker.stdout is not None
        net.know("other", talker.pid)
        net.hold(ME, "echo")
        talker.stdin.write(b"a\n")
        talker.stdin.flush()

        assert talker.stdout.readline() == b"A\n"
        with dialled(port) as line:
            assert gets_no_answer(line, b"b\n")
        talker.stdin.close()

    assert net.edge("other", "echo").opened == 1
    assert echo.heard == [b"a\n"]


def test_a_target_that_has_moved_is_found_by_new_connections(net: Net, echo: Echo) -> None:
    other = Echo()
    port = net.proxy("echo", "127.0.0.1", echo.port)
    net.redirect("echo", "127.0.0.1", other.port)

    with dialled(port) as line:
        assert say(line, b"a\n") == b"A\n"

    assert (echo.heard, other.heard) == ([], [b"a\n"])
    other.listener.close()


def test_answers_are_lost_of_those_connections_that_are_meant(net: Net, echo: Echo) -> None:
    port = net.proxy("echo", "127.0.0.1", echo.port)
    with dialled(port) as one, dialled(port) as meant:
        assert say(one, b"hello, of one\n") == b"HELLO, OF ONE\n"
        assert say(meant, b"hello, of another\n") == b"HELLO, OF ANOTHER\n"
        net.lose(ME, "echo", "back", of=b"another")
        meant.sendall(b"lost\n")
        until(lambda: net.edge(ME, "echo").has_lost, 10)

        assert say(one, b"heard\n") == b"HEARD\n"

        net.mend(ME, "echo")
        with pytest.raises(ConnectionResetError):
            meant.recv(100)
