"""Runs activities: async ones on the loop, sync ones in threads, within limits.

An activity is started only when the checkpoint that scheduled it is durable, and its answer is
an ordinary message, so it runs at least once: a crash in between runs it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ...actors.contexts.activity import ActivityContext
from ...actors.errors import PayloadError, UnknownNameError
from ...actors.failures import encode_failure, failure_of
from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.messages import ActivityCall, Caller, Completion
from ...actors.payloads import check_size
from ..scheduling.forks import end_child, forks
from ..scheduling.hands import is_foreign
from ..scheduling.threads import Threads
from ..scheduling.waiter import context_for_threads, thread_waker

if TYPE_CHECKING:
    from ...actors.registry.definitions import ActivityDefinition
    from ...actors.registry.lookup import Lookup
    from ..scheduling.deaths import Warden
    from ..scheduling.hands import Hand
    from ..scheduling.pump import Pump
    from ..scheduling.timers import Alarm, TimerQueue
    from ..settings import Settings

_log = Log("perdure.activities")

Post = Callable[[str, Completion], None]


class RunningActivity:
    """One run of one activity, from its call to its end.

    Attributes:
        ended: whether the answer was given, or is not wanted any more; what runs may go on.
        begun: whether its code has begun.
        hand: the task it has to itself since it suspended.
        abandoned: whether it is counted among those that go on though nobody waits for them.
        counted: whether it is counted among those that run.
    """

    __slots__ = (
        "abandoned",
        "alarm",
        "begun",
        "call",
        "context",
        "counted",
        "definition",
        "ended",
        "hand",
        "pool",
        "post",
    )

    def __init__(
        self, pool: ActivityPool, call: ActivityCall, definition: ActivityDefinition, post: Post
    ) -> None:
        self.pool = pool
        self.call = call
        self.definition = definition
        self.post = post
        self.context = ActivityContext(call) if definition.takes_context else None
        self.hand: Hand | None = None
        self.alarm: Alarm | None = None
        self.ended = False
        self.begun = False
        self.abandoned = False
        self.counted = False

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
        if self.pool.warden is not None and not self.begun:
            self.pool.warden.begin(self)
        self.begun = True
        if self.call.timeout is not None:
            self.set_alarm()
        return self._run()

    def on_suspended(self, hand: Hand) -> None:
        """The activity waits for something, so from here on it may have to be cancelled."""
        self.hand = hand

    async def _run(self) -> None:
        # No cancel scope here: most activities that do not suspend would pay a tenth of their
        # cost for it. One that has suspended is cancelled with the hand it has to itself.
        try:
            if self.call.carried is not None:
                self.pool.lookup.take_along(self.call.carried)
            value = self.definition.decode_input(self.call.input)
            body = self._encode(await self.definition.invoke(self.context, value))
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
        self.begun = True
        if pool.warden is not None:
            pool.warden.begin(self)
        if self.call.timeout is not None:
            pool.report_start(self)
        try:
            if self.call.carried is not None:
                pool.lookup.take_along(self.call.carried)
            value = self.definition.decode_input(self.call.input)
            body = self._encode(self.definition.invoke(self.context, value))
        except BaseException as error:
            pool.report(self, "TaskFailed", self._describe(error))
        else:
            pool.report(self, "TaskCompleted", body)

    def _encode(self, result: Any) -> bytes:
        try:
            body: bytes = self.definition.output.encode(result)
        except PayloadError as error:
            raise error.of(f"the result of {self.definition.title}") from error.__cause__
        limit = self.pool.lookup.max_payload
        if len(body) > limit:
            check_size(body, limit, f"the result of {self.definition.name}")
        return body

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
        caller = self.call.caller
        seconds = self.call.timeout
        body = encode_failure(failure_of(TimeoutError(f"no answer within {seconds:g} seconds")))
        self.post(caller.instance_id, Completion("TaskFailed", caller.execution, caller.task, body))
        self.stop()

    def stop(self) -> None:
        """Tell the activity that its answer is not wanted; it keeps its place until it ends."""
        self.ended = True
        self.stop_alarm()
        if self.begun and not self.abandoned:
            self.abandoned = True
            self.pool.abandoned += 1
        if self.context is not None:
            self.context.cancel()
        if self.hand is not None:
            self.hand.cancel()

    def end(self, event: str | None, body: bytes) -> None:
        """Take note that it has ended; answer, unless the answer was given or given up before."""
        if self.alarm is not None:
            self.stop_alarm()
        if event is not None and not self.ended:
            self.ended = True
            caller = self.call.caller
            self.post(caller.instance_id, Completion(event, caller.execution, caller.task, body))
        self.pool.free(self)


class ProcessEndedError(Exception):
    """An activity ended the process that it ran in, again and again; it was not run once more."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} ended the worker process that it ran in, again and again, and was not run once "
            "more; a process that is short of memory is ended like that, too"
        )


