"""The external events of one execution: those that nobody took yet, and who waits for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from heapq import merge
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from .tasks import EventTask


_ORDER = itemgetter(0)


class ExternalEvents:
    """Gives events to the waits for them, the oldest to the oldest.

    Invariant: of one name there are events or waits, and never both.

    Attributes:
        waits: by name, oldest first.
    """

    __slots__ = ("_arrivals", "_kept", "waits")

    def __init__(self) -> None:
        self.waits: dict[str, list[EventTask[Any]]] = {}
        self._kept: dict[str, deque[tuple[int, Any]]] | None = None  # with the order they came in
        self._arrivals = 0

    def give(self, name: str, raw: Any) -> None:
        """Give an event, encoded or parsed, to the oldest wait for its name, or keep it."""
        waits = self.waits.get(name)
        if waits:
            task = waits.pop(0)
            if not waits:
                del self.waits[name]
            task.accept(raw)
            return
        if self._kept is None:
            self._kept = {}
        self._arrivals += 1
        self._kept.setdefault(name, deque()).append((self._arrivals, raw))

    def wait(self, task: EventTask[Any]) -> bool:
        """Give the oldest event of its name to a task; where there is none, it waits."""
        kept = None if self._kept is None else self._kept.get(task.name)
        if not kept:
            self.waits.setdefault(task.name, []).append(task)
            return True
        _, raw = kept.popleft()
        if not kept and self._kept is not None:
            del self._kept[task.name]
        task.accept(raw)
        return False

    def forget(self, task: EventTask[Any]) -> None:
        """Let a later event go to the next wait."""
        waits = self.waits.get(task.name)
        if waits and task in waits:
            waits.remove(task)
            if not waits:
                del self.waits[task.name]

    def untaken(self) -> Iterator[tuple[str, bytes]]:
        """Give the events that nobody has taken by now, in the order in which they came."""
        queues = [_named(name, queue.copy()) for name, queue in (self._kept or {}).items()]
        return (
            (name, raw if isinstance(raw, bytes) else orjson.dumps(raw))
            for _, name, raw in merge(*queues, key=_ORDER)
        )

    def untaken_names(self) -> list[str]:
        """Give the names of the events that nobody took."""
        return [name for name, queue in (self._kept or {}).items() for _ in queue]

    @property
    def untaken_count(self) -> int:
        """How many events nobody took."""
        return 0 if not self._kept else sum(map(len, self._kept.values()))

    def let_go(self, every: int) -> Generator[None]:
        """Let go of all waits, which lead to what leads here, and of events; pauses now and then."""
        for waits in self.waits.values():
            for task in waits:
                task.forget_watchers()
        self.waits.clear()
        for queue in (self._kept or {}).values():
            while queue:
                for _ in range(min(every, len(queue))):
                    queue.popleft()
                yield


def _named(name: str, queue: deque[tuple[int, Any]]) -> Iterator[tuple[int, str, Any]]:
    while queue:  # let go of one by one: many take long
        order, raw = queue.popleft()
        yield order, name, raw
