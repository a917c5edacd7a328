"""The benchmarks measure what they say, and refuse to report where the outcome is wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import orjson
import pytest

from perdure import Client, EntityId, Hub
from perdure.benchmarks import command, hotspot
from perdure.benchmarks.bench import Bench, MakeHub, Options
from perdure.benchmarks.figures import (
    Outcome,
    WrongOutcomeError,
    percentiles_ms,
)
from perdure.benchmarks.hotspot import VARIANTS
from perdure.benchmarks.replay import measure_replay
from perdure.benchmarks.suite import BENCHMARKS, Benchmark
from perdure.benchmarks.workloads import Meter, app
from tests.benchmarks.sizes import make_small

Measure = Callable[[Bench], Awaitable[Outcome]]

SIZES = {
    "hello": 12,
    "fanout": 2,
    "hot": 30,
    "spread": 1_010,
    "signal": 12,
    "replay": 2,
    "hotspot": 40,
    "latency": 12,
    "bank": 40,
    "wordcount": 3,
    "growth": 5,
    "http": 3,
    "memory": 100,
}

SMALL: dict[str, tuple[Measure, int]] = {
    **{name: (BENCHMARKS[name].measure, n) for name, n in SIZES.items()},
    "replay": (partial(measure_replay, activities=30), SIZES["replay"]),
}

TEXTS = Path(command.__file__).parent

FIGURES: dict[str, set[str]] = {
    "hello": {
        "hello",
        "hello-alone",
        "four-signals-alone",
        "hello-alone / four-signals-alone",
    },
    "fanout": {"fanout"},
    "hot": {"hot-signal", "hot-call"},
    "spread": {"spread"},
    "signal": {"signal"},
    "replay": {
        "replay",
        "replay: time",
        "replay: longest time",
        "replay: round trip",
        "replay: without the round trip",
        "replay: start of the hub",
    },
    "hotspot": {
        "hotspot: share",
        "hotspot: Zipf",
        *(
            f"{variant}, {point}"
            for variant in VARIANTS
            for point in (
                *(f"traffic to one key, % {share}" for share in (0, 10, 25, 50, 75, 90, 100)),
                *(f"Zipf exponent {s}" for s in ("0", "0.5", "0.8", "1", "1.2", "1.5")),
            )
        ),
    },
    "latency": {
        f"{start}{operation}{end}"
        for operation in ("hello", "hot-call")
        for start, end in (
            ("", "-limit"),
            ("latency: ", ""),
            *(
                ("latency-", f"{load}{fact}")
                for load in (" at 10 %", " at 25 %", "", " at 75 %", " at 90 %")
                for fact in ("", ": load kept up")
            ),
        )
    },
    "bank": {"bank", "bank: audit p50", "bank: audit p99", "bank: transfers refused"},
    "wordcount": {
        "wordcount",
        "wordcount: words",
        "wordcount: text",
        "wordcount / direct count",
    },
    "http": {
        "http-hello",
        "http-signal",
        "http-batch",
        *(f"http-{name} rate" for name in ("hello", "signal", "batch")),
        "http-status",
        "http-page",
        "http-page-rare",
        "http-page-tag",
        "http-page-oldest",
        "http-streams-memory",
        "http-streams-last",
    },
    "growth": {
        "growth",
        "call among 40 entities",
        "flatness: hello beside instances",
        "flatness: hello beside entities",
        "flatness: call of a stored entity",
        *(
            f"{text} {kind}{end}"
            for kind in ("instances", "entities")
            for text, end in (
                ("empty (40", ")"),
                ("with 40", ""),
                ("hello with 40", ""),
                ("start of a hub with 40", ""),
            )
        ),
    },
    "memory": {"idle orchestration", "idle entity"},
}


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


class Sabotage:
    """A client of a hub that loses, doubles, falsifies or swaps every third request.

    Of the starts of a word count, each one loses its last file.
    """

    def __init__(self, client: Client, kind: str) -> None:
        self._client: Any = client
        self._kind = kind
        self._count = 0
        self._kept: tuple[Any, ...] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _strikes(self, kind: str) -> bool:
        if kind != self._kind:
            return False
        self._count += 1
        return self._count % 3 == 0

    async def start_new(self, f: Any, input: Any, **options: Any) -> Any:
        if self._strikes("falsify starts"):
            input = [*input[:1], input[1] + 1, *input[2:]] if type(input) is list else input + 1
        if self._strikes("double starts"):
            await self._client.start_new(f, input)
        if self._kind == "lose files":
            input = input[:-1]
        return await self._client.start_new(f, input, **options)

    async def signal_entity(self, *arguments: Any) -> None:
        if self._strikes("lose signals"):
            return
        if self._strikes("swap signals"):
            self._kept = arguments
            return
        if self._strikes("double signals"):
            await self._client.signal_entity(*arguments)
        await self._client.signal_entity(*arguments)
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await self._client.signal_entity(*kept)

    async def call_entity(self, id: Any, op: Any, *input: Any) -> Any:
        if op is Meter.mark and self._strikes("double calls"):
            await self._client.call_entity(id, op, *input)
        return await self._client.call_entity(id, op, *input)


def sabotaged(kind: str) -> MakeHub:
    class SabotagedHub(Hub):
        made: Client | None = None

        @property
        def client(self) -> Client:
            if self.made is None:
                self.made = cast(Client, Sabotage(super().client, kind))
            return self.made

    return SabotagedHub


#: Seconds after which what does not come is taken for lost, where a hub is to lose something.
LOST_AFTER_S = 0.3


def small(name: str, concurrency: int = 4, stalled_s: float = 10.0) -> Options:
    return Options(
        n=SMALL[name][1],
        concurrency=concurrency,
        instances=40,
        stalled_s=stalled_s,
        text=TEXTS,
    )


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [leaf for one in group.exceptions for leaf in leaves(one)]
    return [error]


#: What commits the most; on disk it takes as long as all others together, for the same figures.
MUCH = {"hotspot", "spread", "memory", "growth"}


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("name", "store"),
    [
        pytest.param(
            *(name, store),
            marks=[pytest.mark.slow] * (store == "sqlite" and name in MUCH),
        )
        for name in SMALL
        for store in ("memory", "sqlite")
    ],
)
async def test_a_benchmark_gives_its_figures(name: str, store: str, tmp_path: Path) -> None:
    measure, n = SMALL[name]
    bench = Bench(small(name), tmp_path if store == "sqlite" else None)

    outcome = await measure(bench)

    names = {load.name for load in outcome.loads} | {fact.name for fact in outcome.facts}
    names |= {sweep.name for sweep in outcome.sweeps}
    requests = 1 if name == "wordcount" else n
    assert names - {"four raw commits"} == FIGURES[name]
    assert all(load.requests == requests for load in outcome.loads)
    # What only reads commits nothing.
    assert all(load.commits > 0 or "call among" in load.name for load in outcome.loads)
    assert all(0 < load.p50_ms <= load.p99_ms for load in outcome.loads)
    assert all(load.seconds > 0 and load.cpu_us > 0 for load in outcome.loads)
    # Nothing may be refused, and a few streams may fit into what the process had.
    may_be_none = ("refused", "streams-memory")
    assert all(
        fact.value > 0 or any(one in fact.name for one in may_be_none) for fact in outcome.facts
    )
    assert all(len(row) == len(sweep.heads) for sweep in outcome.sweeps for row in sweep.rows)
    assert outcome.verified


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hello", "falsify starts"),
        ("hello", "lose signals"),
        ("fanout", "falsify starts"),
        ("hot", "lose signals"),
        ("hot", "swap signals"),
        ("hot", "double calls"),
        ("spread", "lose signals"),
        ("signal", "falsify starts"),
        ("replay", "falsify starts"),
        ("bank", "falsify starts"),
        ("bank", "double starts"),
        ("wordcount", "lose files"),
        ("latency", "falsify starts"),
        ("latency", "double calls"),
        ("growth", "falsify starts"),
        ("growth", "lose signals"),
        ("memory", "lose signals"),
    ],
)
async def test_a_wrong_outcome_is_never_reported_as_a_figure(name: str, kind: str) -> None:
    # One at a time where the order is at stake: others must not come in between.
    options = small(name, 1 if kind == "swap signals" else 4, LOST_AFTER_S)
    bench = Bench(options, None, make_hub=sabotaged(kind))

    with pytest.raises((WrongOutcomeError, ExceptionGroup)) as caught:
        await SMALL[name][0](bench)

    found = leaves(caught.value)
    assert found
    assert all(isinstance(error, WrongOutcomeError) for error in found)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["lose signals", "double signals"])
async def test_each_kind_of_hot_entity_is_checked(
    variant: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hotspot, "VARIANTS", {variant: VARIANTS[variant]})
    bench = Bench(small("hotspot", stalled_s=LOST_AFTER_S), None, make_hub=sabotaged(kind))

    with pytest.raises(ExceptionGroup) as caught:
        await SMALL["hotspot"][0](bench)

    assert all(isinstance(error, WrongOutcomeError) for error in leaves(caught.value))


async def test_a_closed_loop_sends_each_request_once_and_never_more_at_a_time() -> None:
    bench = Bench(Options(), None)
    sent: list[int] = []
    in_flight = most = 0

    async def request(index: int) -> None:
        nonlocal in_flight, most
        sent.append(index)
        in_flight += 1
        most = max(most, in_flight)
        await anyio.lowlevel.checkpoint()
        in_flight -= 1

    async with bench.hub(app) as hub:
        load = await bench.closed_loop(hub, "x", request, 50, unit="ones", concurrency=7)

    assert sent == list(range(50))
    assert most == load.concurrency == 7


async def test_a_closed_loop_counts_the_commits_and_operations_of_its_own_time() -> None:
    bench = Bench(Options(), None)
    async with bench.hub(app) as hub:
        meter = EntityId(Meter, "one")

        async def request(index: int) -> None:
            await hub.client.signal_entity(meter, Meter.mark, index)

        await bench.unmeasured("warm", request, 9)
        load = await bench.closed_loop(hub, "x", request, 5, unit="ones", concurrency=1)
        counted = (await hub.statistics()).commits

    assert (load.commits, counted) == (5, 6)
    assert (load.operations, load.requests) == (5, 5)


@pytest.mark.by_turns
async def test_an_open_loop_charges_a_stall_to_all_that_should_have_been_sent_meanwhile() -> None:
    stall_s, n = 0.2, 40
    bench = Bench(Options(concurrency=1), None)
    is_free = anyio.Event()

    async def request(index: int) -> None:
        if index == 0:
            with anyio.move_on_after(stall_s):
                await anyio.sleep_forever()
            is_free.set()
        await is_free.wait()

    async with bench.hub(app) as hub:
        timed = await bench.open_loop(hub, "x", request, n, rate=n / stall_s, unit="ones", note="")

    # All of them were due within about the stall, and on average half of it was left then.
    assert timed.load.p99_ms > 0.9 * stall_s * 1e3
    assert timed.load.p50_ms > 0.2 * stall_s * 1e3
    # From when they were really sent, as coordinated omission counts, most took next to nothing.
    waits = [took - late for took, late in zip(timed.latencies, timed.late, strict=True)]
    assert percentiles_ms(waits)[0] < 0.1 * timed.load.p50_ms


@pytest.mark.by_turns
async def test_an_open_loop_sends_nothing_before_its_time_and_says_when_it_falls_behind() -> None:
    n, took_s = 60, 0.002
    bench = Bench(Options(concurrency=1, arrivals="constant"), None)

    async def request(index: int) -> None:
        await anyio.sleep(took_s)

    async with bench.hub(app) as hub:
        tries = [  # a busy machine may have one stand still
            await bench.open_loop(hub, "x", request, n, rate=100.0, unit="ones", note="")
            for _ in range(3)
        ]
        relaxed = max(tries, key=lambda one: one.kept_up)
        # Two senders of two milliseconds each do a thousand a second at the most.
        flooded = await bench.open_loop(hub, "y", request, n, rate=1e5, unit="ones", note="")

    assert all(late >= 0 for late in (*relaxed.late, *flooded.late))
    assert relaxed.kept_up > 0.8
    assert flooded.kept_up < 0.2
    assert flooded.load.rate < 1_100


async def test_what_runs_beside_a_load_ends_with_it() -> None:
    bench = Bench(Options(), None)
    ended = anyio.Event()

    async def beside() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async def request(index: int) -> None:
        await anyio.lowlevel.checkpoint()

    async with bench.hub(app) as hub:
        await bench.timed_loop(hub, "x", request, 3, unit="ones", beside=beside)

    assert ended.is_set()


def test_the_command_fails_loudly_where_an_outcome_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure_lossy(bench: Bench) -> Outcome:
        made = Bench(bench.options, bench.folder, make_hub=sabotaged("falsify starts"))
        return await SMALL["hello"][0](made)

    monkeypatch.setitem(BENCHMARKS, "hello", Benchmark(measure_lossy, "loses"))
    as_json = tmp_path / "figures.json"

    status = command.main(["hello", "--store", "memory:", "-n", "5", "--json", f"{as_json}"])

    captured = capsys.readouterr()
    assert status == 1
    assert "hello FAILED: WrongOutcomeError: hello: ['Hello Tokyo" in captured.err
    content = orjson.loads(as_json.read_bytes())
    assert "hello" not in content
    assert content["failed"]["hello"][0].startswith("WrongOutcomeError: hello: ['Hello Tokyo")
