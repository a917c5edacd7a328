"""What actors send each other beyond all bounds: in the store, in order, and none of it lost."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

import perdure
from perdure import (
    App,
    EntityId,
    Hub,
    MailboxFullError,
    MemoryStore,
    OrchestrationContext,
    Settings,
    SqliteStore,
    Store,
)
from perdure.adapters.cli.load import render
from perdure.runtime.partitions import exchange, overflow
from perdure.runtime.partitions.door import Door
from perdure.runtime.partitions.exchange import read_frame
from perdure.runtime.partitions.partition import Partition
from perdure.testing.inside import partitions_of
from tests.faults import FaultyStore as StallingStore
from tests.runtime.harness import FaultyStore, disk_error, partition_here, until, until_true

app = App()

gates: dict[str, anyio.Event] = {}


def gate(name: str) -> anyio.Event:
    gates[name] = anyio.Event()
    return gates[name]


@app.entity
class Slow:
    seen: list[str] = []

    def put(self, text: str) -> None:
        self.seen.append(text)

    async def wait(self, name: str) -> None:
        await gates[name].wait()

    @perdure.readonly
    def get(self) -> list[str]:
        return self.seen

    def echo(self, text: str) -> str:
        self.seen.append(text)
        return text


@app.entity
class Sender:
    sent: int = 0

    def send(self, count: int, ctx: perdure.EntityContext) -> None:
        for _ in range(count):
            ctx.signal_entity(EntityId(Slow, "s"), Slow.put, f"{ctx.key} {self.sent}")
            self.sent += 1


@app.orchestration
async def hold(ctx: OrchestrationContext, key: str) -> list[str]:
    async with ctx.lock_entities(EntityId(Slow, key)):
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("go")
        await ctx.call_entity(EntityId(Slow, key), Slow.echo, "held by it")
        return await ctx.call_entity(EntityId(Slow, key), Slow.get)


@app.orchestration
async def lock_and_echo(ctx: OrchestrationContext, text: str) -> str:
    async with ctx.lock_entities(EntityId(Slow, "s")):
        return await ctx.call_entity(EntityId(Slow, "s"), Slow.echo, text)


@app.orchestration
async def echo(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_entity(EntityId(Slow, "s"), Slow.echo, text)


@app.orchestration
async def gather(ctx: OrchestrationContext, count: int) -> list[int]:
    return [await ctx.wait_for_external_event("n", data_type=int) for _ in range(count)]


@app.orchestration
async def raise_many(ctx: OrchestrationContext, input: tuple[str, int]) -> None:
    for n in range(input[1]):
        ctx.send_event(input[0], "n", n)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hardly anything wait in memory."""
    monkeypatch.setattr(overflow, "MAIL_MAX", 8)
    monkeypatch.setattr(overflow, "AT_ONCE", 5)
    monkeypatch.setattr(overflow, "RUN_MIN", 2)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


SLOW = EntityId(Slow, "s")


def partition_of(hub: Hub) -> Partition:
    return partition_here(hub, "@slow@s")


def in_memory(partition: Partition) -> int:
    return sum(one.count - one.spilled for one in partition.activations.values())


async def send(hub: Hub, counts: list[int], *, keys: str = "ab") -> None:
    """Have entities send the slow one so many messages at a time."""
    for count in counts:
        for key in keys:
            await hub.client.signal_entity(EntityId(Sender, key), Sender.send, count)
    await Door(partition_of(hub)).wait_durable()


async def block(hub: Hub, name: str = "slow") -> anyio.Event:
    """Have the slow entity wait for a gate."""
    opened = gate(name)
    await hub.client.signal_entity(SLOW, Slow.wait, name)
    await until_true(lambda: partition_of(hub).activations["@slow@s"].busy)
    return opened


async def lock(hub: Hub) -> perdure.OrchestrationHandle[Any]:
    handle = await hub.client.start_new(hold, "s")

    async def locked() -> bool:
        return bool((await handle.status()).custom_status == "locked")

    await until(locked)
    return handle


