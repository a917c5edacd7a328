"""Guarantee 1: turns of one actor never overlap, and there is one activation of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    MemoryStore,
    OrchestrationContext,
    Settings,
    StoreInUseError,
    UnavailableError,
)
from perdure.runtime.placement.hashing import partition_of
from tests.faults import FaultyStore, JumpingClock, dying, settle, within

app = App()


class Guard:
    """Knows who is inside, and whether two ever were."""

    def __init__(self) -> None:
        self.inside: dict[str, int] = {}
        self.most: dict[str, int] = {}

    @asynccontextmanager
    async def enter(self, key: str) -> AsyncGenerator[None, None]:
        self.inside[key] = self.inside.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self.inside[key])
        try:
            yield
        finally:
            self.inside[key] -= 1


guard = Guard()
told: list[anyio.Event] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    guard.inside.clear()
    guard.most.clear()


@app.entity
class Counter:
    value: int = 0

    def add(self) -> int:
        self.value += 1
        return self.value

    async def add_slowly(self, turns: int, ctx: EntityContext) -> int:
        async with guard.enter(ctx.key):
            before = self.value
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            # An overlapping operation would have its own addition overwritten here.
            self.value = before + 1
            return self.value

    async def add_when_told(self, ctx: EntityContext) -> int:
        async with guard.enter(ctx.key):
            before = self.value
            if told:  # only the first time: where it is run again, it need not wait
                await told.pop().wait()
            self.value = before + 1
            return self.value

    async def fail_slowly(self, turns: int, ctx: EntityContext) -> None:
        async with guard.enter(ctx.key):
            self.value += 100
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            raise ValueError("no")

    async def poke_itself(self, turns: int, ctx: EntityContext) -> None:
        async with guard.enter(ctx.key):
            ctx.signal_entity(ctx.entity_id, Counter.add_slowly, turns)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()


@app.entity
async def tally(ctx: EntityContext) -> None:
    async with guard.enter(ctx.key):
        state = ctx.get_state(int) or 0
        for _ in range(ctx.get_input() or 0):
            await anyio.lowlevel.checkpoint()
        ctx.set_state(state + 1)
        ctx.set_result(state + 1)


inside_orchestration = 0
most_inside_orchestration = 0


@app.orchestration
async def listen(ctx: OrchestrationContext, count: int) -> list[int]:
    global inside_orchestration, most_inside_orchestration
    heard: list[int] = []
    for _ in range(count):
        heard.append(await ctx.wait_for_external_event("number", data_type=int))
        inside_orchestration += 1
        most_inside_orchestration = max(most_inside_orchestration, inside_orchestration)
        ctx.signal_entity(EntityId(Counter, "a"), Counter.add)
        inside_orchestration -= 1
    return heard


@app.orchestration
async def call_many(ctx: OrchestrationContext, count: int) -> list[int]:
    id = EntityId(Counter, "a")
    return await ctx.task_all(
        [ctx.call_entity(id, Counter.add_slowly, n % 4) for n in range(count)]
    )


def hub_on(store: FaultyStore | MemoryStore, **limits: Any) -> Hub:
    settings = Settings(drain_s=2, **limits)
    return Hub(app, store=store, partitions=3, clock=JumpingClock(), settings=settings)


async def test_slow_operations_of_many_clients_on_one_entity_never_overlap() -> None:
    results: list[int] = []
    async with within(), hub_on(MemoryStore()) as hub, anyio.create_task_group() as tasks:

        async def call(turns: int) -> None:
            id = EntityId(Counter, "a")
            results.append(await hub.client.call_entity(id, Counter.add_slowly, turns))

        for n in range(60):
            tasks.start_soon(call, n % 5)

    assert sorted(results) == list(range(1, 61))
    assert guard.most == {"a": 1}


async def test_a_signal_to_itself_waits_for_the_slow_operation_behind_which_it_was_sent() -> None:
    entered: list[anyio.Event] = [anyio.Event(), anyio.Event()]
    gates: list[anyio.Event] = [anyio.Event(), anyio.Event()]
    during: list[str] = []
    overlapping = App()

    @overlapping.entity
    class Alone:
        waits: int = 0

        def begin(self, ctx: EntityContext) -> None:
            ctx.signal_entity(ctx.entity_id, "note")

        async def wait(self, n: int) -> None:
            during.append(f"waits {n}")
            entered[n].set()
            await gates[n].wait()
            during.append(f"waited {n}")

        def note(self) -> None:
            during.append("noted")

    async with within(), Hub(overlapping, store=MemoryStore(), partitions=1) as hub:
        id = EntityId(Alone, "a")
        await hub.client.signal_entity(id, Alone.wait, 0)
        await entered[0].wait()
        # Together, so that one turn takes both.
        await hub.client.signal_entity(id, Alone.begin)
        await hub.client.signal_entity(id, Alone.wait, 1)
        gates[0].set()
        await entered[1].wait()
        await settle()
        gates[1].set()
        await hub.client.call_entity(id, Alone.note)

    assert during == ["waits 0", "waited 0", "waits 1", "waited 1", "noted", "noted"]


async def test_slow_operations_of_different_entities_do_overlap() -> None:
    async with within(), hub_on(MemoryStore()) as hub, anyio.create_task_group() as tasks:
        entered = anyio.Event()

        async def call(key: str) -> None:
            await hub.client.call_entity(EntityId(Counter, key), Counter.add_slowly, 100)
            entered.set()

        for key in ("a", "b", "c"):
            tasks.start_soon(call, key)
        while len(guard.inside) < 3:
            await anyio.lowlevel.checkpoint()

        assert guard.inside == {"a": 1, "b": 1, "c": 1}


async def test_slow_and_quick_operations_from_everywhere_are_applied_one_after_another() -> None:
    id = EntityId(Counter, "a")
    async with within(20), hub_on(MemoryStore()) as hub:
        client = hub.client
        async with anyio.create_task_group() as tasks:

            async def fail() -> None:
                with pytest.raises(EntityOperationError):
                    await client.call_entity(id, Counter.fail_slowly, 2)

            for n in range(10):
                tasks.start_soon(client.call_entity, id, Counter.add_slowly, n % 4)
                tasks.start_soon(client.signal_entity, id, Counter.add)
                tasks.start_soon(client.call_entity, id, Counter.poke_itself, 2)
                tasks.start_soon(
                    lambda: client.signal_entity(id, Counter.add_slowly, 1, at=timedelta(seconds=1))
                )
                tasks.start_soon(fail)
            handle = await client.start_new(call_many, 10)
            await handle.result()
        while (state := await client.read_entity_state(id)) is None or state.value < 50:
            await anyio.lowlevel.checkpoint()
        await settle()
        state = await client.read_entity_state(id)

    assert state is not None
    assert state.value == 50  # 10 each: slow, quick, itself, delayed, orchestration; failures none
    assert guard.most == {"a": 1}


async def test_turns_of_a_function_entity_never_overlap() -> None:
    results: list[int] = []
    async with within(), hub_on(MemoryStore()) as hub, anyio.create_task_group() as tasks:

        async def call(turns: int) -> None:
            results.append(await hub.client.call_entity(EntityId("tally", "t"), "any", turns))

        for n in range(30):
            tasks.start_soon(call, n % 5)

    assert sorted(results) == list(range(1, 31))
    assert guard.most == {"t": 1}


async def test_one_turn_of_an_orchestration_takes_events_one_by_one() -> None:
    async with within(), hub_on(MemoryStore()) as hub:
        handle = await hub.client.start_new(listen, 50)
        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(handle.raise_event, "number", n)
        heard = await handle.result()

    assert sorted(heard) == list(range(50))
    assert most_inside_orchestration == 1


async def test_an_entity_that_is_dropped_from_memory_all_the_time_has_one_activation() -> None:
    keys = [f"k{n}" for n in range(12)]
    async with within(20), hub_on(MemoryStore(), cached_actors_max=1) as hub:
        for _ in range(5):
            async with anyio.create_task_group() as tasks:
                for key in keys:
                    for turns in range(3):
                        tasks.start_soon(
                            hub.client.call_entity,
                            EntityId(Counter, key),
                            Counter.add_slowly,
                            turns,
                        )
        values = [await hub.client.call_entity(EntityId(Counter, key), Counter.add) for key in keys]

    assert values == [16] * 12
    assert set(guard.most.values()) == {1}


async def test_an_operation_given_up_in_a_recovery_changes_nothing_any_more() -> None:
    store, id, values = FaultyStore(MemoryStore()), EntityId(Counter, "a"), list[int]()
    let_go = anyio.Event()
    told[:] = [let_go]
    async with within(), hub_on(store) as hub:
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                # Taken back and refused; or, where it was stored by then, run once more.
                with suppress(UnavailableError):
                    values.append(await hub.client.call_entity(id, Counter.add_when_told))

            tasks.start_soon(call)
            while not guard.inside:
                await anyio.lowlevel.checkpoint()
            store.fail_next()
            with pytest.raises(UnavailableError):
                await hub.client.signal_entity(neighbour_of(id), Counter.add)
            # The new activation takes turns while the old one's operation is still somewhere.
            for _ in range(3):
                values.append(await hub.client.call_entity(id, Counter.add))
            let_go.set()
            while guard.inside["a"]:
                await anyio.lowlevel.checkpoint()
        values.append(await hub.client.call_entity(id, Counter.add))

    assert len(values) >= 4
    assert sorted(values) == list(range(1, len(values) + 1))


def neighbour_of(id: EntityId[Counter]) -> EntityId[Counter]:
    """Give another entity of the same partition."""
    home = partition_of(str(id), 3)
    ids = (EntityId(Counter, f"n{n}") for n in range(99))
    return next(other for other in ids if partition_of(str(other), 3) == home)


async def test_a_second_hub_cannot_open_a_store_that_one_serves() -> None:
    store = MemoryStore()
    async with within(), hub_on(store) as hub:
        with pytest.raises(StoreInUseError):
            async with hub_on(store):
                pass

        assert await hub.client.call_entity(EntityId(Counter, "a"), Counter.add) == 1


async def test_an_owner_whose_partitions_were_taken_over_can_commit_nothing_more() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with within():
        with dying():
            async with hub_on(store) as hub:
                await hub.client.call_entity(EntityId(Counter, "a"), Counter.add)
                # Somebody else takes the partitions over while this hub thinks that it owns them.
                for rows in inner.rows:
                    rows.epoch += 1
                await hub.client.call_entity(EntityId(Counter, "a"), Counter.add)

        async with hub_on(inner) as hub:
            assert await hub.client.call_entity(EntityId(Counter, "a"), Counter.add) == 2
