"""Rewind where entities were called and locked: what completed stays, what failed is called again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityId,
    InternalError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    RewindError,
    RuntimeStatus,
    UnavailableError,
)
from perdure.actors.orchestrations import rewind as rewinding
from tests.runtime.orchestrating import advance, event_types, evict, quiet, running, status_of

broken: set[str] = set()
ran: list[str] = []
gates: dict[str, anyio.Event] = {}

A = EntityId("account", "a")
B = EntityId("account", "b")
LOCK_AGAIN = 1 << 32


@pytest.fixture(autouse=True)
def fresh() -> None:
    broken.clear()
    broken.update("b")
    gates.clear()
    ran.clear()


app = App()


@app.entity
class Account:
    value: int = 0
    calls: int = 0

    def add(self, n: int) -> int:
        self.value += n
        self.calls += 1
        if "b" in broken and n == 5:
            raise ValueError("b is broken")
        return self.value

    async def slow(self, n: int) -> int:
        gates["begun"].set()
        await gates["go"].wait()
        if "slow" in broken:
            raise ValueError("slow is broken")
        self.calls += 1
        self.value += n
        return self.value

    def read(self) -> tuple[int, int]:
        return self.value, self.calls


@app.activity
async def work(name: str) -> str:
    ran.append(name)
    if name == "lost":
        await gates["go"].wait()
    if name in broken:
        raise ValueError(f"{name} is broken")
    return name.upper()


@app.orchestration
async def transfer(ctx: OrchestrationContext) -> list[int]:
    async with ctx.lock_entities(A, B):
        first = await ctx.call_entity(A, Account.add, -5)
        second = await ctx.call_entity(B, Account.add, 5)
    return [first, second]


@app.orchestration
async def side_by_side(ctx: OrchestrationContext) -> list[int]:
    return await ctx.task_all(
        [ctx.call_entity(A, Account.add, -5), ctx.call_entity(B, Account.add, 5)],
        fail_fast=False,
    )


@app.orchestration
async def side_by_side_under_a_lock(ctx: OrchestrationContext) -> list[int]:
    async with ctx.lock_entities(A, B):
        return await ctx.task_all(
            [ctx.call_entity(A, Account.add, -5), ctx.call_entity(B, Account.add, 5)]
        )


@app.orchestration
async def entity_beside_activity(ctx: OrchestrationContext) -> list[int]:
    done = ctx.call_activity(work, "a")
    called = ctx.call_entity(B, Account.add, 5)
    first = await ctx.call_entity(A, Account.add, -5)
    await done
    return [first, await called]


@app.orchestration
async def code_fails_under_a_lock(ctx: OrchestrationContext) -> list[int]:
    async with ctx.lock_entities(A, B):
        first = await ctx.call_entity(A, Account.add, -5)
        if "b" in broken:
            raise ValueError("the code is broken")
        return [first, await ctx.call_entity(B, Account.add, 5)]


@app.orchestration
async def other_call_fails_under_a_lock(ctx: OrchestrationContext) -> list[int]:
    async with ctx.lock_entities(A, B):
        first = await ctx.call_entity(A, Account.add, -5)
        await ctx.call_activity(work, "b")
        return [first, await ctx.call_entity(B, Account.add, 5)]


async def failed(hub: Any, flow: Callable[..., Any]) -> Any:
    handle = await hub.client.start_new(flow, instance_id="x")
    with pytest.raises(OrchestrationFailedError):
        await handle.result(5)
    await quiet(hub)
    return handle


async def locked(hub: Any, id: EntityId[Any]) -> tuple[str | None, tuple[str, ...]]:
    await quiet(hub)
    status = await hub.client.get_entity(id)
    return status.locked_by, tuple(status.lock_waiters)


async def accounts(hub: Any) -> list[tuple[int, int]]:
    return [await hub.client.call_entity(id, Account.read) for id in (A, B)]


@pytest.mark.parametrize(
    "flow",
    [
        transfer,
        side_by_side,
        side_by_side_under_a_lock,
        entity_beside_activity,
        code_fails_under_a_lock,
        other_call_fails_under_a_lock,
    ],
)
@pytest.mark.parametrize("evicted", [False, True])
async def test_what_an_entity_did_before_the_failure_is_not_done_again(
    flow: Callable[..., Any], evicted: bool
) -> None:
    async with running(app) as hub:
        handle = await failed(hub, flow)
        if evicted:
            await evict(hub)
        broken.clear()

        await handle.rewind("repaired")

        assert await handle.result(5) == [-5, 5]
        assert await accounts(hub) == [(-5, 1), (5, 1)]
        assert await locked(hub, A) == (None, ())


async def test_it_may_fail_under_the_lock_and_be_rewound_again_and_again() -> None:
    async with running(app) as hub:
        handle = await failed(hub, transfer)
        for _ in range(3):
            await handle.rewind()
            with pytest.raises(OrchestrationFailedError, match="b is broken"):
                await handle.result(5)
            await evict(hub)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == [-5, 5]
        assert (await handle.status()).rewinds == 4


@app.orchestration
async def holds(ctx: OrchestrationContext) -> int:
    async with ctx.lock_entities(B):
        await ctx.wait_for_external_event("go")
        return await ctx.call_entity(B, Account.add, 100)


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("how", ["stays", "evicted", "restarted"])
async def test_the_lock_is_taken_again_before_the_call_is_made_again(
    kind: str, how: str, tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        await failed(hub, transfer)
        other = await hub.client.start_new(holds, instance_id="other")
        await quiet(hub)
        broken.clear()
        await hub.client.rewind("x")
        await quiet(hub)
        assert await locked(hub, B) == ("other", ("x",))
        if how != "restarted":
            if how == "evicted":
                await evict(hub)
            await other.raise_event("go")

            assert await hub.client.get_handle("x").result(5) == [-5, 105]
    if how == "restarted":
        async with running(app, store) as hub:
            await hub.client.raise_event("other", "go")

            assert await hub.client.get_handle("x").result(5) == [-5, 105]
            assert await accounts(hub) == [(-5, 1), (105, 2)]


@pytest.mark.parametrize("end", ["terminate", "cancel", "fail"])
@pytest.mark.parametrize("evicted", [False, True])
async def test_a_lock_that_is_asked_for_again_is_given_back_at_the_end(
    end: str, evicted: bool
) -> None:
    async with running(app) as hub:
        handle = await failed(hub, transfer)
        other = await hub.client.start_new(holds, instance_id="other")
        await quiet(hub)
        await handle.rewind()
        if evicted:
            await evict(hub)

        if end == "fail":
            await other.raise_event("go")
            with pytest.raises(OrchestrationFailedError):
                await handle.result(5)
        else:
            await getattr(handle, end)("enough")
            await quiet(hub)
            await other.raise_event("go")
        await other.result(5)
        await quiet(hub)

        for id in (A, B):
            assert await locked(hub, id) == (None, ())


@app.orchestration
async def fails_beside(ctx: OrchestrationContext) -> list[Any]:
    called = ctx.call_entity(A, Account.slow, 1)
    await ctx.wait_for_external_event("begin")
    done = await ctx.call_activity(work, "b")
    return [done, await called]


@app.orchestration
async def fails_beside_under_a_lock(ctx: OrchestrationContext) -> list[Any]:
    async with ctx.lock_entities(A, B):
        called = ctx.call_entity(A, Account.slow, 1)
        await ctx.wait_for_external_event("begin")
        done = await ctx.call_activity(work, "b")
        return [done, await called]


@pytest.mark.parametrize("flow", [fails_beside, fails_beside_under_a_lock])
@pytest.mark.parametrize("answer", ["before", "after", "failure"])
async def test_an_operation_under_way_at_the_failure_is_not_called_twice(
    flow: Callable[..., Any], answer: str
) -> None:
    gates.update(begun=anyio.Event(), go=anyio.Event())
    if answer == "failure":
        broken.add("slow")
    async with running(app) as hub:
        handle = await hub.client.start_new(flow, instance_id="x")
        await gates["begun"].wait()
        await handle.raise_event("begin")
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        if answer != "after":
            gates["go"].set()
            await quiet(hub)
            await evict(hub)
        broken.clear()

        await handle.rewind()
        gates["go"].set()

        assert await handle.result(5) == ["B", 1]
        assert (await accounts(hub))[0] == (1, 1)
        await evict(hub)
        assert await status_of(handle) == RuntimeStatus.COMPLETED


@app.orchestration
async def fails_after_events(ctx: OrchestrationContext) -> list[Any]:
    failing = ctx.call_activity(work, "b")
    first = await ctx.wait_for_external_event("go")
    try:
        await failing
    except Exception:
        await ctx.create_timer(ctx.current_utc_datetime)
        raise
    return [first, await ctx.wait_for_external_event("go")]


async def test_an_event_that_came_in_while_it_failed_comes_in_again() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(fails_after_events, instance_id="x")
        await quiet(hub)
        for n in range(2):
            await handle.raise_event("go", n)
        await advance(hub, clock, 1)
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == [0, 1]


@app.orchestration
async def compensates_under_a_lock(ctx: OrchestrationContext) -> int:
    async with ctx.lock_entities(A, B):
        await ctx.call_entity(A, Account.add, -5)
        try:
            return await ctx.call_entity(B, Account.add, 5)
        except Exception:
            await ctx.call_entity(A, Account.add, 7)
            raise


async def test_a_compensation_under_a_lock_is_not_forgotten_either() -> None:
    async with running(app) as hub:
        handle = await failed(hub, compensates_under_a_lock)
        broken.clear()

        with pytest.raises(RewindError, match=r"call @account@a\.add"):
            await handle.rewind()
        await handle.rewind(force=True)

        assert await handle.result(5) == 5
        assert await accounts(hub) == [(2, 2), (5, 1)]


@pytest.mark.by_turns
async def test_a_second_rewind_keeps_what_the_first_has_asked_for() -> None:
    local = App()
    local.include(app)

    @local.orchestration
    async def branches(ctx: OrchestrationContext) -> list[Any]:
        async with ctx.lock_entities(A, B):
            called = ctx.call_entity(B, Account.add, 5)
            first = await ctx.call_entity(A, Account.add, -5)
            await ctx.wait_for_external_event("go")
            done = await ctx.call_activity(work, "w")
            return [first, await called, done]

    async with running(local) as hub:
        broken.add("w")
        handle = await hub.client.start_new(branches, instance_id="x")
        await quiet(hub)
        await handle.raise_event("go")
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        other = await hub.client.start_new(holds, instance_id="other")
        await quiet(hub)
        broken.discard("b")
        await handle.rewind()  # the lock is another's: the call waits, and "w" fails once more
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        await evict(hub)
        broken.clear()
        await handle.rewind()
        await quiet(hub)
        await evict(hub)
        await other.raise_event("go")

        assert await handle.result(5) == [-5, 105, "W"]
        events = [e for e in await handle.history() if e.event_type == "ExecutionRewound"]
        assert [e.fields["called_again"] for e in events] == [[2], []]
        assert events[1].fields["lock_task_id"] == 1 + 2 * LOCK_AGAIN
        assert (await event_types(handle)).count("EntityLockGranted") == 2


@app.orchestration
async def child(ctx: OrchestrationContext) -> str:
    if "child" in broken:
        await ctx.wait_for_external_event("never")
    return await ctx.call_activity(work, "b")


@app.orchestration
async def parent(ctx: OrchestrationContext) -> str:
    return await ctx.call_sub_orchestrator(child, instance_id="child")


@pytest.mark.parametrize("end", ["terminate", "cancel", "purge"])
async def test_a_child_that_cannot_be_rewound_fails_its_rewound_parent_again(end: str) -> None:
    async with running(app) as hub:
        if end != "purge":
            broken.add("child")
        handle = await hub.client.start_new(parent, instance_id="x")
        await quiet(hub)
        await getattr(hub.client.get_handle("child"), end)()
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        broken.clear()
        await handle.rewind()

        with pytest.raises(OrchestrationFailedError, match="child"):
            await handle.result(5)


@app.orchestration
async def parent_that_retries(ctx: OrchestrationContext) -> str:
    retry = RetryPolicy(1, 2)
    return await ctx.call_sub_orchestrator(child, instance_id="child", retry=retry)


async def test_a_child_that_was_retried_answers_its_rewound_parent() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(parent_that_retries, instance_id="x")
        await advance(hub, clock, 1)
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == "B"


@app.orchestration
async def gives_up_a_loser(ctx: OrchestrationContext) -> str:
    won = ctx.call_activity(work, "won")
    lost = ctx.call_activity(work, "lost")
    await ctx.task_any([won, lost], cancel_losers=True)
    return await ctx.call_activity(work, "b")


async def test_an_activity_that_was_given_up_is_not_run_again() -> None:
    gates["go"] = anyio.Event()
    async with running(app) as hub:
        handle = await failed(hub, gives_up_a_loser)
        broken.clear()
        ran.clear()

        await handle.rewind()

        assert await handle.result(5) == "B"
        assert ran == ["b"]


@app.orchestration
async def sees_the_failure_late(ctx: OrchestrationContext) -> list[Any]:
    async with ctx.lock_entities(A):
        return await ctx.task_all(
            [ctx.call_activity(work, "b"), ctx.call_entity(A, Account.slow, 1)], fail_fast=False
        )


async def test_what_followed_from_a_failure_that_was_seen_late_is_taken_back_too() -> None:
    gates.update(begun=anyio.Event(), go=anyio.Event())
    async with running(app) as hub:
        handle = await hub.client.start_new(sees_the_failure_late, instance_id="x")
        await gates["begun"].wait()
        while "TaskFailed" not in await event_types(handle):
            await anyio.sleep(0.001)
        gates["go"].set()
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == ["B", 1]
        assert (await accounts(hub))[0] == (1, 1)


@app.orchestration
async def decides_and_raises(ctx: OrchestrationContext) -> list[Any]:
    await ctx.wait_for_external_event("begin")
    called = ctx.call_entity(A, Account.slow, 1)
    done = ctx.call_activity(work, "w")
    timer = ctx.create_timer(timedelta(seconds=1))
    part = ctx.call_sub_orchestrator(child, instance_id="child")
    if "code" in broken:
        raise ValueError("the code is broken")
    await timer
    return [await called, await done, await part]


@pytest.mark.parametrize("answered", [False, True])
async def test_what_code_decided_before_it_raised_is_not_done_twice(answered: bool) -> None:
    gates.update(begun=anyio.Event(), go=anyio.Event())
    broken.add("code")
    broken.discard("b")
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(decides_and_raises, instance_id="x")
        await handle.raise_event("begin")
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        await gates["begun"].wait()
        if answered:
            gates["go"].set()
            await quiet(hub)
        clock.advance(60)  # it decides the same, whatever the time is by now
        broken.clear()

        await handle.rewind()
        gates["go"].set()
        await advance(hub, clock, 2)

        assert await handle.result(5) == [1, "W", "B"]
        assert (await accounts(hub))[0] == (1, 1)
        assert ran == ["b", "w"] or ran == ["w", "b"]  # the child ran once


@app.orchestration
async def gives_a_call_up(ctx: OrchestrationContext) -> Any:
    await ctx.wait_for_external_event("begin")
    if "code" in broken:
        ctx.call_entity(A, Account.slow, 1)
        raise ValueError("the code is broken")
    return "well"


async def test_a_call_under_way_that_repaired_code_does_not_make_is_not_forgotten() -> None:
    gates.update(begun=anyio.Event(), go=anyio.Event())
    broken.add("code")
    async with running(app) as hub:
        handle = await hub.client.start_new(gives_a_call_up, instance_id="x")
        await handle.raise_event("begin")
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        await gates["begun"].wait()
        broken.clear()

        with pytest.raises(RewindError, match=r"call @account@a\.slow"):
            await handle.rewind()
        await handle.rewind(force=True)

        assert await handle.result(5) == "well"
        gates["go"].set()


flips: list[bool] = []


@app.orchestration
async def flips_about(ctx: OrchestrationContext) -> str:
    if flips.pop(0):
        ctx.signal_entity(B, Account.add, 1)
    if "code" in broken:
        raise ValueError("the code is broken")
    return "well"


async def test_code_that_decides_otherwise_while_it_is_rewound_fails_once_more() -> None:
    flips[:] = [True, True, True, False, *[True] * 9]  # it runs, is looked at twice, runs
    broken.add("code")
    async with running(app) as hub:
        handle = await failed(hub, flips_about)
        broken.clear()

        await handle.rewind()

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)
        assert caught.value.error_type == "NondeterminismError"
        await handle.rewind()
        assert await handle.result(5) == "well"
        assert (await accounts(hub))[1] == (1, 1)


@pytest.mark.parametrize("by_parent", [False, True])
async def test_a_rewind_that_keeps_crashing_is_refused(
    by_parent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(app, crashes_max=2) as hub:
        handle = await hub.client.start_new(parent if by_parent else child, instance_id="x")
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        real, crashes = rewinding.take_in_again, list[str]()

        def crash(actor: Any, *rest: Any) -> None:
            if actor.instance_id == ("child" if by_parent else "x"):
                crashes.append(actor.instance_id)
                raise RuntimeError("a bug")
            real(actor, *rest)

        monkeypatch.setattr(rewinding, "take_in_again", crash)

        if by_parent:
            await handle.rewind()
            with pytest.raises(OrchestrationFailedError, match="crashed 2 times"):
                await handle.result(5)
        else:
            for _ in range(2):
                with pytest.raises(UnavailableError):
                    await handle.rewind()
            with pytest.raises(InternalError, match="crashed 2 times"):
                await handle.rewind()
        assert len(crashes) == 2


@app.orchestration
async def calls_and_raises(ctx: OrchestrationContext) -> int:
    await ctx.wait_for_external_event("begin")
    called = ctx.call_entity(A, Account.slow, 1)
    if "code" in broken:
        raise ValueError("the code is broken")
    return await called


async def test_a_call_that_failed_after_its_caller_is_made_again() -> None:
    gates.update(begun=anyio.Event(), go=anyio.Event())
    broken.update(("code", "slow"))
    async with running(app) as hub:
        handle = await hub.client.start_new(calls_and_raises, instance_id="x")
        await handle.raise_event("begin")
        with pytest.raises(OrchestrationFailedError):
            await handle.result(5)
        gates["go"].set()
        await quiet(hub)
        broken.clear()

        await handle.rewind()

        assert await handle.result(5) == 1
        assert (await accounts(hub))[0] == (1, 1)


@app.orchestration
async def fails_as_the_lock_is_granted(ctx: OrchestrationContext) -> int:
    async with ctx.lock_entities(B):
        ctx.signal_entity(A, Account.add, 1)
        if "code" in broken:
            raise ValueError("the code is broken")
        return await ctx.call_entity(B, Account.add, 1)


@pytest.mark.parametrize("evicted", [False, True])
async def test_code_that_failed_as_its_lock_was_granted_takes_it_again(evicted: bool) -> None:
    broken.add("code")
    async with running(app) as hub:
        handle = await failed(hub, fails_as_the_lock_is_granted)
        other = await hub.client.start_new(holds, instance_id="other")
        await quiet(hub)
        broken.clear()

        await handle.rewind()
        if evicted:
            await evict(hub)
        assert await locked(hub, B) == ("other", ("x",))
        await other.raise_event("go")

        assert await handle.result(5) == 101
        assert await accounts(hub) == [(1, 1), (101, 2)]
        assert await locked(hub, B) == (None, ())
