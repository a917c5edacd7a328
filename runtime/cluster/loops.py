"""Shards that are event loops of this process: the hub's own, and threads with one each."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from ...actors.errors import InternalError, PerdureError
from ...actors.logs import Log
from ...actors.printing import text_of, type_name
from ..scheduling.hidden_tasks import TaskGroup, hold
from ..scheduling.keeper import first_of
from ..scheduling.loop_kinds import running_kind
from ..scheduling.waiter import thread_waker, waiter_factory
from ..shards.sessions import Session
from ..shards.shard import STOP_S, Shard
from ..transport.channels import (
    Channel,
    LoopChannel,
    SocketChannel,
    check_socket,
    contain,
    listen,
    loop_channels,
    serve,
)
from ..transport.router import Router
from ..transport.sockets import shard_socket
from .crews import DRAINED_S
from .moving import MovingCrew

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ...storage import PartitionStore, Store
    from ..scheduling.clock import Clock
    from ..scheduling.watch import Watch
    from ..settings import Settings
    from ..transport.verbs import ShardVerb

_log = Log("perdure.hub")


class Acceptor:
    """Takes the channels that other loops of the process open to this one."""

    def __init__(self) -> None:
        self._channels: deque[LoopChannel] = deque()
        self._wake: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the loop runs, and takes channels."""
        return self._wake is not None

    def give(self, channel: LoopChannel) -> None:
        """Open a channel, from another loop.

        Raises:
            ConnectionRefusedError: this loop does not run yet, or any more.
        """
        wake = self._wake
        if wake is None:
            raise ConnectionRefusedError("the shard does not run")
        self._channels.append(channel)
        wake()

    async def serve(self, on_channel: Callable[[Channel], Coroutine[Any, Any, None]]) -> None:
        """Take channels on the running loop, until cancelled."""
        taken: list[LoopChannel] = []
        async with TaskGroup() as tasks:

            def take() -> None:
                while self._channels:
                    channel = self._channels.popleft()
                    if self._wake is None:
                        channel.other.end()
                    else:
                        taken.append(channel)
                        tasks.start_soon(contain, on_channel, channel)

            self._wake = thread_waker(take)
            try:
                await anyio.sleep_forever()
            finally:
                self._wake = None  # whoever dials from now on is refused
                take()
                for channel in taken:
                    channel.other.end()  # a task that is cancelled at once does not do it


