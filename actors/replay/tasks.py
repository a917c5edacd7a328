"""The tasks an orchestration awaits: one class for each way of settling.

A task is settled by its executor, from a history event, and never by a clock or a thread. What
watches a task (a fiber, or a task made of others) is told in the order in which it began to
watch, so ties are decided by history and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from attrs import evolve

from ..errors import (
    Cancelled,
    EventDataError,
    FailedError,
    FailureDetails,
    PayloadError,
    UsageError,
)
from ..failures import failure_of, read_failure
from ..retry import PredicateError

if TYPE_CHECKING:
    from types import TracebackType

    from ..codec import Codec
    from ..messages import Operation
    from ..retry import RetryPolicy
    from .executor import Executor
    from .scopes import CancelScope

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

PENDING, DONE, FAILED, CANCELED = range(4)

#: How many results may wait to be read: a power of two, less one.
UNREAD_MAX = 255

#: What is added to a lock's number each time that a rewind asks for it anew.
LOCK_AGAIN = 1 << 32


class Watcher(Protocol):
    """Whoever wants to know when a task is settled."""

    @property
    def only_notes(self) -> bool:
        """Whether it would take notice of a result, and neither look at it nor decide anything."""
        ...

    def on_settled(self, task: Task[Any]) -> None:
        """Take notice; runs inside the turn that settled the task."""
        ...

    def forget_watchers(self) -> None:
        """Take notice that the task will not be settled, since the code is let go."""
        ...


class Task(Generic[R_co]):
    """Something durable that will have a result: ``await`` it, or ``yield`` it in a generator.

    It may be awaited any number of times. Not awaited, it runs all the same.

    A failed task holds no exception, but what makes one, anew each time that it is asked for: one
    that was raised leads by its traceback to the frames that it came through, and from there back
    to the task, and only the garbage collector would ever free them all.
    """

    __slots__ = ("_executor", "_scope", "_state", "_value", "_watchers")

    @property
    def only_notes(self) -> bool:
        """As a watcher of other tasks; most look at once."""
        return False

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        running = executor.running
        self._scope = None if running is None else running.scope  # in which it was begun
        self._state = PENDING
        self._value: Any = None
        self._watchers: list[Watcher] | None = None

    def __await__(self) -> Generator[Any, Any, R_co]:
        if self._state == PENDING:
            if self._executor.closed:
                self._executor.wait_closed()
            yield self
        outcome: R_co = self.outcome()
        return outcome

    __iter__ = __await__  # so that a generator may also say "yield from task"

    @property
    def is_completed(self) -> bool:
        """Whether it has a result, a failure or was cancelled."""
        return self._state != PENDING

    @property
    def is_faulted(self) -> bool:
        """Whether it failed."""
        return self._state == FAILED

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state == CANCELED

    @property
    def result(self) -> R_co:
        """The result.

        Raises:
            UsageError: it is not completed yet.
            FailedError: it failed (a subclass that says what it was).
            Cancelled: it was cancelled.
        """
        if self._state == PENDING:
            raise UsageError("the task is not completed yet: await it first, or ask is_completed")
        outcome: R_co = self.outcome()
        return outcome

    def cancel(self) -> bool:
        """Give the task up: whoever awaits it gets ``Cancelled``.

        Returns:
            False if it was completed already, and so was not cancelled.

        Raises:
            UsageError: it is another orchestration's.
        """
        if self._state != PENDING:
            return False
        self._executor.check_stepped()
        self.withdraw()
        self.settle(CANCELED, None)
        return True

    def let_go(self, scope: CancelScope | None) -> None:
        """Take note that one who waited does not any more, since that scope was cancelled.

        A task that was begun inside of it is cancelled, unless somebody else waits for it, too.

        Args:
            scope: the scope; None for the whole instance.
        """
        if self._state != PENDING or self._watchers:
            return
        here = self._scope
        if scope is not None and self._executor.cancel_requested is None:
            while here is not scope:
                if here is None:
                    return
                here = here.parent
        self.abandon(scope)

    def abandon(self, scope: CancelScope | None) -> None:
        """Be cancelled with that scope."""
        self.cancel()

    def withdraw(self) -> None:
        """Undo outside what the task stands for, where that is possible."""

    def outcome(self) -> Any:
        """Give the result, or raise the failure, of a settled task."""
        if self._state == DONE:
            return self._value
        if self._state == FAILED:
            raise self._value()
        raise Cancelled("the task was cancelled")

    def settle(self, state: int, value: Any) -> None:
        """Fix the outcome, once, and tell whoever watches.

        Args:
            state: how it ended.
            value: its result; of a failure, a function that gives the error, or raises it.
        """
        if self._state != PENDING:
            return
        self._state = state
        self._value = value
        watchers = self._watchers
        if watchers is not None:
            self._watchers = None
            for watcher in watchers:
                watcher.on_settled(self)

    def watch(self, watcher: Watcher) -> None:
        """Tell the watcher when the task is settled (which it is not yet)."""
        if self._watchers is None:
            self._watchers = [watcher]
        else:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Tell the watcher nothing any more."""
        if self._watchers is not None and watcher in self._watchers:
            self._watchers.remove(watcher)

    def forget_watchers(self) -> None:
        """Have nobody wait any more for what will not come, nor those who waited for these."""
        watchers, self._watchers = self._watchers, None
        for watcher in watchers or ():
            watcher.forget_watchers()


