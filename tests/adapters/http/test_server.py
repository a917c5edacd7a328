"""The server beside a hub: where it may listen, and how it comes to an end."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from attrs import define, evolve

from perdure import EntityId, Hub, UsageError
from perdure.adapters.http import Keys, Limits, server
from perdure.adapters.http.server import Address, ServerOptions, listen
from tests.adapters.http.serving import KEYS, SDK, WEBHOOKS, Served, make_app
from tests.greeter import app_folder, command, read_line

NOT_ASKED: Any = None  # the application, which is reached by its address

HERE = ServerOptions(address=Address("127.0.0.1", 0))


@define
class Running:
    """A server that runs, and what it has announced."""

    served: Served
    url: str
    lines: list[str]


@asynccontextmanager
async def running(options: ServerOptions = HERE) -> AsyncGenerator[Running, None]:
    lines: list[str] = []
    with listen(options, announce=lines.append) as listening:
        async with Hub(make_app()) as hub, listening.beside(hub):  # noqa: SIM117 - the URL is new
            async with httpx.AsyncClient(base_url=lines[0], timeout=20) as http:
                yield Running(Served(hub, http, NOT_ASKED), lines[0], lines)


def take(options: ServerOptions) -> None:
    with listen(options):
        pass


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7071", Address("127.0.0.1", 7071)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "7071", ":7071", "host:", "host:x", "host:65536", "::1:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--http must be HOST:PORT"):
        Address.parse(text, "--http")


def test_without_a_key_it_listens_on_loopback_alone_and_says_why() -> None:
    everywhere = ServerOptions(address=Address("0.0.0.0", 0))

    with pytest.raises(UsageError, match=r"without a key would let in whoever.*--key-file"):
        take(everywhere)
    with listen(evolve(everywhere, keys=Keys.parse(KEYS))) as listening:
        assert listening.url.startswith("http://0.0.0.0:")


def test_language_sdks_are_answered_without_a_key_on_loopback_alone() -> None:
    options = evolve(HERE, keys=Keys.parse(KEYS), local_rpc=Address("0.0.0.0", 0))

    with pytest.raises(UsageError, match=r"--local-rpc 0\.0\.0\.0:0 would let in"):
        take(options)


@pytest.mark.by_turns
async def test_a_server_says_where_it_is_while_it_serves_and_afterwards() -> None:
    options = ServerOptions(address=Address("127.0.0.1", 0))
    async with Hub(make_app()) as hub:
        with listen(options, announce=lambda _: None) as server:
            before = server.url
            async with server.beside(hub), httpx.AsyncClient(base_url=before) as http:
                await http.get("/healthz")
                assert server.url == before
            assert server.url == before


def test_an_address_that_is_taken_is_named() -> None:
    with listen(HERE) as first:
        port = int(first.url.rpartition(":")[2])

        with pytest.raises(UsageError, match=f"--http 127.0.0.1:{port} is not to be had"):
            take(ServerOptions(address=Address("127.0.0.1", port)))


@pytest.mark.parametrize("package", ["uvicorn", "hypercorn", "starlette"])
def test_without_its_packages_serve_says_what_to_install(package: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from perdure.__main__ import main\n"
        "sys.exit(main(['serve', 'x:app', '--store', 'memory:', '--http', '127.0.0.1:0']))\n"
    )
    with command(tmp_path, "-c", code) as process:
        _, errors = process.communicate(timeout=30)

    assert errors == f"perdure: HTTP needs the package {package}: pip install 'perdure[web]'\n"
    assert process.returncode in (1, 2)


def test_without_starlette_the_application_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['starlette'] = None\n"
        "try:\n"
        "    from perdure.adapters.http import create_app\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    with command(tmp_path, "-c", code) as process:
        output, _ = process.communicate(timeout=30)

    assert output == "HTTP needs the package starlette: pip install 'perdure[web]'\n"


@pytest.mark.by_turns
async def test_it_serves_where_it_says() -> None:
    async with running() as it:
        started = await it.served.http.post(
            f"{WEBHOOKS}/orchestrators/echo/a%2Fb?timeout=10", json=7
        )
        links = (await it.served.http.post(f"{WEBHOOKS}/orchestrators/approval/c%20d")).json()
        seen = await it.served.http.get(links["statusQueryGetUri"])
        status = await it.served.client.get_status("a/b")

    assert (started.status_code, started.json()) == (200, 7)
    assert links["statusQueryGetUri"].startswith(f"{it.url}{WEBHOOKS}/instances/c%20d?")
    assert seen.json()["instanceId"] == "c d"
    assert status is not None
    assert started.headers["date"]
    assert "server" not in started.headers


CURL = """
# Check orchestration status
curl "https://my-functions.azurewebsites.net/runtime/webhooks/durabletask/instances/{instanceId}?code={functionKey}"
# Query all running orchestrations
curl "https://my-functions.azurewebsites.net/runtime/webhooks/durabletask/instances?runtimeStatus=Running&code={functionKey}"
# Purge completed instances (cleanup)
curl -X POST "https://my-functions.azurewebsites.net/runtime/webhooks/durabletask/instances/purge?createdTimeFrom=2024-01-01&runtimeStatus=Completed&code={functionKey}"
"""


@pytest.mark.by_turns
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_commands_of_a_guide_to_the_family_work_with_the_address_changed() -> None:
    async with running(evolve(HERE, keys=Keys.parse(KEYS))) as it:
        await it.served.run("echo", 7, id="ended")
        await it.served.client.start_new("approval", instance_id="live")
        commands = CURL.replace("https://my-functions.azurewebsites.net", it.url)
        commands = commands.replace("{functionKey}", "work-secret").replace("{instanceId}", "ended")
        answers = [
            json.loads((await anyio.run_process([*shlex.split(line), "--silent"])).stdout)
            for line in commands.splitlines()
            if line.startswith("curl")
        ]

    status, live, purged = answers
    assert (status["runtimeStatus"], status["output"]) == ("Completed", 7)
    assert [one["instanceId"] for one in live] == ["live"]
    assert purged == {"instancesDeleted": 1}


@pytest.mark.by_turns
async def test_the_listener_for_language_sdks_asks_for_no_key_and_has_nothing_else() -> None:
    options = evolve(HERE, keys=Keys.parse(KEYS), local_rpc=Address("127.0.0.1", 0))
    async with running(options) as it:
        local = it.lines[1].split()[-1]
        asked = await it.served.http.get(f"{local}instances")
        webhook = await it.served.http.get(local.replace(f"{SDK}/", f"{WEBHOOKS}/instances"))
        outside = await it.served.http.get(f"{SDK}/instances")
        other_host = await it.served.http.get(f"{local}instances", headers={"Host": "evil"})

    assert (asked.status_code, webhook.status_code) == (200, 404)
    assert outside.status_code == 401
    assert other_host.status_code == 421


@pytest.mark.by_turns
async def test_a_head_is_answered_without_a_body_and_the_connection_goes_on() -> None:
    async with running() as it:
        await it.served.run("echo", 7, id="i")
        path = f"{WEBHOOKS}/instances/i"
        answers = [
            await it.served.http.request(method, path) for method in ("HEAD", "GET", "HEAD", "GET")
        ]

    assert [one.status_code for one in answers] == [200] * 4
    assert [len(one.content) > 0 for one in answers] == [False, True, False, True]


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("keys", "allowed", "host", "status"),
    [
        (None, (), "127.0.0.1", 200),
        (None, (), "other.example", 421),
        (None, ("other.example",), "other.example", 200),
        (KEYS, (), "other.example", 200),
        (KEYS, ("third.example",), "other.example", 421),
    ],
)
async def test_with_keys_any_host_is_good_unless_some_are_named(
    keys: str | None, allowed: tuple[str, ...], host: str, status: int
) -> None:
    read = None if keys is None else Keys.parse(keys)
    async with running(evolve(HERE, keys=read, allowed_hosts=allowed)) as it:
        answer = await it.served.http.get(
            f"{WEBHOOKS}/instances?code=look-secret", headers={"Host": host}
        )

    assert answer.status_code == status


async def test_requests_that_wait_are_answered_when_it_stops() -> None:
    answers: list[httpx.Response] = []
    lines: list[str] = []

    async def wait(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            answers.append(await http.post(f"{WEBHOOKS}/orchestrators/approval/i?timeout=60"))

    with listen(HERE, announce=lines.append) as listening:
        async with Hub(make_app()) as hub, anyio.create_task_group() as tasks:
            with anyio.fail_after(20):
                async with listening.beside(hub):
                    tasks.start_soon(wait, lines[0])
                    while await hub.client.get_status("i") is None:
                        await anyio.sleep(0.001)
            assert await hub.client.get_status("i") is not None

    assert [one.status_code for one in answers] == [202]
    assert answers[0].json()["id"] == "i"


async def test_a_request_under_way_ends_before_the_server_does() -> None:
    answers: list[httpx.Response] = []
    lines: list[str] = []
    inside = anyio.Event()
    is_shut = False

    with listen(HERE, announce=lines.append) as listening:
        async with Hub(make_app()) as hub, anyio.create_task_group() as tasks:
            read = hub.client.get_status

            async def get_status(instance_id: str) -> Any:
                nonlocal is_shut
                inside.set()
                host, port = lines[0].removeprefix("http://").split(":")
                while not is_shut:
                    try:
                        await (await anyio.connect_tcp(host, int(port))).aclose()
                    except OSError:
                        is_shut = True
                return await read(instance_id)

            async def ask() -> None:
                async with httpx.AsyncClient(base_url=lines[0], timeout=20) as http:
                    answers.append(await http.get(f"{WEBHOOKS}/instances/nobody"))

            hub.client.get_status = get_status  # type: ignore[method-assign]
            with anyio.fail_after(20):
                async with listening.beside(hub):
                    tasks.start_soon(ask)
                    await inside.wait()

    assert is_shut
    assert [one.status_code for one in answers] == [404]


@pytest.mark.by_turns
async def test_a_request_that_does_not_end_is_given_up_after_a_while() -> None:
    lines: list[str] = []
    inside = anyio.Event()
    options = evolve(HERE, limits=Limits(drain_s=0.1))

    with listen(options, announce=lines.append) as listening:
        async with Hub(make_app()) as hub, anyio.create_task_group() as tasks:

            async def get_status(instance_id: str) -> None:
                del instance_id
                inside.set()
                await anyio.sleep_forever()

            async def ask() -> None:
                async with httpx.AsyncClient(base_url=lines[0], timeout=20) as http:
                    try:
                        await http.get(f"{WEBHOOKS}/instances/nobody")
                    except httpx.RemoteProtocolError:
                        return

            hub.client.get_status = get_status  # type: ignore[method-assign]
            with anyio.fail_after(20):
                async with listening.beside(hub):
                    tasks.start_soon(ask)
                    await inside.wait()


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with running():
            raise ZeroDivisionError


@pytest.mark.by_turns
async def test_a_disconnect_in_the_middle_of_a_request_loses_nothing_acknowledged() -> None:
    rounds = 40
    acknowledged = 0
    body = b"POST %s/entities/counter/k?op=add HTTP/1.1\r\nHost: localhost\r\n" % WEBHOOKS.encode()
    whole = body + b"Content-Type: application/json\r\nContent-Length: 1\r\n\r\n1"

    async with running() as it:
        host, port = it.url.removeprefix("http://").split(":")
        for number in range(rounds):
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(whole)
                with anyio.fail_after(10):
                    answer = await stream.receive()
                acknowledged += answer.startswith(b"HTTP/1.1 202")
                # One more, broken off: somewhere within, or as soon as it is sent.
                await stream.send(whole[: len(whole) - number % 3 * 20])
        http = it.served.http
        with anyio.fail_after(10):
            while True:
                value = await it.served.client.call_entity(EntityId("Counter", "k"), "get")
                if value >= acknowledged:
                    break
        healthy = await http.get("/healthz")

    whole_ones = len([number for number in range(rounds) if number % 3 == 0])
    assert acknowledged == rounds
    assert rounds <= value <= rounds + whole_ones  # and no part of one was taken for one
    assert healthy.status_code == 200


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvicorn's, which has no such limit itself
@pytest.mark.parametrize(
    "begun", [b"", b"GET / HT", b"GET /none/such HTTP/1.1\r\nHost: localhost\r\nX: "]
)
async def test_a_connection_that_does_not_send_its_head_is_closed(
    begun: bytes, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 1.0)
    async with running() as it:
        host, port = it.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            if begun:
                await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await stream.receive()
                await stream.send(begun)
            with anyio.fail_after(10):
                rest = [part async for part in stream]

    assert rest == []


MALFORMED = [
    b"\r\n\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /%ff%fe?\xff=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET runtime HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://elsewhere/runtime/webhooks/durabletask/instances HTTP/1.1\r\nHost: evil\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /none/such HTTP/1.1\r\n\r\n",
    b"GET /none/such HTTP/1.0\r\n\r\n",
    b"GET /none/such HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /none/such HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    b"GET /none/such HTTP/1.1\r\nHost: \xff\r\nX\x00: y\r\n\r\n",
    b"GET /none/such HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"POST /none/such HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /none/such HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"POST /none/such HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /none/such HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    bytes(range(256)) * 4,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
]


@pytest.mark.by_turns
async def test_what_is_no_request_is_refused_or_hung_up_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[bytes] = []
    async with running() as it:
        host, port = it.url.removeprefix("http://").split(":")
        for sent in MALFORMED:
            async with await anyio.connect_tcp(host, int(port)) as stream:
                answer = b""
                with suppress(anyio.BrokenResourceError):
                    await stream.send(sent)
                    await stream.send_eof()
                    with anyio.move_on_after(5):
                        async for part in stream:
                            answer += part
                answers.append(answer)
        healthy = await it.served.http.get("/healthz")

    statuses = [int(answer[9:12]) for answer in answers if answer]
    assert all(300 <= status < 500 for status in statuses), answers
    assert healthy.status_code == 200
    assert not [one for one in caplog.records if one.exc_info and one.name.startswith("perdure")]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_head_is_bounded_whatever_reads_it(anyio_backend: str) -> None:
    closed: list[str] = []

    class Transport(asyncio.Transport):
        def close(self) -> None:
            closed.append("closed")

    class Collecting:
        """A protocol that takes all that comes for the head of a request."""

        cycle = None

        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()

        def connection_made(self, transport: Transport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            pass

        def connection_lost(self, exc: Exception | None) -> None:
            pass

    protocol = server.bounded(Collecting, 100)()
    protocol.connection_made(Transport())
    protocol.data_received(b"x" * 60)
    protocol.data_received(b"x" * 40)
    before = list(closed)
    protocol.data_received(b"x")
    protocol.connection_lost(None)

    assert (before, closed) == ([], ["closed"])


@pytest.mark.parametrize("size", [100_000, 10_000_000])
async def test_a_head_without_end_is_not_collected(size: int) -> None:
    async with running() as it:
        host, port = it.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            answer = b""
            with anyio.fail_after(20):
                try:
                    await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
                    for _ in range(size // 10_000):
                        await stream.send(b"x" * 10_000)
                    while True:
                        answer += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
        healthy = await it.served.http.get("/healthz")

    assert b" 200 " not in answer
    assert healthy.status_code == 200


PATIENCE = """
import perdure

