"""Replay: a history and its code rebuild the same orchestration, wherever the history is cut."""

from __future__ import annotations

import gc
import random
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import event, given, settings, strategies as st

from perdure import App, EntityId, FailureDetails, OrchestrationContext, RetryPolicy
from perdure.actors.errors import NondeterminismError
from perdure.actors.failures import encode_failure
from perdure.actors.messages import Completion, Message
from perdure.actors.registry.lookup import Lookup
from perdure.actors.replay.executor import Executor
from perdure.actors.replay.history import ANSWERS, IDENTITY
from tests.actors.recording import FLOWS, PROGRAMS, START, Instance, Recorder, World, app, start

LOOKUP = Lookup(app, 1_000_000)
TURNS_MAX = 60

Turn = tuple[Message, int]


def live(flow: str, program: Any, seed: int) -> tuple[list[Turn], list[dict[str, Any]], list[Any]]:
    """Let an instance live in a world: its turns, and state and effects after each of them."""
    chance = random.Random(seed)
    world = World(chance.randrange)
    turns: list[Turn] = []
    states: list[dict[str, Any]] = []
    effects: list[Any] = []
    message: Message | None = start(flow, program)
    with Instance(LOOKUP) as instance:
        while message is not None and len(turns) < TURNS_MAX:
            turns.append((message, world.now))
            done = instance.take(message, world.now)
            world.note(done)
            effects.append(done)
            states.append({**instance.state(), "history": list(instance.history)})
            message = world.next() if instance.actor.is_live else None
    return turns, states, effects


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_an_instance_rebuilt_after_any_turn_goes_on_exactly_as_the_one_that_lived(
    flow: str, program: Any, seed: int
) -> None:
    turns, states, effects = live(flow, program, seed)
    event(f"ended: {states[-1]['status'] if states[-1]['status'] != 'Running' else 'no'}")

    for cut in range(1, len(turns)):
        if states[cut - 1]["status"] != "Running" or not states[cut - 1]["history"]:
            continue
        with Instance(LOOKUP) as lived:
            for message, now in turns[:cut]:
                lived.take(message, now)

            rebuilt = lived.restored()

        with rebuilt:
            assert {**rebuilt.state(), "history": rebuilt.history} == states[cut - 1]
            for index in range(cut, len(turns)):
                message, now = turns[index]
                assert rebuilt.take(message, now) == effects[index], (cut, index)
                state = {**rebuilt.state(), "history": rebuilt.history}
                assert state == states[index], (cut, index)


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_an_instance_rebuilt_after_every_turn_ends_like_the_one_that_lived(
    flow: str, program: Any, seed: int
) -> None:
    turns, states, effects = live(flow, program, seed)
    instance = Instance(LOOKUP)

    for index, (message, now) in enumerate(turns):
        assert instance.take(message, now) == effects[index]
        if instance.executor is not None:
            with instance:
                rebuilt = instance.restored()
            instance = rebuilt

    with instance:
        last = {**instance.state(), "history": instance.history}
    assert last == states[-1]


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32), data=st.data())
def test_a_history_with_another_decision_is_refused_at_its_position(
    flow: str, program: Any, seed: int, data: st.DataObject
) -> None:
    _, states, _ = live(flow, program, seed)
    histories = [s["history"] for s in states if s["status"] == "Running" and s["history"]]
    decided = [
        (history, index)
        for history in histories[-1:]
        for index, recorded in enumerate(history)
        if recorded[0] in IDENTITY
    ]
    if not decided:
        return
    history, position = data.draw(st.sampled_from(decided))
    changed = orjson.loads(orjson.dumps(history))
    recorded = changed[position]
    field = data.draw(st.integers(2, 1 + IDENTITY[recorded[0]]))
    recorded[field] = ["changed"] if isinstance(recorded[field], list) else "changed"

    state = next(s for s in states if s["history"] == history)
    executor = new_executor(flow, state["execution"], state["input"])
    with pytest.raises(NondeterminismError) as caught:
        replay(executor, changed, state["input"])

    assert caught.value.position == position
    assert "changed" in caught.value.recorded


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_a_history_is_made_of_turns_and_answers_belong_to_decisions(
    flow: str, program: Any, seed: int
) -> None:
    _, states, _ = live(flow, program, seed)

    for state in states:
        asked: dict[tuple[str, int], int] = {}
        times = [recorded[1] for recorded in state["history"]]
        assert times == sorted(times)
        for recorded in state["history"]:
            kind = recorded[0]
            if kind in IDENTITY and kind != "EntityLockReleased":
                assert (kind, recorded[2]) not in asked
                asked[kind, recorded[2]] = 0
            elif kind in ANSWERS:
                asked[ANSWERS[kind], recorded[2]] += 1
        assert all(count <= 1 for count in asked.values())


def new_executor(flow: str, execution: int, input: bytes | None) -> Executor:
    def new_context(executor: Executor) -> OrchestrationContext:
        return OrchestrationContext(executor, LOOKUP, input, None, None, None)

    return Executor(LOOKUP.registry.find_orchestration(flow), "x", execution, new_context)


def replay(executor: Executor, history: list[list[Any]], input: bytes | None) -> None:
    """Take an executor through a history."""
    try:
        for _ in executor.replay(history, input):
            pass
    finally:
        executor.close()


