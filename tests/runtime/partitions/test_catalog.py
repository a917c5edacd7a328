from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.messages import Command, Operation
from perdure.runtime.partitions.catalog import Catalog
from perdure.storage.slices import at_once


class FakeActivation:
    """What a catalog sees of an activation."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.actor: Any = object()
        self.mail: list[Any] = []
        self.queued = False
        self.is_idle = True
        self.used = False
        self.done: list[str] = []

    def retire(self) -> None:
        self.done.append("retired")

    def close(self) -> None:
        self.done.append("closed")


class Made:
    """A catalog of fakes, and what it has loaded."""

    def __init__(self, room: int = 8) -> None:
        self.loaded: list[str] = []
        make: Any = FakeActivation

        def load(activation: Any) -> None:
            self.loaded.append(activation.key)

        self.catalog = Catalog(make, load, room, at_once)

    def fill(self, count: int) -> list[Any]:
        return [self.catalog.activate(f"i{n}") for n in range(count)]


def test_who_is_activated_is_in_memory_and_loaded_and_takes_no_turn_before() -> None:
    made = Made()

    activation = made.catalog.activate("x")

    assert made.catalog.activations == {"x": activation}
    assert made.loaded == ["x"]
    assert activation.queued


def test_who_is_dropped_takes_no_turn_before_its_code_is_let_go() -> None:
    made = Made()
    [activation] = made.fill(1)

    made.catalog.drop(activation)

    assert activation.done == ["retired", "closed"]
    assert made.catalog.activations == {}


def test_all_are_retired_at_once_and_their_code_is_left_to_be_let_go() -> None:
    made = Made()
    activations = made.fill(3)
    made.catalog.purging.add("gone")

    dropped = made.catalog.retire_all()

    assert dropped == activations
    assert [one.done for one in activations] == [["retired"]] * 3
    assert (made.catalog.activations, made.catalog.purging) == ({}, set())


def test_those_used_since_the_last_look_get_a_second_chance() -> None:
    made = Made()
    cold, warm = made.fill(2)
    warm.used = True

    first = made.catalog.evict(2)
    second = made.catalog.evict(2)

    assert (first, second) == (1, 1)
    assert cold.done == warm.done == ["retired", "closed"]
    assert made.catalog.evictions == 2


@pytest.mark.parametrize("kept", [{"is_idle": False}, {"actor": None}])
def test_what_holds_something_or_is_being_loaded_is_not_evicted(kept: dict[str, Any]) -> None:
    made = Made()
    [activation] = made.fill(1)
    for name, value in kept.items():
        setattr(activation, name, value)

    assert made.catalog.evict(1) == 0
    assert made.catalog.activations == {"i0": activation}


def test_no_more_are_evicted_than_asked_for() -> None:
    made = Made()
    made.fill(5)

    assert made.catalog.evict(2) == 2
    assert len(made.catalog.activations) == 3


def test_the_cold_are_dropped_where_there_are_more_than_there_is_room_for() -> None:
    made = Made(room=8)
    made.fill(8)
    made.catalog.evict_cold()
    assert len(made.catalog.activations) == 8

    made.catalog.activate("one more")
    made.catalog.evict_cold()

    assert len(made.catalog.activations) == 7  # some room is made at a time


def test_commands_that_wait_while_an_actor_is_loaded_anew_know_that_it_was() -> None:
    made = Made()
    [activation] = made.fill(1)
    command, operation = Command("retry"), Operation("add", b"1")
    activation.mail = [command, operation]

    made.catalog.load_anew(activation)

    assert activation.actor is None
    assert command.loaded
    assert made.loaded == ["i0", "i0"]
