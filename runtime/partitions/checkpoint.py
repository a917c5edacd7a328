"""Seals a batch: from what actors tell to the rows of one checkpoint; and back from rows."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from ...actors.changes import (
    EntityState,
    InstanceChange,
    InstanceEvents,
    InstanceOrigin,
    InstanceProgress,
    InstanceState,
    make,
)
from ...actors.errors import InternalError, PerdureError
from ...actors.messages import Command, Event, Message, Operation, encode_message
from ...storage.records import Checkpoint, EntityRow, MailRow
from ...storage.slices import STEPS
from ..scheduling.waiter import TOLD

if TYPE_CHECKING:
    from ...storage.records import InstanceRecord
    from .activation import Activation
    from .batch import Batch
    from .partition import Partition

Change = EntityState | InstanceChange

_EXPIRE_EVERY = 60_000_000

#: More messages than these of one actor are given their rows with pauses.
MUCH_MAIL = 256


class SealError(InternalError):
    """An actor's state cannot be stored."""

    def __init__(self, activation: Activation, reason: str) -> None:
        super().__init__(f"the state of {activation.key} cannot be stored: {reason}")
        self.activation = activation


def seal(partition: Partition, batch: Batch) -> Checkpoint:
    """Turn a batch into a checkpoint. From here on, new effects belong to the next batch.

    Raises:
        SealError: an actor's state cannot be stored.
    """
    checkpoint = Checkpoint(sequence=partition.sequence + 1, epoch=partition.epoch)
    batch.sequence = checkpoint.sequence
    now = partition.now()
    for activation in batch.touched:
        store_mail(partition, batch, activation)
    _store_changes(batch, now, checkpoint)
    checkpoint.purged += batch.purged.values()
    partition.timers.seal(batch, checkpoint)
    partition.exchange.seal(batch, checkpoint)
    checkpoint.mail = batch.mail
    checkpoint.mail_deleted = batch.mail_deleted
    checkpoint.timers_deleted = batch.timers_deleted
    checkpoint.outbox_deleted = batch.outbox_deleted
    checkpoint.requests = batch.requests
    checkpoint.activities = batch.left
    checkpoint.activities_deleted = batch.left_deleted
    batch.last_row = partition.next_row - 1
    # By a time that setting the clock does not move: an id forgotten early is applied twice.
    steady = partition.steady()
    if steady >= partition.expire_requests_at:
        partition.expire_requests_at = steady + _EXPIRE_EVERY
        retention = round(partition.settings.request_retention_s * 1e6)
        if not batch.requests:
            partition.requests.forget_stored_claims()
        checkpoint.requests_deleted_before = steady - retention
    return checkpoint


def tell_ahead(partition: Partition, batch: Batch) -> Generator[None]:
    """Have the actors of a large batch tell what they did ahead of the seal; pauses now and then.

    What one does at a pause it tells at the seal, and that goes with what it told here. Where one
    cannot tell, it says so at the seal as well.
    """
    now = partition.now()
    dirty = batch.dirty[:]
    for start in range(0, len(dirty), STEPS):
        some = dirty[start : start + STEPS]
        if not partition.pump.lend(partial(_tell_some, batch, some, now)):
            return
        yield


def _tell_some(batch: Batch, some: list[Activation], now: int) -> bool:
    for activation in some:
        actor: Any = activation.actor
        try:
            change = actor.seal(max(now, activation.latest))
        except PerdureError:
            return False
        if change is not None:
            batch.ahead[activation] = change
    return True


def _changed_since(activation: Activation, ahead: Change, now: int) -> Change:
    """Give what an actor told ahead of the seal together with what it did since."""
    actor: Any = activation.actor
    if not actor.changed:
        return ahead
    change: Change | None = actor.seal(now)
    if change is None:
        return ahead
    if isinstance(ahead, EntityState) or isinstance(change, EntityState):
        return change
    origin, is_rewritten, told, progress = change
    if progress is None or is_rewritten:
        return change  # of what it was before nothing is kept
    before = ahead[2]
    if before is not None and told is not None:
        told = [*_listed(before), *_listed(told)]
    return ahead[0] if origin is None else origin, ahead[1], told or before, progress


def _listed(told: InstanceEvents | list[InstanceEvents]) -> list[InstanceEvents]:
    return [told] if isinstance(told, InstanceEvents) else told


def _store_changes(batch: Batch, now: int, checkpoint: Checkpoint) -> None:
    """Write down what the actors tell.

    What one has told it does not tell again: where this commit fails, the actor goes with the rest
    of the memory, and comes back from what the store has.
    """
    # What is told has the columns of its row, and stands for it: these are made by the thousand.
    created: Any
    chunk: Any
    row: Any
    history, add_progress = checkpoint.history, checkpoint.progress.append
    ahead = batch.ahead
    for activation in batch.dirty:
        activation.dirty = False
        activation.flying = True
        actor: Any = activation.actor
        latest = activation.latest
        try:
            # Not max(): a call in every turn.
            when = now if now > latest else latest  # noqa: FURB136
            change: Change | None
            if ahead and activation in ahead:
                change = _changed_since(activation, ahead[activation], when)
            else:
                change = actor.seal(when)
        except PerdureError as error:
            raise SealError(activation, str(error)) from error
        if change is None:
            continue
        if isinstance(change, EntityState):
            if change.state is None and change.is_empty:
                checkpoint.entities_deleted.append(change.id)
            else:
                checkpoint.entities.append(make(EntityRow, change))
            continue
        created, is_rewritten, chunk, row = change
        if row is None:
            checkpoint.purged.append(actor.id)
            continue
        if is_rewritten:
            checkpoint.rewritten.append(actor.id)
        if created is not None:
            checkpoint.created.append(created)
        if chunk is not None:
            if type(chunk) is list:
                history += chunk
            else:
                history.append(chunk)
        add_progress(row)


