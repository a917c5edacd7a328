"""Rewind: a failed instance goes back to before its failures, and on from there."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    ActivityError,
    App,
    EntityId,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    RewindError,
    RuntimeStatus,
)
from tests.runtime.orchestrating import Flow, advance, event_types, evict, quiet, running, status_of

log: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def fresh() -> None:
    log.clear()
    broken.clear()
    broken.add("b")


app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, n: int) -> int:
        if "entity" in broken:
            raise ValueError("entity is broken")
        self.value += n
        return self.value

    def check(self, n: int) -> int:
        if "check" in broken:
            raise ValueError("the check is broken")
        return n


@app.activity
async def work(name: str) -> str:
    log.append(name)
    if name in broken:
        raise ValueError(f"{name} is broken")
    return name.upper()


@app.orchestration
async def chain(ctx: OrchestrationContext) -> list[str]:
    drawn = str(ctx.new_uuid())
    done = [await ctx.call_activity(work, name) for name in "abc"]
    assert drawn
    return done


@app.orchestration
def chain_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, list[str]]:
    done: list[str] = []
    for name in "abc":
        done.append((yield ctx.call_activity(work, name)))  # noqa: PERF401
    return done


@app.orchestration
async def side_by_side(ctx: OrchestrationContext) -> list[str]:
    return await ctx.task_all([ctx.call_activity(work, name) for name in "abc"], fail_fast=False)


@app.orchestration
async def family(ctx: OrchestrationContext) -> list[list[str]]:
    return await ctx.task_all(
        [
            ctx.call_sub_orchestrator(chain, instance_id="child"),
            ctx.call_sub_orchestrator(chain_by_yield, instance_id="other"),
        ],
        fail_fast=False,
    )


@app.orchestration
async def retried(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(work, "b", retry=RetryPolicy(1, 2))


@app.orchestration
async def compensating(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(work, "b")
    except ActivityError:
        await ctx.call_activity(work, "compensation")
        raise


@app.orchestration
async def raises_itself(ctx: OrchestrationContext) -> str:
    first = await ctx.call_activity(work, "a")
    if "code" in broken:
        raise ValueError("the code is broken")
    return first


@app.orchestration
async def calls_entity(ctx: OrchestrationContext) -> list[Any]:
    first = await ctx.call_activity(work, "a")
    return [first, await ctx.call_entity(EntityId(Counter, "c"), Counter.add, 5)]


async def failed(hub: Any, flow: Flow, clock: ManualClock | None = None) -> Any:
    """Start an instance and see it fail."""
    handle = await hub.client.start_new(flow, instance_id="x")
    if clock is not None:
        await advance(hub, clock, 1)
    with pytest.raises(OrchestrationFailedError):
        await handle.result(5)
    return handle


@pytest.mark.parametrize("flow", [chain, chain_by_yield, side_by_side])
@pytest.mark.parametrize("evicted", [False, True])
async def test_failed_calls_run_again_and_completed_ones_do_not(flow: Flow, evicted: bool) -> None:
    async with running(app) as hub:
        handle = await failed(hub, flow)
        if evicted:
            await evict(hub)
        broken.clear()

        await handle.rewind("repaired")

        assert await handle.result(5) == ["A", "B", "C"]
        assert sorted(log) == ["a", "b", "b", "c"]
        status = await handle.status()
        assert status.failure is None
        assert "ExecutionRewound" in await event_types(handle)


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_rewound_instance_goes_on_across_a_restart(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock()

    local = App()
    local.include(app)

    @local.orchestration
    async def slow(ctx: OrchestrationContext) -> list[str]:
        first = await ctx.call_activity(work, "b")
        await ctx.create_timer(timedelta(seconds=60))
        return [first, await ctx.call_activity(work, "c")]

    async with running(local, store, clock=clock) as hub:
        await failed(hub, slow)
    broken.clear()
    async with running(local, store, clock=clock) as hub:
        await hub.client.rewind("x")
        await quiet(hub)
        assert await status_of(hub.client.get_handle("x")) == RuntimeStatus.RUNNING
    clock.advance(60)

    async with running(local, store, clock=clock) as hub:
        assert await hub.client.get_handle("x").result(5) == ["B", "C"]
        assert log == ["b", "b", "c"]


async def test_failed_children_are_rewound_and_completed_ones_are_not() -> None:
    async with running(app) as hub:
        handle = await failed(hub, family)
        before = sorted(log)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == [["A", "B", "C"]] * 2
        assert before == ["a", "a", "b", "b"]
        assert sorted(log) == ["a", "a", "b", "b", "b", "b", "c", "c"]
        for name in ("child", "other"):
            assert await status_of(hub.client.get_handle(name)) == RuntimeStatus.COMPLETED


async def test_a_rewind_that_would_forget_a_compensation_is_refused_unless_forced() -> None:
    async with running(app) as hub:
        handle = await failed(hub, compensating)
        before = await handle.history()
        broken.clear()

        with pytest.raises(RewindError, match="activity 'work'") as caught:
            await handle.rewind()
        assert caught.value.instance_id == "x"
        status = await handle.status()
        assert (status.runtime_status, status.rewinds) == (RuntimeStatus.FAILED, 0)
        assert await handle.history() == before
        await handle.rewind("once more", force=True)

        assert await handle.result(5) == "B"
        assert log == ["b", "compensation", "b"]
        assert (await handle.status()).rewinds == 1


@app.orchestration
async def compensates_by_signal(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(work, "b")
    finally:
        ctx.signal_entity(EntityId(Counter, "signals"), Counter.add, -1)


async def test_a_signal_that_was_sent_after_the_failure_is_not_forgotten_either() -> None:
    async with running(app) as hub:
        handle = await failed(hub, compensates_by_signal)

        with pytest.raises(RewindError, match=r"signal @counter@signals\.add"):
            await handle.rewind()


@app.orchestration
async def retried_before(ctx: OrchestrationContext) -> list[str]:
    first = await ctx.call_activity(work, "flaky", retry=RetryPolicy(1, 2))
    return [first, await ctx.call_activity(work, "b")]


@app.orchestration
async def falls_back_before(ctx: OrchestrationContext) -> list[str]:
    try:
        first = await ctx.call_activity(work, "flaky")
    except ActivityError:
        first = await ctx.call_activity(work, "instead")
    second = await ctx.call_activity(work, "a")
    if "code" in broken:
        raise ValueError("the code is broken")
    return [first, second, await ctx.call_activity(work, "b")]


@pytest.mark.parametrize(
    ("flow", "result", "runs"),
    [
        (retried_before, ["FLAKY", "B"], ["flaky", "flaky", "b", "b"]),
        (falls_back_before, ["INSTEAD", "A", "B"], ["flaky", "instead", "a", "b"]),
    ],
)
async def test_failures_that_were_dealt_with_stay_with_what_followed(
    flow: Flow, result: list[str], runs: list[str]
) -> None:
    clock = ManualClock()
    broken.update(["flaky", "code"])
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(flow, instance_id="x")
        await quiet(hub)
        broken.discard("flaky")
        await advance(hub, clock, 1)
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == result
        assert log == runs


@app.orchestration
async def parent_of_compensating(ctx: OrchestrationContext) -> str:
    return await ctx.call_sub_orchestrator(compensating, instance_id="child")


async def test_a_child_that_compensated_fails_its_rewound_parent_again() -> None:
    async with running(app) as hub:
        handle = await failed(hub, parent_of_compensating)
        broken.clear()
        await handle.rewind()

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)
        assert caught.value.failure.is_caused_by("RewindError")
        assert caught.value.failure.is_caused_by("ActivityError")
        await handle.rewind(force=True)

        assert await handle.result(5) == "B"


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_rewinds_are_counted_and_the_execution_stays(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        handle = await failed(hub, chain)
        for _ in range(2):
            await handle.rewind()
            with pytest.raises(OrchestrationFailedError):
                await handle.result(5)
            await evict(hub)
    broken.clear()
    async with running(app, store) as hub:
        handle = hub.client.get_handle("x")
        await handle.rewind()
        await handle.result(5)
        status = await handle.status()

    assert (status.rewinds, status.execution) == (3, 1)


async def test_retries_begin_anew() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await failed(hub, retried, clock)
        broken.clear()

        await handle.rewind()
        await advance(hub, clock, 1)

        assert await handle.result(5) == "B"


async def test_code_that_failed_by_itself_is_run_again_once_it_is_repaired() -> None:
    broken.add("code")
    async with running(app) as hub:
        handle = await failed(hub, raises_itself)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == "A"
        assert log == ["a"]


async def test_a_failed_call_of_an_entity_is_made_again() -> None:
    broken.add("entity")
    async with running(app) as hub:
        handle = await failed(hub, calls_entity)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == ["A", 5]


@app.orchestration
async def calls_entity_before(ctx: OrchestrationContext) -> list[int]:
    first = await ctx.call_entity(EntityId(Counter, "c"), Counter.add, 1)
    if "code" in broken:
        raise ValueError("the code is broken")
    return [first, await ctx.call_entity(EntityId(Counter, "broken"), Counter.check, first)]


@pytest.mark.parametrize("what", ["code", "check"])
async def test_a_call_of_an_entity_that_completed_before_the_failure_stays(what: str) -> None:
    broken.add(what)
    async with running(app) as hub:
        handle = await failed(hub, calls_entity_before)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == [1, 1]


@app.orchestration
async def sends_before(ctx: OrchestrationContext) -> int:
    ctx.signal_entity(EntityId(Counter, "c"), Counter.add, 1)
    if "code" in broken:
        raise ValueError("the code is broken")
    checked = await ctx.call_entity(EntityId(Counter, "checked"), Counter.check, 1)
    await ctx.wait_for_external_event("go")
    return checked


@app.orchestration
async def unlocks_before(ctx: OrchestrationContext) -> int:
    async with ctx.lock_entities(EntityId(Counter, "c")):
        first = await ctx.call_entity(EntityId(Counter, "c"), Counter.add, 1)
        if "code" in broken:
            raise ValueError("the code is broken")
    checked = await ctx.call_entity(EntityId(Counter, "checked"), Counter.check, first)
    await ctx.wait_for_external_event("go")
    return checked


@pytest.mark.parametrize("flow", [sends_before, unlocks_before])
@pytest.mark.parametrize("what", ["code", "check"])
async def test_what_was_sent_before_the_failure_is_not_sent_again(flow: Flow, what: str) -> None:
    broken.add(what)
    async with running(app) as hub:
        handle = await failed(hub, flow)
        broken.clear()

        await handle.rewind()
        await quiet(hub)
        await evict(hub)  # what the rewind made of the history replays
        await handle.raise_event("go")

        assert await handle.result(5) == 1
        assert await hub.client.call_entity(EntityId(Counter, "c"), Counter.add, 0) == 1


@app.orchestration
async def fails_with_signal(ctx: OrchestrationContext) -> str:
    first = await ctx.call_activity(work, "a")
    if "code" in broken:
        ctx.signal_entity(EntityId(Counter, "signals"), Counter.add, -1)
        raise ValueError("the code is broken")
    return first


async def test_a_signal_that_repaired_code_does_not_send_is_not_forgotten() -> None:
    broken.add("code")
    async with running(app) as hub:
        handle = await failed(hub, fails_with_signal)
        broken.clear()

        with pytest.raises(RewindError, match=r"signal @counter@signals\.add"):
            await handle.rewind()
        await handle.rewind(force=True)

        assert await handle.result(5) == "A"


async def test_an_instance_may_fail_and_be_rewound_again_and_again() -> None:
    async with running(app) as hub:
        handle = await failed(hub, chain)
        for _ in range(3):
            await handle.rewind()
            with pytest.raises(OrchestrationFailedError, match="b is broken"):
                await handle.result(5)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == ["A", "B", "C"]
        assert log == ["a", "b", "b", "b", "b", "b", "c"]


@pytest.mark.parametrize("state", ["running", "completed", "terminated"])
async def test_only_a_failed_instance_is_rewound(state: str) -> None:
    broken.clear()
    local = App()

    @local.orchestration
    async def waits(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    async with running(local) as hub:
        handle = await hub.client.start_new(waits)
        if state == "completed":
            await handle.raise_event("go")
            await handle.result(5)
        elif state == "terminated":
            await handle.terminate()
        before = await event_types(handle)

        with pytest.raises(InstanceNotFinishedError, match="rewind"):
            await handle.rewind()

        assert await event_types(handle) == before


async def test_nobody_cannot_be_rewound() -> None:
    async with running(app) as hub:
        with pytest.raises(InstanceNotFoundError):
            await hub.client.rewind("nobody")

        assert await hub.client.get_status("nobody") is None
