"""Drives an orchestration's code over its history: replaying and going on are the same code.

The executor takes incoming events one at a time. Each settles a task, which makes fibers ready;
they run until all of them wait, and what they asked for is recorded right behind the event that
let them run. In a replay the recorded decisions are there already, and every call of the code is
compared with the next of them at the moment it is made, so a mismatch is caught on the very line
that made it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextvars import Context, copy_context
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import orjson

from ..errors import (
    ActivityError,
    Cancelled,
    FailureDetails,
    LockRuleError,
    NondeterminismError,
    NonDurableAwaitError,
    PayloadError,
    UsageError,
)
from ..failures import encode_failure, failure_of
from ..ids import CHILD_ID_LENGTH, shortened
from ..interrupts import is_interrupt
from ..messages import (
    ActivityCall,
    Caller,
    Command,
    Event,
    LockRelease,
    LockRequest,
    Operation,
    Start,
)
from ..payloads import SHORT, compact
from ..registry.outside import calling_line, line_of, raising_line, refuse_await, translated
from .compound_tasks import TaskOfMany
from .endless import keep_for_ever
from .execution import NO_WORK, NOTHING, Continuation, OpenLock, OpenWork, Outcome, Summary
from .external_events import ExternalEvents
from .history import (
    SILENT,
    DecisionKind,
    describe,
    recorded_input,
)
from .inputs import Given
from .locks import EntityLock
from .scopes import Fiber, ReplayStopped
from .script import CopiedScript, Script
from .summary import summary_of
from .tasks import AT_ONCE, DONE, FAILED, PENDING, CallTask, EventTask, Task, TimerTask

if TYPE_CHECKING:
    from ..carried import Carried
    from ..effects import Effects
    from ..registry.definitions import ActivityDefinition, OrchestrationDefinition
    from ..registry.lookup import Stage

#: After how many calls what they sent is written down, and from how many on what they left behind
#: is let go of bit by bit: a power of two, less one.
_MANY = 1_023

#: More strands of code, or tasks, than these are stepped, or cancelled, bit by bit.
WIDE = 1_000
#: Branches that begin before time goes on. Without a bound those that begin others for ever would
#: never let their turn end, nor let the others of their partition have one.
BEGUN_MAX = 1_000_000

#: How often code that catches everything is thrown out before it is given up.
_STOPS_MAX = 100

_TASKS: Any = Task

_END = object()

# What a named tuple's class does, without the Python function in between.
_tuple = cast("Any", tuple).__new__

#: The failure of an activity that the code gave up.
GIVEN_UP = encode_failure(FailureDetails("Cancelled", "the orchestration gave it up"))


class Executor:
    """The live code of one execution: an ``Execution`` by coroutines of this process."""

    __slots__ = (
        "_begun",
        "_branches",
        "_make_context",
        "_put_off",
        "_random",
        "_root",
        "_script",
        "_uuids",
        "answers_later",
        "branch_numbers",
        "cancel_requested",
        "carried",
        "children",
        "closed",
        "context",
        "continuation",
        "custom_status",
        "definition",
        "effects",
        "events",
        "execution",
        "external",
        "given_up",
        "instance_id",
        "is_between",
        "is_stepped",
        "lock",
        "mismatch",
        "now",
        "numbers",
        "outcome",
        "pending",
        "ready",
        "running",
        "stage",
        "stops",
        "unanswered",
        "unfinished",
        "unseen",
    )

    def __init__(
        self,
        definition: OrchestrationDefinition,
        instance_id: str,
        execution: int,
        make_context: Callable[[Executor], Any],
        stage: Stage = Context.run,  # pyright: ignore[reportArgumentType]
        context: Context | None = None,
        carried: Carried | None = None,
    ) -> None:
        self.answers_later = False
        self.carried = carried
        self.definition = definition
        self.stage = stage
        self.context = copy_context() if context is None else context
        self.instance_id = instance_id
        self.execution = execution
        self._make_context: Callable[[Executor], Any] | None = make_context  # until it begins
        self.now = 0
        self.numbers = 0
        self.branch_numbers = 0
        self._begun = (0, 0)  # a time, and the number of the first branch that began at it
        self.pending: dict[int, Task[Any]] = {}
        self.ready: list[tuple[Fiber, BaseException | None]] = []
        self._root: Fiber | None = None
        self._branches: dict[int, Fiber] | None = None  # by number, so in the order they began
        self.running: Fiber | None = None
        self.outcome: Outcome | None = None
        self.continuation: Continuation | None = None
        self.cancel_requested: str | None = None  # why
        self.custom_status: bytes | None = None
        self.lock: EntityLock | None = None
        self.children: dict[int, str] | None = None
        self.unanswered: dict[int, ActivityCall] = {}  # activities without an answer, by number
        self.given_up: dict[
            int, bytes
        ] = {}  # activities that have to be told so, and their answers
        self.unseen: dict[int, CallTask[Any]] = {}  # failed calls that the code did not look at
        self.closed = False
        self.is_stepped = False  # else whoever uses its context is none of its code
        self.is_between = False  # whether none of its code goes on before what is put off is done
        self._put_off: list[Generator[None]] | None = None  # in order
        self.unfinished: Generator[None] | None = None  # what is left of the step under way
        self.stops = 0
        self.mismatch: NondeterminismError | None = None
        self.events: list[bytes] = []
        self.effects: Effects | None = None
        self.external: ExternalEvents | None = None  # once there are any, or waits for one
        self._script: Script | None = None  # while the code is taken through what it did before
        self._random: random.Random | None = None
        self._uuids = 0

    # What happens to the code.

    @property
    def is_replaying(self) -> bool:
        """Whether the code is being taken through what it did before."""
        return self._script is not None or self.closed

    @property
    def position(self) -> int:
        """How many events of its history it has been taken through; 0 where it does not replay."""
        return 0 if self._script is None else self._script.position

    def begin_turn(self, now: int, effects: Effects, events: list[bytes]) -> None:
        """Say when the next decisions are made, where they go, and where they are written down."""
        self.now = now
        self.effects = effects
        self.events = events

    def forget_events(self) -> None:
        """Let go of the list of the last turn's events, which are told."""
        self.events = []

    def start(self, input: bytes | None) -> None:
        """Make the code's root and let it run until it waits.

        Raises:
            PayloadError: in a replay, the input that could be read then cannot be read now.
        """
        make, self._make_context = self._make_context, None
        assert make is not None
        self.step(self._begin, make(self), input)

    def _begin(self, context: Any, input: bytes | None) -> None:
        made: Any = None
        try:
            value = self.definition.decode_input(input)
            made = self.definition.invoke(context, value)
            runs, by_yield = hasattr(made, "send"), not hasattr(made, "cr_await")
        except ReplayStopped:
            raise
        except BaseException as error:
            if is_interrupt(error) or (self._script is not None and is_unreadable(error)):
                raise
            self._end(None, error)
            return
        if runs:
            self._root = Fiber(self, made, by_yield)
            self.ready.append((self._root, None))
        else:
            self._end(made, None)

    def replay(
        self, history: list[list[Any]], input: bytes | None, every: int = 500
    ) -> Generator[None, None, None]:
        """Take the code through its history; yields now and then, so that a loop can breathe.

        Args:
            history: the events.
            input: its input.
            every: after how many events it yields; for 0, behind each that came in and what was
                decided by that.

        Raises:
            NondeterminismError: the code does something else than the history says.
        """
        yield from self._follow(Script(history), input, every)

    def replay_copied(
        self, history: list[list[Any]], input: bytes | None, every: int = 500
    ) -> Generator[None, None, None]:
        """Take the code through another instance's history, which becomes its own by that.

        What it decides has to be the same but for what follows from its own id; the decisions in
        the history are replaced by its own. Yields as ``replay`` does.

        Raises:
            NondeterminismError: the code does something else than the history says.
            PayloadError: what could be read then cannot be read now.
        """
        yield from self._follow(CopiedScript(history), input, every)

    def _follow(
        self, script: Script, input: bytes | None, every: int
    ) -> Generator[None, None, None]:
        self._script = script
        for _ in self._steps(script, input, every):
            yield
        self._script = None

    def _steps(
        self, script: Script, input: bytes | None, every: int
    ) -> Generator[None, None, None]:
        breath = every
        events = script.events
        while script.position < len(events):
            event = events[script.position]
            kind = event[0]
            if kind not in SILENT:
                if kind not in _APPLY and kind != "ExecutionStarted":
                    self._refuse_replay("nothing more", self._where())
                script.position += 1
                self.now = event[1]
                try:
                    if kind == "ExecutionStarted":
                        self.start(input)
                    else:
                        self.apply_recorded(event)
                    if self.unfinished is not None:
                        yield from self.unfinished
                except ReplayStopped:
                    # Tasks decide things too, a retry's timer for one, with no code above them.
                    self._check()
                    raise
                self._check()
            else:
                script.position += 1
                if kind == "ExecutionRewound" and len(event) > 3:
                    calls = [e for e in events[: script.position] if _is_call(e, event[4])]
                    self.make_again(event[3], calls, script.next)
            if script.position > breath:
                breath = script.position + every
                yield

    def repeat(self, decisions: list[list[Any]]) -> None:
        """Expect the code to decide this next, which is done, and to go on from there."""
        if decisions:
            self._script = Script(decisions, goes_on=True)

    def check_repeated(self) -> None:
        """Refuse code that did not decide what it was expected to.

        Raises:
            NondeterminismError: it did something else.
        """
        self._check()
        if self._script is not None:
            self._refuse_replay("nothing more", self._where())

    def _check(self) -> None:
        if self.mismatch is not None:
            raise self.mismatch
        if self.outcome is not None and self._script is not None:
            # A history of a live instance never holds the event that ends it.
            failure = self.outcome.failure
            why = "" if failure is None else f"{failure.error_type}: {failure.message}"
            self._refuse_replay("the end of the function", self._where(), why)

    def _refuse_replay(self, produced: str, where: str, why: str = "") -> None:
        self.mismatch = self._mismatch(produced, where, why)
        raise self.mismatch

    def _mismatch(self, produced: str, where: str, why: str = "") -> NondeterminismError:
        script = self._script
        assert script is not None
        recorded = describe(script.next)
        return NondeterminismError(
            self.instance_id, script.position, recorded, produced, where, why
        )

    def apply_recorded(self, event: list[Any]) -> None:
        """Take one incoming event, as the history has it, and let the code run."""
        self.step(_APPLY[event[0]], self, event)

    def apply(self, event: tuple[Any, ...]) -> None:
        """Take one incoming event, and let the code run until all of it waits."""
        state = _ANSWERS.get(event[0])
        if state is None:
            if event[0] == "EventRaised":
                self.step(self.raise_event, event[2], event[3])
            else:
                self.step(self.cancel, event[2])
            return
        _, _, number, answer = event
        self.unanswered.pop(number, None)
        task = self.pending[number]
        watchers = task._watchers  # pyright: ignore[reportPrivateUsage]
        if state != DONE or (watchers and (len(watchers) > 1 or not watchers[0].only_notes)):
            self.step(self.settle, number, state, answer)
            return
        # Nothing of the user's looks at what has come at once: a step is needed only to go on.
        del self.pending[number]
        if self.children is not None:
            self.children.pop(number, None)
        if watchers and type(task) is CallTask and type(watchers[0]) is Fiber:
            # Nearly always: one fiber awaits it, and needs no place among those that are ready.
            task.complete(answer)
            self.stage(self.context, self._resume, watchers[0], None)
        else:
            task.settle(DONE, answer)
            if not self.ready:
                return
            self.stage(self.context, self._run, None, None)
        if self.given_up:
            self._end_giving_up()

    def step(self, happened: Callable[..., object], *given: Any) -> None:
        """Let something happen to the code, and let it run until all of it waits.

        Only here, in what is left ``unfinished`` by it, and where it is let go, does code of the
        user's run.
        """
        self.stage(self.context, self._run, happened, given)
        if self.given_up:
            self._end_giving_up()

    def settle(self, number: int, state: int, raw: Any) -> bool:
        """Settle a numbered task; False if nobody waits for that answer (any more)."""
        task = self.pending.pop(number, None)
        if task is None:
            return False
        if self.children is not None:
            self.children.pop(number, None)
        task.settle(state, raw)
        if state == FAILED and isinstance(task, CallTask) and not task.is_seen:
            self.unseen[number] = task
        return True

    def check_event(self, name: str, data: bytes) -> None:
        """Refuse an event's data that do not fit the wait that would take them.

        Raises:
            PayloadError: they are not of the type that the oldest open wait declares.
        """
        waits = None if self.external is None else self.external.waits.get(name)
        if waits:
            self.stage(self.context, _decode, waits[0], data)

    def raise_event(self, name: str, raw: Any) -> None:
        """Give an external event to the oldest wait for its name, or keep it."""
        self._external().give(name, raw)

    def _external(self) -> ExternalEvents:
        if self.external is None:
            self.external = ExternalEvents()
        return self.external

    def cancel(self, reason: str) -> None:
        """Throw ``Cancelled`` into the root at its await."""
        self.cancel_requested = reason
        if self._root is not None:
            self._root.interrupt(Cancelled(reason))

    def _run(self, happened: Callable[..., object] | None, given: Any) -> None:
        self.is_stepped = True
        try:
            if happened is not None:
                self.is_between = True
                happened(*given)
                self.is_between = False
            self._step_ready()
        finally:
            self.is_stepped = False

    def _resume(self, fiber: Fiber, given: None) -> None:
        self.is_stepped = True
        try:
            self._step(fiber, None)
            if self.ready or self._put_off:
                self._step_ready()
        finally:
            self.is_stepped = False

    def _step_ready(self) -> None:
        """Let what is ready run, and what becomes so meanwhile; of very much, leave the rest."""
        ready = self.ready
        try:
            while True:
                if self.outcome is not None or self.mismatch is not None:
                    self._drop_rest()
                    return
                if self._put_off or len(ready) > WIDE:
                    self.unfinished = self._finish()
                    return
                if not ready:
                    return
                fiber, error = ready.pop(0)
                self._step(fiber, error)
        finally:
            error = None  # as in _step()

    def put_off(self, steps: Generator[None], count: int) -> None:
        """Do something that pauses now and then: at once, or where that is much, before code goes on.

        It is done at once also where code of the user's is under way, which could see that it is not.

        Args:
            steps: what is to be done; it does not run the user's code.
            count: how much that is.
        """
        if self.is_between and count > WIDE:
            self._put_off = [*(self._put_off or ()), steps]
        else:
            for _ in steps:
                pass

    def _finish(self) -> Generator[None]:
        """Do what is left of a step; pauses now and then."""
        while self._put_off or self.ready:
            yield
            self.stage(self.context, self._go_on, None, None)
        if self.given_up:
            yield from self._tell_given_up()
        self.unfinished = None

    def _go_on(self, happened: None, given: None) -> None:
        """Do a part of what is left of a step."""
        self.is_stepped = True
        try:
            if self._put_off:
                self.is_between = True
                steps = self._put_off[0]
                if next(steps, _END) is _END:
                    self._put_off = [one for one in self._put_off if one is not steps]
                self.is_between = False
            else:
                self._step_some()
        finally:
            self.is_stepped = False

    def _step_some(self) -> None:
        some = self.ready[:AT_ONCE]
        del self.ready[:AT_ONCE]
        try:
            while some and not self._put_off:
                fiber, error = some.pop(0)
                self._step(fiber, error)
                if self.outcome is not None or self.mismatch is not None:
                    some.clear()
                    self._drop_rest()
            self.ready[:0] = some
        finally:
            error = None  # as in _step()

    def _drop_rest(self) -> None:
        self.ready.clear()
        self._put_off = None

    def _step(self, fiber: Fiber, error: BaseException | None) -> None:
        coroutine = fiber.coroutine
        value: Any = None
        task: Any  # what the code waits for, which may be anything
        task, fiber.waiting = fiber.waiting, None
        self.running = fiber
        while True:
            if fiber.generator and error is None and task is not None:
                # A coroutine asks the task for its outcome itself; a generator is handed it.
                try:
                    value = task.outcome()
                except BaseException as outcome:
                    error = outcome
            try:
                if error is None:
                    task = coroutine.send(value)
                else:
                    task, error = coroutine.throw(error), None
            except StopIteration as stop:
                error = None  # which leads here by its traceback, if it was thrown in
                self._end_fiber(fiber, stop.value, None)
                return
            except ReplayStopped:
                error = None
                return
            except BaseException as failure:
                error = None
                if is_interrupt(failure):
                    raise
                if issubclass(type(failure), RuntimeError):
                    failure = translated(self.definition.title, failure)
                self._end_fiber(fiber, None, failure)
                return
            value = None
            # Not isinstance(), which asks an object of the user's for its class.
            kind = type(task)  # pyright: ignore[reportUnknownVariableType]
            if (
                kind is not CallTask and not issubclass(kind, _TASKS)
            ) or task._executor is not self:
                error = self._foreign_await(fiber, task)
                task = None
            elif fiber.owed is not None:
                task.let_go(fiber.owed.scope)
                error, fiber.owed, task = fiber.owed, None, None
            elif task._state == PENDING:
                fiber.waiting = task
                task.watch(fiber)
                return

    def _end_fiber(self, fiber: Fiber, value: Any, error: BaseException | None) -> None:
        if fiber.group is None:
            self._root = None
            self._end(value, error)
            return
        assert self._branches is not None
        del self._branches[fiber.number]
        self.is_between = True
        fiber.group.on_ended(error)
        self.is_between = False

    def _end(self, value: Any, error: BaseException | None) -> None:
        if self.mismatch is not None:
            return
        if error is None and self.continuation is not None:
            self.outcome = Outcome("ContinuedAsNew")
        elif error is None:
            try:
                output = compact(self.definition.output.encode(value))
                self.outcome = Outcome("Completed", output)
            except PayloadError as refused:
                refused.of(f"the result of {self.definition.title}")
                self.outcome = Outcome("Failed", failure=failure_of(refused))
        elif type(error) is Cancelled and self.cancel_requested is not None:
            failure = FailureDetails("Cancelled", self.cancel_requested)
            self.outcome = Outcome("Canceled", failure=failure)
        else:
            self.outcome = Outcome("Failed", failure=failure_of(error))
            if self._script is not None:
                self._script.failed_at = raising_line(error)

    def _foreign_await(self, fiber: Fiber, awaited: Any) -> NonDurableAwaitError:
        if type(awaited).__module__.startswith("trio."):
            abort: Any = getattr(awaited, "abort_func", None)
            if abort is not None:
                # A trap: what it waits for would else wake the task in which this turn runs.
                abort(_not_cancelled)
        return refuse_await(self.definition.title, fiber.coroutine, awaited)

    def close(self) -> Generator[None] | None:
        """Let the code go. Its ``finally`` blocks run, but nothing that they ask for happens.

        Returns:
            What lets go of its strands and tasks, where these are many; pauses now and then.
        """
        self.closed = True
        if self._branches is not None and len(self._branches) > _MANY:
            return self._let_go_all()
        if self._root is not None or self._branches:
            self.stage(self.context, self._let_go, self.fibers, None)
        self._forget()
        if not self.pending and not self.unanswered and self.external is None:
            return None  # nearly always
        rest = self._let_go_tasks()
        if len(self.pending) + len(self.unanswered) + self.unconsumed_count > _MANY:
            return rest
        for _ in rest:
            pass
        return None

    def _forget(self) -> None:
        # What leads from here to what leads back; the collector would find it else.
        self._root = self._branches = None
        self._drop_rest()
        self.unfinished = None
        self.running = self.lock = self.mismatch = None
        self.unseen.clear()

    def _let_go_all(self) -> Generator[None]:
        fibers = self.fibers
        for start in range(0, len(fibers), AT_ONCE):
            self.stage(self.context, self._let_go, fibers[start : start + AT_ONCE], None)
            yield
        self._forget()
        yield from self._let_go_tasks()

    def _let_go(self, fibers: list[Fiber], given: None) -> None:
        self.is_stepped = True
        for fiber in fibers:
            # Not close(), which complains where a finally block waits for something; nor does
            # GeneratorExit do for generators: one that delegates would close() what is inside.
            end = ReplayStopped if fiber.generator else GeneratorExit
            for _ in range(_STOPS_MAX):
                try:
                    fiber.coroutine.throw(end())
                except BaseException:
                    # It has ended. There is nobody to tell what a finally block raised, since
                    # this execution goes on elsewhere or has ended.
                    break
            else:
                keep_for_ever(fiber.coroutine)
        self.is_stepped = False

    def _let_go_tasks(self) -> Generator[None]:
        """Let go of the tasks, and of what waits for them; pauses now and then."""
        pending, unanswered = self.pending, self.unanswered
        together: list[TaskOfMany[Any]] = []  # which have many; the last to go
        left = AT_ONCE
        while pending or unanswered:
            if pending:
                _, task = pending.popitem()
                who = task.forget_watchers()
                if isinstance(who, TaskOfMany) and not (together and who is together[-1]):
                    together.append(who)
            if unanswered:
                unanswered.popitem()
            left -= 1
            if not left:
                left = AT_ONCE
                yield
        for task in together:
            yield from task.let_go_parts(AT_ONCE)
        if self.external is not None:
            yield from self.external.let_go(AT_ONCE)

    def wait_closed(self) -> None:
        """End code that waits for something though it is let go; if it goes on, let it wait."""
        self.stops += 1
        if self.stops <= _STOPS_MAX:
            raise GeneratorExit

    # What the code asks for.

    def check_stepped(self) -> None:
        """Refuse what other code than this execution's own asks for, or this one's too late.

        Raises:
            UsageError: this execution's code does not run now.
        """
        if not self.is_stepped:
            raise self._foreign_use()

    def _foreign_use(self) -> UsageError:
        return UsageError(
            f"the context of {self.definition.title}, instance {self.instance_id!r}, or what it "
            f"made was used at {calling_line()} while the code of that instance does not run: a "
            "context is for its own instance's code alone, and until that ends; use the one that "
            "the function was given"
        )

    def running_fiber(self) -> Fiber:
        """The fiber whose code is running."""
        assert self.running is not None
        return self.running

    @property
    def fibers(self) -> list[Fiber]:
        """The strands of code that have not ended, in the order in which they began."""
        root = [] if self._root is None else [self._root]
        return root if self._branches is None else [*root, *self._branches.values()]

    @property
    def fiber_count(self) -> int:
        """How many strands of code have not ended."""
        return (self._root is not None) + len(self._branches or ())

    def new_branch(self) -> int:
        """Give the number of a branch that is to begin.

        Raises:
            UsageError: so many have begun at one time that they may go on to do so without end.
        """
        self.branch_numbers = number = self.branch_numbers + 1
        if self._begun[0] != self.now:
            self._begun = self.now, number
        if number - self._begun[1] >= BEGUN_MAX:
            raise UsageError(
                f"{BEGUN_MAX:,} branches have begun at one time: have fewer at once, or each wait "
                "for something before it begins others"
            )
        return number

    def begin_branch(self, fiber: Fiber) -> None:
        """Let a branch run, behind the strands of code that are ready."""
        if self.closed:
            fiber.coroutine.close()  # none of it has run, and none will
            return
        if self._branches is None:
            self._branches = {}
        self._branches[fiber.number] = fiber
        self.ready.append((fiber, None))

    def number(self) -> int:
        """The next task number."""
        if not self.is_stepped:
            raise self._foreign_use()
        self.numbers += 1
        if not self.numbers & _MANY:
            self._unload()
        return self.numbers

    def _unload(self) -> None:
        if self._script is None and not self.closed and self.effects is not None:
            self.effects.unload(self.instance_id)

    def child_id(self, number: int) -> str:
        """Make the id of a child, by the number of its task; the same at every replay."""
        full = f"{self.instance_id}::{self.execution}.{number}"
        if len(full) <= CHILD_ID_LENGTH:
            return full
        recorded = self._recorded("SubOrchestrationInstanceCreated")
        if recorded is not None and recorded[2] == number:
            made: str = recorded[5]  # perhaps in full, as longer ones were once
            return made
        return shortened(full)

    def record(
        self, decision: tuple[Any, ...], data: bytes | None = None, given: Given | None = None
    ) -> bool:
        """Record a decision; in a replay, compare it with what was recorded instead.

        Args:
            decision: the event as the history has it: its type, the time, its fields.
            data: the input that its hash is of, if it has one.
            given: the same before it was encoded.

        Returns:
            Whether it is new, so that its effects have to be sent out.
        """
        script = self._script
        if script is None:
            if self.closed:
                return False
            written = orjson.dumps(decision)
            self.events.append(b"%b" % written if len(written) < SHORT else written)
            return True
        if not script.takes(decision, data, given):
            if self.closed:
                return False
            if self.mismatch is None:
                self.mismatch = self._mismatch(describe([*decision]), calling_line())
            return self._stop()
        if script.goes_on and script.next is None:
            self._script = None
        return False

    def _stop(self) -> bool:
        """Throw the code out; if it catches everything, in a loop, let it run to its next await."""
        self.stops += 1
        if self.stops <= _STOPS_MAX:
            raise ReplayStopped
        return False

    def caller(self, number: int) -> Caller:
        """The address for the answer to a task."""
        return Caller(self.instance_id, self.execution, number)

    def _out(self) -> Effects:
        assert self.effects is not None
        return self.effects

    def schedule_activity(
        self,
        activity: ActivityDefinition,
        input: Any,
        data: bytes | None,
        timeout: float | None,
        tags: Mapping[str, str] | None,
        first: int,
        summary: str | None,
        attempt: int,
    ) -> CallTask[Any]:
        """Ask for an activity to be run; ``first`` is the number of the call's first attempt."""
        if not self.is_stepped:
            raise self._foreign_use()
        self.numbers = number = self.numbers + 1  # as number() does, and _out() below
        if not number & _MANY:
            self._unload()
        name = activity.name
        task: CallTask[Any] = CallTask(self, number, activity.output, ActivityError, name)
        packed = [] if data is None else [orjson.Fragment(data)]
        caller: Caller = _tuple(Caller, (self.instance_id, self.execution, number))
        call: ActivityCall = _tuple(
            ActivityCall, (caller, name, data, timeout, attempt, tags, first, self.carried)
        )
        self.unanswered[number] = call
        self.pending[number] = task
        if attempt == 1:
            task.waits = activity.waits
        decision: tuple[Any, ...] = (
            "TaskScheduled",
            self.now,
            number,
            name,
            crc32(data or b""),
            packed,
            timeout,
            attempt,
            tags,
            first,
        )
        if summary is not None:
            decision = (*decision, summary)
        if self._script is None and not self.closed:  # as record() does, nearly always
            assert self.effects is not None
            written = orjson.dumps(decision)
            self.events.append(b"%b" % written if len(written) < SHORT else written)
            self.effects.start_activity(call)
        elif self.record(decision, data, (activity.input, input)):
            self._out().start_activity(call)
        return task

    def start_child(
        self,
        task: CallTask[Any],
        name: str,
        version: str | None,
        instance_id: str,
        data: bytes | None,
        given: Given,
    ) -> None:
        """Ask for a sub-orchestration to be started."""
        if self.lock is not None:
            raise LockRuleError(
                "no sub-orchestrations inside lock_entities: call it before or after"
            )
        self.pending[task.number] = task
        if self.children is None:
            self.children = {}
        self.children[task.number] = instance_id
        kind = "SubOrchestrationInstanceCreated"
        number, input_hash = task.number, crc32(data or b"")
        decision = (kind, self.now, number, name, input_hash, instance_id, version, *_kept(data))
        if self.record(decision, data, given):
            start = Start(name, version, data, parent=self.caller(task.number))
            start.carried = self.carried
            self._out().send(instance_id, start)

    def later(self, delay: int) -> int:
        """Give the time, by the clock, that comes after a delay."""
        if self._script is None:
            return self.now - self._out().lag + delay
        recorded = self._recorded("TimerCreated")
        lag = recorded[4] if recorded is not None and len(recorded) > 4 else 0
        return self.now - lag + delay

    def _recorded(self, kind: DecisionKind) -> list[Any] | None:
        """Give the next decision of the history that is replayed, if it is of that kind."""
        return None if self._script is None else self._script.next_of(kind)

    def create_timer(self, due: int) -> TimerTask:
        """Ask for a timer."""
        task = TimerTask(self, self.number(), due)
        self.pending[task.number] = task
        lag = self._out().lag if self._script is None else 0
        # With how far the clock was behind, so that a replay finds the same time.
        decision = ("TimerCreated", self.now, task.number, due)
        if self.record(decision if not lag else (*decision, lag)):
            self._out().arm_timer(self.caller(task.number), due)
        return task

    def lacks_timer(self) -> bool:
        """Whether this replays a history that has another decision next than a timer.

        Calls that are limited as a whole had no timer of their own in earlier releases.
        """
        return self._script is not None and self._recorded("TimerCreated") is None

    def withdraw_timer(self, task: TimerTask) -> None:
        """Take a timer back."""
        self.pending.pop(task.number, None)
        if self._script is None and not self.closed:
            self._out().disarm_timer(self.caller(task.number))

    def withdraw_call(self, task: CallTask[Any]) -> None:
        """Tell the other side of a call that nobody waits for it any more."""
        self.pending.pop(task.number, None)
        child = self.children.pop(task.number, None) if self.children is not None else None
        if self._script is not None or self.closed:
            return
        if child is not None:
            self._out().send(child, Command("cancel", "its parent gave it up"))
        elif self.unanswered.pop(task.number, None) is not None:
            # Answered by that, so that a restart does not run it once more.
            answer = b'["TaskFailed",%d,%d,%b]' % (self.now, task.number, GIVEN_UP)
            self.given_up[task.number] = answer

    def _end_giving_up(self) -> None:
        """Tell what the step gave up, behind all else of it."""
        if self.unfinished is not None:
            return  # that does so
        if len(self.given_up) > WIDE:
            self.unfinished = self._finish()
        else:
            for _ in self._tell_given_up():
                pass

    def _tell_given_up(self) -> Generator[None]:
        # Not inside of the step: to stop an activity that runs takes the event loop; and what is
        # written down comes behind all that the step decides. Nothing comes in behind the end.
        given_up, self.given_up = self.given_up, {}
        self._out().cancel_activities(self.instance_id, self.execution, given_up)
        if self.outcome is None:
            answers = iter(given_up.values())
            while some := [*islice(answers, _MANY)]:
                self.events += some
                if len(some) == _MANY:
                    self._unload()
                yield

    def summary(self) -> Summary:
        """Give what it waits for, in short."""
        pending = self.pending
        if self.external is None and len(pending) < 2:  # nearly always, and asked at every turn
            for task in pending.values():
                if task.waits is not None:
                    return task.waits, None
                return summary_of(self)
            return NOTHING
        return summary_of(self)

    def open_activities(self) -> dict[int, ActivityCall]:
        """Give the activities that have no answer and were not given up; once, as it ends."""
        unanswered, self.unanswered = self.unanswered, {}
        pending = self.pending
        if unanswered.keys() <= pending.keys():
            return unanswered
        return {number: call for number, call in unanswered.items() if number in pending}

    def open_work(self) -> OpenWork:
        """Give what else it has open: its children, and entities that it locks."""
        lock = self.lock
        if lock is None and not self.children:
            return NO_WORK
        held: OpenLock | None = None
        if lock is not None and not lock.released:
            held = OpenLock(lock.number, lock.entities, lock.number not in self.pending)
        return OpenWork(list((self.children or {}).values()), held)

    def unheard(self) -> list[tuple[str, FailureDetails]]:
        """Give the calls that failed and that the code did not look at, by what was called."""
        return [(task.target, task.describe_failure()) for task in self.unseen.values()]

    def wait_for_event(self, task: EventTask[Any], timeout: int | None) -> None:
        """Take the oldest event of that name, or wait for one."""
        self.check_stepped()
        task.since = self.now
        if self._external().wait(task) and timeout is not None:
            task.timer = self.create_timer(self.later(timeout))
            task.timer.watch(task)

    def forget_wait(self, task: EventTask[Any]) -> None:
        """Let a later event go to the next wait."""
        if self.external is not None:
            self.external.forget(task)

    def awaited_events(self) -> Iterator[EventTask[Any]]:
        """Give the open waits for events, the oldest for each name first."""
        external = self.external
        return iter(()) if external is None else chain.from_iterable(external.waits.values())

    def unconsumed_events(self) -> Iterable[tuple[str, bytes]]:
        """Give the events that nobody took, in the order in which they came."""
        return () if self.external is None else self.external.untaken()

    def unconsumed_names(self) -> list[str]:
        """Give the names of the events that nobody took."""
        return [] if self.external is None else self.external.untaken_names()

    @property
    def unconsumed_count(self) -> int:
        """How many events nobody took."""
        return 0 if self.external is None else self.external.untaken_count

    def send_event(self, instance_id: str, name: str, data: bytes, given: Given) -> None:
        """Ask for an event to be sent to another instance."""
        number = self.number()
        decision = ("EventSent", self.now, number, instance_id, name, crc32(data), *_kept(data))
        if self.record(decision, data, given):
            self._out().send(instance_id, Event(name, data))

    def signal_entity(
        self, entity: str, name: str, data: bytes | None, due: int | None, given: Given
    ) -> None:
        """Ask for a signal to be sent."""
        lock = self.lock
        if lock is not None and lock.is_completed and lock.covers(entity):
            raise LockRuleError(
                f"{entity} is locked by this orchestration: call it instead of signalling it"
            )
        if not self.is_stepped:
            raise self._foreign_use()
        # Signals are sent by the thousand: without number() and _out(), which it does as they do.
        self.numbers = number = self.numbers + 1
        if not number & _MANY:
            self._unload()
        kind: DecisionKind = "EntityOperationSignaled"
        if due is not None and (recorded := self._recorded(kind)) and recorded[6] is not None:
            due = min(due, recorded[6])  # earlier, if the clock had been set back
        decision: tuple[Any, ...]
        if data is None:
            decision = (kind, self.now, number, entity, name, 0, due)
        else:
            kept = orjson.Fragment(data)
            decision = (kind, self.now, number, entity, name, crc32(data), due, kept)
        if self.record(decision, data, given):
            effects = self.effects
            assert effects is not None
            message = Operation(name, data)
            message.carried = self.carried
            if due is None:
                effects.send(entity, message)
            else:
                effects.send_later(due, entity, message)

    def call_entity(
        self, task: CallTask[Any], entity: str, name: str, data: bytes | None, given: Given
    ) -> None:
        """Ask for an entity's operation to be called."""
        lock = self.lock
        if lock is not None and lock.is_completed:
            if not lock.covers(entity):
                raise LockRuleError(
                    f"{entity} is not among the locked entities; inside lock_entities call only "
                    "those, or signal others"
                )
            if not lock.note_call(entity, task.number):
                raise LockRuleError(
                    f"a call to {entity} is under way; inside lock_entities call an entity "
                    "once at a time"
                )
        task.entity = entity
        self.pending[task.number] = task
        kind, input_hash = "EntityOperationCalled", crc32(data or b"")
        decision = (kind, self.now, task.number, entity, name, input_hash, *_kept(data))
        if self.record(decision, data, given) and (lock is None or lock.calls is None):
            message = Operation(name, data, True, self.caller(task.number))
            message.carried = self.carried
            self._out().send(entity, message)
        elif lock is not None and lock.calls is not None:
            lock.calls.append((entity, self._call(name, data, task.number)))

    def _call(self, name: str, data: bytes | None, number: int) -> Operation:
        message = Operation(name, data, True, self.caller(number))
        message.carried = self.carried
        return message

    def make_again(
        self, lock_number: int | None, calls: list[list[Any]], following: list[Any] | None
    ) -> list[tuple[str, Operation]]:
        """Take note, at a rewind, of what is asked for once more.

        Args:
            lock_number: under which number the lock is, if one is held or waited for.
            calls: the decisions to call the entities whose calls failed.
            following: the event that follows, if one does.

        Returns:
            The calls that need not wait until the lock is granted.
        """
        lock = self.lock
        if lock is not None and lock_number is not None:
            if following is not None and _is_grant(following, lock.number):
                lock.following = lock_number  # the code has it as soon as it hears that anew
            else:
                self.pending.pop(lock.number, None)
                lock.ask_again(lock_number)
                self.pending[lock_number] = lock
        at_once: list[tuple[str, Operation]] = []
        for decision in calls:
            _, _, number, entity, name, *_ = decision
            given = recorded_input(decision)
            call = self._call(name, orjson.dumps(given[0]) if given else None, number)
            if lock is not None and lock.calls is not None and lock.covers(entity):
                lock.calls.append((entity, call))
            else:
                at_once.append((entity, call))
        return at_once

    def send_calls(self, calls: list[tuple[str, Operation]]) -> None:
        """Send the calls that have waited for the lock; in a replay they are sent already."""
        if self._script is None:
            for entity, message in calls:
                self._out().send(entity, message)

    def lock_entities(self, entities: list[str]) -> EntityLock:
        """Ask for a lock; entities are locked in sorted order, so locks cannot deadlock."""
        self.check_stepped()
        if self.lock is not None:
            raise LockRuleError(
                "locks cannot be nested: name all the entities in one lock_entities"
            )
        ordered = sorted(set(entities))
        if not ordered:
            raise UsageError("lock_entities needs at least one entity")
        lock = EntityLock(self, self.number(), ordered)
        self.lock = lock
        self.pending[lock.number] = lock
        if self.record(("EntityLockRequested", self.now, lock.number, ordered)):
            self._out().send(ordered[0], LockRequest(self.caller(lock.number), ordered, 0))
        return lock

    def release_lock(self, lock: EntityLock) -> None:
        """Give a lock, or the request for one, back."""
        granted = self.pending.pop(lock.number, None) is None
        self.lock = None
        if self.closed:
            return
        if self.record(("EntityLockReleased", self.now, lock.number)):
            send_releases(self._out(), self.caller(lock.number), lock.entities, granted)

    def draw(self) -> float:
        """The next of the execution's random numbers, from 0 to 1."""
        return self.random_source().random()

    def random_source(self) -> random.Random:
        """The execution's random numbers: the same ones at every replay."""
        self.check_stepped()
        if self._random is None:
            self._random = random.Random(f"{self.instance_id}/{self.execution}")
        return self._random

    def next_uuid_name(self) -> str:
        """The name of which the next uuid is made."""
        self.check_stepped()
        self._uuids += 1
        return f"{self.instance_id}/{self.execution}/{self._uuids}"

    def _where(self) -> str:
        """Where the code waits or has failed, or the function itself where that has ended."""
        if self._script is not None and self._script.failed_at is not None:
            return self._script.failed_at
        if self._root is not None:
            return line_of(self._root.coroutine)
        code = self.definition.function.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"


