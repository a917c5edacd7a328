from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio
import pytest

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
    UnavailableError,
)
from perdure.testing.inside import partitions_of
from tests.runtime.harness import FaultyStore, disk_error, until, until_true

app = App()

gates: dict[str, anyio.Event] = {}
reached: dict[str, anyio.Event] = {}


def new_gate(name: str) -> tuple[anyio.Event, anyio.Event]:
    gates[name], reached[name] = anyio.Event(), anyio.Event()
    return gates[name], reached[name]


class Box:
    seen: list[str] = []

    def put(self, text: str) -> None:
        self.seen.append(text)

    def get(self) -> list[str]:
        return self.seen

    async def wait(self, gate: str) -> None:
        reached[gate].set()
        await gates[gate].wait()

    @perdure.readonly
    def count(self) -> int:
        return len(self.seen)


@app.entity
class Inbox(Box):
    pass


@app.entity(max_mailbox=3)
class Small(Box):
    pass


@app.entity
class Relay:
    def pass_on(self, count: int, ctx: perdure.EntityContext) -> None:
        for i in range(count):
            ctx.signal_entity(EntityId(Small, "s"), "put", f"relay {i}")


@app.orchestration
async def hold(ctx: OrchestrationContext, key: str) -> None:
    async with ctx.lock_entities(EntityId(Small, key), EntityId(Inbox, key)):
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("go")


@app.orchestration
async def send_many(ctx: OrchestrationContext, count: int) -> None:
    for i in range(count):
        ctx.signal_entity(EntityId(Small, "s"), "put", f"orchestration {i}")


@app.orchestration
async def send_in_order(ctx: OrchestrationContext, count: int) -> None:
    for i in range(count):
        for key in ("a", "b", "c"):
            ctx.signal_entity(EntityId(Inbox, key), Inbox.put, f"{ctx.instance_id}:{i}")
        if i % 3 == 0:
            await ctx.call_entity(EntityId(Inbox, "a"), Inbox.get)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


async def lock(client: perdure.Client, key: str) -> perdure.OrchestrationHandle[Any]:
    handle = await client.start_new(hold, key)

    async def locked() -> bool:
        status = (await handle.status()).custom_status
        return bool(status == "locked")

    await until(locked)
    return handle


async def ask(client: perdure.Client, id: EntityId[Any], op: str) -> Any:
    """Call an entity whose mailbox may be full still."""
    with anyio.fail_after(10):
        while True:
            try:
                return await client.call_entity(id, op)
            except MailboxFullError:
                await anyio.lowlevel.checkpoint()


async def test_a_full_mailbox_refuses_clients_says_so_and_takes_more_when_it_has_room() -> None:
    settings = Settings(mailbox_messages_max=5)
    inbox = EntityId(Inbox, "i")
    opened, begun = new_gate("full")

    async with Hub(app, settings=settings) as hub:
        client = hub.client
        await client.signal_entity(inbox, Inbox.wait, "full")
        await begun.wait()
        for i in range(5):
            await client.signal_entity(inbox, Inbox.put, str(i))

        with pytest.raises(MailboxFullError) as caught:
            await client.signal_entity(inbox, Inbox.put, "refused")
        with pytest.raises(MailboxFullError):
            await client.call_entity(inbox, Inbox.put, "refused")
        opened.set()

        assert await client.call_entity(EntityId(Inbox, "other"), Inbox.count) == 0
        assert (caught.value.where, caught.value.limit) == ("@inbox@i", 5)
        assert "send more slowly" in str(caught.value)
        assert isinstance(caught.value, UnavailableError)

        assert await ask(client, inbox, "get") == [*"01234"]
        await client.signal_entity(inbox, Inbox.put, "later")
        assert await client.call_entity(inbox, Inbox.get) == [*"01234", "later"]


async def test_what_waits_behind_a_lock_takes_room_in_the_mailbox(store: Store) -> None:
    settings = Settings(mailbox_messages_max=5)
    inbox = EntityId(Inbox, "i")

    async with Hub(app, store=store, settings=settings) as hub:
        client = hub.client
        handle = await lock(client, "i")
        for i in range(5):
            await client.signal_entity(inbox, Inbox.put, str(i))

        with pytest.raises(MailboxFullError):
            await client.signal_entity(inbox, Inbox.put, "refused")

        await handle.raise_event("go")
        await handle.result(10)
        assert await ask(client, inbox, "get") == list("01234")


