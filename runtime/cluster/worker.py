"""The program of a worker process: one event loop that serves some of a hub's partitions.

``python -m perdure.runtime.cluster.worker FD`` reads its configuration from that file descriptor. Its
supervisor holds the other end of its standard input, and one connection that governs it; where
either ends, the worker drains and ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from ...actors.errors import InternalError, PerdureError, StorageError, UnavailableError
from ...actors.logs import Log
from ...actors.printing import text_of
from ...storage import SharedStore, open_store
from ..client.applications import load_app, load_observer, make_lookup
from ..scheduling.clock import SystemClock
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.keeper import Keeper
from ..scheduling.timers import backoff
from ..scheduling.waiter import waiter_factory
from ..scheduling.watch import make_watch
from ..shards.sessions import Session
from ..shards.shard import Handover, Shard
from ..transport.channels import SocketChannel, dial_shard, listen, serve
from ..transport.router import Router
from ..transport.sockets import shard_socket
from .children import Child, cannot_import, is_left, serve_as, take_notes

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ...storage import PartitionStore, SharedPartition
    from ..scheduling.watch import Watch
    from ..transport.verbs import Handlers
    from .migration import Mover

RELEASE_AFTER_S = 1.0
"""How long a partition's files stay open after it has left."""

_log = Log("perdure.workers")


