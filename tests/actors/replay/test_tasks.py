"""What one task is, to whoever waits for it and to the execution whose it is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from perdure.actors.codec import codec_for
from perdure.actors.errors import (
    ActivityError,
    Cancelled,
    EventDataError,
    FailureDetails,
    PayloadError,
    UsageError,
)
from perdure.actors.failures import encode_failure
from perdure.actors.replay.compound_tasks import AnyTask
from perdure.actors.replay.tasks import CANCELED, DONE, FAILED, CallTask, EventTask, Task, TimerTask
from tests.actors.replay.faked import FakeExecutor, Watching, done, plain_task, scope

FAILURE = FailureDetails("ValueError", "no luck")


@pytest.fixture
def executor() -> Any:
    return FakeExecutor()


def call(executor: Any, number: int = 1) -> CallTask[int]:
    return CallTask(executor, number, codec_for(int), ActivityError, "work")


def failed(executor: Any) -> CallTask[int]:
    task = call(executor)
    executor.unseen[1] = task
    task.settle(FAILED, orjson.loads(encode_failure(FAILURE)))
    return task


def no_luck() -> ValueError:
    return ValueError("no luck")


def states(task: Task[Any]) -> tuple[bool, bool, bool]:
    return task.is_completed, task.is_faulted, task.is_cancelled


# What becomes of it.


def test_a_task_is_settled_once_and_tells_those_who_watch(executor: Any) -> None:
    task, watching, late = plain_task(executor), Watching(), Watching()
    task.watch(watching)
    task.watch(watching)
    task.unwatch(late)  # which does not watch
    task.watch(late)
    task.unwatch(late)
    task.unwatch(late)
    assert states(task) == (False, False, False)

    task.settle(DONE, 7)
    task.settle(FAILED, no_luck)

    assert (watching.seen, late.seen) == ([task, task], [])
    assert task.result == 7
    assert states(task) == (True, False, False)


def test_a_failure_is_made_anew_each_time_that_it_is_asked_for(executor: Any) -> None:
    task = plain_task(executor)
    task.settle(FAILED, no_luck)

    raised: list[BaseException] = []
    for _ in range(2):
        with pytest.raises(ValueError, match="no luck") as found:
            _ = task.result
        raised.append(found.value)

    assert raised[0] is not raised[1]
    assert states(task) == (True, True, False)


def test_the_result_of_a_task_that_is_not_completed_is_not_to_be_had(executor: Any) -> None:
    with pytest.raises(UsageError, match="not completed yet"):
        _ = plain_task(executor).result


def test_who_awaits_a_task_waits_until_it_is_settled(executor: Any) -> None:
    task = plain_task(executor)
    awaiting = task.__await__()
    assert next(awaiting) is task

    task.settle(DONE, "there")

    with pytest.raises(StopIteration) as stop:
        next(awaiting)
    assert stop.value.value == "there"
    assert [*iter_to_end(done(executor, 1))] == []


def iter_to_end(task: Task[Any]) -> Any:
    yield from task


def test_code_that_is_let_go_is_ended_where_it_waits(executor: Any) -> None:
    executor.closed = True

    next(plain_task(executor).__await__())

    assert executor.asked == [("wait closed",)]


def test_when_the_code_is_let_go_nobody_watches_any_more(executor: Any) -> None:
    task, watching = plain_task(executor), Watching()
    task.watch(watching)
    made = AnyTask(executor, [task], False)
    made.watch(watching)

    assert task.forget_watchers() is made

    task.settle(DONE, None)
    made.settle(DONE, task)
    assert (watching.seen, watching.forgotten) == ([], 2)
    assert plain_task(executor).forget_watchers() is None


# Giving up.


def test_a_task_that_is_cancelled_raises_that_and_is_not_cancelled_again(executor: Any) -> None:
    task = call(executor)

    assert task.cancel()
    assert not task.cancel()

    assert executor.asked == [("withdraw call", 1)]
    assert states(task) == (True, False, True)
    with pytest.raises(Cancelled):
        _ = task.result


def test_a_task_is_cancelled_by_its_own_code_alone(executor: Any) -> None:
    task = call(executor)
    executor.is_stepped = False

    with pytest.raises(UsageError):
        task.cancel()

    assert (executor.asked, task.is_completed) == ([], False)


def test_a_task_that_has_ended_is_not_given_up(executor: Any) -> None:
    task = call(executor)
    task.settle(DONE, b"1")

    assert not task.cancel()
    task.let_go(None)

    assert (executor.asked, task.result) == ([], 1)


@pytest.mark.parametrize(
    ("place", "is_cancelled"), [("inner", True), ("outer", True), ("other", False)]
)
def test_a_scope_that_is_cancelled_takes_along_what_was_begun_in_it(
    executor: Any, place: str, is_cancelled: bool
) -> None:
    scopes = {name: scope(name) for name in ("outer", "inner", "other")}
    executor.in_scope(scopes["outer"], scopes["inner"])
    task = call(executor)

    task.let_go(scopes[place])

    assert task.is_cancelled is is_cancelled


def test_what_others_wait_for_is_not_taken_along(executor: Any) -> None:
    inner = scope()
    executor.in_scope(inner)
    task = call(executor)
    task.watch(Watching())

    task.let_go(inner)

    assert not task.is_completed


def test_an_instance_that_is_cancelled_takes_all_along_wherever_it_was_begun(
    executor: Any,
) -> None:
    task, other = call(executor), call(executor, 2)

    task.let_go(None)
    executor.cancel_requested = "why"
    other.let_go(scope())

    assert (task.is_cancelled, other.is_cancelled) == (True, True)


# Calls.


def test_a_result_stays_encoded_until_somebody_looks(executor: Any) -> None:
    encoded, parsed = call(executor), call(executor, 2)
    encoded.settle(DONE, b"7")
    parsed.settle(DONE, 8)  # as a replay has it
    assert not encoded.is_seen

    assert (encoded.result, encoded.result, parsed.result) == (7, 7, 8)
    assert encoded.is_seen


def test_a_result_that_cannot_be_read_raises_each_time(executor: Any) -> None:
    task = call(executor)
    task.settle(DONE, b'"seven"')

    for _ in range(2):
        with pytest.raises(PayloadError):
            _ = task.result
    assert not task.is_seen


def test_a_failed_call_raises_its_error_with_what_was_called(executor: Any) -> None:
    task = failed(executor)

    with pytest.raises(ActivityError, match="work") as found:
        _ = task.result

    assert (found.value.failure.error_type, found.value.failure.message) == (
        "ValueError",
        "no luck",
    )
    assert executor.unseen == {}


def test_who_asks_whether_a_call_failed_has_looked(executor: Any) -> None:
    task = failed(executor)
    assert task.describe_failure().error_type == "ValueError"
    assert executor.unseen == {1: task}

    assert task.is_faulted

    assert executor.unseen == {}


@pytest.mark.parametrize(
    ("state", "said"),
    [(DONE, "completed"), (FAILED, "failed"), (CANCELED, "cancelled"), (None, "to be awaited")],
)
def test_a_call_says_how_it_stands(executor: Any, state: int | None, said: str) -> None:
    task = call(executor)
    if state is not None:
        task.settle(state, b"1")

    assert repr(task) == f"<a call, {said}: work>"


# Timers and events.


def test_a_timer_that_is_given_up_is_taken_back(executor: Any) -> None:
    task = TimerTask(executor, 3, 500)

    task.cancel()

    assert (task.due, executor.asked) == (500, [("withdraw timer", 3)])


def wait(executor: Any, *, timer: bool = False) -> EventTask[int]:
    task = EventTask(executor, "go", codec_for(int))
    if timer:
        task.timer = TimerTask(executor, 3, 500)
        task.timer.watch(task)
    return task


@pytest.mark.parametrize("raw", [b"7", 7], ids=["encoded", "parsed"])
def test_an_event_gives_its_data_and_takes_its_timeout_back(executor: Any, raw: object) -> None:
    task = wait(executor, timer=True)

    task.accept(raw)

    assert task.result == 7
    assert executor.asked == [("withdraw timer", 3)]


def test_data_that_do_not_fit_fail_the_wait(executor: Any) -> None:
    task = wait(executor)

    task.accept(b'"seven"')

    with pytest.raises(EventDataError, match="go"):
        _ = task.result


def test_a_wait_whose_time_is_over_fails_and_leaves_the_event_to_others(executor: Any) -> None:
    task = wait(executor, timer=True)
    assert task.timer is not None

    task.timer.settle(DONE, None)

    with pytest.raises(TimeoutError, match="'go'"):
        _ = task.result
    assert executor.asked == [("forget wait", "go")]


def test_a_timeout_that_was_taken_back_is_no_timeout(executor: Any) -> None:
    task = wait(executor, timer=True)
    assert task.timer is not None

    task.timer.cancel()

    assert not task.is_completed


def test_a_wait_that_is_given_up_takes_its_timeout_along(executor: Any) -> None:
    task = wait(executor, timer=True)

    task.cancel()

    assert executor.asked == [("forget wait", "go"), ("withdraw timer", 3)]
    assert task.is_cancelled
