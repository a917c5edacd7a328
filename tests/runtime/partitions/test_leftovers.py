from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from perdure.actors.errors import FailureDetails
from perdure.actors.failures import encode_failure
from perdure.actors.messages import ActivityCall, Caller, Completion, encode_call
from perdure.actors.replay.stored import read_call
from perdure.runtime.partitions.batch import Batch
from perdure.runtime.partitions.leftovers import Leftovers
from perdure.storage.records import ActivityRow
from perdure.storage.slices import at_once


class Owner:
    """A partition that writes down what it is asked for."""

    def __init__(self) -> None:
        self.batch = Batch()
        store: Any = type("Store", (), {"place": "the file"})()
        self.store = store
        self.rows = 0
        self.commits = 0
        self.dispatched: list[ActivityCall] = []
        self.cancelled: list[Caller] = []
        self.failed: list[tuple[str, str, str]] = []

    def new_row(self) -> int:
        self.rows += 1
        return self.rows

    def gathered(self) -> None:
        self.commits += 1

    def dispatch(self, call: ActivityCall) -> None:
        self.dispatched.append(call)

    def cancel_activities(self, instance_id: str, execution: int, tasks: Collection[int]) -> None:
        self.cancelled += [Caller(instance_id, execution, task) for task in tasks]

    def failed_call(self, instance_id: str, what: str, failure: FailureDetails) -> None:
        self.failed.append((instance_id, what, failure.message))


def call(instance_id: str = "i", task: int = 1, execution: int = 1) -> ActivityCall:
    caller = Caller(instance_id, execution, task)
    return ActivityCall(caller, f"work{task}", b"6", None, 1, None, task)


def answer(task: int = 1, execution: int = 1) -> Completion:
    return Completion("TaskCompleted", execution, task, b"7")


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def leftovers(owner: Owner) -> Leftovers:
    return Leftovers(owner)


def test_what_is_kept_has_a_row_from_which_it_is_read_again(
    owner: Owner, leftovers: Leftovers
) -> None:
    leftovers.keep(7, call())
    [row] = owner.batch.left
    after = Leftovers(owner)

    at_once(after.restore([row]))

    assert (row.n, row.instance) == (1, 7)
    assert after.rows == leftovers.rows == {"i": {Caller("i", 1, 1): (1, call())}}


def test_an_answer_takes_the_row_away_and_nothing_is_left(
    owner: Owner, leftovers: Leftovers
) -> None:
    leftovers.keep(7, call())

    assert leftovers.take("i", answer())

    assert owner.batch.left_deleted == [1]
    assert owner.commits == 1
    assert leftovers.rows == {}
    assert not leftovers.take("i", answer())  # once


@pytest.mark.parametrize(
    ("instance_id", "task", "execution"), [("other", 1, 1), ("i", 2, 1), ("i", 1, 2)]
)
def test_an_answer_to_something_else_is_left_to_others(
    owner: Owner, leftovers: Leftovers, instance_id: str, task: int, execution: int
) -> None:
    leftovers.keep(7, call())

    assert not leftovers.take(instance_id, answer(task, execution))

    assert owner.batch.left_deleted == []
    assert "i" in leftovers.rows


def test_a_failure_that_nobody_waits_for_is_told(owner: Owner, leftovers: Leftovers) -> None:
    leftovers.keep(7, call())
    failure = FailureDetails("ValueError", "no such order", "")

    taken = leftovers.take("i", Completion("TaskFailed", 1, 1, encode_failure(failure)))

    assert taken
    assert owner.failed == [("i", "work1", "no such order")]


def test_those_of_an_instance_that_goes_are_told_to_stop_and_lose_their_rows(
    owner: Owner, leftovers: Leftovers
) -> None:
    for one in (call(task=1), call(task=2), call("other")):
        leftovers.keep(7, one)

    leftovers.forget("i")
    leftovers.forget("i")

    assert owner.cancelled == [Caller("i", 1, 1), Caller("i", 1, 2)]
    assert owner.batch.left_deleted == [1, 2]
    assert leftovers.rows.keys() == {"other"}


def test_dropping_memory_stops_nothing_and_deletes_no_row(
    owner: Owner, leftovers: Leftovers
) -> None:
    leftovers.keep(7, call())

    leftovers.clear()

    assert leftovers.rows == {}
    assert (owner.cancelled, owner.batch.left_deleted) == ([], [])


