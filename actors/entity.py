"""The entity: a state machine of operations that run one at a time, and locks.

``handle`` takes one message and says what became of it: None, it is consumed; ``HELD``, it
waits inside the actor until a lock is released; ``RELOAD``, it needs the actor loaded anew from
the store, and comes again; or an awaitable, an async operation that has to
be awaited before the next message. A failing operation takes its own state change and messages
back, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import orjson

from .codec import codec_for
from .context import due_time, to_datetime
from .errors import ParkedError, UsageError
from .failures import encode_failure, failure_of
from .ids import EntityId, check_instance_id
from .messages import (
    Caller,
    Command,
    Completion,
    LockRelease,
    LockRequest,
    Message,
    Operation,
    Start,
)
from .values import MISSING

if TYPE_CHECKING:
    from .context import OrchestrationContext
    from .definitions import EntityDefinition, OperationDefinition
    from .effects import Effects
    from .lookup import Lookup

A = TypeVar("A")
E = TypeVar("E")

HELD: Final = object()
RELOAD: Final = object()

_FAILURES_KEPT = 10
_CHECKED_SIZE_MAX = 4096
_ANY = codec_for(Any)


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
        "_now",
        "_outgoing",
        "_result",
        "entity_id",
        "operation_name",
    )

    def __init__(self, actor: EntityActor, operation: str, input: bytes | None, now: int) -> None:
        self._actor = actor
        self._input = input
        self._now = now
        self._outgoing: list[tuple[int | None, str, Message]] | None = None
        self._result: Any = None
        self._deleted = False
        self.entity_id: EntityId[Any] = EntityId(actor.name, actor.entity_key)
        self.operation_name = operation

    @property
    def key(self) -> str:
        """The entity's key."""
        return self.entity_id.key

    @property
    def current_utc_datetime(self) -> datetime:
        """The time at which the operation began: aware, UTC."""
        return to_datetime(self._now)

    def _send(self, due: int | None, target: str, message: Message) -> None:
        if self._outgoing is None:
            self._outgoing = []
        self._outgoing.append((due, target, message))

    @overload
    def signal_entity(
        self, id: EntityId[E], op: Callable[[E], Any], /, *, at: datetime | timedelta | None = ...
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, EntityContext], Any],
        /,
        *,
        at: datetime | timedelta | None = ...,
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], Any],
        input: A,
        /,
        *,
        at: datetime | timedelta | None = ...,
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A, EntityContext], Any],
        input: A,
        /,
        *,
        at: datetime | timedelta | None = ...,
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        id: EntityId[Any],
        op: str,
        input: Any = ...,
        /,
        *,
        at: datetime | timedelta | None = ...,
    ) -> None: ...
    def signal_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        at: datetime | timedelta | None = None,
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
        lookup = self._actor.lookup
        operation = lookup.find_operation(id, op)
        data = lookup.encode_input(operation, input)
        due = None if at is None else due_time(at, self._now)
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
        lookup = self._actor.lookup
        definition = lookup.find_orchestration(f, version)
        data = lookup.encode_input(definition, input)
        new_id = self._actor.new_id() if instance_id is None else instance_id
        self._send(
            None, check_instance_id(new_id), Start(definition.name, definition.version, data)
        )
        return new_id

    def delete(self) -> None:
        """Delete the entity's state at the end of this operation."""
        self._deleted = True

    def get_input(self, data_type: Any = Any) -> Any:
        """Give the operation's input, or None."""
        return None if self._input is None else codec_for(data_type).decode(self._input)

    def get_state(self, initializer: Callable[[], Any] | None = None) -> Any:
        """Give a function entity's state, made by ``initializer`` where there is none."""
        actor = self._actor
        if actor.state is None and initializer is not None:
            actor.state = initializer()
        return actor.state

    def set_state(self, state: Any) -> None:
        """Set a function entity's state: any JSON value; None deletes it."""
        self._actor.state = state

    def set_result(self, result: Any) -> None:
        """Set a function entity's result, for its caller."""
        self._result = result


