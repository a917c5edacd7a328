from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from perdure import UsageError
from perdure.runtime.scheduling.keeper import Keeper
from perdure.runtime.transport import greeting, nodes
from perdure.runtime.transport.channels import Channel, SocketChannel, dial, listen, serve
from perdure.runtime.transport.greeting import (
    Credentials,
    Dialling,
    Listening,
    NotThatMemberError,
    StrangerError,
    VersionsDifferError,
    WrongKeyError,
)
from perdure.runtime.transport.nodes import (
    Dialler,
    dial_node,
    listen_node,
    read_node_key,
    serve_nodes,
)
from perdure.runtime.transport.tcp import TcpListener, dial_tcp, join_address
from perdure.runtime.transport.wire import Item, encode
from tests.runtime.harness import until_true

KEY = b"k" * 32


class Node:
    """A listener that notes who has greeted it, and what came then."""

    def __init__(self, listener: TcpListener, number: int | None) -> None:
        self.number = number
        self.port = listener.port
        self.address = join_address(listener.host, listener.port)
        self.greeted: list[int | None] = []
        self.items: list[Item] = []

    def who(self) -> Credentials | None:
        return None if self.number is None else Credentials("hub", self.number, KEY)

    async def take(self, channel: Channel, member: int | None) -> None:
        self.greeted.append(member)
        channel.post(("drop", 99))
        await channel.run(self.items.extend)


@asynccontextmanager
async def node(number: int | None = 2, key: bytes = KEY) -> AsyncGenerator[Node]:
    listener = await listen_node()
    one = Node(listener, number)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_nodes, listener, key, one.who, one.take, Keeper())
            yield one
            tasks.cancel_scope.cancel()


def member(number: int | None, key: bytes = KEY) -> Credentials:
    return Credentials("hub", number, key)


async def ended(stream: anyio.abc.ByteStream) -> bytes:
    """Give what comes until a connection ends."""
    found = b""
    try:
        while True:
            found += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return found


@pytest.mark.parametrize("who", [7, None])
async def test_members_and_clients_with_the_key_talk_both_ways(who: int | None) -> None:
    items: list[Item] = []
    async with node() as other:
        channel = await dial_node(2, other.address, member(who))
        assert channel.incarnation is None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run, items.extend)
            for n in range(1_000):
                channel.post(("ack", 0, 1, n))
            await until_true(lambda: len(other.items) == 1_000 and bool(items))
            channel.close()

    assert other.greeted == [who]
    assert other.items == [("ack", 0, 1, n) for n in range(1_000)]
    assert items == [("drop", 99)]


async def test_a_wrong_key_is_said_on_both_sides_and_once_for_an_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with node() as other:
        dialler = Dialler(lambda: member(7, b"o" * 32))
        for _ in range(3):
            with pytest.raises(WrongKeyError):
                await dialler.dial(2, other.address)
        await until_true(lambda: len(caplog.messages) == 2)
        await anyio.wait_all_tasks_blocked()

    assert other.greeted == []
    assert sorted(caplog.messages) == [
        f"no connection to the node at {other.address}: the node that answers has another key",
        "refused a connection from 127.0.0.1: a node that dials has another key",
    ]


