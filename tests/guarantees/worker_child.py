"""A hub with workers in a process of its own, for tests that kill it.

Says the pids of its workers when it serves. Usage: ``worker_child.py FOLDER LOOP DRAIN_S``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from tests.guarantees.worker_load import hub_on, pid_of


async def serve(folder: Path, drain_s: float) -> None:
    async with hub_on(folder, drain_s=drain_s) as hub:
        print(*(pid_of(hub, n) for n in range(hub.shards)), flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(serve, Path(sys.argv[1]), float(sys.argv[3]), backend=sys.argv[2])
