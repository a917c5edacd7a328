"""Async operations of an entity, and those that only read beside them, without a runtime."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.messages import (
    Operation,
)
from perdure.actors.registry.lookup import Lookup
from tests.actors.entities.accounts import KEY, MAX, A, account, app, lock
from tests.actors.entities.lone import Lone, call, kinds, replies, signal
from tests.actors.recording import START, Recorder


def test_while_an_async_operation_is_under_way_the_state_before_it_is_told() -> None:
    lone = account(balance=1)

    assert lone.turn(call("add_slowly", 5)) == []
    assert lone.state["balance"] == 1
    assert replies(lone.resume()) == [6]
    lone.seal()
    assert lone.state["balance"] == 6


def test_a_first_async_operation_makes_no_entity_before_it_has_ended() -> None:
    lone = account()
    lone.turn(signal("add_slowly", 5))
    assert lone.stored is None

    lone.resume()
    lone.seal()
    assert lone.state["balance"] == 5


def test_an_async_operation_that_fails_changes_nothing() -> None:
    lone = account(balance=9)
    lone.turn(call("add_slowly", -3))

    assert kinds(lone.resume()) == ["reply failure"]
    lone.seal()
    assert lone.state["balance"] == 9


def test_an_async_operation_that_cannot_begin_fails() -> None:
    lone = Lone(Lookup(app, 100_000), KEY)
    lone.turn(signal("grow", 5_000))
    lone.actor.handle(call("spoil"), START, Recorder())

    assert kinds(lone.turn_unsealed(call("add_slowly", 1))) == ["reply failure"]


def test_an_async_result_that_is_too_large_fails() -> None:
    assert kinds(account().turn(call("say_slowly", MAX))) == ["reply failure"]


def test_an_async_operation_may_delete() -> None:
    lone = account(balance=1)
    lone.turn(signal("close_slowly"))
    assert lone.state["balance"] == 1

    lone.resume()
    lone.seal()
    assert lone.stored is None


def test_an_async_operation_that_is_broken_off_has_changed_nothing_and_answers() -> None:
    lone = account(balance=1)
    lone.turn(call("add_slowly", 5))

    assert kinds(lone.cancel(KeyboardInterrupt())) == ["reply failure"]
    lone.seal()
    assert lone.state["balance"] == 1


@pytest.mark.parametrize("operation", [call("add_slowly", 5), call("add_slowly", -5)])
def test_of_an_actor_that_is_closed_an_async_operation_decides_nothing(
    operation: Operation,
) -> None:
    lone = account(balance=1)
    lone.turn(operation)
    lone.actor.close()

    assert lone.resume() == []


def test_what_only_reads_may_go_past_an_async_operation_and_sees_what_was_before() -> None:
    lone = account(balance=1)
    assert not lone.actor.may_read(call("peek"))  # nothing is under way

    lone.turn(call("add_slowly", 5))
    assert lone.actor.may_read(call("peek"))
    assert not lone.actor.may_read(call("get"))
    assert not lone.actor.may_read(lock(A))

    effects = Recorder()
    assert lone.actor.read(call("peek", 10), START, effects) is None
    assert replies(effects.effects) == [11]
    assert replies(lone.resume()) == [6]


def test_a_reading_of_what_is_not_there_yet_sees_a_fresh_one() -> None:
    lone = account()
    lone.turn(signal("add_slowly", 5))
    effects = Recorder()
    lone.actor.read(call("peek"), START, effects)
    lone.actor.read(signal("peek"), START, effects)

    assert effects.effects == [("reply", b"0"), ("reply", None)]


def test_a_reading_that_fails_answers_why() -> None:
    lone = account(balance=1)
    lone.turn(call("add_slowly", 5))
    effects = Recorder()
    lone.actor.read(call("peek_badly"), START, effects)

    assert kinds(effects.effects) == ["reply failure"]


def reading(lone: Lone) -> tuple[Any, Recorder]:
    """Begin an async reading."""
    effects = Recorder()
    operation: Any = lone.actor.read(call("peek_slowly"), START, effects)
    operation.send(None)
    return operation, effects


@pytest.mark.parametrize(("balance", "kind"), [(5, "reply"), (99, "reply failure")])
def test_an_async_reading_answers_when_it_has_ended(balance: int, kind: str) -> None:
    operation, effects = reading(account(balance=balance))

    with pytest.raises(StopIteration):
        operation.send(None)
    assert kinds(effects.effects) == [kind]


@pytest.mark.parametrize("balance", [5, 99])
def test_of_an_actor_that_is_closed_an_async_reading_answers_nothing(balance: int) -> None:
    lone = account(balance=balance)
    operation, effects = reading(lone)
    lone.actor.close()

    with pytest.raises(StopIteration):
        operation.send(None)
    assert effects.effects == []


def test_only_an_operation_is_answered_where_an_async_one_was_broken_off() -> None:
    lone = account()
    lone.actor.fail(lock(A), ValueError(), START, lone.recorder)

    assert lone.recorder.effects == []
