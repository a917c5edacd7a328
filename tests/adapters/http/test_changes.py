"""The stream of events: what it tells, how it goes on, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import orjson
import pytest

from perdure import Hub
from perdure.adapters.http import changes
from perdure.adapters.http.server import Address, ServerOptions, listen
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


class Reads:
    """Counts how often instances are read from the store of any partition."""

    def __init__(self, hub: Hub) -> None:
        self.count = 0
        for partition in hub._partitions:
            store: Any = partition.store
            self._watch(store)

    def _watch(self, store: Any) -> None:
        read = store.read_instances

        async def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return await read(*arguments, **options)

        store.read_instances = counted
