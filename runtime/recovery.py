"""Brings a partition back from its store: at the start, and after a commit that failed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from ..actors.errors import (
    HubStoppingError,
    LeaseLostError,
    OutcomeUnknownError,
    StorageError,
    StoreDamagedError,
    StoreMovedError,
    UnavailableError,
)
from ..actors.failures import read_failure
from ..actors.logs import Log
from ..actors.messages import Caller, Completion, Operation, decode_message
from ..actors.printing import text_of
from .waiting import TOLD

if TYPE_CHECKING:
    from ..storage.records import Recovered
    from .activation import Activation
    from .batch import Batch
    from .partition import Partition
    from .waiting import Waiter

_log = Log("perdure.partition")

_BACKOFF_MAX_S = 5.0


def callers_of(abroad: Mapping[int, set[Caller]]) -> set[Caller]:
    """Give all who wait for activities that run on other shards."""
    return set[Caller]().union(*abroad.values())


def read_outcome(body: bytes) -> Any:
    """Read the recorded answer to a client's request, in the form in which waiters get it."""
    kind, value = orjson.loads(body)
    return read_failure(value) if kind == "failed" else orjson.dumps(value)


async def restore(
    partition: Partition,
    recovered: Recovered,
    waiters: Mapping[int, Waiter] = MappingProxyType({}),
) -> None:
    """Rebuild the partition's memory: what waits, what is owed, what is under way.

    Args:
        partition: whose memory is empty.
        recovered: what its store gave.
        waiters: who waits for stored messages, by their row.
    """
    partition.sequence = recovered.sequence
    partition.epoch = recovered.epoch
    partition.next_id = max(partition.next_id, recovered.next_id)
    partition.next_row = max(partition.next_row, recovered.next_row)
    partition.exchange.restore(recovered)
    partition.timers.restore(recovered)
    answered = callers_of(partition.abroad)
    for mail in recovered.mail:
        message = decode_message(orjson.loads(mail.body))
        message.row = mail.n
        if isinstance(message, Completion):
            answered.add(Caller(mail.actor, message.execution, message.task))
        message.reply = waiters.get(mail.n)
        if message.reply is None and isinstance(message, Operation) and not message.call:
            message.reply = TOLD
        if message.reply is not None:
            partition.waiting += 1
        if message.request is not None:
            partition.requests.setdefault(message.request, [])
        partition.post(mail.actor, message)
    await partition.loader.dispatch_unanswered(
        recovered.unanswered, lambda caller: caller not in answered
    )


async def recover(partition: Partition, error: BaseException, failed: Batch | None) -> None:
    """Drop the memory that a failed commit or turn has tainted, and come back from the store.

    Requests that the failed checkpoint held turn out applied or not by its number in the store;
    all others were never durable, unless they wait in the stored mailbox.
    """
    _log.error("partition %d recovers: %s", partition.index, error)
    partition.down = UnavailableError(text_of(error))
    tainted = partition.batch
    dropped = partition.drop_all()
    recovered: Recovered | None = None
    try:
        if partition.failed_commits > 1:
            # What is read back would only be tried at once again, at the store's full speed.
            await anyio.sleep(backoff(partition.failed_commits - 2))
        recovered = await _read(partition)
    finally:
        if recovered is None:
            _leave_open(failed, tainted, dropped)
    if recovered is None:
        return
    if failed is not None and recovered.sequence == failed.sequence:
        failed.release_replies(partition)
        failed = None
    waiting = _fail_lost_messages(dropped, recovered)
    for batch in (failed, tainted):
        if batch is not None:
            # What was answered too early waits in the stored mailbox again, and so do its callers.
            again = {
                mail.n: batch.by_row[mail.n] for mail in recovered.mail if mail.n in batch.by_row
            }
            batch.fail_replies(_unapplied(), again.values())
            waiting |= again
    _fail_lost_requests(partition, recovered)
    watchers, partition.watchers = partition.watchers, {}
    for waiters in watchers.values():
        for waiter in waiters:
            waiter.set(None)  # look again
    partition.waiting = 0
    partition.down = None
    await restore(partition, recovered, waiting)
    reintroduce(partition)


def reintroduce(partition: Partition) -> None:
    """Exchange with all others what either side may have missed."""
    for other in partition.partitions:
        if other is not partition:
            other.resend(partition.index)
            partition.exchange.resend(other.index)


def _leave_open(failed: Batch | None, tainted: Batch, dropped: list[Activation]) -> None:
    """Tell whoever waits that the hub ends before its store could say what became of it."""
    if failed is not None:
        failed.fail_replies(outcome_unknown())
    tainted.fail_replies(_unapplied())
    for activation in dropped:
        for message in activation.unconsumed:
            if message.reply is not None:
                message.reply.fail(outcome_unknown() if message.row else _unapplied())


def outcome_unknown() -> OutcomeUnknownError:
    """Make the error for a request whose checkpoint may be stored or not."""
    return OutcomeUnknownError(
        "the hub stopped while it could not learn from its store what became of this request; "
        "repeat it under the same request id on the next one"
    )


def _fail_lost_messages(dropped: list[Activation], recovered: Recovered) -> dict[int, Waiter]:
    """Fail who waits for a message that is gone; give the waiters of those that are stored."""
    stored = {mail.n for mail in recovered.mail}
    waiting: dict[int, Waiter] = {}
    for activation in dropped:
        for message in activation.unconsumed:
            if message.reply is None:
                continue
            if message.row in stored:
                waiting[message.row] = message.reply
            else:
                message.reply.fail(_unapplied())
    return waiting


def _fail_lost_requests(partition: Partition, recovered: Recovered) -> None:
    """The same for repeated requests, which wait by their request ids."""
    stored = {orjson.loads(mail.body)[-1] for mail in recovered.mail}
    requests, partition.requests = partition.requests, {}
    for request, waiters in requests.items():
        if request in stored:
            partition.requests[request] = waiters
        else:
            for waiter in waiters:
                waiter.fail(_unapplied())


def abandon(partition: Partition) -> None:
    """Drop the memory for good, and tell whoever still waits."""
    gone = HubStoppingError(
        "the hub has stopped before this was answered; repeat it on the next one"
    )
    partition.batch.fail_replies(gone)
    partition.stay(gone)
    for activation in partition.drop_all():
        for message in activation.unconsumed:
            if message.reply is None:
                continue
            if message.row:
                message.reply.fail(
                    OutcomeUnknownError(
                        "the hub has stopped while this request waited in a stored mailbox: the "
                        "next one applies it; repeat it under the same request id for the answer"
                    )
                )
            else:
                message.reply.fail(gone)
    for waiters in (*partition.watchers.values(), *partition.requests.values()):
        for waiter in waiters:
            waiter.fail(gone)
    partition.watchers.clear()
    partition.requests.clear()


async def _read(partition: Partition) -> Recovered | None:
    tries = 0
    while True:
        try:
            return await partition.store.recover()
        except (LeaseLostError, StoreMovedError, StoreDamagedError) as error:
            # Whoever has the store now speaks for it; or to wait would repair nothing.
            partition.stop(error)
            return None
        except StorageError as error:
            _log.error("partition %d cannot recover yet: %s", partition.index, error)
            await anyio.sleep(backoff(tries))
            tries += 1


def backoff(tries: int) -> float:
    """Seconds to wait before the next try."""
    return min(0.05 * 2.0 ** min(tries, 10), _BACKOFF_MAX_S)


def _unapplied() -> UnavailableError:
    return UnavailableError(
        "the checkpoint with this request could not be stored, so nothing of it happened; repeat it"
    )
