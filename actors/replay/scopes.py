"""Structured concurrency inside an orchestration: fibers, cancel scopes, task groups.

A fiber is one strand of an orchestration's code: its root, or a branch that a task group
started. Fibers run one at a time, in the order in which they became ready, so a replay runs
them in the same order. Cancellation is thrown once at the await of each fiber concerned, as
asyncio does, so that ``finally`` blocks may await durable work.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVarTuple

from ..classes import class_of, has
from ..errors import Cancelled, PerdureError, UsageError
from ..printing import text_of, type_name
from ..registry.definitions import name_of
from .tasks import AT_ONCE, DONE, Task, TimerTask

if TYPE_CHECKING:
    from types import TracebackType

    from .executor import Executor

Inputs = TypeVarTuple("Inputs")


class ReplayStopped(BaseException):
    """Thrown through the user's code where it no longer matches its history, or is let go."""


def _branch(function: Any, args: tuple[Any, ...]) -> Any:
    taken = f"function must be an async function of {len(args)} arguments, to be a branch"
    try:
        coroutine = function(*args)
    except PerdureError:
        raise
    except Exception as error:
        reason = f"calling {name_of(function)} raised {type_name(error)}: {text_of(error, 300)}"
        raise UsageError(f"{taken}; {reason}") from error
    if not has(class_of(coroutine), "send"):
        raise UsageError(f"{taken}; {name_of(function)} is none")
    return coroutine


class Fiber:
    """One strand of an orchestration's code.

    Attributes:
        number: greater than those of the strands that began before it, where many are there.
    """

    __slots__ = (
        "coroutine",
        "executor",
        "generator",
        "group",
        "number",
        "only_notes",
        "owed",
        "scope",
        "waiting",
    )

    def __init__(
        self,
        executor: Executor,
        coroutine: Any,
        generator: bool,
        group: TaskGroup | None = None,
        scope: CancelScope | None = None,
    ) -> None:
        self.executor = executor
        self.coroutine = coroutine
        self.generator = generator
        self.group = group
        self.scope = scope
        self.number = 0
        self.waiting: Task[Any] | None = None
        self.owed: Cancelled | None = None  # to be thrown at the next await
        self.only_notes = True  # as a watcher: it goes on in a step of its own

    def on_settled(self, task: Task[Any]) -> None:
        """What it waited for is there."""
        self.executor.ready.append((self, None))

    def forget_watchers(self) -> None:
        """What it waits for will not come."""
        self.waiting = None

    def on_shared(self) -> None:
        """What it waits for is not its own."""

    def interrupt(self, error: Cancelled) -> None:
        """Throw the error where the fiber waits, or where it next will.

        Inside a shield that waits until the shield's end.
        """
        shield = self._shield_inside(error.scope)
        self._overtake(self.scope if shield is None else shield.parent, error.scope)
        if shield is not None:
            shield.postpone(error)
            return
        task = self.waiting
        if task is None or task.is_completed:
            # Running, not begun, or about to be given a result: that comes first.
            self.owed = error
            return
        task.unwatch(self)
        self.waiting = None
        self.executor.ready.append((self, error))
        task.let_go(error.scope)

    def _shield_inside(self, scope: CancelScope | None) -> CancelScope | None:
        """Give the widest shield that the fiber is in, of those inside of the scope."""
        shield: CancelScope | None = None
        here = self.scope
        while here is not None and here is not scope:
            if here.shields:
                shield = here
            here = here.parent
        return shield

    def _overtake(self, here: CancelScope | None, scope: CancelScope | None) -> None:
        """Mark the scopes inside of the wider one that is cancelled.

        A cancelled instance is told through its root alone, so that the scopes of groups still
        have their branches to cancel.
        """
        while here is not None and here is not scope:
            if scope is not None or here.has_deadline:
                here.overtaken = True
            here = here.parent

    def is_inside(self, scope: CancelScope) -> bool:
        """Whether the scope is one that the fiber is in."""
        here = self.scope
        while here is not None:
            if here is scope:
                return True
            here = here.parent
        return False


