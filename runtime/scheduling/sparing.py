"""Sparing: what may happen a thousand times a second is logged a few times, and counted."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

#: How many records of a kind are logged in how many seconds.
RECORDS_MAX = 10
SPAN_S = 10.0


class Sparing:
    """Writes the first records of each span of time, and how many more there were.

    What users' code does to a task it may do a thousand times a second; each time is counted.
    """

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log
        self._began = 0.0
        self._written = 0
        self._left_out = 0

    def write(self, message: str, *values: Any) -> None:
        """Write a record, or count it."""
        now = perf_counter()
        if not self._written or now - self._began > SPAN_S:
            self.tell()
            self._began, self._written = now, 0
        if self._written < RECORDS_MAX:
            self._written += 1
            self._log(message, *values)
        else:
            self._left_out += 1

    def tell(self) -> None:
        """Say how many records were left out."""
        if self._left_out:
            self._log("%d more records like the last ones were left out", self._left_out)
            self._left_out = 0