def has_much_mail(activation: Activation) -> bool:
    """Whether so many messages wait that to store them should be done with pauses."""
    if len(activation.mail) > MUCH_MAIL:
        return True
    held = None if activation.actor is None else activation.actor.held
    return held is not None and len(held) > MUCH_MAIL


def store_mail(partition: Partition, batch: Batch, activation: Activation) -> None:
    """Give rows to the messages of an actor that have to be stored and are not."""
    activation.touched = False
    if activation.dead:
        return
    unconsumed = activation.unconsumed
    if not unconsumed:  # it took them meanwhile, as nearly always
        return
    count, size = _give_rows(partition, batch, activation, unconsumed, [], partition.next_row)
    if count:
        _note(partition, batch, activation, count, size, len(unconsumed))


def store_much_mail(partition: Partition, batch: Batch, activation: Activation) -> Generator[None]:
    """Do the same for one that has many; pauses now and then.

    What it consumes at a pause gets no row any more. What it is sent then does, here or by the
    next call of ``store_mail``: it is touched by that.
    """
    activation.touched = False
    before = partition.next_row
    given: list[int] = []
    count = size = place = 0
    last: Message | None = None
    while not activation.dead:
        some = activation.unconsumed_from(max(0, place - 1), MUCH_MAIL)
        if last is not None:
            if not some or some[0] is not last:
                place = _behind(last, activation.unconsumed)  # some of those before were consumed
                if not place:
                    given.clear()
                    last = None
                continue
            del some[0]
        if not some:
            break
        more, bytes_more = _give_rows(partition, batch, activation, some, given, before)
        count += more
        size += bytes_more
        place, last = place + len(some), some[-1]
        yield
    if count and not activation.dead:
        _note(partition, batch, activation, count, size, place)


def _behind(message: Message, messages: list[Message]) -> int:
    """Give the place behind a message; 0 where it is not there."""
    try:
        return messages.index(message) + 1
    except ValueError:
        return 0


def _give_rows(
    partition: Partition,
    batch: Batch,
    activation: Activation,
    messages: list[Message],
    given: list[int],
    before: int,
) -> tuple[int, int]:
    """Give rows to those of some messages that have to be stored and have none.

    Args:
        partition: in whose store they are.
        batch: which has the rows then.
        activation: whose messages they are.
        messages: some of them, in order.
        given: rows, from ``before`` on and growing, of the messages in front of these.
        before: the first row that had not been given to any when the first one was looked at.

    Returns:
        How many there were, and how many bytes their rows have.
    """
    blocked = activation.is_blocked
    count = size = 0
    for message in messages:
        row = message.row
        if row:
            while given and given[-1] > row:
                activation.strays.add(given.pop())
            if row >= before:
                given.append(row)
            continue
        if not (message.keep or blocked) or _is_retry(message):
            continue
        message.row = partition.new_row()
        given.append(message.row)
        body = encode_message(message)
        batch.mail.append(MailRow(message.row, activation.key, body))
        count += 1
        size += len(body)
        if message.timer:
            batch.timers_deleted.append(message.timer)
            message.timer = 0
        _acknowledge(partition, batch, message)
    return count, size


def _note(
    partition: Partition, batch: Batch, activation: Activation, count: int, size: int, waiting: int
) -> None:
    activation.stored_size += size
    if partition.overflow.note(count, size, activation, waiting):
        batch.crowded.append(activation)


def _is_retry(message: Message) -> bool:
    # A stored one would ask again after each crash that it leads to, for ever.
    return isinstance(message, Command) and message.action == "retry"


def _acknowledge(partition: Partition, batch: Batch, message: Message) -> None:
    # A signal, event or cancellation that has to wait is as good as done for whoever sent it.
    one_way = (
        isinstance(message, Event)
        or (isinstance(message, Operation) and not message.call)
        or (isinstance(message, Command) and message.action == "cancel")
    )
    if one_way and message.reply is not None:
        batch.replies.append((message.reply, None, message))
        message.reply = TOLD  # and it still takes its place in the mailbox


def instance_state(record: InstanceRecord) -> InstanceState:
    """Give what an instance told, from what is stored of it."""
    begun = len(InstanceOrigin._fields)
    return InstanceState(
        InstanceOrigin._make(record[:begun]), InstanceProgress._make((record.id, *record[begun:]))
    )


def entity_state(row: EntityRow) -> EntityState:
    """Give what an entity told, from what is stored of it."""
    return EntityState(*row)
