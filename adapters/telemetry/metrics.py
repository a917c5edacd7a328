"""Metrics: what a hub counts anyway, as OpenTelemetry instruments and as Prometheus reads it.

One table says what there is; both are made from it. Whoever reads gets a snapshot of the hub's
statistics, which is at most some seconds old, and is renewed each second only while somebody reads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Literal, NamedTuple, Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from perdure import (
    ActivityStatistics,
    Durations,
    Hub,
    HubStatistics,
    MembershipStatistics,
    MigrationStatus,
    PartitionStatistics,
    PerdureError,
    ShardStatistics,
    __version__,
)

#: The ``Content-Type`` of what ``metrics_text`` gives.
METRICS_CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

#: Seconds between two looks, and after the last reader until there are no more.
_EVERY_S, _IDLE_S = 1.0, 10.0
#: Seconds that a reader waits for the first look.
_WAIT_S = 5.0

Labels = Mapping[str, str]


class Counted(Protocol):
    """What has statistics: a ``Hub``, a ``Client``, a ``HubView``."""

    async def statistics(self) -> HubStatistics:
        """Give the counters."""
        ...


Nodes = Literal["own", "all"]


async def _counted(hub: Counted, nodes: Nodes = "own") -> HubStatistics:
    """Count what a process has by itself; a client has nothing, and asks for all."""
    if nodes == "own" and isinstance(hub, Hub):
        return await hub.own_statistics()
    return await hub.statistics()


class Reading(NamedTuple):
    """One figure: what it is of, and how much; or how long things took."""

    labels: Labels
    value: float | Durations


class Figure(NamedTuple):
    """Something that is measured.

    ``unit`` is a word of Prometheus's, or none; what OpenTelemetry calls it has dots.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: Literal["", "seconds", "bytes"]
    says: str
    read: Callable[[HubStatistics], Iterable[Reading]]

    @property
    def family(self) -> str:
        """The name at Prometheus, without the ``_total`` of a counter."""
        name = self.name.replace(".", "_")
        return f"{name}_{self.unit}" if self.unit else name

    @property
    def exposed(self) -> list[str]:
        """The names of the series at Prometheus."""
        if self.kind == "histogram":
            return [f"{self.family}_{part}" for part in ("bucket", "count", "sum")]
        return [f"{self.family}_total" if self.kind == "counter" else self.family]


def _of_partitions(
    read: Callable[[PartitionStatistics], float],
) -> Callable[[HubStatistics], Iterable[Reading]]:
    def readings(statistics: HubStatistics) -> Iterator[Reading]:
        for one in statistics.partitions:
            yield Reading({"partition": str(one.index)}, read(one))

    return readings


def _of_shards(
    read: Callable[[ShardStatistics], float],
) -> Callable[[HubStatistics], Iterable[Reading]]:
    def readings(statistics: HubStatistics) -> Iterator[Reading]:
        for one in statistics.shards:
            yield Reading({"shard": str(one.index)}, read(one))

    return readings


def _of_activities(
    read: Callable[[ActivityStatistics], float | Durations],
) -> Callable[[HubStatistics], Iterable[Reading]]:
    def readings(statistics: HubStatistics) -> Iterator[Reading]:
        for shard in statistics.shards:
            for one in shard.by_activity:
                labels = {"activity": one.name, "shard": str(shard.index)}
                yield Reading(labels, read(one))

    return readings


def _of_members(
    read: Callable[[MembershipStatistics], float | Durations],
) -> Callable[[HubStatistics], Iterable[Reading]]:
    def readings(statistics: HubStatistics) -> Iterator[Reading]:
        for one in statistics.shards:
            if one.membership is not None:
                yield Reading({"member": str(one.index)}, read(one.membership))

    return readings


def _partitions_owned(statistics: HubStatistics) -> Iterator[Reading]:
    for one in statistics.shards:
        if one.membership is not None:
            yield Reading({"member": str(one.index)}, len(one.partitions))


def _checkpoint_durations(statistics: HubStatistics) -> Iterator[Reading]:
    for one in statistics.partitions:
        yield Reading({"partition": str(one.index)}, one.commit_durations)


def _silent(statistics: HubStatistics) -> Iterator[Reading]:
    yield Reading({}, len(statistics.silent))


def _restarted(statistics: HubStatistics) -> Iterator[Reading]:
    yield Reading({}, statistics.restarted)


def _of_migration(
    read: Callable[[MigrationStatus], float],
) -> Callable[[HubStatistics], Iterable[Reading]]:
    def readings(statistics: HubStatistics) -> Iterator[Reading]:
        if statistics.migration is not None:
            yield Reading({}, read(statistics.migration))

    return readings


