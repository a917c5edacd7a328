from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.errors import StorageError, UnavailableError
from perdure.actors.messages import Completion, Operation
from perdure.runtime.partitions.gate import Gate
from perdure.runtime.placement.places import MovedError

WAITER: Any = object()


def operation() -> Operation:
    return Operation("add", b"1")


def test_an_open_gate_lets_in_and_keeps_nothing() -> None:
    gate = Gate(3, 10)

    assert gate.reason is None
    assert not gate.refuses
    assert gate.take_aside() is None


def test_a_shut_gate_says_whose_and_why() -> None:
    gate = Gate(3, 10)
    gate.reason = UnavailableError("the disk is full")

    refusal = gate.refusal()

    assert str(refusal) == "partition 3 is recovering: the disk is full"
    assert gate.refuses
    with pytest.raises(UnavailableError, match="the disk is full"):
        gate.set_aside("@counter@a", operation(), WAITER)


def test_the_gate_of_a_partition_that_moves_tells_to_look_elsewhere() -> None:
    gate = Gate(3, 10)
    gate.reason = MovedError("partition 3 is moving")

    assert gate.has_moved
    assert isinstance(gate.refusal(), MovedError)
    assert gate.refusal() is not gate.reason  # each who is refused gets an error of his own


def test_what_comes_while_a_crash_is_recovered_from_is_kept_in_order_with_who_waits() -> None:
    gate = Gate(3, 10)
    gate.reason = UnavailableError("a turn crashed")
    gate.keep_aside()
    first, second = operation(), operation()

    gate.set_aside("@counter@a", first, WAITER)
    gate.set_aside("@counter@b", second, WAITER)

    assert not gate.refuses
    assert gate.take_aside() == [first, second]
    assert [first.target, second.target] == ["@counter@a", "@counter@b"]
    assert first.reply is WAITER
    assert gate.take_aside() is None


def test_keeping_aside_again_loses_nothing_that_was_kept() -> None:
    gate = Gate(3, 10)
    gate.keep_aside()
    kept = operation()
    gate.set_aside("@counter@a", kept, WAITER)

    gate.keep_aside()

    assert gate.take_aside() == [kept]


def test_no_more_is_kept_than_there_is_room_for() -> None:
    gate = Gate(3, 2)
    gate.reason = UnavailableError("a turn crashed")
    gate.keep_aside()
    for _ in range(2):
        gate.set_aside("@counter@a", operation(), WAITER)

    with pytest.raises(UnavailableError):
        gate.set_aside("@counter@a", operation(), WAITER)


def test_late_answers_are_given_once() -> None:
    gate = Gate(3, 10)
    answer = Completion("TaskCompleted", 1, 1, b"6")
    gate.late.append(("x", answer))

    assert gate.take_late() == [("x", answer)]
    assert gate.take_late() == []


async def test_whoever_reads_where_the_partition_has_left_is_told_to_look_elsewhere() -> None:
    gate = Gate(3, 10)

    async def fails() -> None:
        raise StorageError("the store is closed")

    async def reads() -> int:
        return 1

    assert await gate.read(reads()) == 1
    with pytest.raises(StorageError, match="closed"):
        await gate.read(fails())
    gate.reason = MovedError("it left")
    with pytest.raises(MovedError, match="it left"):
        await gate.read(fails())
