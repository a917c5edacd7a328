"""A mixed load for hubs whose partitions move and whose workers are killed.

Everything that a request does is counted under the request's id, so that losing one shows, and
applying one twice; what senders sent carries numbers, so that a changed order shows.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio

from perdure import (
    ActivityContext,
    ActivityError,
    App,
    Client,
    EntityContext,
    EntityId,
    Hub,
    OrchestrationContext,
    OutcomeUnknownError,
    Settings,
    UnavailableError,
)
from perdure.runtime.cluster.processes import ProcessCrew
from tests.guarantees import crash_child
from tests.guarantees.crash_child import ACCOUNTS, OPENING_BALANCE, Book, book_of
from tests.guarantees.workloads import entity_in

PARTITIONS = 4
KINDS = (
    *("signal", "relay", "delayed", "call", "slow"),
    *("chain", "fan", "timer", "listen", "transfer", "nested"),
    *("send", "sequence", "work"),
)
RESULTS = {"chain": 16, "fan": 56, "timer": 3, "nested": 16, "listen": 3, "sequence": 6, "work": 1}
SENDERS = 3
BURST = 3
PATIENCE_S = 90.0

app = App()
app.include(crash_child.app)


def add_line(folder: str, name: str, line: str) -> None:
    with open(Path(folder) / name, "a") as file:
        file.write(f"{line}\n")


@app.entity
class Ledger:
    """Keeps the order in which it was written to."""

    lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


@app.entity
class Sender:
    sent: int = 0

    def send(self, request: str, ctx: EntityContext) -> None:
        for n in range(self.sent, self.sent + BURST):
            for ledger in LEDGERS:
                ctx.signal_entity(ledger, Ledger.write, f"{ctx.key} {n}")
        self.sent += BURST
        ctx.signal_entity(book_of(request), Book.note, request)


LEDGERS = [entity_in(n, Ledger, "ledger", PARTITIONS) for n in range(PARTITIONS)]


@app.orchestration
async def sequence(ctx: OrchestrationContext, request: str) -> int:
    for n in range(2 * BURST):
        for ledger in LEDGERS:
            ctx.signal_entity(ledger, Ledger.write, f"{ctx.instance_id} {n}")
        if n % 2:
            await ctx.create_timer(timedelta(milliseconds=2))
    ctx.signal_entity(book_of(request), Book.note, request)
    return 2 * BURST


@app.activity
async def record_run(folder: str, ctx: ActivityContext) -> int:
    """Take a while, and leave a line for each run."""
    await anyio.sleep(0.03)
    add_line(folder, "runs", ctx.idempotency_key)
    return 1


@app.orchestration
async def work(ctx: OrchestrationContext, given: list[str]) -> int:
    request, folder = given
    assert await ctx.call_activity("record_run", folder) == 1
    ctx.signal_entity(book_of(request), Book.note, request)
    return 1


@app.entity
class Patient:
    """Has operations that take as long as a test wants."""

    taken: list[int] = []

    def take(self, n: int) -> int:
        self.taken.append(n)
        return len(self.taken)

    async def wait_for(self, folder: str) -> int:
        """Leave a line for each beginning; end when there is a file named ``go``."""
        add_line(folder, "begun", "begun")
        while not await anyio.Path(folder, "go").exists():
            await anyio.sleep(0.002)
        self.taken.append(-1)
        return len(self.taken)


@app.activity
def leave_child() -> int:
    """Fork, past Python, a child that has all files of its process open and outlives it."""
    child: int = ctypes.CDLL(None).fork()
    if child == 0:
        time.sleep(120)
        os._exit(0)
    return child


@app.orchestration
async def fork(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(leave_child)


@app.activity
async def kill_process() -> None:
    """End as the system does it to what takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.activity
def exit_process() -> None:
    os._exit(1)


@app.entity
class Fatal:
    def strike(self) -> None:
        os._exit(3)