def _migration_states(statistics: HubStatistics) -> Iterator[Reading]:
    if (migration := statistics.migration) is None:
        return
    is_troubled = migration.trouble is not None
    states = {
        "moving": not (migration.has_ended or is_troubled),
        "troubled": is_troubled,
        "ended": migration.has_ended and not is_troubled,
    }
    for state, is_now in states.items():
        yield Reading({"state": state}, float(is_now))


FIGURES = (
    Figure(
        "perdure.turns", "counter", "", "Turns of actors.", _of_partitions(lambda one: one.turns)
    ),
    Figure(
        "perdure.messages",
        "counter",
        "",
        "Messages that turns took.",
        _of_partitions(lambda one: one.messages),
    ),
    Figure(
        "perdure.checkpoints",
        "counter",
        "",
        "Checkpoints stored.",
        _of_partitions(lambda one: one.commits),
    ),
    Figure(
        "perdure.checkpoint.duration",
        "histogram",
        "seconds",
        "How long the store took for each checkpoint.",
        _checkpoint_durations,
    ),
    Figure(
        "perdure.checkpoint.payload",
        "counter",
        "bytes",
        "Payloads that the turns of stored checkpoints took and sent.",
        _of_partitions(lambda one: one.committed_bytes),
    ),
    Figure(
        "perdure.sent.away",
        "counter",
        "",
        "Messages sent to other partitions.",
        _of_partitions(lambda one: one.sent_away),
    ),
    Figure(
        "perdure.failed.operations",
        "counter",
        "",
        "Signalled operations that failed and were rolled back.",
        _of_partitions(lambda one: one.failed_operations),
    ),
    Figure(
        "perdure.failed.calls",
        "counter",
        "",
        "Calls of orchestrations that failed and that nobody looked at.",
        _of_partitions(lambda one: one.failed_calls),
    ),
    Figure(
        "perdure.replays",
        "counter",
        "",
        "Histories that were replayed.",
        _of_partitions(lambda one: one.replays),
    ),
    Figure(
        "perdure.replayed.events",
        "counter",
        "",
        "Events of histories that were replayed.",
        _of_partitions(lambda one: one.replayed_events),
    ),
    Figure(
        "perdure.waiting.messages",
        "gauge",
        "",
        "Messages in mailboxes that no turn has consumed.",
        _of_partitions(lambda one: one.waiting),
    ),
    Figure(
        "perdure.stored.messages",
        "gauge",
        "",
        "Waiting messages that lie in the store alone.",
        _of_partitions(lambda one: one.stored),
    ),
    Figure(
        "perdure.owed.messages",
        "gauge",
        "",
        "Messages to other partitions that these have not made durable yet.",
        _of_partitions(lambda one: one.owed),
    ),
    Figure(
        "perdure.waiting.age",
        "gauge",
        "seconds",
        "Time since the last turn of the actor with waiting messages that has had none for longest.",
        _of_partitions(lambda one: one.longest_wait_s),
    ),
    Figure(
        "perdure.activations",
        "gauge",
        "",
        "Actors in memory.",
        _of_partitions(lambda one: one.activations),
    ),
    Figure(
        "perdure.parked.actors",
        "gauge",
        "",
        "Parked actors in memory.",
        _of_partitions(lambda one: one.parked),
    ),
    Figure(
        "perdure.store",
        "gauge",
        "bytes",
        "What partitions take in the store.",
        _of_partitions(lambda one: one.stored_bytes),
    ),
    Figure(
        "perdure.unapplied.checkpoints",
        "gauge",
        "",
        "Checkpoints in the journals that the tables lack still.",
        _of_partitions(lambda one: one.unapplied),
    ),
    Figure(
        "perdure.partition.shard",
        "gauge",
        "",
        "The shard that serves a partition.",
        _of_partitions(lambda one: one.shard),
    ),
    Figure(
        "perdure.shard.busy",
        "counter",
        "seconds",
        "Time that event loops spent in turns.",
        _of_shards(lambda one: one.busy_s),
    ),
    Figure(
        "perdure.shard.replaced",
        "counter",
        "",
        "Tasks of event loops that ended or were spoilt, and were replaced.",
        _of_shards(lambda one: one.replaced),
    ),
    Figure(
        "perdure.activities",
        "gauge",
        "",
        "Activities that run or wait to run.",
        _of_shards(lambda one: one.activities),
    ),
    Figure(
        "perdure.activities.waiting",
        "gauge",
        "",
        "Activities that their limits have not let begin.",
        _of_shards(lambda one: one.waiting_activities),
    ),
    Figure(
        "perdure.activities.waiting.age",
        "gauge",
        "seconds",
        "How long the activity that was called first has waited for its limits.",
        _of_shards(lambda one: one.longest_wait_s),
    ),
    Figure(
        "perdure.activities.abandoned",
        "gauge",
        "",
        "Attempts that go on though their answers are not wanted any more.",
        _of_shards(lambda one: one.abandoned),
    ),
    Figure(
        "perdure.activity.duration",
        "histogram",
        "seconds",
        "How long the code of attempts took.",
        _of_activities(lambda one: one.durations),
    ),
    Figure(
        "perdure.activity.failures",
        "counter",
        "",
        "Attempts that failed.",
        _of_activities(lambda one: one.failed),
    ),
    Figure(
        "perdure.activity.retries",
        "counter",
        "",
        "Attempts that were not the first of their call.",
        _of_activities(lambda one: one.retried),
    ),
    Figure(
        "perdure.members",
        "gauge",
        "",
        "Processes that serve the hub, as each of them sees it.",
        _of_members(lambda one: one.members),
    ),
    Figure(
        "perdure.member.partitions",
        "gauge",
        "",
        "Partitions that a process serves.",
        _partitions_owned,
    ),
    Figure(
        "perdure.unserved.partitions",
        "gauge",
        "",
        "Partitions that no process has, as each of them sees it.",
        _of_members(lambda one: one.unserved),
    ),
    Figure(
        "perdure.beat.age",
        "gauge",
        "seconds",
        "Time since a process said that it lives, and the store heard it.",
        _of_members(lambda one: one.beat_age_s),
    ),
    Figure(
        "perdure.leases.lost",
        "counter",
        "",
        "Partitions that a process served until others had them, or might.",
        _of_members(lambda one: one.lost),
    ),
    Figure(
        "perdure.takeover.duration",
        "histogram",
        "seconds",
        "How long it took until a partition was served that a process took over.",
        _of_members(lambda one: one.takeovers),
    ),
    Figure(
        "perdure.relayed.frames",
        "counter",
        "",
        "Pieces that went to other processes through the store.",
        _of_members(lambda one: one.relayed),
    ),
    Figure(
        "perdure.connection.waits",
        "counter",
        "",
        "Waits for a connection to the store, of those that may wait there for somebody's lock.",
        _of_members(lambda one: one.waits),
    ),
    Figure(
        "perdure.migration.partitions",
        "gauge",
        "",
        "Partitions of a hub that goes to another store.",
        _of_migration(lambda one: one.partitions),
    ),
    Figure(
        "perdure.migration.moved.partitions",
        "gauge",
        "",
        "Those of them that are there.",
        _of_migration(lambda one: len(one.moved)),
    ),
    Figure(
        "perdure.migration.copied.rows",
        "counter",
        "",
        "Rows that were copied to another store, and again where that had to be.",
        _of_migration(lambda one: one.copied_rows),
    ),
    Figure(
        "perdure.migration.longest.pause",
        "gauge",
        "seconds",
        "For how long a partition that moved was not served, at most.",
        _of_migration(lambda one: one.longest_pause_s),
    ),
    Figure(
        "perdure.migration.state",
        "gauge",
        "",
        "Whether a hub that goes to another store does so, is tried again, or has come.",
        _migration_states,
    ),
    Figure(
        "perdure.silent.shards",
        "gauge",
        "",
        "Event loops that did not answer in time, and are left out elsewhere.",
        _silent,
    ),
    Figure(
        "perdure.loops.restarted",
        "counter",
        "",
        "Loops of the hub that ended by an error and were begun anew.",
        _restarted,
    ),
)


