"""``TestHub``: a hub in memory and in virtual time, for tests of what is built on it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload
from weakref import WeakKeyDictionary

import anyio

from ..actors.arguments import flag, is_a, refusal
from ..actors.entities.stripes import stripe_key
from ..actors.errors import HubStoppingError, InvalidTimeError, UsageError
from ..actors.ids import EntityId, check_instance_id
from ..actors.times import microseconds, seconds, timestamp
from ..actors.values import MISSING
from ..runtime.hub import Hub
from ..runtime.placement.hashing import partition_of
from ..runtime.scheduling.imports import EXPLAINING, imported
from ..runtime.settings import Settings
from ..storage import MemoryStore
from .activities import StandIns
from .clock import VirtualClock
from .lives import Lives
from .steady import SteadyClient, SteadyRoutes
from .stillness import Stillness
from .store import Faults, FaultyStore
from .sync import Sync

if TYPE_CHECKING:
    from pathlib import Path

    from ..actors.registry.app import App
    from ..actors.values import RuntimeStatus
    from ..runtime.client.client import Client
    from ..runtime.observer import Observer, TraceObserver
    from ..runtime.partitions.activation import Activation
    from ..runtime.scheduling.hidden_tasks import TaskGroup
    from ..runtime.scheduling.watch import Watch
    from .activities import ActivityRecord

I = TypeVar("I")  # noqa: E741 - an activity's input
R = TypeVar("R")
T = TypeVar("T")

_SECOND = 1_000_000
_END = timestamp(datetime.max.replace(tzinfo=UTC), "the end")

#: How many hubs were made before on each store.
_HUBS: WeakKeyDictionary[MemoryStore, int] = WeakKeyDictionary()

#: So often is it looked whether an actor can leave memory before that is asked of all others.
_SPINS_MAX = 200


class TestHub(Hub):
    """A hub for tests: ``async with TestHub(app) as hub: ... await hub.advance(3600) ...``.

    Its store is memory, and its time is virtual: durable timers, delays of retries, time limits of
    activities and retention pass when ``advance`` says so, or by themselves with
    ``auto_advance``. Real are the sleeps of activities and the ``timeout=`` of clients.

    It can crash, and comes back with what was durable then. Its client stays the same over that:
    what a crash has cut off is repeated under the same request id, so it is done once.

    Its methods are for any task and any event loop; ``sync`` has them for code without one.

    Args:
        app: the application, or where it is, such as ``"module:name"``.
        auto_advance: whether it jumps to what is due next whenever nothing else moves.
        activity_wait_s: for how long, in seconds of real time, ``advance``, ``quiet`` and
            ``auto_advance`` wait for activities under way before they go on beside them.
        start: the time at first; that of now, in whole seconds, by default.
        store: where its rows are; give one hub's to another one, and that goes on with them.
        inline_activities: whether sync activities run on the event loop instead of in threads, one
            after another, so that they come in the same order each time.
        partitions: see ``Hub``.
        settings: see ``Hub``; by default it drains for ``activity_wait_s``.
        retention: see ``Hub``.
        observer: see ``Hub``.

    Attributes:
        faults: what is to go wrong.
        sync: the same methods for code without an event loop, in other threads than the hub's.
    """

    __test__: ClassVar[bool] = False  # pytest takes it for no class of tests

    def __init__(
        self,
        app: App | str,
        *,
        auto_advance: bool = False,
        activity_wait_s: float | timedelta = 1.0,
        start: datetime | None = None,
        store: MemoryStore | None = None,
        inline_activities: bool = False,
        partitions: int = 4,
        settings: Settings | None = None,
        retention: Mapping[RuntimeStatus | str, float | timedelta] | None = None,
        observer: Observer | TraceObserver | str | None = None,
    ) -> None:
        self._auto = flag(auto_advance, "auto_advance")
        self._inline = flag(inline_activities, "inline_activities")
        self._activity_wait_s = seconds(activity_wait_s, "activity_wait_s")
        now = int(time.time()) * _SECOND if start is None else timestamp(start, "start")
        self._virtual = VirtualClock(now)
        self.faults = Faults()
        self.sync = Sync(self)
        self._turning = anyio.Lock()
        rows = MemoryStore() if store is None else store
        if not is_a(rows, MemoryStore):
            raise refusal("store", "a MemoryStore", rows)
        _HUBS[rows] = earlier = _HUBS.get(rows, -1) + 1
        # The next hub on a store does not ask again what the store has done for the ones before.
        self._mark = f"{earlier + 1}-" if earlier else ""
        self._rows = FaultyStore(rows, self.faults)
        super().__init__(
            app,
            store=self._rows,
            partitions=partitions,
            settings=settings or Settings(drain_s=max(self._activity_wait_s, 0.001)),
            clock=self._virtual,
            retention=retention,
            observer=observer,
            rebalance=None,
        )

    def _make_crew(
        self, shards: int, partitions: int, socket: Path | None, watch: Watch | None
    ) -> Lives:
        self._stand_ins = StandIns(self.app.registry, inline=self._inline)
        self._lives = Lives(
            self._rows,
            partitions,
            self._stand_ins,
            lookup=self._lookup,
            settings=self.settings,
            clock=self._clock,
            stop_for=self._stop_for,
            watch=watch,
        )
        self._stillness = Stillness(self._lives, self._activity_wait_s)
        return self._lives

    def _make_client(self) -> Client:
        routes = SteadyRoutes(self._lives, self.faults, self._mark)
        client = SteadyClient(self._lookup, routes, self._clock, self._home, self)
        client.mark = self._mark
        return client

    def _begin_serving(self, tasks: TaskGroup) -> None:
        super()._begin_serving(tasks)
        if self._auto:
            tasks.start_soon(self._jump_for_ever)

    @property
    def now(self) -> datetime:
        """The virtual time; aware, UTC."""
        return self._virtual.shown

    async def quiet(self) -> None:
        """Return when nothing moves: all is done that can be done without time passing.

        Activities under way are waited for, in real time, for ``activity_wait_s`` at most.

        Raises:
            HubStoppingError: the hub does not run.
        """
        await self._at_home(self._stillness.wait)

    async def advance(self, by: float | timedelta) -> None:
        """Let so much time pass, in seconds or as a timedelta; what falls due happens in order.

        The clock goes from one due time to the next, those that are set on the way included, and
        at each of them waits until nothing moves, as ``quiet`` does.

        Raises:
            InvalidTimeError: it is no duration, or negative, or goes beyond the year 9999.
            HubStoppingError: the hub does not run.
        """
        delay = microseconds(by, "by")
        if self._virtual.now() + delay > _END:
            raise InvalidTimeError(
                f"by: {self.now} and {timedelta(microseconds=delay)} is behind the year 9999, "
                "where time ends"
            )
        await self._at_home(partial(self._advance, delay))

    async def _advance(self, delay: int) -> None:
        clock, wait = self._virtual, self._stillness.wait
        async with self._turning:
            target = clock.now() + delay
            await wait()
            while (due := clock.next_due()) is not None and due <= target:
                clock.set(due)
                await wait()
            clock.set(target)
            await wait()

    async def _jump_for_ever(self) -> None:
        """Set the clock to what is due next whenever nothing moves, while the hub runs."""
        await imported(*EXPLAINING)  # which a client would wait for without moving anything
        stillness = self._stillness
        while self._state == "running":
            try:
                async with self._turning:
                    await stillness.wait()
                    # Retention is not what anybody waits for: it would be due again for ever.
                    due = self._lives.local_shard.timers.next_due()
                    if due is not None and self._state == "running":
                        self._virtual.set(due)
                        continue
                await stillness.stir_up()
            except HubStoppingError:
                return

    async def crash(self) -> None:
        """Have the hub crash now: all that is in memory is gone; return when it is back.

        Nothing that was under way is finished first. What was durable goes on: activities whose
        answers were not durable run again.

        Raises:
            HubStoppingError: the hub does not run.
        """
        await self._at_home(self._lives.crash)

    async def evict(self, actor: str | EntityId[Any]) -> bool:
        """Have an instance or an entity leave memory, once all that it decided is durable.

        What next comes for it finds it in the store: an instance's code is replayed then. Of a
        striped entity the stripes leave as well.

        Returns:
            Whether it was in memory.

        Raises:
            UsageError: nothing moves, and it holds what keeps it there: messages that wait for a
                lock on it, or an operation that does not end.
            HubStoppingError: the hub does not run.
        """
        if not isinstance(actor, EntityId):
            key = check_instance_id(actor, "actor")
            return await self._at_home(partial(self._evict, key))
        return await self._at_home(partial(self._evict_entity, actor))

    async def _evict_entity(self, id: EntityId[Any]) -> bool:
        striped = self._lookup.striped.get(id.name)
        count = 0 if striped is None else striped.stripe_count(len(self.placement))
        home, was_there = str(id), False
        for key in (*(stripe_key(home, number) for number in range(count)), home):
            was_there |= await self._evict(key)
        return was_there

    async def _evict(self, key: str) -> bool:
        number = partition_of(key, len(self.placement))
        was_there, is_stuck, spins = False, False, 0
        while True:
            partition = (await self._lives.alive()).place(number).partition
            activation = partition.activations.get(key)
            if activation is None:
                return was_there
            was_there = True
            if activation.is_idle and activation.actor is not None:
                partition.catalog.drop(activation)
                return True
            if is_stuck:
                raise UsageError(_stays(key, activation))
            spins += 1
            if spins < _SPINS_MAX:
                await self._stillness.turn(spins)
            else:
                is_stuck = await self._is_still()

    async def _is_still(self) -> bool:
        """Wait until nothing moves; say whether that stays so, and time does not advance by itself."""
        async with self._turning:
            await self._stillness.wait()
            return not self._auto or self._lives.local_shard.timers.next_due() is None

    @overload
    def fake(self, f: str | Callable[..., Any], *, returns: object) -> None: ...
    @overload
    def fake(self, f: str | Callable[..., Any], *, raises: Exception | type[Exception]) -> None: ...
    @overload
    def fake(
        self, f: Callable[[I], Awaitable[R]], *, calls: Callable[[I], Awaitable[R] | R]
    ) -> None: ...
    @overload
    def fake(self, f: Callable[[I], R], *, calls: Callable[[I], R]) -> None: ...
    @overload
    def fake(self, f: str | Callable[..., Any], *, calls: Callable[..., Any]) -> None: ...
    def fake(
        self,
        f: str | Callable[..., Any],
        *,
        returns: object = MISSING,
        raises: object = MISSING,
        calls: object = MISSING,
    ) -> None:
        """Have something else happen from now on where an activity would run; by one of the three.

        What comes of it crosses as a result of the activity does, so it has to be of its type.

        Args:
            f: the activity's function, or its name.
            returns: the result.
            raises: the exception, or the class of one.
            calls: a function that is called as the activity would be: with its input, and with its
                ``ActivityContext`` where a parameter is annotated so.

        Raises:
            UsageError: not one of the three, or not of its kind.
            UnknownNameError: there is no such activity.
        """
        self._stand_ins.fake(f, returns, raises, calls)

    def unfake(self, f: str | Callable[..., Any]) -> None:
        """Have an activity run itself again.

        Raises:
            UnknownNameError: there is no such activity.
        """
        self._stand_ins.unfake(f)

    def calls(self, f: str | Callable[..., Any]) -> list[ActivityRecord]:
        """Give the calls of an activity so far, crashes or not: one for each idempotency key.

        They come in the order in which they began first; one that was retried, or run again after
        a crash, is one call with several ``attempts``.

        Raises:
            UnknownNameError: there is no such activity.
        """
        return self._stand_ins.calls(f)

    async def record(self, path: str | Path, *instance_ids: str) -> list[Path]:
        """Write histories into files for ``replay``: of these instances, or of all that there are.

        Args:
            path: a folder; or for one instance the file itself, whose name ends in ``.json``.
            instance_ids: the instances.

        Returns:
            The files.

        Raises:
            InstanceNotFoundError: there is no such instance.
            HubStoppingError: the hub does not run.
        """
        from .recording import record  # with all that replays

        self._check_runs()
        return await record(self.client, path, *instance_ids)

    async def _at_home(self, ask: Callable[[], Awaitable[T]]) -> T:
        self._check_runs()
        if self._home.is_elsewhere():
            return await self._home.fetch(ask)
        return await ask()

    def from_thread(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Have something awaited on the hub's event loop, for a thread that stands still meanwhile.

        Raises:
            HubStoppingError: the hub does not run.
            UsageError: the hub's event loop is that of this thread.
        """
        self._check_runs()
        return self._home.fetch_blocking(ask)

    def _check_runs(self) -> None:
        if self._state != "running":
            raise HubStoppingError(
                f"the hub is {self._state}: time passes in it between start() and stop(), or "
                "inside of 'async with'"
            )


def _stays(key: str, activation: Activation) -> str:
    """Say why an actor cannot leave memory."""
    actor = activation.actor
    if actor is not None and actor.held:
        why = (
            f"messages wait in it behind a lock ({len(actor.held):,}): let whoever holds that go on "
            "first"
        )
    else:
        why = "an operation of it is under way: let that end first"
    return f"{key!r} cannot leave memory, since {why}; or crash() the hub, which takes all away"
