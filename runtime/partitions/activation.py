"""The activation: an actor in memory, with its mailbox. One turn at a time, and never two of it."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from ...actors.effects import FEED, HELD, RELOAD, STAY
from ...actors.entities.entity import EntityActor
from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.messages import Command, Message
from ...actors.orchestrations.orchestration import OrchestrationActor
from ..scheduling.hands import is_foreign
from .batch import SIZE_MAX
from .readings import Reading

if TYPE_CHECKING:
    from ..scheduling.hands import Hand
    from .batch import Batch
    from .partition import Partition
    from .workbook import Work

_log = Log("perdure.partition")

Actor = EntityActor | OrchestrationActor


class Activation:
    """The in-memory incarnation of an actor.

    Attributes:
        actor: the state machine; None while it is being loaded.
        mail: messages that wait, oldest first.
        current: the message that an async operation is working on.
        readings: the read-only operations that go on beside it.
        queued: whether it is in the pump, loading or in an async operation, so that it must
            not be put into the pump (again).
        ready: whether it is in the pump and has not taken its turn yet. Where it took that early,
            the pump meets it once more and passes it over.
        dirty: whether the batch that gathers has it; flying: whether the one being stored has.
        latest: the time of its last turn.
        messages_max: how many messages may wait before clients are refused.
        slow: whether its last turn sent to where too much waits, so that the next one comes behind
            a commit.
        spilled: messages that wait in the store alone, less one for each ``Backlog`` that is in
            the mailbox instead of them.
        stored_size: bytes of the stored messages that are in memory, or more.
        strays: numbers of rows that are greater than one behind them in the mailbox.
        taken: messages it took since it was loaded, which says how hot it is.
        used: whether it took a turn since the last look for cold ones.
        work: what of an orchestration has begun, where anything traces.
    """

    __slots__ = (
        "actor",
        "busy",
        "current",
        "dead",
        "dirty",
        "flying",
        "hand",
        "key",
        "latest",
        "mail",
        "messages_max",
        "partition",
        "queued",
        "readings",
        "ready",
        "slow",
        "spilled",
        "stored_size",
        "strays",
        "taken",
        "touched",
        "used",
        "work",
    )

    def __init__(self, partition: Partition, key: str, actor: Actor | None) -> None:
        self.partition = partition
        self.key = key
        self.actor = actor
        self.latest = 0
        self.mail: list[Message] = []
        self.messages_max = partition.loader.messages_max(key)
        self.current: Message | None = None
        self.queued = False
        self.ready = False
        self.busy = False
        self.readings: list[Reading] = []
        self.hand: Hand | None = None  # of the async operation under way
        self.dead = False
        self.dirty = False
        self.flying = False
        self.touched = False
        self.slow = False
        self.spilled = 0
        self.stored_size = 0
        self.strays: set[int] = set()
        self.taken = 0
        self.used = True
        self.work: Work = None

    @property
    def title(self) -> str:
        """How the log calls it."""
        current = self.current
        operation = getattr(current, "name", None)
        return self.key if operation is None else f"operation {operation} of {self.key}"

    @property
    def count(self) -> int:
        """How many messages wait, in memory and in the store."""
        actor = self.actor
        return (
            len(self.mail)
            + self.spilled
            + (len(actor.held) if actor is not None and actor.held else 0)
        )

    @property
    def events(self) -> int:
        """How many events an orchestration has taken that its code has not."""
        actor = self.actor
        return actor.unconsumed_count if isinstance(actor, OrchestrationActor) else 0

    @property
    def waiting(self) -> int:
        """How many messages it was sent and has not consumed, unconsumed events among them."""
        return self.count + self.events + (self.current is not None) + len(self.readings)

    @property
    def is_blocked(self) -> bool:
        """Whether its messages may have to wait for long."""
        return self.busy or (self.actor is not None and self.actor.is_blocked)

    @property
    def is_idle(self) -> bool:
        """Whether it may be dropped from memory: nothing in it that the store has not."""
        return not (
            self.queued
            or self.mail
            or self.dirty
            or self.flying
            or self.touched
            or self.readings
            or (self.actor is not None and self.actor.held)
        )

    @property
    def is_prompt(self) -> bool:
        """Whether it may take a turn right away, outside the pump: no operation can suspend."""
        actor = self.actor
        return (
            self.ready
            and not self.dead
            and isinstance(actor, EntityActor)
            and not actor.suspends
            and bool(self.mail)
        )

    @property
    def unconsumed(self) -> list[Message]:
        """All that it was sent and is not done with, in order."""
        current: list[Message] = [] if self.current is None else [self.current]
        current += [reading.message for reading in self.readings]
        held = () if self.actor is None else self.actor.held or ()
        return [*current, *held, *self.mail]

    def unconsumed_from(self, place: int, count: int) -> list[Message]:
        """Give so many of these, from a place on."""
        current: list[Message] = [] if self.current is None else [self.current]
        current += [reading.message for reading in self.readings]
        held = None if self.actor is None else self.actor.held
        found: list[Message] = []
        for box in (current, held or [], self.mail):
            found += box[place : place + count - len(found)]
            place = max(0, place - len(box))
        return found

    def wake(self) -> None:
        """Give it to the pump, to take a turn."""
        self.queued = self.ready = True
        self.partition.pump.put(self)

    def come_back(self) -> None:
        """Take turns again, after it has stayed away."""
        if not self.dead:
            self.queued = False
            if self.mail:
                self.wake()

    def retire(self) -> None:
        """Take no more turns, and have no effects any more; another incarnation may come."""
        self.dead = True
        if isinstance(self.actor, EntityActor):
            self.actor.close()
        if self.hand is not None or self.readings:
            for hand in (self.hand, *(reading.hand for reading in self.readings)):
                if hand is not None:
                    hand.cancel()  # the other incarnation runs the operation again

    def close(self) -> Generator[None] | None:
        """Let the live code of one that takes no more turns go; gives the rest of that, if any."""
        return None if self.actor is None else self.actor.close()

    def run(self) -> Coroutine[Any, Any, None] | None:
        """Take a turn, for the pump: drain the mailbox, up to a limit."""
        if self.dead or not self.ready:
            return None
        self.queued = self.ready = False
        self.used = True
        mail = self.mail
        if not mail:
            return None
        partition = self.partition
        if self.slow or (
            (partition.flying is not None or partition.is_closing) and partition.batch.is_full
        ):
            self.slow = False
            if partition.defers(self):
                return None
        count, limit = len(mail), partition.settings.turn_messages_max
        if count > limit:
            self.mail = mail[limit:]
            del mail[limit:]
            count = limit
        else:
            self.mail = []
        self.taken += count
        partition.batch.messages += count
        try:
            if partition.around is None:
                return self._take(mail, partition)
            return partition.around.take(self, mail)
        except BaseException as error:
            # A bug, or a user's SystemExit: nothing of the turn may stand.
            self.mail = mail + self.mail
            partition.crash(self, error)
            if is_interrupt(error):
                raise  # which stops the hub
            return None

    def take(self, mail: list[Message]) -> Coroutine[Any, Any, None] | None:
        """Take these messages, which are not in the mailbox any more."""
        return self._take(mail, self.partition)

    def on_suspended(self, hand: Hand) -> None:
        """An async operation has suspended; its messages may have to wait for long."""
        self.hand = hand
        self.partition.touch(self)
        self.partition.gathered()
        self.mail = [message for message in self.mail if not self.read_beside(message)]
        if isinstance(self.actor, OrchestrationActor):
            any(map(self.gives_way, self.mail))  # until one of them does

    def gives_way(self, message: Message) -> bool:
        """Give up what an orchestration awaits, where a message of its mailbox terminates it.

        Nothing of the turn has happened, and what that took comes behind the end.
        """
        is_end = isinstance(message, Command) and message.action == "terminate"
        hand, current = self.hand, self.current
        if not is_end or hand is None or current is None:
            return False
        if not isinstance(self.actor, OrchestrationActor):
            return False
        self.mail.remove(message)
        self.mail = [message, current, *self.mail]
        self.current = self.hand = None
        self.busy = False
        self.wake()
        hand.cancel()
        return True

    def read_beside(self, message: Message) -> bool:
        """Let an operation go past the async one that is under way, if it only reads."""
        actor = self.actor
        if not isinstance(actor, EntityActor) or not actor.may_read(message):
            return False
        reading = Reading(self, message)
        self.readings.append(reading)
        self.partition.pump.put(reading)
        return True

    def end_reading(self, reading: Reading) -> None:
        """Take note that one of them has answered."""
        self.readings.remove(reading)
        self._consume(reading.message, self.partition)
        actor = self.actor
        assert actor is not None
        self._gather(actor, self.partition.batch)
        self.partition.gathered()

    def _take(self, mail: list[Message], partition: Partition) -> Coroutine[Any, Any, None] | None:
        actor = self.actor
        assert actor is not None
        clock = partition.now  # called as an attribute, it would be looked for as a method first
        now = clock()
        if now >= self.latest:
            self.latest = now
            partition.lag = 0
        else:  # the clock was set back; the time of an actor's turns never is
            partition.lag = self.latest - now
            now = self.latest
        batch = partition.batch
        combines = actor.combines
        behind = 0  # the first message that is not combined with one before it
        index = -1
        for message in mail:
            index += 1
            if batch.size >= SIZE_MAX and index and index >= behind:
                self._give_back(mail, index, batch)
                break
            batch.size += message.size
            if combines and isinstance(actor, EntityActor):
                if index >= behind:
                    behind = index + actor.combine(mail, index, now, partition)
                if index < behind:
                    continue
            outcome = actor.handle(message, now, partition)
            if outcome is None:
                if message.row:
                    batch.mail_deleted.append(message.row)
                if message.timer:
                    batch.timers_deleted.append(message.timer)
                if message.reply is not None:
                    partition.waiting -= 1
            elif outcome is RELOAD:
                self.mail = [*actor.give_back(), *mail[index:], *self.mail]
                self._stay_away()
                self._end_turn(partition)
                partition.reload(self)
                return None
            elif outcome is HELD:
                actor.hold(message)
            elif outcome is FEED:
                self._give_back(mail, index, batch)
                self._stay_away()
                self._end_turn(partition)
                partition.overflow.feed(self)
                return None
            elif outcome is STAY:
                self._give_back(mail, index, batch)
                self._stay_away()
                batch.staying.append(self)
                self._end_turn(partition)
                return None
            else:
                self.mail = mail[index + 1 :] + self.mail
                self.current = message
                self.busy = True
                self._stay_away()
                self._gather(actor, batch)
                return self._finish(message, outcome)
            if actor.held and (released := actor.release()):
                self.mail = released + mail[index + 1 :] + self.mail
                break
        self._end_turn(partition)
        return None

    def _give_back(self, mail: list[Message], index: int, batch: Batch) -> None:
        """Put what a turn has not taken, from one message on, back into the mailbox."""
        left = len(mail) - index
        batch.messages -= left
        self.taken -= left
        self.mail = mail[index:] + self.mail

    def _stay_away(self) -> None:
        """Take no turn until what this one has begun is done."""
        self.queued = True
        self.ready = False  # it may be in the pump, where a signal to itself has put it

    async def _finish(self, message: Message, operation: Coroutine[Any, Any, None]) -> None:
        partition = self.partition
        try:
            try:
                await operation
            except BaseException as error:
                if self.current is not message:
                    return  # it was given up
                actor = self.actor
                # What the actor does not take itself is no Exception; others are our own.
                is_ours = issubclass(type(error), Exception) or is_interrupt(error)
                if is_ours or not isinstance(actor, EntityActor):
                    raise
                if self.dead:
                    return  # the hub's doing, which drops an actor before it cancels
                hand = self.hand
                if hand is not None and hand.is_shared and is_foreign(hand, error):
                    self._begin_again(message, partition)
                    return
                actor.fail(message, error, partition.now(), partition)
            # Else the partition recovered, and the operation runs again; or it was given up.
            if not self.dead and self.current is message:
                self._end_operation(message, partition)
        except BaseException as error:
            partition.crash(self, error)
            if is_interrupt(error):
                raise  # which stops the hub

    def _consume(self, message: Message, partition: Partition) -> None:
        if message.row:
            partition.batch.mail_deleted.append(message.row)
        if message.timer:
            partition.batch.timers_deleted.append(message.timer)
        if message.reply is not None:
            partition.waiting -= 1

    def _begin_again(self, message: Message, partition: Partition) -> None:
        """Run an operation again that code beside it may have cancelled; nothing of it happened."""
        _log.warning(
            "%s was cancelled in a task where other code had run; it begins again", self.title
        )
        self.mail.insert(0, message)
        self.current = self.hand = None
        self.busy = False
        self.queued = self.ready = True
        partition.pump.put_alone(self)

    def _end_operation(self, message: Message, partition: Partition) -> None:
        self._consume(message, partition)
        self.current = self.hand = None
        self.busy = self.queued = False
        self._end_turn(partition)

    def _gather(self, actor: Actor, batch: Batch) -> None:
        """Have the batch with the turn's answers store what they say was done."""
        if actor.changed and not self.dirty:
            self.dirty = True
            batch.dirty.append(self)

    def _end_turn(self, partition: Partition) -> None:
        actor = self.actor
        assert actor is not None
        batch = partition.batch
        batch.turns += 1
        if actor.folding and isinstance(actor, EntityActor):
            actor.begin_fold(partition)
        if actor.changed and not self.dirty:  # as in _gather(), without a call in every turn
            self.dirty = True
            batch.dirty.append(self)
        if actor.held:
            partition.touch(self)
        if partition.slows:
            partition.slows = False
            self.slow = True
        if self.mail and not self.queued:
            self.wake()
        partition.gathered()
