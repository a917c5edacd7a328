"""A home and its stripes one by one, without a runtime."""

from __future__ import annotations

import orjson

from perdure.actors.effects import HELD
from perdure.actors.messages import (
    Command,
    Fold,
    Folded,
    Start,
    TimerDue,
)
from tests.actors.entities.accounts import LOOKUP, A, account, called_by, refusals
from tests.actors.entities.lone import CLIENT, Lone, call, replies, sent, signal
from tests.actors.recording import START, Recorder


def test_a_parked_stripe_holds_its_timer_and_answers_with_its_trouble() -> None:
    stripe = Lone(LOOKUP, "@visits@x\x1f1")
    stripe.turn(signal("add", 4))
    stripe.turn(Command("park", "damaged"))
    assert stripe.actor.handle(TimerDue(0, 1), START, Recorder()) is HELD

    ((target, fields),) = sent(stripe.turn(Fold(3, purge=False)))
    assert target == "@visits@x"
    assert fields[:3] == ["folded", 1, 3]
    assert fields[5] == ["StoreDamagedError", "damaged"]
    assert stripe.state == {"total": 4}

    ((_, fields),) = sent(stripe.turn(Fold(4, purge=True)))
    assert fields[3:6] == [[], None, None]
    assert stripe.stored is None


def test_a_purge_of_a_striped_entity_drops_what_its_stripes_have_and_then_answers() -> None:
    home = Lone(LOOKUP, "@visits@x")
    purge = Command("purge")
    purge.reply = CLIENT
    effects = home.turn(purge)
    assert [fields for _, fields in sent(effects)] == [["fold", 1, True, None]] * 2

    later = Command("purge")
    assert home.actor.handle(later, START, home.recorder) is HELD  # another one is under way
    assert home.turn(Folded(0, 1, b'{"total":4}')) == []
    assert replies(home.turn(Folded(1, 1, None))) == [None]
    assert home.stored is None


def test_a_home_that_is_parked_keeps_what_its_stripes_give_and_asks_again_with_a_retry() -> None:
    home = Lone(LOOKUP, "@visits@x")
    effects = home.turn(call("get"))
    assert [fields[:2] for _, fields in sent(effects)] == [["fold", 1]] * 2

    effects = home.turn(Folded(0, 1, None, trouble=("Crash", "it crashed")))
    assert refusals(effects) == ["ParkedError"]
    assert home.actor.parked == "its stripe 0 is parked: it crashed"
    assert home.turn(Folded(1, 1, b'{"total":4}')) == []
    assert home.state is None

    retry = Command("retry")
    retry.reply = CLIENT
    effects = home.turn(retry)
    assert [fields[:2] for _, fields in sent(effects)] == [["command", "retry"], ["fold", 1]]
    assert home.state == {"total": 4}


def test_a_fold_that_was_asked_for_is_answered_when_the_stripes_have_been_merged() -> None:
    home = Lone(LOOKUP, "@visits@x")
    fold = Command("fold")
    fold.reply = CLIENT
    home.turn(fold)
    home.turn(Folded(0, 1, b'{"total":4}', (1, [[START, "add", "ValueError", "bad"]])))

    assert replies(home.turn(Folded(1, 1, b'{"total":5}'))) == [None]
    assert home.state == {"total": 9}
    assert home.stored is not None
    assert orjson.loads(home.stored.failures or b"")[0] == 1


def test_an_operation_that_is_not_commutative_any_more_goes_home_or_is_refused() -> None:
    stripe = Lone(LOOKUP, "@visits@x\x1f1")

    assert stripe.turn(call("get")) == [("refuse", "UsageError")]
    ((target, fields),) = sent(stripe.turn(called_by(A, "get")))
    assert (target, fields[:2]) == ("@visits@x", ["operation", "get"])


def test_a_start_that_reaches_an_entity_is_refused() -> None:
    assert refusals(account().turn(Start("flow", None, None))) == ["UsageError"]
