"""Watchers: who waits for the end of an orchestration.

Invariant: whoever watches is told once, an outcome that is durable, or to look again.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from ...storage.slices import each

if TYPE_CHECKING:
    from ..placement.places import Ending
    from ..scheduling.waiter import Waiter


class Watchers:
    """Those who wait for the ends of one partition's orchestrations, by instance id."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, key: str, waiter: Waiter) -> None:
        """Have somebody wait for an end; the answer None means: look at the store again."""
        self._waiters.setdefault(key, []).append(waiter)

    def remove(self, key: str, waiter: Waiter) -> None:
        """Do not have him wait any more."""
        waiters = self._waiters.get(key)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[key]

    def __contains__(self, key: str) -> bool:
        return key in self._waiters

    def tell(self, key: str, outcome: Ending | None) -> None:
        """Tell who waits for an instance."""
        for waiter in self._waiters.pop(key, ()):
            waiter.set(outcome)

    def look_again(self) -> Generator[None]:
        """Have all look at the store again, or at another place; pauses now and then."""
        all_of_them, self._waiters = self._waiters, {}
        every = (waiter for waiters in all_of_them.values() for waiter in waiters)
        yield from each(every, lambda waiter: waiter.set(None))

    def fail(self, error: Exception) -> None:
        """Tell all that no end will be told here."""
        all_of_them, self._waiters = self._waiters, {}
        for waiters in all_of_them.values():
            for waiter in waiters:
                waiter.fail(error)
