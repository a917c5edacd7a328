"""Runs activities: async ones on the loop, sync ones in threads, within limits.

An activity is started only when the checkpoint that scheduled it is durable, and its answer is
an ordinary message, so it runs at least once: a crash in between runs it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Container, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ...actors.changes import make
from ...actors.contexts.activity import ActivityContext
from ...actors.errors import PayloadError, UnknownNameError
from ...actors.failures import encode_failure, failure_of, read_failure
from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.messages import ActivityCall, AnswerKind, Caller, Completion, Run
from ...actors.payloads import SHORT, check_size, compact
from ...storage.slices import STEPS
from ..durations import DurationCounter
from ..observer import ActivityFacts
from ..scheduling.forks import end_child, forks
from ..scheduling.hands import is_foreign
from ..scheduling.threads import Threads
from ..scheduling.waiter import context_for_threads, thread_waker
from .lanes import PARCEL_MAX, Lane, Parcel

if TYPE_CHECKING:
    from ...actors.registry.definitions import ActivityDefinition
    from ...actors.registry.lookup import Lookup
    from ..scheduling.deaths import Warden
    from ..scheduling.hands import Hand
    from ..scheduling.pump import Pump, Runnable
    from ..scheduling.timers import Alarm, TimerQueue
    from ..scheduling.watch import Watch
    from ..settings import Settings
    from ..statistics import ActivityStatistics
    from .lanes import Post

_log = Log("perdure.activities")

#: Sync activities that are handed to the threads before these have ended others.
_AHEAD = 1_000

#: How many parcels of calls are looked through in one step, for those that were given up.
_PARCELS = 2


class RunningActivity:
    """One run of one activity, from its call to its end.

    Attributes:
        caller: who waits for the answer.
        ended: whether the answer was given, or is not wanted any more; what runs may go on.
        ran: when its code began, and where; None while it has not. On the loop the clock is read
            where it first waits: most that run there do not, and end as soon as they began.
        hand: the task it has to itself since it suspended.
        abandoned: whether it is counted among those that go on though nobody waits for them.
        counted: whether it is counted among those that run.
        kind: what its limits are.
        told: what an observer gave when it was told that this begins; None not to tell of its end.
    """

    __slots__ = (
        "abandoned",
        "alarm",
        "call",
        "caller",
        "context",
        "counted",
        "definition",
        "ended",
        "hand",
        "kind",
        "pool",
        "post",
        "ran",
        "told",
    )

    def __init__(self, pool: ActivityPool, call: ActivityCall, kind: Kind, post: Post) -> None:
        self.pool = pool
        self.call = call
        self.caller = call.caller
        self.kind = kind
        definition = self.definition = kind.definition
        self.post = post
        self.context = ActivityContext(call) if definition.takes_context else None
        self.hand: Hand | None = None
        self.alarm: Alarm | None = None
        self.ended = False
        self.ran: Run | None = None
        self.abandoned = False
        self.counted = False
        self.told: Any = None

    @property
    def title(self) -> str:
        """How the log calls it."""
        return f"activity {self.call.name} of instance {self.call.caller.instance_id}"

    def run(self) -> Coroutine[Any, Any, None] | None:
        """Run, for the pump: on the loop, or by handing it to a thread."""
        if self.ended:
            self.pool.free(self)
            return None
        if not self.definition.is_async:
            self.pool.run_in_thread(self)
            return None
        pool = self.pool
        if pool.warden is not None and self.ran is None:
            pool.warden.begin(self)
        if pool.watch is not None and self.ran is None:
            pool.tell_begin(self, pool.watch)
        self.ran = pool.at_once
        if self.call.timeout is not None:
            self.set_alarm()
        return self._run()

    def on_suspended(self, hand: Hand) -> None:
        """The activity waits for something, so from here on it may have to be cancelled."""
        self.hand = hand
        self.ran = self.pool.now(), self.pool.shard

    async def _run(self) -> None:
        # No cancel scope here: most activities that do not suspend would pay a tenth of their
        # cost for it. One that has suspended is cancelled with the hand it has to itself.
        try:
            if self.call.carried is not None:
                self.pool.take_along(self)
            definition = self.definition
            value = definition.decode_input(self.call.input)
            invoke = definition.invoke  # called as an attribute, it would be looked for as a method
            body = self._encode(await invoke(self.context, value))
        except BaseException as error:
            hand = self.hand
            if hand is not None and hand.is_shared and not self.ended and is_foreign(hand, error):
                self.hand = None
                self.pool.begin_again(self)
                return
            if is_interrupt(error):
                self.stop()  # not its failure: it runs again when a hub next opens the store
                self.pool.free(self)
                raise
            self.end("TaskFailed", self._describe(error))
        else:
            self.end("TaskCompleted", body)

    def run_there(self) -> None:
        """Run, in a worker thread."""
        pool = self.pool
        if self.ended:
            pool.report(self, None, b"")
            return
        self.ran = pool.now(), pool.shard
        if pool.warden is not None:
            pool.warden.begin(self)
        if pool.watch is not None:
            pool.tell_begin(self, pool.watch)
        if self.call.timeout is not None:
            pool.report_start(self)
        try:
            if self.call.carried is not None:
                pool.take_along(self)
            value = self.definition.decode_input(self.call.input)
            body = self._encode(self.definition.invoke(self.context, value))
        except BaseException as error:
            pool.report(self, "TaskFailed", self._describe(error))
        else:
            pool.report(self, "TaskCompleted", body)

    def _encode(self, result: Any) -> bytes:
        encode = self.definition.output.encode
        try:
            body: bytes = encode(result)
        except PayloadError as error:
            raise error.of(f"the result of {self.definition.title}") from error.__cause__
        limit = self.pool.lookup.max_payload
        if len(body) < SHORT <= limit:
            return b"%b" % body  # as compact() does it
        if len(body) > limit:
            check_size(body, limit, f"the result of {self.definition.name}")
        return compact(body)

    def _describe(self, error: BaseException) -> bytes:
        if self.ended:
            return b""  # nobody will read it: most often, it was told to stop
        return encode_failure(failure_of(error))

    def set_alarm(self) -> None:
        """End the attempt for its caller when it has taken as long as it may."""
        assert self.call.timeout is not None
        if not self.ended:
            self.alarm = self.pool.timers.set_after(self.call.timeout, self.time_out)

    def stop_alarm(self) -> None:
        """Have no time limit any more."""
        if self.alarm is not None:
            self.pool.timers.stop(self.alarm)
            self.alarm = None

    def time_out(self) -> None:
        """The attempt has taken as long as it may."""
        self.alarm = None
        seconds = self.call.timeout
        body = encode_failure(failure_of(TimeoutError(f"no answer within {seconds:g} seconds")))
        instance_id, execution, task = self.caller
        self.post(instance_id, Completion("TaskFailed", execution, task, body, self.ran))
        self.stop()

    def stop(self) -> None:
        """Tell the activity that its answer is not wanted; it keeps its place until it ends."""
        self.ended = True
        self.stop_alarm()
        if self.ran is not None and not self.abandoned:
            self.abandoned = True
            self.pool.abandoned += 1
        if self.context is not None:
            self.context.cancel()
        if self.hand is not None:
            self.hand.cancel()

    def end(self, event: AnswerKind | None, body: bytes) -> None:
        """Take note that it has ended; answer, unless the answer was given or given up before."""
        if self.alarm is not None:
            self.stop_alarm()
        pool = self.pool
        ran = self.ran
        if ran is pool.at_once and event == "TaskCompleted" and self.call.attempt == 1:
            self.kind.durations.instant += 1  # nearly always; as count() does, which is a call
        elif ran is not None:
            began = ran[0]  # None where it ran in one go
            self.kind.count(self, event, pool.now() - began if began else 0)
        if self.told is not None:
            failed = event == "TaskFailed" and body
            pool.tell_end(self, read_failure(body).error_type if failed else None)
        if event is not None and not self.ended:
            self.ended = True
            instance_id, execution, task = self.caller
            self.post(instance_id, Completion(event, execution, task, body, self.ran))
        pool.free(self)


class ProcessEndedError(Exception):
    """An activity ended the process that it ran in, again and again; it was not run once more."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} ended the worker process that it ran in, again and again, and was not run once "
            "more; a process that is short of memory is ended like that, too"
        )


