"""Tasks made of others: all of them, the first of them, and the attempts of one call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from attrs import evolve

from ..errors import Cancelled, FailedError, FailureDetails
from ..failures import failure_of
from ..retry import PredicateError
from .tasks import AT_ONCE, CANCELED, DONE, FAILED, PENDING, CallTask, Task, TimerTask

if TYPE_CHECKING:
    from ..retry import RetryPolicy
    from .executor import Executor
    from .scopes import CancelScope
    from .tasks import Watcher

R = TypeVar("R")

#: How many results may wait to be read: a power of two, less one.
UNREAD_MAX = 255


class TaskOfMany(Task[R]):
    """A task made of others, which may be very many.

    Where they are given up that is done bit by bit, unless somebody could see in which order: what
    is seen must not depend on how many there are.
    """

    __slots__ = ("_is_shared",)

    def __init__(self, executor: Executor) -> None:
        super().__init__(executor)
        self._is_shared = False  # whether others watch one of them, or what that is made of

    @abstractmethod
    def on_settled(self, task: Task[Any]) -> None:
        """One of them is settled."""

    @abstractmethod
    def left(self) -> Sequence[Task[Any]]:
        """Give those that may not be settled."""

    @abstractmethod
    def let_go_parts(self, every: int) -> Generator[None]:
        """Let go of the tasks; pauses behind each so many. Nobody asks for them any more."""

    def open_tasks(self) -> Iterator[Task[Any]]:
        """Give those that are not settled."""
        return (task for task in self.left() if not task.is_completed)

    def abandon(self, scope: CancelScope | None) -> None:
        # Of the tasks, those that were begun elsewhere, or that others wait for, go on.
        tasks = self.left()
        self.settle(CANCELED, None)
        self._executor.put_off(self._leave(tasks, lambda task: task.let_go(scope)), len(tasks))

    def withdraw(self) -> None:
        self.give_up(self.left())

    def give_up(self, tasks: Sequence[Task[Any]]) -> None:
        """Cancel those of them that are not settled, and wait for none any more."""
        steps = self._leave(tasks, Task[Any].cancel)
        self._executor.put_off(steps, 0 if self._is_shared else len(tasks))

    def _leave(
        self, tasks: Sequence[Task[Any]], do: Callable[[Task[Any]], object]
    ) -> Generator[None]:
        for place, task in enumerate(tasks, 1):
            task.unwatch(self)
            do(task)
            if not place % AT_ONCE:
                yield

    def watch(self, watcher: Watcher) -> None:
        super().watch(watcher)
        watcher.on_shared()

    def on_shared(self) -> None:
        self._is_shared = True


class AllTask(TaskOfMany[list[R]]):
    """All of some tasks, their results in the order given.

    How these ended is read as they do, some at a time: a hundred thousand at once would hold the
    loop.

    Args:
        tasks: a list of its own; what has been read leaves it.
    """

    __slots__ = (
        "_ahead",
        "_errors",
        "_fail_fast",
        "_failed",
        "_missing",
        "_place",
        "_results",
        "_tasks",
        "_unread",
    )

    def __init__(self, executor: Executor, tasks: list[Task[R]], fail_fast: bool) -> None:
        super().__init__(executor)
        self._tasks: list[Any] = tasks
        self._fail_fast = fail_fast
        self._missing = 1
        self._unread: list[Task[R]] = []
        # Of the first tasks, up to that place, all of which are settled.
        self._place = 0
        self._results: list[R] = []
        self._failed: list[Task[R]] = []
        self._errors: list[Exception] = []
        self._ahead: dict[Task[R], Exception] = {}  # the errors of some that come behind these
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
        self._notice(task)
        if self._state == PENDING:
            self._unread.append(task)
            if not self._missing & UNREAD_MAX:
                self._read()
        self.on_counted()

    @property
    def missing(self) -> int:
        """How many of them are not settled."""
        return self._missing

    def left(self) -> Sequence[Task[Any]]:
        return self._tasks[self._place :]

    def _read(self) -> None:
        """Read how those ended that have come, and gather that of the first tasks."""
        unread, self._unread = self._unread, []
        place, count = self._place, len(self._failed)
        self._gather()
        if self._place - place < len(unread):  # they did not come in order
            gathered = {*self._failed[count:]}
            for task in unread:
                if task._state != DONE:
                    if task not in gathered:
                        self._ahead[task] = task.make_error()
                    continue
                with suppress(Exception):  # it raises again when it is gathered
                    task.outcome()

    def _gather(self) -> None:
        tasks, results = self._tasks, self._results
        for place in range(self._place, len(tasks)):
            task = tasks[place]
            if task._state == DONE:
                try:
                    results.append(task.outcome())
                except Exception:
                    self._fail(task)
            elif task._state == PENDING:
                break
            else:
                self._fail(task)
            tasks[place] = None  # so that it may go
            self._place = place + 1

    def _fail(self, task: Task[R]) -> None:
        error = self._ahead.pop(task, None)
        self._failed.append(task)
        self._errors.append(task.make_error() if error is None else error)

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
        failed = self._failed
        if not failed:
            self.settle(DONE, self._results)
        elif self._fail_fast:
            self.settle(FAILED, failed[0].make_error)
        else:
            self._executor.put_off(_see(failed), len(failed))
            self.settle(FAILED, _Errors(failed, self._errors))

    def settle(self, state: int, value: Any) -> None:
        super().settle(state, value)
        # Those that are not settled go on watching, in vain, and point here.
        self._tasks, self._results, self._unread = [], [], []
        self._failed, self._errors, self._ahead = [], [], {}

    def let_go_parts(self, every: int) -> Generator[None]:
        return let_go_of(self._tasks, every)


def let_go_of(items: list[Any], every: int) -> Generator[None]:
    """Empty a list from its end; pauses behind each so many."""
    while items:
        del items[-every:]
        yield


def _see(failed: Sequence[Task[Any]]) -> Generator[None]:
    for place, task in enumerate(failed, 1):
        task.see()
        if not place % UNREAD_MAX:
            yield


class _Errors:
    """Gives the errors of tasks that failed: those that were read as they did; later others.

    One that was raised leads to whoever raised it, and from there perhaps back to the task.
    """

    __slots__ = ("_errors", "_tasks")

    def __init__(self, tasks: Sequence[Task[Any]], errors: list[Exception]) -> None:
        self._tasks = tasks
        self._errors: list[Exception] | None = errors

    def __call__(self) -> ExceptionGroup[Exception]:
        errors, self._errors = self._errors, None
        if errors is None:
            errors = [task.make_error() for task in self._tasks]
        return ExceptionGroup("some of the tasks failed", errors)


class AnyTask(TaskOfMany[Task[Any]]):
    """The first of some tasks that is settled; the result is that task."""

    __slots__ = ("_cancel_losers", "_tasks")

    def __init__(self, executor: Executor, tasks: Sequence[Task[Any]], cancel_losers: bool) -> None:
        super().__init__(executor)
        self._tasks: Sequence[Task[Any]] = tasks
        self._cancel_losers = cancel_losers
        for task in tasks:
            if task.is_completed:
                self.on_settled(task)
                break
        else:
            for task in tasks:
                task.watch(self)

    @property
    def count(self) -> int:
        """How many tasks there are; while it waits none of them is settled."""
        return len(self._tasks)

    def left(self) -> Sequence[Task[Any]]:
        return self._tasks

    def on_settled(self, task: Task[Any]) -> None:
        """One of them is settled; if it is the first, it has won."""
        if self._state != PENDING:
            return
        self.settle(DONE, task)
        if self._cancel_losers:
            self.give_up(self._tasks)
        else:
            self._executor.put_off(self._leave(self._tasks, _let_be), len(self._tasks))

    def let_go_parts(self, every: int) -> Generator[None]:
        tasks, self._tasks = [*self._tasks], []
        return let_go_of(tasks, every)


def _let_be(task: Task[Any]) -> None:
    """Let a task be, where it is not waited for any more."""


class Called(NamedTuple):
    """What a task has called: the number of the task, the error of its failing, and what it is."""

    number: int
    error: type[FailedError]
    target: str


class Retrying(NamedTuple):
    """How far a call has come that is tried again where it fails.

    Attributes:
        attempts: how many attempts were begun.
        attempts_max: how many there may be.
        failed: the last attempt that failed, if one has.
        failure: why that failed.
        due: when the next attempt begins, where that is waited for.
        limit: when the call is given up as a whole, if that is limited.
    """

    attempts: int
    attempts_max: int
    failed: Called | None
    failure: FailureDetails | None
    due: int | None
    limit: int | None


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
        "_last_call",
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
        self._last_call: Called | None = None
        self._try()
        if limit_us is not None and not executor.lacks_timer():
            self._deadline = executor.create_timer(executor.later(limit_us))
            self._deadline.watch(self)

    @property
    def current(self) -> Task[Any] | None:
        """The attempt that is under way, or the wait for the next one."""
        return self._current

    @property
    def progress(self) -> Retrying:
        """How far it has come."""
        current, deadline = self._current, self._deadline
        return Retrying(
            self._attempts,
            self._policy.max_attempts,
            self._last_call,
            self._last,
            current.due if isinstance(current, TimerTask) else None,
            None if deadline is None else deadline.due,
        )

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
            if isinstance(task, CallTask):
                self._last_call = Called(task.number, task.error, task.target)
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
