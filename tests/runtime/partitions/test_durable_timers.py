from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from perdure.actors.messages import (
    Begin,
    Caller,
    Command,
    Message,
    Operation,
    TimerDue,
    encode_message,
)
from perdure.runtime.partitions.batch import Batch
from perdure.runtime.partitions.damage import Damage
from perdure.runtime.partitions.durable_timers import DurableTimer, DurableTimers
from perdure.runtime.placement.hashing import name_in
from perdure.runtime.scheduling.timers import Alarm
from perdure.storage.records import Checkpoint, Recovered, TimerRow
from perdure.storage.slices import STEPS, at_once

HERE, THERE = name_in(0, 2), name_in(1, 2)


class Owner:
    """Partition 0 of two, which writes down what its timers send."""

    def __init__(self) -> None:
        self.index = 0
        self.places: Sequence[None] = [None, None]
        self.batch = Batch()
        self.row = 100
        self.posted: list[tuple[str, Message]] = []
        self.sent: list[tuple[str, Message]] = []
        self.commits = 0

    def post(self, key: str, message: Message) -> None:
        self.posted.append((key, message))

    def send(self, target: str, message: Message) -> None:
        self.sent.append((target, message))

    def new_row(self) -> int:
        self.row += 1
        return self.row

    def gathered(self) -> None:
        self.commits += 1


class Queue:
    """A queue of alarms that ring when the test has them ring."""

    def __init__(self) -> None:
        self.alarms: list[tuple[int, Callable[[], None]]] = []
        self.running: list[Alarm] = []

    def set(self, due: int, callback: Callable[[], None]) -> Any:
        alarm: Any = object()
        self.alarms.append((due, callback))
        self.running.append(alarm)
        return alarm

    def stop(self, alarm: Alarm) -> None:
        self.running.remove(alarm)

    def ring(self, place: int = -1) -> None:
        self.alarms[place][1]()


class Made:
    """The timers of a partition, and what its next life finds of them."""

    def __init__(self) -> None:
        self.owner, self.queue = Owner(), Queue()
        queue: Any = self.queue
        self.timers = DurableTimers(self.owner, queue)

    def seal(self) -> list[TimerRow]:
        """Seal what has gathered; gives its timers, behind the deletions."""
        batch, self.owner.batch = self.owner.batch, Batch()
        checkpoint = Checkpoint(1, 1)
        self.timers.seal(batch, checkpoint)
        return [row for row in checkpoint.timers if row.n not in batch.timers_deleted]

    def restore(self, rows: list[TimerRow]) -> None:
        recovered: Any = Recovered(1, 1, 1, 1, [], rows, [], [], [], [])
        at_once(self.timers.restore(recovered, Damage("the file", self.owner)))


@pytest.fixture
def made() -> Made:
    return Made()


def due(key: str = HERE, task: int = 1, at: int = 50, execution: int = 1) -> DurableTimer:
    return DurableTimer(at, key, TimerDue(execution, task))


def test_a_timer_that_runs_at_a_checkpoint_is_stored_once(made: Made) -> None:
    made.timers.arm(due())

    rows = made.seal()

    assert [(row.n, row.due, row.actor) for row in rows] == [(101, 50, HERE)]
    assert made.seal() == []


def test_a_timer_that_rings_before_the_checkpoint_never_touches_the_store(made: Made) -> None:
    made.timers.arm(due())

    made.queue.ring()

    [(key, message)] = made.owner.posted
    assert (key, message.timer, message.keep) == (HERE, 0, True)
    assert made.seal() == []
    assert made.owner.row == 100


def test_a_stored_timer_that_rings_keeps_its_row_until_the_message_is_consumed(made: Made) -> None:
    made.timers.arm(due())
    made.seal()

    made.queue.ring()

    [(_, message)] = made.owner.posted
    assert (message.timer, message.keep) == (101, False)
    assert made.owner.batch.timers_deleted == []


def test_what_is_for_another_partition_is_sent_there_and_the_row_goes_with_that(
    made: Made,
) -> None:
    message = Operation("add", b"1")
    made.timers.arm(DurableTimer(50, THERE, message))
    made.seal()

    made.queue.ring()

    assert made.owner.sent == [(THERE, message)]
    assert made.owner.posted == []
    assert made.owner.batch.timers_deleted == [101]
    assert made.owner.commits == 1


def test_a_timer_that_is_taken_back_does_not_ring(made: Made) -> None:
    made.timers.arm(due(task=1))
    made.timers.arm(due(task=2))

    made.timers.disarm(Caller(HERE, 1, 1))
    made.queue.ring(0)

    assert made.owner.posted == []
    assert len(made.queue.running) == 1
    assert len(made.seal()) == 1
    assert made.owner.batch.timers_deleted == []  # the other one had no row


def test_a_stored_timer_that_is_taken_back_leaves_the_store(made: Made) -> None:
    made.timers.arm(due())
    made.seal()

    made.timers.disarm(Caller(HERE, 1, 1))
    made.timers.disarm(Caller(HERE, 1, 1))

    assert made.owner.batch.timers_deleted == [101]


