"""A large page holds no loop: it is made and written in slices."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message

from perdure import App, EntityId, Hub, OrchestrationContext
from perdure.adapters.http import create_app
from tests.adapters.http.serving import ask_raw
from tests.runtime.stretches import MEASURED, Stretches, measured

pytestmark = MEASURED


class Measure:
    """The stretches of the test that runs."""

    stretches: Stretches


measure = Measure()

app = App()


@pytest.fixture(params=[4_000, pytest.param(20_000, marks=pytest.mark.slow)])
def many(request: pytest.FixtureRequest) -> int:
    """How many of whatever is many."""
    count: int = request.param
    return count


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


async def ask(web: ASGIApp, path: str, area: str = "/api/v1") -> Any:
    status, body = await ask_raw(web, "GET", f"{area}{path}", headers=[(b"host", b"localhost")])
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


@app.orchestration
async def do_nothing(ctx: OrchestrationContext) -> None:
    pass


async def start_many(hub: Hub, count: int) -> None:
    for start in range(0, count, 500):
        async with anyio.create_task_group() as tasks:
            for number in range(start, min(count, start + 500)):
                tasks.start_soon(partial(hub.client.start_new, do_nothing, instance_id=str(number)))
    with anyio.fail_after(60):
        while await hub.client.count(statuses=["Completed"]) < count:
            await anyio.sleep(0.01)


@pytest.mark.by_turns
async def test_neither_a_large_page_of_instances_nor_their_changes_hold_the_loop(
    many: int,
) -> None:
    with measured() as measure.stretches:
        async with Hub(app, partitions=16, rebalance=None) as hub:
            web = create_app(hub, allowed_hosts=("localhost",))
            start = (await anext(hub.client.changes())).id
            await start_many(hub, many)
            await ask(web, "/instances?limit=1")
            await ask(web, "/instances?top=1", "/runtime/webhooks/durabletask")
            await ask(web, f"/changes?wait=1&limit=1&after={start}")
            measure.stretches.begin_anew()

            page = await ask(web, "/instances?limit=10000")
            family = await ask(web, "/instances?top=10000", "/runtime/webhooks/durabletask")
            changes = await ask(web, f"/changes?wait=1&limit=10000&after={start}")

            assert measure.stretches.longest_s < measure.stretches.bound_s
            assert len(page["items"]) == len(family) == min(many, 10_000)
            assert len(changes["items"]) > 100


@pytest.mark.by_turns
async def test_many_who_follow_many_changes_do_not_hold_the_loop(many: int) -> None:
    followers, count = 20, many // 2
    with measured() as measure.stretches:
        async with Hub(app, rebalance=None) as hub:
            web = create_app(hub, allowed_hosts=("localhost",))
            start = (await anext(hub.client.changes())).id
            await start_many(hub, count)
            await follow(web, start, 1)
            measure.stretches.begin_anew()

            async with anyio.create_task_group() as tasks:
                for _ in range(followers):
                    tasks.start_soon(follow, web, start, count)
            await checkpoint()

            assert measure.stretches.longest_s < measure.stretches.bound_s


async def follow(web: ASGIApp, after: str, count: int) -> None:
    """Listen to the changes behind one until so many have been told."""
    left, heard = count, anyio.Event()

    async def receive() -> Message:
        await heard.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal left
        left -= message.get("body", b"").count(b"event: changed")
        if left <= 0:
            heard.set()

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/v1/changes",
        "raw_path": b"/api/v1/changes",
        "root_path": "",
        "query_string": b"after=" + quote(after).encode(),
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await web(scope, receive, send)
