"""The partition: a slice of all actors; the unit of ownership, order, commit and recovery.

Below it are its parts: the ledger (what gathers), the catalog (who is in memory), the gate (whether
messages come in), requests and watchers (who waits for what), calls (which activities run), crashes,
exchange, timers, overflow and the loader. Above it are the door, through which everything comes in, and the commit loop, through
which everything becomes durable or is dropped. It is itself what lies between: mailboxes, and the
effects of turns.

Invariants:

* Turns run ahead of the commit, and read and write memory only. What leaves the partition
  (replies, activity starts, messages to other partitions) is attached to the batch of the turn
  that made it, and released in order when that batch is durable.
* A message that another actor sent is, at every checkpoint, consumed or stored.
* Memory that a failed commit has tainted is dropped as a whole: the partition recovers from the
  store, so a recovered partition equals one that lived.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Collection, Container, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ...actors.errors import FailureDetails
from ...actors.failures import encode_failure
from ...actors.logs import Log
from ...actors.messages import ActivityCall, Caller, Completion, Message, TimerDue
from ...actors.orchestrations.orchestration import OrchestrationActor
from ..placement.claims import id_of
from ..placement.hashing import name_in, partition_of
from ..placement.places import ENVELOPE_SIZE, Place
from ..placement.stripe_router import StripeRouter
from ..scheduling.clock import steady_time
from .activation import Activation
from .batch import Batch
from .calls import Activities, Calls
from .catalog import Catalog
from .checkpoint import store_mail
from .crashes import Crashes
from .damage import Damage
from .durable_timers import DurableTimer, DurableTimers
from .exchange import Exchange
from .gate import Gate
from .guarded_store import GuardedStore
from .ledger import Ledger
from .leftovers import Leftovers
from .loader import Loader
from .news import News
from .overflow import Overflow
from .requests import Requests
from .tenure import patiently, surely
from .unheard import Unheard
from .watchers import Watchers

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ...storage.protocol import PartitionStore
    from ...storage.records import RequestRow
    from ..scheduling.clock import Clock
    from ..scheduling.deaths import Notes
    from ..scheduling.pump import Pump
    from ..scheduling.timers import TimerQueue
    from ..scheduling.waiter import Waiter
    from ..settings import Settings
    from .around import Around
    from .tenure import Tenure
    from .workbook import Workbook

_log = Log("perdure.partition")


class Partition(Ledger):
    """One partition of a hub; it is the ``Effects`` of its actors' turns."""

    # Of so many attributes in a dict, CPython finds none, nor any method, the quick way.
    __slots__ = (
        "_near",
        "activations",
        "around",
        "calls",
        "catalog",
        "crashes",
        "damage",
        "exchange",
        "expire_requests_at",
        "fatal",
        "gate",
        "lag",
        "leftovers",
        "loader",
        "lookup",
        "new_name",
        "news",
        "notes",
        "now",
        "on_away",
        "on_fatal",
        "overflow",
        "places",
        "pump",
        "requests",
        "sent_away",
        "settings",
        "slows",
        "steady",
        "store",
        "stripe_router",
        "tenure",
        "timers",
        "unheard",
        "waiting",
        "watchers",
        "workbook",
    )

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
        new_waiter: Callable[[], Waiter],
    ) -> None:
        super().__init__(index, new_waiter)
        self.store = GuardedStore(store)
        self.lookup = lookup
        self.settings = settings
        self.pump = pump
        self.now = clock.now
        self.steady = steady_time(clock)
        #: All partitions, by number, this one among them; the shard keeps them up to date.
        self.places: Sequence[Place] = ()
        self.gate = Gate(index, settings.hub_messages_max)
        self.loader = Loader(self)
        self.catalog = Catalog(
            self._activation, self.loader.load, settings.cached_actors_max, self.let_go
        )
        #: The catalog's own.
        self.activations = self.catalog.activations
        self.requests = Requests(
            self.store.place,
            read=self._read_request,
            ledger=self,
            lookup=lookup,
            steady=self.steady,
            new_waiter=new_waiter,
        )
        self.watchers = Watchers()
        self.calls = Calls(activities, self.post_answer)
        self.news = News(self.steady)
        self.exchange = Exchange(self)
        self.timers = DurableTimers(self, timers)
        self.leftovers = Leftovers(self)
        self.overflow = Overflow(self)
        self.damage = Damage(self.store.place, self)
        self.stripe_router = StripeRouter(lookup, clock, index)

        #: Clients' messages that no turn has consumed, in memory and in the store.
        self.waiting = 0
        #: How many messages went to other partitions.
        self.sent_away = 0
        self.unheard = Unheard()
        #: How far the clock is behind the actor whose turn is under way, which is never set back.
        self.lag = 0
        #: Whether the turn under way has sent to where too much waits.
        self.slows = False
        self.crashes = Crashes(settings.crashes_max)
        #: Of the turns, where processes have died.
        self.notes: Notes | None = None
        #: What has begun of its instances, where anything traces.
        self.workbook: Workbook | None = None
        #: What is done around each turn, where anything is.
        self.around: Around | None = None
        #: When request ids are forgotten next, by the steady time.
        self.expire_requests_at = 0
        #: Whether it is still this process's, where others may take it over.
        self.tenure: Tenure | None = None
        #: Why another owner has taken over, if one has; and who is told.
        self.fatal: Exception | None = None
        self.on_fatal: Callable[[Exception], None] = lambda error: None
        #: Told when it waits for its store, and nobody should find it here, and when it is back.
        self.on_away: Callable[[bool], None] = lambda is_away: None
        #: What tells an id that is made up here from all others.
        self.new_name: Callable[[], str] = _random_name
        self._near = ""  # what ids of this partition may begin with

    # Mailboxes.

    def post(self, key: str, message: Message) -> None:
        """Put a message into an actor's mailbox; the actor is loaded if need be."""
        activation = self.activations.get(key)
        if activation is None:
            activation = self.catalog.activate(key)
        self.deliver(activation, message)

    def deliver(self, activation: Activation, message: Message) -> None:
        """Put a message into the mailbox of an actor that is in memory, or being loaded."""
        activation.mail.append(message)
        # Of one that holds what it cannot take yet, the turn takes note, which comes first.
        if (message.keep or activation.busy) and not activation.touched:
            activation.touched = True
            self.batch.touched.append(activation)
            if activation.busy:
                self.gathered()  # no turn will say so for long
        if not activation.queued:
            activation.queued = activation.ready = True  # as in wake(), of which this is most
            self.pump.put(activation)
        elif activation.hand is not None:
            if activation.read_beside(message):
                activation.mail.pop()
            else:
                activation.gives_way(message)

    def _read_request(self, request: str) -> Awaitable[RequestRow | None]:
        if self.tenure is not None:
            read = partial(self.store.read_request, request)
            return patiently(self.gate, partial(surely, self.tenure, read))
        return self.gate.read(self.store.read_request(request))

    def _activation(self, key: str) -> Activation:
        return Activation(self, key, None)

    def post_answer(self, instance_id: str, completion: Completion) -> None:
        """Take an activity's answer in."""
        gate = self.gate
        if gate.reason is not None and gate.has_moved:
            gate.late.append((instance_id, completion))
            return
        if self.calls.abroad:
            # If this is recovering, it has to run again.
            self.calls.answered(Caller(instance_id, completion.execution, completion.task))
        if gate.reason is None:
            if not self.leftovers.rows or not self.leftovers.take(instance_id, completion):
                activation = self.activations.get(instance_id)
                self.deliver(activation or self.catalog.activate(instance_id), completion)
        elif gate.aside is not None:
            gate.late.append((instance_id, completion))

    def reload(self, activation: Activation) -> None:
        """Load an actor anew, once what it has decided so far is durable."""
        activation.queued = True
        if activation.dirty or activation.flying:
            self.reloaded.append(activation)
        else:
            self.catalog.load_anew(activation)

    # The effects of a turn.

    def send(self, target: str, message: Message) -> None:
        """Send a message to an actor of this or another partition."""
        if self.lookup.striped:
            target = self.stripe_router.route(target, message, len(self.places))
        message.keep = True
        self.batch.size += ENVELOPE_SIZE + message.size
        activation = self.activations.get(target)
        if activation is None:  # else it is of this partition
            index = partition_of(target, len(self.places))
            if index != self.index:
                self._send_away(index, target, message)
                return
            activation = self.catalog.activate(target)
        elif activation.spilled:
            self.slows = True
        self.deliver(activation, message)

    def _send_away(self, index: int, target: str, message: Message) -> None:
        self.sent_away += 1
        if self.exchange.choked and index in self.exchange.choked:
            self.slows = True
        parcels = self.batch.outbox.get(index)
        if parcels is None:
            self.batch.outbox[index] = [(target, message)]
        else:
            parcels.append((target, message))

    def unload(self, key: str) -> None:
        """Write down what the turn of an actor has recorded and sent so far, in rows."""
        batch = self.batch
        actor = self.activations[key].actor
        if isinstance(actor, OrchestrationActor):
            actor.write_ahead()
        self.exchange.unload(batch)
        self.timers.unload(batch)
        # Not the actor's own: what it takes in this turn is not in its mailbox, and may come back.
        touched = [one for one in batch.touched if one.key != key]
        batch.touched = [one for one in batch.touched if one.key == key]
        for activation in touched:
            store_mail(self, batch, activation)

    def send_later(self, due: int, target: str, message: Message) -> None:
        """Keep a message until its time; it waits in the sender's partition."""
        if self.lookup.striped:
            target = self.stripe_router.route(target, message, len(self.places))
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
        instance_id, execution, task = caller
        self._not_start(instance_id, execution, {task} if task else None)
        if running:
            self.calls.cancel(caller)

    def cancel_activities(self, instance_id: str, execution: int, tasks: Collection[int]) -> None:
        """Do not start activities that have not been, and tell those that run to stop."""
        self._not_start(instance_id, execution, tasks)
        self.calls.cancel_some(instance_id, execution, tasks)

    def _not_start(self, instance_id: str, execution: int, tasks: Container[int] | None) -> None:
        for batch in (self.batch, self.flying, self.releasing):
            if batch is not None and batch.activities:
                batch.cancel(instance_id, execution, tasks)

    def leave_activities(
        self, instance: int, instance_id: str, execution: int, calls: dict[int, ActivityCall]
    ) -> None:
        """Have activities carried out although no turn will take their answers."""
        self.leftovers.keep_all(instance, instance_id, execution, calls)

    def drop_activities(self, instance_id: str) -> None:
        """Let go of what an instance has left, which is purged."""
        if self.leftovers.rows:
            self.leftovers.forget(instance_id)

    def drop_answer(self, instance_id: str, answer: Completion) -> None:
        """Take note of an answer that nobody waits for."""
        if self.leftovers.rows and self.leftovers.take(instance_id, answer):
            return
        self.unheard.answer(instance_id, answer)

    def failed_call(self, instance_id: str, what: str, failure: FailureDetails) -> None:
        """A call failed, and nobody looked at its outcome."""
        self.unheard.call(instance_id, what, failure)

    def reply(self, message: Message, result: bytes | None) -> None:
        """Answer whoever waits for the message, once the batch is durable."""
        if message.request is not None:
            self.requests.record(message.request, b"ok", result or b"null", result)
        waiter = message.reply
        if waiter is not None:  # as in _answer(), without a call for each
            self.batch.replies.append((waiter, result, message))
            if message.row:
                self.batch.by_row[message.row] = waiter

    def reply_failure(self, message: Message, failure: FailureDetails) -> None:
        """Answer that the message's work failed, once the batch is durable."""
        if message.request is not None:
            self.requests.record(message.request, b"failed", encode_failure(failure), failure)
        if message.reply is not None:
            self._answer(message, failure)

    def _answer(self, message: Message, value: Any) -> None:
        self.batch.replies.append((message.reply, value, message))
        if message.row:
            self.batch.by_row[message.row] = message.reply

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

    def prepare(self, key: str, steps: Generator[None]) -> None:
        """Have something done before the batch is sealed, and what the actor holds stored with it."""
        self.batch.unready.append((key, steps))

    def let_go(self, rest: Generator[None]) -> None:
        """Have the rest of something done behind the commit of the batch."""
        self.batch.rest.append(rest)

    def observe(self, told: Any) -> None:
        """Have whoever traces told of something, once the batch is durable."""
        self.batch.told.append(told)

    def failed_operation(self, entity: str, operation: str, failure: FailureDetails) -> None:
        """A signalled operation failed, and nobody awaits it."""
        self.unheard.operation(entity, operation, failure)

    def new_instance_id(self) -> str:
        """Make up an id, of this partition, for an orchestration that an entity starts."""
        if not self._near:
            self._near = name_in(self.index, len(self.places))
        return f"{self._near}::{self.new_name()}"

    def dispatch(self, call: ActivityCall) -> None:
        """Run an activity (again) that is durable already."""
        self.calls.dispatch(call)

    # What becomes of it.

    def crash(self, activation: Activation, error: BaseException) -> None:
        """Take note that a turn crashed: the partition drops its memory and recovers."""
        if activation.dead:
            return
        _log.error(
            "a turn of %s crashed; partition %d recovers", activation.key, self.index, why=error
        )
        activation.dead = True
        self.crashes.blame(activation.key, error)
        self.break_down(error)

    def stop(self, error: Exception) -> None:
        """Stop for good: another owner has taken over."""
        self.fatal = error
        self.on_fatal(error)

    def is_lost(self) -> bool:
        """Whether another process has it, or may have, and it ends here."""
        return self.fatal is not None and self.tenure is not None

    def leave(self) -> Waiter:
        """Stop taking turns and make all durable; gives who waits for messages stored by then."""
        self.leaving = waiter = self.new_waiter()
        self.gathered()
        return waiter

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be committed, loaded or recovered."""
        return (
            self.gate.reason is None
            and not self.has_work
            and self.flying is None
            and self.releasing is None
            and not self.loader.is_loading
            and not self.overflow.is_feeding
            and not self.exchange.is_reading
        )

    def drop_all(self, *, activities: bool = True) -> Dropped:
        """Take all out of memory, with its timers, and its activities if so; gives what it was.

        Nothing of it does anything from now on, but its code is there until it is let go.
        """
        dropped = Dropped(self.catalog.retire_all(), self.timers.clear())
        self.activations = self.catalog.activations
        self.overflow.clear()
        self.leftovers.clear()
        if activities:
            self.calls.stop_all()
        self.batch = Batch()
        return dropped


def _random_name() -> str:
    return uuid.uuid4().hex


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
            yield from self.activations.pop().close() or ()
            yield
