"""Seals a batch: from what actors tell to the rows of one checkpoint; and back from rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...actors.changes import (
    EntityState,
    InstanceChange,
    InstanceOrigin,
    InstanceProgress,
    InstanceState,
    make,
)
from ...actors.errors import InternalError, PerdureError
from ...actors.messages import Command, Event, Message, Operation, encode_message
from ...storage.records import Checkpoint, EntityRow, MailRow
from ..scheduling.waiter import TOLD

if TYPE_CHECKING:
    from ...storage.records import InstanceRecord
    from .activation import Activation
    from .batch import Batch
    from .partition import Partition

_EXPIRE_EVERY = 60_000_000


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
    for activation in batch.dirty:
        activation.dirty = False
        activation.flying = True
        actor: Any = activation.actor
        latest = activation.latest
        try:
            # Not max(): a call in every turn.
            when = now if now > latest else latest  # noqa: FURB136
            change: EntityState | InstanceChange | None = actor.seal(when)
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


def store_mail(partition: Partition, batch: Batch, activation: Activation) -> None:
    """Give rows to the messages of an actor that have to be stored and are not."""
    activation.touched = False
    if activation.dead:
        return
    blocked = activation.is_blocked
    unconsumed = activation.unconsumed
    given: list[int] = []
    count = size = 0
    for message in unconsumed:
        if message.row:
            if given:
                activation.strays.update(given)
                given.clear()
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
    if count:
        activation.stored_size += size
        if partition.overflow.note(count, size, activation, len(unconsumed)):
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
