"""A hub's figures, as Prometheus and OpenTelemetry read them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from perdure import (
    ActivityContext,
    App,
    EntityId,
    Hub,
    HubStoppingError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    RetryPolicy,
    Settings,
)
from perdure.adapters.telemetry import HubCollector, instrument, metrics_text
from perdure.adapters.telemetry.metrics import FIGURES
from perdure.runtime.durations import DurationCounter
from perdure.runtime.statistics import Durations
from tests.runtime.orchestrating import evict, quiet

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@app.entity
class Stuck:
    count: int = 0

    async def hold(self) -> None:
        await anyio.sleep_forever()


@app.activity
async def twice(ctx: ActivityContext) -> int:
    if ctx.attempt == 1:
        raise ValueError("once")
    return ctx.attempt


@app.activity
async def holds() -> None:
    await anyio.sleep_forever()


@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    retry = RetryPolicy(first_interval=0.001, max_attempts=2)
    found = await ctx.call_activity(twice, retry=retry)
    await ctx.wait_for_external_event("go")
    return found


@app.orchestration
async def held(ctx: OrchestrationContext) -> None:
    await ctx.task_all([ctx.call_activity(holds) for _ in range(3)])


Samples = dict[str, list[tuple[dict[str, str], float]]]


def samples(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(found: Samples, name: str, **labels: str) -> float:
    return sum(value for own, value in found[name] if labels.items() <= own.items())


async def test_prometheus_reads_what_the_hub_has_counted() -> None:
    async with Hub(app, partitions=2) as hub:
        handle = await hub.client.start_new(flow, instance_id="i")
        await hub.client.call_entity(EntityId(Counter, "x"), Counter.add, 1)
        await quiet(hub)
        await evict(hub)
        await handle.raise_event("go")
        assert await handle.result(10) == 2
        found = samples(await metrics_text(hub))
        counted = await hub.statistics()

    assert total(found, "perdure_turns_total") == counted.turns
    assert total(found, "perdure_messages_total") == counted.messages
    assert {labels["partition"] for labels, _ in found["perdure_turns_total"]} == {"0", "1"}
    assert total(found, "perdure_checkpoints_total") == counted.commits
    assert total(found, "perdure_checkpoint_duration_seconds_count") == counted.commits
    assert total(found, "perdure_checkpoint_duration_seconds_sum") > 0
    assert total(found, "perdure_checkpoint_payload_bytes_total") > 0
    assert total(found, "perdure_replays_total") == 1
    assert total(found, "perdure_replayed_events_total") > 3
    assert total(found, "perdure_activity_duration_seconds_count", activity="twice") == 2
    assert total(found, "perdure_activity_failures_total", activity="twice") == 1
    assert total(found, "perdure_activity_retries_total", activity="twice") == 1
    assert total(found, "perdure_shard_busy_seconds_total", shard="0") > 0


async def test_every_figure_is_exposed_and_nothing_else() -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(flow)
        await quiet(hub)
        await handle.raise_event("go")
        await handle.result(10)
        found = samples(await metrics_text(hub))

    # Those of members are of hubs that several processes serve: tests/cluster/test_counted.py.
    # Those of a migration are of hubs that move: tests/cluster/test_migrating.py.
    of_members = ("members", "member", "unserved", "beat", "leases", "takeover", "relayed")
    kinds = (*of_members, "connection", "migration")
    assert found.keys() == {
        name
        for figure in FIGURES
        if figure.name.split(".")[1] not in kinds
        for name in figure.exposed
    }


async def test_what_waits_and_since_when_is_told() -> None:
    async with Hub(app, settings=Settings(activities_max=1, drain_s=0.01)) as hub:
        await hub.client.start_new(held)
        while not (await hub.statistics()).shards[0].waiting_activities:
            await anyio.sleep(0.001)
        found = samples(await metrics_text(hub))
        later = samples(await metrics_text(hub))

    assert total(found, "perdure_activities") == 3
    assert total(found, "perdure_activities_waiting") == 2
    age = "perdure_activities_waiting_age_seconds"
    assert 0 < total(found, age) < total(later, age)


async def test_how_long_an_actor_has_had_no_turn_though_messages_wait_is_told() -> None:
    clock = ManualClock()
    async with Hub(app, partitions=1, clock=clock, settings=Settings(drain_s=0.01)) as hub:
        stuck = EntityId(Stuck, "s")
        await hub.client.signal_entity(stuck, Stuck.hold)
        await hub.client.signal_entity(stuck, Stuck.hold)
        before = samples(await metrics_text(hub))
        clock.advance(90)
        found = samples(await metrics_text(hub))

    assert total(before, "perdure_waiting_age_seconds") == 0
    assert total(found, "perdure_waiting_age_seconds") == 90


async def test_parked_actors_are_counted() -> None:
    store = MemoryStore()
    async with Hub(app, store=store) as hub:
        await hub.client.start_new(flow, instance_id="i")
        await quiet(hub)
    async with Hub(App(), store=store) as hub:
        while not total(samples(await metrics_text(hub)), "perdure_parked_actors"):
            await anyio.sleep(0.001)
        found = samples(await metrics_text(hub))

    assert total(found, "perdure_parked_actors") == 1


async def test_a_hub_that_does_not_run_has_no_figures() -> None:
    hub = Hub(app)

    with pytest.raises(HubStoppingError):
        await metrics_text(hub)
    assert [*HubCollector(hub).collect()] == []


async def test_a_programs_own_registry_reads_snapshots_in_any_thread() -> None:
    from prometheus_client.exposition import generate_latest

    registry = CollectorRegistry()
    async with Hub(app) as hub:
        registry.register(HubCollector(hub))
        await hub.client.call_entity(EntityId(Counter, "x"), Counter.add, 1)
        found = samples((await to_thread.run_sync(generate_latest, registry)).decode())

    assert total(found, "perdure_turns_total") == 1


async def test_opentelemetry_reads_the_same_figures() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    async with Hub(app, partitions=2) as hub:
        instrument(hub, provider)
        await hub.client.call_entity(EntityId(Counter, "x"), Counter.add, 1)
        data = await to_thread.run_sync(reader.get_metrics_data)
        on_loop = reader.get_metrics_data()  # does not wait, and has the last ones
    provider.shutdown()

    for one in (data, on_loop):
        assert one is not None
        found: dict[str, Any] = {
            metric.name: metric
            for resource in one.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        points = found["perdure.turns"].data.data_points
        assert sum(point.value for point in points) == 1
        assert {point.attributes["partition"] for point in points} == {"0", "1"}
        assert found["perdure.checkpoint.duration"].unit == "s"
        points = found["perdure.checkpoint.duration.count"].data.data_points
        assert sum(point.value for point in points) == 1


async def test_the_thread_of_snapshots_ends_with_the_hub() -> None:
    others = {*threading.enumerate()}
    async with Hub(app) as hub:
        collector = HubCollector(hub)
        await to_thread.run_sync(lambda: [*collector.collect()])
        begun = {*threading.enumerate()} - others
        [thread] = [one for one in begun if one.name == "perdure-metrics"]

    await to_thread.run_sync(partial(thread.join, 10))
    assert not thread.is_alive()


def test_durations_are_counted_up_to_their_bounds() -> None:
    counter = DurationCounter()
    for seconds in (0.0, 0.0005, 0.0006, 300.0, 301.0):
        counter.add(seconds)

    found = counter.read()
    assert found.counts[:2] == (2, 1)
    assert found.counts[-2:] == (1, 1)
    assert found.count == 5
    assert found.total_s == pytest.approx(601.0011)
    assert len(found.counts) == len(Durations.BOUNDS_S) + 1


DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana" / "perdure.json"


def queries_in(dashboard: dict[str, Any]) -> Iterator[str]:
    """Give the queries of a dashboard: its panels', and those of what can be chosen."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable.get("definition", "")


def names_in(dashboard: dict[str, Any]) -> set[str]:
    """Find the metrics that the queries of a dashboard name."""
    return {
        name for query in queries_in(dashboard) for name in re.findall(r"perdure_[a-z_]+", query)
    }


def test_the_dashboard_names_figures_that_there_are_and_shows_most_of_them() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    exposed = {name for figure in FIGURES for name in figure.exposed}

    named = names_in(dashboard)

    assert named <= exposed
    assert len(named) >= 20
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["targets"] and panel["title"] for panel in panels)
