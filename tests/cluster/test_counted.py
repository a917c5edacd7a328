"""What members count of being members, and what is measured of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from perdure import App, Hub, MembershipStatistics, Settings
from perdure.adapters.http import create_app
from perdure.adapters.telemetry import metrics_text
from perdure.adapters.telemetry.metrics import FIGURES
from tests.cluster.small_cluster import Cluster, SmallMembership

app = App("shop")


def hub_on(cluster: Cluster) -> Hub:
    settings = Settings(lease_s=3.0, drain_s=2.0)
    return Hub(app, store=cluster.store(), partitions=4, settings=settings)


def owners(cluster: Cluster) -> list[int | None]:
    return [lease.owner for lease in cluster.leases]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.005)


async def counted(hub: Hub) -> dict[int, MembershipStatistics]:
    found = (await hub.statistics()).shards
    return {one.index: one.membership for one in found if one.membership is not None}


@pytest.mark.by_turns
async def test_take_overs_and_lost_leases_are_counted() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one, hub_on(cluster):
            await until(lambda: owners(cluster).count(1) == 2 == owners(cluster).count(2))
            before = await counted(one)

            cluster.unreachable.add(2)
            await until(lambda: owners(cluster) == [1, 1, 1, 1])
            cluster.unreachable.clear()
            await until(lambda: owners(cluster).count(3) == 2)
            with anyio.fail_after(30):
                while 3 not in (after := await counted(one)):
                    await anyio.sleep(0.01)

    assert {number: membership.members for number, membership in before.items()} == {1: 2, 2: 2}
    assert [one.lost for one in before.values()] == [0, 0]
    assert before[1].takeovers.count == 4
    assert after[1].takeovers.count == 6
    assert after[1].takeovers.total_s > 0
    assert after[1].lost == 0
    assert after[3].lost == 2
    assert after[1].beat_age_s < 3.0


async def test_partitions_that_nobody_has_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        return None

    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as hub:
            before = await counted(hub)
            with monkeypatch.context() as patch:
                patch.setattr(SmallMembership, "take", refuse)
                cluster.leases[2] = cluster.leases[2]._replace(owner=None)
                cluster.notify()
                while not (after := await counted(hub))[1].unserved:
                    await anyio.sleep(0.01)

    assert before[1].unserved == 0
    assert after[1].unserved == 1


def partitions_in(text: str) -> list[str]:
    return re.findall(r'^perdure_turns_total\{partition="(\d)"\}', text, re.MULTILINE)


def members_in(text: str) -> list[str]:
    return re.findall(r'^perdure_members\{member="(\d)"\}', text, re.MULTILINE)


@pytest.mark.by_turns
async def test_each_node_gives_its_own_figures_and_all_only_where_asked() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one, hub_on(cluster) as two:
            await until(lambda: owners(cluster).count(1) == 2 == owners(cluster).count(2))
            owners_then = owners(cluster)
            texts = [await metrics_text(hub) for hub in (one, two)]
            everything = await metrics_text(one, "all")
            of_client = await metrics_text(two.client)
            transport = httpx.ASGITransport(create_app(one))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                own = await http.get("/metrics")
                of_all = await http.get("/metrics?nodes=all")
                wrong = await http.get("/metrics?nodes=some")
            counted = await two.own_statistics()

    for number, text in enumerate(texts, 1):
        has = [str(n) for n, owner in enumerate(owners_then) if owner == number]
        assert (partitions_in(text), members_in(text)) == (has, [str(number)])
    for text in (everything, of_client, of_all.text):
        assert (partitions_in(text), members_in(text)) == ([*"0123"], [*"12"])
    assert (partitions_in(own.text), members_in(own.text)) == (partitions_in(texts[0]), ["1"])
    assert wrong.status_code == 400
    assert [shard.index for shard in counted.shards] == [2]
    assert re.findall(
        r'^perdure_connection_waits_total\{member="(\d)"\} (\d+)', everything, re.MULTILINE
    ) == [
        ("1", "10"),
        ("2", "20"),
    ]


async def test_every_figure_of_members_is_exposed_by_member() -> None:
    cluster = Cluster()
    with anyio.fail_after(60):
        async with hub_on(cluster) as one, hub_on(cluster):
            await until(lambda: owners(cluster).count(1) == 2 == owners(cluster).count(2))
            text = await metrics_text(one)

    found = {
        sample.name: sample.labels
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    of_members = {name for name, labels in found.items() if "member" in labels}
    assert of_members == {
        name
        for figure in FIGURES
        for name in figure.exposed
        if figure.name.removeprefix("perdure.").split(".")[0]
        in ("members", "member", "unserved", "beat", "leases", "takeover", "relayed", "connection")
    }
    assert len(of_members) == 10
