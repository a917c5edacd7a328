"""The failed signals of an entity: how many there were, and the last of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..errors import FailureDetails

_KEPT = 10


class FailedSignals:
    """What went wrong where nobody awaits it; it is kept on the entity for people to see.

    Attributes:
        count: how many signals have failed, ever.
        last: the last of them, oldest first: when, which operation, the type of error, its text.
    """

    __slots__ = ("count", "last")

    def __init__(self, count: int = 0, last: list[Any] | None = None) -> None:
        self.count = count
        self.last: list[Any] = [] if last is None else last

    def add(self, now: int, operation: str, failure: FailureDetails) -> None:
        """Take note of one more."""
        self.count += 1
        self.last.append([now, operation, failure.error_type, failure.message])
        del self.last[:-_KEPT]

    def take(self, count: int, last: list[Any]) -> None:
        """Take over those of a stripe, among these by their times."""
        self.count += count
        self.last = sorted([*self.last, *last], key=lambda one: one[0])
        del self.last[:-_KEPT]
