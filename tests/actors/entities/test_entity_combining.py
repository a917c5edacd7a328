"""Signals that run as one, without a runtime."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.messages import (
    Operation,
)
from tests.actors.entities.accounts import LOOKUP, A, account, lock
from tests.actors.entities.lone import Lone, call, kinds, signal
from tests.actors.recording import START, Recorder


def test_signals_of_one_operation_that_wait_run_as_one_and_each_is_acknowledged() -> None:
    lone = account()
    effects = lone.turn(signal("add", 1), signal("add", 2), signal("add", 3))

    assert kinds(effects) == ["reply", "consume"] * 3
    assert lone.state == {"balance": 6, "log": ["6"]}


def test_where_combining_fails_each_runs_alone() -> None:
    lone = account()
    lone.turn(signal("add", 1), signal("add", 13), signal("add", 3))

    assert lone.state == {"balance": 17, "log": ["1", "13", "3"]}


def test_signals_that_nobody_waits_for_are_only_consumed() -> None:
    lone = account()

    assert kinds(lone.turn(Operation("add", b"1"), Operation("add", b"2"))) == ["consume"] * 2


def test_a_combined_operation_sends_once() -> None:
    effects = account().turn(signal("tell", False), signal("tell", False))

    assert kinds(effects) == ["send", "send later", "send", "reply", "consume", "reply", "consume"]


def carried(variables: dict[str, Any] | None) -> Operation:
    message = signal("add", 1)
    message.carried = variables
    return message


def requested() -> Operation:
    message = signal("add", 1)
    message.request = "r-1"
    return message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (call("add", 1), signal("add", 2)),
        (requested(), signal("add", 2)),
        (signal("add", 1), call("add", 2)),
        (signal("add", 1), requested()),
        (signal("add", 1), signal("tell", False)),
        (signal("grow", 1), signal("grow", 2)),
        (carried(None), carried({"a": 1})),
        (lock(A), signal("add", 1)),
    ],
)
def test_only_plain_signals_of_one_operation_are_combined(first: Any, second: Any) -> None:
    lone = account()

    assert lone.actor.combine([first, second], 0, START, lone.recorder) == 0


def test_nothing_is_combined_while_the_entity_is_locked() -> None:
    lone = account()
    lone.turn(lock(A))

    assert lone.actor.combine([signal("add"), signal("add")], 0, START, lone.recorder) == 0


def test_combined_signals_take_their_context_variables_along() -> None:
    lone = account()
    effects = lone.turn(carried({"a": 1}), carried({"a": 1}))

    assert kinds(effects) == ["reply", "consume"] * 2
    assert lone.state["balance"] == 2


def test_a_stripe_combines_what_is_commutative_and_a_home_leaves_the_rest_alone() -> None:
    stripe = Lone(LOOKUP, "@visits@x\x1f1")
    effects = stripe.turn(signal("add", 1), signal("add", 2))
    assert kinds(effects) == ["arm timer", *["reply", "consume"] * 2]
    assert stripe.state == {"total": 3}

    home = Lone(LOOKUP, "@visits@x")
    assert home.actor.combine([signal("put", 1), signal("put", 2)], 0, START, Recorder()) == 0
    home.turn(signal("add", 1), signal("add", 2))
    assert home.state == {"total": 3}
