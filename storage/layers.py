"""What was committed and is not in a store's tables yet, for whoever reads them and brings it there."""

from __future__ import annotations

from collections import deque
from threading import Condition

from .records import Checkpoint
from .unapplied import Unapplied


class Layers:
    """Checkpoints behind those that the tables have: oldest first, the last of them gathers more.

    Any method may be called from any thread.

    Args:
        sequence: the checkpoint that the tables have.
        changed: whose lock it takes; whoever waits for changes gives one.

    Attributes:
        applied: the last checkpoint that the tables have.
    """

    def __init__(self, sequence: int, changed: Condition | None = None) -> None:
        self.applied = sequence
        self._lock = Condition() if changed is None else changed
        self._gathering = Unapplied(sequence, sequence)
        self._full: deque[Unapplied] = deque()
        self._applying: Unapplied | None = None
        self._rounds = 0

    @property
    def sequence(self) -> int:
        """The last checkpoint that was added."""
        return self._gathering.sequence

    @property
    def is_empty(self) -> bool:
        """Whether the tables lack nothing."""
        last = self._gathering
        return self._applying is None and not self._full and last.sequence == last.follows

    @property
    def is_begun(self) -> bool:
        """Whether a layer is being brought into the tables, or is to be again."""
        return self._applying is not None

    @property
    def is_full(self) -> bool:
        """Whether there is a layer that gathers no more, and nobody has begun."""
        return bool(self._full)

    @property
    def gathered(self) -> int:
        """The bytes of the layer that gathers."""
        return self._gathering.size

    @property
    def size(self) -> int:
        """The bytes of what nobody brings into the tables yet."""
        return self._gathering.size + sum(one.size for one in self._full)

    @property
    def mail_count(self) -> int:
        """How many messages the tables lack."""
        return sum(len(layer.mail) for layer in self.now()[1])

    def check(self, checkpoint: Checkpoint) -> None:
        """Refuse what could never be applied, as far as these tell."""
        layers = self.now()[1]
        for number, layer in enumerate(layers, 1):
            layer.check(checkpoint, layers[number:])

    def add(self, checkpoint: Checkpoint, numbers: tuple[int, int], size: int) -> None:
        """Take the next checkpoint, with its numbers and its size."""
        with self._lock:
            self._gathering.add(checkpoint, numbers, size)

    def add_layer(self, layer: Unapplied) -> None:
        """Take the next checkpoint as a layer of its own, which was made beside."""
        with self._lock:
            if self._gathering.sequence > self._gathering.follows:
                self._full.append(self._gathering)
            self._full.append(layer)
            self._gathering = Unapplied(layer.sequence, layer.sequence)

    def now(self) -> tuple[int, tuple[Unapplied, ...]]:
        """Give how many rounds have ended, and what the tables may lack since, oldest first."""
        with self._lock:
            if self._applying is None:
                return self._rounds, (*self._full, self._gathering)
            return self._rounds, (self._applying, *self._full, self._gathering)

    def begin(self) -> Unapplied | None:
        """Give what is to be brought into the tables next, or again if that failed."""
        with self._lock:
            if self._applying is None and self._full:
                self._applying = self._full.popleft()
            elif self._applying is None and self._gathering.sequence > self._gathering.follows:
                self._applying = self._gathering
                sequence = self._applying.sequence
                self._gathering = Unapplied(sequence, sequence)
            return self._applying

    def end(self) -> None:
        """The tables have what was begun."""
        with self._lock:
            if self._applying is not None:
                self.applied = self._applying.sequence
            self._applying = None
            self._rounds += 1
