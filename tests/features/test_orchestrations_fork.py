"""Fork: an instance begins with the first part of another's history, and goes on from there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    App,
    EntityId,
    ForkError,
    InstanceAlreadyExistsError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    RequestIdReusedError,
    RuntimeStatus,
)
from tests.runtime.orchestrating import advance, event_types, quiet, running, status_of

log: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def fresh() -> None:
    log.clear()
    broken.clear()


app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, n: int) -> int:
        self.value += n
        return self.value


COUNTER = EntityId(Counter, "c")


@app.activity
async def work(name: str) -> str:
    log.append(name)
    if name in broken:
        raise ValueError(f"{name} is broken")
    return name.upper()


@app.orchestration
async def child(ctx: OrchestrationContext) -> str:
    await ctx.wait_for_external_event("go")
    return ctx.instance_id


@app.orchestration
async def chain(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.call_activity(work, f"{name} {ctx.instance_id}") for name in "abc"]


@app.orchestration
async def mixed(ctx: OrchestrationContext, n: int) -> list[Any]:
    """Sends a signal, and then waits for one of each kind at once."""
    ctx.signal_entity(COUNTER, Counter.add, n)
    approved = await ctx.wait_for_external_event("approved")
    return [
        approved,
        *await ctx.task_all(
            [
                ctx.call_sub_orchestrator(child),
                ctx.call_activity(work, "a"),
                ctx.create_timer(timedelta(seconds=60)),
            ]
        ),
    ]


@app.orchestration
async def locks(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(COUNTER):
        await ctx.wait_for_external_event("go")


async def test_a_fork_of_an_ended_instance_does_the_rest_once_more() -> None:
    async with running(app) as hub:
        origin = await hub.client.start_new(chain, instance_id="x")
        await origin.result(5)
        before = await origin.history()
        log.clear()

        fork = await origin.fork(at=3, instance_id="y")

        assert fork.instance_id == "y"
        assert await fork.result(5) == ["A X", "B Y", "C Y"]
        assert log == ["b y", "c y"]
        assert await origin.history() == before
        assert (await event_types(fork))[:5] == [
            "ExecutionStarted",
            "TaskScheduled",
            "TaskCompleted",
            "TaskScheduled",
            "ExecutionForked",
        ]


async def test_a_fork_of_a_failed_instance_goes_on_before_its_failure() -> None:
    async with running(app) as hub:
        broken.add("c x")
        origin = await hub.client.start_new(chain, instance_id="x")
        with pytest.raises(OrchestrationFailedError):
            await origin.result(5)

        fork = await origin.fork(at=5)

        assert await fork.result(5) == ["A X", "B X", f"C {fork.instance_id.upper()}"]
        assert await status_of(origin) == RuntimeStatus.FAILED


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_fork_goes_on_across_a_restart_and_so_does_the_other(
    kind: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        origin = await hub.client.start_new(mixed, 5, instance_id="x", tags={"a": "b"})
        await origin.raise_event("approved", "yes")
        await advance(hub, clock, 20)
        fork = await origin.fork(at=len(await origin.history()) - 2, instance_id="y")
        await quiet(hub)
        state = await fork.history()
    clock.advance(39)

    async with running(app, store, clock=clock) as hub:
        origin, fork = hub.client.get_handle("x"), hub.client.get_handle("y")
        await quiet(hub)
        assert (await fork.history())[: len(state)] == state
        for one in (origin, fork):
            assert (await one.status()).waiting_for == ("child", "timer")
        await hub.client.raise_event("x::1.2", "go")
        await hub.client.raise_event("y::1.2", "go")
        await advance(hub, clock, 1)  # the timers keep the time of the other's

        assert await origin.result(5) == ["yes", "x::1.2", "A", None]
        assert await fork.result(5) == ["yes", "y::1.2", "A", None]
        assert log == ["a", "a"]
        counter = await hub.client.read_entity_state(COUNTER)
        assert counter is not None
        assert counter.value == 5
        status = await fork.status()
        assert (status.parent_instance_id, status.tags, status.input) == (None, {"a": "b"}, 5)


async def test_a_request_id_gives_the_same_fork_and_is_for_no_other() -> None:
    async with running(app, partitions=3) as hub:
        origin = await hub.client.start_new(mixed, 1, instance_id="x")
        await quiet(hub)

        first = await origin.fork(at=1, request_id="r")
        again = await origin.fork(at=1, request_id="r")

        assert first.instance_id == again.instance_id
        assert await hub.client.count() == 2
        with pytest.raises(RequestIdReusedError):
            await origin.fork(at=0 + 1, instance_id="z", request_id="r")


async def test_what_cannot_begin_is_refused_with_nothing_stored() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        origin = await hub.client.start_new(mixed, 1, instance_id="x")
        locked = await hub.client.start_new(locks, instance_id="locked")
        later = await hub.client.start_new(mixed, 1, instance_id="later", start_at=60.0)
        await quiet(hub)

        with pytest.raises(InstanceAlreadyExistsError):
            await origin.fork(at=1, instance_id="locked")
        for handle, at, why in (
            (origin, 0, "stand together: fork it at 1"),
            (origin, 2, "events 0 to 1"),
            (locked, 2, "it locks @counter@c there"),
            (later, 0, "no history"),
        ):
            with pytest.raises(ForkError, match=why):
                await handle.fork(at=at, instance_id="new")
        assert await hub.client.count() == 3
        assert await hub.client.get_status("new") is None
        # Refused is not taken: the id is free.
        fork = await origin.fork(at=1, instance_id="new")
        assert await status_of(fork) == RuntimeStatus.RUNNING
