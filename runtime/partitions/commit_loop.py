"""The commit loop of a partition: seal, commit, release; recover where that fails; leave at last.

It stands above the partition, and all that becomes durable, or is dropped, goes through it. While
a batch is stored the next one gathers; it is sealed when the last one is out.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from ...actors.errors import LeaseLostError, StorageError, StoreMovedError, UnavailableError
from ...actors.interrupts import is_interrupt
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...storage.slices import at_once, each, in_slices, turn_of_loop
from ..observer import CheckpointFacts
from ..placement.places import MovedError
from ..scheduling.deaths import noted
from ..scheduling.hidden_tasks import TaskGroup
from .batch import Batch
from .checkpoint import (
    SealError,
    has_much_mail,
    seal,
    store_mail,
    store_much_mail,
    tell_ahead,
)
from .loss import fail_batch
from .move import leave
from .recovery import outcome_unknown, recover

if TYPE_CHECKING:
    from ...storage.records import Checkpoint
    from ..scheduling.allowance import Allowance
    from ..scheduling.waiter import Waiter
    from ..scheduling.watch import Watch
    from .activation import Activation
    from .partition import Partition
    from .rounds import Rounds
    from .tenure import Tenure

#: How long mailboxes are drained in front of checkpoints, and these sealed, in one turn of the
#: event loop: in budgets of the pump.
DRAIN_BUDGETS = 4

_END = object()

#: How many activities are looked at in one step, to see whether they are wanted.
_AT_ONCE = 500

#: The mailboxes of so many actors are written down while a checkpoint is sealed; those of more
#: are so before.
_FEW = 16
#: How often that is tried: whoever sends without end does not put the checkpoint off.
_TIMES = 8

#: More actors than these tell what they did with pauses between, before it is sealed.
_MANY = 400


class CommitLoop:
    """Makes durable what one partition's turns decide.

    Args:
        partition: which does.
        rounds: says when the partitions of its event loop commit.
        allowance: how long they may drain mailboxes, and seal, in one turn of it.
        watch: is told of each checkpoint, if there is one.

    Attributes:
        partition: as it was given.
    """

    def __init__(
        self,
        partition: Partition,
        rounds: Rounds,
        allowance: Allowance,
        watch: Watch | None = None,
    ) -> None:
        self.partition = partition
        self._rounds = rounds
        self._allowance = allowance
        self._watch = watch

    async def run(self) -> bool:
        """Commit what gathers until the partition leaves, which is True; recover where that fails."""
        partition = self.partition
        async with TaskGroup() as tasks:
            tasks.start_soon(partition.loader.run)
            tasks.start_soon(partition.overflow.run)
            tasks.start_soon(partition.exchange.run)
            while True:
                if partition.leaving is not None and await self._leave(partition.leaving):
                    tasks.cancel_scope.cancel()
                    return True
                await partition.wait_for_work()
                if partition.batch.has_rows:
                    await self._rounds.join()
                await self.commit_once()
        return False  # one of them was cancelled by what is not the hub, and took the others along

    async def _leave(self, told: Waiter) -> bool:
        """Give the partition up, unless it has to recover first; tells whether it has left."""
        partition = self.partition
        if self._is_behind and not partition.is_tainted and not partition.is_lost():
            await in_slices(self._write_down())
        if partition.is_tainted and not partition.is_lost():
            return False
        partition.leaving = None
        return await leave(partition, told)

    async def commit_once(self) -> None:
        """Take what has gathered through its checkpoint, or recover from what broke down."""
        partition, allowance = self.partition, self._allowance
        if allowance.left <= 0:
            await allowance.wait()
        if not partition.is_tainted:
            self.drain()
        partition.is_closing = True
        if partition.batch.unready:
            await in_slices(self._make_ready(partition.batch))
        if len(partition.batch.dirty) > _MANY:
            await in_slices(tell_ahead(partition, partition.batch))
        tries = _TIMES
        while True:
            if self._is_behind:
                await in_slices(self._write_down())
            if tries and _is_much(partition.batch.touched):
                tries -= 1
                await in_slices(self._store_mail(partition.batch))
            elif tries and len(partition.batch.dirty) > _MANY and not allowance.is_whole:
                tries -= 1
                await turn_of_loop()  # it takes about all of one to seal that
            elif allowance.left > 0:
                break
            await allowance.wait()
        partition.is_closing = False
        began = perf_counter()
        trouble = partition.take_trouble()
        if trouble is not None:
            await recover(partition, trouble, None)
            return
        batch, partition.batch = partition.batch, Batch()
        partition.turns += batch.turns
        partition.messages += batch.messages
        if batch.has_rows or batch.outbox_deleted:
            try:
                checkpoint = partition.pump.lend(partial(seal, partition, batch))
            except SealError as error:
                partition.crashes.blame(error.activation.key, error)
                await recover(partition, error, batch)
                return
            allowance.spend(perf_counter() - began)
            if not await self._store(checkpoint, batch):
                return
            partition.commits += 1
            partition.committed_bytes += batch.size
            partition.failed_commits = 0
            partition.sequence = checkpoint.sequence
            partition.exchange.on_durable(checkpoint)
            if partition.news.is_followed:
                partition.news.note(batch.changed_instances(), checkpoint.sequence)
        else:
            tenure = partition.tenure
            if tenure is not None and not await self._is_sure(batch, tenure):
                return
            if partition.workbook is not None:
                partition.workbook.tell(batch)  # of what only read
            partition.let_on()
        await self._let_out(batch)

    async def _is_sure(self, batch: Batch, tenure: Tenure) -> bool:
        """Wait until what was read is known to be the truth; False where it is somebody else's."""
        partition = self.partition
        if not tenure.is_sure():
            partition.releasing = batch
            try:
                await tenure.until_sure()
            except MovedError:
                fail_batch(partition, batch)
                return False
            except UnavailableError as error:
                batch.replies = [(waiter, error, message) for waiter, _, message in batch.replies]
            except BaseException:
                batch.fail_replies(outcome_unknown())  # the hub stops
                raise
            finally:
                partition.releasing = None
        if partition.is_lost():
            fail_batch(partition, batch)
            return False
        return True

    def drain(self) -> None:
        """Let entities take now what would have to be stored, since it waits at a checkpoint.

        To store a message and to delete it again costs more than its turn. Orchestrations have
        their turns later: most of what they take makes them send more.
        """
        if self.partition.batch.touched:
            self.partition.pump.lend(self._drain)

    def _drain(self) -> None:
        partition = self.partition
        batch, pump = partition.batch, partition.pump
        began = now = perf_counter()
        given_up = began + self._allowance.left
        for activation in list(batch.touched):
            while activation.is_prompt and now < given_up and not batch.is_full:
                activation.run()
                now = perf_counter()
        pump.busy_s += now - began
        self._allowance.spend(now - began)

    def _make_ready(self, batch: Batch) -> Generator[None]:
        """Do what turns have left to be done before what they decided is stored."""
        while batch.unready:
            key, steps = batch.unready.pop(0)
            activation = self.partition.activations[key]
            while self._take_part(activation, steps):
                yield
            self.partition.touch(activation)
        staying, batch.staying = batch.staying, []
        for activation in staying:
            activation.come_back()

    def _take_part(self, activation: Activation, steps: Generator[None]) -> bool:
        """Take a part of what is left of a turn, the code of an instance perhaps; False at its end."""
        partition = self.partition
        try:
            with noted(partition.notes, activation.key):
                return partition.pump.lend(partial(next, steps, _END)) is not _END
        except BaseException as error:  # as where a turn is taken at once
            partition.crash(activation, error)
            if is_interrupt(error):
                raise
            return False

    def _store_mail(self, batch: Batch) -> Generator[None]:
        """Write down what mailboxes hold, which takes most of sealing; pauses now and then.

        What comes at a pause, or is taken then, is as if it came or was taken behind a turn that
        has its messages written down as it sends them.
        """
        touched, batch.touched = batch.touched, []
        for activation in touched:
            if has_much_mail(activation):
                yield from store_much_mail(self.partition, batch, activation)
            else:
                store_mail(self.partition, batch, activation)
                yield

    @property
    def _is_behind(self) -> bool:
        """Whether turns have decided what has to be written down before it can be sealed."""
        partition = self.partition
        return bool(
            partition.batch.unready
            or partition.timers.gone
            or partition.leftovers.unwritten
            or partition.leftovers.forgotten
        )

    def _write_down(self) -> Generator[None]:
        """Write down what turns have decided about very much at once; pauses now and then.

        More may come at a pause. When it ends all of it is in the batch, and has to be sealed with
        that: it was decided by those turns.
        """
        partition = self.partition
        while self._is_behind:
            yield from self._make_ready(partition.batch)
            yield from partition.timers.stop_gone()
            yield from partition.leftovers.write_down()

    async def _store(self, checkpoint: Checkpoint, batch: Batch) -> bool:
        """Commit; False if that failed, and all was done that has to be done then."""
        partition = self.partition
        partition.flying = batch
        flight = self._rounds.begin()
        began = perf_counter()
        try:
            if self._watch is None:
                await partition.store.commit(checkpoint)
            else:
                await self._commit_watched(checkpoint, batch, self._watch)
        except LeaseLostError as error:
            # Whoever has the store now speaks for it; coming back would take it from them.
            if partition.tenure is None:
                batch.fail_replies(error)
            else:
                fail_batch(partition, batch)
            partition.stop(error)
            return False
        except StoreMovedError as error:
            batch.fail_replies(outcome_unknown())
            partition.stop(error)
            return False
        except (StorageError, UnavailableError) as error:
            partition.failed_commits += 1
            await recover(partition, error, batch)
            return False
        except BaseException:
            batch.fail_replies(outcome_unknown())  # the hub stops in the middle of it
            raise
        finally:
            partition.flying = None
            flight.end()
            partition.let_on()
        partition.commit_durations.add(perf_counter() - began)
        return True

    async def _commit_watched(self, checkpoint: Checkpoint, batch: Batch, watch: Watch) -> None:
        partition = self.partition
        workbook = partition.workbook
        if workbook is not None:
            workbook.gather(batch, checkpoint)
        if not watch.sees_checkpoints:
            await partition.store.commit(checkpoint)
        else:
            numbers = partition.index, checkpoint.sequence, batch.turns, batch.messages
            begun = watch.begin("checkpoint", CheckpointFacts(*numbers))
            try:
                await partition.store.commit(checkpoint)
            except BaseException as error:
                watch.end("checkpoint", begun, error)
                raise
            watch.end("checkpoint", begun, None)
        if workbook is not None:
            workbook.tell(batch)

    async def _let_out(self, batch: Batch) -> None:
        partition = self.partition
        partition.releasing = batch
        try:
            if not partition.is_tainted:
                await in_slices(self._release(batch))
                partition.catalog.evict_cold()
            else:
                # Durable, but memory is tainted: answers may go out, the rest is recovered.
                await in_slices(batch.release_replies(partition.requests))
        except BaseException:
            at_once(batch.release_replies(partition.requests))  # the hub stops in the middle of it
            raise
        finally:
            partition.releasing = None

    def _release(self, batch: Batch) -> Generator[None]:
        """Let out what waited for the batch, which is durable now; pauses now and then.

        While it pauses turns go on, and gather for the next batch, which is not sealed before
        this one is out. So what leaves the partition does so in order, and its memory is not
        dropped meanwhile: that is done where batches are sealed.
        """
        partition = self.partition
        crashes = partition.crashes.in_a_row
        for activation in batch.dirty:
            activation.flying = False
            if crashes:
                crashes.pop(activation.key, None)  # only those in a row count
        yield from batch.release_replies(partition.requests)
        if batch.given_up:
            yield from self._start_wanted(batch)
        elif batch.activities:
            partition.calls.start(batch.activities)
        yield from partition.exchange.release(batch)
        yield from each(batch.finished, self._tell_end)
        if batch.purged:
            partition.catalog.purging -= batch.purged.keys()
        yield from partition.overflow.relieve(batch)
        for rest in batch.rest:
            # It may run users' code: what is to be done where strands of it end.
            while partition.pump.lend(partial(next, rest, _END)) is not _END:
                yield
        reloaded, partition.reloaded = partition.reloaded, []
        for activation in reloaded:
            if not activation.dead:
                partition.reload(activation)

    def _start_wanted(self, batch: Batch) -> Generator[None]:
        """Start the activities of which some were given up; more may be at each pause."""
        for start in range(0, len(batch.activities), _AT_ONCE):
            self.partition.calls.start(batch.wanted(start, _AT_ONCE))
            yield

    def _tell_end(self, key: str) -> None:
        partition = self.partition
        activation = partition.activations.get(key)
        actor = None if activation is None else activation.actor
        outcome = None
        # What came behind the end may not be durable yet: then the store says what is.
        if (
            activation is not None
            and not activation.dirty
            and isinstance(actor, OrchestrationActor)
        ):
            outcome = actor.outcome
        partition.watchers.tell(key, outcome)
        if activation is not None and activation.is_idle:
            partition.catalog.drop(activation)


def _is_much(touched: list[Activation]) -> bool:
    """Whether to store what these have should be done with pauses."""
    return len(touched) > _FEW or any(map(has_much_mail, touched))
