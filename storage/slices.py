"""Long work in slices, between which the event loop turns."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

from anyio.lowlevel import checkpoint

T = TypeVar("T")
R = TypeVar("R")

#: How many short steps are taken between two looks at the clock.
STEPS = 64

#: Seconds of one slice. Several works may have theirs in one turn of the loop.
SLICE_S = 0.001

#: The same, or more for the time of `unsliced`.
slice_s = SLICE_S


@contextmanager
def unsliced() -> Generator[None]:
    """Have no work pause meanwhile, in all of the process, so that none depends on how long it takes.

    For tests in which what happens has to come in the same order each time.
    """
    global slice_s
    before, slice_s = slice_s, float("inf")
    try:
        yield
    finally:
        slice_s = before


async def turn_of_loop() -> None:
    """Let the loop turn once."""
    await checkpoint()


class Breath:
    """Lets the loop turn where work has taken long since it last did."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = perf_counter() + slice_s

    async def take(self) -> None:
        """Let the loop turn, if it is time."""
        if perf_counter() >= self._until:
            await checkpoint()
            self._until = perf_counter() + slice_s


async def in_slices(steps: Generator[object, None, T]) -> T:
    """Go through work that pauses now and then, and let the loop turn where it has taken long.

    What the work is on may change at any pause.

    Returns:
        What comes of it.
    """
    until = perf_counter() + slice_s
    try:
        while True:
            next(steps)
            if perf_counter() >= until:
                await checkpoint()
                until = perf_counter() + slice_s
    except StopIteration as stop:
        made: T = stop.value
        return made


def each(items: Iterable[T], do: Callable[[T], object], every: int = STEPS) -> Generator[None]:
    """Do something with each of some items, as work that pauses behind so many of them."""
    left = every
    for item in items:
        do(item)
        left -= 1
        if not left:
            left = every
            yield


def let_go(items: list[T]) -> Generator[None]:
    """Empty a list that nobody else has; what is in many of them takes long to be freed."""
    while items:
        del items[-STEPS:]
        yield


def at_once(steps: Generator[object, None, T]) -> T:
    """Go through such work without a pause; gives what comes of it."""
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        made: T = stop.value
        return made


def map_each(items: Iterable[T], make: Callable[[T], R]) -> Generator[None, None, list[R]]:
    """Make something of each of some items, as work that pauses now and then."""
    made: list[R] = []
    yield from each(items, lambda item: made.append(make(item)))
    return made
