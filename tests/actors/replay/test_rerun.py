"""A history gone through once more, live or ended."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import event, given, settings, strategies as st

from perdure.actors.errors import NondeterminismError
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.actors.replay.history import IDENTITY, named_fields, stored_event
from perdure.actors.times import to_datetime
from tests.actors.recording import FLOWS, PROGRAMS
from tests.actors.replay.test_executor import LOOKUP, live


def follow(flow: str, state: dict[str, Any], history: list[list[Any]]) -> list[int]:
    """Go through a history; gives the places of the events that the code heard of."""
    actor = OrchestrationActor(1, "x", LOOKUP)
    actor.name, actor.execution, actor.input = flow, state["execution"], state["input"]
    heard: list[int] = []
    execution = actor.new_rerun()
    try:
        execution.follow(history, state["input"], heard.append)
    finally:
        execution.close()
    return heard


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_what_has_lived_is_gone_through_at_any_time_of_its_life(
    flow: str, program: Any, seed: int
) -> None:
    _, states, _ = live(flow, program, seed)

    for state in states:
        if state["history"]:
            event(state["status"])
            heard = follow(flow, state, state["history"])
            assert heard == sorted(heard)
            assert not any(state["history"][place][0] in IDENTITY for place in heard)


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_an_end_that_is_another_than_that_of_the_code_is_refused(
    flow: str, program: Any, seed: int
) -> None:
    _, states, _ = live(flow, program, seed)
    state = states[-1]
    if not state["history"] or state["history"][-1][0] == "ExecutionTerminated":
        return
    history = orjson.loads(orjson.dumps(state["history"]))
    place = next((at for at, one in enumerate(history) if one[0] == "ExecutionCompleted"), None)
    if any(one[0] == "ExecutionTerminated" for one in history):
        return
    if place is None:
        place = len(history)
        history.append(["ExecutionCompleted", history[-1][1], "Completed"])
    else:
        history[place][2] = "Failed" if state["status"] != "Failed" else "Completed"

    with pytest.raises(NondeterminismError) as caught:
        follow(flow, state, history)

    assert caught.value.position == place
    assert caught.value.recorded.startswith("ExecutionCompleted(")


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_an_event_is_stored_again_as_it_was_from_its_named_fields(
    flow: str, program: Any, seed: int
) -> None:
    _, states, _ = live(flow, program, seed)

    for one in states[-1]["history"]:
        stored = one[:3] if one[0] == "EntityLockGranted" else one  # that has no content
        assert stored_event(one[0], to_datetime(one[1]), named_fields(one)) == stored


@pytest.mark.parametrize(
    "stored",
    [
        ["TaskScheduled", 5, 1, "pay", 77, [{"a": 1}], 2.5, 1, {"k": "v"}, 1, "a summary"],
        ["TaskScheduled", 5, 1, "pay", 0, [], None, 1, None, 1],
        ["TaskScheduled", 5, 1, "pay", 0, [None], None, 1, None, 1],
        ["TaskCompleted", 5, 1, None, 1_000_000, 3],
        ["TaskCompleted", 5, 1, 7, None, 3],
        ["TaskFailed", 5, 1, ["ValueError", "no", "", ["OSError", "x", "y", None, False], True]],
        ["TimerCreated", 5, 2, 1_000_000, 40],
        ["TimerFired", 5, 1, "new"],
        ["EntityOperationCalled", 5, 1, "@a@b", "get", 0],
        ["EntityOperationCalled", 5, 1, "@a@b", "get", 4, None],
        ["EntityOperationSignaled", 5, 1, "@a@b", "get", 4, 9, {"x": 1}],
        ["ExecutionStarted", 5, "flow", None, 1, None, {"tenant": "north"}],
        ["EventRaised", 5, "go", None],
        ["ExecutionRewound", 5, "why", None, [3]],
    ],
)
def test_events_of_all_shapes_are_stored_again_as_they_were(stored: list[Any]) -> None:
    assert stored_event(stored[0], to_datetime(stored[1]), named_fields(stored)) == stored


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="no kind of event 'Nonsense'"):
        stored_event("Nonsense", to_datetime(5), {})
    with pytest.raises(ValueError, match="TimerFired has no field 'when'"):
        stored_event("TimerFired", to_datetime(5), {"task_id": 1, "when": 3})
