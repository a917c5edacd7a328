"""The orchestration instance: how it begins, what it takes and how it ends, without a runtime."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from perdure import App
from perdure.actors.changes import InstanceEvents
from perdure.actors.effects import FEED
from perdure.actors.failures import read_failure
from perdure.actors.messages import (
    Backlog,
    Begin,
    Caller,
    Event,
    LockRequest,
    Message,
    OnExisting,
    Start,
    TimerDue,
)
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.actors.registry.lookup import Lookup
from tests.actors.orchestrations.flows import (
    LOOKUP,
    PARENT,
    activities,
    begun,
    big,
    chain,
    command,
    done,
    events_of,
    failed,
    go,
    goes_on,
    kinds,
    locks,
    many,
    run,
    sent,
    types,
    unborn,
    waited,
    waits,
)
from tests.actors.recording import START, Instance, Recorder

EMPTY = Lookup(App(), 1_000)


def begin(on_existing: OnExisting = "reject", **options: Any) -> Message:
    return waited(Start("waits", None, None, on_existing=on_existing, **options))


def refusals(effects: list[tuple[Any, ...]]) -> list[str]:
    return [effect[1] for effect in effects if effect[0] == "refuse"]


def forgetful(instance: Instance) -> Instance:
    """The instance, loaded where its code is not registered."""
    again = Instance(EMPTY, instance.actor.instance_id)
    again.stored, again.history = instance.stored, list(instance.history)
    again.load()
    return again


def test_what_there_is_not_tells_nothing_and_takes_nothing() -> None:
    instance = unborn()
    assert instance.actor.seal(START) is None

    assert refusals(instance.take(waited(go()), START)) == ["InstanceNotFoundError"]
    assert instance.take(TimerDue(1, 1), START) == []
    assert instance.take(Begin(1), START) == []
    assert kinds(instance.take(done(1), START)) == ["drop answer"]
    assert refusals(instance.take(LockRequest(PARENT, ["x"], 0), START)) == [
        "InstanceNotFoundError"
    ]
    assert instance.stored is None


def test_a_start_begins_and_tells_the_origin_once() -> None:
    instance = unborn()
    instance.actor.handle(begin(tags=b'{"a":"b"}', parent=PARENT), START, Recorder())
    origin, is_rewritten, told, progress = instance.actor.seal(START) or (None,) * 4

    assert origin is not None
    assert (origin.key, origin.name, origin.execution) == ("x", "waits", 1)
    assert (origin.parent, origin.parent_task, origin.parent_execution) == ("p", 3, 1)
    assert not is_rewritten
    assert isinstance(told, InstanceEvents)
    assert told.seq == 0
    assert progress is not None
    assert (progress.status, progress.events) == ("Running", 1)

    again = instance.actor.seal(START)
    assert again == (None, False, None, progress)
    instance.actor.close()


class Unloading(Recorder):
    """Effects for which an instance writes down ahead what it has recorded."""

    def __init__(self, actor: OrchestrationActor) -> None:
        super().__init__()
        self.actor = actor
        self.parts: list[int] = []

    def unload(self, key: str) -> None:
        self.actor.write_ahead()
        self.parts.append(len(self.actor.events))


@pytest.mark.parametrize("count", [1_023, 1_024, 5_000])
def test_what_a_long_turn_has_written_down_ahead_is_told_once_and_in_order(count: int) -> None:
    plain, instance = unborn(), unborn()
    start = Start("counts", None, b"%d" % count)
    plain.take(start, START)
    recorder = Unloading(instance.actor)

    instance.actor.handle(start, START, recorder)
    instance.seal(START)

    assert recorder.parts == [0] * (count // 1_024)
    assert instance.history == plain.history
    assert plain.stored is not None
    assert instance.stored == plain.stored
    assert instance.actor.seal(START) == (None, False, None, plain.stored.progress)


@pytest.mark.parametrize(
    ("on_existing", "outcome"),
    [("reject", ("refuse", "InstanceAlreadyExistsError")), ("reuse", ("reply", b"false"))],
)
def test_a_second_start_leaves_the_one_that_lives_alone(
    on_existing: OnExisting, outcome: tuple[Any, ...]
) -> None:
    instance = begun(waits)
    before = instance.stored

    assert instance.take(begin(on_existing), START + 1) == [outcome]
    assert instance.stored == before


def test_a_child_whose_id_is_taken_fails_for_its_parent() -> None:
    ((target, fields),) = sent(begun(waits).take(begin(parent=PARENT), START + 1))

    assert target == "p"
    assert read_failure(orjson.dumps(fields[4])).error_type == "InstanceAlreadyExistsError"


def test_one_that_replaces_ends_what_is_under_way_and_refuses_what_was_held() -> None:
    instance = begun(many)
    instance.take(command("suspend"), START)
    run(instance, waited(go()))
    backlog = Backlog(3, 9, 5, set())
    instance.actor.hold(backlog)
    recorder = Recorder()
    instance.actor.handle(begin("replace"), START + 2, recorder)
    instance.actor.held = None
    instance.seal(START + 2)

    assert refusals(recorder.effects) == ["InstanceFinishedError"]
    assert ("reply", b"true") in recorder.effects
    assert backlog.refusal == "Terminated"
    assert events_of(instance) == ["ExecutionStarted"]
    assert instance.state()["execution"] == 2


def test_what_was_held_for_an_execution_that_was_replaced_is_done_with() -> None:
    recorder = Recorder()
    actor = begun(waits).actor

    assert actor.give_up(waited(go()), "Terminated", recorder)
    assert actor.give_up(done(1), "Terminated", recorder)
    assert recorder.effects == [("refuse", "InstanceFinishedError")]


def test_a_backlog_is_to_be_fed() -> None:
    assert begun(waits).actor.handle(Backlog(1, 1, 1, set()), START, Recorder()) is FEED


def test_a_scheduled_start_waits_for_its_time_and_holds_what_comes_before() -> None:
    instance = unborn()
    effects = instance.take(begin(start_at=START + 5), START)
    assert effects[1][:3] == ("send later", START + 5, "x")
    assert instance.take(go("early"), START) == []

    with instance.restored() as again:
        again.take(Begin(2), START + 5)  # another execution's
        assert again.state()["status"] == "Pending"
        again.take(Begin(1), START + 5)
        assert again.actor.outcome == ("Completed", b'"early"', None)


def test_context_variables_of_a_scheduled_start_are_told_until_it_begins() -> None:
    instance = unborn()
    message = begin(start_at=START + 5)
    message.carried = {"user": "ann"}
    instance.take(message, START)
    assert instance.actor.noted() == {"carried": {"user": "ann"}}

    with instance.restored() as again:
        assert again.actor.carried == {"user": "ann"}
        last = Begin(1, {"user": "ann"})
        again.take(last, START + 5)
        assert again.actor.noted() == {}
        assert again.history[0][6] == {"user": "ann"}


def test_one_whose_code_is_missing_is_parked_when_it_begins_and_begins_with_a_retry() -> None:
    instance = Instance(EMPTY)
    message = begin()
    message.carried = {"user": "ann"}
    instance.take(message, START)
    assert instance.actor.parked_type == "UnknownNameError"
    assert instance.actor.noted() == {"carried": {"user": "ann"}}

    again = unborn()
    again.stored = instance.stored
    again.load()
    run(again, command("retry"))
    assert events_of(again) == ["ExecutionStarted"]


def test_one_that_waits_to_begin_is_parked_where_its_code_is_missing() -> None:
    instance = unborn()
    instance.take(begin(start_at=START + 5), START)
    again = forgetful(instance)

    assert again.actor.parked_type == "UnknownNameError"
    assert again.take(Begin(1), START + 5) == []
    assert [type(message) for message in again.held] == [Begin]


def test_one_whose_code_is_missing_is_parked_and_still_ends_what_is_open() -> None:
    instance = begun(many)
    again = forgetful(instance)
    assert again.actor.parked_type == "UnknownNameError"

    effects = again.take(command("terminate"), START + 1)
    assert [target for target, _ in sent(effects)] == ["c"]


def test_one_whose_code_does_not_match_is_parked_or_fails_if_that_is_wanted() -> None:
    instance = begun(chain)
    assert instance.stored is not None
    instance.stored = instance.stored._replace(origin=instance.stored.origin._replace(name="waits"))
    again = Instance(LOOKUP)
    again.stored, again.history = instance.stored, instance.history
    again.load()
    assert again.actor.parked_type == "NondeterminismError"

    recorder = Recorder()
    again.actor.fail_mismatch(START + 1, recorder)
    outcome = again.actor.outcome
    assert outcome is not None
    assert outcome[0] == "Failed"
    assert read_failure(outcome[2] or b"").error_type == "NondeterminismError"
    assert again.actor.parked is None


def test_one_of_which_nothing_can_be_read_counts_as_running_and_says_nothing() -> None:
    actor = OrchestrationActor(1, "x", LOOKUP)
    actor.stay_parked("StoreDamagedError", "its row is damaged")

    assert (actor.is_live, actor.is_blocked, actor.changed) == (True, True, False)


def test_damaged_notes_are_worth_less_than_the_instance() -> None:
    instance = begun(waits)
    for notes in (b"{", b"[1]"):
        assert instance.stored is not None
        progress = instance.stored.progress._replace(notes=notes)
        instance.stored = instance.stored._replace(progress=progress)
        with instance.restored() as again:
            assert again.actor.noted() == {}


def test_an_answer_that_comes_twice_is_taken_once() -> None:
    instance = begun(chain)
    assert activities(run(instance, done(1, "A"))) == ["b"]

    assert run(instance, done(1, "A"), failed(1)) == []
    assert kinds(run(instance, failed(1, kind="EntityOperation"))) == ["drop answer"]


def test_an_answer_of_another_execution_is_dropped() -> None:
    assert kinds(run(begun(chain), done(1, "A", execution=7))) == ["drop answer"]


def test_an_answer_behind_the_end_is_dropped_and_counted_unless_all_was_told_to_stop() -> None:
    instance = begun(waits)
    run(instance, go())
    assert kinds(run(instance, done(7))) == ["drop answer"]

    instance = begun(chain)
    run(instance, command("terminate"))
    assert run(instance, done(1)) == []


def test_an_event_behind_the_end_is_refused() -> None:
    instance = begun(waits)
    run(instance, go())

    assert refusals(run(instance, waited(go()))) == ["InstanceFinishedError"]


def test_events_that_nobody_waits_for_are_counted() -> None:
    instance = begun(waits)
    assert instance.actor.unconsumed_count == 0
    run(instance, Event("other", b"1"), Event("other", b"2"))
    assert instance.actor.unconsumed_count == 2

    run(instance, command("terminate"))
    assert instance.actor.unconsumed_count == 0


def test_a_clients_event_of_another_type_than_is_waited_for_is_refused_with_the_reason() -> None:
    instance = begun(types)
    assert refusals(run(instance, waited(go("text")))) == ["PayloadError"]
    assert events_of(instance) == ["ExecutionStarted"]

    run(instance, waited(go(5)))
    assert instance.actor.outcome == ("Completed", b"5", None)


def test_a_timer_of_another_execution_or_one_that_is_not_waited_for_does_nothing() -> None:
    instance = begun(many)
    before = list(instance.history)

    assert run(instance, TimerDue(2, 3), TimerDue(1, 99)) == []
    assert instance.history == before
    run(instance, command("suspend"), TimerDue(1, 3))
    assert len(instance.held) == 1


def test_a_result_that_is_too_large_fails_the_instance() -> None:
    instance = begun(big, parent=PARENT)
    effects = run(instance, go())

    assert instance.state()["status"] == "Failed"
    ((target, fields),) = sent(effects)
    assert (target, fields[1]) == ("p", "SubOrchestrationInstanceFailed")
    assert instance.state()["failure_type"] == "PayloadTooLargeError"


def test_one_that_continues_as_new_begins_again_by_a_message_and_keeps_its_events() -> None:
    instance = begun(goes_on)
    effects = run(instance, Event("other", b"1"), go())
    assert sent(effects) == [("x", ["begin", 2, None])]
    assert instance.history == []
    assert [type(message) for message in instance.held] == [Event]
    assert all(message.keep for message in instance.held)

    with instance.restored() as again:
        run(again, Begin(2))
        assert events_of(again) == ["ExecutionStarted", "EventRaised"]
        assert again.state()["execution"] == 2


def test_what_fails_without_anybody_looking_at_it_is_reported_at_the_end() -> None:
    instance = begun("looks_away")
    run(instance, failed(1))
    effects = run(instance, go())

    assert ("failed call", "work", "ValueError") in effects


def test_what_is_called_happens_also_where_nobody_waits_for_it_any_more() -> None:
    instance = begun("looks_away")
    effects = run(instance, go())

    (left,) = [effect for effect in effects if effect[0] == "leave activity"]
    assert left[1] == 1
    assert left[2].caller == Caller("x", 1, 1)


def test_an_instance_that_ends_under_a_lock_gives_it_back_behind_the_request() -> None:
    effects = run(begun(locks), command("cancel"))

    assert ("@thing@t", "unlock") in [(target, fields[0]) for target, fields in sent(effects)]


@pytest.mark.parametrize("started", [START, None])
@pytest.mark.parametrize("has_failed", [False, True])
def test_the_history_keeps_when_and_where_an_attempt_ran(
    has_failed: bool, started: int | None
) -> None:
    instance = begun(many)
    if has_failed:
        instance.take(failed(2, kind="SubOrchestrationInstance"), START + 1)
    answer = done(1, "a")
    answer.ran = (started, 3)

    instance.take(answer, START + 5)

    assert instance.history[-1] == ["TaskCompleted", START + 5, 1, "a", started, 3]
    assert instance.actor.status == ("Failed" if has_failed else "Running")
