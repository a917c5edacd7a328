"""Guarantee 5: a client's request is applied once, also when the client repeats it.

And what was acknowledged survives whatever comes next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    Client,
    EntityId,
    EntityOperationError,
    Hub,
    InstanceAlreadyExistsError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OutcomeUnknownError,
    Settings,
    UnavailableError,
)
from tests.faults import FaultyStore, When, dying, persist, settle, within

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def refuse(self) -> None:
        self.value = 99
        raise ValueError("no")

    def get(self) -> int:
        return self.value


@app.orchestration
async def collect(ctx: OrchestrationContext) -> list[int]:
    found: list[int] = []
    while (number := await ctx.wait_for_external_event("number", data_type=int)) >= 0:
        found.append(number)
    return found


@app.orchestration
async def hold_lock(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(A):
        await ctx.wait_for_external_event("let go")


A = EntityId(Counter, "a")


def hub_on(store: FaultyStore | MemoryStore, clock: ManualClock | None = None) -> Hub:
    settings = Settings(drain_s=2)
    return Hub(app, store=store, partitions=2, clock=clock or ManualClock(), settings=settings)


async def call(client: Client, request: str | None) -> Any:
    return await client.call_entity(A, Counter.add, 1, request_id=request)


async def signal(client: Client, request: str | None) -> Any:
    await client.signal_entity(A, Counter.add, 1, request_id=request)


async def signal_at(client: Client, request: str | None) -> Any:
    await client.signal_entity(A, Counter.add, 1, at=timedelta(0), request_id=request)


async def raise_event(client: Client, request: str | None) -> Any:
    await client.raise_event("c", "number", 1, request_id=request)


async def start(client: Client, request: str | None) -> Any:
    handle = await client.start_new(collect, instance_id="new", request_id=request)
    return handle.instance_id


Kind = Callable[[Client, str | None], Awaitable[Any]]
KINDS = [call, signal, signal_at, raise_event, start]
FIRST: dict[Kind, Any] = {call: 1, signal: None, signal_at: None, raise_event: None, start: "new"}


async def applied(store: MemoryStore, kind: Kind) -> int:
    """Count how often the request was applied, after all is done."""
    async with hub_on(store) as hub:
        await settle()
        if kind is raise_event:
            await hub.client.raise_event("c", "number", -1)
            return len(await hub.client.wait("c"))
        if kind is start:
            status = await hub.client.get_status("new")
            return 0 if status is None else status.execution
        return await hub.client.call_entity(A, Counter.get)


async def prepare(client: Client) -> None:
    await persist(client.start_new, collect, instance_id="c", request_id="prepare")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_repeated_request_is_applied_once_and_answered_alike(kind: Kind) -> None:
    inner = MemoryStore()
    async with within():
        async with hub_on(inner) as hub:
            await prepare(hub.client)
            answers = [await kind(hub.client, "r") for _ in range(3)]

        assert answers == [FIRST[kind]] * 3
        assert await applied(inner, kind) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_repeated_at_the_same_time_is_applied_once(kind: Kind) -> None:
    inner, answers = MemoryStore(), list[Any]()
    store = FaultyStore(inner)
    async with within():
        async with hub_on(store) as hub:
            await prepare(hub.client)

            async def ask() -> None:
                answers.append(await kind(hub.client, "r"))

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(ask)

        assert answers == [FIRST[kind]] * 5
        assert await applied(inner, kind) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_repetition_that_was_looked_up_slowly_is_not_applied_again(kind: Kind) -> None:
    inner, answers = MemoryStore(), list[Any]()
    async with within():
        async with hub_on(inner) as hub:
            await prepare(hub.client)
        store = SlowLookup(inner)
        async with hub_on(store) as hub, anyio.create_task_group() as tasks:

            async def ask() -> None:
                answers.append(await kind(hub.client, "r"))

            # Both ask the store. The second one's answer, read before the first request was
            # stored, comes when that is over and forgotten.
            tasks.start_soon(ask)
            tasks.start_soon(ask)
            await settle()
            store.let_second_go.set()

        assert answers == [FIRST[kind]] * 2
        assert await applied(inner, kind) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_repetition_takes_the_place_of_a_first_that_was_given_up(kind: Kind) -> None:
    inner, answers = MemoryStore(), list[Any]()
    async with within():
        async with hub_on(inner) as hub:
            await prepare(hub.client)
        store = HeldLookup(inner)
        async with hub_on(store) as hub, anyio.create_task_group() as tasks:

            async def give_up() -> None:
                with first:
                    await kind(hub.client, "r")

            async def ask() -> None:
                answers.append(await kind(hub.client, "r"))

            first = anyio.CancelScope()
            tasks.start_soon(give_up)
            await settle()
            for _ in range(3):
                tasks.start_soon(ask)
            await settle()
            first.cancel()
            await settle()
            store.let_go.set()

        assert answers == [FIRST[kind]] * 3
        assert await applied(inner, kind) == 1


class HeldLookup(FaultyStore):
    """No request id is looked up for a while."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.let_go = anyio.Event()

    async def deliver(self, method: str, partition: int) -> None:
        if method == "read_request":
            await self.let_go.wait()