@app.activity
async def take_a_while(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "done"


@app.orchestration
async def call(ctx: OrchestrationContext, given: list[Any]) -> str:
    name, *input = given
    try:
        return str(await ctx.call_activity(name, *input))
    except ActivityError as error:
        return error.error_type


@app.entity
class Blocker:
    def block(self, folder: str) -> None:
        """Keep the whole event loop until there is a file named ``free``."""
        (Path(folder) / "blocks").touch()
        while not (Path(folder) / "free").exists():
            time.sleep(0.002)


@app.orchestration
async def tick(ctx: OrchestrationContext) -> int:
    for _ in range(5):
        await ctx.create_timer(timedelta(milliseconds=2))
    return await ctx.call_activity(crash_child.double, 5)


@app.orchestration
async def hold(ctx: OrchestrationContext, key: str) -> list[int]:
    """Hold a lock, and listen, until told to stop."""
    patient = EntityId(Patient, key)
    heard: list[int] = []
    async with ctx.lock_entities(patient):
        ctx.set_custom_status("locked")
        while (n := await ctx.wait_for_external_event("n", data_type=int)) >= 0:
            heard.append(n)
            await ctx.create_timer(timedelta(milliseconds=5))
        heard.append(await ctx.call_entity(patient, Patient.take, 0))
    return heard


@app.orchestration
async def waver(ctx: OrchestrationContext, flag: str) -> str:
    """Do something else at each replay while there is a file."""
    if os.path.exists(flag):  # noqa: ASYNC240 - no code of an orchestration may wait for a file
        await ctx.create_timer(timedelta(0))
    return await ctx.wait_for_external_event("end", data_type=str)


async def perform(client: Client, kind: str, request: str, data: list[Any]) -> Any:
    """Do what is asked for, under its request id."""
    if kind == "send":
        sender = EntityId(Sender, f"sender-{data[0]}")
        return await client.signal_entity(sender, Sender.send, request, request_id=request)
    if kind == "work":
        given = [request, data[0]]
        id = f"i-{request}"
        return await client.start_new("work", given, instance_id=id, request_id=request)
    return await crash_child.perform(client, kind, request, data)


class Load:
    """A random load from many clients, and what must have come of it.

    Attributes:
        answers: how many requests were acknowledged.
        repeated: how often a request had to be repeated.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.answers = 0
        self.repeated: Counter[str] = Counter()
        self._number = 0
        self._made: dict[str, tuple[str, list[Any]]] = {}
        self._open: dict[str, tuple[str, list[Any]]] = {}
        self._progress = anyio.Event()
        self.stopped = False

    def _make(self) -> str:
        self._number += 1
        id, kind = f"r{self._number}", self.random.choice(KINDS)
        data: list[Any] = []
        if kind == "transfer":
            source, target = self.random.sample(range(ACCOUNTS), 2)
            data = [source, target, self.random.randint(1, 9)]
        elif kind == "send":
            data = [self.random.randrange(SENDERS)]
        elif kind == "work":
            data = [str(self.folder)]
        self._made[id] = self._open[id] = (kind, data)
        return id

    async def _once(self, client: Client, kind: str, id: str, data: list[Any]) -> None:
        while True:
            try:
                value = await perform(client, kind, id, data)
            except (UnavailableError, OutcomeUnknownError) as error:
                self.repeated[type(error).__name__] += 1
                await anyio.sleep(0.001)
                continue
            if kind in ("call", "slow"):
                assert value == 1, f"{kind} {id} was applied {value} times"
            return

    async def _request(self, client: Client, id: str) -> None:
        kind, data = self._made[id]
        await self._once(client, kind, id, data)
        if kind == "listen":
            for n in (1, 2):
                await self._once(client, "event", f"{id}-{n}", [f"i-{id}", n])
        del self._open[id]
        self.answers += 1
        progress, self._progress = self._progress, anyio.Event()
        progress.set()

    async def drive(self, client: Client, *, also_wait: bool = True) -> None:
        """Make requests, one after another, until ``stopped``; wait for some instances' ends."""
        while not self.stopped:
            id = self._make()
            await self._request(client, id)
            kind, _ = self._made[id]
            if also_wait and kind in RESULTS and self.random.random() < 0.3:
                await self._wait(client, id)

    async def _wait(self, client: Client, id: str) -> None:
        kind, _ = self._made[id]
        while True:
            try:
                result = await client.wait(f"i-{id}")
            except (UnavailableError, OutcomeUnknownError) as error:
                self.repeated[type(error).__name__] += 1
                await anyio.sleep(0.001)
                continue
            assert result == RESULTS[kind], f"{kind} {id}"
            return

    async def more(self, count: int) -> None:
        """Return when so many more requests have been answered."""
        wanted = self.answers + count
        while self.answers < wanted:
            await self._progress.wait()

    async def finish(self, client: Client) -> None:
        """Repeat what a hub that ended left open."""
        for id in list(self._open):
            await self._request(client, id)

    async def check(self, client: Client) -> None:
        """Wait until all has ended, and check that everything happened, once and in order."""
        results: dict[str, Any] = {}
        noted: set[str] = set()
        senders: Counter[str] = Counter()
        balances = [OPENING_BALANCE] * ACCOUNTS
        for id, (kind, data) in self._made.items():
            noted.add(id)
            if kind == "transfer":
                results[f"i-{id}"] = data[2]
                balances[data[0]] -= data[2]
                balances[data[1]] += data[2]
            elif kind in RESULTS:
                results[f"i-{id}"] = RESULTS[kind]
            if kind == "sequence":
                senders[f"i-{id}"] = 2 * BURST
            elif kind == "send":
                senders[f"sender-{data[0]}"] += BURST

        await self._until(lambda: self._are_noted(client, noted), f"{len(noted)} notes")
        report = await crash_child.report(client, list(results))

        applied: dict[str, int] = {}
        for book in report["applied"]:
            applied |= book
        assert applied == dict.fromkeys(noted, 1)
        assert report["results"] == results
        assert report["balances"] == balances
        assert report["locked"] == []
        assert report["failed"] == 0
        assert report["statuses"] == ["Completed"]
        await self._until(lambda: self._are_written(client, sum(senders.values())), "all lines")
        for ledger in LEDGERS:
            state = await client.read_entity_state(ledger)
            assert state is not None
            assert len(state.lines) == sum(senders.values())
            for sender, count in senders.items():
                mine = [line for line in state.lines if line.startswith(f"{sender} ")]
                assert mine == [f"{sender} {n}" for n in range(count)]

    def check_runs(self) -> None:
        """Check that each activity that recorded its runs ran just once."""
        works = sum(kind == "work" for kind, _ in self._made.values())
        runs = Counter((self.folder / "runs").read_text().splitlines()) if works else Counter[str]()
        assert len(runs) == works
        assert set(runs.values()) <= {1}, {key: n for key, n in runs.items() if n > 1}

    async def _are_noted(self, client: Client, noted: set[str]) -> bool:
        books = [
            await client.read_entity_state(EntityId(Book, f"book-{n}"))
            for n in range(crash_child.BOOKS)
        ]
        return sum(len(book.applied) for book in books if book is not None) >= len(noted)

    async def _are_written(self, client: Client, lines: int) -> bool:
        states = [await client.read_entity_state(ledger) for ledger in LEDGERS]
        return all(state is not None and len(state.lines) >= lines for state in states)

    @staticmethod
    async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
        with anyio.move_on_after(PATIENCE_S):
            while not await condition():
                await anyio.sleep(0.005)
            return
        raise AssertionError(f"gave up waiting for {what}")


def seed_of(run: int = 0) -> int:
    """Draw a seed, or take that of a failed run."""
    given = os.environ.get("PERDURE_SEED")
    seed = random.SystemRandom().randrange(2**32) if given is None else int(given)
    print(f"PERDURE_SEED={seed} (run {run})")
    return seed


def hub_on(
    folder: Path,
    *,
    workers: int = 2,
    drain_s: float = 2.0,
    crashes_max: int = 3,
    **options: Any,
) -> Hub:
    """Make a hub with workers; only processes are killed, so nothing need wait for the disk."""
    return Hub(
        app,
        store=f"sqlite:{folder / 'hub'}?synchronous=OFF",
        partitions=PARTITIONS,
        workers=workers,
        rebalance=None,
        settings=Settings(drain_s=drain_s, crashes_max=crashes_max),
        **options,
    )


def crew_of(hub: Hub) -> ProcessCrew:
    crew = hub.crew
    assert isinstance(crew, ProcessCrew)
    return crew


def pid_of(hub: Hub, worker: int) -> int:
    """Give the process that a worker is now."""
    process = crew_of(hub).workers[worker].process
    assert process is not None
    return process.pid


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended and was not waited for does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def until_served(hub: Hub, worker: int, *, not_by: int = 0) -> None:
    """Return when a worker serves, by another process than one that is known."""
    with anyio.fail_after(PATIENCE_S):
        one = crew_of(hub).workers[worker]
        while not (one.serves and pid_of(hub, worker) != not_by):
            await anyio.sleep(0.001)
