"""Processes that end at once, and which of the things that ran in them did it.

A worker that is started after a death of any notes which activities and turns run in it, in a file
that its supervisor has open, too. Where it dies as well, the supervisor reads what ran. What ran at so many
deaths is suspected, and runs one by one; what then runs alone at a death is at fault, and fails
without being run. Of turns only one runs at a time, so an actor's at so many deaths are at fault:
it is parked. Nothing of this costs anything before the first death.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import orjson

from ...actors.logs import Log

if TYPE_CHECKING:
    from ...actors.messages import ActivityCall

_log = Log("perdure.workers")

_SLOT = 4_096
_KNOWN_MAX = 10_000


class Running(Protocol):
    """An activity that runs, or is about to."""

    @property
    def call(self) -> ActivityCall:
        """What it was called for."""
        ...


class Call(NamedTuple):
    """A call of an activity, whichever attempt it is at."""

    instance_id: str
    execution: int
    number: int


def call_of(call: ActivityCall) -> Call:
    """Name the call that an attempt belongs to."""
    return Call(call.caller.instance_id, call.caller.execution, call.call)


def turn_of(key: str) -> Call:
    """Name the turns of an actor."""
    return Call(key, 0, 0)


def noted(notes: Notes | None, key: str) -> AbstractContextManager[None]:
    """Note that a turn of an actor runs, or a part of one, where notes are taken."""
    return nullcontext() if notes is None else notes.running(turn_of(key))


class Notes:
    """What runs in this process, written where it stays readable when the process ends."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._free: deque[int] = deque()
        self._slots = count()

    def begin(self, what: Call) -> int:
        """Note that something runs; gives the place of the note. Any thread may call it."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = next(self._slots)
        body = orjson.dumps([*what])
        os.pwrite(self._handle, len(body).to_bytes(4, "big") + body, slot * _SLOT)
        return slot

    @contextmanager
    def running(self, what: Call) -> Generator[None]:
        """Note that something runs, for as long as the block takes."""
        slot = self.begin(what)
        try:
            yield
        finally:
            self.end(slot)

    def end(self, slot: int) -> None:
        """Note that it does not any more."""
        os.pwrite(self._handle, bytes(4), slot * _SLOT)
        self._free.append(slot)


def read_notes(handle: int) -> list[Call]:
    """Read what ran in a process that has ended."""
    found: list[Call] = []
    for start in range(0, os.fstat(handle).st_size, _SLOT):
        slot = os.pread(handle, _SLOT, start)
        size = int.from_bytes(slot[:4], "big")
        if size:
            found.append(Call(*orjson.loads(slot[4 : 4 + size])))
    return found


class Deaths:
    """What ran in workers when they died, and what has to be thought of it.

    Args:
        limit: deaths at which something has to have run to be suspected.
    """

    def __init__(self, limit: int) -> None:
        # At the first death of all, nobody took notes.
        self._limit = max(1, limit - 1)
        self._counts: dict[Call, int] = {}
        self.known = False
        self.suspects: set[Call] = set()
        self.at_fault: set[Call] = set()

    def take(self, ran: Iterable[Call], apart: Collection[Call] | None = None) -> None:
        """Take note of a death, and of what ran then.

        Args:
            ran: that.
            apart: the suspects that ran one by one, where the process was begun before all of them
                were suspected.
        """
        self.known = True
        ran = list(ran)
        for call in ran:
            self._counts[call] = self._counts.pop(call, 0) + 1
        turns = [call for call in ran if not call.number and self._counts[call] >= self._limit]
        for call in turns:
            self.at_fault.add(call)
            _log.error("a turn of %s ends its process: it is parked", call.instance_id)
        if turns:
            return
        suspects = [call for call in ran if call in self.suspects]
        # They run one by one, but for those that are suspected since the process began.
        if len(suspects) == 1 and (apart is None or suspects[0] in apart):
            [call] = suspects
            self.suspects.discard(call)
            self.at_fault.add(call)
            _log.error(
                "activity %d of instance %s ends its process: it fails from now on",
                call.number,
                call.instance_id,
            )
            return
        for call in ran:
            if call.number and self._counts[call] >= self._limit and call not in self.at_fault:
                self.suspects.add(call)
        while len(self._counts) > _KNOWN_MAX:
            self._counts.pop(next(iter(self._counts)))


class Warden:
    """Has a worker note what runs, lets suspects run one by one, and what is at fault never.

    Args:
        notes: where to note it.
        suspects: what may be at fault.
        at_fault: what is.
    """

    def __init__(self, notes: Notes, suspects: list[Any], at_fault: list[Any]) -> None:
        self._notes = notes
        self._suspects = {Call(*one) for one in suspects}
        self._at_fault = {Call(*one) for one in at_fault}
        self._held: deque[Running] = deque()
        self._alone: Running | None = None
        self._slots: dict[Running, int] = {}

    def is_at_fault(self, call: ActivityCall) -> bool:
        """Whether an activity ends its process, and must not run."""
        return call_of(call) in self._at_fault

    def admits(self, running: Running) -> bool:
        """Whether it may run now; else it is given back by ``end`` when it may."""
        if call_of(running.call) not in self._suspects:
            return True
        if self._alone is None:
            self._alone = running
            return True
        self._held.append(running)
        return False

    def begin(self, running: Running) -> None:
        """Note that its code begins."""
        self._slots[running] = self._notes.begin(call_of(running.call))

    def end(self, running: Running, admit: Callable[[Any], None]) -> None:
        """Note that it has ended, and admit the next suspect."""
        slot = self._slots.pop(running, None)
        if slot is not None:
            self._notes.end(slot)
        if running is self._alone:
            self._alone = None
            if self._held:
                self._alone = following = self._held.popleft()
                admit(following)
