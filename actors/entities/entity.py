"""The entity: a state machine of operations that run one at a time, and locks.

``handle`` takes one message and says what became of it: None, it is consumed; ``HELD``, it
waits inside the actor until a lock is released; ``RELOAD``, it needs the actor loaded anew from
the store, and comes again; ``FEED``, it stands for messages that have to be read from the store
first; or an awaitable, an async operation that has to
be awaited before the next message. A failing operation takes its own state change and messages
back, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard, TypeVar

import orjson

from ..actor import Actor
from ..changes import EntityState, encode_parked, make, read_parked
from ..codec import codec_for
from ..contexts.entity import EntityContext, decided, end
from ..effects import FEED, HELD, RELOAD
from ..errors import FailureDetails, ParkedError, PayloadError, UsageError
from ..failures import encode_failure, failure_of
from ..interrupts import is_interrupt
from ..messages import (
    Backlog,
    Caller,
    Command,
    Completion,
    Fold,
    Folded,
    LockRelease,
    LockRequest,
    Message,
    Operation,
    TimerDue,
)
from ..printing import type_name
from ..registry.definitions import no_operation
from ..tracing import OperationFacts
from .failed_signals import FailedSignals
from .stripes import Home, Stripe, split_key

if TYPE_CHECKING:
    from ..effects import Effects
    from ..registry.definitions import EntityDefinition, OperationDefinition
    from ..registry.lookup import Lookup

A = TypeVar("A")
E = TypeVar("E")

_UNTAKEN: Final = object()  # no snapshot; a field's value may be None, and its snapshot with it

#: Of the caller of an operation that no orchestration calls.
_NOBODY: Final = (None, 0, 0)

_COMBINED_MAX = 1_000
_CHECKED_SIZE_MAX = 4096
_ANY = codec_for(Any)


def _end(context: EntityContext | None) -> None:
    if context is not None:
        end(context)


class EntityLook(NamedTuple):
    """What an entity is at one moment.

    Attributes:
        exists: whether it has state.
        holder: the instance that has its lock, or None.
        waiters: those that wait for the lock, as far as they are known.
        waiter_count: how many do.
        parked: why it takes no turns, if it does not: the kind of trouble, and the reason.
    """

    exists: bool
    holder: str | None
    waiters: list[str]
    waiter_count: int
    parked: tuple[str, str] | None


class EntityActor(Actor):
    """One entity: its state, its lock, and what to do with a message.

    Invariants:

    * ``state`` is what the operations that succeeded have made of it; while an async operation
      is under way, ``frozen`` holds what it was before, since a checkpoint may come in between,
      and ``before`` an object with it, for those that only read.
    * While it is spared nothing is told, so nothing is decided either: what is stored may be worth
      repairing.
    * Messages are held only while ``lock`` is set, the actor is parked, or ``folding``: a striped
      entity's home waits for its stripes.
    """

    __slots__ = (
        "_alone",
        "_new_id",
        "before",
        "careful",
        "definition",
        "encoded",
        "entity_key",
        "exists",
        "failed",
        "frozen",
        "gone",
        "home_key",
        "is_spared",
        "lock",
        "lookup",
        "name",
        "size",
        "state",
        "stored",
        "striping",
        "suspends",
        "unread_failures",
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
        *,
        careful: bool = False,
    ) -> None:
        super().__init__(id)
        self.name = name
        self.entity_key = key
        self.definition = definition
        self.lookup = lookup
        self._new_id = new_id
        self.state: Any = None
        self.exists = False
        self.stored = False
        self.is_spared = False  # what is stored is damaged, and stays as it is
        self.careful = careful  # a turn of it crashed lately: check all that it does
        self.lock: Caller | None = None
        self.frozen: bytes | None = None
        self.before: Any = None
        self.encoded: bytes | None = None
        self.size = 0
        self.gone = False  # its partition has recovered, and another incarnation took over
        self.failed: FailedSignals | None = None
        self.unreadable: bytes | None = None  # the stored state, where the class cannot read it
        self.unread_failures: bytes | None = None  # the same of its failed signals
        self.suspends = True  # whether an operation may be async
        self.striping: Home | Stripe | None = None
        self._alone = 0  # how many of the next messages are not to be combined
        self.home_key, number = split_key(key)
        if number is not None:
            self.striping = Stripe(self, f"@{name}@{self.home_key}", number)

    @property
    def key(self) -> str:
        """The actor's key: the entity id's text form."""
        return f"@{self.name}@{self.entity_key}"

    @property
    def title(self) -> str:
        """How errors call the entity: the text form of its id, also where this is a stripe."""
        return f"@{self.name}@{self.home_key}"

    def new_id(self) -> str:
        """Make up an instance id."""
        return self._new_id()

    @property
    def is_blocked(self) -> bool:
        """Whether messages may have to wait for long."""
        return self.lock is not None or self.parked is not None

    def look(self) -> EntityLook:
        """Give what it is at this moment, apart from what an operation under way has made of it."""
        waiters, count = ([], 0) if self.lock is None else self._lock_queue()
        return EntityLook(
            self.exists if self.frozen is None else bool(self.frozen),
            None if self.lock is None else self.lock.instance_id,
            waiters,
            count,
            None if self.parked is None else (self.parked_type or "", self.parked),
        )

    def define(self, definition: EntityDefinition, partitions: int) -> None:
        """Take over what its entity is, in a hub of so many partitions."""
        self.definition = definition
        self.combines = definition.combines
        self.suspends = definition.suspends
        if definition.stripes is not None and self.striping is None:
            self.striping = Home(self, definition.stripe_count(partitions))

    def load(self, stored: EntityState) -> None:
        """Take over the durable state.

        Raises:
            PayloadError: the state does not fit the entity's class.
            UsageError: the entity was striped and is not, or the other way round, and something
                of what it was is still there.
            ValueError, TypeError, LookupError: the lock or the failures are damaged.
        """
        self.stored = True
        if self.definition.stripes is None and isinstance(self.striping, Stripe):
            raise self._not_striped("this stripe still has something of its state")
        if stored.lock is not None:
            self.lock = Caller(*orjson.loads(stored.lock)[:3])
            if self.striping is not None:
                raise UsageError(
                    f"{self.key} is striped, and locked by {self.lock.instance_id} since before it "
                    "was; run the former code until that orchestration has released it"
                )
        if stored.failures is not None:
            count, last, *fold = orjson.loads(stored.failures)
            self.failed = FailedSignals.read(count, last)
            if fold:
                if not isinstance(self.striping, Home):
                    raise self._not_striped("its stripes were being asked")
                self.striping.load(fold[0])
        if stored.parked is not None:
            self.parked_type, self.parked = read_parked(stored.parked)
        if isinstance(self.striping, Stripe):
            self.striping.armed = stored.state is not None or self.failed is not None
        if stored.state is not None:
            # Last, so that the rest is kept also where this raises.
            self.state = self.definition.state.decode(stored.state)
            self.exists = True

    def keep(self, stored: EntityState) -> None:
        """Keep what is stored as it is, since it cannot be read; it is read again with a retry."""
        self.stored = True
        self.unreadable, self.unread_failures = stored.state, stored.failures
        if stored.lock is not None:
            self.lock = Caller(*orjson.loads(stored.lock)[:3])

    def seal(self, now: int) -> EntityState | None:
        """Tell what it is from here on; None if it is nothing, and was nothing before.

        While an operation is under way, that is what it was before.

        Args:
            now: the time of its last turn, or a later one.

        Raises:
            PayloadError: the state cannot be stored.
        """
        if self.is_spared:
            return None
        state = self._encode_state()
        failed = self.failed or self.unread_failures or self.striping
        failures = None if failed is None else self._encode_failures()
        self.changed = False
        parked, is_empty = None, False
        if self.parked is not None:
            parked = encode_parked(self.parked_type, self.parked)
            if self.unreadable is not None:
                state = self.unreadable
        elif state is None and failures is None and self.lock is None:
            if not self.stored:
                return None
            is_empty = True
        self.stored = not is_empty
        lock = None if self.lock is None else self._encode_lock(self.lock)
        fields = (self.id, self.name, self.entity_key, now, state, lock, failures, parked)
        told: EntityState = make(EntityState, fields)
        return told

    def _encode_state(self) -> bytes | None:
        if self.frozen is not None:
            return self.frozen or None
        if not self.exists:
            return None
        if self.encoded is None:
            self.encoded = self._checked(self.definition.state.encode(self.state))
        encoded, self.encoded = self.encoded, None
        return encoded

    def _encode_lock(self, holder: Caller) -> bytes:
        # For people with who waits for it, and how many.
        waiters, count = self._lock_queue()
        return orjson.dumps([*holder, waiters, count] if count else [*holder])

    def _lock_queue(self) -> tuple[list[str], int]:
        # The next one first. Of those whose requests lie in the store alone only the number is
        # known.
        waiters: list[str] = []
        count = 0
        for one in self.held or ():
            if type(one) is Backlog:
                count += one.locks
            elif type(one) is LockRequest:
                if count == len(waiters):  # not behind some that are not known
                    waiters.append(one.owner.instance_id)
                count += 1
        return waiters, count

    def _encode_failures(self) -> bytes | None:
        # How many, the last of them, and a home's round.
        if self.unread_failures is not None:
            return self.unread_failures
        failed = self.failed
        fold = self.striping.progress if isinstance(self.striping, Home) else None
        if fold is not None:
            failed = failed or FailedSignals()
            return orjson.dumps((failed.count, failed.last, fold))
        return None if failed is None else orjson.dumps((failed.count, failed.last))

    def handle(self, message: Message, now: int, effects: Effects) -> Any:
        """Take one message; see the module."""
        if type(message) is Operation:
            return self._operate(message, now, effects)
        if isinstance(message, LockRequest):
            return self._request_lock(message, effects)
        if isinstance(message, LockRelease):
            outcome = self._release_lock(message, effects)
            if outcome is None:
                effects.reply(message, None)  # a client waits, who takes it from one that is gone
            return outcome
        if isinstance(message, Folded):
            return HELD if self._take_stripe(message, effects) else None
        striping = self.striping
        if isinstance(striping, Stripe) and isinstance(message, Fold):
            striping.answer(message, effects)
            return None
        if isinstance(striping, Stripe) and isinstance(message, TimerDue):
            if self.parked is not None:
                return HELD
            striping.give_unasked(effects)
            return None
        if isinstance(message, Command) and message.action in ("purge", "retry", "fold", "park"):
            return self._obey(message, effects)
        if isinstance(message, Backlog):
            return FEED
        effects.refuse(message, UsageError(f"{self.key} is an entity and takes operations only"))
        return None

    def _obey(self, message: Command, effects: Effects) -> Any:
        home = self.striping if isinstance(self.striping, Home) else None
        if message.action == "purge":
            if home is None:
                self.purge(effects)
            elif home.purge(message, effects):
                return HELD
        elif message.action == "retry":
            if not message.loaded:
                return RELOAD
            if home is not None:
                home.retry(effects)
        elif message.action == "park" and not self.is_spared:
            self.park("StoreDamagedError", message.reason)
        elif home is not None and self.parked is None and home.waits(message):
            return HELD
        effects.reply(message, None)
        return None

    def _take_stripe(self, message: Folded, effects: Effects) -> bool:
        """Take what a stripe gives; True if it has to be kept."""
        if not isinstance(self.striping, Home):
            if self.parked is None:
                error = self._not_striped("one of its stripes has sent its state")
                self.park(type(error).__name__, str(error))
            return True
        if self.parked is not None and message.trouble is None:
            return True  # it comes again with the retry
        return self.striping.take(message, effects)

    def begin_fold(self, effects: Effects) -> None:
        """At the end of a turn: ask the stripes for what is held."""
        if isinstance(self.striping, Home):
            self.striping.begin(effects)

    def merge(self, data: bytes) -> None:
        """Fold a stripe's state into this one.

        Raises:
            Exception: what the user's merge raised, or why its outcome cannot be stored; nothing
                has changed then.
        """
        definition = self.definition
        assert definition.merge is not None
        before: Any = _UNTAKEN
        try:
            if self.exists:
                before = self._snapshot()
            else:
                self.state = definition.make()
                before = None
            result = copy_context().run(definition.merge, self.state, definition.state.decode(data))
            if result is not None and result is not self.state:
                raise UsageError(
                    f"merge of {self.key} returned {type_name(result)}; it must change self "
                    "and return None"
                )
            self._check_state()
        except BaseException:
            self._roll_back(before)
            raise
        self.exists = self.changed = True

    def add_failures(self, count: int, failures: list[Any]) -> None:
        """Take over the failed signals of a stripe."""
        if self.failed is None:
            self.failed = FailedSignals()
        self.failed.take(count, failures)
        self.changed = True

    def give_away(self) -> tuple[bytes | None, tuple[int, list[Any]] | None]:
        """Give the state and the failed signals, and have them no more.

        Raises:
            PayloadError: the state cannot be stored.
        """
        state = self._encode_state()
        failures = None if self.failed is None else (self.failed.count, self.failed.last)
        self.state = self.encoded = self.failed = None
        self.size = 0
        self.changed = self.changed or self.exists or self.stored
        self.exists = False
        return state, failures

    def _not_striped(self, why: str) -> UsageError:
        return UsageError(
            f"entity {self.name!r} is not striped any more, but {why}; register it with stripes "
            "again until that has come home"
        )

    def release(self) -> list[Message]:
        """Give back what is held, if it can be taken now: it goes before what came later.

        Whoever waits for the lock does not wait for the repair of a parked entity as well.
        """
        if self.is_spared:
            return []
        if self.parked is None or self.lock is not None or self.striping is not None:
            return super().release()
        released: list[Message] = []
        kept: list[Message] = []
        is_behind = False
        for message in self.held or ():
            is_behind = is_behind or isinstance(message, Backlog)
            if isinstance(message, (LockRequest, LockRelease)) and not is_behind:
                released.append(message)
            else:
                kept.append(message)
        self.held = kept or None
        return released

    def stay_parked(self, kind: str, reason: str) -> None:
        """Be parked, and say nothing of it: what is stored stays as it is."""
        self.parked_type, self.parked = kind, reason
        self.stored = self.is_spared = True
        self.changed = False

    def close(self) -> None:
        """Be of no more use: what is under way decides nothing."""
        self.gone = True

    def purge(self, effects: Effects) -> None:
        """Delete whatever there is but its lock, and drop what is held but requests for that."""
        self.state = None
        self.exists = self.is_spared = False
        self.changed = True
        self.parked = self.parked_type = None
        self.failed = self.unread_failures = self.unreadable = None
        self.encoded = None
        waiting: list[Message] = []
        for held in self.held or ():
            if isinstance(held, Backlog):
                held.refusal = f"{self.key} was purged"
                waiting.append(held)
            elif self.give_up(held, f"{self.key} was purged", effects):
                effects.consume(held)
            else:
                waiting.append(held)
        self.held = waiting or None

    def give_up(self, message: Message, reason: str, effects: Effects) -> bool:
        """Answer a message that waited and is not taken any more; False if it has to be.

        The lock is its holder's as before, and then that of whoever waits for it.
        """
        if isinstance(message, (LockRequest, LockRelease)) and self.striping is None:
            return False
        error = UsageError(reason)
        if isinstance(message, Command):
            effects.reply(message, None)
        elif isinstance(message, Operation) and message.caller is not None:
            self._answer_failure(message.caller, failure_of(error), effects)
        else:
            effects.refuse(message, error)
        return True

    def _operate(self, message: Operation, now: int, effects: Effects) -> Any:
        if self.parked is not None:
            if message.call and message.reply is not None:
                effects.refuse(message, ParkedError(self.title, self.parked))
                return None
            return HELD
        operation = self.definition.operations.get(message.name)
        if operation is None:
            operation = self.definition.dynamic_operation(message.name)
        striping = self.striping
        if striping is not None and operation is not None:
            if isinstance(striping, Home):
                if not operation.commutative and striping.waits(message):
                    return HELD
            elif operation.commutative:
                striping.arm(now, effects)
            else:
                striping.forward(message, effects)
                return None
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
            self._fail(message, no_operation(self.definition, message.name), now, effects)
            return None
        context: EntityContext | None = None
        if operation.takes_context:
            context = EntityContext(self, operation.name, message.input, now, effects.lag)
        if operation.is_async:
            return self._operate_async(operation, message, context, now, effects)
        try:
            data = copy_context().run(self._perform, operation, message, context)
        except BaseException as error:
            if is_interrupt(error):
                raise
            self._fail(message, error, now, effects)
        else:
            self._succeed(message, data, operation.readonly, context, effects)
        return None

    def _perform(
        self, operation: OperationDefinition, message: Operation, context: EntityContext | None
    ) -> bytes | None:
        """Run a sync operation and give its result; one that raises is rolled back."""
        definition = self.definition
        if message.carried is not None:
            self._take_along(message)
        before: Any = _UNTAKEN
        try:
            if not self.exists:
                self.state = definition.make()
            before = self._snapshot() if definition.is_function else definition.take(self.state)
            value = operation.decode_input(message.input)
            result = operation.invoke(self.state, value, context)
            if context is not None and definition.is_function:
                result = decided(context).result
            data = operation.output.encode(result) if message.call else None
            if data is not None and len(data) > self.lookup.max_payload:
                self.lookup.check_size(data, f"the result of {operation.title}")
            if operation.readonly:
                self._roll_back(before)  # what it changed is not kept
            else:
                self._check_state()
        except BaseException:
            _end(context)
            self._roll_back(before)
            raise
        return data

    def _take_along(self, message: Operation) -> None:
        """Set in the running context what came along, and tell whoever traces."""
        carried = message.carried
        assert carried is not None
        self.lookup.take_along(carried)
        tracer = self.lookup.tracer
        if tracer is not None:
            instance_id, execution, task = message.caller or _NOBODY
            facts = OperationFacts(
                self.title, message.name, message.call, instance_id, execution, task, carried
            )
            message.begun = tracer.begin_operation(facts)

    def _end_trace(
        self, message: Operation, failure: FailureDetails | None, effects: Effects
    ) -> None:
        tracer = self.lookup.tracer
        begun = getattr(message, "begun", None)
        if tracer is not None and begun is not None:
            effects.observe(tracer.end_operation(begun, failure))

    def combine(self, mail: Sequence[Message], start: int, now: int, effects: Effects) -> int:
        """Run signals of one operation that wait one behind the other as one, where that works.

        Args:
            mail: the messages that wait.
            start: the first of them that was not handled.
            now: the time.
            effects: where the outcome goes.

        Returns:
            How many messages are done with; 0 where the first has to be handled by itself.
        """
        if self._alone:
            self._alone -= 1
            return 0
        first = mail[start]
        if not isinstance(first, Operation) or self.is_blocked:
            return 0
        operation = self.definition.operations.get(first.name)
        if operation is None or operation.combine is None:
            return 0
        run = _signals_alike(mail, start)
        if len(run) < 2:
            return 0
        if self.striping is not None:
            if not operation.commutative:
                return 0  # each waits for its round
            if isinstance(self.striping, Stripe):
                self.striping.arm(now, effects)
        try:
            combined, context = copy_context().run(self._combine, operation, run, now, effects.lag)
        except BaseException as error:
            if is_interrupt(error):
                raise
            # Alone, only the one that fails does; nothing has happened yet.
            self._alone = len(run) - 1
            return 0
        self._succeed(combined, None, False, context, effects)
        for message in run:
            if message.reply is not None:
                effects.reply(message, None)
            effects.consume(message)
        return len(run)

    def _combine(
        self, operation: OperationDefinition, run: list[Operation], now: int, lag: int
    ) -> tuple[Operation, EntityContext | None]:
        assert operation.combine is not None
        carried = run[0].carried
        if carried is not None:
            self.lookup.take_along(carried)
        inputs = [operation.decode_input(message.input) for message in run]
        data = self.lookup.encode_input(operation, operation.combine(inputs))
        combined = Operation(operation.name, data)
        combined.carried = carried
        context: EntityContext | None = None
        if operation.takes_context:
            context = EntityContext(self, operation.name, data, now, lag)
        self._perform(operation, combined, context)
        return combined, context

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
        before: Any = None
        if message.carried is not None:
            self._take_along(message)  # in a context of its own, the pump's work
        try:
            if not existed:
                self.state = definition.make()
            encoded = definition.state.encode(self.state)
            if existed:
                # Copied now, since that may run users' code, which may raise.
                before = self._copy_of(self.state)
        except BaseException as error:
            if not existed:
                self.state = None
            self._fail(message, error, now, effects)
            return
        self.frozen = encoded if existed else b""
        self.before = before
        self.encoded = None
        try:
            value = operation.decode_input(message.input)
            result = await operation.invoke(self.state, value, context)
            if context is not None and definition.is_function:
                result = decided(context).result
            data = operation.output.encode(result) if message.call else None
            if data is not None:
                self.lookup.check_size(data, f"the result of {operation.title}")
            if operation.readonly:
                self.state = before
            elif self.state is not None:
                self._checked(definition.state.encode(self.state))
                if definition.flatten is not None:
                    self.state = definition.flatten(self.state)
        except BaseException as error:
            self.state = before
            if not issubclass(type(error), Exception):
                raise  # perhaps of a stopping hub: then nothing of it happened, and it stays
            if not self.gone:
                self._fail(message, error, now, effects)
        else:
            if not self.gone:
                self._succeed(message, data, operation.readonly, context, effects)
        finally:
            self.frozen = self.before = None
            _end(context)

    def _check_state(self) -> None:
        definition, state = self.definition, self.state
        if state is not None and (self.careful or self.size <= _CHECKED_SIZE_MAX):
            # Checked here, a state that cannot be stored fails this operation only. A large one is
            # checked once for each checkpoint instead.
            encoded = definition.state.encode(state)
            if len(encoded) > self.lookup.max_payload:
                self._checked(encoded)  # which refuses it
            self.size = len(encoded)
            self.encoded = encoded
        else:
            self.encoded = None
        if definition.flatten is not None and state is not None:
            self.state = definition.flatten(state)

    def _checked(self, encoded: bytes) -> bytes:
        size = len(encoded)
        if size > self.lookup.max_payload:
            self.lookup.check_size(encoded, f"the state of {self.title}")
        self.size = size  # not that of a refused one, which is rolled back
        return encoded

    def _snapshot(self) -> Any:
        definition = self.definition
        # A function entity binds a new state, so there is no object to restore into.
        return (
            definition.state.encode(self.state)
            if definition.is_function
            else definition.take(self.state)
        )

    def _copy_of(self, state: Any) -> Any:
        """Give another object with the same state, which shares nothing that can change."""
        definition = self.definition
        if definition.is_function:
            return definition.state.decode(definition.state.encode(state))
        made = definition.make()
        definition.restore(made, definition.take(state))
        return made

    def may_read(self, message: Message) -> TypeGuard[Operation]:
        """Whether a message may go past the async operation under way, since it only reads."""
        if not isinstance(message, Operation) or self.frozen is None or self.striping is not None:
            return False
        operation = self.definition.operations.get(message.name)
        return operation is not None and operation.readonly

    def read(
        self, message: Operation, now: int, effects: Effects
    ) -> Coroutine[Any, Any, None] | None:
        """Run an operation that only reads on a copy of the state; give it if it is async.

        While another operation is under way, it sees what was before that.
        """
        operation = self.definition.operations[message.name]
        context: EntityContext | None = None
        if operation.takes_context:
            context = EntityContext(self, operation.name, message.input, now, effects.lag)
        if operation.is_async:
            return self._read_async(operation, message, context, now, effects)
        try:
            data = copy_context().run(self._read, operation, message, context)
        except BaseException as error:
            if is_interrupt(error):
                raise
            self._fail(message, error, now, effects)
        else:
            self._succeed(message, data, True, context, effects)
        return None

    def _read(
        self, operation: OperationDefinition, message: Operation, context: EntityContext | None
    ) -> bytes | None:
        if message.carried is not None:
            self._take_along(message)
        try:
            value = operation.decode_input(message.input)
            return self._answer(operation, message, operation.invoke(self._seen(), value, context))
        finally:
            _end(context)

    async def _read_async(
        self,
        operation: OperationDefinition,
        message: Operation,
        context: EntityContext | None,
        now: int,
        effects: Effects,
    ) -> None:
        if message.carried is not None:
            self._take_along(message)
        try:
            value = operation.decode_input(message.input)
            result = await operation.invoke(self._seen(), value, context)
            data = self._answer(operation, message, result)
        except Exception as error:
            if not self.gone:
                self._fail(message, error, now, effects)
        else:
            if not self.gone:
                self._succeed(message, data, True, context, effects)
        finally:
            _end(context)

    def _seen(self) -> Any:
        """Give a copy of the state as it was before the operation under way."""
        state = self.state if self.frozen is None else self.before
        return self.definition.make() if state is None else self._copy_of(state)

    def _answer(
        self, operation: OperationDefinition, message: Operation, result: Any
    ) -> bytes | None:
        if not message.call:
            return None
        data: bytes = operation.output.encode(result)
        return self.lookup.check_size(data, f"the result of {operation.title}")

    def _roll_back(self, before: Any) -> None:
        self.encoded = None
        if not self.exists:
            self.state = None
        elif before is _UNTAKEN:
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
        if message.carried is not None:
            self._end_trace(message, None, effects)
        if not readonly:
            self.exists = self.state is not None
            self.changed = True
        if context is not None:
            end(context)
            outgoing, is_deleted, _ = decided(context)
            if is_deleted and not readonly:
                self.state = self.encoded = None
                self.exists = False
                self.changed = True
            if outgoing is not None:
                for due, target, sent in outgoing:
                    sent.carried = message.carried
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
        if type(error) is PayloadError:  # not isinstance(), which asks an error of the user's
            error.of(f"what operation {message.name!r} of {self.title} gives or leaves")
        failure = failure_of(error)
        if message.carried is not None:
            self._end_trace(message, failure, effects)
        caller = message.caller
        if caller is not None:
            self._answer_failure(caller, failure, effects)
            return
        if message.call:
            effects.reply_failure(message, failure)
            return
        # Nobody awaits a signal: what went wrong is logged, counted and kept on the entity.
        if self.failed is None:
            self.failed = FailedSignals()
        self.failed.add(now, message.name, failure)
        self.changed = True
        effects.failed_operation(self.title, message.name, failure)
        if message.reply is not None or message.request is not None:
            effects.reply(message, None)

    def _answer_failure(self, caller: Caller, failure: FailureDetails, effects: Effects) -> None:
        body = encode_failure(failure)
        answer = Completion("EntityOperationFailed", caller.execution, caller.task, body)
        effects.send(caller.instance_id, answer)

    def _request_lock(self, message: LockRequest, effects: Effects) -> Any:
        if self.is_spared:
            return HELD
        if self.striping is not None and self.parked is None:
            # Asked for by code from before it was striped.
            self.park("LockRuleError", f"{message.owner.instance_id} locks it, but it is striped")
        if self.lock is not None or self.striping is not None:
            self.changed = self.changed or self.lock is not None  # its status says who waits
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
        if self.is_spared and message.reply is None:
            return HELD  # who holds the lock cannot be read; a client does not wait for that
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
            if isinstance(held, Backlog):
                return HELD  # the request may be among those: this comes behind it
            if isinstance(held, LockRequest) and held.owner == message.owner:
                assert self.held is not None
                self.held.remove(held)
                self.changed = True
                effects.consume(held)
                break
        return None


def _signals_alike(mail: Sequence[Message], start: int) -> list[Operation]:
    """Give the signals of one operation, without request ids, that begin at ``start``."""
    run: list[Operation] = []
    for message in islice(mail, start, start + _COMBINED_MAX):
        if not isinstance(message, Operation) or message.call or message.request is not None:
            break
        if run and (message.name != run[0].name or message.carried != run[0].carried):
            break
        run.append(message)
    return run