# What a replay does not do, and how it breathes.


def test_a_replay_has_no_effects() -> None:
    program = [["leaf", ["activity", 1]], ["send event", 1], ["leaf", ["timer", 5]]]
    instance = Instance(LOOKUP)
    instance.take(start("interpreted", program), START)
    instance.take(Completion("TaskCompleted", 1, 1, b"5"), START + 1)

    rebuilt = instance.restored()

    assert rebuilt.executor is not None
    assert rebuilt.executor.effects is None
    assert rebuilt.executor.events == []
    assert rebuilt.executor.is_replaying is False


def test_a_long_replay_lets_others_run_now_and_then() -> None:
    program = [["leaf", ["activity", 1]]] * 1_000
    instance = Instance(LOOKUP)
    instance.take(start("interpreted", program), START)
    for n in range(1, 1_000):
        instance.take(Completion("TaskCompleted", 1, n, b"5"), START + n)

    executor = new_executor("interpreted", 1, instance.actor.input)
    breaths = sum(1 for _ in executor.replay(instance.history, instance.actor.input))

    assert len(instance.history) == 2_000
    assert breaths == 3


def test_an_answer_to_an_unknown_task_changes_nothing() -> None:
    instance = Instance(LOOKUP)
    instance.take(start("interpreted", [["leaf", ["activity", 1]]]), START)
    before = (instance.state(), list(instance.history))

    effects = [
        instance.take(Completion("TaskCompleted", 1, 99, b"5"), START + 1),
        instance.take(Completion("TaskCompleted", 7, 1, b"5"), START + 1),
        instance.take(Completion("SubOrchestrationInstanceCompleted", 1, 99, b"5"), START + 1),
    ]

    assert effects == [[], [("drop answer", "TaskCompleted")], []]
    assert (instance.state(), instance.history) == before


def test_closed_code_asks_for_nothing() -> None:
    local = App()
    asked: list[str] = []

    @local.orchestration
    async def stubborn(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_external_event("go")
        finally:
            asked.append("before")
            ctx.send_event("other", "x")
            asked.append("after")

    instance = Instance(Lookup(local, 1_000_000))
    instance.take(start_plain("stubborn"), START)
    recorder = Recorder()
    executor = instance.actor.executor
    assert executor is not None
    executor.begin_turn(START + 1, recorder, [])

    executor.close()

    assert asked == ["before", "after"]
    assert recorder.effects == []


def test_closed_code_ends_where_it_waits_for_something() -> None:
    local = App()
    went_on: list[str] = []

    @local.activity
    async def clean() -> None: ...

    @local.orchestration
    async def stubborn(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_external_event("go")
        finally:
            try:
                await ctx.call_activity(clean)
            except BaseException as error:
                went_on.append(type(error).__name__)
                raise

    @local.orchestration
    def by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
        try:
            yield ctx.wait_for_external_event("go")
        finally:
            yield ctx.call_activity(clean)
            went_on.append("never")

    def inner(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
        try:
            try:
                yield ctx.wait_for_external_event("go")
            finally:
                yield ctx.call_activity(clean)
        finally:
            yield ctx.call_activity(clean)

    @local.orchestration
    def by_delegation(ctx: OrchestrationContext) -> Generator[Any, Any, None]:
        yield from inner(ctx)

    for name in ("stubborn", "by_yield", "by_delegation"):
        instance = Instance(Lookup(local, 1_000_000))
        instance.take(start_plain(name), START)

        instance.actor.close()

    gc.collect()  # anything left open would complain now, and fail the test
    assert went_on == ["GeneratorExit"]


def test_a_history_of_before_limits_had_timers_is_replayed() -> None:
    local = App()

    @local.activity
    async def work() -> None: ...

    @local.orchestration
    async def limited(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(work, retry=RetryPolicy(1, timeout=5))

    instance = Instance(Lookup(local, 1_000_000))
    instance.take(start_plain("limited"), START)
    assert [event[0] for event in instance.history[1:]] == ["TaskScheduled", "TimerCreated"]
    del instance.history[2]

    body = encode_failure(FailureDetails("ValueError", "not yet"))
    effects = instance.restored().take(Completion("TaskFailed", 1, 1, body), START + 1)

    assert [effect[0] for effect in effects] == ["arm timer"]


def test_delays_that_were_made_while_the_clock_was_set_back_are_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = App()

    @local.entity
    class Tally:
        count: int = 0

        def add(self) -> None: ...

    @local.orchestration
    async def delays(ctx: OrchestrationContext) -> None:
        ctx.signal_entity(EntityId(Tally, "a"), Tally.add, at=timedelta(seconds=7))
        await ctx.create_timer(timedelta(seconds=5))

    monkeypatch.setattr(Recorder, "lag", 3_000_000)
    instance = Instance(Lookup(local, 1_000_000))
    instance.take(start_plain("delays"), START)
    assert instance.history[-1][3] == START + 2_000_000

    again = instance.restored()

    assert again.executor.pending[2].due == START + 2_000_000


def start_plain(name: str) -> Message:
    """The message that begins an instance without input."""
    from perdure.actors.messages import Start

    return Start(name, None, None)
