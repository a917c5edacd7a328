from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
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
from perdure.actors.registry.signatures import (
    Signature,
    attributes_set,
    codec_of,
    function_caller,
    is_async,
    is_context,
    may_get_input,
    method_caller,
    output_codec,
    plain_function,
    read_signature,
    refuse_generators,
)

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


class Caller:
    def __call__(self, number: int, context: ActivityContext) -> str:
        return f"{number}{context}"

    async def later(self, number: int) -> str:
        return str(number)


def read(function: Any, **options: Any) -> Signature:
    given: dict[str, Any] = {"names": {}, "context_first": False, **options}
    return read_signature(function, "it", "ActivityContext", **given)


def test_a_signature_is_what_a_function_takes_and_gives() -> None:
    def work(number: int, context: ActivityContext, /) -> list[str]:
        raise NotImplementedError

    def free(anything=5): ...  # type: ignore[no-untyped-def] # pyright: ignore[reportMissingParameterType]

    whole = read(work)
    loose = read(free)

    assert whole == Signature(("input", "context"), int, attrs.NOTHING, list[str])
    assert (whole.takes_input, whole.takes_context, whole.required) == (True, True, True)
    assert loose == Signature(("input",), Any, 5, Any)
    assert (loose.takes_context, loose.required) == (False, False)


def test_partials_and_objects_that_can_be_called_are_read_by_what_they_call() -> None:
    def work(number: int, factor: int = 1) -> str:
        return str(number * factor)

    assert read(Caller()).order == ("input", "context")
    assert read(Caller().later).output is str
    assert read(functools.partial(work, factor=2)).order == ("input",)
    assert plain_function(functools.partial(functools.partial(work), 1)) is work
    assert plain_function(Caller()) is Caller.__call__
    assert plain_function(len) is len


def named_only(*, a: int) -> None: ...
def any_number(*a: int) -> None: ...
def any_names(**a: int) -> None: ...
def two_inputs(a: int, b: int) -> None: ...


NO_FUNCTIONS: list[tuple[Any, ...]] = [
    (named_only, "it has the keyword-only parameter 'a'"),
    (any_number, r"it has \*args or \*\*kwargs, but takes at most one input"),
    (any_names, r"it has \*args or \*\*kwargs"),
    (two_inputs, "it takes at most one input besides its context"),
    (5, "it has no signature to read"),
]


@pytest.mark.parametrize(
    ("function", "reason"),
    NO_FUNCTIONS,
    ids=range(5),
)
def test_what_takes_something_else_is_refused(function: Any, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason):
        read(function)


def first_is_int(number: int) -> None: ...
def first_is_free(ctx: Any, number: int) -> None: ...
def first_is_bare(ctx, number: int) -> None: ...  # type: ignore[no-untyped-def] # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
def first_is_context(ctx: ActivityContext) -> None: ...
def two_contexts(one: ActivityContext, two: ActivityContext) -> None: ...


def test_where_a_context_comes_first_it_need_not_be_annotated_but_not_as_another() -> None:
    assert read(first_is_free, context_first=True).order == ("context", "input")
    assert read(first_is_bare, context_first=True).order == ("context", "input")
    assert read(first_is_context, context_first=True).order == ("context",)
    with pytest.raises(RegistrationError, match=r"write \(ctx: ActivityContext, number: int\)"):
        read(first_is_int, context_first=True)
    with pytest.raises(RegistrationError, match="takes its context twice"):
        read(two_contexts)


@pytest.mark.parametrize(
    "order", [("context", "input"), ("input", "context"), ("context",), ("input",), ()]
)
def test_what_is_wanted_is_passed_in_its_order(order: tuple[str, ...]) -> None:
    def take(*given: Any) -> Any:
        return given

    values = {"context": "C", "input": "I"}
    expected = tuple(values[one] for one in order)

    assert function_caller(take, order)("C", "I") == expected
    assert method_caller(take, order)("E", "I", "C") == ("E", *expected)


async def gives_later() -> int:
    return 1


@functools.wraps(gives_later)
def wraps_it() -> Any:
    return gives_later()


def gives_awaitable() -> Awaitable[int]:
    return gives_later()


def test_async_is_what_gives_an_awaitable_however_it_is_written() -> None:
    assert is_async(gives_later, int)
    assert is_async(wraps_it, Any)
    assert is_async(gives_awaitable, Awaitable[int])
    assert not is_async(len, int)


@pytest.mark.parametrize(
    ("annotation", "output"),
    [
        (int, int),
        (Awaitable[int], int),
        (Coroutine[Any, Any, int], int),
        (Generator[Any, Any, int], int),
        (Generator[Any], Any),
        (NoReturn, Any),
        (Any, Any),
    ],
    ids=str,
)
def test_the_result_is_what_comes_in_the_end(annotation: Any, output: Any) -> None:
    assert output_codec(annotation, "it").annotation == output


def test_a_type_without_a_json_form_is_refused_with_the_part_that_has_it() -> None:
    with pytest.raises(RegistrationError, match="the result of it: complex has no JSON form"):
        output_codec(complex, "it")
    with pytest.raises(RegistrationError, match="the input of it: complex has no JSON form"):
        codec_of(complex, "it", "input")


def test_what_yields_is_refused() -> None:
    def steps() -> Iterator[int]:
        yield 1

    async def async_steps() -> AsyncIterator[int]:
        yield 1

    refuse_generators(len, "it")
    with pytest.raises(RegistrationError, match="it is a generator; only orchestrations may"):
        refuse_generators(steps, "it")
    with pytest.raises(RegistrationError, match="it is an async generator"):
        refuse_generators(functools.partial(async_steps), "it")


def asks(ctx: Any) -> Any:
    return ctx.get_input()


def hands_on(ctx: Any) -> Any:
    return asks(ctx)


def keeps(ctx: Any) -> Any:
    other = ctx
    return other.name


def holds(ctx: Any) -> Any:
    return lambda: ctx


def uses(ctx: Any) -> Any:
    ctx.set_custom_status(ctx.name)
    return ctx.instance_id


def takes_two(ctx: Any, other: Any = None) -> Any:
    return other, ctx


def uses_not(ctx: Any) -> int:
    return 5


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (asks, True),
        (hands_on, True),
        (keeps, True),
        (holds, True),
        (takes_two, True),
        (uses, False),
        (uses_not, False),
    ],
)
def test_an_orchestration_may_ask_for_its_input_unless_all_its_code_does_is_something_else(
    function: Any, expected: bool
) -> None:
    assert may_get_input(function) is expected


class Setting:
    one: int
    two: int

    def both(self, value: int) -> None:
        self.one = self.two = value
        self.three = [value]

    def other(self, other: Any) -> None:
        other.one = 1
        local = self
        local.two = 2

    @staticmethod
    def none() -> None: ...


def test_what_a_method_sets_on_itself_is_known_by_name() -> None:
    assert attributes_set(Setting.both) == {"one", "two", "three"}
    assert attributes_set(Setting.other) == set()
    assert attributes_set(Setting.none) == set()
    assert attributes_set(len) == set()