class SlowLookup(FaultyStore):
    """The second lookup of a request id sees the store as it was, and answers late."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.lookups = 0
        self.let_second_go = anyio.Event()

    async def deliver(self, method: str, partition: int) -> None:
        if method == "read_request":
            self.lookups += 1
            if self.lookups == 2:
                await self.let_second_go.wait()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_repeated_after_a_failed_commit_is_applied_once(
    kind: Kind, when: When
) -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with within():
        async with hub_on(store) as hub:
            await prepare(hub.client)
            store.fail_next(when)
            answer = await persist(kind, hub.client, "r")
            again = await kind(hub.client, "r")

        assert [answer, again] == [FIRST[kind]] * 2
        assert await applied(inner, kind) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_repeated_after_a_crash_is_applied_once(kind: Kind, when: When) -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with within():
        with dying():
            async with hub_on(store) as hub:
                await prepare(hub.client)
                store.crash_next(when)
                await kind(hub.client, "r")

        async with hub_on(inner) as hub:
            answer = await kind(hub.client, "r")

        assert answer == FIRST[kind]
        assert await applied(inner, kind) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_acknowledged_survives_a_crash_at_once(kind: Kind) -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with within():
        with dying():
            async with hub_on(store) as hub:
                await prepare(hub.client)
                await kind(hub.client, None)
                store.crash_next()
                await hub.client.signal_entity(A, Counter.add, 100)

        assert await applied(inner, kind) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_that_nothing_came_of_may_be_repeated_without_an_id(kind: Kind) -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with within():
        async with hub_on(store) as hub:
            await prepare(hub.client)
            store.fail_next("before")
            with pytest.raises(UnavailableError):
                await kind(hub.client, None)
            await persist(kind, hub.client, None)

        assert await applied(inner, kind) == 1


async def test_a_failed_call_repeated_fails_alike_and_does_not_run_again() -> None:
    inner = MemoryStore()
    async with within(), hub_on(inner) as hub:
        for _ in range(2):
            with pytest.raises(EntityOperationError, match="ValueError: no"):
                await hub.client.call_entity(A, Counter.refuse, request_id="r")

        assert await hub.client.call_entity(A, Counter.get) == 0


async def test_a_refused_request_leaves_its_id_free() -> None:
    inner = MemoryStore()
    async with within(), hub_on(inner) as hub:
        await hub.client.start_new(collect, instance_id="new")
        with pytest.raises(InstanceAlreadyExistsError):
            await start(hub.client, "r")
        await hub.client.terminate("new")

        assert await start(hub.client, "r") == "new"


async def test_a_request_id_gives_the_same_made_up_instance_id_at_each_repetition() -> None:
    inner = MemoryStore()
    async with within(), hub_on(inner) as hub:
        first = await hub.client.start_new(collect, request_id="r")
        second = await hub.client.start_new(collect, request_id="r")
        other = await hub.client.start_new(collect, request_id="s")

    assert first.instance_id == second.instance_id != other.instance_id


async def test_a_signal_that_waits_behind_a_lock_is_kept_over_a_crash_and_applied_once() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with within():
        with dying():
            async with hub_on(store) as hub:
                await hub.client.start_new(hold_lock, instance_id="holder")
                await settle()
                await signal(hub.client, "r")
                store.crash_next()
                await hub.client.raise_event("holder", "let go")

        async with hub_on(inner) as hub:
            await hub.client.raise_event("holder", "let go")
            await hub.client.wait("holder")
            await signal(hub.client, "r")

        assert await applied(inner, signal) == 1


async def test_no_error_calls_a_request_undone_that_waits_in_a_stored_mailbox() -> None:
    inner, outcome = MemoryStore(), list[object]()
    store = FaultyStore(inner)
    async with within():
        async with hub_on(store) as hub:
            await hub.client.start_new(hold_lock, instance_id="holder")
            await settle()

            async def ask() -> None:
                try:
                    outcome.append(await call(hub.client, None))
                except OutcomeUnknownError:
                    outcome.append("unknown")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await settle()  # it waits behind the lock, and is stored
                for _ in range(6):
                    # Whichever of the next commits has it consumed, fails.
                    store.fail_next()
                    await persist(hub.client.raise_event, "holder", "let go", request_id="g")
                    await settle()

        assert outcome in ([1], ["unknown"])
        assert await applied(inner, call) == 1


async def test_a_request_id_is_remembered_for_its_retention_and_then_forgotten() -> None:
    inner, clock = MemoryStore(), ManualClock()
    async with within(), hub_on(inner, clock) as hub:
        await call(hub.client, "r")
        clock.advance(23 * 3600)
        assert await call(hub.client, "r") == 1
        clock.advance(2 * 3600)
        await hub.client.signal_entity(A, Counter.add, 0)

        assert await call(hub.client, "r") == 2