def test_all_timers_of_an_instance_are_taken_back_at_once_and_no_other_s(made: Made) -> None:
    made.timers.arm(due(task=1))
    made.timers.arm(due(task=2, execution=2))
    made.timers.arm(DurableTimer(50, HERE, Begin(2)))
    made.timers.arm(due("another", task=1))

    made.timers.disarm(Caller(HERE, 1, 0))
    for place in range(4):
        made.queue.ring(place)

    assert [key for key, _ in (*made.owner.posted, *made.owner.sent)] == ["another"]


def test_a_timer_of_another_execution_is_another_timer(made: Made) -> None:
    made.timers.arm(due(execution=1))
    made.timers.arm(due(execution=2))

    made.timers.disarm(Caller(HERE, 1, 1))

    made.queue.ring(0)
    made.queue.ring(1)
    [(_, message)] = made.owner.posted
    assert isinstance(message, TimerDue)
    assert message.execution == 2


def test_a_message_that_waits_for_its_time_is_nobody_s_to_take_back(made: Made) -> None:
    made.timers.arm(DurableTimer(50, HERE, Operation("add", b"1")))

    made.timers.disarm(Caller(HERE, 1, 0))
    made.queue.ring()

    assert len(made.owner.posted) == 1


def test_a_timer_that_has_rung_is_not_taken_back_any_more(made: Made) -> None:
    made.timers.arm(due())
    made.seal()
    made.queue.ring()

    made.timers.disarm(Caller(HERE, 1, 0))

    assert made.owner.batch.timers_deleted == []  # its message has the row
    assert len(made.queue.running) == 1  # and the queue has let it go itself


def test_a_timer_rings_once(made: Made) -> None:
    made.timers.arm(due())

    made.queue.ring()
    made.queue.ring()

    assert len(made.owner.posted) == 1


def test_what_is_written_down_in_the_middle_of_a_turn_is_in_the_same_checkpoint(
    made: Made,
) -> None:
    made.timers.arm(due(task=1))
    made.timers.unload(made.owner.batch)
    made.timers.arm(due(task=2))

    assert [row.n for row in made.seal()] == [101, 102]


def test_what_was_written_down_and_is_taken_back_in_one_batch_is_not_stored(made: Made) -> None:
    made.timers.arm(due())
    made.timers.unload(made.owner.batch)

    made.timers.disarm(Caller(HERE, 1, 1))

    assert made.seal() == []


def test_stored_timers_run_again_and_have_their_rows(made: Made) -> None:
    made.timers.arm(due(at=70))
    rows = made.seal()
    after = Made()

    after.restore(rows)
    after.queue.ring()

    assert after.queue.alarms[0][0] == 70
    assert after.owner.posted[0][1].timer == rows[0].n
    assert after.seal() == []


def test_a_restored_timer_is_its_instance_s_to_take_back(made: Made) -> None:
    made.timers.arm(due())
    after = Made()
    after.restore(made.seal())

    after.timers.disarm(Caller(HERE, 1, 1))

    assert after.owner.batch.timers_deleted == [101]
    assert after.queue.running == []


def test_a_timer_that_cannot_be_read_parks_its_actor_and_leaves_the_store(made: Made) -> None:
    whole = encode_message(TimerDue(1, 1))

    made.restore([TimerRow(1, 50, HERE, b"none"), TimerRow(2, 50, "", whole)])

    [(key, message)] = made.owner.sent
    assert key == HERE
    assert isinstance(message, Command)
    assert message.action == "park"
    assert made.owner.batch.timers_deleted == [1, 2]
    assert made.queue.alarms == []


def test_none_rings_once_memory_is_dropped_though_they_are_stopped_later(made: Made) -> None:
    for task in range(1, 2 * STEPS):
        made.timers.arm(due(task=task))

    steps = made.timers.clear()
    for place in range(len(made.queue.alarms)):
        made.queue.ring(place)
    at_once(steps)

    assert made.owner.posted == []
    assert made.queue.running == []


def test_a_timer_armed_while_the_old_ones_are_stopped_goes_on(made: Made) -> None:
    made.timers.arm(due())

    steps = made.timers.clear()
    made.timers.arm(due())
    at_once(steps)
    made.queue.ring()

    assert len(made.owner.posted) == 1


def test_many_that_are_taken_back_at_once_are_stopped_bit_by_bit(made: Made) -> None:
    for task in range(1, 201):
        made.timers.arm(due(task=task))
    made.seal()
    made.timers.arm(due(task=500))

    made.timers.disarm(Caller(HERE, 1, 0))
    left = [len(made.queue.running) for _ in made.timers.stop_gone()]

    assert left == [137, 73, 9, 0]
    assert made.seal() == []
    assert sorted(made.owner.batch.timers_deleted) == []


def test_one_that_rings_before_it_is_stopped_is_gone_as_well(made: Made) -> None:
    for task in range(1, 101):
        made.timers.arm(due(task=task))
    made.seal()

    made.timers.disarm(Caller(HERE, 1, 0))
    made.queue.ring(0)
    made.queue.running.pop(0)
    at_once(made.timers.stop_gone())

    assert made.queue.running == []
    assert {*made.owner.batch.timers_deleted} == {*range(101, 201)}
