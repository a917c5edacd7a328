"""A hub that does not run, as its files show it: a client that reads, and changes nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, Unpack, cast

from ..actors.arguments import refusal
from ..actors.errors import StoreDamagedError, UnavailableError
from ..actors.ids import EntityId, entity_id
from ..actors.messages import Caller
from ..actors.registry.app import App
from ..actors.replay.stored import read_history
from ..storage import is_database, open_database, open_stopped
from ..storage.slices import in_slices
from .client.applications import app_of, make_lookup
from .client.hub_client import HubClient
from .partitions.calls import Run
from .scheduling.clock import SystemClock
from .scheduling.homes import Home
from .scheduling.waiter import waiter_factory
from .settings import Settings
from .transport.router import Router
from .transport.sockets import folder_of, path_of

if TYPE_CHECKING:
    from ..actors.registry.lookup import Lookup
    from ..storage import PartitionStore, ReadStore
    from ..storage.records import EntityRow, InstanceRecord
    from .client.changes import Changes
    from .client.client import Client, InstanceConditions
    from .client.status import AppDescription
    from .nodes import HubNodes
    from .placement.places import Ending, Place
    from .statistics import HubStatistics


@asynccontextmanager
async def read_store(
    place: str | Path, app: App | str | None = None
) -> AsyncGenerator[Client, None]:
    """Give a client that reads what a hub has left in its store, inside ``async with``.

    Nothing is written there, no lock is taken, and the folder may be a copy, or on a disk that
    cannot be written to. What a hub that was killed has committed last is brought into a copy of
    its files first, as its next start would bring it in. What is not for reading raises
    ``UnavailableError``, since no hub runs.

    From a database all is read that was committed until then, also while a hub serves there, and
    from a standby as well.

    Args:
        place: the store: ``sqlite:PATH``, or the folder itself, or ``postgresql://...``.
        app: the application, or where it is: then ``explain`` says at which lines its code stands,
            and states of entities are objects of their classes.

    Raises:
        UnavailableError: no hub's files are there, or a hub is at work on them.
        StorageError: they cannot be read.
    """
    store = _open(place)
    lookup = make_lookup(App() if app is None else app_of(app), Settings())
    database = str(place) if is_database(place) else None
    try:
        yield _StoredClient(lookup, await store.open(), _Nobody(store.location, database))
    finally:
        await store.close()


def _open(place: str | Path) -> ReadStore:
    if is_database(place):
        return open_database(str(place))
    path = path_of(place, "place")
    folder = folder_of(place) or path
    if "://" in str(place):
        raise refusal("place", "a store, such as 'sqlite:PATH' or 'postgresql://...'", place)
    return open_stopped(folder)


def _refuse(place: str) -> NoReturn:
    raise UnavailableError(
        f"no hub runs at {place}: start one (perdure serve MODULE:APP --store {place}) and repeat it"
    )


class _StoredPlace:
    """A partition that nobody serves."""

    def __init__(self, index: int, store: PartitionStore, lookup: Lookup, place: str) -> None:
        self.index = index
        self.store = store
        self._place = place
        # What explaining looks at of a partition, where nothing of it is in memory.
        looked_at: Any = SimpleNamespace(
            index=index,
            store=store,
            lookup=lookup,
            activations={},
            gate=SimpleNamespace(reason=None),
            crashes=SimpleNamespace(in_a_row={}),
            calls=SimpleNamespace(shard=0, find=_find),
            loader=SimpleNamespace(history_of=self._history_of),
            leftovers=SimpleNamespace(calls_of=_no_calls),
            notes=None,
        )
        self._looked_at = looked_at

    async def explain(self, key: str) -> dict[str, Any] | None:
        """Say why an actor waits, by what is stored."""
        from .partitions.explanation import Explanations  # with all that replays

        return await Explanations(self._looked_at, self._wait_durable).explain(key)

    async def trace(self, key: str, after: int, limit: int) -> dict[str, Any] | None:
        """Give the steps of an instance, by what is stored."""
        from .partitions.tracing import trace

        return await trace(self._looked_at, key, after, limit)

    async def wait_for_end(self, key: str) -> Ending | None:
        """Give the outcome of what has ended."""
        records = await self.store.read_instances([key])
        if not records or records[0].completed is None:
            _refuse(self._place)
        [record] = records
        return record.status, record.output, record.failure

    async def _wait_durable(self) -> None:
        """Return at once: all is."""

    async def _history_of(self, record: InstanceRecord) -> list[list[Any]]:
        chunks = await self.store.read_history(record.id)
        try:
            return await in_slices(read_history(chunks, record.events))
        except ValueError as error:
            raise StoreDamagedError(
                f"{self.store.place}, table history_row, instance {record.id}: {error}"
            ) from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        async def refuse(*_: Any, **__: Any) -> NoReturn:
            _refuse(self._place)

        return refuse


def _no_calls(instance_id: str) -> tuple[()]:
    """Say that nothing runs on for an instance."""
    return ()


def _find(_: Caller) -> Run:
    return Run(cast("Any", None), False, None)  # on no shard


class _Nobody:
    """Who sees all of a hub that does not run.

    Attributes:
        place: its store, as people may see it.
    """

    def __init__(self, place: str, database: str | None) -> None:
        self.place = place
        self._database = database

    async def statistics(self, *, hottest: int = 0) -> HubStatistics:
        _refuse(self.place)

    async def move_partition(self, partition: int, to: int) -> None:
        _refuse(self.place)

    async def nodes(self) -> HubNodes:
        if self._database is None:
            _refuse(self.place)
        from .client.nodes import read_nodes

        return await read_nodes(self._database)

    async def drain_node(self, member: int) -> None:
        _refuse(self.place)

    async def undrain_node(self, member: int) -> None:
        _refuse(self.place)


class _StoredClient(HubClient):
    """What ``read_store`` gives."""

    def __init__(self, lookup: Lookup, stores: Any, nobody: _Nobody) -> None:
        router, place = Router(len(stores), None, waiter_factory()), nobody.place
        router.places[:] = [
            cast("Place", _StoredPlace(number, store, lookup, place))
            for number, store in enumerate(stores)
        ]
        super().__init__(lookup, router, SystemClock(), Home(), nobody)
        self._place = place

    async def ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        from .client.operations import OPERATIONS

        row = OPERATIONS.get(operation)
        if row is not None and row.writes:
            _refuse(self._place)
        return await super().ask(operation, arguments)

    async def start_new(self, f: Any, *_: Any, **__: Any) -> NoReturn:
        _refuse(self._place)

    async def call_entity(self, id: EntityId[Any], *_: Any, **__: Any) -> NoReturn:
        _refuse(self._place)

    async def signal_entity(self, id: EntityId[Any], *_: Any, **__: Any) -> NoReturn:
        _refuse(self._place)

    async def signal_entities(self, signals: Any) -> NoReturn:
        _refuse(self._place)

    async def clean_entity_storage(self, **_: Any) -> NoReturn:
        _refuse(self._place)

    async def describe(self) -> AppDescription:
        _refuse(self._place)

    def changes(
        self,
        *,
        after: str | None = None,
        instance_id: str | None = None,
        **conditions: Unpack[InstanceConditions],
    ) -> Changes:
        _refuse(self._place)

    async def _read_entity(self, id: EntityId[Any]) -> EntityRow | None:
        # Whether its class is known or not, and as its stripes were folded into it last.
        entity_id(id)
        rows = await self._partition(str(id)).store.read_entities([(id.name, id.key)])
        return rows[0] if rows else None

    async def read_entity_state(self, id: EntityId[Any]) -> Any:
        status = await self.get_entity(id)
        return None if status is None else status.state
