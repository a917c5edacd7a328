"""The lives of a hub under test: one after another on one store, each ended by a crash.

A crash takes all that is in memory away, from one moment to the next: what is left of the life is
fenced off from the store, and so from the outside, since nothing leaves a hub before it is durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio

from ..actors.errors import HubStoppingError, PerdureError
from ..runtime.cluster.loops import LoopCrew
from ..runtime.placement.hashing import name_in
from ..runtime.scheduling.hidden_tasks import TaskGroup
from ..runtime.scheduling.waiter import event_factory
from .stored import last_number

if TYPE_CHECKING:
    from ..actors.registry.lookup import Lookup
    from ..runtime.partitions.door import Door
    from ..runtime.partitions.partition import Partition
    from ..runtime.scheduling.clock import Clock
    from ..runtime.scheduling.watch import Watch
    from ..runtime.settings import Settings
    from ..runtime.shards.shard import Shard
    from ..runtime.transport.router import Router
    from ..runtime.transport.verbs import ShardVerb
    from ..storage.bells import Bell
    from .activities import StandIns
    from .store import FaultyStore, Fence


class Life:
    """What is in memory of a hub, from one crash to the next."""

    def __init__(self, shard: Shard, router: Router, fence: Fence) -> None:
        self.shard = shard
        self.router = router
        self.fence = fence
        self.ended = event_factory()()
        fence.tell(self.ended.set)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.fence.is_down

    def place(self, number: int) -> Door:
        """Give a partition."""
        return self.shard.hosted[number]


class Lives(LoopCrew):
    """One event loop's shard, and after a crash another one.

    Args:
        store: what they have in common.
        stand_ins: what runs as activities.

    Attributes:
        told: how much clients were told so far.
        stir: called when something may have moved.
        between: awaited after each crash, before the next life.
    """

    def __init__(
        self,
        store: FaultyStore,
        partitions: int,
        stand_ins: StandIns,
        *,
        lookup: Lookup,
        settings: Settings,
        clock: Clock,
        stop_for: Callable[[Exception], None],
        watch: Watch | None,
    ) -> None:
        super().__init__(
            1,
            store,
            partitions,
            lookup=lookup,
            settings=settings,
            clock=clock,
            socket=None,
            stop_for=stop_for,
            watch=watch,
        )
        self._rows = store
        self._stand_ins = stand_ins
        self._life: Life | None = None
        self._is_closed = False
        self._changed_life: anyio.Event | Bell = anyio.Event()
        self.told = 0
        self.stir: Callable[[], None] = _nothing
        self.between: Callable[[], Awaitable[None]] | None = None
        store.on_done = lambda: self.stir()

    @property
    def is_interrupted(self) -> bool:
        """Whether no life is at hand: the last one has ended, and another one may begin."""
        return self._is_closed or self._life is None or self._life.is_over

    @property
    def is_at_store(self) -> bool:
        """Whether something is being stored, or read."""
        return self._rows.busy > 0

    def make_shard(self, router: Router, on_fatal: Callable[[Exception], None]) -> Shard:
        """Make the shard of a life."""
        shard = super().make_shard(router, on_fatal)
        shard.activities.prepare = partial(self._stand_ins.prepare, self._rows.fence)
        return shard

    async def open(self) -> None:
        """Begin a life with what the store has."""
        await super().open()
        shard = self.local_shard
        for partition in shard.partitions:
            partition.new_name = await self._new_names(partition)
        self._life = Life(shard, self.router, self._rows.fence)
        self._tell()

    async def _new_names(self, partition: Partition) -> Callable[[], str]:
        """Give what makes names up: the same ones in each run, also where a crash undid a turn."""
        prefix = f"{name_in(partition.index, len(self.owners))}::"
        last = await last_number(partition.store, prefix, partition.activations)
        numbers = count(last + 1)
        return lambda: f"{next(numbers):08d}"

    def _tell(self) -> None:
        # Whoever waits goes on in the order in which he came, on trio, too.
        changed, self._changed_life = self._changed_life, event_factory()()
        changed.set()
        self.stir()

    async def run(self) -> None:
        """Serve, in one life after another."""
        try:
            while True:
                await self._live()
        except PerdureError as error:
            self._stop_for(error)  # the store cannot be opened again
            await anyio.sleep_forever()

    async def _live(self) -> None:
        life = self._life
        assert life is not None
        async with TaskGroup() as tasks:
            tasks.start_soon(life.shard.run)
            await life.ended.wait()
            tasks.cancel_scope.cancel()
        life.shard.close()
        life.router.close()
        if self.between is not None:
            await self.between()
        await self.open()

    async def alive(self) -> Life:
        """Give the life at hand; after a crash, the next one, once it has begun.

        Raises:
            HubStoppingError: there comes none.
        """
        while not self._is_closed:
            life = self._life
            if life is not None and not life.is_over:
                return life
            await self._changed_life.wait()
        raise HubStoppingError("the hub is stopping or has stopped; repeat it on the next one")

    async def crash(self) -> None:
        """End the life at hand, and return when the next one has begun."""
        (await self.alive()).fence.fall()
        await self.alive()

    async def ask(self, shard: int, verb: ShardVerb, *arguments: Any) -> Any:
        """Ask something of the shard of the life at hand."""
        return await (await self.alive()).shard.handlers[verb](*arguments)

    async def drain(self) -> None:
        """Drain the life at hand; where it ends meanwhile, the next one."""
        with suppress(HubStoppingError):
            while not await self._drain_life(await self.alive()):
                pass

    async def _drain_life(self, life: Life) -> bool:
        """Let what is under way come to a durable stop; False if a crash came first."""
        async with TaskGroup() as tasks:

            async def drain() -> None:
                try:
                    await life.shard.drain()
                except PerdureError:
                    if not life.is_over:
                        raise
                tasks.cancel_scope.cancel()

            tasks.start_soon(drain)
            await life.ended.wait()
            tasks.cancel_scope.cancel()
        return not life.is_over

    def stop(self) -> None:
        """Stop what has not come to a stop by itself."""
        self._is_closed = True
        super().stop()
        self._tell()


def _nothing() -> None:
    """Tell nobody."""
