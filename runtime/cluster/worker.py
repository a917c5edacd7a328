"""The program of a worker process: one event loop that serves some of a hub's partitions.

``python -m perdure.runtime.cluster.worker FD`` reads its configuration from that file descriptor. Its
supervisor holds the other end of its standard input, and one connection that governs it; where
either ends, the worker drains and ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio

from ...actors.errors import InternalError, PerdureError
from ...actors.logs import Log
from ...actors.printing import text_of
from ...storage import SharedStore, open_store
from ..client.applications import load_app, load_observer, make_lookup
from ..scheduling.clock import SystemClock
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.keeper import Keeper
from ..scheduling.waiter import waiter_factory
from ..scheduling.watch import make_watch
from ..shards.sessions import Session
from ..shards.shard import Shard
from ..transport.channels import SocketChannel, dial_shard, listen, serve
from ..transport.router import Router
from ..transport.sockets import shard_socket
from .children import Child, cannot_import, is_left, serve_as, take_notes

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ...storage import PartitionStore, SharedPartition
    from ..scheduling.watch import Watch
    from ..transport.verbs import Handlers

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
            store_of=self._stores.__getitem__,
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
            handlers: Handlers = {**shard.handlers, "govern": self._govern}
            tasks.start_soon(serve, listener, self._answerer(shard, handlers), shard.keeper)
            tasks.start_soon(self.obey)
            await self.stopping.wait()
            if self.error is None:
                await shard.drain()
            shard.halt()
            shard.router.close()
            tasks.cancel_scope.cancel()

    async def _release(self, old: PartitionStore) -> None:
        """Close the store of a partition that has left, which may come back: with a new one."""
        stores, store = self._stores, self._store
        assert store is not None
        number = stores.index(cast("SharedPartition", old))
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
