"""What an entity's operation sees of the world: ``EntityContext``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, overload

from ..arguments import refusal
from ..codec import codec_of_type
from ..errors import UsageError
from ..ids import EntityId, check_instance_id
from ..logs import GuardedLogger
from ..messages import Message, Operation, Start
from ..registry.outside import calling_line
from ..times import due_time, to_datetime
from ..values import MISSING

if TYPE_CHECKING:
    from ..registry.definitions import EntityDefinition
    from ..registry.lookup import Lookup
    from .orchestration import OrchestrationContext

A = TypeVar("A")
E = TypeVar("E")


class Host(Protocol):
    """What a context needs of the entity whose operation it is for."""

    state: Any

    @property
    def name(self) -> str:
        """The entity's name."""
        ...

    @property
    def home_key(self) -> str:
        """Its key; a stripe's home's, where it is a stripe."""
        ...

    @property
    def title(self) -> str:
        """How errors call it."""
        ...

    @property
    def lookup(self) -> Lookup:
        """Finds what it sends to."""
        ...

    @property
    def definition(self) -> EntityDefinition:
        """What it is an entity of."""
        ...

    @property
    def striping(self) -> object:
        """How it is striped; None where it is not."""
        ...

    def new_id(self) -> str:
        """Make up an instance id."""
        ...


