"""Whether a hub serves all of its partitions."""

from __future__ import annotations

import anyio

from perdure import Client, Hub, PerdureError

#: How long it may take to say so; longer than a busy loop, shorter than a probe waits.
LOOK_S = 2.0


async def is_ready(hub_or_client: Hub | Client) -> bool:
    """Say whether every partition is served, by shards that answer."""
    try:
        with anyio.fail_after(LOOK_S):
            counted = await hub_or_client.statistics()
    except (PerdureError, TimeoutError):
        return False
    served = len(counted.partitions)
    # A client cannot tell how many there should be, but a shard that is gone leaves a gap.
    wanted = (
        len(hub_or_client.placement)
        if isinstance(hub_or_client, Hub)
        else 1 + max((one.index for one in counted.partitions), default=0)
    )
    return not counted.silent and served == wanted
