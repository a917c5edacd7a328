"""Replaying with the classes of a later release: what they add does not change what is compared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from perdure import App, EntityId, MemoryStore, OrchestrationContext
from perdure.actors.messages import Completion, Start
from perdure.actors.registry.lookup import Lookup
from tests.actors.recording import START, Instance
from tests.runtime.orchestrating import quiet, running

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Order:
    item: str


@dataclass
class OrderWithAmount:
    item: str
    amount: int = 1


@dataclass
class OrderWithNeed:
    item: str
    needed: int


def annotated(name: str, cls: type) -> Callable[[F], F]:
    """Annotate a parameter, or the ``return``, with a class that only the running program knows."""

    def annotate(f: F) -> F:
        f.__annotations__[name] = cls
        return f

    return annotate


def release(order: type, *, another: bool = False) -> App:
    """An application that hands its input on in all ways that there are."""
    app = App()

    @app.activity(name="charge")
    @annotated("given", order)
    async def charge(given: Order) -> str:
        return str(given.item)

    @app.activity(name="loose")
    async def loose(given: Any) -> None: ...

    @app.orchestration(name="child")
    @annotated("given", order)
    async def child(ctx: OrchestrationContext, given: Order) -> None: ...

    @app.entity(name="shelf")
    class Shelf:
        @annotated("given", order)
        def put(self, given: Order) -> None: ...

    shelf = EntityId(Shelf, "s")

    @app.orchestration(name="buy")
    @annotated("given", order)
    async def buy(ctx: OrchestrationContext, given: Order) -> str:
        if another:
            given.item += "s"
        item = await ctx.call_activity(charge, given)
        await ctx.call_activity(loose, [given, {"order": given}])
        await ctx.call_sub_orchestrator(child, given)
        await ctx.call_entity(shelf, Shelf.put, given)
        ctx.signal_entity(shelf, Shelf.put, given)
        ctx.send_event("nobody", "news", given)
        await ctx.wait_for_external_event("paid")
        return item

    return app


async def test_a_new_field_with_a_default_lets_every_call_go_on() -> None:
    store = MemoryStore()
    async with running(release(Order), store) as hub:
        await hub.client.start_new("buy", Order("book"), instance_id="i")
        await quiet(hub)

    async with running(release(OrderWithAmount), store) as hub:
        handle = hub.client.get_handle("i")
        await handle.raise_event("paid")

        assert await handle.result(5) == "book"


async def test_another_value_is_still_another_input() -> None:
    store = MemoryStore()
    async with running(release(Order), store) as hub:
        await hub.client.start_new("buy", Order("book"), instance_id="i")
        await quiet(hub)

    async with running(release(OrderWithAmount, another=True), store) as hub:
        handle = hub.client.get_handle("i")
        await handle.raise_event("paid")

        parked = (await handle.status()).parked
        assert parked is not None
        assert parked.type == "NondeterminismError"
        assert "TaskScheduled" in parked.reason


async def test_an_input_that_cannot_be_read_any_more_is_the_reason_that_is_shown() -> None:
    store = MemoryStore()
    async with running(release(Order), store) as hub:
        await hub.client.start_new("buy", Order("book"), instance_id="i")
        await quiet(hub)

    async with running(release(OrderWithNeed), store) as hub:
        handle = hub.client.get_handle("i")
        await handle.raise_event("paid")
        parked = (await handle.status()).parked

    assert parked is not None
    assert parked.type == "PayloadError"
    assert "needed" in parked.reason

    async with running(release(OrderWithAmount), store) as hub:
        await hub.client.get_handle("i").retry()
        assert await hub.client.get_handle("i").result(5) == "book"


async def test_a_result_that_cannot_be_read_any_more_comes_first_in_the_reason() -> None:
    def version(result: type) -> App:
        app = App()

        @app.activity(name="make")
        @annotated("return", result)
        async def make() -> Order:
            return Order("book")

        @app.orchestration(name="flow")
        async def flow(ctx: OrchestrationContext) -> None:
            await ctx.call_activity(make)
            await ctx.wait_for_external_event("go")

        return app

    store = MemoryStore()
    async with running(version(Order), store) as hub:
        await hub.client.start_new("flow", instance_id="i")
        await quiet(hub)

    async with running(version(OrderWithNeed), store) as hub:
        handle = hub.client.get_handle("i")
        await handle.raise_event("go")
        parked = (await handle.status()).parked

    assert parked is not None
    assert parked.type == "NondeterminismError"
    assert parked.reason.startswith("PayloadError: ")


SCRIPT = """
import sys
import anyio
from perdure import App, EntityId, Hub, OrchestrationContext
app = App()

@app.activity
async def take(names: set[str]) -> None: ...

@app.entity
class Bag:
    def put(self, names: frozenset[str]) -> None: ...

@app.orchestration
async def flow(ctx: OrchestrationContext, names: set[str]) -> list[str]:
    await ctx.call_activity(take, names | {"more", "and more"})
    ctx.signal_entity(EntityId(Bag, "b"), Bag.put, frozenset(names))
    ctx.send_event("nobody", "names", {"names": sorted(names)})
    await ctx.wait_for_external_event("go")
    return sorted(names)

async def main() -> None:
    async with Hub(app, store=sys.argv[1]) as hub:
        handle = hub.client.get_handle("i")
        if sys.argv[2] == "begin":
            names = {str(number) for number in range(50)}
            handle = await hub.client.start_new(flow, names, instance_id="i")
            while not any("EventSent" == one.event_type for one in await handle.history()):
                await anyio.sleep(0.01)
        else:
            await handle.raise_event("go")
            print(len(await handle.result(10)))

anyio.run(main)
"""


def test_a_process_with_another_hash_seed_replays_the_same(tmp_path: Path) -> None:
    script = tmp_path / "flows.py"
    script.write_text(SCRIPT)

    def run(step: str, seed: str) -> str:
        done = subprocess.run(
            [sys.executable, script, f"sqlite:{tmp_path}/hub", step],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    run("begin", "1")

    assert run("end", "2") == "50"


def test_an_event_from_before_inputs_were_kept_is_compared_without() -> None:
    with Instance(Lookup(release(Order), 1_000_000), "i") as instance:
        instance.take(Start("buy", None, orjson.dumps({"item": "book"})), START)
        for answer in (
            Completion("TaskCompleted", 1, 1, b'"book"'),
            Completion("TaskCompleted", 1, 2, b"null"),
            Completion("SubOrchestrationInstanceCompleted", 1, 3, b"null"),
            Completion("EntityOperationCompleted", 1, 4, b"null"),
        ):
            instance.take(answer, START + answer.task)
        cut = {"SubOrchestrationInstanceCreated": 7, "EntityOperationCalled": 6}
        cut |= {"EntityOperationSignaled": 7, "EventSent": 6}
        assert set(cut) < {event[0] for event in instance.history}
        instance.history = [event[: cut.get(event[0])] for event in instance.history]
        instance.lookup = Lookup(release(OrderWithAmount), 1_000_000)

        assert len(instance.restored().history) == len(instance.history)
