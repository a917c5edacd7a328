from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn, Optional

import attrs
import pytest
from hypothesis import given, strategies as st

from perdure.actors.contexts.marks import readonly
from perdure.actors.errors import PayloadError, RegistrationError, UnknownNameError, UsageError
from perdure.actors.registry.app import App
from perdure.actors.registry.definitions import (
    ActivityDefinition,
    EntityDefinition,
    OrchestrationDefinition,
    operation_of,
)
from perdure.actors.registry.functions import define_activity, define_orchestration
from perdure.actors.registry.signatures import is_context

if TYPE_CHECKING:
    import perdure.actors.contexts.orchestration as perdure_context
    from perdure.actors.contexts.activity import ActivityContext
    from perdure.actors.contexts.entity import EntityContext
    from perdure.actors.contexts.orchestration import OrchestrationContext

CONTEXT: Any = "the context"


def activity(function: Callable[..., Any]) -> ActivityDefinition:
    return define_activity(function, name="act")


def orchestration(function: Callable[..., Any]) -> OrchestrationDefinition:
    return define_orchestration(function, name="orch")


def entity(cls: Any) -> EntityDefinition:
    app = App()
    app.entity(cls)
    return app.registry.find_entity(cls.__name__)


# Arguments of activities.


def test_each_order_of_context_and_input_reaches_its_parameter() -> None:
    def none() -> Any:
        return ()

    def only_input(number: int) -> Any:
        return (number,)

    def only_context(context: ActivityContext) -> Any:
        return (context,)

    def context_first(context: ActivityContext, number: int) -> Any:
        return (context, number)

    def context_last(number: int, context: ActivityContext) -> Any:
        return (number, context)

    functions: list[Callable[..., Any]] = [
        none,
        only_input,
        only_context,
        context_first,
        context_last,
    ]

    passed = [activity(function).invoke(CONTEXT, 5) for function in functions]

    assert passed == [(), (5,), (CONTEXT,), (CONTEXT, 5), (5, CONTEXT)]


@pytest.mark.parametrize(
    "annotation",
    [
        "ActivityContext",
        "perdure.ActivityContext",
        "ActivityContext | None",
        "None | perdure.ActivityContext",
        "Optional[ActivityContext]",
        "typing.Optional[perdure.ActivityContext]",
        "'ActivityContext'",
        Optional["ActivityContext"],
    ],
)
def test_a_context_is_known_by_its_class_name(annotation: Any) -> None:
    assert is_context(annotation, "ActivityContext")


@pytest.mark.parametrize(
    "annotation", ["MyActivityContext", "EntityContext", "list[ActivityContext]", int, "str", None]
)
def test_nothing_else_is_a_context(annotation: Any) -> None:
    assert not is_context(annotation, "ActivityContext")


def test_a_resolved_context_class_is_known() -> None:
    from perdure.actors.contexts.entity import EntityContext as Resolved

    assert is_context(Resolved, "EntityContext")
    assert is_context(Resolved | None, "EntityContext")


def two(a: int, b: int) -> None: ...
def starred(*args: int) -> None: ...
def double_starred(**kwargs: int) -> None: ...
def keyword(*, a: int) -> None: ...
def twice(a: ActivityContext, b: ActivityContext) -> None: ...
def generating() -> Iterator[int]:
    yield 1


async def async_generating() -> AsyncIterator[int]:
    yield 1


def unencodable(a: complex) -> None: ...
def unencodable_result() -> complex:
    return 1j


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (two, "attrs class or a dataclass"),
        (starred, "attrs class or a dataclass"),
        (double_starred, "attrs class or a dataclass"),
        (keyword, "keyword-only"),
        (twice, "context twice"),
        (generating, "generator"),
        (async_generating, "async generator"),
        (unencodable, "the input of activity 'act'"),
        (unencodable_result, "the result of activity 'act'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_activity_of_another_shape_is_refused_with_advice(
    function: Callable[..., Any], advice: str
) -> None:
    with pytest.raises(RegistrationError, match=advice):
        activity(function)


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    def bad(value: Missing) -> None: ...  # type: ignore[name-defined] # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType] # noqa: F821

    with pytest.raises(RegistrationError, match="value: Missing"):
        activity(bad)  # pyright: ignore[reportUnknownArgumentType]


