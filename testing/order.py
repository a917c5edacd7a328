"""A fixed order: what is ready runs in the same order each time, however long anything takes."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..runtime.scheduling.waiter import on_asyncio
from ..storage.slices import unsliced


class _OldestFirst(random.Random):
    """What trio asks for the order of the tasks that are ready, which it takes from the end."""

    def shuffle(self, x: Any) -> None:
        x.reverse()  # they come sorted by age


@contextmanager
def fixed_order() -> Generator[None]:
    """Have tasks that are ready run in a fixed order meanwhile, in all of the process.

    asyncio does it by itself. trio draws lots so that nobody relies on it, and has this switch for
    tests that have to be repeated, which hypothesis turns as well.
    """
    with unsliced():
        if on_asyncio():
            yield
            return
        scheduler: Any = import_module("trio._core._run")
        before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = True, _OldestFirst(0)
        try:
            yield
        finally:
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = before