def send_releases(effects: Effects, owner: Caller, entities: list[str], granted: bool) -> None:
    """Release entities: each at once if all were granted, else in the request's footsteps.

    A release sent straight to the third entity could overtake a request that the second has yet
    to pass on, which would then lock it for nobody. Behind the request, entity by entity, it
    cannot.
    """
    if granted:
        for entity in entities:
            effects.send(entity, LockRelease(owner, entities, -1))
    else:
        effects.send(entities[0], LockRelease(owner, entities, 0))


def _is_grant(event: list[Any], number: int) -> bool:
    return bool(event[0] == "EntityLockGranted" and event[2] == number)


def _is_call(event: list[Any], numbers: list[int]) -> bool:
    return event[0] == "EntityOperationCalled" and event[2] in numbers


def _kept(data: bytes | None) -> tuple[orjson.Fragment, ...]:
    """An input as the last field of an event, if there is one."""
    return () if data is None else (orjson.Fragment(data),)


def is_unreadable(error: BaseException) -> bool:
    """Whether the error says that stored data does not fit the class that should read it."""
    return issubclass(type(error), PayloadError)


def _decode(task: EventTask[Any], data: bytes) -> None:
    task.decode(data)


def _not_cancelled() -> None:
    """Stand in for what raises trio's ``Cancelled``: the wait is given up for another reason."""


