"""Who gets in while an entity is locked, without a runtime."""

from __future__ import annotations

import orjson

from perdure.actors.effects import HELD
from perdure.actors.messages import (
    Backlog,
    Caller,
    LockRequest,
)
from tests.actors.entities.accounts import LOOKUP, A, B, account, answers, called_by, lock, unlock
from tests.actors.entities.lone import Lone, call, kinds, replies, sent
from tests.actors.recording import START


def test_a_lock_is_granted_by_the_last_entity_and_goes_on_from_the_others() -> None:
    assert answers(account().turn(lock(A))) == [("a", "EntityLockGranted", None)]

    ((target, fields),) = sent(account().turn(lock(A, "@account@z")))
    assert (target, fields[0], fields[3]) == ("@account@z", "lock", 1)


def test_while_it_is_locked_only_its_holder_and_what_only_reads_get_in() -> None:
    lone = account(balance=1)
    lone.turn(lock(A))

    assert lone.turn(call("add", 5), called_by(B, "add", 6)) == []
    assert lone.turn(called_by(Caller("a", 2, 1), "add", 7)) == []  # another execution
    assert replies(lone.turn(call("peek"))) == [1]
    assert answers(lone.turn(called_by(Caller("a", 1, 9), "add", 2))) == [
        ("a", "EntityOperationCompleted", 3)
    ]
    assert lone.actor.is_blocked
    assert len(lone.actor.held or ()) == 3


def test_with_the_lock_released_what_waited_goes_in_its_order() -> None:
    lone = account()
    lone.turn(lock(A))
    lone.turn(call("add", 1), lock(B))
    lone.turn(call("add", 2))
    effects = lone.turn(unlock(A))

    assert replies(effects) == [None, 1]  # the release itself is answered, too
    assert answers(effects) == [("b", "EntityLockGranted", None)]
    assert replies(lone.turn(unlock(B))) == [None, 3]


def test_it_tells_who_has_the_lock_and_who_waits_for_it() -> None:
    lone = account()
    lone.turn(lock(A))
    assert lone.stored is not None
    assert orjson.loads(lone.stored.lock or b"") == ["a", 1, 1]

    lone.turn(lock(B), call("add", 1), lock(Caller("c", 1, 1)))
    assert lone.stored is not None
    assert orjson.loads(lone.stored.lock or b"") == ["a", 1, 1, ["b", "c"], 2]


def test_of_waiters_behind_a_backlog_only_the_number_is_told() -> None:
    lone = account()
    lone.turn(lock(A), lock(B))
    backlog = Backlog(5, 9, 5, set())
    backlog.locks = 3
    lone.actor.hold(backlog)
    lone.actor.hold(lock(Caller("c", 1, 1)))
    lone.seal()

    assert lone.stored is not None
    assert orjson.loads(lone.stored.lock or b"") == ["a", 1, 1, ["b"], 5]


def test_a_release_travels_on_behind_the_request() -> None:
    lone = account()
    lone.turn(lock(A))

    ((target, fields),) = sent(lone.turn(unlock(A, "@account@z", position=0)))
    assert (target, fields[0], fields[3]) == ("@account@z", "unlock", 1)
    assert lone.stored is None


def test_a_release_of_a_lock_that_is_still_asked_for_takes_the_request_back() -> None:
    lone = account()
    lone.turn(lock(A))
    lone.turn(lock(B))
    effects = lone.turn(unlock(B))

    assert kinds(effects) == ["consume", "reply"]
    assert not lone.actor.held
    assert lone.stored is not None
    assert orjson.loads(lone.stored.lock or b"") == ["a", 1, 1]


def test_a_release_by_one_who_has_no_lock_changes_nothing() -> None:
    lone = account(balance=1)

    assert kinds(lone.turn(unlock(A))) == ["reply"]
    assert not lone.actor.changed


def test_a_release_waits_behind_a_backlog_that_may_hold_the_request() -> None:
    lone = account()
    lone.turn(lock(A))
    lone.actor.hold(Backlog(5, 9, 5, set()))

    assert lone.actor.handle(unlock(B), START, lone.recorder) is HELD


def test_a_lock_asked_for_by_code_from_before_it_was_striped_parks_it() -> None:
    lone = Lone(LOOKUP, "@visits@x")
    lone.turn(LockRequest(A, ["@visits@x"], 0))

    assert lone.actor.parked_type == "LockRuleError"
    assert lone.actor.parked == "a locks it, but it is striped"
