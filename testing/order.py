"""A fixed order: what is ready runs in the same order each time, however long anything takes."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..runtime.scheduling.waiter import on_asyncio
from ..storage.slices import unsliced


class _FirstComeFirstServed(random.Random):
    """What trio asks whether to turn the tasks that are ready around; it takes the last one first."""

    def random(self) -> float:
        return 0.0  # always


@contextmanager
def fixed_order() -> Generator[None]:
    """Have tasks that are ready run in the order in which they became so, in all of the process.

    asyncio does it by itself. trio draws lots, so that nobody relies on it; a test in which the
    same has to happen each time must.
    """
    with unsliced():
        if on_asyncio():
            yield
            return
        scheduler: Any = import_module("trio._core._run")
        before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r
        # The switch by which hypothesis makes it sort them by age, and shuffle, is off meanwhile.
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = False
        scheduler._r = _FirstComeFirstServed(0)
        try:
            yield
        finally:
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = before
