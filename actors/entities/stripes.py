"""Striped entities: stripes that take commutative operations, and a home that has the whole state.

The *home* of a striped entity is the plain actor ``@visits@key``. A *stripe* is an actor of its
own, its key that of the home with a control character and a number behind it, which no user's key
can have. Commutative operations run on stripes; each stripe begins with a fresh state, so what it
has is what came since it last gave its state away. Whatever else the entity is asked needs all of
the state, so the home folds first: a *round*.

1. At the end of a turn that met such operations, the home sends ``Fold`` to every stripe, for all
   the operations that wait by then; those that come later wait for the next round.
2. A stripe answers with ``Folded``: its state moves into the message, and is deleted with the
   checkpoint that sends it.
3. The home merges each answer. With the last one, the operations of the round run in order.

A stripe that nobody asks sends its state by itself, a while after its first operation.

Invariants:

* A part of the state is at one place: on its stripe, in a ``Folded``, or merged. All three change
  hands in checkpoints, and the exchange between partitions drops duplicates, so the home counts
  answers and needs no other proof.
* An operation that was acknowledged before a read was sent is in what the read sees: its turn on
  the stripe came before the ``Fold`` of the read's round.
* Which stripes have not answered is stored with the home, so a round outlives every crash.
* A stripe with something to give has one durable timer.
* What cannot be merged stays in the home's mailbox, and parks the home with the reason.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..errors import ParkedError, UsageError
from ..failures import failure_of
from ..messages import Backlog, Caller, Command, Fold, Folded, Message, Operation

if TYPE_CHECKING:
    from ..effects import Effects
    from .entity import EntityActor

MARK: Final = "\x1f"


def stripe_key(home: str, number: int) -> str:
    """Give the key of a home's stripe."""
    return f"{home}{MARK}{number}"


def split_key(key: str) -> tuple[str, int | None]:
    """Give the home's key and the number of a stripe's; None for what is no stripe."""
    home, _, number = key.rpartition(MARK)
    if home and len(number) <= 4 and number.isdecimal():
        return home, int(number)
    return key, None


