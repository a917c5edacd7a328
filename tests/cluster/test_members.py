"""Members of one hub: they share it out, take over what others leave, and answer nothing stale."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

import perdure
from perdure import (
    App,
    Client,
    EntityId,
    EntityStatus,
    Hub,
    HubStoppingError,
    InternalError,
    OrchestrationContext,
    Settings,
    UnavailableError,
    UsageError,
)
from perdure.runtime.cluster import nodes
from perdure.runtime.cluster.leases import Leases
from perdure.runtime.cluster.nodes import ClusterCrew, Node
from perdure.runtime.partitions import tenure
from perdure.runtime.partitions.partition import Partition
from perdure.runtime.placement.hashing import partition_of
from perdure.runtime.transport import router
from perdure.runtime.transport.nodes import Dialler
from perdure.storage.membership import View
from tests.cluster.small_cluster import Cluster, SmallMembership

app = App("shop")
#: Where members are to expire, which none does because a busy machine stands still for a while.
TTL_S = 3.0
PARTITIONS = 8


@app.entity
class Counter:
    n: int = 0

    def add(self, by: int) -> int:
        self.n += by
        return self.n

    @perdure.readonly
    def get(self) -> int:
        return self.n


may_end = anyio.Event()


@app.activity
async def take_a_while() -> str:
    """End a little after it may."""
    await may_end.wait()
    await anyio.sleep(0.2)
    return "done"


@app.orchestration
async def work(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(take_a_while)


@app.orchestration
async def tell(ctx: OrchestrationContext, key: str) -> int:
    return await ctx.call_entity(EntityId(Counter, key), Counter.add, 1)


@app.orchestration
async def hold(ctx: OrchestrationContext, key: str) -> None:
    async with ctx.lock_entities(EntityId(Counter, key)):
        ctx.set_custom_status("held")
        await ctx.wait_for_external_event("go")


def hub_on(cluster: Cluster, *, ttl_s: float = 30.0, **given: Any) -> Hub:
    settings = Settings(lease_s=ttl_s, drain_s=2.0)
    given = {"rebalance": None, **given}
    return Hub(app, store=cluster.store(), partitions=PARTITIONS, settings=settings, **given)


def member_of(hub: Hub) -> int:
    return hub.crew.local_shard.number


def crew_of(hub: Hub) -> ClusterCrew:
    assert isinstance(hub.crew, ClusterCrew)
    return hub.crew


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    with anyio.fail_after(within_s):
        while not condition():
            await anyio.sleep(0.005)


def owned(cluster: Cluster, member: int) -> list[int]:
    return [lease.partition for lease in cluster.leases if lease.owner == member]


@asynccontextmanager
async def two_members(cluster: Cluster, **given: Any) -> AsyncGenerator[tuple[Hub, Hub]]:
    """Two that have come to their shares."""
    with anyio.fail_after(60):
        async with hub_on(cluster, **given) as one, hub_on(cluster, **given) as two:
            await until(lambda: len(owned(cluster, 1)) == len(owned(cluster, 2)) == 4)
            await until(lambda: sorted(set(one.placement)) == sorted(set(two.placement)) == [1, 2])
            yield one, two


def counter_of(cluster: Cluster, member: int) -> EntityId[Counter]:
    """Name a counter that a member has."""
    ids = (EntityId(Counter, f"c{n}") for n in range(1_000))
    return next(id for id in ids if partition_of(str(id), PARTITIONS) in owned(cluster, member))


async def add(client: Client, id: EntityId[Counter], by: int = 1) -> int:
    return await client.call_entity(id, Counter.add, by)


async def run(client: Client, what: Any, given: Any) -> Any:
    return await client.wait((await client.start_new(what, given)).instance_id)


def found_n(status: EntityStatus[Any] | None) -> int:
    return -1 if status is None or status.state is None else status.state.n


async def until_status(client: Client, id: str, custom: str) -> None:
    with anyio.fail_after(20):
        while True:
            status = await client.get_status(id)
            if status is not None and status.custom_status == custom:
                return
            await anyio.sleep(0.005)


async def state_of(client: Client, id: EntityId[Counter]) -> int:
    return found_n(await client.get_entity(id))


# Shares.


async def test_one_member_has_all_and_leaves_all() -> None:
    cluster = Cluster()
    async with hub_on(cluster) as hub:
        assert await add(hub.client, EntityId(Counter, "a")) == 1
        assert owned(cluster, 1) == list(range(PARTITIONS))
    assert {lease.owner for lease in cluster.leases} == {None}
    assert not cluster.members
    async with hub_on(cluster) as hub:
        assert await add(hub.client, EntityId(Counter, "a")) == 2


@pytest.mark.by_turns
async def test_members_share_and_each_reaches_everything() -> None:
    cluster = Cluster()
    async with two_members(cluster) as hubs:
        for turn, hub in enumerate(hubs):
            for n in range(20):
                assert await add(hub.client, EntityId(Counter, f"c{n}")) == turn + 1
            assert await run(hub.client, tell, f"t{turn}") == 1
            assert len(hub.placement) == PARTITIONS
            assert hub.shards == 2
        counted = await hubs[0].statistics()
        assert {shard.index for shard in counted.shards} == {1, 2}
        assert {one.index for one in counted.partitions} == set(range(PARTITIONS))


@pytest.mark.by_turns
async def test_a_store_that_exists_keeps_its_number_of_partitions() -> None:
    cluster = Cluster()
    async with hub_on(cluster):
        pass
    async with Hub(app, store=cluster.store()) as hub:
        assert len(hub.placement) == PARTITIONS
    async with Hub(app, store=Cluster().store()) as hub:
        assert len(hub.placement) == nodes.PARTITIONS


@pytest.mark.by_turns
async def test_a_member_that_is_to_drain_gives_all_away_and_gets_its_share_again() -> None:
    cluster = Cluster()
    async with two_members(cluster) as (one, _):
        leases = crew_of(one).leases
        assert await leases.membership.drain(2, True)
        await until(lambda: owned(cluster, 1) == list(range(PARTITIONS)))
        assert await leases.membership.drain(2, False)
        await until(lambda: len(owned(cluster, 2)) == 4)


@pytest.mark.by_turns
async def test_a_partition_moves_to_the_member_that_it_is_to_go_to() -> None:
    cluster = Cluster()
    async with two_members(cluster) as (one, two):
        partition = owned(cluster, 1)[0]
        await two.move_partition(partition, 2)
        await until(lambda: one.placement[partition] == two.placement[partition] == 2)
        await until(lambda: len(owned(cluster, 1)) == len(owned(cluster, 2)) == 4)
        assert partition in owned(cluster, 2), "another one went back for it"
        with pytest.raises(UsageError, match="no member 7 now; there are 1, 2"):
            await one.move_partition(partition, 7)


@pytest.mark.by_turns
async def test_a_move_to_a_member_that_leaves_meanwhile_says_so() -> None:
    cluster = Cluster()
    async with two_members(cluster) as (one, _):
        partition = owned(cluster, 1)[0]
        heir = await cluster.store().join(crew_of(one).newcomer())
        await until(lambda: heir.number in crew_of(one).members)

        async def leave_once_it_is_wished() -> None:
            await until(lambda: cluster.leases[partition].wanted == heir.number)
            await heir.leave()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave_once_it_is_wished)
            with pytest.raises(UnavailableError, match="member 3, which has left meanwhile"):
                await one.move_partition(partition, heir.number)


@pytest.mark.by_turns
async def test_nothing_stops_for_a_member_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "HANDOVER_S", 0.2)
    cluster, asked, stopped = Cluster(), 0, list[int]()
    async with two_members(cluster) as (one, two):
        shard = two.crew.local_shard
        let_go = shard.let_go

        async def say_nothing(*_: Any) -> None:
            nonlocal asked
            asked += 1
            await anyio.sleep_forever()

        async def let_go_noted(number: int, to: int) -> Any:
            stopped.append(number)
            return await let_go(number, to)

        monkeypatch.setattr(crew_of(two).router.line(1), "call", say_nothing)
        monkeypatch.setattr(shard, "let_go", let_go_noted)
        assert await crew_of(one).leases.membership.drain(2, True)
        await until(lambda: asked > 2)
        assert not stopped
        monkeypatch.undo()
        await until(lambda: owned(cluster, 1) == list(range(PARTITIONS)))


async def test_what_is_done_once_for_a_hub_is_done_by_the_first_member() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one, hub_on(cluster) as two:
            await until(lambda: len(crew_of(two).members) == 2)
            assert one.crew.leads
            assert not two.crew.leads
            await one.stop()
            await until(lambda: two.crew.leads)


# What moves along.


@pytest.mark.by_turns
async def test_an_activity_that_runs_goes_on_where_it_is_when_its_instance_moves() -> None:
    global may_end
    may_end = anyio.Event()
    cluster = Cluster()
    async with two_members(cluster) as (one, two):
        partition = owned(cluster, 1)[0]
        id = next(f"w{n}" for n in range(1_000) if partition_of(f"w{n}", PARTITIONS) == partition)
        await one.client.start_new(work, instance_id=id)
        await until(lambda: crew_of(one).local_shard.activities.count == 1)
        await two.move_partition(partition, 2)
        may_end.set()
        assert await two.client.wait(id) == "done"
        assert crew_of(two).local_shard.activities.count == 0, "it ran once"


@pytest.mark.by_turns
async def test_what_a_member_that_stops_runs_is_finished_and_its_instances_go_on() -> None:
    global may_end
    may_end = anyio.Event()
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one:
            async with hub_on(cluster) as two:
                await until(lambda: len(owned(cluster, 2)) == 4)
                mine = owned(cluster, 2)
                ids = [f"w{n}" for n in range(40) if partition_of(f"w{n}", PARTITIONS) in mine]
                for id in ids:
                    await one.client.start_new(work, instance_id=id)
                await until(lambda: crew_of(two).local_shard.activities.count == len(ids))
                may_end.set()
            for id in ids:
                assert await one.client.wait(id) == "done"
            assert crew_of(one).local_shard.activities.count == 0, "none of them ran again"


@pytest.mark.by_turns
async def test_who_saw_an_owner_before_the_last_one_takes_what_that_one_hands_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look, may_see = SmallMembership.look, anyio.Event()
    may_see.set()

    async def see_late(self: SmallMembership) -> View:
        view = await look(self)
        if self.number == 2:
            await may_see.wait()
        return view

    monkeypatch.setattr(SmallMembership, "look", see_late)
    cluster = Cluster()
    async with two_members(cluster, ttl_s=30.0) as (one, two), hub_on(cluster, ttl_s=30.0):
        await until(lambda: bool(owned(cluster, 3)) and len(crew_of(two).members) == 3)
        id = counter_of(cluster, 3)
        partition = partition_of(str(id), PARTITIONS)
        held = next(f"h{n}" for n in range(1_000) if partition_of(f"h{n}", PARTITIONS) != partition)
        await one.client.start_new(hold, id.key, instance_id=held)
        await until_status(one.client, held, "held")
        may_see = anyio.Event()
        await anyio.sleep(0.1)
        crew_of(two).leases.look_soon()
        await anyio.sleep(0.1)  # that look has been sent: the owner is member 3
        await one.move_partition(partition, 1)
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await add(one.client, id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(0.1)
            tasks.start_soon(one.move_partition, partition, 2)
            await until(lambda: cluster.leases[partition].owner is None)
            may_see.set()
            await until(lambda: cluster.leases[partition].owner == 2)
            await one.client.raise_event(held, "go")
        assert answers == [1]


# Take-over.


@pytest.mark.by_turns
async def test_what_a_silent_member_had_is_taken_when_it_expires() -> None:
    cluster = Cluster()
    async with two_members(cluster, ttl_s=TTL_S) as (one, _):
        id = counter_of(cluster, 2)
        assert await add(one.client, id) == 1
        cluster.unreachable.add(2)
        await until(lambda: owned(cluster, 2) == [])
        assert await add(one.client, id) == 2
        cluster.unreachable.clear()
        await until(lambda: len(owned(cluster, 3)) == 4)
        assert await add(one.client, id) == 3


async def test_a_member_that_is_gone_is_not_waited_for_on_its_own_host() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster, ttl_s=30.0) as one:
            two = await hub_on(cluster, ttl_s=30.0).start()
            await until(lambda: len(owned(cluster, 2)) == 4)
            id = counter_of(cluster, 2)
            assert await add(two.client, id) == 1
            cluster.unreachable.add(2)
            cluster.ended.add(2)
            two.crew.stop()
            crew_of(two).hang_up()
            began = anyio.current_time()
            assert await one.client.call_entity(id, Counter.add, 1, request_id="r") == 2
            assert anyio.current_time() - began < 10.0  # of the 30 that it lives
            cluster.unreachable.clear()
            await two.stop()


@pytest.mark.by_turns
async def test_a_member_of_another_host_is_waited_for_however_it_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = iter(["here", "there"])
    monkeypatch.setattr(nodes, "host_name", lambda: next(hosts))
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster, ttl_s=30.0) as one:
            two = await hub_on(cluster, ttl_s=30.0).start()
            await until(lambda: len(owned(cluster, 2)) == 4)
            cluster.unreachable.add(2)
            cluster.ended.add(2)
            two.crew.stop()
            crew_of(two).hang_up()
            await until(lambda: 2 in crew_of(one).refused)
            await anyio.sleep(0.2)
            assert len(owned(cluster, 2)) == 4
            cluster.unreachable.clear()
            await two.stop()


@pytest.mark.by_turns
async def test_a_partition_that_was_taken_from_a_member_ends_there_and_its_hub_goes_on() -> None:
    cluster = Cluster()
    async with two_members(cluster) as (one, two):
        id = counter_of(cluster, 2)
        partition = partition_of(str(id), PARTITIONS)
        assert await add(two.client, id) == 1
        cluster.steal(partition, 1)  # of which it hears by its commit alone
        other = counter_of(cluster, 2)  # before the partition comes back to who has fewer now
        assert await add(two.client, id) == 2
        assert await add(one.client, id) == 3
        assert await add(two.client, other) == 1


@pytest.mark.by_turns
async def test_a_member_that_expired_is_another_one_from_then_on() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster, ttl_s=TTL_S) as hub:
            id = EntityId(Counter, "a")
            assert await add(hub.client, id) == 1
            cluster.silent.add(1)
            await until(lambda: not cluster.lives(1))
            cluster.silent.clear()
            await until(lambda: member_of(hub) == 2)
            assert await add(hub.client, id) == 2
            assert 1 not in cluster.members


@pytest.mark.by_turns
async def test_a_member_that_expires_while_it_lets_a_partition_go_serves_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave = Partition.leave
    has_left, may_go_on = anyio.Event(), anyio.Event()

    def leave_late(self: Partition) -> Any:
        async def late() -> Any:
            waiting = await waiter
            has_left.set()
            await may_go_on.wait()
            return waiting

        waiter = leave(self)
        return late()

    cluster = Cluster()
    async with two_members(cluster, ttl_s=TTL_S) as (one, two):
        monkeypatch.setattr(Partition, "leave", leave_late)
        id = counter_of(cluster, 2)
        assert await add(two.client, id) == 1
        await crew_of(one).leases.membership.wish(partition_of(str(id), PARTITIONS), 1)
        await has_left.wait()
        monkeypatch.setattr(Partition, "leave", leave)
        cluster.silent.add(2)
        await until(lambda: not cluster.lives(2))
        cluster.silent.clear()
        await until(lambda: member_of(two) == 3)

        may_go_on.set()

        assert await add(two.client, id) == 2
        await until(lambda: len(owned(cluster, 3)) == 4)


# Reads.


@pytest.mark.by_turns
async def test_a_member_that_may_have_been_taken_over_answers_nothing_stale() -> None:
    cluster = Cluster()
    async with two_members(cluster, ttl_s=TTL_S) as (one, two):
        id, client = counter_of(cluster, 2), two.client
        assert await add(client, id) == 1
        cluster.silent.add(2)
        await until(lambda: owned(cluster, 2) == [])
        assert await add(one.client, id) == 2
        answers: dict[str, int] = {}

        async def call() -> None:
            answers["operation"] = await client.call_entity(id, Counter.get)

        async def read() -> None:
            state = await client.read_entity_state(id)
            answers["state"] = -1 if state is None else state.n

        async def look() -> None:
            answers["status"] = await state_of(client, id)

        async def query() -> None:
            found = [one async for one in client.query_entities(states=True)]
            answers["query"] = next(found_n(one) for one in found if one.entity_id == id)

        async with anyio.create_task_group() as tasks:
            for ask in (call, read, look, query):
                tasks.start_soon(ask)
            await anyio.sleep(0.1)
            assert answers == {}, "they wait"
            cluster.silent.clear()
        assert answers == dict.fromkeys(("operation", "state", "status", "query"), 2)


@pytest.mark.by_turns
async def test_a_member_that_lost_a_connection_answers_nothing_before_the_store_has_heard_it() -> (
    None
):
    cluster = Cluster()
    async with two_members(cluster) as (_, two):
        id, client = counter_of(cluster, 2), two.client
        assert await client.call_entity(id, Counter.add, 1, request_id="r") == 1
        lease = cluster.leases[partition_of(str(id), PARTITIONS)]
        answers: list[int] = []

        async def call() -> None:
            answers.append(await client.call_entity(id, Counter.get))

        async def look() -> None:
            answers.append(await state_of(client, id))

        async def repeat() -> None:
            answers.append(await client.call_entity(id, Counter.add, 1, request_id="r"))

        cluster.silent.add(2)
        cluster.lost.append(2)
        async with anyio.create_task_group() as tasks:
            for ask in (call, look, repeat):
                tasks.start_soon(ask)
            await anyio.sleep(0.1)
            assert answers == [], "they wait"
            cluster.silent.clear()
        assert answers == [1, 1, 1]
        assert cluster.leases[lease.partition] == lease, "it has not gone"


@pytest.mark.by_turns
async def test_who_answers_whether_sure_or_not_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def always(_: Leases) -> bool:
        return True

    monkeypatch.setattr(Leases, "is_sure", always)
    cluster = Cluster()
    async with two_members(cluster, ttl_s=TTL_S) as (one, two):
        id = counter_of(cluster, 2)
        assert await add(two.client, id) == 1
        cluster.silent.add(2)
        await until(lambda: owned(cluster, 2) == [])
        assert await add(one.client, id) == 2
        assert await two.client.call_entity(id, Counter.get) == 1, "stale, as it must not be"
        cluster.silent.clear()


@pytest.mark.by_turns
async def test_a_member_whose_session_ended_reads_on_once_it_has_looked() -> None:
    cluster = Cluster()
    async with two_members(cluster) as (_, two):
        id = counter_of(cluster, 2)
        leases = crew_of(two).leases
        assert leases.is_sure()
        cluster.ended.add(2)
        assert not leases.is_sure()
        with anyio.fail_after(5):
            assert await two.client.call_entity(id, Counter.get) == 0
        assert leases.is_sure()


# Trouble.


@pytest.mark.by_turns
async def test_requests_wait_for_a_store_that_is_away_for_a_while() -> None:
    cluster = Cluster()
    async with two_members(cluster, ttl_s=TTL_S) as (one, two):
        ids = [counter_of(cluster, 1), counter_of(cluster, 2)]
        for id in ids:
            await add(one.client, id)
        cluster.is_away = True
        done: list[int] = []

        async def ask(hub: Hub, id: EntityId[Counter], request: str) -> None:
            done.append(await hub.client.call_entity(id, Counter.add, 1, request_id=request))

        async def read(hub: Hub, id: EntityId[Counter]) -> None:
            assert await state_of(hub.client, id) >= 1

        async with anyio.create_task_group() as tasks:
            for n, hub in enumerate((one, two)):
                for m, id in enumerate(ids):
                    tasks.start_soon(ask, hub, id, f"r{n}{m}")
                    tasks.start_soon(read, hub, id)
            await anyio.sleep(1.3 * TTL_S)
            assert done == []
            cluster.is_away = False
        assert sorted(done) == [2, 2, 3, 3]


@pytest.mark.by_turns
async def test_requests_do_not_wait_for_ever_for_a_store_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tenure, "STORE_PATIENCE_S", 0.3)
    monkeypatch.setattr("perdure.runtime.partitions.recovery.STORE_PATIENCE_S", 0.3)
    monkeypatch.setattr(router, "PATIENCE_S", 0.3)
    cluster = Cluster()
    async with two_members(cluster, ttl_s=TTL_S) as (one, _):
        id = counter_of(cluster, 1)
        await add(one.client, id)
        cluster.is_away = True
        with anyio.fail_after(5):
            with pytest.raises(perdure.OutcomeUnknownError):  # a commit of it was on its way
                await add(one.client, id)
            with pytest.raises(UnavailableError, match="has not been"):
                await add(one.client, id)
            with pytest.raises(UnavailableError):
                await one.client.get_entity(id)
        cluster.is_away = False
        with anyio.fail_after(10):
            while True:
                try:
                    assert await add(one.client, id) == 2
                    break
                except UnavailableError:
                    await anyio.sleep(0.05)


@pytest.mark.by_turns
async def test_members_that_do_not_reach_each_other_go_on_through_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lost(self: Dialler, member: int, address: str) -> Any:
        raise TimeoutError("nothing comes back")

    cluster = Cluster()
    async with two_members(cluster) as (one, two):
        id = counter_of(cluster, 2)
        assert await add(one.client, id) == 1
        monkeypatch.setattr(Dialler, "dial", lost)
        for hub in (one, two):
            hub.crew.router.renew()
        with anyio.fail_after(10):
            for n in range(5):
                assert await one.client.call_entity(id, Counter.add, 1, request_id=f"{n}") == n + 2
            assert await run(one.client, tell, id.key) == 7
        assert len(owned(cluster, 2)) == 4, "nobody takes anything over for that"


def runs(hub: Hub) -> bool:
    try:
        return bool(hub.client)
    except HubStoppingError:
        return False


@pytest.mark.by_turns
async def test_a_hub_of_which_something_fails_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    may_fail = anyio.Event()

    async def fail(self: Leases) -> None:
        await may_fail.wait()
        raise ZeroDivisionError("of the leases")

    monkeypatch.setattr(Leases, "run", fail)
    hub = await hub_on(Cluster(), ttl_s=0.1).start()
    may_fail.set()
    await until(lambda: not runs(hub))
    with anyio.fail_after(10), pytest.raises(InternalError, match="has failed: of the leases"):
        await hub.stop()


# Ways in.


@pytest.mark.by_turns
async def test_a_client_of_one_member_reaches_all(tmp_path: Path) -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster, socket=tmp_path / "s") as one, hub_on(cluster) as two:
            await until(lambda: len(owned(cluster, 2)) == 4)
            async with perdure.connect(tmp_path / "s", app) as client:
                for member in (1, 2):
                    id = counter_of(cluster, member)
                    assert await add(client, id) == 1
                    assert await state_of(client, id) == 1
                    assert await client.call_entity(id, Counter.get) == 1
                counted = await client.statistics()
                assert len(counted.shards) == 2
                await client.move_partition(owned(cluster, 1)[0], member_of(two))
            assert member_of(one) == 1


def test_a_member_that_others_reach_over_a_network_needs_a_key() -> None:
    with pytest.raises(UsageError, match=r"node_key.*openssl rand"):
        Hub(app, store=Cluster().store(), node_listen="0.0.0.0:7000")
    Hub(app, store=Cluster().store(), node_listen="0.0.0.0:7000", node_key=b"k" * 16)
    with pytest.raises(UsageError, match="16 bytes at least"):
        Hub(app, store=Cluster().store(), node_key=b"short")


def test_a_member_at_all_addresses_says_which_one_others_dial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(listen="0.0.0.0:7000")
    monkeypatch.setattr(nodes, "own_addresses", lambda: ["10.0.0.5"])
    assert node.dialled_at("0.0.0.0", 7000) == "10.0.0.5:7000"
    monkeypatch.setattr(nodes, "own_addresses", lambda: ["10.0.0.5", "10.1.0.5"])
    with pytest.raises(UsageError, match=r"node_address.*10\.0\.0\.5, 10\.1\.0\.5"):
        node.dialled_at("0.0.0.0", 7000)
    node = Node(listen="0.0.0.0:0", address="db.example:0")
    assert node.dialled_at("0.0.0.0", 7123) == "db.example:7123"


def test_stores_that_one_hub_has_open_know_no_members() -> None:
    with pytest.raises(UsageError, match=r"node_listen.*has one owner"):
        Hub(app, node_listen="127.0.0.1:0")
    with pytest.raises(UsageError, match="one event loop"):
        Hub(app, store=Cluster().store(), shards=2)


def test_a_time_is_a_lease_as_any_other() -> None:
    assert Settings(lease_s=timedelta(seconds=3)).lease_s == 3.0
