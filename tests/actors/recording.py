"""An orchestration without a runtime: messages in, history and effects out, and a small world.

``Instance`` drives the pure state machine; ``World`` answers what it asks for, by draws; and
``program`` is a strategy for orchestrations, written as data and run by two interpreters.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Collection, Generator
from datetime import timedelta
from typing import Any

import orjson
from hypothesis import strategies as st

from perdure import App, EntityId, OrchestrationContext, RetryPolicy, Task
from perdure.actors.changes import InstanceState
from perdure.actors.effects import HELD, RELOAD
from perdure.actors.errors import FailureDetails
from perdure.actors.failures import encode_failure
from perdure.actors.messages import (
    ActivityCall,
    AnswerKind,
    Begin,
    Caller,
    Command,
    Completion,
    Event,
    LockRelease,
    LockRequest,
    Message,
    Operation,
    Start,
    TimerDue,
    decode_call,
    decode_message,
    encode_call,
    encode_message,
)
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.actors.registry.lookup import Lookup

START = 1_700_000_000_000_000


class Recorder:
    """The effects of turns, as plain values."""

    lag = 0

    def __init__(self) -> None:
        self.effects: list[tuple[Any, ...]] = []

    def send(self, target: str, message: Message) -> None:
        self.effects.append(("send", target, encode_message(message)))

    def unload(self, key: str) -> None:
        """Nothing is decided by it."""

    def send_later(self, due: int, target: str, message: Message) -> None:
        self.effects.append(("send later", due, target, encode_message(message)))

    def start_activity(self, call: ActivityCall) -> None:
        self.effects.append(("start activity", call))

    def cancel_activity(self, caller: Caller, running: bool = True) -> None:
        self.effects.append(("cancel activity", caller))

    def cancel_activities(self, instance_id: str, execution: int, tasks: Collection[int]) -> None:
        for task in tasks:
            self.cancel_activity(Caller(instance_id, execution, task))

    def leave_activities(
        self, instance: int, instance_id: str, execution: int, calls: dict[int, ActivityCall]
    ) -> None:
        for task, call in calls.items():
            assert call.caller == (instance_id, execution, task)
            self.effects.append(("leave activity", instance, decode_call(encode_call(call))))

    def prepare(self, key: str, steps: Generator[None]) -> None:
        for _ in steps:
            pass

    def let_go(self, rest: Generator[None]) -> None:
        for _ in rest:
            pass

    def drop_activities(self, instance_id: str) -> None:
        self.effects.append(("drop activities", instance_id))

    def drop_answer(self, instance_id: str, answer: Completion) -> None:
        self.effects.append(("drop answer", answer.event))

    def failed_call(self, instance_id: str, what: str, failure: FailureDetails) -> None:
        self.effects.append(("failed call", what, failure.error_type))

    def arm_timer(self, caller: Caller, due: int) -> None:
        self.effects.append(("arm timer", caller, due))

    def disarm_timer(self, caller: Caller) -> None:
        self.effects.append(("disarm timer", caller))

    def reply(self, message: Message, result: bytes | None) -> None:
        self.effects.append(("reply", result))

    def reply_failure(self, message: Message, failure: FailureDetails) -> None:
        self.effects.append(("reply failure", failure))

    def finished(self, instance_id: str) -> None:
        self.effects.append(("finished", instance_id))

    def consume(self, message: Message) -> None:
        self.effects.append(("consume", encode_message(message)))

    def refuse(self, message: Message, error: Exception) -> None:
        self.effects.append(("refuse", type(error).__name__))

    def observe(self, told: Any) -> None:
        self.effects.append(("told", told))

    def failed_operation(self, entity: str, operation: str, failure: FailureDetails) -> None:
        self.effects.append(("failed operation", entity, operation, failure))


def copy_of(message: Message) -> Message:
    """The message as it comes back from its durable form; whoever waits for it still waits."""
    again = decode_message(orjson.loads(encode_message(message)))
    again.reply, again.keep = message.reply, message.keep
    return again


class Instance:
    """One orchestration instance outside any runtime."""

    def __init__(self, lookup: Lookup, key: str = "x") -> None:
        self.lookup = lookup
        self.actor = OrchestrationActor(1, key, lookup)
        self.stored: InstanceState | None = None
        self.history: list[list[Any]] = []

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.actor.close()

    def take(self, message: Message, now: int) -> list[tuple[Any, ...]]:
        """Give the actor a message, as read back from its durable form; returns the effects.

        It is a turn of its own, in which the actor may let messages go that it held, or be loaded
        anew; what it tells behind it is written down.
        """
        recorder = Recorder()
        self._take([copy_of(message)], now, recorder)
        self.seal(now)
        return recorder.effects

    def _take(self, mail: list[Message], now: int, recorder: Recorder) -> None:
        while mail:
            message = mail.pop(0)
            outcome = self.actor.handle(message, now, recorder)
            if outcome is HELD:
                self.actor.hold(message)
            elif outcome is RELOAD:
                mail[:0] = [*self.actor.give_back(), message]
                self.seal(now)
                self._load_anew(message)
            else:
                assert outcome is None
            mail[:0] = self.actor.release()

    def _load_anew(self, message: Message) -> None:
        assert isinstance(message, Command)
        message.loaded = True
        self.actor.close()
        self.actor = OrchestrationActor(1, self.actor.key, self.lookup)
        self.load(is_retried=message.action == "retry")
        if message.action == "rewind" and self.actor.status == "Failed":
            self.actor.prepare_rewind(self.history, message.force)

    def load(self, *, is_retried: bool = False) -> None:
        """Take what is stored, as one that is loaded does."""
        actor = self.actor
        if self.stored is None:
            return
        actor.load(self.stored)
        if not actor.is_live:
            return
        if is_retried:
            actor.unpark()
        if actor.parked is not None:
            actor.lie_idle(self.history)
        elif actor.status == "Pending":
            actor.check_code()
        else:
            for _ in actor.replay(self.history):
                pass

    def seal(self, now: int) -> None:
        """Write down what the actor tells."""
        change = self.actor.seal(now)
        if change is None:
            return
        origin, is_rewritten, told, progress = change
        if is_rewritten:
            self.history = []
        if progress is None:
            self.stored = None
            return
        for part in told if isinstance(told, list) else () if told is None else (told,):
            assert part.seq == len(self.history)
            self.history += orjson.loads(part.body)
        assert progress.events == len(self.history)
        if origin is None:
            assert self.stored is not None
            origin = self.stored.origin
        self.stored = InstanceState(origin, progress)

    @property
    def executor(self) -> Any:
        """The live code, if there is any."""
        return self.actor.executor

    def state(self) -> dict[str, Any]:
        """All that is stored of the instance, and what its live code waits for."""
        stored = self.stored
        kept: dict[str, Any] = {"status": None}
        if stored is not None:
            kept = {**stored.origin._asdict(), **stored.progress._asdict()}
        executor: Any = self.executor
        if executor is not None:
            waits: dict[str, list[Any]] = executor.external.waits if executor.external else {}
            kept |= {
                "tasks": sorted((n, type(t).__name__) for n, t in executor.pending.items()),
                "unanswered": sorted(executor.unanswered),
                "children": dict(executor.children or {}),
                "numbers": executor.numbers,
                "waiters": {name: len(queue) for name, queue in waits.items()},
                "unconsumed": [*executor.unconsumed_events()],
                "fibers": executor.fiber_count,
                "replaying": executor.is_replaying,
            }
        return kept

    @property
    def held(self) -> list[Message]:
        """The messages that it holds."""
        return self.actor.held or []

    def restored(self) -> Instance:
        """The same instance, rebuilt from what is stored and the messages that it holds."""
        again = Instance(self.lookup, self.actor.instance_id)
        again.history = orjson.loads(orjson.dumps(self.history))
        if self.stored is not None:
            progress = self.stored.progress._replace(events=len(again.history))
            again.stored = self.stored._replace(progress=progress)
            again.load()
            if progress.parked is None:
                assert again.actor.parked is None, again.actor.parked
        recorder = Recorder()
        again._take([copy_of(message) for message in self.held], START, recorder)
        assert not recorder.effects, "what is held again was decided before"
        return again


class World:
    """Answers what an instance has asked for; ``draw(n)`` decides which comes next."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        self.draw = draw
        self.now = START
        self.answers: list[Completion] = []
        self.timers: dict[Caller, int] = {}
        self.own: list[Message] = []
        self.answered: list[Completion] = []

    def note(self, effects: list[tuple[Any, ...]]) -> None:
        """Take notice of what a turn did."""
        for kind, *details in effects:
            if kind == "start activity":
                self._owe("TaskCompleted", "TaskFailed", details[0].caller, details[0].name)
            elif kind == "cancel activity":
                self._forget(details[0])
            elif kind == "arm timer":
                self.timers[details[0]] = details[1]
            elif kind == "disarm timer":
                for caller in [c for c in self.timers if _covers(details[0], c)]:
                    del self.timers[caller]
            elif kind == "send":
                self._note_message(details[0], decode_message(orjson.loads(details[1])))

    def _note_message(self, target: str, message: Message) -> None:
        if isinstance(message, Start) and message.parent is not None:
            self._owe(
                "SubOrchestrationInstanceCompleted",
                "SubOrchestrationInstanceFailed",
                message.parent,
                message.name,
            )
        elif isinstance(message, Operation) and message.caller is not None:
            self._owe(
                "EntityOperationCompleted",
                "EntityOperationFailed",
                message.caller,
                message.name,
            )
        elif isinstance(message, LockRequest):
            owner = message.owner
            granted = Completion("EntityLockGranted", owner.execution, owner.task, b"null")
            self.answers.append(granted)
        elif target == "x" and isinstance(message, (Completion, Begin)):
            self.own.append(message)
        else:
            assert isinstance(message, (Event, Command, LockRelease, Operation))

    def _owe(self, done: AnswerKind, failed: AnswerKind, caller: Caller, name: str) -> None:
        if self.draw(3) == 0:
            body = encode_failure(FailureDetails("ValueError", name))
            self.answers.append(Completion(failed, caller.execution, caller.task, body))
        else:
            body = orjson.dumps(caller.task)
            self.answers.append(Completion(done, caller.execution, caller.task, body))

    def _forget(self, caller: Caller) -> None:
        kept = [a for a in self.answers if not _covers(caller, Caller("x", a.execution, a.task))]
        # Now and then the answer was on its way already.
        if self.draw(2):
            self.answers = kept

    def next(self) -> Message | None:
        """The next message for the instance; None if there is nothing that could come."""
        if self.own:
            return self.own.pop(0)
        self.now += self.draw(3) * 100_000
        choice = self.draw(12)
        if choice < 2:
            return Event("abc"[self.draw(3)], orjson.dumps(self.draw(100)))
        if choice == 2 and self.draw(8) == 0:
            return Command("cancel", "drawn")
        if choice == 3 and self.answered:
            return self.answered[self.draw(len(self.answered))]  # answered twice
        if self.answers and (choice < 9 or not self.timers):
            answer = self.answers.pop(self.draw(len(self.answers)))
            self.answered.append(answer)
            return answer
        if self.timers:
            caller = min(self.timers, key=lambda c: (self.timers[c], c))
            self.now = max(self.now, self.timers.pop(caller))
            return TimerDue(caller.execution, caller.task)
        return Event("abc"[self.draw(3)], b"0")


