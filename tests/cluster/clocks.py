"""A clock that is wrong, for one node of several."""

from __future__ import annotations

from perdure.runtime.scheduling.clock import SystemClock


class SkewedClock(SystemClock):
    """The machine's clock, set wrong.

    Attributes:
        skew_s: by how much.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skew_s = 0.0

    def now(self) -> int:
        """The time in microseconds since the Unix epoch, UTC, as this clock has it."""
        return super().now() + int(self.skew_s * 1_000_000)