class LoopCrew(MovingCrew):
    """The hub's loop as shard 0, and threads for the others."""

    def __init__(
        self,
        shards: int,
        store: Store,
        partitions: int,
        *,
        lookup: Lookup,
        settings: Settings,
        clock: Clock,
        socket: Path | None,
        stop_for: Callable[[Exception], None],
        watch: Watch | None,
    ) -> None:
        super().__init__(shards, partitions, socket, store)
        self._watch = watch
        if socket is not None:
            check_socket(shard_socket(socket, shards - 1))
        self._store = store
        self._stores: list[PartitionStore] = []
        self._lookup = lookup
        self._settings = settings
        self._clock = clock
        self._stop_for = stop_for
        self._shard: Shard | None = None
        self._threads: list[_LoopThread] = []
        self._acceptors = [Acceptor() for _ in range(shards)]

    async def open(self) -> None:
        """Take the store over and bring back the partitions of this loop."""
        self._stores = await self._open_store(len(self.owners))
        await self._listen()
        self.router = self.make_router(0)
        self._shard = shard = self.make_shard(self.router, self._stop_for)
        shard.pump.on_interrupt = shard.keeper.on_interrupt = lambda: self.on_interrupt()
        shard.start()
        for number, owner in enumerate(self.owners):
            if owner == 0:
                await shard.host(number)

    def _stored(self, number: int) -> PartitionStore:
        """Give the durable half of a partition, where it is."""
        migration = self._migration
        return self._stores[number] if migration is None else migration.store.partition(number)

    @property
    def local_shard(self) -> Shard:
        """The shard that is the hub's own loop."""
        assert self._shard is not None
        return self._shard

    def make_router(self, shard: int) -> Router:
        """Make the router of a loop; call it there."""
        router = Router(len(self.owners), shard, waiter_factory(), self._dial)
        router.owners[:] = self.owners
        return router

    def make_shard(self, router: Router, on_fatal: Callable[[Exception], None]) -> Shard:
        """Make the shard of a loop; call it there."""
        assert router.me is not None
        return Shard(
            router.me,
            router,
            lookup=self._lookup,
            settings=self._settings,
            clock=self._clock,
            store_of=self._stored,
            release=_keep,
            on_fatal=on_fatal,
            watch=self._watch,
        )

    async def _dial(self, shard: int) -> Channel:
        one, other = loop_channels()
        self._acceptors[shard].give(other)
        return one

    async def run(self) -> None:
        """Serve the partitions of this loop, and whoever connects."""
        shard = self._shard
        assert shard is not None
        async with TaskGroup() as tasks:
            tasks.start_soon(shard.run)
            await self.receive(tasks, shard)
            tasks.start_soon(self._serve_clients)
            self._tasks = tasks
            self._begin_migration()

    async def receive(self, tasks: TaskGroup, shard: Shard) -> None:
        """Begin to take connections to a shard, on its loop."""
        handlers = shard.handlers

        async def answer(channel: Channel) -> None:
            await Session(channel, shard, handlers, trusted=True).run()

        async def answer_client(channel: SocketChannel) -> None:
            if await channel.is_greeted(self.run_id, self.secret, 0) is not None:
                await Session(channel, shard, {}, trusted=False).run()

        if self._socket is not None:
            listener = await listen(shard_socket(self._socket, shard.number))
            tasks.start_soon(serve, listener, answer_client, shard.keeper)
        tasks.start_soon(self._acceptors[shard.number].serve, answer)

    async def ready(self) -> None:
        """Start the threads and have them bring back their partitions."""
        if self.count > 1:
            await self._start_threads()
        self._is_ready = True
        self._begin_migration()

    async def _start_threads(self) -> None:
        kind = running_kind()
        fatal = _Fatal(self._stop_for)
        for number in range(1, self.count):
            self._threads.append(_LoopThread(self, number, kind, fatal.report))
        errors: list[PerdureError] = []

        async def host(owner: int, number: int) -> None:
            try:
                await self.ask(owner, "host", number)
            except PerdureError as error:
                errors.append(error)

        async with TaskGroup() as tasks:
            for number, owner in enumerate(self.owners):
                if owner:
                    tasks.start_soon(host, owner, number)
        if errors:
            raise errors[0]
        self.announce()

    async def reopen(
        self, partition: int, change: Callable[[], Awaitable[PartitionStore]]
    ) -> float:
        """See ``MovingCrew.reopen``."""
        await self._wait_for_moves(partition)
        try:
            shard = self.owners[partition]
            await self._check_answers(partition, shard)
            began = anyio.current_time()
            handover = await self.ask(shard, "let_go", partition, shard)
            try:
                await change()
            except Exception as error:
                # Which store has it is asked again by the next start, and by nobody before.
                self._stop_for(InternalError(f"partition {partition} is lost: {text_of(error)}"))
                raise
            try:
                await self.ask(shard, "host", partition, handover)
            except PerdureError as error:
                _log.error("partition %d waits for its store: %s", partition, error)
                await self._bring_back(shard, partition, handover)
            self.announce()
            return anyio.current_time() - began
        finally:
            self._moving.release()

    async def ask(self, shard: int, verb: ShardVerb, *arguments: Any) -> Any:
        """Ask something of a shard."""
        if shard == 0:
            assert self._shard is not None
            return await self._shard.handlers[verb](*arguments)
        return await self.router.line(shard).call(verb, *arguments)

    def stop_starting(self) -> None:
        """Start no more activities on this loop."""
        if self._shard is not None:
            self._shard.activities.stop_starting()

    async def drain(self) -> None:
        """Drain all shards at the same time."""
        self.stop_starting()
        async with TaskGroup() as tasks:
            for shard in range(self.count):
                tasks.start_soon(self._drain, shard)

    async def _drain(self, shard: int) -> None:
        if shard == 0:
            await self.ask(0, "drain")
            return
        # A loop that something blocks must not keep the hub from stopping.
        with anyio.move_on_after(self._settings.drain_s + DRAINED_S) as scope:
            try:
                await self.ask(shard, "drain")
            except PerdureError as error:
                _log.warning("shard %d did not come to a stop: %s", shard, error)
        if scope.cancelled_caught:
            _log.warning("shard %d is blocked, and did not come to a stop in time", shard)

    def stop(self) -> None:
        """Stop what has not come to a stop by itself."""
        if self._shard is not None:
            self._shard.halt()
        self.router.close()
        for thread in self._threads:
            thread.stop()

    async def close(self) -> None:
        """End the threads, and give the store up."""
        async with TaskGroup() as tasks:
            for thread in self._threads:
                tasks.start_soon(thread.join)
        self._threads.clear()
        if self._shard is not None:
            self._shard.close()
            self.left = self._shard.left
            self._shard = None
        await self._stop_listening()
        await self._close_store()