def _covers(wanted: Caller, caller: Caller) -> bool:
    return wanted[:2] == caller[:2] and wanted.task in (0, caller.task)


# Orchestrations as data.

app = App()


@app.activity
def work(n: int) -> int:
    raise NotImplementedError


@app.orchestration
async def child(ctx: OrchestrationContext, n: int) -> int:
    raise NotImplementedError


@app.entity
class Thing:
    value: int = 0

    def add(self, n: int) -> int:
        raise NotImplementedError


THINGS: list[EntityId[Any]] = [EntityId(Thing, "p"), EntityId(Thing, "q")]


def _leaf(ctx: OrchestrationContext, leaf: list[Any]) -> Task[Any]:
    kind: str = leaf[0]
    n: int = leaf[1]
    seconds = timedelta(seconds=n)
    retry = RetryPolicy(first_interval=1.0, max_attempts=3, backoff=2.0, jitter=0.5)
    makers: dict[str, Callable[[], Task[Any]]] = {
        "activity": lambda: ctx.call_activity(work, n),
        "retried": lambda: ctx.call_activity(work, n, retry=retry),
        "timer": lambda: ctx.create_timer(seconds),
        "event": lambda: ctx.wait_for_external_event("abc"[n % 3]),
        "timed event": lambda: ctx.wait_for_external_event("abc"[n % 3], timeout=n),
        "typed event": lambda: ctx.wait_for_external_event("abc"[n % 3], data_type=str),
        "child": lambda: ctx.call_sub_orchestrator(child, n),
        "retried child": lambda: ctx.call_sub_orchestrator(child, n, retry=retry),
        "entity": lambda: ctx.call_entity(THINGS[n % 2], Thing.add, n),
    }
    return makers[kind]()


