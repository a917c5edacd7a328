"""Nothing of ours holds a loop where entities fail often, or where many are locked at once."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import anyio
import pytest

from perdure import App, EntityId, Hub, OrchestrationContext
from tests.runtime.stretches import MEASURED, Stretches, measured

pytestmark = MEASURED

app = App()


class Measure:
    """The stretches of the test that runs."""

    stretches: Stretches


measure = Measure()


@pytest.fixture
async def stretches() -> AsyncGenerator[Stretches]:
    """What is measured of the loop that the test runs on."""
    with measured() as measure.stretches:
        yield measure.stretches


@app.entity
class Counter:
    value: int = 0

    def add(self) -> None:
        self.value += 1

    def fail(self) -> None:
        raise ValueError("no")


async def idle(hub: Hub) -> None:
    with anyio.fail_after(60):
        while (await hub.statistics()).waiting:
            await anyio.sleep(0.01)


@app.orchestration
async def signal_to_fail(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        for number in range(count):
            ctx.signal_entity(EntityId(Counter, str(number % 50)), Counter.fail)


@pytest.mark.by_turns
@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_many_operations_that_fail_do_not_hold_their_loop(
    count: int, stretches: Stretches, caplog: pytest.LogCaptureFixture
) -> None:
    # How long it takes to log that is for whoever listens.
    caplog.set_level(logging.CRITICAL, "perdure.partition")
    async with Hub(app, rebalance=None) as hub:
        await (await hub.client.start_new(signal_to_fail, 50)).result()
        await idle(hub)
        stretches.begin_anew()

        await (await hub.client.start_new(signal_to_fail, count)).result()
        await idle(hub)

        assert stretches.longest_s < stretches.bound_s


@app.orchestration
async def lock_many(ctx: OrchestrationContext, count: int) -> None:
    theirs = measure.stretches.theirs
    with theirs():
        entities = [EntityId(Counter, f"{number:04}") for number in range(count)]
        locked = ctx.lock_entities(*entities)
    async with locked:
        with theirs():
            calls = ctx.task_all([ctx.call_entity(one, Counter.add) for one in entities])
        await calls


@pytest.mark.by_turns("trio")
@pytest.mark.parametrize("count", [500, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_many_entities_that_are_locked_together_do_not_hold_their_loop(
    count: int, stretches: Stretches
) -> None:
    async with Hub(app, rebalance=None) as hub:
        await (await hub.client.start_new(lock_many, 10)).result()
        stretches.begin_anew()

        await (await hub.client.start_new(lock_many, count)).result()
        await idle(hub)

        assert stretches.longest_s < stretches.bound_s
        with anyio.fail_after(30):
            while [one async for one in hub.client.query_entities(locked=True)]:
                await anyio.sleep(0.01)
