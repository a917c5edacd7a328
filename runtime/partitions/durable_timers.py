"""A partition's durable timers: messages that wait for their time, in memory and in the store.

A timer that is set and fires, or is taken back, between two checkpoints never touches the store.
"""

from __future__ import annotations

from collections.abc import Generator, Sized
from typing import TYPE_CHECKING, Protocol

from ...actors.messages import Begin, Caller, Message, TimerDue, encode_message
from ...storage.records import TimerRow
from ...storage.slices import STEPS, each
from ..placement.hashing import partition_of

if TYPE_CHECKING:
    from ...storage.records import Checkpoint, Recovered
    from ..scheduling.timers import Alarm, TimerQueue
    from .batch import Batch
    from .damage import Damage


class DurableTimer:
    """A message that waits for its time; ``row`` is its number in the store, 0 if not there."""

    __slots__ = ("alarm", "due", "key", "message", "row")

    def __init__(self, due: int, key: str, message: Message, row: int = 0) -> None:
        self.due = due
        self.key = key
        self.message = message
        self.row = row
        self.alarm: Alarm | None = None


class Owner(Protocol):
    """What the timers need of the partition whose they are."""

    batch: Batch

    @property
    def index(self) -> int:
        """The partition's number."""
        ...

    @property
    def places(self) -> Sized:
        """All partitions."""
        ...

    def post(self, key: str, message: Message, /) -> None:
        """Put a message into an actor's mailbox."""
        ...

    def send(self, target: str, message: Message, /) -> None:
        """Send a message to an actor of this or another partition."""
        ...

    def new_row(self) -> int:
        """The next number for a row."""
        ...

    def gathered(self) -> None:
        """Say that there is something to commit."""
        ...


class DurableTimers:
    """The timers of one partition.

    Attributes:
        gone: of many that were taken back at once, those that are still to be stopped, which is
            done before the batch is sealed. One that fires before that finds nobody who waits.
    """

    def __init__(self, partition: Owner, queue: TimerQueue) -> None:
        self._partition = partition
        self._queue = queue
        self._armed: set[DurableTimer] = set()
        # Those that an orchestration may take back, by instance, execution and task number.
        self._by_instance: dict[str, dict[tuple[int, int], DurableTimer]] = {}
        self.gone: list[DurableTimer] = []

    def restore(self, recovered: Recovered, damage: Damage) -> Generator[None]:
        """Arm what the store holds; pauses now and then."""

        def restore(row: TimerRow) -> None:
            message, is_whole = damage.read_timer(row)
            if is_whole and message is not None:
                self.arm(DurableTimer(row.due, row.actor, message, row.n))
                return
            self._partition.batch.timers_deleted.append(row.n)
            if message is not None:
                self._partition.send(row.actor, message)

        return each(recovered.timers, restore)

    def arm(self, timer: DurableTimer) -> None:
        """Let a timer run."""
        message = timer.message
        if isinstance(message, (TimerDue, Begin)):
            tasks = self._by_instance.setdefault(timer.key, {})
            tasks[message.execution, message.task] = timer
        self._armed.add(timer)
        if not timer.row:
            self._partition.batch.timers.append(timer)
        timer.alarm = self._queue.set(timer.due, lambda: self._fire(timer))

    def _fire(self, timer: DurableTimer) -> None:
        partition = self._partition
        if timer not in self._armed:
            return  # of a memory that was dropped
        self._armed.discard(timer)
        timer.alarm = None
        message = timer.message
        if isinstance(message, (TimerDue, Begin)):
            self._forget(timer.key, (message.execution, message.task))
        if partition_of(timer.key, len(partition.places)) == partition.index:
            # The row goes when the message is consumed, or stored as mail.
            message.timer = timer.row
            message.keep = not timer.row
            partition.post(timer.key, message)
        else:
            if timer.row:
                partition.batch.timers_deleted.append(timer.row)
            partition.send(timer.key, message)
            partition.gathered()

    def _forget(self, key: str, task: tuple[int, int]) -> DurableTimer | None:
        tasks = self._by_instance.get(key)
        if tasks is None:
            return None
        timer = tasks.pop(task, None)
        if not tasks:
            del self._by_instance[key]
        return timer

    def disarm(self, caller: Caller) -> None:
        """Take back a timer of the caller, or all of them for task 0."""
        if caller.task:
            timer = self._forget(caller.instance_id, (caller.execution, caller.task))
            if timer is not None:
                self._take_back(timer)
            return
        gone = self._by_instance.pop(caller.instance_id, {}).values()
        if len(gone) > STEPS:
            self.gone += gone
            return
        for timer in gone:
            self._take_back(timer)

    def stop_gone(self) -> Generator[None]:
        """Stop those that were taken back; pauses now and then."""
        while self.gone:
            some = self.gone[-STEPS:]
            del self.gone[-STEPS:]
            for timer in some:
                self._take_back(timer)
            yield

    def _take_back(self, timer: DurableTimer) -> None:
        self._armed.discard(timer)
        self._stop(timer)
        if timer.row:
            self._partition.batch.timers_deleted.append(timer.row)

    def _stop(self, timer: DurableTimer) -> None:
        if timer.alarm is not None:
            self._queue.stop(timer.alarm)
            timer.alarm = None

    def seal(self, batch: Batch, checkpoint: Checkpoint) -> None:
        """Put the batch's timers that still run into a checkpoint."""
        self.unload(batch)
        checkpoint.timers = batch.timer_rows

    def unload(self, batch: Batch) -> None:
        """Write down the batch's timers that still run."""
        timers, batch.timers = batch.timers, []
        for timer in timers:
            if timer.alarm is not None:
                timer.row = self._partition.new_row()
                body = encode_message(timer.message)
                batch.timer_rows.append(TimerRow(timer.row, timer.due, timer.key, body))

    def clear(self) -> Generator[None]:
        """Stop all timers, in memory only: none fires from now on. The rest pauses now and then."""
        armed, self._armed = self._armed, set()
        self._by_instance = {}
        self.gone = []
        return each(armed, self._stop)
