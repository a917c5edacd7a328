"""Long work in slices, between which the event loop turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from time import perf_counter
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint

T = TypeVar("T")
R = TypeVar("R")

#: How many short steps are taken between two looks at the clock.
STEPS = 64

#: Seconds of one slice; more for the time of `unsliced`.
slice_s = 0.001

#: So many works may have a whole slice in one turn of a loop; others take one step each.
SLICES = 4


#: So many items are sorted at once.
_RUN = 1_000


#: What takes less is not counted where it ends without a pause.
_TRIFLE_S = 0.0001


class _Turn(threading.local):
    """What works in slices have taken of a thread since its event loop is known to have turned.

    Whoever pauses knows when it goes on. Until then what it took counts for all others, and who
    needs no pause looks at no clock more than it did.
    """

    def __init__(self) -> None:
        self.began = 0.0
        self.spent_s = 0.0


_turn = _Turn()


def spend(seconds: float) -> None:
    """Take note of what was taken of this turn of the thread's event loop."""
    _turn.spent_s += seconds


def _until(now: float) -> float:
    """Give when the slice ends that begins now."""
    left = slice_s * SLICES - _turn.spent_s
    # Not min(): a call for each work.
    return now + (slice_s if left > slice_s else left)  # noqa: FURB136


async def _pause(began: float, now: float) -> float:
    """Let the loop turn once, behind a slice that began at some time; gives when it goes on."""
    turn = _turn
    turn.spent_s += now - began
    await checkpoint()
    went_on = perf_counter()
    if now >= turn.began:  # else another work, which paused before, has noticed
        turn.began, turn.spent_s = went_on, 0.0
    return went_on


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

    __slots__ = ("_began", "_until")

    def __init__(self) -> None:
        self._began = perf_counter()
        self._until = _until(self._began)

    async def take(self) -> None:
        """Let the loop turn, if it is time."""
        now = perf_counter()
        if now >= self._until:
            self._began = await _pause(self._began, now)
            self._until = _until(self._began)


async def in_slices(steps: Generator[object, None, T]) -> T:
    """Go through work that pauses now and then, and let the loop turn where it has taken long.

    What the work is on may change at any pause.

    Returns:
        What comes of it.
    """
    began = now = perf_counter()
    until = _until(began)
    try:
        while True:
            next(steps)
            now = perf_counter()
            if now >= until:
                began = now = await _pause(began, now)
                until = _until(began)
    except StopIteration as stop:
        if now > began + _TRIFLE_S:
            _turn.spent_s += now - began
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


def first_of(
    runs: Iterable[Iterable[T]], key: Callable[[T], Any], limit: int, *, reverse: bool = False
) -> Generator[None, None, list[T]]:
    """Give the first of what is in several runs, each of which is in order; pauses now and then."""
    found: list[T] = []
    in_order = merge(*runs, key=key, reverse=reverse)
    yield from each(islice(in_order, max(0, limit)), found.append)
    return found


def first_in_order(
    items: list[T], key: Callable[[T], Any], limit: int, *, reverse: bool = False
) -> Generator[None, None, list[T]]:
    """Give the first of some items by their order, as work that pauses now and then."""
    runs: list[list[T]] = []
    for start in range(0, len(items), _RUN):
        runs.append(sorted(items[start : start + _RUN], key=key, reverse=reverse))
        yield
    return (yield from first_of(runs, key, limit, reverse=reverse))
