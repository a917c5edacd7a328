from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import attrs
import pytest
from hypothesis import given, strategies as st

from perdure.actors.contexts.marks import readonly
from perdure.actors.errors import RegistrationError, UnknownNameError
from perdure.actors.registry.app import App
from perdure.actors.registry.definitions import (
    EntityDefinition,
    operation_of,
)

if TYPE_CHECKING:
    from perdure.actors.contexts.entity import EntityContext

CONTEXT: Any = "the context"


@attrs.define
class Order:
    number: int


def entity(cls: Any) -> EntityDefinition:
    app = App()
    app.entity(cls)
    return app.registry.find_entity(cls.__name__)


app = App()


@app.entity
class Counter:
    limit: ClassVar[int] = 100
    value: int = 0
    log: list[int] = []
    table: dict[str, list[int]] = {"a": [1]}

    def add(self, amount: int = 1) -> int:
        self.value += amount
        self.log.append(amount)
        return self.value

    @readonly
    def get(self) -> int:
        return self.value

    async def slow(self, text: str) -> str:
        return text

    def push(self, number: int, context: EntityContext) -> Any:
        return (self, number, context)

    def poke(self, context: EntityContext | None = None) -> Any:
        return (self, context)

    def turned(self, context: EntityContext, number: int) -> Any:
        return (self, context, number)

    @property
    def double(self) -> int:
        return self.value * 2

    @staticmethod
    def helper(a: int, b: int) -> int:
        return a + b

    @classmethod
    def build(cls) -> Counter:
        return cls()

    def _private(self, a: int, b: int) -> int:
        return a + b


counter = app.registry.find_entity("counter")


def test_public_methods_are_the_operations_and_nothing_else() -> None:
    assert list(counter.operations) == ["add", "get", "slow", "push", "poke", "turned", "delete"]


def test_an_operation_is_found_by_name_and_by_method() -> None:
    assert operation_of(counter, "add") is counter.operations["add"]
    assert operation_of(counter, Counter.add) is counter.operations["add"]
    assert operation_of(counter, Counter().add) is counter.operations["add"]


def test_an_unknown_operation_suggests_names_like_it() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'slow'"):
        operation_of(counter, "slo")


def test_a_function_that_is_no_operation_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="add, get"):
        operation_of(counter, Counter._private)


def test_each_order_of_input_and_context_reaches_its_parameter_of_a_method() -> None:
    this = Counter()

    def call(name: str) -> Any:
        return counter.operations[name].invoke(this, 5, CONTEXT)

    assert call("push") == (this, 5, CONTEXT)
    assert call("turned") == (this, CONTEXT, 5)
    assert call("poke") == (this, CONTEXT)
    assert call("add") == 5
    assert call("get") == 5


def test_an_operation_says_what_it_takes() -> None:
    operations = counter.operations

    assert [name for name in operations if operations[name].takes_context] == [
        "push",
        "poke",
        "turned",
        "delete",
    ]
    assert [name for name in operations if operations[name].readonly] == ["get"]
    assert [name for name in operations if operations[name].is_async] == ["slow"]
    assert [name for name in operations if operations[name].required] == ["slow", "push", "turned"]


def test_every_entity_can_be_deleted() -> None:
    class Deleting:
        deleted = False

        def delete(self) -> None:
            self.deleted = True

    context = Deleting()

    counter.operations["delete"].invoke(Counter(), None, context)

    assert context.deleted


def test_a_delete_of_its_own_is_kept() -> None:
    class Own:
        def delete(self) -> str:
            return "own"

    definition = entity(Own)

    assert definition.operations["delete"].invoke(definition.make(), None, CONTEXT) == "own"


def test_a_literal_as_default_is_a_fresh_one_for_each_entity() -> None:
    first, second = counter.make(), counter.make()

    first.log.append(1)
    first.table["a"].append(2)

    assert (second.log, second.table) == ([], {"a": [1]})


