"""Counters that say how loaded a hub is, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from attrs import frozen

from .durations import BOUNDS_S
from .facts import Fact, read_fact
from .migrations import MigrationStatus


@frozen(kw_only=True)
class Durations(Fact):
    """How long things took that were done.

    Attributes:
        BOUNDS_S: seconds, in order.
        total_s: seconds that they took together.
        counts: how many took up to each of the bounds, and longer than the one before; behind
            them, how many took longer than the last.
    """

    BOUNDS_S: ClassVar[tuple[float, ...]] = BOUNDS_S

    total_s: float = 0.0
    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


@frozen(kw_only=True)
class ActivityStatistics(Fact):
    """What one event loop has done of one activity since its counters were first asked for.

    Attributes:
        name: its name.
        ended: attempts whose code has ended.
        failed: those of them that failed.
        retried: those of them that were not the first of their call.
        durations: how long their code took.
    """

    name: str
    ended: int
    failed: int
    retried: int
    durations: Durations


@frozen(kw_only=True)
class PartitionStatistics(Fact):
    """What one partition has done since the hub was entered, and what it holds now.

    Attributes:
        index: which partition.
        shard: which shard serves it.
        commits: checkpoints stored.
        turns: turns whose checkpoint has been sealed.
        messages: messages that those turns took.
        sent_away: messages sent to other partitions.
        failed_operations: signalled operations that failed and were rolled back.
        failed_calls: calls of orchestrations that failed and that nobody looked at.
        waiting: messages in the mailboxes of its actors that no turn has consumed yet, and events
            that no orchestration has, in memory and in the store; such events only of instances
            that are in memory.
        stored: those of them that lie in the store alone.
        owed: messages to other partitions that these have not made durable yet.
        activations: actors in memory.
        stored_bytes: what it takes in the store, write-ahead log included; 0 in memory.
        unapplied: checkpoints that are durable in the store's journal, and not in its tables yet.
        commit_durations: how long the store took for each checkpoint.
        committed_bytes: bytes of the payloads that the turns of stored checkpoints took and sent.
        replays: histories of instances that were replayed, since these came into memory.
        replayed_events: the events in them.
        parked: parked actors in memory; one is brought there when a hub opens the store.
        longest_wait_s: of the actors for which messages wait, how long ago the one had its last
            turn that has had none for longest; 0 if none waits, or none of them had one yet.
        hottest: the actors that took most messages since they were loaded, with how many; empty
            unless asked for.
        fullest: the actors for which most messages wait, with how many; as ``hottest``.
    """

    index: int
    shard: int
    commits: int
    turns: int
    messages: int
    sent_away: int
    failed_operations: int
    failed_calls: int
    waiting: int
    stored: int = 0
    owed: int = 0
    activations: int
    stored_bytes: int
    unapplied: int = 0
    commit_durations: Durations = Durations()
    committed_bytes: int = 0
    replays: int = 0
    replayed_events: int = 0
    parked: int = 0
    longest_wait_s: float = 0.0
    hottest: tuple[tuple[str, int], ...] = ()
    fullest: tuple[tuple[str, int], ...] = ()


@frozen(kw_only=True)
class MembershipStatistics(Fact):
    """What a process has counted as one of those that serve a hub together.

    Attributes:
        members: how many of them live, as it sees it.
        unserved: partitions that none of these has, as it sees it.
        beat_age_s: seconds since it said last that it lives, and the store heard it.
        lost: partitions that it served and that others were found to have, or may have had, since
            it could not say so in time.
        takeovers: how long it took until it served a partition that nobody had, or whose process
            was gone: from when it asked the store for that one.
        relayed: pieces of what it had for others that went through the store, since they could not
            be reached.
        waits: how often something waited for a connection to the store, since all were in use that
            may wait there for somebody's lock.
    """

    members: int
    unserved: int
    beat_age_s: float
    lost: int
    takeovers: Durations
    relayed: int
    waits: int = 0


@frozen(kw_only=True)
class ShardStatistics(Fact):
    """What one event loop has done, and what it serves.

    Attributes:
        index: which shard.
        pid: the process it is in.
        busy_s: seconds that it spent in turns.
        activities: activities that run or wait to run.
        abandoned: attempts among them whose answer is not wanted any more, since they took too
            long or were cancelled, and that go on all the same.
        replaced: tasks of its own that ended or were spoilt by users' code, and were replaced.
        waiting_activities: those of ``activities`` that their limits have not let begin.
        longest_wait_s: how long the one that was called first has waited for that.
        by_activity: what it has done, by activity.
        partitions: which partitions it serves.
        membership: what it has counted as one of several processes; None where there is one.
    """

    index: int
    pid: int
    busy_s: float
    activities: int
    partitions: tuple[int, ...]
    abandoned: int = 0
    replaced: int = 0
    waiting_activities: int = 0
    longest_wait_s: float = 0.0
    by_activity: tuple[ActivityStatistics, ...] = ()
    membership: MembershipStatistics | None = None


@frozen(kw_only=True)
class SilentShard(Fact):
    """An event loop that did not answer when it was asked: code that does not return holds it.

    Attributes:
        index: which shard.
        silent_s: seconds since it was last heard of, or since it was first asked.
    """

    index: int
    silent_s: float


@frozen(kw_only=True)
class HubStatistics(Fact):
    """What a hub has done since it was entered, and what it holds now.

    Attributes:
        partitions: the same, of each partition.
        shards: the event loops that serve them.
        silent: those that did not answer in time; they and their partitions are left out above.
        restarted: loops of the hub that are no shard's (retention, balancing, the supervision of
            workers, the taking of connections) and ended by an error, and were begun anew.
        migration: how far it is on its way to another store; None if it goes to none.
    """

    partitions: tuple[PartitionStatistics, ...]
    shards: tuple[ShardStatistics, ...] = ()
    silent: tuple[SilentShard, ...] = ()
    restarted: int = 0
    migration: MigrationStatus | None = None

    @property
    def commits(self) -> int:
        """Checkpoints stored."""
        return sum(partition.commits for partition in self.partitions)

    @property
    def turns(self) -> int:
        """Turns whose checkpoint has been sealed."""
        return sum(partition.turns for partition in self.partitions)

    @property
    def messages(self) -> int:
        """Messages that those turns took."""
        return sum(partition.messages for partition in self.partitions)

    @property
    def sent_away(self) -> int:
        """Messages sent from one partition to another."""
        return sum(partition.sent_away for partition in self.partitions)

    @property
    def failed_operations(self) -> int:
        """Signalled operations that failed and were rolled back."""
        return sum(partition.failed_operations for partition in self.partitions)

    @property
    def failed_calls(self) -> int:
        """Calls of orchestrations that failed and that nobody looked at."""
        return sum(partition.failed_calls for partition in self.partitions)

    @property
    def waiting(self) -> int:
        """Messages that no turn has consumed yet, in memory and in the store."""
        return sum(partition.waiting for partition in self.partitions)

    @property
    def stored(self) -> int:
        """Those of them that lie in the store alone."""
        return sum(partition.stored for partition in self.partitions)

    @property
    def owed(self) -> int:
        """Messages to other partitions that these have not made durable yet."""
        return sum(partition.owed for partition in self.partitions)

    @property
    def activations(self) -> int:
        """Actors in memory."""
        return sum(partition.activations for partition in self.partitions)

    @property
    def stored_bytes(self) -> int:
        """What the hub takes in the store, write-ahead logs included; 0 in memory."""
        return sum(partition.stored_bytes for partition in self.partitions)


def _read_durations(told: Mapping[str, Any]) -> Durations:
    return Durations(total_s=told["total_s"], counts=tuple(told["counts"]))


def _read_activity(told: Mapping[str, Any]) -> ActivityStatistics:
    one = dict(told)
    one["durations"] = _read_durations(one["durations"])
    return ActivityStatistics(**one)


def read_partition(told: Mapping[str, Any]) -> PartitionStatistics:
    """Read what a partition has counted, which may have crossed as JSON."""
    one = dict(told)
    for name in ("hottest", "fullest"):
        one[name] = tuple((key, count) for key, count in one[name])
    if "commit_durations" in one:
        one["commit_durations"] = _read_durations(one["commit_durations"])
    return PartitionStatistics(**one)


def read_shard(told: Mapping[str, Any]) -> ShardStatistics:
    """Read what an event loop has counted, which may have crossed as JSON."""
    one = dict(told)
    one["partitions"] = tuple(one["partitions"])
    one["by_activity"] = tuple(_read_activity(row) for row in one.get("by_activity", ()))
    membership = one.get("membership")
    if membership is not None:
        read: dict[str, Any] = {**membership, "takeovers": _read_durations(membership["takeovers"])}
        one["membership"] = MembershipStatistics(**read)
    return ShardStatistics(**one)


def read_migration(told: Mapping[str, Any]) -> MigrationStatus | None:
    """Read how far a hub is on its way to another store, which may have crossed as JSON."""
    migration = told.get("migration")
    return None if migration is None else read_fact(MigrationStatus, migration)


def read_counts(counts: Iterable[dict[str, Any]]) -> HubStatistics:
    """Put together what the shards have counted, which may have crossed as JSON."""
    shards: list[ShardStatistics] = []
    partitions: list[PartitionStatistics] = []
    silent: list[SilentShard] = []
    restarted, migration = 0, None
    for count in counts:
        if "restarted" in count:
            restarted, migration = count["restarted"], read_migration(count)
            continue
        if "silent" in count:
            silent.append(SilentShard(**count["silent"]))
            continue
        shards.append(read_shard(count["shard"]))
        partitions += map(read_partition, count["partitions"])
    return HubStatistics(
        partitions=tuple(sorted(partitions, key=lambda one: one.index)),
        shards=tuple(shards),
        silent=tuple(silent),
        restarted=restarted,
        migration=migration,
    )
