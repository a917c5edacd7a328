"""Forking: what an instance is that begins with the first part of another's history."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import event, given, settings, strategies as st

from perdure import App, OrchestrationContext
from perdure.actors.errors import ForkError
from perdure.actors.messages import Caller, Command, Fork, Message, Start, TimerDue, decode_message
from perdure.actors.orchestrations.fork import make_fork, write_up_to
from perdure.actors.registry.lookup import Lookup
from perdure.actors.replay.history import parse_history
from perdure.storage.slices import at_once
from tests.actors.orchestrations.flows import (
    LOOKUP,
    PARENT,
    activities,
    begun,
    chain,
    counts,
    done,
    events_of,
    failed,
    go,
    granted,
    kinds,
    locks,
    made,
    many,
    raises,
    run,
    sent,
    waits,
)
from tests.actors.recording import (
    FLOWS,
    PROGRAMS,
    START,
    Instance,
    Recorder,
    World,
    app as programs,
)

PROGRAMMED = Lookup(programs, 1_000_000)
TURNS_MAX = 25


def fork_of(origin: Instance, at: int) -> Fork:
    """The message that begins a fork."""
    assert origin.stored is not None
    first = origin.stored.origin
    history = at_once(write_up_to(origin.history, at, first.key))
    message = Fork(first.name, first.version, first.input, first.key, at, history, tags=first.tags)
    message.reply = "a client"
    return message


def forked(origin: Instance, at: int = -1) -> tuple[Instance, list[tuple[Any, ...]]]:
    """Fork an instance at an event, counted from the end if it is negative."""
    at = at if at >= 0 else len(origin.history) + at
    fork = Instance(origin.lookup, "y")
    made.append(fork)
    before = orjson.dumps(origin.history)
    effects = fork.take(fork_of(origin, at), START + 7)
    assert orjson.dumps(origin.history) == before
    return fork, effects


def up_to(origin: Instance, at: int) -> list[list[Any]]:
    """What a fork at an event begins with."""
    return parse_history(at_once(write_up_to(origin.history, at, "x")))


def refusal(origin: Instance, at: int) -> str:
    """Why an instance is not forked at an event."""
    with pytest.raises(ForkError) as refused:
        at_once(write_up_to(origin.history, at, "x"))
    return refused.value.reason


def test_a_fork_has_what_was_done_and_does_what_is_open_under_its_own_id() -> None:
    origin = begun(chain)
    run(origin, done(1, "A"))
    fork, effects = forked(origin)

    assert activities(effects) == ["b"]
    assert [effect[1].caller for effect in effects if effect[0] == "start activity"] == [
        Caller("y", 1, 2)
    ]
    assert effects[-1] == ("reply", b"true")
    assert fork.history[:-1] == origin.history
    assert fork.history[-1][0] == "ExecutionForked"
    assert fork.history[-1][2:] == ["x"]
    run(fork, done(2, "B"), done(3, "C"))
    assert fork.actor.outcome == ("Completed", b'["A","B","C"]', None)
    assert origin.state()["status"] == "Running"


def test_a_fork_in_the_past_forgets_what_came_later() -> None:
    origin = begun(chain)
    run(origin, done(1, "A"), done(2, "B"), failed(3))
    assert origin.state()["status"] == "Failed"

    fork, effects = forked(origin, 1)

    assert activities(effects) == ["a"]
    assert events_of(fork) == ["ExecutionStarted", "TaskScheduled", "ExecutionForked"]


def test_all_that_is_open_is_begun_anew_and_a_timer_keeps_its_time() -> None:
    origin = begun(many)
    fork, effects = forked(origin)

    assert activities(effects) == ["a"]
    due = origin.history[3][3]
    assert ("arm timer", Caller("y", 1, 3), due) in effects
    messages = [decode_message(orjson.loads(one[2])) for one in effects if one[0] == "send"]
    calls = [one for one in messages if not isinstance(one, Start)]
    starts = [one for one in messages if isinstance(one, Start)]
    assert [one.parent for one in starts] == [Caller("y", 1, 2)]
    assert [getattr(one, "caller", None) for one in calls] == [Caller("y", 1, 4)]
    assert sent(effects)
    assert fork.restored().state() == fork.state()


def test_what_was_sent_is_not_sent_again() -> None:
    origin = Instance(LOOKUP)
    made.append(origin)
    origin.take(Start(counts.__name__, None, b"3"), START)

    fork, effects = forked(origin)

    assert kinds(effects) == ["reply"]
    assert events_of(fork).count("EntityOperationSignaled") == 3


def test_a_fork_has_no_parent_and_answers_none() -> None:
    origin = begun(waits, parent=PARENT)
    fork, _ = forked(origin)
    effects = run(fork, go(1))

    assert fork.history[0][5] is None
    assert fork.state()["parent"] is None
    assert "send" not in kinds(effects)
    assert fork.state()["status"] == "Completed"


OWN = App()
SELF = Lookup(OWN, 1_000)


@OWN.activity
async def tell(what: str) -> str: ...  # type: ignore[empty-body]


@OWN.orchestration
async def below(ctx: OrchestrationContext) -> str: ...  # type: ignore[empty-body]


@OWN.orchestration
async def says_its_id(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(tell, f"{ctx.instance_id} {ctx.new_uuid()}")
    await ctx.call_sub_orchestrator(below)
    await ctx.call_sub_orchestrator(below)
    await ctx.wait_for_external_event("go")


def test_what_the_code_makes_of_its_id_is_its_own_at_each_replay() -> None:
    origin = Instance(SELF)
    made.append(origin)
    origin.take(Start("says_its_id", None, None), START)
    run(origin, done(1, "told"), done(2, "1", kind="SubOrchestrationInstance"))

    fork, effects = forked(origin)

    assert [effect[1] for effect in effects if effect[0] == "send"] == ["y::1.3"]
    assert [one[5] for one in fork.history if one[0].endswith("Created")] == ["y::1.2", "y::1.3"]
    assert fork.history[1][5][0].startswith("y ")
    assert fork.restored().state() == fork.state()
    run(fork, done(3, "1", kind="SubOrchestrationInstance"), go())
    assert fork.state()["status"] == "Completed"


@OWN.orchestration
async def gives_up(ctx: OrchestrationContext) -> None:
    ctx.call_activity(tell, "nobody").cancel()
    await ctx.wait_for_external_event("go")


@OWN.orchestration
async def sleeps(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(seconds=5))
    await ctx.call_sub_orchestrator(below)


def started(flow: str, key: str = "x") -> Instance:
    """An instance of one of these."""
    made.append(Instance(SELF, key))
    made[-1].take(Start(flow, None, None), START)
    return made[-1]


def test_a_child_of_a_long_id_gets_one_of_its_own_too() -> None:
    origin = started("sleeps", "x" * 250)
    run(origin, TimerDue(1, 1))
    fork = Instance(SELF, "y" * 250)
    made.append(fork)

    fork.take(fork_of(origin, len(origin.history) - 1), START + 7)

    (theirs,), (ours,) = (
        [one[5] for one in each.history if one[0] == "SubOrchestrationInstanceCreated"]
        for each in (origin, fork)
    )
    assert theirs.startswith("xxx")
    assert ours.startswith("yyy")
    assert fork.restored().state() == fork.state()


def test_a_timer_keeps_its_time_also_where_the_clock_was_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Recorder, "lag", 700)
    origin = started("sleeps")
    monkeypatch.undo()
    due = origin.history[1][3]

    fork, effects = forked(origin)

    assert due == START - 700 + 5_000_000
    assert effects[0] == ("arm timer", Caller("y", 1, 1), due)
    assert fork.restored().state() == fork.state()


def test_what_was_given_up_stays_so() -> None:
    origin = started("gives_up")

    fork, effects = forked(origin)

    assert events_of(origin) == ["ExecutionStarted", "TaskScheduled", "TaskFailed"]
    assert refusal(origin, 1).endswith("fork it at 2")
    assert activities(effects) == []
    assert fork.restored().state() == fork.state()


def test_one_that_takes_the_place_of_a_child_has_no_parent() -> None:
    origin = begun(waits)
    child = Instance(LOOKUP, "y")
    made.append(child)
    child.take(Start("waits", None, None, parent=PARENT), START)
    run(child, Command("terminate", "enough"))

    child.take(fork_of(origin, 0), START + 7)
    effects = run(child, go(1))

    assert child.state()["status"] == "Completed"
    assert "send" not in kinds(effects)


def test_a_history_that_is_none_is_refused() -> None:
    for history in (b"[]", b"[1]", b'[["EventRaised",1,"a",2]]'):
        message = Fork("chain", None, None, "x", 0, [history])
        fork = Instance(LOOKUP, "y")
        made.append(fork)
        assert fork.take(message, START) == [("refuse", "ForkError")]


def test_a_fork_of_a_fork_begins_like_any_other() -> None:
    origin = begun(chain)
    run(origin, done(1, "A"))
    first, _ = forked(origin)
    second = Instance(LOOKUP, "z")
    made.append(second)

    second.take(fork_of(first, len(first.history) - 1), START + 8)

    assert second.history[:-1] == first.history
    assert second.restored().state() == second.state()


def test_an_id_that_is_live_is_refused_and_one_that_has_ended_makes_room() -> None:
    origin = begun(chain)
    fork, _ = forked(origin)
    message = fork_of(origin, 1)

    assert fork.take(message, START + 8) == [("refuse", "InstanceAlreadyExistsError")]
    run(fork, Command("terminate", "enough"))
    fork.take(message, START + 9)

    assert fork.state()["status"] == "Running"
    assert fork.state()["execution"] == 2
    assert fork.history[0][4] == 2
    assert fork.restored().state() == fork.state()


def test_a_lock_that_is_held_or_waited_for_is_refused() -> None:
    origin = begun(locks)
    waiting = len(origin.history) - 1
    run(origin, granted(1))
    for at in (waiting, len(origin.history) - 1):
        fork, effects = forked(origin, at)
        assert effects == [("refuse", "ForkError")]
        assert fork.stored is None
        assert fork.state()["status"] is None


def test_what_ended_it_is_refused_with_nothing_stored() -> None:
    origin = begun(waits)
    run(origin, go(1))

    fork, effects = forked(origin, 1)

    assert origin.history[1][0] == "EventRaised"
    assert effects == [("refuse", "ForkError")]
    assert fork.stored is None


def test_code_that_does_something_else_today_is_refused() -> None:
    origin = begun(waits)
    from tests.actors.orchestrations.flows import ways

    ways.add("more")
    _, effects = forked(origin)
    assert effects == [("refuse", "ForkError")]


def test_numbers_at_which_no_instance_can_begin_are_refused() -> None:
    origin = begun(many)
    run(origin, done(1, "A"))

    assert refusal(origin, 6) == "its history has the events 0 to 5"
    assert refusal(origin, 2).endswith("the events 0 to 4, which stand together: fork it at 4")
    run(origin, Command("terminate", "enough"))
    assert refusal(origin, 6) == "it had ended by then; its last event before is 5"
    assert up_to(origin, 5) == origin.history[:6]
    with pytest.raises(ForkError, match="no history"):
        at_once(write_up_to([], 0, "x"))


def test_a_later_turn_names_the_events_around_it() -> None:
    origin = begun(raises)
    run(origin, done(1, "A"))
    chained = begun(chain)
    run(chained, done(1, "A"))

    assert refusal(chained, 2).endswith("fork it at 1 or 3")
    assert up_to(chained, 1) == chained.history[:2]


def played(flow: str, program: Any, seed: int) -> Instance:
    """An instance that has gone through some turns."""
    chance = random.Random(seed)
    world = World(chance.randrange)
    origin = Instance(PROGRAMMED)
    message: Message | None = Start(flow, None, orjson.dumps(program))
    for _ in range(chance.randrange(TURNS_MAX)):
        if message is None:
            break
        world.note(origin.take(message, world.now))
        message = world.next()
    return origin


LIVE = ("unanswered", "numbers", "waiters", "unconsumed", "fibers", "tasks", "pending")


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_a_fork_stands_where_the_other_stood_and_is_the_same_after_a_restart(
    flow: str, program: Any, seed: int
) -> None:
    with played(flow, program, seed) as origin:
        for at in range(len(origin.history)):
            try:
                message = fork_of(origin, at)
            except ForkError:
                continue
            with Instance(PROGRAMMED, "y") as fork:
                effects = fork.take(message, START + 10**9)
                if fork.stored is None:
                    assert effects == [("refuse", "ForkError")]
                    error = at_once(make_fork(fork.actor, message, START))
                    assert isinstance(error, ForkError)
                    event(f"refused: {error.reason.partition(' ')[2][:10]}")
                    assert "locks" in error.reason or "ends by" in error.reason
                    continue
                event("forked")
                state = fork.state()
                with fork.restored() as again:
                    assert again.state() == state
                with past(origin, at) as before:
                    assert {one: before.state()[one] for one in LIVE} == {
                        one: state[one] for one in LIVE
                    }
                begun = [one[1].caller.task for one in effects if one[0] == "start activity"]
                armed = [one[1].task for one in effects if one[0] == "arm timer"]
                timers = [n for n, name in state["tasks"] if name == "TimerTask"]
                assert sorted(begun) == state["unanswered"]
                assert sorted(armed) == timers


def past(origin: Instance, at: int) -> Instance:
    """The instance as it was behind an event."""
    assert origin.stored is not None
    before = Instance(PROGRAMMED)
    before.history = origin.history[: at + 1]
    progress = origin.stored.progress._replace(
        status="Running", events=at + 1, parked=None, completed=None, output=None
    )
    before.stored = origin.stored._replace(progress=progress)
    before.load()
    before.actor.pending = len(before.executor.unanswered)
    before.stored = before.stored._replace(progress=progress._replace(pending=before.actor.pending))
    return before