async def test_a_wrong_key_is_said_again_once_it_was_right(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = [b"o" * 32, KEY, b"o" * 32]
    async with node() as other:
        dialler = Dialler(lambda: member(7, keys.pop()))
        for _ in range(3):
            try:
                channel = await dialler.dial(2, other.address)
            except WrongKeyError:
                continue
            await channel.stream.aclose()
        await until_true(lambda: len(caplog.messages) == 4)


async def test_an_address_that_was_reused_is_not_that_member_and_nothing_to_complain_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dialler = Dialler(lambda: member(7))
    async with node(3) as other:
        with pytest.raises(NotThatMemberError):
            await dialler.dial(2, other.address)
        other.number = None
        with pytest.raises(NotThatMemberError):
            await dialler.dial(3, other.address)
        other.number = 2
        await (await dialler.dial(2, other.address)).stream.aclose()

    assert caplog.messages == []


async def test_who_is_no_member_dials_nobody() -> None:
    async with node() as other:
        with pytest.raises(ConnectionError, match="no member"):
            await Dialler(lambda: None).dial(2, other.address)


async def test_nodes_of_different_versions_say_both(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hello = Dialling(member(7), 2).hello()
    async with node() as other:
        monkeypatch.setattr(greeting, "VERSION", 9)
        answer = Listening.head()
        monkeypatch.undo()
        async with await dial_tcp("127.0.0.1", other.port) as stream:
            await stream.send(answer + hello[10:])
            assert await ended(stream) == Listening.head()
    listener = await listen_node()
    async with anyio.create_task_group() as tasks:

        async def newer() -> None:
            async with await listener.accept() as stream:
                await stream.receive()
                await stream.send(answer)

        tasks.start_soon(newer)
        with pytest.raises(VersionsDifferError, match=r"version 9 .* this one version 1"):
            await Dialler(lambda: member(7)).dial(2, join_address("127.0.0.1", listener.port))
    listener.close()

    assert len([one for one in caplog.messages if "version 9" in one]) == 2


async def test_an_address_in_the_store_that_is_none_is_as_good_as_unreachable() -> None:
    for address in ("nowhere", "host:99999", ""):
        with pytest.raises(ConnectionError, match="member 2 cannot be dialled"):
            await dial_node(2, address, member(7))


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 64,
        encode([("hello", "run", "secret")]),
        encode([("ask", 1, "statistics", (0,)), ("ack", 0, 1, 1)]),
        b"GET / HTTP/1.1\r\n\r\n",
        (1 << 29).to_bytes(4, "big") + bytes(100),
    ],
    ids=["garbage", "a worker's greeting", "frames", "HTTP", "a large frame"],
)
async def test_whoever_begins_with_anything_else_is_cut_off_unheard(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with node() as other:
        for _ in range(2):
            async with await dial_tcp("127.0.0.1", other.port) as stream:
                await stream.send(garbage)
                assert await ended(stream) == b""
        await (await dial_node(2, other.address, member(7))).stream.aclose()

    assert (other.greeted, other.items) == ([7], [])
    assert caplog.messages == [
        "refused a connection from 127.0.0.1: what came is no greeting of a node"
    ]


async def test_a_frame_in_the_middle_of_a_greeting_is_not_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with node() as other, await dial_tcp("127.0.0.1", other.port) as stream:
        frames = encode([("ack", 0, 1, 1)] * 50)
        await stream.send(Dialling(member(7), 2).hello() + frames)
        await ended(stream)
        await stream.aclose()
        await (await dial_node(2, other.address, member(8))).stream.aclose()

    assert "has not the hub's key" in caplog.text
    assert (other.greeted, other.items) == ([8], [])


async def test_frames_right_behind_a_greeting_are_read_once_it_was_taken() -> None:
    async with node() as other, await dial_tcp("127.0.0.1", other.port) as stream:
        dialling = Dialling(member(7), 2)
        await stream.send(dialling.hello())
        claim = dialling.claim(await stream.receive_exactly(greeting.PROOF_SIZE))
        await stream.send(claim + encode([("ack", 0, 1, 1)]))
        dialling.check(await stream.receive_exactly(greeting.VERDICT_SIZE))
        await until_true(lambda: other.items == [("ack", 0, 1, 1)])


async def test_a_replayed_greeting_is_refused() -> None:
    verdicts: list[int] = []
    async with node() as other:
        dialling = Dialling(member(7), 2)
        claim = b""
        for _ in range(2):
            async with await dial_tcp("127.0.0.1", other.port) as stream:
                await stream.send(dialling.hello())
                proof = await stream.receive_exactly(greeting.PROOF_SIZE)
                claim = claim or dialling.claim(proof)
                await stream.send(claim)
                verdicts.append((await stream.receive_exactly(greeting.VERDICT_SIZE))[0])

    assert verdicts == [1, 3]
    assert other.greeted == [7]


@pytest.mark.by_turns
async def test_a_greeting_said_back_by_a_false_listener_is_not_believed() -> None:
    listener = await listen_node()

    async def echo() -> None:
        async with await listener.accept() as stream:
            while True:
                try:
                    await stream.send(await stream.receive())
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(echo)
            with pytest.raises((WrongKeyError, TimeoutError)), anyio.fail_after(0.5):
                await dial_node(2, join_address("127.0.0.1", listener.port), member(7))
            tasks.cancel_scope.cancel()
    listener.close()


async def test_a_false_listener_that_passes_a_node_on_to_itself_is_refused() -> None:
    """Who is dialled passes what comes to the dialler's own listener, which has the key."""
    listener = await listen_node()
    async with node(7) as own:

        async def between() -> None:
            async with (
                await listener.accept() as stream,
                await dial_tcp("127.0.0.1", own.port) as to,
            ):
                await to.send(await stream.receive_exactly(greeting.HELLO_SIZE))
                await stream.send(await to.receive_exactly(greeting.PROOF_SIZE))
                await to.send(await stream.receive_exactly(greeting.CLAIM_SIZE))
                await stream.send(await to.receive_exactly(greeting.VERDICT_SIZE))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(between)
            with pytest.raises(NotThatMemberError):
                await dial_node(2, join_address("127.0.0.1", listener.port), member(7))
    listener.close()

    assert own.greeted == []


async def test_a_server_that_is_no_node_is_a_stranger() -> None:
    listener = await listen_node()

    async def serve() -> None:
        async with await listener.accept() as stream:
            await stream.send(b"SSH-2.0-OpenSSH_9.2\r\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        with pytest.raises(StrangerError):
            await dial_node(2, join_address("127.0.0.1", listener.port), member(7))
    listener.close()


async def send_slowly(stream: anyio.abc.ByteStream, data: bytes) -> None:
    for byte in data:
        await stream.send(bytes([byte]))
        await anyio.sleep(0.02)


@pytest.mark.by_turns
async def test_who_sends_slowly_or_nothing_has_a_few_seconds_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "GREETING_S", 1.0)
    hello = Dialling(member(7), 2).hello()
    async with node() as other:
        async with await dial_tcp("127.0.0.1", other.port) as silent:
            assert await ended(silent) == b""
        async with await dial_tcp("127.0.0.1", other.port) as slow:
            with pytest.raises(anyio.BrokenResourceError):
                await send_slowly(slow, hello * 3)
        async with await dial_tcp("127.0.0.1", other.port) as half:
            await half.send(hello)
            assert len(await ended(half)) == greeting.PROOF_SIZE

    assert other.greeted == []


@pytest.mark.by_turns
async def test_a_dialler_does_not_wait_for_ever_for_a_listener_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "GREETING_S", 0.2)
    listener = await listen_node()
    with anyio.fail_after(5), pytest.raises(TimeoutError):
        await dial_node(2, join_address("127.0.0.1", listener.port), member(7))
    listener.close()