def test_only_those_are_run_again_that_are_wanted(owner: Owner, leftovers: Leftovers) -> None:
    for one in (call(task=1), call(task=2), call("other")):
        leftovers.keep(7, one)

    leftovers.dispatch(lambda caller: caller != Caller("i", 1, 1))

    assert owner.dispatched == [call(task=2), call("other")]


@pytest.mark.parametrize(
    "body",
    [
        *(b"none", b"[]", b"[1,2,3]", b'[["i"],"work",[],null,1,null,1]'),
        b'[["i",[],1],"work",[],null,1,null,1]',
        b'[["i",1,1],["work"],[],null,1,null,1]',
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_left_where_it_is(
    owner: Owner, leftovers: Leftovers, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [ActivityRow(1, 7, body), ActivityRow(2, 7, encode_call(call()))]

    at_once(leftovers.restore(rows))

    assert "the file, table activity_row, row 1 cannot be read" in caplog.text
    assert leftovers.rows == {"i": {Caller("i", 1, 1): (2, call())}}
    assert owner.batch.left_deleted == []


@pytest.fixture
def many() -> dict[int, ActivityCall]:
    return {task: call(task=task) for task in range(1, 201)}


def test_many_have_rows_once_they_are_written_down_bit_by_bit(
    owner: Owner, leftovers: Leftovers, many: dict[int, ActivityCall]
) -> None:
    leftovers.keep_all(7, "i", 1, many)
    assert owner.batch.left == []

    written = [len(owner.batch.left) for _ in leftovers.write_down()]

    assert written == [64, 128, 192]
    assert [read_call(row.body).caller.task for row in owner.batch.left] == [*range(1, 201)]
    assert leftovers.unwritten == {}
    assert len([*leftovers.calls_of("i")]) == 200


def test_what_is_answered_before_it_is_written_down_gets_no_row(
    owner: Owner, leftovers: Leftovers, many: dict[int, ActivityCall]
) -> None:
    leftovers.keep_all(7, "i", 1, many)
    writing = leftovers.write_down()

    assert leftovers.take("i", answer(1))
    next(writing)
    assert leftovers.take("i", answer(200))
    assert not leftovers.take("i", answer(200))  # once
    assert leftovers.take("i", answer(2))
    assert len([*leftovers.calls_of("i")]) == 197
    at_once(writing)

    written = [read_call(row.body).caller.task for row in owner.batch.left]
    assert written == [*range(2, 200)]
    assert owner.batch.left_deleted == [owner.batch.left[0].n]
    assert len([*leftovers.calls_of("i")]) == 197


def test_when_all_have_answered_before_that_nothing_is_left(
    owner: Owner, leftovers: Leftovers, many: dict[int, ActivityCall]
) -> None:
    leftovers.keep_all(7, "i", 1, many)

    for task in range(1, 201):
        assert leftovers.take("i", answer(task))
    at_once(leftovers.write_down())

    assert (owner.batch.left, owner.batch.left_deleted, leftovers.rows) == ([], [], {})


@pytest.mark.parametrize("begun", [False, True])
def test_many_that_are_purged_before_that_are_told_to_stop_and_get_no_rows(
    owner: Owner, leftovers: Leftovers, many: dict[int, ActivityCall], begun: bool
) -> None:
    leftovers.keep_all(7, "i", 1, many)
    writing = leftovers.write_down()
    if begun:
        next(writing)

    leftovers.forget("i")
    at_once(writing)

    assert {caller.task for caller in owner.cancelled} == {*range(1, 201)}
    assert {row.n for row in owner.batch.left} == {*owner.batch.left_deleted}
    assert (leftovers.rows, leftovers.unwritten) == ({}, {})


def test_many_that_are_forgotten_with_the_memory_get_no_rows(
    owner: Owner, leftovers: Leftovers, many: dict[int, ActivityCall]
) -> None:
    leftovers.keep_all(7, "i", 1, many)
    writing = leftovers.write_down()
    next(writing)

    leftovers.clear()
    owner.batch = Batch()
    at_once(writing)

    assert (owner.batch.left, leftovers.rows) == ([], {})
