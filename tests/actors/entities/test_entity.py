"""The entity: what operations make of it, and what it tells, without a runtime."""

from __future__ import annotations

import orjson
import pytest

import perdure
from perdure import EntityId, UsageError
from perdure.actors.failures import read_failure
from perdure.actors.messages import (
    Caller,
    Event,
)
from perdure.actors.registry.lookup import Lookup
from tests.actors.entities.accounts import (
    KEY,
    LOOKUP,
    MAX,
    Account,
    account,
    answers,
    app,
    called_by,
    contexts,
)
from tests.actors.entities.lone import CLIENT, Lone, call, kinds, replies, signal
from tests.actors.recording import START, Recorder


def test_an_operation_answers_and_tells_what_it_made_of_the_state() -> None:
    lone = account()

    assert replies(lone.turn(call("add", 5))) == [5]
    assert lone.state == {"balance": 5, "log": ["5"]}


def test_what_was_never_there_tells_nothing() -> None:
    lone = account()
    lone.turn(call("nonsense"))

    assert lone.actor.seal(START) is None


def test_each_seal_tells_all_of_it_with_the_time_that_it_is_given() -> None:
    lone = account(balance=1)
    again = lone.actor.seal(START + 5)

    assert lone.stored is not None
    assert again == lone.stored._replace(updated=START + 5)
    assert not lone.actor.changed


def test_a_failing_call_changes_nothing_and_answers_why() -> None:
    lone = account(balance=1)
    before = lone.stored

    (effect,) = lone.turn(call("add", -2))
    assert effect[0] == "reply failure"
    assert (effect[1].error_type, effect[1].message) == ("ValueError", "below zero")
    assert lone.stored == before


def test_a_first_call_that_fails_makes_no_entity() -> None:
    lone = account()
    lone.turn(call("add", -2))

    assert lone.stored is None


def test_a_failing_signal_is_acknowledged_counted_and_listed_and_only_the_last_ten_are() -> None:
    lone = account()
    for number in range(12):
        effects = lone.turn(signal("add", -number - 1), now=START + number)
        assert kinds(effects) == ["failed operation", "reply"]

    assert lone.stored is not None
    count, failures = orjson.loads(lone.stored.failures or b"")
    assert count == 12
    assert [failure[0] - START for failure in failures] == [*range(2, 12)]
    assert failures[0][1:] == ["add", "ValueError", "below zero"]
    assert lone.state is None


def test_an_operation_that_is_none_fails() -> None:
    ((_, failure),) = account().turn(call("nonsense"))

    assert "nonsense" in failure.message


def test_an_orchestration_is_answered_with_the_result_or_the_failure() -> None:
    lone = account()
    caller = Caller("flow-1", 2, 7)

    assert answers(lone.turn(called_by(caller, "add", 3))) == [
        ("flow-1", "EntityOperationCompleted", 3)
    ]
    ((target, event, body),) = answers(lone.turn(called_by(caller, "add", -9)))
    assert (target, event) == ("flow-1", "EntityOperationFailed")
    assert read_failure(orjson.dumps(body)).message == "below zero"


def test_what_an_operation_sends_goes_out_when_it_has_succeeded() -> None:
    first, later, start, reply = account().turn(signal("tell", False))

    assert first[:2] == ("send", "@account@other")
    assert orjson.loads(first[2])[:3] == ["operation", "add", [5]]
    assert later[:3] == ("send later", START + 1_000_000, "@account@other")
    assert start[:2] == ("send", "made up")
    assert orjson.loads(start[2])[:2] == ["start", "flow"]
    assert reply == ("reply", None)


def test_what_a_failing_operation_sends_stays() -> None:
    assert kinds(account().turn(signal("tell", True))) == ["failed operation", "reply"]


def test_a_context_is_of_no_use_when_its_operation_has_ended() -> None:
    account().turn(signal("tell", False))

    with pytest.raises(UsageError, match="after that operation had ended"):
        contexts[-1].delete()
    with pytest.raises(UsageError, match="after that operation had ended"):
        contexts[-1].signal_entity(EntityId(Account, "other"), Account.get)


def test_a_deleted_entity_tells_that_it_is_no_more_and_then_nothing() -> None:
    lone = account(balance=5)
    lone.now = START
    lone.actor.handle(signal("close"), START, Recorder())
    told = lone.actor.seal(START)

    assert told is not None
    assert told.is_empty
    assert (told.id, told.key) == (1, "x")
    assert lone.actor.seal(START) is None


def test_a_deleted_entity_begins_anew() -> None:
    lone = account(balance=5)
    lone.turn(signal("close"))

    assert replies(lone.turn(call("add", 1))) == [1]


def test_what_a_readonly_operation_changes_is_not_kept() -> None:
    lone = account(balance=5)

    assert replies(lone.turn(call("peek", 3))) == [8]
    assert replies(lone.turn(call("get"))) == [5]


def test_a_state_that_cannot_be_stored_fails_its_operation_alone() -> None:
    lone = account(balance=5)

    assert kinds(lone.turn(call("spoil"))) == ["reply failure"]
    assert kinds(lone.turn(call("grow", MAX))) == ["reply failure"]
    assert lone.state["balance"] == 5


def test_a_result_that_is_too_large_fails_its_operation() -> None:
    ((kind, failure),) = account().turn(call("say", MAX))

    assert kind == "reply failure"
    assert "result" in failure.message


def test_a_large_state_is_checked_at_the_seal_and_in_each_operation_after_a_crash() -> None:
    wide = Lookup(app, 100_000)
    for careful in (False, True):
        lone = Lone(wide, KEY, careful=careful)
        lone.turn(signal("grow", 5_000))
        effects = Recorder()
        lone.actor.handle(call("spoil"), START, effects)
        if careful:
            assert kinds(effects.effects) == ["reply failure"]
        else:
            assert replies(effects.effects) == [None]
            with pytest.raises(perdure.PayloadError, match=r"\$\.balance"):
                lone.actor.seal(START)
            assert lone.actor.changed


def test_what_is_no_business_of_an_entity_is_refused() -> None:
    event = Event("e", b"1")
    event.reply = CLIENT

    assert account().turn(event) == [("refuse", "UsageError")]


def test_a_function_keeps_what_it_sets_and_answers_what_it_says() -> None:
    lone = Lone(LOOKUP, "@loose@x")

    assert replies(lone.turn(call("count", 2), call("count", 3))) == [2, 5]
    assert lone.state == {"n": 5}
    assert lone.actor.key == "@loose@x"


def test_a_function_that_raises_has_set_nothing() -> None:
    lone = Lone(LOOKUP, "@loose@x")
    lone.turn(call("count", 2))

    assert kinds(lone.turn(call("fail"))) == ["reply failure"]
    assert kinds(lone.turn(call("bad"))) == ["reply failure"]
    assert replies(lone.turn(call("count"))) == [2]


def test_a_function_that_sets_none_is_deleted() -> None:
    lone = Lone(LOOKUP, "@loose@x")
    lone.turn(signal("set", [1]))
    assert lone.state == [1]

    lone.turn(signal("set"))
    assert lone.stored is None


def test_an_async_function_answers_what_it_says_when_it_has_ended() -> None:
    lone = Lone(LOOKUP, "@waiting@x")
    lone.turn(signal("set", 1))
    lone.resume()
    lone.seal()
    assert lone.state == 1

    assert lone.turn(call("set", 2)) == []
    assert lone.state == 1
    assert replies(lone.resume()) == ["done"]
