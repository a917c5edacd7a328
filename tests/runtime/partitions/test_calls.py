from __future__ import annotations

from collections.abc import Collection

from perdure.actors.messages import ActivityCall, Caller, Completion
from perdure.runtime.partitions.calls import Calls, Post, Run

HERE, THERE = Caller("i", 1, 1), Caller("i", 1, 2)


class Pool:
    """Activities that are only noted."""

    def __init__(self) -> None:
        self.waiting = 7
        self.did: list[tuple[object, ...]] = []

    def submit(self, call: ActivityCall, post: Post, /) -> None:
        self.did.append(("submit", call, post))

    def submit_all(self, calls: list[ActivityCall], post: Post, /) -> None:
        self.did.append(("submit all", calls, post))

    def cancel(self, caller: Caller, /) -> None:
        self.did.append(("cancel", caller))

    def cancel_some(self, instance_id: str, execution: int, tasks: Collection[int], /) -> None:
        self.did.append(("cancel some", instance_id, execution, tasks))

    def stop_all(self, post: Post | None = None, /) -> None:
        self.did.append(("stop all", post))

    def callers(self, post: Post, /) -> set[Caller]:
        return {HERE}

    shard = 2

    def started_at(self, caller: Caller, /) -> int | None:
        return 5 if caller == HERE else None


def post(instance_id: str, completion: Completion) -> None: ...


def call_of(caller: Caller) -> ActivityCall:
    return ActivityCall(caller, "work", None, None, 1, None, caller.task)


def test_all_that_runs_answers_to_one_door() -> None:
    pool = Pool()
    calls, one = Calls(pool, post), call_of(HERE)

    calls.start([one])
    calls.dispatch(one)
    calls.stop_all()

    assert pool.did == [("submit all", [one], post), ("submit", one, post), ("stop all", post)]
    assert (calls.callers(), calls.waiting) == ({HERE}, 7)


def test_what_is_cancelled_is_told_here_and_where_the_partition_was() -> None:
    pool, told = Pool(), list[tuple[int, Caller]]()
    calls = Calls(pool, post)
    calls.abroad = {3: {THERE}}
    calls.cancel_abroad = lambda shard, caller: told.append((shard, caller))

    calls.cancel(THERE)

    assert (pool.did, told) == ([("cancel", THERE)], [(3, THERE)])


def test_of_many_that_are_cancelled_those_are_told_elsewhere_that_run_there() -> None:
    pool, told = Pool(), list[tuple[int, Caller]]()
    calls = Calls(pool, post)
    calls.abroad = {3: {THERE, Caller("i", 2, 1), Caller("other", 1, 2)}, 4: set()}
    calls.cancel_abroad = lambda shard, caller: told.append((shard, caller))

    calls.cancel_some("i", 1, [1, 2])

    assert pool.did == [("cancel some", "i", 1, [1, 2])]
    assert told == [(3, THERE)]


def test_where_an_activity_runs_is_known_here_and_where_the_partition_was() -> None:
    calls = Calls(Pool(), post)
    waits = calls.find(THERE)
    calls.abroad = {3: {THERE}}

    assert calls.find(HERE) == Run(2, True, 5)
    assert waits == Run(2, False, None)
    assert calls.find(THERE) == Run(3, True, None)


def test_what_was_answered_from_abroad_is_under_way_no_more() -> None:
    calls = Calls(Pool(), post)
    calls.abroad = {3: {HERE, THERE}, 4: {THERE}}

    calls.answered(THERE)

    assert calls.abroad == {3: {HERE}, 4: set()}