async def test_an_entitys_own_limit_stands_above_the_hubs() -> None:
    async with Hub(app) as hub:
        handle = await lock(hub.client, "s")
        for i in range(3):
            await hub.client.signal_entity(EntityId(Small, "s"), Small.put, str(i))
            await hub.client.signal_entity(EntityId(Inbox, "s"), Inbox.put, str(i))

        with pytest.raises(MailboxFullError) as caught:
            await hub.client.signal_entity(EntityId(Small, "s"), Small.put, "refused")
        await hub.client.signal_entity(EntityId(Inbox, "s"), Inbox.put, "taken")

        assert caught.value.limit == 3
        await handle.raise_event("go")
        await handle.result(10)


@pytest.mark.by_turns
async def test_the_limit_holds_while_the_entity_is_being_loaded(store: Store) -> None:
    small = EntityId(Small, "s")
    outcomes: list[str] = []

    async with Hub(app, store=store) as hub:

        async def send(text: str) -> None:
            try:
                await hub.client.signal_entity(small, Small.put, text)
            except MailboxFullError:
                outcomes.append("refused")
            else:
                outcomes.append("taken")

        async with anyio.create_task_group() as tasks:
            for i in range(10):
                tasks.start_soon(send, str(i))

        assert sorted(outcomes) == ["refused"] * 7 + ["taken"] * 3
        assert len(await hub.client.call_entity(small, Small.get)) == 3


@pytest.mark.by_turns
async def test_the_hubs_limit_counts_what_waits_for_all_entities_of_a_partition(
    store: Store,
) -> None:
    settings = Settings(hub_messages_max=6)

    async with Hub(app, store=store, settings=settings, partitions=1) as hub:
        client = hub.client
        first = await lock(client, "a")
        second = await lock(client, "b")
        for i in range(3):
            await client.signal_entity(EntityId(Inbox, "a"), Inbox.put, str(i))
            await client.signal_entity(EntityId(Inbox, "b"), Inbox.put, str(i))

        with pytest.raises(MailboxFullError, match="partition 0"):
            await client.signal_entity(EntityId(Inbox, "c"), Inbox.put, "refused")

    async with Hub(app, store=store, settings=settings, partitions=1) as hub:
        client = hub.client
        partition = partitions_of(hub)[0]
        await until_true(lambda: partition.is_quiet)
        with pytest.raises(MailboxFullError, match="partition 0"):
            await client.signal_entity(EntityId(Inbox, "c"), Inbox.put, "refused")
        for handle in (first, second):
            # An event is a message like any other, so give it room.
            partitions_of(hub)[0].settings = Settings()
            await client.get_handle(handle.instance_id).raise_event("go")
            await client.get_handle(handle.instance_id).result(10)
        partitions_of(hub)[0].settings = settings
        for key in "ab":
            assert await client.call_entity(EntityId(Inbox, key), Inbox.get) == list("012")
        await client.signal_entity(EntityId(Inbox, "c"), Inbox.put, "taken")

        assert partition.waiting == 0


@pytest.mark.by_turns
async def test_a_full_mailbox_never_refuses_orchestrations_or_entities(store: Store) -> None:
    small = EntityId(Small, "s")

    async with Hub(app, store=store) as hub:
        client = hub.client
        handle = await lock(client, "s")
        for i in range(3):
            await client.signal_entity(small, Small.put, f"client {i}")
        await client.call_entity(EntityId(Relay, "r"), Relay.pass_on, 10)
        await (await client.start_new(send_many, 10)).result(10)
        with pytest.raises(MailboxFullError):
            await client.signal_entity(small, Small.put, "refused")

        await handle.raise_event("go")
        await handle.result(10)

        async def all_there() -> bool:
            return bool(await ask(client, small, "count") == 23)

        await until(all_there)
        by_sender: dict[str, list[int]] = defaultdict(list)
        for text in await client.call_entity(small, Small.get):
            sender, number = text.split()
            by_sender[sender].append(int(number))
        assert by_sender == {
            "client": [0, 1, 2],
            "relay": list(range(10)),
            "orchestration": list(range(10)),
        }