def _chosen(started: list[Task[Any]], number: int) -> Task[Any]:
    return started[number % len(started)]


def _at_once(ctx: OrchestrationContext, op: list[Any], started: list[Task[Any]]) -> Any:
    kind, *details = op
    if kind == "uuid":
        return str(ctx.new_uuid())
    if kind == "random":
        return ctx.random.random()
    if kind == "time":
        return ctx.current_utc_datetime.isoformat()
    if kind == "send event":
        return ctx.send_event("other", "a", details[0])
    if kind == "signal":
        return ctx.signal_entity(THINGS[0], Thing.add, details[0])
    if kind == "start":
        return started.append(_leaf(ctx, details[0]))
    if kind == "give up":
        return _chosen(started, details[0]).cancel() if started else None
    assert kind == "look"
    return [(task.is_completed, task.is_faulted, task.is_cancelled) for task in started]


def _combined(ctx: OrchestrationContext, op: list[Any], started: list[Task[Any]]) -> Task[Any]:
    kind, *details = op
    if kind == "leaf":
        return _leaf(ctx, details[0])
    if kind == "await":
        return _chosen(started, details[0]) if started else ctx.task_all([])
    tasks = [_leaf(ctx, leaf) for leaf in details[0]] + started[-1:]
    if kind == "all":
        return ctx.task_all(tasks, fail_fast=details[1])
    assert kind == "any"
    return ctx.task_any(tasks, cancel_losers=details[1])


