"""Long work in slices, between which the event loop turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TypeVar

import anyio.lowlevel

T = TypeVar("T")

#: How many short steps are taken between two looks at the clock.
STEPS = 64

#: Seconds of one slice. Several works may have theirs in one turn of the loop.
SLICE_S = 0.001


async def in_slices(steps: Iterable[object]) -> None:
    """Go through work that pauses now and then, and let the loop turn where it has taken long.

    What the work is on may change at any pause.
    """
    until = perf_counter() + SLICE_S
    for _ in steps:
        if perf_counter() >= until:
            await anyio.lowlevel.checkpoint()
            until = perf_counter() + SLICE_S


def each(items: Iterable[T], do: Callable[[T], object]) -> Iterator[None]:
    """Do something with each of some items, as work that pauses now and then."""
    left = STEPS
    for item in items:
        do(item)
        left -= 1
        if not left:
            left = STEPS
            yield


def exhaust(steps: Iterable[object]) -> None:
    """Go through such work without a pause."""
    for _ in steps:
        pass
