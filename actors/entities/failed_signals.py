"""The failed signals of an entity: how many there were, and the last of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..classes import is_a

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

    @classmethod
    def read(cls, count: Any, last: Any) -> FailedSignals | None:
        """Make those that are stored; None if there are none.

        Raises:
            ValueError: it is no list of failed signals.
        """
        if type(count) is not int or not is_a(last, list) or not all(map(_is_one, last)):
            raise ValueError(f"{[count, last]!r} are no failed signals")
        return cls(count, last) if count else None

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


def _is_one(value: Any) -> bool:
    match value:
        case [int(), str(), str(), str()]:
            return True
        case _:
            return False
