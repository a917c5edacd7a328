"""Guarantees 2 and 4 where hardly anything may wait in memory, and a worker that stands still.

What actors send beyond the bounds lies in the sender's outbox and in the receiver's stored mail.
Whatever crashes or fails while it does, each message arrives once, and in the order sent.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    Hub,
    MailboxFullError,
    MemoryStore,
    OrchestrationContext,
    Settings,
    UnavailableError,
)
from perdure.runtime.partitions import exchange, overflow
from perdure.storage import memory, records, slices
from tests.faults import Crashed, FaultyStore, JumpingClock, When, content, persist, within
from tests.guarantees.worker_load import PARTITIONS as WORKED, crew_of
from tests.guarantees.workloads import PARTITIONS, entity_in

app = App()


@app.entity
class Book:
    lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


@app.entity
class Writer:
    written: int = 0

    def send(self, count: int, ctx: EntityContext) -> None:
        for _ in range(count):
            for book in BOOKS:
                ctx.signal_entity(book, Book.write, f"{ctx.key} {self.written}")
            self.written += 1


BOOKS = [entity_in(n, Book, "book") for n in range(PARTITIONS)]
WRITERS = [entity_in(n, Writer, "writer") for n in range(PARTITIONS)]
BURST, BURSTS = 12, 3


@app.orchestration
async def hold(ctx: OrchestrationContext, n: int) -> None:
    async with ctx.lock_entities(BOOKS[n]):
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("go")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAIL_MAX": 4, "AT_ONCE": 3, "RUN_MIN": 2}.items():
        monkeypatch.setattr(overflow, name, value)
    for name, value in {"WINDOW_MESSAGES": 2, "FRAME_MESSAGES_MAX": 3}.items():
        monkeypatch.setattr(exchange, name, value)
    for module in (records, memory):
        monkeypatch.setattr(module, "SLICE_ROWS", 4)


class Crowding:
    """Writers that fill the mailboxes of books, one of which is locked meanwhile."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()

    async def once(self, request: str, call: Any, *arguments: Any) -> None:
        if request not in self.acknowledged:
            await persist(call, *arguments, request_id=request)
            self.acknowledged.add(request)

    async def drive(self, hub: Hub) -> None:
        client = hub.client
        if "start" not in self.acknowledged:
            await persist(client.start_new, hold, 0, instance_id="holder", request_id="start")
            self.acknowledged.add("start")
        handle = client.get_handle("holder")
        while (await persist(handle.status)).custom_status != "locked":
            await anyio.lowlevel.checkpoint()
        for burst in range(BURSTS):
            for writer in WRITERS:
                await self.once(
                    f"{writer} {burst}", client.signal_entity, writer, Writer.send, BURST
                )
        await self.once("go", handle.raise_event, "go")
        await persist(handle.result)
        while not await self.is_complete(hub):
            await anyio.lowlevel.checkpoint()

    async def is_complete(self, hub: Hub) -> bool:
        for book in BOOKS:
            state = await persist(hub.client.read_entity_state, book)
            if state is None or len(state.lines) < PARTITIONS * BURSTS * BURST:
                return False
        return True


async def live(store: FaultyStore, clock: JumpingClock, work: Crowding) -> bool:
    try:
        async with Hub(app, store=store, partitions=PARTITIONS, clock=clock) as hub:
            await work.drive(hub)
    except Crashed:
        return False
    return True


async def check(store: MemoryStore, clock: JumpingClock) -> None:
    async with Hub(app, store=store, partitions=PARTITIONS, clock=clock) as hub:
        for book in BOOKS:
            state = await hub.client.read_entity_state(book)
            assert state is not None
            for writer in WRITERS:
                mine = [line for line in state.lines if line.startswith(f"{writer.key} ")]
                assert mine == [f"{writer.key} {n}" for n in range(BURSTS * BURST)]
    assert [row["mail"] for row in content(store).rows] == [0] * PARTITIONS


async def crash_at(commit: int, when: When) -> bool:
    """Crash at a commit and come back; tells whether it was reached."""
    inner, clock, work = MemoryStore(), JumpingClock(), Crowding()
    store = FaultyStore(inner)
    store.crash_at(commit, when)
    async with within(20):
        lived = await live(store, clock, work)
        if not lived:
            assert await live(FaultyStore(inner), clock, work)
        await check(inner, clock)
    return not lived