async def test_a_listener_that_goes_during_the_greeting_is_a_connection_that_broke() -> None:
    listener = await listen_node()

    async def leave() -> None:
        await (await listener.accept()).aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        with pytest.raises(ConnectionError, match="during the greeting"):
            await dial_node(2, join_address("127.0.0.1", listener.port), member(7))
    listener.close()


async def test_strangers_are_few_at_a_time_and_an_old_one_goes_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "STRANGERS_MAX", 3)
    monkeypatch.setattr(nodes, "GREETING_S", 60.0)
    gone: list[bytes] = []
    async with node() as other, anyio.create_task_group() as tasks:

        async def stay() -> None:
            async with await dial_tcp("127.0.0.1", other.port) as stream:
                gone.append(await ended(stream))

        for _ in range(10):
            tasks.start_soon(stay)
        with anyio.fail_after(nodes.GREETING_S / 2):
            await until_true(lambda: len(gone) == 7)
            # All the same a member gets in.
            channel = await dial_node(2, other.address, member(7))
        await channel.stream.aclose()
        tasks.cancel_scope.cancel()

    assert other.greeted == [7]


async def test_a_connection_that_came_while_strangers_are_many_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "STRANGERS_MAX", 2)
    async with node() as other:
        channel = await dial_node(2, other.address, member(7))
        streams = [await dial_tcp("127.0.0.1", other.port) for _ in range(8)]
        channel.post(("drop", 1))
        came: list[Item] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run, came.extend)
            await until_true(lambda: other.items == [("drop", 1)])
            channel.close()
        for stream in streams:
            await stream.aclose()


