"""The orchestration: a state machine that turns messages into history, and history into effects.

``handle`` takes one message and says what became of it: None, it is consumed; ``HELD``, it
waits inside the actor while the instance is suspended, parked or not begun; ``RELOAD``, it needs
the actor loaded anew from the store, and comes again. A message becomes an
event of the history; the event lets the code run; what the code asks for is recorded behind it
and sent out. Nothing of the user's code runs for a terminated instance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import orjson

from ..actor import Actor
from ..carried import checked_carried
from ..changes import (
    InstanceChange,
    InstanceEvents,
    InstanceOrigin,
    InstanceProgress,
    InstanceState,
    encode_parked,
    make,
    read_parked,
)
from ..classes import is_a
from ..contexts.orchestration import OrchestrationContext
from ..effects import FEED, HELD, STAY
from ..errors import (
    FailureDetails,
    InstanceAlreadyExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InternalError,
    NondeterminismError,
    PayloadError,
    PerdureError,
    UnknownNameError,
)
from ..failures import encode_failure, failure_of
from ..messages import (
    AnswerKind,
    Backlog,
    Begin,
    Caller,
    Command,
    Completion,
    Event,
    Fork,
    Message,
    Start,
    TimerDue,
)
from ..payloads import compact
from ..replay.execution import NO_WORK, NOTHING, OpenLock, OpenWork, Outcome, let_go
from ..replay.executor import Executor, send_releases
from ..replay.history import FAILURES, EventKind, carried_by, open_children, open_lock
from ..replay.waits import OpenTask, open_tasks
from ..tracing import Passed, StartFacts
from ..values import TERMINAL, ExecutionEnd, Status
from .commands import COMMANDS
from .looks import InstanceLook

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..carried import Carried
    from ..effects import Effects
    from ..messages import Action
    from ..registry.lookup import Lookup
    from ..replay.execution import Execution
    from ..replay.rerun import Rerun
    from ..replay.trace import Tracer
    from .rewind_plan import Rewind

E = TypeVar("E", bound=Executor)

#: More events of one turn are told in several parts.
CHUNK_EVENTS = 1_000

#: So many events are kept at once where it goes on as new: a power of two, less one.
KEPT_MAX = 255

#: Ends at which all that is under way is told to stop, so that its failing is no news.
_TOLD = frozenset({"Canceled", "Terminated"})

#: Answers that are written down where an instance has failed before they came.
_KEPT = frozenset(
    {
        "TaskCompleted",
        "SubOrchestrationInstanceCompleted",
        "EntityOperationCompleted",
        "EntityOperationFailed",
    }
)


class OrchestrationActor(Actor):
    """One orchestration instance.

    Invariants:

    * ``executor`` is there while the instance runs: live code that has been taken through every
      event of its history. A parked instance has none, and keeps history and mailbox.
    * ``events`` holds what was recorded since the last checkpoint; ``seq`` counts the stored. Of a
      turn that records much, ``ahead`` has the first of it, and ``seq`` counts that as well.
    * Messages are held only while the instance is suspended, parked or waits to begin.
    """

    __slots__ = (
        "ahead",
        "barred",
        "begun",
        "carried",
        "completed",
        "created",
        "custom_status",
        "events",
        "execution",
        "executor",
        "failure",
        "failure_type",
        "fresh",
        "input",
        "instance_id",
        "keeping",
        "lookup",
        "name",
        "notes",
        "open_work",
        "output",
        "parent",
        "pending",
        "purged",
        "rewinding",
        "rewritten",
        "seq",
        "start_at",
        "status",
        "tags",
        "unfinished",
        "updated",
        "version",
    )

    def __init__(self, id: int, instance_id: str, lookup: Lookup) -> None:
        # As Actor does it, without a call for each instance.
        self.id = id
        self.changed = False
        self.combines = False
        self.folding = False
        self.held = None
        self.parked = None
        self.parked_type = None
        self.lookup = lookup
        self.instance_id = instance_id
        self.name = ""
        self.version: str | None = None
        self.execution = 0
        self.status: Status | None = None  # None: no such instance
        self.created = 0
        self.updated = 0
        self.completed: int | None = None
        self.parent: Caller | None = None
        self.tags: bytes | None = None
        self.carried: Carried | None = None  # kept in its history; before that, with what begins it
        self.input: bytes | None = None
        self.start_at: int | None = None
        self.output: bytes | None = None
        self.failure: bytes | None = None
        self.failure_type: str | None = None
        self.custom_status: bytes | None = None
        self.barred: str | None = None  # why its code, which has not begun, must not
        self.pending = 0
        self.notes: bytes | None = None
        self.seq = 0
        self.events: list[bytes] = []
        self.ahead: list[InstanceEvents] = []
        self.executor: Execution | None = None
        self.open_work = NO_WORK
        # Makes the events that it goes on with, or tells its children; nothing begins before.
        self.keeping: Generator[None] | None = None
        self.unfinished: Generator[None] | None = None  # what is left of a turn with much to do
        self.rewinding: Rewind | PerdureError | None = None
        self.begun = False
        self.fresh = False  # what its execution began with is to be told (again)
        self.rewritten = False  # its stored history is not to be kept
        self.purged = False

    @property
    def key(self) -> str:
        """The actor's key: the instance id."""
        return self.instance_id

    @property
    def is_live(self) -> bool:
        """Whether there is such an instance and it has not ended."""
        return self.status is not None and self.status not in TERMINAL

    @property
    def is_blocked(self) -> bool:
        """Whether messages may have to wait for long."""
        return (
            self.parked is not None
            or self.status == "Suspended"
            or (not self.begun and self.is_live)
        )

    @property
    def outcome(self) -> tuple[str, bytes | None, bytes | None] | None:
        """How it has ended: its status, its result, why it failed; None if it has not."""
        status = self.status
        return (status, self.output, self.failure) if status in TERMINAL and status else None

    @property
    def unconsumed_count(self) -> int:
        """How many events it has taken that its code has not."""
        return 0 if self.executor is None else self.executor.unconsumed_count

    def load(self, state: InstanceState) -> None:
        """Take over the durable state; of what lives, ``replay`` rebuilds it from the history."""
        origin, progress = state
        self.name = origin.name
        self.version = origin.version
        self.execution = origin.execution
        self.created = origin.created
        if origin.parent is not None:
            self.parent = Caller(origin.parent, origin.parent_execution, origin.parent_task)
        self.tags = origin.tags
        self.input = origin.input
        self.start_at = origin.start_at
        self.status = progress.status
        self.updated = progress.updated
        self.completed = progress.completed
        self.pending = progress.pending
        self.seq = progress.events
        self.output = progress.output
        self.failure = progress.failure
        self.failure_type = progress.failure_type
        self.custom_status = progress.custom_status
        self.notes = progress.notes
        if progress.parked is not None:
            self.parked_type, self.parked = read_parked(progress.parked)
        self.begun = self.seq > 0
        if not self.begun and self.notes is not None:
            self.carried = checked_carried(self.noted().get("carried"))

    def seal(self, now: int) -> InstanceChange | None:
        """Tell what became of it since it told last; None if there never was such an instance."""
        self.changed = False
        if self.purged:
            return None, True, None, None
        if self.status is None:
            return None
        told: InstanceEvents | list[InstanceEvents] | None = None
        events = self.events
        if events:
            if len(events) > CHUNK_EVENTS:
                if self.executor is not None:
                    self.executor.forget_events()  # else it keeps them until its next turn
                told = self._tell_many(events)
            else:
                told = make(InstanceEvents, (self.id, self.seq, b"[%b]" % b",".join(events)))
            self.seq += len(events)
            self.events = []
        if self.ahead:
            told, self.ahead = self._behind_ahead(told), []
        is_rewritten, self.rewritten = self.rewritten, False
        origin = self._tell_origin() if self.fresh else None
        executor = self.executor
        waits, attempts = NOTHING if executor is None else executor.summary()
        progress: InstanceProgress = make(
            InstanceProgress,
            (
                self.id,
                self.status,
                self.updated,
                self.completed,
                self.pending,
                self.seq,
                self.output,
                self.failure,
                self.failure_type,
                self.custom_status,
                None if self.parked is None else encode_parked(self.parked_type, self.parked),
                self.notes,
                waits,
                attempts,
            ),
        )
        return origin, is_rewritten, told, progress

    def write_ahead(self) -> None:
        """Write down what the turn under way has recorded so far, if that is much.

        It is told with all else; only the work is done now.
        """
        events = self.events
        if len(events) >= CHUNK_EVENTS:
            self.ahead += self._tell_many(events)
            self.seq += len(events)
            events.clear()  # the execution goes on writing into it

    def _behind_ahead(
        self, told: InstanceEvents | list[InstanceEvents] | None
    ) -> list[InstanceEvents]:
        if told is None:
            return self.ahead
        return [*self.ahead, *([told] if isinstance(told, InstanceEvents) else told)]

    def _tell_many(self, events: list[bytes]) -> list[InstanceEvents]:
        """Tell the events of a long turn in parts, between which whoever reads them may pause."""
        told: list[InstanceEvents] = []
        for start in range(0, len(events), CHUNK_EVENTS):
            some = events[start : start + CHUNK_EVENTS]
            # Not around what is joined: that is long, and would be copied once more.
            some[0] = b"[" + some[0]
            some[-1] += b"]"
            told.append(InstanceEvents(self.id, self.seq + start, b",".join(some)))
        return told

    def _tell_origin(self) -> InstanceOrigin:
        self.fresh = False
        parent = self.parent
        origin: InstanceOrigin = make(
            InstanceOrigin,
            (
                self.id,
                self.instance_id,
                self.name,
                self.version,
                self.execution,
                self.created,
                None if parent is None else parent.instance_id,
                0 if parent is None else parent.task,
                0 if parent is None else parent.execution,
                self.tags,
                self.input,
                self.start_at,
            ),
        )
        return origin

    def handle(self, message: Message, now: int, effects: Effects) -> Any:
        """Take one message; see the module."""
        if self.unfinished is not None:
            return STAY
        if type(message) is Completion:  # nearly always
            return self._complete(message, now, effects)
        take = self._TAKE.get(type(message))
        if take is not None:
            return take(self, message, now, effects)
        effects.refuse(message, InstanceNotFoundError(self.instance_id))
        return None

    def give_up(self, message: Message, reason: str, effects: Effects) -> bool:
        """Answer a message that waited for an execution which was replaced."""
        if isinstance(message, Event):
            effects.refuse(message, InstanceFinishedError(self.instance_id, reason))
        return True

    def give_up_held(self, now: int, effects: Effects) -> None:
        """Answer what was held for an execution that was just terminated and makes room."""
        for waiting in self.give_back():
            if isinstance(waiting, Backlog):
                waiting.refusal = "Terminated"
                self.hold(waiting)
                continue
            # Refused, or dropped, since that has ended.
            self.handle(waiting, now, effects)
            effects.consume(waiting)

    def _start(self, message: Start, now: int, effects: Effects) -> Any:
        if self.is_live:
            if message.on_existing != "replace":
                self._refuse_start(message, effects)
                return None
            self.terminate("replaced by a new instance", True, now, effects)
            self.give_up_held(now, effects)
        if self.keeping is not None:
            return STAY
        if self.status is not None or self.purged:
            self.make_room(effects)
        self.fresh = self.changed = True
        self.execution += 1
        self.name = message.name
        self.version = message.version
        self.created = self.updated = now
        self.parent = message.parent
        self.tags = message.tags
        self.carried = message.carried
        self.input = message.input
        self.start_at = message.start_at
        if self.lookup.tracer is not None:
            self.carried = self.lookup.tracer.begin_trace(self.start_facts())
        self.status = "Pending"
        effects.reply(message, b"true")
        if message.start_at is not None and message.start_at > now:
            effects.send_later(
                message.start_at, self.instance_id, Begin(self.execution, self.carried)
            )
            self._note_carried()
        else:
            self.run_first(now, effects)
        return None

    def _fork(self, message: Fork, now: int, effects: Effects) -> Any:
        if self.is_live:
            effects.refuse(message, InstanceAlreadyExistsError(self.instance_id))
            return None
        if self.keeping is not None:
            return STAY
        from .fork import fork  # here, since hardly an instance is ever forked

        self.finish_later(fork(self, message, now, effects), effects)
        return None

    def make_room(self, effects: Effects) -> None:
        """Be as nobody has begun it, in front of another execution."""
        if self.events or self.ahead:
            self._pass_on(None, effects)
        self.rewritten = True
        self.purged = False
        self.custom_status = None
        self.notes = None
        self._clear_outcome()

    def _clear_outcome(self) -> None:
        self.completed = None
        self.output = None
        self.failure = None
        self.failure_type = None
        self.parked = None
        self.parked_type = None
        self.pending = 0
        self.seq = 0
        self.events = []
        self.ahead = []
        self.begun = False
        self.fresh = True
        self.changed = True

    def start_facts(self) -> StartFacts:
        """Say whose execution it is, for whoever traces."""
        parent = None if self.parent is None else self.parent.instance_id
        facts: StartFacts = make(
            StartFacts,
            (
                self.instance_id,
                self.name,
                self.version,
                self.execution,
                parent,
                self.created,
                self.carried,
            ),
        )
        return facts

    def _pass_on(self, continued: int | None, effects: Effects) -> None:
        """Tell whoever traces what of an execution no history will tell, since another follows."""
        if self.lookup.tracer is not None:
            chunks = [one.body for one in self.ahead]
            if self.events:
                chunks.append(b"[%b]" % b",".join(self.events))
            effects.observe(Passed(self.start_facts(), chunks, continued, self.failure))

    def _refuse_start(self, message: Start, effects: Effects) -> None:
        if message.on_existing == "reuse":
            effects.reply(message, b"false")
        elif message.parent is not None:
            error = InstanceAlreadyExistsError(self.instance_id)
            self.answer_parent(
                message.parent, "SubOrchestrationInstanceFailed", failure_of(error), effects
            )
        else:
            effects.refuse(message, InstanceAlreadyExistsError(self.instance_id))

    def _feed(self, message: Backlog, now: int, effects: Effects) -> Any:
        return FEED

    def _begin(self, message: Begin, now: int, effects: Effects) -> Any:
        if message.execution != self.execution or self.begun or not self.is_live:
            return None
        if self.keeping is not None:
            return STAY
        self.carried = message.carried
        if self.status == "Suspended" or self.parked is not None:
            return HELD
        return self._run_first(now, effects, may_wait=True)

    def run_first(self, now: int, effects: Effects) -> None:
        """Begin: run the code up to where it first waits.

        Code that answers later begins by a message of its own, which waits until it has.
        """
        self._run_first(now, effects, may_wait=False)

    def _run_first(self, now: int, effects: Effects, *, may_wait: bool) -> Any:
        if self.barred is not None:
            reason, self.barred = self.barred, None
            self.status = "Running"
            self.park("Crash", reason)
            self._note_carried()
            return None
        executor = self._new_executor()
        if executor is None:
            self.status = "Running"
            self._note_carried()
            return None
        if executor.answers_later:
            if may_wait:
                return self._start_later(executor, now, effects)
            let_go(executor)
            self.executor = None
            effects.send(self.instance_id, Begin(self.execution, self.carried))
            return None
        self._have_begun()
        self.events.append(self.started(now))
        executor.begin_turn(now, effects, self.events)
        executor.start(self.input)
        self._end_step(executor, now, effects)
        return None

    async def _start_later(self, executor: Execution, now: int, effects: Effects) -> None:
        events = [self.started(now)]
        executor.begin_turn(now, effects, events)
        going = executor.start(self.input)
        if going is not None:
            await going
        if self.executor is executor:  # else it was let go meanwhile
            self._have_begun()
            self.events += events
            self._end_step(executor, now, effects)

    def _have_begun(self) -> None:
        self.status = "Running"
        self.begun = True
        if self.notes is not None:
            self.note(carried=None)  # its history has it from here on

    def started(self, now: int) -> bytes:
        """Write the event that a history begins with."""
        parent = None if self.parent is None else self.parent.instance_id
        carried = () if self.carried is None else (self.carried,)
        started = ("ExecutionStarted", now, self.name, self.version, self.execution, parent)
        return compact(orjson.dumps((*started, *carried)))

    def take_in(
        self, written: bytes, event: tuple[Any, ...], now: int, effects: Effects, reply: Any = None
    ) -> Any:
        """Write down an event that came in, and let the code go on with it.

        Args:
            written: the event, as the history has it.
            event: the event, as the execution takes it.
            now: when that is.
            effects: where what follows goes.
            reply: the message to be answered then, if one is.
        """
        executor = self.executor
        assert executor is not None
        if executor.answers_later:
            return self._take_in_later(executor, written, event, now, effects, reply)
        self.events.append(written)
        executor.begin_turn(now, effects, self.events)
        executor.apply(event)
        if reply is not None:
            effects.reply(reply, None)
        self._end_step(executor, now, effects)
        return None

    def _end_step(self, executor: Execution, now: int, effects: Effects) -> None:
        """Take over what the code has come to, once all of the step is done."""
        if executor.unfinished is None:
            self.adopt(now, effects)
        else:
            steps = self._finish_step(executor, executor.unfinished, now, effects)
            self.finish_later(steps, effects)

    def _finish_step(
        self, executor: Execution, steps: Generator[None], now: int, effects: Effects
    ) -> Generator[None]:
        lag = effects.lag
        for _ in steps:
            yield
            # Others have had their turns, and what was written may be told ahead of the seal.
            effects.lag = lag
            executor.begin_turn(now, effects, self.events)
        self.adopt(now, effects)

    def finish_later(self, steps: Generator[None], effects: Effects) -> None:
        """Go on with a turn that has much to do, with pauses; no other begins before its end."""
        self.changed = True
        self.unfinished = self._finish(steps)
        effects.prepare(self.instance_id, self.unfinished)

    def _finish(self, steps: Generator[None]) -> Generator[None]:
        yield from steps
        self.unfinished = None

    def finish_now(self) -> None:
        """Go on with such a turn to its end, without a pause."""
        for _ in self.unfinished or ():
            pass

    async def _take_in_later(
        self,
        executor: Execution,
        written: bytes,
        event: tuple[Any, ...],
        now: int,
        effects: Effects,
        reply: Any,
    ) -> None:
        events = [written]
        executor.begin_turn(now, effects, events)
        going = executor.apply(event)
        if going is not None:
            await going
        if self.executor is executor:  # else it was let go meanwhile
            self.events += events
            if reply is not None:
                effects.reply(reply, None)
            self._end_step(executor, now, effects)

    def bar(self, reason: str) -> None:
        """Let its code, which has not begun, not begin: it is parked where it would."""
        self.barred = reason

    def check_code(self) -> None:
        """Park it if its code is not registered, before any of it has run."""
        try:
            self.lookup.registry.exact_orchestration(self.name, self.version)
        except UnknownNameError as error:
            self.park("UnknownNameError", str(error))

    def _new_executor(self) -> Execution | None:
        """Make an execution of its code; where that is missing, park it and give None."""
        try:
            self.executor = self.new_execution()
        except UnknownNameError as error:
            self.park("UnknownNameError", str(error))
            return None
        return self.executor

    def new_execution(self) -> Execution:
        """Make an execution of its code, which has not begun: by coroutines of this process.

        Raises:
            UnknownNameError: its code is not registered.
        """
        return self._execution_of(Executor)

    def new_tracer(self) -> Tracer:
        """Make an execution of its code for a look at it, which has no effects.

        Raises:
            UnknownNameError: its code is not registered.
        """
        from ..replay.trace import Tracer  # here, since hardly anybody asks

        return self._execution_of(Tracer)

    def new_rerun(self) -> Rerun:
        """Make an execution of its code that is taken through its history once more.

        Raises:
            UnknownNameError: its code is not registered.
        """
        from ..replay.rerun import Rerun

        return self._execution_of(Rerun)

    def _execution_of(self, kind: type[E]) -> E:
        lookup = self.lookup
        definition = lookup.registry.exact_orchestration(self.name, self.version)
        context = lookup.new_context(definition, self.carried)
        if lookup.tracer is not None and self.carried is not None:
            context.run(lookup.tracer.enter_instance, self.carried)
        return kind(
            definition,
            self.instance_id,
            self.execution,
            self.new_context,
            lookup.stage,
            context,
            self.carried,
        )

    def new_context(self, executor: Executor) -> OrchestrationContext:
        """Give the code its context."""
        return OrchestrationContext(
            executor,
            self.lookup,
            self.input,
            None if self.parent is None else self.parent.instance_id,
            self.version,
            None if self.tags is None else orjson.loads(self.tags),
        )

    def replay(self, events: list[list[Any]]) -> Generator[None, None, None]:
        """Rebuild the live code from the stored history, if it has begun; yields now and then.

        An instance whose code is missing or does not match is parked.
        """
        if not self.begun:
            return
        self.carried = carried_by(events)
        executor = self._new_executor()
        if executor is None:
            self.lie_idle(events)
            return
        try:
            yield from executor.replay(events, self.input)
        except (NondeterminismError, PayloadError) as error:
            yield from executor.close() or ()
            self.executor = None
            self.park(type(error).__name__, str(error))
            self.lie_idle(events)
        else:
            self.parked = None
            self.parked_type = None

    def look(self) -> InstanceLook:
        """Give what it is at this moment, between two turns."""
        return InstanceLook(self)

    def open_tasks(self) -> Generator[None, None, list[OpenTask] | None]:
        """Give its tasks without an answer, or None where its code is not here; pauses now and then."""
        executor = self.executor
        return (yield from open_tasks(executor)) if isinstance(executor, Executor) else None

    def lie_idle(self, events: list[list[Any]]) -> None:
        """Note, for a parked instance whose code is not live, what its history has open."""
        self.open_work = _open_work(events)

    def prepare_rewind(self, events: list[list[Any]], force: bool) -> None:
        """Find out, from the stored history, where a failed instance can go on."""
        self.carried = carried_by(events)
        from .rewind import prepare  # here, since hardly an instance is ever rewound

        self.rewinding = prepare(self, events, force)

    def refuse_rewind(self, error: PerdureError) -> None:
        """Have the rewind refused that it was loaded for."""
        self.rewinding = error

    def noted(self) -> dict[str, Any]:
        """Give what is noted about it."""
        try:
            notes: Any = orjson.loads(self.notes or b"{}")
        except ValueError:
            return {}  # damaged, and worth less than the instance
        return notes if is_a(notes, dict) else {}

    def _note_carried(self) -> None:
        # What was to begin it may be gone when it begins, and with that what came along.
        if self.carried is not None:
            self.note(carried=self.carried)

    def note(self, **changes: Any) -> None:
        """Change what is noted about it.

        That is ``rewinds``, why it is ``suspended``, and what is ``carried`` until it begins.
        """
        notes = {**self.noted(), **changes}
        noted = {name: value for name, value in notes.items() if value is not None}
        self.notes = orjson.dumps(noted) if noted else None

    def _complete(self, message: Completion, now: int, effects: Effects) -> Any:
        if (
            message.execution != self.execution
            or self.status != "Running"
            or self.parked is not None
            or not self.begun
        ):
            return self._complete_idle(message, now, effects)
        executor = self.executor
        assert executor is not None
        event = message.event
        if message.task not in executor.pending:
            # Given up, or answered already; an activity that was run again after a crash, say.
            if message.task in executor.unanswered:
                self._drop_answer(message, executor, now)
            elif event in FAILURES and event != "TaskFailed":
                effects.drop_answer(self.instance_id, message)
            return None
        ran = message.ran
        if ran is None:
            written = b'["%b",%d,%d,%b]' % (event.encode(), now, message.task, message.body)
        elif ran[0] is None:
            given = (event.encode(), now, message.task, message.body, ran[1])
            written = b'["%b",%d,%d,%b,null,%d]' % given
        else:
            written = _answer(message, now)
        came = (event, now, message.task, message.body)
        if executor.answers_later:
            return self._take_in_later(executor, written, came, now, effects, None)
        # As in take_in(), without the call in every turn.
        self.events.append(written)
        executor.begin_turn(now, effects, self.events)
        executor.apply(came)
        if executor.unfinished is None:
            self.adopt(now, effects)
        else:
            self._end_step(executor, now, effects)
        return None

    def _complete_idle(self, message: Completion, now: int, effects: Effects) -> Any:
        if message.execution == self.execution and self.is_live:
            return HELD
        if self.status not in _TOLD:
            effects.drop_answer(self.instance_id, message)
        if self.status == "Failed" and message.execution == self.execution:
            self._keep_answer(message, now)
        return None

    def _keep_answer(self, message: Completion, now: int) -> None:
        # For a rewind: what has completed is not done again, and an operation's answer comes once.
        if message.event in _KEPT:
            self.events.append(_answer(message, now))
            self.changed = True

    def _drop_answer(self, message: Completion, executor: Execution, now: int) -> None:
        # Recorded all the same, so that a restart does not run the activity once more.
        executor.unanswered.pop(message.task, None)
        self.events.append(_answer(message, now))
        self.pending = len(executor.unanswered)
        self.updated = now
        self.changed = True

    def _fire(self, message: TimerDue, now: int, effects: Effects) -> Any:
        if message.execution != self.execution or not self.is_live:
            return None
        if self.is_blocked:
            return HELD
        executor = self.executor
        assert executor is not None
        if message.task not in executor.pending:
            return None
        written = b'["TimerFired",%d,%d]' % (now, message.task)
        return self.take_in(written, ("TimerFired", now, message.task, None), now, effects)

    def _raise_event(self, message: Event, now: int, effects: Effects) -> Any:
        if self.status is None:
            effects.refuse(message, InstanceNotFoundError(self.instance_id))
            return None
        if self.status in TERMINAL:
            effects.refuse(message, InstanceFinishedError(self.instance_id, self.status))
            return None
        if self.is_blocked:
            return HELD
        executor = self.executor
        assert executor is not None
        if message.is_unanswered:
            try:
                executor.check_event(message.name, message.data)
            except PayloadError as error:
                where = f"the wait for event {message.name!r} of {self.instance_id!r}"
                refused = PayloadError(error.path, f"{error.reason}; {where} declares that type")
                effects.refuse(message, refused)
                return None
        written = _event(b"EventRaised", now, orjson.dumps(message.name), message.data)
        event = ("EventRaised", now, message.name, message.data)
        return self.take_in(written, event, now, effects, message)

    def _command(self, message: Command, now: int, effects: Effects) -> Any:
        if self.status is None:
            missing = InstanceNotFoundError(self.instance_id)
            if message.parent is None:
                effects.refuse(message, missing)
            else:
                failure = failure_of(missing)
                self.answer_parent(
                    message.parent, "SubOrchestrationInstanceFailed", failure, effects
                )
            return None
        command = COMMANDS.get(message.action)
        if command is None:
            unknown = f"orchestration instance {self.instance_id!r} cannot {message.action}"
            effects.refuse(message, InternalError(f"{unknown}: that is sent to entities alone"))
            return None
        return command(self, message, now, effects)

    def record(self, now: int, kind: EventKind, *fields: Any) -> None:
        """Append an event to the history."""
        self.events.append(compact(orjson.dumps((kind, now, *fields))))
        self.updated = now
        self.changed = True

    def stay_parked(self, kind: str, reason: str) -> None:
        """Be parked, and say nothing of it: what is stored stays as it is."""
        self.parked_type, self.parked = kind, reason
        if self.status is None:
            self.status = "Running"  # of what is stored nothing can be read

    def fail_mismatch(self, now: int, effects: Effects) -> None:
        """Fail it where its code does not match its history; parked otherwise, it stays so."""
        if self.parked_type != "NondeterminismError":
            return
        failure = FailureDetails(self.parked_type or "", self.parked or "")
        self.finish(Outcome("Failed", failure=failure), now, effects)

    def close(self) -> Generator[None] | None:
        """Let the live code go."""
        unfinished, self.unfinished = self.unfinished, None
        if unfinished is not None:
            unfinished.close()  # a fork's has code of its own under way
        executor, self.executor = self.executor, None
        rest = None if executor is None else executor.close()
        if self.rewinding is not None and not isinstance(self.rewinding, PerdureError):
            let_go(self.rewinding.executor)
            self.rewinding = None
        return rest

    def adopt(self, now: int, effects: Effects) -> None:
        """Take over what the code has come to."""
        executor = self.executor
        assert executor is not None
        self.updated = now
        self.changed = True
        self.pending = len(executor.unanswered)
        if executor.custom_status is not None:
            self.custom_status = executor.custom_status
        if executor.outcome is not None:
            self.finish(self._bounded(executor.outcome), now, effects)

    def _bounded(self, outcome: Outcome) -> Outcome:
        """Make a failure of a result that is larger than a payload may be."""
        if outcome.output is None or len(outcome.output) <= self.lookup.max_payload:
            return outcome
        try:
            self.lookup.check_size(outcome.output, f"the result of orchestration {self.name!r}")
        except PayloadError as error:
            return Outcome("Failed", failure=failure_of(error))
        return outcome

    def finish(self, outcome: Outcome, now: int, effects: Effects) -> None:
        """End the execution, and answer whoever waits for it; or go on with a fresh one."""
        continuation = self.executor.continuation if self.executor is not None else None
        keeps_events = continuation is not None and continuation.keep_events
        unconsumed: Iterable[tuple[str, bytes]] = ()
        count = 0
        if keeps_events and self.executor is not None:
            unconsumed, count = self.executor.unconsumed_events(), self.executor.unconsumed_count
        self._clean_up(outcome.status, effects)
        if outcome.status == "ContinuedAsNew" and continuation is not None:
            self._pass_on(now, effects)
            self.execution += 1
            self.version = continuation.version
            self.input = continuation.input
            self._clear_outcome()
            if self.lookup.tracer is not None:
                self.carried = self.lookup.tracer.continue_trace(self.start_facts())
            self.rewritten = True
            # Not begun right here: one that never waits would never give the loop back. Not before
            # what is in the mailbox either: it would never be terminated.
            effects.send(self.instance_id, Begin(self.execution, self.carried))
            if count:
                self._keep(unconsumed, count, effects)
            return
        if self.notes is not None:
            self.note(suspended=None)
        self.status = outcome.status
        self.completed = self.updated = now
        self.pending = 0
        self.output = outcome.output
        self.parked = None
        if outcome.failure is not None:
            self.failure = encode_failure(outcome.failure)
            self.failure_type = outcome.failure.error_type
        self.record(now, "ExecutionCompleted", self.status)
        if outcome.status == "Completed":
            self.answer_completed(effects)
        elif self.parent is not None:
            failure = outcome.failure or FailureDetails(outcome.status, "")
            self.answer_parent(self.parent, "SubOrchestrationInstanceFailed", failure, effects)
        effects.finished(self.instance_id)

    def _keep(self, events: Iterable[tuple[str, bytes]], count: int, effects: Effects) -> None:
        """Hold events for the next execution, in front of what is held by then."""
        self.keeping = self._make_kept(events)
        if count > KEPT_MAX:
            effects.prepare(self.instance_id, self.keeping)
        else:
            self._end_keeping()

    def _make_kept(self, events: Iterable[tuple[str, bytes]]) -> Generator[None]:
        kept: list[Message] = []
        for name, data in events:
            event = Event(name, data)
            event.keep = True
            kept.append(event)
            if not len(kept) & KEPT_MAX:
                yield
        self.held = kept + (self.held or [])
        self.keeping = None

    def _end_keeping(self) -> None:
        for _ in self.keeping or ():
            pass

    def answer_completed(self, effects: Effects) -> None:
        """Give the result to the parent, if there is one."""
        if self.parent is not None:
            answer = Completion(
                "SubOrchestrationInstanceCompleted",
                self.parent.execution,
                self.parent.task,
                self.output or b"null",
            )
            effects.send(self.parent.instance_id, answer)

    def answer_parent(
        self, parent: Caller, event: AnswerKind, failure: FailureDetails, effects: Effects
    ) -> None:
        body = encode_failure(failure)
        effects.send(parent.instance_id, Completion(event, parent.execution, parent.task, body))

    def terminate(self, reason: str, recursive: bool, now: int, effects: Effects) -> None:
        """End it without running its code again."""
        self._end_keeping()
        children = self._children() if recursive else []
        self.record(now, "ExecutionTerminated", reason)
        outcome = Outcome("Terminated", failure=FailureDetails("Terminated", reason))
        self._tell_children(children, "terminate", reason, effects)
        self.finish(outcome, now, effects)

    def _tell_children(
        self, children: list[str], action: Action, reason: str, effects: Effects
    ) -> None:
        """Send children a command; to many with pauses, and nothing begins before that is done."""
        self.keeping = self._tell_each(children, action, reason, effects)
        if len(children) > KEPT_MAX:
            effects.prepare(self.instance_id, self.keeping)
        else:
            self._end_keeping()

    def _tell_each(
        self, children: list[str], action: Action, reason: str, effects: Effects
    ) -> Generator[None]:
        for place, child in enumerate(children):
            if not place & KEPT_MAX:
                yield
            effects.send(child, Command(action, reason))
        self.keeping = None

    def _children(self) -> list[str]:
        work = self.open_work if self.executor is None else self.executor.open_work()
        return work.children

    def _clean_up(self, status: ExecutionEnd, effects: Effects) -> None:
        """Give back what the execution holds outside: timers, locks, activities."""
        executor, self.executor = self.executor, None
        owner = Caller(self.instance_id, self.execution, 0)
        if self.pending:
            if executor is None or status not in ("Completed", "ContinuedAsNew"):
                effects.cancel_activity(owner)
            else:
                # What was called happens, also where nobody waits for it any more.
                calls = executor.open_activities()
                effects.leave_activities(self.id, self.instance_id, self.execution, calls)
        if executor is not None and status not in _TOLD:
            for target, failure in executor.unheard():
                effects.failed_call(self.instance_id, target, failure)
        effects.disarm_timer(owner)
        work = self.open_work if executor is None else executor.open_work()
        if work.lock is not None:
            number, entities, is_granted = work.lock
            send_releases(effects, owner._replace(task=number), entities, is_granted)
        if executor is not None:
            if status == "Canceled":
                self._tell_children(work.children, "cancel", "its parent was cancelled", effects)
            rest = executor.close()
            if rest is not None:
                effects.let_go(rest)
        self.open_work = NO_WORK

    #: What takes which message.
    _TAKE: ClassVar[dict[type[Message], Callable[..., Any]]] = {
        Completion: _complete,
        Start: _start,
        Fork: _fork,
        TimerDue: _fire,
        Event: _raise_event,
        Command: _command,
        Begin: _begin,
        Backlog: _feed,
    }


def _open_work(events: list[list[Any]]) -> OpenWork:
    """Read what an execution has open elsewhere off its history, where no code is live."""
    lock = open_lock(events)
    held: OpenLock | None = None
    if lock is not None:
        number, entities = lock
        is_granted = any(event[0] == "EntityLockGranted" and event[2] == number for event in events)
        held = OpenLock(number, entities, is_granted)
    return OpenWork(open_children(events), held)


def _answer(message: Completion, now: int) -> bytes:
    body = orjson.Fragment(message.body)
    return compact(orjson.dumps((message.event, now, message.task, body, *(message.ran or ()))))


def _event(kind: bytes, now: int, name: bytes, data: bytes) -> bytes:
    return b'["%b",%d,%b,%b]' % (kind, now, name, data)
