"""What one connection may have a hub keep in memory, and what becomes of one that wants more."""

from __future__ import annotations

import resource
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream

from perdure import App, EntityId, Hub, UnavailableError, connect
from perdure.actors.messages import Operation
from perdure.runtime.client.client import Client
from perdure.runtime.placement.places import MovedError
from perdure.runtime.scheduling.waiter import waiter_factory
from perdure.runtime.shards import sessions
from perdure.runtime.shards.sessions import Session
from perdure.runtime.transport import channels, lines, wire
from perdure.runtime.transport.channels import SocketChannel, dial_shard
from perdure.runtime.transport.lines import OVER, Line
from perdure.runtime.transport.wire import Item, Splitter, decode, encode
from tests.faults import settle
from tests.runtime.harness import until_true
from tests.runtime.transport.test_lines import Exchange, FakeChannel

app = App()
gates: dict[str, anyio.Event] = {}


@app.entity
class Box:
    seen: int = 0

    def put(self, text: str) -> int:
        self.seen += 1
        return self.seen

    def echo(self, text: str) -> str:
        return text

    async def wait(self, text: str) -> None:
        await gates["box"].wait()


BOX = EntityId(Box, "b")


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("b")


@asynccontextmanager
async def serving(folder: Path) -> AsyncGenerator[tuple[Hub, Client]]:
    with anyio.fail_after(20):
        async with (
            Hub(app, socket=folder / "hub.sock", partitions=1) as hub,
            connect(folder / "hub.sock", app) as client,
        ):
            yield hub, client


async def raw(hub: Hub, folder: Path) -> SocketChannel:
    """Connect to the shard as a client does, for a test that reads and writes by hand."""
    run: str = hub.crew.run_id
    return await dial_shard(folder / "hub.sock.0", run)


async def send_much(stream: ByteStream) -> None:
    for _ in range(300):
        await stream.send(bytes(1_000_000))
    await stream.receive()


@pytest.mark.parametrize("is_greeted", [False, True])
async def test_a_frame_that_is_too_large_ends_its_connection_before_it_is_kept(
    folder: Path, is_greeted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(folder) as (hub, client):
        if is_greeted:
            channel = await raw(hub, folder)
            stream = channel.stream
        else:
            stream = await anyio.connect_unix(folder / "hub.sock.0")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await stream.send((300_000_000).to_bytes(4, "big"))
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            await send_much(stream)
        await stream.aclose()

        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
        assert await client.call_entity(BOX, Box.put, "x") == 1
        assert "300,000,000 bytes" in caplog.text or not is_greeted


async def test_a_connection_with_too_many_requests_is_refused_more_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REQUESTS_MAX", 5)
    gates["box"] = anyio.Event()
    outcomes: list[str] = []

    async def ask(client: Client) -> None:
        try:
            await client.call_entity(BOX, Box.wait, "x")
        except UnavailableError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("done")

    async with serving(folder) as (_, client):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask, client)
            await until_true(lambda: len(outcomes) == 3)
            assert all("5 requests of this connection" in one for one in outcomes)
            gates["box"].set()

        assert outcomes[3:] == ["done"] * 5
        assert await client.call_entity(BOX, Box.put, "x") == 1


async def put_for_ever(client: Client) -> None:
    while True:
        await client.call_entity(EntityId(Box, "other"), Box.put, "x")


async def test_a_connection_whose_requests_bring_too_much_is_refused_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REQUESTS_SIZE_MAX", 5_000)
    gates["box"] = anyio.Event()

    async with serving(folder) as (_, client):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(client.call_entity, BOX, Box.wait, "x" * 2_000)
            with pytest.raises(UnavailableError, match="bytes, have no answer"):
                await put_for_ever(client)
            gates["box"].set()

        assert await client.call_entity(BOX, Box.put, "x") == 1


async def ask_for_ever(stream: ByteStream) -> None:
    for number in count(0, 20):
        message = Operation("echo", b'"%b"' % (b"x" * 4_000), True)
        asks: list[Item] = [
            ("ask", number + n, "request", (0, str(BOX), message, None)) for n in range(20)
        ]
        await stream.send(encode(asks))


