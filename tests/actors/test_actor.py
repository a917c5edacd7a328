from __future__ import annotations

from typing import Any

from perdure.actors.actor import Actor
from perdure.actors.messages import Event, Message


class Waiting(Actor):
    """Blocked or not, as it is told."""

    __slots__ = ("blocked",)

    def __init__(self) -> None:
        super().__init__(1)
        self.blocked = False

    @property
    def is_blocked(self) -> bool:
        return self.blocked


def messages(count: int) -> list[Message]:
    return [Event(str(number), b"null") for number in range(count)]


def holding(messages: list[Message]) -> Waiting:
    actor = Waiting()
    for message in messages:
        actor.hold(message)
    return actor


def held(actor: Actor) -> list[Message] | None:
    return actor.held


def test_what_is_held_is_given_back_once_oldest_first() -> None:
    some = messages(3)
    actor = holding(some)

    assert held(actor) == some
    assert actor.release() == some
    assert held(actor) is None
    assert actor.release() == []


def test_nothing_is_released_while_it_is_blocked_or_has_something_to_fold() -> None:
    some = messages(2)
    for name in ("blocked", "folding"):
        actor = holding(some)
        setattr(actor, name, True)

        assert actor.release() == []
        assert held(actor) == some
        assert actor.give_back() == some


def test_to_park_and_to_be_tried_again_are_told() -> None:
    actor = Waiting()

    actor.park("KeyError", "it is bad")
    parked: tuple[Any, ...] = actor.parked_type, actor.parked, actor.changed
    actor.changed = False
    actor.unpark()
    tried: tuple[Any, ...] = actor.parked_type, actor.parked, actor.changed

    assert (parked, tried) == (("KeyError", "it is bad", True), (None, None, True))
