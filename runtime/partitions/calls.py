"""Calls: the activities that run for a partition, on this event loop and where it was before."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from ...actors.messages import ActivityCall, Caller, Completion

Post = Callable[[str, Completion], None]


class Run(NamedTuple):
    """Where an attempt of an activity is.

    Attributes:
        shard: the shard where it waits, or runs.
        is_running: whether its code has begun.
        started: when that was, if it is known.
    """

    shard: int
    is_running: bool
    started: int | None


class Activities(Protocol):
    """Runs activities; the answers of those of one partition go to its ``post_answer``."""

    @property
    def shard(self) -> int:
        """The number of the shard whose they are."""
        ...

    def started_at(self, caller: Caller, /) -> int | None:
        """When the code of an activity began that runs here; None where it has not."""
        ...

    @property
    def waiting(self) -> int:
        """How many calls wait until they may run."""
        ...

    def submit(self, call: ActivityCall, post: Post, /) -> None:
        """Run an activity; its answer goes to ``post``, with the caller's instance id."""
        ...

    def submit_all(self, calls: list[ActivityCall], post: Post, /) -> None:
        """Run activities; their answers go to ``post``, with the callers' instance ids."""
        ...

    def cancel(self, caller: Caller, /) -> None:
        """Tell one activity of an execution, or all of them for task 0, to stop."""
        ...

    def cancel_some(self, instance_id: str, execution: int, tasks: Collection[int], /) -> None:
        """Tell some activities of an execution to stop, by the numbers of their tasks."""
        ...

    def stop_all(self, post: Post | None = None, /) -> None:
        """Tell the activities (those that answer to ``post``, if given) to stop."""
        ...

    def callers(self, post: Post, /) -> set[Caller]:
        """Give who waits for the answers that go to ``post``."""
        ...


class Calls:
    """The calls of activities that one partition has under way; all of them are durable.

    Attributes:
        abroad: whose activities run on other shards, where the partition was before, by shard.
        cancel_abroad: tells one of those to stop.
    """

    def __init__(self, activities: Activities, post: Post) -> None:
        self._activities = activities
        self._post = post  # one for all that run
        self.abroad: dict[int, set[Caller]] = {}
        self.cancel_abroad: Callable[[int, Caller], None] = lambda shard, caller: None

    @property
    def waiting(self) -> int:
        """How many calls wait to run on this event loop, those of other partitions among them."""
        return self._activities.waiting

    def start(self, calls: list[ActivityCall]) -> None:
        """Run activities that are durable now."""
        self._activities.submit_all(calls, self._post)

    def dispatch(self, call: ActivityCall) -> None:
        """Run an activity (again) that is durable already."""
        self._activities.submit(call, self._post)

    def cancel(self, caller: Caller) -> None:
        """Tell one activity of an instance, or all of them for task 0, to stop."""
        self._activities.cancel(caller)
        for shard in self.abroad:
            self.cancel_abroad(shard, caller)

    def cancel_some(self, instance_id: str, execution: int, tasks: Collection[int]) -> None:
        """Tell some activities of an execution to stop, by the numbers of their tasks."""
        self._activities.cancel_some(instance_id, execution, tasks)
        here = {*tasks} if self.abroad else ()
        for shard, callers in self.abroad.items():
            for caller in [*callers]:  # fewer than may be given up, as they run
                if caller[:2] == (instance_id, execution) and caller.task in here:
                    self.cancel_abroad(shard, caller)

    def answered(self, caller: Caller) -> None:
        """Take note of an answer."""
        for callers in self.abroad.values():
            callers.discard(caller)

    @property
    def shard(self) -> int:
        """The shard that the partition is on."""
        return self._activities.shard

    def find(self, caller: Caller) -> Run:
        """Say where an activity is that has not answered."""
        for shard, callers in self.abroad.items():
            if caller in callers:
                return Run(shard, True, None)
        started = self._activities.started_at(caller)
        return Run(self.shard, started is not None, started)

    def callers(self) -> set[Caller]:
        """Give whose activities run here."""
        return self._activities.callers(self._post)

    def stop_all(self) -> None:
        """Tell the activities that run here to stop."""
        self._activities.stop_all(self._post)
