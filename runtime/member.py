"""The program of a worker process that is a member of a hub by itself.

``python -m perdure.runtime.member FD`` reads its configuration from that file descriptor. Its
supervisor holds the other end of its standard input: where that ends, the member leaves the hub in
order, and ends. What became of its start is written to another descriptor, a line, and later
whether it wants to be the only one, as it has to be to bring the hub to a folder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import orjson

from ..actors.errors import InternalError, PerdureError
from ..actors.logs import Log
from ..actors.printing import text_of, type_name
from .cluster.balancer import Rebalance
from .cluster.children import Child, cannot_import, serve_as, take_notes
from .cluster.nodes import ClusterCrew
from .hub import Hub
from .transport.errors import write_error

_log = Log("perdure.workers")


class _Member(Child):
    """A hub in this process, for as long as its supervisor wants it."""

    async def serve(self) -> None:
        """Be a member until told to stop."""
        try:
            await self._serve()
        except PerdureError as error:
            self._refuse(error)
        except Exception as error:
            _log.error("a worker process failed", why=error)
            self._refuse(
                cannot_import(self.config["app"], error)
                if isinstance(error, ImportError)
                else InternalError(f"{type_name(error)}: {text_of(error)}")
            )

    async def _serve(self) -> None:
        config = self.config
        rebalance, key = config["rebalance"], config["key"]
        hub = Hub(
            config["app"],
            store=config["store"],
            partitions=config["partitions"],
            rebalance=None if rebalance is None else Rebalance(**rebalance),
            settings=self.settings,
            retention=config["retention"],
            observer=config["observer"],
            node_listen=config["listen"],
            node_address=config["address"],
            node_key=None if key is None else bytes.fromhex(key),
            node_http=config["http"],
        )
        crew = hub.crew
        assert isinstance(crew, ClusterCrew)
        crew.prepare = partial(take_notes, config=config)
        crew.be_alone = lambda is_alone: self._tell({"alone": is_alone})
        async with hub:
            self._tell({"member": crew.local_shard.number, "address": crew.address})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.obey)
                await self.stopping.wait()
                tasks.cancel_scope.cancel()

    def _refuse(self, error: PerdureError) -> None:
        """Say why this process cannot serve."""
        _log.critical("a worker process ends: %s", error)
        self.has_failed = True
        self._tell({"error": write_error(error)})

    def _tell(self, what: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # who is told is gone, and this process ends soon
            os.write(self.config["ready"], orjson.dumps(what) + b"\n")


if __name__ == "__main__":
    raise SystemExit(serve_as(_Member))
