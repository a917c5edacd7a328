"""The partition: a slice of all actors; the unit of ownership, order, commit and recovery.

Invariants:

* Turns run ahead of the commit, and read and write memory only. What leaves the partition
  (replies, activity starts, messages to other partitions) is attached to the batch of the turn
  that made it, and released in order when that batch is durable.
* One batch gathers while at most one is being stored.
* A message that another actor sent is, at every checkpoint, consumed or stored.
* Memory that a failed commit has tainted is dropped as a whole: the partition recovers from the
  store, so a recovered partition equals one that lived.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import anyio

from ...actors.changes import read_parked
from ...actors.errors import (
    FailureDetails,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    LeaseLostError,
    MailboxFullError,
    RequestIdReusedError,
    StorageError,
    StoreDamagedError,
    StoreMovedError,
    UnavailableError,
)
from ...actors.failures import encode_failure, read_failure
from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.messages import (
    ActivityCall,
    Caller,
    Command,
    Completion,
    Event,
    LockRelease,
    Message,
    TimerDue,
)
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...actors.printing import text_of
from ...actors.replay.history import FAILURES
from ...actors.values import TERMINAL
from ...storage import MendedInstance
from ...storage.records import RequestRow
from ...storage.slices import at_once, each, in_slices
from ..placement.claims import (
    Recorded,
    Repetitions,
    body_of,
    check_claim,
    claim_of,
    id_of,
    read_recorded,
)
from ..placement.hashing import name_in, partition_of
from ..placement.places import ENVELOPE_SIZE, Frame, MovedError, Outcome, Place
from ..placement.stripe_router import StripeRouter
from ..scheduling.clock import steady_time
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.waiter import Countdown
from .activation import Activation
from .batch import Batch, Errand
from .checkpoint import SealError, seal
from .damage import Damage
from .durable_timers import DurableTimer, DurableTimers
from .exchange import Exchange
from .guarded_store import GuardedStore
from .leftovers import Leftovers
from .loader import Loader
from .move import leave
from .overflow import Overflow
from .recovery import outcome_unknown, recover

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ...storage.protocol import PartitionStore
    from ..scheduling.clock import Clock
    from ..scheduling.deaths import Notes
    from ..scheduling.pump import Pump
    from ..scheduling.timers import TimerQueue
    from ..scheduling.waiter import Waiter
    from ..settings import Settings
    from .rounds import Rounds

#: How long mailboxes are drained in front of a checkpoint, in budgets of the pump.
_DRAIN_BUDGETS = 4

#: Claims on request ids that are found without asking the store; they may not be stored yet.
_CLAIMS_MAX = 10_000

_CALLED = {
    "TaskFailed": "an activity",
    "SubOrchestrationInstanceFailed": "a sub-orchestration",
    "EntityOperationFailed": "an entity's operation",
}
_STOPPED = frozenset({"Cancelled", "Terminated"})

#: What those get who repeat a request whose first caller gave it up before it was taken in.
_UNTRIED = object()

Post = Callable[[str, Completion], None]

_log = Log("perdure.partition")


class Activities(Protocol):
    """Runs activities; the answers of those of one partition go to its ``post_answer``."""

    def submit(self, call: ActivityCall, post: Post, /) -> None:
        """Run an activity; its answer goes to ``post``, with the caller's instance id."""
        ...

    def submit_all(self, calls: list[ActivityCall], post: Post, /) -> None:
        """Run activities; their answers go to ``post``, with the callers' instance ids."""
        ...

    def cancel(self, caller: Caller, /) -> None:
        """Tell one activity of an instance, or all of them for task 0, to stop."""
        ...

    def stop_all(self, post: Post | None = None, /) -> None:
        """Tell the activities (those that answer to ``post``, if given) to stop."""
        ...

    def callers(self, post: Post, /) -> set[Caller]:
        """Give who waits for the answers that go to ``post``."""
        ...


