"""The ledger of a partition: what the next checkpoint is to hold, and the numbers given out for it.

Invariants:

* One batch gathers, while at most one is being stored and at most one is let out.
* A number that was given out names one actor, or one row, for ever: a recovery goes on behind the
  greatest that the store or this memory has seen.
* What broke down is not sealed any more: the partition recovers before it commits again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio.lowlevel

from ..durations import DurationCounter
from .batch import Batch

if TYPE_CHECKING:
    from ..scheduling.waiter import Waiter
    from .activation import Activation
    from .batch import Errand


class Ledger:
    """What gathers for the next checkpoint of one partition.

    Args:
        index: the partition's number.
        new_waiter: makes a place for one outcome.
    """

    __slots__ = (
        "_broken",
        "_sleeper",
        "batch",
        "commit_durations",
        "commits",
        "committed_bytes",
        "deferred",
        "epoch",
        "failed_commits",
        "flying",
        "index",
        "is_closing",
        "leaving",
        "messages",
        "new_waiter",
        "next_id",
        "next_row",
        "releasing",
        "reloaded",
        "sequence",
        "turns",
    )

    def __init__(self, index: int, new_waiter: Callable[[], Waiter]) -> None:
        #: The partition's number.
        self.index = index
        #: The effects of all turns since the last checkpoint was sealed.
        self.batch = Batch()
        #: The batch that is being stored; turns run ahead of it.
        self.flying: Batch | None = None
        #: Whether what the batch has is being written down, so that it gets no more than it may.
        self.is_closing = False
        #: The batch that is durable, and not let out yet to the end.
        self.releasing: Batch | None = None
        #: The number of the last checkpoint that is known to be durable; the next has one more.
        self.sequence = 0
        #: What the store gave at the last recovery, and asks for with each commit.
        self.epoch = 0
        #: Greater than every number of an actor, and of a row, that was ever given out.
        self.next_id = 1
        self.next_row = 1
        #: Checkpoints that became durable, and those that failed since the last that did.
        self.commits = 0
        self.failed_commits = 0
        #: Of all sealed batches.
        self.turns = 0
        self.messages = 0
        #: Of those that became durable.
        self.commit_durations = DurationCounter()
        self.committed_bytes = 0
        #: Who waits for the partition to leave; there is none while nobody has asked for that.
        self.leaving: Waiter | None = None
        #: Activations whose next turn comes behind the commit in flight.
        self.deferred: list[Activation] = []
        #: Activations that are loaded anew when what they decided is durable.
        self.reloaded: list[Activation] = []
        self.new_waiter = new_waiter
        #: The commit loop, while it has nothing to do.
        self._sleeper: Waiter | None = None
        self._broken: BaseException | None = None

    def new_id(self) -> int:
        """The next number for an actor."""
        number = self.next_id
        self.next_id = number + 1
        return number

    def new_row(self) -> int:
        """The next number for a row of mail, timers or outbox."""
        number = self.next_row
        self.next_row = number + 1
        return number

    def gathered(self) -> None:
        """Say that there is something to commit."""
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None  # it is told once, by the first of the many turns that follow
            sleeper.set(None)

    def break_down(self, error: BaseException) -> None:
        """Take note that memory cannot be trusted, or not be filled: the partition recovers."""
        if self._broken is None:
            self._broken = error
        self.gathered()

    @property
    def is_tainted(self) -> bool:
        """Whether memory must be dropped."""
        return self._broken is not None

    def take_trouble(self) -> BaseException | None:
        """Give what broke down, to recover from it now, if anything did."""
        error, self._broken = self._broken, None
        return error

    @property
    def has_work(self) -> bool:
        """Whether there is something to commit, to release or to recover from."""
        return (
            self._broken is not None
            or self.leaving is not None
            or self.batch.has_rows
            or self.batch.has_output
        )

    async def wait_for_work(self) -> None:
        """Return when there is something to commit, or may be, after a turn of the loop.

        What the last commit let out goes on in that, and is part of the next one.
        """
        if not self.has_work:
            self._sleeper = sleeper = self.new_waiter()
            try:
                await sleeper
            finally:
                self._sleeper = None
        elif self.batch.has_rows:
            await anyio.lowlevel.checkpoint()

    def take_up(self, errand: Errand) -> None:
        """Do an errand, whose reply waits for the batch."""
        errand.work()
        assert errand.reply is not None
        self.batch.replies.append((errand.reply, None, errand))
        self.gathered()

    def stay(self, error: Exception) -> None:
        """Tell whoever had it leave, if anyone did and it has not begun, that it will not."""
        leaving, self.leaving = self.leaving, None
        if leaving is not None:
            leaving.fail(error)

    def defers(self, activation: Activation) -> bool:
        """Have an activation wait for the end of a commit, if there is one to wait for."""
        if self.flying is None and not self.batch.has_rows:
            return False
        activation.queued = True
        self.deferred.append(activation)
        self.gathered()
        return True

    def let_on(self) -> None:
        """Let those go on that waited for the end of a commit."""
        deferred, self.deferred = self.deferred, []
        for activation in deferred:
            activation.wake()

    def touch(self, activation: Activation) -> None:
        """Have the next checkpoint look at the activation's waiting messages."""
        if not activation.touched:
            activation.touched = True
            self.batch.touched.append(activation)