async def test_what_goes_wrong_with_a_connection_ends_that_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with node() as other:
        bad = await dial_node(2, other.address, member(7))
        await bad.stream.send(b"\0\0\0\4oops")
        await ended(bad.stream)
        await bad.stream.aclose()
        good = await dial_node(2, other.address, member(8))
        await good.stream.send(encode([("drop", 1)]))
        await until_true(lambda: other.items == [("drop", 1)])
        await good.stream.aclose()

    assert "cannot be read" in caplog.text


def write_key(file: Path, key: bytes, mode: int = 0o600) -> Path:
    file.write_bytes(key)
    file.chmod(mode)
    return file


def test_a_key_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    assert read_node_key(write_key(tmp_path / "key", b"0123456789abcdef\n")) == b"0123456789abcdef"


@pytest.mark.skipif(os.name != "posix", reason="modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = write_key(tmp_path / "key", KEY, mode)
    with pytest.raises(UsageError, match=f"others may read .* mode 0{mode:o}.*chmod 600"):
        read_node_key(file)


def test_a_key_that_is_short_or_not_there_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"16 bytes at least, and this one 15 .*openssl rand"
    ) as no:
        read_node_key(write_key(tmp_path / "key", b"0123456789abcde"))
    assert "abcde" not in str(no.value)
    with pytest.raises(UsageError, match=r"No such file.*openssl rand -hex 32"):
        read_node_key(tmp_path / "nothing")


def test_strangers_cannot_fill_the_memory_with_complaints(caplog: pytest.LogCaptureFixture) -> None:
    complaints = nodes.Complaints()
    with caplog.at_level(logging.CRITICAL):
        for n in range(5_000):
            complaints.say(str(n), WrongKeyError(""), "no")

    assert len(complaints) <= 1_000


async def calls_for(channel: Channel, other: Channel, frames: int) -> int:
    """Count the calls, of Python and of C, for frames that go one after another."""
    calls, came = 0, anyio.Event()

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    def take(items: list[Item]) -> None:
        came.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.run, take)
        tasks.start_soon(other.run, take)
        other.post(("drop", 0))
        await came.wait()
        sys.setprofile(count)
        try:
            for n in range(frames):
                came = anyio.Event()
                channel.post(("drop", n))
                await came.wait()
        finally:
            sys.setprofile(None)
        channel.close()
        other.close()
    return calls


@pytest.mark.by_turns
async def test_a_frame_between_nodes_costs_no_more_than_one_over_a_unix_socket(
    tmp_path: Path,
) -> None:
    both: list[Channel] = []
    parted = anyio.Event()

    async def take(channel: Channel, member: int | None = None) -> None:
        both.append(channel)
        await parted.wait()

    over_unix = over_tcp = 0
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, await listen(tmp_path / "s"), take, Keeper())
            listener = await listen_node()
            me = member(2)
            tasks.start_soon(serve_nodes, listener, KEY, lambda: me, take, Keeper())
            unix: Channel = await dial(tmp_path / "s")
            tcp: Channel = await dial_node(2, join_address("127.0.0.1", listener.port), member(7))
            await until_true(lambda: len(both) == 2)
            assert {type(one) for one in (unix, tcp, *both)} == {SocketChannel}
            over_unix = await calls_for(unix, both[0], 300)
            over_tcp = await calls_for(tcp, both[1], 300)
            parted.set()
            tasks.cancel_scope.cancel()

    assert over_tcp <= 1.02 * over_unix
