"""Guarantee 4: messages between actors arrive once, and in the order sent.

Senders and receivers live in different partitions. Commits fail on either side, frames come twice,
come while their receiver is recovering, and hubs die; the receiver's book must not show any of it.
"""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from perdure import (
    App,
    EntityContext,
    EntityId,
    Hub,
    LeaseLostError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    Settings,
    UnavailableError,
)
from tests.faults import Fault, FaultyStore, When, dying, persist, settle, within
from tests.guarantees.workloads import entity_in, id_in

app = App()


@app.entity
class Book:
    lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    async def write_slowly(self, line: str) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        self.lines.append(line)


@app.entity
class Sender:
    sent: int = 0

    def send(self, count: int, ctx: EntityContext) -> int:
        for n in range(self.sent, self.sent + count):
            for target in TARGETS:
                ctx.signal_entity(target, Book.write, f"{ctx.key} {n}")
        self.sent += count
        return self.sent

    def send_to_slow(self, count: int, ctx: EntityContext) -> int:
        for n in range(self.sent, self.sent + count):
            for target in TARGETS:
                ctx.signal_entity(target, Book.write_slowly, f"{ctx.key} {n}")
        self.sent += count
        return self.sent


@app.orchestration
async def sending(ctx: OrchestrationContext, count: int) -> None:
    for n in range(count):
        for target in TARGETS:
            ctx.signal_entity(target, Book.write, f"{ctx.instance_id} {n}")
        if n % 2:
            await ctx.create_timer(ctx.current_utc_datetime)


#: Each round makes commits to fail at, and each of these makes all rounds again.
ROUNDS = pytest.mark.parametrize("rounds", [2, pytest.param(3, marks=pytest.mark.slow)])

SENDERS = [entity_in(n, Sender, "sender") for n in range(3)]
TARGETS = [entity_in(n, Book, "book") for n in range(3)]


def hub_on(store: FaultyStore | MemoryStore, drain_s: float = 2.0) -> Hub:
    settings = Settings(drain_s=drain_s)
    return Hub(app, store=store, partitions=3, clock=ManualClock(), settings=settings)


async def books(store: MemoryStore) -> list[list[str]]:
    """Read the books after everything under way has arrived."""
    async with hub_on(store) as hub:
        await settle()
    async with hub_on(store) as hub:
        states = [await hub.client.read_entity_state(id) for id in TARGETS]
    return [[] if state is None else state.lines for state in states]


def check_book(lines: list[str], senders: dict[str, int]) -> None:
    """Check that every line is there once, and each sender's lines are in order."""
    for sender, count in senders.items():
        mine = [line for line in lines if line.startswith(f"{sender} ")]
        assert mine == [f"{sender} {n}" for n in range(count)]
    assert len(lines) == sum(senders.values())


async def send_all(store: FaultyStore, operation: str, rounds: int, done: set[str]) -> None:
    """Have all senders send, concurrently; what was acknowledged is not asked for again."""
    async with hub_on(store) as hub, anyio.create_task_group() as tasks:

        async def drive(sender: EntityId[Sender]) -> None:
            for n in range(rounds):
                request = f"{sender} {n}"
                if request not in done:
                    await persist(hub.client.call_entity, sender, operation, 3, request_id=request)
                    done.add(request)

        for sender in SENDERS:
            tasks.start_soon(drive, sender)


@pytest.mark.by_turns
@pytest.mark.parametrize("operation", ["send", "send_to_slow"])
async def test_messages_of_many_senders_arrive_once_and_in_order(operation: str) -> None:
    inner = MemoryStore()

    async with within():
        await send_all(FaultyStore(inner), operation, 5, set())

        for lines in await books(inner):
            check_book(lines, {sender.key: 15 for sender in SENDERS})


@pytest.mark.by_turns("trio")
@ROUNDS
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["send", "send_to_slow"])
async def test_a_commit_that_fails_on_either_side_neither_loses_nor_repeats(
    operation: str, when: When, rounds: int
) -> None:
    commit = 0
    for commit in range(1, 200):
        inner = MemoryStore()
        store = FaultyStore(inner, seed=commit)
        store.fail_at(commit, when)

        async with within(20):
            await send_all(store, operation, rounds, set())
            for lines in await books(inner):
                check_book(lines, {sender.key: 3 * rounds for sender in SENDERS})

        if store.faults:
            break
    assert commit > 5


@pytest.mark.by_turns
@ROUNDS
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["send", "send_to_slow"])
async def test_a_crash_on_either_side_neither_loses_nor_repeats(
    operation: str, when: When, rounds: int
) -> None:
    commit = 0
    for commit in range(1, 200):
        inner, done = MemoryStore(), set[str]()
        store = FaultyStore(inner, seed=commit)
        store.crash_at(commit, when)

        async with within(20):
            try:
                await send_all(store, operation, rounds, done)
            except* LeaseLostError:
                await send_all(FaultyStore(inner), operation, rounds, done)
            for lines in await books(inner):
                check_book(lines, {sender.key: 3 * rounds for sender in SENDERS})

        if store.faults:
            break
    assert commit > 5


