from __future__ import annotations

from perdure.actors.messages import ActivityCall, Caller, Completion
from perdure.runtime.shards.lanes import PARCEL_MAX, Lane, Parcel


def call(instance: str, task: int, execution: int = 1) -> ActivityCall:
    return ActivityCall(Caller(instance, execution, task), "work", None, None, 1, None, task)


def here(instance_id: str, completion: Completion) -> None:
    pass


def there(instance_id: str, completion: Completion) -> None:
    pass


def skip(lane: Lane, caller: Caller) -> None:
    for parcel in lane.parcels:
        parcel.skip(caller)


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

    skip(lane, Caller("a", 1, 2))

    assert let_in(lane) == [("a", 1), ("a", 3)]


def test_all_of_an_execution_is_skipped_and_dropped() -> None:
    lane = Lane(0)
    lane.keep(call("a", 1), here)
    lane.keep(call("a", 1, execution=2), here)
    lane.keep(call("b", 1), here)

    assert [one.skip_all("a", 1, None) for one in lane.parcels] == [True]

    left = [Caller("a", 2, 1), Caller("b", 1, 1)]
    assert [caller for one in lane.parcels for caller in one.callers()] == left
    for parcel in lane.parcels:
        parcel.drop()
    assert lane.waiting_count == 2
    assert [caller for one in lane.parcels for caller in one.callers()] == left
    assert let_in(lane) == [("a", 1), ("b", 1)]


def test_a_call_that_comes_anew_after_it_was_given_up_is_let_in() -> None:
    lane = Lane(0)
    lane.keep(call("a", 1), here)
    for parcel in lane.parcels:
        parcel.skip_all("a", 1, {1})

    lane.keep(call("a", 1), here)

    assert let_in(lane) == [("a", 1)]


def test_giving_up_calls_that_are_not_there_keeps_nothing() -> None:
    lane = Lane(0)
    lane.keep(call("a", 1), here)

    skip(lane, Caller("b", 1, 1))

    assert not any(one.skip_all("b", 1, None) for one in lane.parcels)
    assert not any(one.has_given_up for one in lane.parcels)


def test_no_parcel_has_more_than_can_be_looked_through_at_once() -> None:
    lane = Lane(0)
    for task in range(1, PARCEL_MAX + 2):
        lane.keep(call("a", task), here)

    assert [len(one.calls) for one in lane.parcels] == [PARCEL_MAX, 1]


def test_the_calls_of_one_place_are_dropped_and_others_stay() -> None:
    lane = Lane(0)
    lane.keep(call("a", 1), here)
    lane.keep(call("b", 1), there)

    lane.drop(here)

    assert let_in(lane) == [("b", 1)]