class ActivityPool:
    """The activities that run, and those that wait for their limit to let them."""

    def __init__(self, lookup: Lookup, pump: Pump, timers: TimerQueue, settings: Settings) -> None:
        self.lookup = lookup
        self.timers = timers
        self._pump = pump
        self._settings = settings
        self._most = settings.activities_max
        self._running: dict[str, dict[Caller, RunningActivity]] = {}  # by instance
        self._known: dict[str, ActivityDefinition] = {}
        self._count = 0
        self._counts: dict[str, int] = {}
        self._waiting: deque[RunningActivity] = deque()
        self._limited: dict[str, deque[RunningActivity]] = {}
        self._threads: Threads | None = None
        self._reports: deque[tuple[RunningActivity, str | None, bytes | None]] = deque()
        self._reported = False
        self._wake: Callable[[], None] = lambda: None
        self._context = context_for_threads()
        self._stopping = False
        self.abandoned = 0  # attempts that go on, though their answers are not wanted any more
        self._forks = 0
        self.warden: Warden | None = None  # where processes have died

    @property
    def count(self) -> int:
        """How many run or wait to run."""
        waiting = sum(len(queue) for queue in self._limited.values())
        return self._count + len(self._waiting) + waiting

    @property
    def running_count(self) -> int:
        """How many run, or are about to, whose answers somebody waits for."""
        return self._count - self.abandoned

    @property
    def begun(self) -> list[RunningActivity]:
        """Those that have begun and not ended."""
        return [
            running
            for tasks in self._running.values()
            for running in tasks.values()
            if running.begun
        ]

    def stop_starting(self) -> None:
        """Start no more; what is not started now runs when a hub next opens the store."""
        self._stopping = True
        self._waiting.clear()
        self._limited.clear()
        if self._threads is not None:
            for job in self._threads.take_back():
                assert isinstance(job, RunningActivity)
                job.end(None, b"")

    def start(self) -> None:
        """Bind to the running event loop."""
        self._wake = thread_waker(self._take_reports)
        self._context = context_for_threads()
        self._forks = forks()

    def submit(self, call: ActivityCall, post: Post) -> None:
        """Run an activity; its answer goes to ``post``, with the caller's instance id."""
        if self._stopping:
            return
        definition = self._known.get(call.name) or self._find(call, post)
        if definition is None:
            return
        running = RunningActivity(self, call, definition, post)
        caller = call.caller
        tasks = self._running.get(caller.instance_id)
        if tasks is None:
            self._running[caller.instance_id] = {caller: running}
        else:
            tasks[caller] = running
        if self.warden is not None:
            if self.warden.is_at_fault(call):
                failure = failure_of(ProcessEndedError(call.name))
                running.end("TaskFailed", encode_failure(failure))
                return
            if not self.warden.admits(running):
                return
        if definition.max_concurrency is None:
            self._admit(running)  # nearly always: a call less
        else:
            self._queue(running)

    def _find(self, call: ActivityCall, post: Post) -> ActivityDefinition | None:
        try:
            definition = self._known[call.name] = self.lookup.find_activity(call.name)
        except UnknownNameError as error:
            # Scheduled by an earlier release that knew it: the orchestration decides.
            caller = call.caller
            body = encode_failure(failure_of(error))
            completion = Completion("TaskFailed", caller.execution, caller.task, body)
            post(caller.instance_id, completion)
            return None
        return definition

    def _queue(self, running: RunningActivity) -> None:
        definition = running.definition
        if definition.max_concurrency is not None:
            if self._counts.get(definition.name, 0) >= definition.max_concurrency:
                self._limited.setdefault(definition.name, deque()).append(running)
                return
            self._counts[definition.name] = self._counts.get(definition.name, 0) + 1
        self._admit(running)

    def _admit(self, running: RunningActivity) -> None:
        if self._count >= self._most and running.definition.is_async:
            self._waiting.append(running)
            return
        self._count += 1
        running.counted = True
        self._pump.put(running)

    def send_away(self, post: Post, new: Post) -> list[Caller]:
        """Have the answers for ``post`` go to ``new``; gives who waits for them."""
        callers: list[Caller] = []
        for tasks in self._running.values():
            for running in tasks.values():
                if running.post == post and not running.ended:
                    running.post = new
                    callers.append(running.call.caller)
        return callers

    def callers(self, post: Post) -> set[Caller]:
        """Give who waits for the answers that go to ``post``."""
        return {
            running.call.caller
            for tasks in self._running.values()
            for running in tasks.values()
            if running.post == post and not running.ended
        }

    def cancel(self, caller: Caller) -> None:
        """Tell one activity of an instance, or all of them for task 0, to stop."""
        tasks = self._running.get(caller.instance_id)
        if tasks is None:
            return
        for one, running in list(tasks.items()):
            if one.execution == caller.execution and caller.task in (0, one.task):
                running.stop()

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

    def report(self, running: RunningActivity, event: str | None, body: bytes) -> None:
        """Bring an answer from a worker thread to the loop; many come in one wake-up."""
        self._report(running, event, body)

    def _report(self, running: RunningActivity, event: str | None, body: bytes | None) -> None:
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

    def free(self, running: RunningActivity) -> None:
        """Forget a run that has ended, and let the next one in."""
        if self.warden is not None:
            self.warden.end(running, self._queue)
        if running.abandoned:
            running.abandoned = False
            self.abandoned -= 1
        caller = running.call.caller
        tasks = self._running.get(caller.instance_id)
        if tasks is not None and tasks.get(caller) is running:
            # After a recovery its place may be another run's.
            del tasks[caller]
            if not tasks:
                del self._running[caller.instance_id]
        if not running.counted:
            return
        running.counted = False
        self._count -= 1
        definition = running.definition
        if definition.max_concurrency is not None:
            limited = self._limited.get(definition.name)
            if limited:
                self._admit(limited.popleft())
            else:
                self._counts[definition.name] -= 1
        while self._waiting and self._count < self._most:
            self._admit(self._waiting.popleft())

    def stop_all(self, post: Post | None = None) -> None:
        """Tell the activities (those that answer to ``post``, if given) to stop."""
        for tasks in list(self._running.values()):
            for running in list(tasks.values()):
                if post is None or running.post == post:
                    running.stop()

    def close(self) -> None:
        """Let the worker threads end when they can; a sync activity cannot be interrupted."""
        if self._threads is None:
            return
        self._threads.close()
        self._threads = None
        for running in [one for tasks in self._running.values() for one in tasks.values()]:
            if running.begun and not running.definition.is_async:
                _log.warning("left %s behind: its thread runs on", running.title)
