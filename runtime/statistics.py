"""Counters that say how loaded a hub is, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from .partition import Partition


@frozen(kw_only=True)
class PartitionStatistics:
    """What one partition has done since the hub was entered, and what it holds now.

    Attributes:
        index: which partition.
        commits: checkpoints stored.
        turns: turns whose checkpoint has been sealed.
        failed_operations: signalled operations that failed and were rolled back.
        waiting: clients' messages that no turn has consumed yet.
        activations: actors in memory.
        stored_bytes: what it takes in the store, write-ahead log included; 0 in memory.
    """

    index: int
    commits: int
    turns: int
    failed_operations: int
    waiting: int
    activations: int
    stored_bytes: int


@frozen(kw_only=True)
class HubStatistics:
    """What a hub has done since it was entered, and what it holds now.

    Attributes:
        partitions: the same, of each partition.
    """

    partitions: tuple[PartitionStatistics, ...]

    @property
    def commits(self) -> int:
        """Checkpoints stored."""
        return sum(partition.commits for partition in self.partitions)

    @property
    def turns(self) -> int:
        """Turns whose checkpoint has been sealed."""
        return sum(partition.turns for partition in self.partitions)

    @property
    def failed_operations(self) -> int:
        """Signalled operations that failed and were rolled back."""
        return sum(partition.failed_operations for partition in self.partitions)

    @property
    def waiting(self) -> int:
        """Clients' messages that no turn has consumed yet."""
        return sum(partition.waiting for partition in self.partitions)

    @property
    def activations(self) -> int:
        """Actors in memory."""
        return sum(partition.activations for partition in self.partitions)

    @property
    def stored_bytes(self) -> int:
        """What the hub takes in the store, write-ahead logs included; 0 in memory."""
        return sum(partition.stored_bytes for partition in self.partitions)


async def count_partition(partition: Partition) -> PartitionStatistics:
    """Read the counters of one partition."""
    return PartitionStatistics(
        index=partition.index,
        commits=partition.commits,
        turns=partition.turns,
        failed_operations=partition.failed_operations,
        waiting=partition.waiting,
        activations=len(partition.activations),
        stored_bytes=await partition.store.size(),
    )