_TASKS: tuple[type, ...] = (Task,)
_AT_ONCE = {"uuid", "random", "time", "send event", "signal", "start", "give up", "look"}


def _plain(value: object) -> Any:
    return value.__class__.__name__ if isinstance(value, _TASKS) else value


class Interpreter:
    """Runs a program, and keeps a trace of all that its code could see."""

    def __init__(self, ctx: OrchestrationContext) -> None:
        self.ctx = ctx
        self.trace: list[Any] = []
        self.started: list[Task[Any]] = []

    def see(self, what: Any) -> None:
        self.trace.append(what)
        self.ctx.set_custom_status(zlib.crc32(orjson.dumps(self.trace)))

    async def run(self, ops: list[list[Any]]) -> None:
        for op in ops:
            try:
                await self.step(op)
            except Exception as error:
                self.see([type(error).__name__, str(error)])

    async def step(self, op: list[Any]) -> None:
        kind = op[0]
        ctx = self.ctx
        if kind in _AT_ONCE:
            self.see(_at_once(ctx, op, self.started))
        elif kind == "scope":
            make = ctx.fail_after if op[1] else ctx.move_on_after
            with make(op[2]) as scope:
                await self.run(op[3])
            self.see([scope.cancel_called, scope.cancelled_caught])
        elif kind == "finally":
            try:
                await self.run(op[1])
            finally:
                await self.run(op[2])
        elif kind == "group":
            async with ctx.create_task_group() as tg:
                for branch in op[1]:
                    tg.start_soon(self.branch, branch)
                if op[2]:
                    tg.cancel_scope.cancel()
        elif kind == "lock":
            async with ctx.lock_entities(*THINGS):
                await self.run(op[1])
        else:
            self.see(_plain(await _combined(ctx, op, self.started)))

    async def branch(self, ops: list[list[Any]]) -> None:
        for op in ops:
            await self.step(op)  # an error leaves the branch, and so ends its siblings

    def run_by_yield(self, ops: list[list[Any]]) -> Generator[Any, Any, None]:
        for op in ops:
            try:
                yield from self.step_by_yield(op)
            except Exception as error:
                self.see([type(error).__name__, str(error)])

    def step_by_yield(self, op: list[Any]) -> Generator[Any, Any, None]:
        kind = op[0]
        ctx = self.ctx
        if kind in _AT_ONCE:
            self.see(_at_once(ctx, op, self.started))
        elif kind == "scope":
            make = ctx.fail_after if op[1] else ctx.move_on_after
            with make(op[2]) as scope:
                yield from self.run_by_yield(op[3])
            self.see([scope.cancel_called, scope.cancelled_caught])
        elif kind == "finally":
            try:
                yield from self.run_by_yield(op[1])
            finally:
                yield from self.run_by_yield(op[2])
        elif kind == "group":
            for branch in op[1]:  # generators have no groups
                yield from self.run_by_yield(branch)
        elif kind == "lock":
            with (yield ctx.lock_entities(*THINGS)):
                yield from self.run_by_yield(op[1])
        else:
            self.see(_plain((yield _combined(ctx, op, self.started))))