class _Worker(Child):
    """The worker's shard, and whoever talks to it."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._number: int = config["number"]
        self._partitions: int = config["partitions"]
        self._store: SharedStore | None = None
        self._stores: list[SharedPartition] = []  # of all partitions, attached
        self._mover: Mover | None = None  # where the hub goes to another store
        self._reopening: set[int] = set()  # partitions that go on here, from another one
        self._socket = Path(config["socket"])
        self._shard: Shard | None = None
        self._watch: Watch | None = None
        self.error: Exception | None = None

    async def serve(self) -> None:
        """Serve until told to stop."""
        store = open_store(self.config["store"])
        assert isinstance(store, SharedStore)
        self._store = store
        try:
            lookup = make_lookup(load_app(self.config["app"]), self.settings)
            if self.config["observer"] is not None:
                self._watch = make_watch(load_observer(self.config["observer"]))
                lookup.tracer = self._watch if self._watch.traces else None
            self._stores += await store.attach(self._partitions)
        except PerdureError as error:
            await self._refuse(error)
            return
        except Exception as error:
            _log.error("the application cannot be imported", why=error)
            await self._refuse(cannot_import(self.config["app"], error))
            return
        self._shard = shard = self._make_shard(lookup)
        shard.start()
        # Looked at here, too: the thread that does may not have come to it yet.
        if self.left.is_set() or is_left(0.0):
            return  # the socket may be that of another hub's worker by now
        try:
            await self._serve(shard)
        finally:
            with anyio.CancelScope(shield=True):
                shard.close()
                if self._mover is not None:
                    with suppress(PerdureError):
                        await self._mover.store.release()
                for one in self._stores:
                    with suppress(PerdureError):
                        await one.close()

    def _make_shard(self, lookup: Lookup) -> Shard:
        config = self.config
        router = Router(
            self._partitions,
            self._number,
            waiter_factory(),
            lambda shard: dial_shard(
                shard_socket(self._socket, shard), config["run"], config["secret"]
            ),
        )
        # Until it is told better, it must not take the others' partitions for its own.
        router.owners[:] = [-1] * self._partitions
        shard = Shard(
            self._number,
            router,
            lookup=lookup,
            settings=self.settings,
            clock=SystemClock(),
            store_of=self._stored,
            release=self._release,
            on_fatal=self._fail,
            watch=self._watch,
        )
        take_notes(shard, config)
        return shard

    async def _serve(self, shard: Shard) -> None:
        """Run the shard and answer whoever connects, until told to stop; then drain."""
        async with TaskGroup() as tasks:
            tasks.start_soon(shard.run)
            listener = await listen(shard_socket(self._socket, self._number))
            handlers: Handlers = {
                **shard.handlers,
                "govern": self._govern,
                "migrates": self._migrates,
                "follow": self._follow,
                "copy": self._copy,
                "switch": self._switch,
            }
            tasks.start_soon(serve, listener, self._answerer(shard, handlers), shard.keeper)
            tasks.start_soon(self.obey)
            await self.stopping.wait()
            if self.error is None:
                await shard.drain()
            shard.halt()
            shard.router.close()
            tasks.cancel_scope.cancel()

    def _stored(self, number: int) -> PartitionStore:
        """Give the durable half of a partition, where it is."""
        return self._stores[number] if self._mover is None else self._mover.store.partition(number)

    async def _release(self, old: PartitionStore) -> None:
        """Close the store of a partition that has left, which may come back: with a new one."""
        stores, store, shard = self._stores, self._store, self._shard
        assert store is not None
        assert shard is not None
        if any(door.partition.store.inner is old for door in shard.hosted_or_away.values()):
            return  # it goes on here
        number = next((number for number, one in enumerate(stores) if one is old), None)
        if number is None or number in self._reopening:
            return  # that is closed by who has put another one in its place, or is served again
        old_one, stores[number] = stores[number], (await store.attach(self._partitions))[number]
        try:
            # Its next owner opens it just now, and should not wait for what closing does.
            await anyio.sleep(RELEASE_AFTER_S)
        finally:
            with anyio.CancelScope(shield=True):
                await old_one.close()

    def _answerer(
        self, shard: Shard | None, handlers: Handlers
    ) -> Callable[[SocketChannel], Awaitable[None]]:
        config = self.config

        async def answer(channel: SocketChannel) -> None:
            trusted = await channel.is_greeted(
                config["run"], config["secret"], config["incarnation"]
            )
            if trusted is None:
                return
            session = Session(channel, shard, handlers if trusted else {}, trusted=trusted)
            await session.run()
            if session.governs:
                self.stopping.set()

        return answer

    # Where the hub goes to another store.

    async def _migrates(self, target: str, token: str, moved: list[int]) -> None:
        """Hear where it goes, and which partitions are there."""
        if self._mover is not None:
            self._mover.store.moved |= {*moved}
            return
        from ...storage.migrating import joined  # with all that reaches a database
        from .migration import Mover

        tries = 0
        while self._mover is None:
            try:
                made = await joined(self._store, self._stores, target, token, moved)
                self._mover = Mover(made, self)
            except StorageError as error:
                _log.error("worker %d waits for where the hub goes: %s", self._number, error)
                await anyio.sleep(backoff(tries))
                tries += 1

    @property
    def _moves(self) -> Mover:
        if self._mover is None:
            raise UnavailableError(f"worker {self._number} does not know where the hub goes")
        return self._mover

    async def _follow(self, number: int) -> None:
        await self._moves.follow(number)

    async def _copy(self, number: int) -> int:
        rows = 0

        def count(so_many: int) -> None:
            nonlocal rows
            rows = so_many

        await self._moves.copy(number, count)
        return rows

    async def _switch(self, number: int) -> float | None:
        return await self._moves.switch(number)

    async def reopen(
        self, partition: int, change: Callable[[], Awaitable[PartitionStore]]
    ) -> float:
        """Serve a partition from what ``change`` gives while nobody serves it; gives the pause.

        Raises:
            UnavailableError, StorageError: it is served as it was.
        """
        shard = self._shard
        assert shard is not None
        self._reopening.add(partition)
        try:
            began = anyio.current_time()
            handover = await shard.let_go(partition, shard.number)
            try:
                await change()
            except Exception as error:
                # Which store has it is asked again by the supervisor, for the next process.
                self._fail(error)
                raise
            await self._host(shard, partition, handover)
            return anyio.current_time() - began
        finally:
            self._reopening.discard(partition)

    async def _host(self, shard: Shard, partition: int, handover: Handover) -> None:
        """Serve a partition, however long its store takes to be well."""
        tries = 0
        while True:
            try:
                await shard.host(partition, handover)
                return
            except StorageError as error:
                _log.error("partition %d waits for its store: %s", partition, error)
            await anyio.sleep(backoff(tries))
            tries += 1

    async def _govern(self) -> None:
        """Take note that this session's end is the worker's."""

    async def _refuse(self, error: PerdureError) -> None:
        """Tell the supervisor why this worker cannot serve, and end with it."""
        self.error, self.has_failed = error, True
        if self.left.is_set():
            return

        async def govern() -> None:
            raise error

        async with TaskGroup() as tasks:
            listener = await listen(shard_socket(self._socket, self._number))
            tasks.start_soon(serve, listener, self._answerer(None, {"govern": govern}), Keeper())
            await self.stopping.wait()
            tasks.cancel_scope.cancel()

    def _fail(self, error: Exception) -> None:
        _log.critical("worker %d stops: %s", self._number, error)
        self.error = error if isinstance(error, PerdureError) else InternalError(text_of(error))
        self.has_failed = True
        self.stopping.set()


if __name__ == "__main__":
    raise SystemExit(serve_as(_Worker))
