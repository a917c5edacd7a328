"""Looks at all that a hub has stored: would the code at hand go on with it?"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from attrs import define

from .findings import ReplayFinding
from .pool import Judged, Pool
from .rows import StoredEntity, StoredInstance, StoredMessage, StoredRow, size_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .sources import Source

#: Rows that a process is given at a time, and about how many bytes.
_BATCH = 200
_BATCH_SIZE = 2_000_000
_JOBS_MAX = 8


@define(eq=False)
class ReplayCount:
    """What was looked at so far.

    Attributes:
        place: where, in words.
        called: what an instance is called there, and what several are.
        expected: how many instances there are to look at, about.
        instances: how many were.
        entities: how many entities.
        messages: how many messages that wait.
        broken: how many findings there are.
        lacks: what could not be looked at, in words; else None.
        seconds: how long it has taken.
    """

    place: str = ""
    called: tuple[str, str] = ("instance", "instances")
    expected: int = 0
    instances: int = 0
    entities: int = 0
    messages: int = 0
    broken: int = 0
    lacks: str | None = None
    seconds: float = 0.0


async def check_replays(
    source: Source,
    app: str,
    tell: Callable[[ReplayCount, list[ReplayFinding]], None],
    *,
    jobs: int | None = None,
    limit_s: float = 10.0,
) -> ReplayCount:
    """Take all live instances through their histories by the code at hand; nothing comes of it.

    States of entities and messages that wait are read by their classes as well. All of it happens
    in processes of its own, so code that hangs, prints or ends its process hurts nothing else.

    Args:
        source: what there is to look at.
        app: where the application is: ``module:name``.
        tell: is told now and then how much was looked at, and what was found since it was told last.
        jobs: how many processes there may be; by default as many as processors, up to 8.
        limit_s: seconds that one instance may take.

    Raises:
        UsageError: a bad argument, or the application cannot be imported.
        UnavailableError: a hub has begun to work on what is looked at, or has stopped.
        StorageError: it cannot be read.
    """
    began = perf_counter()
    expected = await source.count()
    count = ReplayCount(source.place, source.called, expected, lacks=source.lacks)

    def take(judged: Judged) -> None:
        count.instances += judged.counts[StoredInstance]
        count.entities += judged.counts[StoredEntity]
        count.messages += judged.counts[StoredMessage]
        count.broken += len(judged.findings)
        count.seconds = perf_counter() - began
        tell(count, judged.findings)

    tell(count, [])
    pool = Pool(app, jobs or min(_JOBS_MAX, _processors()), limit_s, take)
    await pool.run(_batches(source.rows()))
    count.seconds = perf_counter() - began
    return count


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() or 1 if affinity is None else len(affinity(0))


async def _batches(rows: AsyncIterator[Sequence[StoredRow]]) -> AsyncGenerator[list[StoredRow]]:
    batch: list[StoredRow] = []
    size = 0
    async for some in rows:
        for row in some:
            batch.append(row)
            size += size_of(row)
            if len(batch) >= _BATCH or size >= _BATCH_SIZE:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
