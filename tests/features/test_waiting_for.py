"""Finding instances by what they wait for, and by how often a call of theirs was tried."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from perdure import (
    App,
    Client,
    EntityId,
    Hub,
    InstanceConditions,
    ManualClock,
    OrchestrationContext,
    RetryPolicy,
    UsageError,
)
from tests.runtime.harness import until

app = App()


@app.entity
class Desk:
    papers: int = 0

    def file(self, n: int) -> None:
        self.papers += n


@app.activity
async def fail(n: int) -> None:
    raise OSError("no")


@app.orchestration
async def approve(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("Approval")


@app.orchestration
async def nap(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(days=1))


@app.orchestration
async def insist(ctx: OrchestrationContext) -> None:
    policy = RetryPolicy(first_interval=3600.0, max_attempts=9, backoff=1.0)
    await ctx.call_activity(fail, 1, retry=policy)


@app.orchestration
async def parent(ctx: OrchestrationContext) -> Any:
    return await ctx.call_sub_orchestrator(approve, instance_id="child")


@app.orchestration
async def hold(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(EntityId(Desk, "d")):
        await ctx.wait_for_external_event("done")


@pytest.fixture(params=["memory:", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory:" else f"sqlite:{tmp_path / 'hub'}"


async def found(client: Client, **conditions: Any) -> list[str]:
    wanted = cast("InstanceConditions", conditions)
    ids = [status.instance_id async for status in client.query(**wanted)]
    assert await client.count(**wanted) == len(ids)
    return sorted(ids)


@pytest.mark.by_turns
async def test_instances_are_found_by_what_they_wait_for(store: str) -> None:
    clock = ManualClock()
    async with Hub(app, store=store, clock=clock) as hub:
        client = hub.client
        for flow in (approve, nap, insist, parent):
            await client.start_new(flow, instance_id=flow.__name__)
        await client.start_new(hold, instance_id="holds")

        async def all_wait() -> bool:
            held = await client.get_entity(EntityId(Desk, "d"))
            return (
                held is not None
                and held.locked_by == "holds"
                and await client.count(waiting_for="event:approval") == 2
                and await client.count(min_attempts=2) == 1
            )

        await until(all_wait)
        await client.start_new(hold, instance_id="asks")

        async def it_asks() -> bool:
            return await client.count(waiting_for="lock:@desk@d") == 1

        await until(it_asks)

        assert await found(client, waiting_for="event:APPROVAL") == ["approve", "child"]
        assert await found(client, waiting_for="event:approval", name="approve") == [
            "approve",
            "child",
        ]
        assert await found(client, waiting_for="timer") == ["nap"]
        assert await found(client, waiting_for="child") == ["parent"]
        assert await found(client, waiting_for="activity:fail") == ["insist"]
        assert await found(client, waiting_for="lock:@Desk@d") == ["asks"]
        assert await found(client, waiting_for="event:done") == ["holds"]
        assert await found(client, waiting_for="entity:@desk@d") == []

        clock.advance(timedelta(hours=1, seconds=1))

        async def tried_again() -> bool:
            return await client.count(min_attempts=3) == 1

        await until(tried_again)
        assert await found(client, min_attempts=3) == ["insist"]
        await client.raise_event("approve", "approval")
        await client.get_handle("approve").result()
        assert await found(client, waiting_for="event:approval") == ["child"]
        await client.terminate("insist")
        await client.terminate("nap")
        assert await found(client, min_attempts=2) == []
        assert await found(client, waiting_for="timer") == []


@pytest.mark.parametrize(
    "wrong", ["", "approval", "event:", "activity:", "entity:desk", "lock:@", "children", "retry:3"]
)
async def test_what_nothing_waits_for_is_refused(wrong: str) -> None:
    async with Hub(app) as hub:
        with pytest.raises(UsageError):
            await hub.client.count(waiting_for=wrong)


@pytest.mark.parametrize("wrong", [0, 1, -1, True, 2.0])
async def test_the_first_attempt_is_none_that_was_repeated(wrong: Any) -> None:
    async with Hub(app) as hub:
        with pytest.raises(UsageError, match="min_attempts"):
            await hub.client.count(min_attempts=wrong)
