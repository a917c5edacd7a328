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


#: How many calls a parcel has at most, which are looked at together.
PARCEL_MAX = 1_000


class Parcel:
    """Calls that wait, oldest first, whose answers go to the same place.

    Attributes:
        instances: whose calls they are, and perhaps were; None where that is not known.
        given_up: those that are skipped.
        dropped: executions of which all calls are skipped, or those of some tasks.
        has_given_up: whether some are skipped, or were.
        since: when the first of them came, by the performance counter.
    """

    __slots__ = ("calls", "dropped", "given_up", "has_given_up", "instances", "post", "since")

    def __init__(
        self, calls: Iterable[ActivityCall], post: Post, instances: set[str] | None = None
    ) -> None:
        self.calls = deque(calls)
        self.post = post
        self.instances = instances
        self.given_up: set[Caller] = set()
        self.dropped: list[tuple[str, int, Container[int] | None]] = []
        self.has_given_up = False  # which is asked of each call
        self.since = perf_counter()

    def skip(self, caller: Caller) -> None:
        """Have one call be skipped, if it is here."""
        if self.instances is None or caller.instance_id in self.instances:
            self.given_up.add(caller)
            self.has_given_up = True

    def skip_all(self, instance_id: str, execution: int, tasks: Container[int] | None) -> bool:
        """Have an execution's calls be skipped, or those of some tasks; whether any may be here."""
        may_be = self.instances is None or instance_id in self.instances
        if may_be:
            self.dropped.append((instance_id, execution, tasks))
            self.has_given_up = True
        return may_be

    def wants(self, call: ActivityCall) -> bool:
        """Whether a call is not one of those that are skipped."""
        caller = call.caller
        return caller not in self.given_up and not any(_is_of(caller, *one) for one in self.dropped)

    def drop(self) -> None:
        """Be without what was dropped."""
        for one in self.dropped:
            self.calls = deque(call for call in self.calls if not _is_of(call.caller, *one))
        self.dropped.clear()
        self.has_given_up = bool(self.given_up)

    def callers(self) -> Iterator[Caller]:
        """Give whose calls wait."""
        return (call.caller for call in self.calls if self.wants(call))


def _is_of(caller: Caller, instance_id: str, execution: int, tasks: Container[int] | None) -> bool:
    of, number, task = caller
    return of == instance_id and number == execution and (tasks is None or task in tasks)


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
        if (
            isinstance(last, Parcel)
            and last.post == post
            and len(last.calls) < PARCEL_MAX
            and not last.has_given_up
        ):
            last.calls.append(call)
            if last.instances is not None:
                last.instances.add(call.caller.instance_id)
        else:
            self.waiting.append(Parcel([call], post, {call.caller.instance_id}))

    def next_call(self, parcel: Parcel) -> ActivityCall | None:
        """Take the next call out of the first parcel; None if that one was given up."""
        call = parcel.calls.popleft()
        if not parcel.calls:
            self.waiting.popleft()
        return None if parcel.has_given_up and not parcel.wants(call) else call

    def drop_empty(self) -> None:
        """Be without parcels in which nothing waits any more."""
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
