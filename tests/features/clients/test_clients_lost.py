"""What is lost on the way is asked again where that is safe, and applied once."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import orjson
import pytest

from perdure import (
    EntityId,
    Hub,
    HubStoppingError,
    InternalError,
    OutcomeUnknownError,
    Settings,
    UnavailableError,
    UsageError,
    connect,
)
from perdure.adapters.http import create_app
from perdure.adapters.http.server import Address, ServerOptions, listen
from perdure.runtime.client import remote_client
from perdure.runtime.client.operations import Operation
from perdure.runtime.client.remote_client import AnswerLostError, RemoteClient
from perdure.runtime.transport.lines import Line
from tests.features.clients.application import app
from tests.features.clients.conftest import open_http

pytestmark = pytest.mark.by_turns

CLICKS: EntityId[Any] = EntityId("counter", "c")


class LossyTransport:
    """Loses the answers, or the requests, of the next operations.

    Attributes:
        lost: for each operation to come whether it is done before its answer is lost; empty where
            nothing is lost.
        asked: what has come this way.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.lost: list[bool] = []
        self.asked: list[str] = []

    async def ask(self, operation: Operation, arguments: dict[str, Any]) -> Any:
        self.asked.append(operation.name)
        arguments = orjson.loads(orjson.dumps(arguments))
        if not self.lost:
            return await self._hub.client.ask(operation.name, arguments)
        sent = self.lost.pop(0)
        if sent:
            await self._hub.client.ask(operation.name, arguments)
        raise AnswerLostError("lost", sent=sent)

    def follow(self) -> None:
        """It has no stream of its own."""


async def test_a_start_whose_answers_are_lost_is_applied_once() -> None:
    async with Hub(app) as hub:
        transport = LossyTransport(hub)
        client = RemoteClient(transport)
        for instance_id, request_id in ((None, None), ("given", None), (None, "r")):
            transport.lost = [True, False, True]
            handle = await client.start_new(
                "hello", "you", instance_id=instance_id, request_id=request_id
            )
            assert await handle.result(10) == "hello YOU"

        statuses = [one async for one in hub.client.query()]
        assert [one.execution for one in statuses] == [1, 1, 1]
        assert transport.asked.count("start") == 12


async def test_a_restart_whose_answers_are_lost_is_applied_once() -> None:
    async with Hub(app) as hub:
        transport = LossyTransport(hub)
        client = RemoteClient(transport)
        first = await client.start_new("hello", "you", instance_id="first")
        assert await first.result(10) == "hello YOU"
        ids = set[str]()
        for request_id in (None, "r", "r"):
            transport.lost = [True, False, True]
            again = await first.restart(request_id=request_id)
            assert await again.result(10) == "hello YOU"
            ids.add(again.instance_id)

        statuses = [one async for one in hub.client.query()]
        assert {one.instance_id for one in statuses} == {"first", *ids}
        assert len(ids) == 2


async def test_calls_and_signals_with_a_request_id_are_applied_once() -> None:
    async with Hub(app) as hub:
        transport = LossyTransport(hub)
        client = RemoteClient(transport)
        transport.lost = [True, True]
        assert await client.call_entity(CLICKS, "add", 2) == 2
        transport.lost = [True, True]
        await client.signal_entity(CLICKS, "add", 3, request_id="s")

        assert await client.call_entity(CLICKS, "get") == 5


async def test_what_has_no_request_id_is_not_asked_again_once_it_may_have_arrived() -> None:
    async with Hub(app) as hub:
        transport = LossyTransport(hub)
        client = RemoteClient(transport)
        transport.lost = [False, True]
        with pytest.raises(OutcomeUnknownError, match="repeat it under the same request id"):
            await client.signal_entity(CLICKS, "add", 3)

        assert await client.call_entity(CLICKS, "get") == 3
        assert transport.asked == ["signal", "signal", "call"]


async def test_a_hub_that_is_not_reached_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Hub(app) as hub:
        transport = LossyTransport(hub)
        client = RemoteClient(transport)
        transport.lost = [False] * 20
        monkeypatch.setattr(remote_client, "PATIENCE_S", 0.05)
        with pytest.raises(UnavailableError, match="has not been reached"):
            await client.ask("query", {})


async def test_a_wait_goes_on_with_the_next_hub(tmp_path: Path) -> None:
    place = f"sqlite:{tmp_path}/hub"
    results: list[Any] = []

    async def wait() -> None:
        async with connect(tmp_path / "s") as client:
            handle = await client.start_new("listen", instance_id="one")
            started.set()
            results.append(await handle.result(20))

    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with Hub(app, store=place, socket=tmp_path / "s"):
            tasks.start_soon(wait)
            await started.wait()
        async with Hub(app, store=place, socket=tmp_path / "s") as hub:
            await hub.client.raise_event("one", "end", "done")
            with anyio.fail_after(20):
                while not results:
                    await anyio.sleep(0.01)

    assert results == ["done"]


async def test_a_long_call_is_waited_for_in_several_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_client, "WAIT_S", 0.0)
    async with Hub(app) as hub:
        transport = LossyTransport(hub)
        client = RemoteClient(transport)

        assert await client.call_entity(CLICKS, "add", 2) == 2
        assert await client.call_entity(CLICKS, "get") == 2
        assert transport.asked.count("call") > 2


async def test_what_gives_much_is_done_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, used = Line.call, list[Line]()

    def noted(line: Line, *arguments: Any) -> Any:
        used.append(line)
        return call(line, *arguments)

    monkeypatch.setattr(Line, "call", noted)
    async with Hub(app, socket=tmp_path / "s"), connect(tmp_path / "s") as client:
        await client.count()
        line = used[-1]
        with pytest.raises(UsageError, match="asked for with 'look'"):
            await line.call("ask", "query", {})
        assert (await line.call("look", "query", {}))["items"] == []