class EntityContext:
    """What an entity's operation sees of the world, besides its own state.

    Attributes:
        entity_id: the entity's address.
        operation_name: the operation that runs.
    """

    __slots__ = (
        "_actor",
        "_deleted",
        "_input",
        "_is_over",
        "_lag",
        "_now",
        "_outgoing",
        "_result",
        "entity_id",
        "operation_name",
    )

    def __init__(
        self, actor: Host, operation: str, input: bytes | None, now: int, lag: int
    ) -> None:
        self._actor = actor
        self._input = input
        self._now = now
        self._lag = lag
        self._outgoing: list[tuple[int | None, str, Message]] | None = None
        self._result: Any = None
        self._deleted = False
        self._is_over = False
        self.entity_id: EntityId[Any] = EntityId(actor.name, actor.home_key)
        self.operation_name = operation

    @property
    def key(self) -> str:
        """The entity's key."""
        return self.entity_id.key

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (``perdure.entities.NAME``) whose records say which operation they are of.

        They have ``entity_id`` (a text) and ``operation``. What a log was told stays told where the
        operation fails and is rolled back, or runs again.
        """
        ids = {"entity_id": str(self.entity_id), "operation": self.operation_name}
        return GuardedLogger(f"perdure.entities.{self.entity_id.name}", ids)

    @property
    def current_utc_datetime(self) -> datetime:
        """The time at which the operation began: aware, UTC."""
        return to_datetime(self._now)

    def _check(self) -> None:
        if self._is_over:
            raise UsageError(
                f"the context of the operation {self.operation_name} of {self._actor.title} was "
                f"used at {calling_line()} after that operation had ended: use it inside of the "
                "operation, and await what uses it there"
            )

    def _send(self, due: int | None, target: str, message: Message) -> None:
        if self._outgoing is None:
            self._outgoing = []
        self._outgoing.append((due, target, message))

    @overload
    def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], Any] | Callable[[E, EntityContext], Any],
        /,
        *,
        at: datetime | timedelta | float | None = ...,
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], Any] | Callable[[E, A, EntityContext], Any],
        input: A,
        /,
        *,
        at: datetime | timedelta | float | None = ...,
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        id: EntityId[Any],
        op: str,
        input: Any = ...,
        /,
        *,
        at: datetime | timedelta | float | None = ...,
    ) -> None: ...
    def signal_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        at: datetime | timedelta | float | None = None,
    ) -> None:
        """Send an entity (itself, too) an operation; sent only if this operation succeeds.

        Args:
            id: which entity.
            op: the operation, or its name.
            input: its input, if it takes one.
            at: an aware datetime, or how long from now, before which it does not arrive.

        Raises:
            UnknownNameError: no such entity or operation.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.
        """
        self._check()
        lookup = self._actor.lookup
        operation = lookup.find_operation(id, op)
        data = lookup.encode_input(operation, input, op)
        due = None if at is None else due_time(at, self._now - self._lag)
        self._send(due, str(id), Operation(operation.name, data))

    @overload
    def start_new(
        self,
        f: Callable[[OrchestrationContext, A], Any],
        input: A,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
    ) -> str: ...
    @overload
    def start_new(
        self,
        f: Callable[[OrchestrationContext], Any],
        input: Any = ...,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
    ) -> str: ...
    @overload
    def start_new(
        self,
        f: str,
        input: Any = ...,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
    ) -> str: ...
    def start_new(
        self,
        f: Any,
        input: Any = MISSING,
        /,
        *,
        instance_id: str | None = None,
        version: str | None = None,
    ) -> str:
        """Start an orchestration; it is started only if this operation succeeds.

        An id that a live instance has already is left alone: nothing is started then.

        Args:
            f: the orchestration, or its name.
            input: its input, if it takes one.
            instance_id: its id; by default one is made.
            version: which version; the highest by default.

        Returns:
            The instance id.

        Raises:
            UnknownNameError: no such orchestration or version.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.
        """
        self._check()
        lookup = self._actor.lookup
        definition = lookup.registry.find_orchestration(f, version)
        data = lookup.encode_input(definition, input, f)
        new_id = self._actor.new_id() if instance_id is None else check_instance_id(instance_id)
        self._send(None, new_id, Start(definition.name, definition.version, data))
        return new_id

    def delete(self) -> None:
        """Delete the entity's state at the end of this operation.

        Raises:
            UsageError: the operation is commutative, so it does not have all of the state.
        """
        self._check()
        actor = self._actor
        if actor.striping is not None:
            operation = actor.definition.operations.get(self.operation_name)
            if operation is not None and operation.commutative:
                raise UsageError(
                    f"{operation.title} is commutative, so it cannot delete the entity, of which "
                    "it has a stripe; do that in an operation that is not"
                )
        self._deleted = True

    def get_input(self, data_type: Any = Any) -> Any:
        """Give the operation's input, or None."""
        codec = codec_of_type(data_type)
        return None if self._input is None else codec.decode(self._input)

    def get_state(self, initializer: Callable[[], Any] | None = None) -> Any:
        """Give a function entity's state, made by ``initializer`` where there is none."""
        self._check()
        actor = self._actor
        if initializer is not None and not callable(initializer):
            raise refusal("initializer", "a function that gives a state", initializer)
        if actor.state is None and initializer is not None:
            actor.state = initializer()
        return actor.state

    def set_state(self, state: Any) -> None:
        """Set a function entity's state: any JSON value; None deletes it.

        What has a JSON form without being plain JSON is such from the next operation on.
        """
        self._check()
        self._actor.state = state

    def set_result(self, result: Any) -> None:
        """Set a function entity's result, for its caller."""
        self._check()
        self._result = result


class Decided(NamedTuple):
    """What an operation has decided by its context: what it is to send, and what becomes of it.

    Attributes:
        outgoing: when each message is due (None: at once), whose it is, and the message.
        deleted: whether the entity is to be deleted.
        result: the result that was set; None where none was.
    """

    outgoing: list[tuple[int | None, str, Message]] | None
    deleted: bool
    result: Any


def decided(context: EntityContext) -> Decided:
    """Give what an operation has decided so far; for the entity, and not for users' code."""
    return Decided(context._outgoing, context._deleted, context._result)  # pyright: ignore[reportPrivateUsage]


def end(context: EntityContext) -> None:
    """Let a context be of no more use: its operation has ended."""
    context._is_over = True  # pyright: ignore[reportPrivateUsage]
