"""Making the definitions of functions: activities, orchestrations, entities that are functions.

A definition is made at registration, or ``RegistrationError`` says what is wrong there.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

import attrs

from ..codec import Codec, codec_for
from ..codec.shapes import PLAIN
from ..errors import RegistrationError
from ..retry import RetryPolicy
from .definitions import (
    ActivityDefinition,
    EntityDefinition,
    OperationDefinition,
    OrchestrationDefinition,
    is_readonly,
)
from .direct_calls import guard
from .signatures import (
    ACTIVITY_CONTEXT,
    ENTITY_CONTEXT,
    ORCHESTRATION_CONTEXT,
    Names,
    codec_of,
    function_caller,
    is_async,
    may_get_input,
    output_codec,
    read_signature,
    refuse_generators,
)

_ANY: Codec[Any] = codec_for(Any)


def define_activity(
    function: Callable[..., Any],
    *,
    name: str,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    max_concurrency: int | None = None,
    names: Names = types.MappingProxyType({}),
    place: str = "",
) -> ActivityDefinition:
    """Make the definition of an activity.

    Raises:
        RegistrationError: it takes more than one input, or a type has no JSON form.
    """
    what = f"activity {name!r}"
    refuse_generators(function, what)
    signature = read_signature(function, what, ACTIVITY_CONTEXT, names, context_first=False)
    return ActivityDefinition(
        name=name,
        function=function,
        is_async=is_async(function, signature.output),
        takes_input=signature.takes_input,
        takes_context=signature.takes_context,
        required=signature.required,
        default=None if signature.default is attrs.NOTHING else signature.default,
        input=codec_of(signature.input, what, "input"),
        output=output_codec(signature.output, what),
        retry=retry,
        timeout=timeout,
        max_concurrency=max_concurrency,
        invoke=function_caller(
            guard(function, what, f"ctx.call_activity({name}, ...)"), signature.order
        ),
        place=place,
    )


def define_orchestration(
    function: Callable[..., Any],
    *,
    name: str,
    version: str | None = None,
    retry: RetryPolicy | None = None,
    names: Names = types.MappingProxyType({}),
    place: str = "",
) -> OrchestrationDefinition:
    """Make the definition of an orchestration.

    Raises:
        RegistrationError: it has no context, takes more than one input, or a type has no JSON
            form.
    """
    what = f"orchestration {name!r}"
    plain = inspect.unwrap(function)
    if not inspect.isfunction(plain):
        raise RegistrationError(f"{what} must be a function, not {type(function).__name__}")
    if inspect.isasyncgenfunction(plain):
        raise RegistrationError(
            f"{what} is an async generator; use async def with await, or def with yield, not both"
        )
    signature = read_signature(function, what, ORCHESTRATION_CONTEXT, names, context_first=True)
    if not signature.order:
        raise RegistrationError(f"{what} must take an OrchestrationContext as its first parameter")
    if inspect.isgeneratorfunction(plain):
        form: Literal["async", "generator", "plain"] = "generator"
    else:
        form = "async" if is_async(function, signature.output) else "plain"
    output = signature.output
    if form == "generator" and typing.get_origin(output) is not collections.abc.Generator:
        # Iterator and the like say what is yielded, not what is returned.
        output = Any
    return OrchestrationDefinition(
        name=name,
        version=version,
        function=function,
        form=form,
        takes_input=signature.takes_input,
        required=signature.required,
        default=None if signature.default is attrs.NOTHING else signature.default,
        free_input=not signature.takes_input and may_get_input(plain),
        input=codec_of(signature.input, what, "input"),
        output=output_codec(output, what),
        retry=retry,
        invoke=function_caller(
            guard(function, what, f"ctx.call_sub_orchestrator({name}, ...)"), signature.order
        ),
        place=place,
    )


def define_entity_function(
    function: Callable[..., Any],
    *,
    name: str,
    max_mailbox: int | None = None,
    names: Names = types.MappingProxyType({}),
    place: str = "",
) -> EntityDefinition:
    """Make the definition of an entity that is a function of its context.

    Raises:
        RegistrationError: it takes anything else than a context.
    """
    what = f"entity {name!r}"
    refuse_generators(function, what)
    signature = read_signature(function, what, ENTITY_CONTEXT, names, context_first=True)
    if signature.order != ("context",):
        raise RegistrationError(
            f"{what} is a function, so it must take one parameter, an EntityContext; its input is "
            "context.get_input()"
        )
    call = guard(function, what, "ctx.call_entity(id, operation, ...)")
    operation = OperationDefinition(
        name="*",
        entity=name,
        function=function,
        is_async=is_async(function, signature.output),
        takes_input=False,
        takes_context=True,
        required=False,
        free_input=True,
        readonly=is_readonly(function),
        input=_ANY,
        output=_ANY,
        invoke=lambda state, input, context: call(context),
        place=place,
    )
    return EntityDefinition(
        name=name,
        factory=function,
        operations={},
        state=_ANY,
        make=_no_state,
        take=_no_token,
        restore=_nothing_restored,
        flatten=_as_stored,
        is_function=True,
        max_mailbox=max_mailbox,
        any_operation=operation,
        place=place,
    )


def _no_state() -> None:
    return None


def _no_token(obj: Any) -> None:
    return None


def _as_stored(state: Any) -> Any:
    return state if state.__class__ in PLAIN else _ANY.decode(_ANY.encode(state))


def _nothing_restored(obj: Any, token: Any) -> None:
    return None