class CallTask(Task[R]):
    """A call of an activity, a sub-orchestration or an entity.

    Its result stays encoded until somebody looks at it.
    """

    __slots__ = ("_codec", "entity", "error", "number", "target")

    def __init__(
        self,
        executor: Executor,
        number: int,
        codec: Codec[R],
        error: type[FailedError],
        target: str,
    ) -> None:
        self._executor = executor
        running = executor.running
        self._scope = None if running is None else running.scope
        self._state = PENDING
        self._value = None
        self._watchers = None
        self._codec: Codec[R] | None = codec
        self.error = error
        self.number = number
        self.target = target
        self.entity: str | None = None  # which entity is called, if one is

    def __repr__(self) -> str:
        state = ("to be awaited", "completed", "failed", "cancelled")[self._state]
        return f"<a call, {state}: {self.target}>"

    @property
    def is_seen(self) -> bool:
        """Whether somebody has looked at its outcome."""
        return self._codec is None

    def describe_failure(self) -> FailureDetails:
        """Give the failure of a task that nobody has looked at."""
        return read_failure(self._value)

    @property
    def is_faulted(self) -> bool:
        if self._state == FAILED:
            self._executor.unseen.pop(self.number, None)
        return self._state == FAILED

    def outcome(self) -> Any:
        codec = self._codec
        if self._state == DONE:
            if codec is not None:
                raw = self._value
                # What cannot be read raises here each time, and is never handed out as it is.
                self._value = codec.decode(raw) if type(raw) is bytes else codec.from_json(raw)
                self._codec = None
            return self._value
        if self._state == CANCELED:
            return super().outcome()
        if codec is not None:
            self._executor.unseen.pop(self.number, None)
            self._codec = None
        raise self.error(self.target, read_failure(self._value))

    def withdraw(self) -> None:
        self._executor.withdraw_call(self)


class TimerTask(Task[None]):
    """A durable timer."""

    __slots__ = ("due", "number")

    def __init__(self, executor: Executor, number: int, due: int) -> None:
        super().__init__(executor)
        self.number = number
        self.due = due

    def withdraw(self) -> None:
        self._executor.withdraw_timer(self)


class EventTask(Task[R]):
    """A wait for one external event."""

    __slots__ = ("_codec", "name", "timer")

    def __init__(self, executor: Executor, name: str, codec: Codec[R]) -> None:
        super().__init__(executor)
        self.name = name
        self._codec = codec
        self.timer: TimerTask | None = None

    def accept(self, raw: Any) -> None:
        """Take an event's data, encoded or parsed."""
        if self.timer is not None:
            self.timer.cancel()
        try:
            value = self.decode(raw)
        except PayloadError as error:
            wrong = partial(EventDataError, f"event {self.name!r}", error.path, error.reason)
            self.settle(FAILED, wrong)
        else:
            self.settle(DONE, value)

    def decode(self, raw: Any) -> R:
        """Read an event's data, encoded or parsed.

        Raises:
            PayloadError: they are not of the type waited for.
        """
        codec = self._codec
        return codec.decode(raw) if type(raw) is bytes else codec.from_json(raw)

    def on_settled(self, task: Task[Any]) -> None:
        """The timeout's timer is settled: if it fired, give up waiting."""
        if task.is_cancelled or self.is_completed:
            return
        self._executor.forget_waiter(self)
        self.settle(FAILED, partial(TimeoutError, f"no event {self.name!r} arrived in time"))

    def withdraw(self) -> None:
        self._executor.forget_waiter(self)
        if self.timer is not None:
            self.timer.cancel()


