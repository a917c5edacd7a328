"""A large page holds no loop: it is made and written in slices."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp

from perdure import App, EntityId, Hub, OrchestrationContext
from perdure.adapters.http import create_app
from tests.adapters.http.serving import ask_raw
from tests.runtime.stretches import Stretches, measured


class Measure:
    """The stretches of the test that runs."""

    stretches: Stretches


measure = Measure()

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self) -> None:
        self.value += 1


@app.activity
async def work(number: int) -> int:
    return number


@app.orchestration
async def fan_out(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        tasks = ctx.task_all([ctx.call_activity(work, number) for number in range(count)])
    await tasks


@app.orchestration
async def signal_each(ctx: OrchestrationContext, count: int) -> None:
    with measure.stretches.theirs():
        for number in range(count):
            ctx.signal_entity(EntityId(Counter, str(number)), Counter.add)


async def ask(web: ASGIApp, path: str) -> Any:
    status, body = await ask_raw(web, "GET", f"/api/v1{path}", headers=[(b"host", b"localhost")])
    assert status == 200, body
    await checkpoint()  # the stretch ends with the turn of the loop
    with measure.stretches.theirs():
        return json.loads(body)


@pytest.mark.by_turns
@pytest.mark.parametrize("order", ["oldest", "newest"])
async def test_a_large_page_of_a_history_does_not_hold_the_loop(order: str) -> None:
    with measured() as measure.stretches:
        async with Hub(app, rebalance=None) as hub:
            web = create_app(hub, allowed_hosts=("localhost",))
            await (await hub.client.start_new(fan_out, 5_000, instance_id="x")).result()
            path = f"/instances/x/history?order={order}&limit="
            await ask(web, f"{path}1")
            measure.stretches.begin_anew()

            page = await ask(web, f"{path}10000")

            assert len(page["items"]) == 10_000
            assert measure.stretches.longest_s < measure.stretches.bound_s


@pytest.mark.by_turns("trio")
async def test_a_large_page_of_a_query_does_not_hold_the_loop() -> None:
    with measured() as measure.stretches:
        async with Hub(app, rebalance=None) as hub:
            web = create_app(hub, allowed_hosts=("localhost",))
            await (await hub.client.start_new(signal_each, 5_000)).result()
            with anyio.fail_after(30):
                while (await hub.statistics()).waiting:
                    await anyio.sleep(0.01)
            await ask(web, "/entities?limit=1")
            measure.stretches.begin_anew()

            page = await ask(web, "/entities?limit=10000")

            assert len(page["items"]) == 5_000
            assert measure.stretches.longest_s < measure.stretches.bound_s