async def test_a_client_that_reads_no_answers_is_not_read_from_and_then_let_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channels, "POSTED_MAX", 50)
    monkeypatch.setattr(channels, "STALL_S", 0.3)
    most, post = 0, channels.Outbox.post

    def counted(outbox: channels.Outbox, item: wire.Item) -> None:
        nonlocal most
        post(outbox, item)
        most = max(most, len(outbox))

    monkeypatch.setattr(channels.Outbox, "post", counted)
    async with serving(folder) as (hub, client):
        await client.call_entity(BOX, Box.put, "x")
        channel = await raw(hub, folder)
        stream = channel.stream
        with pytest.raises(anyio.BrokenResourceError):
            await ask_for_ever(stream)
        await stream.aclose()

        assert most < 500
        assert "answers have not been read" in caplog.text
        assert await client.call_entity(BOX, Box.put, "x") == 2


async def test_answers_that_are_read_slowly_arrive_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "POSTED_MAX", 5)
    async with serving(folder) as (_, client):
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await client.call_entity(BOX, Box.put, "x" * 1_000))
            assert await client.read_entity_state(BOX) is not None

        async with anyio.create_task_group() as tasks:
            for _ in range(300):
                tasks.start_soon(ask)

        assert sorted(answers) == list(range(1, 301))


async def test_many_large_signals_cross_in_requests_that_fit(folder: Path) -> None:
    async with serving(folder) as (_, client):
        await client.signal_entities([(BOX, Box.put, "x" * 900_000)] * 20)

        state = await client.read_entity_state(BOX)
        assert state is not None
        assert state.seen == 20


async def test_a_line_refuses_requests_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "ASKED_MAX", 3)
    monkeypatch.setattr(lines, "ASKED_SIZE_MAX", 4_000)
    line = Line(Exchange().dial, waiter_factory())
    large = Operation("put", b"x" * 3_000)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(line.call, "request", 0, "k", large, None)
        tasks.start_soon(line.call, "request", 0, "k", large, None)
        await until_true(lambda: line.size == 6_000)
        with pytest.raises(UnavailableError, match="6,000 bytes"):
            await line.call("wait_durable", 0)
        tasks.cancel_scope.cancel()
    assert line.size == 0
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(line.call, "wait_durable", 0)
        await until_true(lambda: line.waiting == 3)
        with pytest.raises(UnavailableError, match="3 requests"):
            await line.call("wait_durable", 0)
        tasks.cancel_scope.cancel()


def test_frames_are_cut_where_they_would_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FRAME_SIZE_MAX", 1_000)
    items: list[Item] = [("answer", n, b'"%b"' % (b"x" * 300)) for n in range(20)]

    data = encode(items)

    sizes: list[int] = []
    start = 0
    while start < len(data):
        sizes.append(int.from_bytes(data[start : start + 4], "big"))
        assert decode(data[start + 4 : start + 4 + sizes[-1]])
        start += 4 + sizes[-1]
    assert max(sizes) <= 1_000
    assert Splitter(1_000).feed(data) == items


class Side(FakeChannel):
    """A channel of the side that is asked."""

    def take_requests(self, size_max: int) -> None:
        return


async def test_a_session_that_ends_says_so_when_all_is_answered_and_does_nothing_more() -> None:
    side, gate, done = Side(), anyio.Event(), list[int]()

    async def load() -> int:
        await gate.wait()
        done.append(1)
        return 7

    session = Session(side, None, {"load": load}, trusted=True)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.run)
            await settle()
            session.take([("ask", 1, "load", ())])
            session.end()
            assert side.posted == []
            gate.set()
            await until_true(lambda: side.posted == [("answer", 1, 7)])

            session.end()
            session.take([("ask", 2, "load", ())])

            assert side.posted[1] == ("answer", OVER, None)
            assert side.posted[2][:2] == ("answer", 2)
            assert isinstance(side.posted[2][2], MovedError)
            assert done == [1]
            side.close()