def test_annotated_fields_are_the_state_and_class_variables_are_not() -> None:
    assert counter.state.encode(counter.make()) == b'{"value":0,"log":[],"table":{"a":[1]}}'


def test_setting_what_is_not_declared_is_an_error() -> None:
    undeclared = "cache"

    with pytest.raises(AttributeError):
        setattr(counter.make(), undeclared, 1)


@given(st.integers(-(2**63), 2**64 - 1), st.lists(st.integers(0, 9)))
def test_a_state_is_read_as_it_was_written(value: int, log: list[int]) -> None:
    this = Counter()
    this.value, this.log = value, log

    assert counter.state.decode(counter.state.encode(this)) == this


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9), min_size=1))
def test_restoring_undoes_what_operations_did_since(before: list[int], after: list[int]) -> None:
    this = Counter()
    for amount in before:
        this.add(amount)
    kept = counter.state.encode(this)

    token = counter.take(this)
    for amount in after:
        this.add(amount)
        this.table["a"].append(amount)
    counter.restore(this, token)

    assert counter.state.encode(this) == kept


class Plain:
    name: str = "plain"
    tags: list[str] = ["x"]

    def shout(self) -> str:
        return self.name.upper()

    def quiet(self) -> str:
        return self.name.lower()


def test_fields_and_operations_are_inherited_from_a_plain_class() -> None:
    class Derived(Plain):
        size: int = 1

        def shout(self) -> str:
            return "derived " + super().shout()

    definition = entity(Derived)
    this = definition.make()
    this.tags.append("y")

    assert definition.state.encode(definition.make()) == (b'{"name":"plain","tags":["x"],"size":1}')
    assert list(definition.operations) == ["shout", "quiet", "delete"]
    assert definition.operations["shout"].invoke(this, None, None) == "derived PLAIN"


def test_a_method_of_a_base_class_stands_for_the_one_that_overrides_it() -> None:
    class Derived(Plain):
        def shout(self) -> str:
            return "derived"

    definition = entity(Derived)

    assert operation_of(definition, Plain.shout) is definition.operations["shout"]
    assert definition.operations["shout"].invoke(definition.make(), None, None) == "derived"


def test_fields_are_inherited_from_an_entity() -> None:
    class Derived(Counter):
        more: int = 5

    definition = entity(Derived)

    assert definition.state.encode(definition.make()) == (
        b'{"value":0,"log":[],"table":{"a":[1]},"more":5}'
    )


def test_fields_are_inherited_from_a_dataclass() -> None:
    @dataclasses.dataclass
    class Base:
        items: list[int] = dataclasses.field(default_factory=lambda: [1])
        number: int = dataclasses.field(default=2)

    class Derived(Base):
        more: int = dataclasses.field(default=3)

    definition = entity(Derived)

    assert definition.state.encode(definition.make()) == b'{"items":[1],"number":2,"more":3}'
    assert definition.make().items is not definition.make().items


@attrs.define(slots=False)
class ReadyAttrs:
    value: int = attrs.field(default=1, validator=attrs.validators.ge(0))


@dataclasses.dataclass
class ReadyDataclass:
    value: int = 1


@pytest.mark.parametrize("cls", [ReadyAttrs, ReadyDataclass])
def test_an_attrs_class_or_dataclass_is_taken_as_it_is(cls: type) -> None:
    local = App()

    assert local.entity(cls) is cls
    definition = local.registry.find_entity(cls.__name__)
    assert definition.state.encode(definition.make()) == b'{"value":1}'


def test_a_field_declared_with_attrs_keeps_its_options() -> None:
    class Checked:
        value: int = attrs.field(default=1, validator=attrs.validators.ge(0))

    this = entity(Checked).make()

    with pytest.raises(ValueError, match="must be >= 0"):
        this.value = -1


