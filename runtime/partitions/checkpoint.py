"""Seals a batch: from what turns left in memory to the rows of one checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import orjson

from ...actors.entities.entity import EntityActor
from ...actors.errors import InternalError, PerdureError
from ...actors.messages import Command, Event, Message, Operation, encode_message
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...storage.records import Checkpoint, ChunkRow, CreatedRow, EntityRow, MailRow, ProgressRow
from ..scheduling.waiter import TOLD

if TYPE_CHECKING:
    from .activation import Activation
    from .batch import Batch
    from .partition import Partition

_EXPIRE_EVERY = 60_000_000

# What a named tuple's class does, without the Python function in between: these are made by the
# thousand.
_row = cast("Any", tuple).__new__


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
        _store_mail(partition, batch, activation, checkpoint)
    for activation in batch.dirty:
        activation.dirty = False
        activation.flying = True
        actor = activation.actor
        assert actor is not None
        actor.changed = False
        if isinstance(actor, OrchestrationActor):
            _store_instance(actor, checkpoint)
        else:
            try:
                _store_entity(actor, now, checkpoint)
            except PerdureError as error:
                raise SealError(activation, str(error)) from error
    checkpoint.purged += batch.purged.values()
    partition.timers.seal(batch, checkpoint)
    partition.exchange.seal(batch, checkpoint)
    checkpoint.mail_deleted = batch.mail_deleted
    checkpoint.timers_deleted = batch.timers_deleted
    checkpoint.outbox_deleted = batch.outbox_deleted
    checkpoint.requests = batch.requests
    checkpoint.activities = batch.left
    checkpoint.activities_deleted = batch.left_deleted
    # By a time that setting the clock does not move: an id forgotten early is applied twice.
    steady = partition.steady()
    if steady >= partition.expire_requests_at:
        partition.expire_requests_at = steady + _EXPIRE_EVERY
        retention = round(partition.settings.request_retention_s * 1e6)
        if not batch.requests:
            partition.claims.clear()  # all of them are stored
        checkpoint.requests_deleted_before = steady - retention
    return checkpoint


def _store_mail(
    partition: Partition, batch: Batch, activation: Activation, checkpoint: Checkpoint
) -> None:
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
        checkpoint.mail.append(MailRow(message.row, activation.key, body))
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


def _store_instance(actor: OrchestrationActor, checkpoint: Checkpoint) -> None:
    if actor.purged:
        checkpoint.purged.append(actor.id)
        return
    if actor.status is None:
        return
    if actor.rewritten:
        actor.rewritten = False
        checkpoint.rewritten.append(actor.id)
    if actor.fresh:
        actor.fresh = False
        parent = actor.parent
        checkpoint.created.append(
            CreatedRow(
                actor.id,
                actor.instance_id,
                actor.name,
                actor.version,
                actor.execution,
                actor.created,
                None if parent is None else parent.instance_id,
                0 if parent is None else parent.task,
                0 if parent is None else parent.execution,
                actor.tags,
                actor.input,
                actor.start_at,
            )
        )
    events = actor.events
    if events:
        body = b"[%b]" % b",".join(events)
        checkpoint.history.append(_row(ChunkRow, (actor.id, actor.seq, body)))
        actor.seq += len(events)
        actor.events = []
    parked = None
    if actor.parked is not None:
        parked = orjson.dumps({"type": actor.parked_type, "reason": actor.parked})
    checkpoint.progress.append(
        _row(
            ProgressRow,
            (
                actor.id,
                actor.status,
                actor.updated,
                actor.completed,
                actor.pending,
                actor.seq,
                actor.output,
                actor.failure,
                actor.failure_type,
                actor.custom_status,
                parked,
                actor.notes,
            ),
        )
    )


def _store_entity(actor: EntityActor, now: int, checkpoint: Checkpoint) -> None:
    state = actor.encode_state()
    failures = actor.encode_failures()
    if state is None and actor.lock is None and actor.parked is None and failures is None:
        if actor.stored:
            actor.stored = False
            checkpoint.entities_deleted.append(actor.id)
        return
    parked = None
    if actor.parked is not None:
        parked = orjson.dumps({"type": actor.parked_type, "reason": actor.parked})
        if actor.unreadable is not None:
            state = actor.unreadable
    actor.stored = True
    checkpoint.entities.append(
        EntityRow(
            actor.id,
            actor.name,
            actor.entity_key,
            max(now, actor.latest),
            state,
            actor.encode_lock(),
            failures,
            parked,
        )
    )
