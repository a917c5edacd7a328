"""What every store that several processes serve must do: tests that need two stores of one place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from perdure.actors.errors import LeaseLostError, StoreInUseError
from perdure.storage.membership import ClusterStore, LeaseRow, MemberRow, Membership, Newcomer
from perdure.testing.store_conformance import Owner, created

PARTITIONS = 3
SOON_S = 20.0
"""How long something may take that is to happen soon."""


def newcomer(**changes: Any) -> Newcomer:
    """Give one of the shop's processes."""
    given: dict[str, Any] = {
        "address": "127.0.0.1:1",
        "host": "here",
        "pid": 1,
        "software": "0",
        "app": "shop",
        "app_hash": "a",
        "ttl_s": 60.0,
    }
    return Newcomer(**given | changes)


async def lease_of(member: Membership, partition: int) -> LeaseRow:
    """Look who has a partition."""
    lease = (await member.look()).leases[partition]
    assert lease.partition == partition
    return lease


async def row_of(member: Membership, number: int) -> MemberRow:
    """Look what a member says of itself."""
    [row] = [row for row in (await member.look()).members if row.member == number]
    return row


async def take(member: Membership, partition: int = 0) -> int:
    """Take a partition as it is."""
    epoch = await member.take(partition, await lease_of(member, partition))
    assert epoch is not None
    return epoch


async def owner_of(member: Membership, partition: int = 0) -> Owner:
    """Recover a partition that a member has."""
    store = member.partitions[partition]
    return Owner(store, await store.recover())


async def expire(member: Membership) -> None:
    """Return when a member has expired, whose life was short."""
    with anyio.fail_after(SOON_S):
        while not (await row_of(member, member.number)).expired:
            await anyio.sleep(0.005)


