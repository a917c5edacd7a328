"""Instances whose code answers later, as a program elsewhere would: in a running hub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from perdure import App, Hub, MemoryStore, OrchestrationContext, Settings, SqliteStore
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.actors.replay.execution import Execution
from perdure.storage import Store
from perdure.testing.inside import partitions_of
from tests.actors.orchestrations.scripted import Decision, Scripted
from tests.runtime.harness import until_true
from tests.runtime.orchestrating import running

app = App()


@app.activity
def double(n: int) -> int:
    return 2 * n


@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> int:
    raise AssertionError("its code is elsewhere")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


SCRIPT: list[list[Decision]] = [[("activity", "double", 3)], [("status", "doubled")], [("ends", 6)]]


def answer_later(
    monkeypatch: pytest.MonkeyPatch, later: Callable[[], Awaitable[None]]
) -> list[Scripted]:
    made: list[Scripted] = []

    def new_execution(actor: OrchestrationActor) -> Execution:
        made.append(Scripted(actor.instance_id, actor.execution, SCRIPT, later))
        return made[-1]

    monkeypatch.setattr(OrchestrationActor, "new_execution", new_execution)
    return made


@pytest.mark.by_turns
async def test_an_instance_goes_on_when_its_code_has_answered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_later(monkeypatch, anyio.lowlevel.checkpoint)

    async with Hub(app, store=store) as hub:
        handle = await hub.client.start_new(flow, 3)

        async def doubled() -> bool:
            return bool((await handle.status()).custom_status == "doubled")

        with anyio.fail_after(10):
            while not await doubled():
                await anyio.sleep(0.001)
        await handle.raise_event("go", 1)
        result: Any = await handle.result(10)

    assert result == 6


@pytest.mark.by_turns
async def test_messages_wait_while_its_code_is_asked_and_a_new_hub_asks_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    gate = anyio.Event()

    async def later() -> None:
        asked.append("asked")
        await gate.wait()

    made = answer_later(monkeypatch, later)
    async with Hub(app, store=store, settings=Settings(drain_s=0.05)) as hub:
        handle = await hub.client.start_new(flow, 3, instance_id="x")
        await until_true(lambda: len(asked) == 1)
        await handle.raise_event("go", 1)
        assert len(asked) == 1

    gate.set()
    async with Hub(app, store=store) as hub:
        handle = hub.client.get_handle("x")
        result: Any = await handle.result(10)

    assert result == 6
    assert made[0].is_closed


@pytest.mark.parametrize("evicted", [False, True], ids=["live", "evicted"])
async def test_what_it_waits_for_is_told_without_where_its_code_stands(
    evicted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = App()
    entered, gate = anyio.Event(), anyio.Event()

    @local.activity
    async def double(n: int) -> int:
        entered.set()
        await gate.wait()
        return 2 * n

    local.orchestration(name="flow")(flow_of_none)
    answer_later(monkeypatch, anyio.lowlevel.checkpoint)
    async with running(local) as hub:
        handle = await hub.client.start_new("flow", 3)
        await entered.wait()
        if evicted:
            for partition in partitions_of(hub):
                partition.catalog.evict(10)
                partition.catalog.evict(10)
        found, trace = await handle.explain(), await hub.client.trace(handle.instance_id)
        gate.set()

        assert [(one.name, one.state) for one in found.activities] == [("double", "running")]
        assert found.is_in_memory is not evicted
        for one in (found, trace):
            assert one.code_trouble is not None
            assert "another process" in one.code_trouble
        assert [step.event_type for step in trace.steps] == ["ExecutionStarted", "TaskScheduled"]


async def flow_of_none(ctx: OrchestrationContext, n: int) -> int:
    raise AssertionError("its code is elsewhere")