class Kind:
    """An activity, and the lanes that it waits in.

    Attributes:
        own: of its own limit, if it has one.
        shared: of all that run on the loop, or of all that run in threads.
        durations: how long its attempts took.
        failed: how many of these failed.
        retried: how many of these were not the first of their call.
    """

    __slots__ = ("definition", "durations", "failed", "first", "own", "retried", "shared")

    def __init__(self, definition: ActivityDefinition, shared: Lane) -> None:
        self.definition = definition
        self.shared = shared
        most = definition.max_concurrency
        self.own = None if most is None else Lane(most)
        self.first = shared if self.own is None else self.own
        self.durations = DurationCounter()
        self.failed = 0
        self.retried = 0

    def count(self, running: RunningActivity, event: AnswerKind | None, took: int) -> None:
        """Count an attempt that has ended, and took so many microseconds."""
        if took > 0:
            self.durations.add(took / 1e6)
        else:
            self.durations.instant += 1
        if event != "TaskCompleted":
            self.failed += event == "TaskFailed"
        if running.call.attempt > 1:
            self.retried += 1

    def read(self) -> ActivityStatistics:
        """Give what was counted."""
        from ..statistics import ActivityStatistics

        durations = self.durations.read()
        return ActivityStatistics(
            name=self.definition.name,
            ended=durations.count,
            failed=self.failed,
            retried=self.retried,
            durations=durations,
        )


