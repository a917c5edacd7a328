"""Retention: deletes instances that ended long enough ago, in the background."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from ..actors.context import microseconds, to_datetime
from ..actors.errors import PerdureError, UsageError
from ..actors.logs import Log
from ..actors.values import RuntimeStatus
from .clock import pass_time

if TYPE_CHECKING:
    from .client import Client
    from .clock import Clock

_log = Log("perdure.hub")

_EVERY = 3_600_000_000


def check_retention(
    retention: Mapping[RuntimeStatus | str, timedelta] | None,
) -> dict[RuntimeStatus, int]:
    """Read a hub's ``retention``: microseconds by terminal status.

    Raises:
        UsageError: a status that no instance ends in.
        InvalidTimeError: a negative age.
    """
    ages: dict[RuntimeStatus, int] = {}
    for name, age in (retention or {}).items():
        try:
            status = RuntimeStatus(name)
        except ValueError:
            raise UsageError(f"retention names {name!r}, which is no status") from None
        if not status.is_terminal:
            raise UsageError(f"retention names {status.value}, in which no instance ends")
        ages[status] = microseconds(age, "a retention")
    return ages


async def keep_retention(ages: dict[RuntimeStatus, int], client: Client, clock: Clock) -> None:
    """Delete what is older than its age, now and then every hour, for ever."""
    while True:
        now = clock.now()
        for status, age in ages.items():
            try:
                deleted = await client.purge(statuses=[status], completed_to=to_datetime(now - age))
            except PerdureError as error:
                # The store may be in trouble; the next hour may do better.
                _log.error("retention of %s instances failed: %s", status.value, error)
                continue
            if deleted:
                _log.info("retention deleted %d %s instances", deleted, status.value)
        await pass_time(clock, _EVERY)
