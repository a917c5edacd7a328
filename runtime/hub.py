"""The hub: all partitions of one application on one store, and the shards that serve them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import anyio

from ..actors.arguments import instance, is_a, optional_text, refusal, text, whole
from ..actors.errors import HubStoppingError, InternalError, StoreInUseError, UsageError
from ..actors.logs import Log
from ..actors.printing import text_of
from ..actors.values import RuntimeStatus
from ..storage import open_store
from ..storage.membership import MEMBER_MAX, ClusterStore
from .client.applications import app_of, load_observer, make_lookup
from .client.client import Client
from .client.hub_client import HubClient
from .client.retention import check_retention, keep_retention
from .cluster.balancer import Balancer, Rebalance
from .cluster.crews import Crew
from .cluster.loops import LoopCrew
from .observer import Observer, TraceObserver
from .scheduling.clock import Clock, SystemClock
from .scheduling.hidden_tasks import TaskGroup, begin
from .scheduling.homes import Home, current_task, has_ended
from .scheduling.keeper import first_of
from .scheduling.waiter import event_factory, thread_waker
from .scheduling.watch import Watch, has_methods, make_watch
from .settings import Settings
from .transport.sockets import path_of

if TYPE_CHECKING:
    from ..actors.registry.app import App
    from ..storage import Store
    from .cluster.nodes import ClusterCrew, Node
    from .migrations import MigrationStatus
    from .nodes import HubNodes
    from .statistics import HubStatistics

_log = Log("perdure.hub")

#: How many partitions a new store gets that one hub has open.
_PARTITIONS = 4


class Hub:
    """Runs an application: ``async with Hub(app, store="sqlite:hub") as hub: hub.client...``.

    Entering it takes the store over, brings back what was under way, and serves; leaving it lets
    what is under way come to a durable stop (for ``Settings.drain_s`` seconds at the most) and
    gives the store up. What did not end goes on when a hub next opens the store. Where no block
    can hold it, ``start`` and ``stop`` do the same.

    Its client and its methods are for any task and any event loop, also of other threads: what
    these ask is carried to the loop that the hub was entered on.

    Args:
        app: the application, or where it is, such as ``"module:name"``. Worker processes import
            it, so with ``workers`` it must be a module's, or be named.
        store: ``memory:``, ``sqlite:PATH`` (a folder), the folder as a ``Path``,
            ``postgresql://...``, which other processes may serve at the same time, or a ``Store``.
        partitions: how many partitions a new store gets; an existing one must have as many. None
            for 4, or where several processes may have the store open, as many as it has, and 64
            for a new one.
        shards: how many event loops of this process serve them; each beyond the first has a
            thread of its own.
        workers: how many processes of their own serve them instead; 0 for none.
        rebalance: how partitions move off busy shards; None leaves them where they are.
        socket: where clients of other processes find the hub (``perdure.connect``). With workers
            it is ``hub.sock`` in the store's folder by default; without, there is none. Where the
            folder's path is too long for a socket, it lies in ``$XDG_RUNTIME_DIR/perdure``, and
            ``hub.sock.path`` in the store's folder says where.
        settings: the limits.
        clock: where time comes from; tests turn one by hand.
        retention: how long instances are kept after they ended, by status, such as
            ``{"Completed": timedelta(days=30)}``; the others are kept until somebody purges them.
        observer: is told when turns, checkpoints and activities begin and end; a ``TraceObserver``
            has them belong to traces. Or where it is, such as ``"module:name"``: that of an
            observer, or of what makes one when it is called. Worker processes import it, so with
            ``workers`` it must be named.
        node_listen: where this process listens for the others that serve the hub, on a store that
            several may have open: ``HOST:PORT``; with workers, where the first one does, and each
            other one a port further. By default a free port of this host, for processes of it
            alone.
        node_address: what the others dial: ``HOST:PORT``; by default where it listens.
        node_key: the key that all of them have, or the file with it. It is needed where they reach
            each other over a network; else it comes from the store.
        node_http: where this process's HTTP API is, as a URL, for people who look for it.

    Attributes:
        crew: the shards that serve it: for the runtime's own use and its tests, as the class
            ``Crew`` describes it, and no part of the public interface.

    Raises:
        UsageError: a bad argument.
        StorageError: on entering, if the store cannot be opened (in use, newer, damaged, ...).
    """

    def __init__(
        self,
        app: App | str,
        *,
        store: str | Path | Store = "memory:",
        partitions: int | None = None,
        shards: int = 1,
        workers: int = 0,
        rebalance: Rebalance | None = Rebalance(),  # noqa: B008 - it is frozen
        socket: str | Path | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
        retention: Mapping[RuntimeStatus | str, float | timedelta] | None = None,
        observer: Observer | TraceObserver | str | None = None,
        node_listen: str | None = None,
        node_address: str | None = None,
        node_key: bytes | str | Path | None = None,
        node_http: str | None = None,
    ) -> None:
        _check_numbers(partitions, shards, workers)
        self.app = app_of(app)
        self.settings = settings_of(settings)
        self._store = store_of(store)
        self._retention = check_retention(retention)
        self._clock = SystemClock() if clock is None else _check_clock(clock)
        if (shards > 1 or workers) and not is_a(self._clock, SystemClock):
            raise UsageError("only the system's clock reaches other shards: leave clock out")
        watch = _watch_of(observer, workers)
        if rebalance is not None:
            instance(rebalance, Rebalance, "rebalance", "a Rebalance or None")
        lookup = make_lookup(self.app, self.settings)
        if watch is not None and watch.traces:
            lookup.tracer = watch
        self._lookup = lookup
        path = None if socket is None else path_of(socket, "socket")
        node = check_node(node_listen, node_address, node_key, node_http)
        self.crew: Crew
        if isinstance(self._store, ClusterStore):
            if shards > 1:
                raise UsageError(
                    "each process of a hub on this store is a member with one event loop: give "
                    "workers, or start more processes, instead of shards"
                )
            if workers:
                from .cluster.nodes import Node
                from .cluster.supervisor import MemberSupervisor  # with all that starts processes

                self.crew = MemberSupervisor(
                    workers,
                    text(app, "app") if is_a(app, str) else self.app,
                    self._store,
                    partitions,
                    node=Node() if node is None else node,
                    settings=self.settings,
                    socket=path,
                    stop_for=self._stop_for,
                    observer=cast("str", observer) if is_a(observer, str) else None,
                    rebalance=rebalance,
                    retention=self._retention,
                )
            else:
                self.crew = self._make_member(self._store, partitions, path, watch, node)
        elif node is not None:
            raise UsageError(
                "node_listen, node_address, node_key and node_http are for a store that several "
                "processes have open at once (postgresql://...), and this one has one owner"
            )
        elif workers:
            from .cluster.processes import ProcessCrew  # with all that starts processes

            self.crew = ProcessCrew(
                workers,
                text(app, "app") if is_a(app, str) else self.app,
                self._store,
                partitions or _PARTITIONS,
                settings=self.settings,
                socket=path,
                stop_for=self._stop_for,
                observer=cast("str", observer) if is_a(observer, str) else None,
            )
        else:
            self.crew = self._make_crew(shards, partitions or _PARTITIONS, path, watch)
        self.crew.on_interrupt = self._interrupt
        self._balancer = None
        is_member = isinstance(self._store, ClusterStore)
        if rebalance is not None and (is_member or max(shards, workers) > 1):
            self._balancer = Balancer(rebalance, self.crew)
        self._tasks: TaskGroup | None = None
        self._serving: anyio.CancelScope | None = None
        self._draining: anyio.CancelScope | None = None
        self._state = "new"
        self._fatal: BaseException | None = None
        self._left = False
        self._body: _Body | None = None
        self._tell: Callable[[], None] = lambda: None

    def _make_crew(
        self, shards: int, partitions: int, socket: Path | None, watch: Watch | None
    ) -> LoopCrew:
        """Make the shards of a hub in one process."""
        return LoopCrew(
            shards,
            self._store,
            partitions,
            lookup=self._lookup,
            settings=self.settings,
            clock=self._clock,
            socket=socket,
            stop_for=self._stop_for,
            watch=watch,
        )

    def _make_member(
        self,
        store: ClusterStore,
        partitions: int | None,
        socket: Path | None,
        watch: Watch | None,
        node: Node | None,
    ) -> ClusterCrew:
        """Make the shard of a hub that other processes serve, too."""
        from .cluster.nodes import ClusterCrew, Node  # with all that reaches others

        return ClusterCrew(
            store,
            partitions,
            app=self.app,
            node=Node() if node is None else node,
            lookup=self._lookup,
            settings=self.settings,
            clock=self._clock,
            socket=socket,
            stop_for=self._stop_for,
            watch=watch,
        )

    def _make_client(self) -> Client:
        """Make the client, when the hub begins to serve."""
        return HubClient(self._lookup, self.crew.router, self._clock, self._home, self)

    @property
    def client(self) -> Client:
        """The client: starts, signals, queries and manages from outside.

        Raises:
            HubStoppingError: the hub does not run.
        """
        if self._state != "running":
            raise HubStoppingError(
                f"the hub is {self._state}: it has a client between start() and stop(), or inside "
                "of 'async with'"
            )
        return self._client

    @property
    def durability(self) -> str:
        """How durable a commit is, in words."""
        return self.crew.durability or self._store.durability

    @property
    def shards(self) -> int:
        """How many event loops serve the partitions."""
        return self.crew.count

    @property
    def placement(self) -> list[int]:
        """Which shard serves each partition."""
        return list(self.crew.owners)

    @property
    def left_behind(self) -> list[str]:
        """Name users' code that still runs on this loop, though the hub has stopped.

        It swallows its cancellation; the log names it as well. Whoever runs the loop waits for it.
        """
        return list(self.crew.left)

    async def statistics(self, *, hottest: int = 0) -> HubStatistics:
        """Give the counters: how loaded the hub is, and where.

        A worker that is being restarted is left out, with its partitions.

        Args:
            hottest: how many of its most used actors to name for each partition.

        Raises:
            HubStoppingError: the hub does not run.
            StorageError: the store cannot say how large it is.
        """
        return await self._count(whole(hottest, "hottest"), False)

    async def own_statistics(self) -> HubStatistics:
        """Give the counters of this process and its workers alone, where others serve the hub, too.

        Who asks each of the processes that serve a hub counts nothing twice by them.

        Raises:
            HubStoppingError: the hub does not run.
            StorageError: the store cannot say how large it is.
        """
        return await self._count(0, True)

    async def _count(self, hottest: int, own: bool) -> HubStatistics:
        if self._state != "running":
            raise HubStoppingError(f"the hub is {self._state}: it counts while it runs")
        if self._home.is_elsewhere():
            return await self._home.fetch(partial(self._count, hottest, own))
        return await self.crew.statistics(hottest, own=own)

    async def move_partition(self, partition: int, to: int) -> None:
        """Have another shard serve a partition from now on.

        It stops taking turns, makes all durable, and goes on there; requests wait meanwhile and
        messages come again, so nothing is lost, repeated or reordered. An async operation of an
        entity that is under way begins again there.

        Args:
            partition: its number, from 0.
            to: the shard's number, from 0.

        Raises:
            UsageError: there is no such partition or shard.
            UnavailableError, StorageError: it could not be moved, and is served where it was.
        """
        if self._state != "running":
            raise HubStoppingError(f"the hub is {self._state}: it moves partitions while it runs")
        numbers = self.crew.check_move(partition, to)
        move = partial(self.crew.move, *numbers)
        await (self._home.fetch(move) if self._home.is_elsewhere() else move())

    async def nodes(self) -> HubNodes:
        """Give the processes that serve the hub, and what each of them has, as its store says.

        A hub whose store has one owner gives one node, itself, so that whoever looks after hubs
        may ask all of them the same. While the hub starts, this waits until it serves.

        Raises:
            HubStoppingError: the hub does not run.
            StorageError: the store cannot be reached.
        """
        if self._state == "starting":
            started = self._started.wait
            await (self._home.fetch(started) if self._home.is_elsewhere() else started())
        self._check_serves("says who serves it")
        ask = self.crew.nodes
        return await (self._home.fetch(ask) if self._home.is_elsewhere() else ask())

    async def drain_node(self, member: int) -> None:
        """Have a process let its partitions go to the others, and take none: before it is stopped.

        It stays one of the hub's nodes, answers, and passes on what it is asked. Where no other
        one takes partitions, it keeps them.

        Args:
            member: its number, as ``nodes`` gives it.

        Raises:
            UsageError: there is no such process, or the hub's store has one owner.
            StorageError: the store cannot be reached.
        """
        await self._drain(member, True)

    async def undrain_node(self, member: int) -> None:
        """Have a process take its share of the partitions again; see ``drain_node``."""
        await self._drain(member, False)

    async def _drain(self, member: int, draining: bool) -> None:
        self._check_serves("drains nodes")
        number = whole(member, "member", most=MEMBER_MAX)
        drain = partial(self.crew.drain_node, number, draining)
        await (self._home.fetch(drain) if self._home.is_elsewhere() else drain())

    def _check_serves(self, what: str) -> None:
        if self._state != "running":
            raise HubStoppingError(f"the hub is {self._state}: it {what} while it runs")

    async def migrate(self, target: str) -> None:
        """Begin to bring the hub from its folder to PostgreSQL, or back, while it serves.

        Returns once that has begun; ``migration`` says how far it is. A partition after the other
        is copied, pauses for as long as a move takes, and goes on there. Where this process ends
        before all have come, the next hub that opens what it leaves goes on with it. When all have,
        this hub goes on to serve; the next one is to be given the target.

        Args:
            target: ``postgresql://...``, or of a hub that is there ``sqlite:PATH``, a folder on the
                host of this process; where there is no hub yet, or the one that this hub had left.

        Raises:
            HubStoppingError: the hub does not run.
            UsageError: it does not go from a folder to a database or back.
            StoreInUseError: there is a hub in the target, or the hub has other nodes.
            StoreMovedError: it is on its way elsewhere.
            UnavailableError: this process does not serve all partitions yet.
            StorageError: the target cannot be reached, or written to.
        """
        from .client.access import check_target  # with all that reaches others

        self._check_serves("moves to another store")
        migrate = partial(self.crew.migrate, check_target(target))
        await (self._home.fetch(migrate) if self._home.is_elsewhere() else migrate())

    async def migration(self) -> MigrationStatus | None:
        """Say how far the hub is on its way to another store; None if it goes to none.

        Raises:
            HubStoppingError: the hub does not run.
        """
        self._check_serves("says how far it has moved")
        return self.crew.migration()

    async def start(self) -> Self:
        """Take the store over, bring back what was under way, and serve until ``stop``.

        For what begins and ends in different tasks: fixtures, notebooks, lifespan events. Where one
        block can hold it, prefer ``async with``, which also cancels the block if the hub fails.

        Raises:
            UsageError: it was started before.
            StorageError: the store cannot be opened (in use, newer, damaged, ...).
        """
        if self._state != "new":
            raise UsageError(f"the hub is {self._state}: it can be entered only once, make another")
        self._home = Home()
        self._scope = anyio.CancelScope()
        new = event_factory()
        self._started, self._leaving, self._ended = new(), new(), new()
        self._state = "starting"
        begin(self._live, self._scope.cancel)
        try:
            await self._started.wait()
        except BaseException:
            self._left = True
            self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
            raise
        if self._ended.is_set():
            self._left = True
            self._raise_fatal()
        return self

    async def stop(self) -> None:
        """Let what is under way come to a durable stop, and give the store up.

        From any task, and from any loop.

        Raises:
            UsageError: it was not started, or has been stopped already.
            StorageError, InternalError: what stopped the hub before this did.
        """
        if self._state == "new" or self._left:
            what = "has not been started" if self._state == "new" else "has been stopped already"
            raise UsageError(f"the hub {what}: it is stopped once, after it was started")
        is_elsewhere = self._home.is_elsewhere()
        self._left = True
        if not is_elsewhere:
            self._leave()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
        elif not self._ended.is_set():
            ended = event_factory()()
            try:
                await self._home.fetch(partial(self._leave_for, thread_waker(ended.set)))
            except UsageError:
                self._left = False  # its loop does not run: there it can still be stopped
                raise
            with anyio.CancelScope(shield=True):
                await ended.wait()
        self._raise_fatal()

    def _leave(self) -> None:
        if self._state == "running":
            self._state = "stopping"
            self.crew.stop_starting()
        self._leaving.set()

    def _kill(self) -> None:
        """End the worker processes at once, since this process ends; in any code of its thread."""
        self.crew.kill()

    async def _leave_for(self, tell: Callable[[], None]) -> None:
        """Leave, and tell another loop when that is done."""
        self._tell = tell
        self._leave()

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            raise self._fatal

    async def __aenter__(self) -> Self:
        await self.start()
        self._body = _Body()
        if self._state != "running":
            self._body.cancel()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        body, self._body = self._body, None
        try:
            if body is None or not self._left:  # a stop() inside of the block has raised its own
                await self.stop()
        except BaseException:
            if body is not None:
                with suppress(BaseException):  # what the block raised is the context of this
                    body.leave(kind, error, trace)
            raise
        return None if body is None else body.leave(kind, error, trace)

    async def _live(self) -> None:
        """Serve from the start to the end, in a task that is the hub's own.

        The task that enters a hub need not be the one that leaves it, so neither can hold its tasks.
        """
        try:
            with self._scope:
                await self._home.serve(self._run)
        except asyncio.CancelledError:
            self._stop_for(InternalError("somebody cancelled the task of the hub"))
        except BaseException as error:  # it is raised where the hub is left
            if not isinstance(error, anyio.get_cancelled_exc_class()):
                self._fatal = self._fatal or error
        self._state = "stopped"
        self._ended.set()
        self._started.set()
        self._tell()
        if not self._left:
            if self._fatal is None:
                _log.warning(
                    "the event loop ended while the hub served, and the hub with it: leave a hub "
                    "before its loop ends, so that what is under way comes to a stop"
                )
            if self._body is not None:
                self._body.cancel()

    async def _run(self) -> None:
        try:
            await self.crew.open()
        except StoreInUseError:
            # Another hub may have this very object open: it is not this one's to close.
            raise
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.crew.close()
            raise
        failed: Exception | None = None
        try:
            async with TaskGroup() as self._tasks:
                # Shielded, so that what serves is alive for the drain whatever is cancelled.
                self._serving = anyio.CancelScope(shield=True)
                self._tasks.start_soon(self._serve, self._serving)
                try:
                    await self.crew.ready()
                    self._begin_serving(self._tasks)
                    await self._leaving.wait()
                    with anyio.CancelScope(shield=True) as self._draining:
                        await self.crew.drain()
                except Exception as error:
                    failed = error  # it comes out as it is, and not in a group
                finally:
                    self._state = "stopping"
                    self.crew.stop()
                    self._serving.cancel()
                    self._tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self.crew.close()
        if failed is not None:
            raise failed

    def _begin_serving(self, tasks: TaskGroup) -> None:
        self._client = self._make_client()
        self.crew.client = self._client
        self.crew.payload_max = self.settings.max_payload
        if self._retention:
            leads = lambda: self.crew.leads  # noqa: E731
            keep = partial(keep_retention, self._retention, self._client, self._clock, leads)
            tasks.start_soon(self.crew.keeper.persist, "retention", keep)
        if self._balancer is not None:
            tasks.start_soon(self.crew.keeper.persist, "balancing", self._balancer.run)
        self._state = "running"
        self._started.set()

    async def _serve(self, scope: anyio.CancelScope) -> None:
        why = InternalError("somebody cancelled the task that serves the hub")
        try:
            with scope:
                await self.crew.run()
        except Exception as error:
            why = InternalError(f"what serves the hub has failed: {text_of(first_of(error))}")
            why.__cause__ = error
            raise
        finally:
            if self._state == "running" and not scope.cancel_called:
                self._stop_for(why)

    def _stop_for(self, error: Exception) -> None:
        """A partition or a shard was lost for good: stop, and raise the reason at the end."""
        _log.critical("the hub stops: %s", error)
        self._fatal = error
        self._state = "stopping"
        if self._tasks is not None and self._serving is not None:
            self._serving.cancel()
            self._tasks.cancel_scope.cancel()
        if self._draining is not None:
            self._draining.cancel()  # nobody is left that could come to a stop by itself
        if self._body is not None:
            self._body.cancel()

    def _interrupt(self) -> None:
        """Ctrl-C met users' code on this loop: stop in order, and raise it at the end."""
        if self._fatal is None:
            self._fatal = KeyboardInterrupt()
        self._leave()
        if self._body is not None:
            self._body.cancel()


