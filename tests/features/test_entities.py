from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import anyio
import attrs
import pytest

import perdure
from perdure import (
    App,
    Client,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    InvalidIdError,
    InvalidTimeError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    PayloadError,
    SqliteStore,
    Store,
    UnknownNameError,
    UsageError,
)
from tests.runtime.harness import FaultyStore, disk_error, made, partition_here, until, until_true

app = App()

gates: dict[str, anyio.Event] = {}
reached: dict[str, anyio.Event] = {}


async def pass_gate(name: str) -> None:
    """Say that the gate is reached and wait until the test opens it."""
    reached[name].set()
    await gates[name].wait()


def new_gate(name: str) -> tuple[anyio.Event, anyio.Event]:
    gates[name], reached[name] = anyio.Event(), anyio.Event()
    return gates[name], reached[name]


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    def fail_after_adding(self, amount: int) -> None:
        self.value += amount
        raise ValueError("no luck")

    @perdure.readonly
    def peek(self) -> int:
        return self.value

    @perdure.readonly
    def peek_and_touch(self) -> int:
        self.value += 1_000
        return self.value

    @perdure.readonly
    async def peek_slowly(self) -> int:
        await pass_gate("peek")
        return self.value


@attrs.define
class Point:
    x: int
    y: int = 0


@dataclass
class Line:
    text: str
    tags: list[str] = field(default_factory=list[str])


@app.entity
class Cart:
    lines: list[Line] = []
    prices: dict[str, float] = {}
    owners: set[str] = set()
    at: Point | None = None

    def add(self, line: Line) -> int:
        self.lines.append(line)
        self.prices[line.text] = 1.5
        self.owners.add(line.text)
        self.at = Point(len(self.lines))
        return len(self.lines)

    def spoil(self) -> None:
        self.lines[0].tags.append("spoilt")
        self.lines.append(Line("more"))
        self.prices.clear()
        self.owners.add("nobody")
        if self.at is not None:
            self.at.x = -1
        raise RuntimeError("spoilt")

    def get_lines(self) -> list[Line]:
        return self.lines


@app.entity
class Journal:
    """Notes what reached it, in order, and can do everything that a context offers."""

    seen: list[str] = []

    def note(self, text: str) -> None:
        self.seen.append(text)

    def get(self) -> list[str]:
        return self.seen

    def context_first(self, ctx: EntityContext, text: str) -> str:
        return f"{ctx.key}/{ctx.entity_id}/{ctx.operation_name}/{text}"

    def context_last(self, text: str, ctx: EntityContext) -> str:
        return f"{ctx.key}/{ctx.entity_id}/{ctx.operation_name}/{text}"

    def context_only(self, ctx: EntityContext) -> datetime:
        return ctx.current_utc_datetime

    def clear(self, ctx: EntityContext) -> None:
        self.seen.append("deleted after all")
        ctx.delete()

    def tell(self, key: str, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Journal, key), Journal.note, f"from {ctx.key}")

    def tell_later(self, key: str, ctx: EntityContext) -> None:
        ctx.signal_entity(
            EntityId(Journal, key), Journal.note, f"later from {ctx.key}", at=timedelta(seconds=60)
        )

    def tell_and_fail(self, key: str, ctx: EntityContext) -> None:
        self.seen.append("told")
        ctx.signal_entity(EntityId(Journal, key), Journal.note, f"from {ctx.key}")
        ctx.start_new(write, key, instance_id=f"started-for-{key}")
        ctx.delete()
        raise ValueError("after telling")

    def count_down(self, left: int, ctx: EntityContext) -> None:
        self.seen.append(str(left))
        if left:
            ctx.signal_entity(ctx.entity_id, "count_down", left - 1)

    def start(self, key: str, ctx: EntityContext) -> str:
        return ctx.start_new(write, key, instance_id=f"started-for-{key}")

    def start_with_any_id(self, key: str, ctx: EntityContext) -> str:
        return ctx.start_new("write", key)

    def start_unknown(self, ctx: EntityContext) -> str:
        return ctx.start_new("no such orchestration")

    async def slow_note(self, text: str) -> str:
        self.seen.append(f"begun {text}")
        await pass_gate(text)
        self.seen.append(f"done {text}")
        return text

    async def slow_fail(self, text: str, ctx: EntityContext) -> None:
        self.seen.append(f"begun {text}")
        ctx.signal_entity(EntityId(Journal, "other"), Journal.note, "never")
        await pass_gate(text)
        raise ValueError(text)

    async def at_once(self, text: str) -> str:
        self.seen.append(text)
        return text

    async def within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds) as scope:
            await anyio.sleep_forever()
        return scope.cancelled_caught


class Shape:
    name: str = "shape"

    def rename(self, name: str) -> str:
        self.name = name
        return self.name

    def area(self) -> float:
        return 0.0


@app.entity
class Square(Shape):
    side: float = 2.0

    def area(self) -> float:
        return self.side * self.side


@app.entity(name="Tally")
def tally(ctx: EntityContext) -> Any:
    state = ctx.get_state(dict)
    if ctx.operation_name == "vote":
        name = ctx.get_input(str)
        state[name] = state.get(name, 0) + 1
        ctx.set_state(state)
        ctx.set_result(state[name])
    elif ctx.operation_name == "spoil":
        state["spoilt"] = True
        ctx.set_state(state)
        raise ValueError("spoilt")
    elif ctx.operation_name == "reset":
        ctx.set_state(None)
    elif ctx.operation_name == "drop":
        ctx.delete()
    else:
        raise ValueError(f"unknown operation {ctx.operation_name}")


@app.entity
async def slow_tally(ctx: EntityContext) -> Any:
    count = ctx.get_state(int)
    await anyio.lowlevel.checkpoint()
    ctx.set_state(count + 1)
    ctx.set_result(count + 1)


@app.orchestration
async def write(ctx: OrchestrationContext, key: str) -> str:
    ctx.signal_entity(EntityId(Journal, key), Journal.note, "one")
    ctx.signal_entity(EntityId(Journal, key), "note", "two")
    await ctx.call_entity(EntityId(Journal, key), Journal.note, "three")
    return key


@app.orchestration
async def write_later(ctx: OrchestrationContext, key: str) -> None:
    id = EntityId(Journal, key)
    ctx.signal_entity(id, Journal.note, "delay", at=timedelta(seconds=60))
    ctx.signal_entity(
        id, Journal.note, "time", at=ctx.current_utc_datetime + timedelta(seconds=120)
    )
    ctx.signal_entity(id, Journal.note, "past", at=datetime(2000, 1, 1, tzinfo=UTC))


