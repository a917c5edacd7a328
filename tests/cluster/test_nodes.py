"""The ground of tests with real nodes: they start, answer, are hurt, and are gone afterwards."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import perdure
from perdure import EntityId, OutcomeUnknownError, UnavailableError
from perdure.runtime.client import remote
from perdure.runtime.placement.hashing import partition_of
from perdure.storage.postgres.links import connect
from perdure.storage.postgres.place import read_place
from perdure.storage.postgres.server import Server
from tests.cluster.app import Counter, app
from tests.cluster.nodes import (
    DATABASE,
    GoneError,
    Node,
    NodeError,
    RealCluster,
    standing_still,
    until,
)
from tests.cluster.proxy import CAN_TELL

pytestmark = pytest.mark.skipif(not CAN_TELL, reason="the proxies go by /proc to tell who dials")


def add(node: Node, key: str, seconds: float = 30) -> int:
    request, asked = uuid.uuid4().hex, {"entity": f"@counter@{key}", "operation": "add", "input": 1}
    while True:
        answer = node.ask("call", **asked, request_id=request)
        try:
            total: int = answer.result(seconds)["result"]
        except NodeError as error:
            # What was asked of a process as it was killed is asked again, and done once.
            if "OutcomeUnknownError" not in str(error):
                raise
        else:
            return total


def test_nodes_serve_one_hub_and_one_that_is_killed_is_replaced(
    newest_postgres: str, tmp_path: Path
) -> None:
    with RealCluster(newest_postgres, tmp_path, partitions=8) as cluster:
        one, other = cluster.start(2)
        assert [add(node, f"c{n}") for node in (one, other) for n in range(8)] == [1] * 8 + [2] * 8
        until(lambda: 0 < len(asyncio.run(cluster.partitions_of(other))) < 8, 20, other.tail)

        one.kill()

        assert [add(other, f"c{n}") for n in range(8)] == [3] * 8
        assert asyncio.run(cluster.partitions_of(other)) == set(range(8))
        with pytest.raises(GoneError):
            one.ask("statistics").result(10)
        other.stop()
        assert other.stopped_in_order


def test_a_node_that_refuses_says_why(newest_postgres: str, tmp_path: Path) -> None:
    with RealCluster(newest_postgres, tmp_path, partitions=4) as cluster:
        (node,) = cluster.start()

        with pytest.raises(NodeError, match="nowhere") as refused:
            node.ask("call", entity="@nowhere@x", operation="add").result(10)

    assert refused.value.kind == "UnknownNameError"


def test_a_node_that_stands_still_answers_when_it_goes_on(
    newest_postgres: str, tmp_path: Path
) -> None:
    with RealCluster(newest_postgres, tmp_path, partitions=4) as cluster:
        (node,) = cluster.start()
        node.pause()
        answer = node.ask("call", entity="@counter@x", operation="add", input=1)
        with pytest.raises(TimeoutError):
            answer.result(0.2)

        node.go_on()

        assert answer.result(30)["result"] == 1


def test_a_client_asks_the_next_owner_while_a_node_stands_still(
    newest_postgres: str, tmp_path: Path
) -> None:
    async def add_each(client: perdure.Client, turn: int) -> list[int]:
        """Add to each counter at once; each is somewhere else."""
        added: dict[int, int] = {}

        async def add_one(n: int) -> None:
            added[n] = await told(
                lambda: client.call_entity(
                    EntityId(Counter, f"c{n}"), Counter.add, 1, request_id=f"{n}-{turn}"
                )
            )

        async with anyio.create_task_group() as tasks:
            for n in range(8):
                tasks.start_soon(add_one, n)
        return [added[n] for n in range(8)]

    async def ask() -> None:
        with anyio.fail_after(90):
            async with perdure.connect(newest_postgres, app) as client:
                assert await add_each(client, 0) == [1] * 8
                for turn, node in enumerate(nodes, 1):  # one of them is whom it asks where all is
                    node.pause()
                    assert await add_each(client, turn) == [turn + 1] * 8
                    node.go_on()

    with RealCluster(newest_postgres, tmp_path, partitions=8, settings={"lease_s": 1.5}) as cluster:
        nodes = cluster.start(2)
        until(lambda: 0 < len(asyncio.run(cluster.partitions_of(nodes[1]))) < 8, 20, nodes[1].tail)
        anyio.run(ask)


def test_a_client_is_told_of_a_partition_that_comes_to_whom_it_asks_where_all_is(
    newest_postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "QUIET_S", 60.0)  # nor does it ask by itself
    id = EntityId(Counter, "c")

    async def ask() -> None:
        async with perdure.connect(newest_postgres, app) as client:
            await client.call_entity(id, Counter.add, 1)
            for node in 2 * (await client.nodes()).nodes:
                with anyio.fail_after(30):
                    await client.move_partition(partition_of(str(id), 8), node.member)
                    await client.call_entity(id, Counter.add, 1)

    with RealCluster(newest_postgres, tmp_path, partitions=8) as cluster:
        nodes = cluster.start(2)
        until(lambda: 0 < len(asyncio.run(cluster.partitions_of(nodes[1]))) < 8, 20, nodes[1].tail)
        anyio.run(ask)


async def told(ask: Callable[[], Awaitable[int]]) -> int:
    """Ask until somebody answers: what was asked of a node that stands still may be unknown."""
    while True:
        with suppress(UnavailableError, OutcomeUnknownError):
            return await ask()
        await anyio.sleep(0.05)


def test_a_node_that_is_cut_from_the_database_answers_when_that_is_mended(
    newest_postgres: str, tmp_path: Path
) -> None:
    with RealCluster(newest_postgres, tmp_path, partitions=4) as cluster:
        (node,) = cluster.start()
        add(node, "x")
        cluster.net.hold(node.name, DATABASE)
        answer = node.ask("call", entity="@counter@x", operation="add", input=1)
        with pytest.raises(TimeoutError):
            answer.result(0.3)

        cluster.net.mend(node.name, DATABASE)

        assert answer.result(30)["result"] == 2


def test_a_database_that_stands_still_is_waited_for(own_postgres: Server, tmp_path: Path) -> None:
    with RealCluster(own_postgres.dsn, tmp_path, partitions=4) as cluster:
        (node,) = cluster.start()
        add(node, "x")
        assert own_postgres.process_id is not None
        with standing_still(own_postgres.process_id):
            answer = node.ask("call", entity="@counter@x", operation="add", input=1)
            with pytest.raises(TimeoutError):
                answer.result(0.3)

        assert answer.result(30)["result"] == 2


def test_what_was_answered_is_there_after_a_crash_of_the_database(
    own_postgres: Server, tmp_path: Path
) -> None:
    with RealCluster(own_postgres.dsn, tmp_path, partitions=4) as cluster:
        (node,) = cluster.start()
        assert [add(node, "x") for _ in range(5)] == [1, 2, 3, 4, 5]

        own_postgres.stop("immediate")
        time.sleep(0.1)  # it is away for a moment
        own_postgres.start()

        assert add(node, "x", 60) == 6


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_node_that_stops_ends_though_its_commits_wait_for_a_lock_that_somebody_keeps(
    loop: str, newest_postgres: str, tmp_path: Path
) -> None:
    settings = {"drain_s": 1.0}
    with RealCluster(newest_postgres, tmp_path, partitions=4, settings=settings) as cluster:
        [one] = cluster.start(loop=loop)
        assert add(one, "c") == 1

        async def stop_while_locked() -> None:
            place = read_place(newest_postgres)
            connection = await connect(place)
            try:
                async with connection.transaction():
                    await connection.execute(f"SELECT FROM {place.schema}.partition FOR UPDATE")
                    one.ask("call", entity="@counter@c", operation="add", input=1)
                    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                    while not await connection.fetchval(waits):
                        await asyncio.sleep(0.01)
                    await asyncio.to_thread(one.stop, 30.0)
            finally:
                await connection.close()

        asyncio.run(stop_while_locked())
        [other] = cluster.start()
        assert add(other, "c") in (2, 3)


def test_a_node_that_stops_does_not_wait_for_one_that_was_killed(
    newest_postgres: str, tmp_path: Path
) -> None:
    settings = {"lease_s": 60.0, "drain_s": 20.0}
    with RealCluster(newest_postgres, tmp_path, partitions=8, settings=settings) as cluster:
        one, other = cluster.start(2)
        one.kill()
        until(lambda: asyncio.run(cluster.partitions_of(other)) == set(range(8)), 20, other.tail)
        (last,) = cluster.start()
        other.stop()
        begun = time.monotonic()

        last.stop()

        assert time.monotonic() - begun < 10
        assert one.pid in {row.pid for row in asyncio.run(cluster.view()).members}
