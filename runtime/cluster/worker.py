"""The program of a worker process: one event loop that serves some of a hub's partitions.

``python -m perdure.runtime.cluster.worker FD`` reads its configuration from that file descriptor. Its
supervisor holds the other end of its standard input, and one connection that governs it; where
either ends, the worker drains and ends.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import orjson

from ...actors.errors import InternalError, PerdureError, UsageError
from ...actors.logs import Log
from ...actors.printing import text_of, type_name
from ...storage import SharedStore, open_store
from ..client.applications import load_app, load_observer, make_lookup
from ..scheduling.clock import SystemClock
from ..scheduling.deaths import Notes, Warden
from ..scheduling.hidden_tasks import TaskGroup, hold
from ..scheduling.interpreter import tune
from ..scheduling.keeper import Keeper
from ..scheduling.waiter import thread_waker, waiter_factory
from ..scheduling.watch import make_watch
from ..settings import Settings
from ..shards.sessions import Session
from ..shards.shard import Shard
from ..transport.channels import SocketChannel, dial_shard, listen, serve
from ..transport.router import Router
from ..transport.sockets import shard_socket
from .crews import ENDED_S

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ...storage import PartitionStore, SharedPartition
    from ..scheduling.watch import Watch
    from ..transport.verbs import Handlers

#: How often a worker looks whether its supervisor is still there.
_LOOK_S = 0.5

RELEASE_AFTER_S = 1.0
"""How long a partition's files stay open after it has left."""

_log = Log("perdure.workers")


def main(descriptor: int) -> int:
    """Serve until the supervisor says, or its end does, that it is enough."""
    with open(descriptor, "rb") as file:
        config = orjson.loads(file.read())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to act on
    sys.path[:] = config["path"]
    settings = Settings(**config["settings"])
    worker = _Worker(config, settings)
    threading.Thread(target=_watch, args=(worker, settings.drain_s), daemon=True).start()
    tune()
    backend = config["backend"]
    options = {"use_uvloop": config["uvloop"]} if backend == "asyncio" else {}
    anyio.run(hold, worker.run, backend=backend, backend_options=options)
    return 0 if worker.error is None else 1


def _watch(worker: _Worker, drain_s: float) -> None:
    """End the worker with its supervisor; by when it should have, even if the loop is blocked."""
    parent = os.getppid()
    # The pipe's end alone would not do: a child that the supervisor had forked may have it open.
    while os.getppid() == parent and not is_left(_LOOK_S):
        pass
    worker.stop()
    time.sleep(drain_s + ENDED_S)
    os._exit(1)


def is_left(within_s: float) -> bool:
    """Whether the pipe to the supervisor has ended, or does in that time."""
    try:
        ready, _, _ = select.select([0], [], [], within_s)
        return bool(ready) and not os.read(0, 1)
    except OSError:
        return True


class _Worker:
    """The worker's shard, and whoever talks to it."""

    def __init__(self, config: dict[str, Any], settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._number: int = config["number"]
        self._partitions: int = config["partitions"]
        self._store: SharedStore | None = None
        self._stores: list[SharedPartition] = []  # of all partitions, attached
        self._socket = Path(config["socket"])
        self._stopping = anyio.Event()
        self._left = threading.Event()
        self._wake: Callable[[], None] | None = None
        self._shard: Shard | None = None
        self._watch: Watch | None = None
        self.error: Exception | None = None

    def stop(self) -> None:
        """Drain and end; call it in any thread."""
        self._left.set()
        if self._wake is not None:
            self._wake()

    async def run(self) -> None:
        """Serve until told to stop."""
        self._wake = thread_waker(self._stopping.set)
        if self._left.is_set():
            return
        store = open_store(self._config["store"])
        assert isinstance(store, SharedStore)
        self._store = store
        try:
            lookup = make_lookup(load_app(self._config["app"]), self._settings)
            if self._config["observer"] is not None:
                self._watch = make_watch(load_observer(self._config["observer"]))
                lookup.tracer = self._watch if self._watch.traces else None
            self._stores += await store.attach(self._partitions)
        except PerdureError as error:
            await self._refuse(error)
            return
        except Exception as error:
            _log.error("the application cannot be imported", why=error)
            await self._refuse(
                UsageError(
                    f"a worker process cannot import {self._config['app']}: "
                    f"{type_name(error)}: {text_of(error)}. Importing it must not run a hub: a script "
                    "does so under if __name__ == '__main__'"
                )
            )
            return
        self._shard = shard = self._make_shard(lookup)
        shard.start()
        # Looked at here, too: the thread that does may not have come to it yet.
        if self._left.is_set() or is_left(0.0):
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
        config = self._config
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
            settings=self._settings,
            clock=SystemClock(),
            store_of=self._stores.__getitem__,
            release=self._release,
            on_fatal=self._fail,
            watch=self._watch,
        )
        if "notes" in config:
            os.set_inheritable(config["notes"], False)
            shard.notes = notes = Notes(config["notes"])
            shard.at_fault = {key for key, _, number in config["at_fault"] if not number}
            shard.activities.warden = Warden(notes, config["suspects"], config["at_fault"])
        return shard

    async def _serve(self, shard: Shard) -> None:
        """Run the shard and answer whoever connects, until told to stop; then drain."""
        async with TaskGroup() as tasks:
            tasks.start_soon(shard.run)
            listener = await listen(shard_socket(self._socket, self._number))
            handlers: Handlers = {**shard.handlers, "govern": self._govern}
            tasks.start_soon(serve, listener, self._answerer(shard, handlers), shard.keeper)
            tasks.start_soon(self._obey)
            await self._stopping.wait()
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
        config = self._config

        async def answer(channel: SocketChannel) -> None:
            trusted = await channel.is_greeted(
                config["run"], config["secret"], config["incarnation"]
            )
            if trusted is None:
                return
            session = Session(channel, shard, handlers if trusted else {}, trusted=trusted)
            await session.run()
            if session.governs:
                self._stopping.set()

        return answer

    async def _govern(self) -> None:
        """Take note that this session's end is the worker's."""

    async def _refuse(self, error: PerdureError) -> None:
        """Tell the supervisor why this worker cannot serve, and end with it."""
        self.error = error
        if self._left.is_set():
            return

        async def govern() -> None:
            raise error

        async with TaskGroup() as tasks:
            listener = await listen(shard_socket(self._socket, self._number))
            tasks.start_soon(serve, listener, self._answerer(None, {"govern": govern}), Keeper())
            await self._stopping.wait()
            tasks.cancel_scope.cancel()

    async def _obey(self) -> None:
        """Stop on SIGTERM; whoever sent it may want the worker started afresh."""
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                self._stopping.set()
                return

    def _fail(self, error: Exception) -> None:
        _log.critical("worker %d stops: %s", self._number, error)
        self.error = error if isinstance(error, PerdureError) else InternalError(text_of(error))
        self._stopping.set()


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
