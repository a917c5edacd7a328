"""What a function takes and gives: its parameters, their codecs, and how it is called.

Whether a parameter is for the context or for the input goes by its annotation, and where a context
must come first, by its place.
"""

from __future__ import annotations

import collections.abc
import dis
import functools
import inspect
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, Union, cast

import attrs

from ..classes import is_a
from ..codec import Codec, codec_for
from ..errors import RegistrationError
from ..printing import class_name, text_of, type_name

ACTIVITY_CONTEXT = "ActivityContext"
ENTITY_CONTEXT = "EntityContext"
ORCHESTRATION_CONTEXT = "OrchestrationContext"
Names = Mapping[str, Any]

_ONE_INPUT = (
    "takes at most one input besides its context; put several into an attrs class or a dataclass"
)


@attrs.frozen
class Signature:
    """A function's parameters and result, with annotations resolved.

    Attributes:
        order: which arguments it takes, by position: "context" or "input".
        input: the annotation of the input.
        default: what stands for a missing input; ``NOTHING`` if it must be given.
        output: the annotation of the result.
    """

    order: tuple[str, ...]
    input: Any
    default: Any
    output: Any

    @property
    def takes_input(self) -> bool:
        return "input" in self.order

    @property
    def takes_context(self) -> bool:
        return "context" in self.order

    @property
    def required(self) -> bool:
        return self.takes_input and self.default is attrs.NOTHING


def read_signature(
    function: Any, what: str, context: str, names: Names, *, skip: int = 0, context_first: bool
) -> Signature:
    """Read what a function takes.

    Args:
        function: the function.
        what: how to call it in an error.
        context: the class name of its kind of context.
        names: local names that its annotations may use.
        skip: how many parameters to leave out: 1 for ``self``.
        context_first: whether the first parameter is the context whatever its annotation.
    """
    parameters = list(parameters_of(function, what))[skip:]
    resolve = _Resolver(function, what, names)
    order: list[str] = []
    annotation: Any = Any
    default: Any = attrs.NOTHING
    for index, parameter in enumerate(parameters):
        if _is_bound(parameter, function):
            continue
        _check_kind(parameter, what)
        if index == 0 and context_first:
            _check_first(parameter, resolve, what, context)
            order.append("context")
            continue
        if is_context(parameter.annotation, context):
            order.append("context")
            continue
        order.append("input")
        annotation = resolve(parameter.name, parameter.annotation)
        if is_context(annotation, context):
            order[-1], annotation = "context", Any
        elif parameter.default is not parameter.empty:
            default = parameter.default
    if order.count("input") > 1:
        raise RegistrationError(f"{what} {_ONE_INPUT}")
    if order.count("context") > 1:
        raise RegistrationError(f"{what} takes its context twice")
    output = resolve(
        "return", getattr(plain_function(function), "__annotations__", {}).get("return", Any)
    )
    return Signature(tuple(order), annotation, default, output)


def parameters_of(function: Any, what: str) -> Iterable[inspect.Parameter]:
    """Give a function's parameters in order."""
    try:
        return inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise RegistrationError(f"{what} has no signature to read; wrap it in a function") from None


def plain_function(function: Any) -> Any:
    """Give the function that is behind wrappers, partials and objects that can be called."""
    while True:
        inner = inspect.unwrap(function)
        if isinstance(inner, functools.partial):
            inner = inner.func
        elif not inspect.isroutine(inner) and not isinstance(inner, type):
            inner = type(inner).__call__
        if inner is function:
            return function
        function = inner


def _is_bound(parameter: inspect.Parameter, function: Any) -> bool:
    """Whether a partial has given the parameter its value already."""
    return (
        isinstance(function, functools.partial)
        and parameter.kind is parameter.KEYWORD_ONLY
        and parameter.default is not parameter.empty
    )


def _check_first(
    parameter: inspect.Parameter, resolve: Callable[[str, Any], Any], what: str, context: str
) -> None:
    """Refuse a first parameter that is annotated, but not as the context that it will be."""
    if is_context(parameter.annotation, context):
        return
    annotation = resolve(parameter.name, parameter.annotation)
    if is_context(annotation, context) or annotation in (Any, object):
        return
    if isinstance(annotation, type) and not getattr(annotation, "_is_protocol", False):
        raise RegistrationError(
            f"{what} takes its context as its first parameter, but {parameter.name!r} is annotated "
            f"{class_name(annotation)}: write (ctx: {context}, {parameter.name}: "
            f"{class_name(annotation)})"
        )


def _check_kind(parameter: inspect.Parameter, what: str) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise RegistrationError(f"{what} has *args or **kwargs, but {_ONE_INPUT}")
    if parameter.kind is parameter.KEYWORD_ONLY:
        raise RegistrationError(
            f"{what} has the keyword-only parameter {parameter.name!r}, but arguments are passed "
            f"by position; it {_ONE_INPUT}"
        )


