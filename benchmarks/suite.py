"""Which benchmarks there are, what each asks, and how its plot is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import frozen

from .bank import measure_bank
from .bench import Bench
from .cluster import measure_cluster
from .crossing import measure_crossing
from .figures import Outcome
from .growth import measure_growth
from .hotspot import measure_hotspot
from .http import measure_http
from .isolation import measure_isolation
from .latency import measure_latency
from .memory import measure_memory
from .postgres import measure_postgres
from .rebalance import measure_rebalance
from .replay import measure_replay
from .sharding import measure_sharding
from .stripes import measure_stripes
from .wordcount import measure_wordcount
from .workloads import (
    measure_fanout,
    measure_hello,
    measure_hot,
    measure_signal,
    measure_spread,
)

Measure = Callable[[Bench], Awaitable[Outcome]]


@frozen
class Benchmark:
    """One benchmark.

    Attributes:
        measure: runs it once.
        about: what it measures, in a line.
    """

    measure: Measure
    about: str


BENCHMARKS: dict[str, Benchmark] = {
    "hello": Benchmark(measure_hello, "orchestrations of three activities, under load and alone"),
    "fanout": Benchmark(measure_fanout, "orchestrations that run a thousand activities at once"),
    "hot": Benchmark(measure_hot, "signals to and calls of one single entity"),
    "spread": Benchmark(measure_spread, "signals that go round a thousand entities"),
    "signal": Benchmark(measure_signal, "orchestrations that signal ten entities each"),
    "replay": Benchmark(measure_replay, "a history of 10,001 events, replayed after a restart"),
    "hotspot": Benchmark(
        measure_hotspot, "ever more of the traffic to one key, then Zipf: do the others wait?"
    ),
    "isolation": Benchmark(
        measure_isolation,
        "calls of cold entities while a load is spread, or all on one key of their shard or another",
    ),
    "stripes": Benchmark(
        measure_stripes, "one entity that all partitions signal, plain and striped, on two shards"
    ),
    "sharding": Benchmark(
        measure_sharding, "hellos and signals made inside the hub, on 1, 2 and 4 shards"
    ),
    "crossing": Benchmark(
        measure_crossing, "signals to the same partition, to another, and to another shard"
    ),
    "rebalance": Benchmark(measure_rebalance, "calls while a partition moves to another shard"),
    "latency": Benchmark(
        measure_latency, "percentiles in an open loop, at 10 to 90 % of the greatest rate"
    ),
    "bank": Benchmark(measure_bank, "transfers under entity locks, audited while they run"),
    "wordcount": Benchmark(
        measure_wordcount, "words of real text: activities map, entities reduce"
    ),
    "growth": Benchmark(
        measure_growth, "operations beside 1,000 to 100,000 actors (--long: a million)"
    ),
    "http": Benchmark(
        measure_http, "hellos, signals, statuses and event streams over HTTP, from another process"
    ),
    "postgres": Benchmark(
        measure_postgres, "hellos and signals on PostgreSQL, beside SQLite and by turns"
    ),
    "cluster": Benchmark(
        measure_cluster,
        "hellos on 1, 2 and 4 nodes with one PostgreSQL; pauses at deaths, silence and moves",
    ),
    "memory": Benchmark(measure_memory, "bytes of an idle orchestration and of an idle entity"),
}


@frozen
class Section:
    """A part of the report: benchmarks that share a plot.

    Attributes:
        title: its heading.
        names: which benchmarks.
        question: what the plot answers.
        reading: how to read it.
    """

    title: str
    names: tuple[str, ...]
    question: str
    reading: str

    @property
    def slug(self) -> str:
        """The title as a name of files and links."""
        return self.title.lower().replace(" ", "-")


BASIC = ("hello", "fanout", "hot", "spread", "signal", "http")

SECTIONS = (
    Section(
        "Basic loads",
        BASIC,
        "How much can it do, and what does an operation cost?",
        "Each row is a load in a closed loop: clients that send the next request when the last is "
        "answered. Longer bars are better on the left; on the right, further left is better, and "
        "the line between the dots is the way from the median to the 99th percentile. Under full "
        "load most of a latency is waiting in line. The first three axes are logarithmic.",
    ),
    Section(
        "PostgreSQL",
        ("postgres",),
        "What does a hub in a database of its own do, beside one in files?",
        "The same loads by turns on both stores, in one process. The server runs on the same "
        "processors and takes its part of them, so this is the worst case of it.",
    ),
    Section(
        "Cluster",
        ("cluster",),
        "What does an operation cost on more nodes?",
        "Nodes, load and database share the processors of one machine, so more nodes are no faster "
        "here. Flat bars say that they would be on processors of their own.",
    ),
    Section(
        "Latency",
        ("latency",),
        "How long does a request take when the hub is not flooded?",
        "Requests are sent by a schedule that was fixed beforehand, and each latency counts from "
        "the time at which its request should have been sent, so that a stall is charged to all "
        "that it delayed (no coordinated omission). Each step to the right is ten times as rare: "
        "at 99.9 % one request in a thousand takes longer. Flat is good; a line that rises early "
        "has a long tail.",
    ),
    Section(
        "Hot keys",
        ("hotspot",),
        "Does one hot key slow the others down?",
        "To the right, the load is more and more skewed. If the cold keys' line (few want them) "
        "stays with that of all keys or below, nobody waits behind the hot key. The last panel "
        "shows the busiest partition: a turn takes all that waits for one key, so its share of the "
        "turns can stay even where its share of the messages does not. All of it is on one loop, "
        "where stripes can only cost something.",
    ),
    Section(
        "Isolation",
        ("isolation",),
        "Do the others notice that all load goes to one key?",
        "A client calls cold entities at a low rate, by a schedule. The dots are their 99th "
        "percentile: without a load, with one that is spread evenly over a thousand keys or over "
        "a few, and with all of it on one key, at the same rate. If the red one is not to the right "
        "of the blue and the green one, nobody waits behind the hot key; the figures are what it "
        "is of these two. The distance from the grey one is what any load costs.",
    ),
    Section(
        "Stripes",
        ("stripes",),
        "How much more does a striped entity take?",
        "Operations on one entity, sent from all partitions on two shards. Plain, they all go to "
        "its home; striped, they stay where they are, so that both processors have half of the "
        "work. Threads share one processor's worth of Python, so they gain nothing.",
    ),
    Section(
        "Shards",
        ("sharding",),
        "How much faster is it on more shards?",
        "The dotted line is as many times faster as there are shards. One shard uses a part of a "
        "second processor already, for SQLite, and more shards cannot use more processors than "
        "there are: the lower panels say what an operation took, and how many were used. "
        "Balance is the busiest shard's messages over the mean: 1 is even.",
    ),
    Section(
        "Crossing",
        ("crossing",),
        "What does it cost to signal somebody on another shard?",
        "Drivers in one partition signal entities in their own, in another one of the same shard, "
        "and on another shard, in turn. Processor time is of all processes together.",
    ),
    Section(
        "Rebalancing",
        ("rebalance",),
        "What happens while a partition moves?",
        "The shaded part is the move. The moved partition's line may fall to zero there, for as "
        "long as its pause; that of the others should not notice.",
    ),
    Section(
        "Bank",
        ("bank",),
        "What do transactions over two entities take?",
        "The percentiles of transfers between two locked accounts, and of audits that lock ten "
        "accounts at once while transfers run. A transfer waits for others that want its accounts, "
        "so the tail is the queue for the most wanted ones.",
    ),
    Section(
        "Word count",
        ("wordcount",),
        "What does it cost to make a computation durable?",
        "The time of a plain loop over the files, in memory, and of the durable map and reduce of "
        "the same files: every file's result and every reducer's state is on the disk.",
    ),
    Section(
        "Growth",
        ("growth",),
        "Does a full store slow it down?",
        "To the right, ten times as many actors are stored at each step. Flat is good. The dotted "
        "lines are the same operation on an empty store just before, as the machine's own noise.",
    ),
    Section(
        "Replay",
        ("replay",),
        "How long until a long history is live again?",
        "The time from an event to the result: for an instance that is in memory, and for one "
        "whose whole history must first be read and replayed.",
    ),
    Section(
        "Memory",
        ("memory",),
        "What does an actor take that only waits?",
        "Bytes that Python's allocators gave out for each idle actor.",
    ),
)
