"""Stillness: when nothing moves in a hub under test, but what time will move.

It is looked for turn by turn of the event loop, since most of what moves takes some turns and no
time. What takes real time, as activities and slow commits do, is waited for: whoever ends some says
so, and it is looked at again.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from ..runtime.partitions.activation import Activation
from ..runtime.scheduling.waiter import event_factory
from ..runtime.shards.activities import RunningActivity

if TYPE_CHECKING:
    from ..storage.bells import Bell
    from .lives import Lives

#: So many turns of the loop in a row nothing moves, where clients may have been told something,
#: and where they were not. What a client is told may pass through some tasks of the test before it
#: asks the next thing.
_TURNS: Final = 12
_TURNS_ALONE: Final = 2

#: After so many turns in which something did move, it is taken for what takes real time.
_SPINS_MAX: Final = 200

#: How long that is waited for, at most, before it is looked at again, whoever says something.
_LOOK_S: Final = 0.02


class Stillness:
    """Knows whether something moves in a hub.

    Args:
        lives: what is in memory of it.
        activity_wait_s: for how long, in real time, activities are waited for.
    """

    def __init__(self, lives: Lives, activity_wait_s: float) -> None:
        self._lives = lives
        self._activity_wait_s = activity_wait_s
        self._stirred: anyio.Event | Bell | None = None
        self._beside: set[object] = set()  # what was under way when no more was waited for
        self._told = 0  # what clients had been told when it was last still
        lives.stir = self.stir

    def stir(self) -> None:
        """Say that something may have moved."""
        if self._stirred is not None:
            self._stirred.set()

    async def stir_up(self, within_s: float | None = None) -> None:
        """Return when something may have moved, or a while has passed."""
        if self._stirred is None or self._stirred.is_set():
            self._stirred = event_factory()()
        with anyio.move_on_after(within_s):
            await self._stirred.wait()

    async def turn(self, spins: int) -> None:
        """Let the loop turn once; after many spins, wait until something has moved, or a while."""
        await (checkpoint() if spins < _SPINS_MAX else self.stir_up(_LOOK_S))

    async def wait(self) -> None:
        """Return when nothing moves; activities are waited for once, and not beyond their time.

        Raises:
            HubStoppingError: the hub stops.
        """
        still = spins = 0
        until: float | None = None
        while still < self._turns():
            if self._lives.is_interrupted:
                await self._lives.alive()
            if not self._is_at_rest():
                still, spins = 0, spins + 1
                await self.turn(spins)
                continue
            if self._is_working():
                if until is None:
                    until = perf_counter() + self._activity_wait_s
                if (left := until - perf_counter()) > 0:
                    still = spins = 0
                    await self.stir_up(min(left, _LOOK_S))
                    continue
                self._beside = self._under_way()
            still += 1
            await checkpoint()
        self._told = self._lives.told

    def _turns(self) -> int:
        return _TURNS_ALONE if self._told == self._lives.told else _TURNS

    def _is_at_rest(self) -> bool:
        """Whether all of the hub waits: for the clock, for activities, or for clients."""
        shard = self._lives.local_shard
        if shard.pump.has_ready or not shard.timers.is_idle or self._lives.is_at_store:
            return False
        # What one of them owes another is on its way through the commits of both.
        return all(door.partition.is_quiet for door in shard.hosted.values())

    def _is_working(self) -> bool:
        """Whether something is under way in real time that was not waited for yet."""
        shard = self._lives.local_shard
        if not (shard.activities.running_count or shard.activities.waiting or shard.pump.kept):
            return False
        return not self._under_way() <= self._beside

    def _under_way(self) -> set[object]:
        """Give the activities, and the operations that await something, that are under way."""
        shard = self._lives.local_shard
        found: set[object] = {*shard.activities.wanted}
        for one in shard.pump.kept:
            if isinstance(one, Activation):
                found.add(one.current)
            elif not isinstance(one, RunningActivity):
                found.add(one)
        # Those that wait for their limits have no more than a number.
        found.update(range(shard.activities.waiting))
        return found