class EntityActor:
    """One entity: its state, its lock, and what to do with a message.

    Invariants:

    * ``state`` is what the operations that succeeded have made of it; while an async operation
      is under way, ``frozen`` holds what it was before, since a checkpoint may come in between.
    * Messages are held only while ``lock`` is set.
    """

    __slots__ = (
        "careful",
        "changed",
        "definition",
        "encoded",
        "entity_key",
        "exists",
        "failed_signals",
        "failures",
        "frozen",
        "gone",
        "held",
        "id",
        "lock",
        "lookup",
        "name",
        "new_id",
        "parked",
        "parked_type",
        "size",
        "state",
        "stored",
        "unreadable",
    )

    def __init__(
        self,
        id: int,
        name: str,
        key: str,
        definition: EntityDefinition,
        lookup: Lookup,
        new_id: Callable[[], str],
    ) -> None:
        self.id = id
        self.name = name
        self.entity_key = key
        self.definition = definition
        self.lookup = lookup
        self.new_id = new_id
        self.state: Any = None
        self.exists = False
        self.stored = False
        self.changed = False
        self.careful = False  # a turn of it crashed lately: check all that it does
        self.lock: Caller | None = None
        self.held: list[Message] | None = None
        self.frozen: bytes | None = None
        self.encoded: bytes | None = None
        self.size = 0
        self.gone = False  # its partition has recovered, and another incarnation took over
        self.failures: list[Any] | None = None
        self.failed_signals = 0
        self.parked: str | None = None
        self.parked_type: str | None = None
        self.unreadable: bytes | None = None  # the stored state, where the class cannot read it

    @property
    def key(self) -> str:
        """The actor's key: the entity id's text form."""
        return f"@{self.name}@{self.entity_key}"

    @property
    def is_blocked(self) -> bool:
        """Whether messages may have to wait for long."""
        return self.lock is not None or self.parked is not None

    def load(self, state: bytes | None, lock: bytes | None, failures: bytes | None) -> None:
        """Take over the durable state.

        Raises:
            PayloadError: the state does not fit the entity's class.
        """
        self.stored = True
        if state is not None:
            self.state = self.definition.state.decode(state)
            self.exists = True
        if lock is not None:
            self.lock = Caller(*orjson.loads(lock))
        if failures is not None:
            self.failed_signals, self.failures = orjson.loads(failures)

    def encode_state(self) -> bytes | None:
        """Give the state to store: that before the operation under way, if one is."""
        if self.frozen is not None:
            return self.frozen or None
        if not self.exists:
            return None
        if self.encoded is None:
            self.encoded = self._checked(self.definition.state.encode(self.state))
        encoded, self.encoded = self.encoded, None
        return encoded

    def encode_lock(self) -> bytes | None:
        """Give the lock's holder to store."""
        return None if self.lock is None else orjson.dumps([*self.lock])

    def encode_failures(self) -> bytes | None:
        """Give the failed signals to store: how many, and the last of them."""
        return None if self.failures is None else orjson.dumps((self.failed_signals, self.failures))

    def handle(self, message: Message, now: int, effects: Effects) -> Any:
        """Take one message; see the module."""
        if isinstance(message, Operation):
            return self._operate(message, now, effects)
        if isinstance(message, LockRequest):
            return self._request_lock(message, effects)
        if isinstance(message, LockRelease):
            return self._release_lock(message, effects)
        if isinstance(message, Command) and message.action == "purge":
            self._purge(effects)
            effects.reply(message, None)
            return None
        if isinstance(message, Command) and message.action == "retry":
            if not message.loaded:
                return RELOAD
            effects.reply(message, None)
            return None
        effects.refuse(message, UsageError(f"{self.key} is an entity and takes operations only"))
        return None

    def park(self, kind: str, reason: str) -> None:
        """Stop taking turns until somebody repairs what is wrong."""
        self.parked_type = kind
        self.parked = reason
        self.changed = True

    def _purge(self, effects: Effects) -> None:
        self.state = None
        self.exists = False
        self.changed = True
        self.parked = self.parked_type = None
        self.failures = None
        self.failed_signals = 0
        self.encoded = None
        for held in self.held or ():
            effects.refuse(held, UsageError(f"{self.key} was purged"))
            effects.consume(held)
        self.held = None

    def _operate(self, message: Operation, now: int, effects: Effects) -> Any:
        if self.parked is not None:
            if message.call and message.reply is not None:
                effects.refuse(message, ParkedError(self.key, self.parked))
                return None
            return HELD
        operation = self.definition.operations.get(message.name)
        if operation is None:
            operation = self.definition.dynamic_operation(message.name)
        lock = self.lock
        if lock is not None and (operation is None or not operation.readonly):
            caller = message.caller
            if (
                caller is None
                or caller.instance_id != lock.instance_id
                or caller.execution != lock.execution
            ):
                return HELD
        if operation is None:
            known = ", ".join(self.definition.operations)
            self._fail(
                message,
                UsageError(f"{self.key} has no operation {message.name!r}; it has: {known}"),
                now,
                effects,
            )
            return None
        context: EntityContext | None = None
        if operation.takes_context:
            context = EntityContext(self, operation.name, message.input, now)
        if operation.is_async:
            return self._operate_async(operation, message, context, now, effects)
        definition = self.definition
        if not self.exists:
            self.state = definition.make()
        readonly = operation.readonly
        before = self._snapshot()
        try:
            value = operation.decode_input(message.input)
            result = operation.invoke(self.state, value, context)
            if context is not None and definition.is_function:
                result = context._result  # pyright: ignore[reportPrivateUsage]
            data = operation.output.encode(result) if message.call else None
            if readonly:
                self._roll_back(before)  # what it changed is not kept
            elif self.state is not None and (self.careful or self.size <= _CHECKED_SIZE_MAX):
                # Checked here, a state that cannot be stored fails this operation only. A large
                # one is checked once for each checkpoint instead.
                self.encoded = self._checked(definition.state.encode(self.state))
            else:
                self.encoded = None
        except Exception as error:
            self._roll_back(before)
            self._fail(message, error, now, effects)
        else:
            self._succeed(message, data, readonly, context, effects)
        return None

    async def _operate_async(
        self,
        operation: OperationDefinition,
        message: Operation,
        context: EntityContext | None,
        now: int,
        effects: Effects,
    ) -> None:
        definition = self.definition
        existed = self.exists
        if not existed:
            self.state = definition.make()
        encoded = definition.state.encode(self.state)
        self.frozen = encoded if existed else b""
        self.encoded = None
        try:
            value = operation.decode_input(message.input)
            result = await operation.invoke(self.state, value, context)
            if context is not None and definition.is_function:
                result = context._result  # pyright: ignore[reportPrivateUsage]
            data = operation.output.encode(result) if message.call else None
            if operation.readonly:
                self.state = definition.state.decode(encoded) if existed else None
            elif self.state is not None:
                self._checked(definition.state.encode(self.state))
        except Exception as error:
            self.state = definition.state.decode(encoded) if existed else None
            if not self.gone:
                self._fail(message, error, now, effects)
        except BaseException:
            # Cancelled by a stopping hub: nothing of it happened, and the message stays.
            self.state = definition.state.decode(encoded) if existed else None
            raise
        else:
            if not self.gone:
                self._succeed(message, data, operation.readonly, context, effects)
        finally:
            self.frozen = None

    def _checked(self, encoded: bytes) -> bytes:
        checked = self.lookup.check_size(encoded, f"the state of {self.key}")
        self.size = len(encoded)  # not that of a refused one, which is rolled back
        return checked

    def _snapshot(self) -> Any:
        if not self.exists:
            return None
        definition = self.definition
        # A function entity binds a new state, so there is no object to restore into.
        return (
            definition.state.encode(self.state)
            if definition.is_function
            else definition.take(self.state)
        )

    def _roll_back(self, before: Any) -> None:
        self.encoded = None
        if not self.exists:
            self.state = None
        elif before is None:
            return
        elif self.definition.is_function:
            self.state = self.definition.state.decode(before)
        else:
            self.definition.restore(self.state, before)

    def _succeed(
        self,
        message: Operation,
        data: bytes | None,
        readonly: bool,
        context: EntityContext | None,
        effects: Effects,
    ) -> None:
        if not readonly:
            self.exists = self.state is not None
            self.changed = True
        if context is not None:
            if context._deleted and not readonly:  # pyright: ignore[reportPrivateUsage]
                self.state = self.encoded = None
                self.exists = False
                self.changed = True
            if context._outgoing is not None:  # pyright: ignore[reportPrivateUsage]
                for due, target, sent in context._outgoing:  # pyright: ignore[reportPrivateUsage]
                    if due is None:
                        effects.send(target, sent)
                    else:
                        effects.send_later(due, target, sent)
        caller = message.caller
        if caller is not None:
            answer = Completion(
                "EntityOperationCompleted", caller.execution, caller.task, data or b"null"
            )
            effects.send(caller.instance_id, answer)
        elif message.reply is not None or message.request is not None:
            effects.reply(message, data)

    def fail(self, message: Message, error: BaseException, now: int, effects: Effects) -> None:
        """Answer an async operation that ended by an exception it could not take itself."""
        if isinstance(message, Operation):
            self._fail(message, error, now, effects)

    def _fail(self, message: Operation, error: BaseException, now: int, effects: Effects) -> None:
        failure = failure_of(error)
        caller = message.caller
        if caller is not None:
            body = encode_failure(failure)
            answer = Completion("EntityOperationFailed", caller.execution, caller.task, body)
            effects.send(caller.instance_id, answer)
            return
        if message.call:
            effects.reply_failure(message, failure)
            return
        # Nobody awaits a signal: what went wrong is logged, counted and kept on the entity.
        self.failed_signals += 1
        if self.failures is None:
            self.failures = []
        self.failures.append([now, message.name, failure.error_type, failure.message])
        del self.failures[:-_FAILURES_KEPT]
        self.changed = True
        effects.failed_operation(self.key, message.name, failure)
        if message.reply is not None or message.request is not None:
            effects.reply(message, None)

    def _request_lock(self, message: LockRequest, effects: Effects) -> Any:
        if self.lock is not None:
            return HELD
        self.lock = owner = message.owner
        self.changed = True
        following = message.position + 1
        if following < len(message.entities):
            effects.send(
                message.entities[following], LockRequest(owner, message.entities, following)
            )
        else:
            granted = Completion("EntityLockGranted", owner.execution, owner.task, b"null")
            effects.send(owner.instance_id, granted)
        return None

    def _release_lock(self, message: LockRelease, effects: Effects) -> Any:
        if self.lock == message.owner:
            self.lock = None
            self.changed = True
            if message.position >= 0 and message.position + 1 < len(message.entities):
                following = message.position + 1
                effects.send(
                    message.entities[following],
                    LockRelease(message.owner, message.entities, following),
                )
            return None
        for held in self.held or ():
            if isinstance(held, LockRequest) and held.owner == message.owner:
                assert self.held is not None
                self.held.remove(held)
                effects.consume(held)
                break
        return None
