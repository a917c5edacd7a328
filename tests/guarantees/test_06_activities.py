"""Guarantee 6: an activity runs at least once, under a key that stays the same for one call."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import anyio
import pytest

from perdure import (
    ActivityContext,
    App,
    Hub,
    LeaseLostError,
    MemoryStore,
    OrchestrationContext,
    RetryPolicy,
    Settings,
    UnavailableError,
)
from tests.faults import FaultyStore, JumpingClock, When, dying, persist, settle, within

app = App()
keys: list[str] = []
latches: list[anyio.Event] = []
thread_latches: list[threading.Event] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    keys.clear()
    latches.clear()
    thread_latches.clear()


@app.activity
async def charge(ctx: ActivityContext, amount: int) -> int:
    keys.append(ctx.idempotency_key)
    for latch in latches:
        await latch.wait()
    return amount


@app.activity
def charge_in_thread(ctx: ActivityContext, amount: int) -> int:
    keys.append(ctx.idempotency_key)
    for latch in thread_latches:
        latch.wait(10)
    return amount


@app.activity
async def flaky(ctx: ActivityContext) -> str:
    keys.append(ctx.idempotency_key)
    if ctx.attempt < 3:
        raise ValueError("not yet")
    return ctx.idempotency_key


@app.activity(max_concurrency=1)
async def charge_alone(ctx: ActivityContext, amount: int) -> int:
    keys.append(ctx.idempotency_key)
    for latch in latches:
        await latch.wait()
    return amount


@app.activity(max_concurrency=1)
def charge_alone_in_thread(ctx: ActivityContext, amount: int) -> int:
    return charge_in_thread(ctx, amount)


@app.orchestration
async def once(ctx: OrchestrationContext, activity: str) -> int:
    paid: int = await ctx.call_activity(activity, 5)
    await ctx.wait_for_external_event("end")
    return paid


@app.orchestration
async def thrice(ctx: OrchestrationContext) -> int:
    return sum(await ctx.task_all([ctx.call_activity(charge, n) for n in range(3)]))


@app.orchestration
async def with_retries(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(flaky, retry=RetryPolicy(first_interval=1, max_attempts=5))


@app.orchestration
async def forever(ctx: OrchestrationContext, left: int) -> int:
    await ctx.call_activity(charge, left)
    if left:
        ctx.continue_as_new(left - 1)
    return left


def hub_on(store: FaultyStore | MemoryStore, **limits: Any) -> Hub:
    settings = Settings(drain_s=0.2, **limits)
    return Hub(app, store=store, partitions=2, clock=JumpingClock(), settings=settings)


async def crash_while_running(store: FaultyStore, activity: str) -> None:
    """Start an activity, and let the process die before it answers."""
    with dying():
        async with hub_on(store) as hub:
            await hub.client.start_new(once, activity, instance_id="i")
            while not keys:
                await anyio.sleep(0.001)
            store.crash_next()
            await hub.client.start_new(once, activity, instance_id="another")
    del keys[1:]


async def test_an_activity_under_way_at_a_crash_runs_again_with_the_same_key() -> None:
    inner = MemoryStore()
    latches.append(anyio.Event())
    async with within():
        await crash_while_running(FaultyStore(inner), "charge")
        latches.clear()

        async with hub_on(inner) as hub:
            await hub.client.raise_event("i", "end")
            paid = await hub.client.wait("i")

    assert paid == 5
    assert len(keys) == 2
    assert keys[0] == keys[1]


async def test_a_sync_activity_under_way_at_a_crash_runs_again_with_the_same_key() -> None:
    inner = MemoryStore()
    latch = threading.Event()
    thread_latches.append(latch)
    async with within():
        await crash_while_running(FaultyStore(inner), "charge_in_thread")
        thread_latches.clear()

        async with hub_on(inner) as hub:
            await hub.client.raise_event("i", "end")
            paid = await hub.client.wait("i")
        latch.set()

    assert paid == 5
    assert len(keys) == 2
    assert keys[0] == keys[1]


@pytest.mark.parametrize("activity", ["charge", "charge_in_thread"])
async def test_an_answer_that_was_recorded_is_not_asked_for_again(activity: str) -> None:
    inner = MemoryStore()
    async with within():
        async with hub_on(inner) as hub:
            await hub.client.start_new(once, activity, instance_id="i")
            while not any(
                e.event_type == "TaskCompleted" for e in await hub.client.get_history("i")
            ):
                await anyio.lowlevel.checkpoint()

        async with hub_on(inner) as hub:
            await hub.client.raise_event("i", "end")
            paid = await hub.client.wait("i")

    assert paid == 5
    assert len(keys) == 1


async def test_an_answer_lost_with_its_commit_is_asked_for_again_with_the_same_key() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    latches.append(anyio.Event())
    async with within(), hub_on(store) as hub:
        await hub.client.start_new(once, "charge", instance_id="i")
        while not keys:
            await anyio.sleep(0.001)
        store.fail_next()
        latches[0].set()
        while len(keys) < 2:
            await anyio.sleep(0.001)
        await persist(hub.client.raise_event, "i", "end")
        paid = await hub.client.wait("i")

    assert paid == 5
    assert len(keys) == 2
    assert keys[0] == keys[1]


# A thread cannot be interrupted: its run ends long after it was given up.
@pytest.mark.parametrize("activity", ["charge", "charge_alone", "charge_alone_in_thread"])
async def test_runs_given_up_in_a_recovery_free_their_places(activity: str) -> None:
    store = FaultyStore(MemoryStore())
    async with within(), hub_on(store, activities_max=1) as hub:
        latches.append(anyio.Event())
        thread_latches.append(threading.Event())
        await hub.client.start_new(once, activity, instance_id="i")
        while not keys:
            await anyio.sleep(0.001)
        for _ in range(3):
            store.fail_next()
            with pytest.raises(UnavailableError):
                await hub.client.raise_event("i", "noise")
            await settle()
        latches.pop().set()
        thread_latches.pop().set()
        await hub.client.start_new(once, activity, instance_id="next")
        for id in ("i", "next"):
            await hub.client.raise_event(id, "end")
        paid = [await hub.client.wait(id) for id in ("i", "next")]

    assert paid == [5, 5]
    assert len(set(keys)) == 2


async def test_every_call_has_a_key_of_its_own() -> None:
    async with within(), hub_on(MemoryStore()) as hub:
        for id in ("a", "b"):
            await hub.client.start_new(thrice, instance_id=id)
            await hub.client.wait(id)

    assert set(Counter(keys).values()) == {1}
    assert len(keys) == 6


async def test_all_attempts_of_one_call_have_one_key() -> None:
    async with within(), hub_on(MemoryStore()) as hub:
        handle = await hub.client.start_new(with_retries)
        last = await handle.result()

    assert keys == [last] * 3


async def test_a_continued_execution_s_calls_have_keys_of_their_own() -> None:
    async with within(), hub_on(MemoryStore()) as hub:
        handle = await hub.client.start_new(forever, 3)
        await handle.result()

    assert len(set(keys)) == len(keys) == 4


@pytest.mark.parametrize("when", ["before", "after"])
async def test_whichever_commit_is_the_last_every_activity_runs_and_one_answer_counts(
    when: When,
) -> None:
    commit = 0
    for commit in range(1, 50):
        keys.clear()
        inner = MemoryStore()
        store = FaultyStore(inner)
        store.crash_at(commit, when)
        async with within():
            try:
                async with hub_on(store) as hub:
                    await hub.client.start_new(thrice, instance_id="i", request_id="r")
                    await hub.client.wait("i")
            except LeaseLostError:
                async with hub_on(inner) as hub:
                    await hub.client.start_new(thrice, instance_id="i", request_id="r")
                    assert await hub.client.wait("i") == 3
            async with hub_on(inner) as hub:
                history = await hub.client.get_history("i")

        answers = [event for event in history if event.event_type == "TaskCompleted"]
        assert sorted(event.fields["result"] for event in answers) == [0, 1, 2]
        assert len(set(keys)) == 3
        if store.faults:
            break
    assert commit > 2