async def seen(hub: Hub, count: int) -> dict[str, list[int]]:
    """Give what has arrived of each sender, once it is so many."""

    async def all_there() -> bool:
        state = await hub.client.read_entity_state(SLOW)
        return state is not None and len(state.seen) >= count

    await until(all_there)
    by_sender: dict[str, list[int]] = defaultdict(list)
    for text in await hub.client.call_entity(SLOW, Slow.get):
        sender, number = text.split()
        by_sender[sender].append(int(number))
    return by_sender


@pytest.mark.parametrize("partitions", [1, 3])
async def test_what_waits_for_a_slow_entity_lies_in_the_store_and_comes_in_order(
    store: Store, partitions: int
) -> None:
    async with Hub(app, store=store, partitions=partitions) as hub:
        opened = await block(hub)
        await send(hub, [20, 20, 20])
        partition = partition_of(hub)
        await until_true(lambda: partition.activations["@slow@s"].count == 120)
        await until_true(lambda: in_memory(partition) <= 10)

        assert partition.overflow.count >= 110
        opened.set()

        assert await seen(hub, 120) == {"a": list(range(60)), "b": list(range(60))}
        assert partition.overflow.count == partition.waiting == 0
        assert await partition.store.waiting(["@slow@s"]) == {}


async def test_messages_that_come_while_others_are_read_back_come_behind_them(
    store: Store,
) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        opened = await block(hub)
        await send(hub, [30])
        opened.set()
        for _ in range(20):
            await send(hub, [3])

        assert await seen(hub, 180) == {"a": list(range(90)), "b": list(range(90))}


@pytest.mark.by_turns
async def test_who_waits_for_a_lock_is_counted_in_the_store_as_well(store: Store) -> None:
    ids = [f"waits {n}" for n in range(20)]

    async def names(hub: Hub, count: int) -> tuple[str, ...]:
        """Give who is named of those who wait for the lock, once they are so many."""

        status = None

        async def are_so_many() -> bool:
            nonlocal status
            status = await hub.client.get_entity(SLOW)
            return status is not None and status.lock_waiter_count == count

        await until(are_so_many)  # while the lock is passed on, they are counted anew
        assert status is not None
        assert status.lock_waiters == tuple(ids[20 - count :])[: len(status.lock_waiters)]
        assert status.to_dict()["lock_waiter_count"] == count
        return status.lock_waiters

    async with Hub(app, store=store, partitions=1) as hub:
        first = await lock(hub)
        await send(hub, [10])
        for id in ids:
            await hub.client.start_new(hold, "s", instance_id=id)
        assert len(await names(hub, 20)) < 20
        assert partition_of(hub).overflow.count > 0
    async with Hub(app, store=store, partitions=1) as hub:
        await names(hub, 20)
        await hub.client.raise_event(first.instance_id, "go")
        await names(hub, 19)
        for id in ids:
            await hub.client.raise_event(id, "go")
        for id in ids:
            await hub.client.wait(id, timeout=10)

        assert await names(hub, 0) == ()


