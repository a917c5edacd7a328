"""Brings a partition back from its store: at the start, and after a commit that failed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from random import uniform
from typing import TYPE_CHECKING

import anyio

from ...actors.errors import (
    HubStoppingError,
    InternalError,
    LeaseLostError,
    OutcomeUnknownError,
    StorageError,
    StoreDamagedError,
    StoreMovedError,
    UnavailableError,
)
from ...actors.logs import Log
from ...actors.messages import Caller, Command
from ...actors.printing import text_of, type_name
from ...storage.slices import at_once, in_slices
from ..placement.claims import id_of
from ..placement.places import MovedError
from ..scheduling.timers import backoff
from ..scheduling.waiter import TOLD, Countdown
from .batch import Errand
from .loss import fail_batch, fail_mail
from .overflow import Mailboxes, look_through
from .tenure import STORE_PATIENCE_S

if TYPE_CHECKING:
    from ...actors.messages import Message
    from ...storage.records import Recovered
    from ..scheduling.waiter import Waiter
    from .activation import Activation
    from .batch import Batch
    from .partition import Dropped, Partition

_log = Log("perdure.partition")

#: Seconds of failed tries after which those that wait are told.
SILENT_S = 5.0
"""How long clients wait for the answer of a partition that cannot come back from its store."""


def callers_of(abroad: Mapping[int, set[Caller]]) -> set[Caller]:
    """Give all who wait for activities that run on other shards."""
    return set[Caller]().union(*abroad.values())


async def refill(partition: Partition, recovered: Recovered, mailboxes: Mailboxes) -> None:
    """Rebuild the partition's memory: what waits, and what is owed.

    It takes nothing in meanwhile, nor any turn: what is older goes before what comes.

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
    with partition.loader.held(), anyio.CancelScope(shield=True):
        await in_slices(mailboxes.fill(partition))
        await in_slices(partition.timers.restore(recovered, partition.damage))
        await in_slices(partition.leftovers.restore(recovered.activities))


async def resume(partition: Partition, recovered: Recovered, mailboxes: Mailboxes) -> None:
    """Go on with what was under way, and with what came meanwhile.

    Args:
        partition: whose memory is as its store says.
        recovered: what that gave.
        mailboxes: what waits for its actors.
    """
    answered = callers_of(partition.calls.abroad) | mailboxes.answered | partition.calls.callers()
    answered |= _take_up(partition)
    # Before the checkpoint that deletes them, which comes when this has returned.
    await partition.damage.set_aside(partition.store)
    await partition.loader.dispatch_unanswered(
        recovered.unanswered, lambda caller: caller not in answered
    )
    partition.leftovers.dispatch(lambda caller: caller not in answered)


def _take_up(partition: Partition) -> set[Caller]:
    """Take in what came, or is to be taken anew, since a crash; gives whose answers are there."""
    aside = partition.gate.take_aside()
    if aside is None:
        return set()  # what is late is not for this memory
    for message in aside:
        if isinstance(message, Errand):
            partition.take_up(message)
            continue
        partition.waiting += 1
        partition.post(message.target, message)
    late = partition.gate.take_late()
    for instance_id, completion in late:
        partition.post(instance_id, completion)
    return {Caller(key, one.execution, one.task) for key, one in late}


