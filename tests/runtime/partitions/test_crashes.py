from __future__ import annotations

import signal

import pytest

from perdure.runtime.partitions.crashes import Crashes


def test_an_actor_that_crashed_too_often_in_a_row_must_take_no_turn() -> None:
    crashes = Crashes(2)

    crashes.blame("a", RuntimeError())
    assert crashes.too_many("a") is None
    crashes.blame("a", RuntimeError())

    assert crashes.too_many("a") == "its turn crashed 2 times in a row"
    assert crashes.too_many("b") is None
    crashes.forgive("a")
    assert crashes.too_many("a") is None


def test_an_actor_that_is_barred_must_take_no_turn_until_it_is_forgiven() -> None:
    crashes = Crashes(3)

    crashes.bar("a")
    assert crashes.too_many("a") == "its turn crashed 3 times in a row"
    crashes.forgive("a")

    assert crashes.too_many("a") is None


def test_what_interrupts_a_turn_is_told_and_not_counted() -> None:
    crashes = Crashes(1)
    # What a shell starts in the background begins with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(signal.SIGINT)
        interrupt = caught.value
        crashes.blame("a", interrupt)
    finally:
        signal.signal(signal.SIGINT, before)

    assert crashes.too_many("a") is None
    assert crashes.take_fresh() == {"a": interrupt}


def test_fresh_crashes_are_told_once() -> None:
    crashes, error = Crashes(5), RuntimeError()

    crashes.blame("a", RuntimeError())
    crashes.blame("a", error)

    assert crashes.take_fresh() == {"a": error}
    assert crashes.take_fresh() == {}
    assert crashes.in_a_row == {"a": 2}
