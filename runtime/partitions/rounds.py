"""When the partitions of one event loop commit: in rounds, all that have something at once.

A commit costs much the same whatever it holds. So what the partitions of a loop gather while a
round is being stored waits for its end, and then goes together: fewer commits with more in each,
without a window of time that a lone request would have to wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from ..scheduling.waiter import Waiter

PATIENCE_S: Final = 0.005
"""How long a round waits for the last one to end; what takes longer is waited for no more."""


class Round:
    """Commits that are under way, and who waits for their end."""

    __slots__ = ("flying", "waiting")

    def __init__(self) -> None:
        self.flying = 0
        self.waiting: list[Waiter] = []

    def end(self) -> None:
        """Take note that one of its commits has ended."""
        self.flying -= 1
        if not self.flying:
            self.let_on()

    def let_on(self) -> None:
        """Have nobody wait any more."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.set(None)


class Rounds:
    """The rounds of one event loop.

    Invariant: a commit that takes long, or fails, holds others up for ``PATIENCE_S`` at most.
    """

    def __init__(self, new_waiter: Callable[[], Waiter]) -> None:
        self._new_waiter = new_waiter
        self._last = Round()

    async def join(self) -> None:
        """Return once the last round has ended, and the loop had a turn for what that let out."""
        last = self._last
        if last.flying:
            await self._wait(last)
            await checkpoint()

    def begin(self) -> Round:
        """Take note that a commit begins; gives the round that has to be told of its end."""
        last = self._last
        last.flying += 1
        return last

    async def _wait(self, last: Round) -> None:
        waiter = self._new_waiter()
        last.waiting.append(waiter)
        if len(last.waiting) > 1:
            await waiter
            return
        has_ended = False
        try:
            with anyio.move_on_after(PATIENCE_S):
                await waiter
                has_ended = True
        finally:
            if not has_ended:
                if last is self._last:
                    self._last = Round()
                last.let_on()