async def recover(partition: Partition, error: BaseException, failed: Batch | None) -> None:
    """Drop the memory that a failed commit or turn has tainted, and come back from the store.

    Requests that the failed checkpoint held turn out applied or not by its number in the store;
    all others were never durable, unless they wait in the stored mailbox.
    """
    if partition.is_lost():
        if failed is not None:
            fail_batch(partition, failed, may_be_stored=True)
        return
    _log.error("partition %d recovers: %s", partition.index, error)
    gate = partition.gate
    gate.reason = UnavailableError(text_of(error))
    crashed = partition.crashes.take_fresh()
    is_away = partition.tenure is not None and issubclass(type(error), StorageError)
    if is_away:
        partition.on_away(True)
    reason = _unapplied() if not is_away else MovedError(text_of(error))
    if crashed and not issubclass(type(error), (StorageError, UnavailableError)):
        # Nothing is wrong but with those actors: what others wait for is done over, unnoticed.
        gate.keep_aside()
        reason = _crash(crashed)
    else:
        if issubclass(type(error), InternalError):
            reason = UnavailableError(
                f"partition {partition.index} had to recover, since {text_of(error)}; nothing of "
                "this request happened, and it is safe to repeat"
            )
        _fail_aside(partition)
    tainted = partition.batch
    memory = partition.drop_all(activities=gate.aside is None)
    dropped = [*memory.activations]
    found: tuple[Recovered, Mailboxes] | None = None
    try:
        await _let_go(memory)
        if partition.failed_commits > 1:
            # What is read back would only be tried at once again, at the store's full speed.
            await anyio.sleep(backoff(partition.failed_commits - 2))
        found = await _read(
            partition,
            _waiters_of(failed, tainted, dropped),
            lambda: _stop_waiting(partition, error, failed, tainted, dropped),
        )
    finally:
        if found is None:
            if partition.is_lost():
                _give_over(partition, failed, tainted, dropped)
            else:
                _leave_open(outcome_unknown(), failed, tainted, dropped)
            _fail_aside(partition)
    if found is None:
        return
    recovered, mailboxes = found
    if failed is not None and recovered.sequence == failed.sequence:
        await in_slices(failed.release_replies(partition.requests))
        if partition.workbook is not None:
            partition.workbook.tell(failed)
        failed = None
    lost = _Lost(mailboxes, crashed, reason)
    for batch in (failed, tainted):
        if batch is not None:
            lost.add_answered(batch)
    lost.add_waiting(dropped)
    if gate.aside is None:
        lost.fail()
    else:
        gate.aside = [*lost.fail_crashed(), *gate.aside]
    kept = {id_of(one.request) for one in gate.aside or () if one.request is not None}
    partition.requests.fail(reason, kept | mailboxes.requests.keys())
    await in_slices(partition.watchers.look_again())
    partition.news.begin_anew(recovered.sequence)  # the checkpoint that failed may be one of them
    partition.waiting = 0
    await refill(partition, recovered, mailboxes)
    if partition.is_lost():
        return  # the loop of commits ends, and drops all of it again
    gate.reason = None
    if is_away:
        partition.on_away(False)
    try:
        await resume(partition, recovered, mailboxes)
    except StorageError as error:
        partition.break_down(error)  # once more, from the beginning
        return
    reintroduce(partition)


async def _let_go(memory: Dropped) -> None:
    """Let go of what was in memory; where the hub stops meanwhile, of the rest at once."""
    steps = memory.let_go()
    try:
        await in_slices(steps)
    except BaseException:
        at_once(steps)
        raise


def _crash(crashed: Mapping[str, BaseException]) -> UnavailableError:
    """Make the error for what depended on turns that crashed."""
    key, error = next(iter(crashed.items()))
    return UnavailableError(
        f"a turn of {key} crashed ({type_name(error)}: {text_of(error)}); nothing of this request "
        "happened, and it is safe to repeat"
    )


class _Lost:
    """Clients' messages that a recovery has taken out of memory, and that are not stored."""

    def __init__(
        self, mailboxes: Mailboxes, crashed: Mapping[str, BaseException], reason: UnavailableError
    ) -> None:
        self._mailboxes = mailboxes
        self._crashed = crashed
        self._reason = reason
        # In the order in which they were taken, or wait; by identity, since a message that was
        # acknowledged as stored is in a batch and in its mailbox.
        self._messages: dict[int, tuple[Waiter, Message]] = {}
        self._waiters: list[Waiter] = []  # for no message, but for what else was in a batch

    def add_answered(self, batch: Batch) -> None:
        """Add what a batch would have answered, unless it waits in the stored mailbox again."""
        again = [batch.by_row[row] for row in self._mailboxes.found if row in batch.by_row]
        for waiter, _, message in batch.replies:
            if waiter in again:
                continue
            if message is None or message.row in self._mailboxes.found:
                self._waiters.append(waiter)
            else:
                self._messages.setdefault(id(message), (waiter, message))

    def add_waiting(self, dropped: list[Activation]) -> None:
        """Add what was waiting in mailboxes."""
        for activation in dropped:
            for message in activation.unconsumed:
                waiter = message.reply
                if waiter is None or waiter is TOLD or message.row in self._mailboxes.found:
                    continue
                self._messages.setdefault(id(message), (waiter, message))

    def fail(self) -> None:
        """Tell all who wait."""
        for waiter in (*self._waiters, *(waiter for waiter, _ in self._messages.values())):
            if isinstance(waiter, Countdown):  # it must not be repeated as a whole, unasked
                waiter.fail(_unapplied())
            else:
                waiter.fail(self._reason)

    def fail_crashed(self) -> list[Message]:
        """Tell those who wait for actors that crashed; gives all else, to be taken anew."""
        again: list[Message] = []
        for waiter in self._waiters:
            waiter.fail(self._reason)
        for waiter, message in self._messages.values():
            error = self._crashed.get(message.target)
            if error is not None:
                waiter.fail(_crash({message.target: error}))
                continue
            message.row = message.timer = 0
            message.reply = waiter
            if isinstance(message, Command):
                message.loaded = False
            again.append(message)
        return again


