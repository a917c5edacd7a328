"""What a hub says of the processes that serve it, and that one of them can be drained."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import httpx
import orjson
import pytest

from perdure import App, EntityId, Hub, HubNodes, HubStoppingError, Settings, UsageError, read_nodes
from perdure.adapters.http import create_app
from perdure.adapters.telemetry import metrics_text
from perdure.runtime.client.nodes import read_view
from perdure.runtime.facts import read_fact
from perdure.storage.membership import LeaseRow, MemberRow, View
from perdure.storage.postgres import folding
from tests.cluster.small_cluster import Cluster

URL = "http://localhost"
app = App("shop")


@app.entity
class Bell:
    rung: int = 0

    def ring(self) -> None:
        self.rung += 1


def hub_on(cluster: Cluster) -> Hub:
    return Hub(
        app,
        store=cluster.store(),
        partitions=4,
        settings=Settings(lease_s=6.0, drain_s=2.0),
        node_http="http://here:80",
    )


def owners(cluster: Cluster) -> list[int | None]:
    return [lease.owner for lease in cluster.leases]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.005)


@pytest.mark.by_turns
async def test_each_member_says_who_serves_what() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one, hub_on(cluster) as two:
            await until(lambda: owners(cluster).count(1) == 2 == owners(cluster).count(2))

            first, second = await one.nodes(), await two.client.nodes()

            assert first.is_cluster
            assert read_fact(HubNodes, orjson.loads(orjson.dumps(first.to_dict()))) == first
            assert first.free == ()
            assert [node.member for node in first.nodes] == [1, 2]
            assert [node.is_this for node in first.nodes] == [True, False]
            assert [node.is_this for node in second.nodes] == [False, True]
            assert {node.http for node in first.nodes} == {"http://here:80"}
            for node in first.nodes:
                has = {
                    number for number, owner in enumerate(owners(cluster)) if owner == node.member
                }
                assert {part.index for part in node.partitions} == has
                assert not node.is_expired
                assert not node.is_other_version


async def test_a_hub_that_starts_says_who_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, is_ready = hub_on(Cluster()), anyio.Event()
    comes_up = anyio.Event()
    told: list[HubNodes] = []

    async def ready() -> None:
        comes_up.set()
        await is_ready.wait()

    async def ask() -> None:
        told.append(await hub.nodes())

    statuses: list[int] = []

    async def get() -> None:
        statuses.append((await web.get("/api/v1/nodes")).status_code)

    monkeypatch.setattr(hub.crew, "ready", ready)
    web = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(hub)), base_url=URL)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, web:
            tasks.start_soon(hub.start)
            await comes_up.wait()
            # Asked by a client of another process, it does not wait; else it has no client yet.
            handler = hub.crew.handlers["ask"]
            seen = read_fact(HubNodes, await handler("nodes", {}))
            assert [node.member for node in seen.nodes] == [1]
            with pytest.raises(HubStoppingError):
                await handler("count", {})
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert not told
            tasks.start_soon(get)
            await anyio.wait_all_tasks_blocked()
            is_ready.set()
        [answer] = told
        assert statuses == [200]
        assert [node.member for node in answer.nodes] == [1]
        await hub.stop()


@pytest.mark.by_turns
async def test_what_is_in_the_journal_only_is_told_of_each_partition(
    newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "GATHER_S", 3600.0)
    with anyio.fail_after(60):
        async with Hub(app, store=newest_postgres, partitions=4) as hub:
            for number in range(3):
                await hub.client.signal_entity(EntityId(Bell, str(number)), Bell.ring)
            counted = {one.index: one.unapplied for one in (await hub.statistics()).partitions}
            [node] = (await hub.nodes()).nodes
            [seen] = (await read_nodes(newest_postgres)).nodes
            web = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(hub)), base_url=URL)
            [told] = (await web.get("/api/v1/nodes")).json()["nodes"]
            metrics = await metrics_text(hub)
        [*free] = (await read_nodes(newest_postgres)).free

    assert sum(counted.values()) >= 3
    assert {part.index: part.unapplied for part in node.partitions} == counted
    assert {part.index: part.unapplied for part in seen.partitions} == counted
    assert {part["index"]: part["unapplied"] for part in told["partitions"]} == counted
    for index, count in counted.items():
        assert f'perdure_unapplied_checkpoints{{partition="{index}"}} {count}.0' in metrics
    assert [part.unapplied for part in free] == [0, 0, 0, 0]


@pytest.mark.by_turns
async def test_a_drained_member_has_nothing_until_it_is_undrained() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one, hub_on(cluster) as two:
            await until(lambda: owners(cluster).count(1) == 2 == owners(cluster).count(2))

            await one.client.drain_node(2)
            await until(lambda: owners(cluster) == [1, 1, 1, 1])
            assert [node.is_draining for node in (await one.nodes()).nodes] == [False, True]
            await two.undrain_node(2)
            await until(lambda: owners(cluster).count(2) == 2)


async def test_no_member_is_drained_that_is_not_there() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as hub:
            with pytest.raises(UsageError, match="there is no member 7 now; there are 1"):
                await hub.drain_node(7)
            with pytest.raises(UsageError, match="member must be an int"):
                await hub.drain_node(2**63)
        with pytest.raises(HubStoppingError):
            await hub.nodes()


def row(member: int, app_hash: str, *, expired: bool = False) -> MemberRow:
    return MemberRow(
        member, "a:1", "a", 1, "0.1", "shop", app_hash, None, 1.0, False, 0, -0.1, expired
    )


def test_versions_are_compared_with_who_is_asked_else_with_the_newest_that_lives() -> None:
    view = View([row(1, "old"), row(2, "new"), row(3, "newest", expired=True)], [])

    asked = read_view(view, 1)
    looked_at = read_view(view)

    assert [node.is_other_version for node in asked.nodes] == [False, True, True]
    assert [node.is_other_version for node in looked_at.nodes] == [True, False, True]
    assert [node.beat_age_s for node in looked_at.nodes] == [0.0] * 3


def test_what_a_forgotten_member_had_is_free() -> None:
    view = View(
        [row(2, "new")], [LeaseRow(0, 3, 1, None), LeaseRow(1, 4, None, 2), LeaseRow(2, 5, 2, None)]
    )

    seen = read_view(view)

    assert [(one.index, one.epoch, one.wanted) for one in seen.free] == [(0, 3, None), (1, 4, 2)]
    assert [one.index for one in seen.nodes[0].partitions] == [2]
