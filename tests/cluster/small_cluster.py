"""A store in memory that several hubs of one loop have open at once, with faults to plant."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
from attrs import evolve

from perdure.actors.errors import LeaseLostError, StorageError, StoreInUseError
from perdure.storage.membership import HubIdentity, LeaseRow, MemberRow, Newcomer, View
from perdure.storage.memory import MemoryPartition, MemoryRows
from perdure.storage.protocol import PartitionStore


class Cluster:
    """What all have in common: the database.

    Attributes:
        is_away: whether nothing can be reached.
        unreachable: the members that cannot reach it.
        ended: the members whose sessions have ended.
        lost: the members that lost a connection, and had another one at once.
        silent: the members that neither beat nor look, and reach it for all else.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.rows: list[MemoryRows] = []
        self.leases: list[LeaseRow] = []
        self.members: dict[int, tuple[Newcomer, float, bool]] = {}
        self.ended: set[int] = set()
        self.lost: list[int] = []
        self.count = 0
        self.began = time.time_ns() // 1_000
        self.identity = HubIdentity(secrets.token_hex(8), "", secrets.token_bytes(32))
        self.is_away = False
        self.unreachable: set[int] = set()
        self.silent: set[int] = set()
        self.changed = anyio.Event()
        self.relay: dict[int, list[tuple[int, bytes]]] = {}

    def store(self) -> SmallStore:
        return SmallStore(self)

    async def reach(self, member: int | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        if self.is_away or member in self.unreachable:
            raise StorageError("the store cannot be reached")

    def steal(self, partition: int, to: int) -> None:
        """Have a member take a partition over, without a word to whoever has it."""
        self.rows[partition].epoch += 1
        epoch = self.rows[partition].epoch
        self.leases[partition] = LeaseRow(partition, epoch, to, None)

    def notify(self) -> None:
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    def lives(self, member: int) -> bool:
        return member in self.members and self.members[member][1] > self.now()

    def leases_owned(self) -> set[int | None]:
        return {lease.owner for lease in self.leases}

    def view(self) -> View:
        now = self.now()
        rows = [
            MemberRow(
                n,
                one.address,
                one.host,
                one.pid,
                one.software,
                one.app,
                one.app_hash,
                one.http,
                one.weight,
                draining,
                self.began,
                one.ttl_s - (expires - now),
                expires <= now,
            )
            for n, (one, expires, draining) in self.members.items()
        ]
        return View(rows, list(self.leases))


class SmallStore:
    durability = "memory"
    location = "small:"
    spec = "small:"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.number: int | None = None

    async def open(self, partitions: int) -> Sequence[PartitionStore]:
        cluster = self.cluster
        await cluster.reach()
        if not cluster.rows:
            cluster.rows = [MemoryRows() for _ in range(partitions)]
            cluster.leases = [LeaseRow(n, 0, None, None) for n in range(partitions)]
        return [MemoryPartition(rows) for rows in cluster.rows]

    async def close(self) -> None:
        return

    async def count_partitions(self) -> int | None:
        return len(self.cluster.rows) or None

    async def identify(self) -> HubIdentity | None:
        return self.cluster.identity if self.cluster.rows else None

    async def join(self, newcomer: Newcomer) -> SmallMembership:
        cluster = self.cluster
        await cluster.reach(self.number if self.number in cluster.unreachable else None)
        if cluster.identity.app not in ("", newcomer.app):
            raise StoreInUseError(f"the hub of {cluster.identity.app!r}, not of {newcomer.app!r}")
        cluster.identity = evolve(cluster.identity, app=newcomer.app)
        cluster.count += 1
        was = self.number
        self.number = number = cluster.count
        cluster.members[number] = (newcomer, cluster.now() + newcomer.ttl_s, False)
        cluster.notify()
        assert was != number
        return SmallMembership(cluster, number, newcomer.ttl_s)

    async def view(self) -> View:
        return self.cluster.view()


class SmallMembership:
    def __init__(self, cluster: Cluster, number: int, ttl_s: float) -> None:
        self.cluster = cluster
        self.number = number
        self.ttl_s = ttl_s
        self.hub = cluster.identity.hub
        self.secret = cluster.identity.secret
        every: list[Any] = [_Guarded(self, n) for n in range(len(cluster.rows))]
        self.partitions: Sequence[PartitionStore] = every

    @property
    def losses(self) -> int:
        return (self.number in self.cluster.ended) + self.cluster.lost.count(self.number)

    @property
    def waits(self) -> int:
        return 10 * self.number

    async def _speak(self) -> None:
        await self.cluster.reach(self.number)
        if self.number in self.cluster.silent:
            raise StorageError("nothing is heard of the store")

    async def beat(self) -> bool:
        await self._speak()
        if not self.cluster.lives(self.number):
            return False
        one, _, draining = self.cluster.members[self.number]
        self.cluster.members[self.number] = (one, self.cluster.now() + self.ttl_s, draining)
        return True

    async def look(self, *, closely: bool = False) -> View:
        await self._speak()
        return self.cluster.view()

    async def noticed(self) -> None:
        await self.cluster.changed.wait()

    async def take(self, partition: int, seen: LeaseRow) -> int | None:
        await self.cluster.reach(self.number)
        lease = self.cluster.leases[partition]
        if lease[1:3] != seen[1:3] or not self.cluster.lives(self.number):
            return None
        self.cluster.rows[partition].epoch += 1
        epoch = self.cluster.rows[partition].epoch
        self.cluster.leases[partition] = LeaseRow(partition, epoch, self.number, None)
        self.cluster.notify()
        return epoch

    async def let_go(self, partition: int, to: int | None = None) -> bool:
        await self.cluster.reach(self.number)
        lease = self.cluster.leases[partition]
        if lease.owner != self.number:
            return False
        self.cluster.leases[partition] = lease._replace(owner=None, wanted=to)
        self.cluster.notify()
        return True

    async def wish(self, partition: int, to: int | None) -> None:
        await self.cluster.reach(self.number)
        lease = self.cluster.leases[partition]
        self.cluster.leases[partition] = lease._replace(wanted=to)
        self.cluster.notify()

    async def drain(self, member: int, draining: bool) -> bool:
        await self.cluster.reach(self.number)
        if member not in self.cluster.members:
            return False
        one, expires, _ = self.cluster.members[member]
        if expires <= self.cluster.now():
            return False
        self.cluster.members[member] = (one, expires, draining)
        self.cluster.notify()
        return True

    async def has_ended(self, member: int) -> bool:
        await self.cluster.reach(self.number)
        return member in self.cluster.ended or member not in self.cluster.members

    async def send(self, target: int, items: Sequence[bytes]) -> None:
        await self.cluster.reach(self.number)
        self.cluster.relay.setdefault(target, []).extend((self.number, item) for item in items)

    async def receive(self) -> list[tuple[int, bytes]]:
        await self.cluster.reach(self.number)
        return self.cluster.relay.pop(self.number, [])

    def break_off(self) -> None:
        return

    async def leave(self) -> None:
        await self.cluster.reach(self.number)
        for lease in list(self.cluster.leases):
            if lease.owner == self.number:
                self.cluster.leases[lease.partition] = lease._replace(owner=None)
        self.cluster.members.pop(self.number, None)
        self.cluster.ended.add(self.number)
        self.cluster.notify()


class _Guarded:
    """A partition that a member reaches where it reaches the store, and has."""

    place = "small"

    def __init__(self, membership: SmallMembership, number: int) -> None:
        self._membership = membership
        self._number = number
        self._inner = MemoryPartition(membership.cluster.rows[number])

    @property
    def unapplied(self) -> int:
        return self._inner.unapplied

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._inner, name)

        async def call(*given: Any, **named: Any) -> Any:
            membership = self._membership
            await membership.cluster.reach(membership.number)
            if name == "recover":
                if membership.cluster.leases[self._number].owner != membership.number:
                    raise LeaseLostError("it is another member's")
                membership.cluster.leases[self._number] = membership.cluster.leases[
                    self._number
                ]._replace(epoch=membership.cluster.rows[self._number].epoch + 1)
            return await method(*given, **named)

        return call