@app.orchestration
async def interpreted(ctx: OrchestrationContext, ops: list[list[Any]]) -> list[Any]:
    interpreter = Interpreter(ctx)
    await interpreter.run(ops)
    return interpreter.trace


@app.orchestration
def interpreted_by_yield(
    ctx: OrchestrationContext, ops: list[list[Any]]
) -> Generator[Any, Any, list[Any]]:
    interpreter = Interpreter(ctx)
    yield from interpreter.run_by_yield(ops)
    return interpreter.trace


@app.orchestration
async def continued(ctx: OrchestrationContext, ops: list[list[Any]]) -> list[Any]:
    interpreter = Interpreter(ctx)
    await interpreter.run(ops[:4])
    if len(ops) > 4:
        ctx.continue_as_new(ops[4:], keep_events=len(ops) % 2 == 0)
    return interpreter.trace


LEAVES = st.tuples(
    st.sampled_from(
        [
            "activity",
            "retried",
            "timer",
            "event",
            "timed event",
            "typed event",
            "child",
            "retried child",
            "entity",
        ]
    ),
    st.integers(0, 5),
)
SMALL = st.integers(0, 5)
SIMPLE = st.one_of(
    st.tuples(st.just("leaf"), LEAVES),
    st.tuples(st.just("start"), LEAVES),
    st.tuples(st.just("await"), SMALL),
    st.tuples(st.just("give up"), SMALL),
    st.tuples(st.sampled_from(["uuid", "random", "time", "look"])),
    st.tuples(st.sampled_from(["send event", "signal"]), SMALL),
    st.tuples(
        st.sampled_from(["all", "any"]), st.lists(LEAVES, min_size=1, max_size=3), st.booleans()
    ),
)
OPS = st.recursive(
    SIMPLE,
    lambda op: st.one_of(
        st.tuples(st.just("scope"), st.booleans(), SMALL, st.lists(op, max_size=3)),
        st.tuples(st.just("finally"), st.lists(op, max_size=3), st.lists(op, max_size=2)),
        st.tuples(
            st.just("group"),
            st.lists(st.lists(op, max_size=3), min_size=1, max_size=3),
            st.sampled_from([False, False, False, True]),
        ),
        st.tuples(st.just("lock"), st.lists(op, max_size=3)),
    ),
    max_leaves=8,
)
PROGRAMS = st.lists(OPS, min_size=1, max_size=8)
FLOWS = st.sampled_from(["interpreted", "interpreted_by_yield", "continued"])

Flow = Callable[..., Awaitable[Any]]


def start(name: str, program: Any) -> Start:
    """The message that begins an instance of a program."""
    return Start(name, None, orjson.dumps(program))
