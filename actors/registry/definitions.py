"""Definitions: everything that a call of a registered function needs, worked out once.

Invariants:

* ``encode_input`` runs at the caller's door, ``decode_input`` where the code is; what the first
  lets through, the second reads.
* ``invoke`` passes the context and the input to the function in its own order.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, cast

import attrs
import orjson

from ..arguments import is_a, text
from ..codec import Codec
from ..codec.snapshots import Restore, Take, copier, is_immutable
from ..errors import PayloadError, UnknownNameError, UsageError
from ..ids import check_text
from ..printing import repr_of, text_of
from ..retry import RetryPolicy

A = TypeVar("A")
E = TypeVar("E")
Combiner = Callable[[list[A]], A]
_NAMES_KEPT = 256
_CALLED = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType)


def name_of(value: object) -> str:
    """Say what an object is that was passed where a function or class is wanted."""
    if is_a(value, _CALLED):
        try:
            return text_of(cast("Any", value).__qualname__, 200)
        except Exception:
            return repr_of(value)
    return repr_of(value)


def is_readonly(function: Any) -> bool:
    """Say whether it is so marked."""
    return bool(getattr(function, "__perdure_readonly__", False))


def is_commutative(function: Any) -> bool:
    """Say whether it is so marked."""
    return bool(getattr(function, "__perdure_commutative__", False))


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
                try:
                    return self.input.encode(value)
                except PayloadError as error:
                    raise error.of(f"the input of {self.title}") from error.__cause__
            if value is None:
                return None
            raise UsageError(
                f"{self.title} takes no input, but {repr_of(value)} was given; give the function "
                "a parameter for it"
            )
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
            default = self.default
            return default if default is None else self._fresh_default()
        decode = self.input.decode  # called as an attribute, it is looked for longer
        try:
            return decode(data)
        except PayloadError as error:
            raise error.of(f"the input of {self.title}") from error.__cause__

    def _fresh_default(self) -> Any:
        # A default is one object; what changes it, or keeps it in a state, must have its own.
        if is_immutable(self.default):
            return self.default
        return copier(self.input.shape)(self.default)

    def _missing(self) -> UsageError:
        return UsageError(
            f"{self.title} needs an input ({self.input.shape.name}); pass one, or give its "
            "parameter a default"
        )


def _waits_of(activity: ActivityDefinition) -> bytes:
    waits: bytes = orjson.dumps([f"activity:{activity.name}"])
    return waits


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
        waits: how the summary of who waits for it alone names it: a JSON array.
    """

    is_async: bool
    takes_context: bool
    retry: RetryPolicy | None = None
    timeout: float | None = None
    max_concurrency: int | None = None
    invoke: Callable[[Any, Any], Any]
    waits: bytes = attrs.field(
        init=False,
        eq=False,
        repr=False,
        default=attrs.Factory(_waits_of, takes_self=True),
    )

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
        commutative: whether it may run on any stripe of its striped entity.
        combine: folds the inputs of signals that wait into one, if that is declared.
        invoke: calls it with the entity's object, the input and the context.
    """

    entity: str
    is_async: bool
    takes_context: bool
    readonly: bool = False
    commutative: bool = False
    combine: Combiner[Any] | None = None
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
        flatten: gives a state as the store would give it back; None where that is always the same.
        is_function: whether ``factory`` is a function.
        schema_version: the version of the stored fields.
        upgrade: brings stored fields of an older version to this one.
        max_mailbox: how many messages may wait, where it is not the hub's limit.
        by_function: the names of the operations by the functions that may stand for them,
            overridden ones included.
        any_operation: what a function entity runs for every operation.
        stripes: how many stripes it has, or "auto"; None for a plain one.
        merge: folds another stripe's state into this one; for a striped entity only.
        place: file and line of the registration.
    """

    name: str
    factory: Callable[..., Any]
    operations: dict[str, OperationDefinition]
    state: Codec[Any]
    make: Callable[[], Any]
    take: Take
    restore: Restore
    flatten: Callable[[Any], Any] | None = None
    is_function: bool = False
    schema_version: int = 1
    upgrade: Callable[[dict[str, Any], int], dict[str, Any]] | None = None
    max_mailbox: int | None = None
    by_function: dict[Callable[..., Any], str] = attrs.field(factory=dict[Any, str], repr=False)
    any_operation: OperationDefinition | None = None
    stripes: int | Literal["auto"] | None = None
    merge: Callable[[Any, Any], Any] | None = None
    place: str = ""
    _named: dict[str, OperationDefinition] = attrs.field(
        factory=dict[str, OperationDefinition], init=False, repr=False, eq=False
    )
    _found: dict[object, OperationDefinition] = attrs.field(
        factory=dict[object, OperationDefinition], init=False, repr=False, eq=False
    )

    @property
    def combines(self) -> bool:
        """Whether signals of some operation may be combined."""
        return any(one.combine is not None for one in self.operations.values())

    @property
    def suspends(self) -> bool:
        """Whether some operation is async."""
        return any(
            one.is_async
            for one in (*self.operations.values(), self.any_operation)
            if one is not None
        )

    def operation(self, op: str | Callable[..., Any]) -> OperationDefinition:
        """Find an operation by its name or by its method.

        A method of a base class stands for the one that overrides it.

        Raises:
            UnknownNameError: the entity has no such operation.
        """
        if type(op) is types.FunctionType:  # nearly always, and then it was found before
            found = self._found.get(op)
            if found is None:
                found = self._found[op] = operation_of(self, op)
            return found
        known = self.operations.get(op) if type(op) is str else None  # pyright: ignore[reportArgumentType]
        return known or operation_of(self, op)

    def stripe_count(self, partitions: int) -> int:
        """Give the number of stripes in a hub of so many partitions; 0 for a plain entity."""
        return partitions if self.stripes == "auto" else self.stripes or 0

    def dynamic_operation(self, name: str) -> OperationDefinition | None:
        """Give the operation of a function entity, which takes every name; else None."""
        if self.any_operation is None:
            return None
        found = self._named.get(name)
        if found is None:
            name = text(name, "op")
            # Names come from callers, so they must not fill the memory.
            if len(self._named) >= _NAMES_KEPT:
                self._named.clear()
            found = self._named[name] = attrs.evolve(self.any_operation, name=name)
        return found


