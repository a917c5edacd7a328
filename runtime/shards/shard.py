"""A shard: one event loop that hosts partitions."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from heapq import nlargest
from typing import TYPE_CHECKING, Any

import anyio
from attrs import asdict

from ...actors.errors import (
    HubStoppingError,
    InternalError,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)
from ...actors.logs import Log
from ...actors.messages import Caller, Command, Completion
from ...storage.slices import STEPS, at_once, each, in_slices
from ..partitions.around import Around
from ..partitions.commit_loop import DRAIN_BUDGETS, CommitLoop
from ..partitions.door import Door
from ..partitions.loss import forsake
from ..partitions.move import Replies
from ..partitions.overflow import look_through
from ..partitions.partition import Partition
from ..partitions.recovery import abandon, callers_of, refill, reintroduce, resume
from ..partitions.rounds import Rounds
from ..partitions.tenure import SureRecords
from ..partitions.workbook import Workbook
from ..placement.hashing import partition_of
from ..placement.places import MovedError
from ..scheduling.allowance import Allowance
from ..scheduling.deaths import Notes
from ..scheduling.forks import no_copies
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.keeper import Keeper
from ..scheduling.pump import Pump
from ..scheduling.timers import TimerQueue
from ..scheduling.waiter import Waiter
from ..transport.router import Elsewhere
from .activities import ActivityPool, RunningActivity

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ...storage.protocol import PartitionStore
    from ...storage.records import Recovered
    from ..partitions.activation import Activation
    from ..partitions.tenure import Tenure
    from ..scheduling.clock import Clock
    from ..scheduling.watch import Watch
    from ..settings import Settings
    from ..statistics import PartitionStatistics
    from ..transport.router import Router
    from ..transport.verbs import Handlers

_log = Log("perdure.hub")

#: Seconds that each step of stopping takes at most, once what was under way had its time to end.
STOP_S = 1.0

_NAMED_MAX = 20

#: What a partition brings along: who waits for its stored messages, as (row, number of the reply)
#: of a shard, and whose activities run on which shards.
Handover = dict[str, Any]


class Shard:
    """One event loop's pump, timers and activities, and the partitions that they serve.

    Args:
        number: which shard of the hub.
        router: where all partitions are, as seen from this loop.
        store_of: gives the durable half of a partition.
        release: gives up the durable half of a partition that has left.
        on_fatal: told when a partition was lost for good.
        watch: is told of turns, checkpoints and activities, if there is one.

    Attributes:
        allowance: how long its partitions may drain, and seal, in one turn of the loop.
        tenure: says whether others may have taken over what is hosted here; None where nobody can.
        on_lost: told of a partition that another process has taken over, with ``tenure``.
    """

    def __init__(
        self,
        number: int,
        router: Router,
        *,
        lookup: Lookup,
        settings: Settings,
        clock: Clock,
        store_of: Callable[[int], PartitionStore],
        release: Callable[[PartitionStore], Awaitable[None]],
        on_fatal: Callable[[Exception], None],
        watch: Watch | None = None,
    ) -> None:
        self.number = number
        self.router = router
        self.hosted: dict[int, Door] = {}
        self._away: dict[int, Door] = {}  # those that wait for their store to be back
        self.settings = settings
        self.replies = Replies()
        self.pump = Pump(settings.pump_budget_s)
        self.keeper = Keeper()
        self.pump.on_fatal = self.keeper.on_fatal = on_fatal
        self.timers = TimerQueue(clock)
        self.activities = ActivityPool(lookup, self.pump, self.timers, settings, number)
        self._watch = watch
        if watch is not None:
            if watch.traces:
                self.activities.tracer = watch
            else:
                self.activities.watch = watch
        self._rounds = Rounds(router.new_waiter)
        self.allowance = Allowance(DRAIN_BUDGETS * settings.pump_budget_s)
        self._lookup = lookup
        self._clock = clock
        self._store_of = store_of
        self._release = release
        self._on_fatal = on_fatal
        self._is_lost = False
        self.tenure: Tenure | None = None  # where others may take over what is hosted here
        self.on_lost: Callable[[int, Exception], None] = lambda number, error: None
        self.notes: Notes | None = None  # where processes have died
        self.at_fault: set[str] = set()  # the actors whose turns ended processes
        self.left: list[str] = []  # users' code that did not end when it was cancelled
        self._tasks: TaskGroup | None = None
        self._drain_by: float | None = None  # when what is under way has had its time to end

    @property
    def hosted_or_away(self) -> dict[int, Door]:
        """The partitions hosted here, with those that wait for their store to be back."""
        return {**self.hosted, **self._away} if self._away else self.hosted

    @property
    def partitions(self) -> list[Partition]:
        """The partitions hosted here, in order of number."""
        return [door.partition for _, door in sorted(self.hosted_or_away.items())]

    def start(self) -> None:
        """Bind to the running event loop."""
        self.activities.start()

    async def run(self) -> None:
        """Serve the partitions hosted here, for ever."""
        with no_copies():
            await self._run()

    async def _run(self) -> None:
        try:
            async with TaskGroup() as tasks:
                self._tasks = tasks
                self.router.start(tasks)
                self.keeper.start()
                for door in self.hosted.values():
                    self._serve(door.partition)
                self.keeper.keep("the loop of the timers", self.timers.run, self._recover_all)
                self.pump.start()
                await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    self.pump.halt()
                    await self.keeper.stop()
                    await in_slices(self._close())
                finally:
                    self.left = await self.pump.stop(STOP_S)

    def _serve(self, partition: Partition) -> None:
        name = f"the commit loop of partition {partition.index}"
        loop = CommitLoop(partition, self._rounds, self.allowance, self._watch)
        self.keeper.keep(name, loop.run, partition.break_down)

    def _recover_all(self, trouble: InternalError) -> None:
        for partition in self.partitions:
            partition.break_down(trouble)

    async def host(self, number: int, handover: Handover | None = None) -> None:
        """Bring a partition back from its store and serve it from now on.

        Raises:
            StorageError: the store cannot be read.
        """
        if number in self.hosted:
            return  # its owner was restarted while it moved here
        partition = self._make(number)
        waiters = {} if handover is None else self._take_over(partition, handover)
        self._check_open()
        recovered = await partition.store.recover()
        self._check_open()
        await self._admit(partition, recovered, waiters)
        if handover is None:
            for key in set(recovered.parked) - self.at_fault:
                # The code may have been repaired since: each of them gets one new try.
                partition.post(key, Command("retry"))
        if self.keeper.is_running:
            self._serve(partition)
        reintroduce(partition)
        if handover is None:
            await self._park_unknown(partition, {*recovered.parked})

    def _make(self, number: int) -> Partition:
        partition = Partition(
            number,
            self._store_of(number),
            lookup=self._lookup,
            settings=self.settings,
            clock=self._clock,
            pump=self.pump,
            timers=self.timers,
            activities=self.activities,
            new_waiter=self.router.new_waiter,
        )
        partition.places = self.router.places
        partition.notes = self.notes
        turns = self._watch if self._watch is not None and self._watch.sees_turns else None
        if self.notes is not None or turns is not None:
            partition.around = Around(self.notes, turns)
        if self._watch is not None and self._watch.traces:
            partition.workbook = Workbook(partition, self._watch)
        for key in self.at_fault:
            if partition_of(key, len(partition.places)) == number:
                partition.crashes.bar(key)
        partition.on_fatal = partial(self._lose, partition)
        if self.tenure is not None:
            partition.tenure = self.tenure
            partition.on_away = partial(self._be_away, number)
        partition.calls.cancel_abroad = self._cancel_abroad
        return partition

    def _take_over(self, partition: Partition, handover: Handover) -> dict[int, Waiter]:
        """Take what a partition brings along; gives who waits for its stored messages, by row."""
        partition.calls.abroad = {
            shard: {Caller(*caller) for caller in callers} for shard, callers in handover["abroad"]
        }
        source = handover["shard"]
        return {row: _Reply(partial(self._reply, source), n) for row, n in handover["replies"]}

    async def _admit(
        self, partition: Partition, recovered: Recovered, waiters: dict[int, Waiter]
    ) -> None:
        """Have a partition among those that are hosted here, with all that waits in its store."""
        number, gate = partition.index, partition.gate
        # Not served before it is restored; activities' answers that come meanwhile are kept.
        gate.reason = MovedError(f"partition {number} is coming to this shard")
        self.hosted[number] = door = Door(partition)
        if partition.tenure is not None:
            elsewhere, is_here = Elsewhere(number, self.router), partial(self._is_here, door)
            door.store = SureRecords(partition.store, gate, partition.tenure, elsewhere, is_here)
        self.router.add(door)
        try:
            mailboxes = await look_through(partition, recovered, waiters)
            await refill(partition, recovered, mailboxes)
            await resume(partition, recovered, mailboxes)
        except BaseException:
            del self.hosted[number]
            self.router.remove(number)
            at_once(partition.drop_all().let_go())
            self._pass_on(partition)
            raise
        gate.reason = None
        for instance_id, completion in gate.take_late():
            partition.post_answer(instance_id, completion)
        self.router.tell()

    async def _is_here(self, door: Door) -> bool:
        """Say, a little later, whether a partition is hosted here, or comes."""
        if self.hosted.get(door.index) is door:
            await self.router.wait_moved()
        return self.hosted.get(door.index) is door

    async def _park_unknown(self, partition: Partition, parked: set[str]) -> None:
        """Load the instances whose code is not registered, so that they are parked and listed."""
        try:
            known = self._lookup.registry.orchestration_versions
            keys = await partition.store.find_unknown(known)
        except (StorageError, UnavailableError) as error:
            _log.warning("instances without code are parked when they are needed: %s", error)
            return
        if partition.gate.reason is None:
            for key in keys:
                if key not in parked and key not in partition.activations:
                    partition.catalog.activate(key)

    def _check_open(self) -> None:
        if self.router.is_closed:
            raise HubStoppingError("the hub is stopping: no partition moves any more")

    def _lose(self, partition: Partition, error: Exception) -> None:
        """A partition is lost for good: for this shard alone, where another one may have it."""
        if partition.tenure is not None:
            self.drop(partition.index, error)
            self.on_lost(partition.index, error)
            return
        self._is_lost = True
        self._on_fatal(error)

    def _be_away(self, number: int, is_away: bool) -> None:
        """Have a partition that waits for its store be found nowhere, so that requests wait."""
        if is_away and number in self.hosted:
            self._away[number] = self.hosted.pop(number)
            self.router.remove(number)
        elif not is_away and number in self._away:
            self.hosted[number] = door = self._away.pop(number)
            self.router.add(door)

    def drop(self, number: int, error: Exception) -> None:
        """Give a partition up that others may have taken over, with all that is not durable."""
        door = self.hosted.pop(number, None)
        if door is not None:
            self.router.remove(number)
        else:
            door = self._away.pop(number, None)
        if door is None:
            return
        partition = door.partition
        partition.fatal = error
        partition.break_down(error)  # what is being stored now is not let out any more
        if partition.leaving is None:
            partition.leave()
        rest = forsake(partition)
        self._pass_on(partition)
        if self._tasks is not None:
            self._tasks.start_soon(self._put_away, partition, rest)

    def renumber(self, number: int) -> None:
        """Be another shard from now on; it hosts nothing now."""
        self.number = self.activities.shard = number
        self.activities.at_once = (None, number)
        self.replies.fail(_gone_with_its_shard())

    def _reply(self, shard: int, number: int, value: Any) -> None:
        if shard == self.number:
            self.replies.take(number, value)
        else:
            self.router.post_surely(shard, ("reply", number, value))

    def _cancel_abroad(self, shard: int, caller: Caller) -> None:
        if shard == self.number:
            self.activities.cancel(caller)
        else:
            self.router.post_surely(shard, ("cancel", caller))

    async def let_go(self, number: int, to: int) -> Handover:
        """Stop serving a partition, with all it holds durable; gives what its next host needs.

        Raises:
            MovedError: it is not here.
            StorageError, UnavailableError: it could not be made durable, and stays.
        """
        door = self.hosted.get(number)
        if door is None or self._tasks is None:
            raise MovedError(f"partition {number} is not on shard {self.number}")
        partition = door.partition
        # Its next host brings only what comes while these two run, the second of which is short.
        await partition.store.apply()
        await partition.store.apply()
        waiting: dict[int, Waiter] = await partition.leave()
        if self.hosted.get(number) is not door:
            # Others may have taken it over meanwhile, who know of nobody who waits here.
            for waiter in waiting.values():
                waiter.fail(_gone_with_its_shard())
            raise MovedError(f"partition {number} is not on shard {self.number} any more")
        callers = self.activities.send_away(
            partition.post_answer, partial(self._answer_away, number)
        )
        del self.hosted[number]
        self.router.remove(number)
        callers += self._pass_on(partition)
        abroad = dict(partition.calls.abroad)
        # What goes on elsewhere may pass here on its way, and be lost with this shard.
        here = {*callers, *callers_of(abroad)}
        if here:
            abroad[self.number] = here
        handover = {
            "shard": self.number,
            "replies": [(row, self.replies.expect(to, one)) for row, one in waiting.items()],
            "abroad": [(shard, [tuple(one) for one in some]) for shard, some in abroad.items()],
        }
        self._tasks.start_soon(self._put_away, partition)
        return handover

    def _pass_on(self, partition: Partition) -> list[Caller]:
        """Send the answers that came too late for a partition after it; gives whom they are for."""
        callers: list[Caller] = []
        for instance_id, completion in partition.gate.late:
            callers.append(Caller(instance_id, completion.execution, completion.task))
            self._answer_away(partition.index, instance_id, completion)
        return callers

    def _answer_away(self, number: int, instance_id: str, completion: Completion) -> None:
        self.router.places[number].post_answer(instance_id, completion)

    async def _put_away(self, partition: Partition, rest: Generator[None] | None = None) -> None:
        # Closing many coroutines takes time that nobody should wait for.
        try:
            await in_slices(partition.drop_all().let_go() if rest is None else rest)
            await self._release(partition.store.inner)
        except Exception as error:
            _log.error("partition %d has left, and is not closed here", partition.index, why=error)

    async def died(self, shard: int) -> None:
        """Another shard has died: do what depended on it."""
        self.replies.fail(_gone_with_its_shard(), shard)
        for partition in self.partitions:
            gone = partition.calls.abroad.pop(shard, None)
            if gone:
                for others in partition.calls.abroad.values():
                    others -= gone
                keys = {caller.instance_id for caller in gone}
                await partition.loader.dispatch_unanswered(keys, gone.__contains__)
                partition.leftovers.dispatch(gone.__contains__)

    async def drain(self, by: float | None = None) -> bool:
        """Let what is under way come to a durable stop; what takes too long goes on later.

        Asked again, it takes no more time than it had at first. Gives False where the stores have
        not heard all of it, and do not answer.

        Args:
            by: until when it may take, if that has been decided; else for ``Settings.drain_s``.
        """
        self.activities.stop_starting()
        now = anyio.current_time()
        if self._drain_by is None:
            self._drain_by = now + self.settings.drain_s if by is None else by
        elif now >= self._drain_by:
            return True
        with anyio.CancelScope(deadline=self._drain_by) as scope:
            # A commit that fails here is recovered from, and what it held becomes durable after that.
            # Polled, since many parts have to fall quiet, and only here does it matter when.
            while not self._is_lost and not (  # noqa: ASYNC110
                self._is_quiet() and await self._is_durable()
            ):
                await anyio.sleep(0.002)
        if scope.cancelled_caught:
            self._say_what_did_not_end()
            with anyio.move_on_after(STOP_S):
                return await self._is_durable()
            return False
        return True

    def _say_what_did_not_end(self) -> None:
        activities = self.activities.begun
        wanted = sum(not one.abandoned for one in activities)
        # The pump has the async activities, too.
        operations = [one for one in self.pump.kept if not isinstance(one, RunningActivity)]
        if wanted or operations:
            _log.warning(
                "%d activities and %d operations did not end in time; they run again at the next start",
                wanted,
                len(operations),
            )
        if wanted < len(activities):
            _log.warning(
                "%d activities did not end in time, although they were told to stop before",
                len(activities) - wanted,
            )
        if not activities and not operations:
            _log.warning("what was under way could not be made durable in time")
        for title in sorted({one.title for one in (*activities, *operations)})[:_NAMED_MAX]:
            _log.warning("did not end in time: %s", title)

    async def _is_durable(self) -> bool:
        """Whether all partitions could make durable what they had."""
        try:
            for door in [*self.hosted.values()]:  # some may leave, or come, meanwhile
                if door.partition.gate.reason is not None:
                    return False
                await door.wait_durable()
        except UnavailableError:
            return False
        return True

    def _is_quiet(self) -> bool:
        return (
            self.pump.is_quiet
            and not self.activities.running_count
            and all(partition.is_quiet for partition in self.partitions)
        )

    def halt(self) -> None:
        """Take no more turns, and tell the activities that their answers are not wanted."""
        self.pump.halt()
        self.activities.stop_all()

    def close(self) -> None:
        """Give up what is in memory, and tell whoever still waits."""
        at_once(self._close())

    def _close(self) -> Generator[None]:
        self.halt()
        self.activities.close()
        for partition in self.partitions:
            yield from abandon(partition)
        self.replies.fail(_gone_with_its_shard())

    @property
    def handlers(self) -> Handlers:
        """What the hub may ask of the shard, by verb."""
        return {
            "host": self.host,
            "let_go": self.let_go,
            "count": self.count,
            "load": self.load,
            "died": self.died,
            "drain": self.drain,
        }

    async def load(self) -> tuple[float, list[tuple[int, int]]]:
        """Give the seconds spent in turns, and the messages that each partition took."""
        return self.pump.busy_s, [(one.index, one.messages) for one in self.partitions]

    async def count(self, hottest: int = 0) -> dict[str, Any]:
        """Give the counters of the shard and of its partitions, as plain values."""
        from ..statistics import ShardStatistics  # which a hub that nobody asks never needs

        counted = [await count_partition(one, self.number, hottest) for one in self.partitions]
        shard = ShardStatistics(
            index=self.number,
            pid=os.getpid(),
            busy_s=self.pump.busy_s,
            activities=self.activities.count,
            abandoned=self.activities.abandoned,
            replaced=self.pump.replaced + self.keeper.restarts,
            partitions=tuple(one.index for one in counted),
            waiting_activities=self.activities.waiting_count,
            longest_wait_s=self.activities.longest_wait_s,
            by_activity=self.activities.read_kinds(),
        )
        return {"shard": asdict(shard), "partitions": [asdict(one) for one in counted]}


def _gone_with_its_shard() -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "the shard that this request had moved to stopped before it answered: it may have been "
        "applied; repeat it under the same request id"
    )


class _Reply:
    """Answers a request through the shard at which it was made."""

    __slots__ = ("_number", "_send")

    def __init__(self, send: Callable[[int, Any], None], number: int) -> None:
        self._send = send
        self._number = number

    def set(self, value: Any) -> None:
        self._send(self._number, value)

    def fail(self, error: BaseException) -> None:
        self._send(self._number, error)

    def __await__(self) -> Any:
        raise NotImplementedError("it is awaited elsewhere")


async def count_partition(partition: Partition, shard: int, hottest: int) -> PartitionStatistics:
    """Read the counters of one partition, with its ``hottest`` most used and fullest actors."""
    from ..statistics import PartitionStatistics

    stored_bytes = await partition.store.size()
    tally = _Tally(hottest)
    await in_slices(each([*partition.activations.values()], tally.add))
    waits_since = tally.waits_since
    longest = 0.0 if waits_since is None else max(0, partition.now() - waits_since) / 1e6
    return PartitionStatistics(
        index=partition.index,
        shard=shard,
        commits=partition.commits,
        turns=partition.turns,
        messages=partition.messages,
        sent_away=partition.sent_away,
        failed_operations=partition.unheard.operations,
        failed_calls=partition.unheard.calls,
        waiting=tally.waiting,
        stored=partition.overflow.count,
        owed=partition.exchange.owed,
        activations=len(partition.activations),
        stored_bytes=stored_bytes,
        unapplied=partition.store.unapplied,
        commit_durations=partition.commit_durations.read(),
        committed_bytes=partition.committed_bytes,
        replays=partition.loader.replays,
        replayed_events=partition.loader.replayed_events,
        parked=tally.parked,
        longest_wait_s=longest,
        hottest=tuple(tally.hottest),
        fullest=tuple(tally.fullest),
    )


class _Tally:
    """What is counted of the actors in memory, one by one.

    Attributes:
        waiting: how many messages wait for them.
        waits_since: the last turn of the actor whose messages wait for longest.
        parked: how many of them are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._hottest: list[tuple[str, int]] = []
        self._fullest: list[tuple[str, int]] = []
        self.waiting = self.parked = 0
        self.waits_since: int | None = None

    def add(self, one: Activation) -> None:
        """Count an actor."""
        count = one.waiting
        if count:
            self.waiting += count
            self._note(self._fullest, one.key, count)
        if one.mail and one.latest:
            since = self.waits_since
            self.waits_since = one.latest if since is None else min(since, one.latest)
        if one.actor is not None and one.actor.parked is not None:
            self.parked += 1
        self._note(self._hottest, one.key, one.taken)

    def _note(self, noted: list[tuple[str, int]], key: str, count: int) -> None:
        if self._most:
            noted.append((key, count))
            if len(noted) > 2 * self._most + STEPS:
                noted[:] = _first(noted, self._most)

    @property
    def hottest(self) -> list[tuple[str, int]]:
        """Those that took the most messages."""
        return _first(self._hottest, self._most)

    @property
    def fullest(self) -> list[tuple[str, int]]:
        """Those for whom the most messages wait."""
        return _first(self._fullest, self._most)


def _first(noted: list[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    return nlargest(most, noted, key=lambda one: one[1])
