"""The stream of events: what it tells, how it goes on, and how it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import orjson
import pytest
from anyio import to_thread

from perdure import Change, Hub, connect
from perdure.adapters.http import changes
from perdure.adapters.http.changes import EventStream
from perdure.adapters.http.entrance import Entrance
from perdure.adapters.http.server import Address, ServerOptions, listen
from perdure.testing.inside import partitions_of
from tests.adapters.http.serving import make_app

CHANGES = "/api/v1/changes"


@asynccontextmanager
async def serving() -> AsyncGenerator[tuple[Hub, httpx.AsyncClient]]:
    """Serve a hub at a real socket: httpx reads no stream from an application at hand."""
    options = ServerOptions(address=Address("127.0.0.1", 0))
    async with Hub(make_app()) as hub:
        with listen(options, announce=lambda _: None) as server:
            async with (
                server.beside(hub),
                httpx.AsyncClient(base_url=server.url, timeout=20) as http,
            ):
                yield hub, http


class Listener:
    """Reads events."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.comments = 0

    async def next(self) -> tuple[str, str, Any]:
        """Give the id, the kind and the data of the next event."""
        event: dict[str, str] = {}
        async for line in self._lines:
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "data" in event:
                return event.get("id", ""), event["event"], orjson.loads(event["data"])
        raise EOFError


# httpx leaves its generators to the collector where a stream is left early, which trio warns of.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_listener_hears_of_every_change_and_goes_on_where_it_was_cut_off() -> None:
    with anyio.fail_after(20):
        async with serving() as (hub, http):
            async with http.stream("GET", f"{CHANGES}?name=approval") as response:
                listener = Listener(response)
                _, kind, _ = await listener.next()
                await hub.client.start_new("approval", instance_id="one")
                id, changed, data = await listener.next()
            await hub.client.raise_event("one", "Approved", {"by": "me"})
            resumed = {"Last-Event-ID": id}
            async with http.stream("GET", CHANGES, headers=resumed) as response:
                listener = Listener(response)
                status = (await listener.next())[2]["status"]
                while status["runtime_status"] != "Completed":
                    status = (await listener.next())[2]["status"]

    assert response.headers["content-type"].startswith("text/event-stream")
    assert (kind, changed, data["instance_id"]) == ("reset", "changed", "one")
    assert status["output"] == {"by": "me"}


# httpx leaves its generators to the collector where a stream is left early, which trio warns of.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_quiet_stream_shows_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "HEARTBEAT_S", 0.05)
    with anyio.fail_after(20):
        async with serving() as (hub, http), http.stream("GET", CHANGES) as response:
            listener = Listener(response)
            await listener.next()
            await anyio.sleep(0.2)
            await hub.client.start_new("echo", 1)
            await listener.next()

    assert listener.comments >= 1


@pytest.mark.by_turns
async def test_a_stream_ends_with_its_server() -> None:
    heard = anyio.Event()
    ended = anyio.Event()

    async def listen_to(http: httpx.AsyncClient) -> None:
        async with http.stream("GET", CHANGES) as response:
            listener = Listener(response)
            await listener.next()
            heard.set()
            with pytest.raises(EOFError):
                await listener.next()
        ended.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            options = ServerOptions(address=Address("127.0.0.1", 0))
            async with Hub(make_app()) as hub:
                with listen(options, announce=lambda _: None) as server:
                    async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:
                        async with server.beside(hub):
                            tasks.start_soon(listen_to, http)
                            await heard.wait()
                        await ended.wait()


@pytest.mark.by_turns
async def test_a_place_that_no_stream_gave_is_refused() -> None:
    async with serving() as (_, http):
        answers = [
            await http.get(f"{CHANGES}?after=soon"),
            await http.get(CHANGES, headers={"Last-Event-ID": "soon"}),
            await http.get(f"{CHANGES}?statuses=Asleep"),
        ]

    assert [one.status_code for one in answers] == [400, 400, 400]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_many_streams_tell_of_is_read_and_encoded_once() -> None:
    count = 20
    with anyio.fail_after(20):
        async with serving() as (hub, http), AsyncExitStack() as stack:
            listeners: list[Listener] = []
            for _ in range(count):
                response = await stack.enter_async_context(
                    http.stream("GET", f"{CHANGES}?name=approval")
                )
                listeners.append(Listener(response))
                await listeners[-1].next()
            reads = Reads(hub)
            await hub.client.start_new("approval", instance_id="one")
            told = [await listener.next() for listener in listeners]

    assert {data["instance_id"] for _, _, data in told} == {"one"}
    assert 0 < reads.count < count