class Snapshots:
    """The latest statistics of a hub, for whoever reads in any thread.

    A thread of its own renews them each second while somebody reads, and ends when nobody has for a
    while.

    Args:
        hub: what has them.
    """

    def __init__(self, hub: Counted) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._latest: HubStatistics | None = None
        self._looked = threading.Event()
        self._thread: threading.Thread | None = None
        self._read_at = 0.0

    def read(self) -> HubStatistics | None:
        """Give the latest; None if there are none: the hub does not run.

        The first reader waits for them, unless it is on an event loop, which may be the hub's.
        """
        with self._lock:
            self._read_at = monotonic()
            if self._thread is None:
                self._looked.clear()
                self._thread = threading.Thread(
                    target=asyncio.run, args=[self._renew()], name="perdure-metrics", daemon=True
                )
                self._thread.start()
        if not _is_on_loop():
            self._looked.wait(_WAIT_S)
        return self._latest

    async def _renew(self) -> None:
        while True:
            try:
                self._latest = await _counted(self._hub)
            except PerdureError:  # it has stopped, or a part of it does not answer
                self._latest = None
            self._looked.set()
            await asyncio.sleep(_EVERY_S)
            with self._lock:
                if self._latest is None or monotonic() > self._read_at + _IDLE_S:
                    self._thread = self._latest = None
                    return


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return True
    try:
        import trio
    except ImportError:
        return False
    return trio.lowlevel.in_trio_run()


