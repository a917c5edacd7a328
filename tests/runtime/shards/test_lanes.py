from __future__ import annotations

from perdure.actors.messages import ActivityCall, Caller, Completion
from perdure.runtime.shards.lanes import Lane, Parcel


def call(instance: str, task: int, execution: int = 1) -> ActivityCall:
    return ActivityCall(Caller(instance, execution, task), "work", None, None, 1, None, task)


def here(instance_id: str, completion: Completion) -> None:
    pass


def there(instance_id: str, completion: Completion) -> None:
    pass


def let_in(lane: Lane) -> list[tuple[str, int]]:
    """Take all that waits, as (instance, task)."""
    taken: list[tuple[str, int]] = []
    while lane.waiting:
        parcel = lane.waiting[0]
        assert isinstance(parcel, Parcel)
        one = lane.next_call(parcel)
        if one is not None:
            taken.append((one.caller.instance_id, one.caller.task))
    return taken


def test_calls_are_let_in_in_the_order_in_which_they_came() -> None:
    lane = Lane(0)

    lane.keep(call("a", 1), here)
    lane.keep(call("b", 1), there)
    lane.keep(call("a", 2), here)

    assert lane.waiting_count == 3
    assert let_in(lane) == [("a", 1), ("b", 1), ("a", 2)]


def test_a_call_that_was_given_up_is_skipped() -> None:
    lane = Lane(0)
    for task in (1, 2, 3):
        lane.keep(call("a", task), here)

    lane.give_up(Caller("a", 1, 2))

    assert let_in(lane) == [("a", 1), ("a", 3)]


def test_with_task_0_all_of_an_execution_is_skipped() -> None:
    lane = Lane(0)
    lane.keep(call("a", 1), here)
    lane.keep(call("a", 1, execution=2), here)
    lane.keep(call("b", 1), here)

    lane.give_up(Caller("a", 1, 0))

    assert [caller for one in lane.parcels for caller in one.callers()] == [
        Caller("a", 2, 1),
        Caller("b", 1, 1),
    ]
    assert let_in(lane) == [("a", 1), ("b", 1)]


def test_a_call_that_comes_anew_after_it_was_given_up_is_let_in() -> None:
    lane = Lane(0)
    lane.keep(call("a", 1), here)
    lane.give_up(Caller("a", 1, 0))

    lane.keep(call("a", 1), here)

    assert let_in(lane) == [("a", 1)]


def test_giving_up_calls_that_are_not_there_keeps_nothing() -> None:
    lane = Lane(0)
    lane.keep(call("a", 1), here)

    lane.give_up(Caller("b", 1, 1))

    assert [one.given_up for one in lane.parcels] == [set()]


def test_the_calls_of_one_place_are_dropped_and_others_stay() -> None:
    lane = Lane(0)
    lane.keep(call("a", 1), here)
    lane.keep(call("b", 1), there)

    lane.drop(here)

    assert let_in(lane) == [("b", 1)]