class Partition:
    """One partition of a hub; it is the ``Effects`` of its actors' turns."""

    def __init__(
        self,
        index: int,
        store: PartitionStore,
        *,
        lookup: Lookup,
        settings: Settings,
        clock: Clock,
        pump: Pump,
        timers: TimerQueue,
        activities: Activities,
        rounds: Rounds,
        new_waiter: Callable[[], Waiter],
    ) -> None:
        self.index = index
        self.store = GuardedStore(store)
        self.lookup = lookup
        self.settings = settings
        self.pump = pump
        self.clock = clock
        self.partitions: Sequence[Place] = ()
        self.activations: dict[str, Activation] = {}
        self.batch = Batch()
        self.flying: Batch | None = None
        self.releasing: Batch | None = None
        self.exchange = Exchange(self)
        self.timers = DurableTimers(self, timers)
        self.leftovers = Leftovers(self)
        self.router = StripeRouter(lookup, clock, index)
        self.sequence = 0
        self.epoch = 0
        self.next_id = 1
        self.next_row = 1
        self.waiting = 0  # clients' messages not consumed yet
        self.commits = 0
        self.failed_commits = 0  # in a row
        self.turns = 0
        self.messages = 0
        self.sent_away = 0  # messages to other partitions
        self.failed_operations = 0
        self.slows = False  # whether the turn under way has sent to where too much waits
        self.failed_calls = 0
        self.crashes: dict[str, int] = {}  # in a row, by actor
        self.notes: Notes | None = None  # of the turns, where processes have died
        self.crashed: dict[str, BaseException] = {}  # since the last recovery
        self.aside: list[Message] | None = None  # clients' messages, while it recovers from those
        self.watchers: dict[str, list[Waiter]] = {}
        self.on_fatal: Callable[[Exception], None] = lambda error: None
        self.requests: dict[str, Repetitions] = {}  # clients' request ids under way
        self.claims: dict[str, str] = {}  # the last ones whose targets are elsewhere
        self.down: Exception | None = None
        self.fatal: Exception | None = None
        self._activities = activities
        self._post_answer = self.post_answer  # one for all that run
        self._rounds = rounds
        self._new_waiter = new_waiter
        self.now = clock.now
        self.steady = steady_time(clock)
        self.lag = 0
        self._gathered = anyio.Event()
        self._broken: BaseException | None = None
        self._deferred: list[Activation] = []
        self._reloaded: list[Activation] = []
        self.expire_requests_at = 0
        self.loader = Loader(self)
        self.overflow = Overflow(self)
        self.purging: set[str] = set()  # instances that are gone, once that is durable
        self.evictions = 0
        self.damage = Damage(self.store.place, self)
        # Activities that run on other shards, where this partition was before.
        self.abroad: dict[int, set[Caller]] = {}
        self.cancel_abroad: Callable[[int, Caller], None] = lambda shard, caller: None
        self._leaving: Waiter | None = None
        self.late: list[tuple[str, Completion]] = []  # activities' answers while it leaves
        self._near = ""  # what ids of this partition may begin with

    # Taking messages in.

    def post(self, key: str, message: Message) -> None:
        """Put a message into an actor's mailbox; the actor is loaded if need be."""
        activation = self.activations.get(key)
        if activation is None:
            activation = self.activate(key)
        self._deliver(activation, message)

    def _deliver(self, activation: Activation, message: Message) -> None:
        activation.mail.append(message)
        if not activation.touched and (message.keep or activation.is_blocked):
            activation.touched = True
            self.batch.touched.append(activation)
            if activation.busy:
                self.gathered()  # no turn will say so for long
        if not activation.queued:
            activation.wake()
        elif activation.hand is not None and activation.read_beside(message):
            activation.mail.pop()

    def activate(self, key: str) -> Activation:
        """Begin to load an actor."""
        activation = Activation(self, key, None)
        activation.queued = True
        self.activations[key] = activation
        self.loader.load(activation)
        return activation

    def touch(self, activation: Activation) -> None:
        """Have the next checkpoint look at the activation's waiting messages."""
        if not activation.touched:
            activation.touched = True
            self.batch.touched.append(activation)

    def new_waiter(self) -> Waiter:
        """Make a place for one outcome."""
        return self._new_waiter()

    def request(self, key: str, message: Message, reply: Any = None) -> Waiter:
        """Take a client's message in; what comes of it is given to the waiter, once durable.

        Raises:
            UnavailableError: the partition is recovering, or too much is waiting.
        """
        if self.down is not None:
            return self._set_aside(key, message, reply)
        limit = self.settings.hub_messages_max
        if self.waiting >= limit and not isinstance(message, (Command, LockRelease)):
            raise MailboxFullError(f"partition {self.index}", limit)
        activation = self.activations.get(key) or self.activate(key)
        if activation.count >= activation.messages_max and not isinstance(
            message, (Command, LockRelease)
        ):
            raise MailboxFullError(key, activation.messages_max)
        if (
            type(message) is Event
            and activation.count + activation.events >= activation.messages_max
        ):
            raise MailboxFullError(key, activation.messages_max)
        waiter: Waiter = self._new_waiter() if reply is None else reply
        message.reply = waiter
        message.target = key
        self.waiting += 1
        self.post(key, message)
        return waiter

    def _set_aside(self, key: str, message: Message, reply: Any) -> Waiter:
        """Keep a client's message until the partition has recovered from somebody's crash."""
        if self.aside is None or len(self.aside) >= self.settings.hub_messages_max:
            raise self._refusal()
        waiter: Waiter = self._new_waiter() if reply is None else reply
        message.reply = waiter
        message.target = key
        self.aside.append(message)
        return waiter

    def _refusal(self) -> UnavailableError:
        if isinstance(self.down, MovedError):
            return MovedError(str(self.down))
        return UnavailableError(f"partition {self.index} is recovering: {self.down}")

    def request_all(self, parcels: Sequence[tuple[str, Message]], reply: Any = None) -> Waiter:
        """Take many messages of a client in; the waiter hears when all of them are durable."""
        waiter: Waiter = self._new_waiter() if reply is None else reply
        countdown = Countdown(waiter, len(parcels))
        for key, message in parcels:
            try:
                self.request(key, message, countdown)
            except UnavailableError as error:
                # It is raised where it is awaited; by its traceback until here it leads to itself.
                countdown.fail(error.with_traceback(None))
        return waiter

    async def request_later(
        self, key: str, message: Message, due: int, request: str | None
    ) -> None:
        """Keep a client's message until its time; durable when this returns."""
        claim = None if request is None else claim_of(request, key, message)
        if request is not None and claim is not None:
            if self.down is not None and self.aside is None:
                raise self._refusal()
            if not await self._begin_request(request, claim):
                return

        def keep() -> None:
            if claim is not None:
                self._answer_request(claim, b"ok", b"null", None)
            self.send_later(due, key, message)

        await self.perform(keep, claim)

    async def _begin_request(self, request: str, claim: str) -> bool:
        """Register a request that only has to be stored; False if it was, by an earlier one."""
        if await self._outcome_of_first(request, claim) is not _UNTRIED:
            return False
        try:
            stored = await self._read_request(request, claim)
            is_new = stored is None or not stored.is_answer
            if is_new and self.down is not None and self.aside is None:
                raise self._refusal()
        except BaseException as error:
            self._refuse_request(request, error)
            raise
        if not is_new:
            self._settle_request(request, None)
            return False
        self.requests.setdefault(request, Repetitions(claim))  # a recovery forgets it
        return True

    def _repetition(self, request: str, claim: str) -> Waiter | None:
        """Give the place of a repetition of what is under way; the first is registered as such."""
        made = self.requests.get(request)
        if made is None:
            check_claim(self.claims.get(request, request), claim, self.lookup)
            # Before anything is read, so that a repetition finds it.
            self.requests[request] = Repetitions(claim)
            return None
        check_claim(made.claim, claim, self.lookup)
        waiter = self._new_waiter()
        made.append(waiter)
        return waiter

    async def _read_request(self, request: str, claim: str) -> Recorded | None:
        """Read what is stored under a request id.

        Raises:
            RequestIdReusedError: another request has the id.
            StoreDamagedError: nobody can read it.
        """
        stored: RequestRow | None = await self.read("read_request", request)
        if stored is None:
            return None
        recorded = read_recorded(stored.body, self.store.place, request)
        check_claim(recorded.claim, claim, self.lookup)
        return recorded

    async def claim(self, request: str, claim: str) -> None:
        """Keep a request id for a request whose target is in another partition.

        Raises:
            RequestIdReusedError: another request has the id.
            UnavailableError: the partition is recovering.
        """
        if self.down is not None:
            raise self._refusal()
        for known in (self.requests.get(request), self.claims.get(request)):
            if known is not None:
                check_claim(known if isinstance(known, str) else known.claim, claim, self.lookup)
        # Before the read, so that another one finds it. Who repeats it reads as well: the first
        # may give up, or fail.
        self.claims[request] = claim
        while len(self.claims) > _CLAIMS_MAX:
            del self.claims[next(iter(self.claims))]
        try:
            stored = await self._read_request(request, claim)
        except BaseException:
            self.claims.pop(request, None)
            raise
        check_claim(self.claims.setdefault(request, claim), claim, self.lookup)
        if stored is None and self.down is None:
            body = body_of(b"claim", b"null", claim)
            self.batch.requests.append(RequestRow(request, self.steady(), body))
            self.gathered()

    async def request_once(self, key: str, message: Message, request: str | None) -> Any:
        """Take a client's message in and give its outcome, applied once for each request id."""
        if request is None:
            return await self.request(key, message)
        claim = claim_of(request, key, message)
        outcome = await self._outcome_of_first(request, claim)
        if outcome is not _UNTRIED:
            return outcome
        try:
            stored = await self._read_request(request, claim)
            is_new = stored is None or not stored.is_answer
            if is_new:
                message.request = claim
                self.request(key, message)
                self.requests.setdefault(request, Repetitions(claim))  # a recovery forgets it
        except BaseException as error:
            self._refuse_request(request, error)
            raise
        if is_new:
            assert message.reply is not None
            return await message.reply
        assert stored is not None
        self._settle_request(request, stored.outcome)
        return stored.outcome

    async def _outcome_of_first(self, request: str, claim: str) -> Any:
        """Wait for the outcome of a request of that id that is under way.

        Returns:
            ``_UNTRIED`` if none is, or none has come so far as to be tried: then this one is it.
        """
        while (waiter := self._repetition(request, claim)) is not None:
            try:
                outcome = await waiter
            finally:
                del waiter  # has the error, if it is one, which leads here by its traceback
            if outcome is not _UNTRIED:
                return outcome
        return _UNTRIED

    async def read(self, verb: str, *arguments: Any) -> Any:
        """Read from the store for somebody outside, who is told where the partition has left.

        Raises:
            MovedError: it has left, and its store is closed here.
            StorageError: the store cannot be read.
        """
        try:
            return await getattr(self.store, verb)(*arguments)
        except StorageError:
            if isinstance(self.down, MovedError):
                raise self._refusal() from None
            raise

    def _refuse_request(self, request: str, error: BaseException) -> None:
        """Tell those who repeated a request meanwhile that it was not taken in.

        Where its caller alone has gone, one of them has to take his place.
        """
        if not isinstance(error, Exception):
            self._settle_request(request, _UNTRIED)
            return
        if not isinstance(error, (MovedError, RequestIdReusedError, StoreDamagedError)):
            error = UnavailableError(f"not taken in: {text_of(error)}")
        self._settle_request(request, error)

    def _settle_request(self, request: str, outcome: Any) -> None:
        """Give those who repeated a request meanwhile the same outcome."""
        for waiter in self.requests.pop(request, ()):
            if isinstance(outcome, BaseException):
                waiter.fail(outcome)
            else:
                waiter.set(outcome)

    def request_new(self, key: str, message: Message, reply: Any = None) -> Waiter:
        """Take the first message for an orchestration in, whose id was made up just now."""
        if self.down is None and key not in self.activations:
            actor = OrchestrationActor(self.new_id(), key, self.lookup)
            self.activations[key] = Activation(self, key, actor)
        return self.request(key, message, reply)

    def receive(self, source: int, frame: Frame) -> None:
        """Take a frame of messages from another partition in."""
        if self.down is None:  # else it is asked for again when this one has recovered
            self.exchange.receive(source, frame)

    def acknowledge(self, target: int, last: int) -> None:
        """Hear what another partition has made durable, up to the number ``last``."""
        if self.down is None:
            self.exchange.acknowledge(target, last)

    def resend(self, target: int) -> None:
        """Give another partition all that it has not acknowledged, once more."""
        if self.down is None:
            self.exchange.resend(target)

    def offer(self, number: int) -> None:
        """Exchange with another partition what either side may have missed."""
        if self.down is None:
            self.exchange.resend(number)
            self.exchange.acknowledge_again(number)

    def unlock(self, key: str, owner: list[Any]) -> Waiter:
        """Take the lock of an entity from an owner that is gone.

        Raises:
            UnavailableError: the partition is recovering.
        """
        return self.request(key, LockRelease(Caller(*owner), [key], -1))

    async def purge_ended(self, keys: list[str]) -> list[tuple[str, bool]]:
        """Delete those instances that have ended or are parked; durable on return.

        What is not in memory is deleted as a set, in the next checkpoint.

        Returns:
            The keys of those that were deleted, each with whether it had to be ended first.

        Raises:
            UnavailableError: the partition is recovering, or has moved.
        """
        while True:
            if self.down is not None:
                await self.perform(_nothing)  # refused, unless it recovers from somebody's crash
            evictions = self.evictions
            records = await self.store.read_instances(keys, payloads=False)
            # Else one of them may live again, and have gone.
            if self.evictions == evictions and self.down is None:
                break
        ended: dict[str, int] = {}
        asked: list[tuple[str, bool, Waiter]] = []
        for record in records:
            key, parked = record.key, record.parked is not None
            if key in self.purging:
                continue
            if record.status in TERMINAL and not parked and key not in self.activations:
                ended[key] = record.id
            elif record.status in TERMINAL or parked:
                asked.append((key, parked, self.request(key, Command("purge"))))
        deleted: set[str] = set()

        def delete() -> None:
            deleted.clear()
            for key, id in ended.items():
                if key not in self.activations:  # else it lives again, since this is done over
                    self.batch.purged[key] = id
                    self.purging.add(key)
                    self.drop_activities(key)
                    deleted.add(key)

        await self.perform(delete)
        gone = [(key, False) for key in ended if key in deleted]
        for key, parked, answer in asked:
            try:
                await answer
            except (InstanceNotFoundError, InstanceNotFinishedError):
                continue  # purged or started again by somebody else in between
            gone.append((key, parked))
        return gone

    def new_id(self) -> int:
        """The next number for an actor."""
        number = self.next_id
        self.next_id = number + 1
        return number

    def new_row(self) -> int:
        """The next number for a row of mail, timers or outbox."""
        number = self.next_row
        self.next_row = number + 1
        return number

    def new_instance_id(self) -> str:
        """Make up an id, of this partition, for an orchestration that an entity starts."""
        if not self._near:
            self._near = name_in(self.index, len(self.partitions))
        return f"{self._near}::{uuid.uuid4().hex}"

    def gathered(self) -> None:
        """Say that there is something to commit."""
        self._gathered.set()

    # The effects of a turn.

    def send(self, target: str, message: Message) -> None:
        """Send a message to an actor of this or another partition."""
        if self.lookup.striped:
            target = self.router.route(target, message, len(self.partitions))
        message.keep = True
        self.batch.size += ENVELOPE_SIZE + message.size
        activation = self.activations.get(target)
        if activation is None:  # else it is of this partition
            index = partition_of(target, len(self.partitions))
            if index != self.index:
                self._send_away(index, target, message)
                return
            activation = self.activate(target)
        elif activation.spilled:
            self.slows = True
        self._deliver(activation, message)

    def _send_away(self, index: int, target: str, message: Message) -> None:
        self.sent_away += 1
        if self.exchange.choked and index in self.exchange.choked:
            self.slows = True
        parcels = self.batch.outbox.get(index)
        if parcels is None:
            self.batch.outbox[index] = [(target, message)]
        else:
            parcels.append((target, message))

    def send_later(self, due: int, target: str, message: Message) -> None:
        """Keep a message until its time; it waits in the sender's partition."""
        if self.lookup.striped:
            target = self.router.route(target, message, len(self.partitions))
        self.timers.arm(DurableTimer(due, target, message))

    def arm_timer(self, caller: Caller, due: int) -> None:
        """Send ``TimerDue`` to the caller at or after ``due``."""
        message = TimerDue(caller.execution, caller.task)
        self.timers.arm(DurableTimer(due, caller.instance_id, message))

    def disarm_timer(self, caller: Caller) -> None:
        """Remove an armed timer of the caller, or all of them for task 0."""
        self.timers.disarm(caller)

    def start_activity(self, call: ActivityCall) -> None:
        """Run an activity once the batch is durable."""
        self.batch.activities.append(call)

    def cancel_activity(self, caller: Caller, running: bool = True) -> None:
        """Do not start activities that have not been, and tell those that run to stop."""
        for batch in (self.batch, self.flying):
            if batch is not None and batch.activities:
                calls = batch.activities
                batch.activities = [call for call in calls if not _covers(caller, call.caller)]
        if running:
            self._activities.cancel(caller)
            for shard in self.abroad:
                self.cancel_abroad(shard, caller)

    def leave_activity(self, instance: int, call: ActivityCall) -> None:
        """Have an activity carried out although no turn will take its answer."""
        self.leftovers.keep(instance, call)

    def drop_activities(self, instance_id: str) -> None:
        """Let go of what an instance has left, which is purged."""
        if self.leftovers.rows:
            self.leftovers.forget(instance_id)

    def drop_answer(self, instance_id: str, answer: Completion) -> None:
        """Take note of an answer that nobody waits for."""
        if self.leftovers.rows and self.leftovers.take(instance_id, answer):
            return
        if answer.event in FAILURES:
            self.failed_call(instance_id, _CALLED[answer.event], read_failure(answer.body))

    def failed_call(self, instance_id: str, what: str, failure: FailureDetails) -> None:
        """A call failed, and nobody looked at its outcome."""
        if failure.error_type in _STOPPED:
            return  # that was asked for
        self.failed_calls += 1
        _log.error(
            "%s, called by %s, failed and nobody awaited it: %s: %s",
            what,
            instance_id,
            failure.error_type,
            failure.message,
        )

    def post_answer(self, instance_id: str, completion: Completion) -> None:
        """Take an activity's answer in."""
        if isinstance(self.down, MovedError):
            self.late.append((instance_id, completion))
            return
        if self.abroad:
            caller = Caller(instance_id, completion.execution, completion.task)
            for callers in self.abroad.values():
                callers.discard(caller)  # if this is recovering, it has to run again
        if self.down is None:
            if not (self.leftovers.rows and self.leftovers.take(instance_id, completion)):
                self.post(instance_id, completion)
        elif self.aside is not None:
            self.late.append((instance_id, completion))

    def reply(self, message: Message, result: bytes | None) -> None:
        """Answer whoever waits for the message, once the batch is durable."""
        if message.request is not None:
            self._answer_request(message.request, b"ok", result or b"null", result)
        if message.reply is not None:
            self._answer(message, result)

    def reply_failure(self, message: Message, failure: FailureDetails) -> None:
        """Answer that the message's work failed, once the batch is durable."""
        if message.request is not None:
            self._answer_request(message.request, b"failed", encode_failure(failure), failure)
        if message.reply is not None:
            self._answer(message, failure)

    def _answer(self, message: Message, value: Any) -> None:
        self.batch.replies.append((message.reply, value, message))
        if message.row:
            self.batch.by_row[message.row] = message.reply

    def _answer_request(self, claim: str, kind: bytes, value: bytes, outcome: Any) -> None:
        request = id_of(claim)
        body = body_of(kind, value, claim)
        self.batch.requests.append(RequestRow(request, self.steady(), body))
        self.batch.answered.append((request, outcome))

    def refuse(self, message: Message, error: Exception) -> None:
        """Fail whoever waits for the message, once what that depends on is durable."""
        if message.request is not None:
            self.batch.answered.append((id_of(message.request), error))
        if message.reply is not None:
            self._answer(message, error)
        elif message.keep:
            # An event from another orchestration, say: nobody awaits it.
            _log.warning("dropped a message: %s", error)

    def consume(self, message: Message) -> None:
        """A held message is done with."""
        if message.row:
            self.batch.mail_deleted.append(message.row)
        if message.timer:
            self.batch.timers_deleted.append(message.timer)
        if message.reply is not None:
            self.waiting -= 1

    def finished(self, instance_id: str) -> None:
        """An orchestration has ended."""
        self.batch.finished.append(instance_id)

    def failed_operation(self, entity: str, operation: str, failure: FailureDetails) -> None:
        """A signalled operation failed, and nobody awaits it."""
        self.failed_operations += 1
        _log.error(
            "signal %s.%s failed and was rolled back: %s: %s",
            entity,
            operation,
            failure.error_type,
            failure.message,
        )

    # Waiting for an end.

    def watch(self, key: str) -> Waiter:
        """Wait for an orchestration's end; the answer None means: look at the store again."""
        waiter = self._new_waiter()
        self.watch_with(key, waiter)
        return waiter

    def watch_with(self, key: str, waiter: Waiter) -> None:
        """The same, for a waiter that there is."""
        self.watchers.setdefault(key, []).append(waiter)

    def unwatch(self, key: str, waiter: Waiter) -> None:
        """Do not wait any more."""
        waiters = self.watchers.get(key)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self.watchers[key]

    async def wait_for_end(self, key: str) -> Outcome | None:
        """Wait for an orchestration's end; the answer None means: ask again.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        if self.down is not None and isinstance(self.down, MovedError):
            raise self._refusal()
        waiter = self.watch(key)
        try:
            if not self.is_live_here(key):
                # Watched first, then looked up: an end in between is not missed.
                records = await self.read("read_instances", [key])
                if not records:
                    raise InstanceNotFoundError(key)
                record = records[0]
                if isinstance(record, MendedInstance):
                    raise StoreDamagedError(
                        f"the result of {key!r} is not known: {read_parked(record.parked)[1]}"
                    )
                if record.status in TERMINAL:
                    return (record.status, record.output, record.failure)
            outcome: Outcome | None = await waiter
            return outcome
        finally:
            self.unwatch(key, waiter)
            del waiter  # has the error, if it is one, which leads here by its traceback

    def is_live_here(self, key: str) -> bool:
        """Whether the orchestration is in memory and has not ended, and its end will be told."""
        if self.down is not None:
            return False
        activation = self.activations.get(key)
        actor = None if activation is None else activation.actor
        return isinstance(actor, OrchestrationActor) and actor.is_live

    def reload(self, activation: Activation) -> None:
        """Load an actor anew, once what it has decided so far is durable."""
        activation.queued = True
        if activation.dirty or activation.flying:
            self._reloaded.append(activation)
        else:
            self._load_anew(activation)

    def _load_anew(self, activation: Activation) -> None:
        if isinstance(activation.actor, OrchestrationActor):
            activation.actor.close()  # an entity's readings may go on
        activation.actor = None
        for message in activation.mail:
            if isinstance(message, Command):
                message.loaded = True
        self.loader.load(activation)

    def stop(self, error: Exception) -> None:
        """Stop for good: another owner has taken over."""
        self.fatal = error
        self.on_fatal(error)

    # Committing.

    async def run(self) -> bool:
        """Commit what gathers until the partition leaves, which is True; recover where that fails."""
        async with TaskGroup() as tasks:
            tasks.start_soon(self.loader.run)
            tasks.start_soon(self.overflow.run)
            tasks.start_soon(self.exchange.run)
            while True:
                if self._leaving is not None and self._broken is None:
                    waiter, self._leaving = self._leaving, None
                    if await leave(self, waiter):
                        tasks.cancel_scope.cancel()
                        return True
                if not self.has_work:
                    self._gathered = anyio.Event()
                    await self._gathered.wait()
                if self.batch.has_rows:
                    await self._rounds.join()
                await self._commit_once()
        return False  # one of them was cancelled by what is not the hub, and took the others along

    def leave(self) -> Waiter:
        """Stop taking turns and make all durable; gives who waits for messages stored by then."""
        self._leaving = waiter = self._new_waiter()
        self.gathered()
        return waiter

    def stay(self, error: Exception) -> None:
        """Tell whoever had it leave, if anyone did and it has not begun, that it will not."""
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving.fail(error)

    @property
    def has_work(self) -> bool:
        """Whether there is something to commit, to release or to recover from."""
        return (
            self._broken is not None
            or self._leaving is not None
            or self.batch.has_rows
            or self.batch.has_output
        )

    @property
    def is_tainted(self) -> bool:
        """Whether a turn crashed, so that memory must be dropped."""
        return self._broken is not None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be committed, loaded or recovered."""
        return (
            self.down is None
            and not self.has_work
            and self.flying is None
            and self.releasing is None
            and not self.loader.is_loading
            and not self.overflow.is_feeding
            and not self.exchange.is_reading
        )

    def wait_durable(self) -> Waiter:
        """Give a waiter that hears when all that gathered up to now is durable."""
        errand = Errand(_nothing)
        errand.reply = waiter = self._new_waiter()
        if self.down is not None and isinstance(self.down, MovedError):
            waiter.fail(self._refusal())
        else:
            self.take_up(errand)
        return waiter

    def perform(self, work: Callable[[], None], claim: str | None = None) -> Waiter:
        """Do something whose effects go into the batch; gives who hears when they are durable.

        It is done again where the crash of a turn undoes it.

        Args:
            work: does it, at once or when the partition has recovered from such a crash.
            claim: of the request that it is done for, if that has one.

        Raises:
            UnavailableError: the partition is recovering from something else.
        """
        errand = Errand(work)
        errand.request = claim
        if self.down is not None:
            return self._set_aside("", errand, None)
        errand.reply = waiter = self._new_waiter()
        self.take_up(errand)
        return waiter

    def take_up(self, errand: Errand) -> None:
        """Do an errand, whose reply waits for the batch."""
        errand.work()
        assert errand.reply is not None
        self.batch.replies.append((errand.reply, None, errand))
        self.gathered()

    def crash(self, activation: Activation, error: BaseException) -> None:
        """Take note that a turn crashed: the partition drops its memory and recovers."""
        if activation.dead:
            return
        _log.error(
            "a turn of %s crashed; partition %d recovers", activation.key, self.index, why=error
        )
        activation.dead = True
        self._blame(activation, error)
        self.break_down(error)

    def _blame(self, activation: Activation, error: BaseException) -> None:
        key = activation.key
        self.crashed[key] = error
        if not is_interrupt(error):
            self.crashes[key] = self.crashes.get(key, 0) + 1

    def break_down(self, error: BaseException) -> None:
        """Take note that memory cannot be trusted, or not be filled: the partition recovers."""
        if self._broken is None:
            self._broken = error
        self.gathered()

    async def _commit_once(self) -> None:
        if self._broken is None:
            self.drain_mailboxes()
        if self._broken is not None:
            error, self._broken = self._broken, None
            await recover(self, error, None)
            return
        batch, self.batch = self.batch, Batch()
        self.turns += batch.turns
        self.messages += batch.messages
        if batch.has_rows or batch.outbox_deleted:
            try:
                checkpoint = self.pump.lend(partial(seal, self, batch))
            except SealError as error:
                self._blame(error.activation, error)
                await recover(self, error, batch)
                return
            self.flying = batch
            flight = self._rounds.begin()
            try:
                await self.store.commit(checkpoint)
            except LeaseLostError as error:
                # Whoever has the store now speaks for it; coming back would take it from them.
                batch.fail_replies(error)
                self.stop(error)
                return
            except StoreMovedError as error:
                batch.fail_replies(outcome_unknown())
                self.stop(error)
                return
            except (StorageError, UnavailableError) as error:
                self.failed_commits += 1
                await recover(self, error, batch)
                return
            except BaseException:
                batch.fail_replies(outcome_unknown())  # the hub stops in the middle of it
                raise
            finally:
                self.flying = None
                flight.end()
                self._let_on()
            self.commits += 1
            self.failed_commits = 0
            self.sequence = checkpoint.sequence
            self.exchange.on_durable(checkpoint)
        self.releasing = batch
        try:
            if not self.is_tainted:
                await in_slices(self._release(batch))
                self._evict()
            else:
                # Durable, but memory is tainted: answers may go out, the rest is recovered.
                await in_slices(batch.release_replies(self))
        except BaseException:
            at_once(batch.release_replies(self))  # the hub stops in the middle of it
            raise
        finally:
            self.releasing = None

    def drain_mailboxes(self) -> None:
        """Let entities take now what would have to be stored, since it waits at a checkpoint.

        To store a message and to delete it again costs more than its turn. Orchestrations have
        their turns later: most of what they take makes them send more.
        """
        if self.batch.touched:
            self.pump.lend(self._drain)

    def _drain(self) -> None:
        batch = self.batch
        began = now = perf_counter()
        given_up = began + _DRAIN_BUDGETS * self.settings.pump_budget_s
        for activation in list(batch.touched):
            while activation.is_prompt and now < given_up and not batch.is_full:
                activation.run()
                now = perf_counter()
        self.pump.busy_s += now - began

    def defers(self, activation: Activation) -> bool:
        """Have an activation wait for the end of a commit, if there is one to wait for."""
        if self.flying is None and not self.batch.has_rows:
            return False
        activation.queued = True
        self._deferred.append(activation)
        self.gathered()
        return True

    def _let_on(self) -> None:
        deferred, self._deferred = self._deferred, []
        for activation in deferred:
            activation.wake()

    def _release(self, batch: Batch) -> Generator[None]:
        """Let out what waited for the batch, which is durable now; pauses now and then.

        While it pauses turns go on, and gather for the next batch, which is not sealed before
        this one is out. So what leaves the partition does so in order, and its memory is not
        dropped meanwhile: that is done where batches are sealed.
        """
        for activation in batch.dirty:
            activation.flying = False
            if self.crashes:
                self.crashes.pop(activation.key, None)  # only those in a row count
        yield from batch.release_replies(self)
        if batch.activities:
            self._activities.submit_all(batch.activities, self._post_answer)
        yield from self.exchange.release(batch)
        yield from each(batch.finished, self._release_waiters)
        if batch.purged:
            self.purging -= batch.purged.keys()
        self.overflow.relieve(batch)
        reloaded, self._reloaded = self._reloaded, []
        for activation in reloaded:
            if not activation.dead:
                self.reload(activation)

    def _release_waiters(self, key: str) -> None:
        activation = self.activations.get(key)
        actor = None if activation is None else activation.actor
        waiters = self.watchers.pop(key, None)
        if waiters is not None:
            outcome = None
            # What came behind the end may not be durable yet: then the store says what is.
            if (
                activation is not None
                and not activation.dirty
                and isinstance(actor, OrchestrationActor)
            ):
                outcome = actor.outcome
            for waiter in waiters:
                waiter.set(outcome)
        if activation is not None and activation.is_idle:
            self.drop(activation)

    def _evict(self) -> None:
        """Drop cold activations where there are more than the limit says (second chance)."""
        count, limit = len(self.activations), self.settings.cached_actors_max
        if count > limit:
            self.evict(count - limit + limit // 8)

    def evict(self, count: int) -> int:
        """Drop up to ``count`` activations that are idle and were not used lately."""
        gone: list[Activation] = []
        for activation in self.activations.values():
            if not activation.is_idle or activation.actor is None:
                continue
            if activation.used:
                activation.used = False
                continue
            gone.append(activation)
            if len(gone) >= count:
                break
        for activation in gone:
            self.drop(activation)
        self.evictions += len(gone)
        return len(gone)

    def drop(self, activation: Activation) -> None:
        """Take an activation out of memory."""
        del self.activations[activation.key]
        activation.retire()
        activation.close()

    def drop_all(self, *, activities: bool = True) -> Dropped:
        """Take all out of memory, with its timers, and its activities if so; gives what it was.

        Nothing of it does anything from now on, but its code is there until it is let go.
        """
        activations, self.activations = [*self.activations.values()], {}
        for activation in activations:
            activation.retire()
        dropped = Dropped(activations, self.timers.clear())
        self.overflow.clear()
        self.leftovers.clear()
        self.purging.clear()
        if activities:
            self._activities.stop_all(self._post_answer)
        self.batch = Batch()
        return dropped

    def answering(self) -> set[Caller]:
        """Give whose activities run, and answer to this partition."""
        return self._activities.callers(self._post_answer)

    def dispatch(self, call: ActivityCall) -> None:
        """Run an activity (again) that is durable already."""
        self._activities.submit(call, self._post_answer)


class Dropped(NamedTuple):
    """What a partition had in memory.

    Attributes:
        activations: whose code is there still.
        timers: forgets its timers; pauses now and then.
    """

    activations: list[Activation]
    timers: Generator[None]

    def let_go(self) -> Generator[None]:
        """Let all of it go; pauses now and then."""
        yield from self.timers
        while self.activations:
            self.activations.pop().close()
            yield


def _nothing() -> None:
    """Do nothing, for who only waits."""


def _covers(wanted: Caller, caller: Caller) -> bool:
    return wanted[:2] == caller[:2] and wanted.task in (0, caller.task)
