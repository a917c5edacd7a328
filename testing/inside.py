"""What is inside a running hub, for tests that have to see it: its shard and its partitions.

What users' tests need is in ``TestHub``. This is for tests of the runtime itself, and of what is
built into it: what these functions give is described by its classes, and changes as they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runtime.hub import Hub
    from ..runtime.partitions.partition import Partition
    from ..runtime.shards.shard import Shard


def shard_of(hub: Hub) -> Shard:
    """Give the shard that is the hub's own event loop; call it there, while the hub runs."""
    return hub.crew.local_shard


def partitions_of(hub: Hub) -> Sequence[Partition]:
    """Give the partitions that the hub's own event loop serves, as ``shard_of`` gives its shard."""
    return hub.crew.local_shard.partitions