async def test_what_a_lock_holds_back_overflows_and_the_holder_passes_it(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await lock(hub)
        await send(hub, [10] * 6)
        assert partition_of(hub).overflow.count >= 110
        echoed = await hub.client.start_new(lock_and_echo, "late 0")
        await Door(partition_of(hub)).wait_durable()

        await handle.raise_event("go")

        assert await handle.result(10) == ["held by it"]
        assert await echoed.result(10) == "late 0"
        await until_true(lambda: partition_of(hub).overflow.count == 0)
        texts = await hub.client.call_entity(SLOW, Slow.get)
        assert texts[0] == "held by it"
        for sender in "ab":
            mine = [text for text in texts if text.startswith(sender)]
            assert mine == [f"{sender} {n}" for n in range(60)]


async def test_a_lock_that_is_given_up_while_its_request_lies_in_the_store_goes_to_nobody() -> None:
    async with Hub(app, partitions=1) as hub:
        handle = await lock(hub)
        await send(hub, [20])
        waiting = await hub.client.start_new(lock_and_echo, "never")
        await send(hub, [20])
        await waiting.terminate("tired of it")
        await Door(partition_of(hub)).wait_durable()

        await handle.raise_event("go")
        await handle.result(10)

        texts = await hub.client.call_entity(SLOW, Slow.echo, "after", timeout=10)
        assert texts == "after"
        assert "never" not in await hub.client.call_entity(SLOW, Slow.get)


async def test_events_of_a_suspended_instance_overflow_and_come_in_order(store: Store) -> None:
    async with Hub(app, store=store, partitions=2) as hub:
        handle = await hub.client.start_new(gather, 60, instance_id="gatherer")
        await handle.suspend()
        await (await hub.client.start_new(raise_many, ("gatherer", 60))).result(10)
        partition = partition_here(hub, "gatherer")
        await until_true(lambda: partition.activations["gatherer"].count == 60)
        await until_true(lambda: partition.overflow.count >= 50)

        await handle.resume()

        assert await handle.result(10) == list(range(60))


async def test_a_restart_finds_what_overflowed(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await lock(hub)
        await send(hub, [10] * 5)

    async with Hub(app, store=store, partitions=1) as hub:
        partition = partition_of(hub)
        assert in_memory(partition) < 30
        assert partition.activations["@slow@s"].count == 100
        await send(hub, [10])
        await hub.client.get_handle(handle.instance_id).raise_event("go")

        await hub.client.get_handle(handle.instance_id).result(10)
        await until_true(lambda: partition.overflow.count == 0 and partition.waiting == 0)
        texts = await hub.client.call_entity(SLOW, Slow.get)
        for sender in "ab":
            mine = [text for text in texts if text.startswith(sender)]
            assert mine == [f"{sender} {n}" for n in range(60)]


async def test_a_recovery_finds_what_overflowed_and_answers_who_waits() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await lock(hub)
        await send(hub, [10] * 3)
        outcomes: list[str] = []

        async def ask() -> None:
            outcomes.append(await hub.client.call_entity(SLOW, Slow.echo, "question 0"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until_true(lambda: partition_of(hub).activations["@slow@s"].count == 61)
            await send(hub, [10] * 3)
            store.faults.commit = disk_error()
            with pytest.raises(perdure.UnavailableError):
                await hub.client.signal_entity(EntityId(Sender, "a"), Sender.send, 1)
            store.faults.commit = None
            await until_true(lambda: partition_of(hub).gate.reason is None)
            await send(hub, [10])
            await handle.raise_event("go")
            await handle.result(10)

        assert outcomes == ["question 0"]
        await until_true(lambda: partition_of(hub).overflow.count == 0)
        texts = await hub.client.call_entity(SLOW, Slow.get)
        assert texts.index("question 0") == 61
        for sender in "ab":
            mine = [text for text in texts if text.startswith(sender)]
            assert mine == [f"{sender} {n}" for n in range(70)]


async def test_a_store_that_cannot_be_read_is_tried_again_and_loses_nothing() -> None:
    store = FaultyStore()
    failures = 0
    async with Hub(app, store=store, partitions=1) as hub:
        opened = await block(hub)
        await send(hub, [30])
        partition = partition_of(hub)
        inner: Any = partition.store.inner
        read = inner.read_mail

        async def fail(*arguments: Any) -> Any:
            nonlocal failures
            failures += 1
            if failures < 3:
                raise disk_error()
            return await read(*arguments)

        inner.read_mail = fail
        opened.set()

        assert await seen(hub, 60) == {"a": list(range(30)), "b": list(range(30))}
        assert failures >= 3


async def test_purging_an_entity_refuses_what_overflowed_and_nothing_later(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await lock(hub)
        await send(hub, [20])
        asked = await hub.client.start_new(echo, "question")
        await Door(partition_of(hub)).wait_durable()
        await send(hub, [20])

        await hub.client.purge_entity(SLOW)
        await send(hub, [20])
        with anyio.fail_after(10):
            await handle.terminate()

            with pytest.raises(perdure.FailedError, match="purged"):
                await asked.result()
            assert await seen(hub, 40) == {"a": list(range(40, 60)), "b": list(range(40, 60))}
        await until_true(lambda: partition_of(hub).waiting == 0)
        assert await partition_of(hub).store.waiting(["@slow@s"]) == {}


async def test_clients_are_refused_by_what_waits_in_memory_and_in_the_store() -> None:
    async with Hub(app, partitions=1, settings=Settings(mailbox_messages_max=100)) as hub:
        opened = await block(hub)
        await send(hub, [50])

        with pytest.raises(MailboxFullError) as caught:
            await hub.client.signal_entity(SLOW, Slow.put, "refused 0")

        assert caught.value.limit == 100
        opened.set()
        await seen(hub, 100)
        await hub.client.signal_entity(SLOW, Slow.put, "taken 0")


async def test_the_counters_say_what_waits_in_memory_and_in_the_store() -> None:
    async with Hub(app, partitions=2) as hub:
        opened = await block(hub)
        await send(hub, [30])
        partition = partition_of(hub)
        await until_true(lambda: partition.overflow.count >= 50)

        counted = await hub.statistics(hottest=3)

        assert counted.waiting == 61  # with that which is under way
        assert 50 <= counted.stored == partition.overflow.count
        assert [one.fullest for one in counted.partitions if one.fullest] == [(("@slow@s", 61),)]
        console = Console(record=True, width=160)
        console.print(render(counted, counted, 1.0, 3))
        shown = console.export_text()
        assert "@slow@s" in shown
        assert "wait" in shown
        assert f"{counted.stored}" in shown
        opened.set()
        await seen(hub, 60)
        after = await hub.statistics(hottest=3)
        assert (after.waiting, after.stored) == (0, 0)
        await until_true(lambda: sum(one.exchange.owed for one in partitions_of(hub)) == 0)


@pytest.mark.by_turns
async def test_many_mailboxes_of_a_few_messages_are_bounded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overflow, "MAIL_MAX", 1_000)
    monkeypatch.setattr(overflow, "PARTITION_MAX", 200)
    monkeypatch.setattr(overflow, "FEW", 3)
    together = App()

    @together.entity
    class Each:
        seen: list[int] = []

        def put(self, n: int) -> None:
            self.seen.append(n)

        async def wait(self) -> None:
            await gates["all"].wait()

    @together.orchestration
    async def tell(ctx: OrchestrationContext, n: int) -> None:
        for entity in range(20):
            for i in range(10):
                ctx.signal_entity(EntityId(Each, str(entity)), Each.put, n * 10 + i)

    opened = gate("all")
    async with Hub(together, partitions=1) as hub:
        for entity in range(20):
            await hub.client.signal_entity(EntityId(Each, str(entity)), Each.wait)
        for n in range(10):
            await (await hub.client.start_new(tell, n)).result(10)
        partition = partition_here(hub, "@each@0")
        await Door(partition).wait_durable()
        assert sum(one.count for one in partition.activations.values()) == 2_000

        assert in_memory(partition) < 700

        opened.set()
        for entity in range(20):
            id = EntityId(Each, str(entity))

            async def all_there(id: EntityId[Each] = id) -> bool:
                state = await hub.client.read_entity_state(id)
                return state is not None and state.seen == list(range(100))

            await until(all_there)


async def test_whoever_sends_to_a_full_mailbox_is_slowed() -> None:
    # Of a turn for each message, which a commit would otherwise have many of.
    async with Hub(app, partitions=1, settings=Settings(turn_messages_max=1)) as hub:
        opened = await block(hub)
        await send(hub, [100], keys="a")
        partition = partition_of(hub)
        await until_true(lambda: partition.overflow.count > 0)
        before = partition.commits, partition.turns

        await hub.client.signal_entities([(EntityId(Sender, "a"), Sender.send, 1)] * 50)

        assert partition.turns - before[1] >= 50
        assert partition.commits - before[0] >= 50
        opened.set()
        assert await seen(hub, 150) == {"a": list(range(150))}


async def test_a_partition_that_stands_still_takes_no_memory_of_those_that_send_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "WINDOW_MESSAGES", 20)
    monkeypatch.setattr(exchange, "FRAME_MESSAGES_MAX", 5)
    store = StallingStore(MemoryStore())
    async with Hub(app, store=store, partitions=2) as hub:
        target = partition_of(hub)
        key = next(k for k in "abcdef" if partition_here(hub, f"@sender@{k}") is not target)
        source = partition_here(hub, f"@sender@{key}")
        await hub.client.call_entity(SLOW, Slow.echo, "before 0")
        gate = store.hold("commit", target.index)
        for _ in range(10):
            await hub.client.call_entity(EntityId(Sender, key), Sender.send, 30)

        peer = source.exchange.peers[target.index]
        assert source.exchange.choked == {target.index}
        assert sum(len(read_frame(frame.body)) for frame in peer.owed) <= 30
        assert await source.store.read_outbox(target.index, peer.row)
        assert (await hub.statistics()).owed == 300
        gate.open()

        assert await seen(hub, 301) == {"before": [0], key: list(range(300))}
        await until_true(lambda: not source.exchange.choked)
        assert source.exchange.owed == 0


# Cycles: they go on, however full the mailboxes are.

ring = App()


@ring.entity
class Member:
    seen: int = 0

    def pass_on(self, input: tuple[int, int, int], ctx: perdure.EntityContext) -> None:
        """Send some on, to the next of so many, until each has gone so far."""
        self.seen += 1
        left, members, copies = input
        if left:
            following = EntityId(Member, str((int(ctx.key) + 1) % members))
            for n in range(copies):
                ctx.signal_entity(
                    following, Member.pass_on, (left - 1, members, 1 if n else copies)
                )


async def start(hub: Hub, id: EntityId[Member], input: tuple[int, int, int]) -> None:
    """Have a member begin, as soon as its mailbox has room."""
    while True:
        try:
            return await hub.client.signal_entity(id, Member.pass_on, input)
        except MailboxFullError:
            await anyio.lowlevel.checkpoint()


@pytest.mark.by_turns
@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_cycle_at_full_mailboxes_goes_on(members: int, partitions: int) -> None:
    left, copies = 12, 10
    # One of each hop's copies makes copies again, all others only go on.
    expected = 1 + sum(1 + hop * (copies - 1) for hop in range(1, left + 1))
    settings = Settings(mailbox_messages_max=5, hub_messages_max=5, turn_messages_max=3)

    async with Hub(ring, partitions=partitions, settings=settings) as hub:
        for n in range(members):
            await start(hub, EntityId(Member, str(n)), (left, members, copies))

        async def done() -> bool:
            states = [
                await hub.client.read_entity_state(EntityId(Member, str(n))) for n in range(members)
            ]
            return sum(0 if one is None else one.seen for one in states) == members * expected

        await until(done)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_memory_does_not_grow_with_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    async with Hub(app, store=SqliteStore(tmp_path / "hub"), partitions=1) as hub:
        opened = await block(hub)
        await send(hub, [500] * 2)
        await asyncio.sleep(0)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]

            await send(hub, [500] * 20)

            partition = partition_of(hub)
            # Whoever sends hears of the commit before what it brought leaves memory.
            await until_true(lambda: partition.releasing is None and in_memory(partition) < 1_000)
            await partition.store.apply()
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert partition.activations["@slow@s"].count == 22_000
        assert grown < 3_000_000
        opened.set()
        await until_true(lambda: partition.overflow.count == 0)
