"""Where a benchmark runs: its options, its hubs and their stores, and the load on them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from array import array
from collections import deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from operator import length_hint
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import anyio
from attrs import frozen

from perdure import (
    App,
    Hub,
    HubStatistics,
    MemoryStore,
    Settings,
    SqliteStore,
    Store,
    UsageError,
)

from .figures import Load, expect, percentiles_ms
from .schedule import Arrivals, arrivals

Request = Callable[[int], Awaitable[object]]
MakeHub = Callable[..., Hub]  # ``perdure.Hub``

_TICK_S = 0.000_1
_LOOK_S = 0.25  # between two looks at how far a load has come


def _pin(pids: Sequence[int]) -> None:
    """Give each process, with its threads, one processor."""
    processors = sorted(os.sched_getaffinity(0))
    for number, pid in enumerate(pids):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {processors[number % len(processors)]})


@frozen(kw_only=True)
class Options:
    """What the command line says about a run.

    Attributes:
        store: ``memory:`` or ``sqlite:PATH``; ``sqlite:`` alone is a temporary folder.
        n: requests of a load; None leaves it to the benchmark.
        concurrency: requests in flight.
        partitions: of each hub.
        instances: up to how many actors ``growth`` and ``http`` fill a store with.
        quick: small sizes: to see that all of it runs, and not how fast.
        arrivals: how the requests of an open loop follow one another.
        text: the folder that ``wordcount`` reads; None is Python's own library.
        stalled_s: how long nothing may happen before what is awaited counts as lost.
        pin: whether each worker process has a processor to itself and no more (Linux only).
    """

    store: str = "sqlite:"
    n: int | None = None
    concurrency: int = 1_000
    partitions: int = 4
    instances: int = 100_000
    quick: bool = False
    arrivals: Arrivals = "poisson"
    text: Path | None = None
    stalled_s: float = 60.0
    pin: bool = False


class Progress(Protocol):
    """Is told how far a load has come."""

    def show(self, what: str, done: int, total: int) -> None:
        """Take note; called a few times a second."""
        ...


class NoProgress:
    """Nobody looks."""

    def show(self, what: str, done: int, total: int) -> None: ...


@frozen
class Timed:
    """A load with the latency of each request.

    Attributes:
        load: its figures.
        latencies: seconds, by the number of the request.
        late: in an open loop, how many seconds after its time each request was sent.
        kept_up: in an open loop, the time that the schedule took of the time that it should take.
    """

    load: Load
    latencies: array[float]
    late: Sequence[float] = ()
    kept_up: float = 1.0


class Bench:
    """One run of one benchmark: it has a folder (or a memory) of its own, empty at first."""

    def __init__(
        self,
        options: Options,
        folder: Path | None,
        progress: Progress | None = None,
        make_hub: MakeHub = Hub,
    ) -> None:
        self.options = options
        self.folder = folder
        self._progress = progress or NoProgress()
        self._make_hub = make_hub
        self._memory: dict[str, MemoryStore] = {}

    def n(self, usual: int) -> int:
        """How many requests a load has."""
        if self.options.n is not None:
            return self.options.n
        return max(usual // 10, 1) if self.options.quick else usual

    def store(self, name: str) -> Store:
        """Give the store of that name: the same rows each time, so that hubs can be restarted."""
        if self.folder is None:
            return self._memory.setdefault(name, MemoryStore())
        return SqliteStore(self.folder / name)

    @asynccontextmanager
    async def hub(
        self,
        app: App,
        name: str = "hub",
        settings: Settings | None = None,
        **placement: Any,
    ) -> AsyncGenerator[Hub]:
        """Run a hub on the store of that name; ``placement`` says on which shards, or which store.

        Partitions stay where they are, so that a figure is of one placement.
        """
        options = {"partitions": self.options.partitions, "rebalance": None, **placement}
        if "store" not in options:
            options["store"] = self.store(name)
        made = self._make_hub(app, settings=settings, **options)
        async with made as hub:
            if self.options.pin and placement.get("workers"):
                _pin([shard.pid for shard in (await hub.statistics()).shards])
            yield hub

    async def closed_loop(
        self,
        hub: Hub,
        name: str,
        request: Request,
        n: int,
        *,
        unit: str,
        per_request: int = 1,
        concurrency: int | None = None,
        then: Callable[[], Awaitable[object]] | None = None,
        note: str = "",
    ) -> Load:
        """Measure ``n`` requests; see ``timed_loop``."""
        timed = await self.timed_loop(
            hub,
            name,
            request,
            n,
            unit=unit,
            per_request=per_request,
            concurrency=concurrency,
            then=then,
            note=note,
        )
        return timed.load

    async def timed_loop(
        self,
        hub: Hub,
        name: str,
        request: Request,
        n: int,
        *,
        unit: str,
        per_request: int = 1,
        concurrency: int | None = None,
        operations: int | None = None,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
        then: Callable[[], Awaitable[object]] | None = None,
        note: str = "",
    ) -> Timed:
        """Measure ``n`` requests; each client sends the next one when its last is answered.

        ``operations`` is what to count where requests have different numbers of them. ``beside``
        runs at the same time, and is cancelled when the last request is answered.
        ``then`` is awaited inside the measured time, for loads whose end is not an answer. The
        time also ends only when the store has nothing left to do for it.
        """
        clients = min(concurrency or self.options.concurrency, n)
        latencies = array("d", bytes(8 * n))
        indices = iter(range(n))
        gate = anyio.Event()

        async def send() -> None:
            await gate.wait()
            for index in indices:
                begun = perf_counter()
                await request(index)
                latencies[index] = perf_counter() - begun

        meter = await _Meter.start(hub)
        async with anyio.create_task_group() as observers:
            observers.start_soon(self._watch, name, indices, n)
            async with anyio.create_task_group() as senders:
                for _ in range(clients):
                    senders.start_soon(send)
                await anyio.lowlevel.checkpoint()
                if beside is not None:
                    observers.start_soon(beside)
                meter.begin()
                gate.set()
            if then is not None:
                await then()
            await _settled(hub)
            meter.end()
            observers.cancel_scope.cancel()
        load = await meter.load(
            name,
            unit,
            latencies,
            operations or n * per_request,
            concurrency=clients,
            note=note,
        )
        return Timed(load, latencies)

    async def open_loop(
        self, hub: Hub, name: str, request: Request, n: int, rate: float, *, unit: str, note: str
    ) -> Timed:
        """Measure ``n`` requests that are sent when their time has come, answered or not.

        The times are fixed beforehand. A latency counts from the time at which the request should
        have been sent, so a hub (or a sender) that stalls is charged for all that it kept
        waiting, and not for one request only.
        """
        due = arrivals(self.options.arrivals, n, rate)
        latencies = array("d", bytes(8 * n))
        late = array("d", bytes(8 * n))
        indices = iter(range(n))
        started = 0.0
        gate = anyio.Event()
        pace = _Pace()

        async def send() -> None:
            await gate.wait()
            for index in indices:
                intended = started + due[index]
                if intended > perf_counter():
                    await pace.wait_until(intended)
                late[index] = perf_counter() - intended
                await request(index)
                latencies[index] = perf_counter() - intended

        meter = await _Meter.start(hub)
        async with anyio.create_task_group() as observers:
            observers.start_soon(self._watch, name, indices, n)
            observers.start_soon(pace.run)
            async with anyio.create_task_group() as senders:
                # Some wait for their time and the others for an answer, so there are many.
                for _ in range(min(n, 2 * self.options.concurrency)):
                    senders.start_soon(send)
                await anyio.lowlevel.checkpoint()
                started = perf_counter()
                meter.begin()
                gate.set()
            meter.end()
            observers.cancel_scope.cancel()
        await _settled(hub)
        meter.end_work()
        load = await meter.load(name, unit, latencies, n, concurrency=0, note=note)
        return Timed(load, latencies, late, due[-1] / load.seconds)

    async def outside(
        self,
        hub: Hub,
        name: str,
        load: Callable[[], Awaitable[Sequence[float]]],
        *,
        unit: str,
        per_request: int,
        concurrency: int,
        note: str,
    ) -> Load:
        """Measure requests that another process sends; ``load`` gives the latency of each."""
        meter = await _Meter.start(hub)
        meter.begin()
        latencies = array("d", await load())
        await _settled(hub)
        meter.end()
        return await meter.load(
            name,
            unit,
            latencies,
            len(latencies) * per_request,
            concurrency=concurrency,
            note=note,
        )

    async def unmeasured(self, what: str, request: Request, n: int) -> None:
        """Send requests that no figure counts: to warm up, or to fill a store."""
        indices = iter(range(n))

        async def send() -> None:
            for index in indices:
                await request(index)

        async with anyio.create_task_group() as observers:
            observers.start_soon(self._watch, what, indices, n)
            async with anyio.create_task_group() as senders:
                for _ in range(min(self.options.concurrency, n)):
                    senders.start_soon(send)
            observers.cancel_scope.cancel()

    async def wait_until(self, what: str, count: Callable[[], Awaitable[int]], wanted: int) -> None:
        """Ask again and again until ``count`` gives ``wanted``; no figure counts this time.

        Raises:
            WrongOutcomeError: it gave more, or the same for ``Options.stalled_s``.
        """
        last, since = -1, perf_counter()
        while (found := await count()) < wanted:
            self._progress.show(what, found, wanted)
            if found != last:
                last, since = found, perf_counter()
            elif perf_counter() - since > self.options.stalled_s:
                break
            await anyio.sleep(_LOOK_S / 5)
        expect(what, found, wanted)

    async def _watch(self, what: str, indices: Iterator[int], total: int) -> None:
        while True:
            self._progress.show(what, total - length_hint(indices), total)
            await anyio.sleep(_LOOK_S)


class _Pace:
    """Wakes senders at their times, at most about a millisecond late, and never early.

    A timer for each request costs more than many a request. And event loops' timers count whole
    milliseconds (uvloop's may be early by a half), so there is nothing to gain from them. Polling
    the clock would be more exact, but a loop that never sleeps keeps the store's threads waiting.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, anyio.Event]] = deque()  # times are asked for in order

    async def wait_until(self, time: float) -> None:
        """Return at this time of ``perf_counter``, or up to a tick later."""
        tick = int(time / _TICK_S) + 1
        if not self._waiting or self._waiting[-1][0] != tick:
            self._waiting.append((tick, anyio.Event()))
        await self._waiting[-1][1].wait()

    async def run(self) -> None:
        """Keep the time, until it is cancelled."""
        waiting = self._waiting
        while True:
            now = perf_counter() / _TICK_S
            while waiting and waiting[0][0] <= now:
                waiting.popleft()[1].set()
            await anyio.sleep(0.001)


class _Meter:
    """Reads clocks and counters at both ends of a load, of this process and the hub's workers."""

    def __init__(self, hub: Hub, counted: HubStatistics) -> None:
        self._hub = hub
        self._pids = {os.getpid(), *(shard.pid for shard in counted.shards)}
        self._commits = counted.commits
        self._stored = counted.stored_bytes
        self._begun = self._ended = 0.0
        self._cpu_begun = self._cpu = 0.0
        self._written_begun: int | None = None
        self._written: int | None = None

    @classmethod
    async def start(cls, hub: Hub) -> _Meter:
        await _settled(hub)
        return cls(hub, await hub.statistics())

    def begin(self) -> None:
        self._written_begun = written_bytes(self._pids)
        self._cpu_begun = processor_s(self._pids)
        self._begun = perf_counter()

    def end(self) -> None:
        self._ended = perf_counter()
        self.end_work()

    def end_work(self) -> None:
        """Count the work up to now, and the time up to the end."""
        self._cpu = processor_s(self._pids) - self._cpu_begun
        written = written_bytes(self._pids)
        if written is not None and self._written_begun is not None:
            self._written = written - self._written_begun

    async def load(
        self,
        name: str,
        unit: str,
        latencies: array[float],
        operations: int,
        *,
        concurrency: int,
        note: str,
    ) -> Load:
        counted = await self._hub.statistics()
        p50, p99 = percentiles_ms(latencies)
        return Load(
            name=name,
            unit=unit,
            operations=operations,
            requests=len(latencies),
            concurrency=concurrency,
            seconds=self._ended - self._begun,
            p50_ms=p50,
            p99_ms=p99,
            cpu_us=self._cpu / operations * 1e6,
            commits=counted.commits - self._commits,
            stored=counted.stored_bytes - self._stored,
            written=self._written,
            note=note,
        )


async def _settled(hub: Hub) -> None:
    """Return when the store has done what it put off: a query has to see all of it."""
    async for _ in hub.client.query(name="nobody has this name", page_size=1):
        raise AssertionError("there is no such orchestration")


def processor_s(pids: Iterable[int]) -> float:
    """Give the processor time of these processes, threads included.

    Of others than this one only Linux tells it; elsewhere it is not a number.
    """
    return sum(_processor_s(pid) for pid in pids)


def _processor_s(pid: int) -> float:
    if pid == os.getpid():
        return time.process_time()
    if sys.platform != "linux":
        return float("nan")
    # What clock_getcpuclockid(3) gives: the clock of a process, which counts nanoseconds.
    return time.clock_gettime(~pid << 3 | 2)


def written_bytes(pids: Iterable[int]) -> int | None:
    """Give the bytes that these processes had written to disks; None where nobody counts."""
    written = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/io").read_text("ascii").splitlines()
        except OSError:
            return None
        counts = [line.partition(":")[2] for line in lines if line.startswith("write_bytes:")]
        if not counts:
            return None
        written += int(counts[0])
    return written


@contextmanager
def place(options: Options, name: str) -> Generator[Path | None]:
    """Give a fresh folder for one run's stores, or None for memory.

    Temporary folders are removed afterwards; those under a path that was asked for are kept.

    Raises:
        UsageError: the store is none of ``memory:`` and ``sqlite:PATH``.
    """
    if options.store == "memory:":
        yield None
        return
    scheme, _, path = options.store.partition(":")
    if scheme != "sqlite":
        raise UsageError(f"store {options.store!r} is neither memory: nor sqlite:PATH")
    if path:
        Path(path).mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f"perdure-{name}-", dir=path or None)
    try:
        yield Path(folder)
    finally:
        if not path:
            shutil.rmtree(folder, ignore_errors=True)
