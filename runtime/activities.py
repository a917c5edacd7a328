"""Runs activities: async ones on the loop, sync ones in threads, within limits.

An activity is started only when the checkpoint that scheduled it is durable, and its answer is
an ordinary message, so it runs at least once: a crash in between runs it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio

from ..actors.activity import ActivityContext
from ..actors.codec import check_size
from ..actors.errors import FailureDetails, UnknownNameError
from ..actors.failures import encode_failure, failure_of
from ..actors.logs import Log
from ..actors.messages import ActivityCall, Caller, Completion
from .waiting import on_asyncio, thread_waker

if TYPE_CHECKING:
    from ..actors.definitions import ActivityDefinition
    from ..actors.lookup import Lookup
    from .pump import Pump
    from .settings import Settings
    from .timers import Alarm, TimerQueue

_log = Log("perdure.activities")

Post = Callable[[str, Completion], None]


class RunningActivity:
    """One run of one activity, from its start to its answer."""

    __slots__ = (
        "alarm",
        "call",
        "context",
        "counted",
        "definition",
        "ended",
        "pool",
        "post",
        "scope",
        "task",
    )

    def __init__(
        self, pool: ActivityPool, call: ActivityCall, definition: ActivityDefinition, post: Post
    ) -> None:
        self.pool = pool
        self.call = call
        self.definition = definition
        self.post = post
        self.context = ActivityContext(call) if definition.takes_context else None
        self.scope: anyio.CancelScope | None = None
        self.task: asyncio.Task[Any] | None = None
        self.alarm: Alarm | None = None
        self.ended = False
        self.counted = False  # among those that run

    def run(self) -> Coroutine[Any, Any, None] | None:
        """Run, for the pump: on the loop, or by handing it to a thread."""
        if self.ended:
            self.pool.ended(self)
            return None
        if not self.definition.is_async:
            self.pool.run_in_thread(self)
            return None
        return self._run_in_task() if self.pool.on_asyncio else self._run_in_scope()

    def on_suspended(self) -> None:
        """The activity waits for something, so from here on it may have to be cancelled."""
        if self.pool.on_asyncio:
            self.task = asyncio.current_task()

    async def _run_in_task(self) -> None:
        # No cancel scope here: most activities that do not suspend would pay a tenth of their
        # cost for it. One that has suspended is cancelled through its task.
        try:
            value = self.definition.decode_input(self.call.input)
            body = self._encode(await self.definition.invoke(self.context, value))
        except (Exception, SystemExit) as error:
            self.end("TaskFailed", encode_failure(failure_of(error)))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                # Of the activity's own making: it awaited something that was cancelled.
                self.end("TaskFailed", encode_failure(failure_of(error)))
            elif not self.ended or self.task is None:
                raise  # the hub stops
            else:
                task.uncancel()
                self.end(None, b"")
        else:
            self.end("TaskCompleted", body)

    async def _run_in_scope(self) -> None:
        body = b""
        try:
            with anyio.CancelScope() as self.scope:
                value = self.definition.decode_input(self.call.input)
                body = self._encode(await self.definition.invoke(self.context, value))
        except (Exception, SystemExit) as error:
            self.end("TaskFailed", encode_failure(failure_of(error)))
        else:
            if self.scope.cancelled_caught:
                self.end(None, b"")
            else:
                self.end("TaskCompleted", body)

    def run_there(self) -> None:
        """Run, in a worker thread."""
        try:
            value = self.definition.decode_input(self.call.input)
            body = self._encode(self.definition.invoke(self.context, value))
        except Exception as error:
            self.pool.report(self, "TaskFailed", encode_failure(failure_of(error)))
        except BaseException as error:
            # SystemExit and its like must not vanish in a thread: the orchestration hears of it.
            self.pool.report(self, "TaskFailed", encode_failure(failure_of(error)))
            raise
        else:
            self.pool.report(self, "TaskCompleted", body)

    def _encode(self, result: Any) -> bytes:
        body: bytes = self.definition.output.encode(result)
        limit = self.pool.lookup.max_payload
        if len(body) > limit:
            check_size(body, limit, f"the result of {self.definition.name}")
        return body

    def time_out(self) -> None:
        """The attempt has taken as long as it may."""
        seconds = self.call.timeout
        failure = FailureDetails("TimeoutError", f"no answer within {seconds:g} seconds")
        self.end("TaskFailed", encode_failure(failure))
        self.stop()

    def stop(self) -> None:
        """Tell the activity that its answer is not wanted."""
        self.ended = True
        if self.context is not None:
            self.context.cancel()
        if self.scope is not None:
            self.scope.cancel()
        elif self.task is not None:
            self.task.cancel()

    def end(self, event: str | None, body: bytes) -> None:
        """Answer, unless the answer was given or given up before."""
        if self.alarm is not None:
            self.pool.timers.stop(self.alarm)
            self.alarm = None
        if not self.ended:
            self.ended = True
            if event is not None:
                caller = self.call.caller
                self.post(
                    caller.instance_id, Completion(event, caller.execution, caller.task, body)
                )
        self.pool.ended(self)


class ActivityPool:
    """The activities that run, and those that wait for their limit to let them."""

    def __init__(self, lookup: Lookup, pump: Pump, timers: TimerQueue, settings: Settings) -> None:
        self.lookup = lookup
        self.timers = timers
        self._pump = pump
        self._settings = settings
        self._running: dict[str, dict[tuple[int, int], RunningActivity]] = {}
        self._count = 0
        self._counts: dict[str, int] = {}
        self._waiting: deque[RunningActivity] = deque()
        self._limited: dict[str, deque[RunningActivity]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._reports: deque[tuple[RunningActivity, str, bytes]] = deque()
        self._reported = False
        self._wake: Callable[[], None] = lambda: None
        self.on_asyncio = False
        self._stopping = False

    @property
    def count(self) -> int:
        """How many run or wait to run."""
        waiting = sum(len(queue) for queue in self._limited.values())
        return self._count + len(self._waiting) + waiting

    @property
    def running_count(self) -> int:
        """How many run."""
        return self._count

    def stop_starting(self) -> None:
        """Start no more; what is not started now runs when a hub next opens the store."""
        self._stopping = True
        self._waiting.clear()
        self._limited.clear()

    def start(self) -> None:
        """Bind to the running event loop."""
        self.on_asyncio = on_asyncio()
        self._wake = thread_waker(self._take_reports)

    def submit(self, call: ActivityCall, post: Post) -> None:
        """Run an activity; its answer goes to ``post``, with the caller's instance id."""
        if self._stopping:
            return
        try:
            definition = self.lookup.find_activity(call.name)
        except UnknownNameError as error:
            # Scheduled by an earlier release that knew it: the orchestration decides.
            caller = call.caller
            body = encode_failure(failure_of(error))
            completion = Completion("TaskFailed", caller.execution, caller.task, body)
            post(caller.instance_id, completion)
            return
        running = RunningActivity(self, call, definition, post)
        instance, execution, task = call.caller
        tasks = self._running.get(instance)
        if tasks is None:
            self._running[instance] = {(execution, task): running}
        else:
            tasks[execution, task] = running
        if definition.max_concurrency is not None:
            if self._counts.get(definition.name, 0) >= definition.max_concurrency:
                self._limited.setdefault(definition.name, deque()).append(running)
                return
            self._counts[definition.name] = self._counts.get(definition.name, 0) + 1
        self._admit(running)

    def _admit(self, running: RunningActivity) -> None:
        if running.definition.is_async and self._count >= self._settings.activities_max:
            self._waiting.append(running)
            return
        self._count += 1
        running.counted = True
        if running.call.timeout is not None:
            running.alarm = self.timers.set_after(running.call.timeout, running.time_out)
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

    def cancel(self, caller: Caller) -> None:
        """Tell one activity of an instance, or all of them for task 0, to stop."""
        instance, execution, task = caller
        tasks = self._running.get(instance)
        if tasks is None:
            return
        for key, running in list(tasks.items()):
            if key[0] == execution and task in (0, key[1]):
                running.stop()

    def run_in_thread(self, running: RunningActivity) -> None:
        """Hand a sync activity to a worker thread."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self._settings.activity_threads_max, thread_name_prefix="perdure-activity"
            )
        self._threads.submit(copy_context().run, running.run_there)

    def report(self, running: RunningActivity, event: str, body: bytes) -> None:
        """Bring an answer from a worker thread to the loop; many come in one wake-up."""
        self._reports.append((running, event, body))
        if not self._reported:
            self._reported = True
            self._wake()

    def _take_reports(self) -> None:
        self._reported = False
        while self._reports:
            running, event, body = self._reports.popleft()
            running.end(event, body)

    def ended(self, running: RunningActivity) -> None:
        """Forget a run, and let the next one in."""
        instance, execution, task = running.call.caller
        tasks = self._running.get(instance)
        if tasks is not None and tasks.get((execution, task)) is running:
            # After a recovery its place may be another run's.
            del tasks[execution, task]
            if not tasks:
                del self._running[instance]
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
        while self._waiting and self._count < self._settings.activities_max:
            self._admit(self._waiting.popleft())

    def stop_all(self, post: Post | None = None) -> None:
        """Tell the activities (those that answer to ``post``, if given) to stop."""
        for tasks in list(self._running.values()):
            for running in list(tasks.values()):
                if post is None or running.post == post:
                    running.stop()

    def close(self) -> None:
        """Let the worker threads end when they can; a sync activity cannot be interrupted."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            if self._running:
                _log.warning("%d activities were still running at the stop", self.count)
