"""The plan of a rewind: what of a history stands, and what would be forgotten, without an actor."""

from __future__ import annotations

from typing import Any

from perdure.actors.errors import FailureDetails
from perdure.actors.orchestrations.rewind_plan import cut, find_plan, forgotten, without_failures

FAILURE = ["ValueError", "bad", "", None, False]


def test_a_history_stands_without_its_failures_and_what_followed_from_them() -> None:
    started: list[Any] = ["ExecutionStarted", 0, "f", None, 1, None]
    tasks: list[list[Any]] = [
        ["TaskScheduled", 0, n, "w", 0, [], None, 1, None, n] for n in (1, 2, 3)
    ]
    a, b, c = tasks
    events: list[list[Any]] = [
        started,
        a,
        b,
        ["TaskFailed", 1, 1, FAILURE],
        c,
        ["TaskCompleted", 2, 3, None],
        ["TaskCompleted", 3, 2, None],
    ]

    assert without_failures(events) == [started, a, b, events[6]]
    assert without_failures(events, since=4) == events
    assert without_failures(events, undone=[("TaskScheduled", 2)]) == [started, a]


def test_a_call_that_was_only_given_up_is_no_failure() -> None:
    given_up: list[Any] = ["Cancelled", "the orchestration gave it up", "", None, False]
    events: list[list[Any]] = [
        ["ExecutionStarted", 0, "f", None, 1, None],
        ["TaskScheduled", 0, 1, "w", 0, [], None, 1, None, 1],
        ["TaskFailed", 1, 1, given_up],
    ]

    assert without_failures(events) == events


def test_a_failed_call_of_an_entity_whose_input_is_not_known_cannot_be_made_again() -> None:
    events: list[list[Any]] = [
        ["ExecutionStarted", 0, "f", None, 1, None],
        ["EntityOperationCalled", 0, 1, "@e@x", "add", 77],
        ["EntityOperationFailed", 1, 1, FAILURE],
    ]

    assert without_failures(events) is None
    assert cut(events, {1}) == ([], events[:1])


def test_a_history_is_cut_before_what_made_the_first_call_that_failed() -> None:
    events: list[list[Any]] = [
        ["ExecutionStarted", 0, "f", None, 1, None],
        ["TaskScheduled", 0, 1, "w", 0, [], None, 1, None, 1],
        ["TaskCompleted", 1, 1, None],
        ["TaskScheduled", 1, 2, "w", 0, [], None, 1, None, 2],
        ["EntityLockRequested", 1, 3, ["@e@x"]],
        ["TaskScheduled", 1, 4, "w", 0, [], None, 1, None, 4],
        ["TaskFailed", 2, 4, FAILURE],
    ]

    assert cut(events, set()) == (events[:2], events[2:4])  # a lock is asked for anew
    assert cut(events[:6], set()) == (events[:2], events[2:4])  # the code itself failed


def test_what_was_done_and_does_not_stand_is_named() -> None:
    events: list[list[Any]] = [
        ["ExecutionStarted", 0, "f", None, 1, None],
        ["TaskScheduled", 0, 1, "book", 0, [], None, 1, None, 1],
        ["TaskCompleted", 1, 1, None],
        ["SubOrchestrationInstanceCreated", 1, 2, "child", 0, "c", None],
        ["SubOrchestrationInstanceCompleted", 2, 2, None],
        ["EventSent", 2, 3, "other", "e", 0],
        ["EntityOperationSignaled", 2, 4, "@e@x", "add", 0, None],
        ["EntityOperationCalled", 2, 5, "@e@x", "get", 0],
    ]

    assert forgotten(events, events[:1]) == [
        "activity 'book'",
        "sub-orchestration 'child' (c)",
        "event 'e' to other",
        "signal @e@x.add",
        "call @e@x.get",
    ]
    assert forgotten(events, events) == []
    # Of a call that failed nothing is lost.
    assert forgotten([*events, ["EntityOperationFailed", 3, 5, FAILURE]], events[:7]) == []


COMPENSATED: list[list[Any]] = [
    ["ExecutionStarted", 0, "f", None, 1, None],
    ["TaskScheduled", 0, 1, "book", 0, [], None, 1, None, 1],
    ["TaskFailed", 1, 1, FAILURE],
    ["TaskScheduled", 1, 2, "refund", 0, [], None, 1, None, 2],
    ["TaskCompleted", 2, 2, None],
    ["ExecutionCompleted", 3, "Failed", None],
]


def no_replay(events: list[list[Any]]) -> tuple[None, int]:
    return None, len(events)


def test_what_would_be_lost_is_named_where_no_failure_can_be_taken_back() -> None:
    failure = FailureDetails("ActivityError", "not booked")

    assert find_plan(COMPENSATED, False, failure, no_replay) == ["activity 'refund'"]


def test_there_is_no_plan_where_the_code_does_not_even_match_what_came_before() -> None:
    assert find_plan(COMPENSATED, True, None, no_replay) is None
