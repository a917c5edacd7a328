"""Restate: a server of its own, and handlers in Python that it calls over HTTP/2."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .contender import Contender, Needs, NotAvailableError, Place
from .processes import Server, accepts, free_port

# From its documentation's page on serving in production, apart from `workers`, which is 8 there.
_HYPERCORN = """\
h2_max_concurrent_streams = 2147483647
keep_alive_max_requests = 2147483647
keep_alive_timeout = 2147483647
worker_class = "uvloop"
"""


class Restate(Contender):
    """Services for the orchestrations, virtual objects for the entities."""

    needs = Needs(
        name="restate",
        python=("aiohttp", "hypercorn", "restate_sdk", "uvloop"),
        npm=("@restatedev/restate-server",),
    )
    durability = (
        "every journal entry in a log on the disk: replicated loglet (one node), "
        "RocksDB, fsync of its write-ahead log (defaults)"
    )
    tuning = (
        "Hypercorn's settings for production from its documentation, a worker for each processor, "
        "uvloop; 4 partitions instead of 24, which doubles its rates here; requests by aiohttp"
    )
    entity = "a virtual object, called through the ingress; answered when applied and durable"

    def __init__(self) -> None:
        self._servers: list[Server] = []
        self._session: Any = None
        self._ingress = ""

    async def start(self, place: Place) -> str:
        services, ingress, admin, node = (free_port() for _ in range(4))
        settings = place.folder / "hypercorn.toml"
        settings.write_text(
            f'bind = "127.0.0.1:{services}"\nworkers = {os.cpu_count() or 1}\n{_HYPERCORN}', "utf-8"
        )
        module = f"{__package__}.restate_services:app"
        handlers = self._serve(
            [sys.executable, "-m", "hypercorn", "--config", settings, module],
            place.folder / "hypercorn.log",
        )
        server = self._serve(
            [
                *(_server_program(place.programs), "--no-logo", "--listen-mode", "tcp"),
                *("--bind-ip", "127.0.0.1", "--base-dir", place.folder / "restate"),
            ],
            place.folder / "restate.log",
            RESTATE_BIND_PORT=str(node),
            RESTATE_INGRESS__BIND_PORT=str(ingress),
            RESTATE_ADMIN__BIND_PORT=str(admin),
            RESTATE_DEFAULT_NUM_PARTITIONS="4",
            RESTATE_DISABLE_TELEMETRY="true",
        )
        aiohttp: Any = import_module("aiohttp")
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._ingress = f"http://127.0.0.1:{ingress}"
        await handlers.until(lambda: accepts(services))
        await server.until(lambda: self._registers(admin, services))
        await server.until(self._works)
        return (
            f"restate-server {_server_version(place.programs)}, "
            f"restate-sdk {version('restate-sdk')}, hypercorn {version('hypercorn')}"
        )

    def _serve(self, command: Sequence[str | Path], log: Path, **environment: str) -> Server:
        server = Server(command, log, environment=environment)
        self._servers.append(server)
        return server

    async def _registers(self, admin: int, services: int) -> bool:
        if not await accepts(admin):
            return False
        body = {"uri": f"http://127.0.0.1:{services}"}
        url = f"http://127.0.0.1:{admin}/deployments"
        async with self._session.post(url, json=body) as response:
            return bool(response.ok)

    async def _works(self) -> bool:
        async with self._session.post(f"{self._ingress}/Peers/hello", json=0) as response:
            return bool(response.ok)

    async def _call(self, path: str, value: int | None = None) -> Any:
        # A handler without an input refuses a type of content, too.
        arguments = {"skip_auto_headers": ["Content-Type"]} if value is None else {"json": value}
        async with self._session.post(f"{self._ingress}/{path}", **arguments) as response:
            body = await response.read()
            if not response.ok:
                raise RuntimeError(f"{path}: {response.status} {body[:300]!r}")
            return json.loads(body)

    async def hello(self, number: int) -> list[str]:
        found: list[str] = await self._call("Peers/hello", number)
        return found

    async def fanout(self, start: int) -> list[int]:
        found: list[int] = await self._call("Peers/fan_out", start)
        return found

    async def add(self, key: str, number: int) -> None:
        await self._call(f"Meter/{key}/add", number)

    async def totals(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        found = await asyncio.gather(*[self._call(f"Meter/{key}/read") for key in keys])
        return {key: (count, total) for key, (count, total) in zip(keys, found, strict=True)}

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        for server in reversed(self._servers):
            await asyncio.to_thread(server.stop)


def _server_folder(programs: Path) -> Path:
    # The package itself is a script for node, which starts the program from a package beside it.
    folders = programs.glob("node_modules/@restatedev/restate-server-*")
    for folder in folders:
        if (folder / "bin" / "restate-server").exists():
            return folder
    raise NotAvailableError("npm has no Restate server for this kind of machine")


def _server_program(programs: Path) -> Path:
    return _server_folder(programs) / "bin" / "restate-server"


def _server_version(programs: Path) -> str:
    package = json.loads((_server_folder(programs) / "package.json").read_text("utf-8"))
    return str(package["version"])
