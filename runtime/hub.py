"""The hub: all partitions of one application on one store, and the loop that serves them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
from anyio.abc import TaskGroup

from ..actors.errors import HubStoppingError, StoreInUseError, UnavailableError, UsageError
from ..actors.lookup import Lookup
from ..actors.messages import Command
from ..actors.values import RuntimeStatus
from ..storage import open_store
from .activities import ActivityPool
from .client import Client
from .clock import Clock, SystemClock
from .partition import Partition
from .pump import Pump
from .recovery import abandon, restore
from .retention import check_retention, keep_retention
from .settings import Settings
from .statistics import HubStatistics, count_partition
from .timers import TimerQueue
from .waiting import waiter_factory

if TYPE_CHECKING:
    from ..actors.app import App
    from ..storage import Store

_log = logging.getLogger("perdure.hub")


class Hub:
    """Runs an application: ``async with Hub(app, store="sqlite:hub") as hub: hub.client...``.

    Entering it takes the store over, brings back what was under way, and serves; leaving it lets
    what is under way come to a durable stop (for ``Settings.drain_s`` seconds at the most) and
    gives the store up. What did not end goes on when a hub next opens the store.

    Args:
        app: the application.
        store: ``memory:``, ``sqlite:PATH`` (a folder), or a ``Store``.
        partitions: how many partitions a new store gets; an existing one must have as many.
        settings: the limits.
        clock: where time comes from; tests turn one by hand.
        retention: how long instances are kept after they ended, by status, such as
            ``{"Completed": timedelta(days=30)}``; the others are kept until somebody purges them.

    Raises:
        UsageError: a bad argument.
        StorageError: on entering, if the store cannot be opened (in use, newer, damaged, ...).
    """

    def __init__(
        self,
        app: App,
        *,
        store: str | Store = "memory:",
        partitions: int = 4,
        settings: Settings | None = None,
        clock: Clock | None = None,
        retention: Mapping[RuntimeStatus | str, timedelta] | None = None,
    ) -> None:
        if not 1 <= partitions <= 1_024:
            raise UsageError(f"partitions must be from 1 to 1,024, not {partitions}")
        self.app = app
        self.settings = settings or Settings()
        self._store = open_store(store)
        self._retention = check_retention(retention)
        self._count = partitions
        self._clock = clock or SystemClock()
        self._lookup = Lookup(
            app,
            self.settings.max_payload,
            stripe_fold_s=self.settings.stripe_fold_s,
            stripe_hot_per_s=self.settings.stripe_hot_per_s,
        )
        self._partitions: list[Partition] = []
        self._tasks: TaskGroup | None = None
        self._serving: anyio.CancelScope | None = None
        self._pump = Pump(self.settings.pump_budget_s)
        self._timers = TimerQueue(self._clock)
        self._activities = ActivityPool(self._lookup, self._pump, self._timers, self.settings)
        self._state = "new"
        self._fatal: Exception | None = None

    @property
    def client(self) -> Client:
        """The client: starts, signals, queries and manages from outside.

        Raises:
            HubStoppingError: the hub does not run.
        """
        if self._state != "running":
            raise HubStoppingError(f"the hub is {self._state}: enter it with 'async with' first")
        return self._client

    @property
    def durability(self) -> str:
        """How durable a commit is, in words."""
        return self._store.durability

    async def statistics(self) -> HubStatistics:
        """Give the counters: how loaded the hub is, and where.

        Raises:
            HubStoppingError: the hub does not run.
            StorageError: the store cannot say how large it is.
        """
        if self._state != "running":
            raise HubStoppingError(f"the hub is {self._state}: it counts while it runs")
        return HubStatistics(
            partitions=tuple([await count_partition(one) for one in self._partitions])
        )

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise UsageError("a hub can be entered only once: make another")
        self._state = "starting"
        try:
            await self._open()
        except StoreInUseError:
            # Another hub may have this very object open: it is not this one's to close.
            self._state = "stopped"
            raise
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._store.close()
            self._state = "stopped"
            raise
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        # Shielded, so that a cancelled body leaves what serves alive for the drain.
        self._serving = anyio.CancelScope(shield=True)
        self._tasks.start_soon(self._serve, self._serving)
        self._state = "running"
        self._client = Client(
            self._lookup, self._partitions, self._clock, lambda: self._state == "running"
        )
        if self._retention:
            self._tasks.start_soon(keep_retention, self._retention, self._client, self._clock)
        return self

    async def _serve(self, scope: anyio.CancelScope) -> None:
        with scope:
            async with anyio.create_task_group() as tasks:
                for partition in self._partitions:
                    tasks.start_soon(partition.run)
                tasks.start_soon(self._timers.run)
                self._pump.start(tasks)

    async def _open(self) -> None:
        stores = await self._store.open(self._count)
        new_waiter = waiter_factory()
        self._activities.start()
        self._partitions = [
            Partition(
                index,
                store,
                lookup=self._lookup,
                settings=self.settings,
                clock=self._clock,
                pump=self._pump,
                timers=self._timers,
                activities=self._activities,
                new_waiter=new_waiter,
            )
            for index, store in enumerate(stores)
        ]
        for partition in self._partitions:
            partition.partitions = self._partitions
            partition.on_fatal = self._stop_for
        recovered = [await partition.store.recover() for partition in self._partitions]
        for partition, state in zip(self._partitions, recovered, strict=True):
            await restore(partition, state)
            for key in state.parked:
                # The code may have been repaired since: each of them gets one new try.
                partition.post(key, Command("retry"))
        for partition in self._partitions:
            for target in partition.exchange.peers:
                partition.exchange.resend(target)

    def _stop_for(self, error: Exception) -> None:
        """A partition was lost for good: stop, and raise the reason when the hub is left."""
        _log.critical("the hub stops: %s", error)
        self._fatal = error
        self._state = "stopping"
        if self._tasks is not None and self._serving is not None:
            self._serving.cancel()
            self._tasks.cancel_scope.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._tasks is not None
        assert self._serving is not None
        self._state = "stopping"
        with anyio.CancelScope(shield=True):
            if not self._tasks.cancel_scope.cancel_called:
                await self._drain()
            self._activities.stop_all()
            self._serving.cancel()
            self._tasks.cancel_scope.cancel()
        # A body's own exception must come out as it is, and not in a group.
        cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        swallowed: bool | None
        try:
            if cancelled:
                swallowed = await self._tasks.__aexit__(kind, error, trace)
            else:
                swallowed = await self._tasks.__aexit__(None, None, None) and None
        finally:
            with anyio.CancelScope(shield=True):
                self._activities.close()
                for partition in self._partitions:
                    abandon(partition)
                await self._store.close()
            self._state = "stopped"
        if self._fatal is not None:
            raise self._fatal
        return swallowed

    async def _drain(self) -> None:
        """Let what is under way come to a durable stop; what takes too long goes on later."""
        self._activities.stop_starting()
        with anyio.move_on_after(self.settings.drain_s) as scope:
            # A commit that fails here is recovered from, and what it held settles after that.
            # Polled, since many parts have to fall quiet, and only here does it matter when.
            while self._fatal is None and not (  # noqa: ASYNC110
                self._is_quiet() and await self._is_settled()
            ):
                await anyio.sleep(0.002)
        if scope.cancelled_caught:
            _log.warning(
                "%d activities and %d operations did not end in time; they run again at the next start",
                self._activities.count,
                self._pump.suspended,
            )
            with anyio.move_on_after(self.settings.drain_s):
                await self._is_settled()

    async def _is_settled(self) -> bool:
        """Whether all partitions could make durable what they had."""
        try:
            for partition in self._partitions:
                if partition.down is not None:
                    return False
                await partition.settle()
        except UnavailableError:
            return False
        return True

    def _is_quiet(self) -> bool:
        return (
            self._pump.is_quiet
            and not self._activities.running_count
            and all(partition.is_quiet for partition in self._partitions)
        )
