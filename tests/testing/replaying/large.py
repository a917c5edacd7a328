"""A store with as many live instances as wanted, made of one that was run.

``python -m tests.testing.replaying.large FOLDER [COUNT]`` makes one, and says how long a look at it
takes: with the program as it was, and with one of which every instance differs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from perdure import MemoryStore
from perdure.runtime.placement.hashing import partition_of
from perdure.storage import Checkpoint, ChunkRow, CreatedRow, InstanceRecord, ProgressRow
from perdure.storage.sqlite import SqliteStore
from perdure.testing import TestHub
from perdure.testing.replaying.check import ReplayCount, check_replays
from perdure.testing.replaying.findings import ReplayFinding
from perdure.testing.replaying.sources import open_files
from tests.testing.programs import load

CODE = """\
from perdure import App, OrchestrationContext
app = App()

@app.activity
async def step(n: int) -> int:
    return n

@app.activity
async def other(n: int) -> int:
    return n

@app.orchestration
async def flow(ctx: OrchestrationContext, n: int):
    for number in range(4):
        await ctx.call_activity(step, number)
    await ctx.call_activity(step, 4)
    return await ctx.wait_for_external_event("go")
"""

#: Behind four steps.
DIFFERS = CODE.replace("call_activity(step, 4)", "call_activity(other, 4)")
EVENTS = 11
PARTITIONS = 4
_AT_ONCE = 2_500


async def _one(folder: Path) -> tuple[InstanceRecord, list[bytes]]:
    """Run an instance; gives what is stored of it."""
    app, _ = load(CODE, folder)
    memory = MemoryStore()
    async with TestHub(app, store=memory, partitions=1) as hub:
        await hub.client.start_new("flow", 1, instance_id="one")
        await hub.quiet()
    [partition] = await memory.open(1)
    [record] = await partition.read_instances(["one"])
    return record, await partition.read_history(record.id)


async def fill(folder: Path, count: int) -> None:
    """Make the store: a chunk of history for each turn, as a hub writes them."""
    record, chunks = await _one(folder.parent)
    store = SqliteStore(folder, synchronous="OFF")
    partitions = await store.open(PARTITIONS)
    keys: list[list[str]] = [[] for _ in partitions]
    for number in range(count):
        keys[partition_of(f"one-{number}", PARTITIONS)].append(f"one-{number}")
    for its, partition in zip(keys, partitions, strict=True):
        recovered = await partition.recover()
        sequence = recovered.sequence
        for start in range(0, len(its), _AT_ONCE):
            sequence += 1
            rows = Checkpoint(sequence=sequence, epoch=recovered.epoch)
            for id, key in enumerate(its[start : start + _AT_ONCE], start + 1):
                _add(rows, record, chunks, id, key)
            await partition.commit(rows)
            await partition.apply()
    await store.close()


def _add(rows: Checkpoint, record: InstanceRecord, chunks: list[bytes], id: int, key: str) -> None:
    begun = len(CreatedRow._fields)
    made = record._replace(id=id, key=key, created=record.created + id)
    rows.created.append(CreatedRow._make(made[:begun]))
    rows.progress.append(ProgressRow._make((id, *made[begun:])))
    events = 0
    for chunk in chunks:
        rows.history.append(ChunkRow(id, events, chunk))
        events += chunk.count(b'["')


async def look(folder: Path, app: str, jobs: int = 2) -> tuple[ReplayCount, int]:
    """Look at it; gives what was counted, and how many findings there were."""
    found = 0

    def tell(_: ReplayCount, findings: list[ReplayFinding]) -> None:
        nonlocal found
        found += len(findings)

    async with open_files(folder) as source:
        return await check_replays(source, app, tell, jobs=jobs), found


async def _main(folder: Path, count: int) -> None:
    await fill(folder, count)
    for code in (CODE, DIFFERS):
        file = folder.parent / "large_now.py"
        file.write_text(code, "utf-8")
        counted, found = await look(folder, f"{file}:app")
        times = os.times()
        print(
            f"{counted.instances:,} instances of {EVENTS} events, {found:,} findings: "
            f"{counted.seconds:.1f} s; CPU so far {times.user + times.system:.1f} s here, "
            f"{times.children_user + times.children_system:.1f} s in the processes"
        )


if __name__ == "__main__":
    anyio.run(_main, Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