class Home:
    """A striped entity's home: asks its stripes, and holds what needs their answers."""

    __slots__ = (
        "_actor",
        "_count",
        "_covered",
        "_purging",
        "_ready",
        "_round",
        "_troubled",
        "_waiting",
    )

    def __init__(self, actor: EntityActor, count: int) -> None:
        self._actor = actor
        self._count = count
        self._round = 0
        self._waiting: set[int] = set()  # the stripes that have not answered in this round
        self._purging = False  # the round drops what the stripes have
        self._troubled: set[int] = set()  # those of the waiting that answered with trouble
        self._covered = 0  # how many of the held messages this round is for
        self._ready: deque[Message] = deque()  # those of the last round, which may run

    @property
    def progress(self) -> list[Any] | None:
        """The round to store, None where there is none."""
        if not self._waiting:
            return None
        return [self._round, sorted(self._waiting), self._purging, sorted(self._troubled)]

    def load(self, progress: list[Any]) -> None:
        """Go on with a stored round."""
        self._round, waiting, self._purging, troubled = progress
        self._waiting, self._troubled = set(waiting), set(troubled)
        self._actor.folding = True

    def waits(self, message: Message) -> bool:
        """Say whether a message has to be held until its round is over."""
        if self._ready and self._ready[0] is message:
            self._ready.popleft()
            return False
        self._actor.folding = True
        return True

    def begin(self, effects: Effects) -> None:
        """Begin a round for what is held, unless one is under way. Called at the end of a turn."""
        if not self._waiting:
            self._covered = len(self._actor.held or ())
            self._ask(effects, purge=False)

    def _ask(self, effects: Effects, *, purge: bool) -> None:
        actor = self._actor
        self._round += 1
        self._purging = purge
        self._troubled.clear()
        self._waiting = set(range(self._count))
        actor.folding = actor.changed = True
        for number in range(self._count):
            effects.send(stripe_key(actor.key, number), Fold(self._round, purge))

    def take(self, message: Folded, effects: Effects) -> bool:
        """Merge what a stripe gives; True if the message has to be kept, since that failed."""
        actor, number = self._actor, message.stripe
        waited = number in self._waiting
        answers = waited and message.number == self._round
        if self._purging and waited:
            # From before the purge, also if it was sent for an earlier round.
            pass
        elif message.trouble is not None:
            if answers:
                kind, reason = message.trouble
                self._troubled.add(number)
                actor.changed = True
                if actor.parked is None:
                    self._park(kind, f"its stripe {number} is parked: {reason}", effects)
            return False
        else:
            if message.state is not None:
                try:
                    actor.merge(message.state)
                except BaseException as error:
                    failure = failure_of(error)
                    reason = f"merge failed: {failure.error_type}: {failure.message}"
                    self._park(failure.error_type, reason, effects)
                    effects.failed_operation(actor.key, "merge", failure)
                    return True
            if message.failures is not None:
                actor.add_failures(*message.failures)
        if answers:
            self._waiting.discard(number)
            actor.changed = True
            if not self._waiting:
                self._end()
        return False

    def _end(self) -> None:
        self._actor.folding = self._purging = False
        self._round = 0  # as where it is loaded anew: no answer is under way any more
        covered = (self._actor.held or [])[: self._covered]
        self._ready = deque(one for one in covered if not isinstance(one, Backlog))

    def purge(self, message: Command, effects: Effects) -> bool:
        """Delete the state of the home and of all stripes; True until that is done."""
        actor = self._actor
        if self._purging and actor.parked is None:
            return True  # another purge is under way: after it
        if self._waiting or not self._ready or self._ready[0] is not message:
            actor.purge(effects)
            message.keep = True  # what it has begun does not end with the client's wait
            self._ready.clear()
            self._covered = 1 + len(actor.held or ())  # what is left there is refused
            self._ask(effects, purge=True)
            return True
        self._ready.popleft()
        return False

    def retry(self, effects: Effects) -> None:
        """Ask those stripes again that were in trouble."""
        for number in sorted(self._troubled):
            stripe = stripe_key(self._actor.key, number)
            effects.send(stripe, Command("retry"))
            effects.send(stripe, Fold(self._round, self._purging))
        self._troubled.clear()

    def _park(self, kind: str, reason: str, effects: Effects) -> None:
        """Park the home, and answer those who wait for an answer, as a parked entity does."""
        actor = self._actor
        actor.park(kind, reason)
        actor.folding = bool(self._waiting)
        self._covered = 0
        kept: list[Message] = []
        for message in actor.held or ():
            if isinstance(message, Command) and message.action == "fold":
                effects.reply(message, None)
            elif isinstance(message, Operation) and message.call and message.reply is not None:
                effects.refuse(message, ParkedError(actor.key, reason))
            else:
                kept.append(message)
                continue
            effects.consume(message)
        actor.held = kept or None


class Stripe:
    """A stripe: gives its state to the home when it is asked, or after a while.

    Attributes:
        home: the key of the home.
        number: which stripe of it this is.
        armed: whether its timer runs.
    """

    __slots__ = ("_actor", "armed", "home", "number")

    def __init__(self, actor: EntityActor, home: str, number: int) -> None:
        self._actor = actor
        self.home = home
        self.number = number
        self.armed = False

    @property
    def _timer(self) -> Caller:
        return Caller(self._actor.key, 0, 1)

    def arm(self, now: int, effects: Effects) -> None:
        """See to it that what it has does not stay for long."""
        if not self.armed:
            self.armed = True
            delay = round(self._actor.lookup.stripe_fold_s * 1e6)
            effects.arm_timer(self._timer, now - effects.lag + delay)

    def forward(self, message: Operation, effects: Effects) -> None:
        """Send an operation home that is not commutative any more."""
        if message.call and message.caller is None:
            effects.refuse(
                message, UsageError(f"{self.home}.{message.name} is not commutative any more")
            )
            return
        forwarded = Operation(message.name, message.input, message.call, message.caller)
        forwarded.carried = message.carried
        effects.send(self.home, forwarded)
        effects.reply(message, None)

    def answer(self, message: Fold, effects: Effects) -> None:
        """Answer the home."""
        actor = self._actor
        if message.purge:
            actor.purge(effects)
        if actor.parked is not None:
            trouble = (actor.parked_type or "", actor.parked)
            effects.send(self.home, Folded(self.number, message.number, None, trouble=trouble))
        else:
            self._give(message.number, effects)

    def give_unasked(self, effects: Effects) -> None:
        """Send the home what there is, since the timer has fired."""
        self.armed = False
        if self._actor.exists or self._actor.failed is not None:
            self._give(0, effects)

    def _give(self, number: int, effects: Effects) -> None:
        state, failures = self._actor.give_away()
        effects.send(self.home, Folded(self.number, number, state, failures))
        if self.armed:
            self.armed = False
            effects.disarm_timer(self._timer)
