"""Retention: deletes instances that ended long enough ago, in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from ...actors.arguments import choice, is_a, refusal
from ...actors.errors import PerdureError
from ...actors.logs import Log
from ...actors.times import microseconds, to_datetime
from ...actors.values import RuntimeStatus
from ..scheduling.clock import pass_time

if TYPE_CHECKING:
    from ..scheduling.clock import Clock
    from .client import Client

_log = Log("perdure.hub")

_EVERY = 3_600_000_000


def check_retention(
    retention: Mapping[RuntimeStatus | str, float | timedelta] | None,
) -> dict[RuntimeStatus, int]:
    """Read a hub's ``retention``: microseconds by terminal status.

    Raises:
        UsageError: a status that no instance ends in, or no mapping.
        InvalidTimeError: an age that is no duration, or negative.
    """
    ages: dict[RuntimeStatus, int] = {}
    if retention is None:
        return ages
    ended = [status for status in RuntimeStatus if status.is_terminal]
    taken = f"a mapping of statuses ({', '.join(ended)}) to seconds or timedeltas"
    if not is_a(retention, Mapping):
        raise refusal("retention", taken, retention)
    for name, age in list(retention.items()):
        status = RuntimeStatus(choice(name, "each status in retention", ended))
        ages[status] = microseconds(age, f"retention[{status.value!r}]")
    return ages


async def keep_retention(
    ages: dict[RuntimeStatus, int],
    client: Client,
    clock: Clock,
    leads: Callable[[], bool] = lambda: True,
) -> None:
    """Delete what is older than its age, now and then every hour, for ever.

    Args:
        ages: how old what has ended may be, by its status.
        client: deletes it.
        clock: tells its age.
        leads: whether this process is the one of the hub's to do so.
    """
    while True:
        now = clock.now()
        for status, age in ages.items() if leads() else ():
            try:
                deleted = await client.purge(statuses=[status], completed_to=to_datetime(now - age))
            except PerdureError as error:
                # The store may be in trouble; the next hour may do better.
                _log.error("retention of %s instances failed: %s", status.value, error)
                continue
            if deleted:
                _log.info("retention deleted %d %s instances", deleted, status.value)
        await pass_time(clock, _EVERY)