def families(statistics: HubStatistics) -> Iterator[Metric]:
    """Give a hub's figures as Prometheus takes them."""
    for figure in FIGURES:
        readings = [*figure.read(statistics)]
        labels = [*readings[0].labels] if readings else []
        yield _family(figure, labels, readings)


def _family(figure: Figure, labels: Sequence[str], readings: Sequence[Reading]) -> Metric:
    if figure.kind == "histogram":
        histogram = HistogramMetricFamily(figure.family, figure.says, labels=labels)
        for reading in readings:
            assert isinstance(reading.value, Durations)
            buckets = [*_buckets(reading.value)]
            histogram.add_metric([*reading.labels.values()], buckets, reading.value.total_s)
        return histogram
    made = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    family = made(figure.family, figure.says, labels=labels)
    for reading in readings:
        assert not isinstance(reading.value, Durations)
        family.add_metric([*reading.labels.values()], reading.value)
    return family


def _buckets(durations: Durations) -> Iterator[tuple[str, float]]:
    """Give how many took up to each bound, as Prometheus counts."""
    count = 0
    for bound, more in zip((*Durations.BOUNDS_S, None), durations.counts, strict=True):
        count += more
        yield "+Inf" if bound is None else f"{bound:g}", count


class HubCollector(Collector):
    """A hub's figures, for a ``CollectorRegistry``: ``REGISTRY.register(HubCollector(hub))``.

    Args:
        hub: a ``Hub``, whose own process and workers it has; or a client of one, for all.
    """

    def __init__(self, hub: Counted) -> None:
        self._snapshots = Snapshots(hub)

    def describe(self) -> Iterable[Metric]:
        """Say which there are, without asking the hub."""
        return [_family(figure, [], []) for figure in FIGURES]

    def collect(self) -> Iterable[Metric]:
        """Give them, from the latest snapshot; none if the hub does not run."""
        statistics = self._snapshots.read()
        return [] if statistics is None else families(statistics)


class _Once(Collector):
    """Figures that were read."""

    def __init__(self, statistics: HubStatistics) -> None:
        self._statistics = statistics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return families(self._statistics)


async def metrics_text(hub: Counted, nodes: Nodes = "own") -> str:
    """Give a hub's figures in Prometheus's text format, for ``/metrics``.

    Serve it as ``METRICS_CONTENT_TYPE``.

    Args:
        hub: a ``Hub``, or a client of one.
        nodes: of a hub that several processes serve, ``"own"`` gives the figures of this one and
            its workers, as Prometheus asks each of them; ``"all"`` gives those of all, as a client
            does in any case.

    Raises:
        HubStoppingError: the hub does not run.
    """
    registry = CollectorRegistry()
    registry.register(_Once(await _counted(hub, nodes)))
    return generate_latest(registry).decode()


def instrument(hub: Counted, meter_provider: MeterProvider | None = None) -> None:
    """Make OpenTelemetry instruments of a hub's figures, which are read when they are exported.

    Of what took how long, there is how long all of it took and how often it was; distributions are
    in ``metrics_text`` alone.

    Args:
        hub: a ``Hub``, whose own process and workers they are of; or a client of one, for all.
        meter_provider: where the instruments are made; by default the global provider.
    """
    meter = metrics.get_meter("perdure", __version__, meter_provider)
    snapshots = Snapshots(hub)
    for figure in FIGURES:
        unit = {"seconds": "s", "bytes": "By", "": "1"}[figure.unit]
        if figure.kind == "gauge":
            meter.create_observable_gauge(
                figure.name, [_observe(snapshots, figure)], unit, figure.says
            )
        else:
            meter.create_observable_counter(
                figure.name, [_observe(snapshots, figure)], unit, figure.says
            )
        if figure.kind == "histogram":
            meter.create_observable_counter(
                f"{figure.name}.count",
                [_observe(snapshots, figure, is_count=True)],
                "1",
                figure.says,
            )


def _observe(
    snapshots: Snapshots, figure: Figure, *, is_count: bool = False
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        statistics = snapshots.read()
        if statistics is None:
            return []
        return [
            Observation(_number(reading.value, is_count), reading.labels)
            for reading in figure.read(statistics)
        ]

    return observe


def _number(value: float | Durations, is_count: bool) -> float:
    if not isinstance(value, Durations):
        return value
    return value.count if is_count else value.total_s
