"""Sessions of a test's own, to plant things and to look, on any loop."""

from __future__ import annotations

from typing import Any

import anyio

from perdure.storage.bridge import AsyncioBridge
from perdure.storage.postgres.links import Connection, Link
from perdure.storage.postgres.place import Place


class Session:
    """A connection of the test's own, on any loop."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._bridge = AsyncioBridge()
        self._link = Link(place, "somebody")

    async def do(self, sql: str, *values: Any) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return list(await connection.fetch(sql.replace("{s}", self._place.quoted), *values))

        return await self._bridge.run(lambda: self._link.use(work))

    async def close(self) -> None:
        await self._bridge.run(self._link.close)
        await anyio.to_thread.run_sync(self._bridge.close)
