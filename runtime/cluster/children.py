"""Processes that a hub begins: how they are given what they need, and end with who began them.

The configuration is a file without a name. The child's standard input is a pipe of which the other
end is its supervisor's, so that the operating system tells it when that is gone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import orjson
from anyio.abc import Process

from ...actors.errors import InternalError, UsageError
from ...actors.printing import text_of, type_name
from ..scheduling.deaths import Notes, Warden
from ..scheduling.hidden_tasks import hold
from ..scheduling.interpreter import tune
from ..scheduling.waiter import thread_waker
from ..settings import Settings
from .crews import ENDED_S

if TYPE_CHECKING:
    from ..shards.shard import Shard

#: How often a child looks whether its supervisor is still there.
_LOOK_S = 0.5

_GUARD = "under if __name__ == '__main__'"


async def begin_child(
    module: str, config: dict[str, Any], folder: str, passed: Sequence[int] = ()
) -> Process:
    """Begin a process that runs a module, which calls ``serve_as``.

    Args:
        module: its name.
        config: what it is given, as JSON values.
        folder: where it runs, if that is still there.
        passed: files that it has open, too.

    Raises:
        OSError: the system gives no process.
    """
    # A file, not a pipe, so that the pipe's end can tell the child of its supervisor's.
    with tempfile.TemporaryFile() as file:
        file.write(orjson.dumps(config))
        file.seek(0)
        return await anyio.open_process(
            [sys.executable, "-m", module, str(file.fileno())],
            stdin=subprocess.PIPE,
            stdout=None,
            stderr=None,
            pass_fds=[file.fileno(), *passed],
            cwd=folder if os.path.isdir(folder) else None,  # noqa: ASYNC240
        )


class Child(ABC):
    """What runs in such a process, until it is told to end.

    Attributes:
        config: what it was given.
        settings: the hub's.
        stopping: is set when it is to end.
        left: the same, for any thread.
        has_failed: whether it ends for an error.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.settings = Settings(**config["settings"])
        self.stopping = anyio.Event()
        self.left = threading.Event()
        self.has_failed = False
        self._wake: Callable[[], None] | None = None

    def stop(self) -> None:
        """End in order; call it in any thread."""
        self.left.set()
        if self._wake is not None:
            self._wake()

    async def run(self) -> None:
        """Serve until told to stop."""
        self._wake = thread_waker(self.stopping.set)
        if not self.left.is_set():
            await self.serve()

    @abstractmethod
    async def serve(self) -> None:
        """Serve until ``stopping`` is set."""

    async def obey(self) -> None:
        """Stop on SIGTERM; whoever sent it may want the process begun afresh."""
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                self.stopping.set()
                return


def serve_as(make: Callable[[dict[str, Any]], Child]) -> int:
    """Serve until the supervisor says, or its end does, that it is enough; gives the exit status."""
    with open(int(sys.argv[1]), "rb") as file:
        config = orjson.loads(file.read())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to act on
    sys.path[:] = config["path"]
    child = make(config)
    threading.Thread(target=_watch, args=(child,), daemon=True).start()
    tune()
    backend = config["backend"]
    options = {"use_uvloop": config["uvloop"]} if backend == "asyncio" else {}
    anyio.run(hold, child.run, backend=backend, backend_options=options)
    return 1 if child.has_failed else 0


def _watch(child: Child) -> None:
    """End the child with its supervisor; by when it should have, even if the loop is blocked."""
    parent = os.getppid()
    # The pipe's end alone would not do: a child that the supervisor had forked may have it open.
    while os.getppid() == parent and not is_left(_LOOK_S):
        pass
    child.stop()
    time.sleep(child.settings.drain_s + ENDED_S)
    os._exit(1)


def is_left(within_s: float) -> bool:
    """Whether the pipe to the supervisor has ended, or does in that time."""
    try:
        ready, _, _ = select.select([0], [], [], within_s)
        return bool(ready) and not os.read(0, 1)
    except OSError:
        return True


def take_notes(shard: Shard, config: dict[str, Any]) -> None:
    """Have a shard note what runs in it, where processes have died, and heed what is thought of it."""
    if "notes" not in config:
        return
    os.set_inheritable(config["notes"], False)
    shard.notes = notes = Notes(config["notes"])
    shard.at_fault = {key for key, _, number in config["at_fault"] if not number}
    shard.activities.warden = Warden(notes, config["suspects"], config["at_fault"])


def cannot_import(app: str, error: Exception) -> UsageError:
    """Give the error for an application that a child cannot import."""
    return UsageError(
        f"a worker process cannot import {app}: {type_name(error)}: {text_of(error)}. Importing it "
        f"must not run a hub: a script does so {_GUARD}"
    )


def ended_early(number: int, how: str) -> InternalError:
    """Give the error for a worker that has ended before it served."""
    return InternalError(
        f"worker {number} ended before it served ({how}); what it printed says why. A script that "
        f"starts a hub with workers must do so {_GUARD}"
    )
