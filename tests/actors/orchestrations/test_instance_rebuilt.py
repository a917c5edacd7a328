"""An instance made anew from what it told does with every message what the one does that lived.

Commands come in between: it is suspended, cancelled, rewound, replaced, purged and parked.
"""

from __future__ import annotations

import random
from typing import Any, get_args
from unittest import mock

import orjson
from hypothesis import event, given, settings, strategies as st

from perdure.actors.messages import (
    Action,
    Caller,
    Command,
    Message,
    OnExisting,
    Start,
    decode_message,
    encode_message as encode,
)
from perdure.actors.registry.lookup import Lookup
from perdure.actors.replay import executor
from tests.actors.recording import FLOWS, PROGRAMS, START, Instance, World, app, start

LOOKUP = Lookup(app, 1_000_000)
PARENT = Caller("p", 1, 3)
ACTIONS: list[Action] = [
    "cancel",
    "park",
    "purge",
    "resume",
    "resume",
    "retry",
    "retry",
    "rewind",
    "rewind",
    "rewind",
    "suspend",
    "terminate",
]
ON_EXISTING = get_args(OnExisting)
TURNS_MAX = 40


class Ruled(World):
    """A world in which somebody gives commands, too."""

    def __init__(self, chance: random.Random, flow: str, program: Any) -> None:
        super().__init__(chance.randrange)
        self.flow = flow
        self.program = program
        self.later: list[tuple[int, Message]] = []

    def note(self, effects: list[tuple[Any, ...]]) -> None:
        super().note([effect for effect in effects if effect[:2] != ("send", "p")])
        for kind, *details in effects:
            if kind == "send later" and details[1] == "x":
                self.later.append((details[0], decode_message(orjson.loads(details[2]))))

    def start(self) -> Message:
        """The message that begins it, or it anew."""
        return Start(
            self.flow,
            None,
            orjson.dumps(self.program),
            parent=PARENT if self.draw(2) else None,
            start_at=self.now + 1_000_000 if self.draw(4) == 0 else None,
            on_existing=ON_EXISTING[self.draw(len(ON_EXISTING))],
        )

    def next(self) -> Message | None:
        if self.draw(3):
            return super().next()
        if self.draw(8) == 0:
            return self.start()
        if self.later and self.draw(2):
            due, message = self.later.pop(0)
            self.now = max(self.now, due)
            return message
        return self.command()

    def command(self) -> Command:
        action = ACTIONS[self.draw(len(ACTIONS))]
        parent, execution = None, 0
        if action == "rewind" and self.draw(3) == 0:
            # Its parent was rewound; now and then that waits under another number, or is another.
            parent = PARENT._replace(task=3 + self.draw(2), execution=1 + (self.draw(6) == 0))
            execution = 1
        force = action == "rewind" and self.draw(2) == 0
        return Command(action, "drawn", self.draw(2) == 0, execution, force, parent)


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_an_instance_rebuilt_after_any_turn_goes_on_exactly_as_the_one_that_lived(
    flow: str, program: Any, seed: int
) -> None:
    compare(flow, program, seed)


@settings(max_examples=30)
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_so_does_one_that_takes_each_step_in_parts(flow: str, program: Any, seed: int) -> None:
    with mock.patch.object(executor, "WIDE", 0):
        compare(flow, program, seed)


def nested(inside: int, behind: int) -> Any:
    """A branch that waits for one of its own, which sends an event, and then sends another."""
    group = ("group", [[("send event", inside)]], False)
    return [("finally", [group], [("send event", behind)])]


def test_strands_that_are_cancelled_end_in_one_order_however_many_there_are() -> None:
    program = [("group", [nested(1, 2), nested(3, 4)], True)]
    histories: list[Any] = []
    for wide in (0, executor.WIDE):
        with mock.patch.object(executor, "WIDE", wide), Instance(LOOKUP) as one:
            one.take(start("interpreted", program), START)
            histories.append(one.history)

    sent = [event[-1] for event in histories[0] if event[0] == "EventSent"]
    assert sorted(sent) == [1, 2, 3, 4]
    assert histories[0] == histories[1]


def compare(flow: str, program: Any, seed: int) -> None:
    world = Ruled(random.Random(seed), flow, program)
    message: Message | None = world.start()
    lived = Instance(LOOKUP)
    for _ in range(TURNS_MAX):
        if message is None:
            break
        message.reply = "somebody" if world.draw(2) else None
        with lived.restored() as rebuilt:
            effects = lived.take(message, world.now)

            assert rebuilt.take(message, world.now) == effects
            assert rebuilt.stored == lived.stored
            assert rebuilt.history == lived.history
            assert list(map(encode, rebuilt.held)) == list(map(encode, lived.held))
        event(f"{type(message).__name__} when it is {lived.state()['status']}")
        if lived.stored is None or lived.actor.parked is not None:
            # What was purged is not remembered: its executions, say. A parked one that is loaded
            # has no code, and does not know which of its children that has given up.
            again = lived.restored()
            lived.actor.close()
            lived = again
        world.note(effects)
        message = world.next()
    lived.actor.close()
