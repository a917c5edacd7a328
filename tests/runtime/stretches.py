"""How long a loop is held: CPU time of its thread between two of its turns, users' code left out.

CPU time, so that other work on the machine does not count, nor a thread that has the interpreter.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator
from contextlib import contextmanager
from time import thread_time
from typing import Any

import pytest
import trio

from perdure.runtime.scheduling.waiter import on_asyncio

#: Seconds of CPU time for which a loop is held at the most, which is 10 milliseconds, and half as
#: much again; see ``Stretches.bound_s``.
BOUND_S = 0.015

#: What measures how long a loop is held is measured again, up to twice: a processor that does other
#: work in between, or another one of whose memory it waits, is seen in one measurement and not in
#: the next, and what holds the loop is in all of them.
MEASURED = pytest.mark.flaky(reruns=2, only_rerun="longest_s")

_best_s = 1.0


def _known_work_s() -> float:
    """Give what work that is always the same takes now, in seconds of CPU time."""
    global _best_s
    began = thread_time()
    found = [{"n": n, "of": [n]} for n in range(5_000)]
    taken = thread_time() - began
    assert len(found) == 5_000
    _best_s = min(_best_s, taken)
    return taken


def _busy() -> float:
    """Say how many times as long as in the best moment that was seen work takes now."""
    now_s = min(_known_work_s() for _ in range(3))
    return now_s / _best_s


class Stretches:
    """The stretches of one loop, from one turn of it to the next.

    Attributes:
        longest_s: the longest one that was seen, in seconds.
        turns: how often the loop has turned.
    """

    def __init__(self) -> None:
        self._busy = _busy()
        self.longest_s = 0.0
        self.turns = 0
        self._began = thread_time()
        self._others = 0.0  # of the stretch under way
        self._depth = 0
        self._ended = False
        self._paused = 0.0

    @property
    def bound_s(self) -> float:
        """For how long the loop may be held: on a machine that is busy the same work takes longer.

        It is at most twice what it is at rest.
        """
        return BOUND_S * min(2.0, max(self._busy, _busy()))

    @contextmanager
    def theirs(self) -> Generator[None]:
        """Leave out what is done inside: users' code, and the calls that it makes."""
        began = thread_time()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._others += thread_time() - began

    def turn(self) -> None:
        """The loop turns."""
        now = thread_time()
        self.turns += 1
        self.longest_s = max(self.longest_s, now - self._began - self._others)
        self._others = 0.0
        self._began = thread_time()

    def begin_anew(self) -> None:
        """Forget what was seen."""
        self.longest_s, self.turns = 0.0, 0
        self._others, self._began = 0.0, thread_time()

    def on_gc(self, phase: str, info: Any) -> None:
        """Leave out the collector, which comes whenever the interpreter likes."""
        if phase == "start":
            self._paused = thread_time()
        elif not self._depth:
            self._others += thread_time() - self._paused

    def tick(self) -> None:
        """On asyncio: count this turn, and the next one."""
        if not self._ended:
            self.turn()
            asyncio.get_running_loop().call_soon(self.tick)

    def end(self) -> None:
        """Count no more."""
        self._ended = True


class _Instrument(trio.abc.Instrument):
    def __init__(self, stretches: Stretches) -> None:
        self._stretches = stretches

    def after_io_wait(self, timeout: float) -> None:
        self._stretches.turn()


@contextmanager
def measured() -> Generator[Stretches]:
    """Measure the stretches of the running loop."""
    stretches = Stretches()
    instrument = _Instrument(stretches)
    on_trio = not on_asyncio()
    if on_trio:
        trio.lowlevel.add_instrument(instrument)
    else:
        stretches.tick()
    gc.callbacks.append(stretches.on_gc)
    try:
        yield stretches
    finally:
        gc.callbacks.remove(stretches.on_gc)
        stretches.end()
        if on_trio:
            trio.lowlevel.remove_instrument(instrument)
