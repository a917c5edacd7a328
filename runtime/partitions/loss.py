"""Loss: another process has taken a partition over, or may have, and it ends here.

Invariants:

* Nothing more of it is made durable by this process, and nothing that it started goes on: whoever
  has it now does all that again which the store does not say was done.
* Whoever waits here asks again where the partition is by then, unless that might do something twice.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from ...actors.errors import OutcomeUnknownError
from ...storage.slices import at_once
from ..placement.places import MovedError
from ..scheduling.waiter import TOLD, Countdown, Waiter

if TYPE_CHECKING:
    from ...actors.messages import Message
    from .activation import Activation
    from .batch import Batch
    from .partition import Partition


def forsake(partition: Partition) -> Generator[None]:
    """Drop all that is in memory, and have whoever waits ask elsewhere; pauses now and then."""
    moved = _moved(partition)
    partition.gate.reason = moved
    for message in partition.gate.take_aside() or ():
        _fail(message.reply, message, moved)
    batch, dropped = partition.batch, partition.drop_all()
    fail_batch(partition, batch)
    fail_mail(partition, dropped.activations)
    at_once(partition.watchers.look_again())
    partition.news.lapse()
    partition.requests.fail(moved)
    return dropped.let_go()


def fail_batch(partition: Partition, batch: Batch, *, may_be_stored: bool = False) -> None:
    """Tell those who wait for a batch that it will not be let out here."""
    moved = _moved(partition)
    for waiter, _, message in batch.replies:
        _fail(waiter, message, moved, may_be_stored)


def fail_mail(partition: Partition, activations: Iterable[Activation]) -> None:
    """Tell those whose messages wait in mailboxes that they will not be taken here."""
    moved = _moved(partition)
    for activation in activations:
        for message in activation.unconsumed:
            _fail(message.reply, message, moved)


def _moved(partition: Partition) -> MovedError:
    return MovedError(f"partition {partition.index} is not this process's any more")


def _fail(
    waiter: Waiter | None, message: Message | None, moved: MovedError, may_be_stored: bool = False
) -> None:
    if waiter is None or waiter is TOLD:
        return
    if message is not None and message.request is not None:
        waiter.fail(moved)  # repeated, it is applied once
    elif may_be_stored or isinstance(waiter, Countdown) or (message is not None and message.row):
        waiter.fail(
            OutcomeUnknownError(
                f"{moved} while it had this request: it may have been applied; repeat it under "
                "the same request id"
            )
        )
    else:
        waiter.fail(moved)
