"""Bells: events for tasks of trio that nobody has to trust.

trio wakes the task that was current when a wait began. Code that drives a coroutine by hand
(``coroutine.send(None)``) begins a wait in the name of the task in which it runs, and leaves it:
an event of trio's wakes that task all the same, in the middle of something else or twice at once,
and whoever sets the event gets the error.
"""

from __future__ import annotations

from collections.abc import Callable

from trio.lowlevel import (
    Abort,
    Task,
    checkpoint,
    current_task,
    reschedule,
    wait_task_rescheduled,
)


class Bell:
    """An event that wakes the tasks which sleep for it, and no others. Setting it never fails."""

    __slots__ = ("_is_set", "_sleepers")

    def __init__(self) -> None:
        self._is_set = False
        self._sleepers: list[tuple[Task, Callable[[object], Abort]]] = []

    def is_set(self) -> bool:
        """Whether it has been set."""
        return self._is_set

    def set(self) -> None:
        """Wake all who wait."""
        self._is_set = True
        for task, abort in self._sleepers:
            # What a task that is suspended sleeps in, in trio's own books.
            if getattr(task, "_abort_func", abort) is abort:
                reschedule(task)

    async def wait(self) -> None:
        """Wait until it is set."""
        if self._is_set:
            await checkpoint()
            return

        def abort(_: object) -> Abort:
            return Abort.SUCCEEDED

        sleeper = current_task(), abort
        self._sleepers.append(sleeper)
        try:
            while not self._is_set:  # others may wake the task for no reason
                await wait_task_rescheduled(abort)
        finally:
            self._sleepers.remove(sleeper)
