"""Actors and stores in trouble: what crashes, what is parked, what cannot be read."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

import perdure
from perdure import (
    App,
    EntityContext,
    EntityId,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OutcomeUnknownError,
    ParkedError,
    Settings,
    SqliteStore,
    StorageError,
    Store,
    StoreMovedError,
    UnavailableError,
)
from perdure.testing.inside import partitions_of
from tests.faults import Crash, let_turns_crash
from tests.runtime.harness import (
    FaultyStore,
    disk_error,
    made,
    partition_here,
    until,
    until_true,
)

app = App()


@pytest.fixture(autouse=True)
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    let_turns_crash(monkeypatch)


trouble: dict[str, bool] = {"on": True}


@pytest.fixture(autouse=True)
def with_trouble() -> None:
    trouble["on"] = True


@app.entity
class Touchy:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def exit(self) -> None:
        """Crash the turn."""
        self.value += 1_000
        if trouble["on"]:
            raise Crash("poison")

    async def exit_async(self) -> None:
        self.value += 1_000
        await anyio.lowlevel.checkpoint()
        if trouble["on"]:
            raise Crash("poison")


@app.entity
class Poisoner:
    def poison(self, key: str, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Touchy, key), Touchy.exit)

    def poison_async(self, key: str, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Touchy, key), Touchy.exit_async)


@app.orchestration
async def call_poison(ctx: OrchestrationContext, key: str) -> str:
    await ctx.call_entity(EntityId(Touchy, key), Touchy.exit)
    return "done"


@app.orchestration
async def add_one(ctx: OrchestrationContext, key: str) -> int:
    return await ctx.call_entity(EntityId(Touchy, key), Touchy.add, 1)


SICK = EntityId(Touchy, "sick")
WELL = EntityId(Touchy, "well")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


async def call_until_up(client: perdure.Client, id: EntityId[Any], op: str, *input: Any) -> Any:
    """Call, and again where a recovery of the partition refused it."""
    with anyio.fail_after(10):
        while True:
            try:
                return await client.call_entity(id, op, *input)
            except UnavailableError:
                await anyio.sleep(0.001)


async def until_parked(client: perdure.Client, id: EntityId[Any]) -> perdure.EntityStatus[Any]:
    found: list[perdure.EntityStatus[Any]] = []

    async def parked() -> bool:
        status = await client.get_entity(id)
        if status is not None and status.parked is not None:
            found.append(status)
        return bool(found)

    await until(parked)
    return found[0]


async def poison(client: perdure.Client, op: str = "poison") -> None:
    # The poison's own checkpoint comes first, so that the message is stored or sent.
    await call_until_up(client, EntityId(Poisoner, "p"), op, "sick")


# Crashes.


@pytest.mark.parametrize("op", ["exit", "exit_async"])
async def test_a_client_whose_call_crashed_the_turn_is_told_and_nothing_of_it_stands(
    store: Store, op: str
) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        await hub.client.call_entity(SICK, Touchy.add, 1)

        # An async operation's message may have been stored meanwhile; then it is tried again.
        with anyio.fail_after(10), pytest.raises((UnavailableError, ParkedError)) as caught:
            await hub.client.call_entity(SICK, op)
        if isinstance(caught.value, ParkedError):
            await hub.client.retry(SICK)

        assert await call_until_up(hub.client, SICK, "add", 1) == 2
    async with Hub(app, store=store, partitions=1) as hub:
        assert await hub.client.read_entity_state(SICK) == made(Touchy, value=2)


async def test_crashes_that_are_not_in_a_row_do_not_park() -> None:
    async with Hub(app, partitions=1, settings=Settings(crashes_max=2)) as hub:
        for i in range(6):
            with pytest.raises(UnavailableError):
                await hub.client.call_entity(SICK, Touchy.exit)
            assert await call_until_up(hub.client, SICK, "add", 1) == i + 1


@pytest.mark.parametrize("op", ["poison", "poison_async"])
async def test_what_keeps_crashing_its_turn_is_parked_and_the_others_go_on(
    store: Store, op: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(SICK, Touchy.add, 1)
        await poison(client, op)

        status = await until_parked(client, SICK)
        parked = [s.entity_id async for s in client.query_entities(parked=True)]

        assert status.parked is not None
        assert status.parked.type == "Crash"
        assert "crashed 3 times in a row" in status.parked.reason
        assert status.state == made(Touchy, value=1)
        assert parked == [SICK]
        assert await call_until_up(client, WELL, "add", 5) == 5
        assert "parked @touchy@sick" in caplog.text


async def test_a_parked_entity_refuses_calls_keeps_signals_and_goes_on_when_retried(
    store: Store,
) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(SICK, Touchy.add, 1)
        await poison(client)
        await until_parked(client, SICK)
        with pytest.raises(ParkedError, match="repair it, then retry or purge it"):
            await call_until_up(client, SICK, "add", 10)
        await client.signal_entity(SICK, Touchy.add, 20)
        handle = await client.start_new(add_one, "sick")
        waiting = await client.get_entity(SICK)

        trouble["on"] = False
        await client.retry(SICK)

        assert waiting is not None
        assert waiting.waiting >= 2
        assert await handle.result(10) == 1_022
        status = await client.get_entity(SICK)
        assert status is not None
        assert status.parked is None
        assert await client.call_entity(SICK, Touchy.add, 0) == 1_022


@pytest.mark.by_turns
async def test_a_retry_of_what_is_not_repaired_parks_it_again(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await poison(client)
        await until_parked(client, SICK)

        with anyio.fail_after(10):
            for _ in range(3):
                with suppress(UnavailableError):
                    await client.retry(SICK)
                await until_parked(client, SICK)

        assert await call_until_up(client, WELL, "add", 5) == 5


async def test_a_retry_beside_other_messages_is_safe(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await poison(client)
        await until_parked(client, SICK)
        trouble["on"] = False

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(client.signal_entity, SICK, Touchy.add, 1)
                tasks.start_soon(client.retry, SICK)

        assert await client.call_entity(SICK, Touchy.add, 0) == 1_005


async def test_retrying_what_is_not_parked_changes_nothing() -> None:
    async with Hub(app) as hub:
        await hub.client.call_entity(WELL, Touchy.add, 1)

        await hub.client.retry(WELL)

        assert await hub.client.call_entity(WELL, Touchy.add, 1) == 2


@pytest.mark.by_turns
async def test_a_poison_actor_is_tried_again_at_a_start_and_parked_again(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        await poison(hub.client)
        await until_parked(hub.client, SICK)

    async with Hub(app, store=store, partitions=1) as hub:
        with anyio.fail_after(10):
            assert await call_until_up(hub.client, WELL, "add", 5) == 5
            partition = partitions_of(hub)[0]
            await until_true(lambda: partition.is_quiet and partition.gate.reason is None)
            await until_parked(hub.client, SICK)

    trouble["on"] = False
    async with Hub(app, store=store, partitions=1) as hub:

        async def applied() -> bool:
            return await hub.client.read_entity_state(SICK) == made(Touchy, value=1_000)

        await until(applied)


@pytest.mark.by_turns
async def test_two_poison_actors_of_one_partition_are_both_parked(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        for key in ("sick", "ill", "bad"):
            await call_until_up(client, EntityId(Poisoner, "p"), "poison", key)
        with anyio.fail_after(20):
            for key in ("sick", "ill", "bad"):
                await until_parked(client, EntityId(Touchy, key))

        assert await call_until_up(client, WELL, "add", 5) == 5

    async with Hub(app, store=store, partitions=1) as hub:
        assert await call_until_up(hub.client, WELL, "add", 5) == 10
        for key in ("sick", "ill", "bad"):
            await until_parked(hub.client, EntityId(Touchy, key))


async def test_purging_a_parked_entity_drops_its_state_and_mail(store: Store) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(SICK, Touchy.add, 1)
        await poison(client)
        await until_parked(client, SICK)
        await client.signal_entity(SICK, Touchy.add, 20)

        await client.purge_entity(SICK)

        assert await client.get_entity(SICK) is None
        assert await client.call_entity(SICK, Touchy.add, 5) == 5

    async with Hub(app, store=store, partitions=1) as hub:
        assert await hub.client.call_entity(SICK, Touchy.add, 0) == 5


async def test_a_crash_in_an_operation_that_an_orchestration_called_is_repaired(
    store: Store,
) -> None:
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await hub.client.start_new(call_poison, "sick")
        await until_parked(hub.client, SICK)

        trouble["on"] = False
        await hub.client.retry(SICK)

        assert await handle.result(10) == "done"
        assert await hub.client.call_entity(SICK, Touchy.add, 0) == 1_000


async def test_a_lock_of_a_poison_entity_does_not_hold_up_the_others(store: Store) -> None:
    own = App()
    own.include(app)

    @own.orchestration
    async def lock_both(ctx: OrchestrationContext) -> int:
        async with ctx.lock_entities(SICK, WELL):
            return await ctx.call_entity(WELL, Touchy.add, 1)

    async with Hub(own, store=store, partitions=1) as hub:
        await poison(hub.client)
        await until_parked(hub.client, SICK)

        handle = await hub.client.start_new(lock_both)

        assert await handle.result(10) == 1


# States and names that the code no longer knows.


@pytest.mark.by_turns
async def test_an_entity_whose_class_is_gone_is_parked_and_comes_back_with_it(
    store: Store,
) -> None:
    without = App()

    @without.entity
    class Other:
        value: int = 0

        def get(self) -> int:
            return self.value

    clock = ManualClock()
    async with Hub(app, store=store, partitions=1, clock=clock) as hub:
        await hub.client.call_entity(SICK, Touchy.add, 1)
        await hub.client.signal_entity(SICK, Touchy.add, 10, at=timedelta(seconds=60))
    clock.advance(61)

    async with Hub(without, store=store, partitions=1, clock=clock) as hub:
        status = await until_listed_parked(hub.client)
        assert status.parked is not None
        assert status.parked.type == "UnknownNameError"
        assert await hub.client.call_entity(EntityId(Other, "o"), Other.get) == 0

    async with Hub(app, store=store, partitions=1) as hub:

        async def applied() -> bool:
            return await hub.client.read_entity_state(SICK) == made(Touchy, value=11)

        await until(applied)


async def until_listed_parked(client: perdure.Client) -> perdure.EntityStatus[Any]:
    found: list[perdure.EntityStatus[Any]] = []

    async def listed() -> bool:
        found.extend([status async for status in client.query_entities(parked=True)])
        return bool(found)

    await until(listed)
    return found[0]


def make_account(kind: type, version: int = 1) -> tuple[App, Any]:
    own = App()
    body: dict[str, Any] = {
        "__annotations__": {"balance": kind, "schema_version": ClassVar[int]},
        "balance": kind(),
        "schema_version": version,
        "__module__": __name__,
        "__qualname__": "Account",
    }

    def put(self: Any, value: Any) -> Any:
        self.balance = value
        return value

    def get(self: Any) -> Any:
        return self.balance

    cls: Any = type("Account", (), {**body, "put": put, "get": get})
    return own, own.entity(cls)


@pytest.mark.by_turns
@pytest.mark.parametrize("case", ["another type", "newer schema"])
async def test_a_state_that_the_class_cannot_read_is_parked_kept_and_shown_as_it_is(
    store: Store, case: str
) -> None:
    v1, account = make_account(int, 2 if case == "newer schema" else 1)
    wrong, _ = make_account(int if case == "newer schema" else list, 1)
    id = EntityId[Any]("account", "a")
    async with Hub(v1, store=store) as hub:
        await hub.client.call_entity(id, "put", 5)

    async with Hub(wrong, store=store) as hub:
        with pytest.raises(ParkedError, match="@account@a is parked"):
            await hub.client.call_entity(id, "get")
        status = await until_parked(hub.client, id)
        assert status.state is not None
        assert status.state["balance"] == 5
        assert status.exists
        await hub.client.call_entity(EntityId[Any]("account", "b"), "get")

    async with Hub(v1, store=store) as hub:

        async def repaired() -> bool:
            status = await hub.client.get_entity(id)
            return status is not None and status.parked is None

        await until(repaired)
        assert await hub.client.call_entity(id, "get") == 5
        assert (await hub.client.read_entity_state(id)) == account(balance=5)


@pytest.mark.by_turns
async def test_an_upgrade_that_raises_parks_the_entity_and_keeps_its_state(store: Store) -> None:
    v1, _ = make_account(int)
    id = EntityId[Any]("account", "a")
    async with Hub(v1, store=store) as hub:
        await hub.client.call_entity(id, "put", 5)
    broken = App()

    @broken.entity
    class Account:
        schema_version: ClassVar[int] = 2
        balance: int = 0

        @classmethod
        def upgrade(cls, stored: dict[str, Any], version: int) -> dict[str, Any]:
            raise KeyError("a bug of the user")

        def get(self) -> int:
            return self.balance

    async with Hub(broken, store=store) as hub:
        with anyio.fail_after(10), pytest.raises(ParkedError):
            await hub.client.call_entity(EntityId(Account, "a"), Account.get)
        assert await hub.client.call_entity(EntityId(Account, "b"), Account.get) == 0

    async with Hub(v1, store=store) as hub:
        assert await hub.client.call_entity(id, "get", timeout=10) == 5


# Stores that cannot be read for a while.


async def test_reads_that_fail_for_a_while_park_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1, settings=Settings(crashes_max=2)) as hub:
        await hub.client.call_entity(SICK, Touchy.add, 1)
    async with Hub(app, store=store, partitions=1, settings=Settings(crashes_max=2)) as hub:
        store.faults.read = disk_error()
        with caplog.at_level(logging.ERROR):
            for _ in range(6):
                with pytest.raises(UnavailableError):
                    await hub.client.call_entity(SICK, Touchy.add, 10)
        store.faults.read = None

        assert await call_until_up(hub.client, SICK, "add", 1) == 2
        status = await hub.client.get_entity(SICK)
        assert status is not None
        assert status.parked is None


async def test_a_client_that_reads_gets_the_stores_error() -> None:
    store = FaultyStore()
    async with Hub(app, store=store) as hub:
        store.faults.read = disk_error()

        with pytest.raises(perdure.StorageError, match="the disk fails"):
            await hub.client.read_entity_state(SICK)
        store.faults.read = None

        assert await hub.client.read_entity_state(SICK) is None


async def test_signals_between_entities_survive_failing_commits_and_arrive_once() -> None:
    store = FaultyStore()
    own = App()

    @own.entity
    class Sender:
        sent: int = 0

        def send(self, count: int, ctx: EntityContext) -> int:
            for i in range(count):
                ctx.signal_entity(EntityId("receiver", str(i)), "take")
            self.sent += count
            return self.sent

    @own.entity
    class Receiver:
        taken: int = 0

        def take(self) -> None:
            self.taken += 1

    async with Hub(own, store=store, partitions=4) as hub:
        client = hub.client
        gate = partition_here(hub, str(EntityId(Sender, "s"))).gate
        done = 0
        for i in range(30):
            store.faults.commit = disk_error() if i % 3 == 2 else None
            try:
                await client.call_entity(EntityId(Sender, "s"), Sender.send, 20)
                done += 1
            except UnavailableError:
                store.faults.commit = None
                await until_true(lambda: gate.reason is None)  # it refuses while it recovers
        store.faults.commit = None

        async def arrived() -> bool:
            total = 0
            async for status in client.query_entities(name="receiver"):
                assert status.state is not None
                total += status.state.taken
            return total == done * 20

        await until(arrived)
        state = await client.read_entity_state(EntityId(Sender, "s"))

    assert state == made(Sender, sent=done * 20)
    assert done > 5


async def test_a_store_that_raises_anything_is_recovered_from() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        assert await hub.client.call_entity(SICK, Touchy.add, 1) == 1

        store.faults.commit = RuntimeError("not what a store should raise")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_repair_after_recovery, store)
            with anyio.fail_after(10), pytest.raises(UnavailableError):
                await hub.client.call_entity(SICK, Touchy.add, 1)
        assert await call_until_up(hub.client, SICK, "add", 1) == 2

        store.faults.read = KeyError("nor this")
        with pytest.raises(StorageError, match="KeyError"):
            await hub.client.get_entity(SICK)


async def _repair_after_recovery(store: FaultyStore) -> None:
    await until_true(lambda: store.faults.recoveries > 1)
    store.faults.commit = None


async def test_a_store_whose_files_are_gone_ends_the_hub_and_leaves_no_call_open() -> None:
    store = FaultyStore()
    hub = Hub(app, store=store, partitions=1)
    await hub.__aenter__()
    await hub.client.call_entity(SICK, Touchy.add, 1)

    store.faults.commit = StoreMovedError("gone, for the test")
    with anyio.fail_after(10), pytest.raises(OutcomeUnknownError):
        await hub.client.call_entity(SICK, Touchy.add, 1)

    with pytest.raises(StoreMovedError):
        await hub.__aexit__(None, None, None)