class ActivityPool:
    """The activities that run, and those that wait for their limits to let them.

    Invariants:

    * What waits is no more than its call, and in no table: it is skipped when its turn comes, if
      it was given up. Only what was let in has an object of its own.
    * A lane is full, or nobody waits in it, or what waits first is about to be dropped.
    """

    def __init__(
        self, lookup: Lookup, pump: Pump, timers: TimerQueue, settings: Settings, shard: int
    ) -> None:
        self.lookup = lookup
        self.timers = timers
        self.shard = shard  # the number of the one that it is of
        self.now = timers.now
        self.at_once: Run = (None, shard)  # of what runs in one go
        self._pump = pump
        self._settings = settings
        self._running: dict[Caller, RunningActivity] = {}
        self._kinds: dict[str, Kind] = {}
        self._on_loop = Lane(settings.activities_max)
        self._in_threads = Lane(settings.activity_threads_max + _AHEAD)
        self._intake = _Intake(self)
        self._threads: Threads | None = None
        self._reports: deque[tuple[RunningActivity, AnswerKind | None, bytes | None]] = deque()
        self._reported = False
        self._wake: Callable[[], None] = lambda: None
        self._context = context_for_threads()
        self._stopping = False
        self.waiting = 0  # calls that were not let in
        self.abandoned = 0  # attempts that go on, though their answers are not wanted any more
        self._forks = 0
        self.warden: Warden | None = None  # where processes have died
        self.watch: Watch | None = None  # of an observer that is told of each
        self.tracer: Watch | None = None  # of one that is told of those with which something came
        #: What is made of each activity before it first runs here; a test may put something in
        #: its place.
        self.prepare: Callable[[ActivityDefinition], ActivityDefinition] = _as_it_is

    @property
    def count(self) -> int:
        """How many run or wait to run."""
        waiting = sum(lane.waiting_count for lane in self._lanes)
        return self._on_loop.count + self._in_threads.count + waiting

    @property
    def waiting_count(self) -> int:
        """How many wait for their limits."""
        return sum(lane.waiting_count for lane in self._lanes)

    @property
    def longest_wait_s(self) -> float:
        """How long the call has waited that came first of those that were not let in."""
        waiting = [parcel.since for parcel in self._parcels if parcel.calls]
        return max(0.0, perf_counter() - min(waiting)) if waiting else 0.0

    def read_kinds(self) -> tuple[ActivityStatistics, ...]:
        """Give what was counted of each activity."""
        return tuple(kind.read() for _, kind in sorted(self._kinds.items()))

    @property
    def _lanes(self) -> list[Lane]:
        own = [kind.own for kind in self._kinds.values() if kind.own is not None]
        return [self._intake.lane, self._on_loop, self._in_threads, *own]

    @property
    def _parcels(self) -> list[Parcel]:
        """What waits, as far as that is no more than calls."""
        return [parcel for lane in self._lanes for parcel in lane.parcels]

    @property
    def running_count(self) -> int:
        """How many run, or are about to, whose answers somebody waits for."""
        return self._on_loop.count + self._in_threads.count - self.abandoned

    @property
    def wanted(self) -> list[RunningActivity]:
        """Those that run, or are about to, whose answers somebody waits for."""
        return [running for running in self._running.values() if not running.ended]

    @property
    def begun(self) -> list[RunningActivity]:
        """Those that have begun and not ended."""
        return [running for running in self._running.values() if running.ran is not None]

    def stop_starting(self) -> None:
        """Start no more; what is not started now runs when a hub next opens the store."""
        self._stopping = True
        for lane in self._lanes:
            lane.clear()
        self.waiting = 0
        if self._threads is not None:
            for job in self._threads.take_back():
                assert isinstance(job, RunningActivity)
                job.end(None, b"")

    def start(self) -> None:
        """Bind to the running event loop."""
        self._wake = thread_waker(self._take_reports)
        self._context = context_for_threads()
        self._forks = forks()

    def submit_all(self, calls: list[ActivityCall], post: Post) -> None:
        """Run activities; their answers go to ``post``, with the callers' instance ids."""
        intake = self._intake
        if len(calls) > STEPS or intake.lane.waiting:
            if not self._stopping:
                intake.take(calls, post)
            return
        for call in calls:
            self.submit(call, post)

    def submit(self, call: ActivityCall, post: Post) -> None:
        """Run an activity; its answer goes to ``post``, with the caller's instance id."""
        if self._stopping:
            return
        kind = self._kinds.get(call.name) or self._find(call, post)
        if kind is None:
            return
        lane = kind.first
        if lane.count >= lane.limit and self.warden is None:
            lane.keep(call, post)
            self.waiting += 1
            return
        running = RunningActivity(self, call, kind, post)
        self._running[running.caller] = running
        if self.warden is not None:
            if self.warden.is_at_fault(call):
                failure = failure_of(ProcessEndedError(call.name))
                running.end("TaskFailed", encode_failure(failure))
            elif self.warden.admits(running):
                self._queue(running)
        elif kind.own is not None:
            self._queue(running)
        else:  # nearly always: without _admit(), which does as this does
            lane.count += 1
            running.counted = True
            self._pump.put(running)

    def _find(self, call: ActivityCall, post: Post) -> Kind | None:
        try:
            definition = self.lookup.registry.find_activity(call.name)
        except UnknownNameError as error:
            # Scheduled by an earlier release that knew it: the orchestration decides.
            caller = call.caller
            body = encode_failure(failure_of(error))
            completion = Completion("TaskFailed", caller.execution, caller.task, body)
            post(caller.instance_id, completion)
            return None
        definition = self.prepare(definition)
        shared = self._on_loop if definition.is_async else self._in_threads
        kind = self._kinds[call.name] = Kind(definition, shared)
        return kind

    def _queue(self, running: RunningActivity) -> None:
        own = running.kind.own
        if own is not None:
            if own.count >= own.limit:
                own.waiting.append(running)
                return
            own.count += 1
        self._admit(running)

    def _admit(self, running: RunningActivity) -> None:
        shared = running.kind.shared
        if shared.count >= shared.limit:
            shared.waiting.append(running)
            return
        shared.count += 1
        running.counted = True
        self._pump.put(running)

    def _let_in(self, lane: Lane) -> None:
        """Let those in that a lane has room for."""
        while lane.waiting and lane.count < lane.limit:
            first = lane.waiting[0]
            if isinstance(first, Parcel):
                if first.dropped:
                    return  # it is about to be looked through, which lets more in
                call = lane.next_call(first)
                self.waiting -= 1
                if call is not None:
                    self.submit(call, first.post)
                continue
            assert isinstance(first, RunningActivity)
            lane.waiting.popleft()
            if lane is first.kind.own:
                lane.count += 1
            self._admit(first)

    def _count_waiting(self) -> None:
        self.waiting = sum(len(parcel.calls) for parcel in self._parcels)

    def put(self, item: Runnable) -> None:
        """Give the pump something to run."""
        self._pump.put(item)

    def send_away(self, post: Post, new: Post) -> list[Caller]:
        """Have the answers for ``post`` go to ``new``; gives who waits for them."""
        callers: list[Caller] = []
        for caller, running in self._running.items():
            if running.post == post and not running.ended:
                running.post = new
                callers.append(caller)
        for parcel in self._parcels:
            if parcel.post == post:
                parcel.post = new
                callers += parcel.callers()
        return callers

    def callers(self, post: Post) -> set[Caller]:
        """Give who waits for the answers that go to ``post``."""
        callers = {
            caller
            for caller, running in self._running.items()
            if running.post == post and not running.ended
        }
        for parcel in self._parcels:
            if parcel.post == post:
                callers.update(parcel.callers())
        return callers

    def started_at(self, caller: Caller) -> int | None:
        """When the code of an activity began that runs here; None where it has not."""
        running = self._running.get(caller)
        return None if running is None or running.ran is None else running.ran[0]

    def cancel(self, caller: Caller) -> None:
        """Tell one activity of an instance, or all of them for task 0, to stop."""
        if caller.task:
            for parcel in self._parcels if self.waiting else ():
                parcel.skip(caller)
            if (one := self._running.get(caller)) is not None:
                one.stop()
            return
        # One look at all that run, no more than the limits let in, instead of a table for each
        # instance: this is for what ends before its activities have.
        instance_id, execution, _ = caller
        self._drop_waiting(instance_id, execution, None)
        self._stop(
            [
                one
                for (instance, number, _), one in self._running.items()
                if instance == instance_id and number == execution
            ]
        )

    def cancel_some(self, instance_id: str, execution: int, tasks: Collection[int]) -> None:
        """Tell some activities of an execution to stop, by the numbers of their tasks."""
        if len(tasks) <= STEPS:
            for task in tasks:
                self.cancel(Caller(instance_id, execution, task))
            return
        self._drop_waiting(instance_id, execution, tasks)
        self._stop(
            [
                one
                for (instance, number, task), one in self._running.items()
                if task in tasks and instance == instance_id and number == execution
            ]
        )

    def _drop_waiting(self, instance_id: str, execution: int, tasks: Container[int] | None) -> None:
        """Drop calls of an execution that wait, or those of some tasks: none of them begins."""
        parcels = self._parcels if self.waiting else []
        found = [one for one in parcels if one.skip_all(instance_id, execution, tasks)]
        if found:
            _Dropping(self, found).run()

    def drop_from(self, parcels: list[Parcel]) -> None:
        """Be without what was given up of some parcels."""
        for parcel in parcels:
            parcel.drop()
        if self._stopping:
            return
        lanes = self._lanes
        for lane in lanes:
            if lane.waiting:
                lane.drop_empty()
        self._count_waiting()
        for lane in lanes:
            self._let_in(lane)

    def _stop(self, some: list[RunningActivity]) -> None:
        """Tell some activities to stop; of many, what ends by that has a turn of the loop each."""
        if len(some) <= STEPS:
            for one in some:
                one.stop()
            return
        for one in some:
            one.ended = True  # what has not begun never does
        _Stopping(self, some).go_on()

    def is_here(self, running: RunningActivity) -> bool:
        """Whether a run has not ended, and is not another one's by now."""
        return self._running.get(running.caller) is running

    def begin_again(self, running: RunningActivity) -> None:
        """Run an activity again that code beside it may have cancelled; where nothing ran before."""
        running.stop_alarm()
        _log.warning(
            "%s was cancelled in a task where other code had run; it begins again", running.title
        )
        self._pump.put_alone(running)

    def run_in_thread(self, running: RunningActivity) -> None:
        """Hand a sync activity to a worker thread."""
        if self._threads is None:
            self._threads = Threads(self._settings.activity_threads_max, self._context)
        try:
            self._threads.submit(running)
        except RuntimeError as error:
            running.end("TaskFailed", encode_failure(failure_of(error)))

    def report_start(self, running: RunningActivity) -> None:
        """Say from a worker thread that a run with a time limit has begun."""
        self._report(running, None, None)

    def report(self, running: RunningActivity, event: AnswerKind | None, body: bytes) -> None:
        """Bring an answer from a worker thread to the loop; many come in one wake-up."""
        self._report(running, event, body)

    def _report(
        self, running: RunningActivity, event: AnswerKind | None, body: bytes | None
    ) -> None:
        if self._forks != forks():
            end_child()
        self._reports.append((running, event, body))
        if not self._reported:
            self._reported = True
            self._wake()

    def _take_reports(self) -> None:
        self._reported = False
        while self._reports:
            running, event, body = self._reports.popleft()
            if body is None:
                running.set_alarm()
            else:
                running.end(event, body)

    def tell_begin(self, running: RunningActivity, watch: Watch) -> None:
        """Tell an observer that an activity's code begins."""
        if running.told is not None:  # it begins again
            self.tell_end(running, "Cancelled")
        call = running.call
        instance_id, execution, task = call.caller
        told = call.name, instance_id, task, call.attempt, execution, call.carried
        running.told = watch.begin_activity(make(ActivityFacts, told))

    def take_along(self, running: RunningActivity) -> None:
        """Set in the running context what came along with a call, and tell whoever traces."""
        carried = running.call.carried
        assert carried is not None
        if self.lookup.registry.context_vars:
            self.lookup.take_along(carried)
        tracer = self.tracer
        if tracer is not None and tracer.enter_activity(carried):
            self.tell_begin(running, tracer)

    def tell_end(self, running: RunningActivity, failure: str | None) -> None:
        """Tell it that the activity has ended, of which it was told that it began."""
        told, running.told = running.told, None
        watch = self.watch or self.tracer
        if watch is not None:
            watch.end_activity(told, failure)

    def free(self, running: RunningActivity) -> None:
        """Forget a run that has ended, and let the next one in."""
        if self.warden is not None:
            self.warden.end(running, self._queue)
        if running.told is not None:
            self.tell_end(running, "Cancelled")
        if running.abandoned:
            running.abandoned = False
            self.abandoned -= 1
        known = self._running.pop(running.caller, None)
        if known is not running and known is not None:
            self._running[running.caller] = known  # after a recovery its place may be another run's
        if not running.counted:
            return
        running.counted = False
        kind = running.kind
        shared = kind.shared
        shared.count -= 1
        if kind.own is not None:
            kind.own.count -= 1
            self._let_in(kind.own)
        if shared.waiting:
            self._let_in(shared)

    def stop_all(self, post: Post | None = None) -> None:
        """Tell the activities (those that answer to ``post``, if given) to stop."""
        for lane in self._lanes:
            lane.drop(post)
        self._count_waiting()
        for running in list(self._running.values()):
            if post is None or running.post == post:
                running.stop()

    def close(self) -> None:
        """Let the worker threads end when they can; a sync activity cannot be interrupted."""
        if self._threads is None:
            return
        self._threads.close()
        self._threads = None
        for running in list(self._running.values()):
            if running.ran is not None and not running.definition.is_async:
                _log.warning("left %s behind: its thread runs on", running.title)


