"""From the journal to the tables: in a thread of its own, beside the commits.

Invariants:

* What a applier was told of is durable in the journal, so it may stop, fail or die at any moment.
* Each round is one transaction, which takes the tables from one checkpoint to a later one. Whoever
  opens the partition anew raises the tables' epoch first, and an older applier's rounds fail.
* Unless somebody waits for it, or too much gathers, a round is spread out, in short turns, over most
  of the time to the next: what commits meanwhile finds a processor and the interpreter free.
* ``layers.applied`` moves only after the tables have it, durably, where they can be found again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Final

from ...actors.errors import LeaseLostError, StorageError, StoreMovedError
from ...actors.logs import Log
from ..encoding import PARTS, encode_parts
from ..layers import Layers
from ..records import Checkpoint
from ..unapplied import Unapplied
from .connection import COMMON, connect
from .faults import FENCED, explained
from .pace import Pace
from .presence import Presence

APPLY: Final = f"INSERT INTO checkpoint VALUES ({', '.join('?' * (PARTS + 5))})"
"""Takes follows, sequence, epoch, next_id and next_row, and the parts."""

APPLIED: Final = (
    "UPDATE meta SET sequence = sequence WHERE sequence = ? AND epoch = ? RETURNING sequence"
)

GATHER_S: Final = 1.0
"""How long checkpoints gather before they are applied: what is written again meanwhile is free."""
LARGE: Final = 4 * 1024 * 1024
"""Bytes that are applied at once, however young they are."""
TOO_LARGE: Final = 2 * LARGE
"""Bytes at which commits wait until something is applied."""
SPREAD: Final = 0.8
"""Over how much of the time to the next round one is spread out."""
PORTION: Final = 200
"""Rows that are applied in one turn, which takes a millisecond or two."""

#: When the partitions of this process apply, and how much at once.
PACE = Pace()

_log = Log("perdure.storage")


class Applier:
    """Brings the checkpoints of one owner of a partition into its tables.

    ``add`` belongs to one thread, the owner's; anything else may be called from any.

    Args:
        path: the file of the tables.
        tables: a connection to it, which the applier closes.
        pragmas: how such a connection is set up.
        sequence: the checkpoint that the tables have.
        epoch: the owner's.
        presence: whether the files are where they were.

    Attributes:
        layers: what the tables lack.
        lost: why nothing more may be acknowledged, if the files are gone.
    """

    def __init__(
        self,
        path: Path,
        tables: sqlite3.Connection,
        pragmas: str,
        sequence: int,
        epoch: int,
        presence: Presence,
    ) -> None:
        self.lost: StoreMovedError | None = None
        self._path = path
        self._presence = presence
        self._tables: sqlite3.Connection | None = tables
        self._pragmas = pragmas
        self._epoch = epoch
        self._since = 0.0  # when what is applied next began to gather, or failed
        self._changed = Condition()
        self.layers = Layers(sequence, self._changed)
        self._idle = False
        self._stopping = False
        self._ended = False
        self._failed = False
        self._waiting: list[tuple[int, Future[None]]] = []
        self._thread: Thread | None = None

    @property
    def is_behind(self) -> bool:
        """Whether there is so much to apply that no more should come."""
        return self.layers.size >= TOO_LARGE

    def add(self, checkpoint: Checkpoint, numbers: tuple[int, int], size: int) -> None:
        """Take the next checkpoint, which the journal has, with its numbers and its size."""
        with self._changed:
            self.layers.add(checkpoint, numbers, size)
            self._tell()

    def add_layer(self, layer: Unapplied) -> None:
        """Take the next checkpoint as a layer of its own, which was made beside."""
        with self._changed:
            self.layers.add_layer(layer)
            self._tell()

    def _tell(self) -> None:
        if self._thread is None:
            self._since = monotonic()
            # A store that nobody closed must not keep the process alive.
            self._thread = Thread(target=self._run, name="perdure-applier", daemon=True)
            self._thread.start()
        elif self._idle or self._is_much:
            self._changed.notify()

    def apply(self) -> Future[None]:
        """Apply all that was added by now, without delay; fails where that fails."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # whoever stops waiting cannot stop it
        with self._changed:
            if self.layers.applied >= self.layers.sequence:
                future.set_result(None)
            elif self._ended:
                future.set_exception(StorageError(f"{self._path} is closed, or recovers"))
            else:
                self._waiting.append((self.layers.sequence, future))
                self._changed.notify()
        return future

    def stop(self) -> None:
        """Apply the rest if that works, and end the thread. Blocks; call it in another thread."""
        with self._changed:
            self._stopping = True
            self._failed = False  # one more try
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        tables, self._tables = self._tables, None
        if tables is not None:
            tables.close()

    @property
    def has_failed(self) -> bool:
        """Whether the last round failed, and is tried again."""
        return self._failed

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what is not applied yet."""
        return bool(self._waiting)

    @property
    def is_running(self) -> bool:
        """Whether it has a thread."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        while self._gather():
            tables, self._tables = self._tables, None
            try:
                with explained(self._path), closing(tables or connect(self._path)) as tables:
                    tables.executescript(COMMON + self._pragmas)
                    self.apply_round(tables)
                    while self._gather():
                        self.apply_round(tables)
            except (StorageError, LeaseLostError) as error:
                self._fail(error)
            except Exception as error:  # a bug of ours, which must not leave anybody waiting
                _log.error("applying the journal of %s failed", self._path, why=error)
                self._fail(StorageError(f"applying the journal of {self._path}: {error!r}"))
        with self._changed:
            self._ended = True
            waiting, self._waiting = self._waiting, []
        for _, future in waiting:  # they came after the last try
            future.set_exception(StorageError(f"{self._path} is closed, or recovers"))

    def _gather(self) -> bool:
        """Wait for a round's worth of checkpoints; tells whether to apply or to end."""
        with self._changed:
            while self.layers.is_empty:
                if self._stopping:
                    return False
                self._idle = True
                self._changed.wait()
                self._idle = False
                self._since = monotonic()
            until = self._since + GATHER_S
            while not self._hurries:
                left = until - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if self._stopping and self._failed:
                return False
            if not (self.layers.is_begun or self.layers.is_full):
                self._since = monotonic()  # what comes from now on is for the next round
            self.layers.begin()
            return True

    @property
    def _hurries(self) -> bool:
        """Whether somebody waits, or too much gathers."""
        return bool(self._waiting) or self._stopping or (self._is_much and not self._failed)

    @property
    def _is_much(self) -> bool:
        return self.layers.is_full or self.layers.gathered >= LARGE

    def apply_round(self, tables: sqlite3.Connection) -> None:
        """Apply what was gathered, in the applier's thread, and tell those that wait for it."""
        self._bring(tables)
        with self._changed:
            done = [future for target, future in self._waiting if target <= self.layers.applied]
            self._waiting = [one for one in self._waiting if one[0] > self.layers.applied]
        for future in done:
            future.set_result(None)

    def _bring(self, tables: sqlite3.Connection) -> None:
        """Bring the tables a round further, and let go of what they then have.

        Whoever hears of the round may go on long before this thread does, and that is large.
        """
        layer = self.layers.begin()
        assert layer is not None
        try:
            self._put(tables, layer)
        except sqlite3.Error as error:
            # A round that failed with an error of the disk may have been applied all the same.
            # The row that is written here also syncs what was written before it.
            latest = layer.sequence, self._epoch
            if str(error) != FENCED or not tables.execute(APPLIED, latest).fetchall():
                raise
        try:
            self._presence.check(logs=True)
        except StoreMovedError as error:
            self.lost = error
            raise
        if layer.size >= LARGE // 4:
            tables.execute("PRAGMA shrink_memory")  # its pages would be kept for good
        with self._changed:
            self.lost = None
            self.layers.end()
            self._failed = False

    def _put(self, tables: sqlite3.Connection, layer: Unapplied) -> None:
        """Put a layer into the tables, all of it or nothing."""

        def put(portion: Checkpoint, sequence: int) -> Callable[[], object]:
            numbers = (layer.follows, sequence, self._epoch, layer.next_id, layer.next_row)
            return lambda: tables.execute(APPLY, (*numbers, *encode_parts(portion)))

        portions = layer.portions(self._epoch, PORTION)
        portion, after = next(portions), next(portions, None)
        if after is None:
            self._take_turn(put(portion, layer.sequence))
            return
        pause = SPREAD * GATHER_S / (layer.rows / PORTION + 2)
        self._wait(PACE.now() + pause * PACE.phase())  # not all partitions at the same moments
        tables.execute("BEGIN IMMEDIATE")
        try:
            # Each says that it follows the same checkpoint, and the last one that it is a later one.
            while after is not None:
                self._take_turn(put(portion, layer.follows), pause)
                portion, after = after, next(portions, None)
            self._take_turn(put(portion, layer.sequence), pause)
            self._take_turn(lambda: tables.execute("COMMIT"))
        except BaseException:
            tables.rollback()
            raise

    def _take_turn(self, work: Callable[[], object], pause: float = 0.0) -> None:
        """Do something when the appliers have rested, or at once where there is no time for that.

        Args:
            work: what to do.
            pause: seconds to wait behind it, as long as nobody hurries.
        """
        if not self._hurries:
            self._wait(PACE.book())
        PACE.take(work)
        if pause:
            self._wait(PACE.now() + pause)

    def _wait(self, until: float) -> None:
        """Wait for a time, as long as nobody hurries."""
        with self._changed:
            while not self._hurries and (left := until - PACE.now()) > 0:
                self._changed.wait(left)

    def _fail(self, error: Exception) -> None:
        """Tell who waits; what is in the journal is tried again, here or by the next owner."""
        with self._changed:
            repeated, self._failed = self._failed, True
            self._since = monotonic()  # it is not tried at full speed
            waiting, self._waiting = self._waiting, []
        if not repeated and not isinstance(error, LeaseLostError):
            _log.error("the journal of %s is not applied, and waits: %s", self._path, error)
        for _, future in waiting:
            future.set_exception(error)
