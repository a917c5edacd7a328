"""An entity without a runtime: messages in, effects and what it tells out.

``Lone`` takes turns as an activation does, and writes down what the entity tells after each.
"""

from __future__ import annotations

from typing import Any

import orjson

from perdure.actors.changes import EntityState
from perdure.actors.effects import FEED, HELD, RELOAD
from perdure.actors.entities.entity import EntityActor
from perdure.actors.errors import PerdureError
from perdure.actors.messages import Command, Message, Operation
from perdure.actors.registry.lookup import Lookup
from tests.actors.recording import START, Recorder, copy_of

Effect = tuple[Any, ...]

#: Stands for a client that waits in this process.
CLIENT = "a client"


def call(name: str, *input: Any) -> Operation:
    """A client's call of an operation."""
    message = Operation(name, orjson.dumps(*input) if input else None, call=True)
    message.reply = CLIENT
    return message


def signal(name: str, *input: Any) -> Operation:
    """A client's signal."""
    message = Operation(name, orjson.dumps(*input) if input else None)
    message.reply = CLIENT
    return message


class Lone:
    """One entity, the turns that it takes, and what is stored of it.

    Attributes:
        running: the async operation that is under way, with its message.
        mail: what came behind that.
    """

    def __init__(self, lookup: Lookup, key: str, *, careful: bool = False) -> None:
        self.lookup = lookup
        self.key = key
        self.careful = careful
        self.stored: EntityState | None = None
        self.running: tuple[Any, Message] | None = None
        self.mail: list[Message] = []
        self.recorder = Recorder()
        self.now = START
        self.actor = self._make()

    def _make(self) -> EntityActor:
        name, _, rest = self.key[1:].partition("@")
        unknown: Any = None
        actor = EntityActor(
            1, name, rest, unknown, self.lookup, lambda: "made up", careful=self.careful
        )
        actor.define(self.lookup.registry.find_entity(name), 4)
        return actor

    def turn(self, *messages: Message, now: int = START) -> list[Effect]:
        """Let it take messages in one turn; gives what it decided."""
        effects = self.turn_unsealed(*messages, now=now)
        self.seal()
        return effects

    def turn_unsealed(self, *messages: Message, now: int = START) -> list[Effect]:
        """Do it, and tell nothing yet."""
        self.now = now
        self.recorder = Recorder()
        self._take([copy_of(message) for message in messages])
        return self.recorder.effects

    def _take(self, mail: list[Message]) -> None:
        actor = self.actor
        while mail:
            if actor.combines:
                count = actor.combine(mail, 0, self.now, self.recorder)
                del mail[:count]
                if count:
                    continue
            message = mail.pop(0)
            outcome = actor.handle(message, self.now, self.recorder)
            if outcome is HELD:
                actor.hold(message)
            elif outcome is RELOAD:
                self._load_anew([*actor.give_back(), message, *mail])
                return
            elif outcome is not None:
                assert outcome is not FEED
                self.running, self.mail = (outcome, message), mail
                self.resume()
                return
            mail[:0] = actor.release()
        if actor.folding:
            actor.begin_fold(self.recorder)

    def resume(self) -> list[Effect]:
        """Let the async operation go on; gives what was decided since the turn began."""
        assert self.running is not None
        operation, message = self.running
        try:
            operation.send(None)
        except StopIteration:
            self.running = None
        except BaseException as error:
            self.running = None
            self.actor.fail(message, error, self.now, self.recorder)
        if self.running is None:
            mail, self.mail = self.mail, []
            self._take(mail)
        return self.recorder.effects

    def cancel(self, error: BaseException) -> list[Effect]:
        """End the async operation from outside."""
        assert self.running is not None
        (operation, message), self.running = self.running, None
        self.recorder = Recorder()
        try:
            operation.throw(error)
        except BaseException as raised:
            self.actor.fail(message, raised, self.now, self.recorder)
        return self.recorder.effects

    def seal(self) -> EntityState | None:
        """Have it tell, and write that down."""
        told = self.actor.seal(self.now)
        self.stored = None if told is None or told.is_empty else told
        return told

    def _load_anew(self, mail: list[Message]) -> None:
        self.seal()
        self.actor = self._make()
        self.load(retried=True)
        for message in mail:
            if isinstance(message, Command):
                message.loaded = True
        self._take(mail)

    def load(self, *, retried: bool = False) -> None:
        """Take what is stored, as one that is loaded does."""
        if self.stored is None:
            return
        try:
            self.actor.load(self.stored)
        except PerdureError as error:
            self.actor.keep(self.stored)
            self.actor.park(type(error).__name__, str(error))
        else:
            if retried:
                self.actor.unpark()

    def restored(self) -> Lone:
        """The same entity, made anew from what is stored and the messages that it holds."""
        again = Lone(self.lookup, self.key, careful=self.careful)
        again.stored = self.stored
        again.load()
        again.now = self.now
        again._take([copy_of(message) for message in self.held])
        assert not again.recorder.effects, "what is held again was decided before"
        return again

    def is_busy(self) -> bool:
        """Whether an async operation is under way."""
        return self.running is not None

    @property
    def held(self) -> list[Message]:
        """The messages that it holds."""
        return self.actor.held or []

    @property
    def state(self) -> Any:
        """The stored state, as plain JSON."""
        stored = self.stored
        return None if stored is None or stored.state is None else orjson.loads(stored.state)


def replies(effects: list[Effect]) -> list[Any]:
    """The results that were answered."""
    return [orjson.loads(e[1]) if e[1] is not None else None for e in effects if e[0] == "reply"]


def sent(effects: list[Effect]) -> list[tuple[str, Any]]:
    """Who was sent what."""
    return [(e[1], orjson.loads(e[2])) for e in effects if e[0] == "send"]


def kinds(effects: list[Effect]) -> list[str]:
    """What kinds of effects there were."""
    return [effect[0] for effect in effects]
