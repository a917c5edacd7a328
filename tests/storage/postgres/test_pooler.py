"""Behind a pooler in transaction mode, a hub on PostgreSQL is what it is without one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import anyio
import pytest

from perdure.actors.errors import StorageError
from perdure.storage import Store
from perdure.storage.membership import ClusterStore
from perdure.storage.postgres import PostgresStore
from perdure.storage.postgres.doctor import examine
from perdure.storage.postgres.place import read_place
from perdure.testing import StoreConformance

from ..cluster_conformance import PARTITIONS, SOON_S, ClusterConformance, newcomer
from .sessions import Session

BOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")

pytestmark = [
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
    pytest.mark.skipif(BOUNCER is None, reason="no PgBouncer: install Debian's pgbouncer"),
]

# Fewer connections than a store has, so that they change hands between statements.
INI = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
server_reset_query =
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=[3])
def pooled(newest_postgres: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the place of a schema as it is reached through a pooler, which it does not say."""
    assert BOUNCER is not None
    direct, own = urlsplit(newest_postgres), free_port()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        ini = Path(folder) / "pgbouncer.ini"
        ini.write_text(
            INI.format(
                host=direct.hostname,
                port=direct.port,
                user=direct.username,
                own=own,
                size=request.param,
            )
        )
        # It refuses to be root.
        who = ["-u", "nobody"] if os.geteuid() == 0 else []
        bouncer = subprocess.Popen(
            [BOUNCER, *who, str(ini)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until = time.monotonic() + SOON_S
            while not listens(own):
                assert bouncer.poll() is None and time.monotonic() < until  # noqa: PT018
                time.sleep(0.01)
            yield newest_postgres.replace(f":{direct.port}/", f":{own}/", 1)
        finally:
            bouncer.kill()
            bouncer.wait()


class TestPooledMembers(ClusterConformance):
    @pytest.fixture
    def stores(self, pooled: str) -> Sequence[ClusterStore]:
        return [PostgresStore(f"{pooled}&pooled=1") for _ in range(2)]


@pytest.mark.slow
class TestPooledStore(StoreConformance):
    @pytest.fixture
    def store(self, pooled: str) -> Store:
        return PostgresStore(f"{pooled}&pooled=1")


@pytest.mark.parametrize("pooled", [2], indirect=True)
async def test_who_does_not_say_that_a_pooler_lies_between_is_told(pooled: str) -> None:
    store = PostgresStore(pooled)
    await store.open(PARTITIONS)
    one, other = (Session(read_place(f"{pooled}&pooled=1")) for _ in range(2))
    await one.do("BEGIN")
    await store.view()  # on the connection that is left, which has its statements from now on
    await other.do("BEGIN")
    await one.do("COMMIT")
    with pytest.raises(StorageError, match="a pooler lies between; say so with pooled=1"):
        await store.view()  # on the one that has not
    await other.do("COMMIT")
    for each in (store, one, other):
        await each.close()


async def test_the_end_of_a_member_is_seen_around_the_pooler(
    pooled: str, newest_postgres: str
) -> None:
    around = quote(read_place(newest_postgres).dsn, safe="")
    store = PostgresStore(f"{pooled}&pooled=1&control_dsn={around}")
    await store.open(PARTITIONS)
    one, other = await store.join(newcomer()), await store.join(newcomer())
    with anyio.fail_after(SOON_S):
        while not (one.has_control and other.has_control):
            await anyio.sleep(0.005)
        assert not await other.has_ended(one.number)
        assert one.control is not None
        await store.bridge.run(one.control.stop)
        while not await other.has_ended(one.number):
            await anyio.sleep(0.005)
    await one.leave()
    await other.leave()
    await store.close()


async def test_the_doctor_sees_a_pooler(pooled: str, newest_postgres: str) -> None:
    said = "a pooler lies between, and the address does not say so"
    found = [finding for finding in await examine(pooled) if finding.what == said]
    assert [finding.severity for finding in found] == ["error"]
    assert "pooled=1" in found[0].advice

    through = str(await examine(f"{pooled}&pooled=1"))
    assert said not in through
    assert "there is no control_dsn" in through

    around = quote(read_place(newest_postgres).dsn, safe="")
    through = str(await examine(f"{pooled}&pooled=1&control_dsn={around}"))
    assert "pooler" not in through
    assert "no pooler is seen" in str(
        await examine(f"{newest_postgres}&pooled=1&control_dsn={around}")
    )