async def _keep(store: PartitionStore) -> None:
    """Leave the durable half of a partition open: the next shard of the process uses it."""


class _Fatal:
    """Brings the error that ended a thread's loop to the hub's."""

    def __init__(self, stop_for: Callable[[Exception], None]) -> None:
        self._stop_for = stop_for
        self._errors: deque[Exception] = deque()
        self._wake = thread_waker(self._take)

    def report(self, error: Exception) -> None:
        """Have the hub stop; call it in any thread."""
        self._errors.append(error)
        self._wake()

    def _take(self) -> None:
        while self._errors:
            self._stop_for(self._errors.popleft())


class _LoopThread:
    """A thread with an event loop that is a shard."""

    def __init__(
        self,
        crew: LoopCrew,
        number: int,
        kind: tuple[str, bool],
        report: Callable[[Exception], None],
    ) -> None:
        self._crew = crew
        self._number = number
        self._kind = kind
        self._report = report
        self._end: Callable[[], None] | None = None
        self._stopped = threading.Event()
        self._served = threading.Event()  # nothing of the hub runs in it any more
        self._thread = threading.Thread(
            target=self._main, name=f"perdure-shard-{number}", daemon=True
        )
        self._thread.start()

    def _main(self) -> None:
        backend, uvloop = self._kind
        options = {"use_uvloop": uvloop} if backend == "asyncio" else {}
        try:
            anyio.run(hold, self._serve, backend=backend, backend_options=options)
        except BaseException as error:
            _log.error("shard %d failed", self._number, why=error)
            reason = first_of(error)
            if not isinstance(reason, PerdureError):
                text = f"{type_name(reason)}: {text_of(reason)}"
                reason = InternalError(f"shard {self._number} failed: {text}")
            self._report(reason)
        finally:
            self._served.set()

    async def _serve(self) -> None:
        crew = self._crew
        router = crew.make_router(self._number)
        shard = crew.make_shard(router, self._report)
        shard.start()
        ended = anyio.Event()
        try:
            async with TaskGroup() as tasks:
                tasks.start_soon(shard.run)
                self._end = thread_waker(ended.set)
                await crew.receive(tasks, shard)
                if self._stopped.is_set():
                    ended.set()
                await ended.wait()
                shard.halt()
                router.close()
                tasks.cancel_scope.cancel()
        finally:
            shard.close()
            self._served.set()

    def stop(self) -> None:
        """Have the loop end."""
        self._stopped.set()
        if self._end is not None:
            self._end()

    async def join(self) -> None:
        """Wait for the end, for a bounded time: users' code may block the loop for ever."""
        self.stop()
        if not await to_thread.run_sync(self._served.wait, 2 * STOP_S):
            _log.error("shard %d is blocked and did not end", self._number)
            return
        # What users' code left in its loop may keep the thread, which keeps nothing else.
        await to_thread.run_sync(self._thread.join, 0.2)
