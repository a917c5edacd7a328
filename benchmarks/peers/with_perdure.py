"""Perdure itself, from this source tree."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version

import perdure
from perdure import (
    App,
    Client,
    EntityId,
    Hub,
    MemoryStore,
    SqliteStore,
    Store,
)

from ..workloads import app as workloads, fan_out, hello
from .contender import Contender, Place
from .processes import Postgres

app = App("peers")
app.include(workloads)


@app.entity
class PeerMeter:
    """Counts and adds up what it is sent."""

    count: int = 0
    total: int = 0

    def add(self, number: int) -> int:
        """Add a number; gives how many there were."""
        self.count += 1
        self.total += number
        return self.count

    @perdure.readonly
    def read(self) -> tuple[int, int]:
        """Give count and sum."""
        return self.count, self.total


class _Perdure(Contender):
    tuning = (
        "perdure.tune() and uvloop, and one partition for the one event loop instead of 4, as "
        "docs/how-to/deploying.md advises"
    )
    entity = "an entity, called; answered when applied and durable"
    _client: Client
    _postgres: Postgres

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    def _store(self, place: Place) -> Store | str:
        raise NotImplementedError

    async def start(self, place: Place) -> str:
        perdure.tune()
        hub = Hub(app, store=self._store(place), partitions=1)
        self._client = (await self._stack.enter_async_context(hub)).client
        return f"perdure {perdure.__version__}, {_uvloop()}, SQLite {sqlite3.sqlite_version}"

    async def hello(self, number: int) -> list[str]:
        return await (await self._client.start_new(hello, number)).result()

    async def fanout(self, start: int) -> list[int]:
        return await (await self._client.start_new(fan_out, start)).result()

    async def add(self, key: str, number: int) -> None:
        await self._client.call_entity(EntityId(PeerMeter, key), PeerMeter.add, number)

    async def totals(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        client = self._client
        return {
            key: await client.call_entity(EntityId(PeerMeter, key), PeerMeter.read) for key in keys
        }

    async def stop(self) -> None:
        await self._stack.aclose()


def _uvloop() -> str:
    try:
        return f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        return "without uvloop"


class PerdureSqlite(_Perdure):
    """With the store that applications use."""

    durability = "every answer after the disk has it: SQLite WAL, synchronous=FULL"

    def _store(self, place: Place) -> Store:
        return SqliteStore(place.folder / "hub")


class PerdurePostgres(_Perdure):
    """With the store that several machines may share, here for one."""

    durability = "every answer after the disk has it: fsync=on, synchronous_commit=on"
    tuning = f"{_Perdure.tuning}; PostgreSQL on a Unix socket, shared_buffers=256MB, as for dbos-postgres"

    def _store(self, place: Place) -> str:
        return f"postgresql://postgres@/postgres?host={self._postgres.folder}"

    async def start(self, place: Place) -> str:
        self._postgres = await asyncio.to_thread(Postgres, place.folder)
        version = await self._postgres.ready()
        return f"{await super().start(place)}, {version}"

    async def stop(self) -> None:
        await super().stop()
        if hasattr(self, "_postgres"):
            self._postgres.stop()


class PerdureMemory(_Perdure):
    """Without a disk: what that costs."""

    durability = "none: memory"

    def _store(self, place: Place) -> Store:
        return MemoryStore()
