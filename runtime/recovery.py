"""Brings a partition back from its store: at the start, and after a commit that failed."""

from __future__ import annotations

from collections.abc import Mapping
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
from ..actors.messages import Caller
from ..actors.printing import text_of
from .overflow import Mailboxes, look_through
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


def read_outcome(body: bytes, place: str, request: str) -> Any:
    """Read the recorded answer to a client's request, in the form in which waiters get it.

    Raises:
        StoreDamagedError: it is none.
    """
    try:
        kind, value, *_ = orjson.loads(body)
        return read_failure(value) if kind == "failed" else orjson.dumps(value)
    except Exception as error:
        raise StoreDamagedError(
            f"{place}: the answer recorded for request {request!r} cannot be read ({error}); the "
            "request was applied, and is not applied again"
        ) from error


async def restore(partition: Partition, recovered: Recovered, mailboxes: Mailboxes) -> None:
    """Rebuild the partition's memory: what waits, what is owed, what is under way.

    Args:
        partition: whose memory is empty.
        recovered: what its store gave.
        mailboxes: what waits for its actors.
    """
    partition.sequence = recovered.sequence
    partition.epoch = recovered.epoch
    partition.next_id = max(partition.next_id, recovered.next_id)
    partition.next_row = max(partition.next_row, recovered.next_row)
    partition.exchange.restore(recovered)
    partition.timers.restore(recovered, partition.damage)
    answered = callers_of(partition.abroad) | mailboxes.answered
    mailboxes.fill(partition)
    # Before the checkpoint that deletes them, which comes when this has returned.
    await partition.damage.set_aside(partition.store)
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
    found: tuple[Recovered, Mailboxes] | None = None
    try:
        if partition.failed_commits > 1:
            # What is read back would only be tried at once again, at the store's full speed.
            await anyio.sleep(backoff(partition.failed_commits - 2))
        found = await _read(partition, _waiters_of(failed, tainted, dropped))
    finally:
        if found is None:
            _leave_open(failed, tainted, dropped)
    if found is None:
        return
    recovered, mailboxes = found
    if failed is not None and recovered.sequence == failed.sequence:
        failed.release_replies(partition)
        failed = None
    _fail_lost_messages(dropped, mailboxes)
    for batch in (failed, tainted):
        if batch is not None:
            # What was answered too early waits in the stored mailbox again, and so do its callers.
            again = [batch.by_row[row] for row in mailboxes.found if row in batch.by_row]
            batch.fail_replies(_unapplied(), again)
    _fail_lost_requests(partition, mailboxes)
    watchers, partition.watchers = partition.watchers, {}
    for waiters in watchers.values():
        for waiter in waiters:
            waiter.set(None)  # look again
    partition.waiting = 0
    partition.down = None
    try:
        await restore(partition, recovered, mailboxes)
    except StorageError as error:
        partition.break_down(error)  # once more, from the beginning
        return
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


def _waiters_of(
    failed: Batch | None, tainted: Batch, dropped: list[Activation]
) -> dict[int, Waiter]:
    """Give who waits for messages that may be stored, by their rows."""
    waiting = {} if failed is None else dict(failed.by_row)
    waiting |= tainted.by_row
    for activation in dropped:
        for message in activation.unconsumed:
            if message.row and message.reply is not None:
                waiting[message.row] = message.reply
    return {row: waiter for row, waiter in waiting.items() if waiter is not TOLD}


def _fail_lost_messages(dropped: list[Activation], mailboxes: Mailboxes) -> None:
    """Fail who waits for a message that is gone."""
    for activation in dropped:
        for message in activation.unconsumed:
            if message.reply is not None and message.row not in mailboxes.found:
                message.reply.fail(_unapplied())


def _fail_lost_requests(partition: Partition, mailboxes: Mailboxes) -> None:
    """The same for repeated requests, which wait by their request ids."""
    requests, partition.requests = partition.requests, {}
    for request, waiters in requests.items():
        if request in mailboxes.requests:
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


async def _read(
    partition: Partition, wanted: Mapping[int, Waiter]
) -> tuple[Recovered, Mailboxes] | None:
    tries = 0
    while True:
        try:
            recovered = await partition.store.recover()
            return recovered, await look_through(partition, recovered, wanted)
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