def _fail_aside(partition: Partition) -> None:
    for message in partition.gate.take_aside() or ():
        message.reply.fail(_unapplied())


def reintroduce(partition: Partition) -> None:
    """Exchange with all others what either side may have missed."""
    for other in partition.places:
        if other.index != partition.index:
            other.resend(partition.index)
            partition.exchange.resend(other.index)


def _leave_open(
    unknown: OutcomeUnknownError, failed: Batch | None, tainted: Batch, dropped: list[Activation]
) -> None:
    """Tell whoever waits that the store did not say what became of it."""
    if failed is not None:
        failed.fail_replies(unknown)
    tainted.fail_replies(_unapplied())
    for activation in dropped:
        for message in activation.unconsumed:
            if message.reply is not None:
                message.reply.fail(unknown if message.row else _unapplied())


def _give_over(
    partition: Partition, failed: Batch | None, tainted: Batch, dropped: list[Activation]
) -> None:
    """Have whoever waits ask the process that has the partition now."""
    if failed is not None:
        fail_batch(partition, failed, may_be_stored=True)
    fail_batch(partition, tainted)
    fail_mail(partition, dropped)


def _stop_waiting(
    partition: Partition,
    error: BaseException,
    failed: Batch | None,
    tainted: Batch,
    dropped: list[Activation],
) -> None:
    """Have nobody wait any longer for a store that may stay as it is for hours."""
    unknown = OutcomeUnknownError(
        f"the store of partition {partition.index} has not been well for "
        f"{_silent_s(partition):g} seconds "
        f"({text_of(error)}): the request may have been applied; repeat it under the same request id"
    )
    _fail_aside(partition)
    _leave_open(unknown, failed, tainted, dropped)
    partition.requests.fail_waiting(unknown)


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


def abandon(partition: Partition) -> Generator[None]:
    """Drop the memory for good, and tell whoever still waits; pauses now and then."""
    gone = HubStoppingError(
        "the hub has stopped before this was answered; repeat it on the next one"
    )
    partition.batch.fail_replies(gone)
    partition.stay(gone)
    dropped = partition.drop_all()
    for activation in dropped.activations:
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
        yield
    partition.watchers.fail(gone)
    partition.news.lapse()
    partition.requests.fail(gone)
    yield from dropped.let_go()


async def _read(
    partition: Partition, wanted: Mapping[int, Waiter], stop_waiting: Callable[[], None]
) -> tuple[Recovered, Mailboxes] | None:
    tries = 0
    began = anyio.current_time()
    while not partition.is_lost():
        try:
            recovered = await partition.store.recover()
            mailboxes = await look_through(partition, recovered, wanted)
            return None if partition.is_lost() else (recovered, mailboxes)
        except (LeaseLostError, StoreMovedError, StoreDamagedError) as error:
            # Whoever has the store now speaks for it; or to wait would repair nothing.
            partition.stop(error)
            return None
        except StorageError as error:
            _log.error("partition %d cannot recover yet: %s", partition.index, error)
            if anyio.current_time() - began >= _silent_s(partition):
                stop_waiting()
            await anyio.sleep(_pause(partition, tries))
            tries += 1
    return None


def _silent_s(partition: Partition) -> float:
    return SILENT_S if partition.tenure is None else STORE_PATIENCE_S


def _pause(partition: Partition, tries: int) -> float:
    """Seconds until the next try; where many come back to one store, not all at the same time."""
    return backoff(tries) * (1.0 if partition.tenure is None else uniform(0.5, 1.5))


def _unapplied() -> UnavailableError:
    return UnavailableError(
        "the checkpoint with this request could not be stored, so nothing of it happened; repeat it"
    )
