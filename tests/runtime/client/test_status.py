"""Statuses, history and counters, as objects with names and as JSON values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure import (
    App,
    EntityId,
    Hub,
    OrchestrationContext,
    OrchestrationFailedError,
    SubOrchestrationError,
)
from perdure.actors.replay.history import FIELDS
from perdure.runtime.facts import Fact

app = App("facts")


@app.activity
def work(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return number


@app.entity
class Box:
    items: list[str] = []

    def put(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    def fail(self) -> None:
        raise ValueError("no")


BOX = EntityId(Box, "b")


@app.orchestration
async def child(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(work, number)


@app.orchestration
async def everything(ctx: OrchestrationContext, label: str) -> Any:
    await ctx.call_activity(work, 1, tags={"a": "b"})
    await ctx.call_sub_orchestrator(child, 2)
    try:
        await ctx.call_sub_orchestrator(child, -1)
    except SubOrchestrationError:
        await ctx.create_timer(0.001)
    ctx.signal_entity(BOX, Box.put, "later", at=0.001)
    async with ctx.lock_entities(BOX):
        await ctx.call_entity(BOX, Box.put, "now")
        try:
            await ctx.call_entity(BOX, Box.fail)
        except Exception as error:
            ctx.set_custom_status(str(error)[:20])
    ctx.send_event(ctx.instance_id, "echo", {"x": [1]})
    return await ctx.wait_for_external_event("echo", timeout=60)


async def test_each_event_of_a_history_has_names_for_all_that_it_says() -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(everything, "x", tags={"t": "u"})
        assert await handle.result(20) == {"x": [1]}
        history = await handle.history()

    assert [event for event in history if "more" in event.fields] == []
    kinds = {event.event_type: event.fields for event in history}
    assert len(kinds) > 14
    assert kinds.keys() <= FIELDS.keys()
    assert kinds["EntityOperationFailed"]["failure"].error_type == "ValueError"
    assert kinds["TaskScheduled"]["input"] == 1
    assert kinds["EventSent"]["data"] == {"x": [1]}
    assert kinds["TimerCreated"]["due"].tzinfo is not None
    json.dumps([event.to_dict() for event in history])


async def test_what_a_hub_says_of_itself_is_json() -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(everything, "x", tags={"t": "u"})
        await handle.result(20)
        await hub.client.signal_entity(BOX, Box.fail)
        status = (await handle.status()).to_dict()
        entity = await hub.client.get_entity(BOX)
        assert entity is not None
        counts = (await hub.statistics(hottest=2)).to_dict()

    assert json.loads(json.dumps(status)) == status
    assert status["runtime_status"] == "Completed"
    assert status["tags"] == {"t": "u"}
    assert status["created_time"].endswith("+00:00")
    shown = entity.to_dict()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["entity_id"] == "@box@b"
    assert shown["state"]["items"][0] == "now" or "later" in shown["state"]["items"]
    assert shown["failures"][0].keys() == {"time", "operation", "error_type", "message"}
    assert json.loads(json.dumps(counts)) == counts
    assert counts["partitions"][0]["index"] == 0


async def test_queries_take_functions_and_classes_for_names() -> None:
    async with Hub(app) as hub:
        client = hub.client
        await (await client.start_new(child, 1)).result(5)
        await client.call_entity(BOX, Box.put, "x")

        assert [status.name async for status in client.query(name=child)] == ["child"]
        assert [status.name async for status in client.query(name=everything)] == []
        assert [str(one.entity_id) async for one in client.query_entities(name=Box)] == ["@box@b"]
        assert await client.purge(name=child) == 1


async def test_a_status_tells_all_that_any_fact_would() -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(everything, "a", tags={"k": "v"})
        await handle.result(20)
        await hub.client.start_new("child", -1, instance_id="bad")
        with pytest.raises(OrchestrationFailedError):
            await hub.client.wait("bad")
        statuses = [one async for one in hub.client.query()]

    assert len(statuses) > 2
    for status in statuses:
        assert status.to_dict() == Fact.to_dict(status)
        assert [*status.to_dict()] == [*Fact.to_dict(status)]