class CancelScope:
    """A part of an orchestration that can be cancelled as a whole, by a deadline or by hand.

    Attributes:
        cancel_called: whether it was cancelled.
        cancelled_caught: whether, at its end, that had stopped what was inside.
    """

    __slots__ = (
        "_delay",
        "_executor",
        "_fails",
        "_fiber",
        "_timer",
        "cancel_called",
        "cancelled_caught",
        "only_notes",
        "overtaken",
        "parent",
        "postponed",
        "shields",
    )

    def __init__(
        self, executor: Executor, delay: int | None, fails: bool, shields: bool = False
    ) -> None:
        self._executor = executor
        self._delay = delay
        self._fails = fails
        self._fiber: Fiber | None = None
        self._timer: TimerTask | None = None
        self.shields = shields
        self.only_notes = False  # as a watcher: a deadline decides things
        self.postponed: Cancelled | None = None  # a wider cancellation, until the shield's end
        self.overtaken = False  # what is inside was thrown a wider scope's cancellation
        self.parent: CancelScope | None = None
        self.cancel_called = False
        self.cancelled_caught = False

    def cancel(self) -> None:
        """Throw ``Cancelled`` at the awaits of everything inside."""
        self.cancel_from(None)

    def cancel_from(self, runs: Fiber | None) -> None:
        """Cancel it by code of that strand, which runs and is inside, and which waits right behind.

        It hears of it at that wait, whether what is done to the others is put off or not.
        """
        if self.cancel_called:
            return
        self._executor.check_stepped()
        self.cancel_called = True
        if self.overtaken:
            return  # thrown once: a second one would break off the clean-up
        if runs is not None:
            runs.interrupt(self._cancelled())
        fibers = self._executor.fibers
        self._executor.put_off(self._interrupt(fibers, runs), len(fibers))

    def _interrupt(self, fibers: list[Fiber], heard: Fiber | None) -> Generator[None]:
        for place, fiber in enumerate(fibers, 1):
            if fiber is not heard and fiber.is_inside(self):
                fiber.interrupt(self._cancelled())
            if not place % AT_ONCE:
                yield

    def _cancelled(self) -> Cancelled:
        return Cancelled("its cancel scope was cancelled", scope=self)

    @property
    def has_deadline(self) -> bool:
        """Whether time may cancel it."""
        return self._delay is not None

    @property
    def due(self) -> int | None:
        """When time cancels it, if that is under way."""
        return None if self._timer is None else self._timer.due

    @property
    def fiber(self) -> Fiber | None:
        """The strand that entered it."""
        return self._fiber

    def postpone(self, error: Cancelled) -> None:
        """Keep a cancellation of what is around until the end of this shield."""
        # One of a narrower scope than the last does not come: that scope was overtaken.
        self.postponed = error

    def on_settled(self, task: Task[Any]) -> None:
        """The deadline's timer is settled: if it fired, cancel."""
        if not task.is_cancelled:
            self.cancel()

    def forget_watchers(self) -> None:
        """The deadline will not come."""

    def on_shared(self) -> None:
        """Nobody else has the deadline's timer."""

    def __enter__(self) -> CancelScope:
        if self._fiber is not None:
            raise UsageError("a cancel scope can be entered only once")
        self._executor.check_stepped()
        self._fiber = fiber = self._executor.running_fiber()
        self.parent = fiber.scope
        fiber.scope = self
        if self._delay is not None:
            self._timer = self._executor.create_timer(self._executor.later(self._delay))
            self._timer.watch(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        fiber = self._fiber
        assert fiber is not None
        fiber.scope = self.parent
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # which was begun in the scope around, or in this one
        if fiber.owed is not None and fiber.owed.scope is self:
            fiber.owed = None
        if self.postponed is not None:
            postponed, self.postponed = self.postponed, None
            fiber.interrupt(postponed)
        if type(error) is Cancelled and error.scope is self:
            self.cancelled_caught = True
            if self._fails:
                raise TimeoutError("the scope's time is up") from None
            return True
        return False


class Shield:
    """A part of an orchestration that a cancellation from outside does not cut."""

    __slots__ = ("_scope",)

    def __init__(self, executor: Executor) -> None:
        self._scope = CancelScope(executor, None, fails=False, shields=True)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scope.__exit__(kind, error, trace)


class GroupEnd(Task[None]):
    """What stands for the end of a group's branches."""

    __slots__ = ("group",)

    def __init__(self, executor: Executor, group: TaskGroup) -> None:
        super().__init__(executor)
        self.group = group


class TaskGroup:
    """Branches of an orchestration that end before the ``async with`` block does.

    If one raises, the others and the block are cancelled, and the block raises an
    ``ExceptionGroup``.
    """

    __slots__ = ("_children", "_errors", "_executor", "_idle", "_open", "cancel_scope")

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._open = False
        self._children = 0
        self._errors: list[BaseException] = []
        self._idle: GroupEnd | None = None
        self.cancel_scope = CancelScope(executor, None, fails=False)

    @property
    def count(self) -> int:
        """How many of its branches have not ended."""
        return self._children

    def start_soon(
        self,
        function: Callable[[*Inputs], Coroutine[Any, Any, Any] | Generator[Any, Any, Any]],
        *args: *Inputs,
    ) -> None:
        """Begin a branch, ``await function(*args)``; it first runs when this one next waits.

        Raises:
            UsageError: the group has ended or was not entered, it is no async function, or a
                million branches have begun while no time went by.
        """
        if not self._open:
            raise UsageError(
                "this task group is not open: call start_soon inside of its async with block, or "
                "in a branch of it"
            )
        self._executor.check_stepped()
        number = self._executor.new_branch()
        coroutine = _branch(function, args)
        fiber = Fiber(
            self._executor, coroutine, not hasattr(coroutine, "cr_await"), self, self.cancel_scope
        )
        fiber.number = number
        if self.cancel_scope.cancel_called:
            fiber.owed = Cancelled("its cancel scope was cancelled", scope=self.cancel_scope)
        self._children += 1
        self._executor.begin_branch(fiber)

    def on_ended(self, error: BaseException | None) -> None:
        """A branch has ended."""
        self._children -= 1
        if error is not None and not self._is_expected(error):
            self._errors.append(error)
            self.cancel_scope.cancel()
        if not self._children and self._idle is not None:
            self._idle.settle(DONE, None)

    def _is_expected(self, error: BaseException) -> bool:
        """Whether a branch ended so because it was to, rather than by a task that was given up."""
        return type(error) is Cancelled and (
            error.scope is not None or self._executor.cancel_requested is not None
        )

    def _cancel(self) -> None:
        # Where it waits for its branches right behind this, none of the code goes on before.
        self._executor.is_between = self._children > 0
        self.cancel_scope.cancel_from(self._executor.running_fiber())
        self._executor.is_between = False

    async def __aenter__(self) -> TaskGroup:
        self.cancel_scope.__enter__()
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        outer = error if type(error) is Cancelled else None
        if error is not None:
            if issubclass(type(error), (GeneratorExit, ReplayStopped)):
                return False  # the code is let go, and its branches with it
            if outer is None:
                self._errors.append(error)
            self._cancel()
        try:
            while self._children:
                self._idle = GroupEnd(self._executor, self)
                try:
                    await self._idle
                except Cancelled as cancelled:
                    if outer is None or outer.scope is self.cancel_scope:
                        outer = cancelled
                    self._cancel()
            self._open = False
            self.cancel_scope.__exit__(None, None, None)
            errors, self._errors = self._errors, []
            if errors:
                raise BaseExceptionGroup("branches of the orchestration failed", errors)
            if outer is not None and outer.scope is not self.cancel_scope:
                if outer is error:
                    return False
                raise outer
            return True
        finally:
            outer = self._idle = None  # which lead here, the one by its traceback
