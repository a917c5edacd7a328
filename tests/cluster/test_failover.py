"""A database whose first server is gone, and whose standby goes on.

With a standby that commits wait for nothing is lost. With one that is behind, what it had not heard
is forgotten, by all partitions as of one moment, as ``durability`` and the documentation say; what
is left is a hub as it once was, and goes on as one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from typing import Any
from uuid import uuid4

import pytest

from perdure import Settings
from perdure.storage.postgres.links import driver
from perdure.storage.postgres.server import Server
from tests.cluster.histories import Call
from tests.cluster.nemesis import PARTITIONS, Trial
from tests.cluster.nodes import until
from tests.cluster.proxy import Net
from tests.cluster.threads import ThreadCluster, ThreadNode
from tests.postgres import new_server, versions

pytestmark = pytest.mark.slow

TTL_S = 2.0
SAFE: dict[str, str | int] = {"fsync": "on", "full_page_writes": "on"}


def asked(server: Server, sql: str) -> list[Any]:
    """Ask something of a server."""

    async def ask() -> list[Any]:
        connection = await driver().connect(server.dsn)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    return asyncio.run(ask())


@contextmanager
def standby_of(server: Server, port: int) -> Generator[Server]:
    """Give a server that follows another one, which it reaches at a port."""
    followed = server.dsn.replace(f":{server.port}", f":{port}")
    standby = new_server(server.binaries, **SAFE)
    made = standby.folder / "data"
    subprocess.run(
        [
            *(server.binaries.folder / "pg_basebackup", "-D", made, "-R", "-X", "stream"),
            *("-c", "fast", "-d", followed),
        ],
        check=True,
        capture_output=True,
    )
    owner = server.data.stat()
    if os.geteuid() == 0:
        for path in (standby.folder, made, *made.rglob("*")):
            shutil.chown(path, owner.st_uid, owner.st_gid)
    made.chmod(0o700)
    with standby:
        until(lambda: asked(server, "SELECT FROM pg_stat_replication") != [], 20, standby.said)
        yield standby


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


@pytest.fixture
def pair(net: Net) -> Iterator[tuple[Server, Server]]:
    """Give a server, and one that follows it over a net."""
    found = [one for one in versions() if (one.folder / "pg_basebackup").exists()]
    if not found:
        pytest.skip("no PostgreSQL that has pg_basebackup is on this machine")
    with new_server(found[0], **SAFE) as server:
        port = net.proxy("server", "127.0.0.1", server.port)
        with standby_of(server, port) as standby:
            yield server, standby


@contextmanager
def cluster_on(server: Server) -> Generator[ThreadCluster]:
    place = f"{server.dsn}?schema=hurt_{uuid4().hex}"
    settings = Settings(lease_s=TTL_S, drain_s=2.0)
    with ThreadCluster(
        place, app="tests.cluster.app:app", partitions=PARTITIONS, settings=settings
    ) as cluster:
        yield cluster


def fail_over(cluster: ThreadCluster, server: Server, standby: Server) -> None:
    """Lose the first server, and have the other one go on."""
    server.stop("immediate")
    asked(standby, "SELECT pg_promote()")
    cluster.move_database(cluster.place.replace(server.dsn, standby.dsn))


def answered(trial: Trial) -> list[Call]:
    return [call for call in trial.history.of("note") if call.outcome == "answer"]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_with_the_server_if_commits_have_waited_for_its_standby(
    pair: tuple[Server, Server], seed: int
) -> None:
    server, standby = pair
    asked(server, "ALTER SYSTEM SET synchronous_standby_names = '*'")
    asked(server, "SELECT pg_reload_conf()")
    waits = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
    until(lambda: asked(server, waits) != [], 20, standby.said)

    def hurt() -> None:
        time.sleep(2.0)
        fail_over(cluster, server, standby)
        time.sleep(2.0)

    with cluster_on(server) as cluster:
        trial = Trial(seed, cluster, standby, ttl_s=TTL_S, seconds=0.0, kinds=())
        trial.go(hurt)
        print(len(trial.history.calls), trial.history.errors)


@pytest.mark.parametrize("seed", range(3))
def test_a_standby_that_was_behind_goes_on_as_the_hub_once_was(
    pair: tuple[Server, Server], net: Net, seed: int
) -> None:
    server, standby = pair

    def hurt() -> None:
        time.sleep(1.5)
        net.lose("?", "server")
        notes = len(answered(trial))
        until(lambda: len(answered(trial)) > notes + 3, 60)
        server.stop("immediate")
        net.mend("?", "server")
        fail_over(cluster, server, standby)
        time.sleep(3.0)

    with cluster_on(server) as cluster:
        trial = Trial(seed, cluster, standby, ttl_s=TTL_S, seconds=0.0, kinds=())
        trial.go(hurt, forgets=True)
        print(len(trial.history.calls), trial.history.errors, trial.forgotten)
        assert trial.forgotten


def call(node: ThreadNode, key: str, operation: str, value: int | None = None) -> int:
    entity = f"@register@{key}"
    found = node.ask("call", entity=entity, operation=operation, input=value).result(60)
    return int(found["result"])


def test_no_partition_answers_with_what_the_standby_had_not_heard(
    pair: tuple[Server, Server], net: Net
) -> None:
    server, standby = pair
    keys = [str(number) for number in range(2 * PARTITIONS)]
    with cluster_on(server) as cluster:
        one, other = cluster.start(2)
        for key in keys:
            assert call(one, key, "write", 1) == 0
        heard = "SELECT FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
        until(lambda: asked(server, heard) != [], 20, standby.said)
        net.lose("?", "server")
        for key in keys:
            assert call(one, key, "write", 2) == 1
        assert [call(other, key, "read") for key in keys] == [2] * len(keys)

        server.stop("immediate")
        net.mend("?", "server")
        fail_over(cluster, server, standby)

        # They write nothing, so nothing is refused to them.
        with ThreadPoolExecutor(len(keys)) as readers:
            for node in (one, other) * 3:
                found = readers.map(call, repeat(node), keys, repeat("read"))
                assert [*found] == [1] * len(keys)
