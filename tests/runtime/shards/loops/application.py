"""A hub whose partitions are served by several event loops, in threads of one process."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import anyio

from perdure import App, EntityContext, EntityId, Hub, OrchestrationContext, Settings, Store
from tests.guarantees.workloads import entity_in
from tests.runtime.harness import until_true

SHARDS = 3

app = App()


class Barrier:
    """Blocks the loop that runs into it until the test lets it on."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.left = threading.Event()

    def block(self) -> None:
        self.arrived.set()
        assert self.left.wait(60), "the test has forgotten the barrier"


barriers: dict[str, Barrier] = {}


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def block(self, barrier: str) -> int:
        barriers[barrier].block()
        self.value += 1
        return self.value

    def where(self) -> str:
        return threading.current_thread().name

    def relay(self, targets: list[str], ctx: EntityContext) -> None:
        for target in targets:
            ctx.signal_entity(EntityId.parse(target), "add", 1)

    def fail(self) -> None:
        raise ValueError("not this")


@app.activity
async def name_thread() -> str:
    return threading.current_thread().name


@app.orchestration
async def hello(ctx: OrchestrationContext, counters: list[str]) -> list[int]:
    return [await ctx.call_entity(EntityId.parse(one), "add", 1) for one in counters]


@app.orchestration
async def locking(ctx: OrchestrationContext, counters: list[str]) -> list[int]:
    ids = [EntityId.parse(one) for one in counters]
    async with ctx.lock_entities(*ids):
        values = [await ctx.call_entity(id, "add", 0) for id in ids]
        # All others wait, so what was read is what is there.
        return [
            await ctx.call_entity(id, "add", 1) - before
            for id, before in zip(ids, values, strict=True)
        ]


@app.orchestration
async def parent(ctx: OrchestrationContext, children: list[str]) -> list[str]:
    return await ctx.task_all([ctx.call_sub_orchestrator(child, instance_id=id) for id in children])


@app.orchestration
async def child(ctx: OrchestrationContext) -> str:
    await ctx.create_timer(timedelta(milliseconds=5))
    return await ctx.call_activity(name_thread)


@app.orchestration
async def talking(ctx: OrchestrationContext, to: str) -> str:
    ctx.send_event(to, "word", ctx.instance_id)
    return await ctx.wait_for_external_event("word", data_type=str)


@app.orchestration
async def ticking(ctx: OrchestrationContext, ticks: int) -> int:
    for _ in range(ticks):
        await ctx.create_timer(timedelta(milliseconds=5))
    return ticks


COUNTERS = [entity_in(n, Counter, "counter", SHARDS) for n in range(SHARDS)]

NAMES = [str(id) for id in COUNTERS]


def shard_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("perdure-shard")}


@asynccontextmanager
async def running(
    store: Store | str = "memory:", *, drain_s: float = 5.0, **options: Any
) -> AsyncGenerator[Hub]:
    settings = Settings(drain_s=drain_s)
    with anyio.fail_after(30):
        async with Hub(
            app,
            store=store,
            partitions=SHARDS,
            shards=SHARDS,
            rebalance=None,
            settings=settings,
            **options,
        ) as hub:
            yield hub


@contextmanager
def barrier(name: str) -> Generator[Barrier]:
    made = barriers[name] = Barrier()
    try:
        yield made
    finally:
        made.left.set()


async def arrival(barrier: Barrier) -> None:
    await until_true(barrier.arrived.is_set)


async def value_of(hub: Hub, id: EntityId[Any]) -> Any:
    return await hub.client.call_entity(id, Counter.add, 0)
