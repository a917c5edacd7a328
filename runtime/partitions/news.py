"""News: which of a partition's instances changed lately, for who follows them.

Invariants:

* Who has heard of all up to a checkpoint, and asks what changed behind it, is told each instance
  that a later one changed, or that this is not known any more. So he sees the last state of each.
* Nothing is kept, and nothing is paid for, while nobody follows.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..scheduling.waiter import Waiter

KEPT: Final = 10_000
"""How many instances' changes are remembered."""

LAPSE: Final = 60_000_000
"""Microseconds without anybody who asks, after which nothing is kept any more."""

#: Bits of a checkpoint's number, in what readers are told, and bits by which runs differ.
_SEQUENCE_BITS: Final = 40
_RUN_BITS: Final = 18

#: So many answers are kept until the next checkpoint that changes something.
_TOLD_MAX: Final = 64


class News:
    """What changed lately in one partition.

    Args:
        steady: tells a time that setting the clock does not move.

    Attributes:
        base: what is added to a checkpoint's number where readers see it. It is of this run alone:
            the same numbers mean other checkpoints in another hub, or in a copy of this one.
    """

    def __init__(self, steady: Callable[[], int]) -> None:
        self.base = (1 + secrets.randbits(_RUN_BITS)) << _SEQUENCE_BITS
        self._steady = steady
        #: Changes behind this checkpoint are known; None while nobody follows.
        self._since: int | None = None
        #: The last checkpoint that changed each instance, the oldest first.
        self._changed: dict[str, int] = {}
        #: What was told since the last of these, by what was asked: many ask the same.
        self._told: dict[tuple[int, int, int], tuple[int, list[str]]] = {}
        self._waiting: list[Waiter] = []
        self._asked_at = 0

    @property
    def is_followed(self) -> bool:
        """Whether somebody has asked of late."""
        return self._since is not None

    def behind(self, after: int, durable: int, most: int) -> tuple[int, list[str] | None]:
        """Tell what changed behind a checkpoint.

        Args:
            after: the checkpoint up to which the asker has heard of all.
            durable: the last checkpoint that is durable.
            most: about how many to give; the oldest changes come first.

        Returns:
            Up to which checkpoint he has heard of all now, and the instances that changed; None
            for them where that is not known, so that he has to look at all.
        """
        self._asked_at = self._steady()
        if self._since is None:
            self._since = durable
        if after < self._since or after > durable:
            return durable, None
        asked = after, durable, most
        told = self._told.get(asked)
        if told is None:
            if len(self._told) >= _TOLD_MAX:
                self._told.clear()
            told = self._told[asked] = self._find(after, durable, most)
        return told

    def _find(self, after: int, durable: int, most: int) -> tuple[int, list[str]]:
        found: list[str] = []
        for key, sequence in reversed(self._changed.items()):
            if sequence <= after:
                break
            found.append(key)
        found.reverse()
        if len(found) <= most:
            return (durable if found else after), found
        last = self._changed[found[most - 1]]
        upto = most
        while upto < len(found) and self._changed[found[upto]] == last:
            upto += 1  # to the end of a checkpoint, or the rest of it would be passed over
        return last, found[:upto]

    def note(self, keys: Iterable[str], sequence: int) -> None:
        """Take note of the instances that a checkpoint changed, which is durable."""
        self._told.clear()
        changed = self._changed
        for key in keys:
            changed.pop(key, None)
            changed[key] = sequence
        while len(changed) > KEPT:
            key = next(iter(changed))
            self._since = changed.pop(key)  # others of that checkpoint may be gone, too
        if self._waiting:
            self.look_again()
        elif self._steady() - self._asked_at > LAPSE:
            self.lapse()

    def begin_anew(self, durable: int) -> None:
        """Know nothing of what was up to a checkpoint, if anything was known, and all behind it."""
        if self._since is not None:
            self._since = durable
            self._changed = {}
            self._told.clear()
            self.look_again()

    def lapse(self) -> None:
        """Know nothing any more; who asks next has to look at all."""
        self._since = None
        self._changed = {}
        self._told.clear()
        self.look_again()

    def add(self, waiter: Waiter) -> None:
        """Have somebody hear when there are news; he asks again then."""
        self._waiting.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Do not have him wait any more."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def look_again(self) -> None:
        """Have all who wait ask again."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.set(None)
