"""A hub over HTTP: hellos, signals, statuses and event streams, asked for by another process."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from perdure import App, EntityId, Hub, OrchestrationContext

from .bench import Bench
from .figures import Fact, Load, Outcome, expect, joined, percentiles_ms
from .workloads import Meter, app as workloads, completed, greetings

CONNECTIONS = 64
ENTITIES = 1_000
BATCH = 100
PAGE = 100
STREAMS = 1_000
CHANGES = 20

#: Of what fills a store: so many tags, and one of so many instances waits.
SHADES = 100
WAITING_EACH = 1_000
SHADE = 7

API = "/api/v1"
_SCRIPT = Path(__file__).with_name("http_load.py")
_LINE_MAX = 1 << 30

_FILLED = "filled"
_PAGES = (
    ("http-page", "statuses=Completed&order=newest", "the newest of a status that nearly all have"),
    ("http-page-rare", "statuses=Running&order=newest", "the newest of one in a thousand"),
    ("http-page-tag", f"tag=shade:{SHADE}&order=newest", "the newest by a tag of one in a hundred"),
    ("http-page-oldest", f"tag=shade:{SHADE}", "the oldest by a tag of one in a hundred"),
)

app = App("http")
app.include(workloads)


@app.orchestration
async def end_at_once(ctx: OrchestrationContext, number: int) -> int:
    """Give the number back."""
    return number


@app.orchestration
async def wait_for_go(ctx: OrchestrationContext, number: int) -> int:
    """Wait for what nobody says."""
    await ctx.wait_for_external_event("Go")
    return number


Asked = tuple[str, str, str | None]


async def measure_http(bench: Bench) -> Outcome:
    """Ask a hub by its HTTP interface, with a client on the same processors."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        return Outcome(verified=["nothing: it needs pip install 'perdure[web]'"])
    async with _client() as client:
        async with _served(bench, "hub") as (hub, address):
            outcome = await _Measurement(bench, hub, client, address).run()
        count = await _fill(bench)
        async with _served(bench, _FILLED) as (hub, address):
            pages = await _Measurement(bench, hub, client, address).pages(count)
        return joined([outcome, pages])


@asynccontextmanager
async def _served(bench: Bench, name: str) -> AsyncGenerator[tuple[Hub, tuple[str, int]]]:
    """Serve a hub, and give it with where that is."""
    from ..adapters.http.server import Address, ServerOptions, listen

    options = ServerOptions(address=Address("127.0.0.1", 0))
    async with bench.hub(app, name) as hub:
        with listen(options, announce=lambda _: None) as server:
            async with server.beside(hub):
                host, port = server.url.removeprefix("http://").rsplit(":", 1)
                yield hub, (host, int(port))


async def _fill(bench: Bench) -> int:
    """Fill a store with ended instances, of which a few wait, and leave it."""
    count = bench.options.instances

    async with bench.hub(app, _FILLED) as hub:

        async def request(index: int) -> None:
            tags = {"shade": f"{index % SHADES}"}
            if index % WAITING_EACH:
                handle = await hub.client.start_new(end_at_once, index, tags=tags)
                expect("result", await handle.result(), index)
            else:
                await hub.client.start_new(wait_for_go, index, tags=tags)

        await bench.unmeasured("filling with instances", request, count)
    return count


