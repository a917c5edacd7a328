"""Signals that wait one behind the other, folded into one operation by ``@perdure.combine``."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st

import perdure
from perdure import (
    App,
    EntityContext,
    EntityId,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    RegistrationError,
    Settings,
)
from perdure.storage.slices import unsliced
from tests.faults import FaultyStore, JumpingClock, within
from tests.guarantees.workloads import id_in
from tests.runtime.harness import until

app = App()


@app.entity
class Counter:
    value: int = 0
    log: list[str] = []

    def add(self, amount: int) -> int:
        if amount < 0:
            raise ValueError("below zero")
        self.value += amount
        self.log.append(f"+{amount}")
        return self.value

    @perdure.combine(add)
    @staticmethod
    def add_all(amounts: list[int]) -> int:
        if any(amount == 13 or amount < -50 for amount in amounts):
            raise ArithmeticError("unlucky")
        if min(amounts) < 0:
            return min(amounts)  # so that the operation fails
        return sum(amounts)

    def note(self, text: str, ctx: EntityContext) -> None:
        self.log.append(text)
        ctx.signal_entity(EntityId(Counter, "copy"), Counter.note_plainly, text)

    @perdure.combine(note)
    @staticmethod
    def _join(texts: list[str]) -> str:
        return "".join(texts)

    def note_plainly(self, text: str) -> None:
        self.log.append(text)

    def get(self) -> list[str]:
        return self.log


@app.entity(stripes=4)
class Striped:
    value: int = 0
    runs: int = 0

    @perdure.commutative
    def add(self, amount: int) -> None:
        self.value += amount
        self.runs += 1

    @perdure.combine(add)
    @staticmethod
    def add_all(amounts: list[int]) -> int:
        return sum(amounts)

    def put(self, value: int) -> None:
        self.value = value
        self.runs += 1

    @perdure.combine(put)
    @staticmethod
    def last(values: list[int]) -> int:
        return values[-1]

    def get(self) -> int:
        return self.value

    def merge(self, other: Striped) -> None:
        self.value += other.value
        self.runs += other.runs


@app.orchestration
async def burst(ctx: OrchestrationContext, n: int) -> None:
    for _ in range(n):
        ctx.signal_entity(C, Counter.add, 1)


@app.orchestration
async def hold(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(C):
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("go")


C = EntityId(Counter, "c")


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with within(20), Hub(app, clock=ManualClock()) as hub:
        yield hub


async def log_of(hub: Hub) -> list[str]:
    return await hub.client.call_entity(C, Counter.get)


async def test_signals_that_wait_together_run_as_one(hub: Hub) -> None:
    await hub.client.signal_entities([(C, Counter.add, n) for n in range(20, 120)])

    assert await log_of(hub) == [f"+{sum(range(20, 120))}"]


async def test_each_combined_signal_is_acknowledged_when_it_is_durable(hub: Hub) -> None:
    done: list[int] = []

    async def signal(n: int) -> None:
        await hub.client.signal_entity(C, Counter.add, n)
        done.append(n)

    async with anyio.create_task_group() as tasks:
        for n in range(20, 40):
            tasks.start_soon(signal, n)

    state = await hub.client.read_entity_state(C)
    assert sorted(done) == list(range(20, 40))
    assert state is not None
    assert state.log == [f"+{sum(done)}"]
    statistics = await hub.statistics()
    assert sum(one.waiting for one in statistics.partitions) == 0


async def test_what_comes_between_keeps_its_place(hub: Hub) -> None:
    async with anyio.create_task_group() as tasks:
        waiting = [(C, Counter.add, 1)] * 3 + [(C, Counter.note_plainly, "between")]
        tasks.start_soon(hub.client.signal_entities, [*waiting, *[(C, Counter.add, 2)] * 3])

    assert await log_of(hub) == ["+3", "between", "+6"]


async def test_calls_and_requests_with_an_id_run_alone(hub: Hub) -> None:
    results: list[int] = []

    async def call(n: int) -> None:
        results.append(await hub.client.call_entity(C, Counter.add, n))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(call, 5)
    async with anyio.create_task_group() as tasks:
        for n in range(3):
            tasks.start_soon(_signal_with_id, hub, f"r{n}")
    await _signal_with_id(hub, "r1")

    assert await log_of(hub) == ["+5"] * 3 + ["+1"] * 3
    assert sorted(results) == [5, 10, 15]


async def _signal_with_id(hub: Hub, request: str) -> None:
    await hub.client.signal_entity(C, Counter.add, 1, request_id=request)


async def test_signals_of_actors_are_combined_too(hub: Hub) -> None:
    for partition in range(4):
        name = id_in(partition, "burst", 4)
        await hub.client.start_new(burst, 50, instance_id=name)

    async def all_there() -> bool:
        state = await hub.client.read_entity_state(C)
        return state is not None and state.value == 200

    await until(all_there)
    assert len(await log_of(hub)) <= 8


async def test_a_context_sends_once_for_all(hub: Hub) -> None:
    await hub.client.signal_entities([(C, Counter.note, text) for text in "abc"])

    async def arrived() -> bool:
        log = await hub.client.call_entity(EntityId(Counter, "copy"), Counter.get)
        return log == ["abc"]

    await until(arrived)
    assert await log_of(hub) == ["abc"]


async def test_a_failing_signal_fails_alone(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    await hub.client.signal_entities([(C, Counter.add, n) for n in (1, 2, -50, 4)])
    status = await hub.client.get_entity(C)

    assert await log_of(hub) == ["+1", "+2", "+4"]
    assert status is not None
    assert status.failed_signals == 1
    assert status.failures[0][1:] == ("add", "ValueError", "below zero")


async def test_a_failing_combiner_changes_nothing_but_the_speed(hub: Hub) -> None:
    await hub.client.signal_entities([(C, Counter.add, n) for n in (1, 13, 5, 6)])
    await hub.client.signal_entities([(C, Counter.add, n) for n in (1, 1)])
    status = await hub.client.get_entity(C)

    assert await log_of(hub) == ["+1", "+13", "+5", "+6", "+2"]
    assert status is not None
    assert status.failed_signals == 0


async def test_signals_wait_behind_a_lock_and_are_combined_when_it_ends(hub: Hub) -> None:
    handle = await hub.client.start_new(hold)

    async def locked() -> bool:
        status = await handle.status()
        return bool(status.custom_status == "locked")

    await until(locked)
    await hub.client.signal_entities([(C, Counter.add, 1)] * 10)
    assert await hub.client.read_entity_state(C) is None
    await handle.raise_event("go")
    await handle.result()

    assert await log_of(hub) == ["+10"]


async def test_no_more_than_a_thousand_are_combined_at_once() -> None:
    async with within(20), Hub(app, settings=Settings(turn_messages_max=5_000)) as hub:
        await hub.client.signal_entities([(C, Counter.add, 1)] * 2_500)

        assert await log_of(hub) == ["+1000", "+1000", "+500"]


async def test_delayed_signals_of_one_time_are_combined() -> None:
    clock = ManualClock()
    async with within(20), Hub(app, clock=clock) as hub:
        for _ in range(5):
            await hub.client.signal_entity(C, Counter.add, 1, at=timedelta(seconds=1))

        async def all_there() -> bool:
            state = await hub.client.read_entity_state(C)
            return state is not None and state.value == 5

        with unsliced():  # however slow the machine is, they ring in one turn of the loop
            clock.advance(2)
            await until(all_there)
        assert await log_of(hub) == ["+5"]


async def test_stripes_combine_and_homes_keep_their_rounds(hub: Hub) -> None:
    id = EntityId(Striped, "s")
    await hub.client.signal_entities([(id, Striped.add, 1)] * 400)
    state = await hub.client.read_entity_state(id)
    assert state is not None
    assert (state.value, state.runs) == (400, 4)

    await hub.client.signal_entities([(id, Striped.put, n) for n in range(5)])
    assert await hub.client.call_entity(id, Striped.get) == 4


async def test_commits_that_fail_apply_combined_signals_all_or_not_at_all() -> None:
    for commit in range(1, 20):
        store = FaultyStore(MemoryStore())
        store.fail_at(commit, "after" if commit % 2 else "before")
        applied = 0
        async with within(), Hub(app, store=store, clock=JumpingClock()) as hub:
            for _ in range(5):
                try:
                    await hub.client.signal_entities([(C, Counter.add, 1)] * 7)
                except perdure.UnavailableError:
                    continue
                applied += 7
            state = await hub.client.read_entity_state(C)

        assert state is not None
        assert state.value == applied
        if store.faults:
            return
    raise AssertionError("it never ends")


MIXED = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(-2, 15)),
        st.tuples(st.sampled_from(["note", "note_plainly"]), st.sampled_from("abc")),
    ),
    max_size=30,
)


@pytest.mark.by_turns
@given(signals=MIXED, at_once=st.integers(1, 10))
async def test_combined_signals_do_what_single_ones_do(
    signals: list[tuple[str, Any]], at_once: int
) -> None:
    model = Counter()
    failed = 0
    settings = Settings(turn_messages_max=at_once)
    async with within(), Hub(app, settings=settings) as hub:
        await hub.client.signal_entities([(C, op, input) for op, input in signals])
        status = await hub.client.get_entity(C)
    for op, input in signals:
        if op != "add":
            model.log.append(input)
        elif input < 0:
            failed += 1
        else:
            model.value += input

    found = Counter() if status is None or status.state is None else status.state
    texts = [text for text in found.log if text[0] != "+"]
    assert found.value == model.value
    assert "".join(texts) == "".join(model.log)
    assert (0 if status is None else status.failed_signals) == failed


# Registration.


def strange(self: Any, amount: int) -> None: ...


def combining(operation: str, function: Any) -> None:
    """Register a class with that combiner of that operation."""

    class Bad:
        value: int = 0

        def add(self, amount: int) -> None: ...
        def clear(self) -> None: ...

        async def add_slowly(self, amount: int) -> None: ...

        @perdure.readonly
        def peek(self, amount: int) -> None: ...

        wrong = perdure.combine(strange if operation == "strange" else locals()[operation])(
            function
        )

    App().entity(Bad)


def one_list(values: list[int]) -> int:
    return 0


def no_annotation(values: Any) -> Any:
    return 0


def other_list(values: list[str]) -> int:
    return 0


def no_list(values: int) -> int:
    return 0


def other_result(values: list[int]) -> str:
    return ""


def two_parameters(values: list[int], more: int) -> int:
    return 0


def no_parameters() -> int:
    return 0


async def waits(values: list[int]) -> int:
    return 0


def yields(values: list[int]) -> Any:
    yield 0


@pytest.mark.parametrize(
    "function",
    [one_list, no_annotation, staticmethod(one_list)],
    ids=["plain", "not annotated", "static"],
)
def test_a_combiner_is_a_function_of_a_list(function: Any) -> None:
    combining("add", function)


@pytest.mark.parametrize(
    ("operation", "function", "words"),
    [
        ("add", other_list, r"gets a list of inputs .* list\[int\]; its parameter"),
        ("add", no_list, r"its parameter is annotated <class 'int'>"),
        ("add", other_result, r"must give an input .* int; its result is annotated"),
        ("add", two_parameters, "at most one input"),
        ("add", no_parameters, "must be a static function that takes one list"),
        ("add", waits, "must not be async"),
        ("add", yields, "is a generator"),
        ("add", 5, "marks a static function, not 5"),
        ("clear", one_list, "must take an input"),
        ("peek", one_list, "may not be readonly"),
        ("add_slowly", one_list, "must not be async"),
    ],
)
def test_a_combiner_that_does_not_fit_is_refused(operation: str, function: Any, words: str) -> None:
    with pytest.raises(RegistrationError, match=words):
        combining(operation, function)


def test_what_is_combined_must_be_an_operation_of_the_class() -> None:
    with pytest.raises(RegistrationError, match="no operation of entity 'bad'"):
        combining("strange", one_list)


def test_an_operation_has_one_combiner() -> None:
    with pytest.raises(RegistrationError, match="has two combiners"):

        @App().entity
        class Twice:
            def add(self, amount: int) -> None: ...

            @perdure.combine(add)
            @staticmethod
            def first(amounts: list[int]) -> int:
                return 0

            @perdure.combine(add)
            @staticmethod
            def second(amounts: list[int]) -> int:
                return 0


async def test_a_subclass_may_override_what_is_combined_and_the_combiner() -> None:
    local = App()

    @local.entity
    class Highest(Counter):
        def add(self, amount: int) -> int:
            self.value = max(self.value, amount)
            self.log.append(str(amount))
            return self.value

        @perdure.combine(add)
        @staticmethod
        def add_all(amounts: list[int]) -> int:
            return max(amounts)

    id = EntityId(Highest, "h")
    async with within(), Hub(local) as hub:
        await hub.client.signal_entities([(id, Counter.add, n) for n in (3, 9, 1)])
        assert await hub.client.call_entity(id, Highest.get) == ["9"]