def test_a_field_without_default_begins_with_the_obvious_zero() -> None:
    class Zeros:
        a: int
        b: float
        c: str
        d: bool
        e: bytes
        f: list[int]
        g: dict[str, int]
        h: set[int]
        i: tuple[int, ...]
        j: datetime | None
        k: Annotated[int, "noted"]
        m: Any

    definition = entity(Zeros)

    assert attrs.astuple(definition.make()) == (
        *(0, 0.0, "", False, b"", [], {}, set[int](), (), None, 0, None),
    )
    assert definition.make().f is not definition.make().f


def test_a_required_field_of_a_ready_class_begins_with_the_obvious_zero() -> None:
    @attrs.define
    class Ready:
        _hidden: int
        items: list[int]

    definition = entity(Ready)

    assert definition.make() == Ready(0, [])


def test_a_mutable_object_as_default_is_not_shared() -> None:
    class Holder:
        order: Order = Order(1)

    definition = entity(Holder)

    assert definition.make().order == Order(1)
    assert definition.make().order is not definition.make().order


class NoDefault:
    when: datetime


class BadDefault:
    value: int = "x"  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


class BadField:
    value: complex = 1j


class BadOperation:
    def add(self, a: int, b: int) -> None: ...


class NoSelf:
    def add() -> None: ...  # type: ignore[misc] # pyright: ignore[reportSelfClsParameterName]


class GeneratorOperation:
    def each(self) -> Iterator[int]:
        yield 1


class Unannotated:
    value = 0


class Undeclared:
    LIMIT = 5
    value: int = 0

    def add(self, amount: int) -> None:
        self.value = amount
        self.total = amount


class BadInit:
    def __init__(self, value: int) -> None: ...


class Unresolved:
    value: Missing = 0  # type: ignore[name-defined] # pyright: ignore[reportUndefinedVariable] # noqa: F821


class BadVersion:
    schema_version: ClassVar[Any] = "2"


@attrs.frozen
class Frozen:
    value: int = 0

    def add(self) -> None: ...


@pytest.mark.parametrize(
    ("cls", "advice"),
    [
        (NoDefault, "give it a default"),
        (BadDefault, "does not fit"),
        (BadField, "complex"),
        (BadOperation, "operation 'add' of entity 'badoperation' takes at most one input"),
        (NoSelf, "takes no self"),
        (GeneratorOperation, "generator"),
        (BadInit, "has an __init__"),
        (Unannotated, r"write value: int = \.\.\. for state"),
        (Undeclared, r"add of entity class Undeclared sets self\.total"),
        (Unresolved, "value: Missing"),
        (BadVersion, "schema_version"),
        (Frozen, "frozen"),
    ],
)
def test_a_class_that_can_be_no_entity_is_refused_with_the_reason(cls: type, advice: str) -> None:
    with pytest.raises(RegistrationError, match=advice):
        entity(cls)


def test_an_older_state_goes_through_the_class_method_upgrade() -> None:
    class Versioned:
        schema_version: ClassVar[int] = 2
        total: int = 0

        @classmethod
        def upgrade(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
            return {"total": state["count"] * 10 + version}

    definition = entity(Versioned)

    assert definition.state.decode(b'{"count":4}').total == 41
    assert definition.state.encode(definition.make()) == b'{"$schema":2,"total":0}'
    assert "upgrade" not in definition.operations


def test_a_class_local_to_a_function_may_name_other_local_classes() -> None:
    @attrs.define
    class Part:
        number: int = 0

    local = App()

    @local.entity
    class Whole:
        part: Part = Part()
        parts: list[Part] = []

        def put(self, part: Part) -> Whole:
            self.parts.append(part)
            return self

    definition = local.registry.find_entity("whole")
    operation = operation_of(definition, Whole.put)
    value = operation.decode_input(operation.encode_input(True, Part(3)))

    assert operation.invoke(definition.make(), value, None).parts == [Part(3)]


def test_a_class_entity_knows_no_dynamic_operation() -> None:
    assert counter.dynamic_operation("anything") is None