class _Resolver:
    """Resolves a function's annotations one by one, so that one bad one spoils no other."""

    def __init__(self, function: Any, what: str, names: Names) -> None:
        self._globals: dict[str, Any] = getattr(plain_function(function), "__globals__", {})
        self._what = what
        self._names = dict(names)

    def __call__(self, name: str, annotation: Any) -> Any:
        if annotation is inspect.Parameter.empty:
            return Any
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints = typing.get_type_hints(holder, self._globals, self._names, include_extras=True)
        except NameError as error:
            raise RegistrationError(
                f"cannot resolve the annotation {name}: {annotation} of {self._what}: {error}; "
                f"define {error.name!r} before the decorator runs and outside of TYPE_CHECKING"
            ) from None
        except Exception as error:  # what a text that is no type raises where it is evaluated
            raise RegistrationError(
                f"the annotation {name}: {annotation} of {self._what} is no type: "
                f"{type_name(error)}: {text_of(error)}"
            ) from None
        return hints[name]


def is_context(annotation: Any, name: str) -> bool:
    """Say whether an annotation, resolved or still a string, is the context class of that name.

    It goes by the name, so that a context imported for type checkers only is recognised.
    """
    if isinstance(annotation, str):
        members = [part.strip() for part in _unquoted(annotation).split("|")]
        return any(member.rpartition(".")[2] == name for member in members)
    if isinstance(annotation, typing.ForwardRef):
        return is_context(annotation.__forward_arg__, name)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return any(is_context(member, name) for member in typing.get_args(annotation))
    return isinstance(annotation, type) and annotation.__name__ == name


def _unquoted(annotation: str) -> str:
    text = annotation.strip().strip("'\"")
    for wrapper in ("typing.Optional[", "Optional["):
        if text.startswith(wrapper):
            text = text[len(wrapper) :].rstrip("]")
    return text


def function_caller(function: Any, order: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    """Give a function of context and input that passes on what is wanted, in order."""
    if order == ("context", "input"):
        return cast("Callable[[Any, Any], Any]", function)
    if order == ("input", "context"):
        return lambda context, input: function(input, context)
    if order == ("context",):
        return lambda context, input: function(context)
    if order == ("input",):
        return lambda context, input: function(input)
    return lambda context, input: function()


def method_caller(function: Any, order: tuple[str, ...]) -> Callable[[Any, Any, Any], Any]:
    """Give a function of entity, input and context that passes on what is wanted, in order."""
    if order == ("input", "context"):
        return cast("Callable[[Any, Any, Any], Any]", function)
    if order == ("context", "input"):
        return lambda entity, input, context: function(entity, context, input)
    if order == ("context",):
        return lambda entity, input, context: function(entity, context)
    if order == ("input",):
        return lambda entity, input, context: function(entity, input)
    return lambda entity, input, context: function(entity)


def is_async(function: Any, output: Any) -> bool:
    """Say whether calling it gives an awaitable."""
    # A plain wrapper around an async function gives a coroutine as well.
    return (
        inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(plain_function(function))
        or typing.get_origin(output) in _AWAITABLES
    )


_AWAITABLES = (collections.abc.Awaitable, collections.abc.Coroutine)
_ENDLESS: tuple[Any, ...] = (NoReturn, typing.Never)


def output_codec(annotation: Any, what: str) -> Codec[Any]:
    """Give the codec of what a function gives in the end, awaited or run through."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _AWAITABLES or origin is collections.abc.Generator:
        annotation = arguments[-1] if arguments and len(arguments) in (1, 3) else Any
    elif annotation in _ENDLESS:
        annotation = Any
    return codec_of(annotation, what, "result")


def codec_of(annotation: Any, what: str, part: str) -> Codec[Any]:
    """Give an annotation's codec; an error names the part of the function."""
    try:
        return codec_for(annotation)
    except RegistrationError as error:
        raise RegistrationError(f"the {part} of {what}: {error}") from None


def refuse_generators(function: Any, what: str) -> None:
    """Refuse what yields."""
    plain = plain_function(function)
    if inspect.isasyncgenfunction(plain):
        raise RegistrationError(f"{what} is an async generator; it must return its result instead")
    if inspect.isgeneratorfunction(plain):
        raise RegistrationError(
            f"{what} is a generator; only orchestrations may yield, so return the result instead"
        )


def may_get_input(function: types.FunctionType) -> bool:
    """Say whether an orchestration without a parameter for its input may ask its context for it.

    It may not if all that its code does with the context is to use other attributes of it.
    """
    code = function.__code__
    context = code.co_varnames[0]
    if context in code.co_cellvars or "get_input" in code.co_names:
        return True
    instructions = list(dis.get_instructions(function))
    for one, following in itertools.pairwise(instructions):
        names = _names(one.argval)
        if not one.opname.startswith("LOAD_FAST") or context not in names:
            continue
        if names[-1] != context or following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return True
    return False


def _names(argument: Any) -> tuple[Any, ...]:
    """Give what an instruction names; one of Python 3.13 may name two variables."""
    return argument if is_a(argument, tuple) else (argument,)


def attributes_set(function: Any) -> set[str]:
    """Give the names of the attributes that a method sets on its first parameter."""
    plain = plain_function(function)
    if not inspect.isfunction(plain) or not plain.__code__.co_argcount:
        return set()
    itself = plain.__code__.co_varnames[0]
    found: set[str] = set()
    before: Any = None
    for one in dis.get_instructions(plain):
        if one.opname == "STORE_ATTR" and before is not None:
            names = _names(before.argval)
            if before.opname.startswith("LOAD_FAST") and names[-1] == itself:
                found.add(str(one.argval))
        before = one
    return found