@pytest.mark.parametrize("text", ["int if", "int.more", "1 / 0", "list[int"])
def test_an_annotation_that_is_no_type_is_refused_wherever_it_stands(text: str) -> None:
    body: dict[str, Any] = {"__annotations__": {"value": text}, "__module__": __name__, "value": 0}

    def takes(value: Any) -> None: ...

    for annotation in (
        text,
        attrs.define(type("A", (), body)),
        dataclasses.dataclass(type("D", (), body)),
    ):
        takes.__annotations__["value"] = annotation
        with pytest.raises(RegistrationError, match="is no type: "):
            activity(takes)
    with pytest.raises(RegistrationError, match="an annotation of E is no type: "):
        entity(type("E", (), body))


def test_a_class_local_to_the_caller_is_resolved() -> None:
    @attrs.define
    class Local:
        number: int

    app = App()

    @app.activity
    def use(value: Local) -> Local:
        return value

    definition = app.registry.find_activity(use)

    assert definition.decode_input(b'{"number":1}') == Local(1)


def test_an_activity_is_async_if_what_it_wraps_is() -> None:
    async def inner(number: int) -> int:
        return number

    @functools.wraps(inner)
    def wrapper(*args: Any) -> Any:
        return inner(*args)

    def plain(number: int) -> Awaitable[int]:
        return inner(number)

    def sync(number: int) -> int:
        return number

    assert [activity(f).is_async for f in (inner, wrapper, plain, sync)] == [
        True,
        True,
        True,
        False,
    ]


def test_the_result_of_an_awaitable_is_what_is_encoded() -> None:
    def plain() -> Awaitable[int]:
        raise NotImplementedError

    assert activity(plain).output.annotation is int


def test_a_function_that_never_returns_may_be_registered() -> None:
    def never() -> NoReturn:
        raise ValueError

    assert activity(never).output.is_any


# Inputs.


@attrs.define
class Order:
    number: int


def required(order: Order) -> None: ...
def optional(number: int = 7) -> None: ...
def nullable(number: int | None) -> None: ...
def without() -> None: ...


@given(st.integers(-(2**63), 2**63))
def test_an_input_is_read_as_it_was_given(number: int) -> None:
    definition = activity(required)

    assert definition.decode_input(definition.encode_input(True, Order(number))) == Order(number)


def test_a_missing_input_is_the_parameters_default() -> None:
    definition = activity(optional)

    data = definition.encode_input(False, None)

    assert data is None
    assert definition.decode_input(data) == 7


def test_a_missing_required_input_is_refused_on_both_sides() -> None:
    definition = activity(required)

    with pytest.raises(UsageError, match="activity 'act' needs an input"):
        definition.encode_input(False, None)
    with pytest.raises(UsageError, match="activity 'act' needs an input"):
        definition.decode_input(None)


def test_none_is_an_input_like_others() -> None:
    definition = activity(nullable)

    data = definition.encode_input(True, None)

    assert data == b"null"
    assert definition.decode_input(data) is None


def test_none_is_no_missing_input() -> None:
    with pytest.raises(PayloadError):
        activity(optional).encode_input(True, None)


def test_an_input_of_another_type_is_refused_at_the_call() -> None:
    with pytest.raises(PayloadError):
        activity(optional).encode_input(True, "7")


def test_an_input_for_what_takes_none_is_refused_unless_it_is_none() -> None:
    definition = activity(without)

    assert definition.encode_input(True, None) is None
    with pytest.raises(UsageError, match="takes no input"):
        definition.encode_input(True, 5)


# Orchestrations.


async def async_form(context: OrchestrationContext, number: int) -> int:
    return number


def generator_form(
    context: perdure_context.OrchestrationContext, number: int
) -> Generator[Any, Any, str]:
    yield context
    return str(number)


def iterator_form(context: OrchestrationContext, number: int) -> Iterator[Any]:
    yield number


