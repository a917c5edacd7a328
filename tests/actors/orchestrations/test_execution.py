"""An instance whose code is no code of this process: it needs the contract ``Execution`` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import orjson
import pytest

from perdure import App, OrchestrationContext
from perdure.actors.errors import UsageError
from perdure.actors.messages import (
    Begin,
    Command,
    Completion,
    Event,
    Message,
    Start,
    encode_message,
)
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.actors.registry.lookup import Lookup
from perdure.actors.replay.execution import Execution
from tests.actors.orchestrations.scripted import Decision, Later, Scripted
from tests.actors.recording import START, Instance, Recorder

app = App()


@app.activity
def double(n: int) -> int:
    return 2 * n


@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> int:
    ctx.set_custom_status("begun")
    return await ctx.call_activity(double, n)


LOOKUP = Lookup(app, 1_000_000)
START_FLOW = Start("flow", None, b"3")

Script = Sequence[Sequence[Decision]]


class Actor(OrchestrationActor):
    """An instance that follows a script."""

    __slots__ = ("later", "made", "script")

    def __init__(self, script: Script, later: Later | None = None) -> None:
        super().__init__(1, "x", LOOKUP)
        self.script = script
        self.later = later
        self.made: list[Scripted] = []

    def new_execution(self) -> Execution:
        made = Scripted(self.instance_id, self.execution, self.script, self.later)
        self.made.append(made)
        return made


def scripted(script: Script) -> Instance:
    instance = Instance(LOOKUP)
    instance.actor = Actor(script)
    return instance


def start() -> Start:
    return Start("flow", None, b"3")


def kinds(effects: list[tuple[Any, ...]]) -> list[str]:
    return [effect[0] for effect in effects]


def names(history: list[list[Any]]) -> list[str]:
    return [event[0] for event in history]


def made_by(instance: Instance) -> Scripted:
    actor = instance.actor
    assert isinstance(actor, Actor)
    return actor.made[-1]


def test_a_script_comes_to_the_same_history_and_effects_as_code_does() -> None:
    script: Script = [[("status", "begun"), ("activity", "double", 3)], [("ends", 6)]]
    told: list[Any] = []

    for instance in (Instance(LOOKUP), scripted(script)):
        effects = instance.take(start(), START)
        effects += instance.take(Completion("TaskCompleted", 1, 1, b"6"), START + 1)
        stored = instance.stored
        assert stored is not None
        told.append(
            (
                kinds(effects),
                names(instance.history),
                stored.progress.output,
                stored.progress.status,
            )
        )

    assert told[0] == told[1]
    assert told[0][2:] == (b"6", "Completed")
    assert names(instance.history) == [
        "ExecutionStarted",
        "TaskScheduled",
        "TaskCompleted",
        "ExecutionCompleted",
    ]


def test_what_it_has_open_is_told_to_stop_where_the_instance_is_terminated() -> None:
    instance = scripted([[("child", "x::1.1"), ("lock", "@counter@a"), ("granted",)]])
    instance.take(start(), START)

    effects = instance.take(Command("terminate", "enough"), START + 1)

    assert [effect[1] for effect in effects if effect[0] == "send"] == ["x::1.1", "@counter@a"]
    assert made_by(instance).is_closed


def test_a_cancellation_reaches_it_and_calls_that_failed_unheard_are_told() -> None:
    instance = scripted([[("activity", "double", 3)], [], [("fails", "cancelled")]])
    instance.take(start(), START)
    instance.take(Completion("TaskFailed", 1, 1, b'{"error_type":"ValueError"}'), START + 1)

    effects = instance.take(Command("cancel", "enough"), START + 2)

    assert ("failed call", "double", "ValueError") in effects
    assert made_by(instance).cancel_requested == "enough"


def test_events_that_a_script_has_not_taken_come_to_the_next_execution() -> None:
    instance = scripted([[], [("again", 4)]])
    instance.take(start(), START)

    instance.take(Event("go", b"1"), START + 1)

    held = instance.actor.held or []
    assert [(event.name, event.data) for event in held if isinstance(event, Event)] == [
        ("go", b"1")
    ]


def test_what_does_not_fit_a_wait_is_refused_and_not_written_down() -> None:
    instance = scripted([[], []])
    instance.take(start(), START)
    event = Event("typed", b'"one"')
    event.reply = object()  # somebody waits for it
    recorder = Recorder()

    instance.actor.handle(event, START + 1, recorder)

    assert recorder.effects == [("refuse", "PayloadError")]
    assert instance.actor.events == []


def test_a_replay_takes_a_script_to_where_it_was() -> None:
    script: Script = [[("activity", "double", 3)], [("activity", "double", 6)], [("ends", 12)]]
    instance = scripted(script)
    instance.take(start(), START)
    instance.take(Completion("TaskCompleted", 1, 1, b"6"), START + 1)
    assert instance.stored is not None
    again = Actor(script)
    again.load(instance.stored)

    for _ in again.replay(instance.history):
        pass
    instance.actor = again
    instance.take(Completion("TaskCompleted", 1, 1, b"12"), START + 2)

    assert instance.stored.progress.output == b"12"


def test_a_script_that_does_not_fit_its_history_is_parked() -> None:
    script: Script = [[("activity", "double", 3)], [("activity", "double", 6)]]
    instance = scripted(script)
    instance.take(start(), START)
    instance.take(Completion("TaskCompleted", 1, 1, b"6"), START + 1)
    assert instance.stored is not None
    again = Actor(script[:1])
    again.load(instance.stored)

    for _ in again.replay(instance.history):
        pass

    assert again.parked_type == "NondeterminismError"
    assert again.made[-1].is_closed


def test_what_runs_elsewhere_is_not_rewound() -> None:
    instance = scripted([[("fails", "for the test")]])
    instance.take(start(), START)

    with pytest.raises(UsageError, match="does not run in this process"):
        instance.actor.prepare_rewind(instance.history, force=False)


class Gate:
    """Where a script waits before it decides."""

    def __init__(self) -> None:
        self.event = anyio.Event()

    async def __call__(self) -> None:
        await self.event.wait()


@pytest.mark.parametrize(
    "message",
    [Event("go", b"1"), Command("cancel", "enough"), Completion("TaskCompleted", 1, 1, b"6")],
)
async def test_what_came_in_is_written_down_with_what_was_decided_later(message: Message) -> None:
    gate, recorder = Gate(), Recorder()
    actor = Actor([[("activity", "double", 3)], [("ends", 6)]], gate)
    gate.event.set()
    assert actor.handle(start(), START, recorder) is None
    await actor.handle(Begin(1), START, recorder)
    gate.event = anyio.Event()
    before = len(actor.events)

    going = actor.handle(message, START + 1, recorder)
    assert len(actor.events) == before
    gate.event.set()
    await going

    names = [orjson.loads(event)[0] for event in actor.events[before:]]
    assert names[1:] == ["ExecutionCompleted"]
    assert actor.status == "Completed"


async def test_an_instance_whose_code_answers_later_begins_by_a_message_of_its_own() -> None:
    gate, recorder = Gate(), Recorder()
    actor = Actor([[("ends", 6)]], gate)

    assert actor.handle(start(), START, recorder) is None

    assert (actor.status, actor.events) == ("Pending", [])
    assert recorder.effects[-1] == ("send", "x", encode_message(Begin(1)))
    gate.event.set()
    await actor.handle(Begin(1), START, recorder)
    assert actor.status == "Completed"


async def test_what_was_let_go_before_it_decided_decides_nothing() -> None:
    gate, recorder = Gate(), Recorder()
    actor = Actor([[("ends", 6)]], gate)
    actor.handle(start(), START, recorder)

    going = actor.handle(Begin(1), START, recorder)
    actor.close()
    gate.event.set()
    await going

    assert (actor.status, actor.events) == ("Pending", [])
