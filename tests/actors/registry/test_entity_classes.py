from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import attrs
import pytest
from hypothesis import given, strategies as st

from perdure.actors.contexts.marks import combine, commutative, readonly
from perdure.actors.errors import RegistrationError, UnknownNameError
from perdure.actors.registry.app import App
from perdure.actors.registry.definitions import (
    EntityDefinition,
    operation_of,
)
from perdure.actors.registry.entity_classes import define_entity_class, entity_class

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


def define(cls: type, **options: Any) -> EntityDefinition:
    return define_entity_class(entity_class(cls), name="made", **options)


class Base:
    value: int = 0

    @commutative
    def add(self, amount: int) -> None:
        self.value += amount


class NoMerge(Base):
    pass


class MergesNothing(Base):
    def merge(self) -> None: ...


class MergesTwo(Base):
    def merge(self, other: Any, more: Any) -> None: ...


class MergesInt(Base):
    def merge(self, other: int) -> None: ...


class MergesLater(Base):
    async def merge(self, other: Any) -> None: ...


class MergesAndGives(Base):
    def merge(self, other: Any) -> int:
        return 1


class MergesByYield(Base):
    def merge(self, other: Any) -> Iterator[int]:
        yield 1


class NothingCommutes:
    value: int = 0

    def add(self, amount: int) -> None: ...

    def merge(self, other: Any) -> None: ...


class ReadsAndCommutes:
    value: int = 0

    @commutative
    @readonly
    def get(self) -> int:
        return self.value

    def merge(self, other: Any) -> None: ...


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (NoMerge, "so it needs a method 'def merge"),
        (MergesNothing, "must take self and the other stripe's state, nothing else"),
        (MergesTwo, "takes at most one input"),
        (MergesInt, "its parameter cannot be int"),
        (MergesLater, "merge of entity 'made' must not be async"),
        (MergesAndGives, "changes self and returns None"),
        (MergesByYield, "merge of entity 'made' is a generator"),
        (NothingCommutes, r"none of its operations is marked with @perdure\.commutative"),
        (ReadsAndCommutes, "cannot be readonly and commutative"),
    ],
    ids=range(9),
)
def test_a_striped_entity_is_refused_unless_its_stripes_can_be_merged(
    cls: type, reason: str
) -> None:
    with pytest.raises(RegistrationError, match=reason):
        define(cls, stripes=2)


def test_stripes_are_merged_by_a_method_that_is_no_operation() -> None:
    class Whole(Base):
        def merge(self, other: Base) -> None:
            self.value += other.value

    definition = define(Whole, stripes="auto")

    assert sorted(definition.operations) == ["add", "delete"]
    one, other = definition.make(), definition.make()
    one.value, other.value = 2, 3
    assert definition.merge is not None
    definition.merge(one, other)
    assert one.value == 5
    with pytest.raises(RegistrationError, match="which means something for striped entities only"):
        define(NoMerge)


class Adds:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount

    def reset(self) -> None: ...

    async def slow(self, amount: int) -> None: ...

    @readonly
    def get(self, amount: int) -> int:
        return amount


def combining(operation: Any, function: Any, second: Any = None) -> type:
    mark: Any = combine(operation)
    members = {"fold": mark(function)}
    if second is not None:
        members["again"] = mark(second)
    return type("Made", (Adds,), members)


def total(amounts: list[int]) -> int:
    return sum(amounts)


def of_texts(amounts: list[str]) -> int:
    return len(amounts)


def to_text(amounts: list[int]) -> str:
    return str(amounts)


def of_two(amounts: list[int], more: int) -> int:
    return more


def of_none() -> int:
    return 0


async def later(amounts: list[int]) -> int:
    return 0


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (combining(Adds.add, of_texts), r"gets a list of inputs of .*, list\[int\]"),
        (combining(Adds.add, to_text), "must give an input of .*, int; its result is annotated"),
        (combining(Adds.add, of_two), "takes at most one input"),
        (combining(Adds.add, of_none), "must be a static function that takes one list"),
        (combining(Adds.add, later), "must not be async"),
        (combining(Adds.slow, total), "must not be async"),
        (combining(Adds.reset, total), "must take an input and may not be readonly"),
        (combining(Adds.get, total), "must take an input and may not be readonly"),
        (combining(Adds.add, total, total), "has two combiners; 'again' is one of them"),
        (combining(test_stripes_are_merged_by_a_method_that_is_no_operation, total), "combiner 'f"),
    ],
    ids=range(10),
)
def test_a_combiner_that_does_not_fit_its_operation_is_refused(cls: type, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason):
        define(cls)


def test_a_combiner_is_given_to_its_operation_and_may_be_overridden() -> None:
    combined = define(combining(Adds.add, total))
    overridden = define(type("Over", (combining(Adds.add, total),), {"fold": staticmethod(total)}))

    assert combined.operations["add"].combine is total
    assert combined.operations["reset"].combine is None
    assert overridden.operations["add"].combine is None


class KeepsProperty:
    value: int = 0

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.value


class KeepsMethod:
    value: int = 0

    @functools.lru_cache  # noqa: B019
    def double(self) -> int:
        return 2 * self.value


class Keeper:
    def __set_name__(self, owner: type, name: str) -> None: ...

    def __get__(self, instance: object, owner: type) -> int:
        return 1


class KeepsDescriptor:
    value: int = 0
    double = Keeper()


@attrs.define
class KeepsSlot:
    value: int = 0

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.value


@pytest.mark.parametrize(
    ("cls", "what"),
    [
        (KeepsProperty, "a cached_property"),
        (KeepsMethod, "a cached method"),
        (KeepsDescriptor, "a Keeper, a descriptor that may keep its value in the object"),
        (KeepsSlot, "a slot that is no field"),
    ],
    ids=range(4),
)
def test_what_keeps_a_value_beside_the_fields_is_refused(cls: type, what: str) -> None:
    with pytest.raises(RegistrationError, match=f"'double' of entity class .* is {what}"):
        entity_class(cls)


@pytest.mark.parametrize("version", [0, True, "1", None])
def test_a_schema_version_that_is_none_is_refused(version: Any) -> None:
    cls = type("Made", (), {"__annotations__": {"value": int}, "schema_version": version})

    with pytest.raises(RegistrationError, match="must be an int of at least 1"):
        define(cls)


class Loose:
    anything: Any = {"a": (1, 2)}


def test_a_default_that_any_would_change_is_refused() -> None:
    with pytest.raises(
        RegistrationError, match=r"\$\.anything\.a: a tuple would come back as a li"
    ):
        define(Loose)


def test_a_class_that_cannot_be_made_without_arguments_is_refused() -> None:
    @attrs.define
    class Demanding:
        value: int = 0

        def __attrs_post_init__(self) -> None:
            raise KeyError("no")

    with pytest.raises(RegistrationError, match="cannot be made without arguments: KeyError"):
        define(Demanding)


def test_a_frozen_class_is_refused() -> None:
    with pytest.raises(RegistrationError, match="is frozen, so no operation could change"):
        define(attrs.frozen(type("Made", (), {"__annotations__": {"value": int}, "value": 0})))


SHARED = [1]


@attrs.define
class Shared:
    many: list[int] = attrs.field(default=SHARED)


def test_each_entity_has_a_default_of_its_own() -> None:
    make = define(Shared).make

    assert make().many == SHARED
    assert make().many is not make().many
