"""What can be read off a history."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, strategies as st

from perdure.actors.errors import FailureDetails
from perdure.actors.replay import history
from perdure.actors.replay.history import (
    ANSWERS,
    FAILURES,
    FIELDS,
    IDENTITY,
    SILENT,
    describe,
    named_fields,
    open_activities,
    open_children,
    open_lock,
    parse_history,
)
from tests.actors.recording import FLOWS, PROGRAMS
from tests.actors.replay.test_executor import live


def scheduled(number: int, name: str = "work", packed: list[Any] | None = None) -> list[Any]:
    return ["TaskScheduled", 1, number, name, 77, packed or [], None, 1, None, number]


def test_stored_chunks_are_one_list_of_events() -> None:
    chunks = [b'[["A",1],["B",2]]', b"[]", b'[["C",3]]']

    assert parse_history(chunks) == [["A", 1], ["B", 2], ["C", 3]]
    assert parse_history([]) == []


def test_an_activity_is_open_until_it_has_its_first_answer() -> None:
    events: list[list[Any]] = [
        scheduled(1),
        scheduled(2, packed=[{"a": 1}]),
        ["TaskCompleted", 2, 1, 5],
        scheduled(3),
        ["TaskFailed", 3, 3, []],
        ["TaskCompleted", 4, 1, 6],
        scheduled(4, packed=[None]),
    ]

    found = open_activities(events, "x", 7)

    assert [(c.caller, c.name, c.input) for c in found] == [
        (("x", 7, 2), "work", b'{"a":1}'),
        (("x", 7, 4), "work", b"null"),
    ]
    assert open_activities(events[:1], "x", 7)[0].input is None


def test_children_are_open_until_they_have_answered() -> None:
    kind = "SubOrchestrationInstanceCreated"
    events = [[kind, 1, n, "flow", 0, f"child-{n}", None] for n in (1, 2, 3)]
    events.append(["SubOrchestrationInstanceCompleted", 2, 1, None])
    events.append(["SubOrchestrationInstanceFailed", 2, 3, None])

    assert open_children(events) == ["child-2"]


def test_a_lock_is_open_until_it_is_released() -> None:
    asked: list[Any] = ["EntityLockRequested", 1, 3, ["@a@1", "@b@2"]]

    assert open_lock([]) is None
    assert open_lock([asked]) == (3, ["@a@1", "@b@2"])
    assert open_lock([asked, ["EntityLockReleased", 2, 3]]) is None


def test_an_event_is_described_by_what_identifies_it() -> None:
    assert describe(None) == "nothing"
    assert describe(scheduled(1)) == "TaskScheduled(1, 'work', 77)"
    assert describe(["TimerCreated", 1, 2, 9]) == "TimerCreated(2, 9)"


def test_the_tables_agree_with_each_other() -> None:
    assert set(ANSWERS.values()) <= set(IDENTITY)
    assert set(ANSWERS) >= FAILURES
    assert not set(IDENTITY) & set(ANSWERS)
    assert not SILENT & (set(IDENTITY) | set(ANSWERS))


@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_what_is_read_off_a_history_is_what_its_live_code_has_open(
    flow: str, program: Any, seed: int
) -> None:
    _, states, _ = live(flow, program, seed)

    for state in states:
        if state["status"] != "Running" or not state["history"]:
            continue
        history = state["history"]
        found = open_activities(history, "x", state["execution"])
        assert sorted(call.caller.task for call in found) == state["unanswered"]
        assert state["pending"] == len(found)
        # Given up, a child stays in the history, so the code may have fewer.
        assert set(state["children"].values()) <= set(open_children(history))
        locks = {number for number, kind in state["tasks"] if kind == "EntityLock"}
        lock = open_lock(history)
        assert locks <= ({lock[0]} if lock is not None else set())


def documented() -> dict[str, list[str]]:
    """Give the fields of each kind of event as the module's docstring lists them."""
    found: dict[str, list[str]] = {}
    for line in (history.__doc__ or "").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        names = re.findall(r"``([A-Za-z.]+)``", cells[0])
        if not line.startswith("| ``") or len(cells) != 2:
            continue
        first = names[0]
        fields = [] if cells[1] == "-" else [field.strip() for field in cells[1].split(",")]
        for name in names:
            if name.startswith("..."):
                name = re.sub(r"(Completed|Suspended)$", name[3:], first)
            last = fields[-1] if fields else ""
            answers = last.split(" / ")
            found[name] = [*fields[:-1], answers["Failed" in name]] if len(answers) > 1 else fields
    return found


def test_every_kind_of_event_names_all_its_fields() -> None:
    kinds = documented()

    assert set(kinds) == set(FIELDS)
    assert {kind: len(fields) for kind, fields in kinds.items()} == {
        kind: len(names) for kind, names in FIELDS.items()
    }
    assert set(ANSWERS) | set(IDENTITY) | SILENT <= set(FIELDS)


def test_an_event_is_shown_by_names() -> None:
    when = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    failure = ["ValueError", "no", "", None, False]

    assert named_fields(["TimerCreated", 5, 2, 1_000_000]) == {"task_id": 2, "due": when}
    assert named_fields(["TimerCreated", 5, 2, None])["due"] is None
    assert named_fields(["TaskScheduled", 5, 1, "pay", 77, [{"a": 1}], None, 1, None, 1]) == {
        "task_id": 1,
        "name": "pay",
        "input_hash": 77,
        "input": {"a": 1},
        "timeout": None,
        "attempt": 1,
        "tags": None,
        "first_task_id": 1,
    }
    assert "input" not in named_fields(["TaskScheduled", 5, 1, "pay", 0, [], None, 1, None, 1])
    assert "input" not in named_fields(["EntityOperationCalled", 5, 1, "@a@b", "get", 0])
    assert named_fields(["TaskFailed", 5, 1, failure])["failure"] == FailureDetails(
        "ValueError", "no"
    )
    assert named_fields(["TaskCompleted", 5, 1, 7, 1_000_000, 3]) == {
        "task_id": 1,
        "result": 7,
        "started": when,
        "shard": 3,
    }
    assert named_fields(["TaskCompleted", 5, 1, 7]) == {"task_id": 1, "result": 7}
    assert named_fields(["TimerFired", 5, 1, "new"]) == {"task_id": 1, "more": ["new"]}
    assert named_fields(["Unknown", 5, "x"]) == {"more": ["x"]}
