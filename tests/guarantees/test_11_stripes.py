"""Guarantee 11: a striped entity is one entity: reads see all that was acknowledged, totals are exact.

The workload ``Striped`` is crashed at every commit by test_02; here a striped entity is compared
with a plain object, over random interleavings, evictions, failing commits and crashes.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

import perdure
from perdure import (
    App,
    Client,
    EntityId,
    EntityStatus,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    Settings,
)
from tests.faults import Crashed, FaultyStore, JumpingClock, dying, persist, within
from tests.guarantees.workloads import id_in

PARTITIONS = 3
app = App()


@app.entity(stripes=5)
class Ledger:
    total: int = 0
    entries: list[int] = []

    @perdure.commutative
    def add(self, amount: int) -> None:
        if amount < 0:
            raise ValueError("below zero")
        self.total += amount
        self.entries.append(amount)

    def reset(self, total: int) -> int:
        before, self.total, self.entries = self.total, total, [total]
        return before

    def get(self) -> list[int]:
        return [self.total, *sorted(self.entries)]

    def merge(self, other: Ledger) -> None:
        self.total += other.total
        self.entries += other.entries


@app.entity(stripes="auto", name="auto")
class Automatic(Ledger):
    pass


@app.orchestration
async def call_add(ctx: OrchestrationContext, order: list[Any]) -> None:
    entity, amount = order
    id: EntityId[Any] = EntityId(entity, "x")
    ctx.signal_entity(id, "add", amount)
    await ctx.call_entity(id, "add", amount)


def hub_on(store: FaultyStore, *, turning: bool = True) -> Hub:
    """A hub whose stripes go home by themselves at once, or never where the clock stands still."""
    settings = Settings(cached_actors_max=2, stripe_hot_per_s=2)
    clock = JumpingClock() if turning else ManualClock()
    return Hub(app, store=store, partitions=PARTITIONS, clock=clock, settings=settings)


class Model:
    """The entity as a plain object."""

    def __init__(self) -> None:
        self.entries: list[int] = []
        self.failed = 0

    def read(self) -> list[int]:
        return [sum(self.entries), *sorted(self.entries)]


async def apply(client: Client, id: EntityId[Any], move: str, n: int, request: str) -> Any:
    """Do one move, as often as it takes."""
    if move == "signal":
        return await persist(client.signal_entity, id, "add", n, request_id=request)
    if move == "call":
        return await persist(client.call_entity, id, "add", n, request_id=request)
    if move == "fail":
        return await persist(client.signal_entity, id, "add", -1, request_id=request)
    if move == "reset":
        return await persist(client.call_entity, id, "reset", n, request_id=request)
    if move == "orchestrate":
        name = id_in(n % PARTITIONS, request, PARTITIONS)
        await persist(
            client.start_new, call_add, [id.name, n], instance_id=name, request_id=request
        )
        return await client.wait(name)
    if move == "purge":
        return await persist(client.purge_entity, id)
    return await persist(client.call_entity, id, "get", request_id=request)


def note(model: Model, move: str, n: int) -> None:
    """Do the same with the plain object."""
    if move in ("signal", "call"):
        model.entries.append(n)
    elif move == "orchestrate":
        model.entries += [n, n]
    elif move == "reset":
        model.entries = [n]
    elif move == "fail":
        model.failed += 1
    elif move == "purge":
        model.__init__()  # type: ignore[misc]


ADDING = ["signal", "call", "orchestrate"] * 3
MOVES = [*ADDING, "fail", "reset", "get", "get", "purge"]
FAULTS = ["reopen", "crash", "fail before", "fail after"]
STEPS = st.lists(st.tuples(st.sampled_from(MOVES + FAULTS), st.integers(0, 9)), max_size=25)


@pytest.mark.by_turns
@pytest.mark.parametrize("entity", [Ledger, Automatic])
@hypothesis_settings(max_examples=hypothesis_settings().max_examples // 2)
@given(steps=STEPS, turning=st.booleans())
async def test_a_striped_entity_reads_as_a_plain_object_over_failures_and_crashes(
    entity: type[Ledger], steps: list[tuple[str, int]], turning: bool
) -> None:
    inner, model = MemoryStore(), Model()
    id: EntityId[Any] = EntityId(entity, "x")
    position = 0
    status: EntityStatus[Any] | None = None
    while position <= len(steps):
        store = FaultyStore(inner)
        try:
            async with within(), hub_on(store, turning=turning) as hub:
                while position < len(steps):
                    move, n = steps[position]
                    if move not in FAULTS:
                        answer = await apply(hub.client, id, move, n, f"r{position}")
                        if move == "get":
                            assert answer == model.read()
                        note(model, move, n)
                    position += 1
                    if move == "reopen":
                        break
                    if move == "crash":
                        store.crash_next("before" if n % 2 else "after")
                    elif move.startswith("fail "):
                        store.fail_next("before" if move == "fail before" else "after")
                else:
                    status = await persist(hub.client.get_entity, id)
                    position += 1
        except Crashed:
            continue
    state = None if status is None else status.state
    assert ([0] if state is None else state.get()) == model.read()
    assert (0 if status is None else status.failed_signals) == model.failed
    async with hub_on(FaultyStore(inner)) as hub:
        assert (await hub.client.get_entity(id) is None) == (status is None)
    assert all(not rows.timers and not rows.mail for rows in inner.rows)


async def test_a_read_sees_every_operation_acknowledged_before_it_in_a_storm() -> None:
    id = EntityId(Ledger, "storm")
    acknowledged = 0
    reads = 0

    async with within(30), hub_on(FaultyStore(MemoryStore(), seed=1)) as hub:
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                nonlocal acknowledged
                for _ in range(30):
                    await hub.client.signal_entity(id, Ledger.add, 1)
                    acknowledged += 1

            async def read() -> None:
                nonlocal reads
                while acknowledged < 300:
                    before = acknowledged
                    total = (await hub.client.call_entity(id, Ledger.get))[0]
                    assert before <= total <= 300
                    reads += 1

            for _ in range(10):
                tasks.start_soon(write)
            for _ in range(3):
                tasks.start_soon(read)
        final = await hub.client.call_entity(id, Ledger.get)

    assert final[0] == 300
    assert reads > 3


async def test_a_crash_loses_nothing_of_a_storm() -> None:
    inner, id = MemoryStore(), EntityId(Ledger, "storm")
    applied, request = 0, ""
    for commit in (7, 23, 40):
        store = FaultyStore(inner)
        store.crash_at(commit, "after" if commit % 2 else "before")
        with dying():
            async with within(30), hub_on(store) as hub:
                for n in range(10_000):
                    request = f"{commit} {n}"
                    await hub.client.signal_entity(id, Ledger.add, 1, request_id=request)
                    applied += 1
        async with within(30), hub_on(FaultyStore(inner)) as hub:
            # The one that was under way: repeated, it is applied once.
            await hub.client.signal_entity(id, Ledger.add, 1, request_id=request)
            applied += 1
            assert (await hub.client.call_entity(id, Ledger.get))[0] == applied