async def test_a_refused_message_of_a_batch_leaves_the_others_in_order() -> None:
    small = EntityId(Small, "s")

    async with Hub(app) as hub:
        with pytest.raises(MailboxFullError):
            await hub.client.signal_entities([(small, Small.put, str(i)) for i in range(10)])
        kept = await ask(hub.client, small, "get")

    assert kept == list("0123456789")[: len(kept)]


@pytest.mark.by_turns
async def test_messages_of_one_sender_arrive_in_order_also_with_many_senders(
    store: Store,
) -> None:
    senders, count = 10, 15

    async with Hub(app, store=store, settings=Settings(cached_actors_max=3)) as hub:
        handles = [await hub.client.start_new(send_in_order, count) for _ in range(senders)]
        for handle in handles:
            await handle.result(20)

        for key in ("a", "b", "c"):
            inbox = EntityId(Inbox, key)

            async def all_there(inbox: EntityId[Inbox] = inbox) -> bool:
                return await hub.client.call_entity(inbox, Inbox.count) == senders * count

            await until(all_there)
            by_sender: dict[str, list[int]] = defaultdict(list)
            for text in await hub.client.call_entity(inbox, Inbox.get):
                sender, number = text.split(":")
                by_sender[sender].append(int(number))
            assert by_sender == {h.instance_id: list(range(count)) for h in handles}


async def test_a_clients_messages_sent_without_waiting_arrive_in_the_order_sent() -> None:
    settings = Settings(turn_messages_max=3)

    async with Hub(app, settings=settings) as hub:
        await hub.client.signal_entities(
            [(EntityId(Inbox, "i"), Inbox.put, str(i)) for i in range(100)]
        )

        assert await hub.client.call_entity(EntityId(Inbox, "i"), Inbox.get) == [
            str(i) for i in range(100)
        ]


async def test_a_stored_mailbox_keeps_its_order_over_restarts_and_recoveries() -> None:
    store = FaultyStore()
    inbox = EntityId(Inbox, "i")
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await lock(hub.client, "i")
        for i in range(10):
            await hub.client.signal_entity(inbox, Inbox.put, str(i))

    async with Hub(app, store=store, partitions=1) as hub:
        for i in range(10, 20):
            await hub.client.signal_entity(inbox, Inbox.put, str(i))
        store.faults.commit = disk_error()
        with pytest.raises(UnavailableError):
            await hub.client.signal_entity(inbox, Inbox.put, "never")
        store.faults.commit = None
        partition = partitions_of(hub)[0]
        await until_true(lambda: partition.gate.reason is None)
        for i in range(20, 30):
            await hub.client.signal_entity(inbox, Inbox.put, str(i))
        await hub.client.get_handle(handle.instance_id).raise_event("go")

        assert await hub.client.call_entity(inbox, Inbox.get, timeout=10) == [
            str(i) for i in range(30)
        ]


async def test_an_orchestrations_mailbox_is_bounded_for_clients_as_well() -> None:
    settings = Settings(mailbox_messages_max=4)

    async with Hub(app, settings=settings) as hub:
        handle = await lock(hub.client, "x")
        await handle.suspend()
        for _ in range(4):
            await handle.raise_event("other")

        with pytest.raises(MailboxFullError):
            await handle.raise_event("other")


async def test_events_that_an_orchestration_has_not_taken_count_for_its_mailbox() -> None:
    async with Hub(app, settings=Settings(mailbox_messages_max=4)) as hub:
        handle = await lock(hub.client, "x")
        for _ in range(4):
            await handle.raise_event("other")

        with pytest.raises(MailboxFullError):
            await handle.raise_event("other")

        assert (await hub.statistics()).waiting == 4
        await handle.terminate()


async def test_a_full_hub_still_takes_commands() -> None:
    settings = Settings(hub_messages_max=2, mailbox_messages_max=2)

    async with Hub(app, settings=settings, partitions=1) as hub:
        client = hub.client
        handle = await lock(client, "i")
        for i in range(2):
            await client.signal_entity(EntityId(Inbox, "i"), Inbox.put, str(i))
        with pytest.raises(MailboxFullError):
            await handle.raise_event("go")

        await handle.terminate()

        assert await ask(client, EntityId(Inbox, "i"), "get") == ["0", "1"]
