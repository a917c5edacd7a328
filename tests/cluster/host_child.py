"""What runs on a host of its own: ``database FOLDER``, or ``visitor STORE KEY_FILE``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import anyio
import orjson
from anyio import to_thread

import perdure
from examples.cluster import load as loads
from examples.cluster.app import app
from perdure.storage.postgres.links import driver
from perdure.storage.postgres.server import Server

PORT = 5432


def database(folder: Path) -> None:
    """Be a server with the database ``perdure``, for everybody who knows the password."""
    rules = folder / "rules"
    rules.write_text("host all all 0.0.0.0/0 scram-sha-256\n")
    server = Server(
        folder / "postgres",
        settings={"listen_addresses": "*", "hba_file": str(rules), "fsync": "on"},
        port=PORT,
        with_password=True,
        throw_away=True,
    )
    server.start()

    async def create() -> None:
        connection = await driver().connect(server.dsn)
        await connection.execute("CREATE DATABASE perdure")
        await connection.close()

    asyncio.run(create())
    print((folder / "postgres" / "password").read_text(), flush=True)
    server.wait()


async def visitor(store: str, key_file: str) -> None:
    """Ask the hub without end; answers each line of its input, an empty one for the end."""
    # As much as leaves a processor for the other tests.
    loads.SIGNALLERS = loads.BUYERS = 1
    loads.PROBED = 16
    loads.PROBE_S = 0.2
    async with perdure.connect(store, app, node_key_file=key_file) as client:
        load = loads.Load(client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run)
            while (await to_thread.run_sync(sys.stdin.readline)).strip():
                # The longest call since it was asked last.
                longest_s = max(load.waits.values(), default=0.0)
                load.begin_measuring()
                _say({"answered": load.answered, "longest_s": longest_s})
            load.stop()
        _say({"answered": load.answered, "differences": await load.differences()})


def _say(words: dict[str, object]) -> None:
    print(orjson.dumps(words).decode(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "database":
        database(Path(sys.argv[2]))
    else:
        asyncio.run(visitor(*sys.argv[2:]))