class _Body:
    """The block of an ``async with``: cancelled if the hub fails, wherever it is left."""

    def __init__(self) -> None:
        self._task = current_task()
        self._scope = anyio.CancelScope()
        self._scope.__enter__()

    def cancel(self) -> None:
        """Cancel the block, unless the task that it was entered in has ended."""
        if not has_ended(self._task):
            self._scope.cancel()

    def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Leave the block; in another task than it was entered in, there is nothing to leave."""
        if current_task() is not self._task:
            return None
        return self._scope.__exit__(kind, error, trace)


def _check_numbers(given: object, shards: object, workers: object) -> None:
    partitions = _PARTITIONS if given is None else whole(given, "partitions", least=1, most=1_024)
    shards = whole(shards, "shards", least=1, most=1_024)
    workers = whole(workers, "workers", most=1_024)
    if workers and shards > 1:
        raise UsageError("give shards (event loops of this process) or workers, not both")
    for name, number in (("shards", shards), ("workers", workers)):
        if number > partitions:
            raise UsageError(
                f"{number} {name} cannot share {partitions} partitions: give at least as many "
                f"partitions as {name}"
            )


def check_node(listen: object, address: object, key: object, http: object) -> Node | None:
    """Read how a process is reached by others; None where nothing is said."""
    if listen is None and address is None and key is None and http is None:
        return None
    from .cluster.nodes import Node, check_addresses  # with all that reaches others

    check_addresses(listen, address)
    if key is not None and not is_a(key, bytes):
        key = path_of(key, "node_key")
    return Node(
        listen=cast("str | None", listen),
        address=cast("str | None", address),
        key=cast("bytes | Path | None", key),
        http=optional_text(http, "node_http"),
    )


def settings_of(settings: object) -> Settings:
    """Give the limits that are meant by ``settings``; None for the usual ones."""
    if settings is None:
        return Settings()
    return instance(settings, Settings, "settings", "a perdure.Settings")


def store_of(store: object) -> Store:
    """Make the store that is meant by ``store``: a place, or an object that is a store."""
    if is_a(store, str):
        return open_store(text(store, "store"))
    if is_a(store, PurePath):
        return open_store(cast("Path", store))
    if not has_methods(store, "open", "close"):
        taken = "'memory:', 'sqlite:PATH', a Path (a folder) or a store"
        raise refusal("store", taken, store)
    return cast("Store", store)


def _check_clock(clock: object) -> Clock:
    if not has_methods(clock, "now", "wait_until"):
        raise refusal("clock", "a clock: SystemClock(), ManualClock() or the like", clock)
    return cast("Clock", clock)


def _watch_of(observer: object, workers: int) -> Watch | None:
    if observer is None:
        return None
    if is_a(observer, str):
        return make_watch(load_observer(cast("str", observer)))
    watch = make_watch(observer)
    if workers:
        raise UsageError(
            "an observer is told of what happens in its own process: with workers, name one that "
            "they can import, as in observer='shop.tracing:observer'"
        )
    return watch
