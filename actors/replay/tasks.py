"""The tasks an orchestration awaits: one class for each way of settling.

A task is settled by its executor, from a history event, and never by a clock or a thread. What
watches a task (a fiber, or a task made of others) is told in the order in which it began to
watch, so ties are decided by history and nothing else.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..errors import (
    Cancelled,
    EventDataError,
    FailedError,
    FailureDetails,
    PayloadError,
    UsageError,
)
from ..failures import read_failure

if TYPE_CHECKING:
    from ..codec import Codec
    from .executor import Executor
    from .scopes import CancelScope

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

PENDING, DONE, FAILED, CANCELED = range(4)

#: How many tasks, or strands of code, are cancelled or let go of in one step.
AT_ONCE = 64


class Watcher(Protocol):
    """Whoever wants to know when a task is settled."""

    @property
    def only_notes(self) -> bool:
        """Whether it would take notice of a result, and neither look at it nor decide anything."""
        ...

    def on_settled(self, task: Task[Any]) -> None:
        """Take notice; runs inside the turn that settled the task."""
        ...

    def forget_watchers(self) -> object:
        """Take notice that the task will not be settled, since the code is let go."""
        ...

    def on_shared(self) -> None:
        """Take notice that others see what becomes of the task, and in which order."""
        ...


class Task(Generic[R_co]):
    """Something durable that will have a result: ``await`` it, or ``yield`` it in a generator.

    It may be awaited any number of times. Not awaited, it runs all the same.

    A failed task holds no exception, but what makes one, anew each time that it is asked for: one
    that was raised leads by its traceback to the frames that it came through, and from there back
    to the task, and only the garbage collector would ever free them all.
    """

    __slots__ = ("_executor", "_scope", "_state", "_value", "_watchers")

    #: What the summary says where this is all that is waited for, if that is known beforehand.
    waits: bytes | None = None

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

    def make_error(self) -> Exception:
        """Give the error of a task that has no result, or none that can be read."""
        try:
            self.outcome()
        except Exception as error:
            return error
        except Cancelled:
            pass
        return UsageError("the task was cancelled")

    def see(self) -> None:
        """Take note that somebody knows how it ended."""

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
            for one in self._watchers:
                one.on_shared()

    def on_shared(self) -> None:
        """As a watcher of other tasks."""

    def unwatch(self, watcher: Watcher) -> None:
        """Tell the watcher nothing any more."""
        if self._watchers is not None and watcher in self._watchers:
            self._watchers.remove(watcher)

    def forget_watchers(self) -> Task[Any] | None:
        """Have nobody wait any more for what will not come, nor those who waited for these.

        Returns:
            A task that waited for this one, if one did.
        """
        watchers, self._watchers = self._watchers, None
        found: Task[Any] | None = None
        for watcher in watchers or ():
            watcher.forget_watchers()
            if isinstance(watcher, Task):
                found = watcher
        return found


class CallTask(Task[R]):
    """A call of an activity, a sub-orchestration or an entity.

    Its result stays encoded until somebody looks at it.
    """

    __slots__ = ("_codec", "entity", "error", "number", "target", "waits")

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
        self.waits: bytes | None = None  # as the summary says it, of a first attempt

    def __repr__(self) -> str:
        state = ("to be awaited", "completed", "failed", "cancelled")[self._state]
        return f"<a call, {state}: {self.target}>"

    @property
    def is_seen(self) -> bool:
        """Whether somebody has looked at its outcome."""
        return self._codec is None

    def complete(self, raw: Any) -> None:
        """Settle it with a result; whoever does so tells the one that watches."""
        self._state = DONE
        self._value = raw
        self._watchers = None

    def describe_failure(self) -> FailureDetails:
        """Give the failure of a task that nobody has looked at."""
        return read_failure(self._value)

    @property
    def is_faulted(self) -> bool:
        self.see()
        return self._state == FAILED

    def outcome(self) -> Any:
        codec = self._codec
        if self._state == DONE:
            if codec is not None:
                raw = self._value
                # What cannot be read raises here each time, and is never handed out as it is.
                read = codec.decode if type(raw) is bytes else codec.from_json
                self._value = read(raw)
                self._codec = None
            return self._value
        self.see()
        if self._state == CANCELED:
            return super().outcome()
        raise self.make_error()

    def make_error(self) -> Exception:
        if self._state == FAILED:  # it may be asked for before anybody sees it
            return self.error(self.target, read_failure(self._value))
        return super().make_error()

    def see(self) -> None:
        if self._state == FAILED:
            self._executor.unseen.pop(self.number, None)
            self._codec = None

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
    """A wait for one external event.

    Attributes:
        name: the event's name, in one case, since it is that of others as well.
        title: the name as it was written.
        since: when it was asked for.
    """

    __slots__ = ("_codec", "name", "since", "timer", "title")

    def __init__(self, executor: Executor, name: str, codec: Codec[R], title: str = "") -> None:
        super().__init__(executor)
        self.name = name
        self.title = title or name
        self._codec = codec
        self.since = 0
        self.timer: TimerTask | None = None

    def accept(self, raw: Any) -> None:
        """Take an event's data, encoded or parsed."""
        if self.timer is not None:
            self.timer.cancel()
        try:
            value = self.decode(raw)
        except PayloadError as error:
            wrong = partial(EventDataError, f"event {self.title!r}", error.path, error.reason)
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
        self._executor.forget_wait(self)
        self.settle(FAILED, partial(TimeoutError, f"no event {self.title!r} arrived in time"))

    def withdraw(self) -> None:
        self._executor.forget_wait(self)
        if self.timer is not None:
            self.timer.cancel()
