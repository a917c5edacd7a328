"""Commands for an orchestration instance, in every state that it may be in, without a runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from perdure.actors.effects import RELOAD
from perdure.actors.failures import read_failure
from perdure.actors.messages import Caller, Start
from perdure.actors.orchestrations.commands import COMMANDS
from tests.actors.orchestrations.flows import (
    PARENT,
    begun,
    chain,
    command,
    done,
    events_of,
    failed,
    go,
    granted,
    kinds,
    leaves,
    locks,
    many,
    run,
    sent,
    unborn,
    waits,
)
from tests.actors.recording import START, Instance, Recorder


def pending() -> Instance:
    instance = unborn()
    instance.take(Start("waits", None, None, start_at=START + 10), START)
    return instance


def after(*actions: str) -> Instance:
    instance = begun(waits)
    for action in actions:
        instance.take(command(action), START)
    return instance


def completed() -> Instance:
    instance = begun(waits)
    instance.take(go(1), START)
    return instance


def has_failed() -> Instance:
    instance = begun(chain)
    instance.take(failed(1), START)
    return instance


STATES: dict[str, Callable[[], Instance]] = {
    "Pending": pending,
    "Running": lambda: begun(waits),
    "Suspended": lambda: after("suspend"),
    "Running, parked": lambda: after("park"),
    "Completed": completed,
    "Failed": has_failed,
    "Canceled": lambda: after("cancel"),
    "Terminated": lambda: after("terminate"),
}
REFUSED = {"rewind": "InstanceNotFinishedError", "purge": "InstanceNotFinishedError"}


def read_table() -> list[tuple[str, str, str]]:
    """The documents' table: a status, a command, and what becomes of it."""
    text = Path(__file__).parents[3].joinpath("docs", "how-to", "client.md").read_text("utf-8")
    head, _, *rows = text[text.index("| status | `suspend`") :].split("\n\n")[0].splitlines()
    actions = [cell.strip(" `") for cell in head.strip("|").split("|")][1:]
    table: list[tuple[str, str, str]] = []
    for row in rows:
        state, *outcomes = (cell.strip() for cell in row.strip("|").split("|"))
        table += [(state, *pair) for pair in zip(actions, outcomes, strict=True)]
    return table


TABLE = read_table()


def standing(instance: Instance) -> str:
    """How an instance stands, in the words of the table."""
    if instance.stored is None:
        return "gone"
    status = instance.stored.progress.status
    return status if instance.actor.parked is None else f"{status}, parked"


def test_the_table_of_the_documents_is_whole() -> None:
    assert {state for state, _, _ in TABLE} == {*STATES}
    assert {action for _, action, _ in TABLE} == {*COMMANDS} - {"park"}
    assert len(TABLE) == len(STATES) * (len(COMMANDS) - 1)


@pytest.mark.parametrize(("state", "action", "outcome"), TABLE)
def test_a_command_does_in_each_status_what_the_documents_say(
    state: str, action: str, outcome: str
) -> None:
    instance = STATES[state]()
    effects = instance.take(command(action), START + 1)

    if outcome == "refused":
        assert effects == [("refuse", REFUSED.get(action, "InstanceFinishedError"))]
        assert standing(instance) == state
    elif outcome == "waits":
        assert effects == []
        assert len(instance.held) == 1
    else:
        assert "reply" in kinds(effects)
        assert standing(instance) == outcome


@pytest.mark.parametrize("action", COMMANDS)
def test_a_command_for_what_there_is_not_is_refused(action: str) -> None:
    assert unborn().take(command(action), START) == [("refuse", "InstanceNotFoundError")]


@pytest.mark.parametrize("state", STATES)
def test_what_cannot_be_read_parks_an_instance_that_has_not_ended(state: str) -> None:
    instance = STATES[state]()
    instance.take(command("park"), START + 1)

    parked = state if state.endswith("parked") else f"{state}, parked"
    assert standing(instance) == (parked if instance.actor.is_live else state)


def test_a_refused_command_leaves_all_as_it_was() -> None:
    instance = completed()
    before = instance.stored, list(instance.history)
    for action in ("terminate", "cancel", "suspend", "resume", "rewind"):
        instance.take(command(action), START + 9)

    assert (instance.stored, instance.history) == before


def test_a_terminated_instance_runs_no_code_and_ends_all_that_is_under_way() -> None:
    instance = begun(many)
    effects = instance.take(command("terminate"), START + 1)

    assert kinds(effects) == ["send", "cancel activity", "disarm timer", "finished", "reply"]
    assert sent(effects) == [("c", ["command", "terminate", "why", True, 0, None])]
    assert events_of(instance)[-2:] == ["ExecutionTerminated", "ExecutionCompleted"]


def test_a_termination_that_is_not_recursive_leaves_the_children_alone() -> None:
    assert sent(begun(many).take(command("terminate", recursive=False), START + 1)) == []


def test_terminated_under_a_lock_it_gives_that_back_whether_it_is_live_or_parked() -> None:
    for actions in ([], ["park"]):
        instance = begun(locks)
        instance.take(granted(1), START)
        for action in actions:
            instance.take(command(action), START)
        with instance.restored() as again:
            effects = again.take(command("terminate"), START + 1)
            assert [(who, fields[0]) for who, fields in sent(effects)] == [("@thing@t", "unlock")]


def test_a_parent_is_told_that_its_child_was_terminated() -> None:
    ((target, fields),) = sent(begun(waits, parent=PARENT).take(command("terminate"), START + 1))

    assert (target, fields[1:4]) == ("p", ["SubOrchestrationInstanceFailed", 1, 3])
    assert read_failure(orjson.dumps(fields[4])).error_type == "Terminated"


