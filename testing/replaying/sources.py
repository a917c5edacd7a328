"""Where the rows come from: the files of a hub that does not run, one that runs, or recordings.

All of them only read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio
import orjson

from ...actors.codec.states import SCHEMA
from ...actors.errors import StoreDamagedError
from ...actors.times import timestamp
from ...storage import open_database, open_stopped
from ...storage.records import LIVE, EntityFilter, EntityRow, InstanceFilter, InstanceRecord
from .recordings import Recording, read_instance, read_recording, recordings_in
from .rows import StoredEntity, StoredInstance, StoredMessage, StoredRow

if TYPE_CHECKING:
    from ...runtime.client.client import Client
    from ...runtime.client.status import EntityStatus, OrchestrationStatus
    from ...runtime.facts import ParkedReason
    from ...storage import StoppedPartition

_LIVE = ("live instance", "live instances")

_PAGE = 500
_SLICE = 500
#: Events that are read at once, unless one history has more.
_EVENTS = 20_000
_GREATEST = 2**63 - 1
#: Requests that are under way with a hub that runs.
_AT_ONCE = 8


class Source(Protocol):
    """What there is to look at.

    Attributes:
        place: what it is, in words.
        called: what an instance is called there, and what several are.
        lacks: what of it cannot be looked at, in words; else None.
    """

    @property
    def place(self) -> str: ...
    @property
    def called(self) -> tuple[str, str]: ...
    @property
    def lacks(self) -> str | None: ...

    async def count(self) -> int:
        """Say how many instances there are to look at, about."""
        ...

    def rows(self) -> AsyncIterator[Sequence[StoredRow]]:
        """Give all that is to be looked at, some of it at a time."""
        ...


class StoppedSource:
    """What a hub that does not run has in its store.

    Args:
        place: where that is, in words.
        partitions: its partitions.
    """

    called = _LIVE
    lacks = None

    def __init__(self, place: str, partitions: Sequence[StoppedPartition]) -> None:
        self.place = place
        self._partitions = partitions

    async def count(self) -> int:
        live = InstanceFilter(statuses=LIVE)
        return sum([await one.count_instances(live) for one in self._partitions])

    async def rows(self) -> AsyncGenerator[Sequence[StoredRow], None]:
        for partition in self._partitions:
            async for some in self._instances(partition):
                yield some
        for partition in self._partitions:
            async for entities in self._entities(partition):
                yield entities
            async for messages in self._messages(partition):
                yield messages

    async def _instances(
        self, partition: StoppedPartition
    ) -> AsyncGenerator[Sequence[StoredRow], None]:
        after: tuple[int, str] | None = None
        while True:
            page = InstanceFilter(statuses=LIVE, after=after, limit=_PAGE)
            found = await partition.query_instances(page)
            some: list[InstanceRecord] = []
            events = 0
            for record in found:
                some.append(record)
                events += record.events
                if events >= _EVENTS:
                    yield await _with_histories(partition, some)
                    some, events = [], 0
            if some:
                yield await _with_histories(partition, some)
            if len(found) < _PAGE:
                return
            after = (found[-1].created, found[-1].key)

    async def _entities(
        self, partition: StoppedPartition
    ) -> AsyncGenerator[Sequence[StoredRow], None]:
        count = len(self._partitions)
        after: tuple[str, str] | None = None
        while True:
            page = EntityFilter(include_empty=True, after=after, limit=_PAGE)
            found = await partition.query_entities(page)
            if found:
                yield [StoredEntity(row, count) for row in found]
            if len(found) < _PAGE:
                return
            after = (found[-1].name, found[-1].key)

    async def _messages(
        self, partition: StoppedPartition
    ) -> AsyncGenerator[Sequence[StoredRow], None]:
        after = -1
        while mail := await partition.read_mail(None, after, _GREATEST):
            yield [StoredMessage(row.actor, row.body) for row in mail]
            after = mail[-1].n
        after = -1
        while timers := await partition.read_timers(after):
            yield [StoredMessage(row.actor, row.body) for row in timers]
            after = timers[-1].n
        for target in range(len(self._partitions)):
            after = -1
            while frames := await partition.read_outbox(target, after):
                yield [one for frame in frames for one in _messages_of(frame.body)]
                after = frames[-1].n


def _messages_of(frame: bytes) -> list[StoredMessage]:
    try:
        parcels: list[list[Any]] = orjson.loads(frame)
        return [StoredMessage(str(key), orjson.dumps(fields)) for key, *fields in parcels]
    except (ValueError, TypeError):
        return [StoredMessage("a frame for another partition", frame)]  # which is found to be none


async def _with_histories(
    partition: StoppedPartition, records: list[InstanceRecord]
) -> list[StoredRow]:
    begun = [record.id for record in records if record.events]
    try:
        histories = await partition.read_histories(begun)
    except StoreDamagedError:
        return [await _with_history(partition, record) for record in records]
    return [StoredInstance(record, histories.get(record.id, [])) for record in records]


async def _with_history(partition: StoppedPartition, record: InstanceRecord) -> StoredRow:
    try:
        return StoredInstance(record, await partition.read_history(record.id))
    except StoreDamagedError as error:
        return StoredInstance(record, [], str(error))


class RunningSource:
    """A hub that runs, by its client; instances that end meanwhile are left out.

    Args:
        place: where it is.
        client: its client.
    """

    called = _LIVE
    lacks = "the messages that wait for actors, which only a hub that does not run shows"

    def __init__(self, place: str, client: Client) -> None:
        self.place = place
        self._client = client

    async def count(self) -> int:
        return await self._client.count(statuses=LIVE)

    async def rows(self) -> AsyncGenerator[Sequence[StoredRow], None]:
        some: list[OrchestrationStatus] = []
        async for status in self._client.query(statuses=LIVE):
            some.append(status)
            if len(some) == _SLICE:
                yield await self._read(some)
                some = []
        if some:
            yield await self._read(some)
        entities: list[StoredRow] = []
        async for entity in self._client.query_entities(states=True):
            entities.append(StoredEntity(_entity_row(entity), 1))
            if len(entities) == _SLICE:
                yield entities
                entities = []
        if entities:
            yield entities

    async def _read(self, some: list[OrchestrationStatus]) -> list[StoredRow]:
        read: dict[int, StoredRow] = {}
        numbered = iter(enumerate(some))

        async def read_some() -> None:
            for number, status in numbered:
                found = await read_instance(self._client, status)
                if found is None or found[0].is_completed:
                    continue
                if found[1] and found[1][-1].event_type == "ExecutionCompleted":
                    continue
                row = Recording.of_status(*found).row()
                parked = _parked(found[0].parked)
                read[number] = row._replace(record=row.record._replace(parked=parked))

        async with anyio.create_task_group() as group:
            for _ in range(_AT_ONCE):
                group.start_soon(read_some)
        return [read[number] for number in sorted(read)]


class RecordedSource:
    """Recorded histories, in files.

    Args:
        place: the file, or the folder.
    """

    called = ("recorded history", "recorded histories")
    lacks = None

    def __init__(self, place: Path) -> None:
        self.place = str(place)
        self.files = list(recordings_in(place))

    async def count(self) -> int:
        return len(self.files)

    async def rows(self) -> AsyncGenerator[Sequence[StoredRow], None]:
        for start in range(0, len(self.files), _SLICE):
            some = self.files[start : start + _SLICE]
            yield [read_recording(file).row() for file in some]


def _parked(parked: ParkedReason | None) -> bytes | None:
    return None if parked is None else orjson.dumps(parked.to_dict())


def _entity_row(status: EntityStatus[Any]) -> EntityRow:
    told = status.to_dict()
    state = told["state"]
    if isinstance(state, dict) and status.schema_version != 1:
        state = {SCHEMA: status.schema_version, **cast("dict[str, Any]", state)}
    return EntityRow(
        id=0,
        name=status.entity_id.name,
        key=status.entity_id.key,
        updated=0 if status.last_modified is None else timestamp(status.last_modified),
        state=orjson.dumps(state) if status.exists else None,
        lock=None,
        failures=None,
        parked=_parked(status.parked),
    )


@asynccontextmanager
async def open_files(folder: Path) -> AsyncGenerator[StoppedSource, None]:
    """Give what the files of a hub have that does not run, or a copy of them.

    Raises:
        UnavailableError: none are there, or a hub is at work on them.
        StorageError: they cannot be read.
    """
    store = open_stopped(folder)
    try:
        yield StoppedSource(f"sqlite:{folder}", await store.open())
    finally:
        await store.close()


@asynccontextmanager
async def open_stored(place: str) -> AsyncGenerator[StoppedSource, None]:
    """Give what a hub on PostgreSQL has there that no process serves.

    Raises:
        UnavailableError: there is no hub.
        StorageError: it cannot be read.
    """
    store = open_database(place)
    try:
        yield StoppedSource(store.location, cast("list[StoppedPartition]", await store.open()))
    finally:
        await store.close()