def _settled(state: int) -> Callable[[Executor, list[Any]], None]:
    def apply(executor: Executor, event: list[Any]) -> None:
        executor.settle(event[2], state, event[3] if len(event) > 3 else None)

    return apply


def _answered(state: int) -> Callable[[Executor, list[Any]], None]:
    def apply(executor: Executor, event: list[Any]) -> None:
        executor.unanswered.pop(event[2], None)
        executor.settle(event[2], state, event[3])

    return apply


#: What those events settle a task to that are the answer to one.
_ANSWERS: dict[str, int] = {
    "TaskCompleted": DONE,
    "TaskFailed": FAILED,
    "TimerFired": DONE,
    "SubOrchestrationInstanceCompleted": DONE,
    "SubOrchestrationInstanceFailed": FAILED,
    "EntityOperationCompleted": DONE,
    "EntityOperationFailed": FAILED,
    "EntityLockGranted": DONE,
}

_APPLY: dict[str, Callable[[Executor, list[Any]], None]] = {
    "TaskCompleted": _answered(DONE),
    "TaskFailed": _answered(FAILED),
    "TimerFired": _settled(DONE),
    "SubOrchestrationInstanceCompleted": _settled(DONE),
    "SubOrchestrationInstanceFailed": _settled(FAILED),
    "EntityOperationCompleted": _settled(DONE),
    "EntityOperationFailed": _settled(FAILED),
    "EntityLockGranted": _settled(DONE),
    "EventRaised": lambda executor, event: executor.raise_event(event[2], event[3]),
    "CancelRequested": lambda executor, event: executor.cancel(event[2]),
}
