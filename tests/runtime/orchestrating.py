"""What the tests of orchestrations share: a small hub, a way to know that it is quiet, eviction."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    Clock,
    FailedError,
    HistoryEvent,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationHandle,
    RuntimeStatus,
    Settings,
    Store,
)
from perdure.testing.inside import partitions_of, shard_of

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)

#: An orchestration as a test is given it: a coroutine function or a generator function.
Flow = Callable[..., Any]

#: Runs a test with what it looks at in memory, and once more after that has left memory.
EVICTED = pytest.mark.parametrize("evicted", [False, True], ids=["live", "evicted"])


@asynccontextmanager
async def running(
    app: App,
    store: str | Store = "memory:",
    *,
    clock: Clock | None = None,
    partitions: int = 2,
    **settings: Any,
) -> AsyncGenerator[Hub, None]:
    """Run a small hub for a test, which fails if it takes half a minute."""
    with anyio.fail_after(30):
        hub = Hub(
            app, store=store, partitions=partitions, clock=clock, settings=Settings(**settings)
        )
        async with hub:
            yield hub


def _is_quiet(hub: Hub) -> bool:
    shard = shard_of(hub)
    due = shard.timers.next_due()
    return (
        (due is None or due > shard.timers.now())
        and shard.pump.is_quiet
        and not shard.activities.running_count
        and all(partition.is_quiet for partition in partitions_of(hub))
    )


async def quiet(hub: Hub) -> None:
    """Return when everything that can happen without a clock or a client has happened."""
    while not _is_quiet(hub):
        # Short, so that the store's threads get the interpreter meanwhile.
        await anyio.sleep(0.0005)


async def advance(hub: Hub, clock: ManualClock, seconds: float) -> None:
    """Turn the clock once all is quiet, and return when all is quiet again."""
    await quiet(hub)
    clock.advance(seconds)
    await quiet(hub)


async def evict(hub: Hub) -> int:
    """Take every idle actor out of memory; gives how many there were."""
    await quiet(hub)
    gone = 0
    for partition in partitions_of(hub):
        # The first round only marks those that were used as cold.
        gone += partition.catalog.evict(1_000_000) + partition.catalog.evict(1_000_000)
    return gone


def stored_timers(store: MemoryStore) -> int:
    """How many durable timers a memory store has."""
    return sum(len(rows.timers) for rows in store.rows)


async def status_of(handle: OrchestrationHandle[Any]) -> RuntimeStatus:
    """Where an instance stands."""
    return (await handle.status()).runtime_status


async def event_types(handle: OrchestrationHandle[Any]) -> list[str]:
    """The types of an instance's history, in order."""
    return [event.event_type for event in await handle.history()]


def events_of(history: list[HistoryEvent], event_type: str) -> list[HistoryEvent]:
    """Those events of a history that have a type."""
    return [event for event in history if event.event_type == event_type]


def cause_of(error: FailedError) -> list[str]:
    """Type and message of what a failure was raised from."""
    return [] if error.cause is None else [error.cause.error_type, error.cause.message]
