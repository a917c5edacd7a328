"""Loads actors: many in one round trip, and orchestrations through their history."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from ...actors.changes import read_parked
from ...actors.entities.entity import EntityActor
from ...actors.errors import (
    InternalError,
    StorageError,
    StoreDamagedError,
    UnavailableError,
    UsageError,
)
from ...actors.ids import is_entity, split_entity
from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.messages import ActivityCall, Caller, Command
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...actors.printing import text_of, type_name
from ...actors.replay.history import find_activities
from ...actors.replay.stored import check_call, read_history
from ...actors.values import TERMINAL
from ...storage import DAMAGED, MendedEntity, MendedInstance
from ...storage.records import SetAside
from ...storage.slices import STEPS, Breath, at_once, each, in_slices, let_go
from ..scheduling.deaths import noted
from .checkpoint import entity_state, instance_state

if TYPE_CHECKING:
    from ...actors.actor import Actor
    from ...actors.changes import EntityState
    from ...storage.records import EntityRow, InstanceRecord
    from .activation import Activation
    from .partition import Partition

_log = Log("perdure.partition")

AT_ONCE = 1_000


class Loader:
    """Brings wanted actors of one partition into memory."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._wanted: list[Activation] = []
        self._gate = anyio.Event()
        self.is_loading = False
        self._is_held = False
        #: Histories that were replayed, and the events in them.
        self.replays = 0
        self.replayed_events = 0

    @contextmanager
    def held(self) -> Generator[None]:
        """Load nothing meanwhile, so that no actor of the partition takes a turn."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            self._gate.set()

    def load(self, activation: Activation) -> None:
        """Have an activation's actor loaded; it takes its mail afterwards."""
        self._wanted.append(activation)
        self.is_loading = True
        self._gate.set()

    def messages_max(self, key: str) -> int:
        """How many messages may wait for an actor before clients are refused."""
        limit = self._partition.settings.mailbox_messages_max
        if not is_entity(key):
            return limit
        try:
            own = self._partition.lookup.registry.find_entity(split_entity(key)[0]).max_mailbox
        except UsageError:
            return limit
        return limit if own is None else own

    async def run(self) -> None:
        """Load what is wanted, for ever."""
        while True:
            while self._wanted and not self._is_held:
                wanted, self._wanted = self._wanted[:AT_ONCE], self._wanted[AT_ONCE:]
                await self._load([one for one in wanted if not one.dead])
            self.is_loading = bool(self._wanted)
            self._gate = anyio.Event()
            await self._gate.wait()

    async def _load(self, wanted: list[Activation]) -> None:
        partition = self._partition
        entities = [one for one in wanted if is_entity(one.key)]
        instances = [one for one in wanted if not is_entity(one.key)]
        breath = Breath()
        try:
            if entities:
                ids = [split_entity(one.key) for one in entities]
                rows = {
                    f"@{row.name}@{row.key}": row
                    for row in await partition.store.read_entities(ids)
                }
                for activation in entities:
                    await self._make_entity(activation, rows.get(activation.key))
                    await breath.take()
            if instances:
                keys = [one.key for one in instances]
                records = {row.key: row for row in await partition.store.read_instances(keys)}
                for activation in instances:
                    await self._make_instance(activation, records.get(activation.key))
                    await breath.take()
        except StoreDamagedError as error:
            await self._load_alone(wanted, error)
        except (StorageError, UnavailableError) as error:
            partition.break_down(error)

    async def _load_alone(self, wanted: list[Activation], error: StoreDamagedError) -> None:
        """Load one by one what cannot be loaded at once, and park what cannot be read at all."""
        left = [one for one in wanted if one.actor is None and not one.dead]
        if len(wanted) > 1:
            for one in left:
                await self._load([one])
            return
        for one in left:
            self._ready_damaged(one, None, str(error))

    def _ready_damaged(
        self, activation: Activation, record: InstanceRecord | None, reason: str
    ) -> None:
        """Have an actor parked of which too little can be read to make it."""
        partition, key = self._partition, activation.key
        _log.error("parked %s: %s", key, reason)
        actor: EntityActor | OrchestrationActor
        if is_entity(key):
            unknown: Any = None
            actor = EntityActor(
                partition.new_id(),
                *split_entity(key),
                unknown,
                partition.lookup,
                partition.new_instance_id,
            )
        else:
            actor = OrchestrationActor(partition.new_id(), key, partition.lookup)
        actor.stay_parked(DAMAGED, reason)
        self._ready(activation, actor)

    def _ready(self, activation: Activation, actor: Any) -> None:
        if activation.dead:
            rest = actor.close() if isinstance(actor, OrchestrationActor) else None
            if rest is not None:
                self._partition.let_go(rest)
            return
        partition = self._partition
        activation.actor = actor
        activation.queued = False
        if actor.changed and not activation.dirty:
            activation.dirty = True
            partition.batch.dirty.append(activation)
            partition.gathered()
        if activation.mail:
            activation.wake()

    async def _make_entity(self, activation: Activation, row: EntityRow | None) -> None:
        partition = self._partition
        name, key = split_entity(activation.key)
        if row is not None:
            activation.latest = max(activation.latest, row.updated)
        unknown: Any = None  # until it is found; without it the actor is parked and never asks
        actor = EntityActor(
            partition.new_id() if row is None else row.id,
            name,
            key,
            unknown,
            partition.lookup,
            partition.new_instance_id,
            careful=activation.key in partition.crashes.in_a_row,
        )
        damage = read_parked(row.parked)[1] if isinstance(row, MendedEntity) else None
        try:
            actor.define(partition.lookup.registry.find_entity(name), len(partition.places))
            if row is not None and damage is None:
                damage = partition.pump.lend(partial(self._take_row, actor.load, row))
        except BaseException as error:
            if is_interrupt(error):
                raise
            # An entity that is not registered any more, or a state that its class cannot read.
            if row is not None:
                damage = self._take_row(actor.keep, row) or damage
            actor.park(type_name(error), text_of(error))
        else:
            self._consider(activation, actor)
        if damage is not None:
            await self._mark(actor, activation.key, "entity_row", damage)
        self._ready(activation, actor)

    async def _mark(self, actor: Actor, key: str, table: str, reason: str) -> None:
        """Park an actor whose row is damaged; the row stays as it is, but for the mark."""
        _log.error("parked %s: %s", key, reason)
        actor.stay_parked(DAMAGED, reason)
        await self._partition.store.set_aside([SetAside(table, actor.id, key, reason)])

    def _take_row(self, take: Callable[[EntityState], None], row: EntityRow) -> str | None:
        """Give an entity its state; gives what is wrong with its row, if that is damaged."""
        try:
            take(entity_state(row))
        except (ValueError, TypeError, LookupError) as error:
            return (
                f"{self._partition.store.place}, table entity_row, row {row.id}: its lock or its "
                f"list of failures is none ({error})"
            )
        return None

    def _consider(self, activation: Activation, actor: Actor) -> bool:
        """Say whether it is parked, or has to be for crashing, unless a retry is asked for."""
        crashes = self._partition.crashes
        if _has_command(activation, "retry"):
            crashes.forgive(activation.key)
            actor.unpark()
            return False
        if actor.parked is not None:
            return True
        reason = crashes.too_many(activation.key)
        if reason is None:
            return False
        actor.park("Crash", reason)
        _log.error("parked %s: %s", activation.key, reason)
        return True

    async def _make_instance(self, activation: Activation, record: InstanceRecord | None) -> None:
        partition = self._partition
        if record is None or activation.key in partition.catalog.purging:
            actor = OrchestrationActor(partition.new_id(), activation.key, partition.lookup)
            reason = partition.crashes.too_many(activation.key)
            if reason is not None:
                actor.bar(reason)
            self._ready(activation, actor)
            return
        actor = OrchestrationActor(record.id, activation.key, partition.lookup)
        actor.load(instance_state(record))
        activation.latest = max(activation.latest, record.updated)
        if isinstance(record, MendedInstance):
            with suppress(StoreDamagedError):
                actor.lie_idle(await self.history_of(record))
            await self._mark(actor, activation.key, "instance_row", read_parked(record.parked)[1])
        elif actor.is_live and record.status != "Pending":
            try:
                events = await self.history_of(record)
            except StoreDamagedError as error:
                actor.park(DAMAGED, str(error))
                _log.error("parked %s: %s", activation.key, actor.parked)
                self._ready(activation, actor)
                return
            if partition.workbook is not None:
                partition.workbook.load(activation, actor, events)
            if self._consider(activation, actor):
                actor.lie_idle(events)
            else:
                self.replays += 1
                self.replayed_events += len(events)
                if not await self._replay(activation, actor, events):
                    return
                await in_slices(let_go(events))
                if actor.parked is not None:
                    self._report(activation, actor)
        elif actor.is_live:
            if not self._consider(activation, actor):
                actor.check_code()
        elif record.status == "Failed" and _is_rewound(activation):
            reason = partition.crashes.too_many(activation.key)
            if reason is None:
                await self._prepare_rewind(activation, actor, record)
            else:
                partition.crashes.forgive(activation.key)  # it may be asked for again
                refused = InternalError(f"{activation.key!r} is not rewound: {reason}")
                actor.refuse_rewind(refused)
        self._ready(activation, actor)

    async def history_of(self, record: InstanceRecord) -> list[list[Any]]:
        """Read an instance's history.

        Raises:
            StoreDamagedError: it is none, or not whole.
        """
        store = self._partition.store
        chunks = await store.read_history(record.id)
        try:
            count = None if isinstance(record, MendedInstance) else record.events
            return await in_slices(read_history(chunks, count))
        except ValueError as error:
            raise StoreDamagedError(
                f"{store.place}, table history_row, instance {record.id}: {error}"
            ) from error

    async def _prepare_rewind(
        self, activation: Activation, actor: OrchestrationActor, record: InstanceRecord
    ) -> None:
        try:
            actor.prepare_rewind(await self.history_of(record), _is_forced(activation))
        except StoreDamagedError as error:
            refused = StoreDamagedError(f"{record.key!r} cannot be rewound: {error}")
            for message in list(activation.mail):
                if isinstance(message, Command) and message.action == "rewind":
                    activation.mail.remove(message)
                    self._partition.refuse(message, refused)
                    self._partition.consume(message)
            self._partition.gathered()  # no turn follows that would say so

    async def _replay(
        self, activation: Activation, actor: OrchestrationActor, events: list[list[Any]]
    ) -> bool:
        """Take an orchestration through its history; False if that crashed."""
        steps = actor.replay(events)
        is_whole = False
        try:
            while True:
                try:
                    with noted(self._partition.notes, activation.key):
                        next(steps)
                except StopIteration:
                    is_whole = True
                    return True
                except BaseException as error:
                    self._partition.crash(activation, error)
                    if is_interrupt(error):
                        raise  # which stops the hub
                    return False
                await anyio.lowlevel.checkpoint()
        finally:
            if not is_whole:  # nor has the activation its code, which it could let go
                steps.close()
                rest = actor.close()
                if rest is not None:
                    at_once(rest)

    def _report(self, activation: Activation, actor: OrchestrationActor) -> None:
        partition = self._partition
        _log.error("parked %s: %s", activation.key, actor.parked)
        if partition.settings.on_nondeterminism == "fail":
            actor.fail_mismatch(max(partition.now(), activation.latest), partition)

    async def dispatch_unanswered(
        self, keys: Iterable[str], is_wanted: Callable[[Caller], bool]
    ) -> None:
        """Run the activities again that the stored histories of instances have open.

        Args:
            keys: the instances.
            is_wanted: whether the activity for a caller has to run.
        """
        store, wanted = self._partition.store, list(keys)

        def dispatch(call: ActivityCall) -> None:
            if is_wanted(call.caller):
                self._partition.calls.dispatch(call)

        breath = Breath()  # since what is short for each is much for many
        for start in range(0, len(wanted), AT_ONCE):
            for record in await store.read_instances(wanted[start : start + AT_ONCE]):
                await breath.take()
                if record.status in TERMINAL:
                    continue  # what it left has rows of its own
                try:
                    events = await self.history_of(record)
                    calls = await in_slices(_find_activities(events, record))
                except (StoreDamagedError, ValueError, TypeError, LookupError):
                    if record.key not in self._partition.activations:
                        self._partition.catalog.activate(
                            record.key
                        )  # it is parked when it is loaded
                    continue
                await in_slices(each(calls, dispatch))
                await in_slices(let_go(events))


def _find_activities(
    events: list[list[Any]], record: InstanceRecord
) -> Generator[None, None, list[ActivityCall]]:
    """Find the activities that a history has open; pauses now and then."""
    calls: list[ActivityCall] = []
    for call in find_activities(events, record.key, record.execution):
        if call is not None:
            calls.append(check_call(call))
        if call is None or not len(calls) % STEPS:
            yield
    return calls


def _is_forced(activation: Activation) -> bool:
    commands = [one for one in activation.mail if isinstance(one, Command)]
    return any(one.force for one in commands if one.action == "rewind")


def _is_rewound(activation: Activation) -> bool:
    """Whether it is loaded for a rewind, and not only for what comes before that."""
    return any(
        isinstance(message, Command) and message.action == "rewind" and message.loaded
        for message in activation.mail
    )


def _has_command(activation: Activation, action: str) -> bool:
    return any(
        isinstance(message, Command) and message.action == action for message in activation.mail
    )
