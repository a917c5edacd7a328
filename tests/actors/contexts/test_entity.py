from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import App, EntityContext, OrchestrationContext, commutative
from perdure.actors.contexts.entity import decided, end
from perdure.actors.errors import (
    InvalidIdError,
    InvalidTimeError,
    PayloadError,
    UnknownNameError,
    UsageError,
)
from perdure.actors.ids import EntityId
from perdure.actors.messages import Message, Operation, Start
from perdure.actors.registry.definitions import EntityDefinition
from perdure.actors.registry.lookup import Lookup
from perdure.actors.times import timestamp

NOW = timestamp(datetime(2024, 2, 29, 12, tzinfo=UTC))
SECOND = 1_000_000

app = App()


@app.entity(stripes=2)
class Counter:
    value: int = 0

    @commutative
    def add(self, amount: int) -> None:
        self.value += amount

    def reset(self) -> None:
        self.value = 0

    def merge(self, other: Counter) -> None:
        self.value += other.value


@app.orchestration(version="2")
async def flow(ctx: OrchestrationContext, number: int) -> None: ...


class Host:
    """An entity whose operation runs."""

    title = "entity '@counter@a'"
    name = "counter"
    home_key = "a"

    def __init__(self, striping: object = None) -> None:
        self.state: Any = None
        self.striping = striping
        self.lookup = Lookup(app, 1_000)
        self.made = 0

    @property
    def definition(self) -> EntityDefinition:
        return app.registry.find_entity("counter")

    def new_id(self) -> str:
        self.made += 1
        return f"new-{self.made}"


def context(host: Host | None = None, operation: str = "add", lag: int = 0) -> EntityContext:
    return EntityContext(host or Host(), operation, b'{"a":[1]}', NOW, lag)


def sent(context: EntityContext) -> list[tuple[int | None, str, Message]]:
    return decided(context).outgoing or []


def test_it_says_where_and_when_the_operation_runs() -> None:
    one = context()

    assert (str(one.entity_id), one.key, one.operation_name) == ("@counter@a", "a", "add")
    assert one.current_utc_datetime == datetime(2024, 2, 29, 12, tzinfo=UTC)


def test_a_signal_waits_until_the_operation_has_succeeded() -> None:
    one = context()
    id = EntityId[Any]("Counter", "b")

    one.signal_entity(id, Counter.add, 5)
    one.signal_entity(id, "reset")

    [(due, target, first), (_, _, second)] = sent(one)
    assert (due, target) == (None, "@counter@b")
    assert isinstance(first, Operation)
    assert isinstance(second, Operation)
    assert (first.name, first.input, first.call) == ("add", b"5", False)
    assert (second.name, second.input) == ("reset", None)


@pytest.mark.parametrize(
    ("at", "due"),
    [
        (timedelta(seconds=2), NOW + 2 * SECOND - 7),
        (0.5, NOW + SECOND // 2 - 7),
        (datetime(2024, 2, 29, 13, tzinfo=UTC), NOW + 3_600 * SECOND),
    ],
)
def test_what_is_due_after_a_while_is_due_by_the_clock_and_a_time_as_it_is(
    at: Any, due: int
) -> None:
    one = context(lag=7)

    one.signal_entity(EntityId("counter", "b"), "reset", at=at)

    assert sent(one)[0][0] == due


@pytest.mark.parametrize(
    ("id", "op", "input", "at", "error"),
    [
        ("@counter@b", "add", 5, None, UsageError),
        (EntityId("nothing", "b"), "add", 5, None, UnknownNameError),
        (EntityId("counter", "b"), "nothing", 5, None, UnknownNameError),
        (EntityId("counter", "b"), Counter.add, "x", None, PayloadError),
        (EntityId("counter", "b"), "add", 5, -1, InvalidTimeError),
    ],
    ids=range(5),
)
def test_a_signal_that_could_not_arrive_is_refused_with_nothing_sent(
    id: Any, op: Any, input: Any, at: Any, error: type[Exception]
) -> None:
    one = context()

    with pytest.raises(error):
        one.signal_entity(id, op, input, at=at)

    assert sent(one) == []


def test_an_orchestration_is_started_under_its_id_or_one_that_is_made() -> None:
    one = context()

    assert one.start_new(flow, 5) == "new-1"
    assert one.start_new("flow", 6, instance_id="mine", version="2") == "mine"

    [(due, first_id, first), (_, second_id, second)] = sent(one)
    assert (due, first_id, second_id) == (None, "new-1", "mine")
    assert isinstance(first, Start)
    assert isinstance(second, Start)
    assert (first.name, first.version, first.input) == ("flow", "2", b"5")
    assert second.input == b"6"


@pytest.mark.parametrize(
    ("f", "input", "options", "error"),
    [
        ("nothing", 5, {}, UnknownNameError),
        (flow, 5, {"version": "9"}, UnknownNameError),
        (flow, "x", {}, PayloadError),
        (flow, 5, {"instance_id": "@a"}, InvalidIdError),
        (flow, 5, {"instance_id": ""}, InvalidIdError),
    ],
    ids=range(5),
)
def test_a_start_that_could_not_be_is_refused_with_nothing_sent(
    f: Any, input: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    one = context()

    with pytest.raises(error):
        one.start_new(f, input, **options)

    assert sent(one) == []


def test_a_commutative_operation_has_no_state_of_which_to_delete_the_whole() -> None:
    with pytest.raises(UsageError, match="is commutative, so it cannot delete"):
        context(Host("stripes"), "add").delete()
    for one in (context(Host("stripes"), "reset"), context(Host(), "add")):
        one.delete()
        assert decided(one).deleted


def test_the_input_is_read_as_what_is_asked_for() -> None:
    one = context()

    assert one.get_input() == {"a": [1]}
    assert one.get_input(dict[str, list[int]]) == {"a": [1]}
    with pytest.raises(PayloadError):
        one.get_input(int)
    with pytest.raises(UsageError, match="data_type must be a type"):
        one.get_input(5)
    assert EntityContext(Host(), "add", None, NOW, 0).get_input(int) is None


def test_a_state_is_made_where_there_is_none() -> None:
    host = Host()
    one = context(host)

    assert one.get_state() is None
    state = one.get_state(dict[str, int])
    state["a"] = 1
    assert one.get_state(list[int]) is state is host.state
    one.set_state(None)
    assert host.state is None
    with pytest.raises(UsageError, match="initializer must be a function"):
        one.get_state({})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_nothing_of_it_is_of_use_after_the_operation() -> None:
    one = context()
    end(one)

    for use in (
        lambda: one.signal_entity(EntityId[Any]("counter", "b"), "reset"),
        lambda: one.start_new(flow, 5),
        one.delete,
        one.get_state,
        lambda: one.set_state(1),
        lambda: one.set_result(1),
    ):
        with pytest.raises(UsageError, match=f"add of entity '@counter@a' was used at {__file__}:"):
            use()
    assert sent(one) == []


def test_the_result_is_the_last_that_was_set() -> None:
    one = context()
    one.set_result(1)
    one.set_result(2)

    assert decided(one).result == 2
