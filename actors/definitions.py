"""What the decorators make of functions and classes: everything that a call needs, worked out once.

Invariants:

* A definition is made at registration, or ``RegistrationError`` says what is wrong there.
* ``encode_input`` runs at the caller's door, ``decode_input`` where the code is; what the first
  lets through, the second reads.
* ``invoke`` passes the context and the input to the function in its own order.
"""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import difflib
import inspect
import types
import typing
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NoReturn, TypeVar, Union, cast

import attrs

from .codec import Codec, codec_for
from .errors import PayloadError, RegistrationError, UnknownNameError, UsageError
from .fields import class_fields, is_frozen, type_hints
from .retry import RetryPolicy
from .snapshots import Restore, Take, snapshotter
from .states import state_codec

F = TypeVar("F", bound=Callable[..., Any])

ACTIVITY_CONTEXT = "ActivityContext"
ENTITY_CONTEXT = "EntityContext"
ORCHESTRATION_CONTEXT = "OrchestrationContext"

Names = Mapping[str, Any]

_ONE_INPUT = (
    "takes at most one input besides its context; put several into an attrs class or a dataclass"
)
_ANY: Codec[Any] = codec_for(Any)
_NAMES_KEPT = 256


def readonly(function: F) -> F:
    """Mark an entity's operation as one that only reads.

    It does not wait behind a lock, and what it changes of the state is not kept.
    """
    cast("Any", function).__perdure_readonly__ = True
    return function


# Reading a function's signature.


@attrs.frozen
class _Signature:
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


def _read_signature(
    function: Any, what: str, context: str, names: Names, *, skip: int = 0, context_first: bool
) -> _Signature:
    """Read what a function takes.

    Args:
        function: the function.
        what: how to call it in an error.
        context: the class name of its kind of context.
        names: local names that its annotations may use.
        skip: how many parameters to leave out: 1 for ``self``.
        context_first: whether the first parameter is the context whatever its annotation.
    """
    parameters = list(_parameters_of(function, what))[skip:]
    resolve = _Resolver(function, what, names)
    order: list[str] = []
    annotation: Any = Any
    default: Any = attrs.NOTHING
    for index, parameter in enumerate(parameters):
        _check_kind(parameter, what)
        if (index == 0 and context_first) or is_context(parameter.annotation, context):
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
    output = resolve("return", inspect.unwrap(function).__annotations__.get("return", Any))
    return _Signature(tuple(order), annotation, default, output)


