"""An allowance: how long an event loop may be held, between two of its turns, by all who share it.

Each of many works may be short enough, and all of them in one turn of the loop be not.
"""

from __future__ import annotations

from collections.abc import Callable

from ...storage.slices import spend, turn_of_loop
from .waiter import thread_waker

#: What takes less is not counted: to renew the allowance has a price as well.
_TRIFLE_S = 0.0002


class Allowance:
    """Seconds that some works may take together in one turn of the event loop.

    Attributes:
        seconds: how many these are.
        left: what is left of them in this turn; not above zero once they are spent.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = self.left = seconds
        self._renew_soon: Callable[[], None] | None = None

    def spend(self, seconds: float) -> None:
        """Take note of what was taken, on the event loop."""
        if seconds < _TRIFLE_S:
            return
        if self.left == self.seconds:
            if self._renew_soon is None:
                self._renew_soon = thread_waker(self._renew)
            self._renew_soon()
        self.left -= seconds
        spend(seconds)  # what goes in slices has less then

    def _renew(self) -> None:
        self.left = self.seconds

    async def wait(self) -> None:
        """Return once some is left, which is at once unless it was spent in this turn."""
        while self.left <= 0:
            await turn_of_loop()

    @property
    def is_whole(self) -> bool:
        """Whether none of it was spent in this turn, as far as that is counted."""
        return self.left == self.seconds
