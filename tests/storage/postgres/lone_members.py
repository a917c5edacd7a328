"""A member of a hub, and no more of a hub: it has leases, recovers and commits what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from attrs import define, field

from perdure.actors.errors import LeaseLostError, PerdureError, StorageError, StoreDamagedError
from perdure.runtime.cluster.leases import Leases
from perdure.runtime.scheduling.keeper import Keeper
from perdure.storage.membership import LeaseRow, MemberRow, Membership, Newcomer, View
from perdure.storage.postgres import PostgresStore
from perdure.storage.postgres.members import PostgresMembership
from perdure.storage.protocol import PartitionStore
from perdure.storage.records import Checkpoint, ChunkRow, MailRow
from perdure.testing.store_conformance import created, entity, progress
from tests.storage.postgres.ledger import Attempt, Breach
from tests.storage.postgres.stepping import Wire

if TYPE_CHECKING:
    from tests.storage.postgres.schedules import World

TTL_S: Final = 1.0
#: The last messages of a partition, which are kept; a checkpoint deletes one.
MAIL: Final = 3


@define(eq=False)
class Tenure:
    """A partition that a member has recovered.

    Attributes:
        store: the partition.
        epoch: under which.
        content: what it knows to be there.
        is_busy: whether it commits.
    """

    store: PartitionStore
    epoch: int
    content: list[str]
    is_busy: bool = False
    ended: asyncio.Event = field(factory=asyncio.Event)


class Watched:
    """A membership that sees what belongs to a schedule, and looks when it is time."""

    def __init__(self, inner: PostgresMembership, world: World) -> None:
        self.inner = inner
        self._world = world
        self._losses = inner.losses

    @property
    def losses(self) -> int:
        return self.inner.losses - self._losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def look(self, *, closely: bool = False) -> View:
        members, leases = await self.inner.look(closely=closely)
        world = self._world
        return View([row for row in members if row.member in world.numbers], leases[: world.count])

    async def noticed(self) -> None:
        await asyncio.Event().wait()


class Member:
    """A process that serves partitions: as a host of leases, and no more.

    Attributes:
        slot: its place among those of a schedule.
        store: its own.
        spare: a membership that it has not used yet.
        wires: its connections.
    """

    def __init__(self, slot: int, store: PostgresStore) -> None:
        self.slot = slot
        self.store = store
        self.spare: PostgresMembership | None = None
        self.wires: list[Wire] = []
        self.is_dead = self.is_paused = False

    def enter(self, world: World) -> None:
        """Be a new process in a schedule."""
        self.world = world
        self.tenures: dict[int, Tenure] = {}
        self.refused: set[int] = set()
        self.awaits = False
        self.is_dead = self.is_paused = False
        self.wires = [wire for wire in self.wires if not wire.is_closed()]
        self.keeper = Keeper()
        self.leases = Leases(
            cast("Any", self),
            self,
            self.keeper,
            random=Random(world.random.random()),
            now=world.loop.time,
        )
        self.task = world.spawn(self, self._live())

    async def _live(self) -> None:
        while True:
            try:
                await self.leases.join()
            except StorageError:  # it is started again then
                await asyncio.sleep(TTL_S)
            else:
                break
        await self.leases.run()

    @property
    def hosted(self) -> list[int]:
        return [*self.tenures]

    # As the store of its leases.

    async def join(self, newcomer: Newcomer) -> Membership:
        made, self.spare = self.spare, None
        if made is None:
            made = await self.store.join(newcomer)
        self.world.numbers.add(made.number)
        return cast("Membership", Watched(made, self.world))

    # As their host.

    def newcomer(self) -> Newcomer:
        return newcomer(self.slot)

    def begin(self, membership: Membership) -> None:
        return

    def drop(self, partition: int, error: Exception) -> None:
        self.tenures.pop(partition, None)

    def see(self, view: View, alive: Mapping[int, MemberRow]) -> None:
        return

    async def host(self, partition: int, epoch: int | None) -> None:
        store = self.leases.membership.partitions[partition]
        try:
            recovered = await store.recover()
            content = await self.world.read(partition, store, recovered)
        except (Breach, StoreDamagedError) as error:
            self.world.fail(error)
            raise
        self.world.say(f"member {self.slot} has {partition} under {recovered.epoch}: {content}")
        self.tenures[partition] = Tenure(store, recovered.epoch, content)

    async def hand_over(self, partition: int, to: int) -> None:
        tenure = self.tenures.pop(partition, None)
        if tenure is not None and tenure.is_busy:
            await tenure.ended.wait()

    # What it does.

    async def commit(self, partition: int, size: int, rows: int) -> None:
        """Commit the next text in a partition that it has."""
        tenure, world = self.tenures[partition], self.world
        content = tenure.content
        sequence = len(content) + 1
        ledger = world.ledgers[partition]
        attempt = ledger.begin(world.text(partition), tenure.epoch, sequence)
        tenure.is_busy, tenure.ended = True, asyncio.Event()
        try:
            await tenure.store.commit(checkpoint_of(attempt, size, rows))
        except LeaseLostError as error:
            self._lose(partition, tenure, error)
            ledger.refuse(attempt)
        except StorageError as error:
            self._lose(partition, tenure, error)
            attempt.outcome = "unknown" if attempt.outcome == "begun" else attempt.outcome
        else:
            content.append(attempt.text)
            if not self.is_dead:
                ledger.acknowledge(attempt)
        finally:
            tenure.is_busy = False
            tenure.ended.set()
            world.say(f"member {self.slot}: {attempt.text} as {sequence} is {attempt.outcome}")

    def _lose(self, partition: int, tenure: Tenure, error: Exception) -> None:
        if self.tenures.get(partition) is tenure:
            del self.tenures[partition]
            self.leases.lost(partition, error)

    def read(self, partition: int) -> bool:
        """Answer without a commit, if the member is sure; gives whether it is."""
        if not self.leases.is_sure():
            return False
        tenure = self.tenures[partition]
        self.world.ledgers[partition].answered(tenure.content, tenure.epoch)
        return True

    async def read_soon(self, partition: int) -> None:
        """Answer as soon as the member is sure, if it has the partition then."""
        with suppress(PerdureError):
            await self.leases.until_sure()
            if partition in self.tenures and not self.is_dead:
                self.read(partition)

    async def look_up(self, partition: int) -> None:
        """Read what is stored, and see that nothing is missing that the owner knows of."""
        tenure = self.tenures[partition]
        known, ledger = [*tenure.content], self.world.ledgers[partition]
        with suppress(PerdureError):
            found = await history_of(tenure.store)
            if found[: len(known)] != known and tenure.epoch > ledger.excused:
                raise Breach(f"partition {partition}: {found} is stored, and {known} was committed")

    async def fold(self, partition: int) -> None:
        with suppress(PerdureError):
            await self.tenures[partition].store.apply()

    async def steal(self, partition: int, seen: LeaseRow) -> None:
        """Take a partition from whoever has it, also where his lease has not run out."""
        with suppress(PerdureError):
            await self.leases.membership.take(partition, seen)
            self.leases.look_soon()

    async def wish(self, partition: int, to: int) -> None:
        with suppress(PerdureError):
            await self.leases.membership.wish(partition, to)

    async def end(self, *, fold: bool) -> None:
        """Do nothing any more; what is committed is folded first, if asked for."""
        self.leases.end()
        self.task.cancel()
        await asyncio.wait([self.task])
        membership: Any = self.leases.membership if self.has_joined else None
        inner: PostgresMembership | None = None if membership is None else membership.inner
        if inner is None:
            return
        for partition in inner.partitions[: self.world.count]:
            await partition.retire(for_good=self.is_dead, fold=fold)()
        if self.is_dead:
            await inner.end()
        elif not inner.has_left:
            self.spare = inner

    @property
    def has_joined(self) -> bool:
        """Whether it was a member at all."""
        try:
            return bool(self.leases.membership)
        except AssertionError:
            return False

    def die(self) -> None:
        """Be gone from one moment to the next."""
        self.is_dead = True
        for call in [*self.world.stage.pending]:
            if call.wire.actor is self:
                self.world.stage.refuse(call)
        for wire in self.wires:
            wire.terminate()
        for call in [*self.world.stage.held]:
            if call.wire.actor is self:
                self.world.stage.release(call)


def newcomer(slot: int) -> Newcomer:
    """Say who joins; two slots are one host."""
    return Newcomer(
        address=f"a:{slot}",
        host=f"host{slot // 2}",
        pid=1,
        software="",
        app="shop",
        app_hash="",
        ttl_s=TTL_S,
    )


def checkpoint_of(attempt: Attempt, size: int, rows: int) -> Checkpoint:
    """Make a checkpoint that has a text in all kinds of places."""
    n, text = attempt.sequence, orjson.dumps(attempt.text)
    return Checkpoint(
        sequence=n,
        epoch=attempt.epoch,
        created=[created(1)] if n == 1 else [],
        progress=[progress(1, events=n)],
        history=[ChunkRow(1, n - 1, b"[%b]" % text)],
        entities=[
            entity(2, state=b"%d" % n),
            *([entity(3, state=b'"%b"' % (b"x" * size))] if size else ()),
            *(entity(id, state=text) for id in range(10, 10 + rows)),
        ],
        mail=[MailRow(n, "@counter@e2", text)],
        mail_deleted=[n - MAIL] if n > MAIL else [],
    )


async def history_of(store: PartitionStore) -> list[str]:
    """Give the texts that are stored."""
    return [text for chunk in await store.read_history(1) for text in orjson.loads(chunk)]
