"""Changes: what a client that follows a hub's instances is told, and the ids to go on from."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakValueDictionary

import anyio
from attrs import frozen

from ...actors.arguments import refusal, text
from ...actors.errors import HubStoppingError, UnavailableError
from ...storage.slices import Breath
from ..facts import Fact
from ..placement.places import MovedError
from ..scheduling.hidden_tasks import TaskGroup
from .status import OrchestrationStatus, instance_status

if TYPE_CHECKING:
    from ...storage.records import InstanceFilter, InstanceRecord
    from ..placement.places import Place

GATHER_S: Final = 0.1
"""Seconds between two looks: an instance that changes often is told of ten times a second."""

MOST: Final = 500
"""How many instances of a partition are read at a time."""

_RETRY_S: Final = 0.05
_TOKEN: Final = re.compile(r"\d{1,6}:\d{1,18}(,\d{1,6}:\d{1,18})*")


@frozen(kw_only=True)
class Change(Fact):
    """One thing that ``client.changes`` tells.

    Attributes:
        id: what to pass as ``after`` to go on behind it.
        kind: ``changed``: the instance is new, or changed, and meets the conditions; ``left``: it
            changed, and does not meet them (any more); ``purged``: there is no such instance any
            more; ``reset``: what changed before is not told, so query now.
        instance_id: which; None of a reset.
        status: of what changed, as it is now.
    """

    id: str
    kind: Literal["changed", "left", "purged", "reset"]
    instance_id: str | None = None
    status: OrchestrationStatus | None = None


Positions = dict[int, int]
"""Up to which checkpoint of each partition a reader has heard of all."""


def write_id(positions: Positions) -> str:
    """Give the id of a place in the stream."""
    return ",".join(f"{index}:{sequence}" for index, sequence in positions.items())


def read_id(after: str, partitions: tuple[int, ...]) -> Positions:
    """Give the place in the stream that an id stands for.

    Raises:
        UsageError: it is none of a stream of these partitions.
    """
    given = text(after, "after")
    if _TOKEN.fullmatch(given):
        numbers = [int(number) for number in re.split("[:,]", given)]
        positions = dict(zip(numbers[::2], numbers[1::2], strict=True))
        if tuple(positions) == partitions:
            return positions
    raise refusal("after", "the id of a change that the same stream gave", given)


class _Reading:
    """The records of what changed in one partition up to a checkpoint, or while they are read."""

    __slots__ = ("__weakref__", "_shown", "keys", "read", "records", "upto")

    def __init__(self, upto: int, keys: list[str]) -> None:
        self.upto = upto
        self.keys = keys
        self.records: dict[str, InstanceRecord] | None = None
        self.read = anyio.Event()
        self._shown: dict[str, OrchestrationStatus] = {}

    def status(self, record: InstanceRecord) -> OrchestrationStatus:
        """Show a record, the same for all who read it."""
        shown = self._shown.get(record.key)
        if shown is None:
            shown = self._shown[record.key] = instance_status(record)
        return shown


class Readings:
    """What many streams want to know at the same moment is read once, and kept while they do."""

    def __init__(self) -> None:
        self._latest: WeakValueDictionary[int, _Reading] = WeakValueDictionary()

    async def read(
        self,
        index: int,
        upto: int,
        keys: list[str],
        fetch: Callable[[int, list[str]], Awaitable[dict[str, InstanceRecord]]],
    ) -> _Reading:
        """Give what a partition has of some instances, as of a checkpoint or later."""
        latest = self._latest.get(index)
        if latest is not None and latest.upto == upto and latest.keys == keys:
            await latest.read.wait()
            if latest.records is not None:
                return latest
        reading = self._latest[index] = _Reading(upto, keys)
        try:
            reading.records = await fetch(index, keys)
        finally:
            reading.read.set()  # also where it was not read: then whoever waits reads for himself
        return reading


class Changes(AsyncIterator[Change]):
    """The stream of some partitions' changes; between two items nothing of it runs.

    Attributes:
        at_hand: how many items come without a wait.

    Args:
        place_of: gives a partition by its number.
        wait_moved: returns when a partition that moves may have found its place.
        partitions: which.
        filter: what is told with its status.
        only: the one instance that is told of, if only one is.
        after: the id of the change behind which it begins; None for now.
        readings: what streams of the same event loop share.

    Raises:
        UsageError: ``after`` is none of such a stream.
    """

    def __init__(
        self,
        place_of: Callable[[int], Place],
        wait_moved: Callable[[], Awaitable[None]],
        partitions: tuple[int, ...],
        filter: InstanceFilter,
        only: str | None,
        after: str | None,
        readings: Readings,
    ) -> None:
        self._readings = readings
        self._held: dict[int, _Reading] = {}  # for others, until this one reads on
        self._place_of = place_of
        self._wait_moved = wait_moved
        self._partitions = partitions
        self._filter = filter
        self._only = only
        self._positions = None if after is None else read_id(after, partitions)
        self._read: deque[Iterator[Change]] = deque()
        self._breath = Breath()
        self._looked = False
        self.at_hand = 0

    async def __anext__(self) -> Change:
        # Before anything is taken, so that nothing is lost where it is broken off.
        await self._breath.take()
        while not self.at_hand:
            if self._positions is None:
                self._positions = {
                    index: (await self._news(index, None))[0] for index in self._partitions
                }
                return Change(id=write_id(self._positions), kind="reset")
            if self._looked:
                await anyio.sleep(GATHER_S)
            for index, (upto, keys) in (await self._first(self._positions)).items():
                reading = await self._readings.read(index, upto, keys or [], self._records)
                self._held[index] = reading
                self._take(index, upto, keys, reading)
                await self._breath.take()
            self._looked = True
        self.at_hand -= 1
        while (change := next(self._read[0], None)) is None:
            self._read.popleft()
        return change

    def _take(self, index: int, upto: int, keys: list[str] | None, reading: _Reading) -> None:
        positions = self._positions
        assert positions is not None
        # All of them are told under the place before, but the last: who breaks off between them,
        # and goes on from there, is told all of them again.
        before = write_id(positions)
        positions[index] = upto
        behind = write_id(positions)
        if keys is None:
            self._read.append(iter([Change(id=behind, kind="reset")]))
            self.at_hand += 1
            return
        wanted = keys if self._only is None else [key for key in keys if key == self._only]
        self._read.append(_tell(before, behind, wanted, reading, self._filter))
        self.at_hand += len(wanted)

    async def _first(self, positions: Positions) -> dict[int, tuple[int, list[str] | None]]:
        """Ask all partitions at once, and give what those tell that have something to tell."""
        told: dict[int, tuple[int, list[str] | None]] = {}
        async with TaskGroup() as tasks:

            async def ask(index: int, after: int) -> None:
                told[index] = await self._news(index, after)
                tasks.cancel_scope.cancel()

            for index, after in positions.items():
                tasks.start_soon(ask, index, after)
        return told

    async def _news(self, index: int, after: int | None) -> tuple[int, list[str] | None]:
        while True:
            try:
                upto, keys = await self._place_of(index).news(after, MOST)
            except MovedError:
                await self._wait_moved()
            except HubStoppingError:
                raise
            except UnavailableError:
                await anyio.sleep(_RETRY_S)  # it recovers, or its worker is started again
            else:
                return upto, keys

    async def _records(self, index: int, keys: list[str]) -> dict[str, InstanceRecord]:
        while keys:
            try:
                records = await self._place_of(index).store.read_instances(keys)
            except MovedError:
                await self._wait_moved()
            else:
                return {record.key: record for record in records}
        return {}


def _tell(
    before: str, behind: str, keys: list[str], reading: _Reading, filter: InstanceFilter
) -> Iterator[Change]:
    for number, key in enumerate(keys, 1):
        yield _change(behind if number == len(keys) else before, key, reading, filter)


def _change(id: str, key: str, reading: _Reading, filter: InstanceFilter) -> Change:
    record = (reading.records or {}).get(key)
    if record is None:
        return Change(id=id, kind="purged", instance_id=key)
    if not filter.matches(record, record):
        return Change(id=id, kind="left", instance_id=key)
    return Change(id=id, kind="changed", instance_id=key, status=reading.status(record))
