"""Lanes: activities that share a limit, and those of them that wait in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from ...actors.messages import Completion

if TYPE_CHECKING:
    from ...actors.messages import ActivityCall, Caller

Post = Callable[[str, Completion], None]


class Parcel:
    """Calls that wait, oldest first, whose answers go to the same place.

    Attributes:
        instances: whose calls they are, and perhaps were.
        given_up: those that are skipped.
        since: when the first of them came, by the performance counter.
    """

    __slots__ = ("calls", "given_up", "instances", "post", "since")

    def __init__(self, calls: Iterable[ActivityCall], post: Post) -> None:
        self.calls = deque(calls)
        self.post = post
        self.instances: set[str] | None = None
        self.given_up: set[Caller] = set()
        self.since = perf_counter()

    def give_up(self, caller: Caller) -> None:
        """Skip a call, or drop all of an execution for task 0, if they are here."""
        if self.instances is None:
            self.instances = {call.caller.instance_id for call in self.calls}
        if caller.instance_id not in self.instances:
            return
        if caller.task:
            self.given_up.add(caller)
        else:
            self.calls = deque(one for one in self.calls if one.caller[:2] != caller[:2])

    def drop_some(self, instance_id: str, execution: int, tasks: Container[int]) -> None:
        """Drop those of an execution's calls that are here, by the numbers of their tasks."""
        if self.instances is None or instance_id in self.instances:
            own = instance_id, execution
            self.calls = deque(
                one for one in self.calls if one.caller[2] not in tasks or one.caller[:2] != own
            )

    def callers(self) -> Iterator[Caller]:
        """Give whose calls wait."""
        return (call.caller for call in self.calls if call.caller not in self.given_up)


class Lane:
    """How many may be let in at a time, how many are, and what waits for that, in order.

    Attributes:
        waiting: parcels of calls, and whatever else is let in by another way.
    """

    __slots__ = ("count", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.waiting: deque[object] = deque()

    @property
    def parcels(self) -> list[Parcel]:
        """The parcels among what waits."""
        return [one for one in self.waiting if isinstance(one, Parcel)]

    @property
    def waiting_count(self) -> int:
        """How many wait."""
        parcels = self.parcels
        return len(self.waiting) - len(parcels) + sum(len(one.calls) for one in parcels)

    def keep(self, call: ActivityCall, post: Post) -> None:
        """Have a call wait, behind all others."""
        last = self.waiting[-1] if self.waiting else None
        # What was given up was so before this call came, which may be the same one anew.
        if isinstance(last, Parcel) and last.post == post and not last.given_up:
            last.calls.append(call)
            if last.instances is not None:
                last.instances.add(call.caller.instance_id)
        else:
            self.waiting.append(Parcel([call], post))

    def next_call(self, parcel: Parcel) -> ActivityCall | None:
        """Take the next call out of the first parcel; None if that one was given up."""
        call = parcel.calls.popleft()
        if not parcel.calls:
            self.waiting.popleft()
        return None if parcel.given_up and call.caller in parcel.given_up else call

    def give_up(self, caller: Caller) -> None:
        """Skip a call that waits, or drop all of an execution for task 0."""
        for parcel in self.parcels:
            parcel.give_up(caller)
        if not caller.task:
            self._drop_empty()

    def drop_some(self, instance_id: str, execution: int, tasks: Container[int]) -> None:
        """Drop those of an execution's calls that wait, by the numbers of their tasks."""
        for parcel in self.parcels:
            parcel.drop_some(instance_id, execution, tasks)
        self._drop_empty()

    def _drop_empty(self) -> None:
        self.waiting = deque(
            one for one in self.waiting if not isinstance(one, Parcel) or one.calls
        )

    def drop(self, post: Post | None) -> None:
        """Drop the calls whose answers go to ``post``, or all."""
        if self.waiting:
            self.waiting = deque(
                one
                for one in self.waiting
                if not (isinstance(one, Parcel) and post in (None, one.post))
            )

    def clear(self) -> None:
        """Let nobody wait any more."""
        self.waiting.clear()