class Counted:
    """The requests that a server is asked, and what of them is under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.streams = 0
        handle, tell = Entrance.handle, EventStream.__call__

        async def counted(entrance: Entrance, scope: Any, receive: Any, send: Any) -> None:
            last = dict(scope["headers"]).get(b"last-event-id", b"").decode()
            self.asked.append(f"{scope['path']} {last}".strip())
            await handle(entrance, scope, receive, send)

        async def told(stream: EventStream, scope: Any, receive: Any, send: Any) -> None:
            self.streams += 1
            try:
                await tell(stream, scope, receive, send)
            finally:
                self.streams -= 1

        monkeypatch.setattr(Entrance, "handle", counted)
        monkeypatch.setattr(EventStream, "__call__", told)

    async def come_to(self, streams: int) -> None:
        with anyio.fail_after(10):
            while self.streams != streams:
                await anyio.sleep(0.001)


async def until_ended(stream: AsyncIterator[Change], instance_id: str) -> None:
    async for change in stream:
        if change.instance_id == instance_id and change.status and change.status.is_completed:
            return


# Hypercorn sees that somebody has gone only where it next sends something.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_follows_changes_by_one_request_and_lets_go_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = Counted(monkeypatch)
    with anyio.fail_after(30):
        async with serving() as (hub, http), connect(str(http.base_url)) as client:
            counted.asked.clear()
            stream = client.changes(name="echo")
            await anext(stream)
            for number in range(5):
                id = f"e{number}"
                await hub.client.start_new("echo", number, instance_id=id)
                await until_ended(stream, id)
            asked = list(counted.asked)
            with anyio.move_on_after(0.05):
                await anext(stream)  # in the middle of which it is left
            await counted.come_to(0)
            await hub.client.start_new("echo", 1, instance_id="last")
            await until_ended(stream, "last")
            await counted.come_to(1)
            del stream
            await client.count()
            await counted.come_to(0)

    assert asked == ["/api/v1/changes"]
    assert [one.partition(" ")[0] for one in counted.asked] == [
        "/api/v1/changes",
        "/api/v1/changes",
        "/api/v1/instances",
    ]
    assert ":" in counted.asked[1]  # where it had come


@asynccontextmanager
async def server_of(hub: Hub, address: Address) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Serve a hub until told to stop; gives what stops it."""
    stop, up, down = anyio.Event(), anyio.Event(), anyio.Event()

    async def serve() -> None:
        with listen(ServerOptions(address=address), announce=lambda _: None) as server:
            async with server.beside(hub):
                up.set()
                await stop.wait()
        down.set()

    async def end() -> None:
        stop.set()
        await down.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await up.wait()
        yield end
        stop.set()


@pytest.mark.by_turns
async def test_a_client_goes_on_where_its_stream_broke(
    monkeypatch: pytest.MonkeyPatch, free_tcp_port: int
) -> None:
    counted = Counted(monkeypatch)
    address = Address("127.0.0.1", free_tcp_port)
    with anyio.fail_after(30):
        async with (
            Hub(make_app()) as hub,
            server_of(hub, address) as end,
            connect(f"http://{address}") as client,
        ):
            stream = client.changes()
            first = await anext(stream)
            await hub.client.start_new("echo", 1, instance_id="a")
            await until_ended(stream, "a")
            await end()
            await (await hub.client.start_new("echo", 1, instance_id="between")).result()
            async with server_of(hub, address):
                change = await anext(stream)

    assert first.kind == "reset"
    assert (change.kind, change.instance_id) == ("changed", "between")
    assert [one for one in counted.asked if one.startswith("/api/v1/changes ")]


@pytest.mark.by_turns
async def test_a_stream_is_read_from_another_loop(anyio_backend: str) -> None:
    async def follow(stream: AsyncIterator[Change]) -> str | None:
        with anyio.fail_after(10):
            await anext(stream)
            ready.set()
            return (await anext(stream)).instance_id

    ready = threading.Event()
    with anyio.fail_after(30):
        async with serving() as (hub, http), connect(str(http.base_url)) as client:
            found: list[str | None] = []

            async def elsewhere() -> None:
                stream = client.changes()
                found.append(await to_thread.run_sync(anyio.run, follow, stream))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(elsewhere)
                await to_thread.run_sync(ready.wait)
                await hub.client.start_new("echo", 1, instance_id="a")

    assert found == ["a"]


# Hypercorn sees that somebody has gone only where it next sends something.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_does_not_read_a_stream_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    request = f"GET {CHANGES} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    last = 0
    with anyio.fail_after(60):
        async with serving() as (hub, http):
            unread = ExitStack()
            for _ in range(30):
                sock = socket.create_connection((http.base_url.host, http.base_url.port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                unread.enter_context(sock)
                sock.sendall(request)
            await counted.come_to(30)
            async with http.stream("GET", f"{CHANGES}?name=echo") as response:
                listener = Listener(response)
                await listener.next()
                for number in range(40):  # more than the buffers on the way to them take
                    id = f"e{number}"
                    await hub.client.start_new("echo", "x" * 200_000, instance_id=id)
                    status: dict[str, Any] = {}
                    while status.get("runtime_status") != "Completed" or last != number:
                        status = (await listener.next())[2]["status"]
                        last = int(status["instance_id"][1:])
            alive = await http.get("/healthz")
            assert counted.streams >= 30
            unread.close()
            await counted.come_to(0)

    assert (last, alive.status_code) == (39, 200)


class Reads:
    """Counts how often instances are read from the store of any partition."""

    def __init__(self, hub: Hub) -> None:
        self.count = 0
        for partition in partitions_of(hub):
            store: Any = partition.store
            self._watch(store)

    def _watch(self, store: Any) -> None:
        read = store.read_instances

        async def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return await read(*arguments, **options)

        store.read_instances = counted