class AllTask(Task[list[R]]):
    """All of some tasks, their results in the order given.

    These are read as they come, some at a time: a hundred thousand at once would hold the loop.

    Args:
        tasks: a list of its own; what has been read leaves it.
    """

    __slots__ = ("_fail_fast", "_missing", "_results", "_tasks", "_unread")

    def __init__(self, executor: Executor, tasks: list[Task[R]], fail_fast: bool) -> None:
        super().__init__(executor)
        self._tasks: list[Any] = tasks
        self._fail_fast = fail_fast
        self._missing = 1
        self._unread: list[Task[R]] = []
        self._results: list[R] = []  # of the first tasks, which are not kept any more
        for task in tasks:
            if task.is_completed:
                self._notice(task)
            else:
                self._missing += 1
                task.watch(self)
        self.on_counted()

    @property
    def only_notes(self) -> bool:
        return self._missing & UNREAD_MAX > 1 or self._state != PENDING

    def on_settled(self, task: Task[Any]) -> None:
        """One of them is settled."""
        if task._state == DONE:
            self._unread.append(task)
            if not self._missing & UNREAD_MAX:
                self._read()
        else:
            self._notice(task)
        self.on_counted()

    def _read(self) -> None:
        """Read the results that have come, and gather those of the first tasks."""
        unread, self._unread = self._unread, []
        known = len(self._results)
        self._gather()
        if len(self._results) - known < len(unread):  # they did not come in order
            with suppress(Exception):  # it raises again when it is gathered
                for task in unread:
                    task.outcome()

    def _gather(self) -> None:
        tasks, results = self._tasks, self._results
        for place in range(len(results), len(tasks)):
            task = tasks[place]
            if task._state != DONE:
                return
            try:
                results.append(task.outcome())
            except Exception:
                return
            tasks[place] = None  # so that it may go

    def _notice(self, task: Task[Any]) -> None:
        if self._fail_fast and task._state != DONE and self._state == PENDING:
            try:
                task.outcome()
            except Exception:
                self.settle(FAILED, task.outcome)
            except Cancelled:
                self.settle(CANCELED, None)

    def on_counted(self) -> None:
        """One fewer is missing; settle when none is."""
        self._missing -= 1
        if self._missing or self._state != PENDING:
            return
        self._read()
        results, failed = self._results, list[Task[R]]()
        for task in self._tasks[len(results) :]:
            try:
                results.append(task.outcome())
            except (Exception, Cancelled):
                failed.append(task)
        if not failed:
            self.settle(DONE, results)
        elif self._fail_fast:
            self.settle(FAILED, partial(_error_of, failed[0]))
        else:
            self.settle(FAILED, partial(_errors_of, failed))

    def settle(self, state: int, value: Any) -> None:
        super().settle(state, value)
        # Those that are not settled go on watching, in vain, and point here.
        self._tasks, self._results, self._unread = [], [], []

    def abandon(self, scope: CancelScope | None) -> None:
        # Of the tasks, those that were begun elsewhere, or that others wait for, go on.
        for task in self._tasks[len(self._results) :]:
            task.unwatch(self)
            task.let_go(scope)
        self.settle(CANCELED, None)

    def withdraw(self) -> None:
        for task in self._tasks[len(self._results) :]:
            task.unwatch(self)
            task.cancel()


def _error_of(task: Task[Any]) -> Exception:
    """Give the error of a task that failed or was cancelled."""
    try:
        task.outcome()
    except Exception as error:
        return error
    except Cancelled:
        pass
    return UsageError("the task was cancelled")


def _errors_of(tasks: list[Task[Any]]) -> ExceptionGroup[Exception]:
    return ExceptionGroup("some of the tasks failed", [_error_of(task) for task in tasks])


class AnyTask(Task[Task[Any]]):
    """The first of some tasks that is settled; the result is that task."""

    __slots__ = ("_cancel_losers", "_tasks")

    def __init__(self, executor: Executor, tasks: Sequence[Task[Any]], cancel_losers: bool) -> None:
        super().__init__(executor)
        self._tasks = tasks
        self._cancel_losers = cancel_losers
        for task in tasks:
            if task.is_completed:
                self.on_settled(task)
                break
        else:
            for task in tasks:
                task.watch(self)

    def on_settled(self, task: Task[Any]) -> None:
        """One of them is settled; if it is the first, it has won."""
        if self._state != PENDING:
            return
        for other in self._tasks:
            if other is not task and other._state == PENDING:
                other.unwatch(self)
        self.settle(DONE, task)
        if self._cancel_losers:
            for other in self._tasks:
                if other is not task:
                    other.cancel()

    def abandon(self, scope: CancelScope | None) -> None:
        # Of the tasks, those that were begun elsewhere, or that others wait for, go on.
        for task in self._tasks:
            task.unwatch(self)
            task.let_go(scope)
        self.settle(CANCELED, None)

    def withdraw(self) -> None:
        for task in self._tasks:
            task.unwatch(self)
            task.cancel()


