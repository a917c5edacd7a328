"""Settings of the interpreter that suit a process whose main work is a hub."""

from __future__ import annotations

import gc
import sys

#: Objects made, net of those freed, between two looks for cycles among the young ones.
GC_YOUNG = 100_000

#: Seconds after which a thread that wants the interpreter may take it from one that works.
SWITCH_INTERVAL_S = 0.0005


def tune() -> None:
    """Tune the whole process for a hub; ``perdure.run`` and ``perdure serve`` do so.

    Two settings change, which belong to the program and not to a library, so a ``Hub`` leaves
    them alone. The garbage collector looks for cycles less often: thousands of live orchestrations
    are many objects, and what ends leaves no cycles (``tests/features/test_garbage.py``), so that
    looking finds none of a hub's, and costs a seventh of the time, in pauses of milliseconds. What
    is not applied yet comes and goes every second; the limit is above that. Threads change over
    after 0.5 ms rather than 5 ms: a commit's thread waits less for a busy event loop.

    ``docs/how-to/deploying.md`` has what they were measured to do.
    """
    gc.set_threshold(GC_YOUNG, *gc.get_threshold()[1:])
    sys.setswitchinterval(SWITCH_INTERVAL_S)