@pytest.mark.by_turns
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_loses_nothing_of_what_overflowed(when: When) -> None:
    crashes = 0
    for commit in range(3 if when == "before" else 5, 500, 6):
        if not await crash_at(commit, when):
            break
        crashes += 1

    assert crashes >= 4


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_at_any_commit_loses_nothing_of_what_overflowed(when: When) -> None:
    commit = 1
    while await crash_at(commit, when):
        commit += 1

    assert commit > 20


@pytest.mark.by_turns
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("slice_s", [slices.slice_s, 0.0], ids=["in slices", "always pausing"])
async def test_commits_that_fail_lose_nothing_of_what_overflowed(
    slice_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "slice_s", slice_s)
    inner, clock, work = MemoryStore(), JumpingClock(), Crowding()
    store = FaultyStore(inner)
    for commit in range(4, 500, 5):
        store.fail_at(commit, "after" if commit % 2 else "before")

    async with within(20):
        assert await live(store, clock, work)
        await check(inner, clock)

    assert store.applied < store.commits


# A worker that stands still.

crowd = App()


@crowd.entity
class Log:
    lines: int = 0
    last: dict[str, int] = {}

    def write(self, line: tuple[str, int, str]) -> None:
        sender, number, _ = line
        # Order and exactly once: each number is one more than that before it.
        assert number == self.last.get(sender, -1) + 1
        self.last[sender] = number
        self.lines += 1


@crowd.entity
class Chatter:
    sent: int = 0

    def send(self, count: int, ctx: EntityContext) -> None:
        for _ in range(count):
            for n in range(WORKED):
                log = entity_in(n, Log, "log", WORKED)
                ctx.signal_entity(log, Log.write, (ctx.key, self.sent, "x" * 300))
            self.sent += 1


def memory_of(pid: int) -> int:
    """Give what a process has in memory of its own, in megabytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) // 1024


async def stand_still(folder: Path, seconds: float) -> tuple[int, int]:
    """Stop one of two workers under load; gives the megabytes the other grew by, and messages."""
    hub = Hub(
        crowd,
        store=f"sqlite:{folder / 'hub'}?synchronous=OFF",
        partitions=WORKED,
        workers=2,
        rebalance=None,
        settings=Settings(drain_s=2.0),
    )
    sent = {"sent": 0}
    stopping = anyio.Event()
    async with hub:
        client = hub.client
        stopped, going = (one.process for one in crew_of(hub).workers)
        assert stopped is not None
        assert going is not None
        mine = [n for n in range(WORKED) if crew_of(hub).owners[n] == 1]
        chatters = [entity_in(n, Chatter, f"chatter{k}", WORKED) for n in mine for k in range(3)]

        async def chat(chatter: EntityId[Chatter]) -> None:
            while not stopping.is_set():
                try:
                    await client.signal_entity(chatter, Chatter.send, 50)
                except (MailboxFullError, UnavailableError):
                    await anyio.sleep(0.01)
                else:
                    sent["sent"] += 50

        grown: int | None = None
        async with anyio.create_task_group() as tasks:
            for chatter in chatters:
                tasks.start_soon(chat, chatter)
            await anyio.sleep(3)  # caches fill, which is no growth
            before = memory_of(going.pid)
            os.kill(stopped.pid, signal.SIGSTOP)
            try:
                await anyio.sleep(seconds)
                grown = memory_of(going.pid) - before
            finally:
                os.kill(stopped.pid, signal.SIGCONT)
            stopping.set()
        with anyio.fail_after(120):
            for n in range(WORKED):
                log = entity_in(n, Log, "log", WORKED)
                while True:
                    status = await client.get_entity(log)
                    if status is not None and status.state is not None:
                        assert status.failed_signals == 0
                        if status.state.lines == sent["sent"]:
                            break
                    await anyio.sleep(0.05)
    assert grown is not None
    return grown, sent["sent"] * WORKED


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_that_stands_still_takes_no_memory_of_the_other_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    grown, messages = await stand_still(tmp_path_factory.mktemp("w"), 2)

    assert messages > 5_000
    assert grown < 100


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_that_stands_still_for_a_minute_takes_no_memory_of_the_other(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    grown, _ = await stand_still(tmp_path_factory.mktemp("w"), 60)

    assert grown < 100
