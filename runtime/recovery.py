"""Brings a partition back from its store: at the start, and after a commit that failed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from ..actors.errors import LeaseLostError, OutcomeUnknownError, StorageError, UnavailableError
from ..actors.failures import read_failure
from ..actors.messages import Command, Message, decode_message

if TYPE_CHECKING:
    from ..storage.records import Recovered
    from .batch import Batch
    from .partition import Partition

_log = logging.getLogger("perdure.partition")

_BACKOFF_MAX_S = 5.0


def read_frame(body: bytes) -> list[tuple[str, Message]]:
    """Read the messages of a stored frame."""
    return [(key, decode_message(fields)) for key, *fields in orjson.loads(body)]


def read_outcome(body: bytes) -> Any:
    """Read the recorded answer to a client's request, in the form in which waiters get it."""
    kind, value = orjson.loads(body)
    return read_failure(value) if kind == "failed" else orjson.dumps(value)


async def restore(partition: Partition, recovered: Recovered) -> None:
    """Rebuild the partition's memory: what waits, what is owed, what is under way."""
    from .partition import Peer, StoredTimer

    partition.sequence = recovered.sequence
    partition.epoch = recovered.epoch
    partition.next_id = max(partition.next_id, recovered.next_id)
    partition.next_row = max(partition.next_row, recovered.next_row)
    count = len(partition.partitions)
    partition.peers = {n: Peer() for n in range(count) if n != partition.index}
    partition.durable_received = {}
    for row in recovered.peers:
        partition.peers[row.peer] = Peer(row.received, row.sent)
        partition.durable_received[row.peer] = row.received
    _restore_frames(partition, recovered)
    for timer in recovered.timers:
        message = decode_message(orjson.loads(timer.body))
        partition.adopt_timer(StoredTimer(timer.due, timer.actor, message, timer.n))
    partition.requests.clear()
    for mail in recovered.mail:
        message = decode_message(orjson.loads(mail.body))
        message.row = mail.n
        if message.request is not None:
            partition.requests[message.request] = []
        partition.post(mail.actor, message)
    for key in recovered.parked:
        # The code may have been repaired: each of them gets one new try.
        partition.post(key, Command("retry"))
    await partition.loader.dispatch_unanswered(recovered.unanswered)


def _restore_frames(partition: Partition, recovered: Recovered) -> None:
    from .batch import Frame

    for row in recovered.outbox:
        frame = Frame(row.n, row.last, row.body, None)
        partition.peers[row.target].owed.append(frame)


async def recover(partition: Partition, error: BaseException, failed: Batch | None) -> None:
    """Drop the memory that a failed commit or turn has tainted, and come back from the store.

    Requests that the failed checkpoint held turn out applied or not by its number in the store;
    all others were never durable, unless they wait in the stored mailbox.
    """
    _log.error("partition %d recovers: %s", partition.index, error)
    partition.down = UnavailableError(str(error))
    tainted = partition.batch
    requests = dict(partition.requests)
    dropped = partition.drop_all()
    recovered = await _read(partition)
    if recovered is None:
        return
    if failed is not None:
        if recovered.sequence == failed.sequence:
            failed.release_replies(partition)
        else:
            _fail_replies(failed)
    _fail_replies(tainted)
    for activation in dropped:
        held = activation.actor.held if activation.actor is not None else None
        for message in (*(held or ()), *activation.mail):
            _fail_message(message)
    watchers, partition.watchers = partition.watchers, {}
    for waiters in watchers.values():
        for waiter in waiters:
            waiter.set(None)  # look again
    for waiters in requests.values():
        for waiter in waiters:
            waiter.fail(_unapplied())
    partition.waiting = 0
    partition.down = None
    await restore(partition, recovered)
    for other in partition.partitions:
        if other is not partition and other.down is None:
            other.resend(partition.index)
            partition.resend(other.index)


async def _read(partition: Partition) -> Recovered | None:
    delay = 0.05
    while True:
        try:
            return await partition.store.recover()
        except LeaseLostError as error:
            partition.stop(error)
            return None
        except StorageError as error:
            _log.error("partition %d cannot recover yet: %s", partition.index, error)
            await anyio.sleep(delay)
            delay = min(delay * 2, _BACKOFF_MAX_S)


def _unapplied() -> UnavailableError:
    return UnavailableError(
        "the checkpoint with this request could not be stored, so nothing of it happened; repeat it"
    )


def _fail_replies(batch: Batch) -> None:
    for waiter, _ in batch.replies:
        waiter.fail(_unapplied())


def _fail_message(message: Message) -> None:
    if message.reply is None:
        return
    if message.row:
        message.reply.fail(
            OutcomeUnknownError(
                "the hub recovered while this request waited in a stored mailbox: it will still be "
                "applied; ask for its effect, or repeat it under the same request id"
            )
        )
    else:
        message.reply.fail(_unapplied())
