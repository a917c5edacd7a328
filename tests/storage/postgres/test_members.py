"""Members of a hub on PostgreSQL share its partitions out, and never both commit to one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import anyio
import pytest

from perdure.actors.errors import LeaseLostError, StoreInUseError
from perdure.storage.membership import ClusterStore, Newcomer
from perdure.storage.postgres import PostgresStore
from perdure.storage.postgres.members import PostgresMembership
from perdure.testing.store_conformance import Owner, created


def newcomer(**changes: object) -> Newcomer:
    given: dict[str, object] = {
        "address": "127.0.0.1:1",
        "host": "here",
        "pid": os.getpid(),
        "software": "0",
        "app": "shop",
        "app_hash": "a",
    }
    return Newcomer(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture
async def stores(postgres: str) -> AsyncIterator[list[PostgresStore]]:
    made = [PostgresStore(postgres), PostgresStore(postgres)]
    for store in made:
        await store.open(3)
    yield made
    for store in made:
        await store.close()


@pytest.fixture
async def both(stores: list[PostgresStore]) -> AsyncIterator[list[PostgresMembership]]:
    joined = [await store.join(newcomer(address=f"a:{n}")) for n, store in enumerate(stores)]
    yield joined
    for one in joined:
        await one.leave()


async def test_members_see_each_other_and_who_has_what(both: list[PostgresMembership]) -> None:
    first, second = both
    view = await second.look()
    assert [row.member for row in view.members] == [first.number, second.number]
    assert [row.address for row in view.members] == ["a:0", "a:1"]
    assert [lease.owner for lease in view.leases] == [None] * 3

    epoch = await first.take(1, view.leases[1])
    assert epoch == view.leases[1].epoch + 1

    view = await second.look()
    assert [lease.owner for lease in view.leases] == [None, first.number, None]


async def test_of_two_who_saw_the_same_one_takes_a_partition(
    both: list[PostgresMembership],
) -> None:
    first, second = both
    seen = (await first.look()).leases[0]
    assert await first.take(0, seen) is not None
    assert await second.take(0, seen) is None
    with pytest.raises(LeaseLostError):
        await second.partitions[0].recover()


async def test_an_owner_that_was_taken_over_commits_no_more(
    both: list[PostgresMembership],
) -> None:
    first, second = both
    assert await first.take(0, (await first.look()).leases[0]) is not None
    old = Owner(first.partitions[0], await first.partitions[0].recover())
    await old.commit(created=[created(1)])

    assert await second.take(0, (await second.look()).leases[0]) is not None
    new = Owner(second.partitions[0], await second.partitions[0].recover())
    assert new.sequence == old.sequence
    assert await new.keys() == ["i1"]
    with pytest.raises(LeaseLostError):
        await old.commit(created=[created(2)])
    await new.commit(created=[created(3)])
    assert await new.keys() == ["i1", "i3"]


async def test_what_is_let_go_is_whole_for_the_next(both: list[PostgresMembership]) -> None:
    first, second = both
    assert await first.take(0, (await first.look()).leases[0]) is not None
    old = Owner(first.partitions[0], await first.partitions[0].recover())
    await old.commit(created=[created(1)])
    assert await first.let_go(0, second.number)
    assert not await first.let_go(0)

    [lease, *_] = (await second.look()).leases
    assert (lease.owner, lease.wanted) == (None, second.number)
    assert await second.take(0, lease) is not None
    new = Owner(second.partitions[0], await second.partitions[0].recover())
    assert await new.keys() == ["i1"]


async def test_who_does_not_beat_expires_and_takes_nothing(stores: list[PostgresStore]) -> None:
    first = await stores[0].join(newcomer(ttl_s=0.05))
    second = await stores[1].join(newcomer())
    while not (await second.look()).members[0].expired:
        await anyio.sleep(0.01)
    assert not await first.beat()
    assert await first.take(0, (await first.look()).leases[0]) is None
    assert await second.beat()
    await first.leave()
    await second.leave()


async def test_the_end_of_a_session_is_seen(both: list[PostgresMembership]) -> None:
    first, second = both
    with anyio.fail_after(10):
        while not first.has_control:
            await anyio.sleep(0.01)
        assert not await second.has_ended(first.number)
        assert first.control is not None
        await first.store.bridge.run(first.control.stop)
        while not await second.has_ended(first.number):
            await anyio.sleep(0.01)


async def test_a_change_is_noticed(both: list[PostgresMembership]) -> None:
    first, second = both
    with anyio.fail_after(10):
        while not second.has_control:
            await anyio.sleep(0.01)
        await first.wish(2, second.number)
        await second.noticed()
    assert (await second.look()).leases[2].wanted == second.number


async def test_what_is_sent_is_received_in_order(both: list[PostgresMembership]) -> None:
    first, second = both
    await first.send(second.number, [b"1", b"2"])
    await first.send(second.number, [b"3"])
    assert await second.receive() == [(first.number, item) for item in (b"1", b"2", b"3")]
    assert await second.receive() == []


async def test_the_hub_of_another_application_is_refused(both: list[PostgresMembership]) -> None:
    with pytest.raises(StoreInUseError, match="application 'shop', not of 'bank'"):
        await both[0].store.join(newcomer(app="bank"))


async def test_a_hub_can_be_looked_at_from_outside(
    both: list[PostgresMembership], postgres: str
) -> None:
    outside = PostgresStore(postgres)
    assert isinstance(outside, ClusterStore)
    assert await outside.count_partitions() == 3
    assert len((await outside.view()).members) == 2
    identity = await outside.identify()
    assert identity is not None
    assert (identity.hub, identity.app) == (both[0].hub, "shop")
    await outside.close()

    nowhere = PostgresStore(f"{postgres}&schema=nowhere")
    assert await nowhere.count_partitions() is None
    assert await nowhere.identify() is None
    await nowhere.close()
