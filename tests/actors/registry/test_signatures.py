from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Optional

import attrs
import pytest

from perdure.actors.errors import RegistrationError
from perdure.actors.registry.app import App
from perdure.actors.registry.definitions import (
    ActivityDefinition,
    EntityDefinition,
)
from perdure.actors.registry.functions import define_activity
from perdure.actors.registry.signatures import is_context

if TYPE_CHECKING:
    from perdure.actors.contexts.activity import ActivityContext

CONTEXT: Any = "the context"


def activity(function: Callable[..., Any]) -> ActivityDefinition:
    return define_activity(function, name="act")


def entity(cls: Any) -> EntityDefinition:
    app = App()
    app.entity(cls)
    return app.registry.find_entity(cls.__name__)


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