@app.orchestration
def add_by_yield(ctx: OrchestrationContext, key: str) -> Generator[Any, Any, list[int]]:
    id = EntityId(Counter, key)
    ctx.signal_entity(id, Counter.add, 10)
    first: int = yield ctx.call_entity(id, Counter.add, 5)
    second: int = yield ctx.call_entity(id, "get")
    return [first, second]


@app.orchestration
async def call_failing(ctx: OrchestrationContext, key: str) -> list[Any]:
    id = EntityId(Counter, key)
    await ctx.call_entity(id, Counter.add, 1)
    try:
        await ctx.call_entity(id, Counter.fail_after_adding, 5)
    except EntityOperationError as error:
        return [error.target, error.error_type, error.message, await ctx.call_entity(id, "get")]
    return []


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Give a store that finds its rows again when it is opened once more."""
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Hub(app) as hub:
        yield hub.client


async def seen(client: Client, key: str) -> list[str]:
    return await client.call_entity(EntityId(Journal, key), Journal.get)


# Calls and signals from clients.


async def test_a_clients_call_returns_the_result_and_its_effect_is_durable(store: Store) -> None:
    counter = EntityId(Counter, "a")

    async with Hub(app, store=store) as hub:
        first = await hub.client.call_entity(counter, Counter.add, 5)
        second = await hub.client.call_entity(counter, Counter.add)
        durable = await hub.client.read_entity_state(counter)

    assert (first, second) == (5, 6)
    assert durable == made(Counter, value=6)


async def test_a_call_by_name_does_what_a_call_by_function_does(client: Client) -> None:
    await client.call_entity(EntityId("COUNTER", "a"), "add", 5)

    assert await client.call_entity(EntityId(Counter, "a"), Counter.get) == 5


async def test_entity_names_ignore_case_and_keys_do_not(client: Client) -> None:
    await client.call_entity(EntityId("CouNTer", "a"), "add", 1)
    await client.call_entity(EntityId("counter", "A"), "add", 10)

    assert await client.call_entity(EntityId("COUNTER", "a"), "get") == 1
    assert await client.call_entity(EntityId("COUNTER", "A"), "get") == 10


async def test_a_clients_signal_is_applied_when_the_call_after_it_is(client: Client) -> None:
    counter = EntityId(Counter, "a")

    for _ in range(10):
        await client.signal_entity(counter, Counter.add, 2)

    assert await client.call_entity(counter, Counter.get) == 20


async def test_an_acknowledged_signal_survives_a_restart(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.signal_entity(counter, Counter.add, 7)

    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(counter, Counter.get) == 7


async def test_a_batch_of_signals_is_applied_in_order(client: Client) -> None:
    journal = EntityId(Journal, "j")

    await client.signal_entities(
        [(journal, Journal.note, str(i)) for i in range(50)]
        + [(EntityId(Counter, str(i)), Counter.add, i) for i in range(50)]
        + [(EntityId(Counter, "default"), "add", perdure.MISSING)]
    )

    assert await seen(client, "j") == [str(i) for i in range(50)]
    assert await client.read_entity_state(EntityId(Counter, "49")) == made(Counter, value=49)
    assert await client.read_entity_state(EntityId(Counter, "default")) == made(Counter, value=1)


async def test_a_batch_with_one_bad_signal_sends_none(client: Client) -> None:
    counter = EntityId(Counter, "a")

    with pytest.raises(PayloadError):
        await client.signal_entities([(counter, Counter.add, 1), (counter, Counter.add, "x")])

    assert await client.get_entity(counter) is None


async def test_an_empty_batch_of_signals_is_fine(client: Client) -> None:
    await client.signal_entities([])

    assert [status async for status in client.query_entities()] == []


@pytest.mark.parametrize(
    ("entity", "op", "input", "error", "text"),
    [
        ("countr", "add", 1, UnknownNameError, "counter"),
        ("counter", "ad", 1, UnknownNameError, "add"),
        ("counter", "_value", perdure.MISSING, UnknownNameError, "_value"),
        ("counter", "add", "five", PayloadError, "int"),
        ("counter", "get", 5, UsageError, "takes no input"),
        ("journal", "note", perdure.MISSING, UsageError, "needs an input"),
        ("journal", "note", "x" * 2_000_000, PayloadError, "limit"),
    ],
)
async def test_a_bad_call_or_signal_is_refused_at_the_door_and_nothing_is_stored(
    client: Client, entity: str, op: str, input: Any, error: type[UsageError], text: str
) -> None:
    id = EntityId[Any](entity, "k")

    with pytest.raises(error, match=text):
        await client.call_entity(id, op, input)
    with pytest.raises(error, match=text):
        await client.signal_entity(id, op, input)

    assert [status async for status in client.query_entities(include_empty=True)] == []


@pytest.mark.parametrize("key", ["", "x" * 257, "a\nb", 5])
def test_a_bad_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidIdError):
        EntityId("counter", key)


def test_a_class_that_is_no_entity_has_no_entity_id() -> None:
    with pytest.raises(UsageError, match="decorate it"):
        EntityId(Point, "k")


async def test_a_call_that_gets_no_answer_in_time_raises_and_is_applied_all_the_same(
    client: Client,
) -> None:
    opened, begun = new_gate("late")

    with pytest.raises(TimeoutError, match=r"@journal@j\.slow_note"):
        await client.call_entity(EntityId(Journal, "j"), Journal.slow_note, "late", timeout=0.01)
    await begun.wait()
    opened.set()

    assert await seen(client, "j") == ["begun late", "done late"]


async def test_a_call_in_time_is_not_bothered_by_its_timeout(client: Client) -> None:
    result = await client.call_entity(EntityId(Counter, "a"), Counter.add, 5, timeout=60)

    assert result == 5


# Request ids.


async def test_a_call_repeated_under_its_request_id_is_applied_once(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        first = await hub.client.call_entity(counter, Counter.add, 5, request_id="r1")
        await hub.client.call_entity(counter, Counter.add, 100)

        second = await hub.client.call_entity(counter, Counter.add, 5, request_id="r1")

    async with Hub(app, store=store) as hub:
        third = await hub.client.call_entity(counter, Counter.add, 5, request_id="r1")
        assert (first, second, third) == (5, 5, 5)
        assert await hub.client.call_entity(counter, Counter.get) == 105


async def test_a_failed_call_repeated_under_its_request_id_fails_alike(store: Store) -> None:
    counter = EntityId(Counter, "a")

    async with Hub(app, store=store) as hub:
        for _ in range(2):
            with pytest.raises(EntityOperationError, match="no luck"):
                await hub.client.call_entity(counter, Counter.fail_after_adding, 5, request_id="r1")


async def test_a_signal_repeated_under_its_request_id_is_applied_once(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.signal_entity(counter, Counter.add, 5, request_id="r1")
        await hub.client.signal_entity(counter, Counter.add, 5, request_id="r1")

    async with Hub(app, store=store) as hub:
        await hub.client.signal_entity(counter, Counter.add, 5, request_id="r1")
        assert await hub.client.call_entity(counter, Counter.get) == 5


async def test_calls_under_one_request_id_at_the_same_time_are_applied_once(store: Store) -> None:
    counter = EntityId(Counter, "a")
    results: list[int] = []

    async with Hub(app, store=store) as hub:

        async def call() -> None:
            results.append(await hub.client.call_entity(counter, Counter.add, 5, request_id="r1"))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call)

    assert results == [5] * 5


async def test_delayed_signals_under_one_request_id_at_the_same_time_are_applied_once(
    store: Store,
) -> None:
    clock = ManualClock()
    counter = EntityId(Counter, "a")
    delay = timedelta(seconds=60)

    async with Hub(app, store=store, clock=clock) as hub:
        client = hub.client

        async def send() -> None:
            await client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(send)
        clock.advance(61)
        await until_exists(client, counter)

        assert await client.call_entity(counter, Counter.get) == 5


# Delayed signals.


async def until_exists(client: Client, id: EntityId[Any]) -> None:
    async def exists() -> bool:
        return await client.read_entity_state(id) is not None

    await until(exists)


async def test_a_delayed_signal_arrives_at_its_time_and_not_before(store: Store) -> None:
    clock = ManualClock()
    journal = EntityId(Journal, "j")
    async with Hub(app, store=store, clock=clock) as hub:
        client = hub.client
        await client.signal_entity(journal, Journal.note, "delayed", at=timedelta(seconds=60))
        clock.advance(59)
        before = await seen(client, "j")

        clock.advance(1)

        async def arrived() -> bool:
            return await seen(client, "j") == ["delayed"]

        await until(arrived)
        assert before == []


async def test_a_delayed_signal_arrives_after_a_restart(store: Store) -> None:
    clock = ManualClock()
    journal = EntityId(Journal, "j")
    at = datetime.fromtimestamp(clock.now() / 1e6, UTC) + timedelta(seconds=60)
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.signal_entity(journal, Journal.note, "delayed", at=at)
        clock.advance(30)

    async with Hub(app, store=store, clock=clock) as hub:
        before = await hub.client.get_entity(journal)
        clock.advance(30)
        await until_exists(hub.client, journal)

        assert before is None
        assert await seen(hub.client, "j") == ["delayed"]


async def test_a_delayed_signal_that_came_due_while_the_hub_was_down_arrives_once(
    store: Store,
) -> None:
    clock = ManualClock()
    journal = EntityId(Journal, "j")
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.signal_entity(journal, Journal.note, "delayed", at=timedelta(seconds=60))
    clock.advance(3_600)

    for _ in range(2):
        async with Hub(app, store=store, clock=clock) as hub:
            await until_exists(hub.client, journal)

    async with Hub(app, store=store, clock=clock) as hub:
        assert await seen(hub.client, "j") == ["delayed"]


async def test_a_delayed_signal_repeated_under_its_request_id_is_applied_once(
    store: Store,
) -> None:
    clock = ManualClock()
    counter = EntityId(Counter, "a")
    delay = timedelta(seconds=60)
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")
        await hub.client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")

    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")
        clock.advance(61)
        await until_exists(hub.client, counter)
        await hub.client.signal_entity(counter, Counter.add, 5, at=delay, request_id="r1")
        clock.advance(61)

        assert await hub.client.call_entity(counter, Counter.get) == 5


async def test_a_signal_for_a_past_time_arrives_at_once(client: Client) -> None:
    journal = EntityId(Journal, "j")

    await client.signal_entity(journal, Journal.note, "x", at=datetime(2000, 1, 1, tzinfo=UTC))
    await until_exists(client, journal)

    assert await seen(client, "j") == ["x"]


@pytest.mark.parametrize("at", [datetime(2030, 1, 1), timedelta(seconds=-1)])  # noqa: DTZ001
async def test_a_naive_time_or_negative_delay_of_a_signal_is_refused(
    client: Client, at: Any
) -> None:
    with pytest.raises(InvalidTimeError):
        await client.signal_entity(EntityId(Counter, "a"), Counter.add, 1, at=at)


async def test_an_orchestrations_delayed_signals_arrive_across_a_restart(store: Store) -> None:
    clock = ManualClock()
    async with Hub(app, store=store, clock=clock) as hub:
        handle = await hub.client.start_new(write_later, "j")
        await handle.result(10)
        await until_exists(hub.client, EntityId(Journal, "j"))
        assert await seen(hub.client, "j") == ["past"]

    async with Hub(app, store=store, clock=clock) as hub:
        for expected in (["past", "delay"], ["past", "delay", "time"]):
            clock.advance(60)

            async def arrived(expected: list[str] = expected) -> bool:
                return await seen(hub.client, "j") == expected

            await until(arrived)


async def test_an_entitys_delayed_signal_arrives_across_a_restart(store: Store) -> None:
    clock = ManualClock()
    async with Hub(app, store=store, clock=clock) as hub:
        await hub.client.call_entity(EntityId(Journal, "a"), Journal.tell_later, "b")
        assert await seen(hub.client, "b") == []

    async with Hub(app, store=store, clock=clock) as hub:
        clock.advance(60)

        async def arrived() -> bool:
            return await seen(hub.client, "b") == ["later from a"]

        await until(arrived)


# Orchestrations.


async def test_an_orchestrations_signals_and_calls_reach_an_entity_in_order(store: Store) -> None:
    async with Hub(app, store=store) as hub:
        for i in range(5):
            handle = await hub.client.start_new(write, f"j{i}")
            await handle.result(10)

            assert await seen(hub.client, f"j{i}") == ["one", "two", "three"]


async def test_a_generator_orchestration_signals_and_calls(client: Client) -> None:
    handle = await client.start_new(add_by_yield, "a")

    assert await handle.result(10) == [15, 15]


async def test_a_failing_call_surfaces_in_the_orchestration_and_is_rolled_back(
    client: Client,
) -> None:
    handle = await client.start_new(call_failing, "a")

    assert await handle.result(10) == [
        "@counter@a.fail_after_adding",
        "ValueError",
        "no luck",
        1,
    ]


# Entities among themselves.


async def test_an_entity_signals_others_and_itself(client: Client) -> None:
    await client.call_entity(EntityId(Journal, "a"), Journal.tell, "b")
    await client.call_entity(EntityId(Journal, "a"), Journal.count_down, 3)

    async def arrived() -> bool:
        return await seen(client, "b") == ["from a"] and len(await seen(client, "a")) == 4

    await until(arrived)
    assert await seen(client, "a") == ["3", "2", "1", "0"]


async def test_an_entity_starts_an_orchestration_under_the_id_it_gave(client: Client) -> None:
    started = await client.call_entity(EntityId(Journal, "a"), Journal.start, "b")

    async def there() -> bool:
        return await client.get_status(started) is not None

    await until(there)
    assert started == "started-for-b"
    assert await client.get_handle(started).result(10) == "b"


async def test_an_entity_starts_an_orchestration_under_an_id_that_is_made_up(
    client: Client,
) -> None:
    id = EntityId(Journal, "a")

    first = await client.call_entity(id, Journal.start_with_any_id, "b")
    second = await client.call_entity(id, Journal.start_with_any_id, "c")

    async def there() -> bool:
        return None not in [await client.get_status(one) for one in (first, second)]

    await until(there)
    assert [await client.get_handle(one).result(10) for one in (first, second)] == ["b", "c"]


async def test_starting_an_id_that_is_live_leaves_that_instance_alone(client: Client) -> None:
    opened, begun = new_gate("hold")
    await client.signal_entity(EntityId(Journal, "b"), Journal.slow_note, "hold")
    await begun.wait()
    await client.start_new(write, "b", instance_id="started-for-b")

    await client.call_entity(EntityId(Journal, "a"), Journal.start, "b")
    opened.set()
    await client.get_handle("started-for-b").result(10)

    status = await client.get_status("started-for-b")
    assert status is not None
    assert status.execution == 1
    assert (await seen(client, "b")).count("three") == 1


async def test_starting_an_unknown_orchestration_fails_the_operation(client: Client) -> None:
    with pytest.raises(EntityOperationError) as caught:
        await client.call_entity(EntityId(Journal, "a"), Journal.start_unknown)

    assert caught.value.error_type == "UnknownNameError"


# Failing operations.


async def test_a_failing_operation_rolls_back_its_own_change_and_only_its_own(
    client: Client,
) -> None:
    counter = EntityId(Counter, "a")
    outcomes: list[Any] = []

    async def call(op: str, amount: int) -> None:
        try:
            outcomes.append(await client.call_entity(counter, op, amount))
        except EntityOperationError as error:
            outcomes.append(error.message)

    async with anyio.create_task_group() as tasks:
        for op, amount in [("add", 1), ("fail_after_adding", 10), ("add", 100)]:
            tasks.start_soon(call, op, amount)

    assert "no luck" in outcomes
    assert {1, 100} & set(outcomes)  # whichever addition came first
    assert 101 in outcomes
    assert await client.call_entity(counter, Counter.get) == 101


async def test_a_failure_carries_type_message_and_traceback(client: Client) -> None:
    with pytest.raises(EntityOperationError) as caught:
        await client.call_entity(EntityId(Counter, "a"), Counter.fail_after_adding, 1)

    error = caught.value
    assert (error.target, error.error_type) == ("@counter@a.fail_after_adding", "ValueError")
    assert error.message == "no luck"
    assert "fail_after_adding" in error.stack_trace


async def test_a_failing_first_operation_leaves_no_entity_behind(store: Store) -> None:
    counter = EntityId(Counter, "a")

    async with Hub(app, store=store) as hub:
        with pytest.raises(EntityOperationError):
            await hub.client.call_entity(counter, Counter.fail_after_adding, 1)

        assert await hub.client.read_entity_state(counter) is None
        assert await hub.client.get_entity(counter) is None


async def test_in_place_changes_of_all_kinds_of_fields_are_rolled_back(store: Store) -> None:
    cart = EntityId(Cart, "c")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(cart, Cart.add, Line("a", ["new"]))
        before = await hub.client.read_entity_state(cart)

        with pytest.raises(EntityOperationError, match="spoilt"):
            await hub.client.call_entity(cart, Cart.spoil)
        lines = await hub.client.call_entity(cart, Cart.get_lines)

        assert lines == [Line("a", ["new"])]
        assert await hub.client.read_entity_state(cart) == before


async def test_a_failing_operation_takes_its_messages_and_starts_back(client: Client) -> None:
    journal = EntityId(Journal, "a")
    await client.call_entity(journal, Journal.note, "kept")

    with pytest.raises(EntityOperationError, match="after telling"):
        await client.call_entity(journal, Journal.tell_and_fail, "b")
    await client.call_entity(journal, Journal.tell, "b")

    async def arrived() -> bool:
        return bool(await seen(client, "b"))

    await until(arrived)
    assert await seen(client, "a") == ["kept"]
    assert await seen(client, "b") == ["from a"]
    assert await client.get_status("started-for-b") is None


async def test_a_failed_signal_is_logged_counted_and_listed(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(counter, Counter.add, 1)
        with caplog.at_level(logging.ERROR, "perdure"):
            for amount in range(12):
                await hub.client.signal_entity(counter, Counter.fail_after_adding, amount)

    async with Hub(app, store=store) as hub:
        status = await hub.client.get_entity(counter)

    assert status is not None
    assert status.failed_signals == 12
    assert len(status.failures) == 10
    at, operation, kind, message = status.failures[-1]
    assert (operation, kind, message) == ("fail_after_adding", "ValueError", "no luck")
    assert at.tzinfo is UTC
    assert status.state == made(Counter, value=1)
    assert caplog.text.count("@counter@a.fail_after_adding failed") == 12


async def test_a_failed_call_is_not_listed_among_the_failed_signals(client: Client) -> None:
    counter = EntityId(Counter, "a")
    await client.call_entity(counter, Counter.add, 1)

    with pytest.raises(EntityOperationError):
        await client.call_entity(counter, Counter.fail_after_adding, 1)

    status = await client.get_entity(counter)
    assert status is not None
    assert (status.failed_signals, status.failures) == (0, [])


@app.entity
class Bad:
    value: int = 0
    items: list[int] = []

    def set_wrong_type(self) -> None:
        self.value = "text"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]

    def fill_wrongly(self, count: int) -> int:
        self.items = [1] * count
        self.items.append(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return count

    def fill(self, count: int) -> int:
        self.items = [1] * count
        return count

    def give_wrong_type(self) -> int:
        self.value = 5
        return "text"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("op", ["set_wrong_type", "give_wrong_type"])
async def test_a_state_or_result_that_cannot_be_stored_fails_the_operation(
    client: Client, op: str
) -> None:
    bad = EntityId(Bad, "b")
    await client.call_entity(bad, Bad.fill, 1)

    with pytest.raises(EntityOperationError) as caught:
        await client.call_entity(bad, op)

    assert caught.value.error_type == "PayloadError"
    assert await client.read_entity_state(bad) == made(Bad, value=0, items=[1])


@pytest.mark.parametrize("op", ["fill", "fill_wrongly"])
async def test_a_large_state_that_cannot_be_stored_fails_the_operation_that_made_it_so(
    op: str,
) -> None:
    bad = EntityId(Bad, "b")

    async with Hub(app, settings=perdure.Settings(max_payload=50_000)) as hub:
        client = hub.client
        await client.call_entity(bad, Bad.fill, 5_000)
        for _ in range(5):
            # A large state is checked at the checkpoint. Nothing of that one is stored, and
            # repeating the call then tells what is wrong with it.
            with pytest.raises((EntityOperationError, perdure.UnavailableError)):
                await client.call_entity(bad, op, 30_000)
            with pytest.raises(EntityOperationError) as caught:
                await client.call_entity(bad, op, 30_000)
            assert caught.value.error_type in ("PayloadError", "PayloadTooLargeError")

        assert await client.call_entity(bad, Bad.fill, 3) == 3
        assert await client.read_entity_state(bad) == made(Bad, value=0, items=[1] * 3)


# State.


async def test_the_state_of_an_entity_that_never_was_is_none(client: Client) -> None:
    assert await client.read_entity_state(EntityId(Counter, "nobody")) is None
    assert await client.get_entity(EntityId(Counter, "nobody")) is None


async def test_reading_the_state_of_an_unknown_entity_is_refused(client: Client) -> None:
    with pytest.raises(UnknownNameError):
        await client.read_entity_state(EntityId("nothing", "k"))


async def test_the_state_read_is_a_typed_object_of_all_kinds_of_fields(store: Store) -> None:
    cart = EntityId(Cart, "c")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(cart, Cart.add, Line("a", ["new"]))
        await hub.client.call_entity(cart, Cart.add, Line("b"))

    async with Hub(app, store=store) as hub:
        state = await hub.client.read_entity_state(cart)

    assert state == made(
        Cart,
        lines=[Line("a", ["new"]), Line("b")],
        prices={"a": 1.5, "b": 1.5},
        owners={"a", "b"},
        at=Point(2),
    )


async def test_a_mutable_default_is_fresh_for_each_entity(client: Client) -> None:
    await client.call_entity(EntityId(Cart, "a"), Cart.add, Line("x"))

    assert await client.call_entity(EntityId(Cart, "b"), Cart.get_lines) == []


async def test_the_state_read_is_the_last_committed_one() -> None:
    store = FaultyStore()
    counter = EntityId(Counter, "a")
    committing, go_on = anyio.Event(), anyio.Event()

    async def hold(_: object) -> None:
        committing.set()
        await go_on.wait()

    async with Hub(app, store=store) as hub:
        client = hub.client
        await client.call_entity(counter, Counter.add, 1)
        store.faults.before_commit = hold

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_entity, counter, Counter.add, 10)
            await committing.wait()
            during = await client.read_entity_state(counter)
            go_on.set()
            assert during == made(Counter, value=1)

        assert await client.read_entity_state(counter) == made(Counter, value=11)


@pytest.mark.parametrize("op", ["clear", "delete"])
async def test_a_deleted_entity_has_no_state_and_begins_anew(store: Store, op: str) -> None:
    journal = EntityId(Journal, "j")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(journal, Journal.note, "x")
        await hub.client.call_entity(journal, op)
        assert await hub.client.read_entity_state(journal) is None
        assert await hub.client.get_entity(journal) is None

    async with Hub(app, store=store) as hub:
        assert await hub.client.get_entity(journal) is None
        await hub.client.call_entity(journal, Journal.note, "y")
        assert await seen(hub.client, "j") == ["y"]


async def test_an_entity_may_define_delete_itself() -> None:
    own = App()

    @own.entity
    class Account:
        balance: int = 10

        def delete(self, ctx: EntityContext) -> str:
            if self.balance:
                raise ValueError("not empty")
            ctx.delete()
            return "deleted"

        def empty(self) -> None:
            self.balance = 0

    account = EntityId(Account, "a")

    async with Hub(own) as hub:
        with pytest.raises(EntityOperationError, match="not empty"):
            await hub.client.call_entity(account, Account.delete)
        await hub.client.call_entity(account, Account.empty)
        assert await hub.client.call_entity(account, Account.delete) == "deleted"
        assert await hub.client.read_entity_state(account) is None


async def test_inherited_operations_and_fields_are_the_entitys(client: Client) -> None:
    square = EntityId(Square, "s")

    renamed = await client.call_entity(square, Square.rename, "box")
    area = await client.call_entity(square, Square.area)

    assert (renamed, area) == ("box", 4.0)
    assert await client.read_entity_state(square) == made(Square, name="box", side=2.0)


async def test_the_context_may_come_before_or_behind_the_input(client: Client) -> None:
    journal = EntityId(Journal, "j")

    first = await client.call_entity(journal, "context_first", "x")
    last = await client.call_entity(journal, Journal.context_last, "x")

    assert first == "j/@journal@j/context_first/x"
    assert last == "j/@journal@j/context_last/x"


async def test_the_context_gives_the_hubs_time_in_utc() -> None:
    clock = ManualClock()

    async with Hub(app, clock=clock) as hub:
        time = await hub.client.call_entity(EntityId(Journal, "j"), Journal.context_only)

    assert time == datetime.fromtimestamp(clock.now() / 1e6, UTC)
    assert time.utcoffset() == timedelta(0)


# Function entities.


async def test_a_function_entity_keeps_state_and_gives_results(store: Store) -> None:
    id = EntityId(tally, "t")

    async with Hub(app, store=store) as hub:
        results = [await hub.client.call_entity(id, "vote", name) for name in ("a", "b", "a")]

    async with Hub(app, store=store) as hub:
        assert results == [1, 1, 2]
        assert await hub.client.read_entity_state(id) == {"a": 2, "b": 1}
        assert await hub.client.call_entity(EntityId("TALLY", "t"), "vote", "b") == 2


async def test_a_function_entitys_failure_is_rolled_back(client: Client) -> None:
    id = EntityId(tally, "t")
    await client.call_entity(id, "vote", "a")

    with pytest.raises(EntityOperationError, match="spoilt"):
        await client.call_entity(id, "spoil")
    with pytest.raises(EntityOperationError, match="unknown operation nonsense"):
        await client.call_entity(id, "nonsense")

    assert await client.read_entity_state(id) == {"a": 1}
    assert await client.call_entity(id, "vote", "a") == 2


@pytest.mark.parametrize("op", ["reset", "drop"])
async def test_a_function_entity_whose_state_is_none_is_deleted(store: Store, op: str) -> None:
    id = EntityId(tally, "t")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(id, "vote", "a")

        await hub.client.call_entity(id, op)

        assert await hub.client.get_entity(id) is None
        assert await hub.client.call_entity(id, "vote", "a") == 1


async def test_a_function_entity_may_be_async(store: Store) -> None:
    id = EntityId(slow_tally, "t")

    async with Hub(app, store=store) as hub:
        results = [await hub.client.call_entity(id, "any") for _ in range(3)]

    async with Hub(app, store=store) as hub:
        assert results == [1, 2, 3]
        assert await hub.client.read_entity_state(id) == 3


# Async operations.


async def test_an_async_operation_that_never_suspends_is_like_a_sync_one(client: Client) -> None:
    result = await client.call_entity(EntityId(Journal, "j"), Journal.at_once, "x")

    assert result == "x"
    assert await seen(client, "j") == ["x"]


async def test_operations_behind_an_async_one_wait_for_it_in_order(client: Client) -> None:
    opened, begun = new_gate("first")
    journal = EntityId(Journal, "j")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, journal, Journal.slow_note, "first")
        await begun.wait()
        for text in ("second", "third"):
            await client.signal_entity(journal, Journal.note, text)
        before = await client.read_entity_state(journal)
        opened.set()
        assert before is None

    assert await seen(client, "j") == ["begun first", "done first", "second", "third"]


async def test_other_entities_go_on_during_an_async_operation(client: Client) -> None:
    opened, begun = new_gate("slow")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, EntityId(Journal, "j"), Journal.slow_note, "slow")
        await begun.wait()
        others = [
            await client.call_entity(EntityId(Counter, str(i)), Counter.add, i) for i in range(50)
        ]
        opened.set()
        assert others == list(range(50))


async def test_many_async_operations_are_under_way_at_the_same_time(client: Client) -> None:
    opened, begun = new_gate("crowd")
    results: list[str] = []

    async def call(key: str) -> None:
        results.append(await client.call_entity(EntityId(Journal, key), Journal.slow_note, "crowd"))

    async with anyio.create_task_group() as tasks:
        for i in range(200):
            tasks.start_soon(call, str(i))
        await begun.wait()
        opened.set()

    assert results == ["crowd"] * 200


async def test_a_checkpoint_during_an_async_operation_stores_the_state_before_it(
    store: Store,
) -> None:
    opened, begun = new_gate("slow")
    journal = EntityId(Journal, "j")

    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(journal, Journal.note, "before")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_entity, journal, Journal.slow_note, "slow")
            await begun.wait()
            await client.call_entity(EntityId(Counter, "a"), Counter.add, 1)
            during = await client.read_entity_state(journal)
            opened.set()
            assert during == made(Journal, seen=["before"])

        assert await seen(client, "j") == ["before", "begun slow", "done slow"]


async def test_a_change_just_before_an_async_operation_is_stored_without_the_operations_own(
    store: Store,
) -> None:
    opened, begun = new_gate("slow")
    journal = EntityId(Journal, "j")

    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client

        # Both in one turn, so that the first is not committed when the second begins.
        await client.signal_entities(
            [(journal, Journal.note, "first"), (journal, Journal.slow_note, "slow")]
        )
        await begun.wait()
        during = await client.read_entity_state(journal)
        opened.set()

        assert await seen(client, "j") == ["first", "begun slow", "done slow"]
        assert during == made(Journal, seen=["first"])
        assert await client.read_entity_state(journal) == made(
            Journal, seen=["first", "begun slow", "done slow"]
        )


async def test_a_failing_async_operation_is_rolled_back_with_its_messages(client: Client) -> None:
    opened, _ = new_gate("bad")
    opened.set()
    journal = EntityId(Journal, "j")
    await client.call_entity(journal, Journal.note, "kept")

    with pytest.raises(EntityOperationError, match="bad"):
        await client.call_entity(journal, Journal.slow_fail, "bad")

    assert await seen(client, "j") == ["kept"]
    assert await seen(client, "other") == []


async def test_timeouts_work_inside_an_async_operation(client: Client) -> None:
    assert await client.call_entity(EntityId(Journal, "j"), Journal.within, 0.001) is True


@app.entity
class Canceller:
    value: int = 0

    async def raise_it(self) -> None:
        self.value = 5
        raise asyncio.CancelledError

    async def raise_it_late(self) -> None:
        self.value = 5
        await anyio.lowlevel.checkpoint()
        raise asyncio.CancelledError

    async def await_a_cancelled_task(self) -> None:
        self.value = 5
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    def set(self, value: int) -> int:
        self.value = value
        return self.value


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio has no such exception
@pytest.mark.parametrize("op", ["raise_it", "raise_it_late", "await_a_cancelled_task"])
async def test_an_operation_that_raises_a_cancellation_of_its_own_has_failed(
    client: Client, op: str
) -> None:
    canceller = EntityId(Canceller, "c")
    await client.call_entity(canceller, Canceller.set, 1)

    with anyio.fail_after(10), pytest.raises(EntityOperationError) as caught:
        await client.call_entity(canceller, op)

    assert caught.value.error_type == "CancelledError"
    assert await client.read_entity_state(canceller) == made(Canceller, value=1)
    assert await client.call_entity(canceller, Canceller.set, 2, timeout=10) == 2


# What an async operation is working on is not lost.


@app.orchestration
async def call_slow(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_entity(EntityId(Journal, "j"), Journal.slow_note, text)


async def test_a_message_in_an_async_operation_survives_a_recovery_of_its_partition() -> None:
    store = FaultyStore()
    opened, begun = new_gate("slow")
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await hub.client.start_new(call_slow, "slow")
        await begun.wait()
        # This commit is durable with the operation under way; the next one fails.
        await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 1)
        store.faults.commit = disk_error()
        with pytest.raises(perdure.UnavailableError):
            await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 1)

        store.faults.commit = None
        opened.set()

        assert await handle.result(10) == "slow"
        assert await seen(hub.client, "j") == ["begun slow", "done slow"]


@pytest.mark.parametrize("stored", [False, True])
async def test_a_client_whose_call_is_in_an_async_operation_hears_of_a_recovery(
    stored: bool,
) -> None:
    store = FaultyStore()
    opened, begun = new_gate("slow")
    outcomes: list[str] = []
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client

        async def call() -> None:
            try:
                outcomes.append(
                    await client.call_entity(EntityId(Journal, "j"), Journal.slow_note, "slow")
                )
            except perdure.UnavailableError:
                outcomes.append("nothing happened")

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                if not stored:
                    store.faults.commit = disk_error()
                tasks.start_soon(call)
                await begun.wait()
                if stored:
                    await client.call_entity(EntityId(Counter, "a"), Counter.add, 1)
                store.faults.commit = disk_error()
                with pytest.raises(perdure.UnavailableError):
                    await client.call_entity(EntityId(Counter, "a"), Counter.add, 1)
                store.faults.commit = None
                opened.set()

        assert outcomes == ["slow" if stored else "nothing happened"]
        assert await seen(client, "j") == (["begun slow", "done slow"] if stored else [])


# Read-only operations.


async def test_a_readonly_operation_sees_the_latest_state_and_writes_none(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(counter, Counter.add, 5)

        assert await hub.client.call_entity(counter, Counter.peek) == 5
        assert await hub.client.call_entity(counter, Counter.peek_and_touch) == 1_005
        assert await hub.client.call_entity(counter, Counter.peek) == 5
        assert await hub.client.call_entity(counter, Counter.add, 1) == 6
        assert await hub.client.read_entity_state(counter) == made(Counter, value=6)


async def test_a_readonly_async_operation_writes_nothing_either(client: Client) -> None:
    opened, _ = new_gate("peek")
    opened.set()
    counter = EntityId(Counter, "a")
    await client.call_entity(counter, Counter.add, 5)

    assert await client.call_entity(counter, Counter.peek_slowly) == 5
    assert await client.read_entity_state(counter) == made(Counter, value=5)


async def test_a_readonly_operation_does_not_make_an_entity(client: Client) -> None:
    counter = EntityId(Counter, "a")

    value = await client.call_entity(counter, Counter.peek)

    assert value == 0
    assert await client.get_entity(counter) is None


async def test_a_readonly_operation_is_answered_when_the_state_it_saw_is_durable() -> None:
    store = FaultyStore()
    counter = EntityId(Counter, "a")
    committing, go_on = anyio.Event(), anyio.Event()
    answers: list[int] = []

    async def hold(_: object) -> None:
        committing.set()
        await go_on.wait()

    async with Hub(app, store=store) as hub:
        client = hub.client
        await client.call_entity(counter, Counter.get)

        async def peek() -> None:
            answers.append(await client.call_entity(counter, Counter.peek))

        async with anyio.create_task_group() as tasks:
            store.faults.before_commit = hold
            tasks.start_soon(client.call_entity, counter, Counter.add, 7)
            await committing.wait()
            tasks.start_soon(peek)
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            early = list(answers)
            go_on.set()
            assert early == []

    assert answers == [7]


async def test_a_readonly_operation_cannot_delete(client: Client) -> None:
    keeper = EntityId(Keeper, "k")
    await client.call_entity(keeper, Keeper.keep, "x")

    await client.call_entity(keeper, Keeper.try_to_delete)

    assert await client.read_entity_state(keeper) == made(Keeper, items=["x"])


@app.entity
class Keeper:
    items: list[str] = []

    def keep(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    async def keep_async(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    def fail(self) -> None:
        raise ValueError

    @perdure.readonly
    def try_to_delete(self, ctx: EntityContext) -> None:
        self.items.clear()
        ctx.delete()


# What is stored is what the last operation of a batch left.


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        pytest.param(["a", "b"], ["a", "b"], id="small"),
        pytest.param(["x" * 5_000, "b", "c"], ["x" * 5_000, "b", "c"], id="grown-large"),
        pytest.param(["a", "~b"], ["a", "b"], id="async-last"),
        pytest.param(["~a", "b"], ["a", "b"], id="async-first"),
        pytest.param(["a", "!", "b", "!"], ["a", "b"], id="with-failures"),
        pytest.param(["x" * 5_000, "b", "!"], ["x" * 5_000, "b"], id="failure-of-a-large"),
        pytest.param(["a", "-", "b"], ["b"], id="deleted-between"),
        pytest.param(["x" * 5_000, "b", "-", "y" * 5_000, "c"], ["y" * 5_000, "c"], id="anew"),
        pytest.param(["a", "b", "-"], None, id="deleted-last"),
    ],
)
async def test_the_state_stored_is_what_the_last_operation_of_a_batch_left(
    store: Store, sequence: list[str], expected: list[str] | None
) -> None:
    keeper = EntityId(Keeper, "k")
    signals: list[tuple[EntityId[Any], Any, Any]] = []
    for item in sequence:
        if item == "!":
            signals.append((keeper, Keeper.fail, perdure.MISSING))
        elif item == "-":
            signals.append((keeper, "delete", perdure.MISSING))
        elif item.startswith("~"):
            signals.append((keeper, Keeper.keep_async, item[1:]))
        else:
            signals.append((keeper, Keeper.keep, item))

    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(keeper, Keeper.keep, "before")
        await hub.client.call_entity(keeper, "delete")
        await hub.client.signal_entities(signals)
        state = await hub.client.read_entity_state(keeper)

    async with Hub(app, store=store) as hub:
        assert await hub.client.read_entity_state(keeper) == state
    assert (None if state is None else state.items) == expected


# A class that changes.


def make_v1() -> tuple[App, Any]:
    v1 = App()

    @v1.entity(name="profile")
    class Profile:
        name: str = ""
        obsolete: int = 0

        def rename(self, name: str) -> None:
            self.name = name
            self.obsolete += 1

    return v1, Profile


async def store_v1(store: Store) -> None:
    v1, profile = make_v1()
    async with Hub(v1, store=store) as hub:
        await hub.client.call_entity(EntityId(profile, "p"), "rename", "Ada Lovelace")


async def test_a_new_field_gets_its_default_and_a_dropped_one_is_ignored(store: Store) -> None:
    await store_v1(store)
    v2 = App()

    @v2.entity(name="profile")
    class Profile:
        name: str = ""
        emails: list[str] = ["none yet"]

        def get(self) -> str:
            return f"{self.name} {self.emails}"

    async with Hub(v2, store=store) as hub:
        assert await hub.client.call_entity(EntityId(Profile, "p"), Profile.get) == (
            "Ada Lovelace ['none yet']"
        )
        assert await hub.client.read_entity_state(EntityId(Profile, "p")) == made(
            Profile, name="Ada Lovelace", emails=["none yet"]
        )


async def test_upgrade_takes_stored_fields_to_the_present_schema_version(store: Store) -> None:
    await store_v1(store)
    v2 = App()

    @v2.entity(name="profile")
    class Profile:
        schema_version: ClassVar[int] = 2
        first: str = ""
        last: str = ""

        @classmethod
        def upgrade(cls, stored: dict[str, Any], version: int) -> dict[str, Any]:
            assert version == 1
            first, last = stored["name"].split()
            return {"first": first, "last": last}

        def get(self) -> list[str]:
            return [self.first, self.last]

        def swap(self) -> None:
            self.first, self.last = self.last, self.first

    profile = EntityId(Profile, "p")
    async with Hub(v2, store=store) as hub:
        assert await hub.client.read_entity_state(profile) == made(
            Profile, first="Ada", last="Lovelace"
        )
        assert await hub.client.call_entity(profile, Profile.get) == ["Ada", "Lovelace"]
        await hub.client.call_entity(profile, Profile.swap)

    async with Hub(v2, store=store) as hub:
        assert await hub.client.call_entity(profile, Profile.get) == ["Lovelace", "Ada"]


# Lists of entities.


async def test_query_entities_finds_by_name_prefix_time_and_in_order() -> None:
    clock = ManualClock()
    async with Hub(app, clock=clock) as hub:
        client = hub.client
        for key in ("b2", "a1", "b1", "c"):
            await client.call_entity(EntityId(Counter, key), Counter.add, 1)
        clock.advance(10)
        middle = datetime.fromtimestamp(clock.now() / 1e6, UTC)
        await client.call_entity(EntityId(Journal, "b3"), Journal.note, "x")

        async def found(**conditions: Any) -> list[str]:
            return [str(s.entity_id) async for s in client.query_entities(**conditions)]

        assert await found() == [
            "@counter@a1",
            "@counter@b1",
            "@counter@b2",
            "@counter@c",
            "@journal@b3",
        ]
        assert await found(name="Counter", key_prefix="b") == ["@counter@b1", "@counter@b2"]
        assert await found(key_prefix="b") == ["@counter@b1", "@counter@b2", "@journal@b3"]
        assert await found(updated_from=middle) == ["@journal@b3"]
        assert await found(name="counter", updated_to=middle, key_prefix="c") == ["@counter@c"]
        assert await found(locked=True) == []
        assert await found(parked=True) == []
        assert await found(name="nothing") == []


@pytest.mark.parametrize("page_size", [1, 3, 10, 25, 26])
async def test_query_entities_gives_each_once_whatever_the_page_size(
    store: Store, page_size: int
) -> None:
    async with Hub(app, store=store) as hub:
        await hub.client.signal_entities(
            [(EntityId(Counter, f"{i:02}"), Counter.add, i) for i in range(25)]
        )

        keys = [
            (status.entity_id.key, status.state.value if status.state else None)
            async for status in hub.client.query_entities(page_size=page_size)
        ]

    assert keys == [(f"{i:02}", i) for i in range(25)]


async def test_query_entities_may_leave_the_states_out(client: Client) -> None:
    await client.call_entity(EntityId(Counter, "a"), Counter.add, 1)

    [status] = [one async for one in client.query_entities(states=False)]

    assert status.state is None


@pytest.mark.parametrize("size", [0, -1, 10_001])
async def test_a_bad_page_size_is_refused(client: Client, size: int) -> None:
    with pytest.raises(UsageError, match="1 to 10,000"):
        [one async for one in client.query_entities(page_size=size)]


async def test_an_entity_without_state_is_listed_only_if_asked_for_and_cleaned_away(
    store: Store,
) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        client = hub.client
        await client.signal_entity(counter, Counter.fail_after_adding, 1)
        await client.call_entity(EntityId(Counter, "b"), Counter.add, 1)

        listed = [s.entity_id.key async for s in client.query_entities()]
        all_listed = [
            (s.entity_id.key, s.exists) async for s in client.query_entities(include_empty=True)
        ]
        result = await client.clean_entity_storage()

        assert listed == ["b"]
        assert all_listed == [("a", False), ("b", True)]
        assert result.empty_entities_removed == 1
        assert await client.get_entity(counter) is None
        assert await client.read_entity_state(EntityId(Counter, "b")) == made(Counter, value=1)
        assert await client.clean_entity_storage() == perdure.CleanResult(0, 0)


async def test_purge_entity_deletes_the_state(store: Store) -> None:
    counter = EntityId(Counter, "a")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(counter, Counter.add, 5)
        await hub.client.signal_entity(counter, Counter.fail_after_adding, 5)

        await hub.client.purge_entity(counter)

        assert await hub.client.get_entity(counter) is None
        assert await hub.client.call_entity(counter, Counter.add, 1) == 1
        status = await hub.client.get_entity(counter)
        assert status is not None
        assert status.failed_signals == 0

    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(counter, Counter.get) == 1


async def test_purging_forgets_the_count_of_failed_signals(client: Client) -> None:
    counter = EntityId(Counter, "a")
    await client.signal_entity(counter, Counter.fail_after_adding, 5)
    await client.purge_entity(counter)

    await client.signal_entity(counter, Counter.fail_after_adding, 5)

    status = await client.get_entity(counter)
    assert status is not None
    assert status.failed_signals == 1


# More entities than memory may hold.


async def test_totals_are_exact_with_far_more_entities_than_are_kept_in_memory(
    store: Store,
) -> None:
    settings = perdure.Settings(cached_actors_max=20)
    count, rounds = 2_000, 3

    async with Hub(app, store=store, settings=settings, partitions=2) as hub:
        for _ in range(rounds):
            for start in range(0, count, 250):
                await hub.client.signal_entities(
                    [(EntityId(Counter, str(i)), Counter.add, 1) for i in range(start, start + 250)]
                )
        kept = sum(len(partition.activations) for partition in hub._partitions)
        total = 0
        async for status in hub.client.query_entities(page_size=500):
            assert status.state is not None
            total += status.state.value

    assert total == count * rounds
    assert kept < count // 2  # about what two checkpoints touched


async def test_a_locked_and_an_idle_entity_are_evicted_and_come_back_with_all_they_had(
    client: Client,
) -> None:
    counter = EntityId(Counter, "a")
    await client.call_entity(counter, Counter.add, 5)
    await client.signal_entity(counter, Counter.fail_after_adding, 5)
    partition = partition_here(client, str(counter))
    await until_true(lambda: not partition.has_work)

    partition.catalog.evict(10)
    evicted = partition.catalog.evict(10)

    assert evicted == 1
    assert str(counter) not in partition.activations
    assert await client.call_entity(counter, Counter.get) == 5
    status = await client.get_entity(counter)
    assert status is not None
    assert status.failed_signals == 1