def _parameters_of(function: Any, what: str) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise RegistrationError(f"{what} has no signature to read; wrap it in a function") from None


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
        self._globals: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
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
        except (SyntaxError, TypeError) as error:
            raise RegistrationError(
                f"the annotation {name}: {annotation} of {self._what} is no type: {error}"
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


def _caller(function: Any, order: tuple[str, ...]) -> Callable[[Any, Any], Any]:
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


def _method_caller(function: Any, order: tuple[str, ...]) -> Callable[[Any, Any, Any], Any]:
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


def _is_async(function: Any, output: Any) -> bool:
    # A plain wrapper around an async function gives a coroutine as well.
    return (
        inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(inspect.unwrap(function))
        or typing.get_origin(output) in _AWAITABLES
    )


_AWAITABLES = (collections.abc.Awaitable, collections.abc.Coroutine)
_ENDLESS: tuple[Any, ...] = (NoReturn, typing.Never)


def _output_codec(annotation: Any, what: str) -> Codec[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _AWAITABLES or origin is collections.abc.Generator:
        annotation = arguments[-1] if arguments and len(arguments) in (1, 3) else Any
    elif annotation in _ENDLESS:
        annotation = Any
    return _codec(annotation, what, "result")


def _codec(annotation: Any, what: str, part: str) -> Codec[Any]:
    try:
        return codec_for(annotation)
    except RegistrationError as error:
        raise RegistrationError(f"the {part} of {what}: {error}") from None


def _refuse_generators(function: Any, what: str) -> None:
    plain = inspect.unwrap(function)
    if inspect.isasyncgenfunction(plain):
        raise RegistrationError(f"{what} is an async generator; it must return its result instead")
    if inspect.isgeneratorfunction(plain):
        raise RegistrationError(
            f"{what} is a generator; only orchestrations may yield, so return the result instead"
        )


# Definitions.


@attrs.frozen(kw_only=True)
class _Definition:
    """What activities, orchestrations and operations have in common.

    Attributes:
        name: what messages call it.
        function: the user's function, as it was decorated.
        takes_input: whether a parameter is for the input.
        required: whether an input must be given.
        default: what stands for a missing input.
        free_input: whether an input may be given though no parameter is for it, since the
            context gives it.
        input: the input's codec.
        output: the result's codec.
        place: file and line of the registration.
    """

    name: str
    function: Callable[..., Any]
    takes_input: bool
    required: bool
    default: Any = None
    free_input: bool = False
    input: Codec[Any]
    output: Codec[Any]
    place: str = ""

    @property
    def title(self) -> str:
        """How errors call it."""
        raise NotImplementedError

    def encode_input(self, has_input: bool, value: object) -> bytes | None:
        """Encode an input for this function; None says that none was given.

        Raises:
            PayloadError: it is not of the declared type, or cannot be JSON.
            UsageError: it is missing, or the function takes none.
        """
        if has_input:
            if self.takes_input or self.free_input:
                return self.input.encode(value)
            if value is None:
                return None
            raise UsageError(f"{self.title} takes no input, but {type(value).__name__} was given")
        if self.required:
            raise self._missing()
        return None

    def decode_input(self, data: bytes | None) -> Any:
        """Read an input back, or give the parameter's default if none was given.

        What was given to a function that no longer takes an input is ignored.

        Raises:
            PayloadError: it is not of the declared type.
            UsageError: it is missing.
        """
        if data is None:
            if self.required:
                raise self._missing()
            return self.default
        return self.input.decode(data)

    def _missing(self) -> UsageError:
        return UsageError(
            f"{self.title} needs an input ({self.input.shape.name}); pass one, or give its "
            "parameter a default"
        )


@attrs.frozen(kw_only=True)
class ActivityDefinition(_Definition):
    """A registered activity.

    Attributes:
        is_async: whether it runs on the loop rather than in a worker thread.
        takes_context: whether a parameter is for the ``ActivityContext``.
        retry: its own retry policy, where the call gives none.
        timeout: seconds that an attempt may take, where the call says nothing.
        max_concurrency: how many may run at once in a hub.
        invoke: calls it with context and input; gives an awaitable if it is async.
    """

    is_async: bool
    takes_context: bool
    retry: RetryPolicy | None = None
    timeout: float | None = None
    max_concurrency: int | None = None
    invoke: Callable[[Any, Any], Any]

    @property
    def title(self) -> str:
        return f"activity {self.name!r}"


@attrs.frozen(kw_only=True)
class OrchestrationDefinition(_Definition):
    """One version of a registered orchestration.

    Attributes:
        version: its version, if it has one.
        form: whether calling it gives a coroutine, a generator or the result itself.
        retry: its own retry policy as a sub-orchestration, where the call gives none.
        invoke: calls it with context and input.
    """

    version: str | None = None
    form: Literal["async", "generator", "plain"]
    retry: RetryPolicy | None = None
    invoke: Callable[[Any, Any], Any]

    @property
    def title(self) -> str:
        return f"orchestration {self.name!r}"


@attrs.frozen(kw_only=True)
class OperationDefinition(_Definition):
    """An operation of an entity.

    Attributes:
        entity: the entity's name.
        is_async: whether it may suspend.
        takes_context: whether a parameter is for the ``EntityContext``.
        readonly: whether it is marked as one that only reads.
        invoke: calls it with the entity's object, the input and the context.
    """

    entity: str
    is_async: bool
    takes_context: bool
    readonly: bool = False
    invoke: Callable[[Any, Any, Any], Any]

    @property
    def title(self) -> str:
        return f"operation {self.name!r} of entity {self.entity!r}"


@attrs.frozen(kw_only=True)
class EntityDefinition:
    """A registered entity: a class whose methods are the operations, or a function.

    Attributes:
        name: its name, casefolded.
        factory: the class or function.
        operations: by name; empty for a function, which takes any.
        state: the codec of its state.
        make: gives a fresh state: an object, or None for a function.
        take: keeps what an operation may change; for a class only.
        restore: sets an object back to what was taken.
        is_function: whether ``factory`` is a function.
        schema_version: the version of the stored fields.
        upgrade: brings stored fields of an older version to this one.
        max_mailbox: how many messages may wait, where it is not the hub's limit.
        by_function: the names of the operations by the functions that may stand for them,
            overridden ones included.
        any_operation: what a function entity runs for every operation.
        place: file and line of the registration.
    """

    name: str
    factory: Callable[..., Any]
    operations: dict[str, OperationDefinition]
    state: Codec[Any]
    make: Callable[[], Any]
    take: Take
    restore: Restore
    is_function: bool = False
    schema_version: int = 1
    upgrade: Callable[[dict[str, Any], int], dict[str, Any]] | None = None
    max_mailbox: int | None = None
    by_function: dict[Callable[..., Any], str] = attrs.field(factory=dict[Any, str], repr=False)
    any_operation: OperationDefinition | None = None
    place: str = ""
    _named: dict[str, OperationDefinition] = attrs.field(
        factory=dict[str, OperationDefinition], init=False, repr=False, eq=False
    )

    def dynamic_operation(self, name: str) -> OperationDefinition | None:
        """Give the operation of a function entity, which takes every name; else None."""
        if self.any_operation is None:
            return None
        found = self._named.get(name)
        if found is None:
            # Names come from callers, so they must not fill the memory.
            if len(self._named) >= _NAMES_KEPT:
                self._named.clear()
            found = self._named[name] = attrs.evolve(self.any_operation, name=name)
        return found


def operation_of(definition: EntityDefinition, op: str | Callable[..., Any]) -> OperationDefinition:
    """Find an entity's operation by its name or by its method.

    A method of a base class stands for the one that overrides it.

    Raises:
        UnknownNameError: the entity has no such operation.
    """
    if isinstance(op, str):
        found = definition.operations.get(op) or definition.dynamic_operation(op)
        if found is not None:
            return found
        raise UnknownNameError(
            f"entity {definition.name!r} has no operation {op!r}{did_you_mean(op, definition.operations)}"
        )
    function = getattr(op, "__func__", op)
    name = definition.by_function.get(function)
    if name is not None:
        return definition.operations[name]
    if definition.is_function:
        raise UnknownNameError(
            f"entity {definition.name!r} is a function: pass the operation's name as a string"
        )
    raise UnknownNameError(
        f"{getattr(op, '__qualname__', op)!s} is no operation of entity {definition.name!r}; it has "
        f"{', '.join(definition.operations) or 'none'}"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give the end of an error message that lists the names most like one that is unknown."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(repr(match) for match in close)}?"
    if not names:
        return "; none are registered"
    listed = ", ".join(sorted(names)[:10])
    return f"; registered: {listed}{', ...' if len(names) > 10 else ''}"


# Making definitions.


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
    _refuse_generators(function, what)
    signature = _read_signature(function, what, ACTIVITY_CONTEXT, names, context_first=False)
    return ActivityDefinition(
        name=name,
        function=function,
        is_async=_is_async(function, signature.output),
        takes_input=signature.takes_input,
        takes_context=signature.takes_context,
        required=signature.required,
        default=None if signature.default is attrs.NOTHING else signature.default,
        input=_codec(signature.input, what, "input"),
        output=_output_codec(signature.output, what),
        retry=retry,
        timeout=timeout,
        max_concurrency=max_concurrency,
        invoke=_caller(function, signature.order),
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
    signature = _read_signature(function, what, ORCHESTRATION_CONTEXT, names, context_first=True)
    if not signature.order:
        raise RegistrationError(f"{what} must take an OrchestrationContext as its first parameter")
    if inspect.isgeneratorfunction(plain):
        form: Literal["async", "generator", "plain"] = "generator"
    else:
        form = "async" if _is_async(function, signature.output) else "plain"
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
        free_input=not signature.takes_input,
        input=_codec(signature.input, what, "input"),
        output=_output_codec(output, what),
        retry=retry,
        invoke=_caller(function, signature.order),
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
    _refuse_generators(function, what)
    signature = _read_signature(function, what, ENTITY_CONTEXT, names, context_first=True)
    if signature.order != ("context",):
        raise RegistrationError(
            f"{what} is a function, so it must take one parameter, an EntityContext; its input is "
            "context.get_input()"
        )
    operation = OperationDefinition(
        name="*",
        entity=name,
        function=function,
        is_async=_is_async(function, signature.output),
        takes_input=False,
        takes_context=True,
        required=False,
        free_input=True,
        readonly=_is_readonly(function),
        input=_ANY,
        output=_ANY,
        invoke=lambda state, input, context: function(context),
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
        is_function=True,
        max_mailbox=max_mailbox,
        any_operation=operation,
        place=place,
    )


def _no_state() -> None:
    return None


def _no_token(obj: Any) -> None:
    return None


def _nothing_restored(obj: Any, token: Any) -> None:
    return None


def _is_readonly(function: Any) -> bool:
    return bool(getattr(function, "__perdure_readonly__", False))


# Entities as classes.


def entity_class(cls: type, names: Names = types.MappingProxyType({})) -> type:
    """Make a class whose annotated fields are an entity's state an attrs class.

    One that is an attrs class or dataclass already is given back as it is. The class that comes
    back has the same functions, and slots, so that setting what is not declared is an error at
    once instead of state that is silently lost.

    Raises:
        RegistrationError: it is frozen, an annotation cannot be resolved, or a field has neither
            a default nor a type with an obvious one.
    """
    own = cls.__dict__
    if "__attrs_attrs__" not in own and "__dataclass_fields__" not in own:
        cls = _attrs_class(cls, names)
    class_fields(cls, names)
    return cls


def _attrs_class(cls: type, names: Names) -> type:
    hints = type_hints(cls, names)
    these: dict[str, Any] = {}
    inherited = {field.name for field in _attrs_fields(cls)}
    for owner in reversed(cls.__mro__[:-1]):
        if "__attrs_attrs__" in owner.__dict__:
            continue
        for name in inspect.get_annotations(owner):
            if _is_class_variable(hints[name]) or (name in inherited and owner is not cls):
                continue
            default = _default_in(owner, name)
            these[name] = _field(cls, name, hints[name], default, annotated=owner is cls)
    try:
        return attrs.define(cls, these=these, slots=True)
    except (TypeError, ValueError) as error:
        raise RegistrationError(
            f"entity class {cls.__qualname__} cannot be an attrs class: {error}"
        ) from None


def _attrs_fields(cls: type) -> Iterable[attrs.Attribute[Any]]:
    return attrs.fields(cls) if attrs.has(cls) else ()


def _is_class_variable(hint: Any) -> bool:
    return hint is typing.ClassVar or typing.get_origin(hint) is typing.ClassVar


def _default_in(owner: Any, name: str) -> Any:
    fields: dict[str, Any] = owner.__dict__.get("__dataclass_fields__", {})
    if name in fields:
        return fields[name]
    return owner.__dict__.get(name, attrs.NOTHING)


def _field(cls: type, name: str, hint: Any, default: Any, *, annotated: bool) -> Any:
    options: dict[str, Any] = {} if annotated else {"type": hint}
    if isinstance(default, dataclasses.Field):
        declared = cast("Any", default)
        if declared.default_factory is not dataclasses.MISSING:
            return attrs.field(factory=declared.default_factory, **options)
        default = attrs.NOTHING if declared.default is dataclasses.MISSING else declared.default
    if type(default) is type(attrs.field()):
        return default
    if isinstance(default, types.MemberDescriptorType):  # a slot is no default
        default = attrs.NOTHING
    if default is attrs.NOTHING:
        return attrs.field(factory=_zero(cls, name, hint), **options)
    if _class_of(default) in (list, dict, set) and not default:
        return attrs.field(factory=_class_of(default), **options)
    if _is_mutable(default):
        # One default for all entities would be one object that all of them share.
        return attrs.field(factory=lambda: copy.deepcopy(default), **options)
    return attrs.field(default=default, **options)


# type() under a name that does not narrow what is Any into something partly unknown.
_class_of: Callable[[Any], Any] = type


def _is_mutable(value: object) -> bool:
    if isinstance(value, type):
        return False
    return (
        isinstance(value, (list, dict, set, deque))
        or attrs.has(type(value))
        or dataclasses.is_dataclass(value)
    )


_ZEROS: tuple[type, ...] = (int, float, str, bool, bytes, list, dict, set, frozenset, deque)


def _zero(cls: type, name: str, hint: Any) -> Callable[[], Any]:
    """Give what makes the obvious default of a type that has one."""
    while typing.get_origin(hint) is typing.Annotated or isinstance(hint, typing.NewType):
        hint = hint.__supertype__ if isinstance(hint, typing.NewType) else typing.get_args(hint)[0]
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is None or hint is Any or hint is type(None):
        return _no_state
    if origin in (Union, types.UnionType) and type(None) in arguments:
        return _no_state
    if origin is tuple and (not arguments or arguments[-1] is Ellipsis):
        return tuple[Any, ...]
    if origin in _ZEROS:
        return cast("Callable[[], Any]", origin)
    raise RegistrationError(
        f"field {name!r} of entity class {cls.__qualname__} has no default, and its type has no "
        "obvious one; give it a default, since an entity begins with no arguments"
    )


def _maker(cls: type) -> Callable[[], Any]:
    """Give a function that makes a fresh object, with zeros for what has no default."""
    zeros: dict[str, Callable[[], Any]] = {}
    aliases = {field.name: field.alias or field.name for field in _attrs_fields(cls)}
    for field in class_fields(cls):
        if field.required:
            zeros[aliases.get(field.name, field.name)] = _zero(cls, field.name, field.annotation)
    if not zeros:
        return cls
    return lambda: cls(**{name: zero() for name, zero in zeros.items()})


def define_entity_class(
    cls: type,
    *,
    name: str,
    max_mailbox: int | None = None,
    names: Names = types.MappingProxyType({}),
    place: str = "",
) -> EntityDefinition:
    """Make the definition of an entity from what ``entity_class`` gave.

    Raises:
        RegistrationError: a public method takes more than one input, a type has no JSON form,
            or an object cannot be made without arguments.
    """
    what = f"entity {name!r}"
    names = {**names, cls.__name__: cls}
    if is_frozen(cls):
        raise RegistrationError(f"{what} is frozen, so no operation could change its state")
    version, upgrade = _schema(cls, what)
    make = _maker(cls)
    try:
        state = state_codec(cls, make, version, upgrade)
        take, restore = snapshotter(cls)
    except RegistrationError as error:
        raise RegistrationError(f"the state of {what}: {error}") from None
    _check_fresh(make, state, what)
    operations = {
        method: _operation(function, method, name, names, place)
        for method, function in _public_methods(cls).items()
    }
    operations.setdefault("delete", _delete_operation(name))
    return EntityDefinition(
        name=name,
        factory=cls,
        operations=operations,
        state=state,
        make=make,
        take=take,
        restore=restore,
        schema_version=version,
        upgrade=upgrade,
        max_mailbox=max_mailbox,
        by_function=_methods_by_function(cls, operations),
        place=place,
    )


def _schema(cls: Any, what: str) -> tuple[int, Any]:
    version = getattr(cls, "schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RegistrationError(
            f"schema_version of {what} must be an int of at least 1, declared as "
            f"schema_version: ClassVar[int] = 1; it is {version!r}"
        )
    upgrade = inspect.getattr_static(cls, "upgrade", None)
    if isinstance(upgrade, (classmethod, staticmethod)):
        return version, cls.upgrade
    return version, None


def _check_fresh(make: Callable[[], Any], state: Codec[Any], what: str) -> None:
    try:
        fresh = make()
        state.decode(state.encode(fresh))
    except PayloadError as error:
        raise RegistrationError(f"a default of {what} does not fit its field: {error}") from None
    except Exception as error:
        raise RegistrationError(
            f"{what} cannot be made without arguments: {type(error).__name__}: {error}"
        ) from error


def _public_methods(cls: type) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    for owner in reversed(cls.__mro__[:-1]):
        for name, value in owner.__dict__.items():
            if name.startswith("_"):
                continue
            if inspect.isfunction(value):
                methods[name] = value
            else:
                # A property or field of a subclass takes the place of a method.
                methods.pop(name, None)
    return methods


def _methods_by_function(
    cls: type, operations: Mapping[str, OperationDefinition]
) -> dict[Callable[..., Any], str]:
    return {
        value: name
        for owner in cls.__mro__[:-1]
        for name, value in owner.__dict__.items()
        if name in operations and inspect.isfunction(value)
    }


def _operation(
    function: Any, name: str, entity: str, names: Names, place: str
) -> OperationDefinition:
    what = f"operation {name!r} of entity {entity!r}"
    _refuse_generators(function, what)
    if not list(_parameters_of(function, what)):
        raise RegistrationError(f"{what} takes no self")
    signature = _read_signature(function, what, ENTITY_CONTEXT, names, skip=1, context_first=False)
    return OperationDefinition(
        name=name,
        entity=entity,
        function=function,
        is_async=_is_async(function, signature.output),
        takes_input=signature.takes_input,
        takes_context=signature.takes_context,
        required=signature.required,
        default=None if signature.default is attrs.NOTHING else signature.default,
        readonly=_is_readonly(function),
        input=_codec(signature.input, what, "input"),
        output=_output_codec(signature.output, what),
        invoke=_method_caller(function, signature.order),
        place=place,
    )


def _delete(entity: Any, input: Any, context: Any) -> None:
    context.delete()


def _delete_operation(entity: str) -> OperationDefinition:
    """Give the operation that every entity has: it deletes the state."""
    return OperationDefinition(
        name="delete",
        entity=entity,
        function=_delete,
        is_async=False,
        takes_input=False,
        takes_context=True,
        required=False,
        input=_ANY,
        output=codec_for(None),
        invoke=_delete,
    )