def _as_it_is(definition: ActivityDefinition) -> ActivityDefinition:
    return definition


class _Stopping:
    """Tells many activities to stop: some in each turn of the loop, which they end in the next."""

    __slots__ = ("_left", "_pool", "_wake")

    def __init__(self, pool: ActivityPool, some: list[RunningActivity]) -> None:
        self._pool = pool
        self._left = some
        self._wake = thread_waker(self.go_on)

    def go_on(self) -> None:
        """Tell some, and the others later."""
        left = self._left
        for one in left[-STEPS:]:
            if self._pool.is_here(one):
                one.stop()
        del left[-STEPS:]
        if left:
            self._wake()


class _Dropping:
    """Drops calls that wait and were given up: of some parcels at a time, for the pump."""

    __slots__ = ("_left", "_pool")

    title = "the dropping of activities"

    def __init__(self, pool: ActivityPool, parcels: list[Parcel]) -> None:
        self._pool = pool
        self._left = parcels

    def run(self) -> None:
        """Drop some."""
        left = self._left
        self._pool.drop_from(left[:_PARCELS])
        del left[:_PARCELS]
        if left:
            self._pool.put(self)

    def on_suspended(self, hand: Hand) -> None:
        """It never does."""


class _Intake:
    """Takes many calls at once in, some at a time: for the pump, which lets the loop turn."""

    __slots__ = ("_pool", "lane")

    title = "the intake of activities"

    def __init__(self, pool: ActivityPool) -> None:
        self._pool = pool
        self.lane = Lane(0)

    def take(self, calls: list[ActivityCall], post: Post) -> None:
        """Take calls in, behind those that wait for that."""
        if not self.lane.waiting:
            self._pool.put(self)
        for start in range(0, len(calls), PARCEL_MAX):
            self.lane.waiting.append(Parcel(calls[start : start + PARCEL_MAX], post))
        self._pool.waiting += len(calls)

    def run(self) -> None:
        """Take some in."""
        lane = self.lane
        if not lane.waiting:
            return
        parcel = lane.waiting[0]
        assert isinstance(parcel, Parcel)
        calls, post, submit = parcel.calls, parcel.post, self._pool.submit
        wants = parcel.wants if parcel.has_given_up else None
        some = min(STEPS, len(calls))
        self._pool.waiting -= some
        for _ in range(some):
            call = calls.popleft()
            if wants is None or wants(call):
                submit(call, post)
        if not calls:
            lane.waiting.popleft()
        if lane.waiting:
            self._pool.put(self)

    def on_suspended(self, hand: Hand) -> None:
        """It never does."""