def plain_form(context, number=3):  # type: ignore[no-untyped-def] # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
    return number


async def only_context(context: OrchestrationContext) -> None: ...


FORMS: list[tuple[Callable[..., Any], str, Any]] = [
    (async_form, "async", int),
    (generator_form, "generator", str),
    (iterator_form, "generator", Any),
    (plain_form, "plain", Any),
    (only_context, "async", type(None)),
]


@pytest.mark.parametrize(("function", "form", "output"), FORMS, ids=range(5))
def test_each_form_of_orchestration_is_known_with_its_result(
    function: Callable[..., Any], form: str, output: Any
) -> None:
    definition = orchestration(function)

    assert (definition.form, definition.output.annotation) == (form, output)


def test_an_orchestration_is_called_with_context_and_input() -> None:
    definition = orchestration(plain_form)  # pyright: ignore[reportUnknownArgumentType]

    assert definition.invoke(CONTEXT, definition.decode_input(None)) == 3


async def asks_for_it(context: OrchestrationContext) -> Any:
    return context.get_input()


async def passes_it_on(context: OrchestrationContext) -> Any:
    return str(context)


async def has_a_branch(context: OrchestrationContext) -> Any:
    return (lambda: context.instance_id)()


@pytest.mark.parametrize("function", [asks_for_it, passes_it_on, has_a_branch])
def test_an_orchestration_that_may_ask_for_its_input_is_given_any(function: Any) -> None:
    definition = orchestration(function)

    data = definition.encode_input(True, {"a": [1]})

    assert definition.decode_input(data) == {"a": [1]}
    assert definition.encode_input(False, None) is None


def test_an_input_that_an_orchestration_cannot_take_is_refused_at_the_call() -> None:
    definition = orchestration(only_context)

    with pytest.raises(UsageError, match="takes no input, but 5 was given"):
        definition.encode_input(True, 5)
    assert definition.encode_input(True, None) is None
    definition.invoke(CONTEXT, None).close()


def no_context() -> None: ...
async def three(context: OrchestrationContext, a: int, b: int) -> None: ...
async def async_generator(context: OrchestrationContext) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (no_context, "must take an OrchestrationContext"),
        (three, "attrs class or a dataclass"),
        (async_generator, "async generator"),
        (functools.partial(async_form, number=1), "must be a function"),
    ],
    ids=range(4),
)
def test_an_orchestration_of_another_shape_is_refused_with_advice(
    function: Callable[..., Any], advice: str
) -> None:
    with pytest.raises(RegistrationError, match=advice):
        orchestration(function)


# Entities.

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


# Entities that are functions.


@app.entity
def tally(context: EntityContext) -> Any:
    return context


def test_a_function_entity_takes_every_operation() -> None:
    definition = app.registry.find_entity("tally")

    operation = operation_of(definition, "anything")

    assert (operation.name, operation.takes_context) == ("anything", True)
    assert operation.invoke(None, None, CONTEXT) == CONTEXT
    assert operation.encode_input(True, [1]) == b"[1]"
    assert operation.encode_input(False, None) is None


def test_a_function_entity_takes_more_operations_than_it_keeps() -> None:
    definition = app.registry.find_entity("tally")

    names = [operation_of(definition, str(number)).name for number in range(1000)]

    assert names == [str(number) for number in range(1000)]


def test_a_function_entity_begins_without_state_and_keeps_any_json() -> None:
    definition = app.registry.find_entity("tally")

    assert definition.is_function
    assert definition.make() is None
    assert definition.state.decode(definition.state.encode({"a": [1]})) == {"a": [1]}


def test_an_operation_of_a_function_entity_is_named_by_a_string() -> None:
    with pytest.raises(UnknownNameError, match="as a string"):
        operation_of(app.registry.find_entity("tally"), tally)


def test_a_function_entity_that_takes_an_input_is_refused() -> None:
    def bad(context: EntityContext, number: int) -> None: ...

    with pytest.raises(RegistrationError, match="get_input"):
        App().entity(bad)


def test_a_class_entity_knows_no_dynamic_operation() -> None:
    assert counter.dynamic_operation("anything") is None
