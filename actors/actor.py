"""The actor: what an entity and an orchestration instance are to whoever runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    from .changes import EntityState, InstanceChange
    from .effects import Effects
    from .messages import Message


class Actor:
    """A state machine that takes messages one at a time, and tells at the seal what became of it.

    Whoever runs it calls its methods and reads its attributes, and writes none.

    Invariant: ``changed`` says whether there is something that it has not told, and ``seal`` tells
    all of it. An actor that takes what was told by ``load`` goes on as this one, once it has been
    given the messages again that this one holds.

    Attributes:
        id: its number in its partition.
        changed: whether it has something to tell.
        held: the messages that wait inside of it, oldest first; None rather than an empty list.
        parked: why it takes no turns until somebody repairs what is wrong; None if it does.
        parked_type: the kind of trouble that is.
        combines: whether messages that wait may be taken together.
        folding: whether it has something to do at the end of a turn.
    """

    __slots__ = (
        "changed",
        "combines",
        "folding",
        "held",
        "id",
        "parked",
        "parked_type",
    )

    def __init__(self, id: int) -> None:
        self.id = id
        self.changed = False
        self.combines = False
        self.folding = False
        self.held: list[Message] | None = None
        self.parked: str | None = None
        self.parked_type: str | None = None

    @property
    def is_blocked(self) -> bool:
        """Whether messages may have to wait for long."""
        raise NotImplementedError

    def handle(self, message: Message, now: int, effects: Effects) -> Any:
        """Take one message, and say what became of it."""
        raise NotImplementedError

    def hold(self, message: Message) -> None:
        """Keep a message until it can be taken, behind those that wait for that already."""
        if self.held is None:
            self.held = []
        self.held.append(message)

    def release(self) -> list[Message]:
        """Give back what is held, if it can be taken now: it goes before what came later."""
        return [] if self.is_blocked or self.folding else self.give_back()

    def give_back(self) -> list[Message]:
        """Give back what is held, and hold it no more."""
        held, self.held = self.held, None
        return held or []

    def give_up(self, message: Message, reason: str, effects: Effects) -> bool:
        """Answer a message that waited and is not taken any more; False if it has to be taken."""
        raise NotImplementedError

    def park(self, kind: str, reason: str) -> None:
        """Take no turns until somebody repairs what is wrong."""
        self.parked_type = kind
        self.parked = reason
        self.changed = True

    def stay_parked(self, kind: str, reason: str) -> None:
        """Be parked, and say nothing of it: what is stored stays as it is."""
        raise NotImplementedError

    def unpark(self) -> None:
        """Be parked no more, since it is tried again, and say so at the next seal."""
        self.parked = self.parked_type = None
        self.changed = True

    def seal(self, now: int) -> EntityState | InstanceChange | None:
        """Tell what became of it since it told last; None if that is nothing."""
        raise NotImplementedError

    def close(self) -> Generator[None] | None:
        """Be of no more use: another incarnation takes over, if any does.

        Returns:
            What is left to be done where that takes long, and pauses now and then.
        """
        raise NotImplementedError