def operation_of(definition: EntityDefinition, op: str | Callable[..., Any]) -> OperationDefinition:
    """Find an entity's operation the long way; see ``EntityDefinition.operation``."""
    if is_a(op, str):
        called = text(op, "op")
        found = definition.operations.get(called)
        if found is None and definition.is_function:
            found = definition.dynamic_operation(check_text(called, "op"))
        if found is not None:
            return found
        raise no_operation(definition, called)
    method: Any = op
    try:
        name = definition.by_function.get(getattr(method, "__func__", method))
    except Exception:  # unhashable, so it is no method
        name = None
    if name is not None:
        return definition.operations[name]
    if definition.is_function:
        raise UnknownNameError(
            f"entity {definition.name!r} is a function: pass the operation's name as a string, not "
            f"{name_of(op)}"
        )
    raise UnknownNameError(
        f"{name_of(op)} is no operation of entity {definition.name!r}; it has "
        f"{_listed(list(definition.operations)) or 'none'}"
    )


def no_operation(definition: EntityDefinition, name: str) -> UnknownNameError:
    """Make the error for an operation that an entity does not have."""
    return UnknownNameError(
        f"entity {definition.name!r} has no operation {repr_of(name)}"
        f"{did_you_mean(name, definition.operations)}"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give the end of an error message that lists the names most like one that is unknown."""
    import difflib  # here, since a program whose names are right never needs it

    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(repr(match) for match in close)}?"
    if not names:
        return "; none are registered"
    return f"; registered: {_listed(sorted(names))}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
