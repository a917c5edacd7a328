from __future__ import annotations

from contextvars import ContextVar, copy_context
from datetime import date
from typing import Any

import pytest

from perdure import App, EntityContext, OrchestrationContext
from perdure.actors.errors import (
    PayloadError,
    PayloadTooLargeError,
    UnknownNameError,
    UsageError,
)
from perdure.actors.ids import EntityId
from perdure.actors.registry.lookup import Lookup
from perdure.actors.registry.outside import INSIDE
from perdure.actors.values import MISSING

USER: ContextVar[str] = ContextVar("user")
OTHER: ContextVar[str] = ContextVar("other", default="nobody")

app = App(context_vars=[USER])


@app.activity
def dated(day: date) -> None: ...


@app.activity
def alone() -> None: ...


@app.activity
def counted(number: int) -> None: ...


@app.activity
def optional(number: int = 7) -> None: ...


@app.orchestration
async def flow(ctx: OrchestrationContext, input: int) -> None: ...


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount


@app.entity
def tally(context: EntityContext) -> None: ...


@pytest.fixture
def lookup() -> Lookup:
    return Lookup(app, 20)


def encoded(lookup: Lookup, function: Any, *given: Any) -> bytes | None:
    definition = lookup.registry.find_activity(function)
    return lookup.encode_input(definition, given[0] if given else MISSING, function)


def test_an_operation_is_found_by_its_method_and_by_its_name(lookup: Lookup) -> None:
    id = EntityId[Any]("counter", "a")

    for _ in range(2):
        assert lookup.find_operation(id, Counter.add) is lookup.find_operation(id, "add")
    with pytest.raises(UnknownNameError):
        lookup.find_operation(EntityId("nothing", "a"), "add")
    with pytest.raises(UnknownNameError):
        lookup.find_operation(id, "nothing")
    with pytest.raises(UsageError, match="must be an EntityId"):
        lookup.find_operation("@counter@a", "add")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_an_input_is_encoded_as_its_parameter_wants_it(lookup: Lookup) -> None:
    assert encoded(lookup, dated, date(2024, 2, 29)) == b'"2024-02-29"'
    assert encoded(lookup, counted, 5) == b"5"
    assert encoded(lookup, optional) is None
    assert encoded(lookup, alone) is None
    assert encoded(lookup, alone, None) is None
    with pytest.raises(UsageError):
        encoded(lookup, counted)
    with pytest.raises(UsageError):
        encoded(lookup, alone, 5)


def test_who_has_the_name_alone_may_give_plain_json(lookup: Lookup) -> None:
    assert encoded(lookup, "dated", "2024-02-29") == b'"2024-02-29"'
    assert encoded(lookup, "dated", date(2024, 2, 29)) == b'"2024-02-29"'
    for called, input in ((dated, "2024-02-29"), ("dated", "soon"), ("dated", [1]), (dated, 5)):
        with pytest.raises(PayloadError, match="the input of activity 'dated', at"):
            encoded(lookup, called, input)
    with pytest.raises(PayloadError, match="the input of activity 'counted', at"):
        encoded(lookup, "counted", (1,))  # no JSON value


def test_an_input_that_is_too_large_is_refused_with_what_it_is_for(lookup: Lookup) -> None:
    id = EntityId[Any]("tally", "a")
    operation = lookup.find_operation(id, "anything")

    assert lookup.encode_input(operation, "x" * 18) == b'"%b"' % (b"x" * 18)
    with pytest.raises(PayloadTooLargeError, match="at the input of anything: 21 bytes"):
        lookup.encode_input(operation, "x" * 19)
    with pytest.raises(PayloadTooLargeError, match="at the data: 21 bytes"):
        lookup.encode_any("x" * 19)
    assert lookup.encode_any({"a": (1,)}) == b'{"a":[1]}'
    assert lookup.check_size(b"x" * 20, "it") == b"x" * 20


def test_an_instance_has_a_context_of_its_own_with_what_came_along(lookup: Lookup) -> None:
    definition = lookup.registry.find_orchestration(flow)

    one = lookup.new_context(definition, {"user": "ada", "gone": "x"})
    other = lookup.new_context(definition)

    assert one.run(INSIDE.get) is other.run(INSIDE.get) is definition
    assert (one.run(USER.get, None), other.run(USER.get, None)) == ("ada", None)
    one.run(OTHER.set, "changed")
    assert other.run(OTHER.get) == "nobody"
    assert INSIDE.get() is None


def test_what_goes_along_is_what_the_callers_context_holds(lookup: Lookup) -> None:
    def run() -> Any:
        USER.set("ada")
        OTHER.set("is not declared")
        return lookup.carry()

    assert copy_context().run(run) == {"user": "ada"}
    assert copy_context().run(lookup.carry) is None
    assert Lookup(App(), 20).carry() is None
