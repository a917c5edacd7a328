"""Moving: a partition leaves its shard with everything durable, and goes on at another.

Invariants:

* From the moment it leaves until its next owner has recovered it, nobody takes turns of it. The
  next owner's epoch fences the last one out, whatever it may still believe.
* What waited in mailboxes is stored in the checkpoint it leaves with, in order; messages that
  come later are refused or lost, which their senders repeat.
* Whoever waits for a stored message is answered through the shard the partition left.
* Activities that run go on where they are; their answers follow the partition, also those that
  came while it left.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import anyio

from ...actors.errors import HubStoppingError, LeaseLostError, StorageError, UnavailableError
from ...actors.messages import Message
from ...storage.slices import at_once, in_slices
from ..placement.places import MovedError
from ..scheduling.waiter import TOLD, Waiter
from .batch import Batch
from .checkpoint import SealError, seal
from .loss import fail_batch, forsake
from .recovery import outcome_unknown, recover

if TYPE_CHECKING:
    from .partition import Partition


async def leave(partition: Partition, told: Waiter) -> bool:
    """Make durable all that a partition holds, and give it up.

    Args:
        partition: which has no commit in flight.
        told: is given the waiters of stored messages, by their rows; or the error for which the
            partition stays.

    Returns:
        Whether the partition has left.
    """
    if partition.is_lost():
        told.fail(MovedError(f"partition {partition.index} is not this process's any more"))
        await in_slices(forsake(partition))
        return True
    partition.gate.reason = MovedError(f"partition {partition.index} is moving to another shard")
    waiting = _keep_mail(partition)
    batch, partition.batch = partition.batch, Batch()
    try:
        checkpoint = partition.pump.lend(lambda: seal(partition, batch))
        for activation in partition.activations.values():
            activation.dead = True
        await partition.store.commit(checkpoint)
    except LeaseLostError as error:
        # Whoever has the store now speaks for it; coming back would take it from them.
        if partition.tenure is None:
            batch.fail_replies(error)
        else:
            fail_batch(partition, batch)
        partition.stop(error)
        told.fail(error)
        return False
    except (StorageError, UnavailableError, SealError) as error:
        told.fail(error)
        partition.gate.late.clear()  # they run again
        await recover(partition, error, batch)
        return False
    except BaseException:
        batch.fail_replies(outcome_unknown())
        told.fail(HubStoppingError("the hub stops: the partition moves no more"))
        raise
    partition.exchange.on_durable(checkpoint)
    with anyio.CancelScope(shield=True):
        await in_slices(partition.exchange.release(batch))
        await in_slices(batch.release_replies(partition.requests))
    told.set({one.row: one.reply for one in waiting if one.row and one.reply is not TOLD})
    for message in waiting:
        if not message.row:
            message.reply.fail(MovedError(str(partition.gate.reason)))
    _turn_away(partition)
    return True


def _keep_mail(partition: Partition) -> list[Message]:
    """Have the next checkpoint store all messages; gives those that somebody waits for."""
    waiting: list[Message] = []
    for activation in partition.activations.values():
        messages = activation.unconsumed
        if messages:
            partition.touch(activation)
            for message in messages:
                message.keep = True
                if message.reply is not None:
                    waiting.append(message)
    return waiting


def _turn_away(partition: Partition) -> None:
    """Have those who wait for other things look for the partition where it will be."""
    at_once(partition.watchers.look_again())
    partition.news.lapse()
    partition.requests.fail(partition.gate.refusal())


class Replies:
    """Answers to requests whose message has moved away, with the partition that has it."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[int, Waiter]] = {}
        # Another shard may still answer what this one's predecessor asked, before it died.
        self._number = secrets.randbits(48)

    def expect(self, shard: int, waiter: Waiter) -> int:
        """Give the number under which the answer will come from a shard."""
        self._number += 1
        self._waiting[self._number] = (shard, waiter)
        return self._number

    def take(self, number: int, value: Any) -> None:
        """Give an answer to whoever waits for it."""
        found = self._waiting.pop(number, None)
        if found is None:
            return
        if isinstance(value, BaseException):
            found[1].fail(value)
        else:
            found[1].set(value)

    def owe(self, numbers: Iterable[int], shard: int) -> None:
        """Expect some answers from another shard than before."""
        for number in numbers:
            found = self._waiting.get(number)
            if found is not None:
                self._waiting[number] = (shard, found[1])

    def __len__(self) -> int:
        """How many wait for an answer."""
        return len(self._waiting)

    def fail(self, error: BaseException, shard: int | None = None) -> None:
        """Fail those whose answer that shard owes, which has died; or all of them."""
        for number, (owing, waiter) in list(self._waiting.items()):
            if shard in (None, owing):
                del self._waiting[number]
                waiter.fail(error)
