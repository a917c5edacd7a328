"""Builds that lack a part of what keeps a hub of several machines right: each of them is found.

Four are found at each run by the orders of statements, in ``tests/storage/postgres``: one without
the share lock, without the fence, or without the one before (``test_interleavings.py``,
``test_fence.py``), and one that takes a success with a warning for one (``test_fence.py``). By seeds,
``test_schedules.py`` there finds them as well. Here are those that clients see, in what they have
recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from perdure import EntityId, Hub, Settings
from perdure.runtime.cluster.leases import Leases
from perdure.runtime.placement.hashing import partition_of
from tests.cluster.app import Register, app
from tests.cluster.histories import Anomaly, History, check_register
from tests.cluster.small_cluster import Cluster

PARTITIONS = 4


def registers() -> Iterator[EntityId[Register]]:
    return (EntityId(Register, f"x{n}") for n in range(1_000))


async def read_after_a_pause(*, waits: bool) -> History:
    """Have a member read that was away while another one took over, and a client wrote there."""
    cluster, history = Cluster(), History()
    settings = Settings(lease_s=0.6, drain_s=1.0)
    id = EntityId(Register, "x")

    def hub() -> Hub:
        return Hub(
            app, store=cluster.store(), partitions=PARTITIONS, settings=settings, rebalance=None
        )

    async def write(hub: Hub, value: int) -> None:
        call = history.begin(value, id.key, "write", value)
        call.answer(await hub.client.call_entity(id, Register.write, value))

    async def read(hub: Hub) -> None:
        call = history.begin(0, id.key, "read", None)
        call.answer(await hub.client.call_entity(id, Register.read))

    def owned() -> set[int]:
        return {lease.partition for lease in cluster.leases if lease.owner == 2}

    with anyio.fail_after(30):
        async with hub() as one, hub() as two:
            while len(owned()) < PARTITIONS // 2:
                await anyio.sleep(0.01)
            id = next(one for one in registers() if partition_of(str(one), PARTITIONS) in owned())
            await write(two, 1)
            cluster.silent.add(2)
            while owned():
                await anyio.sleep(0.01)
            await write(one, 2)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, two)
                if waits:
                    await anyio.sleep(0.2)
                    assert history.calls[-1].outcome == "open"
                    cluster.silent.clear()
            cluster.silent.clear()
    return history


@pytest.mark.by_turns
async def test_a_read_after_a_pause_fits_what_others_wrote_meanwhile() -> None:
    history = await read_after_a_pause(waits=True)

    check_register(history.calls, 0)


@pytest.mark.by_turns
async def test_a_build_that_reads_whether_it_is_sure_or_not_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Leases, "is_sure", always)

    history = await read_after_a_pause(waits=False)

    with pytest.raises(Anomaly, match=r"was told 1 by read.*\[2\] alone"):
        check_register(history.calls, 0)


def always(_: Leases) -> bool:
    return True