class _Measurement:
    """One run, against one server."""

    def __init__(self, bench: Bench, hub: Hub, client: _Client, address: tuple[str, int]) -> None:
        self._bench = bench
        self._client = client
        self._hub = hub
        self._address = address
        self.loads: list[Load] = []
        self.facts: list[Fact] = []

    async def run(self) -> Outcome:
        hellos = await self._hello()
        signals = await self._signals()
        await self._alone()
        streams = await self._streams()
        return Outcome(
            loads=self.loads,
            facts=self.facts,
            verified=[
                f"every result of {hellos:,} hellos",
                f"count and sum at each entity, of {signals:,} signals",
                f"the end of each instance, seen by each of {streams:,} streams",
            ],
        )

    async def _hello(self) -> int:
        warm, n = self._bench.n(1_000), self._bench.n(10_000)

        def request(number: int) -> Asked:
            body = json.dumps({"name": "hello", "input": number})
            return "POST", f"{API}/instances?wait=60", body

        await self._ask("hello", [request(number) for number in range(warm)], measured=False)
        bodies = await self._ask(
            "http-hello",
            [request(number) for number in range(n)],
            unit="orchestrations",
            target=2_000,
            keeps=True,
        )
        for number, body in enumerate(bodies):
            expect("hello", json.loads(body)["output"], greetings(number))
        expect("completed", await completed(self._hub.client, "hello"), warm + n)
        return n

    async def _signals(self) -> int:
        n, batches = self._bench.n(20_000), self._bench.n(2_000)
        path = f"{API}/entities/meter/{{}}/signal/mark"
        single: list[Asked] = [
            ("POST", path.format(f"one-{number % ENTITIES}"), str(number)) for number in range(n)
        ]
        await self._ask("http-signal", single, unit="signals", target=4_000)
        many: list[Asked] = []
        for batch in range(batches):
            numbers = range(batch * BATCH, (batch + 1) * BATCH)
            signals = [
                {"entity": f"@meter@many-{one % ENTITIES}", "operation": "mark", "input": one}
                for one in numbers
            ]
            many.append(("POST", f"{API}/signals", json.dumps(signals)))
        await self._ask("http-batch", many, unit="signals", per_request=BATCH, target=40_000)
        for prefix, count in (("one", n), ("many", batches * BATCH)):
            for index in range(min(ENTITIES, count)):
                numbers = range(index, count, ENTITIES)
                meter: EntityId[Meter] = EntityId(Meter, f"{prefix}-{index}")
                found = await self._hub.client.call_entity(meter, Meter.read)
                # Those of different connections have no order among them.
                expect(f"{meter}", found[:2], [len(numbers), sum(numbers)])
        return n + batches * BATCH

    async def _alone(self) -> None:
        client = self._hub.client
        await (await client.start_new("hello", 1, instance_id="looked-at")).result()
        status: Asked = ("GET", f"{API}/instances/looked-at", None)
        n = self._bench.n(2_000)
        await self._fact("http-status", [status] * n, "GET of a status, alone", 2.0)

    async def pages(self, count: int) -> Outcome:
        """Ask for pages out of a full store."""
        n = max(self._bench.n(2_000) // 20, 1)
        for name, query, what in _PAGES:
            page: Asked = ("GET", f"{API}/instances?{query}&limit={PAGE}", None)
            note = f"{PAGE} of {count:,} instances, {what}, alone"
            bodies = await self._fact(name, [page] * n, note, 20.0)
            for body in bodies:
                _expect_page(query, json.loads(body)["items"], count)
        words = f"kind, order and number of what is on each of {n * len(_PAGES):,} pages"
        return Outcome(facts=self.facts, verified=[words])

    async def _streams(self) -> int:
        count = min(STREAMS, max(self._bench.n(STREAMS), 1))
        ids = [f"seen-{number}" for number in range(CHANGES)]
        work = {
            "kind": "streams",
            "address": self._address,
            "connections": count,
            "path": f"{API}/changes?name=hello",
            "wanted": ids,
        }
        told: list[dict[str, Any]] = []
        before = _resident_mb()
        go = await self._client.connect(work)
        grown = _resident_mb() - before
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                told.append(await go())

            tasks.start_soon(listen)
            for number, id in enumerate(ids):
                await self._hub.client.start_new("hello", number, instance_id=id)
        self.facts += [
            Fact(
                name="http-streams-memory",
                value=grown,
                unit="MB",
                target=60.0,
                note=f"what {count:,} open event streams take",
            ),
            Fact(
                name="http-streams-last",
                value=max(cast("list[float]", told[0]["latencies"])),
                unit="s",
                note=f"until each of {count:,} streams has seen the end of {CHANGES} instances",
            ),
        ]
        return count

    async def _ask(
        self,
        name: str,
        requests: Sequence[Asked],
        *,
        unit: str = "requests",
        per_request: int = 1,
        target: float | None = None,
        keeps: bool = False,
        measured: bool = True,
    ) -> list[str]:
        """Send requests over all connections, and give the bodies of the answers."""
        told: dict[str, Any] = {}

        run = await self._client.connect(self._work(requests, CONNECTIONS, keeps))

        async def go() -> Sequence[float]:
            told.update(await run())
            latencies: list[float] = told["latencies"]
            return latencies

        if measured:
            load = await self._bench.outside(
                self._hub,
                name,
                go,
                unit=unit,
                per_request=per_request,
                concurrency=min(CONNECTIONS, len(requests)),
                note="the client is another process, whose processor time is not counted",
            )
            self.loads.append(load)
            rate = Fact(
                name=f"{name} rate",
                value=load.rate,
                unit=f"{unit}/s",
                better="higher",
                target=target,
            )
            self.facts.append(rate)
        else:
            await go()
        self._expect_done(name, told, len(requests))
        bodies: list[str] = told["bodies"]
        return bodies

    async def _fact(
        self, name: str, requests: Sequence[Asked], note: str, target: float
    ) -> list[str]:
        told = await (await self._client.connect(self._work(requests, 1, True)))()
        self._expect_done(name, told, len(requests))
        p50, _ = percentiles_ms(told["latencies"])
        self.facts.append(Fact(name=name, value=p50, unit="ms", note=note, target=target))
        bodies: list[str] = told["bodies"]
        return bodies

    def _work(self, requests: Sequence[Asked], connections: int, keeps: bool) -> dict[str, Any]:
        return {
            "kind": "closed",
            "address": self._address,
            "connections": min(connections, len(requests)),
            "requests": requests,
            "keeps": keeps,
        }

    @staticmethod
    def _expect_done(name: str, told: dict[str, Any], count: int) -> None:
        done = sum(one for status, one in told["statuses"].items() if status in ("200", "202"))
        expect(f"answers of {name}, {told['statuses']}", done, count)


def _expect_page(query: str, items: list[dict[str, Any]], count: int) -> None:
    """Check that a page has what was asked for: all that there can be, of its kind, in order."""
    tagged, waiting = "tag=" in query, "Running" in query
    if tagged:
        stored = len(range(SHADE, count, SHADES))
    else:
        waits = len(range(0, count, WAITING_EACH))
        stored = waits if waiting else count - waits
    found = {one["instance_id"] for one in items}
    expect(f"instances on a page by {query}", len(found), min(PAGE, stored))
    for one in items:
        if tagged:
            expect("tag", one["tags"]["shade"], str(SHADE))
        else:
            expect("status", one["runtime_status"], "Running" if waiting else "Completed")
    times = [one["created_time"] for one in items]
    expect(f"order of a page by {query}", times, sorted(times, reverse="newest" in query))


Go = Callable[[], Awaitable[dict[str, Any]]]


class _Client:
    """The client's process."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._given = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)

    async def connect(self, work: dict[str, Any]) -> Go:
        """Have it connect; what is given has it begin, and gives what it tells."""
        await self._given.send(json.dumps(work).encode() + b"\n")
        expect("the client says", await self._lines.receive_until(b"\n", 100), b"ready")
        return self._go

    async def _go(self) -> dict[str, Any]:
        await self._given.send(b"go\n")
        told = json.loads(await self._lines.receive_until(b"\n", _LINE_MAX))
        return cast("dict[str, Any]", told)


@asynccontextmanager
async def _client() -> AsyncGenerator[_Client]:
    async with await anyio.open_process([sys.executable, str(_SCRIPT)], stderr=None) as process:
        yield _Client(process)
        assert process.stdin is not None
        await process.stdin.aclose()


def _resident_mb() -> float:
    """Give what this process has in memory; not a number where nobody says so."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return float("nan")
    [resident] = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(resident) / 1024
