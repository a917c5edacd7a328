from __future__ import annotations

from perdure.actors.errors import HubStoppingError
from perdure.runtime.partitions.watchers import Watchers
from perdure.storage.slices import at_once
from tests.runtime.told import Told

ENDED = ("Completed", b"6", None)


def test_all_who_wait_for_an_end_are_told_once() -> None:
    watchers, one, other, third = Watchers(), Told(), Told(), Told()
    watchers.add("x", one)
    watchers.add("x", other)
    watchers.add("y", third)

    watchers.tell("x", ENDED)
    watchers.tell("x", ENDED)

    assert (one.told, other.told, third.told) == ([ENDED], [ENDED], [])
    assert "x" not in watchers
    assert "y" in watchers


def test_who_does_not_wait_any_more_is_not_told() -> None:
    watchers, one, other = Watchers(), Told(), Told()
    watchers.add("x", one)
    watchers.add("x", other)

    watchers.remove("x", one)
    watchers.tell("x", ENDED)

    assert (one.told, other.told) == ([], [ENDED])


def test_nothing_is_left_of_an_instance_that_nobody_waits_for() -> None:
    watchers, one = Watchers(), Told()
    watchers.add("x", one)

    watchers.remove("x", one)
    watchers.remove("x", one)

    assert len(watchers) == 0


def test_all_look_again_where_the_end_may_have_been_missed() -> None:
    watchers, told = Watchers(), [Told() for _ in range(200)]
    for n, one in enumerate(told):
        watchers.add(f"i{n % 7}", one)

    at_once(watchers.look_again())

    assert {tuple(one.told) for one in told} == {(None,)}
    assert len(watchers) == 0


def test_who_begins_to_wait_while_the_others_look_again_goes_on_waiting() -> None:
    watchers, told, late = Watchers(), [Told() for _ in range(200)], Told()
    for one in told:
        watchers.add("x", one)
    looking = watchers.look_again()

    next(looking)
    watchers.add("x", late)
    at_once(looking)

    assert late.told == []
    assert "x" in watchers


def test_all_are_told_that_no_end_will_be_told_here() -> None:
    watchers, one = Watchers(), Told()
    watchers.add("x", one)
    stopped = HubStoppingError("the hub has stopped")

    watchers.fail(stopped)

    assert (one.told, one.errors) == ([], [stopped])
    assert len(watchers) == 0
