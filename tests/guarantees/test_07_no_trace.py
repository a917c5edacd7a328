"""Guarantee 7: an operation that fails leaves no trace, and only its own goes.

Its state change (nested mutable values included), the messages it sent, the orchestration it
started and its wish to be deleted are taken back; what came before and after it in the same
batch stands.
"""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define
from hypothesis import given, settings as hypothesis_settings, strategies as st

from perdure import (
    App,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    LeaseLostError,
    MemoryStore,
    OrchestrationContext,
    PayloadError,
    Settings,
)
from tests.faults import FaultyStore, JumpingClock, dying, persist, settle, within
from tests.guarantees.workloads import entity_in

app = App()


@define
class Item:
    name: str
    sizes: list[int]


@app.orchestration
async def child(ctx: OrchestrationContext) -> None:
    return


@app.entity
class Thing:
    number: int = 0
    words: list[str] = []
    shelf: dict[str, list[int]] = {}
    items: list[Item] = []
    first: Item | None = None

    def fill(self) -> None:
        self.number = 1
        self.words = ["one"]
        self.shelf = {"a": [1]}
        self.items = [Item("x", [1, 2])]
        self.first = Item("first", [0])

    def spoil(self, ctx: EntityContext) -> None:
        self.number = 99
        self.words.append("spoilt")
        self.shelf["a"].append(99)
        self.shelf["b"] = []
        self.items[0].sizes.clear()
        self.items.append(Item("new", []))
        assert self.first is not None
        self.first.name = "spoilt"
        self.first = None
        ctx.signal_entity(EntityId(Witness, "w"), Witness.see, "signal")
        ctx.signal_entity(EntityId(Witness, "w"), Witness.see, "later", at=timedelta(seconds=1))
        ctx.start_new(child, instance_id="child")
        ctx.delete()
        raise ValueError("spoilt")

    async def spoil_slowly(self, ctx: EntityContext) -> None:
        await anyio.lowlevel.checkpoint()
        try:
            self.spoil(ctx)
        finally:
            await anyio.lowlevel.checkpoint()

    def spoil_by_result(self, ctx: EntityContext) -> int:
        self.number = 99
        ctx.signal_entity(EntityId(Witness, "w"), Witness.see, "signal")
        return "not a number"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def spoil_by_state(self, ctx: EntityContext) -> None:
        self.words.append(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        ctx.signal_entity(EntityId(Witness, "w"), Witness.see, "signal")

    def spoil_by_size(self, ctx: EntityContext) -> None:
        self.words.append("x" * 20_000)
        ctx.signal_entity(EntityId(Witness, "w"), Witness.see, "signal")

    def grow(self) -> int:
        self.number += 1
        return self.number


@app.entity
class Witness:
    seen: list[str] = []

    def see(self, what: str) -> None:
        self.seen.append(what)


@app.entity
def box(ctx: EntityContext) -> None:
    state = ctx.get_state(lambda: {"list": []})
    state["list"].append(ctx.operation_name)
    ctx.set_state(state)
    if ctx.operation_name == "replace":
        ctx.set_state({"list": "gone"})
    if ctx.operation_name != "keep":
        ctx.signal_entity(EntityId(Witness, "w"), Witness.see, "signal")
        raise ValueError(ctx.operation_name)


def hub_on(store: FaultyStore | MemoryStore) -> Hub:
    settings = Settings(drain_s=2, max_payload=10_000)
    return Hub(app, store=store, partitions=2, clock=JumpingClock(), settings=settings)


THING = EntityId(Thing, "t")
SPOILERS = ["spoil", "spoil_slowly", "spoil_by_result", "spoil_by_state", "spoil_by_size"]


async def check_no_trace(hub: Hub) -> None:
    await settle()
    state = await hub.client.read_entity_state(THING)
    assert state is not None
    assert state.number == 1
    assert state.words == ["one"]
    assert state.shelf == {"a": [1]}
    assert state.items == [Item("x", [1, 2])]
    assert state.first == Item("first", [0])
    assert await hub.client.get_entity(EntityId(Witness, "w")) is None
    assert await hub.client.get_status("child") is None


@pytest.mark.parametrize("operation", SPOILERS)
async def test_a_failing_call_leaves_no_trace_and_the_caller_is_told(operation: str) -> None:
    inner = MemoryStore()
    async with within():
        async with hub_on(inner) as hub:
            await hub.client.call_entity(THING, Thing.fill)

            with pytest.raises(EntityOperationError):
                await hub.client.call_entity(THING, operation)

            await check_no_trace(hub)
        async with hub_on(inner) as hub:
            await check_no_trace(hub)


# Nobody wants a signal's result, so one of the wrong type is no failure.
@pytest.mark.parametrize("operation", [name for name in SPOILERS if name != "spoil_by_result"])
async def test_a_failing_signal_leaves_a_note_of_the_failure_and_no_other_trace(
    operation: str,
) -> None:
    inner = MemoryStore()
    async with within():
        async with hub_on(inner) as hub:
            await hub.client.call_entity(THING, Thing.fill)

            await hub.client.signal_entity(THING, operation)

            await check_no_trace(hub)
            status = await hub.client.get_entity(THING)
        async with hub_on(inner) as hub:
            await check_no_trace(hub)

    assert status is not None
    assert status.failed_signals == 1
    assert [failure[1] for failure in status.failures] == [operation]


@pytest.mark.parametrize("operation", SPOILERS)
async def test_only_the_failing_operation_of_a_batch_is_taken_back(operation: str) -> None:
    store, results, commits = FaultyStore(MemoryStore()), list[Any](), 0
    async with within(), hub_on(store) as hub:
        await hub.client.call_entity(THING, Thing.fill)
        gate = store.hold("commit")
        async with anyio.create_task_group() as tasks:

            async def call(name: str) -> None:
                try:
                    results.append(await hub.client.call_entity(THING, name))
                except EntityOperationError:
                    results.append("failed")

            for name in ("grow", operation, "grow", operation, "grow"):
                tasks.start_soon(call, name)
                await settle(10)
            commits = store.commits
            gate.open()
        state = await hub.client.read_entity_state(THING)
        witness = await hub.client.get_entity(EntityId(Witness, "w"))

    assert sorted(results, key=str) == [2, 3, 4, "failed", "failed"]
    assert commits <= 2  # the one that was held; so the rest was one batch
    assert state is not None
    assert state.number == 4
    assert state.words == ["one"]
    assert witness is None


@pytest.mark.parametrize("operation", SPOILERS)
async def test_an_entity_whose_first_operation_fails_does_not_come_to_exist(operation: str) -> None:
    inner = MemoryStore()
    async with within(), hub_on(inner) as hub:
        with pytest.raises(EntityOperationError):
            await hub.client.call_entity(EntityId(Thing, "new"), operation)

        await settle()
        assert await hub.client.get_entity(EntityId(Thing, "new")) is None
        assert [status async for status in hub.client.query_entities(include_empty=True)] == []


@pytest.mark.parametrize("operation", ["fail", "replace"])
async def test_a_failing_function_entity_leaves_no_trace(operation: str) -> None:
    inner, id = MemoryStore(), EntityId("box", "b")
    async with within():
        async with hub_on(inner) as hub:
            await hub.client.call_entity(id, "keep")

            with pytest.raises(EntityOperationError):
                await hub.client.call_entity(id, operation)
            await hub.client.call_entity(id, "keep")

            await settle()
            assert await hub.client.get_entity(EntityId(Witness, "w")) is None
        async with hub_on(inner) as hub:
            assert await hub.client.read_entity_state(id) == {"list": ["keep", "keep"]}


@pytest.mark.by_turns
async def test_a_checkpoint_in_the_middle_of_a_slow_operation_stores_nothing_of_it() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    slow, other = entity_in(0, Slow, "slow", 2), entity_in(0, Thing, "other", 2)
    state: Slow | None = None
    async with within():
        with dying():
            async with hub_on(store) as hub:
                await hub.client.call_entity(slow, Slow.put, "before")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(hub.client.signal_entity, slow, Slow.put_slowly, "half")
                    await settle(10)
                    await hub.client.signal_entity(other, Thing.fill)
                    state = await hub.client.read_entity_state(slow)
                    store.crash_next()
                    await hub.client.signal_entity(other, Thing.fill)

        async with hub_on(inner) as hub:
            stored = await hub.client.read_entity_state(slow)

    assert state is not None
    assert stored is not None
    assert state.words == stored.words == ["before"]


@app.entity
class Slow:
    words: list[str] = []

    def put(self, word: str) -> None:
        self.words.append(word)

    async def put_slowly(self, word: str) -> None:
        self.words.append(word)
        await anyio.sleep_forever()


# A model: an entity beside a plain Python object.

Step = tuple[str, Any]


@app.entity
class Store:
    """Nested state, and operations that fail half-way when told to."""

    log: list[int] = []
    index: dict[str, list[int]] = {}
    total: int = 0

    def apply(self, step: list[Any], ctx: EntityContext) -> int:
        return _apply(self, step)

    async def apply_slowly(self, step: list[Any], ctx: EntityContext) -> int:
        await anyio.lowlevel.checkpoint()
        return _apply(self, step)


def _apply(state: Any, step: list[Any]) -> int:
    action, number, fails = step
    if action == "append":
        state.log.append(number)
    elif action == "index":
        state.index.setdefault(str(number % 3), []).append(number)
    elif action == "forget":
        state.index.pop(str(number % 3), None)
        state.log.clear()
    elif action == "reverse":
        state.log = state.log[::-1]
        for values in state.index.values():
            values.reverse()
    state.total += number
    if fails:
        raise ValueError("told to")
    return int(state.total)


class Model:
    def __init__(self) -> None:
        self.log: list[int] = []
        self.index: dict[str, list[int]] = {}
        self.total = 0

    def apply(self, step: list[Any]) -> int | None:
        before = copy.deepcopy(self.__dict__)
        try:
            return _apply(self, step)
        except ValueError:
            self.__dict__.update(before)
            return None


actions = st.tuples(
    st.sampled_from(["append", "index", "forget", "reverse"]), st.integers(-9, 9), st.booleans()
)
moves = st.one_of(
    st.tuples(st.sampled_from(["call", "call slowly", "signal"]), actions),
    st.tuples(st.sampled_from(["reopen", "crash", "fail before", "fail after"]), st.none()),
)


@pytest.mark.by_turns
@hypothesis_settings(max_examples=hypothesis_settings().max_examples * 2 // 3)
@given(steps=st.lists(moves, max_size=25))
async def test_an_entity_does_as_a_plain_object_over_failures_and_crashes(
    steps: list[tuple[str, Any]],
) -> None:
    inner, model, id = MemoryStore(), Model(), EntityId(Store, "s")
    number = 0
    position = 0
    while position <= len(steps):
        store = FaultyStore(inner)
        crashing = False
        try:
            async with within(), hub_on(store) as hub:
                while position < len(steps):
                    move, action = steps[position]
                    if move in ("reopen", "crash", "fail before", "fail after"):
                        position += 1
                        if move == "reopen":
                            break
                        if move == "crash":
                            crashing = True
                            store.crash_next("before" if position % 2 else "after")
                        else:
                            store.fail_next("before" if move == "fail before" else "after")
                        continue
                    request, step = f"r{position}", list(action)
                    expected = copy.deepcopy(model).apply(step)
                    assert await ask(hub, id, move, step, request) == expected
                    model.apply(step)
                    position += 1
                    number += 1
                else:
                    position += 1
                if not crashing:
                    state = await hub.client.read_entity_state(id)
                    found = None if state is None else (state.log, state.index, state.total)
                    assert found in (None, (model.log, model.index, model.total))
        except LeaseLostError:
            assert crashing

    async with within(), hub_on(inner) as hub:
        state = await hub.client.read_entity_state(id)
    end = Model() if state is None else state
    assert (end.log, end.index, end.total) == (model.log, model.index, model.total)


async def ask(hub: Hub, id: EntityId[Store], move: str, step: list[Any], request: str) -> Any:
    """Do the step to the entity, and say what the model should have said."""
    client = hub.client
    if move == "signal":
        await persist(client.signal_entity, id, Store.apply, step, request_id=request)
        expected = await client.read_entity_state(id)
        return None if step[2] or expected is None else expected.total
    operation = "apply" if move == "call" else "apply_slowly"
    try:
        return await persist(client.call_entity, id, operation, step, request_id=request)
    except EntityOperationError as error:
        if error.error_type != "ValueError":
            raise
        return None


async def test_a_value_that_cannot_be_sent_refuses_the_call_inside_the_operation() -> None:
    async with within(), hub_on(MemoryStore()) as hub:
        with pytest.raises(EntityOperationError) as caught:
            await hub.client.call_entity(EntityId(Careless, "c"), Careless.send)

        assert await hub.client.get_entity(EntityId(Careless, "c")) is None

    assert caught.value.error_type == PayloadError.__name__


@app.entity
class Careless:
    sent: int = 0

    def send(self, ctx: EntityContext) -> None:
        self.sent += 1
        ctx.signal_entity(EntityId("witness", "w"), "see", float("nan"))
