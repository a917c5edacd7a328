"""Entities that are parked, damaged or purged, without a runtime."""

from __future__ import annotations

import orjson
import pytest

from perdure import UsageError
from perdure.actors.changes import EntityState
from perdure.actors.effects import FEED, RELOAD
from perdure.actors.failures import read_failure
from perdure.actors.messages import (
    Backlog,
    Command,
    Folded,
    LockRelease,
    LockRequest,
    Operation,
)
from tests.actors.entities.accounts import LOOKUP, A, B, account, answers, called_by, lock, unlock
from tests.actors.entities.lone import CLIENT, Lone, call, kinds, replies, signal
from tests.actors.recording import START, Recorder


def parked() -> Lone:
    lone = account(balance=1)
    lone.turn(Command("park", "its row is damaged"))
    return lone


def test_a_parked_entity_refuses_clients_calls_and_holds_the_rest() -> None:
    lone = parked()

    assert lone.turn(call("get")) == [("refuse", "ParkedError")]
    assert lone.turn(signal("add", 1), called_by(A, "add", 2)) == []
    assert len(lone.actor.held or ()) == 2


def test_a_lock_that_is_released_goes_to_who_waits_for_it_though_the_entity_is_parked() -> None:
    lone = account()
    lone.turn(lock(A))
    lone.turn(signal("add", 1), lock(B))
    lone.turn(Command("park", "damaged"))
    effects = lone.turn(unlock(A))

    assert answers(effects) == [("b", "EntityLockGranted", None)]
    assert [type(one) for one in lone.held] == [Operation]


def test_it_tells_why_it_is_parked_and_one_that_is_loaded_stays_so() -> None:
    lone = parked()
    again = lone.restored()

    assert (again.actor.parked_type, again.actor.parked) == (
        "StoreDamagedError",
        "its row is damaged",
    )
    assert again.actor.seal(START) == lone.stored


def test_a_retry_has_it_loaded_anew_and_takes_what_was_held() -> None:
    lone = parked()
    lone.turn(signal("add", 5))
    retry = Command("retry")
    retry.reply = CLIENT
    assert lone.actor.handle(Command("retry"), START, lone.recorder) is RELOAD

    assert replies(lone.turn(retry)) == [None, None]
    assert lone.state["balance"] == 6
    assert lone.stored is not None
    assert lone.stored.parked is None


def test_a_purge_deletes_all_but_the_lock_and_answers_what_was_held() -> None:
    lone = account(balance=1)
    lone.turn(signal("add", -9))
    lone.turn(lock(A))
    lone.turn(call("add", 1), called_by(B, "add", 2), lock(B))
    backlog = Backlog(5, 9, 5, set())
    lone.actor.hold(backlog)
    purge = Command("purge")
    purge.reply = CLIENT
    effects = Recorder()
    lone.actor.handle(purge, START, effects)

    assert kinds(effects.effects) == ["refuse", "consume", "send", "consume", "reply"]
    ((_, event, body),) = answers(effects.effects)
    assert event == "EntityOperationFailed"
    assert "was purged" in read_failure(orjson.dumps(body)).message
    assert backlog.refusal is not None
    assert [type(one) for one in lone.actor.held or ()] == [LockRequest, Backlog]
    told = lone.actor.seal(START)
    assert told is not None
    assert (told.state, told.failures) == (None, None)
    assert orjson.loads(told.lock or b"")[0] == "a"


def test_a_purged_command_is_answered_and_a_lock_goes_on() -> None:
    lone = account()
    effects = Recorder()

    assert lone.actor.give_up(Command("fold"), "gone", effects)
    assert not lone.actor.give_up(lock(A), "gone", effects)
    assert not lone.actor.give_up(unlock(A), "gone", effects)
    assert kinds(effects.effects) == ["reply"]


def test_a_backlog_is_to_be_fed() -> None:
    assert account().actor.handle(Backlog(1, 1, 1, set()), START, Recorder()) is FEED


def test_a_fold_of_what_has_no_stripes_is_answered_at_once() -> None:
    fold = Command("fold")
    fold.reply = CLIENT

    assert replies(account().turn(fold)) == [None]


def test_what_its_class_cannot_read_is_kept_as_it_is_until_it_is_purged() -> None:
    lone = account(balance=1)
    lone.turn(signal("add", -5))
    lone.turn(lock(A))
    assert lone.stored is not None
    lone.stored = spoilt = lone.stored._replace(state=b'{"balance":"x"}')
    again = lone.restored()

    assert again.actor.parked_type == "PayloadError"
    told = again.seal()
    assert told is not None
    assert told._replace(parked=None) == spoilt
    assert again.turn(call("get")) == [("refuse", "ParkedError")]

    again.turn(unlock(A), Command("purge"))
    assert again.stored is None


def test_an_entity_whose_row_is_damaged_stays_parked_without_saying_so() -> None:
    lone = account()
    lone.actor.stay_parked("StoreDamagedError", "its row is damaged")

    assert not lone.actor.changed
    assert lone.turn(call("get")) == [("refuse", "ParkedError")]
    lone.actor.handle(Command("purge"), START, Recorder())
    told = lone.actor.seal(START)
    assert told is not None
    assert told.is_empty


def test_an_entity_whose_row_is_damaged_gives_its_lock_to_nobody_and_tells_nothing() -> None:
    lone = account()
    lone.actor.stay_parked("StoreDamagedError", "its row is damaged")

    assert lone.turn_unsealed(lock(A), unlock(B), Command("park", "a message is damaged")) == [
        ("reply", None)
    ]
    lone.turn_unsealed(lock(B))

    assert [type(one) for one in lone.held] == [LockRequest, LockRelease, LockRequest]
    assert lone.actor.lock is None
    assert lone.actor.seal(START) is None
    assert lone.actor.parked == "its row is damaged"


def test_purged_an_entity_whose_row_was_damaged_is_locked_by_who_waits() -> None:
    lone = account()
    lone.actor.stay_parked("StoreDamagedError", "its row is damaged")
    lone.turn_unsealed(lock(A))

    effects = lone.turn(Command("purge"))

    assert answers(effects) == [("a", "EntityLockGranted", None)]
    assert lone.stored is not None
    assert lone.stored.lock is not None


@pytest.mark.parametrize(
    ("key", "lock", "failures", "words"),
    [
        ("@account@x\x1f1", None, None, "this stripe still has something of its state"),
        ("@account@x", None, b"[0,[],[1,[0],false,[]]]", "its stripes were being asked"),
        ("@visits@x", b'["a",1,1]', None, "locked by a since before it"),
    ],
)
def test_what_it_cannot_be_any_more_says_what_to_do(
    key: str, lock: bytes | None, failures: bytes | None, words: str
) -> None:
    stored = EntityState(1, "account", "x", START, None, lock, failures, None)

    with pytest.raises(UsageError, match=words):
        Lone(LOOKUP, key).actor.load(stored)


def test_what_a_stripe_sends_to_one_that_is_not_striped_any_more_parks_it() -> None:
    lone = account()
    lone.turn(Folded(0, 0, b'{"total":1}'), Folded(1, 0, b'{"total":2}'))

    assert "one of its stripes has sent its state" in (lone.actor.parked or "")
    assert len(lone.actor.held or ()) == 2