async def test_a_value_may_be_as_large_as_the_hub_says_over_its_socket(tmp_path: Path) -> None:
    large = "x" * (20 * 1024 * 1024)
    settings = Settings(max_payload=32 * 1024 * 1024)
    async with (
        Hub(app, socket=tmp_path / "s", settings=settings),
        connect(tmp_path / "s") as client,
    ):
        assert await client.call_entity(EntityId("box", "b"), "set", large) == ["set"]


async def test_a_batch_that_is_too_large_for_a_request_is_refused(tmp_path: Path) -> None:
    async with Hub(app, socket=tmp_path / "s"), connect(tmp_path / "s") as client:
        signals = [(EntityId[Any]("box", str(n)), "set", "x" * 1_000_000) for n in range(12)]
        with pytest.raises(UsageError, match="in several batches"):
            await client.signal_entities(signals)
        assert [one async for one in client.query_entities()] == []


async def test_a_wait_goes_on_with_the_next_server_at_the_address(tmp_path: Path) -> None:
    place = f"sqlite:{tmp_path}/hub"
    results: list[Any] = []
    started = anyio.Event()

    async def wait(url: str) -> None:
        async with connect(url) as client:
            handle = await client.start_new("listen", instance_id="one")
            started.set()
            results.append(await handle.result(20))

    async with anyio.create_task_group() as tasks:
        async with Hub(app, store=place) as hub:
            options = ServerOptions(address=Address("127.0.0.1", 0))
            with listen(options, announce=lambda _: None) as server:
                address = Address.parse(server.url.removeprefix("http://"))
                async with server.beside(hub):
                    tasks.start_soon(wait, server.url)
                    await started.wait()
        async with Hub(app, store=place) as hub:
            options = ServerOptions(address=address)
            with listen(options, announce=lambda _: None) as server:
                async with server.beside(hub):
                    await hub.client.raise_event("one", "end", "done")
                    with anyio.fail_after(20):
                        while not results:
                            await anyio.sleep(0.01)

    assert results == ["done"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://[::1]:1/mounted"])
async def test_nobody_at_an_address_is_told_at_once(address: str) -> None:
    with anyio.fail_after(5), pytest.raises(UnavailableError, match="no hub answers"):
        async with connect(address):
            pass


@pytest.mark.parametrize("address", ["http://", "http://host:port", "http://h?x=1"])
async def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="place"):
        async with connect(address):
            pass


@pytest.mark.parametrize("key", ["", "a b\n", "schlüssel", 5])
async def test_what_is_no_key_is_refused_and_not_shown(key: Any) -> None:
    with pytest.raises(UsageError, match="key must be") as caught:
        async with connect("http://127.0.0.1:1", key=key):
            pass
    assert "schlüssel" not in str(caught.value)


@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_a_client_of_a_hub_elsewhere_is_for_other_loops_as_well(
    other: str, tmp_path: Path
) -> None:
    async with Hub(app, socket=tmp_path / "s"), connect(tmp_path / "s") as client:

        async def ask() -> Any:
            handle = await client.start_new("hello", "you")
            return await handle.result(10)

        result = await anyio.to_thread.run_sync(lambda: anyio.run(ask, backend=other))

    assert result == "hello YOU"
    with pytest.raises(HubStoppingError, match="inside of 'async with"):
        await client.count()


class Dropping(httpx.AsyncBaseTransport):
    """Brings requests to an application, and loses what ``lost`` says of the next ones.

    Attributes:
        lost: for each request to come, what is raised, and whether it is done before.
        keys: the request ids that came.
    """

    def __init__(self, hub: Hub) -> None:
        self._web = httpx.ASGITransport(create_app(hub))
        self.lost: list[tuple[httpx.TransportError, bool]] = []
        self.keys: list[str | None] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.keys.append(request.headers.get("idempotency-key"))
        if not self.lost:
            return await self._web.handle_async_request(request)
        error, is_done = self.lost.pop(0)
        if is_done:
            await self._web.handle_async_request(request)
        raise error


async def test_what_is_lost_over_http_is_asked_again_under_the_same_id_and_applied_once() -> None:
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(app))
        web = Dropping(hub)
        client = await open_http(web, None, stack)
        for lost in (
            [(httpx.ConnectError("refused"), False)],
            [(httpx.ReadError("broke"), True)],
            [(httpx.ReadTimeout("late"), True), (httpx.RemoteProtocolError("gone"), True)],
            [(httpx.WriteError("broke"), False)],
        ):
            web.lost, web.keys = list(lost), []
            handle = await client.start_new("hello", "you")
            assert len(set(web.keys)) == 1
            web.lost = list(lost)
            assert await handle.result(10) == "hello YOU"
            web.lost = list(lost)
            await client.call_entity(CLICKS, "add", 1)

        assert [one.execution async for one in hub.client.query()] == [1] * 4
        assert await client.call_entity(CLICKS, "get") == 4

        web.lost = [(httpx.ReadError("broke"), True)]
        with pytest.raises(OutcomeUnknownError):
            await client.signal_entity(CLICKS, "add", 1)


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, UsageError), (302, UsageError), (500, InternalError), (503, UnavailableError)],
)
async def test_what_another_server_answers_is_told_as_what_it_means(
    status: int, error: type[Exception]
) -> None:
    async def other(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, text="<html>")

    async with AsyncExitStack() as stack:
        with pytest.raises(error, match=f"http://localhost.* answered {status}"):
            await open_http(httpx.MockTransport(other), None, stack)
