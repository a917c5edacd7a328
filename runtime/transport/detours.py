"""When a line takes the long way, and when it is back on the short one: decided here, done in ``lines.py``.

The short way is a connection to the other side, the long one is through the store, which is slower
and costs the store something. Pure: it is told what happens, and asked what to do.
"""

from __future__ import annotations

#: Seconds that the short way is down before the long one is taken: a member that is started again,
#: or whose loop is blocked, is back by then.
DETOUR_AFTER_S = 1.0
#: Seconds that the short way has to stay up to be trusted again: one that breaks before goes over
#: to the long way at once, or a line that comes and goes would hardly ever carry anything.
STEADY_S = 1.0
#: Seconds before the long way is tried again, where it failed too: at first, and at most.
_AGAIN_S, _AGAIN_MAX_S = 0.25, 4.0


class Outage:
    """How long the short way of one line has been down.

    Args:
        now: the time, as for all that follows. The line is not up yet.
    """

    def __init__(self, now: float) -> None:
        self._down_since = now
        self._up_since: float | None = None
        self._not_before = now
        self._again_s = _AGAIN_S

    @property
    def is_over(self) -> bool:
        """Whether the short way is there."""
        return self._up_since is not None

    def came_up(self, now: float) -> None:
        """The short way is there."""
        self._up_since = now

    def broke(self, now: float) -> None:
        """The short way is not there any more."""
        if self._up_since is not None and now - self._up_since >= STEADY_S:
            self._down_since = now
        self._up_since = None

    def detour_served(self) -> None:
        """The long way is there."""
        self._again_s = _AGAIN_S

    def detour_ended(self, now: float) -> None:
        """The long way is not there any more, or could not be taken."""
        self._not_before = now + self._again_s
        self._again_s = min(2 * self._again_s, _AGAIN_MAX_S)

    def wait_s(self, now: float) -> float | None:
        """Give the seconds until the long way is to be taken, 0 for now; None while it is not."""
        if self._up_since is not None:
            return None
        return max(0.0, self._down_since + DETOUR_AFTER_S - now, self._not_before - now)