def test_a_command_for_no_instance_fails_the_parent_that_waits() -> None:
    with unborn() as instance:
        effects = instance.take(command("rewind", execution=1, parent=PARENT), START)

    ((target, fields),) = sent(effects)
    assert (target, fields[1]) == ("p", "SubOrchestrationInstanceFailed")


def test_a_second_cancellation_does_not_break_the_first_off() -> None:
    instance = begun("cleans_up")
    instance.take(command("cancel"), START)
    assert instance.actor.is_live

    assert kinds(instance.take(command("cancel"), START)) == ["reply"]
    run(instance, done(1, "cleaned"))
    assert instance.state()["status"] == "Canceled"


def test_a_cancelled_instance_has_its_children_cancelled() -> None:
    effects = begun(leaves).take(command("cancel"), START)

    assert sent(effects) == [
        ("c", ["command", "cancel", "its parent was cancelled", True, 0, None])
    ]


def test_a_suspended_instance_holds_what_comes_and_takes_it_when_it_is_resumed() -> None:
    instance = after("suspend")
    assert instance.take(go("now"), START) == []
    assert instance.stored is not None
    assert orjson.loads(instance.stored.progress.notes or b"") == {"suspended": "why"}

    instance.take(command("resume"), START)
    assert instance.stored.origin.name == "waits"
    assert instance.actor.outcome == ("Completed", b'"now"', None)
    assert events_of(instance)[1:3] == ["ExecutionSuspended", "ExecutionResumed"]


def test_one_that_is_resumed_behind_its_start_time_begins_and_one_before_it_does_not() -> None:
    for now, status in ((START + 20, "Running"), (START + 1, "Pending")):
        instance = pending()
        instance.take(command("suspend"), START)
        instance.take(command("resume"), now)
        assert instance.state()["status"] == status
        instance.actor.close()


def test_a_parked_instance_that_is_resumed_behind_its_start_time_does_not_begin() -> None:
    instance = pending()
    run(instance, command("suspend"), command("park"), command("resume"), now=START + 20)

    assert instance.state()["status"] == "Pending"
    assert instance.history == []


def test_a_retry_asks_for_the_actor_to_be_loaded_anew() -> None:
    assert begun(waits).actor.handle(command("retry"), START, Recorder()) is RELOAD


def test_a_retry_begins_what_was_parked_before_its_code_had_begun() -> None:
    instance = unborn()
    instance.actor.bar("it crashed")
    instance.take(Start("waits", None, None), START)
    assert (instance.actor.parked, instance.history) == ("it crashed", [])

    instance.take(command("retry"), START + 1)
    assert instance.actor.parked is None
    assert events_of(instance) == ["ExecutionStarted"]


def test_purged_is_what_was_parked_as_if_it_was_terminated_before() -> None:
    instance = begun(many)
    run(instance, command("park"), go(1))
    effects = instance.take(command("purge"), START + 1)

    assert ("refuse", "InstanceFinishedError") in effects  # the event that was held
    assert [fields[1] for _, fields in sent(effects)] == ["terminate"]
    assert kinds(effects)[-2:] == ["drop activities", "reply"]
    assert effects[-1] == ("reply", b"1")
    assert instance.stored is None
    assert instance.history == []


def test_what_was_purged_may_be_started_again() -> None:
    instance = completed()
    instance.take(command("purge"), START)
    instance.take(Start("waits", None, None), START)

    assert events_of(instance) == ["ExecutionStarted"]


def test_a_rewound_parent_gets_again_the_answer_that_it_has_lost() -> None:
    instance = begun(waits, parent=PARENT)
    instance.take(go(1), START)
    effects = instance.take(command("rewind", execution=1, parent=PARENT), START)

    ((target, fields),) = sent(effects)
    assert (target, fields[:5]) == (
        "p",
        ["completion", "SubOrchestrationInstanceCompleted", 1, 3, 1],
    )


def test_a_child_that_is_still_under_way_is_only_waited_for() -> None:
    effects = begun(waits, parent=PARENT).take(command("rewind", execution=1, parent=PARENT), START)

    assert kinds(effects) == ["reply"]


def test_a_child_answers_a_rewound_parent_under_its_new_number_also_when_it_was_loaded() -> None:
    instance = begun(waits, parent=PARENT)
    again = PARENT._replace(task=9)
    instance.take(command("rewind", execution=1, parent=again), START)

    with instance.restored() as loaded:
        ((_, fields),) = sent(loaded.take(go(1), START))
    assert fields[2:4] == [1, 9]


@pytest.mark.parametrize("action", ["terminate", "cancel"])
def test_a_child_that_was_stopped_fails_its_rewound_parent_once_more(action: str) -> None:
    instance = begun(waits, parent=PARENT)
    instance.take(command(action), START)
    effects = instance.take(command("rewind", execution=1, parent=PARENT), START)

    ((target, fields),) = sent(effects)
    assert (target, fields[1]) == ("p", "SubOrchestrationInstanceFailed")


def test_a_rewound_parent_whose_child_is_another_ones_by_now_is_told_so() -> None:
    instance = begun(waits, parent=Caller("q", 1, 3))
    ((target, fields),) = sent(instance.take(command("rewind", execution=1, parent=PARENT), START))

    assert target == "p"
    assert read_failure(orjson.dumps(fields[4])).error_type == "InstanceAlreadyExistsError"
