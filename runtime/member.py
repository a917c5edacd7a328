"""The program of a worker process that is a member of a hub by itself.

``python -m perdure.runtime.member FD`` reads its configuration from that file descriptor. Its
supervisor holds the other end of its standard input: where that ends, the member leaves the hub in
order, and ends. What became of its start is written to another descriptor.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import orjson

from ..actors.errors import InternalError, PerdureError, UsageError
from ..actors.logs import Log
from ..actors.printing import text_of, type_name
from .cluster.balancer import Rebalance
from .cluster.crews import ENDED_S
from .cluster.worker import is_left
from .hub import Hub
from .scheduling.hidden_tasks import hold
from .scheduling.interpreter import tune
from .scheduling.waiter import thread_waker
from .settings import Settings
from .transport.errors import write_error

_log = Log("perdure.workers")

#: How often a member looks whether its supervisor is still there.
_LOOK_S = 0.5


def main(descriptor: int) -> int:
    """Serve until the supervisor says, or its end does, that it is enough."""
    with open(descriptor, "rb") as file:
        config = orjson.loads(file.read())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to act on
    sys.path[:] = config["path"]
    member = _Member(config)
    threading.Thread(target=_watch, args=(member,), daemon=True).start()
    tune()
    backend = config["backend"]
    options = {"use_uvloop": config["uvloop"]} if backend == "asyncio" else {}
    anyio.run(hold, member.run, backend=backend, backend_options=options)
    return 1 if member.has_failed else 0


def _watch(member: _Member) -> None:
    """End the member with its supervisor; by when it should have, even if the loop is blocked."""
    parent = os.getppid()
    while os.getppid() == parent and not is_left(_LOOK_S):
        pass
    member.stop()
    time.sleep(member.settings.drain_s + ENDED_S)
    os._exit(1)


class _Member:
    """A hub in this process, for as long as its supervisor wants it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self.settings = Settings(**config["settings"])
        self._stopping = anyio.Event()
        self._left = threading.Event()
        self._wake: Callable[[], None] | None = None
        self.has_failed = False

    def stop(self) -> None:
        """Leave the hub and end; call it in any thread."""
        self._left.set()
        if self._wake is not None:
            self._wake()

    async def run(self) -> None:
        """Serve until told to stop."""
        self._wake = thread_waker(self._stopping.set)
        if self._left.is_set():
            return
        try:
            await self._serve()
        except PerdureError as error:
            self._refuse(error)
        except Exception as error:
            _log.error("a worker process failed", why=error)
            self._refuse(
                UsageError(
                    f"a worker process cannot import {self._config['app']}: "
                    f"{type_name(error)}: {text_of(error)}. Importing it must not run a hub: a "
                    "script does so under if __name__ == '__main__'"
                )
                if isinstance(error, ImportError)
                else InternalError(f"{type_name(error)}: {text_of(error)}")
            )

    async def _serve(self) -> None:
        config = self._config
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
        async with hub:
            self._tell({"member": hub.crew.local_shard.number})
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async with anyio.create_task_group() as tasks:

                    async def obey() -> None:
                        async for _ in signals:
                            self._stopping.set()
                            return

                    tasks.start_soon(obey)
                    await self._stopping.wait()
                    tasks.cancel_scope.cancel()

    def _refuse(self, error: PerdureError) -> None:
        """Say why this process cannot serve."""
        _log.critical("a worker process ends: %s", error)
        self.has_failed = True
        self._tell({"error": write_error(error)})

    def _tell(self, what: dict[str, Any]) -> None:
        descriptor, self._config["ready"] = self._config["ready"], None
        if descriptor is not None:
            with open(descriptor, "wb") as file:
                file.write(orjson.dumps(what))


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