app = perdure.App("patience")

@app.orchestration
async def wait(ctx: perdure.OrchestrationContext) -> None:
    await ctx.wait_for_external_event("never")
"""


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("anyio_backend", "workers"), [("asyncio", 0), ("trio", 0), ("asyncio", 1)]
)
async def test_serve_prints_where_it_is_and_answers_what_is_under_way_when_it_is_stopped(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    refused = ready = httpx.Response(0)
    waiting: list[httpx.Response] = []
    with app_folder(tmp_path, monkeypatch) as folder:
        (folder / "keys").write_text(KEYS, "utf-8")
        (folder / "patience.py").write_text(PATIENCE, "utf-8")
        arguments = ["patience:app", "--store", "sqlite:hub", "--backend", anyio_backend_name]
        arguments += ["--http", "127.0.0.1:0", "--key-file", "keys", "--workers", str(workers)]
        with command(folder, "-m", "perdure", "serve", *arguments) as process:
            url = next(
                line.strip() for line in iter(lambda: read_line(process), "") if "http" in line[:4]
            )
            async with (
                httpx.AsyncClient(base_url=url, timeout=30) as http,
                anyio.create_task_group() as tasks,
            ):
                params = {"code": "work-secret"}

                async def wait() -> None:
                    path = f"{WEBHOOKS}/orchestrators/wait/i"
                    waiting.append(await http.post(path, params={**params, "timeout": 60}))

                refused = await http.get(f"{WEBHOOKS}/instances")
                ready = await http.get("/readyz")
                tasks.start_soon(wait)
                with anyio.fail_after(30):
                    while (await http.get(f"{WEBHOOKS}/instances/i", params=params)).is_error:
                        await anyio.sleep(0.01)
                process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=30)

    assert refused.status_code == 401
    assert ready.status_code == 200
    assert [one.status_code for one in waiting] == [202]
    assert "stopped" in output
    assert errors == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--http", "0.0.0.0:0"], "without a key would let in"),
        (["--http", "nonsense"], "--http must be HOST:PORT"),
        (["--key-file", "keys"], "say where with --http"),
        (["--http", "127.0.0.1:0", "--key-file", "none"], "cannot be read"),
    ],
)
def test_serve_says_what_is_wrong_before_it_opens_the_store(
    arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from perdure.__main__ import main

    monkeypatch.delenv("PERDURE_KEYS", raising=False)
    with app_folder(tmp_path, monkeypatch) as folder:
        status = main(["serve", "greeter:app", "--store", "sqlite:hub", *arguments])

        assert status in (1, 2)
        assert reason in capsys.readouterr().err
        assert not (folder / "hub").exists()


def test_a_port_that_was_given_up_is_free_again() -> None:
    with listen(HERE) as listening:
        port = int(listening.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        pass
