from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, strategies as st

from perdure.actors.errors import PayloadError, RegistrationError, UnknownNameError, UsageError
from perdure.actors.registry.app import App
from perdure.actors.registry.definitions import (
    ActivityDefinition,
    EntityDefinition,
    OrchestrationDefinition,
    operation_of,
)
from perdure.actors.registry.functions import define_activity, define_orchestration

if TYPE_CHECKING:
    import perdure.actors.contexts.orchestration as perdure_context
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


# Entities that are functions.


app = App()


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