class RetryTask(Task[R]):
    """Attempts of one call, with durable timers between them.

    Elapsed time is orchestration time and jitter comes from the instance's random numbers, so a
    replay makes the same attempts (Durable Task's Python SDK reads the wall clock here).

    Args:
        policy: when to try again.
        attempt: makes an attempt, of that number.
        limit_us: how long all attempts and the waits between them may take. The attempt that is
            under way then is given up.
        failed: makes the error for a call that ran out of time.
    """

    __slots__ = (
        "_attempt",
        "_attempts",
        "_begun",
        "_current",
        "_deadline",
        "_failed",
        "_last",
        "_limit_us",
        "_policy",
    )

    def __init__(
        self,
        executor: Executor,
        policy: RetryPolicy,
        attempt: Callable[[int], Task[R]],
        limit_us: int | None,
        failed: Callable[[FailureDetails], FailedError],
    ) -> None:
        super().__init__(executor)
        self._policy = policy
        self._attempt = attempt
        self._attempts = 0
        self._begun = executor.now
        self._current: Task[Any] | None = None
        self._deadline: TimerTask | None = None
        self._limit_us = limit_us
        self._failed = failed
        self._last: FailureDetails | None = None
        self._try()
        if limit_us is not None and not executor.lacks_timer():
            self._deadline = executor.create_timer(executor.later(limit_us))
            self._deadline.watch(self)

    def _try(self) -> None:
        self._attempts += 1
        try:
            task = self._attempt(self._attempts)
        except Exception as error:
            if self._attempts == 1:
                raise  # at the call itself
            self.settle(FAILED, partial(type(error), *error.args))
        else:
            self._follow(task)

    def _follow(self, task: Task[Any]) -> None:
        self._current = task
        if task.is_completed:
            self.on_settled(task)
        else:
            task.watch(self)

    def on_settled(self, task: Task[Any]) -> None:
        """An attempt, or the wait before the next one, is over."""
        if self._state != PENDING:
            return
        if task is self._deadline:
            self._run_out()
            return
        if isinstance(task, TimerTask):
            if not task.is_cancelled:
                self._try()
            return
        if task.is_cancelled:
            self.settle(CANCELED, None)
            return
        try:
            result = task.outcome()
        except FailedError as error:
            self._decide(task, error.failure)
        except Exception as error:
            self._decide(task, failure_of(error))
        else:
            self.settle(DONE, result)

    def _decide(self, task: Task[Any], failure: FailureDetails) -> None:
        executor = self._executor
        elapsed = executor.now - self._begun
        try:
            delay = self._policy.next_delay(self._attempts, elapsed, failure, executor.draw)
        except PredicateError as mistake:
            self.settle(FAILED, partial(self._failed, mistake.failure))
            return
        if delay is None or (self._limit_us is not None and elapsed + delay > self._limit_us):
            self.settle(FAILED, task.outcome)
        else:
            self._last = failure
            self._follow(executor.create_timer(executor.later(delay)))

    def _run_out(self) -> None:
        """All the time is used up: give up the attempt under way, or the wait for the next."""
        assert self._limit_us is not None
        self.withdraw()
        text = f"no result within {self._limit_us / 1e6:g} seconds, attempts: {self._attempts}"
        failure = evolve(failure_of(TimeoutError(text)), cause=self._last)
        self.settle(FAILED, partial(self._failed, failure))

    def settle(self, state: int, value: Any) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.unwatch(self)
            deadline.cancel()
        super().settle(state, value)

    def withdraw(self) -> None:
        if self._current is not None:
            self._current.unwatch(self)
            self._current.cancel()


class EntityLock(Task["EntityLock"]):
    """A lock on some entities: ``async with`` it, or ``with (yield lock):`` in a generator."""

    __slots__ = ("calls", "entities", "following", "number", "released")

    def __init__(self, executor: Executor, number: int, entities: list[str]) -> None:
        super().__init__(executor)
        self.number = number
        self.entities = entities
        self.released = False
        # What waits until it is granted again, after a rewind: the code has it already.
        self.calls: list[tuple[str, Operation]] | None = None
        self.following: int | None = None  # its number once the grant of then was given anew

    def ask_again(self, number: int) -> None:
        """Be asked for once more, under a number of its own, since it was given back."""
        self.number = number
        if self.is_completed and self.calls is None:
            self.calls = []

    def settle(self, state: int, value: Any) -> None:
        super().settle(state, value)
        if self.following is not None:
            number, self.following = self.following, None
            self.ask_again(number)
            self._executor.pending[number] = self
            return
        calls, self.calls = self.calls, None
        if calls is not None:
            self._executor.send_calls(calls)

    def outcome(self) -> Any:
        super().outcome()  # raises what stands in the way; the granting message has no content
        return self

    def withdraw(self) -> None:
        self.release()

    def release(self) -> None:
        """Give the entities free; a second time does nothing."""
        if not self.released:
            if not self._executor.closed:
                self._executor.check_stepped()
            self.released = True
            self._executor.release_lock(self)

    async def __aenter__(self) -> EntityLock:
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __enter__(self) -> EntityLock:
        if not self.is_completed:
            raise UsageError(
                "the lock is not granted yet: enter it by async with ctx.lock_entities(...), or in "
                "a generator by with (yield ctx.lock_entities(...))"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
