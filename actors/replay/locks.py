"""The lock on some entities, as an orchestration holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .tasks import CallTask, Task

if TYPE_CHECKING:
    from types import TracebackType

    from ..messages import Operation
    from .executor import Executor

#: What is added to a lock's number each time that a rewind asks for it anew.
LOCK_AGAIN = 1 << 32


class EntityLock(Task["EntityLock"]):
    """A lock on some entities: ``async with`` it, or ``with (yield lock):`` in a generator."""

    __slots__ = (
        "_called",
        "_called_before",
        "_members",
        "calls",
        "entities",
        "following",
        "number",
        "released",
    )

    def __init__(self, executor: Executor, number: int, entities: list[str]) -> None:
        super().__init__(executor)
        self.number = number
        self.entities = entities
        self.released = False
        # What waits until it is granted again, after a rewind: the code has it already.
        self.calls: list[tuple[str, Operation]] | None = None
        self.following: int | None = None  # its number once the grant of then was given anew
        self._members = frozenset(entities)
        self._called: dict[str, int] = {}  # the number of the last call of each inside
        self._called_before: set[str | None] | None = None  # with calls open at the first of these

    def covers(self, entity: str) -> bool:
        """Whether that is one of the entities."""
        return entity in self._members

    def note_call(self, entity: str, number: int) -> bool:
        """Take note of a call inside; False where one to that entity is under way."""
        pending = self._executor.pending
        if self._called_before is None:
            calls = (task for task in pending.values() if isinstance(task, CallTask))
            self._called_before = {task.entity for task in calls}
        if self._called.get(entity) in pending or (
            entity in self._called_before
            and any(isinstance(one, CallTask) and one.entity == entity for one in pending.values())
        ):
            return False
        self._called[entity] = number
        return True

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