@pytest.mark.by_turns
@hypothesis_settings(
    max_examples=hypothesis_settings().max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    faults=st.dictionaries(
        st.integers(1, 25),
        st.builds(Fault, st.just("fail"), st.sampled_from(["before", "after"])),
        max_size=5,  # the hub waits longer and longer between failures in a row
    ),
    seed=st.integers(0, 2**32),
)
async def test_any_pattern_of_failing_commits_neither_loses_nor_repeats(
    faults: dict[int, Fault], seed: int
) -> None:
    inner = MemoryStore()

    async with within(20):
        await send_all(FaultyStore(inner, dict(faults), seed=seed), "send", 3, set())

        for lines in await books(inner):
            check_book(lines, {sender.key: 9 for sender in SENDERS})


@pytest.mark.by_turns
async def test_an_orchestration_s_signals_arrive_once_and_in_order_whichever_commit_fails() -> None:
    id = id_in(0, "sending")
    commit = 0
    for commit in range(1, 100):
        inner = MemoryStore()
        store = FaultyStore(inner, seed=commit)
        store.fail_at(commit, "before" if commit % 2 else "after")

        async with within(20):
            async with hub_on(store) as hub:
                client = hub.client
                await persist(client.start_new, sending, 6, instance_id=id, request_id="start")
                await client.wait(id)
            for lines in await books(inner):
                check_book(lines, {id: 6})

        if store.faults:
            break
    assert commit > 3


async def test_a_frame_that_comes_twice_is_taken_once() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with within():
        async with hub_on(store) as hub, anyio.create_task_group() as tasks:
            # The receiver never gets to store, so to acknowledge, what it took.
            held = store.hold("commit", partition=1)
            tasks.start_soon(hub.client.call_entity, SENDERS[0], Sender.send, 3)
            await held.arrived.wait()

            # Every recovery of the sender hands over what it is owed once more.
            for _ in range(3):
                store.fail_next(partition=0)
                with pytest.raises(Exception, match="repeat"):
                    await hub.client.call_entity(SENDERS[0], Sender.send, 1)
                await settle()
            held.open()

        for lines in await books(inner):
            check_book(lines, {SENDERS[0].key: 3})


async def test_a_frame_that_overtakes_one_lost_in_a_recovery_is_not_taken_before_it() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with within():
        async with hub_on(store, drain_s=0.1) as hub:
            client = hub.client
            await client.start_new(waiting, instance_id=WAITING)
            # The receiver fails a commit, and is down for as long as reading the store takes.
            reading = store.hold("recover", partition=1)
            store.fail_next(partition=1)

            async def lose() -> None:
                with pytest.raises(UnavailableError):
                    await client.signal_entity(TARGETS[1], Book.write, "lost")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lose)
                await reading.arrived.wait()
                await client.call_entity(SENDERS[0], Sender.send, 1)
                # It is up again, but has not asked the others yet for what it missed.
                restoring = store.hold("read_instances", partition=1)
                reading.open()
                await restoring.arrived.wait()
                await client.call_entity(SENDERS[0], Sender.send, 1)
                await settle()
                restoring.open()
            await client.terminate(WAITING)

        for lines in await books(inner):
            check_book(lines, {SENDERS[0].key: 2})


@app.activity
async def forever() -> None:
    await anyio.sleep_forever()


@app.orchestration
async def waiting(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(forever)


WAITING = id_in(1, "waiting")


async def test_a_message_whose_slow_operation_is_under_way_survives_a_crash() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    LATCH[:] = [anyio.Event()]
    with dying():
        async with within(), hub_on(store) as hub:
            # In memory, it takes the message at once; one that is loading has its mail stored.
            await hub.client.call_entity(SLOW, Slow.get)
            # The sender's side is durable, and the receiver's partition commits meanwhile.
            await hub.client.call_entity(PUSHERS[0], Pusher.push, "x")
            await settle()
            await hub.client.signal_entity(TARGETS[1], Book.write, "beside")
            await settle()
            store.crash_next(partition=1)
            await hub.client.signal_entity(TARGETS[1], Book.write, "lost")
    LATCH[:] = []

    async with within(), hub_on(inner) as hub:
        await settle()
        state = await hub.client.call_entity(SLOW, Slow.get)

    assert state == ["x"]


LATCH: list[anyio.Event] = []


@app.entity
class Slow:
    lines: list[str] = []

    async def take(self, line: str) -> None:
        for latch in LATCH:
            await latch.wait()
        self.lines.append(line)

    def get(self) -> list[str]:
        return self.lines


@app.entity
class Pusher:
    pushed: int = 0

    def push(self, line: str, ctx: EntityContext) -> None:
        self.pushed += 1
        ctx.signal_entity(SLOW, Slow.take, line)


SLOW = entity_in(1, Slow, "slow")
PUSHERS = [entity_in(n, Pusher, "pusher") for n in range(3)]


async def test_a_slow_operation_asked_for_inside_its_partition_survives_a_crash() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    LATCH[:] = [anyio.Event()]
    with dying():
        async with within(), hub_on(store) as hub:
            await hub.client.call_entity(SLOW, Slow.get)
            await hub.client.call_entity(PUSHERS[1], Pusher.push, "x")
            store.crash_next(partition=1)
            await hub.client.signal_entity(TARGETS[1], Book.write, "lost")
    LATCH[:] = []

    async with within(), hub_on(inner) as hub:
        await settle()
        state = await hub.client.call_entity(SLOW, Slow.get)

    assert state == ["x"]
