"""Striped entities in a running hub: where operations run, what reads see, and what goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import perdure
from perdure import (
    App,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    LockRuleError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    ParkedError,
    Settings,
    Store,
)
from perdure.actors.entities.stripes import MARK, stripe_key
from perdure.runtime.placement.hashing import partition_of
from tests.faults import FaultyStore, persist, settle, within
from tests.guarantees.workloads import id_in
from tests.runtime.harness import until, until_true

PARTITIONS = 4
app = App()


@app.entity(stripes=8)
class Visits:
    total: int = 0
    keys: list[str] = []

    @perdure.commutative
    def add(self, amount: int) -> None:
        if amount < 0:
            raise ValueError("below zero")
        self.total += amount

    @perdure.commutative
    def note_key(self, ctx: EntityContext) -> str:
        self.keys.append(ctx.key)
        return str(ctx.entity_id)

    @perdure.commutative
    async def add_slowly(self, amount: int) -> None:
        before = self.total
        await anyio.lowlevel.checkpoint()
        self.total = before + amount

    @perdure.commutative
    def pass_on(self, amount: int, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Visits, "other"), Visits.add, amount)

    def get(self) -> int:
        return self.total

    @perdure.readonly
    def peek(self) -> int:
        return self.total

    def reset(self, ctx: EntityContext) -> int:
        before = self.total
        ctx.delete()
        return before

    def times(self, factor: int) -> int:
        self.total *= factor
        return self.total

    def merge(self, other: Visits) -> None:
        self.total += other.total
        self.keys += other.keys


@app.entity(stripes=2)
class Narrow(Visits):
    pass


@app.entity(stripes="auto")
class Auto(Visits):
    pass


@app.orchestration
async def visit(ctx: OrchestrationContext, order: list[Any]) -> int:
    """Add that often to an entity, and read it."""
    entity, times = order
    id: EntityId[Any] = EntityId(entity, "page")
    for _ in range(times):
        ctx.signal_entity(id, "add", 1)
    await ctx.call_entity(id, "add", 1)
    return int(await ctx.call_entity(id, "peek"))


@app.orchestration
async def visit_and_wait(ctx: OrchestrationContext) -> int:
    await ctx.call_entity(PAGE, Visits.add, 1)
    ctx.signal_entity(PAGE, Visits.add, 1)
    await ctx.wait_for_external_event("go")
    ctx.signal_entity(PAGE, Visits.add, 1)
    return await ctx.call_entity(PAGE, Visits.get)


@app.orchestration
async def multiply(ctx: OrchestrationContext, factors: list[int]) -> list[int]:
    return await ctx.task_all([ctx.call_entity(PAGE, Visits.times, n) for n in factors])


@app.orchestration
async def only_signal(ctx: OrchestrationContext, entity: str) -> None:
    ctx.signal_entity(EntityId(entity, "page"), "add", 1)


@app.orchestration
async def signal_later(ctx: OrchestrationContext) -> None:
    ctx.signal_entity(PAGE, Visits.add, 5, at=timedelta(seconds=60))


@app.orchestration
async def lock(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(PAGE):
        pass


PAGE = EntityId(Visits, "page")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


def hub_on(store: Store, clock: ManualClock, code: App = app, **limits: Any) -> Hub:
    settings = Settings(**limits)
    return Hub(code, store=store, partitions=PARTITIONS, clock=clock, settings=settings)


@pytest.fixture
async def hub(store: FaultyStore, clock: ManualClock) -> AsyncIterator[Hub]:
    async with within(20), hub_on(store, clock) as hub:
        yield hub


def rows(store: FaultyStore) -> dict[str, int]:
    """Give the stored entities with the partition where each is."""
    inner = store.inner
    assert isinstance(inner, MemoryStore)
    return {
        f"@{row.name}@{row.key}": index
        for index, one in enumerate(inner.rows)
        for row in one.entities.values()
    }


def stripes_in(store: FaultyStore) -> list[str]:
    return [key for key in rows(store) if MARK in key]


async def test_a_clients_operations_go_to_all_stripes_and_a_read_sees_them_all(
    hub: Hub, store: FaultyStore
) -> None:
    for _ in range(12):
        await hub.client.signal_entity(PAGE, Visits.add, 1)
        await hub.client.call_entity(PAGE, Visits.add, 1)
    spread = rows(store)

    assert set(spread) == {stripe_key(str(PAGE), n) for n in range(8)}
    assert set(spread.values()) == set(range(PARTITIONS))
    assert await hub.client.call_entity(PAGE, Visits.get) == 24
    assert set(rows(store)) == {str(PAGE)}


async def test_many_signals_at_once_are_spread_too(hub: Hub, store: FaultyStore) -> None:
    await hub.client.signal_entities([(PAGE, Visits.add, 1)] * 30)

    assert len(stripes_in(store)) == 8
    assert await hub.client.call_entity(PAGE, Visits.peek) == 30


@pytest.mark.parametrize("partition", range(PARTITIONS))
async def test_an_actors_signal_runs_in_its_own_partition_and_its_own_checkpoint(
    store: FaultyStore, clock: ManualClock, partition: int
) -> None:
    # However slow the machine is: the turn of who sends and that of the stripe follow one another.
    async with within(20), hub_on(store, clock, pump_budget_s=60) as hub:
        for prefix in ("first", "second"):
            store.sealed.clear()  # the first finds that the stripe has to be loaded
            name = id_in(partition, prefix, PARTITIONS)
            await hub.client.start_new(only_signal, "visits", instance_id=name)
            await hub.client.wait(name)
            await until_true(lambda: len(stripes_in(store)) == 1)  # it may have to be loaded yet
    [stripe] = stripes_in(store)
    together = [
        {f"@{row.name}@{row.key}" for row in checkpoint.entities}
        for _, checkpoint in store.sealed
        if any(row.status == "Completed" for row in checkpoint.progress)
    ]

    assert rows(store)[stripe] == partition
    assert together == [{stripe}]
    assert not any(checkpoint.outbox for _, checkpoint in store.sealed)


async def test_with_fewer_stripes_than_partitions_every_sender_finds_one(
    hub: Hub, store: FaultyStore
) -> None:
    for partition in range(PARTITIONS):
        name = id_in(partition, "sender", PARTITIONS)
        await hub.client.start_new(visit, ["narrow", 2], instance_id=name)
        await hub.client.wait(name)

    assert await hub.client.call_entity(EntityId(Narrow, "page"), Narrow.get) == 12


async def test_an_orchestration_reads_what_it_has_called(hub: Hub) -> None:
    handle = await hub.client.start_new(visit, ["visits", 5])

    assert await handle.result() == 6
    signalled = [e for e in await handle.history() if e.event_type == "EntityOperationSignaled"]
    assert {event.fields["entity_id"] for event in signalled} == {str(PAGE)}


async def test_a_history_that_names_the_entity_replays_wherever_the_operations_ran(
    store: FaultyStore, clock: ManualClock
) -> None:
    async with hub_on(store, clock) as hub:
        for partition in range(PARTITIONS):
            name = id_in(partition, "again", PARTITIONS)
            await hub.client.start_new(visit_and_wait, instance_id=name)

        async def all_wait() -> bool:
            return await hub.client.call_entity(PAGE, Visits.get) == 2 * PARTITIONS

        await until(all_wait)
    async with hub_on(store, clock) as hub:
        for partition in range(PARTITIONS):
            name = id_in(partition, "again", PARTITIONS)
            await hub.client.raise_event(name, "go")
            assert await hub.client.wait(name) >= 2 * PARTITIONS
        assert await hub.client.call_entity(PAGE, Visits.get) == 3 * PARTITIONS


async def test_an_entity_passes_signals_on_from_a_stripe(hub: Hub) -> None:
    for n in range(8):
        await hub.client.call_entity(PAGE, Visits.pass_on, n)

    async def arrived() -> bool:
        return await hub.client.call_entity(EntityId(Visits, "other"), Visits.get) == sum(range(8))

    await until(arrived)


async def test_an_operation_on_a_stripe_sees_the_entitys_own_id(hub: Hub) -> None:
    assert await hub.client.call_entity(PAGE, Visits.note_key) == "@visits@page"
    state = await hub.client.read_entity_state(PAGE)

    assert state is not None
    assert state.keys == ["page"]


async def test_async_operations_run_on_stripes(hub: Hub) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(hub.client.call_entity, PAGE, Visits.add_slowly, 1)

    assert await hub.client.call_entity(PAGE, Visits.get) == 20


async def test_delayed_signals_arrive_at_their_time(hub: Hub, clock: ManualClock) -> None:
    await hub.client.signal_entity(PAGE, Visits.add, 2, at=timedelta(seconds=30))
    await (await hub.client.start_new(signal_later)).result()

    assert await hub.client.call_entity(PAGE, Visits.get) == 0
    clock.advance(31)

    async def has(total: int) -> bool:
        return await hub.client.call_entity(PAGE, Visits.get) == total

    await until(lambda: has(2))
    clock.advance(31)
    await until(lambda: has(7))


async def test_other_operations_see_the_merged_state_and_keep_their_order(hub: Hub) -> None:
    for _ in range(8):
        await hub.client.signal_entity(PAGE, Visits.add, 1)
    handle = await hub.client.start_new(multiply, [2, 10, 0])

    assert await handle.result() == [16, 160, 0]


async def test_a_signal_that_was_acknowledged_comes_before_what_is_sent_after_it(hub: Hub) -> None:
    for _ in range(10):
        await hub.client.signal_entity(PAGE, Visits.add, 7)
        await hub.client.signal_entity(PAGE, Visits.times, 0)
        await hub.client.signal_entity(PAGE, Visits.add, 3)

        assert await hub.client.call_entity(PAGE, Visits.get) == 3
        await hub.client.signal_entity(PAGE, Visits.times, 0)


async def test_reads_that_come_together_share_a_round(hub: Hub, store: FaultyStore) -> None:
    await hub.client.call_entity(PAGE, Visits.get)
    before = sum(frame.body.count(b'"fold",') for _, c in store.sealed for frame in c.outbox)
    store.sealed.clear()
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(hub.client.call_entity, PAGE, Visits.get)
    asked = sum(frame.body.count(b'"fold",') for _, c in store.sealed for frame in c.outbox)

    assert before == 6  # to the stripes in other partitions
    assert asked <= 2 * before


async def test_deleting_deletes_what_the_stripes_had_too(hub: Hub, store: FaultyStore) -> None:
    for _ in range(8):
        await hub.client.signal_entity(PAGE, Visits.add, 1)

    assert await hub.client.call_entity(PAGE, Visits.reset) == 8
    assert await hub.client.get_entity(PAGE) is None
    assert rows(store) == {}


async def test_failed_signals_on_stripes_are_shown_on_the_entity(hub: Hub) -> None:
    for n in range(12):
        await hub.client.signal_entity(PAGE, Visits.add, 1 if n % 2 else -1)
    with pytest.raises(EntityOperationError, match=r"@visits@page\.add"):
        await hub.client.call_entity(PAGE, Visits.add, -1)
    status = await hub.client.get_entity(PAGE)

    assert status is not None
    assert status.state is not None
    assert status.state.total == 6
    assert status.failed_signals == 6
    assert [(op, kind) for _, op, kind, _ in status.failures] == [("add", "ValueError")] * 6


async def test_a_stripe_goes_home_by_itself_and_leaves_nothing(
    hub: Hub, store: FaultyStore, clock: ManualClock
) -> None:
    for _ in range(8):
        await hub.client.signal_entity(PAGE, Visits.add, 1)
    clock.advance(4.9)
    await settle()
    assert [s async for s in hub.client.query_entities()] == []
    clock.advance(0.2)

    async def is_home() -> bool:
        listed = [s.state and s.state.total async for s in hub.client.query_entities()]
        return listed == [8] and stripes_in(store) == []

    await until(is_home)
    inner = store.inner
    assert isinstance(inner, MemoryStore)
    assert not any(one.timers or one.mail for one in inner.rows)


async def test_queries_list_an_entity_once_whatever_the_page_size(
    hub: Hub, store: FaultyStore
) -> None:
    ids = [EntityId(Visits, f"page-{n}") for n in range(5)]
    for id in ids:
        await hub.client.call_entity(id, Visits.times, 1)
        for _ in range(8):
            await hub.client.signal_entity(id, Visits.add, 1)
    assert len(stripes_in(store)) == 40
    for size in (1, 2, 3, 7, 100):
        found = [s.entity_id async for s in hub.client.query_entities(page_size=size)]
        assert found == ids


async def test_cleaning_up_does_no_harm_to_stripes(hub: Hub, store: FaultyStore) -> None:
    await hub.client.signal_entity(PAGE, Visits.add, -1)
    await hub.client.get_entity(PAGE)  # the home has a failed signal, and no state
    for _ in range(8):
        await hub.client.signal_entity(PAGE, Visits.add, 1)
    await hub.client.clean_entity_storage()

    assert await hub.client.call_entity(PAGE, Visits.get) == 8


async def test_purging_deletes_all_stripes(hub: Hub, store: FaultyStore) -> None:
    for _ in range(8):
        await hub.client.signal_entity(PAGE, Visits.add, 1)
    await hub.client.purge_entity(PAGE)

    assert rows(store) == {}
    await hub.client.signal_entity(PAGE, Visits.add, 2)
    assert await hub.client.call_entity(PAGE, Visits.get) == 2


async def test_a_striped_entity_cannot_be_locked(hub: Hub) -> None:
    handle = await hub.client.start_new(lock)

    with pytest.raises(OrchestrationFailedError, match="is striped and cannot be locked") as caught:
        await handle.result()
    assert caught.value.error_type == LockRuleError.__name__


async def test_eviction_loses_nothing(store: FaultyStore, clock: ManualClock) -> None:
    async with within(20), hub_on(store, clock, cached_actors_max=1) as hub:
        for n in range(40):
            await hub.client.signal_entity(EntityId(Visits, f"{n % 4}"), Visits.add, 1)
        totals = [
            await hub.client.call_entity(EntityId(Visits, f"{n}"), Visits.get) for n in range(4)
        ]

    assert totals == [10] * 4


async def test_a_restart_loses_nothing_and_a_request_id_is_applied_once(
    store: FaultyStore, clock: ManualClock
) -> None:
    for _ in range(3):
        async with hub_on(store, clock) as hub:
            for n in range(8):
                request = f"r{n}"
                await hub.client.signal_entity(PAGE, Visits.add, 1, request_id=request)
                await hub.client.call_entity(PAGE, Visits.add, 1, request_id=f"call {n}")
                later = timedelta(seconds=1)
                await hub.client.signal_entity(
                    PAGE, Visits.add, 1, at=later, request_id=f"later {n}"
                )
    async with hub_on(store, clock) as hub:
        clock.advance(2)
        await settle()
        assert await hub.client.call_entity(PAGE, Visits.get) == 24


async def test_fewer_stripes_after_a_restart_lose_nothing(clock: ManualClock) -> None:
    def code(stripes: int) -> App:
        app = App()

        @app.entity(stripes=stripes, name="visits")
        class Fewer:
            total: int = 0

            @perdure.commutative
            def add(self, amount: int) -> None:
                self.total += amount

            def get(self) -> int:
                return self.total

            def merge(self, other: Fewer) -> None:
                self.total += other.total

        return app

    store = MemoryStore()
    async with hub_on(store, clock, code(16)) as hub:
        for _ in range(16):
            await hub.client.signal_entity(EntityId("visits", "x"), "add", 1)
    async with within(), hub_on(store, clock, code(2)) as hub:
        clock.advance(6)

        async def complete() -> bool:
            total: int = await hub.client.call_entity(EntityId("visits", "x"), "get")
            return total == 16

        await until(complete)


# What goes wrong.


def app_with(merging: Callable[[Any, Any], Any], kind: Any = int) -> App:
    """An application whose striped entity merges so, and has a field of that type."""
    app = App()

    class Fragile:
        total: Any

        @perdure.commutative
        def add(self, amount: int) -> None:
            self.total = self.total + amount if kind is int else str(amount)

        def get(self) -> Any:
            return self.total

        def merge(self, other: Fragile) -> Any:
            return merging(self, other)

    Fragile.__annotations__["total"] = kind
    app.entity(stripes=4)(Fragile)
    return app


def good(self: Any, other: Any) -> None:
    self.total += other.total


def raising(self: Any, other: Any) -> None:
    raise ArithmeticError("cannot merge")


def changing(self: Any, other: Any) -> None:
    self.total = "many"


def returning(self: Any, other: Any) -> Any:
    return other


FRAGILE: EntityId[Any] = EntityId("fragile", "x")


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (raising, "merge failed: ArithmeticError: cannot merge"),
        (changing, "merge failed: PayloadError"),
        (returning, "merge of @fragile@x returned Fragile"),
    ],
)
async def test_a_bad_merge_parks_the_entity_and_nothing_is_lost(
    clock: ManualClock, merge: Any, words: str
) -> None:
    store = MemoryStore()
    async with within(), hub_on(store, clock, app_with(merge)) as hub:
        for _ in range(4):
            await hub.client.signal_entity(FRAGILE, "add", 1)
        with pytest.raises(ParkedError, match=words):
            await hub.client.call_entity(FRAGILE, "get")
        [status] = [s async for s in hub.client.query_entities(parked=True)]
        assert status.entity_id == FRAGILE
        assert status.parked is not None
        assert words in status.parked.reason
        with pytest.raises(ParkedError):
            await hub.client.call_entity(FRAGILE, "get")
        # A read of what is parked shows why, and does not wait.
        shown = await hub.client.get_entity(FRAGILE)
        assert shown is not None
        assert shown.parked == status.parked
        for _ in range(4):
            await hub.client.signal_entity(FRAGILE, "add", 1)
    async with within(), hub_on(store, clock, app_with(good)) as hub:
        assert await hub.client.call_entity(FRAGILE, "get") == 8
        assert [s async for s in hub.client.query_entities(parked=True)] == []


async def test_a_bad_merge_of_a_large_state_parks_the_entity_too(clock: ManualClock) -> None:
    def code(type_changes: bool) -> App:
        app = App()

        @app.entity(stripes=2, name="fragile")
        class Large:
            total: Any = 0
            text: str = "x" * 5_000  # so that it is checked at the checkpoint

            @perdure.commutative
            def add(self, amount: int) -> None:
                self.total += amount

            def get(self) -> Any:
                return self.total

            def merge(self, other: Large) -> None:
                self.total = {1, 2}.__iter__() if type_changes else self.total + other.total

        return app

    store = MemoryStore()
    async with within(), hub_on(store, clock, code(False)) as hub:
        assert await hub.client.call_entity(FRAGILE, "get") == 0
    async with within(), hub_on(store, clock, code(True)) as hub:
        for _ in range(4):
            await hub.client.signal_entity(FRAGILE, "add", 1)
        with pytest.raises(ParkedError, match="merge failed: PayloadError"):
            await persist(hub.client.call_entity, FRAGILE, "get")
    async with within(), hub_on(store, clock, code(False)) as hub:
        assert await hub.client.call_entity(FRAGILE, "get") == 4


async def test_retry_goes_on_after_a_repair_in_the_same_hub(clock: ManualClock) -> None:
    broken = [True]

    def repairable(self: Any, other: Any) -> None:
        if broken[0]:
            raise ArithmeticError("not yet")
        self.total += other.total

    async with within(), hub_on(MemoryStore(), clock, app_with(repairable)) as hub:
        for _ in range(4):
            await hub.client.signal_entity(FRAGILE, "add", 1)
        with pytest.raises(ParkedError):
            await hub.client.call_entity(FRAGILE, "get")
        broken.clear()
        broken.append(False)
        await hub.client.retry(FRAGILE)

        assert await hub.client.call_entity(FRAGILE, "get") == 4


async def test_a_stripe_that_cannot_be_read_parks_the_entity_until_that_is_repaired(
    clock: ManualClock,
) -> None:
    store = MemoryStore()
    async with within(), hub_on(store, clock, app_with(good)) as hub:
        for _ in range(4):
            await hub.client.signal_entity(FRAGILE, "add", 1)
    async with within(), hub_on(store, clock, app_with(good, list[int])) as hub:
        with pytest.raises(ParkedError, match=r"its stripe \d is parked: .*\$\.total"):
            await hub.client.call_entity(FRAGILE, "get")
        [status] = [s async for s in hub.client.query_entities(parked=True, include_empty=True)]
        assert status.entity_id == FRAGILE
    async with within(), hub_on(store, clock, app_with(good)) as hub:
        assert await hub.client.call_entity(FRAGILE, "get") == 4


async def test_an_entity_in_trouble_can_be_purged(clock: ManualClock) -> None:
    store = MemoryStore()
    async with within(), hub_on(store, clock, app_with(raising)) as hub:
        for _ in range(4):
            await hub.client.signal_entity(FRAGILE, "add", 1)
        with pytest.raises(ParkedError):
            await hub.client.call_entity(FRAGILE, "get")
        await hub.client.purge_entity(FRAGILE)

        assert await hub.client.get_entity(FRAGILE) is None
    assert not any(one.entities or one.mail or one.timers for one in store.rows)


async def test_an_entity_that_is_not_registered_any_more_keeps_its_stripes(
    clock: ManualClock,
) -> None:
    store = MemoryStore()
    async with within(), hub_on(store, clock, app_with(good)) as hub:
        for _ in range(4):
            await hub.client.signal_entity(FRAGILE, "add", 1)
    async with within(), hub_on(store, clock, App()):
        clock.advance(10)
        await settle()
    async with within(), hub_on(store, clock, app_with(good)) as hub:
        assert await hub.client.call_entity(FRAGILE, "get") == 4


@pytest.mark.parametrize("when", ["before", "after"])
async def test_commits_that_fail_in_the_middle_of_a_round_change_nothing(
    clock: ManualClock, when: Any
) -> None:
    for commit in range(1, 30):
        store = FaultyStore(MemoryStore())
        async with within(), hub_on(store, clock) as hub:
            for _ in range(8):
                await hub.client.signal_entity(PAGE, Visits.add, 1)
            store.fail_at(store.commits + commit, when)
            assert await persist(hub.client.call_entity, PAGE, Visits.times, 1) == 8
            assert await persist(hub.client.call_entity, PAGE, Visits.get) == 8
            if store.faults:
                return
    raise AssertionError("a round never ends")


# stripes="auto".


AUTO = EntityId(Auto, "page")


async def test_auto_uses_the_home_while_the_entity_is_cold(hub: Hub, store: FaultyStore) -> None:
    for _ in range(10):
        await hub.client.signal_entity(AUTO, Auto.add, 1)

    assert set(rows(store)) == {str(AUTO)}
    assert await hub.client.call_entity(AUTO, Auto.get) == 10


async def test_auto_splits_when_hot_and_folds_when_cold(
    store: FaultyStore, clock: ManualClock
) -> None:
    async with within(), hub_on(store, clock, stripe_hot_per_s=5) as hub:
        for _ in range(5):
            await hub.client.signal_entity(AUTO, Auto.add, 1)
        assert stripes_in(store) == []
        for _ in range(PARTITIONS):
            await hub.client.signal_entity(AUTO, Auto.add, 1)
        assert len(stripes_in(store)) == PARTITIONS
        clock.advance(1)  # it was hot in the last second
        for _ in range(6):
            await hub.client.signal_entity(AUTO, Auto.add, 1)
        clock.advance(1.5)
        clock.advance(1.5)

        await hub.client.signal_entity(AUTO, Auto.add, 1)
        clock.advance(3)

        async def folded() -> bool:
            return stripes_in(store) == []

        await until(folded)
        await hub.client.signal_entity(AUTO, Auto.add, 1)
        assert stripes_in(store) == []
        assert await hub.client.call_entity(AUTO, Auto.get) == 17


async def test_auto_splits_for_senders_alone(store: FaultyStore, clock: ManualClock) -> None:
    async with within(), hub_on(store, clock, stripe_hot_per_s=5) as hub:
        home = partition_of(str(AUTO), PARTITIONS)
        name = id_in((home + 1) % PARTITIONS, "hot", PARTITIONS)
        await hub.client.start_new(visit, ["auto", 20], instance_id=name)
        assert await hub.client.wait(name) <= 21

        async def all_there() -> bool:
            return await hub.client.call_entity(AUTO, Auto.get) == 21

        await until(all_there)
        assert not any(MARK in key for key in rows(store))
        used = {
            row.key
            for _, checkpoint in store.sealed
            for row in checkpoint.entities
            if row.name == "auto"
        }
        assert used == {"page", stripe_key("page", 1)}