class ClusterConformance:
    """The tests; a subclass gives the fixture ``stores``: two of one place, not open, no hub there."""

    @pytest.fixture
    def stores(self) -> Sequence[ClusterStore]:
        raise NotImplementedError

    @pytest.fixture
    async def opened(self, stores: Sequence[ClusterStore]) -> AsyncIterator[Sequence[ClusterStore]]:
        for store in stores:
            await store.open(PARTITIONS)
        yield stores
        for store in stores:
            await store.close()

    @pytest.fixture
    async def members(
        self, opened: Sequence[ClusterStore]
    ) -> AsyncIterator[tuple[Membership, Membership]]:
        first = await opened[0].join(newcomer(address="a:1"))
        second = await opened[1].join(newcomer(address="a:2"))
        yield first, second
        for member in (second, first):
            await member.leave()

    # Who is there.

    async def test_members_see_each_other_and_who_has_what(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        epoch = await take(first, 1)
        view = await second.look()
        assert [(row.member, row.address) for row in view.members] == [
            (first.number, "a:1"),
            (second.number, "a:2"),
        ]
        assert [lease.owner for lease in view.leases] == [None, first.number, None]
        assert view.leases[1].epoch == epoch

    async def test_a_member_is_what_it_said(self, opened: Sequence[ClusterStore]) -> None:
        one = newcomer(http="http://here:1", weight=2.5, pid=7, software="9", app_hash="h")
        member = await opened[0].join(one)
        row = await row_of(member, member.number)
        assert (row.address, row.host, row.pid, row.software) == ("127.0.0.1:1", "here", 7, "9")
        assert (row.app, row.app_hash, row.http, row.weight) == ("shop", "h", "http://here:1", 2.5)
        assert (row.draining, row.expired) == (False, False)
        assert 0.0 <= row.beat_age_s < SOON_S
        assert member.ttl_s == 60.0
        await member.leave()

    async def test_no_number_is_given_twice(self, opened: Sequence[ClusterStore]) -> None:
        numbers: list[int] = []
        for store in (*opened, *opened):
            member = await store.join(newcomer())
            numbers.append(member.number)
            await member.leave()
        assert numbers == sorted({*numbers})
        assert numbers[0] > 0

    async def test_all_members_know_the_same_hub_and_secret(
        self, members: tuple[Membership, Membership], stores: Sequence[ClusterStore]
    ) -> None:
        first, second = members
        assert (first.hub, first.secret) == (second.hub, second.secret)
        identity = await stores[0].identify()
        assert identity is not None
        assert (identity.hub, identity.app, identity.secret) == (first.hub, "shop", first.secret)
        assert first.secret.hex() not in repr(identity)
        assert repr(first.secret) not in repr(identity)

    async def test_the_hub_of_another_application_is_refused(
        self, members: tuple[Membership, Membership], stores: Sequence[ClusterStore]
    ) -> None:
        with pytest.raises(StoreInUseError, match=r"'shop'.*'bank'"):
            await stores[1].join(newcomer(app="bank"))
        assert len((await members[0].look()).members) == 2

    async def test_who_is_no_member_sees_the_same(self, stores: Sequence[ClusterStore]) -> None:
        one, outside = stores
        assert await outside.count_partitions() is None
        assert await outside.identify() is None
        await one.open(PARTITIONS)
        member = await one.join(newcomer())
        await take(member)
        assert await outside.count_partitions() == PARTITIONS
        view, seen = await outside.view(), await member.look(closely=True)
        assert view.leases == seen.leases
        assert [row.member for row in view.members] == [member.number]
        await member.leave()
        await one.close()
        await outside.close()

    # Taking and letting go.

    async def test_of_two_who_saw_the_same_one_takes_a_partition(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        seen = await lease_of(first, 0)
        assert await first.take(0, seen) == seen.epoch + 1
        assert await second.take(0, seen) is None
        assert (await lease_of(second, 0)).owner == first.number

    async def test_what_is_free_again_is_not_what_was_seen(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        seen = await lease_of(second, 0)
        await take(first)
        await first.let_go(0)
        assert (await lease_of(second, 0)).owner is None
        assert await second.take(0, seen) is None
        await take(second)

    async def test_of_many_who_take_at_once_each_partition_gets_one(
        self, opened: Sequence[ClusterStore]
    ) -> None:
        members = [await store.join(newcomer()) for store in (*opened, *opened)]
        leases = (await members[0].look()).leases
        won: list[tuple[int, int]] = []

        async def take_all(member: Membership) -> None:
            for seen in leases:
                epoch = await member.take(seen.partition, seen)
                if epoch is not None:
                    assert epoch == seen.epoch + 1
                    won.append((seen.partition, member.number))

        async with create_task_group() as tasks:
            for member in members:
                tasks.start_soon(take_all, member)
        after = (await members[0].look()).leases
        assert sorted(won) == [(lease.partition, lease.owner) for lease in after]
        for member in members:
            await member.leave()

    async def test_only_its_owner_recovers_a_partition(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        with pytest.raises(LeaseLostError):
            await first.partitions[0].recover()
        await take(first)
        with pytest.raises(LeaseLostError):
            await second.partitions[0].recover()
        await first.partitions[0].recover()

    async def test_epochs_only_grow(self, members: tuple[Membership, Membership]) -> None:
        first, second = members
        taken = await take(first)
        epochs = [taken, *[(await first.partitions[0].recover()).epoch for _ in range(2)]]
        assert (await lease_of(second, 0)).epoch == epochs[-1]
        epochs.append(await take(second))
        epochs.append((await second.partitions[0].recover()).epoch)
        assert epochs == sorted({*epochs})

    async def test_an_owner_that_was_taken_over_commits_no_more(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        await take(first)
        old = await owner_of(first)
        await old.commit(created=[created(1)])
        await take(second)
        # Not even before the new owner has looked at what is there.
        with pytest.raises(LeaseLostError):
            await old.commit(created=[created(2)])
        new = await owner_of(second)
        assert new.sequence == 1
        assert await new.keys() == ["i1"]
        await new.commit(created=[created(3)])
        with pytest.raises(LeaseLostError):
            await first.partitions[0].recover()
        assert await new.keys() == ["i1", "i3"]

    async def test_what_is_let_go_is_whole_for_the_next(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        await take(first)
        old = await owner_of(first)
        for id in (1, 2, 3):
            await old.commit(created=[created(id)])
        assert await first.let_go(0, second.number)
        lease = await lease_of(second, 0)
        assert (lease.owner, lease.wanted) == (None, second.number)
        await take(second)
        assert (await lease_of(second, 0)).wanted is None
        new = await owner_of(second)
        assert new.sequence == 3
        assert await new.keys() == ["i1", "i2", "i3"]

    async def test_only_what_one_has_can_be_let_go(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        assert not await first.let_go(0)
        await take(first)
        assert not await second.let_go(0)
        assert (await lease_of(first, 0)).owner == first.number
        assert await first.let_go(0)
        assert not await first.let_go(0)

    async def test_a_partition_comes_back_to_who_let_it_go(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        await take(first)
        one = await owner_of(first)
        await one.commit(created=[created(1)])
        await first.let_go(0)
        await take(second)
        other = await owner_of(second)
        await other.commit(created=[created(2)])
        await second.let_go(0)
        await take(first)
        again = await owner_of(first)
        assert await again.keys() == ["i1", "i2"]
        await again.commit(created=[created(3)])
        assert await again.keys() == ["i1", "i2", "i3"]

    async def test_a_wish_is_seen_until_it_is_taken_back_or_fulfilled(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        await take(first)
        await second.wish(0, second.number)
        lease = await lease_of(first, 0)
        assert (lease.owner, lease.wanted) == (first.number, second.number)
        await second.wish(0, None)
        assert (await lease_of(first, 0)).wanted is None
        await first.wish(0, second.number)
        await take(second)
        assert (await lease_of(first, 0)).wanted is None

    async def test_an_owner_commits_on_where_somebody_wishes_for_its_partition(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        await take(first)
        owner = await owner_of(first)
        await second.wish(0, second.number)
        await owner.commit(created=[created(1)])
        assert await owner.keys() == ["i1"]

    async def test_a_member_can_be_drained_by_another(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        assert await first.drain(second.number, True)
        assert (await row_of(second, second.number)).draining
        assert not (await row_of(second, first.number)).draining
        assert await first.drain(second.number, False)
        assert not (await row_of(second, second.number)).draining
        assert not await first.drain(second.number + 100, True)

    async def test_who_has_expired_is_not_drained(self, opened: Sequence[ClusterStore]) -> None:
        short, other = [
            await store.join(newcomer(ttl_s=ttl_s))
            for store, ttl_s in zip(opened, (0.05, 60.0), strict=True)
        ]
        await expire(short)
        assert not await other.drain(short.number, True)
        assert not (await row_of(other, short.number)).draining

    # Beats.

    async def test_beats_keep_a_member(self, opened: Sequence[ClusterStore]) -> None:
        ttl_s = 1.0
        with anyio.fail_after(SOON_S):
            while True:
                began = last = anyio.current_time()
                member = await opened[0].join(newcomer(ttl_s=ttl_s))
                longest_s, beats = 0.0, list[bool]()
                while last - began < 1.3 * ttl_s:
                    beats.append(await member.beat())
                    await anyio.sleep(0.1)
                    last, before = anyio.current_time(), last
                    longest_s = max(longest_s, last - before)
                age_s = (await row_of(member, member.number)).beat_age_s if all(beats) else ttl_s
                await member.leave()
                if longest_s + anyio.current_time() - last < 0.7 * ttl_s:
                    break  # else the machine stood still, and it may well have expired
        assert all(beats)
        assert age_s < ttl_s

    async def test_who_has_expired_never_beats_again_and_takes_nothing(
        self, opened: Sequence[ClusterStore]
    ) -> None:
        short = await opened[0].join(newcomer(ttl_s=0.05))
        await expire(short)
        assert not await short.beat()
        assert not await short.beat()
        assert await short.take(0, await lease_of(short, 0)) is None
        again = await opened[0].join(newcomer())
        assert again.number > short.number
        await take(again)
        await short.leave()
        assert (await lease_of(again, 0)).owner == again.number
        await again.leave()

    async def test_who_has_expired_writes_until_somebody_takes_over(
        self, opened: Sequence[ClusterStore]
    ) -> None:
        short = await opened[0].join(newcomer(ttl_s=1.0))
        other = await opened[1].join(newcomer())
        await take(short)
        old = await owner_of(short)
        await expire(short)
        lease = await lease_of(other, 0)
        assert lease.owner == short.number
        await old.commit(created=[created(1)])  # that it has expired is nothing to a commit
        assert await other.take(0, lease) is not None
        with pytest.raises(LeaseLostError):
            await old.commit(created=[created(2)])
        assert await (await owner_of(other)).keys() == ["i1"]
        await short.leave()
        assert (await lease_of(other, 0)).owner == other.number
        await other.leave()

    # The end.

    async def test_who_leaves_has_nothing_and_is_gone(self, opened: Sequence[ClusterStore]) -> None:
        first = await opened[0].join(newcomer())
        second = await opened[1].join(newcomer())
        for partition in (0, 2):
            await take(first, partition)
        owner = await owner_of(first)
        await owner.commit(created=[created(1)])
        await first.wish(2, second.number)
        assert not await second.has_ended(first.number)

        await first.leave()
        await first.leave()
        view = await second.look()
        assert [row.member for row in view.members] == [second.number]
        assert [lease.owner for lease in view.leases] == [None] * PARTITIONS
        assert await second.has_ended(first.number)
        await take(second)
        assert await (await owner_of(second)).keys() == ["i1"]
        await second.leave()

    async def test_a_member_that_lives_has_not_ended(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        for _ in range(3):
            assert not await first.has_ended(second.number)
            assert not await second.has_ended(first.number)

    # What others tell.

    async def test_what_is_sent_is_received_once_and_in_order(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        await first.send(second.number, [b"1", b"2"])
        await first.send(second.number, [])
        await first.send(first.number, [b"mine"])
        await first.send(second.number, [b"3", bytes(range(256)) * 1_000])
        received = await second.receive()
        assert [source for source, _ in received] == [first.number] * 4
        assert [item for _, item in received] == [b"1", b"2", b"3", bytes(range(256)) * 1_000]
        assert await second.receive() == []
        assert await first.receive() == [(first.number, b"mine")]

    async def test_who_waits_for_a_notice_waits_no_longer_than_it_takes(
        self, members: tuple[Membership, Membership]
    ) -> None:
        first, second = members
        seen: list[int | None] = []

        async def listen() -> None:
            while (await lease_of(second, 2)).wanted is None:
                await second.noticed()
            seen.append((await lease_of(second, 2)).wanted)

        with anyio.fail_after(SOON_S):
            async with create_task_group() as tasks:
                tasks.start_soon(listen)
                await anyio.wait_all_tasks_blocked()
                await first.wish(2, second.number)
        assert seen == [second.number]
