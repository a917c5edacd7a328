"""Tasks made of others: which of them decide, what is read when, and what is given up with them."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any, cast
from unittest import mock

import orjson
import pytest

from perdure import App, OrchestrationContext, RetryPolicy
from perdure.actors import failures
from perdure.actors.codec import codec_for
from perdure.actors.errors import ActivityError, Cancelled, FailureDetails
from perdure.actors.failures import encode_failure
from perdure.actors.messages import Completion, Start
from perdure.actors.registry.lookup import Lookup
from perdure.actors.replay import executor as executors, tasks as tasks_module
from perdure.actors.replay.compound_tasks import UNREAD_MAX, AllTask, AnyTask, RetryTask
from perdure.actors.replay.tasks import DONE, FAILED, CallTask, Task
from tests.actors.recording import START, Instance
from tests.actors.replay.faked import FakeExecutor, Watching, done, plain_task, scope

SECOND = 1_000_000
FAILURE = orjson.loads(encode_failure(FailureDetails("ValueError", "no luck")))


@pytest.fixture
def executor() -> Any:
    return FakeExecutor()


def call(executor: Any, number: int = 1) -> CallTask[int]:
    return CallTask(executor, number, codec_for(int), ActivityError, f"work{number}")


def calls(executor: Any, count: int) -> list[CallTask[int]]:
    return [call(executor, number) for number in range(count)]


def withdrawn(executor: Any) -> list[int]:
    return [number for what, number in executor.asked if what == "withdraw call"]


# All of them.


def test_all_of_no_tasks_are_there_at_once(executor: Any) -> None:
    made: list[Task[int]] = []

    assert AllTask(executor, made, True).result == []


def test_all_results_come_in_the_order_given_whatever_the_order_of_their_coming(
    executor: Any,
) -> None:
    tasks = [done(executor, 0), *calls(executor, 3)]
    every = AllTask(executor, tasks, True)
    assert every.missing == 3

    for place in (3, 1, 2):
        assert not every.is_completed
        tasks[place].settle(DONE, place)

    assert every.result == [0, 1, 2, 3]


def test_a_task_that_is_given_twice_gives_its_result_twice(executor: Any) -> None:
    task = call(executor)
    every = AllTask(executor, [task, task], True)

    task.settle(DONE, 7)

    assert every.result == [7, 7]


@pytest.mark.parametrize("before", [True, False])
def test_the_first_failure_is_that_of_all(executor: Any, before: bool) -> None:
    tasks = calls(executor, 3)
    if before:
        tasks[1].settle(FAILED, FAILURE)
    every = AllTask(executor, [*tasks], True)
    tasks[1].settle(FAILED, FAILURE)

    assert every.is_faulted
    with pytest.raises(ActivityError, match="work1"):
        _ = every.result
    assert not tasks[0].is_completed


def test_all_failures_are_raised_together_where_all_are_waited_for(executor: Any) -> None:
    tasks = calls(executor, 3)
    every = AllTask(executor, [*tasks], False)

    tasks[2].settle(FAILED, FAILURE)
    tasks[0].cancel()
    assert not every.is_completed
    tasks[1].settle(DONE, 1)

    with pytest.raises(ExceptionGroup) as found:
        _ = every.result
    assert [type(one).__name__ for one in found.value.exceptions] == ["UsageError", "ActivityError"]


def test_one_that_is_cancelled_cancels_all(executor: Any) -> None:
    tasks = calls(executor, 2)
    every = AllTask(executor, [*tasks], True)

    tasks[0].cancel()

    assert every.is_cancelled


@pytest.mark.parametrize("in_order", [True, False])
def test_results_are_read_as_they_come_some_at_a_time(executor: Any, in_order: bool) -> None:
    count = 2 * (UNREAD_MAX + 1)
    tasks = calls(executor, count)
    every = AllTask(executor, [*tasks], True)
    coming = tasks if in_order else tasks[::-1]

    unread: list[int] = []
    for task in coming[:-1]:
        task.settle(DONE, b"1")
        unread.append(sum(one.is_completed and not one.is_seen for one in tasks))

    assert max(unread) == UNREAD_MAX
    assert unread.count(0) == 2  # the first is read at once, as the number falls on it
    coming[-1].settle(DONE, b"1")
    assert every.result == [1] * count


@pytest.mark.parametrize("in_order", [True, False])
def test_failures_are_read_as_they_come_some_at_a_time(executor: Any, in_order: bool) -> None:
    count = 2 * (UNREAD_MAX + 1)
    tasks = calls(executor, count)
    every = AllTask(executor, [*tasks], False)
    coming = tasks if in_order else tasks[::-1]

    with mock.patch.object(tasks_module, "read_failure", wraps=failures.read_failure) as read:
        known: list[int] = []
        for task in coming[:-1]:
            task.settle(FAILED, FAILURE)
            executor.unseen[task.number] = task
            known.append(read.call_count)
        steps = [after - before for before, after in pairwise(known)]
        assert max(steps) == UNREAD_MAX + 1
        assert len(executor.unseen) == count - 1  # nobody has seen them yet
        coming[-1].settle(FAILED, FAILURE)
        with pytest.raises(ExceptionGroup) as found:
            _ = every.result
        assert read.call_count == count

    assert not executor.unseen
    errors: list[Any] = [*found.value.exceptions]
    assert [error.target for error in errors] == [f"work{number}" for number in range(count)]


def test_errors_that_are_asked_for_twice_are_others(executor: Any) -> None:
    tasks = calls(executor, 2)
    every = AllTask(executor, [*tasks], False)
    tasks[1].settle(FAILED, FAILURE)
    tasks[0].settle(DONE, b'"seven"')

    first, second = cast("list[ExceptionGroup[Any]]", [every.make_error(), every.make_error()])

    assert [type(one).__name__ for one in first.exceptions] == ["PayloadError", "ActivityError"]
    assert [*map(repr, first.exceptions)] == [*map(repr, second.exceptions)]
    assert first.exceptions[1] is not second.exceptions[1]


def test_what_has_been_read_is_not_kept(executor: Any) -> None:
    tasks = calls(executor, 2 * (UNREAD_MAX + 1))
    every = AllTask(executor, [*tasks], True)

    for task in tasks[: UNREAD_MAX + 2]:
        task.settle(DONE, b"1")

    held: list[Any] = [one for one in gc.get_referrers(tasks[1]) if isinstance(one, list)]
    assert held == [tasks]
    assert every.missing == UNREAD_MAX


def test_a_result_that_cannot_be_read_fails_all_at_the_end(executor: Any) -> None:
    tasks = calls(executor, 2)
    every = AllTask(executor, [*tasks], True)

    tasks[0].settle(DONE, b'"seven"')
    assert not every.is_completed
    tasks[1].settle(DONE, b"1")

    assert every.is_faulted


@pytest.mark.parametrize("fail_fast", [True, False])
def test_giving_all_up_gives_each_of_them_up(executor: Any, fail_fast: bool) -> None:
    tasks = calls(executor, 3)
    every = AllTask(executor, [*tasks], fail_fast)
    tasks[0].settle(DONE, 0)

    every.cancel()

    assert withdrawn(executor) == [1, 2]
    with pytest.raises(Cancelled):
        _ = every.result


def test_with_a_scope_all_that_was_begun_in_it_is_given_up_and_nothing_else(executor: Any) -> None:
    before, watched = call(executor, 7), Watching()
    inner = scope()
    executor.in_scope(inner)
    shared, own = call(executor, 8), call(executor, 9)
    every = AllTask(executor, [before, shared, own], True)
    shared.watch(watched)

    every.let_go(inner)

    assert withdrawn(executor) == [9]
    assert every.is_cancelled
    before.settle(DONE, 1)  # it has nobody to tell
    assert watched.seen == []


def test_what_waits_for_much_only_notes_most_of_it(executor: Any) -> None:
    tasks = calls(executor, UNREAD_MAX + 2)
    every = AllTask(executor, [*tasks], True)

    only_noted = 0
    for task in tasks:
        only_noted += every.only_notes
        task.settle(DONE, 1)

    assert only_noted == len(tasks) - 3  # two before it reads some, and one before the end
    assert every.only_notes  # it has ended


def test_the_open_ones_of_all_are_known(executor: Any) -> None:
    tasks = calls(executor, 3)
    every = AllTask(executor, [*tasks], True)

    tasks[1].settle(DONE, 1)

    assert [*every.open_tasks()] == [tasks[0], tasks[2]]


@pytest.mark.parametrize("kind", [AllTask, AnyTask])
def test_many_are_let_go_of_bit_by_bit(executor: Any, kind: Any) -> None:
    made = kind(executor, calls(executor, 10), False)

    assert len([*made.let_go_parts(4)]) == 3
    assert [*made.open_tasks()] == []


# The first of them.


@pytest.mark.parametrize("cancels", [False, True])
def test_the_first_that_settles_wins_and_the_others_go_on_or_do_not(
    executor: Any, cancels: bool
) -> None:
    tasks = calls(executor, 3)
    first = AnyTask(executor, tasks, cancels)
    assert [*first.open_tasks()] == tasks

    tasks[1].settle(FAILED, FAILURE)

    assert first.result is tasks[1]
    assert [task.is_cancelled for task in tasks] == [cancels, False, cancels]
    tasks[0].settle(DONE, 1)
    assert first.result is tasks[1]


def test_one_that_is_settled_already_wins_at_once(executor: Any) -> None:
    ready = done(executor, 1)
    tasks = [plain_task(executor), ready, done(executor, 2)]

    assert AnyTask(executor, tasks, False).result is ready


def test_giving_the_first_up_gives_each_of_them_up(executor: Any) -> None:
    tasks = calls(executor, 2)
    first = AnyTask(executor, tasks, False)

    first.cancel()

    assert withdrawn(executor) == [0, 1]
    assert first.is_cancelled


def test_nobody_waits_for_those_that_have_not_won(executor: Any) -> None:
    tasks = calls(executor, 3)
    AnyTask(executor, tasks, False)

    tasks[1].settle(DONE, 1)
    for task in tasks:
        task.let_go(None)

    assert withdrawn(executor) == [0, 2]


def test_with_a_scope_those_are_given_up_that_were_begun_in_it(executor: Any) -> None:
    before = call(executor, 7)
    inner = scope()
    executor.in_scope(inner)
    first = AnyTask(executor, [before, call(executor, 8)], False)

    first.let_go(inner)

    assert withdrawn(executor) == [8]
    assert first.is_cancelled


# Attempts.


class Attempts:
    """The attempts of one call."""

    def __init__(self, executor: Any, policy: RetryPolicy, limit: int | None = None) -> None:
        self.made: list[CallTask[int]] = []
        self.refuses = False
        self._executor = executor

        def failed(failure: FailureDetails) -> ActivityError:
            return ActivityError("work", failure)

        self.task: RetryTask[int] = RetryTask(executor, policy, self.attempt, limit, failed)

    def attempt(self, number: int) -> Task[int]:
        if self.refuses:
            raise ValueError("cannot be asked for any more")
        self.made.append(call(self._executor, number))
        return self.made[-1]

    def fail(self) -> None:
        """Have the attempt under way fail."""
        self.made[-1].settle(FAILED, FAILURE)


POLICY = RetryPolicy(2.0, max_attempts=3)


def test_a_call_that_succeeds_is_not_tried_again(executor: Any) -> None:
    attempts = Attempts(executor, POLICY)
    assert attempts.task.current is attempts.made[0]

    attempts.made[0].settle(DONE, 7)

    assert (attempts.task.result, len(attempts.made), executor.timers) == (7, 1, [])


def test_a_call_that_fails_is_tried_again_after_a_while(executor: Any) -> None:
    attempts = Attempts(executor, POLICY)

    attempts.fail()
    [timer] = executor.timers
    progress = attempts.task.progress
    assert (timer.due, attempts.task.current, len(attempts.made)) == (2 * SECOND, timer, 1)
    timer.settle(DONE, None)
    attempts.made[1].settle(DONE, 7)

    assert attempts.task.result == 7
    assert (progress.attempts, progress.attempts_max, progress.due) == (1, 3, 2 * SECOND)
    assert progress.failed is not None
    assert progress.failure is not None
    assert (progress.failed.number, progress.failed.target) == (1, "work1")
    assert progress.failure.message == "no luck"


def test_the_failure_of_the_last_attempt_is_that_of_the_call(executor: Any) -> None:
    attempts = Attempts(executor, POLICY)

    for _ in range(3):
        attempts.fail()
        if not attempts.task.is_completed:
            executor.timers[-1].settle(DONE, None)

    assert (len(attempts.made), len(executor.timers)) == (3, 2)
    with pytest.raises(ActivityError, match="work3"):
        _ = attempts.task.result


def test_an_attempt_whose_result_cannot_be_read_has_failed(executor: Any) -> None:
    attempts = Attempts(executor, POLICY)

    attempts.made[0].settle(DONE, b'"seven"')
    executor.timers[0].settle(DONE, None)
    attempts.made[1].settle(DONE, b"7")

    assert attempts.task.result == 7


def test_an_attempt_that_has_ended_when_it_is_made_is_the_last(executor: Any) -> None:
    def attempt(number: int) -> Task[Any]:
        return done(executor, number)

    def failed(failure: FailureDetails) -> ActivityError:
        return ActivityError("work", failure)

    assert RetryTask(executor, POLICY, attempt, None, failed).result == 1


def test_where_it_cannot_be_asked_whether_to_try_again_that_is_not_done(executor: Any) -> None:
    def ask(failure: FailureDetails) -> bool:
        raise LookupError("nobody knows")

    attempts = Attempts(executor, RetryPolicy(2.0, max_attempts=3, retry_on=ask))

    attempts.fail()

    assert executor.timers == []
    with pytest.raises(ActivityError, match=r"no luck.*nobody knows"):
        _ = attempts.task.result


def test_an_attempt_that_cannot_be_asked_for_fails_the_call(executor: Any) -> None:
    attempts = Attempts(executor, POLICY)

    attempts.fail()
    attempts.refuses = True
    executor.timers[0].settle(DONE, None)

    with pytest.raises(ValueError, match="any more"):
        _ = attempts.task.result


def test_a_limit_on_all_attempts_is_a_timer_of_its_own_and_gives_the_last_one_up(
    executor: Any,
) -> None:
    attempts = Attempts(executor, POLICY, 10 * SECOND)
    [limit] = executor.timers
    assert (limit.due, attempts.task.progress.limit) == (10 * SECOND, 10 * SECOND)
    attempts.fail()
    executor.timers[1].settle(DONE, None)

    limit.settle(DONE, None)

    assert withdrawn(executor) == [2]
    with pytest.raises(ActivityError, match="no result within 10 seconds, attempts: 2") as found:
        _ = attempts.task.result
    assert found.value.failure.cause is not None
    assert found.value.failure.cause.message == "no luck"


def test_a_limit_is_taken_back_with_the_result(executor: Any) -> None:
    attempts = Attempts(executor, POLICY, 10 * SECOND)

    attempts.made[0].settle(DONE, 7)

    assert executor.timers[0].is_cancelled
    assert attempts.task.result == 7


def test_no_attempt_begins_that_would_be_behind_the_limit(executor: Any) -> None:
    attempts = Attempts(executor, POLICY, SECOND)

    attempts.fail()

    assert len(executor.timers) == 1  # the limit's own
    assert attempts.task.is_faulted


def test_a_history_from_before_there_were_such_timers_has_none(executor: Any) -> None:
    executor.lacks = True

    attempts = Attempts(executor, POLICY, 10 * SECOND)

    assert (executor.timers, attempts.task.progress.limit) == ([], None)


def test_an_attempt_that_is_cancelled_cancels_the_call(executor: Any) -> None:
    attempts = Attempts(executor, POLICY)

    attempts.made[0].cancel()

    assert attempts.task.is_cancelled


@pytest.mark.parametrize("between", [False, True])
def test_giving_a_call_up_gives_up_what_is_under_way_of_it(executor: Any, between: bool) -> None:
    attempts = Attempts(executor, POLICY, 10 * SECOND)
    if between:
        attempts.fail()

    attempts.task.cancel()

    timers = [number for what, number in executor.asked if what == "withdraw timer"]
    assert (withdrawn(executor), sorted(timers)) == (([], [1, 2]) if between else ([1], [1]))
    assert attempts.task.is_cancelled


RACES = App()


@RACES.activity
async def run(number: int) -> int:
    return number


@RACES.orchestration
async def race_twice(ctx: OrchestrationContext, plan: list[Any]) -> int:
    """Have calls race in two races, which may be made of others; tell who won the second."""
    nested, count = plan
    calls: list[Any] = [ctx.call_activity(run, number) for number in range(count)]
    losers = [ctx.task_all(calls[1:])] if nested else calls[1:]
    one = ctx.task_any([calls[0], *losers], cancel_losers=True)
    other = ctx.task_any(calls[::-1])
    await one
    return calls.index(await other)


@pytest.mark.parametrize("nested", [False, True])
def test_what_a_race_cancels_is_seen_by_another_one_in_one_order_however_much_it_is(
    nested: bool,
) -> None:
    won: list[Any] = []
    for wide in (0, executors.WIDE):
        with (
            mock.patch.object(executors, "WIDE", wide),
            Instance(Lookup(RACES, 1_000_000)) as instance,
        ):
            begin = Start("race_twice", None, orjson.dumps([nested, 3]))
            instance.take(begin, START)
            instance.take(Completion("TaskCompleted", 1, 1, b"1"), START)
            won.append(instance.actor.output)

    assert won[0] is not None
    assert won[0] == won[1]
