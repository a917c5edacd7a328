"""A waiter that writes down what it is told, for what nobody awaits."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any


class Told:
    """A waiter without an event loop.

    Attributes:
        told: the values that it was given, in order.
        errors: the errors that it was given.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.errors: list[BaseException] = []

    def set(self, value: Any) -> None:
        self.told.append(value)

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError
