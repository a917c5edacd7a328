"""Rewinding a failed instance: what of its history stands, and what is done again, without a runtime."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from perdure.actors.errors import InternalError, RewindError
from perdure.actors.failures import read_failure
from perdure.actors.messages import Caller, Command
from perdure.actors.replay.locks import LOCK_AGAIN
from tests.actors.orchestrations.flows import (
    PARENT,
    activities,
    begun,
    chain,
    command,
    compensates,
    done,
    events_of,
    failed,
    fickle,
    go,
    granted,
    kinds,
    locks,
    logs,
    many,
    raises,
    run,
    sent,
    starts_badly,
    ways,
)
from tests.actors.recording import START, Instance, Recorder

FAILURE = ["ValueError", "bad", "", None, False]


def rewound(instance: Instance, **options: Any) -> list[tuple[Any, ...]]:
    """Rewind a failed instance; gives what that did."""
    assert instance.state()["status"] == "Failed"
    return instance.take(command("rewind", **options), START + 9)


def refusals(effects: list[tuple[Any, ...]]) -> list[str]:
    return [effect[1] for effect in effects if effect[0] == "refuse"]


def test_what_failed_is_done_again_and_what_completed_is_not() -> None:
    instance = begun(chain)
    run(instance, done(1, "A"), failed(2))
    effects = rewound(instance)

    assert activities(effects) == ["b"]
    assert effects[-1] == ("reply", None)
    assert "TaskFailed" not in events_of(instance)
    assert events_of(instance)[-1] == "ExecutionRewound"
    run(instance, done(2, "B"), done(3, "C"))
    assert instance.actor.outcome == ("Completed", b'["A","B","C"]', None)


def test_each_rewind_is_counted() -> None:
    instance = begun(chain)
    for count in (1, 2):
        run(instance, failed(1))
        rewound(instance)
        assert instance.stored is not None
        assert orjson.loads(instance.stored.progress.notes or b"") == {"rewinds": count}


def test_a_compensation_is_not_forgotten_unless_that_is_forced() -> None:
    def undone() -> Instance:
        instance = begun(compensates)
        run(instance, done(1, "booked"), failed(2), done(3, "cancelled"))
        run(
            instance,
            done(6, "child", kind="SubOrchestrationInstance"),
            done(7, 2, kind="EntityOperation"),
        )
        return instance

    instance = undone()
    before = list(instance.history)
    assert refusals(rewound(instance)) == ["RewindError"]
    assert instance.history == before

    assert activities(rewound(undone(), force=True)) == ["pay"]


def test_only_as_many_failures_are_taken_back_as_nothing_is_forgotten_for() -> None:
    instance = begun(logs)
    run(instance, failed(1), done(2, "noted"), failed(3))
    effects = rewound(instance)

    assert activities(effects) == ["b"]
    assert events_of(instance).count("TaskFailed") == 1


def test_code_that_failed_by_itself_is_given_again_what_it_saw_last() -> None:
    instance = begun(raises)
    run(instance, done(1, "A"), go())
    ways.add("repaired")
    effects = rewound(instance)

    assert activities(effects) == ["z"]
    run(instance, done(2, "Z"))
    assert instance.state()["status"] == "Completed"


def test_code_that_is_not_repaired_fails_once_more() -> None:
    instance = begun(raises)
    run(instance, done(1, "A"), go())
    rewound(instance)

    assert instance.state()["status"] == "Failed"
    assert instance.actor.noted() == {"rewinds": 1}


def test_what_had_come_in_already_is_kept_for_the_next_rewind_where_it_fails_again() -> None:
    instance = begun(raises)
    run(instance, done(1, "A"), go(1), now=START)
    ways.add("repaired")
    rewound(instance)
    run(instance, go(2), failed(2))
    ways.clear()
    rewound(instance, force=True)
    assert events_of(instance)[-3:] == ["EventRaised", "ExecutionCompleted", "EventRaised"]

    ways.add("repaired")
    rewound(instance)
    assert instance.state()["status"] == "Running"
    assert events_of(instance).count("EventRaised") == 2


def test_code_that_failed_at_once_begins_anew_and_repeats_nothing_that_it_sent() -> None:
    instance = begun(starts_badly)
    ways.add("repaired")
    effects = rewound(instance)

    assert sent(effects) == []
    assert activities(effects) == ["a"]
    assert events_of(instance) == [
        "ExecutionRewound",
        "ExecutionStarted",
        "EntityOperationSignaled",
        "TimerCreated",
        "TaskScheduled",
    ]
    # At its old time, by which the code decides: the timer is due when it was.
    assert [effect[2] for effect in effects if effect[0] == "arm timer"] == [START + 5_000_000]


def test_all_that_is_open_is_set_out_again() -> None:
    instance = begun(many)
    run(instance, failed(2, kind="SubOrchestrationInstance"))
    effects = rewound(instance)

    assert activities(effects) == ["a"]
    assert [effect[1].task for effect in effects if effect[0] == "arm timer"] == [3]
    again = Command("rewind", "its parent was rewound", True, 1, False, Caller("x", 1, 2))
    assert ("c", orjson.loads(orjson.dumps([*again.content(), None]))) in sent(effects)


def test_what_completed_when_it_had_failed_is_not_done_again() -> None:
    instance = begun(many)
    run(instance, failed(2, kind="SubOrchestrationInstance"), done(1, "A"))
    effects = rewound(instance)

    assert activities(effects) == []
    run(instance, done(2, "C", kind="SubOrchestrationInstance"), done(4, 1, kind="EntityOperation"))
    assert events_of(instance).count("TaskCompleted") == 1


def test_a_failed_call_of_an_entity_is_made_again() -> None:
    instance = begun(many)
    run(instance, failed(4, kind="EntityOperation"))
    effects = rewound(instance)

    calls = [fields for target, fields in sent(effects) if target == "@thing@t"]
    assert [fields[:3] for fields in calls] == [["operation", "add", [1]]]


def test_a_lock_is_asked_for_again_before_the_calls_under_it() -> None:
    instance = begun(locks)
    run(instance, granted(1), done(2, 1, kind="EntityOperation"))
    run(instance, failed(3, kind="EntityOperation"))
    effects = rewound(instance)

    assert [fields[0] for _, fields in sent(effects)] == ["lock"]
    assert sent(effects)[0][1][1] == ["x", 1, 1 + LOCK_AGAIN]
    effects = run(instance, granted(1 + LOCK_AGAIN))
    assert [fields[:2] for _, fields in sent(effects)] == [["operation", "add"]]
    run(instance, done(3, 3, kind="EntityOperation"))
    assert instance.state()["status"] == "Completed"


def test_code_that_does_not_match_what_came_before_the_failure_parks_the_instance() -> None:
    instance = begun("waits_and_raises")
    run(instance, go())
    ways.add("more")
    rewound(instance)

    assert instance.actor.parked_type == "NondeterminismError"
    assert instance.state()["status"] == "Running"


def test_code_that_decides_something_else_than_when_it_was_asked_fails_the_instance() -> None:
    instance = begun(fickle)
    run(instance, go())
    assert instance.state()["status"] == "Failed"
    rewound(instance)

    assert instance.state()["status"] == "Failed"
    failure = instance.actor.failure
    assert failure is not None
    assert read_failure(failure).error_type == "NondeterminismError"


def test_a_parent_whose_child_cannot_be_rewound_gets_its_failure_once_more() -> None:
    instance = begun(compensates, parent=PARENT)
    run(instance, done(1, "booked"), failed(2), done(3, "cancelled"))
    run(instance, done(6, "", kind="SubOrchestrationInstance"), done(7, 2, kind="EntityOperation"))
    effects = rewound(instance, execution=1, parent=PARENT)

    assert refusals(effects) == ["RewindError"]
    ((target, fields),) = sent(effects)
    failure = read_failure(orjson.dumps(fields[4]))
    assert (target, failure.error_type) == ("p", "RewindError")
    assert failure.cause is not None
    assert failure.cause.error_type == "ActivityError"


def test_a_rewind_may_be_refused_by_who_loads_the_instance() -> None:
    instance = begun(chain)
    run(instance, failed(1))
    instance.actor.refuse_rewind(InternalError("it crashed too often"))
    message = Command("rewind")
    message.loaded = True
    recorder = Recorder()
    instance.actor.handle(message, START, recorder)

    assert recorder.effects == [("refuse", "InternalError")]


def test_what_was_found_out_for_a_rewind_is_let_go_with_the_actor() -> None:
    instance = begun(chain)
    run(instance, failed(1))
    with instance.restored() as again:
        again.actor.prepare_rewind(again.history, False)
        again.actor.close()
        assert again.actor.rewinding is None


def test_a_refused_rewind_names_what_would_be_forgotten() -> None:
    instance = begun(compensates)
    run(instance, done(1, "booked"), failed(2), done(3, "cancelled"))
    run(instance, done(6, "", kind="SubOrchestrationInstance"), done(7, 2, kind="EntityOperation"))
    with instance.restored() as again:
        again.actor.prepare_rewind(again.history, False)
        error = again.actor.rewinding

    assert isinstance(error, RewindError)
    assert "activity 'work', signal @thing@t.add, event 'cancelled' to other" in str(error)


@pytest.mark.parametrize("flow", [chain, many, locks])
def test_a_rewound_instance_that_is_loaded_is_like_the_one_that_was_rewound(flow: Any) -> None:
    instance = begun(flow)
    run(instance, granted(1) if flow is locks else failed(1))
    if flow is locks:
        run(instance, failed(2, kind="EntityOperation"))
    rewound(instance)

    with instance.restored() as again:
        assert again.state() == instance.state()
        assert kinds(again.take(command("suspend"), START + 10)) == ["reply"]
