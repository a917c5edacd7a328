"""A partition without a hub: its turns, commits and activities happen when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from perdure import App, ManualClock, Settings
from perdure.actors.messages import ActivityCall, Caller, Completion, Operation
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.partitions.commit_loop import CommitLoop
from perdure.runtime.partitions.door import Door
from perdure.runtime.partitions.overflow import look_through
from perdure.runtime.partitions.partition import Partition
from perdure.runtime.partitions.recovery import abandon, refill, resume
from perdure.runtime.partitions.rounds import Rounds
from perdure.runtime.scheduling.allowance import Allowance
from perdure.runtime.scheduling.timers import TimerQueue
from perdure.runtime.scheduling.waiter import waiter_factory
from perdure.storage.slices import at_once
from tests.runtime.harness import PATIENCE_S, FaultyStore

T = TypeVar("T")
Post = Callable[[str, Completion], None]


class Pump:
    """Runs what is ready when it is told to, an operation that awaits to its end."""

    def __init__(self) -> None:
        self.ready: deque[Any] = deque()
        self.busy_s = 0.0

    def put(self, item: Any) -> None:
        self.ready.append(item)

    put_alone = put

    def lend(self, function: Callable[[], T]) -> T:
        return function()

    async def run(self) -> int:
        """Run all that is ready, and what that makes ready; gives how much it was."""
        count = 0
        while self.ready:
            count += 1
            work = self.ready.popleft().run()
            if work is not None:
                await work
        return count


class Activities:
    """Activities that nobody carries out; the test answers."""

    shard = 0

    def __init__(self) -> None:
        self.calls: list[ActivityCall] = []
        self.cancelled: list[Caller] = []
        self.stopped = 0
        self.waiting = 0

    def submit(self, call: ActivityCall, post: Post) -> None:
        self.calls.append(call)

    def submit_all(self, calls: list[ActivityCall], post: Post) -> None:
        self.calls += calls

    def cancel(self, caller: Caller) -> None:
        self.cancelled.append(caller)

    def cancel_some(self, instance_id: str, execution: int, tasks: Collection[int]) -> None:
        self.cancelled += [Caller(instance_id, execution, task) for task in tasks]

    def stop_all(self, post: Post | None = None) -> None:
        self.stopped += 1
        self.calls.clear()

    def started_at(self, caller: Caller) -> int | None:
        return None

    def callers(self, post: Post) -> set[Caller]:
        return {call.caller for call in self.calls}


class Alone:
    """One partition, and all that it is given."""

    def __init__(self, app: App, store: FaultyStore, inner: Any, settings: Settings) -> None:
        self.clock = ManualClock()
        self.faults = store.faults
        self.pump, self.activities = Pump(), Activities()
        self.timers = TimerQueue(self.clock)
        pump: Any = self.pump
        self.partition = Partition(
            0,
            inner,
            lookup=Lookup(app, settings.max_payload),
            settings=settings,
            clock=self.clock,
            pump=pump,
            timers=self.timers,
            activities=self.activities,
            new_waiter=waiter_factory(),
        )
        self.door = Door(self.partition)
        self.partition.places = [self.door]
        self.fatal: list[Exception] = []
        self.partition.on_fatal = self.fatal.append
        self.commit_loop = CommitLoop(
            self.partition, Rounds(self.partition.new_waiter), Allowance(0.004)
        )

    async def start(self) -> None:
        """Bring it back from its store, as a shard does."""
        partition = self.partition
        recovered = await partition.store.recover()
        mailboxes = await look_through(partition, recovered, {})
        await refill(partition, recovered, mailboxes)
        await resume(partition, recovered, mailboxes)

    @property
    def is_reading(self) -> bool:
        """Whether something is on its way from the store into memory."""
        return self.partition.loader.is_loading or self.partition.overflow.is_feeding

    async def quiet(self) -> None:
        """Have all turns taken that can be taken without a commit."""
        idle = 0
        with anyio.fail_after(10):
            while idle < 3:
                await checkpoint()
                idle = 0 if await self.pump.run() or self.is_reading else idle + 1

    async def commit(self) -> None:
        """Make durable what has gathered, and let it out; or recover from what broke down."""
        await self.quiet()
        await self.commit_loop.commit_once()
        await self.quiet()

    async def settle(self) -> None:
        """Take turns and commit until there is nothing more to do."""
        await self.commit()
        while self.partition.has_work:
            await self.commit()

    async def call(self, key: str, name: str, input: bytes | None = None) -> Any:
        """Call an operation, and give its answer."""
        waiter = self.door.request(key, Operation(name, input, call=True))
        await self.settle()
        return await waiter

    async def evict(self) -> None:
        """Take all idle actors out of memory."""
        await self.settle()
        for _ in range(2):
            self.partition.catalog.evict(1_000)


@asynccontextmanager
async def alone(
    app: App, store: FaultyStore | None = None, **settings: Any
) -> AsyncGenerator[Alone]:
    """Have a partition that is the only one, on a store in memory or on one that was used before.

    Raises:
        TimeoutError: the test hangs.
    """
    used = FaultyStore() if store is None else store
    [inner] = await used.open(1)
    try:
        one = Alone(app, used, inner, Settings(**settings))
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.partition.loader.run)
                tasks.start_soon(one.partition.overflow.run)
                await one.start()
                try:
                    yield one
                finally:
                    at_once(abandon(one.partition))
                    tasks.cancel_scope.cancel()
    finally:
        await used.close()
