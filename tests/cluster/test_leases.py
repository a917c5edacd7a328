"""Leases: when a member is sure, whom it judges, and that nothing holds its beats up."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random

import anyio
import anyio.lowlevel
import pytest

from perdure.actors.errors import LeaseLostError, StorageError, UnavailableError
from perdure.runtime.cluster import leases as module
from perdure.runtime.cluster.leases import (
    FAST_MAX,
    LETS_GO_IN_HURRY_MAX,
    LETS_GO_MAX,
    Leases,
)
from perdure.runtime.placement.places import MovedError
from perdure.runtime.scheduling.keeper import Keeper
from perdure.storage.membership import MemberRow, Membership, Newcomer, View
from tests.cluster.small_cluster import Cluster, SmallMembership, SmallStore

TTL_S = 3.0  # which a busy machine may stand still for less than


def newcomer(ttl_s: float = TTL_S, host: str = "here") -> Newcomer:
    return Newcomer(
        address="a:1", host=host, pid=1, software="", app="shop", app_hash="", ttl_s=ttl_s
    )


class Host:
    """Serves by saying so."""

    def __init__(self, ttl_s: float = TTL_S) -> None:
        self.ttl_s = ttl_s
        self.hosted: dict[int, None] = {}
        self.refused: set[int] = set()
        self.awaits = False
        self.dropped: list[int] = []
        self.numbers: list[int] = []
        self.failures: list[Exception] = []
        self.may_host = anyio.Event()
        self.may_host.set()
        self.stays = False
        self.going = 0  # how many are being handed over
        self.went_to: list[int] = []
        self.may_go = anyio.Event()
        self.may_go.set()

    def newcomer(self) -> Newcomer:
        return newcomer(self.ttl_s)

    def begin(self, membership: Membership) -> None:
        self.numbers.append(membership.number)

    def drop(self, partition: int, error: Exception) -> None:
        assert isinstance(error, LeaseLostError)
        if partition in self.hosted:
            del self.hosted[partition]
            self.dropped.append(partition)

    def see(self, view: View, alive: Mapping[int, MemberRow]) -> None:
        return

    async def host(self, partition: int, epoch: int | None) -> None:
        await self.may_host.wait()
        if self.failures:
            raise self.failures.pop()
        self.hosted[partition] = None

    async def hand_over(self, partition: int, to: int) -> None:
        if self.stays:
            raise UnavailableError("it stays")
        self.going += 1
        self.went_to.append(to)
        await self.may_go.wait()
        self.going -= 1
        del self.hosted[partition]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def cluster_of(partitions: int) -> Cluster:
    cluster = Cluster()
    await cluster.store().open(partitions)
    return cluster


async def bare(cluster: Cluster, *, ttl_s: float, host: str = "here", partition: int) -> int:
    """Have a member that takes a partition, and says nothing any more."""
    membership = await cluster.store().join(newcomer(ttl_s, host))
    view = await membership.look()
    assert await membership.take(partition, view.leases[partition]) is not None
    return membership.number


@asynccontextmanager
async def leased(cluster: Cluster, host: Host) -> AsyncGenerator[Leases]:
    leases = Leases(cluster.store(), host, Keeper(), random=Random(1))
    await leases.join()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leases.run)
            yield leases
            leases.end()
            tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.005)


async def test_a_member_is_sure_for_four_fifths_of_its_time_to_live_after_a_beat_was_sent() -> None:
    cluster, clock = await cluster_of(1), Clock()
    leases = Leases(cluster.store(), Host(6.0), Keeper(), now=clock)
    await leases.join()
    assert leases.is_sure()
    clock.now += 4.7
    assert leases.is_sure()
    clock.now += 0.2
    assert not leases.is_sure()


async def test_who_waits_to_be_sure_has_a_beat_sent_at_once() -> None:
    cluster, clock = await cluster_of(1), Clock()
    leases = Leases(cluster.store(), Host(600.0), Keeper(), now=clock)
    await leases.join()
    cluster.now = lambda: 0.0  # nobody expires
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leases.run)
            await anyio.sleep(0.05)
            clock.now += 500.0
            assert not leases.is_sure()
            await leases.until_sure()
            assert leases.is_sure()
            tasks.cancel_scope.cancel()


@pytest.mark.by_turns
async def test_who_waits_to_be_sure_of_a_member_that_has_expired_looks_elsewhere() -> None:
    cluster, host = await cluster_of(1), Host()
    async with leased(cluster, host) as leases:
        await until(lambda: 0 in host.hosted)
        cluster.silent.add(1)
        await until(lambda: not leases.is_sure())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_speak_again, cluster)
            with pytest.raises(MovedError, match="member 1 has expired"):
                await leases.until_sure()
        assert host.dropped == [0]
        assert host.numbers == [1, 2]
        await until(lambda: 0 in host.hosted)


async def _speak_again(cluster: Cluster) -> None:
    await until(lambda: not cluster.lives(1))
    cluster.silent.clear()


@pytest.mark.by_turns
async def test_nobody_waits_for_ever_to_be_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORE_PATIENCE_S", 0.1)
    cluster, host = await cluster_of(1), Host()
    async with leased(cluster, host) as leases:
        cluster.is_away = True
        await until(lambda: not leases.is_sure())
        with pytest.raises(UnavailableError, match="cannot reach the store"):
            await leases.until_sure()


async def test_a_member_whose_session_ends_is_sure_again_after_a_beat_and_a_look() -> None:
    cluster, clock = await cluster_of(1), Clock()
    leases = Leases(cluster.store(), Host(60.0), Keeper(), now=clock)
    await leases.join()
    clock.now += 1.0
    cluster.ended.add(1)
    assert not leases.is_sure()
    clock.now += 1.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leases.run)
        with anyio.fail_after(5):
            await leases.until_sure()
        tasks.cancel_scope.cancel()


async def test_a_member_that_lost_a_connection_is_sure_again_after_a_beat_and_a_look() -> None:
    cluster, clock = await cluster_of(1), Clock()
    leases = Leases(cluster.store(), Host(60.0), Keeper(), now=clock)
    await leases.join()
    for _ in range(2):
        assert leases.is_sure()
        clock.now += 1.0
        cluster.lost.append(1)  # and has another one before anybody asks
        assert not leases.is_sure()
        clock.now += 1.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leases.run)
            with anyio.fail_after(5):
                await leases.until_sure()
            tasks.cancel_scope.cancel()


@pytest.mark.by_turns
async def test_who_was_away_judges_nobody_for_a_whole_time_to_live() -> None:
    cluster, host = await cluster_of(2), Host()
    async with leased(cluster, host):
        await bare(cluster, ttl_s=TTL_S, partition=0) if not host.hosted else None
        await until(lambda: 1 in host.hosted or 0 in host.hosted)
        cluster.is_away = True
        await anyio.sleep(1.3 * TTL_S)
        other = next((lease for lease in cluster.leases if lease.owner == 2), None)
        assert other is not None, "it seems to have expired"
        cluster.is_away = False
        back = time.monotonic()
        await until(lambda: cluster.leases[other.partition].owner not in (2, None))
        assert time.monotonic() - back >= TTL_S * 0.9


async def gone_members(where: str) -> tuple[Cluster, Host]:
    """Have some members that refuse connections, whose sessions have ended and whose beats are old."""
    cluster, host = await cluster_of(FAST_MAX + 2), Host(300.0)
    for number in range(FAST_MAX + 2):
        member = await bare(cluster, ttl_s=300.0, partition=number, host=where)
        who, expires, draining = cluster.members[member]
        cluster.members[member] = who, expires - 250.0, draining
        cluster.ended.add(member)
        host.refused.add(member)
    return cluster, host


async def test_all_members_of_the_same_host_are_taken_for_gone_as_soon_as_they_are() -> None:
    cluster, host = await gone_members("here")
    async with leased(cluster, host) as leases:
        with anyio.fail_after(20):
            await until(lambda: len(host.hosted) == FAST_MAX + 2)
        assert all(cluster.lives(member) for member in host.refused), "they have expired"
        assert leases.number not in host.refused


async def test_few_members_of_other_hosts_are_taken_for_gone_before_they_expire() -> None:
    cluster, host = await gone_members("there")
    async with leased(cluster, host) as leases:
        await until(lambda: len(host.hosted) == FAST_MAX)
        for _ in range(5):
            leases.look_soon()
            await anyio.sleep(0.03)
        assert len(host.hosted) == FAST_MAX


@pytest.mark.parametrize("missing", ["the end of its session", "a refused dial", "its host"])
async def test_a_member_is_taken_for_gone_only_where_everything_says_so(missing: str) -> None:
    cluster, host = await cluster_of(1), Host(30.0)
    where = "there" if missing == "its host" else "here"
    member = await bare(cluster, ttl_s=30.0, partition=0, host=where)
    if missing != "the end of its session":
        cluster.ended.add(member)
    if missing != "a refused dial":
        host.refused.add(member)
    async with leased(cluster, host) as leases:
        for _ in range(5):
            leases.look_soon()
            await anyio.sleep(0.03)
        assert not host.hosted


async def test_a_membership_that_notices_without_end_does_not_hold_the_loop() -> None:
    cluster, host = await cluster_of(1), Host(30.0)
    leases = Leases(cluster.store(), host, Keeper(), random=Random(1))
    await leases.join()

    async def noticed() -> None:
        return

    leases.membership.noticed = noticed  # type: ignore[method-assign]
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leases.run)
            await until(lambda: host.hosted == {0: None})
            for _ in range(10):
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


@pytest.mark.by_turns
async def test_take_overs_do_not_hold_beats_up() -> None:
    cluster, host = await cluster_of(4), Host()
    host.may_host = anyio.Event()
    async with leased(cluster, host):
        await until(lambda: all(lease.owner == 1 for lease in cluster.leases))
        await anyio.sleep(1.3 * TTL_S)
        assert cluster.lives(1)
        host.may_host.set()
        await until(lambda: len(host.hosted) == 4)
        assert host.numbers == [1]


@pytest.mark.by_turns
async def test_what_cannot_be_served_yet_stays_and_is_tried_again() -> None:
    cluster, host = await cluster_of(1), Host(30.0)
    host.failures = [StorageError("away"), UnavailableError("away")]
    async with leased(cluster, host):
        await until(lambda: 0 in host.hosted)
        assert not host.failures
        assert cluster.leases[0].owner == 1


async def test_what_somebody_else_has_is_dropped() -> None:
    cluster, host = await cluster_of(2), Host(30.0)
    async with leased(cluster, host) as leases:
        await until(lambda: len(host.hosted) == 2)
        other = await cluster.store().join(newcomer(30.0))
        cluster.steal(1, other.number)
        leases.look_soon()
        await until(lambda: host.dropped == [1])
        assert 0 in host.hosted


async def test_what_cannot_leave_stays_until_it_can() -> None:
    cluster, host = await cluster_of(2), Host(30.0)
    host.stays = True
    async with leased(cluster, host):
        await until(lambda: len(host.hosted) == 2)
        await cluster.store().join(newcomer(30.0))
        await anyio.sleep(0.1)
        assert len(host.hosted) == 2
        host.stays = False
        await until(lambda: len(host.hosted) == 1)


async def test_a_member_that_leaves_lets_all_go_if_there_is_anybody_to_have_it() -> None:
    cluster, host, heir = await cluster_of(4), Host(30.0), Host(30.0)
    async with leased(cluster, host) as leases:
        await until(lambda: len(host.hosted) == 4)
        async with leased(cluster, heir) as other:
            await leases.let_all_go(60.0)
            assert not host.hosted
            await until(lambda: len(heir.hosted) == 4)
            leases.end()
            await leases.leave()
            await other.let_all_go(60.0)
            assert len(heir.hosted) == 4, "nobody else is there"


@pytest.mark.by_turns
async def test_a_member_that_leaves_lets_few_go_at_once_unless_its_time_runs_out() -> None:
    count = LETS_GO_IN_HURRY_MAX + 2
    cluster, host, heir = await cluster_of(count), Host(30.0), Host(30.0)
    async with leased(cluster, host) as leases:
        await until(lambda: len(host.hosted) == count)
        host.may_go = anyio.Event()
        async with leased(cluster, heir), anyio.create_task_group() as tasks:
            await until(lambda: host.going == LETS_GO_MAX)
            await anyio.sleep(0.1)
            assert host.going == LETS_GO_MAX
            tasks.start_soon(leases.let_all_go, 0.2)
            await until(lambda: host.going == LETS_GO_IN_HURRY_MAX)
            await anyio.sleep(0.1)
            assert host.going == LETS_GO_IN_HURRY_MAX
            host.may_go.set()
            await until(lambda: len(heir.hosted) == count)


@pytest.mark.by_turns
async def test_the_next_goes_when_the_one_before_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_S", 30.0)
    cluster, host = await cluster_of(4), Host(30.0)
    async with leased(cluster, host):
        await until(lambda: len(host.hosted) == 4)
        heir = await cluster.store().join(newcomer(30.0))
        for left in (3, 2):
            while len(host.hosted) > left:
                await anyio.sleep(0.005)
            await anyio.sleep(0.2)
            assert len(host.hosted) == left
            view = await heir.look()
            [free] = [lease for lease in view.leases if lease.owner is None]
            assert await heir.take(free.partition, free) is not None


@pytest.mark.by_turns
async def test_what_waits_for_those_before_it_goes_to_nobody_who_has_left_by_then() -> None:
    cluster, host = await cluster_of(8), Host(30.0)
    async with leased(cluster, host) as leases:
        await until(lambda: len(host.hosted) == 8)
        host.may_go = anyio.Event()
        heir = await cluster.store().join(newcomer(30.0))
        await until(lambda: host.going == 1)
        await heir.leave()
        looks = leases.look_count
        leases.look_soon()
        await until(lambda: leases.look_count > looks + 1)
        host.may_go.set()
        await until(lambda: len(host.hosted) == 7)
        await until(lambda: len(host.hosted) == 8 and not leases.is_busy)
        assert host.went_to == [heir.number]


@pytest.mark.by_turns
async def test_a_process_that_cannot_join_again_does_not_go_on_looking_as_who_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    join, may_join, looks = SmallStore.join, anyio.Event(), list[int]()

    async def join_late(self: SmallStore, newcomer: Newcomer) -> SmallMembership:
        if self.number is not None:
            await may_join.wait()
        return await join(self, newcomer)

    async def look(self: SmallMembership) -> View:
        if may_expire.is_set() and not self.cluster.lives(self.number):
            looks.append(self.number)
            raise StorageError(f"member {self.number} has left")
        return self.cluster.view()

    async def noticed(self: SmallMembership) -> None:
        await anyio.lowlevel.checkpoint()  # as one that has left says it at once

    may_expire = anyio.Event()
    monkeypatch.setattr(SmallStore, "join", join_late)
    monkeypatch.setattr(SmallMembership, "look", look)
    monkeypatch.setattr(SmallMembership, "noticed", noticed)
    cluster, host = await cluster_of(1), Host()
    async with leased(cluster, host) as leases:
        await until(lambda: len(host.hosted) == 1)
        may_expire.set()
        del cluster.members[1]
        await until(lambda: not host.hosted)
        looks.clear()
        await anyio.sleep(0.3)
        assert len(looks) <= 1
        may_join.set()
        await until(lambda: leases.number == 2 and len(host.hosted) == 1)


@pytest.mark.by_turns
@pytest.mark.parametrize("when", ["before it joins again", "after that"])
async def test_what_begins_to_be_served_as_its_member_expires_is_dropped(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    join, may_join = SmallStore.join, anyio.Event()
    begins = list[int]()

    async def join_late(self: SmallStore, newcomer: Newcomer) -> SmallMembership:
        if self.number is not None:
            await may_join.wait()
        return await join(self, newcomer)

    class Slow(Host):
        async def host(self, partition: int, epoch: int | None) -> None:
            begins.append(self.numbers[-1])
            with anyio.CancelScope(shield=True):  # as a recovery, which nobody stops half way
                await super().host(partition, epoch)

    monkeypatch.setattr(SmallStore, "join", join_late)
    cluster, host = await cluster_of(1), Slow()
    host.may_host = anyio.Event()
    async with leased(cluster, host) as leases:
        await until(lambda: begins == [1])
        del cluster.members[1]
        await anyio.sleep(TTL_S / 2)  # it has found out
        if when == "after that":
            may_join.set()
            await until(lambda: leases.number == 2)
        host.may_host.set()
        may_join.set()
        await until(lambda: begins == [1, 2] and len(host.hosted) == 1)
        assert host.dropped == [0], "what the old member had"
