"""Crashes: whose turns ended in an error of our own, or ended the process, and how often in a row."""

from __future__ import annotations

from ...actors.interrupts import is_interrupt


class Crashes:
    """The crashes of one partition's actors.

    Attributes:
        in_a_row: how many turns of an actor crashed since one of its was durable, by key.
    """

    def __init__(self, limit: int) -> None:
        self.in_a_row: dict[str, int] = {}
        self._limit = limit
        self._fresh: dict[str, BaseException] = {}

    def blame(self, key: str, error: BaseException) -> None:
        """Take note of whose turn, or state, it was."""
        self._fresh[key] = error
        if not is_interrupt(error):
            self.in_a_row[key] = self.in_a_row.get(key, 0) + 1

    def bar(self, key: str) -> None:
        """Have an actor crashed too often already."""
        self.in_a_row[key] = self._limit

    def forgive(self, key: str) -> None:
        """Let an actor try anew."""
        self.in_a_row.pop(key, None)

    def too_many(self, key: str) -> str | None:
        """Say why an actor must take no turn; None if it may."""
        count = self.in_a_row.get(key, 0)
        return None if count < self._limit else f"its turn crashed {count} times in a row"

    def take_fresh(self) -> dict[str, BaseException]:
        """Give those since this was asked last, by key."""
        fresh, self._fresh = self._fresh, {}
        return fresh
