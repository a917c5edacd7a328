"""Why an actor of a partition waits: read off its memory, or off the store and a replay aside.

What is in memory is looked at between two turns, and told when all of it is durable. What is not is
taken through its history by an execution of its own, which has no effects and is let go; nothing
is stored, and nothing comes into memory for it. What runs pays nothing for any of this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from ...actors.changes import read_parked
from ...actors.entities.entity import EntityActor
from ...actors.errors import StoreDamagedError, UnavailableError
from ...actors.ids import EntityId, is_entity, split_entity
from ...actors.messages import Backlog, Caller, Operation
from ...actors.orchestrations.looks import NAMES_MAX, AwaitedName, InstanceLook, rebuild
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...actors.replay.stored import read_history
from ...actors.replay.waits import OpenTask
from ...actors.times import to_datetime
from ...actors.values import TERMINAL, RuntimeStatus
from ...storage.slices import Breath, each, in_slices, let_go
from ..explanations import (
    AskedLock,
    AwaitedEvent,
    EntityExplanation,
    InstanceExplanation,
    RunningOperation,
)
from ..facts import ParkedReason, in_parts
from ..scheduling.deaths import noted
from .checkpoint import instance_state
from .open_work import OpenWork, branch_fact, time_of

if TYPE_CHECKING:
    from ...actors.replay.execution import OpenLock
    from ...storage.records import EntityRow, InstanceRecord
    from .activation import Activation
    from .partition import Partition

T = TypeVar("T")

#: After how many events of a replay aside the loop may turn.
STEP = 100
#: How often what changes while it is read is read anew.
TRIES = 5

#: Said of code that may end the process.
CRASHED = "its turns have crashed, so its code is not run to be looked at"


class Explanations:
    """Says why the actors of one partition wait.

    Args:
        partition: the partition.
        wait_durable: returns when all is durable that gathered up to now.
    """

    def __init__(self, partition: Partition, wait_durable: Callable[[], Awaitable[Any]]) -> None:
        self._partition = partition
        self._wait_durable = wait_durable

    async def explain(self, key: str) -> dict[str, Any] | None:
        """Say why an actor waits, as JSON values; None where there is no such instance.

        Raises:
            StorageError: it cannot be read.
            UnavailableError: it cannot be told now; safe to repeat.
        """
        if is_entity(key):
            return (await self._entity(key)).to_dict()
        explanation = await self._instance(key)
        return None if explanation is None else await in_slices(in_parts(explanation))

    # Instances.

    async def _instance(self, key: str) -> InstanceExplanation | None:
        for _ in range(TRIES):
            activation = await self._whole(key)
            if activation is None:
                try:
                    found = await self._stored(key)
                except StoreDamagedError:
                    if self._live(key) is None:
                        raise
                    continue  # it has come into memory, and gone on, between two reads
                return found
            backlog = _backlog(activation)
            look, opened = await self._look(activation)
            events = await self._history(look)
            if events is not None:
                told = await self._tell(look, opened, events, backlog, is_in_memory=True)
                await in_slices(let_go(events))
                return told
        raise UnavailableError(f"{key!r} changes while it is looked at; repeat it")

    def _live(self, key: str) -> Activation | None:
        """Give the activation of an instance that is in memory and that there is."""
        activation = self._partition.activations.get(key)
        if self._partition.gate.reason is not None or activation is None:
            return None
        actor = activation.actor
        is_there = isinstance(actor, OrchestrationActor) and (actor.is_live or actor.outcome)
        return activation if is_there else None

    async def _whole(self, key: str) -> Activation | None:
        """Give the same, as soon as no turn of the instance is half done."""
        while True:
            activation = self._live(key)
            actor = None if activation is None else activation.actor
            if not isinstance(actor, OrchestrationActor) or actor.unfinished is None:
                return activation
            await self._wait_durable()

    async def _look(self, activation: Activation) -> tuple[InstanceLook, list[OpenTask] | None]:
        """Look at an instance in memory; all that was seen is durable on return."""
        actor = activation.actor
        assert isinstance(actor, OrchestrationActor)
        look = actor.look()
        opened = await in_slices(actor.open_tasks())
        if activation.dirty or activation.flying:
            await self._wait_durable()
        return look, opened

    async def _history(self, look: InstanceLook) -> list[list[Any]] | None:
        """Read the history that an instance had when it was looked at; None if it has another."""
        if not look.events or look.status in TERMINAL:
            return []
        store = self._partition.store
        chunks = await store.read_history(look.id)
        try:
            events = await in_slices(read_history(chunks, None))
        except ValueError as error:
            if look.parked is not None:
                return []  # for that, perhaps
            raise StoreDamagedError(f"{store.place}, instance {look.id}: {error}") from error
        is_its = len(events) >= look.events and events[0][4:5] == [look.execution]
        if is_its or look.parked is not None:
            return events[: look.events]
        return None

    async def _stored(self, key: str) -> InstanceExplanation | None:
        """Explain an instance by what is stored, and a replay aside."""
        partition = self._partition
        records = await partition.store.read_instances([key])
        if not records:
            return None
        [record] = records
        actor = OrchestrationActor(record.id, key, partition.lookup)
        actor.load(instance_state(record))
        activation = partition.activations.get(key)
        stored = (await partition.store.waiting([key])).get(key, 0)
        backlog = (stored, 0) if activation is None else _backlog(activation)
        events, trouble = await self._rebuild(actor, record)
        try:
            look = actor.look()
            look.trouble = trouble or look.trouble
            opened = await in_slices(actor.open_tasks())
            told = await self._tell(look, opened, events, backlog, is_in_memory=False)
        finally:
            rest = actor.close()
        if rest is not None:
            await in_slices(rest)
        await in_slices(let_go(events))
        return told

    async def _rebuild(
        self, actor: OrchestrationActor, record: InstanceRecord
    ) -> tuple[list[list[Any]], str | None]:
        """Give an actor made for a look its code; gives its history, and why it has no code."""
        partition, key = self._partition, record.key
        if not actor.is_live or not record.events:
            return [], None
        try:
            events = await partition.loader.history_of(record)
        except StoreDamagedError as error:
            if self._live(key) is not None:
                raise  # it may only have gone on meanwhile
            return [], str(error)
        if key in partition.crashes.in_a_row:
            return events, CRASHED
        return events, await replayed_aside(partition, key, rebuild(actor, events, STEP))

    async def _tell(
        self,
        look: InstanceLook,
        opened: list[OpenTask] | None,
        events: list[list[Any]],
        backlog: tuple[int, int],
        *,
        is_in_memory: bool,
    ) -> InstanceExplanation:
        partition = self._partition
        work = OpenWork(partition.calls.find)
        if look.status not in TERMINAL:
            await in_slices(
                work.gather(Caller(look.instance_id, look.execution, 0), events, opened)
            )
        await in_slices(each(partition.leftovers.calls_of(look.instance_id), work.take_left))
        lock = None if look.lock is None else _lock(look.lock, work.asked_at(look.lock.number))
        return InstanceExplanation(
            instance_id=look.instance_id,
            name=look.name,
            version=look.version,
            runtime_status=RuntimeStatus(look.status),
            execution=look.execution,
            partition=partition.index,
            shard=partition.calls.shard,
            is_in_memory=is_in_memory,
            start_at=time_of(look.start_at),
            suspended=look.suspended,
            parked=_parked(look.parked),
            backlog=backlog[0],
            backlog_in_memory=backlog[1],
            unconsumed_events=tuple(look.unconsumed[:NAMES_MAX]),
            activities=tuple(work.activities),
            timers=tuple(work.timers),
            events=tuple(map(_awaited, look.awaited)),
            children=tuple(work.children),
            entity_calls=tuple(work.entity_calls),
            lock=lock,
            counts={
                **work.counts,
                "events": look.awaited_count,
                "unconsumed_events": len(look.unconsumed),
            },
            branches=tuple(map(branch_fact, look.branches)),
            branch_count=look.branch_count,
            code_trouble=look.trouble,
        )

    # Entities.

    async def _entity(self, key: str) -> EntityExplanation:
        partition = self._partition
        activation = partition.activations.get(key)
        actor = None if activation is None else activation.actor
        if activation is not None and isinstance(actor, EntityActor):
            explanation = self._live_entity(key, activation, actor)
            if activation.dirty or activation.flying:
                await self._wait_durable()
            return explanation
        name, rest = split_entity(key)
        rows = await partition.store.read_entities([(name, rest)])
        stored = (await partition.store.waiting([key])).get(key, 0)
        backlog = (stored, 0) if activation is None else _backlog(activation)
        holder, waiters, count = _stored_lock(rows[0]) if rows else (None, (), 0)
        parked = rows[0].parked if rows else None
        return EntityExplanation(
            entity_id=EntityId(name, rest),
            exists=bool(rows) and rows[0].state is not None,
            partition=partition.index,
            shard=partition.calls.shard,
            is_in_memory=False,
            backlog=backlog[0],
            backlog_in_memory=backlog[1],
            running=(),
            locked_by=holder,
            lock_waiters=waiters,
            lock_waiter_count=count,
            parked=None if parked is None else _parked(read_parked(parked)),
        )

    def _live_entity(
        self, key: str, activation: Activation, actor: EntityActor
    ) -> EntityExplanation:
        partition = self._partition
        backlog = _backlog(activation)
        look = actor.look()
        return EntityExplanation(
            entity_id=EntityId(*split_entity(key)),
            exists=look.exists,
            partition=partition.index,
            shard=partition.calls.shard,
            is_in_memory=True,
            backlog=backlog[0],
            backlog_in_memory=backlog[1],
            running=tuple(_running(activation)),
            locked_by=look.holder,
            lock_waiters=tuple(look.waiters[:NAMES_MAX]),
            lock_waiter_count=look.waiter_count,
            parked=_parked(look.parked),
        )


async def replayed_aside(partition: Partition, key: str, steps: Generator[None, None, T]) -> T:
    """Go through the steps of a replay, between which the loop may turn; gives what comes of it."""
    breath = Breath()
    while True:
        try:
            # Where it ends the process, that is known for the fault of this actor.
            with noted(partition.notes, key):
                next(steps)
        except StopIteration as stop:
            made: T = stop.value
            return made
        await breath.take()


def _backlog(activation: Activation) -> tuple[int, int]:
    """Give how many messages an actor was sent and has not taken, and how many are in memory."""
    under_way = (activation.current is not None) + len(activation.readings)
    in_memory = sum(type(one) is not Backlog for one in activation.unconsumed)
    return activation.count + under_way, in_memory


def _running(activation: Activation) -> Generator[RunningOperation]:
    current = activation.current
    if isinstance(current, Operation):
        since = to_datetime(activation.latest)
        yield RunningOperation(name=current.name, since=since, is_readonly=False)
    for reading in activation.readings[:NAMES_MAX]:
        yield RunningOperation(name=reading.message.name, since=None, is_readonly=True)


def _stored_lock(row: EntityRow) -> tuple[str | None, tuple[str, ...], int]:
    """Read who holds an entity's lock, who waits for it, and how many do."""
    if row.lock is None:
        return None, (), 0
    try:
        holder, _, _, *queue = orjson.loads(row.lock)
        waiters, count = queue or ((), 0)
        return str(holder), tuple(str(one) for one in waiters[:NAMES_MAX]), int(count)
    except (ValueError, TypeError, LookupError) as error:
        raise StoreDamagedError(
            f"the lock of @{row.name}@{row.key} cannot be read ({error})"
        ) from error


def _parked(parked: tuple[str, str] | None) -> ParkedReason | None:
    return None if parked is None else ParkedReason(type=parked[0], reason=parked[1])


def _awaited(awaited: AwaitedName) -> AwaitedEvent:
    return AwaitedEvent(
        name=awaited.name, since=to_datetime(awaited.since), times_out_at=time_of(awaited.due)
    )


def _lock(lock: OpenLock, asked_at: int | None) -> AskedLock:
    return AskedLock(
        task_id=lock.number,
        entities=tuple(EntityId(*split_entity(one)) for one in lock.entities),
        is_granted=lock.is_granted,
        asked_at=time_of(asked_at),
        waits_at=None,
        holder=None,
        place=None,
    )
