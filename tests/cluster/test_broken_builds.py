"""Builds that lack a part of what keeps a hub of several machines right: each of them is found.

Four are found at each run by the orders of statements, in ``tests/storage/postgres``: one without
the share lock, without the fence, or without the one before (``test_interleavings.py``,
``test_fence.py``), and one that takes a success with a warning for one (``test_fence.py``). Here are
those that clients see, in what they have recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from perdure import EntityId, Hub, Settings
from perdure.runtime.cluster.leases import Leases
from perdure.runtime.placement.hashing import partition_of
from perdure.storage.postgres import journal
from perdure.storage.postgres.server import Server
from tests.cluster.app import Register, app
from tests.cluster.histories import Anomaly, History, TroubleError, check_register
from tests.cluster.small_cluster import Cluster
from tests.cluster.test_nemesis import in_threads
from tests.postgres import new_server, versions

PARTITIONS = 4
SEEDS_MAX = 200


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


async def test_a_read_after_a_pause_fits_what_others_wrote_meanwhile() -> None:
    history = await read_after_a_pause(waits=True)

    check_register(history.calls, 0)


async def test_a_build_that_reads_whether_it_is_sure_or_not_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Leases, "is_sure", always)

    history = await read_after_a_pause(waits=False)

    with pytest.raises(Anomaly, match=r"was told 1 by read.*\[2\] alone"):
        check_register(history.calls, 0)


def always(_: Leases) -> bool:
    return True


# By seeds: the nemesis finds it, too, without being told where to look.


@pytest.fixture
def hurt_postgres() -> Iterator[Server]:
    if not versions():
        pytest.skip("no binaries of PostgreSQL are on this machine")
    with new_server() as server:
        yield server


@pytest.mark.slow
def test_seeds_find_a_build_whose_commits_are_not_fenced(
    hurt_postgres: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fence in (("COMMIT", "epoch = $3"), ("COMMIT_SEVERAL", "p.epoch = given.epoch")):
        statement = getattr(journal, name)
        unfenced = statement.replace(
            fence, "$3::bigint IS NOT NULL" if name == "COMMIT" else "true"
        )
        assert unfenced != statement
        monkeypatch.setattr(journal, name, unfenced)

    for seed in range(SEEDS_MAX):
        try:
            in_threads(hurt_postgres, request, seed, kinds=("pause", "cut"))
        except Anomaly as found:
            if not isinstance(found.__cause__, TroubleError) and isinstance(
                found.__cause__, Anomaly
            ):
                return  # clients were told what cannot be
    raise AssertionError(f"{SEEDS_MAX} seeds have found nothing")
