from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from perdure.actors.codec import codec_for
from perdure.actors.replay.external_events import ExternalEvents
from perdure.actors.replay.tasks import EventTask

NO_CODE: Any = SimpleNamespace(running=None)  # an executor of which no code runs


def wait_for(name: str) -> EventTask[int]:
    return EventTask(NO_CODE, name, codec_for(int))


def test_the_oldest_event_goes_to_the_oldest_wait_of_its_name() -> None:
    events = ExternalEvents()
    first, second, other = wait_for("go"), wait_for("go"), wait_for("stop")
    assert [events.wait(task) for task in (first, second, other)] == [True, True, True]

    events.give("go", b"1")
    events.give("go", b"2")

    assert (first.result, second.result, other.is_completed) == (1, 2, False)
    assert events.waits == {"stop": [other]}


def test_an_event_that_nobody_waits_for_is_kept_for_who_does_later() -> None:
    events, later = ExternalEvents(), wait_for("go")
    events.give("go", b"1")
    events.give("go", 2)  # as a replay has it, parsed

    assert not events.wait(later)

    assert later.result == 1
    assert ([*events.untaken()], events.untaken_count) == ([("go", b"2")], 1)


def test_what_nobody_took_is_given_in_the_order_in_which_it_came() -> None:
    events = ExternalEvents()
    for name, data in (("b", b"1"), ("a", b"2"), ("b", b"3")):
        events.give(name, data)

    assert [*events.untaken()] == [("b", b"1"), ("a", b"2"), ("b", b"3")]
    assert events.untaken_count == 3


def test_a_wait_that_is_forgotten_leaves_the_event_to_the_next() -> None:
    events, first, second = ExternalEvents(), wait_for("go"), wait_for("go")
    events.wait(first)
    events.wait(second)

    events.forget(first)
    events.forget(wait_for("go"))  # one that does not wait here
    events.give("go", b"1")

    assert (first.is_completed, second.result) == (False, 1)


def test_waits_that_are_let_go_watch_nobody_and_get_nothing() -> None:
    events, task = ExternalEvents(), wait_for("go")
    events.wait(task)

    assert list(events.let_go(64)) == []
    events.give("go", b"1")

    assert (events.waits, task.is_completed, events.untaken_count) == ({}, False, 1)


def test_many_events_are_let_go_of_bit_by_bit() -> None:
    events = ExternalEvents()
    for number in range(10):
        events.give("a" if number % 5 else "b", b"%d" % number)

    left = [events.untaken_count for _ in events.let_go(3)]

    assert left == [8, 5, 2, 0]
