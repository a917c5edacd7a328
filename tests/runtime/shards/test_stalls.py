"""Nothing of ours holds a loop: CPU time between two of its turns, users' code left out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from perdure import App, Hub, OrchestrationContext, SqliteStore
from tests.runtime.stretches import Stretches, measured

#: Seconds of CPU time for which a loop may be held.
BOUND_S = 0.010

app = App()


class Measure:
    """The stretches of the test that runs."""

    stretches: Stretches


measure = Measure()


@pytest.fixture(params=[20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def many(request: pytest.FixtureRequest) -> int:
    """How many of whatever is many."""
    count: int = request.param
    return count


@pytest.fixture
async def stretches() -> AsyncGenerator[Stretches]:
    """What is measured of the loop that the test runs on."""
    with measured() as measure.stretches:
        yield measure.stretches


@app.activity
async def work(number: int) -> int:
    return number


@app.orchestration
async def fan_out(ctx: OrchestrationContext, count: int) -> int:
    theirs = measure.stretches.theirs
    with theirs():
        tasks = ctx.task_all([ctx.call_activity(work, number) for number in range(count)])
    numbers = await tasks
    with theirs():
        return sum(numbers)


async def test_a_large_fan_out_does_not_hold_its_loop(
    tmp_path: Path, many: int, stretches: Stretches
) -> None:
    async with Hub(app, store=SqliteStore(tmp_path), rebalance=None) as hub:
        await (await hub.client.start_new(fan_out, 1)).result()
        stretches.begin_anew()

        handle = await hub.client.start_new(fan_out, many)

        assert await handle.result() == many * (many - 1) // 2
        assert stretches.longest_s < BOUND_S
